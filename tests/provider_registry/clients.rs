//! Real clients: through a mount of a provider registry they get what `direct` gets from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tofufs::name::Platform;

use crate::Bed;
use crate::support::mount::Options;
use crate::support::{pack, program};

const KINDS: [&str; 3] = ["one", "two", "three"];

/// A client, and where it works.
struct Client<'a> {
    program: PathBuf,
    bed: &'a Bed,
}

impl Client<'_> {
    /// A working directory that requires all providers.
    fn directory(&self, label: &str, configuration: &str) -> PathBuf {
        let dir = self.bed.path(label);
        fs::create_dir(&dir).unwrap();
        let required = KINDS.map(|kind| {
            let source = self.bed.address(kind);
            format!("    {kind} = {{ source = \"{source}\", version = \"~> 1.0\" }}\n")
        });
        let root =
            format!("terraform {{\n  required_providers {{\n{}  }}\n}}\n", required.concat());
        fs::write(dir.join("main.tf"), root).unwrap();
        fs::write(dir.join("rc"), configuration).unwrap();
        dir
    }

    fn command(&self, dir: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).current_dir(dir).env_clear().stdin(Stdio::null());
        command.env("HOME", dir).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("CHECKPOINT_DISABLE", "1").env("TF_CLI_CONFIG_FILE", dir.join("rc"));
        command.env("SSL_CERT_FILE", &self.bed.origin.authority);
        command
    }

    /// `init`; the lock file.
    fn init(&self, dir: &Path) -> String {
        let output = self.command(dir, &["init", "-input=false", "-no-color"]).output().unwrap();
        assert!(output.status.success(), "{}: {output:?}", dir.display());
        fs::read_to_string(dir.join(".terraform.lock.hcl")).unwrap()
    }
}

fn mirror_of(path: &Path) -> String {
    format!(
        "provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n",
        path.display()
    )
}

/// The packages of all providers in a working directory, by their paths, links followed.
fn packages(bed: &Bed, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let here = Platform::host().to_string();
    let file = |kind: &&str| {
        let at = format!("{}/1.1.0/{here}/terraform-provider-{kind}_v1.1.0", bed.address(kind));
        let content = fs::read(dir.join(".terraform/providers").join(&at)).unwrap();
        (at, content)
    };
    KINDS.iter().map(file).collect()
}

fn without_zh(lock: &str) -> String {
    lock.lines().filter(|line| !line.contains("\"zh:")).map(|line| format!("{line}\n")).collect()
}

/// Two versions of each provider, also for this machine.
fn published(bed: &mut Bed) {
    let here = Platform::host().to_string();
    for kind in KINDS {
        for version in ["1.0.0", "1.1.0"] {
            let mut release = bed.origin.unsigned(kind, version);
            if !release.zips.contains_key(&here) {
                let zip = pack::provider_zip(kind, version, b"for this machine");
                let sum = tofufs::digest::Digest::of(&zip).hex();
                release.sums += &format!("{sum}  {}\n", release.file(&format!("{here}.zip")));
                release.zips.insert(here.clone(), zip);
            }
            release.signature = bed.origin.gpg.sign(&bed.origin.key, release.sums.as_bytes(), &[]);
            let key = bed.origin.gpg.export(&bed.origin.key);
            bed.origin.serve(&release, &[key]);
        }
    }
}

fn options(bed: &Bed, root: &Path) -> Options {
    let authority = bed.origin.authority.display().to_string();
    Options::new().args(["--ca-file", &authority, "--root", &root.display().to_string()])
}

fn a_client_gets_through_the_mount_what_direct_gets(name: &str) {
    let Some(program) = program(name) else { return };
    let Some(mut bed) = Bed::new() else { return };
    published(&mut bed);
    let client = Client { program, bed: &bed };
    let direct = client.directory("direct", "");
    let direct_lock = client.init(&direct);
    assert!(direct_lock.contains("\"h1:") && direct_lock.contains("\"zh:"), "{direct_lock}");
    let Some(mount) = bed.mount("", options(&bed, &direct)) else { return };
    for view in ["plugins", "mirror"] {
        let mirror = mirror_of(&mount.join(view));
        // A lock file of `direct` stays as it is.
        let locked = client.directory(&format!("{view}-locked"), &mirror);
        fs::write(locked.join(".terraform.lock.hcl"), &direct_lock).unwrap();
        assert_eq!(client.init(&locked), direct_lock, "{view}");
        assert_eq!(packages(&bed, &locked), packages(&bed, &direct), "{view}");
        // One that is made through the mount is that of `direct` without `zh:`, and `direct`
        // completes it.
        let fresh = client.directory(&format!("{view}-fresh"), &mirror);
        let lock = client.init(&fresh);
        assert_eq!(lock, without_zh(&direct_lock), "{view}");
        fs::write(fresh.join("rc"), "").unwrap();
        fs::remove_dir_all(fresh.join(".terraform")).unwrap();
        assert_eq!(client.init(&fresh), direct_lock, "{view}");
    }
    // A plugin cache beside a lock file asks nobody for the packages.
    let cache = format!("plugin_cache_dir = \"{}\"\n", mount.join("plugin-cache").display());
    let cached = client.directory("cached", &cache);
    fs::write(cached.join(".terraform.lock.hcl"), &direct_lock).unwrap();
    let asked = bed.asked(|| assert_eq!(client.init(&cached), direct_lock));
    assert!(asked.iter().all(|asked| asked.ends_with("/versions")), "{asked:?}");
    assert_eq!(packages(&bed, &cached), packages(&bed, &direct));
}

#[test]
fn terraform_gets_through_the_mount_what_direct_gets() {
    a_client_gets_through_the_mount_what_direct_gets("terraform");
}

#[test]
fn tofu_gets_through_the_mount_what_direct_gets() {
    a_client_gets_through_the_mount_what_direct_gets("tofu");
}

#[test]
fn many_directories_at_once_cause_one_download_of_each_package() {
    let Some(program) = program("terraform").or_else(|| program("tofu")) else { return };
    let Some(mut bed) = Bed::new() else { return };
    published(&mut bed);
    let client = Client { program, bed: &bed };
    let root = client.directory("root", "");
    let Some(mount) = bed.mount("", options(&bed, &root)) else { return };
    let mirror = mirror_of(&mount.join("plugins"));
    let dirs: Vec<PathBuf> =
        (0..16).map(|at| client.directory(&format!("dir{at}"), &mirror)).collect();
    let asked = bed.asked(|| {
        for some in dirs.chunks(8) {
            let running: Vec<_> = some
                .iter()
                .map(|dir| {
                    let mut command = client.command(dir, &["init", "-input=false", "-no-color"]);
                    command.stdout(Stdio::null()).spawn().unwrap()
                })
                .collect();
            for mut one in running {
                assert!(one.wait().unwrap().success());
            }
        }
    });
    let zips = asked.iter().filter(|asked| asked.starts_with("GET ") && asked.ends_with(".zip"));
    assert_eq!(zips.count(), KINDS.len(), "{asked:?}");
    for dir in &dirs {
        assert_eq!(packages(&bed, dir), packages(&bed, &dirs[0]));
    }
}
