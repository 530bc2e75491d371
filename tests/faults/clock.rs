//! Clocks that are wrong by years, by a library that stands between the program and the system.

use std::process::{Command, Output, Stdio};

use super::support::tls::Tls;
use super::*;

/// Debian's libfaketime.
fn library() -> Option<PathBuf> {
    let found = fs::read_dir("/usr/lib").ok()?.flatten().find_map(|dir| {
        let path = dir.path().join("faketime/libfaketime.so.1");
        path.exists().then_some(path)
    });
    if found.is_none() {
        support::skip("libfaketime is not installed");
    }
    found
}

/// `tofufs pull` with a clock that is wrong by so many years.
fn pull(library: &Path, years: i32, home: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(support::world::program());
    command
        .arg("pull")
        .args(words)
        .args(["--cache-dir"])
        .arg(home.join(format!("cache{years}")))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("LD_PRELOAD", library)
        .env("FAKETIME", format!("{years:+}y"))
        .env("DONT_FAKE_MONOTONIC", "1")
        .stdin(Stdio::null());
    finish(command)
}

/// O21
#[test]
fn a_clock_that_is_wrong_by_years_is_named_and_changes_nothing_else() {
    let Some(library) = library() else { return };
    let tls = Tls::new();
    let home = tempfile::tempdir().unwrap();
    let [authority, ..] = tls.write(home.path());
    let secure = Hostile::start_tls(std::sync::Arc::new(tls.server()));
    let plain = Hostile::start();
    for server in [&secure, &plain] {
        put_small(server, "net");
    }
    // The certificate is good from 2000 to 2100.
    for (years, is_valid) in [(-70, false), (-30, false), (-10, true), (10, true), (80, false)] {
        let reference = format!("{}/net:1.0.0", plain.host());
        let words = ["--plain-http", &plain.host(), &reference];
        let output = pull(&library, years, home.path(), &words);
        assert!(output.status.success(), "{years} years: {output:?}");
        let reference = format!("{}/net:1.0.0", secure.host());
        let authority = authority.to_str().unwrap();
        let output = pull(&library, years, home.path(), &["--ca-file", authority, &reference]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_valid, "{years} years: {said}");
        assert!(is_valid || said.contains("clock"), "{years} years: {said}");
    }
}
