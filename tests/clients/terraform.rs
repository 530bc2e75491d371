//! Terraform and OpenTofu with module directories of a mount as `source`.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::Mount;
use crate::support::{pack, program};
use crate::{logged_in, module_package, run};

/// `to` as seen from the directory `from`; both are absolute.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let up = from.components().filter(|c| matches!(c, Component::Normal(_))).map(|_| "..");
    up.collect::<PathBuf>().join(to.strip_prefix("/").expect("an absolute path"))
}

/// A root module that uses the release in each spelling and by each kind of path, whole and in
/// part.
fn root_module(dir: &Path, spellings: &[PathBuf]) {
    let mut text = String::new();
    let mut number = 0;
    for release in spellings {
        for source in [release.clone(), relative(dir, release)] {
            let source = source.display();
            text += &format!(
                "module \"whole_{number}\" {{\n  source = \"{source}\"\n  name   = \"n\"\n}}\n\
                 module \"inner_{number}\" {{\n  source = \"{source}//modules/inner\"\n}}\n\
                 output \"all_{number}\" {{\n  value = [module.whole_{number}.greeting, module.inner_{number}.inner]\n}}\n"
            );
            number += 1;
        }
    }
    fs::write(dir.join("main.tf"), text).expect("a writable directory");
}

fn client(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir.parent().expect("a parent"))
        .env("CHECKPOINT_DISABLE", "1");
    command
}

/// `init`, `validate`, and a plan that shows what the modules say.
fn use_modules(program: &Path, dir: &Path, releases: usize) {
    run(client(program, dir).args(["init", "-input=false", "-no-color"]));
    let valid = run(client(program, dir).args(["validate", "-no-color"]));
    assert!(valid.contains("The configuration is valid"), "{valid}");
    let plan = run(client(program, dir).args(["plan", "-input=false", "-no-color", "-lock=false"]));
    assert_eq!(plan.matches("\"hello n\"").count(), 2 * releases, "{plan}");
}

fn a_module_is_used_by_its_path(name: &str) {
    let Some(program) = program(name) else { return };
    let Some(mut registry) = DockerRegistry::start(Access::Htpasswd, true) else { return };
    registry.push("acme/network").artifact("1.0.0", &pack::module_of(module_package()));
    let host = registry.host();
    // A tag is asked for again each time, so that the second round needs what was known before.
    let options = logged_in(&registry).args(["--tag-ttl", "1ms"]);
    let Some(mount) = Mount::start(&[format!("{host}/acme")], options) else { return };
    let top = mount.join(format!("{host}/acme"));
    let mut by_digest = OsString::from("network@");
    by_digest.push(mount.xattr(top.join("network:1.0.0"), "user.oci.digest").expect("a digest"));
    let spellings = [top.join("network/1.0.0"), top.join("network:1.0.0"), top.join(by_digest)];

    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("root");
    fs::create_dir(&root).unwrap();
    root_module(&root, &spellings);
    use_modules(&program, &root, spellings.len());

    registry.stop();
    // What init has made points into the mount, and init from nothing finds it all again.
    let plan =
        run(client(&program, &root).args(["plan", "-input=false", "-no-color", "-lock=false"]));
    assert!(plan.contains("\"hello n\""), "{plan}");
    fs::remove_dir_all(root.join(".terraform")).unwrap();
    use_modules(&program, &root, spellings.len());
    assert!(
        mount.xattr(&spellings[1], "user.tofufs.stale").is_some(),
        "the registry was asked in vain"
    );
    assert_eq!(mount.requests().1, 1);
}

#[test]
fn terraform_uses_modules_by_their_paths_with_and_without_the_registry() {
    a_module_is_used_by_its_path("terraform");
}

#[test]
fn opentofu_uses_modules_by_their_paths_with_and_without_the_registry() {
    a_module_is_used_by_its_path("tofu");
}
