//! What POSIX promises of files, while they are renamed, removed, cut and mapped (O36).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::mapped::Mapped;
use super::{Bed, errno, names, read};
use crate::support::mount::Options;
use crate::support::skip;

fn both(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn a_removed_file_lives_as_long_as_it_is_open() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    let mut file = both(&dir.join("file"));
    file.write_all(b"before").unwrap();
    fs::remove_file(dir.join("file")).unwrap();
    fs::write(dir.join("file"), "another").unwrap();
    file.write_all(b" after").unwrap();
    file.set_permissions(Permissions::from_mode(0o600)).unwrap();
    file.set_len(11).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    file.sync_all().unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(
        (metadata.len(), metadata.mode() & 0o777, metadata.nlink(), metadata.mtime()),
        (11, 0o600, 0, 1)
    );
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), read(&dir.join("file")).as_str()), ("before afte", "another"));
    assert_eq!(fs::metadata(dir.join("file")).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn a_rename_over_an_open_file_leaves_it_to_its_reader() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    fs::write(dir.join("a"), "new").unwrap();
    fs::write(dir.join("b"), "old").unwrap();
    let (moved, covered) = (both(&dir.join("a")), both(&dir.join("b")));
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    let content = |file: &File| {
        let mut buf = [0; 3];
        file.read_exact_at(&mut buf, 0).unwrap();
        buf
    };
    assert_eq!((content(&moved), content(&covered)), (*b"new", *b"old"));
    moved.write_all_at(b"NEW", 0).unwrap();
    assert_eq!(read(&dir.join("b")), "NEW");
    assert_eq!(
        (names(&dir), moved.metadata().unwrap().ino()),
        (vec!["b".into()], fs::metadata(dir.join("b")).unwrap().ino())
    );
}

#[test]
fn a_directory_that_moves_keeps_what_is_in_it() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("a/b/c");
    let file = both(&dir.join("file"));
    let held = rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    fs::rename(bed.host().join("a/b"), bed.host().join("moved")).unwrap();
    rustix::fs::mkdirat(&held, "made", Mode::RWXU).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    let moved = bed.host().join("moved/c");
    assert_eq!(
        (names(&moved), read(&moved.join("file"))),
        (vec!["file".to_owned(), "made".into()], "x".into())
    );
}

#[test]
fn a_removed_directory_takes_nothing() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("gone");
    let held = rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    fs::remove_dir(&dir).unwrap();
    let flags = OFlags::CREATE | OFlags::WRONLY;
    assert_eq!(rustix::fs::openat(&held, "x", flags, Mode::RUSR).unwrap_err(), Errno::NOENT);
    assert_eq!(rustix::fs::mkdirat(&held, "x", Mode::RWXU), Err(Errno::NOENT));
    assert_eq!(
        rustix::fs::openat(&held, "x", OFlags::RDONLY, Mode::empty()).unwrap_err(),
        Errno::NOENT
    );
    bed.dir("gone");
    assert_eq!(rustix::fs::mkdirat(&held, "x", Mode::RWXU), Err(Errno::NOENT));
}

#[test]
fn a_shared_mapping_and_the_file_are_one() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    let file = both(&dir.join("file"));
    file.set_len(10_000).unwrap();
    let mut mapped = Mapped::new(&file, 10_000);
    file.write_all_at(b"written", 5000).unwrap();
    assert_eq!(&mapped.bytes()[5000..5007], b"written");
    mapped.bytes()[9000..9006].copy_from_slice(b"mapped");
    mapped.sync();
    let mut buf = [0; 6];
    both(&dir.join("file")).read_exact_at(&mut buf, 9000).unwrap();
    assert_eq!(&buf, b"mapped");
    // Cut below the mapping's middle and made longer again: what was cut is zero.
    file.set_len(5003).unwrap();
    file.set_len(10_000).unwrap();
    assert_eq!(&mapped.bytes()[5000..5007], b"wri\0\0\0\0");
    assert_eq!(mapped.bytes()[9000], 0);
    mapped.bytes()[9999] = 1;
    drop(mapped);
    drop(file);
    assert_eq!(fs::read(dir.join("file")).unwrap()[9999], 1);
}

#[test]
fn direct_and_appending_writers_agree_with_the_cache() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let path = bed.dir("x").join("file");
    fs::write(&path, vec![b'a'; 8192]).unwrap();
    let direct =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let mut space = vec![b'b'; 3 * 4096];
    let start = space.as_ptr().align_offset(4096);
    direct.write_all_at(&space[start..start + 4096], 4096).unwrap();
    let content = fs::read(&path).unwrap();
    assert_eq!((content[4095], content[4096], content.len()), (b'a', b'b', 8192));
    direct.read_exact_at(&mut space[start..start + 4096], 0).unwrap();
    assert_eq!(space[start], b'a');

    let mut writers: Vec<_> =
        (0..2).map(|_| OpenOptions::new().append(true).open(&path).unwrap()).collect();
    for n in 0..10 {
        writers[n % 2].write_all(format!("{n}").as_bytes()).unwrap();
    }
    assert!(fs::read(&path).unwrap().ends_with(b"b0123456789"));
}

#[test]
fn times_are_those_of_the_disk_and_can_be_set() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    let file = both(&dir.join("file"));
    for time in [
        UNIX_EPOCH - Duration::new(1_000, 250_000_000),
        UNIX_EPOCH + Duration::new(4_000_000_000, 999_999_999),
    ] {
        file.set_modified(time).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), time);
    }
    let old = UNIX_EPOCH + Duration::from_secs(1);
    file.set_modified(old).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    assert!(fs::metadata(dir.join("file")).unwrap().modified().unwrap() > old);
    fs::File::open(&dir).unwrap().set_modified(old).unwrap();
    fs::write(dir.join("new"), "").unwrap();
    assert!(fs::metadata(&dir).unwrap().modified().unwrap() > old);
    symlink("nowhere", dir.join("link")).unwrap();
    let stamp = rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: stamp, last_modification: stamp };
    rustix::fs::utimensat(CWD, dir.join("link"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    assert_eq!(fs::symlink_metadata(dir.join("link")).unwrap().mtime(), 5);
}

#[test]
fn space_can_be_taken_and_given_back() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let file = both(&bed.dir("x").join("file"));
    let Ok(()) = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20) else {
        return skip("this disk has no fallocate");
    };
    assert_eq!(file.metadata().unwrap().len(), 0);
    assert!(file.metadata().unwrap().blocks() >= 2048);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    file.write_all_at(&[1; 8192], 0).unwrap();
    rustix::fs::fallocate(
        &file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        4096,
        4096,
    )
    .unwrap();
    let mut buf = [9; 8192];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!((buf[4095], buf[4096], file.metadata().unwrap().len()), (1, 0, 1 << 20));
}

#[test]
fn files_and_directories_can_be_synced() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    let file = both(&dir.join("file"));
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    File::open(&dir).unwrap().sync_all().unwrap();
    let synced =
        OpenOptions::new().write(true).custom_flags(libc::O_SYNC).open(dir.join("file")).unwrap();
    synced.write_all_at(b"y", 1).unwrap();
    File::open(bed.mount.path()).unwrap().sync_all().unwrap();
}

#[test]
fn locks_are_kept_among_who_uses_the_mount() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let path = bed.dir("x").join("lock");
    let (a, b) = (both(&path), both(&path));
    rustix::fs::flock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(
        rustix::fs::flock(&b, FlockOperation::NonBlockingLockExclusive),
        Err(Errno::WOULDBLOCK)
    );
    drop(a);
    rustix::fs::flock(&b, FlockOperation::NonBlockingLockExclusive).unwrap();
    rustix::fs::fcntl_lock(&b, FlockOperation::NonBlockingLockExclusive).unwrap();
}

/// L25
#[test]
fn extended_attributes_of_users_are_kept_and_others_refused() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    let set =
        |path: &Path, name: &str| rustix::fs::setxattr(path, name, b"value", XattrFlags::empty());
    if set(&file, "user.note") == Err(Errno::OPNOTSUPP) {
        return skip("this disk has no extended attributes");
    }
    set(&dir, "user.note").unwrap();
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(&file, "user.note", &mut value), Ok(5));
    assert_eq!(rustix::fs::getxattr(&file, "user.other", &mut value), Err(Errno::NODATA));
    let mut list = [0; 64];
    let length = rustix::fs::listxattr(&dir, &mut list).unwrap();
    assert_eq!(&list[..length], b"user.note\0");
    let again = rustix::fs::setxattr(&file, "user.note", b"", XattrFlags::CREATE);
    assert_eq!(again, Err(Errno::EXIST));
    rustix::fs::removexattr(&file, "user.note").unwrap();
    assert_eq!(rustix::fs::listxattr(&file, &mut list), Ok(0));
    // The kernel asks others than root for privileges first.
    let refused = if rustix::process::geteuid().is_root() { Errno::OPNOTSUPP } else { Errno::PERM };
    for name in ["security.x", "trusted.x"] {
        assert_eq!(set(&file, name), Err(refused), "{name}");
    }
}

/// Who goes back to the beginning of an open directory sees what came and went.
#[test]
fn a_directory_that_is_rewound_is_read_again() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    fs::write(dir.join("a"), "").unwrap();
    let fd = rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut listing = rustix::fs::Dir::new(fd).unwrap();
    let mut listed = |rewind: bool| {
        if rewind {
            listing.rewind();
        }
        let mut names = Vec::new();
        while let Some(entry) = listing.read() {
            names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        }
        names.retain(|name| !name.starts_with('.'));
        names
    };
    assert_eq!(listed(false), ["a"]);
    fs::remove_file(dir.join("a")).unwrap();
    fs::write(dir.join("b"), "").unwrap();
    assert_eq!(listed(true), ["b"]);
}

#[test]
fn a_large_directory_lists_every_name_once() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    let mut made: Vec<_> = (0..3000).map(|n| format!("file-{n}")).collect();
    for name in &made {
        File::create(dir.join(name)).unwrap();
    }
    made.sort();
    assert_eq!(names(&dir), made);
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(errno(fs::metadata(&dir)), libc::ENOENT);
}

#[test]
fn a_link_is_kept_and_not_followed_by_the_mount() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("x");
    symlink("/etc/passwd", dir.join("link")).unwrap();
    assert_eq!(fs::read_link(dir.join("link")).unwrap(), Path::new("/etc/passwd"));
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(dir.join("link"));
    assert_eq!(errno(opened), libc::ELOOP);
    assert_eq!(fs::create_dir(dir.join("link")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    fs::remove_file(dir.join("link")).unwrap();
    assert!(Path::new("/etc/passwd").exists());
}

/// Pipes and sockets are for who works here.
#[test]
fn a_pipe_in_it_is_a_pipe() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let path = bed.dir("x").join("pipe");
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    let writer = std::thread::spawn({
        let path = path.clone();
        move || fs::write(path, "through").unwrap()
    });
    assert_eq!(read(&path), "through");
    writer.join().unwrap();
    std::os::unix::net::UnixListener::bind(path.with_file_name("s")).map(drop).unwrap();
}
