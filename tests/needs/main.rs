//! What working directories need: locked, fetched beforehand, kept. With image layouts and a real
//! registry; with the real clients where they are installed.

mod export;
mod inputs;
mod kept;
mod like;
mod lock;
mod pull;
mod typed;

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::mount::finish;
use support::{layouts, pack, program};

/// A working directory and a home, with a cache in it, for commands without a mount.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["home", "work", "store"] {
            fs::create_dir(dir.path().join(name)).expect("a writable directory");
        }
        Bench { dir }
    }

    fn join(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The working directory.
    fn work(&self) -> PathBuf {
        self.join("work")
    }

    /// The store that [`Bench::tofufs`] reads.
    fn store(&self) -> PathBuf {
        self.join("store")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.work().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a writable directory");
        fs::write(path, text).expect("a writable directory");
    }

    fn lock_file(&self) -> String {
        fs::read_to_string(self.work().join(".terraform.lock.hcl")).expect("a lock file")
    }

    /// The program, in the working directory.
    fn command<S: AsRef<std::ffi::OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(crate::support::world::program());
        command
            .args(words)
            .current_dir(self.work())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.join("home"))
            .stdin(Stdio::null());
        command
    }

    /// Runs it with the store, the mapping `reg.example/providers/${type}` and `--json`; what it
    /// printed.
    fn tofufs(&self, words: &[&str]) -> Output {
        let mut command = self.command(words);
        command.arg("--json").arg("--from").arg(format!("oci:{}", self.store().display()));
        command.args([
            "--oci-mirror",
            "reg.example/providers/${type}",
            "--include",
            "example.com/acme/*",
        ]);
        finish(command)
    }

    /// The same, which has to succeed.
    fn json(&self, words: &[&str]) -> Value {
        let output = self.tofufs(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The same, which has to fail; its one line.
    fn fails(&self, words: &[&str]) -> String {
        let output = self.tofufs(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.starts_with("tofufs: ") && said.lines().count() == 1, "{said}");
        said
    }

    /// Adds a provider release to the store.
    fn publish(&self, kind: &str, version: &str, packages: &[(&str, Vec<u8>)], annotated: bool) {
        let artifact = if annotated {
            pack::annotated_provider_of(packages)
        } else {
            pack::provider_of(packages)
        };
        layouts::add(
            &self.store(),
            "reg.example",
            &format!("providers/{kind}"),
            &version.replace('+', "_"),
            &artifact,
        );
    }

    /// The client, in the working directory, with a packed mirror as its one source of providers.
    fn client(&self, program: &Path, mirror: &Path, words: &[&str]) -> Output {
        let rc = self.join("tofurc");
        let text = format!(
            "provider_installation {{\n  filesystem_mirror {{ path = \"{}\" }}\n}}\n",
            mirror.display()
        );
        fs::write(&rc, text).expect("a writable directory");
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(self.work())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.join("home"))
            .env("TF_CLI_CONFIG_FILE", rc)
            .env("CHECKPOINT_DISABLE", "1")
            .stdin(Stdio::null());
        finish(command)
    }
}

/// The clients that are installed.
fn clients() -> Vec<PathBuf> {
    ["terraform", "tofu"].into_iter().filter_map(program).collect()
}

/// Packages of a provider, one for each platform, all different.
fn packages<'a>(kind: &str, version: &str, platforms: &[&'a str]) -> Vec<(&'a str, Vec<u8>)> {
    let package = |platform: &str| {
        pack::provider_zip(kind, version, format!("{kind} {version} {platform}").as_bytes())
    };
    platforms.iter().map(|platform| (*platform, package(platform))).collect()
}

/// Writes packages as a packed mirror has them.
fn add_to_mirror(mirror: &Path, kind: &str, version: &str, packages: &[(&str, Vec<u8>)]) {
    let dir = mirror.join("example.com/acme").join(kind);
    fs::create_dir_all(&dir).expect("a writable directory");
    for (platform, package) in packages {
        let name = format!("terraform-provider-{kind}_{version}_{platform}.zip");
        fs::write(dir.join(name), package).expect("a writable directory");
    }
}

#[test]
fn an_ordinary_user_can_do_the_same() {
    support::world::again_as_ordinary(&["export::", "lock::", "pull::", "like::"]);
}
