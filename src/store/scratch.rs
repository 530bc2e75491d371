//! Content in the making that is of no key yet: a file in `tmp/` under a random name, which nobody
//! looks for.
//!
//! INVARIANT: it becomes an object only through [`super::Fill::take`], by who has the right to fill
//! the key, and is gone otherwise: with its value, with its process (nobody holds its lock then),
//! and at once where the disk is full. What is written here can be made again, so it never costs
//! anything else its place.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::ftruncate;
use rustix::io::Errno;

use super::Store;
use super::disk::random_name;
use super::error::{refused, system};
use super::layout::CacheLayout;
use super::sums::Summer;
use crate::disk::lock::try_lock;
use crate::disk::write_all_at;
use crate::failure::{Failure, Refusal};

/// How the names of such files end.
pub(super) const SCRATCH: &str = ".scratch";

/// See the module.
pub struct Scratch {
    layout: Arc<CacheLayout>,
    shared: Arc<SharedScratch>,
    position: u64,
    summer: Box<Summer>,
}

struct SharedScratch {
    name: String,
    /// `None` once it was given up. A write holds the lock, so that none comes after giving up.
    file: Mutex<Option<OwnedFd>>,
}

/// What a [`Scratch`] leaves to the fill that takes it.
pub(super) struct TakenScratch {
    pub(super) file: OwnedFd,
    pub(super) position: u64,
    pub(super) summer: Box<Summer>,
}

/// The ones of a store that live.
#[derive(Default)]
pub(super) struct Scratches(Mutex<Vec<Weak<SharedScratch>>>);

impl Scratches {
    /// Gives all of them up; the bytes that are free again.
    pub(super) fn give_up(&self) -> u64 {
        let all = std::mem::take(&mut *self.0.lock());
        let files =
            all.iter().filter_map(Weak::upgrade).filter_map(|shared| shared.file.lock().take());
        files
            .map(|file| {
                let length = rustix::fs::fstat(&file).map_or(0, |stat| super::disk::length(&stat));
                // Its name goes with the value; the space has to be free now.
                ftruncate(&file, 0).map_or(0, |()| length)
            })
            .sum()
    }
}

impl Store {
    /// Begins content whose key is not known yet. Blocks on the disk.
    ///
    /// # Errors
    /// The disk takes no writes.
    pub fn scratch(&self) -> Result<Scratch, Refusal> {
        let layout = self.layout_to_write()?;
        let (new, name) = (format!("{}.new", random_name()), format!("{}{SCRATCH}", random_name()));
        let system = |errno| system(&name, "make a file in the cache", errno);
        let file = layout.tmp.open_or_make(&new).map_err(system)?;
        // Under this name it is locked from the first moment, so that nobody takes it for one of a
        // dead process.
        let locking = try_lock(&file);
        if let Err(errno) = locking.and_then(|_| layout.tmp.rename(&new, &layout.tmp, &name)) {
            let _ = layout.tmp.unlink(&new);
            return Err(system(errno));
        }
        let shared = Arc::new(SharedScratch { name: name.clone(), file: Mutex::new(None) });
        let summer = Box::new(Summer::new(&layout.seals));
        let scratch = Scratch { layout, shared: shared.clone(), position: 0, summer };
        *shared.file.lock() = Some(file);
        let mut all = self.scratches.0.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&shared));
        drop(all);
        Ok(scratch)
    }
}

impl Scratch {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The disk takes no writes, or something else needed the space. The content is lost then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut slot = self.shared.file.lock();
        let written = match slot.as_ref() {
            Some(file) => write_all_at(file, bytes, self.position),
            None => Err(Errno::NOSPC),
        };
        if let Err(errno) = written {
            *slot = None;
            drop(slot);
            let _ = self.layout.tmp.unlink(&self.shared.name);
            return Err(system(&self.shared.name, "write to the cache", errno));
        }
        drop(slot);
        self.summer.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Renames the file to `partial`, which is in `layout`, if it holds `size` bytes.
    pub(super) fn give(
        self,
        layout: &Arc<CacheLayout>,
        partial: &str,
        size: u64,
    ) -> Result<TakenScratch, Refusal> {
        let Some(file) = self.shared.file.lock().take() else {
            return Err(system(&self.shared.name, "keep what was written ahead", Errno::NOSPC));
        };
        if self.position != size || !Arc::ptr_eq(layout, &self.layout) {
            let rule =
                format_args!("{} bytes were written ahead, announced are {size}", self.position);
            return Err(refused(Failure::Integrity, &self.shared.name, rule));
        }
        // A rename over a file would wait here while ext4 hands all of the content to the disk. The
        // former file goes with this value's name.
        let placed = layout.tmp.exchange(&self.shared.name, partial);
        let placed = placed.or_else(|_| layout.tmp.rename(&self.shared.name, &layout.tmp, partial));
        placed.map_err(|errno| system(&self.shared.name, "keep what was written ahead", errno))?;
        let summer = Box::new(Summer::new(&layout.seals));
        let mut this = self;
        Ok(TakenScratch {
            file,
            position: this.position,
            summer: std::mem::replace(&mut this.summer, summer),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.layout.tmp.unlink(&self.shared.name);
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scratch({} bytes)", self.position)
    }
}
