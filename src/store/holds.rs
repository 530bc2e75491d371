//! Holds: content that a process needs until it has ended, and that no process evicts meanwhile.
//!
//! A hold is a file in `tmp/` that lists digests, under a lock of who needs them. The kernel drops
//! the lock with the process, so that the hold of one that was killed holds nothing; whoever tidies
//! up next removes its file.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::fstat;
use rustix::io::Errno;

use super::Store;
use super::disk::{length, random_name, read_sound};
use super::error::{is_full, system};
use super::layout::CacheLayout;
use crate::digest::Digest;
use crate::disk::lock::{is_held, try_lock};
use crate::disk::write_all_at;
use crate::failure::Refusal;

/// How the names of such files end.
pub(super) const HOLD: &str = ".hold";

/// See the module. What it lists may be evicted when it is dropped.
pub struct CacheHold {
    layout: Arc<CacheLayout>,
    name: String,
    /// Keeps the lock.
    _file: OwnedFd,
}

impl Store {
    /// Keeps these blobs, which need not be there yet, and all members of such archives from being
    /// evicted.
    ///
    /// # Errors
    /// The disk takes no writes.
    pub fn hold(&self, digests: &BTreeSet<Digest>) -> Result<CacheHold, Refusal> {
        let layout = self.layout_to_write()?;
        let list: String = digests.iter().map(|digest| format!("{digest}\n")).collect();
        let written = match write(&layout, list.as_bytes()) {
            Err(errno) if is_full(errno) => {
                self.make_room(list.len() as u64, errno);
                write(&layout, list.as_bytes())
            }
            written => written,
        };
        let failed =
            |errno| system(self.dir().display(), "note what is needed in the cache", errno);
        let (name, file) = written.map_err(failed)?;
        Ok(CacheHold { layout, name, _file: file })
    }
}

/// Writes a list under a name at which it is whole and locked from the first moment.
fn write(layout: &CacheLayout, list: &[u8]) -> Result<(String, OwnedFd), Errno> {
    let (new, name) = (format!("{}.new", random_name()), format!("{}{HOLD}", random_name()));
    let file = layout.tmp.open_or_make(&new)?;
    let written = try_lock(&file)
        .and_then(|_| write_all_at(&file, list, 0))
        .and_then(|()| layout.tmp.rename(&new, &layout.tmp, &name));
    if let Err(errno) = written {
        let _ = layout.tmp.unlink(&new);
        return Err(errno);
    }
    Ok((name, file))
}

/// The digests that processes which live hold.
pub(super) fn held(layout: &CacheLayout) -> HashSet<Digest> {
    let names = layout.tmp.names().into_iter().filter(|name| name.ends_with(HOLD));
    names.filter_map(|name| listed(layout, &name)).flatten().collect()
}

/// What a hold lists; `None` of one whose process is gone: nobody has it locked.
fn listed(layout: &CacheLayout, name: &str) -> Option<Vec<Digest>> {
    let file = layout.tmp.open(name).ok()?;
    if !is_held(&file) {
        return None;
    }
    let bytes = read_sound(&file, length(&fstat(&file).ok()?))?;
    let list = String::from_utf8(bytes).ok()?;
    Some(list.lines().filter_map(|digest| digest.parse().ok()).collect())
}

impl Drop for CacheHold {
    fn drop(&mut self) {
        let _ = self.layout.tmp.unlink(&self.name);
    }
}

impl fmt::Debug for CacheHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Begin, Key, StoreOptions};

    #[test]
    fn what_is_held_is_evicted_by_nobody_until_the_hold_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let open =
            || Store::open(StoreOptions { dir: dir.path().to_owned(), limit: 1 << 20 }).unwrap();
        let (store, other) = (open(), open());
        let blobs: Vec<Vec<u8>> = (0..3_u8).map(|n| vec![n; 300 << 10]).collect();
        let keys: Vec<Key> = blobs.iter().map(|blob| Key::Blob(Digest::of(blob))).collect();
        let hold = store.hold(&blobs[..2].iter().map(|blob| Digest::of(blob)).collect()).unwrap();
        for (key, blob) in keys.iter().zip(&blobs) {
            let Begin::Fill(mut fill) = store.begin(key, blob.len() as u64).unwrap() else {
                panic!("it is there")
            };
            fill.write(blob).unwrap();
            drop(fill.publish().unwrap());
        }
        let there = |store: &Store| keys.iter().filter(|key| store.stored(key).is_some()).count();
        assert_eq!((there(&store), other.prune(0).objects, there(&store)), (3, 1, 2));
        assert_eq!(store.stored(&keys[0]), Some(300 << 10));
        // As that of a process that was killed: the file is there, and nobody has it locked.
        let name =
            store.layout().tmp.names().into_iter().find(|name| name.ends_with(HOLD)).unwrap();
        let left = dir.path().join("v1/tmp").join(&name);
        let list = std::fs::read(&left).unwrap();
        drop(hold);
        assert!(!left.exists());
        std::fs::write(&left, list).unwrap();
        other.prune(0);
        assert_eq!((there(&store), left.exists()), (0, false));
    }
}
