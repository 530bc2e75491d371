//! Stores that skopeo writes, read while it writes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::mount::{Mount, Options};
use crate::support::{layouts, pack, program};
use crate::{module_package, run, tree, unzipped};

const REPO: &str = "reg.example/acme/network";

fn copy(skopeo: &Path, from: &Path, store: &Path, tag: &str) -> Command {
    let mut command = Command::new(skopeo);
    command.args(["copy", "--quiet", "--insecure-policy"]);
    command
        .arg(format!("oci:{}:1.0.0", from.display()))
        .arg(format!("oci:{}:{tag}", store.join(REPO).display()));
    command
}

#[test]
fn a_store_of_skopeo_is_read_while_skopeo_adds_tags() {
    let Some(skopeo) = program("skopeo") else { return };
    let (dir, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let package = module_package();
    let Some(wanted) = unzipped(&package) else { return };
    let from = layouts::add(dir.path(), "from.example", "it", "1.0.0", &pack::module_of(package));
    fs::create_dir_all(store.path().join(REPO)).unwrap();
    run(&mut copy(&skopeo, &from, store.path(), "1.0.0"));
    let source = format!("oci:{}", store.path().display());
    let Some(mount) = Mount::start(&[source], Options::new().args(["--tag-ttl", "1ms"])) else {
        return;
    };
    let releases = mount.join(REPO);
    let listed = || -> Vec<String> {
        let entries = fs::read_dir(&releases).expect("the list of tags");
        let mut names: Vec<_> =
            entries.map(|e| e.expect("an entry").file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(listed(), ["1.0.0"]);
    for minor in 1..8 {
        let tag = format!("1.{minor}.0");
        let mut adding =
            copy(&skopeo, &from, store.path(), &tag).stdin(Stdio::null()).spawn().unwrap();
        let mut rounds = 0;
        loop {
            let ended = adding.try_wait().unwrap();
            // Whatever skopeo is about to do, what was there stays there and stays whole.
            let names = listed();
            assert!(
                names.len() >= minor && names.contains(&"1.0.0".to_owned()),
                "{names:?} before {tag}"
            );
            assert_eq!(tree(&releases.join(&names[names.len() - 1])), wanted);
            rounds += 1;
            if let Some(status) = ended {
                assert!(status.success(), "{status}");
                break;
            }
        }
        assert!(listed().contains(&tag), "{tag} after {rounds} rounds");
    }
    assert_eq!(mount.status()["errors"].as_array().map(Vec::len), Some(0), "{:?}", mount.status());
}
