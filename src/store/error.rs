//! Why the store refuses: one sentence made of the key, the rule that was broken, and what to do.

use std::fmt;

use rustix::io::Errno;

use crate::failure::{Failure, Refusal};

/// What class of failure it is. Who asks decides by this alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StoreFailure {
    /// Neither the cache's disk nor the memory set aside for that case has room.
    NoSpace,
    /// Bytes on the cache's disk are not what was stored. The key is quarantined: fetch it again.
    Corrupt,
    /// The bytes that were written into a fill are not what its key and size say.
    Mismatch,
    /// This process or the system has no file descriptor left.
    NoDescriptor,
    /// The cache directory could be changed by others.
    Unsafe,
    /// The operating system refused; see [`StoreError::errno`].
    Io,
}

/// An error of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// The class.
    pub failure: StoreFailure,
    /// The key, edge or path it is about.
    pub subject: String,
    /// The rule that was broken or the event that ended the operation.
    pub rule: String,
    /// What the user can do, where there is something.
    pub remedy: Option<String>,
    /// The operating system's error number, where there is one.
    pub errno: Option<i32>,
}

impl StoreError {
    /// An error without a remedy.
    pub(super) fn new(
        failure: StoreFailure,
        subject: impl fmt::Display,
        rule: impl fmt::Display,
    ) -> Self {
        StoreError {
            failure,
            subject: subject.to_string(),
            rule: rule.to_string(),
            remedy: None,
            errno: None,
        }
    }

    /// The error of a system call that was made in order to `purpose`.
    pub(super) fn system(subject: impl fmt::Display, purpose: &str, errno: Errno) -> Self {
        let failure = match errno {
            Errno::MFILE | Errno::NFILE => StoreFailure::NoDescriptor,
            full if is_full(full) => StoreFailure::NoSpace,
            _ => StoreFailure::Io,
        };
        let mut error =
            StoreError::new(failure, subject, format_args!("cannot {purpose}: {errno}"));
        error.errno = Some(errno.raw_os_error());
        if failure == StoreFailure::NoSpace {
            error = error.remedy("free space on the cache's disk, or give another --cache-dir");
        }
        error
    }

    /// The same error with what to do about it.
    pub(super) fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.rule)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreFailure> for Failure {
    fn from(failure: StoreFailure) -> Self {
        match failure {
            StoreFailure::NoSpace => Failure::NoSpace,
            StoreFailure::NoDescriptor => Failure::NoDescriptor,
            StoreFailure::Corrupt => Failure::Damaged,
            StoreFailure::Mismatch => Failure::Integrity,
            StoreFailure::Unsafe | StoreFailure::Io => Failure::Io,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let refusal = Refusal::new(error.failure.into(), error.subject, error.rule);
        Refusal { remedy: error.remedy, ..refusal }
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
