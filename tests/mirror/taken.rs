//! Commands that take releases from the provider registry itself, by `--from providers:HOST`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tofufs::name::Platform;

use crate::Bed;
use crate::support::mount::{Mount, Options, finish};
use crate::support::origin::Published;
use crate::support::{pack, program, tiny};

/// A working directory that requires `acme/one ~> 1.0`.
fn work(bed: &Bed, label: &str) -> PathBuf {
    let dir = bed.path(label);
    fs::create_dir(&dir).unwrap();
    let source = bed.address("one");
    let text = format!(
        "terraform {{\n  required_providers {{\n    one = {{ source = \"{source}\", version = \"~> 1.0\" }}\n  }}\n}}\n"
    );
    fs::write(dir.join("main.tf"), text).unwrap();
    dir
}

/// A real client there, which trusts the origin.
fn client(bed: &Bed, program: &Path, dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).current_dir(dir).env_clear().stdin(Stdio::null());
    command.env("HOME", bed.path("home")).env("PATH", std::env::var_os("PATH").unwrap());
    command.env("CHECKPOINT_DISABLE", "1").env("SSL_CERT_FILE", &bed.origin.authority);
    command.env("TF_DISABLE_PLUGIN_TLS", "1");
    command
}

#[track_caller]
fn succeeds(command: Command) -> Output {
    let output = finish(command);
    assert!(output.status.success(), "{output:?}");
    output
}

/// `tofufs SUBCOMMAND --from providers:HOST …` in a directory.
fn taken(bed: &Bed, dir: &Path, subcommand: &str, words: &[&str]) -> Command {
    let mut command = Command::new(crate::support::world::program());
    command.arg(subcommand).arg("--from").arg(format!("providers:{}", bed.origin.host));
    command.args(["--deadline", "20s", "--ca-file"]).arg(&bed.origin.authority).args(words);
    command.current_dir(dir).env_clear().stdin(Stdio::null());
    command.env("HOME", bed.path("home")).env("PATH", std::env::var_os("PATH").unwrap());
    command.envs(bed.environment.iter().cloned());
    command
}

fn lock_file(dir: &Path) -> String {
    fs::read_to_string(dir.join(".terraform.lock.hcl")).unwrap()
}

fn a_lock_file_is_that_of_the_client(name: &str) {
    let Some(program) = program(name) else { return };
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    let (theirs, ours) = (work(&bed, "theirs"), work(&bed, "ours"));
    // A new file, one more platform, then a release that changes nothing that is locked.
    for (at, platforms) in
        [&["linux_amd64"][..], &["linux_arm64", "darwin_arm64"], &["linux_amd64"]]
            .iter()
            .enumerate()
    {
        let theirs_of = platforms.iter().map(|platform| format!("-platform={platform}"));
        let words: Vec<String> =
            ["providers", "lock"].map(str::to_owned).into_iter().chain(theirs_of).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        succeeds(client(&bed, &program, &theirs, &words));
        let mut words = vec!["--client", name];
        platforms.iter().for_each(|platform| words.extend(["--platform", platform]));
        succeeds(taken(&bed, &ours, "lock", &words));
        assert_eq!(lock_file(&ours), lock_file(&theirs), "{at}: {platforms:?}");
        bed.origin.publish("one", &format!("1.{}.0", at + 1));
    }
    let zh = lock_file(&ours).matches("\"zh:").count();
    assert_eq!(zh, 4, "three zips and a manifest: {}", lock_file(&ours));
    let mut check = taken(&bed, &ours, "lock", &["--check", "--platform", "linux_arm64"]);
    check.args(["--client", name]);
    succeeds(check);
}

#[test]
fn a_lock_file_is_that_of_terraform() {
    a_lock_file_is_that_of_the_client("terraform");
}

#[test]
fn a_lock_file_is_that_of_opentofu() {
    a_lock_file_is_that_of_the_client("tofu");
}

#[test]
fn what_vouches_for_nothing_is_not_locked() {
    let Some(mut bed) = Bed::new() else { return };
    let mut release = bed.origin.unsigned("one", "1.0.0");
    release.signature = bed.origin.gpg.sign(&bed.origin.key, b"something else", &[]);
    let key = bed.origin.gpg.export(&bed.origin.key);
    bed.origin.serve(&release, &[key]);
    let dir = work(&bed, "work");
    let output = finish(taken(&bed, &dir, "lock", &["--platform", "linux_amd64"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("does not hold"), "{output:?}");
    assert!(!dir.join(".terraform.lock.hcl").exists());
    // Which platforms there are is told of a platform that there is not.
    let key = bed.origin.gpg.export(&bed.origin.key);
    release.signature = bed.origin.gpg.sign(&bed.origin.key, release.sums.as_bytes(), &[]);
    bed.origin.serve(&release, &[key]);
    let output = finish(taken(&bed, &dir, "lock", &["--platform", "plan9_386"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no package for plan9_386; it has darwin_arm64"), "{said}");
    for (words, wanted) in [
        (&["--offline"][..], "cannot be asked"),
        (&["--from", "providers:not a host"], "write providers:HOST[:PORT]"),
        (&["--from", "ghcr.io"], "write oci:DIR, oci-archive:FILE or providers:HOST"),
    ] {
        let output = finish(taken(&bed, &dir, "lock", words));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(wanted), "{said}");
    }
}

/// A release that runs on this machine.
fn runs(bed: &mut Bed, program: &[u8]) -> Published {
    let here = Platform::host().to_string();
    let mut release = bed.origin.unsigned("one", "1.0.0");
    let zip = pack::provider_zip("one", "1.0.0", program);
    let line = |zip: &[u8]| {
        let sum = tofufs::digest::Digest::of(zip).hex();
        format!("{sum}  {}\n", release.file(&format!("{here}.zip")))
    };
    let before = release.zips.get(&here).map(|before| line(before)).unwrap_or_default();
    release.sums = release.sums.replace(&before, "") + &line(&zip);
    release.zips.insert(here, zip);
    release.signature = bed.origin.gpg.sign(&bed.origin.key, release.sums.as_bytes(), &[]);
    let key = bed.origin.gpg.export(&bed.origin.key);
    bed.origin.serve(&release, &[key]);
    release
}

/// The digests of releases by their references, as a command printed them.
fn digests(output: &Output) -> BTreeMap<String, String> {
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = told["releases"].as_array().or(told["artifacts"].as_array()).expect("releases");
    all.iter().map(|one| (text(&one["reference"]), text(&one["digest"]))).collect()
}

#[test]
fn a_bundle_from_the_origin_works_in_the_gap() {
    let Some(client_program) = program("tofu") else { return };
    let Some(program) = tiny::built() else { return };
    let Some(mut bed) = Bed::new() else { return };
    runs(&mut bed, program);
    let here = Platform::host().to_string();
    let dir = work(&bed, "work");
    let root = fs::read_to_string(dir.join("main.tf")).unwrap()
        + "data \"tiny_greeting\" \"g\" { provider = one }\n\
           output \"said\" { value = data.tiny_greeting.g.text }\n";
    fs::write(dir.join("main.tf"), root).unwrap();
    succeeds(taken(&bed, &dir, "lock", &["--platform", &here]));
    let words = ["--lock-file", ".terraform.lock.hcl", "--platform", &here, "--json", "-o"];
    let bundle = |to: &str| succeeds(taken(&bed, &dir, "bundle", &[&words[..], &[to]].concat()));
    let sent = bed.origin.zips_sent();
    let output = bundle("oci-archive:bundle.tar");
    assert_eq!(bed.origin.zips_sent() - sent, 1, "only the platform that is wanted");

    // The same manifests as `mirror` makes, wherever they go; no package twice.
    let mirrored =
        bed.lines(&[&bed.address("one"), "1.0.0", "--platform", &here, "--to", "oci:mirrored"]);
    let (_, digest) = mirrored[0].rsplit_once('@').unwrap();
    assert_eq!(digests(&output).values().collect::<Vec<_>>(), [digest]);
    let sent = bed.origin.zips_sent();
    assert_eq!(digests(&bundle("oci:store")), digests(&output));
    let pulled = succeeds(taken(&bed, &dir, "pull", &words[..words.len() - 1]));
    assert_eq!(digests(&pulled), digests(&output));
    assert_eq!(bed.origin.zips_sent(), sent);

    // Nothing of the origin is there any more.
    let archive = format!("oci-archive:{}", dir.join("bundle.tar").display());
    let locked = lock_file(&dir);
    let options = Options::new().args(["--read-only", "--offline"]);
    let Some(mount) = Mount::start(&[&archive], options) else { return };
    let mirror = format!(
        "provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n",
        mount.join("plugins").display()
    );
    fs::write(dir.join("rc"), mirror).unwrap();
    let asked = bed.origin.server.requests().len();
    for words in
        [&["init", "-input=false"][..], &["plan", "-input=false"], &["apply", "-auto-approve"]]
    {
        let mut command = client(&bed, &client_program, &dir, words);
        command.env("TF_CLI_CONFIG_FILE", dir.join("rc"));
        let said = String::from_utf8(succeeds(command).stdout).unwrap();
        assert!(words[0] == "init" || said.contains("hello"), "{words:?}: {said}");
    }
    assert_eq!(lock_file(&dir), locked);
    assert_eq!(bed.origin.server.requests().len(), asked);
}

#[test]
fn what_is_pinned_from_the_origin_stays() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    let dir = work(&bed, "work");
    let platform = ["--platform", "linux_amd64"];
    succeeds(taken(&bed, &dir, "lock", &platform));
    let pin = |words: &[&str]| {
        let mut command = Command::new(crate::support::world::program());
        command.args(["cache", "pin", "--lock-file", ".terraform.lock.hcl", "--ca-file"]);
        command.arg(&bed.origin.authority).args(words).current_dir(&dir).env_clear();
        command.env("HOME", bed.path("home")).env("PATH", std::env::var_os("PATH").unwrap());
        String::from_utf8(succeeds(command).stdout).unwrap()
    };
    let from = format!("providers:{}", bed.origin.host);
    let said = pin(&[&["--from", &from][..], &platform].concat());
    assert!(said.contains(&format!("{}:1.0.0@sha256:", bed.address("one"))), "{said}");
    let said = pin(&["--remove", "--from", &from]);
    assert!(said.contains("no longer pinned"), "{said}");
}
