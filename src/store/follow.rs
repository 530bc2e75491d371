//! Reading a blob while it is being filled.
//!
//! INVARIANT: what a [`Tail`] gives out is unverified, and it never gives out what came before a
//! restart together with what came after. It sums every chunk that it reads, so that
//! [`Tail::is_of`] can tell once there is a verified object whether each byte that was read is one
//! of it.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Object;
use super::disk::read_full_at;
use super::sums::{CHUNK, ChunkSum, sum};

/// How far a fill has come: what it tells those who follow it.
#[derive(Default)]
pub(super) struct FillProgress {
    state: Mutex<FollowState>,
    moved: Condvar,
}

#[derive(Default)]
struct FollowState {
    /// Bytes that are in the file.
    position: u64,
    /// Nothing comes after them.
    ended: bool,
    /// They are void, or nobody wants them any more.
    stopped: bool,
}

impl FillProgress {
    /// The file holds everything up to `position`. Wakes who waits once in a chunk, and at the end
    /// of `size` bytes.
    pub(super) fn reach(&self, position: u64, size: u64) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.position, position);
        if before / CHUNK as u64 != position / CHUNK as u64 || position == size {
            self.moved.notify_all();
        }
    }

    /// The fill has ended, well or not.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.moved.notify_all();
    }

    /// What is in the file is no longer what was read from it so far.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.moved.notify_all();
    }

    /// Waits until the file holds everything up to `end`, for as long as the fill lives; whether it
    /// does.
    fn wait_for(&self, end: u64) -> bool {
        let mut state = self.state.lock();
        while state.position < end && !state.ended && !state.stopped {
            self.moved.wait(&mut state);
        }
        state.position >= end && !state.stopped
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }
}

/// Ends the reading of a [`Tail`] from elsewhere.
#[derive(Clone)]
pub struct Stopper(Arc<FillProgress>);

impl Stopper {
    /// From now on reading fails, also for who waits.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// A blob in the making, for one reader. Reading waits for bytes that did not come yet, and fails
/// where they do not come.
pub struct Tail {
    progress: Arc<FillProgress>,
    file: OwnedFd,
    size: u64,
    key: [u8; 32],
    read: RefCell<Read>,
}

/// What was read so far.
struct Read {
    /// The chunk that was read last.
    chunk: Vec<u8>,
    number: Option<u64>,
    /// The checksums of all chunks that were read.
    sums: Vec<Option<ChunkSum>>,
}

impl Tail {
    pub(super) fn new(
        progress: Arc<FillProgress>,
        file: OwnedFd,
        size: u64,
        key: [u8; 32],
    ) -> Self {
        let read = Read { chunk: Vec::new(), number: None, sums: Vec::new() };
        Tail { progress, file, size, key, read: RefCell::new(read) }
    }

    /// The length that was announced of the blob, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "the size of a file, not of a collection")]
    pub fn len(&self) -> u64 {
        self.size
    }

    /// What ends the reading.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.progress.clone())
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// The bytes will not come: the fill ended or started over, the blob is shorter, or somebody
    /// stopped the reading.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let read = &mut *self.read.borrow_mut();
        let mut done = 0;
        while done < buf.len() {
            let at = offset.checked_add(done as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
            let (number, within) = (at / CHUNK as u64, (at % CHUNK as u64) as usize);
            if read.number != Some(number) {
                self.load(read, number)?;
            }
            let rest = read
                .chunk
                .get(within..)
                .filter(|rest| !rest.is_empty())
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            let n = rest.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&rest[..n]);
            done += n;
        }
        Ok(())
    }

    /// Reads the chunk of that number, whole.
    fn load(&self, read: &mut Read, number: u64) -> io::Result<()> {
        read.number = None;
        let start = number * CHUNK as u64;
        let length = self.size.saturating_sub(start).min(CHUNK as u64);
        if length == 0 || !self.progress.wait_for(start + length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read.chunk.resize(length as usize, 0);
        let found = read_full_at(&self.file, &mut read.chunk, start)?;
        // A restart is announced before the file changes.
        if found != read.chunk.len() || self.progress.is_stopped() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let at = number as usize;
        if read.sums.len() <= at {
            read.sums.resize(at + 1, None);
        }
        let sum = sum(&self.key, &read.chunk);
        if read.sums[at].is_some_and(|before| before != sum) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        read.sums[at] = Some(sum);
        read.number = Some(number);
        Ok(())
    }

    /// Whether everything that was read are bytes of `object`, each at its place.
    pub fn is_of(&self, object: &Object) -> bool {
        let Some(sums) = object.0.sums() else { return false };
        let read = self.read.borrow();
        let mut chunks =
            read.sums.iter().enumerate().filter_map(|(number, sum)| Some((number, sum.as_ref()?)));
        sums.len() == self.size && chunks.all(|(number, sum)| sums.holds(number, sum))
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tail({} bytes)", self.size)
    }
}
