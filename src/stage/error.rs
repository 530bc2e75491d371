//! Why something was not published.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::archive::{ArchiveError, Class};
use crate::oci::DocumentError;
use crate::registry::{self, RegistryError};

/// The class of a failure; the layer above makes an errno of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StageFailure {
    /// Nothing is staged there.
    Absent,
    /// The tag holds something else (EEXIST).
    Exists,
    /// A file is open for writing, or changed while it was read (EBUSY).
    Busy,
    /// 401 or 403, or a staged file that must not be read (EACCES).
    Denied,
    /// No destination takes it (EROFS).
    ReadOnly,
    /// The disk is full.
    NoSpace,
    /// A name that cannot be a tag or a repository, or content that makes no release (EINVAL).
    Invalid,
    /// No progress within the deadline, or retries used up.
    TimedOut,
    /// No connection.
    Unreachable,
    /// Offline was asked for.
    Offline,
    /// What answers does not speak the protocol.
    Protocol,
    /// Bytes that are not what their digest says, or a registry that keeps other ones.
    Integrity,
    /// A document or archive of a structure that is refused.
    Structure,
    /// Over a limit.
    TooLarge,
    /// A method or algorithm that is not implemented.
    Unsupported,
    /// A disk failed.
    Io,
}

/// A failure and its sentence: what it is about, the rule, what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageError {
    /// The class.
    pub failure: StageFailure,
    subject: String,
    rule: String,
    remedy: Option<String>,
}

impl StageError {
    /// An error about `subject`: a path or a reference.
    pub fn new(failure: StageFailure, subject: impl fmt::Display, rule: impl fmt::Display) -> Self {
        StageError { failure, subject: subject.to_string(), rule: rule.to_string(), remedy: None }
    }

    /// The same error with what to do about it.
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    /// A call to the disk that failed.
    pub fn io(subject: impl fmt::Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let failure = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => StageFailure::NoSpace,
            Some(Errno::ACCESS | Errno::PERM) => StageFailure::Denied,
            Some(Errno::NOENT | Errno::NOTDIR) => StageFailure::Absent,
            _ => StageFailure::Io,
        };
        StageError::new(failure, subject, error)
    }

    /// An archive that was refused, or a file that could not become part of one.
    pub fn archive(subject: impl fmt::Display, error: &ArchiveError) -> Self {
        let (failure, inner) = match error.class() {
            Class::Structure => (StageFailure::Structure, None),
            Class::TooLarge => (StageFailure::TooLarge, None),
            Class::Unsupported => (StageFailure::Unsupported, None),
            Class::Integrity => (StageFailure::Integrity, None),
            Class::Read(e) | Class::Write(e) => (StageError::io("", clone(e)).failure, Some(e)),
        };
        let told = inner.and_then(|e| e.get_ref()).and_then(|e| e.downcast_ref::<StageError>());
        told.cloned().unwrap_or_else(|| StageError::new(failure, subject, error))
    }

    /// A document that cannot be written or read.
    pub fn document(subject: impl fmt::Display, error: &DocumentError) -> Self {
        let failure = match error {
            DocumentError::Structure(_) => StageFailure::Structure,
            DocumentError::TooLarge(_) => StageFailure::TooLarge,
            DocumentError::Unsupported(_) => StageFailure::Unsupported,
        };
        StageError::new(failure, subject, error)
    }

    /// A task ended without a result: it panicked, or the runtime ended.
    pub fn lost(subject: impl fmt::Display) -> Self {
        StageError::new(
            StageFailure::Io,
            subject,
            "an internal task ended early; the log may say why",
        )
    }
}

fn clone(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error)
}

impl From<RegistryError> for StageError {
    fn from(error: RegistryError) -> Self {
        let failure = match error.failure {
            registry::RegistryFailure::Absent => StageFailure::Absent,
            registry::RegistryFailure::Denied => StageFailure::Denied,
            registry::RegistryFailure::TimedOut => StageFailure::TimedOut,
            registry::RegistryFailure::Unreachable | registry::RegistryFailure::Untrusted => {
                StageFailure::Unreachable
            }
            registry::RegistryFailure::Offline => StageFailure::Offline,
            registry::RegistryFailure::Protocol => StageFailure::Protocol,
            registry::RegistryFailure::Integrity => StageFailure::Integrity,
            registry::RegistryFailure::Structure => StageFailure::Structure,
            registry::RegistryFailure::TooLarge => StageFailure::TooLarge,
            registry::RegistryFailure::Unsupported => StageFailure::Unsupported,
            registry::RegistryFailure::NoSpace => StageFailure::NoSpace,
            registry::RegistryFailure::Io => StageFailure::Io,
        };
        StageError { failure, subject: error.subject, rule: error.rule, remedy: error.remedy }
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.rule)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StageError {}
