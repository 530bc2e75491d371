//! The content-addressed cache: bytes by digest, checked on their way in and on their way out.
//!
//! ```text
//! CACHE/                         the user's own, writable by nobody else
//! ├── CACHEDIR.TAG
//! └── v1/                        layout version; 0700 from here on
//!     ├── key                    random, 0600: seals sidecars and edges of this cache
//!     ├── blobs/ab/sha256-abHEX…            exactly the blob: a zip, a manifest
//!     │            sha256-abHEX….sum        its chunk checksums, sealed (blobs over 64 KiB)
//!     ├── members/ab/sha256-abHEX…-NUMBER   exactly a big member of that zip, inflated; always with a .sum
//!     ├── edges/KEYED-HASH-OF-NAME          a small value that changes, sealed
//!     └── tmp/NAME.part                     being written, under a lock; or broken off, to be resumed
//!            RANDOM.scratch                being written, under a lock, for a key that is not known yet
//!            RANDOM.hold                   digests that who has it locked needs for now
//!
//!             ┌──────── begin ───────► Fill ── write… ── publish ──┐ length and digest match, else nothing
//!   facts ────┤                                                    ▼
//!             └──────── get ──► (checked: file, owner, length) ► Object ── read_at: every chunk is checked
//! ```
//!
//! No name from outside becomes a path: files are named by digest, number or keyed hash. A file
//! that is not what it has to be is quarantined (its name is removed) and counts as missing, so it
//! is fetched again. Readers take no lock: a file is complete when its name appears, and is never
//! written again. Several processes may share a cache.
//!
//! The functions block on the disk; none is called on a thread of the async runtime or of FUSE.

mod disk;
mod edges;
mod error;
mod evict;
mod fill;
mod follow;
mod holds;
mod key;
mod layout;
mod lease;
mod memory;
mod object;
mod pins;
mod scratch;
mod seal;
mod sums;
mod verify;
mod walk;
mod whole;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{Mode, fchmod, fstat, fstatvfs};
use rustix::io::Errno;

pub use self::evict::Pruned;
pub use self::fill::Fill;
pub use self::follow::{Stopper, Tail};
pub use self::holds::CacheHold;
pub use self::key::Key;
pub use self::layout::TAG as CACHE_TAG;
pub use self::lease::has_no_writer;
pub use self::object::Object;
pub use self::pins::{Pin, PinnedUsage};
pub use self::scratch::Scratch;
pub use self::verify::StoreVerified;

use self::disk::{CacheDirectory, PUBLISHED, is_sound, length, read_sound};
use self::error::system;
use self::evict::{Ledger, PARTIAL_AGE};
use self::layout::{CacheLayout, is_misplaced};
use self::memory::Memory;
use self::object::{ObjectContent, ObjectInner, RecentChunks};
use self::sums::ChunkSums;
use crate::failure::Refusal;
use crate::metrics::metrics;

const SIDECAR: &str = ".sum";
const PARTIAL: &str = ".part";
/// How exactly the last use of an object is written down.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// Where the cache lies and how big it may get.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The cache directory; made if it is missing.
    pub dir: PathBuf,
    /// Budget for blobs and members on disk, in bytes.
    pub limit: u64,
}

/// The answer to [`Store::begin`].
#[derive(Debug)]
pub enum Begin {
    /// It is there already.
    Present(Object),
    /// The caller is the one to fill it.
    Fill(Fill),
    /// Another fill of the same key runs, here or in another process, and has that many bytes. Ask
    /// again later; bytes that grow are progress.
    Busy {
        /// Bytes in the partial file.
        bytes: u64,
    },
}

/// What the cache holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// The cache directory.
    pub dir: PathBuf,
    /// Space that blobs and members take, in bytes.
    pub bytes: u64,
    /// How many blobs and members there are.
    pub objects: u64,
    /// The budget, in bytes.
    pub limit: u64,
    /// Bytes held in memory since the disk takes none.
    pub in_memory: u64,
}

/// The file system under the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheSpace {
    /// Its size in bytes.
    pub total: u64,
    /// What an ordinary user may still write, in bytes.
    pub available: u64,
}

/// The cache. See the head of this file.
pub struct Store {
    options: StoreOptions,
    /// Opened again if somebody removed the directories (O10).
    layout: RwLock<Arc<CacheLayout>>,
    /// What this process holds open.
    open: Mutex<HashMap<Key, Weak<ObjectInner>>>,
    recent: RecentChunks,
    whole: whole::Whole,
    memory: Memory,
    ledger: Ledger,
    pinning: pins::Pinning,
    scratches: scratch::Scratches,
}

impl Store {
    /// Whether there is a cache in `dir`. Blocks on the disk.
    pub fn is_at(dir: &Path) -> bool {
        layout::version_dir(dir).is_dir()
    }

    /// Opens the cache, made if it is missing. Fails if others could write in it.
    pub fn open(options: StoreOptions) -> Result<Arc<Store>, Refusal> {
        let layout = Arc::new(CacheLayout::open(&options.dir)?);
        let store = Arc::new(Store {
            options,
            layout: RwLock::new(layout),
            open: Mutex::default(),
            recent: RecentChunks::new(),
            whole: whole::Whole::new(),
            memory: Memory::default(),
            ledger: Ledger::default(),
            pinning: pins::Pinning::default(),
            scratches: scratch::Scratches::default(),
        });
        let counted = Arc::downgrade(&store);
        let started = std::thread::Builder::new().name("cache-count".to_owned()).spawn(move || {
            if let Some(store) = counted.upgrade() {
                evict::reap(&store.layout(), PARTIAL_AGE);
                store.count();
            }
        });
        if let Err(error) = started {
            tracing::warn!(
                %error, "no thread to count the cache: it is counted when first asked for"
            );
        }
        Ok(store)
    }

    /// The object, open and checked; `None` if it is not there, or was damaged and is quarantined
    /// now. Counts as use.
    pub fn get(self: &Arc<Self>, key: &Key) -> Result<Option<Object>, Refusal> {
        let opened = self.open.lock().get(key).and_then(Weak::upgrade).map(Object);
        if let Some(object) = opened {
            metrics().cache_hits.inc();
            self.touch(&object);
            return Ok(Some(object));
        }
        let Some((content, age)) = self.load(key)? else {
            metrics().cache_misses.inc();
            return Ok(None);
        };
        metrics().cache_hits.inc();
        let object = self.opened(ObjectInner::new(self.clone(), *key, content));
        object.0.touched.store(seconds_now().saturating_sub(age.as_secs()), Ordering::Relaxed);
        self.touch(&object);
        Ok(Some(object))
    }

    /// Starts to fill `key` with `size` bytes, unless it is there or being filled.
    pub fn begin(self: &Arc<Self>, key: &Key, size: u64) -> Result<Begin, Refusal> {
        fill::begin(self, key, size)
    }

    /// How many bytes of `key` are there: all of them, or those that a fill has written so far.
    pub fn held(&self, key: &Key) -> u64 {
        let layout = self.layout();
        let whole = layout.shard(key).and_then(|dir| dir.stat(&key.file_name()));
        whole.or_else(|_| fill::partial(&layout, key)).map_or(0, |stat| length(&stat))
    }

    /// The length of an object's file; `None` where the cache's disk has none, whatever is held in
    /// memory.
    pub fn stored(&self, key: &Key) -> Option<u64> {
        let file = self.layout().shard(key).and_then(|dir| dir.stat(&key.file_name()));
        file.ok().map(|stat| length(&stat))
    }

    /// Removes an object whose bytes turned out to be wrong; open descriptors keep them.
    pub fn quarantine(&self, key: &Key, why: &str) {
        metrics().quarantined.inc();
        tracing::warn!(
            %key, rule = why,
            "a cached object is quarantined: it is removed and will be fetched again"
        );
        self.open.lock().remove(key);
        let layout = self.layout();
        let size =
            layout.shard(key).and_then(|dir| dir.stat(&key.file_name())).map(|stat| length(&stat));
        match (layout.remove(key), size) {
            (Ok(()), Ok(size)) => self.ledger.subtract(key, size),
            (Ok(()), Err(_)) => {}
            (Err(errno), _) => {
                tracing::warn!(%key, %errno, "a damaged file of the cache cannot be removed")
            }
        }
    }

    /// The value of an edge; `None` if there is none, or if it is not what was stored.
    pub fn edge(&self, name: &str) -> Option<Vec<u8>> {
        edges::get(&self.layout(), name)
    }

    /// Sets the value of an edge, atomically.
    pub fn put_edge(&self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        edges::put(&*self.layout_to_write()?, name, value)
    }

    /// The same for what a power loss must not cost.
    pub fn put_lasting_edge(&self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        edges::put_durably(&*self.layout_to_write()?, name, value)
    }

    /// Removes an edge.
    pub fn remove_edge(&self, name: &str) {
        edges::remove(&self.layout(), name);
    }

    /// The value of an edge of the cache in `dir`, which is not made where it is missing. Blocks on
    /// the disk.
    pub fn edge_at(dir: &Path, name: &str) -> Option<Vec<u8>> {
        let layout = Store::is_at(dir).then(|| CacheLayout::open(dir).ok()).flatten()?;
        edges::get(&layout, name)
    }

    /// Shows every edge's name and value to `visit`, in no order.
    pub fn each_edge(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        edges::each(&self.layout(), visit);
    }

    /// The cache directory.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The budget, in bytes.
    pub fn limit(&self) -> u64 {
        self.options.limit
    }

    /// What the cache holds. Walks its directories if that was not done before.
    pub fn usage(&self) -> Usage {
        let totals = self.count();
        Usage {
            dir: self.options.dir.clone(),
            bytes: totals.bytes,
            objects: totals.objects,
            limit: self.options.limit,
            in_memory: self.memory.held(),
        }
    }

    /// Size and room of the file system under the cache.
    pub fn space(&self) -> Result<CacheSpace, Refusal> {
        let stat = fstatvfs(&self.layout().tmp).map_err(|errno| {
            system(self.options.dir.display(), "look at the cache's disk", errno)
        })?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(CacheSpace { total: bytes(stat.f_blocks), available: bytes(stat.f_bavail) })
    }

    fn layout(&self) -> Arc<CacheLayout> {
        self.layout.read().clone()
    }

    /// The directories, made again if somebody removed them.
    fn layout_to_write(&self) -> Result<Arc<CacheLayout>, Refusal> {
        let layout = self.layout();
        if !layout.is_removed() {
            return Ok(layout);
        }
        let mut slot = self.layout.write();
        if slot.is_removed() {
            tracing::warn!(
                dir = %self.options.dir.display(),
                "the cache was removed by somebody: it is made again"
            );
            *slot = Arc::new(CacheLayout::open(&self.options.dir)?);
        }
        Ok(slot.clone())
    }

    /// Opens and checks an object's file; how long ago it was used, too.
    fn load(&self, key: &Key) -> Result<Option<(ObjectContent, Duration)>, Refusal> {
        let layout = self.layout();
        let system = |errno| system(key, "open a cached file", errno);
        let refuse = |rule: &str| {
            self.quarantine(key, rule);
            Ok(None)
        };
        let opened =
            layout.shard(key).and_then(|dir| dir.open(&key.file_name()).map(|file| (dir, file)));
        let (dir, file) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) if is_misplaced(errno) => {
                return refuse(&format!("its file cannot be opened: {errno}"));
            }
            Err(errno) => return Err(system(errno)),
        };
        let stat = fstat(&file).map_err(system)?;
        if !is_sound(&stat) {
            return refuse("its file is not a regular file of this user with one name");
        }
        if Mode::from_raw_mode(stat.st_mode) != PUBLISHED {
            // The publishing process died between two steps.
            let _ = fchmod(&file, PUBLISHED);
        }
        let len = length(&stat);
        if key.is_small(len) {
            return match read_sound(&file, len).filter(|bytes| key.matches(bytes)) {
                Some(bytes) => Ok(Some((
                    ObjectContent::Small { file, bytes: bytes.into() },
                    walk::age_of(&stat),
                ))),
                None => refuse("its file does not have its digest"),
            };
        }
        if let Some((sums, age)) = read_sidecar(&layout, &dir, key, len).map_err(system)? {
            return Ok(Some((ObjectContent::Chunked { file, sums }, age)));
        }
        match self.rebuild_sidecar(&layout, &dir, key, &file, len) {
            Some(sums) => Ok(Some((ObjectContent::Chunked { file, sums }, Duration::ZERO))),
            None => refuse("its file is not what was stored"),
        }
    }

    /// Checksums of a blob whose sidecar is missing or not ours: made again if the blob has its
    /// digest.
    fn rebuild_sidecar(
        &self,
        layout: &CacheLayout,
        dir: &CacheDirectory,
        key: &Key,
        file: &OwnedFd,
        len: u64,
    ) -> Option<ChunkSums> {
        let sums = fill::rehash(file, len, &key.digest()?, layout)?;
        let name = format!("{}{SIDECAR}", key.file_name());
        let sidecar = sums.to_sidecar(&layout.seals, key);
        if let Err(errno) =
            dir.clear(&name, &layout.tmp).and_then(|()| layout.write(dir, &name, &sidecar))
        {
            tracing::warn!(
                %key, %errno,
                "checksums cannot be written: the file is hashed again when opened next"
            );
        }
        Some(sums)
    }

    /// Enters an object into the table. Of two that were opened at once, the first counts.
    fn opened(&self, inner: ObjectInner) -> Object {
        let mut open = self.open.lock();
        // `key` lives in `inner`, and an `Inner` may be dropped only after the table is unlocked.
        let new = Object(Arc::new(inner));
        if let Some(first) = open.get(&new.key()).and_then(Weak::upgrade) {
            drop(open);
            return Object(first);
        }
        open.insert(new.key(), Arc::downgrade(&new.0));
        drop(open);
        new
    }

    /// Enters an object that was just filled, and keeps the budget.
    fn published(&self, inner: ObjectInner) -> Object {
        let object = Object(Arc::new(inner));
        object.0.touched.store(seconds_now(), Ordering::Relaxed);
        self.open.lock().insert(object.key(), Arc::downgrade(&object.0));
        if object.fd().is_some() && self.ledger.add(&object.key(), object.len(), self.options.limit)
        {
            self.sweep(None);
        }
        object
    }

    /// The last clone of an object is gone.
    fn closed(&self, key: &Key, id: u64) {
        self.recent.forget(id);
        let mut open = self.open.lock();
        if open.get(key).is_some_and(|open| open.strong_count() == 0) {
            open.remove(key);
        }
    }

    /// Quarantines an open object, unless its name stands for a newer file by now.
    fn discard(&self, object: &Object, rule: &str) {
        let key = object.key();
        let current = self
            .layout()
            .shard(&key)
            .is_ok_and(|dir| object.fd().is_some_and(|fd| dir.holds(&key.file_name(), fd)));
        if current {
            self.quarantine(&key, rule);
            return;
        }
        let mut open = self.open.lock();
        if open.get(&key).is_some_and(|open| std::ptr::eq(open.as_ptr(), Arc::as_ptr(&object.0))) {
            open.remove(&key);
        }
    }

    /// Writes the use of an object down, at most once a minute.
    fn touch(&self, object: &Object) {
        let (key, now) = (object.key(), seconds_now());
        let last = object.0.touched.load(Ordering::Relaxed);
        if object.fd().is_none() || now.abs_diff(last) < TOUCH_EVERY.as_secs() {
            return;
        }
        object.0.touched.store(now, Ordering::Relaxed);
        let name = key.file_name();
        let name = if key.is_small(object.len()) { name } else { format!("{name}{SIDECAR}") };
        // Fails on a read-only disk and for an object that was evicted: then there is nothing to
        // write down.
        let _ = self.layout().shard(&key).and_then(|dir| dir.touch(&name));
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.options.dir.display())
    }
}

/// A sidecar that this cache wrote for that key and length, and how long ago it was used. An error
/// says nothing about the sidecar: it could not be looked at.
fn read_sidecar(
    layout: &CacheLayout,
    dir: &CacheDirectory,
    key: &Key,
    len: u64,
) -> Result<Option<(ChunkSums, Duration)>, Errno> {
    let file = match dir.open(&format!("{}{SIDECAR}", key.file_name())) {
        Ok(file) => file,
        Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(errno),
        Err(_) => return Ok(None),
    };
    let read = || {
        let stat = fstat(&file).ok()?;
        let bytes = read_sound(&file, ChunkSums::sidecar_len(key, len))?;
        Some((ChunkSums::from_sidecar(&bytes, &layout.seals, key, len)?, walk::age_of(&stat)))
    };
    Ok(read())
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
