//! Hostile places and users on the machine itself.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};

use super::support::{layouts, skip};
use super::*;

/// A directory with a store, a cache, a mount point and a state directory; nothing is mounted yet.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        for name in ["mnt", "store/registry.example", "home"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        Place(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `tofufs mount` that has to fail before anything is mounted: what it said.
    #[track_caller]
    fn refuses(&self, cache: &Path, point: &Path) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tofufs"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path("home"));
        command
            .arg("mount")
            .arg("--cache-dir")
            .arg(cache)
            .arg("--state-dir")
            .arg(self.path("state"));
        command.arg(format!("oci:{}", self.path("store").display())).arg(point);
        let output: Output = finish(command);
        let mounted = support::mount::mounted().contains(self.0.path().to_str().unwrap());
        if mounted {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
        assert!(!mounted && output.status.code() == Some(1), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("tofufs: ") && text.lines().count() == 1, "{text:?}");
        text
    }
}

/// L04
#[test]
fn a_cache_that_others_can_write_to_is_refused() {
    let place = Place::new();
    let mode = |name: &str, mode| {
        let path = place.path(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let point = place.path("mnt");
    for (name, bits) in [("group", 0o775), ("world", 0o777), ("sticky", 0o1777)] {
        let text = place.refuses(&mode(name, bits), &point);
        assert!(text.contains(name) && text.contains("open to other users"), "{text}");
    }
    let foreign = mode("foreign", 0o700);
    if std::os::unix::fs::chown(&foreign, Some(12345), None).is_ok() {
        let text = place.refuses(&foreign, &point);
        assert!(text.contains("foreign"), "{text}");
    } else {
        skip("another user's directory needs root");
    }
    symlink(mode("elsewhere", 0o700), place.path("link")).unwrap();
    let text = place.refuses(&place.path("link"), &point);
    assert!(text.contains("link") && text.contains("no symbolic link"), "{text}");
}

/// L20
#[test]
fn a_place_that_cannot_be_a_mount_point_is_refused() {
    let place = Place::new();
    let (cache, point) = (place.path("cache"), place.path("mnt"));
    fs::write(point.join("file"), "").unwrap();
    assert!(place.refuses(&cache, &point).contains("not empty"));
    fs::remove_file(point.join("file")).unwrap();
    symlink(&point, place.path("link")).unwrap();
    assert!(place.refuses(&cache, &place.path("link")).contains("symbolic link"));
    assert!(place.refuses(&point.join("cache"), &point).contains("cache"));
    let inside = cache.join("mnt");
    fs::create_dir_all(&inside).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(place.refuses(&cache, &inside).contains("cache"));
    assert!(place.refuses(&cache, &place.path("missing")).contains("missing"));
    fs::write(place.path("plain"), "").unwrap();
    assert!(place.refuses(&cache, &place.path("plain")).contains("plain"));
}

/// A module with a file whose mode in the archive is 04755.
fn set_uid() -> Artifact {
    let mut zip = pack::zip(&[("run!", b"#!/bin/sh\nid -u\n"), ("main.tf", b"# x\n")]);
    let (plain, set) = ((0o100755u32 << 16).to_le_bytes(), (0o106755u32 << 16).to_le_bytes());
    let at =
        zip.windows(4).rposition(|four| four == plain).expect("the mode in the central directory");
    zip[at..at + 4].copy_from_slice(&set);
    pack::module_of(zip)
}

/// L19
#[test]
fn nothing_in_a_mount_is_set_id_or_a_device() {
    let server = Hostile::start();
    server.publish("net", "1.0.0", &set_uid());
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    let run = bed.path(&format!("{}/net:1.0.0", server.host())).join("run");
    assert_eq!(fs::metadata(&run).unwrap().permissions().mode(), 0o100755);
    let mounts = support::mount::mounted();
    let line =
        mounts.lines().find(|line| line.contains(bed.mount.path().to_str().unwrap())).unwrap();
    assert!(line.contains("nosuid") && line.contains("nodev"), "{line}");
}

/// Other users read what the mount's owner lets them read, and what they wait for ends as for
/// anybody.
#[test]
fn another_user_reads_only_where_the_mount_allows_it() {
    let (true, Some(setpriv)) = (rustix::process::geteuid().is_root(), support::program("setpriv"))
    else {
        return skip("needs root and setpriv");
    };
    let server = Hostile::start();
    let (content, _) = put_small(&server, "net");
    for (options, allowed) in [(&[][..], false), (&["--allow-other"][..], true)] {
        let Some(bed) = Bed::over(&[&server], options) else { return };
        // The way to the mount point has to be open to others, which a temporary directory is not.
        let base = bed.mount.path().parent().unwrap();
        fs::set_permissions(base, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(&setpriv);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"]);
        command.arg(bed.path(&format!("{}/net:1.0.0", server.host())).join("main.tf"));
        let output = finish(command);
        assert_eq!(output.status.success(), allowed, "{output:?}");
        assert_eq!(output.stdout == content, allowed);
    }
}

/// L06: a blob of a local store is somebody else's file, so it is verified like any other.
#[test]
fn a_local_store_is_not_believed_either() {
    let store = tempfile::tempdir().unwrap();
    let artifact = module(&noise(20, 900));
    let dir = layouts::add(store.path(), "registry.example", "net", "1.0.0", &artifact);
    let package = Digest::of(package_of(&artifact));
    let blob = layouts::blob_path(&dir, &package);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[200] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let Some(mount) = Mount::start(&[format!("oci:{}", store.path().display())], Options::new())
    else {
        return;
    };
    let bed = Bed { mount };
    bed.refused("registry.example/net:1.0.0", Errno::IO, &[&package.to_string()]);
    assert_eq!(bed.cached(&package), None);
}
