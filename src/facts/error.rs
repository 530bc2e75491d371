//! Why a fact is not to be had.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::archive::ArchiveError;
use crate::artifact::Refusal;
use crate::oci::DocumentError;
use crate::registry::{self, RegistryError};
use crate::store::{StoreError, StoreFailure};

/// The class of a failure; the layer above makes an errno of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// The registry said that there is no such thing.
    Absent,
    /// 401 or 403.
    Denied,
    /// No progress within the deadline, or retries used up.
    TimedOut,
    /// No connection.
    Unreachable,
    /// Not cached, and the mount is offline.
    Offline,
    /// What answers does not speak the protocol.
    Protocol,
    /// Bytes that are not what their digest, size or checksum says.
    Integrity,
    /// A document or archive of a structure that is refused.
    Structure,
    /// Over a limit.
    TooLarge,
    /// An algorithm or method that is not implemented.
    Unsupported,
    /// The cache's disk is full and the bytes do not fit into memory.
    NoSpace,
    /// The mount's process or the system has no file descriptor left.
    NoDescriptor,
    /// The cache's disk failed.
    Io,
}

impl Failure {
    /// How long the failure is kept before the registry is asked again (hostile inputs, limits and times).
    pub fn kept_for(self) -> Duration {
        Duration::from_secs(match self {
            Failure::Absent => 30,
            Failure::Denied => 10,
            Failure::Integrity | Failure::Structure | Failure::TooLarge | Failure::Unsupported => 300,
            Failure::TimedOut
            | Failure::Unreachable
            | Failure::Offline
            | Failure::Protocol
            | Failure::NoSpace
            | Failure::NoDescriptor
            | Failure::Io => 2,
        })
    }

    /// Whether the failure says nothing about the thing itself, so that an earlier answer still counts.
    pub fn is_outage(self) -> bool {
        matches!(
            self,
            Failure::TimedOut
                | Failure::Unreachable
                | Failure::Offline
                | Failure::Protocol
                | Failure::NoSpace
                | Failure::NoDescriptor
                | Failure::Io
        )
    }
}

/// A failure and its sentence: what was asked for, the rule or event, what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FactError {
    /// The class.
    pub failure: Failure,
    sentence: Arc<str>,
}

impl FactError {
    /// An error of that class and sentence.
    pub fn new(failure: Failure, sentence: impl Into<String>) -> Self {
        FactError { failure, sentence: sentence.into().into() }
    }

    /// A document (of `subject`) that was refused.
    pub fn document(subject: impl fmt::Display, error: &DocumentError) -> Self {
        let failure = match error {
            DocumentError::Structure(_) => Failure::Structure,
            DocumentError::TooLarge(_) => Failure::TooLarge,
            DocumentError::Unsupported(_) => Failure::Unsupported,
        };
        FactError::new(failure, format!("{subject}: {error}"))
    }

    /// An artifact (of `subject`) that was refused.
    pub fn refusal(subject: impl fmt::Display, refusal: &Refusal) -> Self {
        let failure = match refusal {
            Refusal::Structure(_) => Failure::Structure,
            Refusal::Unsupported(_) => Failure::Unsupported,
        };
        FactError::new(failure, format!("{subject}: {refusal}"))
    }

    /// An archive (of `subject`) that was refused.
    pub fn archive(subject: impl fmt::Display, error: &ArchiveError) -> Self {
        use crate::archive::Class;
        let failure = match error.class() {
            Class::Structure => Failure::Structure,
            Class::TooLarge => Failure::TooLarge,
            Class::Unsupported => Failure::Unsupported,
            Class::Integrity => Failure::Integrity,
            Class::Read(_) | Class::Write(_) => Failure::Io,
        };
        FactError::new(failure, format!("{subject}: {error}"))
    }
}

impl fmt::Display for FactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for FactError {}

impl From<RegistryError> for FactError {
    fn from(error: RegistryError) -> Self {
        let failure = match error.failure {
            registry::Failure::Absent => Failure::Absent,
            registry::Failure::Denied => Failure::Denied,
            registry::Failure::TimedOut => Failure::TimedOut,
            registry::Failure::Unreachable => Failure::Unreachable,
            registry::Failure::Offline => Failure::Offline,
            registry::Failure::Protocol => Failure::Protocol,
            registry::Failure::Integrity => Failure::Integrity,
            registry::Failure::Structure => Failure::Structure,
            registry::Failure::TooLarge => Failure::TooLarge,
            registry::Failure::Unsupported => Failure::Unsupported,
            registry::Failure::Io => Failure::Io,
        };
        FactError::new(failure, error.to_string())
    }
}

impl From<StoreError> for FactError {
    fn from(error: StoreError) -> Self {
        let failure = match error.failure {
            StoreFailure::NoSpace => Failure::NoSpace,
            StoreFailure::NoDescriptor => Failure::NoDescriptor,
            StoreFailure::Corrupt | StoreFailure::Mismatch => Failure::Integrity,
            StoreFailure::Unsafe | StoreFailure::Io => Failure::Io,
        };
        FactError::new(failure, error.to_string())
    }
}

/// What a waiter is told whose flight ended without a result.
pub(super) fn lost() -> FactError {
    FactError::new(Failure::Io, "an internal task ended early; the log may say why")
}
