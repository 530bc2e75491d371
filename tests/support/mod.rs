//! The test bed: packages, image layouts, registries and mounts for the integration tests.
//!
//! Every server listens on 127.0.0.1 on a port that was free; whatever is started is stopped by
//! process id when its value is dropped; whatever is not installed is skipped with a printed
//! reason.
#![allow(dead_code, reason = "every test program uses a part of the bed")]

pub mod delay;
pub mod docker_registry;
pub mod gap;
pub mod gnupg;
pub mod hostile;
pub mod layouts;
pub mod memory;
pub mod mount;
pub mod origin;
pub mod pack;
pub mod peers;
pub mod push;
pub mod skip;
pub mod tiny;
pub mod tls;
pub mod token_server;
pub mod vectors;
pub mod world;
pub mod zot;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use skip::skip;

/// The program `name` as found on PATH; where it is missing, the reason for skipping is printed.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian has servers, which need not be on a user's PATH.
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = places.map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// A Python that can `import oras`, which `scripts/test` provides; where it is missing, the reason
/// is printed.
pub fn oras_python() -> Option<PathBuf> {
    let python = std::env::var_os("ORAS_PYTHON").map(PathBuf::from);
    if python.is_none() {
        skip("ORAS_PYTHON names no Python with the package oras (scripts/test installs it)");
    }
    python
}

/// A disk of a few bytes, mounted on a directory that is made; unmounted when it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with the reason printed, where nothing can be mounted.
    pub fn new(dir: &Path, bytes: u64) -> Option<SmallDisk> {
        std::fs::create_dir(dir).expect("a writable directory");
        let options =
            std::ffi::CString::new(format!("size={bytes},mode=0777")).expect("no zero bytes");
        match rustix::mount::mount(
            "tmpfs",
            dir,
            "tmpfs",
            rustix::mount::MountFlags::NODEV,
            options.as_c_str(),
        ) {
            Ok(()) => Some(SmallDisk(dir.to_owned())),
            Err(e) => {
                skip(&format!("a small disk cannot be mounted: {e}"));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Waits until `done`, at most `limit`; whether it came to that.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
