//! Publishing by the program: what arrives, what other programs make of it, what is refused, and
//! what is left by whoever is killed on the way.
//!
//! What is not installed is skipped with a printed reason.

mod crowds;
mod dist;
mod inputs;
mod killed;
mod large;
mod modules;
mod providers;
mod races;

#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use support::mount::Options;

/// A directory for what is published, and for a user's home.
struct Bed {
    dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Bed {
    fn new() -> Bed {
        Bed { dir: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    fn env(mut self, name: &str, value: &Path) -> Bed {
        self.environment.push((name.to_owned(), value.to_str().unwrap().to_owned()));
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A module with a file that is executable.
    fn module(&self, name: &str) -> PathBuf {
        self.write(&format!("{name}/main.tf"), "resource \"x\" \"y\" {}\n");
        let script = self.write(&format!("{name}/files/run.sh"), "#!/bin/sh\nexit 0\n");
        fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        self.write(&format!("{name}/.git/HEAD"), "ref: refs/heads/main\n");
        self.write(&format!("{name}/.terraformignore"), "*.tmp\n");
        self.write(&format!("{name}/notes.tmp"), "not published\n");
        self.path(name)
    }

    fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(crate::support::world::program());
        command.arg("push").args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment.iter().cloned());
        command
    }

    fn push<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        support::mount::finish(self.command(words))
    }

    /// The lines of a push that succeeds.
    #[track_caller]
    fn pushed<S: AsRef<OsStr>>(&self, words: &[S]) -> String {
        let output = self.push(words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line on standard error of a push that fails with this exit code.
    #[track_caller]
    fn refused<S: AsRef<OsStr>>(&self, code: i32, words: &[S]) -> String {
        let output = self.push(words);
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(code), &b""[..]),
            "{output:?}"
        );
        let text = String::from_utf8(output.stderr).unwrap();
        let mut errors = text
            .lines()
            .filter(|line| line.starts_with("tofufs: ") && !line.contains(": warning: "));
        let line = errors.next().unwrap_or_else(|| panic!("an error: {text}")).to_owned();
        assert_eq!(errors.next(), None, "{text}");
        line
    }
}

/// Gives every file below `dir` another time.
fn another_day(dir: &Path) {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 4_000);
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            another_day(&entry.path())
        } else {
            fs::File::options()
                .write(true)
                .open(entry.path())
                .unwrap()
                .set_modified(long_ago)
                .unwrap()
        }
    }
}

/// The digest at the end of a printed line.
fn digest_of(line: &str) -> String {
    line.trim_end().rsplit_once('@').unwrap_or_else(|| panic!("{line:?}")).1.to_owned()
}

/// A mount of a registry without TLS.
fn plain(host: &str) -> Options {
    Options::new().args(["--plain-http", host])
}

#[test]
fn an_ordinary_user_can_do_the_same() {
    support::world::again_as_ordinary(&["dist::", "modules::", "providers::"]);
}
