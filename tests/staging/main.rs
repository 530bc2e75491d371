//! `staging/` from the outside: a real mount, a real disk below it, and what POSIX and programs
//! expect of a directory.

#[path = "../support/mod.rs"]
mod support;

mod coherence;
mod exerciser;
mod lasting;
mod mapped;
mod names;
mod owners;
mod posix;
mod programs;
mod publish;
mod requests;
mod suite;
mod swapped;

use std::fs;
use std::path::{Path, PathBuf};

use support::mount::{Mount, Options};

const HOST: &str = "registry.example";

/// A mount whose only source is a store that holds the registry [`HOST`].
struct Bed {
    mount: Mount,
    _store: tempfile::TempDir,
}

impl Bed {
    /// `None`, with the reason printed, where nothing can be mounted.
    fn start(options: Options) -> Option<Bed> {
        let store = tempfile::tempdir().unwrap();
        fs::create_dir(store.path().join(HOST)).unwrap();
        let mount = Mount::start(&[format!("oci:{}", store.path().display())], options)?;
        Some(Bed { mount, _store: store })
    }

    /// Where releases of [`HOST`] are staged.
    fn host(&self) -> PathBuf {
        self.mount.join("staging").join(HOST)
    }

    /// A new directory in staging.
    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.host().join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}

/// The system's error number, where `result` is an error.
fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap_or(0)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
