//! Modules: into a registry and into a store, by whom they are read, and that they are the same on
//! every day.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::*;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::hostile::Hostile;
use crate::support::mount::Mount;

/// Every file with its content and whether it is executable.
fn tree(dir: &Path) -> BTreeMap<String, (Vec<u8>, bool)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let executable = fs::metadata(&path).unwrap().permissions().mode() & 0o100 != 0;
            found.insert(name, (fs::read(&path).unwrap(), executable));
        }
    }
    found
}

/// What of [`Bed::module`] is published.
fn published(dir: &Path) -> BTreeMap<String, (Vec<u8>, bool)> {
    let mut wanted = tree(dir);
    wanted.retain(|name, _| !name.starts_with(".git/") && !name.ends_with(".tmp"));
    assert_eq!(wanted.len(), 3);
    wanted
}

const READ_BY_ORAS: &str = r#"
import sys
import oras.client
host, repo, tag, out = sys.argv[1:]
client = oras.client.OrasClient(hostname=host, insecure=True)
client.pull(target=f"{host}/{repo}:{tag}", outdir=out)
"#;

#[test]
fn a_pushed_module_is_read_back_by_a_mount_and_by_other_programs() {
    let bed = Bed::new();
    let module = bed.module("network");
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    let host = registry.host();
    let reference = format!("{host}/acme/network:1.3.0");
    let line = bed.pushed(&["--plain-http", &host, "network", &reference]);
    assert_eq!(line, format!("{reference}@{}\n", digest_of(&line)));

    if let Some(mount) = Mount::start(&[&host], plain(&host)) {
        assert_eq!(tree(&mount.join(format!("{host}/acme/network/1.3.0"))), published(&module));
    }
    if let Some(skopeo) = support::program("skopeo") {
        let mut command = Command::new(skopeo);
        command
            .args(["inspect", "--raw", "--tls-verify=false"])
            .arg(format!("docker://{reference}"));
        let output = support::mount::finish(command);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(tofufs::digest::Digest::of(&output.stdout).to_string(), digest_of(&line));
    }
    if let Some(python) = support::oras_python() {
        let out = bed.path("pulled");
        let mut command = Command::new(python);
        command.args(["-c", READ_BY_ORAS, &host, "acme/network", "1.3.0"]).arg(&out);
        let output = support::mount::finish(command);
        assert!(output.status.success(), "{output:?}");
        let zip = fs::read(out.join("module.zip")).unwrap();
        assert!(zip.starts_with(b"PK\x03\x04"));
    }
}

#[test]
fn a_module_pushed_into_a_store_is_read_back_by_a_mount_and_by_skopeo() {
    let bed = Bed::new();
    let module = bed.module("network");
    let host = "registry.example";
    let line = bed.pushed(&["network", "oci:store/registry.example/acme/network:1.3.0"]);
    assert!(line.starts_with("registry.example/acme/network:1.3.0@sha256:"), "{line}");
    assert_eq!(bed.pushed(&["network", "oci:store/registry.example/acme/network:1.3.0"]), line);
    if let Some(mount) =
        Mount::start(&[format!("oci:{}", bed.path("store").display())], Options::new())
    {
        assert_eq!(tree(&mount.join(format!("{host}/acme/network/1.3.0"))), published(&module));
    }
    if let Some(skopeo) = support::program("skopeo") {
        let mut command = Command::new(skopeo);
        command.args(["inspect", "--raw"]);
        command.arg(format!(
            "oci:{}:1.3.0",
            bed.path("store/registry.example/acme/network").display()
        ));
        let output = support::mount::finish(command);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(tofufs::digest::Digest::of(&output.stdout).to_string(), digest_of(&line));
    }
}

/// The digest stands here, so that no later change moves it unnoticed.
#[test]
fn the_same_tree_on_another_day_has_the_same_digest_and_nothing_is_uploaded() {
    let bed = Bed::new();
    let module = bed.module("network");
    let registry = Hostile::start();
    let host = registry.host();
    let reference = format!("{host}/acme/network:1.3.0");
    let words = ["--plain-http", &host, "--json", "network", &reference];
    let first: Value = serde_json::from_str(&bed.pushed(&words)).unwrap();
    assert_eq!(
        first["digest"],
        "sha256:8551daeed75970810a083b790268bc797c1e880a95e7298422d270cd8917ac33"
    );
    assert_eq!(
        (&first["reference"], &first["tag"]),
        (&Value::from(reference.clone()), &Value::from("1.3.0"))
    );
    assert!(
        first["uploaded_bytes"].as_u64().unwrap() > 100 && first["skipped_blobs"] == 0,
        "{first}"
    );

    another_day(&module);
    let before = registry.requests().len();
    let again: Value = serde_json::from_str(&bed.pushed(&words)).unwrap();
    assert_eq!((&again["digest"], &again["uploaded_bytes"]), (&first["digest"], &Value::from(0)));
    let requests: Vec<_> =
        registry.requests().split_off(before).into_iter().map(|seen| seen.method).collect();
    assert_eq!(requests, ["HEAD"]);

    // Under another tag the blobs are there, and so is the manifest.
    let other = bed.pushed(&[
        "--plain-http",
        &host,
        "--json",
        "network",
        &format!("{host}/acme/network:1.4.0"),
    ]);
    let other: Value = serde_json::from_str(&other).unwrap();
    assert_eq!((&other["digest"], &other["uploaded_bytes"]), (&first["digest"], &Value::from(0)));
    assert_eq!(other["skipped_blobs"], 2);
}

#[test]
fn several_tags_stand_for_one_release() {
    let bed = Bed::new();
    bed.module("network");
    let registry = Hostile::start();
    let host = registry.host();
    let words = ["--plain-http", &host, "--tag", "1.3", "--tag", "latest", "network"];
    let text = bed.pushed(&[&words[..], &[&format!("{host}/acme/network:1.3.0")]].concat());
    let tags: Vec<_> = text
        .lines()
        .map(|line| line.split('@').next().unwrap().rsplit_once(':').unwrap().1)
        .collect();
    assert_eq!(tags, ["1.3.0", "1.3", "latest"]);
    let digests: std::collections::BTreeSet<_> = text.lines().map(digest_of).collect();
    assert_eq!(digests.len(), 1);
    let uploads = registry.requests().iter().filter(|seen| seen.method == "POST").count();
    assert_eq!(uploads, 2);
}

#[test]
fn of_several_tags_one_that_is_taken_is_found_before_anything_is_sent() {
    let bed = Bed::new();
    bed.module("network");
    bed.write("other/main.tf", "x");
    let registry = Hostile::start();
    let host = registry.host();
    bed.pushed(&["--plain-http", &host, "other", &format!("{host}/acme/network:latest")]);
    let before = registry.requests().len();
    let reference = format!("{host}/acme/network:1.3.0");
    let error = bed.refused(1, &["--plain-http", &host, "--tag", "latest", "network", &reference]);
    assert!(error.contains("acme/network:latest: the tag stands for"), "{error}");
    assert!(registry.requests()[before..].iter().all(|seen| seen.method == "HEAD"));
}

/// Also while the registry is silent; the same command goes on from there.
#[test]
fn a_push_that_is_interrupted_says_how_to_go_on() {
    use rustix::process::{Pid, Signal, kill_process};

    let bed = Bed::new();
    bed.module("network");
    let registry = Hostile::start();
    registry.rule(|seen| seen.method == "PUT", support::hostile::Behaviour::Silence);
    let host = registry.host();
    let words = ["--plain-http", &host, "network", &format!("{host}/acme/network:1.3.0")];
    let child = bed.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waits = || registry.requests().iter().any(|seen| seen.method == "PUT");
    assert!(support::wait_until(Duration::from_secs(30), waits));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("stopped; what was uploaded is kept"), "{text}");
    registry.behave();
    bed.pushed(&words);
}

#[test]
fn a_zip_is_pushed_byte_for_byte() {
    let bed = Bed::new();
    let zip = support::pack::zip(&[("main.tf", b"x"), ("run.sh!", b"y")]);
    bed.write("module.zip", &zip);
    bed.write("bad.zip", "no zip at all");
    let registry = Hostile::start();
    let host = registry.host();
    let reference = format!("{host}/acme/network:1.0.0");
    let digest = digest_of(&bed.pushed(&["--plain-http", &host, "module.zip", &reference]));
    let manifest: Value =
        serde_json::from_slice(&registry.manifest("acme/network", &digest).unwrap()).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    assert!(registry.blob(&layer).unwrap() == zip);
    let error = bed.refused(1, &["--plain-http", &host, "bad.zip", &reference]);
    assert!(error.contains("no zip archive"), "{error}");
}

#[test]
fn a_login_is_needed_and_its_source_is_named_when_it_does_not_suffice() {
    let Some(registry) = DockerRegistry::start(Access::Token, true) else { return };
    let host = registry.host();
    let bed = Bed::new();
    let config = bed.path("docker");
    registry.write_docker_config(&config);
    let bed = bed.env("DOCKER_CONFIG", &config);
    bed.module("network");
    let ca = registry.ca_file().unwrap();
    let ca = ca.to_str().unwrap();
    let realm = format!("{host}={}", origin(&registry.token_server().unwrap().realm()));
    let reference = format!("{host}/acme/network:1.3.0");
    let words = ["--ca-file", ca, "--token-realm", &realm, "network", &reference];
    bed.pushed(&words);
    let wrong = "{\"auths\":{\"HOST\":{\"auth\":\"YWxpY2U6Y2FuYXJ5LTc=\"}}}".replace("HOST", &host);
    bed.write("docker/config.json", wrong);
    let error = bed
        .refused(1, &[&words[..4], &["network", &format!("{host}/acme/network:1.4.0")]].concat());
    assert!(error.contains("config.json"), "{error}");
    assert!(!error.contains("canary") && !error.contains("YWxp"), "the secret stays home: {error}");
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> String {
    url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}
