//! `tofufs mirror`: from a provider registry into registries and stores, as an ordinary user would
//! type it; what is refused of it and in which words; who is killed on the way.
//!
//! What is not installed is skipped with a printed reason.

mod clients;
mod killed;
mod modules;
mod peers;
mod refusals;
mod selections;
mod taken;
mod tokens;
mod writers;

#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::hostile::Hostile;
use support::origin::Origin;
use tofufs::digest::Digest;

/// A directory for a user's home and stores, and the registry of the vendors.
struct Bed {
    dir: tempfile::TempDir,
    origin: Origin,
    environment: Vec<(String, String)>,
}

impl Bed {
    fn new() -> Option<Bed> {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start(dir.path())?;
        Some(Bed { dir, origin, environment: Vec::new() })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// `HOST/acme/KIND`
    fn address(&self, kind: &str) -> String {
        format!("{}/acme/{kind}", self.origin.host)
    }

    fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(support::world::program());
        command.arg("mirror").args(["--deadline", "20s", "--ca-file"]).arg(&self.origin.authority);
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().cloned());
        command
    }

    fn mirror<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        support::mount::finish(self.command(words))
    }

    /// The lines of a run that succeeds.
    #[track_caller]
    fn lines<S: AsRef<OsStr>>(&self, words: &[S]) -> Vec<String> {
        let output = self.mirror(words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// What a run says that fails.
    #[track_caller]
    fn refused<S: AsRef<OsStr>>(&self, words: &[S]) -> String {
        let output = self.mirror(words);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// The words by which a scripted registry without TLS is written to.
fn into(registry: &Hostile, words: &[&str]) -> Vec<String> {
    let host = registry.host();
    let to = ["--plain-http", &host, "--to", &format!("{host}/mirror")].map(str::to_owned);
    words.iter().map(|word| (*word).to_owned()).chain(to).collect()
}

/// The manifest of a platform in a release of the scripted registry.
fn platform_of(registry: &Hostile, repo: &str, tag: &str, platform: &str) -> Value {
    let index = registry.manifest(repo, tag).expect("a release");
    let index: Value = serde_json::from_slice(&index).unwrap();
    let (os, arch) = platform.split_once('_').unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let entry = entries
        .iter()
        .find(|entry| entry["platform"]["os"] == os && entry["platform"]["architecture"] == arch);
    let digest = entry.expect("the platform")["digest"].as_str().unwrap();
    serde_json::from_slice(&registry.manifest(repo, digest).unwrap()).unwrap()
}

/// The layers of such a manifest: title, media type, content.
fn layers(registry: &Hostile, manifest: &Value) -> Vec<(String, String, Vec<u8>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let layer = |layer: &Value| {
        let digest: Digest = layer["digest"].as_str().unwrap().parse().unwrap();
        let title = text(&layer["annotations"]["org.opencontainers.image.title"]);
        (title, text(&layer["mediaType"]), registry.blob(&digest).unwrap())
    };
    manifest["layers"].as_array().unwrap().iter().map(layer).collect()
}

#[test]
fn zips_and_what_vouches_for_them_arrive_byte_for_byte_and_once() {
    let Some(mut bed) = Bed::new() else { return };
    let registry = Hostile::start();
    let release = bed.origin.publish("one", "1.0.0");
    bed.origin.publish("one", "1.1.0");
    bed.origin.publish("one", "2.0.0");
    let words = into(&registry, &[&bed.address("one"), "~> 1.0"]);
    let first = bed.lines(&words);
    let repo = "mirror/acme/one";
    let wanted = |tag: &str| format!("{}/{repo}:{tag}@sha256:", registry.host());
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(first[0].starts_with(&wanted("1.0.0")) && first[1].starts_with(&wanted("1.1.0")));
    assert!(registry.manifest(repo, "2.0.0").is_none());

    for (platform, zip) in &release.zips {
        let manifest = platform_of(&registry, repo, "1.0.0", platform);
        let wanted = [
            (release.file(&format!("{platform}.zip")), "archive/zip", zip.clone()),
            (release.file("SHA256SUMS"), "text/plain", release.sums.clone().into()),
            (release.file("SHA256SUMS.sig"), "application/octet-stream", release.signature.clone()),
            (
                release.file("signing-key.asc"),
                "text/plain",
                bed.origin.gpg.export(&bed.origin.key).into(),
            ),
            (release.file("manifest.json"), "text/plain", release.manifest.clone().unwrap()),
        ]
        .map(|(title, media_type, content)| (title, media_type.to_owned(), content));
        assert!(layers(&registry, &manifest) == wanted, "{manifest}");
    }
    // What was kept is what GnuPG itself checks.
    let kept = layers(&registry, &platform_of(&registry, repo, "1.0.0", "linux_amd64"));
    let ring = bed.origin.gpg.run(&["--export", &bed.origin.key]);
    assert!(bed.origin.gpg.is_good(&ring, &kept[1].2, &kept[2].2));

    // A second run reads a list of versions and one of tags.
    let (fetched, before) = (bed.origin.server.requests().len(), registry.requests().len());
    assert_eq!(bed.lines(&words), first, "the same digests");
    let fetched = &bed.origin.server.requests()[fetched..];
    let fetched: Vec<&str> = fetched.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!(fetched, ["/.well-known/terraform.json", "/v1/providers/acme/one/versions"]);
    let asked = &registry.requests()[before..];
    assert!(asked.len() == 1 && asked[0].path.contains("/tags/"), "{asked:?}");

    // On a machine that remembers nothing, and for a check, each index is read, too.
    for forget in [true, false] {
        let state = bed.path("home/.local/state/tofufs/mirror");
        let mut words = words.clone();
        if forget {
            fs::remove_dir_all(&state).unwrap();
        } else {
            words.push("--check".to_owned());
        }
        let before = registry.requests().len();
        bed.lines(&words);
        let asked = &registry.requests()[before..];
        assert!(asked.iter().all(|seen| seen.method == "GET"), "{asked:?}");
        assert_eq!(asked.iter().filter(|seen| seen.path.contains("/manifests/")).count(), 2);
        assert_eq!(asked.len(), 3, "{asked:?}");
    }
    // What somebody has taken away is there again.
    registry.remove_tag(repo, "1.1.0");
    assert_eq!(bed.lines(&words), first);
}

#[test]
fn the_same_platforms_have_the_same_digest_wherever_they_go_and_however_they_came() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    let registry = Hostile::start();
    let address = bed.address("one");
    let whole = bed.lines(&into(&registry, &[&address, "1.0.0"]));
    let digest = |lines: &[String]| lines[0].rsplit_once('@').unwrap().1.to_owned();

    let store = bed.lines(&[&address, "1.0.0", "--to", "oci:store"]);
    assert_eq!(digest(&store), digest(&whole));
    assert_eq!(store[0], format!("{address}:1.0.0@{}", digest(&store)), "the origin's own paths");
    assert!(bed.path("store").join(&address).join("index.json").is_file());

    // By one platform after the other, the last first.
    let other = Hostile::start();
    for platform in ["linux_arm64", "linux_amd64", "darwin_arm64"] {
        bed.lines(&into(&other, &[&address, "1.0.0", "--platform", platform]));
    }
    let parts = bed.lines(&into(&other, &[&address, "1.0.0"]));
    assert_eq!(digest(&parts), digest(&whole));
    let template = format!("{}/own/${{type}}-of-${{namespace}}", other.host());
    let line = bed.lines(&[&address, "1.0.0", "--plain-http", &other.host(), "--to", &template]);
    assert_eq!(line, [format!("{}/own/one-of-acme:1.0.0@{}", other.host(), digest(&whole))]);
    assert_eq!(fs::read_dir(bed.path("home/.local/state/tofufs/push")).unwrap().count(), 0);
}

#[test]
fn a_version_with_build_metadata_has_a_tag_that_spells_it() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0+b1");
    let registry = Hostile::start();
    let lines = bed.lines(&into(&registry, &[&bed.address("one"), "1.0.0+b1"]));
    assert!(lines[0].contains(":1.0.0_b1@sha256:"), "{lines:?}");
}
