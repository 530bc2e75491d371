//! Why a fact is not to be had.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::archive::ArchiveError;
use crate::artifact::ArtifactRefusal;
use crate::oci::DocumentError;
use crate::registry::{self, RegistryError};
use crate::store::{StoreError, StoreFailure};

/// The class of a failure; the layer above makes an errno of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FactFailure {
    /// The registry said that there is no such thing.
    Absent,
    /// 401 or 403.
    Denied,
    /// No progress within the deadline, or retries used up.
    TimedOut,
    /// No connection.
    Unreachable,
    /// No connection, since what answers has a certificate that does not hold.
    Untrusted,
    /// Not cached, and the mount is offline.
    Offline,
    /// What answers does not speak the protocol.
    Protocol,
    /// Bytes that are not what their digest, size or checksum says.
    Integrity,
    /// Cached bytes are no longer what was stored: they were set aside, and can be fetched anew.
    Damaged,
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
    /// Not asked for, since who asks has used up the requests that are sent for him.
    Crowded,
}

impl FactFailure {
    /// How long the failure is kept before the registry is asked again.
    pub fn kept_for(self) -> Duration {
        Duration::from_secs(match self {
            FactFailure::Absent => 30,
            FactFailure::Denied => 10,
            FactFailure::Integrity
            | FactFailure::Structure
            | FactFailure::TooLarge
            | FactFailure::Unsupported => 300,
            FactFailure::TimedOut
            | FactFailure::Unreachable
            | FactFailure::Untrusted
            | FactFailure::Offline
            | FactFailure::Protocol
            | FactFailure::Damaged
            | FactFailure::NoSpace
            | FactFailure::NoDescriptor
            | FactFailure::Io
            | FactFailure::Crowded => 2,
        })
    }

    /// Whether the failure says nothing about the thing itself, so that an earlier answer still
    /// counts.
    pub fn is_outage(self) -> bool {
        !matches!(
            self,
            FactFailure::Absent
                | FactFailure::Denied
                | FactFailure::Integrity
                | FactFailure::Structure
                | FactFailure::TooLarge
                | FactFailure::Unsupported
        )
    }
}

/// A failure and its sentence: what was asked for, the rule or event, what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FactError {
    /// The class.
    pub failure: FactFailure,
    /// What was asked for: mostly a reference. `None` if the rule tells.
    subject: Option<Arc<str>>,
    rule: Arc<str>,
}

impl FactError {
    /// An error of that class: what was asked for, and which rule or event ended it.
    pub fn new(failure: FactFailure, subject: impl fmt::Display, rule: impl fmt::Display) -> Self {
        FactError {
            failure,
            subject: Some(subject.to_string().into()),
            rule: rule.to_string().into(),
        }
    }

    /// An error of this program or its host that is about nothing in particular.
    fn of_host(failure: FactFailure, rule: impl fmt::Display) -> Self {
        FactError { failure, subject: None, rule: rule.to_string().into() }
    }

    /// A task ended without a result: it panicked, or the runtime ended.
    pub fn lost() -> Self {
        FactError::of_host(FactFailure::Io, "an internal task ended early; the log may say why")
    }

    /// What was asked for.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Which rule or event ended it, and what to do.
    pub(super) fn rule(&self) -> &str {
        &self.rule
    }

    /// The same error, told of `subject`.
    pub fn about(self, subject: &str) -> Self {
        FactError { subject: Some(subject.into()), ..self }
    }

    /// A document (of `subject`) that was refused.
    pub fn document(subject: impl fmt::Display, error: &DocumentError) -> Self {
        let failure = match error {
            DocumentError::Structure(_) => FactFailure::Structure,
            DocumentError::TooLarge(_) => FactFailure::TooLarge,
            DocumentError::Unsupported(_) => FactFailure::Unsupported,
        };
        FactError::new(failure, subject, error)
    }

    /// An artifact (of `subject`) that was refused.
    pub fn refusal(subject: impl fmt::Display, refusal: &ArtifactRefusal) -> Self {
        let failure = match refusal {
            ArtifactRefusal::Structure(_) => FactFailure::Structure,
            ArtifactRefusal::Unsupported(_) => FactFailure::Unsupported,
        };
        FactError::new(failure, subject, refusal)
    }

    /// An archive (of `subject`) that was refused.
    pub fn archive(subject: impl fmt::Display, error: &ArchiveError) -> Self {
        use crate::archive::Class;
        let failure = match error.class() {
            Class::Structure => FactFailure::Structure,
            Class::TooLarge => FactFailure::TooLarge,
            Class::Unsupported => FactFailure::Unsupported,
            Class::Integrity => FactFailure::Integrity,
            Class::Read(io) => match io.get_ref().and_then(|e| e.downcast_ref::<StoreError>()) {
                Some(e) => of_store(e.failure),
                None => FactFailure::Io,
            },
            Class::Write(_) => FactFailure::Io,
        };
        FactError::new(failure, subject, error)
    }
}

impl fmt::Display for FactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) => write!(f, "{subject}: {}", self.rule),
            None => f.write_str(&self.rule),
        }
    }
}

impl std::error::Error for FactError {}

impl From<RegistryError> for FactError {
    fn from(error: RegistryError) -> Self {
        let failure = match error.failure {
            registry::RegistryFailure::Absent => FactFailure::Absent,
            registry::RegistryFailure::Denied => FactFailure::Denied,
            registry::RegistryFailure::TimedOut => FactFailure::TimedOut,
            registry::RegistryFailure::Unreachable => FactFailure::Unreachable,
            registry::RegistryFailure::Untrusted => FactFailure::Untrusted,
            registry::RegistryFailure::Offline => FactFailure::Offline,
            registry::RegistryFailure::Protocol => FactFailure::Protocol,
            registry::RegistryFailure::Integrity => FactFailure::Integrity,
            registry::RegistryFailure::Structure => FactFailure::Structure,
            registry::RegistryFailure::TooLarge => FactFailure::TooLarge,
            registry::RegistryFailure::Unsupported => FactFailure::Unsupported,
            registry::RegistryFailure::NoSpace => FactFailure::NoSpace,
            registry::RegistryFailure::Io => FactFailure::Io,
        };
        match error.remedy {
            Some(remedy) => {
                FactError::new(failure, error.subject, format_args!("{}; {remedy}", error.rule))
            }
            None => FactError::new(failure, error.subject, error.rule),
        }
    }
}

fn of_store(failure: StoreFailure) -> FactFailure {
    match failure {
        StoreFailure::NoSpace => FactFailure::NoSpace,
        StoreFailure::NoDescriptor => FactFailure::NoDescriptor,
        StoreFailure::Corrupt => FactFailure::Damaged,
        StoreFailure::Mismatch => FactFailure::Integrity,
        StoreFailure::Unsafe | StoreFailure::Io => FactFailure::Io,
    }
}

impl From<StoreError> for FactError {
    fn from(error: StoreError) -> Self {
        FactError::of_host(of_store(error.failure), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of the negative cache, and which failures leave an earlier answer standing.
    #[test]
    fn a_failure_counts_as_long_as_it_says_something() {
        use FactFailure::*;
        let said = [
            (Absent, 30),
            (Denied, 10),
            (Integrity, 300),
            (Structure, 300),
            (TooLarge, 300),
            (Unsupported, 300),
        ];
        for (failure, seconds) in said {
            assert_eq!(
                (failure.kept_for().as_secs(), failure.is_outage()),
                (seconds, false),
                "{failure:?}"
            );
        }
        let nothing_said = [
            TimedOut,
            Unreachable,
            Untrusted,
            Offline,
            Protocol,
            Damaged,
            NoSpace,
            NoDescriptor,
            Io,
            Crowded,
        ];
        for failure in nothing_said {
            assert_eq!(
                (failure.kept_for().as_secs(), failure.is_outage()),
                (2, true),
                "{failure:?}"
            );
        }
    }
}
