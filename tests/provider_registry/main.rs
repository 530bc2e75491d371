//! Provider registries as sources of a mount, `providers:HOST`: their paths, what they cost, what is
//! refused of them and by which errno, and real clients. GnuPG signs the releases.

mod changes;
mod clients;
mod costs;
mod errors;
mod paths;

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::mount::{Mount, Options};
use support::origin::{Origin, Published};

/// A scripted provider registry, and a directory for what a test makes.
struct Bed {
    dir: tempfile::TempDir,
    origin: Origin,
}

impl Bed {
    fn new() -> Option<Bed> {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start(dir.path())?;
        Some(Bed { dir, origin })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The source that is a part of the registry: all of it, `/NAMESPACE`, or `/NAMESPACE/TYPE`.
    fn source(&self, part: &str) -> String {
        format!("providers:{}{part}", self.origin.host)
    }

    /// Options by which the registry is trusted.
    fn options(&self) -> Options {
        let authority = self.origin.authority.display().to_string();
        Options::new().args(["--ca-file", &authority, "--platform", "linux_amd64"])
    }

    fn mount(&self, part: &str, options: Options) -> Option<Mount> {
        Mount::start(&[self.source(part)], options)
    }

    /// `HOST/acme/KIND`, below a mount or a view.
    fn address(&self, kind: &str) -> String {
        format!("{}/acme/{kind}", self.origin.host)
    }

    /// The paths that are asked for while `work` goes on, with their methods, but for discovery.
    fn asked(&self, work: impl FnOnce()) -> Vec<String> {
        let before = self.origin.server.requests().len();
        work();
        let seen = self.origin.server.requests().split_off(before);
        let named = seen.iter().map(|seen| format!("{} {}", seen.method, seen.path));
        named.filter(|asked| !asked.contains("/.well-known/")).collect()
    }
}

/// The names in `dir`, sorted.
fn names(dir: &Path) -> Vec<String> {
    let list = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> =
        list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The names in a package.
fn package_of(release: &Published) -> [String; 2] {
    ["README.md".to_owned(), program_of(release)]
}

/// The name of a package's program.
fn program_of(release: &Published) -> String {
    format!("terraform-provider-{}_v{}", release.kind, release.version)
}
