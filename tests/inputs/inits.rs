//! `tofu init` itself, for some archives out of a registry: what lies in `.terraform` then, and
//! what a mount shows.
//!
//! `TOFUFS_INPUTS_INITS` is how many modules and how many providers are taken (6 unless it is set).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use fastrand::Rng;
use tofufs::archive::{Limits, hashes, index};
use tofufs::name::Platform;

use crate::build::{Archive, entry};
use crate::laws::cases_until;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::{Mount, Options};
use crate::support::{pack, program};
use crate::tree::{Node, Tree, hex, on_disk};
use crate::{mutate, plain, setting};

/// A directory in which `tofu init` runs.
struct Work {
    dir: tempfile::TempDir,
    tofu: PathBuf,
    authority: PathBuf,
}

impl Work {
    /// Runs it with this configuration and CLI configuration; whether it succeeded, and what it
    /// said.
    fn init(&self, root: &str, configuration: &str) -> (bool, String) {
        let dir = self.dir.path();
        fs::write(dir.join("main.tf"), root).expect("a writable directory");
        fs::write(dir.join("rc"), configuration).expect("a writable directory");
        let _ = fs::remove_dir_all(dir.join(".terraform"));
        let _ = fs::remove_file(dir.join(".terraform.lock.hcl"));
        let mut command = Command::new(&self.tofu);
        command
            .args(["init", "-no-color", "-input=false", "-backend=false"])
            .current_dir(dir)
            .stdin(Stdio::null());
        command
            .env_clear()
            .env("HOME", dir)
            .env("TMPDIR", dir)
            .env("SSL_CERT_FILE", &self.authority);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let command = command
            .env("PATH", path)
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_CLI_CONFIG_FILE", dir.join("rc"));
        let output = command.output().expect("tofu runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// What `tofu init` unpacks of a module, or its error. That the module is no valid
    /// configuration is none.
    fn module(&self, source: &str) -> Result<Tree, String> {
        let (_, said) = self.init(&format!("module \"m\" {{ source = \"{source}\" }}\n"), "");
        if said.contains("decompressing package into") {
            Err(said)
        } else {
            Ok(on_disk(&self.dir.path().join(".terraform/modules/m"))
                .unwrap_or_else(|e| panic!("{e}\n{said}")))
        }
    }

    /// What `tofu init` unpacks of a provider, and its h1, or its error.
    fn provider(&self, host: &str, kind: &str) -> Result<(Tree, String), String> {
        let root = format!(
            "terraform {{\n  required_providers {{\n    \
             {kind} = {{ source = \"acme/{kind}\", version = \"1.0.0\" }}\n  }}\n}}\n"
        );
        let rc = format!(
            "provider_installation {{\n  oci_mirror {{\n    repository_template = \"{host}/$${{namespace}}/$${{type}}\"\n    \
             include = [\"registry.opentofu.org/*/*\"]\n  }}\n}}\n"
        );
        let (done, said) = self.init(&root, &rc.replace("$$", "$"));
        let unpacked = format!(
            ".terraform/providers/registry.opentofu.org/acme/{kind}/1.0.0/{}",
            Platform::host()
        );
        if !done {
            return Err(said);
        }
        let lock =
            fs::read_to_string(self.dir.path().join(".terraform.lock.hcl")).expect("a lock file");
        let h1 = lock.split('"').find(|text| text.starts_with("h1:")).expect("an h1");
        Ok((on_disk(&self.dir.path().join(unpacked))?, h1.to_owned()))
    }
}

fn bed() -> Option<(DockerRegistry, Mount, Work)> {
    let tofu = program("tofu")?;
    let registry = DockerRegistry::start(Access::Anybody, true)?;
    let authority = registry.ca_file().expect("an authority");
    let options = Options::new().args(["--ca-file".to_owned(), authority.display().to_string()]);
    let mount = Mount::start(&[registry.host()], options)?;
    Some((
        registry,
        mount,
        Work { dir: tempfile::tempdir().expect("a temporary directory"), tofu, authority },
    ))
}

fn hold(
    what: &str,
    packed: bool,
    shown: Result<Tree, String>,
    unpacked: Result<Tree, String>,
) -> bool {
    match (&shown, &unpacked) {
        (Ok(shown), Ok(unpacked)) => assert_eq!(shown, unpacked, "{what}"),
        (Ok(_), Err(said)) => panic!("{what}: OpenTofu refuses what the mount shows: {said}"),
        (Err(error), Ok(_)) => {
            assert!(!packed, "{what}: the mount refuses what packers write: {error}")
        }
        (Err(_), Err(_)) => {}
    }
    shown.is_ok()
}

#[test]
fn a_mount_shows_the_modules_that_tofu_init_unpacks() {
    let Some((registry, mount, work)) = bed() else { return };
    let host = registry.host();
    let push = registry.push("acme/module");
    let mut shown = 0;
    let count = setting("TOFUFS_INPUTS_INITS", 6);
    for case in cases_until(count) {
        let tag = format!("case-{}", case.number);
        push.artifact(&tag, &pack::module_of(case.zip));
        let unpacked = work.module(&format!("oci://{host}/acme/module?tag={tag}"));
        let seen = on_disk(&mount.join(format!("{host}/acme/module:{tag}")));
        shown += u64::from(hold(&tag, case.plain, seen, unpacked));
    }
    assert!(shown >= count / 4, "only {shown} of {count} were shown");
}

#[test]
fn a_mount_shows_the_providers_that_tofu_init_unpacks() {
    let Some((registry, mount, work)) = bed() else { return };
    let host = registry.host();
    let platform = Platform::host().to_string();
    let mut shown = 0;
    let count = setting("TOFUFS_INPUTS_INITS", 6);
    for number in 0..count {
        let mut rng = Rng::with_seed(number);
        let packed = rng.u8(..3) != 0;
        let mut archive: Archive =
            if packed { plain::archive(&mut rng) } else { mutate::archive(&mut rng) };
        let kind = format!("p{number}");
        // Without a program OpenTofu fails for another reason; a name with a line end cannot be
        // hashed.
        archive.entries.retain(|entry| !entry.central.name.contains(&b'\n'));
        archive.entries.push(entry(
            format!("terraform-provider-{kind}_v1.0.0").as_bytes(),
            b"#!/bin/sh\n",
            8,
        ));
        archive.order = (0..archive.entries.len()).collect();
        archive.trailing.clear();
        let zip = archive.bytes();
        let package = vec![(platform.as_str(), zip.clone())];
        registry.push(&format!("acme/{kind}")).artifact("1.0.0", &pack::provider_of(&package));
        let unpacked = work.provider(&host, &kind).map(|(tree, h1)| {
            if let Ok(members) = index(&zip, &Limits::default()) {
                let ours = hashes(&zip, &members, &Limits::default()).expect("hashes");
                assert_eq!(ours.directory.to_string(), h1, "{kind}");
            }
            runnable(tree)
        });
        let seen = on_disk(&mount.join(format!("{host}/acme/{kind}:1.0.0/{platform}")));
        shown += u64::from(hold(&kind, packed, seen, unpacked));
    }
    assert!(shown >= count / 4, "only {shown} of {count} were shown");
}

/// The same tree, in which the program may be executed, which a mount makes sure of.
fn runnable(mut tree: Tree) -> Tree {
    let prefix = hex(b"terraform-provider-");
    for (name, node) in tree.iter_mut().filter(|(name, _)| name.starts_with(&prefix)) {
        match node {
            Node::File { executable, .. } => *executable = true,
            _ => panic!("{name} is no program"),
        }
    }
    tree
}
