//! Mount points without a kernel; real mounts where this process may make them, else the reason is
//! printed.

use super::*;
use crate::skip::skip;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::UNIX_EPOCH;

use fuser::{
    Errno as Answer, FileAttr, FileHandle, FileType, Generation, INodeNo, ReplyAttr, ReplyEntry,
    Request,
};

/// A root directory and one empty file `held`.
struct OneFile;

fn attr(ino: u64) -> FileAttr {
    let directory = ino == 1;
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if directory { FileType::Directory } else { FileType::RegularFile },
        perm: if directory { 0o755 } else { 0o644 },
        nlink: 1,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        rdev: 0,
        blksize: 512,
        flags: 0,
    }
}

impl fuser::Filesystem for OneFile {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some("held") => reply.entry(&Duration::from_secs(60), &attr(2), Generation(0)),
            _ => reply.error(Answer::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::from_secs(60), &attr(ino.0));
    }
}

/// A mount point that is taken out of sight at the end, and if a test hangs.
struct Point {
    _dir: tempfile::TempDir,
    path: PathBuf,
    done: Option<mpsc::Sender<()>>,
}

impl Point {
    fn new() -> Point {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("mnt");
        fs::create_dir(&path).unwrap();
        let (done, waiting) = mpsc::channel::<()>();
        let watched = path.clone();
        thread::spawn(move || {
            if waiting.recv_timeout(Duration::from_secs(30)) == Err(mpsc::RecvTimeoutError::Timeout)
            {
                let _ = unmount(&watched, Manner::Lazily);
            }
        });
        Point { _dir: dir, path, done: Some(done) }
    }

    fn is_mounted(&self) -> bool {
        mountinfo::top_at(&mountinfo::read().unwrap(), &self.path).is_some()
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        while self.is_mounted() && unmount(&self.path, Manner::Lazily).is_ok() {}
        self.done.take();
    }
}

fn options() -> SessionOptions {
    SessionOptions {
        name: "ghcr.io/acme".into(),
        read_only: false,
        no_exec: false,
        allow_other: false,
    }
}

fn mounted(point: &Point, options: &SessionOptions) -> Option<(Session, SessionEnd)> {
    match start(Arc::new(OwnRights), &point.path, options, 2, OneFile, |_| {}) {
        Ok(started) => Some(started),
        Err(e) if !rustix::process::geteuid().is_root() => {
            skip(&format!("this user cannot mount here: {e}"));
            None
        }
        Err(e) if !Path::new("/dev/fuse").exists() => {
            skip(&e.to_string());
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn ended(mut end: SessionEnd) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        if !matches!(end.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Unmounts; for a moment a mount is in use by whoever looks through all mounts of the machine.
fn when_unused(unmount: impl Fn() -> Result<(), UnmountError>) {
    for _ in 0..1000 {
        match unmount() {
            Err(UnmountError::Busy { .. }) => std::thread::sleep(Duration::from_millis(10)),
            done => return done.unwrap(),
        }
    }
    panic!("the mount stays in use");
}

fn refusal(point: &Path, apart: &[(&str, &Path)]) -> String {
    prepare(point, apart).unwrap_err().to_string()
}

// L20
#[test]
fn only_an_empty_real_directory_apart_from_our_own_is_mounted_on() {
    let point = Point::new();
    let dir = point.path.parent().unwrap();
    prepare(&point.path, &[("the cache directory", &dir.join("cache"))]).unwrap();
    assert!(refusal(&dir.join("absent"), &[]).contains("there is no such directory"));
    symlink(&point.path, dir.join("link")).unwrap();
    assert!(refusal(&dir.join("link"), &[]).contains("symbolic link"));
    fs::write(dir.join("file"), "").unwrap();
    assert!(refusal(&dir.join("file"), &[]).contains("not a directory"));
    assert!(refusal(&point.path, &[("the cache directory", dir)]).contains("the cache directory"));
    assert!(
        refusal(&point.path, &[("the state directory", &point.path.join("deep"))])
            .contains("the state directory")
    );
    fs::write(point.path.join("x"), "").unwrap();
    assert!(refusal(&point.path, &[]).contains("not empty"));
}

#[test]
fn a_mount_is_seen_as_what_it_is_and_never_honours_set_id_or_devices() {
    let point = Point::new();
    // L19: nosuid and nodev hold whatever is asked for.
    let asked = SessionOptions { read_only: true, no_exec: true, ..options() };
    let Some((session, end)) = mounted(&point, &asked) else { return };
    let table = mountinfo::read().unwrap();
    let entry = mountinfo::top_at(&table, &point.path).unwrap();
    assert!(entry.is_ours());
    assert_eq!(entry.source, "ghcr.io/acme");
    let text = fs::read("/proc/self/mountinfo").unwrap();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(&*point.path.to_string_lossy())).unwrap();
    for flag in ["ro,", "nosuid", "nodev", "noexec"] {
        assert!(line.contains(flag), "{flag}: {line}");
    }
    assert!(!line.contains("default_permissions"), "its owner writes whatever modes say: {line}");
    when_unused(|| session.unmount(Manner::Unused));
    assert!(ended(end) && !point.is_mounted());
}

// L20
#[test]
fn neither_over_nor_inside_a_mount_of_tofufs_is_mounted() {
    let point = Point::new();
    let Some(_mounted) = mounted(&point, &options()) else { return };
    assert!(refusal(&point.path, &[]).contains("mounted there already"));
    assert!(refusal(&point.path.join("deeper"), &[]).contains("inside another mount"));
}

// O23
#[test]
fn a_busy_mount_names_its_holder_and_serves_until_the_last_descriptor_is_closed() {
    let point = Point::new();
    let Some((session, mut end)) = mounted(&point, &options()) else { return };
    let held = fs::File::open(point.path.join("held")).unwrap();
    let busy = session.unmount(Manner::Unused).unwrap_err();
    assert!(busy.to_string().contains(&format!("pid {}", std::process::id())), "{busy}");
    assert!(point.is_mounted());
    session.unmount(Manner::Lazily).unwrap();
    assert!(!point.is_mounted());
    assert!(matches!(end.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
    held.metadata().unwrap();
    drop(held);
    assert!(ended(end));
}

#[test]
fn a_mount_over_ours_is_left_alone() {
    let point = Point::new();
    let Some((session, _end)) = mounted(&point, &options()) else { return };
    let Some((above, above_end)) = mounted(&point, &options()) else { return };
    assert!(matches!(session.unmount(Manner::Unused), Err(UnmountError::Covered { .. })));
    assert!(point.is_mounted());
    when_unused(|| above.unmount(Manner::Unused));
    assert!(ended(above_end));
    when_unused(|| session.unmount(Manner::Unused));
}

// A script that unmounts and mounts again gives the new mount the old one's number and device.
#[test]
fn a_later_mount_with_the_same_number_is_not_taken_for_a_dead_one() {
    let point = Point::new();
    let Some((session, end)) = mounted(&point, &options()) else { return };
    when_unused(|| unmount(&point.path, Manner::Unused));
    assert!(ended(end));
    let Some((mut later, _end)) = mounted(&point, &options()) else { return };
    assert!(!session.is_dead());
    // Whatever numbers the kernel chose: the worst case is that they are the same.
    later.entry.clone_from(&session.entry);
    assert!(!later.is_dead() && point.is_mounted());
}

// O18
#[test]
fn a_dead_mount_is_removed_before_mounting_again() {
    let point = Point::new();
    if let Err(e) = mount(&point.path, &options()).map(drop) {
        assert!(!rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists(), "{e}");
        skip(&e.to_string());
        return;
    }
    // The device is closed: as after a kill -9 of who served it.
    assert_eq!(fs::metadata(&point.path).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    prepare(&point.path, &[]).unwrap();
    assert!(!point.is_mounted());
    let Some((session, end)) = mounted(&point, &options()) else { return };
    fs::metadata(&point.path).unwrap();
    when_unused(|| session.unmount(Manner::Unused));
    assert!(ended(end));
}

#[test]
fn a_call_that_hangs_is_not_waited_for() {
    let (release, hanging) = mpsc::channel::<()>();
    assert_eq!(within(Duration::from_millis(10), move || hanging.recv().is_ok()), None);
    drop(release);
    assert_eq!(within(Duration::from_secs(60), || 1), Some(1));
}

#[test]
fn a_path_is_resolved_up_to_its_last_component() {
    let point = Point::new();
    let dir = point.path.parent().unwrap();
    symlink(dir, dir.join("here")).unwrap();
    assert_eq!(resolved(&dir.join("here/mnt")).unwrap(), point.path);
    assert_eq!(resolved(&dir.join("here")).unwrap(), dir.join("here"));
    assert_eq!(resolved(&dir.join("mnt/..")).unwrap(), dir);
    let shared = Arc::new(dir.to_owned());
    assert!(resolved(&shared.join("absent/mnt")).is_err());
}

#[test]
fn who_may_not_mount_in_a_container_is_told_how_to_start_it() {
    use std::os::unix::process::ExitStatusExt;
    let failed = ExitStatus::from_raw(1 << 8);
    let rule = fusermount_rule("fusermount3: mount failed: Operation not permitted", failed);
    assert!(
        rule.contains("no CAP_SYS_ADMIN")
            && rule.contains("--cap-add SYS_ADMIN --device /dev/fuse"),
        "{rule}"
    );
    assert_eq!(fusermount_rule("something else", failed), "something else");
}
