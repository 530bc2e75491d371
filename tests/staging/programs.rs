//! The programs with which people put files somewhere.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::{Bed, names, read};
use crate::support::mount::{Options, finish};
use crate::support::program;

/// A directory like a module: nested, with an executable, a link, an empty directory, and times of
/// long ago.
fn source() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("modules/inner");
    fs::create_dir_all(&inner).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::write(dir.path().join("main.tf"), "variable \"a\" {}\n").unwrap();
    fs::write(inner.join("big.bin"), vec![42; 300_000]).unwrap();
    fs::write(inner.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(inner.join("run.sh"), Permissions::from_mode(0o750)).unwrap();
    symlink("../main.tf", dir.path().join("modules/link.tf")).unwrap();
    let old = Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 };
    let old = Timestamps { last_access: old, last_modification: old };
    // Of directories and links too: rsync leaves the times of those that were made within the same
    // second.
    for name in ["main.tf", "modules/link.tf", "modules/inner", "modules", "empty", "."] {
        rustix::fs::utimensat(CWD, dir.path().join(name), &old, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    dir
}

fn run(name: &str, arguments: &[&str], dir: &Path) -> bool {
    let Some(path) = program(name) else { return false };
    let mut command = Command::new(path);
    command
        .args(arguments)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .env("HOME", dir)
        .env("GIT_CONFIG_NOSYSTEM", "1");
    let output = finish(command);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{name} {arguments:?}: {output:?}"
    );
    true
}

/// Both trees have the same names, kinds, contents, modes and times.
fn assert_same(a: &Path, b: &Path) {
    assert_eq!(names(a), names(b), "{}", a.display());
    for name in names(a) {
        let (a, b) = (a.join(&name), b.join(&name));
        let (x, y) = (fs::symlink_metadata(&a).unwrap(), fs::symlink_metadata(&b).unwrap());
        assert_eq!(x.mode(), y.mode(), "{}", b.display());
        assert_eq!((x.mtime(), x.mtime_nsec()), (y.mtime(), y.mtime_nsec()), "{}", b.display());
        if x.is_dir() {
            assert_same(&a, &b);
        } else if x.is_symlink() {
            assert_eq!(fs::read_link(&a).unwrap(), fs::read_link(&b).unwrap());
        } else {
            assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap(), "{}", b.display());
        }
    }
}

#[test]
fn copies_are_exact() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let source = source();
    let (from, dir) = (source.path().to_str().unwrap(), bed.dir("net"));
    if run("cp", &["-a", from, "1.0.0"], &dir) {
        assert_same(source.path(), &dir.join("1.0.0"));
        assert!(run("cp", &["-a", "1.0.0", "1.0.1"], &dir));
        assert_same(source.path(), &dir.join("1.0.1"));
        assert!(run("mv", &["1.0.1", "1.0.2"], &dir) && run("rm", &["-r", "1.0.2"], &dir));
    }
    if run("rsync", &["-a", &format!("{from}/"), "2.0.0"], &dir) {
        assert_same(source.path(), &dir.join("2.0.0"));
    }
    let archive = tempfile::tempdir().unwrap();
    let tar = archive.path().join("x.tar");
    if run(
        "tar",
        &["--format=posix", "-cf", tar.to_str().unwrap(), "-C", from, "."],
        archive.path(),
    ) {
        fs::create_dir(dir.join("3.0.0")).unwrap();
        assert!(run("tar", &["xpf", tar.to_str().unwrap()], &dir.join("3.0.0")));
        assert_same(source.path(), &dir.join("3.0.0"));
    }
    assert!(run(
        "install",
        &["-m", "640", "-D", &format!("{from}/main.tf"), "4.0.0/a/main.tf"],
        &dir
    ));
    assert_eq!(fs::metadata(dir.join("4.0.0/a/main.tf")).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn editors_edit() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("net/1.0.0");
    let file = dir.join("main.tf");
    fs::write(&file, "one\ntwo\n").unwrap();
    if run("sed", &["-i", "s/one/1/", "main.tf"], &dir) {
        assert_eq!(read(&file), "1\ntwo\n");
    }
    for (editor, arguments) in [("vim", vec!["-es"]), ("ex", vec!["-s"])] {
        fs::write(&file, "one\ntwo\n").unwrap();
        let script = ["-c", "%s/two/2/", "-c", "wq", "main.tf"];
        if run(editor, &[arguments.as_slice(), &script].concat(), &dir) {
            assert_eq!(read(&file), "one\n2\n", "{editor}");
        }
    }
    assert_eq!(names(&dir).iter().filter(|name| !name.starts_with('.')).count(), 1);
}

#[test]
fn git_works_in_it() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let source = source();
    let identity =
        ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=main"];
    let git =
        |dir: &Path, arguments: &[&str]| run("git", &[&identity[..], arguments].concat(), dir);
    if !git(source.path(), &["init", "-q"]) {
        return;
    }
    git(source.path(), &["add", "."]);
    git(source.path(), &["commit", "-qm", "first"]);
    let dir = bed.dir("net");
    git(&dir, &["clone", "-q", source.path().to_str().unwrap(), "1.0.0"]);
    let clone = dir.join("1.0.0");
    fs::write(clone.join("new.tf"), "new").unwrap();
    git(&clone, &["add", "new.tf"]);
    git(&clone, &["commit", "-qm", "second"]);
    git(&clone, &["gc", "-q"]);
    git(&clone, &["fsck", "--strict", "--no-progress"]);
    git(&clone, &["diff", "--exit-code"]);
}
