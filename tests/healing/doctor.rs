//! `tofufs doctor` beside mounts and against a registry of another make.

use super::*;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::docker_registry::{Access, DockerRegistry};

// O18
#[test]
fn doctor_names_a_mount_whose_process_is_gone() {
    let releases = Releases::new(1, &[1000]);
    let Some(mut mount) = releases.mount(releases.options()) else { return };
    let doctor = |mount: &Mount| {
        let mut command = mount.command("doctor");
        command.arg("--json").arg("--cache-dir").arg(mount.cache());
        let output = support::mount::finish(command);
        let said = json(&output);
        let findings = said["parts"][0]["findings"].as_array().unwrap();
        let point = mount.path().to_str().unwrap().to_owned();
        let of_mount = findings
            .iter()
            .find(|f| f["subject"] == "mount" && f["found"].as_str().unwrap().contains(&point));
        (of_mount.unwrap_or_else(|| panic!("{said}")).clone(), output.status.code())
    };
    assert_eq!(doctor(&mount).0["mark"], "ok");
    mount.kill();
    let dead =
        support::wait_until(Duration::from_secs(10), || doctor(&mount).0["mark"] == "problem");
    let (finding, code) = doctor(&mount);
    assert!(dead && code == Some(1), "{finding}");
    assert_eq!(finding["remedy"], format!("tofufs umount {}", mount.path().display()));
}

/// What the program says of a registry, in a home whose Docker configuration can log in to it.
fn said_of(registry: &DockerRegistry, reference: &str, more: &[&str]) -> Vec<Value> {
    let home = tempfile::tempdir().unwrap();
    registry.write_docker_config(&home.path().join(".docker"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tofufs"));
    command.args(["doctor", "--json", "--deadline", "10s"]).args(more).arg(reference).env_clear();
    command
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .stdin(Stdio::null());
    let output = support::mount::finish(command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains(support::docker_registry::PASSWORD), "{said}");
    json(&output)["parts"][1]["findings"].as_array().unwrap().clone()
}

#[test]
fn a_registry_with_each_way_of_access_is_told_by_it() {
    for (access, tls, login) in [
        (Access::Anybody, false, "it asks for none"),
        (Access::Htpasswd, true, "(Basic); the credential comes from auths["),
        (Access::Token, true, "(Bearer); the credential comes from auths["),
    ] {
        let Some(registry) = DockerRegistry::start(access, tls) else { return };
        registry
            .push("acme/cloud")
            .artifact("1.0.0", &pack::provider("cloud", "1.0.0", &["linux_amd64"]));
        let (host, ca) =
            (registry.host(), registry.ca_file().map(|file| file.display().to_string()));
        let more = match &ca {
            Some(ca) => ["--ca-file", ca],
            None => ["--plain-http", &host],
        };
        let findings = said_of(&registry, &format!("{host}/acme/cloud:1.0.0"), &more);
        let found = |subject: &str| {
            let finding = findings
                .iter()
                .find(|f| f["subject"] == subject)
                .unwrap_or_else(|| panic!("{findings:#?}"));
            assert_eq!(finding["mark"], "ok", "{access:?}: {finding}");
            finding["found"].as_str().unwrap().to_owned()
        };
        assert!(found("login").contains(login), "{access:?}: {findings:#?}");
        assert!(found("artifact").contains("a provider release"), "{access:?}: {findings:#?}");
        for subject in ["connection", "clock", "tags", "linux_amd64", "ranges", "blobs"] {
            found(subject);
        }
    }
}
