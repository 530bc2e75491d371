//! Tests that have nothing to do on this machine. `scripts/test` lists them in the end.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Says why this test has nothing to do here: where its output goes, and in the file that
/// `TOFUFS_SKIPPED` names.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped: {} {test}: {reason}\n", env!("CARGO_CRATE_NAME"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("TOFUFS_SKIPPED") {
        let list = OpenOptions::new().append(true).open(path);
        // A single write each, so that the lines of tests that run at once stay whole.
        list.and_then(|mut list| list.write_all(line.as_bytes())).expect("a list of skipped tests");
    }
}
