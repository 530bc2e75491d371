//! Why the store refuses: one sentence made of the key, the rule that was broken, and what to do.

use std::fmt;

use rustix::io::Errno;

use crate::failure::{Failure, Refusal};

/// What is refused about a key, an edge or a path.
pub(super) fn refused(
    failure: Failure,
    subject: impl fmt::Display,
    rule: impl fmt::Display,
) -> Refusal {
    Refusal::new(failure, subject.to_string(), rule)
}

/// The refusal that a system call was, which was made in order to `purpose`.
pub(super) fn system(subject: impl fmt::Display, purpose: &str, errno: Errno) -> Refusal {
    let failure = match errno {
        Errno::MFILE | Errno::NFILE => Failure::NoDescriptor,
        full if is_full(full) => Failure::NoSpace,
        _ => Failure::Io,
    };
    let refusal = refused(failure, subject, format_args!("cannot {purpose}: {errno}"));
    match failure {
        Failure::NoSpace => {
            refusal.remedy("free space on the cache's disk, or give another --cache-dir")
        }
        _ => refusal,
    }
}

/// Whether a system call failed for want of space.
pub(super) fn is_full(errno: Errno) -> bool {
    errno == Errno::NOSPC || errno == Errno::DQUOT
}

/// Whether the disk takes no writes, in a way that may pass without us: full, read-only, failing,
/// or closed to files of that size (by the file system, or by a limit of this process).
pub(super) fn is_unwritable(errno: Errno) -> bool {
    is_full(errno) || matches!(errno, Errno::ROFS | Errno::IO | Errno::FBIG)
}
