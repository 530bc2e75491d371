//! What is named and is no file: pipes, devices, files without an end. A command says so at once,
//! whatever it wanted the file for.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::Bench;
use crate::support::mount::finish;
use crate::support::tls::Tls;

/// Memory that a command may have, in KiB of addresses: what reads without an end comes to its own
/// end there.
const ADDRESSES: u64 = 2 << 20;

/// Runs a command in a shell with a limit, with variables set before it. What waits for a pipe is
/// ended after a minute.
fn limited(bench: &Bench, line: &str, variables: &[(&str, &Path)]) -> Output {
    let program = env!("CARGO_BIN_EXE_tofufs");
    let script = format!("ulimit -v {ADDRESSES}; exec {program} {line}");
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg(script)
        .current_dir(bench.work())
        .env_clear()
        .env("HOME", bench.join("home"));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for (name, value) in variables {
        command.env(name, value);
    }
    finish(command)
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
}

#[test]
fn what_is_no_file_is_refused_at_once_wherever_it_is_named() {
    let bench = Bench::new();
    let [pipe, sparse, mnt] = ["pipe", "sparse", "mnt"].map(|name| bench.join(name));
    fifo(&pipe);
    File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
    fs::create_dir(&mnt).unwrap();
    let zip = |name: &str| bench.work().join(format!("terraform-provider-a_1.0.0_{name}.zip"));
    fifo(&zip("linux_amd64"));
    let (store, mnt) = (format!("oci:{}", bench.store().display()), mnt.display().to_string());
    let zero = Path::new("/dev/zero").to_owned();
    for (file, said) in [(&pipe, "a pipe"), (&zero, "a device"), (&sparse, "larger than")] {
        let named = file.display();
        for line in [
            format!("mount --offline --lock-file {named} {store} {mnt}"),
            format!("mount --offline --tofurc {named} {store} {mnt}"),
            format!("mount --ca-file {named} {store} {mnt}"),
            format!("pull --offline --lock-file {named}"),
            format!("pull --offline --tofurc {named} a.b/c:1"),
            format!("lock --ca-file {named}"),
            format!("cache pin --offline --lock-file {named}"),
            format!("bundle --offline --lock-file {named} -o oci:x"),
            format!("bundle verify {store} --lock-file {named}"),
            format!("push --ca-file {named} . a.b/c:1"),
            format!("copy --ca-file {named} a.b/c:1 d.e/f"),
            format!("doctor --ca-file {named}"),
        ] {
            let output = limited(&bench, &line, &[]);
            let text =
                String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
            assert!(text.contains(said) && text.contains(&named.to_string()), "{line}: {text}");
        }
        for variable in ["SSL_CERT_FILE", "TF_CLI_CONFIG_FILE"] {
            let output = limited(&bench, "pull a.b/c:1", &[(variable, file)]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.code() == Some(1) && text.contains(said),
                "{variable}={named}: {output:?}"
            );
        }
    }
    for name in ["linux_amd64", "linux_arm64"] {
        if name == "linux_arm64" {
            fs::rename(&sparse, zip(name)).unwrap();
        }
        let line = format!("push --dry-run {} a.b/c", zip(name).display());
        let output = limited(&bench, &line, &[]);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
    }
    let output = limited(&bench, "push --dry-run <(true) a.b/c:1", &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && text.contains("write its text into a file first"),
        "{text}"
    );
}

#[test]
fn a_working_directory_may_hold_what_is_no_file() {
    let bench = Bench::new();
    let refused = |line: &str, said: &str| {
        let output = limited(&bench, line, &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(said), "{line}: {output:?}");
    };
    for name in ["main.tf", ".terraform.lock.hcl", ".terraformignore", ".oci-annotations.json"] {
        let path = bench.work().join(name);
        fifo(&path);
        if !name.starts_with(".o") && name != ".terraformignore" {
            refused("lock", "a pipe");
            refused("lock --check", "a pipe");
            refused("pull --offline --root .", "a pipe");
        }
        // Left out or refused, by the rules of packages: but at once.
        limited(&bench, "push --dry-run . a.b/c:1", &[]);
        fs::remove_file(&path).unwrap();
    }
    fifo(&bench.join("home/.tofurc"));
    bench.write("main.tf", "");
    refused("pull --offline --root .", "a pipe");
    fs::remove_file(bench.join("home/.tofurc")).unwrap();
}

/// By this name people say that there is to be no file.
#[test]
fn the_null_device_is_a_file_without_content() {
    let bench = Bench::new();
    bench.write("main.tf", "locals {}\n");
    let null = Path::new("/dev/null");
    let output = limited(&bench, "pull --root .", &[("TF_CLI_CONFIG_FILE", null)]);
    assert!(output.status.success(), "{output:?}");
}

/// Certificates that were named are looked at wherever something could be asked, also where only
/// stores are.
#[test]
fn a_file_of_certificates_that_cannot_be_used_is_refused_by_all() {
    let bench = Bench::new();
    let tls = Tls::new();
    let [authority, _, key] = tls.write(&bench.join("home"));
    let mnt = bench.join("mnt");
    fs::create_dir(&mnt).unwrap();
    let (store, mnt) = (format!("oci:{}", bench.store().display()), mnt.display().to_string());
    bench.write("main.tf", "locals {}\n");
    for (file, said) in
        [(Path::new("/nope"), "cannot be read"), (&key, "holds no certificate, but a private key")]
    {
        let file = file.display();
        for line in [
            format!("mount --ca-file {file} {store} {mnt}"),
            format!("mount --offline --ca-file {file} a.b {mnt}"),
            format!("lock --offline --ca-file {file}"),
            format!("push --dry-run --ca-file {file} . {store}/a.b/c:1"),
            format!("doctor --ca-file {file}"),
        ] {
            let output = limited(&bench, &line, &[]);
            let text =
                String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            assert!(output.status.code() == Some(1) && text.contains(said), "{line}: {output:?}");
        }
    }
    let output = limited(&bench, &format!("lock --offline --ca-file {}", authority.display()), &[]);
    assert!(output.status.success(), "{output:?}");
}

/// OpenTofu passes such a block over, and so does tofufs: which has to be said.
#[test]
fn a_block_that_stands_where_nobody_reads_it_is_told() {
    let bench = Bench::new();
    let rc = bench.join("home/.tofurc");
    fs::write(&rc, "oci_mirror {\n  repository_template = \"r.io/${namespace}/${type}\"\n}\n")
        .unwrap();
    bench.write("main.tf", "locals {}\n");
    let wanted = format!("{}:1: oci_mirror stands outside of provider_installation", rc.display());
    for (line, code) in [("lock", 0), ("pull --offline --root .", 0), ("doctor", 1)] {
        let output = limited(&bench, line, &[]);
        let text =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(code) && text.contains(&wanted), "{line}: {output:?}");
    }
}

/// Whatever the user's mask allows: nothing of a mount's state is for others.
#[test]
fn what_a_mount_keeps_is_its_users_alone() {
    let bench = Bench::new();
    // It fails, but not before it has taken its turn.
    let line = format!("mount oci:{} /nowhere", bench.store().display());
    let script = format!("umask 0; exec {} {line}", env!("CARGO_BIN_EXE_tofufs"));
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).env_clear().env("HOME", bench.join("home"));
    let output = finish(command);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let locks: Vec<_> =
        fs::read_dir(bench.join("home/.local/state/tofufs/lock")).unwrap().collect();
    assert_eq!(locks.len(), 1);
    for lock in locks {
        let mode = lock.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    }
}
