//! An open object: bytes that are checked each time they leave the store.
//!
//! ```text
//! blob ≤ 64 KiB      the data file, and its bytes in memory since they were hashed against the digest at opening
//! everything bigger  the data file, and its chunk checksums in memory; each read checks its chunks
//! disk full          the bytes in memory, without a file
//! ```
//!
//! INVARIANT: [`Object::read_at`] returns bytes that match the checksums, or an error and a zeroed
//! buffer. An object outlives its file's name: eviction and deletion by others take the name, not
//! the bytes.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, available_parallelism};

use parking_lot::Mutex;
use rustix::fs::fstat;

use super::disk::length;
use super::error::{refused, system};
use super::memory::Reservation;
use super::sums::{CHUNK, ChunkSums};
use super::{Key, Store};
use crate::bounded::Bounded;
use crate::disk::read_at;
use crate::failure::{Failure, Refusal};

/// How many chunks are kept for reads that are smaller than a chunk; 4 MiB.
const RECENT: usize = 64;

/// How many threads check a whole file, at most.
const CHECKERS: usize = 4;
/// How much of it one of them checks at once, in bytes: whole chunks.
const STRETCH: u64 = 16 * CHUNK as u64;

/// Where an object's bytes are.
pub(super) enum ObjectContent {
    /// On disk, and in memory as they were hashed.
    Small { file: OwnedFd, bytes: Box<[u8]> },
    /// On disk.
    Chunked { file: OwnedFd, sums: ChunkSums },
    /// In memory only.
    Memory { bytes: Box<[u8]>, _reservation: Reservation },
}

/// What all clones of an object share.
pub(super) struct ObjectInner {
    /// Unlike any other object's of this process.
    id: u64,
    key: Key,
    content: ObjectContent,
    pub(super) store: Arc<Store>,
    /// When its use was last written down, in seconds since 1970.
    pub(super) touched: AtomicU64,
}

impl ObjectInner {
    pub(super) fn new(store: Arc<Store>, key: Key, content: ObjectContent) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        ObjectInner { id, key, content, store, touched: AtomicU64::new(0) }
    }

    /// The checksums, where they are kept.
    pub(super) fn sums(&self) -> Option<&ChunkSums> {
        match &self.content {
            ObjectContent::Chunked { sums, .. } => Some(sums),
            ObjectContent::Small { .. } | ObjectContent::Memory { .. } => None,
        }
    }

    /// The file, where there is one.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.content {
            ObjectContent::Small { file, .. } | ObjectContent::Chunked { file, .. } => {
                Some(file.as_fd())
            }
            ObjectContent::Memory { .. } => None,
        }
    }
}

impl Drop for ObjectInner {
    fn drop(&mut self) {
        self.store.closed(&self.key, self.id);
    }
}

/// An open, verified object of the store. Clones share the descriptor.
#[derive(Clone)]
pub struct Object(pub(super) Arc<ObjectInner>);

impl Object {
    /// What the object is.
    pub fn key(&self) -> Key {
        self.0.key
    }

    /// The content's length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "the size of a file, not of a collection")]
    pub fn len(&self) -> u64 {
        match &self.0.content {
            ObjectContent::Small { bytes, .. } | ObjectContent::Memory { bytes, .. } => {
                bytes.len() as u64
            }
            ObjectContent::Chunked { sums, .. } => sums.len(),
        }
    }

    /// The data file: it holds the content from offset 0 on, nothing else, and never changes.
    /// `None` for an object that is in memory only. Who reads through it bypasses the checks: see
    /// [`Object::verify_whole`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.file()
    }

    /// Reads into `buf` from `offset` on; less than `buf.len()` bytes only at the end of the
    /// content. Where a chunk is not what was stored, the key is quarantined, the failure is
    /// [`Failure::Damaged`] and `buf` is zeroed.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Refusal> {
        let rest = self.len().saturating_sub(offset);
        let want = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
        let buf = &mut buf[..want];
        match &self.0.content {
            ObjectContent::Small { bytes, .. } | ObjectContent::Memory { bytes, .. } => {
                // `want` is 0 for an offset past the end, which need not fit in memory's address
                // range.
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                buf.copy_from_slice(&bytes[from..from + want]);
            }
            ObjectContent::Chunked { file, sums } => {
                if let Err(error) = self.read_chunks(file.as_fd(), sums, buf, offset) {
                    buf.fill(0);
                    return Err(error);
                }
            }
        }
        Ok(want)
    }

    /// The whole content.
    pub fn read_all(&self) -> Result<Vec<u8>, Refusal> {
        let Ok(len) = usize::try_from(self.len()) else {
            return Err(refused(
                Failure::NoSpace,
                self.key(),
                "the content does not fit in memory",
            ));
        };
        let mut bytes = vec![0; len];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Reads the whole data file and checks its length and every byte. Has to succeed before the
    /// descriptor is given to the kernel (passthrough), and again whenever the file's ctime or size
    /// changed.
    pub fn verify_whole(&self) -> Result<(), Refusal> {
        let Some(file) = self.fd() else { return Ok(()) };
        let stat = fstat(file).map_err(|e| system(self.key(), "look at a cached file", e))?;
        if length(&stat) != self.len() {
            return Err(self.corrupt("its file's length changed"));
        }
        match &self.0.content {
            ObjectContent::Small { bytes, .. } => {
                let mut found = vec![0; bytes.len()];
                match read_at(file, &mut found, 0) {
                    Ok(n) if found[..n] == bytes[..] => Ok(()),
                    _ => Err(self.corrupt("its file's content changed")),
                }
            }
            ObjectContent::Chunked { sums, .. } => self.verify_chunks(file, sums),
            ObjectContent::Memory { .. } => Ok(()),
        }
    }

    /// Checks all chunks, on as many threads as there are cores, up to [`CHECKERS`]: who opens a
    /// large file waits for this.
    fn verify_chunks(&self, file: BorrowedFd<'_>, sums: &ChunkSums) -> Result<(), Refusal> {
        let (len, next) = (self.len(), AtomicU64::new(0));
        let check_stretches = || {
            let mut chunk = vec![0; CHUNK];
            loop {
                let start = next.fetch_add(STRETCH, Ordering::Relaxed);
                if start >= len {
                    return Ok(());
                }
                for offset in (start..len.min(start + STRETCH)).step_by(CHUNK) {
                    let n = usize::try_from(len - offset).unwrap_or(CHUNK).min(CHUNK);
                    if let Err(e) = self.read_chunks(file, sums, &mut chunk[..n], offset) {
                        next.store(len, Ordering::Relaxed);
                        return Err(e);
                    }
                }
            }
        };
        let cores = available_parallelism().map_or(1, usize::from).min(CHECKERS);
        let wanted = cores.min(usize::try_from(len.div_ceil(STRETCH)).unwrap_or(cores));
        thread::scope(|scope| {
            // Where no thread can be started there are fewer.
            let spawn = |_| thread::Builder::new().spawn_scoped(scope, check_stretches).ok();
            let others: Vec<_> = (1..wanted).map_while(spawn).collect();
            let mut outcome = check_stretches();
            for other in others {
                outcome = outcome.and(other.join().unwrap_or_else(|_| {
                    Err(refused(Failure::Io, self.key(), "checking its file ended early"))
                }));
            }
            outcome
        })
    }

    /// Fills `buf`, which does not reach past the end.
    fn read_chunks(
        &self,
        file: BorrowedFd<'_>,
        sums: &ChunkSums,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<(), Refusal> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (number, within) = (at / CHUNK as u64, (at % CHUNK as u64) as usize);
            let left = sums.len() - number * CHUNK as u64;
            let chunk_len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let n = (chunk_len - within).min(buf.len() - done);
            let out = &mut buf[done..done + n];
            if n == chunk_len {
                self.read_chunk(file, sums, number, out)?;
            } else {
                let recent = &self.0.store.recent;
                let chunk = match recent.get(self.0.id, number) {
                    Some(chunk) => chunk,
                    None => {
                        let mut chunk = vec![0; chunk_len];
                        self.read_chunk(file, sums, number, &mut chunk)?;
                        recent.put(self.0.id, number, chunk.into())
                    }
                };
                out.copy_from_slice(&chunk[within..within + n]);
            }
            done += n;
        }
        Ok(())
    }

    /// Fills `out`, which is as long as the chunk, and checks it.
    fn read_chunk(
        &self,
        file: BorrowedFd<'_>,
        sums: &ChunkSums,
        number: u64,
        out: &mut [u8],
    ) -> Result<(), Refusal> {
        match read_at(file, out, number * CHUNK as u64) {
            Ok(n) if n == out.len() && sums.check(number, out) => Ok(()),
            Ok(n) if n < out.len() => Err(self.corrupt("its file is shorter than it was")),
            Ok(_) => {
                Err(self
                    .corrupt(&format!("chunk {number} of its file does not match its checksum")))
            }
            Err(errno) => Err(self.corrupt(&format!("its file cannot be read: {errno}"))),
        }
    }

    fn corrupt(&self, rule: &str) -> Refusal {
        self.0.store.discard(self, rule);
        refused(Failure::Damaged, self.key(), format_args!("the cached copy is refused: {rule}"))
            .remedy("it was removed from the cache and will be fetched again")
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}, {} bytes)", self.key(), self.len())
    }
}

/// The chunks that were read in part lately: a program that reads in small steps has each chunk
/// hashed once.
pub(super) struct RecentChunks(Mutex<ReadChunks>);

/// Chunks by the numbers of their objects, and their own in them.
type ReadChunks = Bounded<(u64, u64), Arc<[u8]>>;

impl RecentChunks {
    pub(super) fn new() -> Self {
        RecentChunks(Mutex::new(Bounded::counted(RECENT)))
    }

    fn get(&self, object: u64, chunk: u64) -> Option<Arc<[u8]>> {
        self.0.lock().get(&(object, chunk)).cloned()
    }

    fn put(&self, object: u64, chunk: u64, bytes: Arc<[u8]>) -> Arc<[u8]> {
        self.0.lock().put((object, chunk), bytes.clone());
        bytes
    }

    /// Forgets the chunks of an object that was closed.
    pub(super) fn forget(&self, object: u64) {
        self.0.lock().retain(|(of, _), _| *of != object);
    }
}
