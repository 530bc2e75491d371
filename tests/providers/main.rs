//! Providers: `plugins/`, `mirror/` and the clients that are pointed at them.

mod cache;
mod clients;
mod faults;
mod gap;
mod mirrored;
mod neighbours;
mod network;
mod origin;
mod pulled;
mod sources;
mod tiny;
mod views;
mod walks;

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::docker_registry::{Access, DockerRegistry};
use support::mount::Options;

/// The provider registry of the tests' providers. It does not exist: no client may ask it anything.
const ORIGIN: &str = "registry.example.com";

/// A registry without TLS or login.
fn registry() -> Option<DockerRegistry> {
    DockerRegistry::start(Access::Anybody, false)
}

/// Options for a mount of `registry` whose `mirror/NAMESPACE/TYPE` hold the releases of all
/// providers of [`ORIGIN`].
fn mapped(registry: &DockerRegistry) -> Options {
    let host = registry.host();
    Options::new().args(["--plain-http", &host]).args(mirror_flags(&host))
}

/// The flags of that mapping.
fn mirror_flags(host: &str) -> [String; 4] {
    let template = format!("{host}/mirror/${{namespace}}/${{type}}");
    ["--oci-mirror".to_owned(), template, "--include".to_owned(), format!("{ORIGIN}/*/*")]
}

/// `--provider` for each.
fn declared(names: &[&str]) -> Vec<String> {
    names.iter().flat_map(|name| ["--provider".to_owned(), format!("{ORIGIN}/{name}")]).collect()
}

/// The platform of this machine.
fn here() -> String {
    tofufs::name::Platform::host().to_string()
}

/// The names in `dir`, sorted.
fn names(dir: &Path) -> Vec<String> {
    let list = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> =
        list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Walks `base` as the clients do: every directory is read, every entry is looked at, what lies at
/// depth 3 and deeper also through links, which are not followed further. Yields the paths that a
/// client would take for packages.
fn walk(base: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk_below(base, 1, &mut found);
    found.sort();
    found
}

fn walk_below(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for name in names(dir) {
        let path = dir.join(name);
        let itself =
            fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if depth >= 3
            && let Ok(target) = fs::metadata(&path)
            && (depth == 5 && target.is_dir() || depth == 4 && target.is_file())
        {
            found.push(path.clone());
        }
        if itself.is_dir() {
            walk_below(&path, depth + 1, found);
        }
    }
}
