//! Across an air gap: one file, mounted in a network namespace that has no network, for an
//! unchanged working directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::clients::{Client, configuration_for};
use crate::support::docker_registry::DockerRegistry;
use crate::support::gap::{self, Gap, without_network};
use crate::support::mount::{Mount, finish};
use crate::support::{pack, program};
use crate::tiny::{self, OTHER};
use crate::{ORIGIN, declared, here, mapped, mirror_flags, registry};

const PROVIDERS: [&str; 3] = ["tiny", "small", "little"];
const THIRD: &str = "plan9_arm";
const MODULES: usize = 5;

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

/// O40
fn a_working_directory_works_in_the_gap_as_it_did_online(name: &str) {
    if program(name).is_none() || !gap::can_be_made() {
        return;
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
    let archived = format!("oci-archive:{}", archive.display());
    let gap = Gap::mount(online.path(), &base.join("gap"), &[&archived]);
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
