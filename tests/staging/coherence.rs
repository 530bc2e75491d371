//! What the kernel keeps of staged names is true: after a move, a commit, and whatever another
//! process did.
//!
//! Everything is looked at before, so that the kernel holds it.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, openat, renameat_with, statat};
use rustix::io::Errno;

use super::{Bed, HOST, errno, names, read};
use crate::support::mount::{Options, finish};
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(20);

/// Stages a module and looks at all of it; the directory, and its inode.
fn stage(bed: &Bed, path: &str) -> (PathBuf, u64) {
    let dir = bed.dir(path);
    fs::create_dir_all(dir.join("modules/inner")).unwrap();
    for name in ["main.tf", "modules/inner/main.tf"] {
        fs::write(dir.join(name), format!("# {path}\n")).unwrap();
        assert_eq!(read(&dir.join(name)), format!("# {path}\n"));
    }
    assert_eq!(names(&dir.join("modules")), ["inner"]);
    let inode = fs::metadata(&dir).unwrap().ino();
    (dir, inode)
}

fn opened(dir: &Path) -> OwnedFd {
    rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// Runs a shell in `dir`; what it said.
fn shell(dir: &Path, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(dir).env("LC_ALL", "C");
    let output = finish(command);
    (String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr)).into_owned()
}

fn assert_gone(dir: &Path) {
    for name in ["", "main.tf", "modules", "modules/inner", "modules/inner/main.tf"] {
        assert_eq!(
            errno(fs::symlink_metadata(dir.join(name))),
            libc::ENOENT,
            "{}",
            dir.join(name).display()
        );
    }
    assert!(
        !names(dir.parent().unwrap())
            .contains(&dir.file_name().unwrap().to_str().unwrap().to_owned())
    );
}

/// Many, because what the kernel is told later would hide that it was wrong for a moment.
#[test]
fn a_moved_stage_is_the_release_at_once_and_nothing_where_it_was() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    for n in 0..20 {
        let path = format!("acme/net/1.{n}.0");
        let (dir, staged) = stage(&bed, &path);
        let target = bed.mount.join(HOST).join(&path);
        // By directories that are open, so that no other question comes first.
        let (from, to) = (opened(dir.parent().unwrap()), opened(target.parent().unwrap()));
        let name = dir.file_name().unwrap();
        rustix::fs::renameat(&from, name, &to, name).unwrap();
        let released = statat(&to, name, AtFlags::empty()).unwrap();
        assert_ne!(released.st_ino, staged, "the staged directory under the release's name");
        assert_eq!(statat(&from, name, AtFlags::empty()).unwrap_err(), Errno::NOENT);
        assert_eq!(fs::metadata(target.join("main.tf")).unwrap().mode() & 0o777, 0o644);
        assert_eq!(read(&target.join("modules/inner/main.tf")), format!("# {path}\n"));
        assert!(bed.mount.xattr(format!("{HOST}/{path}"), "user.oci.digest").is_some());
        assert_gone(&dir);
    }
}

#[test]
fn who_stands_in_a_moved_stage_finds_nothing_in_it() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let (dir, _) = stage(&bed, "acme/net/1.0.0");
    let inside = opened(&dir.join("modules/inner"));
    fs::rename(&dir, bed.mount.join(HOST).join("acme/net/1.0.0")).unwrap();
    assert_gone(&dir);
    // By its own directory, the kernel may answer what it holds until it is told.
    let gone = || statat(&inside, "main.tf", AtFlags::empty()).is_err_and(|e| e == Errno::NOENT);
    assert!(wait_until(LIMIT, gone), "{}", bed.mount.log());
    let made = openat(&inside, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
    assert_eq!(made.unwrap_err(), Errno::NOENT);
}

#[test]
fn what_was_committed_is_gone_when_the_command_ends() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    for n in 0..5 {
        let path = format!("acme/net/1.{n}.0");
        let (dir, staged) = stage(&bed, &path);
        let inside = opened(&dir.join("modules/inner"));
        let mut commit = bed.mount.command("commit");
        // What is committed is told by a directory in it, too.
        commit.arg(if n % 2 == 0 { dir.clone() } else { dir.join("modules") });
        let output = finish(commit);
        assert!(output.status.success(), "{output:?}");
        assert_gone(&dir);
        assert_eq!(statat(&inside, "main.tf", AtFlags::empty()).unwrap_err(), Errno::NOENT);
        assert_eq!(read(&bed.mount.join(HOST).join(&path).join("main.tf")), format!("# {path}\n"));
        // The same path again is something new, and who stood in the old one does not find it.
        let (_, again) = stage(&bed, &path);
        assert_ne!(again, staged);
        assert_eq!(statat(&inside, "main.tf", AtFlags::empty()).unwrap_err(), Errno::NOENT);
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// A refused move leaves the stage as it was, for who stands in it too, and it can be moved later.
#[test]
fn a_stage_that_was_not_published_stays_where_it_is() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let (dir, staged) = stage(&bed, "acme/net/1.0.0");
    let (inside, target) =
        (opened(&dir.join("modules")), bed.mount.join(HOST).join("acme/net/1.0.0"));
    let writer = File::options().append(true).open(dir.join("main.tf")).unwrap();
    for _ in 0..2 {
        assert_eq!(errno(fs::rename(&dir, &target)), libc::EBUSY);
        assert_eq!(fs::metadata(&dir).unwrap().ino(), staged);
        assert!(statat(&inside, "inner/main.tf", AtFlags::empty()).is_ok());
        assert_eq!(
            shell(&dir.join("modules"), "cat ../main.tf; basename $(pwd -P)"),
            "# acme/net/1.0.0\nmodules\n"
        );
    }
    drop(writer);
    assert!(wait_until(LIMIT, || fs::rename(&dir, &target).is_ok()), "{}", bed.mount.log());
    assert_gone(&dir);
    assert_eq!(read(&target.join("main.tf")), "# acme/net/1.0.0\n");
}

#[test]
fn an_absent_name_is_there_when_another_process_made_it() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("acme/net/1.0.0");
    for (name, script) in [
        ("file", "echo x > file"),
        ("directory", "mkdir directory"),
        ("link", "ln -s file link"),
        ("deep/er/file", "mkdir -p deep/er && echo x > deep/er/file"),
        ("renamed", "mv file renamed"),
        ("directory/moved", "mv renamed directory/moved"),
    ] {
        assert_eq!(errno(fs::symlink_metadata(dir.join(name))), libc::ENOENT, "{name}");
        assert_eq!(shell(&dir, script), "", "{name}");
        assert!(fs::symlink_metadata(dir.join(name)).is_ok(), "{name}");
    }
    assert_eq!(errno(fs::symlink_metadata(dir.join("renamed"))), libc::ENOENT);
    assert_eq!(shell(&dir, "rm -r directory deep; ls"), "link\n");
    assert_eq!(errno(fs::symlink_metadata(dir.join("deep/er/file"))), libc::ENOENT);
}

#[test]
fn directories_that_are_renamed_and_made_again_are_what_they_are_for_everybody() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("acme/net");
    for name in ["a", "b"] {
        fs::create_dir_all(dir.join(name).join("sub")).unwrap();
        fs::write(dir.join(name).join("sub/file"), name).unwrap();
    }
    let content = |name: &str| {
        let path = dir.join(name).join("sub/file");
        let other = shell(&dir, &format!("cat {name}/sub/file"));
        assert_eq!(read(&path), other);
        other
    };
    let inside = opened(&dir.join("a/sub"));
    assert_eq!((content("a"), content("b")), ("a".into(), "b".into()));
    renameat_with(CWD, dir.join("a"), CWD, dir.join("b"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!((content("a"), content("b")), ("b".into(), "a".into()));
    assert_eq!(shell(&dir, "mv b c; mkdir -p b/sub; printf new > b/sub/file"), "");
    assert_eq!((content("b"), content("c")), ("new".into(), "a".into()));
    // Over an empty directory, and a name that was removed and made again.
    fs::create_dir(dir.join("empty")).unwrap();
    fs::rename(dir.join("c"), dir.join("empty")).unwrap();
    assert_eq!(content("empty"), "a");
    assert!(statat(&inside, "file", AtFlags::empty()).is_ok());
    fs::remove_dir_all(dir.join("empty")).unwrap();
    assert_eq!(shell(&dir, "mkdir -p empty/sub; printf again > empty/sub/file"), "");
    assert_eq!(content("empty"), "again");
    assert_eq!(statat(&inside, "file", AtFlags::empty()).unwrap_err(), Errno::NOENT);
    assert_eq!(shell(&dir, "ls"), "a\nb\nempty\n");
}

/// The handle that made a file writes past the kernel's pages; whoever opens it meanwhile sees what
/// it writes.
#[test]
fn what_the_maker_of_a_file_writes_is_seen_through_every_other_handle() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let path = bed.dir("x").join("file");
    let maker = File::create(&path).unwrap();
    maker.write_all_at(&[1; 8192], 0).unwrap();
    let reader = File::open(&path).unwrap();
    let other = File::options().read(true).write(true).open(&path).unwrap();
    let mut mapped = super::mapped::Mapped::new(&other, 8192);
    let seen = |at: u64| {
        let mut byte = [0];
        reader.read_exact_at(&mut byte, at).unwrap();
        byte[0]
    };
    assert_eq!((seen(5000), mapped.bytes()[5000]), (1, 1));
    maker.write_all_at(&[2], 5000).unwrap();
    assert_eq!((seen(5000), mapped.bytes()[5000]), (2, 2));
    mapped.bytes()[5001] = 3;
    mapped.sync();
    assert_eq!(seen(5001), 3);
    other.write_all_at(&[4], 5002).unwrap();
    assert_eq!((seen(5002), mapped.bytes()[5002]), (4, 4));
    maker.write_all_at(&[5], 5003).unwrap();
    drop((maker, mapped));
    let later = File::options().append(true).open(&path).unwrap();
    rustix::io::write(&later, &[6]).unwrap();
    let content = fs::read(&path).unwrap();
    assert_eq!(
        (&content[4999..5005], content.len(), content[8192]),
        (&[1, 2, 3, 4, 5, 1][..], 8193, 6)
    );
}
