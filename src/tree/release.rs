//! Inside a provider release: per platform the unpacked package and the untouched zip.

use crate::artifact::Target;
use crate::name::Platform;

/// An entry of a provider release; the number is the target's place in the release.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReleaseEntry {
    /// `OS_ARCH/`: the package as a tree.
    Unpacked(usize),
    /// `OS_ARCH.zip`: the package as it is.
    Zip(usize),
}

/// Finds `name` in a release of `targets` (in the order of their platforms).
pub fn lookup(targets: &[Target], name: &str) -> Option<ReleaseEntry> {
    let (platform, is_zip) = match name.strip_suffix(".zip") {
        Some(stem) => (stem, true),
        None => (name, false),
    };
    let platform: Platform = platform.parse().ok()?;
    let at = targets.binary_search_by(|t| t.platform.cmp(&platform)).ok()?;
    Some(if is_zip { ReleaseEntry::Zip(at) } else { ReleaseEntry::Unpacked(at) })
}

/// All entries of a release of `targets`, in byte order of their names.
pub fn list(targets: &[Target]) -> Vec<(String, ReleaseEntry)> {
    let mut entries: Vec<_> = targets
        .iter()
        .enumerate()
        .flat_map(|(at, t)| {
            [
                (t.platform.to_string(), ReleaseEntry::Unpacked(at)),
                (format!("{}.zip", t.platform), ReleaseEntry::Zip(at)),
            ]
        })
        .collect();
    entries.sort();
    entries
}

impl PartialOrd for ReleaseEntry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ReleaseEntry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |e: &ReleaseEntry| match *e {
            ReleaseEntry::Unpacked(at) => (at, false),
            ReleaseEntry::Zip(at) => (at, true),
        };
        key(self).cmp(&key(other))
    }
}
