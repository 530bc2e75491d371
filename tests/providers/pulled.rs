//! Fetched beforehand from a registry, which is gone then.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::clients::{Client, configuration_for};
use crate::support::docker_registry::DockerRegistry;
use crate::support::mount::{Mount, Options, finish};
use crate::support::{pack, program};
use crate::{ORIGIN, here, mirror_flags, names, registry};

/// The same provider under the addresses of two origins, as those who come from one client to the
/// other have it.
const OTHER_ORIGIN: &str = "registry.example.org";

/// The rules that lead both to one repository.
fn both(host: &str) -> Vec<String> {
    let rule = |origin: &str| {
        let template = format!("{host}/mirror/acme/${{type}}");
        ["--oci-mirror".to_owned(), template, "--include".to_owned(), format!("{origin}/acme/*")]
    };
    [rule(ORIGIN), rule(OTHER_ORIGIN)].concat()
}

/// The program in `base`, where its home and its cache are.
fn tofufs(base: &Path, host: &str, words: &[&str], flags: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tofufs"));
    command.current_dir(base).env_clear().env("HOME", base.join("home")).args(words);
    command.args(["--plain-http", host, "--cache-dir", "cache"]).args(flags);
    command
}

fn publish(registry: &DockerRegistry) {
    let push = registry.push("mirror/acme/tiny");
    for version in ["1.0.0", "1.1.0"] {
        push.artifact(version, &pack::provider("tiny", version, &[&here()]));
    }
}

fn lock_text(origins: &[&str]) -> String {
    let block = |origin: &&str| {
        format!("provider \"{origin}/acme/tiny\" {{\n  version = \"1.0.0\"\n}}\n\n")
    };
    origins.iter().map(block).collect()
}

#[test]
fn a_client_takes_what_was_pulled_when_the_registry_is_gone() {
    for name in ["terraform", "tofu"] {
        if program(name).is_none() {
            continue;
        }
        let Some(registry) = registry() else { return };
        let host = registry.host();
        publish(&registry);
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        fs::write(base.join(".terraform.lock.hcl"), lock_text(&[ORIGIN])).unwrap();
        let words = ["pull", "--lock-file", ".terraform.lock.hcl"];
        let output = finish(tofufs(&base, &host, &words, &mirror_flags(&host)));
        assert!(output.status.success(), "{output:?}");
        drop(registry);
        let offline = || Options::new().args(["--offline"]).cache(base.join("cache"));
        let Some(mount) = Mount::start(&[&format!("{host}/acme")], offline()) else { return };
        assert_eq!(names(&mount.join("plugins").join(ORIGIN).join("acme/tiny/1.0.0")), [here()]);
        let Some(mount) = Mount::start(&[&host], offline()) else { return };
        for view in ["plugins", "mirror"] {
            assert_eq!(names(&mount.join(view)), [ORIGIN]);
            let client = Client::new(name, &base, view, &configuration_for(&mount, view))
                .expect("it is installed");
            fs::copy(base.join(".terraform.lock.hcl"), client.dir.join(".terraform.lock.hcl"))
                .unwrap();
            client.run(&["init", "-input=false", "-no-color"]);
            assert!(client.installed("1.0.0").join("terraform-provider-tiny_v1.0.0").is_file());
            // Without a lock file a client takes the newest that it sees: one that is there.
            client.forget(true);
            client.run(&["init", "-input=false", "-no-color"]);
            assert!(client.installed("1.0.0").join("terraform-provider-tiny_v1.0.0").is_file());
        }
        assert_eq!(mount.requests(), (0, 0));
    }
}

#[test]
fn a_repository_that_two_rules_lead_to_is_there_under_both_addresses() {
    let Some(registry) = registry() else { return };
    let host = registry.host();
    publish(&registry);
    let shows_both = |mount: &Mount| {
        for view in ["plugins", "mirror", "plugin-cache"] {
            assert_eq!(names(&mount.join(view)), [ORIGIN, OTHER_ORIGIN], "{view}");
            for origin in [ORIGIN, OTHER_ORIGIN] {
                assert_eq!(names(&mount.join(view).join(origin).join("acme")), ["tiny"]);
            }
        }
        let link = mount.join("plugins").join(OTHER_ORIGIN).join("acme/tiny/1.0.0").join(here());
        assert!(link.join("README.md").is_file());
    };
    let online = Options::new().args(["--plain-http", &host]).args(both(&host));
    let Some(mount) = Mount::start(&[&host], online) else { return };
    shows_both(&mount);
    drop(mount);

    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    let lock = base.join(".terraform.lock.hcl");
    fs::write(&lock, lock_text(&[ORIGIN, OTHER_ORIGIN])).unwrap();
    let run = |words: &[&str]| {
        let output = finish(tofufs(&base, &host, words, &both(&host)));
        assert!(output.status.success(), "{words:?}: {output:?}");
    };
    fs::write(
        base.join("main.tf"),
        format!(
            "terraform {{\n  required_providers {{\n    a = {{ source = \"{ORIGIN}/acme/tiny\" }}\n    \
             b = {{ source = \"{OTHER_ORIGIN}/acme/tiny\" }}\n  }}\n}}\n"
        ),
    )
    .unwrap();
    run(&["lock", "."]);
    let locked = fs::read_to_string(&lock).unwrap();
    assert_eq!(locked.matches("zh:").count(), 2, "{locked}");
    // By the one address that somebody uses the other one comes along.
    let one = base.join("one.hcl");
    fs::write(&one, lock_text(&[OTHER_ORIGIN])).unwrap();
    run(&["pull", "--lock-file", "one.hcl"]);
    run(&["bundle", "--lock-file", "one.hcl", "-o", "oci:store"]);
    drop(registry);
    let sources = [host.clone(), format!("oci:{}", base.join("store").display())];
    for (source, cache) in sources.iter().zip([base.join("cache"), base.join("another cache")]) {
        let Some(mount) = Mount::start(&[source], Options::new().args(["--offline"]).cache(cache))
        else {
            return;
        };
        shows_both(&mount);
    }
}
