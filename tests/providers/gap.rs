//! Across an air gap: one file, mounted in a network namespace that has no network, for an
//! unchanged working directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use crate::clients::{Client, configuration_for};
use crate::support::docker_registry::DockerRegistry;
use crate::support::mount::{Mount, finish};
use crate::support::{pack, program, skip, wait_until};
use crate::tiny::{self, OTHER};
use crate::{ORIGIN, declared, here, mapped, mirror_flags, registry};

const PROVIDERS: [&str; 3] = ["tiny", "small", "little"];
const THIRD: &str = "plan9_arm";
const MODULES: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// A mount whose process is traced and has no network. Unmounted when dropped.
struct Gap {
    tracer: Child,
    path: PathBuf,
    log: PathBuf,
}

impl Gap {
    /// Mounts `archive` where `online` was. The tracer sees every socket from the first call on.
    fn mount(online: &Mount, archive: &Path, base: &Path) -> Gap {
        let (log, path) = (base.join("sockets"), online.path().to_owned());
        let mut command = Command::new("unshare");
        command.args(["-n", "strace", "-f", "-qq", "-e", "trace=socket,connect", "-o"]).arg(&log);
        command.arg(env!("CARGO_BIN_EXE_tofufs")).args(["mount", "--read-only", "--offline"]);
        command
            .arg("--cache-dir")
            .arg(base.join("cache"))
            .arg("--state-dir")
            .arg(base.join("state"));
        command.arg(format!("oci-archive:{}", archive.display())).arg(&path);
        command.env("HOME", base).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let tracer = command.spawn().expect("unshare runs");
        let gap = Gap { tracer, path, log };
        let is_there = || fs::read_dir(&gap.path).is_ok_and(|mut entries| entries.next().is_some());
        assert!(
            wait_until(PATIENCE, is_there),
            "{}",
            fs::read_to_string(&gap.log).unwrap_or_default()
        );
        gap
    }

    /// Ends the mount; the calls that made or used a socket of the network.
    fn network_calls(mut self) -> (usize, Vec<String>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tofufs"));
        command.arg("umount").arg(&self.path);
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
        let ended =
            wait_until(PATIENCE, || self.tracer.try_wait().expect("a child of ours").is_some());
        assert!(ended, "the daemon outlives its mount");
        let text = fs::read_to_string(&self.log).expect("a log");
        let calls: Vec<String> = text.lines().map(str::to_owned).collect();
        (calls.len(), calls.into_iter().filter(|line| line.contains("AF_INET")).collect())
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        if self.tracer.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        if !wait_until(Duration::from_secs(10), || {
            self.tracer.try_wait().is_ok_and(|status| status.is_some())
        }) {
            let _ = self.tracer.kill();
        }
    }
}

/// Modules that call each other by their paths below the mount, and providers for three platforms.
fn publish(registry: &DockerRegistry, mount: &Mount) -> Option<()> {
    let releases = mount.join(registry.host()).join("acme");
    for at in 0..MODULES {
        let mut text = format!("output \"said\" {{ value = \"module {at}\" }}\n");
        if at > 0 {
            let below = releases.join(format!("m{}/1.0.0", at - 1));
            text += &format!("module \"below\" {{ source = \"{}\" }}\n", below.display());
        }
        registry
            .push(&format!("acme/m{at}"))
            .artifact("1.0.0", &pack::module(&[("main.tf", text.as_bytes())]));
    }
    let runs = tiny::built()?;
    for name in PROVIDERS {
        let platforms = [here(), OTHER.to_owned(), THIRD.to_owned()];
        let packages: Vec<_> = platforms
            .iter()
            .map(|platform| {
                let content = if *platform == here() { runs } else { platform.as_bytes() };
                (platform.as_str(), pack::provider_zip(name, "1.0.0", content))
            })
            .collect();
        registry
            .push(&format!("mirror/acme/{name}"))
            .artifact("1.0.0", &pack::provider_of(&packages));
    }
    Some(())
}

fn root_module(mount: &Mount, host: &str) -> String {
    let required = PROVIDERS
        .map(|name| format!("    {name} = {{ source = \"{ORIGIN}/acme/{name}\" }}\n"))
        .concat();
    let used = PROVIDERS
        .map(|name| format!("data \"tiny_greeting\" \"{name}\" {{ provider = {name} }}\n"))
        .concat();
    let top = mount.join(host).join(format!("acme/m{}/1.0.0", MODULES - 1));
    format!(
        "terraform {{\n  required_providers {{\n{required}  }}\n}}\n{used}\
         module \"top\" {{ source = \"{}\" }}\n\
         output \"all\" {{ value = [module.top.said, data.tiny_greeting.little.text] }}\n",
        top.display()
    )
}

/// Everything below `dir`: what links point to, what files hold.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let seen = match (meta.is_dir(), meta.is_symlink()) {
                (true, _) => {
                    pending.push(path.clone());
                    b"a directory".to_vec()
                }
                (_, true) => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                _ => fs::read(&path).unwrap(),
            };
            found.insert(path.strip_prefix(dir).unwrap().to_owned(), seen);
        }
    }
    found
}

fn without_network(command: &Command) -> Command {
    let mut inside = Command::new("unshare");
    inside.arg("-n").arg(command.get_program()).args(command.get_args()).env_clear();
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    inside.current_dir(command.get_current_dir().expect("a directory")).stdin(Stdio::null());
    inside
}

/// O40
fn a_working_directory_works_in_the_gap_as_it_did_online(name: &str) {
    let (Some(_), Some(_), Some(unshare)) = (program(name), program("strace"), program("unshare"))
    else {
        return;
    };
    if !Command::new(unshare)
        .args(["-n", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return skip("a network namespace cannot be made");
    }
    let Some(registry) = registry() else { return };
    let host = registry.host();
    let all = PROVIDERS.map(|name| format!("acme/{name}"));
    let provided = declared(&all.each_ref().map(String::as_str));
    let Some(mut online) = Mount::start(&[&host], mapped(&registry).args(&provided)) else {
        return;
    };
    let Some(()) = publish(&registry, &online) else { return };
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    let client = Client::new(name, &base, "work", &configuration_for(&online, "plugins"))
        .expect("it is installed");
    fs::write(client.dir.join("main.tf"), root_module(&online, &host)).unwrap();
    client.run(&["init", "-input=false", "-no-color"]);
    let (lock, installed) = (client.lock(), tree(&client.dir.join(".terraform")));
    let planned = client.run(&["plan", "-input=false", "-no-color"]);
    assert!(planned.contains("module 4") && planned.contains("hello"), "{planned}");

    let archive = base.join("bundle.tar");
    let mut bundle = online.command("bundle");
    bundle.arg("--root").arg(&client.dir).args(["--plain-http", &host]).args(mirror_flags(&host));
    bundle
        .arg("--cache-dir")
        .arg(online.cache())
        .arg("-o")
        .arg(format!("oci-archive:{}", archive.display()));
    let output = finish(bundle);
    assert!(output.status.success(), "{output:?}");
    assert!(online.umount().status.success());
    drop(registry);

    client.forget(true);
    let gap = Gap::mount(&online, &archive, &base);
    for arguments in
        [&["init", "-input=false"][..], &["plan", "-input=false"], &["apply", "-auto-approve"]]
    {
        let output = finish(without_network(&client.command(arguments)));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{arguments:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(client.lock(), lock);
    assert!(tree(&client.dir.join(".terraform")) == installed, "another tree than online");
    let (calls, to_network) = gap.network_calls();
    println!(
        "{MODULES} modules, {} providers for 3 platforms in {} bytes: {} of {calls} socket and \
         connect calls were of AF_INET",
        PROVIDERS.len(),
        fs::metadata(&archive).unwrap().len(),
        to_network.len()
    );
    assert!(to_network.is_empty() && calls > 0, "{to_network:?}");
}

#[test]
fn terraform_works_in_the_gap_as_online() {
    a_working_directory_works_in_the_gap_as_it_did_online("terraform");
}

#[test]
fn opentofu_works_in_the_gap_as_online() {
    a_working_directory_works_in_the_gap_as_it_did_online("tofu");
}
