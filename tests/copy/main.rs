//! `tofufs copy`: between registries, stores and archives, everything as it is.
//!
//! What is not installed is skipped with a printed reason.

mod faults;

#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::docker_registry::{Access, DockerRegistry};
use support::hostile::Hostile;
use support::pack::{self, Artifact, Document};
use support::{layouts, program};
use tofufs::digest::Digest;
use tofufs::oci::{IMAGE, INDEX};

/// A directory for stores, and for a user's home.
struct Bed {
    dir: tempfile::TempDir,
    plain: Vec<String>,
}

impl Bed {
    /// Registries of these names are spoken to without TLS.
    fn new<S: ToString>(plain: &[S]) -> Bed {
        Bed { dir: tempfile::tempdir().unwrap(), plain: plain.iter().map(S::to_string).collect() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn copy<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        let mut command = Command::new(crate::support::world::program());
        command
            .arg("copy")
            .args(self.plain.iter().flat_map(|host| ["--plain-http", host]))
            .args(words);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).env_clear();
        command
            .env("HOME", self.path("home"))
            .env("REGISTRY_AUTH_FILE", self.path("auth/config.json"));
        support::mount::finish(command)
    }

    /// The lines of a copy that succeeds.
    #[track_caller]
    fn copied<S: AsRef<OsStr>>(&self, words: &[S]) -> Vec<String> {
        let output = self.copy(words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The one line of a copy that fails.
    #[track_caller]
    fn refused<S: AsRef<OsStr>>(&self, words: &[S], code: i32, says: &[&str]) -> String {
        let output = self.copy(words);
        let text = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let line = text.lines().last().unwrap_or_default().to_owned();
        for part in says {
            assert!(line.contains(part), "{line:?} lacks {part:?}");
        }
        line
    }
}

/// An index of an index of images, of no kind that OpenTofu knows: a config with content, layers of
/// which one is empty.
fn image() -> Artifact {
    let blob = |bytes: &[u8], media_type: &str| json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let (config, layer) = (b"{\"os\":\"linux\"}".to_vec(), vec![7; 300_000]);
    let document =
        |media_type, value: Value| Document { media_type, bytes: value.to_string().into_bytes() };
    let named = |document: &Document| json!({"mediaType": document.media_type, "digest": document.digest().to_string(), "size": document.bytes.len()});
    let config_of = blob(&config, "application/vnd.oci.image.config.v1+json");
    let layers = json!([blob(&layer, "application/vnd.oci.image.layer.v1.tar")]);
    let image = document(
        IMAGE,
        json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config_of, "layers": layers, "annotations": {"n": "1"}}),
    );
    let inner = document(
        INDEX,
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named(&image)]}),
    );
    let outer = document(
        INDEX,
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named(&inner), named(&image)]}),
    );
    Artifact { blobs: vec![config, layer], manifests: vec![image, inner, outer] }
}

fn artifacts() -> Vec<(&'static str, &'static str, Artifact)> {
    vec![
        ("acme/net", "1.0.0", pack::module(&[("main.tf", b"# 1\n")])),
        ("acme/net", "2.0.0", pack::module(&[("main.tf", b"# 2\n")])),
        (
            "acme/providers/hello",
            "0.1.0",
            pack::provider("hello", "0.1.0", &["linux_amd64", "darwin_arm64"]),
        ),
        ("tools/image", "latest", image()),
    ]
}

fn publish(server: &Hostile, repo: &str, tag: &str, artifact: &Artifact) {
    for blob in &artifact.blobs {
        server.put_blob(blob);
    }
    for document in &artifact.manifests {
        server.put_manifest(repo, None, document.media_type, &document.bytes);
    }
    server.put_manifest(repo, Some(tag), artifact.root().media_type, &artifact.root().bytes);
}

/// A registry that holds [`artifacts`].
fn full() -> Hostile {
    let server = Hostile::start();
    for (repo, tag, artifact) in artifacts() {
        publish(&server, repo, tag, &artifact);
    }
    server
}

/// Everything of [`artifacts`] is in a registry, below `prefix`.
fn check(registry: &DockerRegistry, prefix: &str) {
    for (repo, tag, artifact) in artifacts() {
        let client = registry.push(&format!("{prefix}{repo}"));
        assert!(client.get(&format!("manifests/{tag}")) == artifact.root().bytes, "{repo}:{tag}");
        for document in &artifact.manifests {
            assert!(
                client.get(&format!("manifests/{}", document.digest())) == document.bytes,
                "{repo}:{tag}"
            );
        }
        for blob in &artifact.blobs {
            assert!(client.get(&format!("blobs/{}", Digest::of(blob))) == *blob, "{repo}:{tag}");
        }
    }
}

fn lines(host: &str, prefix: &str) -> Vec<String> {
    let line = |(repo, tag, artifact): &(&str, &str, Artifact)| {
        format!("{host}/{prefix}{repo}:{tag}@{}", artifact.digest())
    };
    let mut lines: Vec<String> = artifacts().iter().map(line).collect();
    lines.sort();
    lines
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn a_registry_is_copied_into_a_part_of_another() {
    for access in [Access::Token, Access::Htpasswd] {
        let Some(to) = DockerRegistry::start(access, false) else { return };
        let from = full();
        let bed = Bed::new(&[from.host(), to.host()]);
        to.write_docker_config(&bed.path("auth"));
        let destination = format!("{}/mirror/ghcr", to.host());
        let copied = bed.copied(&[&from.host(), &destination]);
        assert_eq!(sorted(copied), lines(&to.host(), "mirror/ghcr/"));
        check(&to, "mirror/ghcr/");
        let before = from.requests().len();
        assert_eq!(
            sorted(bed.copied(&[&from.host(), &destination])),
            lines(&to.host(), "mirror/ghcr/")
        );
        let again =
            from.requests()[before..].iter().filter(|seen| seen.path.contains("/blobs/")).count();
        assert_eq!(again, 0, "no blob is read again");
    }
}

#[test]
fn a_store_between_two_registries_changes_nothing() {
    let Some(to) = DockerRegistry::start(Access::Anybody, false) else { return };
    let from = full();
    let bed = Bed::new(&[from.host(), to.host()]);
    let store = format!("oci:{}", bed.path("store").display());
    assert_eq!(sorted(bed.copied(&[&from.host(), &store])), lines(&from.host(), ""));
    let requests = from.requests().len();
    assert_eq!(sorted(bed.copied(&[&store, &to.host()])), lines(&to.host(), ""));
    assert_eq!(from.requests().len(), requests, "the store holds all of it");
    check(&to, "");
    let Some(skopeo) = program("skopeo") else { return };
    let layout = bed.path("store").join(from.host()).join("tools/image");
    // skopeo takes no path with a colon in it
    let plain = bed.path("plain");
    std::fs::rename(layout, &plain).unwrap();
    let output = Command::new(skopeo)
        .args(["inspect", "--raw"])
        .arg(format!("oci:{}:latest", plain.display()))
        .output()
        .unwrap();
    assert!(output.stdout == image().root().bytes, "{output:?}");
}

/// A store can have an index and lack what it names: a tag there says nothing of the rest.
#[test]
fn a_copy_into_a_store_adds_what_is_lacking_behind_a_tag() {
    let from = full();
    let bed = Bed::new(&[from.host()]);
    let (repo, tag, artifact) = &artifacts()[0];
    let (source, store) =
        (format!("{}/{repo}:{tag}", from.host()), format!("oci:{}", bed.path("store").display()));
    bed.copied(&[&source, &store]);
    let layout = bed.path("store").join(from.host()).join(repo);
    for blob in &artifact.blobs {
        std::fs::remove_file(layouts::blob_path(&layout, &Digest::of(blob))).unwrap();
    }
    bed.copied(&[&source, &store]);
    for blob in &artifact.blobs {
        assert!(std::fs::read(layouts::blob_path(&layout, &Digest::of(blob))).unwrap() == *blob);
    }
}

#[test]
fn an_archive_between_two_registries_changes_nothing() {
    let Some(to) = DockerRegistry::start(Access::Token, false) else { return };
    let from = full();
    let bed = Bed::new(&[from.host(), to.host()]);
    to.write_docker_config(&bed.path("auth"));
    let archive = format!("oci-archive:{}", bed.path("all.tar").display());
    // in two steps: what is there stays
    let one = format!("{}/acme/net:1.0.0", from.host());
    assert_eq!(bed.copied(&[&one, &archive]), [format!("{one}@{}", artifacts()[0].2.digest())]);
    assert_eq!(sorted(bed.copied(&[&from.host(), &archive])), lines(&from.host(), ""));
    drop(from);
    assert_eq!(
        sorted(bed.copied(&[&archive, &format!("{}/in", to.host())])),
        lines(&to.host(), "in/")
    );
    check(&to, "in/");
}

#[test]
fn one_artifact_is_copied_under_a_name_or_into_a_layout() {
    let (from, to) = (full(), Hostile::start());
    let bed = Bed::new(&[from.host(), to.host()]);
    let digest = image().digest();
    let source = format!("{}/tools/image:latest", from.host());
    let renamed = format!("{}/other/name:v1", to.host());
    assert_eq!(bed.copied(&[&source, &renamed]), [format!("{renamed}@{digest}")]);
    assert_eq!(to.manifest("other/name", "v1"), Some(image().root().bytes.clone()));
    // by digest, which has no tag
    let by_digest = format!("{}/tools/image@{digest}", from.host());
    assert_eq!(
        bed.copied(&[&by_digest, &to.host()]),
        [format!("{}/tools/image@{digest}", to.host())]
    );
    assert_eq!(to.manifest("tools/image", "latest"), None);

    let layout = format!("oci:{}:v2", bed.path("a layout").display());
    assert_eq!(bed.copied(&[&source, &layout]), [format!("{layout}@{digest}")]);
    assert!(bed.path("a layout/oci-layout").is_file());
    let back = format!("{}/back:v3", to.host());
    assert_eq!(bed.copied(&[&layout, &back]), [format!("{back}@{digest}")]);
    assert_eq!(to.manifest("back", "v3"), Some(image().root().bytes.clone()));
    // a layout that others wrote
    let module = pack::module(&[("main.tf", b"# x\n")]);
    let theirs = layouts::add(&bed.path("s"), "reg.example", "net", "1.0.0", &module);
    let words = [format!("oci:{}:1.0.0", theirs.display()), format!("{}/net:1", to.host())];
    assert_eq!(bed.copied(&words), [format!("{}@{}", words[1], module.digest())]);
}

#[test]
fn two_hosts_that_hold_one_name_are_kept_apart_or_refused() {
    let to = Hostile::start();
    let bed = Bed::new(&[to.host()]);
    let store = bed.path("store");
    for (host, content) in [("a.example", "# a\n"), ("b.example", "# b\n")] {
        layouts::add(
            &store,
            host,
            "acme/net",
            "1.0.0",
            &pack::module(&[("main.tf", content.as_bytes())]),
        );
    }
    let words = [format!("oci:{}", store.display()), format!("{}/x", to.host())];
    let says = [
        "a.example/acme/net",
        "b.example/acme/net",
        "--keep-host",
        &format!("{}/x/acme/net", to.host()),
    ];
    bed.refused(&words, 1, &says);
    assert!(to.requests().is_empty());
    let lines = bed.copied(&[&words[0], &words[1], "--keep-host"]);
    assert!(
        lines[0].starts_with(&format!("{}/x/a.example/acme/net:1.0.0@sha256:", to.host())),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 2);
    layouts::add(
        &store,
        "c.example:5000",
        "acme/net",
        "1.0.0",
        &pack::module(&[("main.tf", b"# c\n")]),
    );
    bed.refused(
        &[&words[0], &words[1], "--keep-host"],
        1,
        &["c.example:5000/acme/net", "not a repository name"],
    );
}

#[test]
fn json_has_the_fields_of_a_push() {
    let (from, to) = (full(), Hostile::start());
    let bed = Bed::new(&[from.host(), to.host()]);
    let module = &artifacts()[0].2;
    let size = module.blobs.iter().map(Vec::len).sum::<usize>();
    let words = [format!("{}/acme/net:1.0.0", from.host()), to.host(), "--json".to_owned()];
    let read = |lines: Vec<String>| serde_json::from_str::<Value>(&lines[0]).unwrap();
    let reference = format!("{}/acme/net:1.0.0", to.host());
    let wanted = |sent: usize, skipped: usize| {
        json!({
            "reference": reference, "digest": module.digest().to_string(), "tag": "1.0.0",
            "uploaded_bytes": sent, "skipped_blobs": skipped,
        })
    };
    assert_eq!(read(bed.copied(&words)), wanted(size, 0));
    assert_eq!(read(bed.copied(&words)), wanted(0, 2));
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let bed = Bed::new::<String>(&[]);
    for (source, destination, says) in [
        ("oci:/x", "a.example/b:1", "cannot have one name"),
        ("a.example", "oci:/x:1", "cannot have one name"),
        ("a.example/b:1", &format!("a.example/b@{}", Digest::of(b"")), "cannot be chosen"),
        ("oci:/x:1", "a.example/b", "says nothing of a repository"),
        ("acme", "a.example", "a source is"),
        ("a.example/B:1", "a.example", "not a repository name"),
    ] {
        bed.refused(&[source, destination], 2, &[says]);
    }
    bed.refused(&["a.example/b:1", "a.example/c:1", "--offline"], 1, &[]);
    assert!(!Path::new("/x").exists());
}

#[test]
fn an_ordinary_user_can_do_the_same() {
    support::world::again_as_ordinary(&["an_archive_between", "one_artifact_is_copied"]);
}

/// A signature's place is beside what it speaks about, wherever that goes.
#[test]
fn what_speaks_about_an_artifact_comes_along() {
    let from = Hostile::start();
    from.list_referrers();
    let release = pack::module(&[("main.tf", b"# 1\n")]);
    let digest = from.publish("acme/net", "1.0.0", &release);
    let said = |kind: &str, content: &[u8]| {
        let blob = from.put_blob(content);
        let text = json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json",
                "digest": from.put_blob(b"{}").to_string(), "size": 2},
            "layers": [{"mediaType": kind, "digest": blob.to_string(), "size": content.len()}],
            "subject": {"mediaType": IMAGE, "digest": digest.to_string(),
                "size": release.root().bytes.len()}});
        from.put_manifest("acme/net", None, IMAGE, text.to_string().as_bytes())
    };
    let note = said("application/vnd.acme.note", b"a note");
    let bundle = said("application/vnd.dev.sigstore.bundle.v0.3+json", b"{}");
    let Some(to) = DockerRegistry::start(Access::Anybody, false) else { return };
    let bed = Bed::new(&[from.host(), to.host()]);
    let source = format!("{}/acme/net:1.0.0", from.host());
    let listed = |at: &str| -> Vec<String> {
        let tags: Value = serde_json::from_slice(&to.push(at).get("tags/list")).unwrap();
        let tag = format!("sha256-{}", digest.hex());
        if !tags["tags"].as_array().unwrap().contains(&json!(tag)) {
            return Vec::new();
        }
        let list = to.push(at).get(&format!("manifests/sha256-{}", digest.hex()));
        let list: Value = serde_json::from_slice(&list).unwrap_or_default();
        let entries = list["manifests"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<_> =
            entries.iter().map(|e| e["digest"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    let both = || {
        let mut both = [note.to_string(), bundle.to_string()].to_vec();
        both.sort();
        both
    };
    for (words, at, wanted) in [
        (vec![], "all/net", both()),
        (vec!["--referrers", "signatures"], "some/net", vec![bundle.to_string()]),
        (vec!["--referrers", "none"], "none/net", vec![]),
        // what is there already is completed
        (vec![], "none/net", both()),
        (vec![], "none/net", both()),
    ] {
        let target = format!("{}/{at}:1.0.0", to.host());
        let words: Vec<&str> = words.into_iter().chain([&*source, &*target]).collect();
        bed.copied(&words);
        assert_eq!(listed(at), wanted, "{words:?}");
    }
    // through an archive, and from there into a registry again
    bed.copied(&[&*format!("{}/acme", from.host()), "oci-archive:b.tar"]);
    let before = std::fs::read(bed.path("b.tar")).unwrap();
    bed.copied(&[&*format!("{}/acme", from.host()), "oci-archive:b.tar"]);
    assert!(before == std::fs::read(bed.path("b.tar")).unwrap(), "the same again");
    let lines = bed.copied(&["oci-archive:b.tar", &format!("{}/back", to.host())]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(listed("back/acme/net"), both());
}
