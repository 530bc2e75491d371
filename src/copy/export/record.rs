//! What an export remembers of itself, so that the next one reads nothing that nobody touched.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ExportedPackage;
use crate::digest::Digest;

/// Packages by their places.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(super) struct ExportRecord {
    packages: BTreeMap<String, RecordedPackage>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RecordedPackage {
    archive: String,
    stamp: String,
}

impl ExportRecord {
    /// That of a file; an empty one if there is none that can be read, which costs that everything
    /// is compared once more.
    pub(super) fn read(path: &Path) -> ExportRecord {
        let text = fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it to `apart`, and renames that to `path`.
    pub(super) fn write(&self, apart: &Path, path: &Path) -> io::Result<()> {
        fs::write(apart, serde_json::to_vec(self)?)?;
        fs::rename(apart, path)
    }

    /// What the files of the package looked like when they were found whole.
    pub(super) fn of(&self, package: &ExportedPackage) -> Option<&String> {
        let recorded = self.packages.get(&*package.path.to_string_lossy())?;
        (recorded.archive == package.archive.digest.to_string()).then_some(&recorded.stamp)
    }

    /// Whether it was this program that put something there.
    pub(super) fn names(&self, package: &ExportedPackage) -> bool {
        self.packages.contains_key(&*package.path.to_string_lossy())
    }

    pub(super) fn note(&mut self, package: &ExportedPackage, stamp: String) {
        let recorded = RecordedPackage { archive: package.archive.digest.to_string(), stamp };
        self.packages.insert(package.path.to_string_lossy().into_owned(), recorded);
    }
}

/// A text that changes whenever somebody adds, removes or writes to a file at or below `top`, or
/// changes a mode there. Reads no content.
pub(super) fn stamp(top: &Path) -> io::Result<String> {
    let mut lines = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let at = top.join(&path);
        let found = fs::symlink_metadata(&at)?;
        lines.extend_from_slice(path.as_os_str().as_bytes());
        // A directory's own times change when it is renamed.
        let said = if found.is_dir() {
            format!("\0{:o}\n", found.mode())
        } else {
            format!(
                "\0{:o} {} {} {}.{}\n",
                found.mode(),
                found.ino(),
                found.size(),
                found.ctime(),
                found.ctime_nsec()
            )
        };
        lines.extend_from_slice(said.as_bytes());
        if found.is_dir() {
            let mut names = Vec::new();
            for entry in fs::read_dir(&at)? {
                names.push(path.join(entry?.file_name()));
            }
            names.sort();
            pending.extend(names);
        }
    }
    Ok(Digest::of(&lines).to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_stamp_differs_in_whatever_somebody_does_to_a_tree() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        let file = top.join("sub/file");
        fs::create_dir_all(top.join("sub")).unwrap();
        fs::write(&file, "one").unwrap();
        let mut before = stamp(&top).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        let changes: [&dyn Fn(); 6] = [
            &|| fs::write(&file, "two").unwrap(),
            &|| fs::write(top.join("more"), "").unwrap(),
            &|| mode(&file, 0o600).unwrap(),
            &|| mode(&top.join("sub"), 0o700).unwrap(),
            &|| {
                fs::copy(&file, top.join("other")).map(|_| fs::remove_file(&file).unwrap()).unwrap()
            },
            &|| fs::create_dir(top.join("empty")).unwrap(),
        ];
        for (at, change) in changes.iter().enumerate() {
            assert_eq!(stamp(&top).unwrap(), before, "nothing was done");
            change();
            let now = stamp(&top).unwrap();
            assert_ne!(now, before, "change {at}");
            before = now;
        }
        let moved = dir.path().join("moved");
        fs::rename(&top, &moved).unwrap();
        assert_eq!(stamp(&moved).unwrap(), before, "a whole tree may move");
    }
}
