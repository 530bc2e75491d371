//! Why an archive, or a member of one, is refused.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;

use crate::failure::{Failure, Refusal, Subject};

/// What kind of refusal it is; the errno follows from it.
#[derive(Clone, Debug)]
pub enum Class {
    /// The structure is broken, ambiguous, or makes a tree that OpenTofu would not write (EBADMSG).
    Structure,
    /// A limit is exceeded (EFBIG).
    TooLarge,
    /// Encryption, a compression method, or a split archive that neither OpenTofu nor tofufs reads
    /// (EOPNOTSUPP).
    Unsupported,
    /// The content does not have the declared size or CRC (EIO).
    Integrity,
    /// The archive's bytes could not be read. The error is the one of [`super::ReadAt`].
    Read(Arc<io::Error>),
    /// The content could not be written. The error is the one of the writer.
    Write(Arc<io::Error>),
}

/// A refusal: its class, the entry that is at fault, and the rule that was broken.
///
/// Printed it is one line without control characters, whatever the archive holds.
#[derive(Clone, Debug)]
pub struct ArchiveError {
    class: Class,
    entry: Option<Box<str>>,
    rule: Box<str>,
}

impl ArchiveError {
    pub(super) fn new(class: Class, rule: impl Into<Box<str>>) -> Self {
        ArchiveError { class, entry: None, rule: rule.into() }
    }

    pub(super) fn structure(rule: impl Into<Box<str>>) -> Self {
        Self::new(Class::Structure, rule)
    }

    pub(super) fn unsupported(rule: impl Into<Box<str>>) -> Self {
        Self::new(Class::Unsupported, rule)
    }

    pub(super) fn integrity(rule: impl Into<Box<str>>) -> Self {
        Self::new(Class::Integrity, rule)
    }

    pub(super) fn too_large(
        what: &str,
        value: impl fmt::Display,
        name: &str,
        limit: impl fmt::Display,
    ) -> Self {
        let raise = match name {
            "archive" => "; --archive-max-size raises it",
            "entry" => "; --entry-max-size raises it",
            _ => "",
        };
        Self::new(
            Class::TooLarge,
            format!("{what} is {value}, over the limit of {limit} ({name}{raise})"),
        )
    }

    pub(super) fn read(error: io::Error) -> Self {
        let rule = format!("the archive cannot be read: {error}");
        Self::new(Class::Read(Arc::new(error)), rule)
    }

    pub(super) fn write(error: io::Error) -> Self {
        let rule = format!("the content cannot be written: {error}");
        Self::new(Class::Write(Arc::new(error)), rule)
    }

    /// The same refusal, with the raw name of the entry that is at fault.
    pub(super) fn of(mut self, name: &[u8]) -> Self {
        self.entry.get_or_insert_with(|| escape(name).into());
        self
    }

    /// The kind of refusal.
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// The name of the entry at fault, escaped and cut to a readable length.
    pub fn entry(&self) -> Option<&str> {
        self.entry.as_deref()
    }

    /// The refusal of `subject`, whose archive it is.
    pub fn about(&self, subject: impl Into<Subject>) -> Refusal {
        let failure = match self.class {
            Class::Structure => Failure::Structure,
            Class::TooLarge => Failure::TooLarge,
            Class::Unsupported => Failure::Unsupported,
            Class::Integrity => Failure::Integrity,
            Class::Read(_) | Class::Write(_) => Failure::Io,
        };
        Refusal::new(failure, subject, self)
    }

    /// The rule that was broken, in words.
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.entry {
            Some(name) => write!(f, "entry \"{name}\" of the archive: {}", self.rule),
            None => write!(f, "{}", self.rule),
        }
    }
}

impl std::error::Error for ArchiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.class {
            Class::Read(error) | Class::Write(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

/// The longest part of a name that is printed, in bytes.
const SHOWN: usize = 256;

/// A name as it may be printed: one line, no control, format or direction characters, other bytes
/// as `\xNN`.
fn escape(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name[..name.len().min(SHOWN)].utf8_chunks() {
        text.extend(chunk.valid().chars().flat_map(char::escape_debug));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if name.len() > SHOWN {
        text.push('…');
    }
    text
}
