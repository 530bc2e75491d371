//! Lock files: what one process has at a time. A lock lasts as long as the open file, so a process
//! that dies lets go of it.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::{is_named, open_or_make};

/// How often a lock is tried for.
const POLL: Duration = Duration::from_millis(10);

/// Why a lock was not taken.
#[derive(Debug)]
pub enum NotLocked {
    /// Others hold it.
    TimedOut,
    /// It cannot be opened.
    Failed(Errno),
}

/// Takes the lock file `name` of the directory `dir`, within `deadline`. Locked until the file is
/// closed.
pub fn take(dir: impl AsFd, name: &str, deadline: Duration) -> Result<OwnedFd, NotLocked> {
    let end = Instant::now() + deadline;
    loop {
        let file = open(&dir, name).map_err(NotLocked::Failed)?;
        // The name stands for another file if somebody cleaned up meanwhile.
        if !try_lock(&file).map_err(NotLocked::Failed)? {
            sleep(POLL);
        } else if is_named(&dir, name, &file) {
            return Ok(file);
        }
        if Instant::now() > end {
            return Err(NotLocked::TimedOut);
        }
    }
}

/// Locks an open file, unless others hold it; whether it did.
pub fn try_lock(file: impl AsFd) -> Result<bool, Errno> {
    match rustix::io::retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether another open file holds the lock. One that nobody holds was left by a process that is
/// gone.
pub fn is_held(file: impl AsFd) -> bool {
    flock(file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

/// Network file systems lock what can be written only, local ones anything.
fn open(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    match open_or_make(&dir, name, OFlags::RDWR) {
        Err(Errno::ACCESS) => open_or_make(&dir, name, OFlags::RDONLY),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_lock_is_held_by_one_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let held = take(&root, "lock", Duration::ZERO).unwrap();
        assert!(matches!(take(&root, "lock", Duration::ZERO), Err(NotLocked::TimedOut)));
        let other = File::open(dir.path().join("lock")).unwrap();
        assert!(is_held(&other) && !try_lock(&other).unwrap());
        drop(held);
        assert!(!is_held(File::open(dir.path().join("lock")).unwrap()));
        drop(other);
        take(&root, "lock", Duration::ZERO).unwrap();
    }
}
