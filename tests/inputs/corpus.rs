//! What the fuzzer of `tests/fuzz` has found to be of interest, read again: each input ends.

use std::path::Path;
use std::{fs, panic};

use crate::readers::READERS;

#[test]
fn each_saved_input_is_read_to_an_end() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut read = 0;
    for (kind, reader) in READERS {
        let dir = corpus.join(kind);
        let inputs = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        for input in inputs {
            let path = input.expect("an entry").path();
            let bytes = fs::read(&path).expect("a file of ours");
            let ended = panic::catch_unwind(|| reader(&bytes));
            assert!(ended.is_ok(), "{} panics", path.display());
            read += 1;
        }
    }
    assert!(read > READERS.len(), "{read} inputs are saved");
}
