//! A file that appears at once: written under another name, made durable, then renamed. Who reads
//! the name meanwhile sees the old file or the new one.
//!
//! A draft is written under the kernel's lock on it, so one that nobody holds was left by a process
//! that is gone.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fchmod, fsync, renameat, unlinkat};
use rustix::io::Errno;

use super::lock::try_lock;
use super::{is_named, open_below, open_or_make, sync_directory, write_all_at};

/// How the names of drafts end.
const DRAFT: &str = ".part";
/// How often a new file is made that vanishes before it is locked.
const TRIES: usize = 16;

/// A file that is being written. Removed when dropped, unless it was published.
pub struct Draft {
    own: OwnedFd,
    name: String,
    file: OwnedFd,
    written: u64,
}

impl Draft {
    /// A new file in the directory `own`, whose name begins with `prefix`.
    pub fn new(own: OwnedFd, prefix: &str) -> Result<Draft, Errno> {
        for _ in 0..TRIES {
            let name = format!("{prefix}{:032x}{DRAFT}", fastrand::u128(..));
            let file = open_or_make(&own, &name, OFlags::WRONLY | OFlags::EXCL)?;
            // Who cleans up may have come between.
            if try_lock(&file) == Ok(true) && is_named(&own, &name, &file) {
                return Ok(Draft { own, name, file, written: 0 });
            }
        }
        Err(Errno::BUSY)
    }

    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Its permissions, where they are not those of every new file.
    pub fn set_mode(&self, mode: Mode) -> Result<(), Errno> {
        fchmod(&self.file, mode)
    }

    /// Writes behind what was written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        write_all_at(&self.file, bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its name, over one that may be there. Both outlive a power loss when this
    /// returns.
    pub fn publish(self, dir: impl AsFd, name: &str) -> Result<(), Errno> {
        fsync(&self.file)?;
        renameat(&self.own, &self.name, &dir, name)?;
        sync_directory(dir)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Fails after publishing, when the name is gone. What else stays behind is removed by the
        // next writer.
        let _ = unlinkat(&self.own, &self.name, AtFlags::empty());
    }
}

/// Removes what processes that are gone left in `own` under names that begin with `prefix`.
pub fn clean(own: impl AsFd, prefix: &str) {
    let Ok(entries) = Dir::read_from(&own) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !(name.starts_with(prefix) && name.ends_with(DRAFT)) {
            continue;
        }
        let Ok(file) = open_below(&own, name, OFlags::empty()) else { continue };
        if try_lock(&file) == Ok(true) {
            let _ = unlinkat(&own, name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_draft_is_seen_when_it_is_whole_and_leaves_nothing_where_it_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = || OwnedFd::from(fs::File::open(dir.path()).unwrap());
        let count = || fs::read_dir(dir.path()).unwrap().count();
        let mut draft = Draft::new(root(), "new.").unwrap();
        draft.write(b"one").unwrap();
        draft.write(b"two").unwrap();
        assert_eq!((draft.written(), dir.path().join("file").exists()), (6, false));
        clean(root(), "new.");
        assert_eq!(count(), 1, "what is being written is not cleaned up");
        draft.publish(root(), "file").unwrap();
        assert_eq!((fs::read(dir.path().join("file")).unwrap(), count()), (b"onetwo".to_vec(), 1));
        drop(Draft::new(root(), "new.").unwrap());
        assert_eq!(count(), 1);
        fs::write(dir.path().join("new.1.part"), "half").unwrap();
        fs::write(dir.path().join("old.1.part"), "half").unwrap();
        clean(root(), "new.");
        assert_eq!(count(), 2, "only what has the prefix");
    }
}
