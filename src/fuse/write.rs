//! Requests that write: decoding alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, FileHandle, FopenFlags, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
};

use super::{GENERATION, errno, file_attr};
use crate::fs::{Caching, CallerIdentity, FoundEntry, FsError, OpenedLocal, Thread, Wish};
use crate::local::{Access, Change, How, Time};

/// How files that can be written are opened. Closing such a file has to tell what became of its
/// pages.
pub(super) fn local_flags(caching: Caching) -> FopenFlags {
    match caching {
        Caching::Kept => FopenFlags::FOPEN_KEEP_CACHE,
        Caching::Anew => FopenFlags::empty(),
        Caching::Bypassed => FopenFlags::FOPEN_DIRECT_IO,
    }
}

pub(super) fn who(request: &Request) -> CallerIdentity {
    CallerIdentity { uid: request.uid(), gid: request.gid(), thread: Thread(request.pid()) }
}

pub(super) fn access(flags: OpenFlags) -> Access {
    match flags.acc_mode() {
        OpenAccMode::O_RDONLY => Access { read: true, write: false },
        OpenAccMode::O_WRONLY => Access { read: false, write: true },
        OpenAccMode::O_RDWR => Access { read: true, write: true },
    }
}

/// What access(2) asks for.
pub(super) fn wish(flags: AccessFlags) -> Wish {
    Wish {
        read: flags.contains(AccessFlags::R_OK),
        write: flags.contains(AccessFlags::W_OK),
        execute: flags.contains(AccessFlags::X_OK),
    }
}

/// `None` for what is not implemented.
pub(super) fn how(flags: RenameFlags) -> Option<How> {
    if flags.is_empty() {
        Some(How::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(How::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(How::Exchange)
    } else {
        None
    }
}

fn time(time: TimeOrNow) -> Time {
    match time {
        TimeOrNow::Now => Time::Now,
        TimeOrNow::SpecificTime(time) => at(time),
    }
}

/// The time that the kernel sent: of one before 1970 fuser 0.18 subtracts the nanoseconds, where
/// the kernel adds them.
fn at(time: SystemTime) -> Time {
    let seconds = |whole: Duration| i64::try_from(whole.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time::At(seconds(after), after.subsec_nanos()),
        Err(e) => Time::At(-seconds(e.duration()), e.duration().subsec_nanos()),
    }
}

/// The attributes that a request changes.
pub(super) fn change(
    mode: Option<u32>,
    owner: (Option<u32>, Option<u32>),
    size: Option<u64>,
    accessed: Option<TimeOrNow>,
    modified: Option<TimeOrNow>,
) -> Change {
    Change {
        mode: mode.map(|mode| mode & 0o7777),
        uid: owner.0,
        gid: owner.1,
        size,
        accessed: accessed.map(time),
        modified: modified.map(time),
    }
}

pub(super) fn send_entry(entry: &FoundEntry, reply: ReplyEntry) {
    reply.entry_with_ttls(&entry.attr_ttl, &entry.ttl, &file_attr(&entry.attr), GENERATION);
}

pub(super) fn reply_entry(outcome: Result<FoundEntry, FsError>, reply: ReplyEntry) {
    match outcome {
        Ok(entry) => send_entry(&entry, reply),
        Err(e) => reply.error(errno(e.errno)),
    }
}

pub(super) fn reply_made(outcome: Result<FoundEntry, fuser::Errno>, reply: ReplyEntry) {
    match outcome {
        Ok(entry) => send_entry(&entry, reply),
        Err(e) => reply.error(e),
    }
}

pub(super) fn reply_attr(outcome: Result<FoundEntry, FsError>, reply: ReplyAttr) {
    match outcome {
        Ok(entry) => reply.attr(&entry.attr_ttl, &file_attr(&entry.attr)),
        Err(e) => reply.error(errno(e.errno)),
    }
}

pub(super) fn reply_empty(outcome: Result<(), FsError>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e.errno)),
    }
}

pub(super) fn reply_written(outcome: Result<usize, fuser::Errno>, reply: ReplyWrite) {
    match outcome {
        // No request is longer than 16 MiB.
        Ok(written) => reply.written(written as u32),
        Err(e) => reply.error(e),
    }
}

pub(super) fn reply_opened(outcome: Result<OpenedLocal, fuser::Errno>, reply: ReplyOpen) {
    match outcome {
        Ok(opened) => reply.opened(FileHandle(opened.handle), local_flags(opened.caching)),
        Err(e) => reply.error(e),
    }
}

pub(super) fn reply_created(
    outcome: Result<(FoundEntry, OpenedLocal), fuser::Errno>,
    reply: ReplyCreate,
) {
    match outcome {
        // One time holds for name and attributes here.
        Ok((entry, OpenedLocal { handle, caching })) => {
            let flags = local_flags(caching);
            reply.created(
                &entry.ttl.min(entry.attr_ttl),
                &file_attr(&entry.attr),
                GENERATION,
                FileHandle(handle),
                flags,
            );
        }
        Err(e) => reply.error(e),
    }
}
