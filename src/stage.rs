//! Releases that are being written: from a staged tree to a plan, from a plan to a pushed artifact.
