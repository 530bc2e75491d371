//! Why a fact is not to be had.

use std::fmt;
use std::sync::Arc;

use crate::archive::ArchiveError;
use crate::artifact::ArtifactRefusal;
use crate::failure::Failure;
use crate::oci::DocumentError;
use crate::registry::RegistryError;
use crate::store::{StoreError, StoreFailure};

/// A failure and its sentence: what was asked for, the rule or event, what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FactError {
    /// The class.
    pub failure: Failure,
    /// What was asked for: mostly a reference. `None` if the rule tells.
    subject: Option<Arc<str>>,
    rule: Arc<str>,
}

impl FactError {
    /// An error of that class: what was asked for, and which rule or event ended it.
    pub fn new(failure: Failure, subject: impl fmt::Display, rule: impl fmt::Display) -> Self {
        FactError {
            failure,
            subject: Some(subject.to_string().into()),
            rule: rule.to_string().into(),
        }
    }

    /// An error of this program or its host that is about nothing in particular.
    fn of_host(failure: Failure, rule: impl fmt::Display) -> Self {
        FactError { failure, subject: None, rule: rule.to_string().into() }
    }

    /// A task ended without a result: it panicked, or the runtime ended.
    pub fn lost() -> Self {
        FactError::of_host(Failure::Io, "an internal task ended early; the log may say why")
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
            DocumentError::Structure(_) => Failure::Structure,
            DocumentError::TooLarge(_) => Failure::TooLarge,
            DocumentError::Unsupported(_) => Failure::Unsupported,
        };
        FactError::new(failure, subject, error)
    }

    /// An artifact (of `subject`) that was refused.
    pub fn refusal(subject: impl fmt::Display, refusal: &ArtifactRefusal) -> Self {
        let failure = match refusal {
            ArtifactRefusal::Structure(_) => Failure::Structure,
            ArtifactRefusal::Unsupported(_) => Failure::Unsupported,
        };
        FactError::new(failure, subject, refusal)
    }

    /// An archive (of `subject`) that was refused.
    pub fn archive(subject: impl fmt::Display, error: &ArchiveError) -> Self {
        use crate::archive::Class;
        let failure = match error.class() {
            Class::Structure => Failure::Structure,
            Class::TooLarge => Failure::TooLarge,
            Class::Unsupported => Failure::Unsupported,
            Class::Integrity => Failure::Integrity,
            Class::Read(io) => match io.get_ref().and_then(|e| e.downcast_ref::<StoreError>()) {
                Some(e) => of_store(e.failure),
                None => Failure::Io,
            },
            Class::Write(_) => Failure::Io,
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
        match error.remedy {
            Some(remedy) => FactError::new(
                error.failure,
                error.subject,
                format_args!("{}; {remedy}", error.rule),
            ),
            None => FactError::new(error.failure, error.subject, error.rule),
        }
    }
}

fn of_store(failure: StoreFailure) -> Failure {
    match failure {
        StoreFailure::NoSpace => Failure::NoSpace,
        StoreFailure::NoDescriptor => Failure::NoDescriptor,
        StoreFailure::Corrupt => Failure::Damaged,
        StoreFailure::Mismatch => Failure::Integrity,
        StoreFailure::Unsafe | StoreFailure::Io => Failure::Io,
    }
}

impl From<StoreError> for FactError {
    fn from(error: StoreError) -> Self {
        FactError::of_host(of_store(error.failure), error)
    }
}
