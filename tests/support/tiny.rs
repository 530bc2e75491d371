//! A provider that really runs: built once from `tiny/main.go`, with the standard library alone.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::{program, skip};

/// The program; `None`, with the reason printed, where it cannot be built.
pub fn built() -> Option<&'static [u8]> {
    static BUILT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref()
}

/// The variable that names the program where somebody else has built it.
pub const BUILT: &str = "TOFUFS_TEST_PROVIDER";

fn build() -> Option<Vec<u8>> {
    if let Some(built) = std::env::var_os(BUILT) {
        return Some(fs::read(built).expect("what was built"));
    }
    let go = program("go")?;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tiny/main.go");
    let out = dir.path().join("tiny");
    let mut command = Command::new(go);
    command.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&out).arg(source);
    command
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod")
        .current_dir(dir.path());
    let output = command.output().expect("go runs");
    if !output.status.success() {
        skip(&format!("go builds no provider: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    Some(fs::read(out).expect("what go built"))
}
