//! Real clients: what was mirrored is to them what the vendor's own registry gives.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Bed;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::{Mount, Options};
use crate::support::{pack, program};
use tofufs::name::Platform;

/// Runs `init` in a directory of its own; what it locked.
fn init(
    bed: &Bed,
    client: &Path,
    label: &str,
    configuration: &str,
    authority: &Path,
    lock: &str,
) -> String {
    let dir = bed.path(label);
    fs::create_dir(&dir).unwrap();
    let source = bed.address("one");
    fs::write(
        dir.join("main.tf"),
        format!("terraform {{\n  required_providers {{\n    one = {{ source = \"{source}\" }}\n  }}\n}}\n"),
    )
    .unwrap();
    if !lock.is_empty() {
        fs::write(dir.join(".terraform.lock.hcl"), lock).unwrap();
    }
    fs::write(dir.join("rc"), configuration).unwrap();
    let mut command = Command::new(client);
    command.args(["init", "-input=false", "-no-color"]).current_dir(&dir).env_clear();
    command.env("HOME", &dir).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("CHECKPOINT_DISABLE", "1").env("TF_CLI_CONFIG_FILE", dir.join("rc"));
    command.env("SSL_CERT_FILE", authority).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{label}: {output:?}");
    fs::read_to_string(dir.join(".terraform.lock.hcl")).unwrap()
}

/// A release that has a package for this machine.
fn published(bed: &mut Bed) {
    let here = Platform::host().to_string();
    let mut release = bed.origin.unsigned("one", "1.0.0");
    if !release.zips.contains_key(&here) {
        let zip = pack::provider_zip("one", "1.0.0", b"for this machine");
        let sum = tofufs::digest::Digest::of(&zip).hex();
        release.sums += &format!("{sum}  {}\n", release.file(&format!("{here}.zip")));
        release.zips.insert(here, zip);
    }
    release.signature = bed.origin.gpg.sign(&bed.origin.key, release.sums.as_bytes(), &[]);
    let key = bed.origin.gpg.export(&bed.origin.key);
    bed.origin.serve(&release, &[key]);
}

fn a_client_finds_what_was_mirrored(name: &str) {
    let Some(client) = program(name) else { return };
    let Some(mut bed) = Bed::new() else { return };
    published(&mut bed);
    let authority = bed.origin.authority.clone();
    let direct = init(&bed, &client, "direct", "", &authority, "");
    assert!(direct.contains("\"h1:") && direct.contains("\"zh:"), "{direct}");

    // A mount of the store needs no rule to know whose releases it holds.
    bed.lines(&[&bed.address("one"), "1.0.0", "--to", "oci:store"]);
    let store = format!("oci:{}", bed.path("store").display());
    if let Some(mount) = Mount::start(&[&store], Options::new()) {
        let mirror = format!(
            "provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n",
            mount.join("plugins").display()
        );
        let locked = init(&bed, &client, "plugins", &mirror, &authority, &direct);
        assert_eq!(locked, direct, "a lock file of the vendor's registry is not changed");
    }

    if name == "tofu" {
        let Some(registry) = DockerRegistry::start(Access::Anybody, true) else { return };
        let trusted = registry.ca_file().unwrap();
        let to = format!("{}/mirror", registry.host());
        let words =
            [&*bed.address("one"), "1.0.0", "--ca-file", trusted.to_str().unwrap(), "--to", &to]
                .map(str::to_owned);
        bed.lines(&words);
        let mirror = format!(
            "provider_installation {{\n  oci_mirror {{\n    repository_template = \"{to}/${{namespace}}/${{type}}\"\n    include = [\"{}/*/*\"]\n  }}\n}}\n",
            bed.origin.host
        );
        let locked = init(&bed, &client, "oci", &mirror, &trusted, &direct);
        assert_eq!(locked, direct);
    }
}

#[test]
fn terraform_finds_what_was_mirrored() {
    a_client_finds_what_was_mirrored("terraform");
}

#[test]
fn opentofu_finds_what_was_mirrored() {
    a_client_finds_what_was_mirrored("tofu");
}
