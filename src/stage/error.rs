//! Why something was not published.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::archive::{ArchiveError, Class};
use crate::failure::Failure;
use crate::oci::DocumentError;
use crate::registry::RegistryError;

/// A failure and its sentence: what it is about, the rule, what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageError {
    /// The class.
    pub failure: Failure,
    subject: String,
    rule: String,
    remedy: Option<String>,
}

impl StageError {
    /// An error about `subject`: a path or a reference.
    pub fn new(failure: Failure, subject: impl fmt::Display, rule: impl fmt::Display) -> Self {
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
            Some(Errno::NOSPC | Errno::DQUOT) => Failure::NoSpace,
            Some(Errno::ACCESS | Errno::PERM) => Failure::Denied,
            Some(Errno::NOENT | Errno::NOTDIR) => Failure::Absent,
            _ => Failure::Io,
        };
        StageError::new(failure, subject, error)
    }

    /// An archive that was refused, or a file that could not become part of one.
    pub fn archive(subject: impl fmt::Display, error: &ArchiveError) -> Self {
        let (failure, inner) = match error.class() {
            Class::Structure => (Failure::Structure, None),
            Class::TooLarge => (Failure::TooLarge, None),
            Class::Unsupported => (Failure::Unsupported, None),
            Class::Integrity => (Failure::Integrity, None),
            Class::Read(e) | Class::Write(e) => (StageError::io("", clone(e)).failure, Some(e)),
        };
        let told = inner.and_then(|e| e.get_ref()).and_then(|e| e.downcast_ref::<StageError>());
        told.cloned().unwrap_or_else(|| StageError::new(failure, subject, error))
    }

    /// A document that cannot be written or read.
    pub fn document(subject: impl fmt::Display, error: &DocumentError) -> Self {
        let failure = match error {
            DocumentError::Structure(_) => Failure::Structure,
            DocumentError::TooLarge(_) => Failure::TooLarge,
            DocumentError::Unsupported(_) => Failure::Unsupported,
        };
        StageError::new(failure, subject, error)
    }

    /// A task ended without a result: it panicked, or the runtime ended.
    pub fn lost(subject: impl fmt::Display) -> Self {
        StageError::new(Failure::Io, subject, "an internal task ended early; the log may say why")
    }
}

fn clone(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error)
}

impl From<RegistryError> for StageError {
    fn from(error: RegistryError) -> Self {
        StageError {
            failure: error.failure,
            subject: error.subject,
            rule: error.rule,
            remedy: error.remedy,
        }
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
