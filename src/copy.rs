//! Artifacts from one place to another, with everything they name, digests kept.
