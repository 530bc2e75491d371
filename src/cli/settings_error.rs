//! The error of settings that make no sense: wrong usage.

use std::fmt;

use crate::name::AddressError;

/// What was asked for makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{subject}: {reason}")]
pub struct SettingsError {
    subject: String,
    reason: String,
}

impl SettingsError {
    /// That `subject` makes no sense, and why.
    pub fn new(subject: impl fmt::Display, reason: impl fmt::Display) -> SettingsError {
        SettingsError { subject: subject.to_string(), reason: reason.to_string() }
    }
}

impl From<AddressError> for SettingsError {
    fn from(error: AddressError) -> SettingsError {
        let (subject, reason) = error.parts();
        SettingsError { subject, reason }
    }
}

/// Refuses `subject`, and says why.
pub fn refuse<T>(
    subject: impl fmt::Display,
    reason: impl fmt::Display,
) -> Result<T, SettingsError> {
    Err(SettingsError::new(subject, reason))
}
