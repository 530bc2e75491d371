//! The trees of archives, compared with those that OpenTofu's own extractor makes of the same bytes.
//!
//! `TOFUFS_TREES_CASES` is how many archives are made up (5,000 unless it is set), `TOFUFS_TREES_SEED` where they begin.
//! A case that fails is named by its number, which is what a seed is, and its archive is kept. `TOFUFS_TREES_ZIPS` is a
//! directory of archives that packers made, none of which may be refused if OpenTofu takes it.

#[path = "../support/mod.rs"]
mod support;

mod build;
mod deflate;
mod inits;
mod laws;
mod mutate;
mod opentofu;
mod plain;
mod tree;
