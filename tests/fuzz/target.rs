//! Fuzzes the reader that has the name of this program.
#![no_main]
#![allow(dead_code, reason = "the readers use a part of what makes up archives")]

#[path = "../inputs/build.rs"]
mod build;
#[path = "../inputs/deflate.rs"]
mod deflate;
#[path = "../inputs/readers.rs"]
mod readers;
#[path = "../inputs/tree.rs"]
mod tree;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (_, reader) = readers::READERS
        .iter()
        .find(|(name, _)| *name == env!("CARGO_BIN_NAME"))
        .expect("a reader of that name");
    reader(bytes);
});
