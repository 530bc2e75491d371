//! What can be made where.

use std::fs;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Bed, HOST, errno, names};
use crate::support::mount::Options;

#[test]
fn declared_roots_and_mirror_stay() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let staging = bed.mount.join("staging");
    assert_eq!(names(&staging), ["mirror", HOST]);
    assert!(names(bed.mount.path()).contains(&"staging".to_owned()));
    for fixed in ["mirror", HOST] {
        assert_eq!(errno(fs::remove_dir(staging.join(fixed))), libc::EBUSY, "{fixed}");
        assert_eq!(
            errno(fs::rename(staging.join(fixed), staging.join("other.example"))),
            libc::EBUSY,
            "{fixed}"
        );
    }
    bed.dir("acme");
    assert_eq!(errno(fs::rename(bed.host().join("acme"), staging.join("mirror"))), libc::EBUSY);
}

#[test]
fn at_the_top_only_registries_of_a_store_are_made() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let staging = bed.mount.join("staging");
    assert_eq!(errno(fs::create_dir(staging.join("modules"))), libc::EPERM);
    assert_eq!(errno(fs::write(staging.join("main.tf"), "")), libc::EPERM);
    assert_eq!(errno(std::os::unix::fs::symlink("x", staging.join("l.example"))), libc::EPERM);
    fs::create_dir_all(staging.join("other.example:5000/acme")).unwrap();
    fs::remove_dir_all(staging.join("other.example:5000")).unwrap();
}

/// What an artifact may hold is decided when it is committed.
#[test]
fn a_file_may_have_any_name() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("acme/net/1.0.0");
    for name in
        ["Main.tf", ".git", "..x", "a b", "-rf", "new\nline", "ü", "a:b@c", &"x".repeat(255)]
    {
        fs::write(dir.join(name), name).unwrap();
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), name);
    }
    assert_eq!(names(&dir).len(), 9);
    assert_eq!(errno(fs::write(dir.join("x".repeat(256)), "")), libc::ENAMETOOLONG);
}

/// L24
#[test]
fn renames_work_across_tags_and_hard_links_do_not() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let (old, new) = (bed.dir("net/1.0.0/modules"), bed.host().join("net/2.0.0"));
    fs::write(old.join("main.tf"), "a").unwrap();
    assert_eq!(errno(fs::hard_link(old.join("main.tf"), old.join("link"))), libc::EPERM);
    fs::rename(bed.host().join("net/1.0.0"), &new).unwrap();
    fs::rename(new.join("modules/main.tf"), new.join("main.tf")).unwrap();
    assert_eq!(
        (names(&new), names(&bed.host().join("net"))),
        (vec!["main.tf".into(), "modules".into()], vec!["2.0.0".into()])
    );
}

#[test]
fn flags_of_a_rename_are_kept() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    let (a, b) = (dir.join("a"), dir.join("b"));
    fs::write(&a, "a").unwrap();
    fs::create_dir(&b).unwrap();
    fs::write(b.join("in"), "").unwrap();
    let rename = |flags| renameat_with(CWD, &a, CWD, &b, flags);
    assert_eq!(
        renameat_with(CWD, &a, CWD, dir.join("c"), RenameFlags::WHITEOUT),
        Err(rustix::io::Errno::INVAL)
    );
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    assert_eq!(rename(RenameFlags::EXCHANGE), Ok(()));
    assert!(a.join("in").exists() && b.is_file());
}

#[test]
fn everything_else_stays_read_only() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let root = bed.mount.path();
    for place in ["new", &format!("{HOST}/new")] {
        assert_eq!(errno(fs::create_dir(root.join(place))), libc::EROFS, "{place}");
        assert_eq!(errno(fs::write(root.join(place), "")), libc::EROFS, "{place}");
    }
    let file = bed.dir("x").join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(errno(fs::rename(root.join(HOST), bed.host().join("y"))), libc::EROFS);
    assert_eq!(errno(fs::hard_link(&file, root.join(HOST).join("link"))), libc::EROFS);
    assert_eq!(errno(fs::rename(&file, root.join(HOST).join("file"))), libc::EPERM);
    assert!(file.exists());
}

#[test]
fn a_read_only_mount_has_no_staging() {
    let Some(bed) = Bed::start(Options::new().args(["--read-only"])) else { return };
    assert_eq!(names(bed.mount.path()), [HOST]);
    assert_eq!(errno(fs::create_dir(bed.mount.join("staging"))), libc::EROFS);
}
