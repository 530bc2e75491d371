//! A fill: the only place where unverified bytes enter.
//!
//! ```text
//! tmp/NAME.part, locked ─ write… ─ length and digest match ─ sidecar in place ─ fdatasync ─ rename ─ directory sync
//!       │                  │                └ no: removed          └──────── disk full ────────┐
//!       └──── disk full ───┴──── evict, retry once ──── still full: in memory ─────────────────┴─ an object in memory
//! ```
//!
//! INVARIANT: what is published had the key's length and digest when its last byte was written. A
//! partial file is written only by who holds its lock, which the kernel drops with the process
//! (O19). After a failed sync a file is not used again.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Stat, fchmod, fdatasync, fstat, ftruncate};
use rustix::io::Errno;

use super::disk::{PUBLISHED, is_sound, length};
use super::error::{is_unwritable, refused, system};
use super::follow::{FillProgress, Tail};
use super::layout::{CacheLayout, is_misplaced};
use super::memory::Reservation;
use super::object::{Object, ObjectContent, ObjectInner};
use super::scratch::Scratch;
use super::sums::{CHUNK, ChunkSums, Summer};
use super::{Begin, Key, PARTIAL, SIDECAR, Store};
use crate::digest::{Digest, Hasher};
use crate::disk::lock::try_lock;
use crate::disk::{begin_writeback, read_at, write_all_at};
use crate::failure::{Failure, Refusal};

/// How much of a blob is written before the disk is told to begin: so that the sync at its end
/// waits for the last of it only.
const WRITEBACK: u64 = 8 << 20;
/// How often a partial file that vanishes between opening and locking is opened again.
const TRIES: usize = 16;

/// An object in the making. Dropping a blob's fill keeps its partial file for a later fill to go on
/// with; a member's is removed, since inflating starts at the front anyway.
pub struct Fill {
    store: Arc<Store>,
    key: Key,
    size: u64,
    position: u64,
    /// Up to where the disk was told to write.
    written_back: u64,
    hasher: Option<Box<Hasher>>,
    summer: Box<Summer>,
    layout: Arc<CacheLayout>,
    sink: FillSink,
    /// Those who follow it, if there are any.
    progress: Option<Arc<FillProgress>>,
    /// Whether the partial file is worth keeping when the fill is dropped.
    keep: bool,
}

enum FillSink {
    Disk(OwnedFd),
    Memory { bytes: Vec<u8>, reservation: Reservation },
    Published,
}

/// What a partial file turned out to be.
enum Partial {
    Locked(OwnedFd),
    Busy { bytes: u64 },
}

/// Where publishing on disk stopped.
enum Unpublished {
    /// Before the sync: making room and trying again is sound.
    Before(Errno),
    /// At the sync: the file's content on disk is unknown.
    Sync(Errno),
}

pub(super) fn begin(store: &Arc<Store>, key: &Key, size: u64) -> Result<Begin, Refusal> {
    if let Some(object) = store.get(key)? {
        return Ok(Begin::Present(object));
    }
    let layout = store.layout_to_write()?;
    let opened = match open_partial(&layout, key) {
        Err(errno) if is_unwritable(errno) => {
            store.make_room(size, errno);
            open_partial(&layout, key)
        }
        other => other,
    };
    let file = match opened {
        Ok(Partial::Busy { bytes }) => return Ok(Begin::Busy { bytes }),
        Ok(Partial::Locked(file)) => file,
        Err(errno) if is_unwritable(errno) => {
            let reservation = reserve(store, key, size, errno)?;
            let sink = FillSink::Memory { bytes: Vec::new(), reservation };
            return Ok(Begin::Fill(Fill::new(store, layout, key, size, sink)));
        }
        Err(errno) => return Err(system(key, "make a file in the cache", errno)),
    };
    let mut fill = Fill::new(store, layout, key, size, FillSink::Disk(file));
    // Who held the lock until now may have published.
    if let Some(object) = store.get(key)? {
        fill.keep = false;
        return Ok(Begin::Present(object));
    }
    fill.adopt()?;
    Ok(Begin::Fill(fill))
}

/// Opens and locks the partial file of `key`.
fn open_partial(layout: &CacheLayout, key: &Key) -> Result<Partial, Errno> {
    let name = partial_name(key);
    for _ in 0..TRIES {
        let file = match layout.tmp.open_or_make(&name) {
            Err(errno) if is_misplaced(errno) && errno != Errno::IO => {
                layout.tmp.clear(&name, &layout.tmp)?;
                continue;
            }
            other => other?,
        };
        let stat = fstat(&file)?;
        if !try_lock(&file)? {
            return Ok(Partial::Busy { bytes: length(&stat) });
        }
        // The name may stand for another file by now: the former one was published or removed
        // before it was locked.
        if !layout.tmp.holds(&name, &file) {
            continue;
        }
        if is_sound(&stat) {
            return Ok(Partial::Locked(file));
        }
        layout.tmp.clear(&name, &layout.tmp)?;
    }
    Err(Errno::BUSY)
}

/// Attributes of what a fill of `key` has written.
pub(super) fn partial(layout: &CacheLayout, key: &Key) -> Result<Stat, Errno> {
    layout.tmp.stat(&partial_name(key))
}

fn partial_name(key: &Key) -> String {
    format!("{}{PARTIAL}", key.file_name())
}

fn reserve(store: &Store, key: &Key, size: u64, errno: Errno) -> Result<Reservation, Refusal> {
    let reservation = store.memory.reserve(size);
    if reservation.is_some() {
        tracing::warn!(
            %key, size, %errno,
            "the cache's disk takes no writes: served from memory, without caching"
        );
    }
    reservation.ok_or_else(|| {
        let mut error =
            system(key, "write to the cache, and it is too big to be served without", errno);
        error.failure = Failure::NoSpace;
        error.remedy("free space on the cache's disk, or give another --cache-dir")
    })
}

impl Fill {
    fn new(
        store: &Arc<Store>,
        layout: Arc<CacheLayout>,
        key: &Key,
        size: u64,
        sink: FillSink,
    ) -> Self {
        let hasher = key.digest().map(|digest| Box::new(Hasher::new(digest.algorithm())));
        let summer = Box::new(Summer::new(&layout.seals));
        Fill {
            store: store.clone(),
            key: *key,
            size,
            position: 0,
            written_back: 0,
            hasher,
            summer,
            layout,
            sink,
            progress: None,
            keep: true,
        }
    }

    /// How many bytes, from the content's start, the fill holds. Not 0 at first where an earlier
    /// fill was broken off.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What has been written and what comes, for one who reads along. `None` where the bytes are in
    /// no file.
    pub fn follow(&mut self) -> Option<Tail> {
        let FillSink::Disk(_) = &self.sink else { return None };
        // A descriptor of its own: a copy of the fill's would carry the lock.
        let file = self.layout.tmp.open(&partial_name(&self.key)).ok()?;
        let progress = self.progress.get_or_insert_default().clone();
        progress.reach(self.position, self.size);
        Some(Tail::new(progress, file, self.size, self.layout.seals.chunks()))
    }

    /// Takes content that was written before it was known to be this key's, in place of what the
    /// fill holds.
    ///
    /// # Errors
    /// It has another length, or is lost. The fill can be written as before then, from its start.
    pub fn take(&mut self, scratch: Scratch) -> Result<(), Refusal> {
        self.restart()?;
        if !matches!(self.sink, FillSink::Disk(_)) || !matches!(self.key, Key::Member { .. }) {
            return Err(
                self.mismatch(format_args!("only the file of a member can be taken as it is"))
            );
        }
        let taken = scratch.give(&self.layout, &partial_name(&self.key), self.size)?;
        // Closing the former file lets its lock go. The one in its place is locked, and who waits
        // looks for that.
        self.sink = FillSink::Disk(taken.file);
        (self.position, self.summer) = (taken.position, taken.summer);
        Ok(())
    }

    /// Takes the next bytes. More than the size that was announced are a
    /// [`Failure::Integrity`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let end = self.position + bytes.len() as u64;
        if end > self.size {
            self.keep = false;
            return Err(
                self.mismatch(format_args!("it has more than the {} bytes announced", self.size))
            );
        }
        if let FillSink::Disk(file) = &self.sink
            && let Err(first) = write_all_at(file, bytes, self.position)
        {
            if !is_unwritable(first) {
                return Err(system(self.key, "write to the cache", first));
            }
            self.store.make_room(self.size - self.position, first);
            if let Err(errno) = write_all_at(file, bytes, self.position) {
                self.move_to_memory(errno)?;
            }
        }
        if let FillSink::Memory { bytes: kept, .. } = &mut self.sink {
            kept.extend_from_slice(bytes);
        }
        self.count(bytes);
        self.write_back();
        Ok(())
    }

    fn write_back(&mut self) {
        let fresh = self.position - self.written_back;
        if fresh >= WRITEBACK
            && self.is_durable()
            && let FillSink::Disk(file) = &self.sink
        {
            begin_writeback(file, self.written_back, fresh);
            self.written_back = self.position;
        }
    }

    /// A blob costs a download, so it has to survive a power loss. A member costs an inflation of a
    /// blob that is here, and a torn one is noticed by its checksums, so it does not wait for the
    /// disk.
    fn is_durable(&self) -> bool {
        matches!(self.key, Key::Blob(_))
    }

    /// Forgets all bytes: the next ones are again the first.
    pub fn restart(&mut self) -> Result<(), Refusal> {
        self.leave_behind();
        (self.position, self.written_back) = (0, 0);
        self.hasher = self.key.digest().map(|digest| Box::new(Hasher::new(digest.algorithm())));
        *self.summer = Summer::new(&self.layout.seals);
        match &mut self.sink {
            FillSink::Disk(file) => {
                ftruncate(file, 0).map_err(|errno| system(self.key, "empty a partial file", errno))
            }
            FillSink::Memory { bytes, .. } => {
                bytes.clear();
                Ok(())
            }
            FillSink::Published => Ok(()),
        }
    }

    /// Makes the content visible, if length and digest are the key's; else
    /// [`Failure::Integrity`], and what was written is gone. After a resumed fill a mismatch
    /// may be the fault of the bytes found: start again from 0 once.
    pub fn publish(mut self) -> Result<Object, Refusal> {
        self.keep = false;
        if self.position != self.size {
            return Err(self.mismatch(format_args!(
                "it has {} bytes, announced were {}",
                self.position, self.size
            )));
        }
        if let (Some(expected), Some(hasher)) = (self.key.digest(), self.hasher.take()) {
            let got = hasher.finish();
            if got != expected {
                return Err(self.mismatch(format_args!("its bytes have the digest {got}")));
            }
        }
        let summer = std::mem::replace(&mut *self.summer, Summer::new(&self.layout.seals));
        let sums = summer.finish();
        if matches!(self.sink, FillSink::Disk(_)) {
            let published = match self.publish_on_disk(&sums) {
                Err(Unpublished::Before(errno)) if is_unwritable(errno) => {
                    self.store.make_room(CHUNK as u64, errno);
                    self.publish_on_disk(&sums)
                }
                other => other,
            };
            match published {
                Ok(content) => return Ok(self.hand_over(content)),
                // Somebody removed the cache meanwhile: what was written is open here, and has no
                // name any more.
                Err(Unpublished::Before(errno))
                    if !is_unwritable(errno) && errno != Errno::NOENT =>
                {
                    return Err(system(self.key, "publish a file in the cache", errno));
                }
                Err(Unpublished::Before(errno) | Unpublished::Sync(errno)) => {
                    self.move_to_memory(errno)?
                }
            }
        }
        let FillSink::Memory { bytes, reservation } =
            std::mem::replace(&mut self.sink, FillSink::Published)
        else {
            return Err(self.mismatch(format_args!("it was published before")));
        };
        // A part of the bytes may have been read back from the disk that failed.
        let mut again = Summer::new(&self.layout.seals);
        again.update(&bytes);
        if again.finish() != sums {
            return Err(self.mismatch(format_args!(
                "the cache's disk returned other bytes than it was given"
            )));
        }
        Ok(self.hand_over(ObjectContent::Memory { bytes: bytes.into(), _reservation: reservation }))
    }

    fn hand_over(&mut self, content: ObjectContent) -> Object {
        self.sink = FillSink::Published;
        self.store.published(ObjectInner::new(self.store.clone(), self.key, content))
    }

    fn publish_on_disk(&self, sums: &ChunkSums) -> Result<ObjectContent, Unpublished> {
        let FillSink::Disk(file) = &self.sink else { return Err(Unpublished::Before(Errno::BADF)) };
        let (tmp, name) = (&self.layout.tmp, self.key.file_name());
        let partial = partial_name(&self.key);
        let shard = self.layout.shard_or_make(&self.key).map_err(Unpublished::Before)?;
        // A descriptor of its own: the fill's may write and carries the lock.
        let reader = tmp.open(&partial).map_err(Unpublished::Before)?;
        let content = if self.key.is_small(self.size) {
            let bytes =
                super::disk::read_sound(&reader, self.size).filter(|bytes| self.key.matches(bytes));
            let bytes = bytes.ok_or(Unpublished::Before(Errno::IO))?;
            ObjectContent::Small { file: reader, bytes: bytes.into() }
        } else {
            // Not synced: a sidecar that a power loss damaged is noticed by its seal, and made
            // again.
            let sidecar = sums.to_sidecar(&self.layout.seals, &self.key);
            let written = self.layout.write(&shard, &format!("{name}{SIDECAR}"), &sidecar);
            written.map_err(Unpublished::Before)?;
            ObjectContent::Chunked { file: reader, sums: sums.clone() }
        };
        let durable = self.is_durable();
        if durable {
            fdatasync(file).map_err(Unpublished::Sync)?;
        }
        tmp.rename(&partial, &shard, &name).map_err(Unpublished::Before)?;
        // After the rename, so that a partial left by a kill can always be opened for writing;
        // readers do the same.
        let _ = fchmod(file, PUBLISHED);
        if durable && let Err(errno) = shard.sync() {
            tracing::warn!(
                key = %self.key, %errno,
                "the cache's directory cannot be synced: the file may be lost at power loss"
            );
        }
        Ok(content)
    }

    /// Takes over the bytes of an earlier fill that was broken off.
    fn adopt(&mut self) -> Result<(), Refusal> {
        let FillSink::Disk(file) = &self.sink else { return Ok(()) };
        let found = fstat(file).map(|stat| length(&stat)).unwrap_or(u64::MAX);
        if found == 0 {
            return Ok(());
        }
        if found > self.size || matches!(self.key, Key::Member { .. }) {
            return self.restart();
        }
        let mut chunk = vec![0; CHUNK];
        while self.position < found {
            let FillSink::Disk(file) = &self.sink else { break };
            match read_at(file, &mut chunk, self.position) {
                Ok(n) if n > 0 => self.count(&chunk[..n]),
                _ => return self.restart(),
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.summer.update(bytes);
        self.position += bytes.len() as u64;
        if let Some(progress) = &self.progress {
            progress.reach(self.position, self.size);
        }
    }

    /// Who follows the fill cannot go on.
    fn leave_behind(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.stop();
        }
    }

    /// Goes on in memory with what was written so far, since the disk answered `cause`.
    fn move_to_memory(&mut self, cause: Errno) -> Result<(), Refusal> {
        let FillSink::Disk(file) = &self.sink else { return Ok(()) };
        let reservation = reserve(&self.store, &self.key, self.size, cause)?;
        let len = usize::try_from(self.position).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        if read_at(file, &mut bytes, 0) != Ok(len) {
            return Err(system(self.key, "read back what was written to the cache", cause));
        }
        let _ = self.layout.tmp.unlink(&partial_name(&self.key));
        self.sink = FillSink::Memory { bytes, reservation };
        self.leave_behind();
        Ok(())
    }

    fn mismatch(&self, rule: fmt::Arguments<'_>) -> Refusal {
        refused(Failure::Integrity, self.key, format_args!("what arrived is refused: {rule}"))
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.end();
        }
        let worthless = !self.keep || self.position == 0 || matches!(self.key, Key::Member { .. });
        if matches!(self.sink, FillSink::Disk(_)) && worthless {
            let _ = self.layout.tmp.unlink(&partial_name(&self.key));
        }
    }
}

impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fill({}, {} of {} bytes)", self.key, self.position, self.size)
    }
}

/// Hashes a whole data file; its checksums if it has the digest.
pub(super) fn rehash(
    file: &OwnedFd,
    len: u64,
    digest: &Digest,
    layout: &CacheLayout,
) -> Option<ChunkSums> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut summer = Summer::new(&layout.seals);
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let n = read_at(file, &mut chunk, at).ok().filter(|n| *n > 0)?;
        hasher.update(&chunk[..n]);
        summer.update(&chunk[..n]);
        at += n as u64;
    }
    (at == len && hasher.finish() == *digest).then(|| summer.finish())
}
