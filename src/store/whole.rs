//! Data files that the kernel reads by itself (passthrough) are checked as a whole: before their
//! first use by this process, and again whenever their ctime or size changed. None is read so while
//! somebody can write to it.
//!
//! INVARIANT: at both ends of a check nobody has the file open for writing. Who opens it later
//! leaves a trace in its ctime with his first change.

use parking_lot::Mutex;
use rustix::fs::{Stat, fstat};

use super::disk::length;
use super::lease::has_no_writer;
use super::{Key, Object};
use crate::bounded::Bounded;
use crate::failure::Refusal;

/// How many files' stamps are kept.
const KEPT: usize = 4096;

/// What changes whenever somebody writes to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CacheFileStamp {
    inode: u64,
    size: u64,
    ctime: (i64, i64),
}

impl CacheFileStamp {
    fn of(stat: &Stat) -> Self {
        CacheFileStamp {
            inode: stat.st_ino,
            size: length(stat),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// The stamps of the files that were found whole.
pub(super) struct Whole(Mutex<Bounded<Key, CacheFileStamp>>);

impl Whole {
    pub(super) fn new() -> Self {
        Whole(Mutex::new(Bounded::counted(KEPT)))
    }
}

impl Object {
    fn stamp(&self) -> Option<CacheFileStamp> {
        let stat = fstat(self.fd()?).ok()?;
        Some(CacheFileStamp::of(&stat))
    }

    /// Whether the data file was checked as a whole before, nobody has touched it since, and nobody
    /// can now. Reads no content.
    pub fn is_whole(&self) -> bool {
        let stamp = self.stamp();
        let checked =
            stamp.is_some() && self.0.store.whole.0.lock().get(&self.key()).copied() == stamp;
        checked && self.is_unwritten()
    }

    /// Checks the data file as a whole, unless [`Object::is_whole`], which it is afterwards if the
    /// answer is yes. The answer is no where somebody has the file open for writing, or has touched
    /// it meanwhile.
    ///
    /// # Errors
    /// `Corrupt` as for [`Object::read_at`].
    pub fn make_sure_whole(&self) -> Result<bool, Refusal> {
        if self.is_whole() {
            return Ok(true);
        }
        if !self.is_unwritten() {
            return Ok(false);
        }
        let before = self.stamp();
        self.verify_whole()?;
        let is_sure = self.stamp() == before && self.is_unwritten();
        if let (true, Some(stamp)) = (is_sure, before) {
            self.0.store.whole.0.lock().put(self.key(), stamp);
        }
        Ok(is_sure)
    }

    fn is_unwritten(&self) -> bool {
        self.fd().is_some_and(has_no_writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_differs_in_whatever_writing_to_a_file_changes() {
        let stat = fstat(tempfile::tempfile().unwrap()).unwrap();
        let changes: [fn(&mut Stat); 4] =
            [|s| s.st_size += 1, |s| s.st_ino += 1, |s| s.st_ctime += 1, |s| s.st_ctime_nsec ^= 1];
        for change in changes {
            let mut other = stat;
            change(&mut other);
            assert_ne!(CacheFileStamp::of(&other), CacheFileStamp::of(&stat));
        }
    }
}
