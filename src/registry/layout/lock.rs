//! What keeps writers of one layout apart, and what a writer that died leaves behind.
//!
//! Everything that is not content lies in `REPO/.tofufs`, which other tools pass over: the lock,
//! and files that are being written. A file is written under the kernel's lock on it, so one that
//! nobody holds was left by a process that is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, ResolveFlags, fchmod, flock, fstat, fsync, mkdirat,
    openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::directory::open_below;

/// The directory in a layout that is no part of the image layout.
pub(super) const OWN: &str = ".tofufs";
/// The lock of who changes `index.json`, for a moment.
pub(super) const INDEX_LOCK: &str = "lock";
/// The lock of who decides what a tag is to stand for, from its look at the tag until it has put
/// it.
pub(super) const TURN: &str = "turn";
const DRAFT: &str = ".part";
/// How often a lock is tried for.
const POLL: Duration = Duration::from_millis(10);
/// How often a new file is made that vanishes before it is locked.
const TRIES: usize = 16;

/// What one process holds at a time, as long as the value lives.
pub(super) struct LayoutLock {
    file: OwnedFd,
}

/// Why a lock was not taken.
pub(super) enum NotLocked {
    /// Others hold it.
    TimedOut,
    /// It cannot be opened.
    Failed(Errno),
}

impl LayoutLock {
    /// Takes the lock `name` of the layout whose own directory is `own`, within `deadline`.
    pub(super) fn take(
        own: impl AsFd,
        name: &str,
        deadline: Duration,
    ) -> Result<LayoutLock, NotLocked> {
        let end = Instant::now() + deadline;
        loop {
            let file = open_lock(&own, name).map_err(NotLocked::Failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The name stands for another file if somebody cleaned up meanwhile.
                Ok(()) if is_named(&own, name, &file) => return Ok(LayoutLock { file }),
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => sleep(POLL),
                Err(e) => return Err(NotLocked::Failed(e)),
            }
            if Instant::now() > end {
                return Err(NotLocked::TimedOut);
            }
        }
    }

    /// The open file, which is locked until it is closed.
    pub(super) fn into_file(self) -> OwnedFd {
        self.file
    }
}

/// Opens the lock file. Network file systems lock what can be written only, local ones anything.
fn open_lock(own: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    match create_below(&own, name, OFlags::RDWR) {
        Err(Errno::ACCESS) => create_below(&own, name, OFlags::RDONLY),
        outcome => outcome,
    }
}

fn create_below(dir: impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::from_raw_mode(0o666);
    openat2(dir, name, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Whether `name` still stands for the open file.
fn is_named(dir: impl AsFd, name: &str, file: impl AsFd) -> bool {
    match (statat(dir, name, AtFlags::SYMLINK_NOFOLLOW), fstat(file)) {
        (Ok(by_name), Ok(open)) => (by_name.st_dev, by_name.st_ino) == (open.st_dev, open.st_ino),
        _ => false,
    }
}

/// A file that is being written. Removed when dropped, unless it was published.
pub struct Draft {
    own: OwnedFd,
    name: String,
    file: OwnedFd,
    written: u64,
}

impl Draft {
    /// A new file in the directory `own`, whose name begins with `prefix`.
    pub fn new(own: OwnedFd, prefix: &str) -> Result<Draft, Errno> {
        for _ in 0..TRIES {
            let name = format!("{prefix}{:032x}{DRAFT}", fastrand::u128(..));
            let file = create_below(&own, &name, OFlags::WRONLY | OFlags::EXCL)?;
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
            // Who cleans up may have come between.
            if locked.is_ok() && is_named(&own, &name, &file) {
                return Ok(Draft { own, name, file, written: 0 });
            }
        }
        Err(Errno::BUSY)
    }

    /// How many bytes were written.
    pub(super) fn len(&self) -> u64 {
        self.written
    }

    /// Its permissions, where they are not those of every new file.
    pub fn set_mode(&self, mode: Mode) -> Result<(), Errno> {
        fchmod(&self.file, mode)
    }

    /// Writes behind what was written.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.file, bytes, self.written) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(n) => {
                    bytes = &bytes[n..];
                    self.written += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Gives the file its name, over one that may be there. Both outlive a power loss when this
    /// returns.
    pub fn publish(self, dir: impl AsFd, name: &str) -> Result<(), Errno> {
        fsync(&self.file)?;
        renameat(&self.own, &self.name, &dir, name)?;
        sync_directory(dir)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Fails after publishing, when the name is gone. What else stays behind is removed by the
        // next writer.
        let _ = unlinkat(&self.own, &self.name, AtFlags::empty());
    }
}

/// Removes what processes that are gone left in `own` under names that begin with `prefix`.
pub fn clean(own: impl AsFd, prefix: &str) {
    let Ok(entries) = Dir::read_from(&own) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !(name.starts_with(prefix) && name.ends_with(DRAFT)) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(&own, name, flags, Mode::empty()) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = unlinkat(&own, name, AtFlags::empty());
        }
    }
}

/// The directory `name` in `dir`, made and made durable if it is missing.
pub(super) fn make(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    match open_below(&dir, name, OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {}
        outcome => return outcome,
    }
    match mkdirat(&dir, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    sync_directory(&dir)?;
    open_below(&dir, name, OFlags::DIRECTORY)
}

/// Makes the names in a directory durable, where its file system can do so.
pub(super) fn sync_directory(dir: impl AsFd) -> Result<(), Errno> {
    match fsync(dir) {
        Err(Errno::INVAL) => Ok(()),
        outcome => outcome,
    }
}
