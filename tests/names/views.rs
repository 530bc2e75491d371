//! Everything that a mount shows, walked: attributes are true, and extended attributes cost
//! nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tofufs::digest::Digest;

use crate::module;
use crate::support::hostile::Hostile;
use crate::support::mount::{Mount, Options, xattr};
use crate::support::pack;

const MAPPING: [&str; 4] = ["--include", "reg.example/*/*", "--platform", "linux_amd64"];
/// 1980-01-01T00:00:00Z
const NO_TIME: i64 = 315_532_800;

fn mounted(server: &Hostile) -> Option<Mount> {
    let host = server.host();
    server.publish("acme/net", "1.0.0", &module("net"));
    server.publish("acme/net", "wrong", &pack::module_of(b"no zip".to_vec()));
    for version in ["1.0.0", "1.1.0_build.1"] {
        let release =
            pack::provider("hello", &version.replace('_', "+"), &["linux_amd64", "darwin_arm64"]);
        server.publish("acme/providers/hello", version, &release);
    }
    let template = format!("{host}/${{namespace}}/providers/${{type}}");
    let options =
        Options::new().args(["--plain-http", &host, "--oci-mirror", &template]).args(MAPPING);
    Mount::start(&[&host], options)
}

/// Every path below `dir`, links not followed; what cannot be opened is passed over.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.expect("an entry");
        found.push(entry.path());
        if entry.file_type().expect("a type").is_dir() {
            walk(&entry.path(), found);
        }
    }
}

/// All that a mount shows but for its staging area.
fn everything(mount: &Mount) -> Vec<PathBuf> {
    let mut found = vec![mount.path().to_owned()];
    for entry in fs::read_dir(mount.path()).expect("a root") {
        let path = entry.expect("an entry").path();
        if !path.ends_with("staging") {
            walk(&path, &mut found);
            found.push(path);
        }
    }
    found
}

#[test]
fn sizes_modes_and_times_are_those_of_the_contract_everywhere() {
    let server = Hostile::start();
    let Some(mount) = mounted(&server) else { return };
    let found = everything(&mount);
    let zips = found.iter().filter(|path| path.extension().is_some_and(|e| e == "zip")).count();
    assert_eq!(zips, 4 + 2, "in the releases, and the links of mirror/: {found:?}");
    for path in &found {
        let name = path.display();
        let is = fs::symlink_metadata(path).expect("an entry");
        let mode = is.permissions().mode() & 0o7777;
        if is.is_file() {
            assert_eq!(fs::read(path).expect("a file").len() as u64, is.len(), "{name}");
            let is_plugin = path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("terraform-provider-"));
            assert_eq!(mode, if is_plugin { 0o755 } else { 0o644 }, "{name}");
        } else if is.is_symlink() {
            let target = fs::read_link(path).expect("a link");
            assert_eq!(target.as_os_str().len() as u64, is.len(), "{name}");
            assert!(target.is_relative(), "{name}");
            let end = fs::metadata(path).expect("it leads somewhere");
            assert!(
                end.is_dir() || fs::read(path).expect("a zip").len() as u64 == end.len(),
                "{name}"
            );
        } else {
            assert!(is.is_dir() && mode == 0o755, "{name}: {mode:o}");
        }
        assert_eq!(
            is.mtime(),
            NO_TIME,
            "{name}: the entries of these archives have that time, too"
        );
        assert_eq!(
            (is.uid(), is.gid()),
            (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
        );
    }
}

#[test]
fn extended_attributes_are_true_and_cost_no_request() {
    let server = Hostile::start();
    let Some(mount) = mounted(&server) else { return };
    let found = everything(&mount);
    let digests: Vec<(PathBuf, Option<String>)> = found
        .iter()
        .filter(|p| p.is_file())
        .map(|p| (p.clone(), fs::read(p).ok()))
        .map(digest)
        .collect();
    let before = server.requests().len();
    let mut told = 0;
    for path in &found {
        let mut buffer = vec![0; 64 << 10];
        let listed = rustix::fs::llistxattr(path, &mut buffer[..]).expect("a list");
        for name in buffer[..listed].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let name = std::str::from_utf8(name).expect("UTF-8");
            if !path.is_symlink() {
                assert!(xattr(path, name).is_some(), "{name} of {} is listed", path.display());
                told += 1;
            }
        }
        let failed =
            fs::read_dir(path).err().is_some_and(|e| e.kind() != std::io::ErrorKind::NotADirectory);
        assert_eq!(failed, path.ends_with("acme/net/wrong"), "{}", path.display());
        let has_reason = !path.is_symlink() && xattr(path, "user.tofufs.error").is_some();
        assert_eq!(has_reason, failed, "{}", path.display());
    }
    assert!(told > 20, "{told}");
    for (path, digest) in digests {
        if path.extension().is_some_and(|e| e == "zip") && !path.is_symlink() {
            assert_eq!(xattr(&path, "user.tofu.zh"), digest, "{}", path.display());
        }
    }
    let release = mount.join(format!("{}/acme/net/1.0.0", server.host()));
    assert_eq!(xattr(&release, "user.oci.digest"), Some(module("net").digest().to_string()));
    assert_eq!(server.requests().len(), before, "all of it was known");
}

fn digest((path, content): (PathBuf, Option<Vec<u8>>)) -> (PathBuf, Option<String>) {
    (path, content.map(|bytes| format!("zh:{}", Digest::of(&bytes).hex())))
}

#[test]
fn a_directory_that_a_client_made_in_the_plugin_cache_opens_before_anything_is_in_it() {
    let server = Hostile::start();
    let Some(mount) = mounted(&server) else { return };
    let cache = mount.join("plugin-cache");
    for made in [
        "reg.example/acme/hello/9.0.0",
        "reg.example/acme/other/1.0.0",
        "elsewhere.example/ns/typ/1.0.0",
    ] {
        let package = cache.join(made).join("linux_amd64");
        for dir in package
            .ancestors()
            .take_while(|dir| *dir != cache)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            if !dir.exists() {
                fs::create_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
                let count =
                    fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).count();
                assert_eq!(count, 0, "{}", dir.display());
            }
        }
        fs::write(package.join("terraform-provider-x"), made).expect("a package is taken");
        assert_eq!(fs::read_to_string(package.join("terraform-provider-x")).expect("a file"), made);
    }
    let absent = fs::read_dir(cache.join("reg.example/acme/hello/8.0.0"));
    assert!(absent.is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound));
}
