//! An archive that could not be made.

use crate::archive::{ArchiveError, Class};
use crate::failure::{Failure, Refusal, Subject};

/// An archive that was refused, or a file that could not become part of one.
pub(super) fn refused_archive(subject: impl Into<Subject>, error: &ArchiveError) -> Refusal {
    let (Class::Read(io) | Class::Write(io)) = error.class() else { return error.about(subject) };
    match io.get_ref().and_then(|e| e.downcast_ref::<Refusal>()) {
        Some(told) => told.clone(),
        None => Refusal { failure: Failure::of_disk(io), ..error.about(subject) },
    }
}
