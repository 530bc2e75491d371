//! What a provider's build leaves: a `dist/` as the usual template of GoReleaser fills it.

use serde_json::{Value, json};

use super::providers::{package, zip_name};
use super::*;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::{Mount, finish};
use tofufs::digest::Digest;

const MANIFEST: &str = "terraform-provider-hello_0.1.0_manifest.json";
const SUMS: &str = "terraform-provider-hello_0.1.0_SHA256SUMS";
const SIGNATURE: &str = "terraform-provider-hello_0.1.0_SHA256SUMS.sig";
const PLATFORMS: [&str; 2] = ["darwin_arm64", "linux_amd64"];
/// What lies there and is no part of the release.
const REST: [&str; 4] = ["CHANGELOG.md", "artifacts.json", "config.yaml", "metadata.json"];

fn dist(bed: &Bed) {
    let about = r#"{"version":1,"metadata":{"protocol_versions":["5.0","6.0"]}}"#;
    let mut sums = format!("{}  {MANIFEST}\n", Digest::of(about.as_bytes()).hex());
    bed.write(&format!("dist/{MANIFEST}"), about);
    for platform in PLATFORMS {
        bed.write(&format!("dist/{}", zip_name(platform)), package(platform));
        bed.write(
            &format!("dist/terraform-provider-hello_{platform}_v1/terraform-provider-hello_v0.1.0"),
            platform,
        );
        sums += &format!("{}  {}\n", Digest::of(&package(platform)).hex(), zip_name(platform));
    }
    bed.write(&format!("dist/{SUMS}"), sums);
    bed.write(&format!("dist/{SIGNATURE}"), b"\x88signed");
    for rest in REST {
        bed.write(&format!("dist/{rest}"), "{}");
    }
}

/// Releases of the registry by what they are made of: titles and media types of the layers, and the
/// protocols.
fn parts(registry: &DockerRegistry, repo: &str) -> Vec<Vec<(String, String)>> {
    let push = registry.push(repo);
    let document = |reference: &str| -> Value {
        serde_json::from_slice(&push.get(&format!("manifests/{reference}"))).unwrap()
    };
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    let index = document("0.1.0");
    let mut parts = Vec::new();
    for entry in index["manifests"].as_array().unwrap() {
        assert_eq!(
            entry["annotations"]["org.opentofu.provider.protocol-versions"], "5.0,6.0",
            "{entry}"
        );
        let manifest = document(entry["digest"].as_str().unwrap());
        assert_eq!(manifest["annotations"]["org.opentofu.provider.protocol-versions"], "5.0,6.0");
        let layers = manifest["layers"].as_array().unwrap().iter();
        let part = |layer: &Value| {
            (
                text(&layer["annotations"]["org.opencontainers.image.title"]),
                text(&layer["mediaType"]),
            )
        };
        parts.push(layers.map(part).collect());
    }
    parts
}

fn wanted() -> Vec<Vec<(String, String)>> {
    let beside =
        [(SUMS, "text/plain"), (SIGNATURE, "application/octet-stream"), (MANIFEST, "text/plain")];
    let owned = |(title, kind): (&str, &str)| (title.to_owned(), kind.to_owned());
    let release = |platform: &&str| {
        let zip = owned((&zip_name(platform), "archive/zip"));
        [zip].into_iter().chain(beside.map(owned)).collect()
    };
    PLATFORMS.iter().map(release).collect()
}

#[test]
fn what_a_build_leaves_is_a_release_however_it_is_named() {
    let bed = Bed::new();
    dist(&bed);
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    let host = registry.host();
    let pattern: Vec<String> = {
        let entries =
            fs::read_dir(bed.path("dist")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("terraform-provider-hello_"));
        names.sort();
        names.iter().map(|name| format!("dist/{name}")).collect()
    };
    let dir = vec!["dist".to_owned()];
    let mut digests = Vec::new();
    for (at, (paths, tag)) in
        [(dir.clone(), ":0.1.0"), (dir, ""), (pattern, "")].into_iter().enumerate()
    {
        let repo = format!("acme/hello{at}");
        let reference = format!("{host}/{repo}{tag}");
        let words: Vec<&str> = ["--plain-http", &host]
            .into_iter()
            .chain(paths.iter().map(String::as_str))
            .chain([&*reference])
            .collect();
        let output = bed.push(&words);
        assert!(output.status.success(), "{output:?}");
        let line = String::from_utf8(output.stdout).unwrap();
        assert!(line.starts_with(&format!("{host}/{repo}:0.1.0@sha256:")), "{line}");
        digests.push(digest_of(&line));
        assert_eq!(parts(&registry, &repo), wanted());
        let said = String::from_utf8(output.stderr).unwrap();
        let left: Vec<_> = said.lines().filter(|line| line.contains("left alone")).collect();
        assert_eq!(left.len(), 1, "{said}");
        assert!(left[0].contains("terraform-provider-hello_linux_amd64_v1"), "{said}");
        if paths.len() == 1 {
            assert!(REST.iter().all(|rest| left[0].contains(rest)), "{said}");
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    // As by a mount: copied, and moved.
    let Some(mount) = Mount::start(&[&host], plain(&host)) else { return };
    let staging = mount.join(format!("staging/{host}/acme/moved"));
    fs::create_dir_all(&staging).unwrap();
    let run = |program: &str, words: &[&Path]| {
        let mut command = Command::new(program);
        command.args(words).current_dir(bed.path("."));
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
    };
    run("cp", &[Path::new("-r"), Path::new("dist"), &staging.join("0.1.0")]);
    run("mv", &[&staging.join("0.1.0"), &mount.join(format!("{host}/acme/moved/"))]);
    assert_eq!(parts(&registry, "acme/moved"), wanted());
    assert!(!staging.join("0.1.0").exists());
    let zip = mount.join(format!("{host}/acme/moved/0.1.0/linux_amd64.zip"));
    assert!(fs::read(zip).unwrap() == package("linux_amd64"));
}

#[test]
fn two_releases_in_one_directory_are_none() {
    let other_version = "terraform-provider-hello_0.2.0_linux_386.zip";
    let other_provider = "terraform-provider-other_0.1.0_linux_386.zip";
    let other_manifest = "terraform-provider-hello_0.2.0_manifest.json";
    let no_versions = json!({"version": 1, "metadata": {"protocol_versions": ["six"]}}).to_string();
    for (file, content, part) in [
        (other_version, package("linux_386"), "is of version 0."),
        (other_provider, package("linux_386"), "of another provider"),
        (other_manifest, b"{}".to_vec(), "of another provider or version"),
        (MANIFEST, b"no JSON".to_vec(), "SHA-256"),
        ("main.tf", b"".to_vec(), "one or the other"),
    ] {
        let bed = Bed::new();
        dist(&bed);
        bed.write(&format!("dist/{file}"), &content);
        let error = bed.refused(1, &["dist", "127.0.0.1:1/acme/hello"]);
        assert!(error.contains(part), "{file}: {error}");
    }
    let bed = Bed::new();
    dist(&bed);
    fs::remove_file(bed.path(&format!("dist/{SUMS}"))).unwrap();
    bed.write(&format!("dist/{MANIFEST}"), no_versions);
    let error = bed.refused(1, &["dist", "127.0.0.1:1/acme/hello"]);
    assert!(error.contains("protocol_versions"), "{error}");
}
