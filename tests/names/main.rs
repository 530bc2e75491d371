//! What a path below a mount is: names, entries and attributes, from registries and stores, alone
//! and side by side.

mod entries;
mod ranges;
mod reasons;
mod sources;
mod views;

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use support::mount::{Mount, finish};
use support::pack::{self, Artifact};

/// A module package whose `main.tf` is this.
fn module(content: &str) -> Artifact {
    pack::module(&[("main.tf", content.as_bytes()), ("modules/inner/main.tf", b"# inner\n")])
}

/// `main.tf` of the release at `path` below the mount point.
#[track_caller]
fn main_tf(mount: &Mount, path: &str) -> String {
    let file = mount.join(path).join("main.tf");
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}\n{}", file.display(), mount.log()))
}

/// The names in a directory, sorted.
#[track_caller]
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn errno<T>(outcome: io::Result<T>) -> Option<Errno> {
    outcome.err().and_then(|e| Errno::from_io_error(&e))
}

/// `tofufs refresh` of a path below the mount point.
fn refresh(mount: &Mount, path: impl AsRef<Path>) {
    let mut command = mount.command("refresh");
    command.arg(mount.join(path));
    let output = finish(command);
    assert!(output.status.success(), "{output:?}");
}
