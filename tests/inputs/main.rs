//! What strangers give this program to read: archives, compared with what OpenTofu's own extractor
//! makes of the same bytes, and documents.
//!
//! `TOFUFS_INPUTS_CASES` is how many archives are made up (5,000 unless it is set),
//! `TOFUFS_INPUTS_SEED` where they begin. A case that fails is named by its number, which is what a
//! seed is, and its bytes are kept. `TOFUFS_INPUTS_ZIPS` is a directory of archives that packers
//! made, none of which may be refused if OpenTofu takes it.

#[path = "../support/mod.rs"]
mod support;

mod build;
mod corpus;
mod deflate;
mod documents;
mod inits;
mod laws;
mod mutate;
mod opentofu;
mod packers;
mod plain;
mod readers;
mod tree;

/// The number in the environment, or `default`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}"))
    })
}

/// The numbers of the cases, of which one in `share` is taken.
fn numbers(share: u64) -> std::ops::Range<u64> {
    let first = setting("TOFUFS_INPUTS_SEED", 0);
    first..first + setting("TOFUFS_INPUTS_CASES", 5_000) / share
}

/// Writes what broke a law to where it stays; its path.
fn kept(name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).expect("a writable directory");
    path
}
