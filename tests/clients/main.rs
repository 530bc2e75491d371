//! Real programs on real mounts: registries, the tools that push to them, Terraform, and what reads
//! files.
//!
//! What is not installed is skipped with a printed reason.

mod crowd;
mod logins;
mod mirrors;
mod network;
mod programs;
mod pushed;
mod stores;
mod terraform;
mod ways_in;

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Pid;
use support::docker_registry::DockerRegistry;
use support::mount::Options;
use support::pack;
use tofufs::digest::Digest;

/// One entry of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Entry {
    Directory,
    File { digest: Digest, executable: bool },
}

/// Everything below `dir`: names, bytes and who may be run.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(dir.join(&at))
            .unwrap_or_else(|e| panic!("{}: {e}", dir.join(&at).display()))
        {
            let entry = entry.expect("an entry");
            let path = at.join(entry.file_name());
            let meta = entry.metadata().expect("attributes");
            let seen = if meta.is_dir() {
                open.push(path.clone());
                Entry::Directory
            } else {
                let bytes = fs::read(entry.path())
                    .unwrap_or_else(|e| panic!("{}: {e}", entry.path().display()));
                assert_eq!(bytes.len() as u64, meta.len(), "{}", path.display());
                Entry::File {
                    digest: Digest::of(&bytes),
                    executable: meta.permissions().mode() & 0o111 != 0,
                }
            };
            found.insert(path, seen);
        }
    }
    found
}

/// The tree that `unzip` makes of `package`; `None`, with the reason printed, without it.
fn unzipped(package: &[u8]) -> Option<BTreeMap<PathBuf, Entry>> {
    let unzip = support::program("unzip")?;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let zip = dir.path().join("package.zip");
    fs::write(&zip, package).expect("a writable directory");
    let to = dir.path().join("tree");
    run(Command::new(unzip).arg("-q").arg(&zip).arg("-d").arg(&to).env("LC_ALL", "C.UTF-8"));
    Some(tree(&to))
}

/// Bytes that do not compress; equal for an equal seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// A module with what modules have: nested directories, programs, an empty file, names beyond
/// ASCII, large files.
fn module_package() -> Vec<u8> {
    let (large, text) = (noise(1, 3 << 20), "a line of a long text\n".repeat(40_000));
    pack::zip(&[
        (
            "main.tf",
            b"variable \"name\" {\n  default = \"x\"\n}\noutput \"greeting\" {\n  \
             value = \"hello ${var.name}\"\n}\n",
        ),
        ("modules/inner/main.tf", b"output \"inner\" {\n  value = 1\n}\n"),
        ("modules/inner/templates/user data.tftpl", b"#cloud-config\n"),
        ("scripts/run.sh!", b"#!/bin/sh\necho ran\n"),
        ("empty", b""),
        ("docs/\u{fc}bersicht.md", "\u{20ac} 5\n".as_bytes()),
        ("large.bin", &large),
        ("long.txt", text.as_bytes()),
    ])
}

/// Runs a command that must succeed; what it printed.
fn run(command: &mut Command) -> String {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// Runs a program of this machine that must succeed; what it printed.
fn sh<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> String {
    run(Command::new(program).args(arguments).env("LC_ALL", "C.UTF-8"))
}

/// A line of `/proc/PID/status`.
fn status_line(pid: Pid, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))
        .expect("a living process");
    text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned()
}

/// What a mount of `registry` needs to trust it.
fn trusting(registry: &DockerRegistry) -> Options {
    match registry.ca_file() {
        Some(ca) => Options::new().args(["--ca-file".into(), ca.display().to_string()]),
        None => Options::new().args(["--plain-http".to_owned(), registry.host()]),
    }
}

/// [`trusting`], and what it needs to log in.
fn logged_in(registry: &DockerRegistry) -> Options {
    let config = registry.write_docker_config(&registry.dir().join("client"));
    trusting(registry).env("REGISTRY_AUTH_FILE", config.display())
}

#[test]
fn an_ordinary_user_can_do_the_same() {
    support::world::again_as_ordinary(&["terraform::", "programs::", "stores::"]);
}
