//! Terraform and OpenTofu with `plugins/` and `mirror/` as file system mirrors, next to plain local
//! directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::mount::{Mount, finish};
use crate::support::program;
use crate::tiny::{self, OTHER};
use crate::{ORIGIN, declared, here, mapped, registry};

/// What a client printed, without the line breaks that it puts between the words of a sentence.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One of the two programs, and where it works.
pub struct Client {
    program: PathBuf,
    /// The working directory.
    pub dir: PathBuf,
    configuration: PathBuf,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Client {
    /// In a new directory below `base`, with this CLI configuration; `None`, with the reason
    /// printed, without the program.
    pub fn new(name: &str, base: &Path, label: &str, configuration: &str) -> Option<Client> {
        let program = program(name)?;
        let dir = base.join(label);
        fs::create_dir(&dir).expect("a writable directory");
        let root = format!(
            "terraform {{\n  required_providers {{\n    tiny = {{ source = \"{ORIGIN}/acme/tiny\", version = \"~> 1.0\" }}\n  }}\n}}\n\
             data \"tiny_greeting\" \"g\" {{}}\noutput \"said\" {{ value = data.tiny_greeting.g.text }}\n"
        );
        fs::write(dir.join("main.tf"), root).expect("a writable directory");
        let file = base.join(format!("{label}.tfrc"));
        fs::write(&file, configuration).expect("a writable directory");
        Some(Client { program, dir, configuration: file, environment: Vec::new() })
    }

    pub fn with(mut self, name: &'static str, value: impl Into<PathBuf>) -> Client {
        self.environment.push((name, value.into()));
        self
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.parent().expect("a parent"))
            .env("CHECKPOINT_DISABLE", "1")
            // The provider of these tests speaks no TLS to its own parent process.
            .env("TF_DISABLE_PLUGIN_TLS", "1")
            .env("TF_CLI_CONFIG_FILE", &self.configuration)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the client runs")
    }

    /// Runs what must succeed; what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{} {arguments:?}: {said}", self.program.display());
        said
    }

    /// `init`, a plan, and a run of it: the provider says what it has to say.
    pub fn use_provider(&self) {
        self.run(&["init", "-input=false", "-no-color"]);
        let plan = self.run(&["plan", "-input=false", "-no-color"]);
        assert!(plan.contains("said = \"hello\""), "{plan}");
        self.run(&["apply", "-input=false", "-no-color", "-auto-approve"]);
        fs::remove_file(self.dir.join("terraform.tfstate")).expect("a state");
    }

    pub fn lock(&self) -> String {
        fs::read_to_string(self.dir.join(".terraform.lock.hcl")).unwrap_or_default()
    }

    /// Where `init` puts the package of this machine's platform.
    pub fn installed(&self, version: &str) -> PathBuf {
        self.dir
            .join(".terraform/providers")
            .join(ORIGIN)
            .join("acme/tiny")
            .join(version)
            .join(here())
    }

    pub fn forget(&self, with_lock: bool) {
        fs::remove_dir_all(self.dir.join(".terraform")).expect("an initialised directory");
        if with_lock {
            fs::remove_file(self.dir.join(".terraform.lock.hcl")).expect("a lock file");
        }
    }
}

pub fn file_system_mirror(path: &Path) -> String {
    format!(
        "provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n",
        path.display()
    )
}

/// What `tofufs tofurc` prints for a use of the mount.
pub fn configuration_for(mount: &Mount, purpose: &str) -> String {
    let mut command = mount.command("tofurc");
    command.arg(mount.path()).args(["--use", purpose]);
    let output = finish(command);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn a_view_is_a_file_system_mirror(name: &str, view: &str) {
    if program(name).is_none() {
        return;
    }
    let Some(mut registry) = registry() else { return };
    let versions = ["1.0.0", "1.1.0"];
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    let Some(()) = tiny::publish(&registry, &versions) else { return };
    let local = base.join("local");
    tiny::write_mirror(&local, &versions, view == "mirror").expect("the provider was built");
    let options = mapped(&registry).args(declared(&["acme/tiny"])).args([
        "--platform",
        &here(),
        "--platform",
        OTHER,
    ]);
    let Some(mount) = Mount::start(&[registry.host()], options) else { return };

    let [ours, plain] =
        [("mount", configuration_for(&mount, view)), ("plain", file_system_mirror(&local))].map(
            |(label, configuration)| {
                Client::new(name, &base, label, &configuration).expect("it is installed")
            },
        );
    for client in [&ours, &plain] {
        client.use_provider();
    }
    assert_eq!(ours.lock(), plain.lock());
    assert!(ours.lock().contains("version     = \"1.1.0\""), "{}", ours.lock());
    let installed = fs::symlink_metadata(ours.installed("1.1.0")).unwrap();
    assert_eq!(installed.is_symlink(), view == "plugins", "unpacked packages are not copied");
    assert_eq!(
        mount.requests().1,
        1,
        "the older version and the other platform stay where they are"
    );

    registry.stop();
    for with_lock in [false, true] {
        ours.forget(with_lock);
        ours.use_provider();
        assert_eq!(ours.lock(), plain.lock());
    }
    assert_eq!(mount.requests().1, 1);
    registry.start_again();

    // Lock files for two platforms, from what is in the mirror alone.
    let locks = [("lock-mount", mount.join(view)), ("lock-plain", local)].map(|(label, path)| {
        let client = Client::new(name, &base, label, "").expect("it is installed");
        let mirror = format!("-fs-mirror={}", path.display());
        let platforms = [here(), OTHER.to_owned()].map(|p| format!("-platform={p}"));
        client.run(&["providers", "lock", "-no-color", &mirror, &platforms[0], &platforms[1]]);
        client.lock()
    });
    assert_eq!(locks[0], locks[1]);
    assert_eq!(locks[0].matches("\"h1:").count(), 2, "{}", locks[0]);
}

#[test]
fn terraform_installs_from_plugins_as_from_a_local_directory() {
    a_view_is_a_file_system_mirror("terraform", "plugins");
}

#[test]
fn terraform_installs_from_mirror_as_from_a_local_directory() {
    a_view_is_a_file_system_mirror("terraform", "mirror");
}

#[test]
fn opentofu_installs_from_plugins_as_from_a_local_directory() {
    a_view_is_a_file_system_mirror("tofu", "plugins");
}

#[test]
fn opentofu_installs_from_mirror_as_from_a_local_directory() {
    a_view_is_a_file_system_mirror("tofu", "mirror");
}
