//! Documents that strangers write: whatever their bytes, reading them ends with a value or an
//! error.
//!
//! Of each kind a fifth as many are made up as archives.

use std::path::Path;
use std::sync::Arc;
use std::{fs, panic};

use fastrand::Rng;
use tofufs::digest::Digest;
use tofufs::oci::Manifest;

use crate::{kept, numbers, readers};

/// A document changed in some places: bytes, and pieces of this document or of others.
fn changed(rng: &mut Rng, seeds: &[&[u8]], words: &[&str]) -> Vec<u8> {
    let mut text = rng.choice(seeds).expect("seeds").to_vec();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=text.len());
        let end = (at + rng.usize(..24)).min(text.len());
        let word = rng.choice(words).expect("words");
        match rng.u8(..9) {
            0 => drop(text.splice(at..end, [])),
            1 => text.truncate(at),
            2 if at < text.len() => text[at] ^= 1 << rng.u8(..8),
            3 => text.insert(at, rng.u8(..)),
            4 => {
                let piece = text[at..end].repeat(rng.usize(1..5));
                drop(text.splice(at..at, piece));
            }
            5 => {
                let other = rng.choice(seeds).expect("seeds");
                let from = rng.usize(..=other.len());
                let piece = &other[from..(from + rng.usize(..60)).min(other.len())];
                drop(text.splice(at..at, piece.iter().copied()));
            }
            6 => drop(text.splice(at..end, word.bytes())),
            7 => drop(text.splice(at..at, word.repeat(rng.usize(1..200)).bytes())),
            _ => drop(text.splice(at..at, word.bytes())),
        }
    }
    text
}

/// Calls `read` with many changed documents. A panic names the case, and what was read is kept.
fn each(what: &str, seeds: &[&[u8]], words: &[&str], read: impl Fn(&[u8])) {
    for number in numbers(5) {
        let mut rng = Rng::with_seed(number);
        let text = changed(&mut rng, seeds, words);
        if panic::catch_unwind(panic::AssertUnwindSafe(|| read(&text))).is_err() {
            panic!(
                "{what}: case {number} panics ({})",
                kept(&format!("{what}-{number}"), &text).display()
            );
        }
    }
}

/// What nests, ends early, or is out of range.
const WORDS: &[&str] = &[
    "[",
    "{",
    "(",
    "\"${",
    "<<E\n",
    "!",
    "-",
    "a ? b : ",
    "a.",
    "*",
    "%{if a}",
    "[for a in ",
    "a(",
    "a{",
    "}",
    "]",
    ")",
    "/*",
    "${",
    "\\",
    "\\u",
    "\u{fffd}",
    "\0",
    "\n",
    "\r",
    "\"",
    "9999999999999999999999",
    "-1",
    "1e999",
    "null",
    "true",
    "\u{e9}",
    "\u{feff}",
    "{\"a\":",
    "a {\n",
    "a = {\n",
];

#[test]
fn reading_a_manifest_ends() {
    const DESCRIPTOR: &str = r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"annotations":{"org.opencontainers.image.ref.name":"1.0.0"}}"#;
    let image = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.opentofu.modulepkg","config":{{"mediaType":"application/vnd.oci.empty.v1+json",{DESCRIPTOR},"layers":[{{"mediaType":"archive/zip",{DESCRIPTOR}]}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","artifactType":"application/vnd.opentofu.provider","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.opentofu.provider-target","platform":{{"os":"linux","architecture":"amd64"}},{DESCRIPTOR}]}}"#
    );
    let target = image.replace("modulepkg", "provider-target");
    for seed in [&image, &index, &target] {
        Manifest::parse(Arc::from(seed.as_bytes()), Digest::of(seed.as_bytes()), None)
            .expect("a good seed");
    }
    let seeds = [
        image.as_bytes(),
        index.as_bytes(),
        target.as_bytes(),
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    ];
    each("manifest", &seeds, WORDS, readers::manifest);
}

#[test]
fn reading_lock_files_and_configurations_ends() {
    const LOCK: &[u8] = br#"# This file
provider "registry.opentofu.org/hashicorp/null" {
  version     = "3.2.1"
  constraints = ">= 3.0.0, ~> 3.2, != 3.1.0"
  hashes = [
    "h1:FbGfc+muBsC17Ohy5g806iuI1hQc4SIexpYCrQHQd8w=",
    "zh:58ed64389620cc7b82f01332e27723856422820cfd302e304b5f6c3436fb9840",
  ]
}
"#;
    const ROOT: &[u8] = br#"terraform {
  required_providers {
    a = { source = "acme/a", version = "~> 1.0" }
    b = "1.0"
  }
}
module "m" {
  source = "oci://ghcr.io/acme/network?tag=1.0.0"
  x = [for a in b : a ? "${c}" : <<E
text ${d}
E
  ]
}
resource "x_y" "z" { provider = x.a }
"#;
    const JSON: &[u8] = br#"{"terraform":{"required_providers":{"a":{"source":"acme/a","version":"~> 1.0"},"b":"1"}},"module":{"m":{"source":"oci://ghcr.io/acme/n"}},"resource":[{"x_y":{"z":{"provider":"x.a"}}}],"provider":{"a":[{"version":"1"}]}}"#;
    each("hcl", &[LOCK, ROOT, JSON], WORDS, |text| {
        readers::lock_file(text);
        readers::configuration(text);
    });
}

#[test]
fn reading_client_configurations_ends() {
    const HCL: &[u8] = br#"plugin_cache_dir = "$HOME/.c"
provider_installation {
  dev_overrides { "acme/x" = "/tmp/x" }
  oci_mirror {
    repository_template = "ghcr.io/${namespace}/x-${type}"
    include = ["registry.opentofu.org/*/*"]
  }
  filesystem_mirror { path = "/x" }
  direct { exclude = ["*/*"] }
}
oci_credentials "ghcr.io/acme" {
  username = "u"
  password = "p"
}
oci_default_credentials {
  discover_ambient_credentials = true
  docker_style_config_files = ["/x"]
}
credentials "x" { token = <<-E
  t
  E
}
"#;
    const JSON: &[u8] = br#"{"provider_installation":[{"oci_mirror":[{"repository_template":"ghcr.io/${namespace}/${type}","include":["a/b"]}],"direct":{}}],"oci_credentials":{"ghcr.io":{"access_token":"a","refresh_token":"b"}}}"#;
    each("tofurc", &[HCL, JSON], WORDS, readers::cli_configuration);
}

#[test]
fn reading_docker_configurations_ends() {
    const DOCKER: &[u8] = br#"{"auths":{"ghcr.io":{"auth":"dTpw","identitytoken":"x"},"https://index.docker.io/v1/":{"auth":"dTpw"},"ghcr.io/acme":{"username":"u","password":"p"}},"credHelpers":{"x.io":"none-such"},"credsStore":"none-such-either"}"#;
    each("docker", &[DOCKER], WORDS, readers::docker_configuration);
}

const NAMES: &[&[u8]] = &[
    b"ghcr.io/acme/network:1.2.3",
    b"localhost:5000/a/b@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    b"ghcr.io/${namespace}/x-${type}",
    b"registry.opentofu.org/hashicorp/aws",
    b"1.2.3-rc.1+build.5",
    b"~> 1.2, >= 1.0.0, != 1.1",
    b"*/*/*",
    b"linux_amd64",
    b"[::1]:5000",
];

const NAME_WORDS: &[&str] = &[
    "/",
    ":",
    "@",
    ".",
    "..",
    "_",
    "-",
    "sha256:",
    "${namespace}",
    "${type}",
    "${hostname}",
    "$${",
    "${",
    "}",
    "*",
    "?",
    "[",
    "\u{e9}",
    "\u{130}",
    "xn--",
    "]:",
    "999999999999999999999999",
    "18446744073709551615",
    "+",
    "~>",
    ">=",
    "!=",
    ",",
    " ",
    "\0",
];

#[test]
fn reading_a_name_ends() {
    each("name", NAMES, NAME_WORDS, readers::name);
}

/// A tar of one layout, as `tar` writes it.
fn tar(dir: &Path) -> Vec<u8> {
    let layout = dir.join("reg.example/acme/x");
    fs::create_dir_all(layout.join("blobs/sha256")).expect("a writable directory");
    let manifest = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.opentofu.modulepkg","layers":[]}"#;
    let digest = Digest::of(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"1.0.0"}}}}]}}"#,
        manifest.len()
    );
    let blob = format!("blobs/sha256/{}", digest.hex());
    for (name, text) in [
        (&*blob, manifest),
        ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", &index),
    ] {
        fs::write(layout.join(name), text).expect("a writable directory");
    }
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all("reg.example", dir.join("reg.example")).expect("memory");
    builder.into_inner().expect("memory")
}

#[test]
fn reading_an_archive_of_layouts_ends() {
    const TAR_WORDS: &[&str] = &[
        "\0\0\0\0",
        "ustar\0",
        "00000000000\0",
        "77777777777\0",
        "../",
        "reg.example/acme/x/",
        "x",
        "L",
        "K",
        "1",
        "2",
        "5",
        "\u{fffd}",
        "size=99999999999999999999\n",
        "path=",
        "22 path=a\n",
        "oci-layout",
        "index.json",
        "{}",
        "[]",
    ];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let seed = tar(dir.path());
    assert_eq!(readers::bundle(&seed), 1, "a good seed");
    each("tar", &[&seed], TAR_WORDS, |text| {
        readers::bundle(text);
    });
}
