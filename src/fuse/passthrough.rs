//! Which inodes the kernel reads by itself.
//!
//! The kernel wants one mode per inode while anything of it is open: plain and passthrough opens of
//! one inode, or two backing files, fail with EIO without a word (kernel 6.9 and later). So the
//! mode of an inode is decided at its first open and holds until its last release.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use parking_lot::Mutex;

use super::reply::local_flags;
use crate::fs::{Backing, OpenedFile, ReadWay};

/// How an open inode is read.
enum Mode {
    Plain,
    Through { id: Arc<BackingId>, backing: Backing },
}

struct OpenInode {
    mode: Mode,
    opens: usize,
}

/// The open inodes, and whether the kernel reads at all.
#[derive(Default)]
pub struct Passthrough {
    on: AtomicBool,
    open: Mutex<HashMap<u64, OpenInode>>,
}

/// What came of an open.
pub(super) enum OpenOutcome {
    /// It was answered.
    Answered,
    /// The inode is open with other bytes than its name has now; nothing was answered.
    Superseded(ReplyOpen),
}

const FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

impl Passthrough {
    /// Asks the kernel whether it takes `sample` (a file in the cache's file system) as a backing
    /// file, over the connection `device`. `Err` is the reason why not.
    pub fn probe(&self, device: BorrowedFd<'_>, sample: impl AsFd) -> std::io::Result<()> {
        // The number that this takes up lives as long as the connection: fuser gives it back in a
        // reply only.
        BackingId::create_raw(device, sample)?;
        self.on.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether large files are read by the kernel.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Answers the open of `ino`.
    pub(super) fn open(&self, ino: u64, opened: &OpenedFile, reply: ReplyOpen) -> OpenOutcome {
        let handle = FileHandle(opened.handle);
        let backing = match &opened.reading {
            ReadWay::Backed(backing) => backing,
            ReadWay::Plain => {
                reply.opened(handle, FLAGS);
                return OpenOutcome::Answered;
            }
            ReadWay::Local(caching) => {
                reply.opened(handle, local_flags(*caching));
                return OpenOutcome::Answered;
            }
        };
        let mut open = self.open.lock();
        let inode = open
            .entry(ino)
            .or_insert_with(|| OpenInode { mode: first_mode(backing.as_ref(), &reply), opens: 0 });
        let id = match (&inode.mode, backing) {
            (Mode::Plain, _) => None,
            (Mode::Through { id, backing: before }, Some(now)) if before.is_same(now) => {
                Some(id.clone())
            }
            (Mode::Through { .. }, _) => return OpenOutcome::Superseded(reply),
        };
        inode.opens += 1;
        drop(open);
        match id {
            // The pages are the backing file's: beside passthrough the kernel refuses
            // FOPEN_KEEP_CACHE with EIO.
            Some(id) => reply.opened_passthrough(handle, FopenFlags::FOPEN_NOFLUSH, &id),
            None => reply.opened(handle, FLAGS),
        }
        OpenOutcome::Answered
    }

    /// Notes that one open of `ino` as [`Reading::Backed`] ended.
    pub(super) fn release(&self, ino: u64) {
        let mut open = self.open.lock();
        let Some(inode) = open.get_mut(&ino) else { return };
        inode.opens -= 1;
        if inode.opens == 0 {
            let last = open.remove(&ino);
            drop(open);
            drop(last);
        }
    }
}

/// The mode of an inode that is not open yet.
fn first_mode(backing: Option<&Backing>, reply: &ReplyOpen) -> Mode {
    let Some(backing) = backing else { return Mode::Plain };
    match reply.open_backing(backing) {
        Ok(id) => Mode::Through { id: Arc::new(id), backing: backing.clone() },
        Err(e) => {
            tracing::warn!(
                "the kernel does not take a cached file for passthrough ({e}); it is read plainly"
            );
            Mode::Plain
        }
    }
}
