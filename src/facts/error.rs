//! What fails in this layer alone.

use crate::archive::{ArchiveError, Class};
use crate::failure::{Refusal, Subject};

/// A task ended without a result: it panicked, or the runtime ended.
pub(super) fn lost() -> Refusal {
    Refusal::lost("tofufs")
}

/// An archive (of `subject`) that was refused, or that the store could not read.
pub(super) fn refused_archive(subject: impl Into<Subject>, error: &ArchiveError) -> Refusal {
    let mut refusal = error.about(subject);
    if let Class::Read(io) = error.class()
        && let Some(e) = io.get_ref().and_then(|e| e.downcast_ref::<Refusal>())
    {
        refusal.failure = e.failure;
    }
    refusal
}
