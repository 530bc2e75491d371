//! Three providers in three versions for four platforms, into registries that others wrote: what
//! arrives is what OpenTofu itself mirrors, GnuPG finds it signed, and OpenTofu installs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tofufs::digest::Digest;

use crate::Bed;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::origin::Published;
use crate::support::tls::Tls;
use crate::support::zot::Zot;
use crate::support::{pack, program};

const KINDS: [&str; 3] = ["one", "two", "three"];
const VERSIONS: [&str; 3] = ["1.0.0", "1.1.0", "1.2.0"];
const PLATFORMS: [&str; 4] = ["darwin_arm64", "linux_amd64", "linux_arm64", "windows_amd64"];

/// A registry that somebody else wrote, and where it has its blobs.
struct Peer {
    host: String,
    authority: PathBuf,
    blob: BlobPlace,
}

/// Where a blob of a repository lies on the registry's disk.
type BlobPlace = Box<dyn Fn(&str, &Digest) -> PathBuf>;

fn publish(bed: &mut Bed) -> Vec<Published> {
    let mut all = Vec::new();
    for kind in KINDS {
        for version in VERSIONS {
            let mut release = bed.origin.unsigned(kind, version);
            let other = PLATFORMS[3];
            let zip = pack::provider_zip(kind, version, format!("{kind} {version}").as_bytes());
            let sum = Digest::of(&zip).hex();
            release.sums += &format!("{sum}  {}\n", release.file(&format!("{other}.zip")));
            release.zips.insert(other.to_owned(), zip);
            release.signature = bed.origin.gpg.sign(&bed.origin.key, release.sums.as_bytes(), &[]);
            let key = bed.origin.gpg.export(&bed.origin.key);
            bed.origin.serve(&release, &[key]);
            all.push(release);
        }
    }
    all
}

fn tofu(bed: &Bed, dir: &Path, authority: &Path, configuration: &str, words: &[&str]) {
    fs::write(dir.join("rc"), configuration).unwrap();
    let mut command = Command::new(program("tofu").expect("looked for before"));
    command.args(words).current_dir(dir).env_clear().stdin(Stdio::null());
    command.env("HOME", bed.path("home")).env("PATH", std::env::var_os("PATH").unwrap());
    command.env("TF_CLI_CONFIG_FILE", dir.join("rc")).env("SSL_CERT_FILE", authority);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// A working directory that requires all of them.
fn requiring(bed: &Bed, label: &str) -> PathBuf {
    let dir = bed.path(label);
    fs::create_dir(&dir).unwrap();
    let required: String = KINDS
        .map(|kind| format!("    {kind} = {{ source = \"{}\" }}\n", bed.address(kind)))
        .concat();
    let text = format!("terraform {{\n  required_providers {{\n{required}  }}\n}}\n");
    fs::write(dir.join("main.tf"), text).unwrap();
    dir
}

fn all_arrives(peer: &Peer) {
    if program("tofu").is_none() {
        return;
    }
    let Some(mut bed) = Bed::new() else { return };
    let releases = publish(&mut bed);
    let list = KINDS.map(|kind| format!("{} ~> 1.0\n", bed.address(kind))).concat();
    fs::write(bed.path("list"), list).unwrap();
    let authority = peer.authority.display().to_string();
    let to = format!("{}/mirror", peer.host);
    let words = ["--list", "list", "--ca-file", &authority, "--to", &to];
    let first = bed.lines(&words);
    assert_eq!(first.len(), KINDS.len() * VERSIONS.len());

    // What was kept vouches for what arrived.
    let ring = bed.origin.gpg.run(&["--export", &bed.origin.key]);
    for release in &releases {
        let repo = format!("mirror/acme/{}", release.kind);
        let kept = |bytes: &[u8]| fs::read((peer.blob)(&repo, &Digest::of(bytes)));
        assert!(bed.origin.gpg.is_good(
            &ring,
            &kept(release.sums.as_bytes()).unwrap(),
            &kept(&release.signature).unwrap()
        ));
        for zip in release.zips.values() {
            assert!(kept(zip).unwrap() == *zip);
        }
    }

    // Again: no package, and of the origin two documents beside the lists.
    let (asked, zips) = (bed.origin.server.requests().len(), bed.origin.zips_sent());
    let again = bed.lines(&[&words[..], &["--json"]].concat());
    let again: Vec<Value> = again.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (told, line) in again.iter().zip(&first) {
        assert_eq!(told["uploaded_bytes"], 0);
        let (reference, digest) = (&told["reference"], &told["digest"]);
        let told = format!("{}@{}", reference.as_str().unwrap(), digest.as_str().unwrap());
        assert_eq!(told, *line);
    }
    assert_eq!(bed.origin.zips_sent(), zips);
    let requests = bed.origin.server.requests().len() - asked;
    println!("{}: {} releases again: {requests} requests to the origin", peer.host, again.len());
    assert_eq!(requests, KINDS.len() + 1);

    // What OpenTofu itself mirrors has the same bytes.
    let dir = requiring(&bed, "theirs");
    let platforms = PLATFORMS.map(|platform| format!("-platform={platform}"));
    let mut words = vec!["providers", "mirror"];
    words.extend(platforms.iter().map(String::as_str));
    words.push("mirrored");
    tofu(&bed, &dir, &bed.origin.authority, "", &words);
    for kind in KINDS {
        for platform in PLATFORMS {
            let name = format!("terraform-provider-{kind}_1.2.0_{platform}.zip");
            let zip = fs::read(dir.join("mirrored").join(bed.address(kind)).join(name)).unwrap();
            let blob = (peer.blob)(&format!("mirror/acme/{kind}"), &Digest::of(&zip));
            assert!(fs::read(blob).unwrap() == zip, "{kind} for {platform}");
        }
    }

    // OpenTofu installs it by its own oci_mirror.
    let dir = requiring(&bed, "ours");
    let mirror = format!(
        "provider_installation {{\n  oci_mirror {{\n    repository_template = \
         \"{to}/${{namespace}}/${{type}}\"\n    include = [\"{}/*/*\"]\n  }}\n}}\n",
        bed.origin.host
    );
    tofu(&bed, &dir, &peer.authority, &mirror, &["init", "-input=false"]);
    let locked = fs::read_to_string(dir.join(".terraform.lock.hcl")).unwrap();
    assert_eq!(locked.matches("version = \"1.2.0\"").count(), KINDS.len(), "{locked}");
}

#[test]
fn all_arrives_in_docker_s_registry() {
    let Some(registry) = DockerRegistry::start(Access::Anybody, true) else { return };
    let blobs = registry.dir().join("storage/docker/registry/v2/blobs/sha256");
    let blob = move |_: &str, digest: &Digest| {
        let hex = digest.hex().to_string();
        blobs.join(&hex[..2]).join(&hex).join("data")
    };
    let authority = registry.ca_file().expect("it speaks TLS");
    all_arrives(&Peer { host: registry.host(), authority, blob: Box::new(blob) });
}

#[test]
fn all_arrives_in_zot() {
    let dir = tempfile::tempdir().unwrap();
    let [authority, certificate, key] = Tls::new().write(dir.path());
    let Some(zot) = Zot::start(Some((&certificate, &key))) else { return };
    let store = zot.store();
    let blob = move |repo: &str, digest: &Digest| {
        store.join(repo).join("blobs/sha256").join(&*digest.hex())
    };
    let host = zot.host();
    all_arrives(&Peer { host, authority, blob: Box::new(blob) });
}
