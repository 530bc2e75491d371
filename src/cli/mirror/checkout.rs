//! Directories in which modules lie while they are packed. They end with their value; those of
//! processes that died are removed by the next one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::disk::lock::try_lock;

/// How their names begin.
const PREFIX: &str = "module-";

/// One of them, locked while it lives.
pub struct ModuleDirectory {
    path: PathBuf,
    #[expect(dead_code, reason = "held, never read")]
    lock: File,
}

impl ModuleDirectory {
    /// A new, empty one below `place`.
    ///
    /// # Errors
    /// `place` takes none.
    pub fn new(place: &Path) -> io::Result<ModuleDirectory> {
        for entry in fs::read_dir(place)?.flatten() {
            let is_one = entry.file_name().to_string_lossy().starts_with(PREFIX);
            if is_one && File::open(entry.path()).is_ok_and(|dir| try_lock(&dir).unwrap_or(false)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let name = format!("{:032x}", fastrand::u128(..));
        let new = place.join(&name);
        fs::DirBuilder::new().mode(0o700).create(&new)?;
        let lock = File::open(&new)?;
        try_lock(&lock)?;
        fs::DirBuilder::new().mode(0o700).create(new.join("files"))?;
        // Under this name it is locked from the first moment, so that nobody takes it for one of a
        // dead process.
        let path = place.join(format!("{PREFIX}{name}"));
        fs::rename(new, &path)?;
        Ok(ModuleDirectory { path, lock })
    }

    /// Where the module's files belong.
    pub fn files(&self) -> PathBuf {
        self.path.join("files")
    }
}

impl Drop for ModuleDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_removed_and_what_lives_stays() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("module-left/files/deep")).unwrap();
        fs::create_dir(place.path().join("other")).unwrap();
        let one = ModuleDirectory::new(place.path()).unwrap();
        let two = ModuleDirectory::new(place.path()).unwrap();
        assert!(one.files().is_dir() && two.files().is_dir());
        assert!(!place.path().join("module-left").exists());
        drop((one, two));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
