//! What requests carry.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{AccessFlags, OpenAccMode, OpenFlags, RenameFlags, Request, TimeOrNow};

use crate::fs::{CallerIdentity, Thread, Wish};
use crate::local::{Access, Change, How, Time};

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
