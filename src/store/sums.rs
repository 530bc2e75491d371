//! Chunk checksums: what makes a part of a big file checkable without reading the whole.
//!
//! ```text
//! sidecar   magic (8) │ chunk size (4) │ length (8) │ length of the key's name (2) │ the key's name
//!           │ 16 bytes of keyed BLAKE3 per chunk │ seal (32) over everything before it
//! ```
//!
//! INVARIANT: a [`Sums`] was either computed from bytes that matched their digest, or read from a
//! sidecar whose seal was right and which names the same key and length.

use super::Key;
use super::seal::{SEAL_LEN, Seals};

/// Length of all chunks but the last, in bytes.
pub(super) const CHUNK: usize = 64 * 1024;

const MAGIC: &[u8; 8] = b"tofusum1";
const SUM_LEN: usize = 16;

/// The checksum of one chunk.
pub(super) type ChunkSum = [u8; SUM_LEN];

/// The checksum of the chunk `bytes`, by the key of [`Seals::chunks`].
pub(super) fn sum(key: &[u8; 32], bytes: &[u8]) -> ChunkSum {
    cut(blake3::keyed_hash(key, bytes))
}

/// The checksums of a file's chunks.
#[derive(Clone)]
pub(super) struct ChunkSums {
    key: [u8; 32],
    len: u64,
    sums: Vec<ChunkSum>,
}

impl ChunkSums {
    /// The file's length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether `bytes` are the chunk of that number.
    pub(super) fn check(&self, chunk: u64, bytes: &[u8]) -> bool {
        usize::try_from(chunk).is_ok_and(|chunk| self.holds(chunk, &sum(&self.key, bytes)))
    }

    /// Whether the chunk of that number has the checksum `sum`.
    pub(super) fn holds(&self, chunk: usize, sum: &ChunkSum) -> bool {
        self.sums.get(chunk) == Some(sum)
    }

    /// The sidecar's bytes.
    pub(super) fn to_sidecar(&self, seals: &Seals, key: &Key) -> Vec<u8> {
        let mut out = header(key, self.len);
        for sum in &self.sums {
            out.extend_from_slice(sum);
        }
        let seal = seals.sidecar(&out);
        out.extend_from_slice(seal.as_bytes());
        out
    }

    /// How long the sidecar of a file of `len` bytes is.
    pub(super) fn sidecar_len(key: &Key, len: u64) -> u64 {
        header(key, len).len() as u64
            + len.div_ceil(CHUNK as u64) * SUM_LEN as u64
            + SEAL_LEN as u64
    }

    /// Reads a sidecar; `None` if this cache did not write it for that key and length.
    pub(super) fn from_sidecar(
        bytes: &[u8],
        seals: &Seals,
        key: &Key,
        len: u64,
    ) -> Option<ChunkSums> {
        let (body, seal) = bytes.split_last_chunk::<SEAL_LEN>()?;
        if seals.sidecar(body) != blake3::Hash::from_bytes(*seal) {
            return None;
        }
        let (sums, rest) = body.strip_prefix(header(key, len).as_slice())?.as_chunks::<SUM_LEN>();
        let whole = rest.is_empty() && sums.len() as u64 == len.div_ceil(CHUNK as u64);
        whole.then(|| ChunkSums { key: seals.chunks(), len, sums: sums.to_vec() })
    }
}

impl PartialEq for ChunkSums {
    fn eq(&self, other: &Self) -> bool {
        (self.len, &self.sums) == (other.len, &other.sums)
    }
}

fn header(key: &Key, len: u64) -> Vec<u8> {
    let name = key.file_name();
    let mut out = Vec::with_capacity(22 + name.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(CHUNK as u32).to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out
}

fn cut(hash: blake3::Hash) -> ChunkSum {
    let mut sum = [0; SUM_LEN];
    sum.copy_from_slice(&hash.as_bytes()[..SUM_LEN]);
    sum
}

/// Chunk checksums in the making. Some 2 KB big.
pub(super) struct Summer {
    key: [u8; 32],
    len: u64,
    sums: Vec<ChunkSum>,
    chunk: blake3::Hasher,
    in_chunk: usize,
}

impl Summer {
    pub(super) fn new(seals: &Seals) -> Self {
        let key = seals.chunks();
        Summer {
            key,
            len: 0,
            sums: Vec::new(),
            chunk: blake3::Hasher::new_keyed(&key),
            in_chunk: 0,
        }
    }

    /// Takes in the next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.in_chunk));
            self.chunk.update(now);
            self.in_chunk += now.len();
            if self.in_chunk == CHUNK {
                self.end_chunk();
            }
            bytes = later;
        }
    }

    /// The checksums of all bytes taken in.
    pub(super) fn finish(mut self) -> ChunkSums {
        if self.in_chunk > 0 {
            self.end_chunk();
        }
        ChunkSums { key: self.key, len: self.len, sums: self.sums }
    }

    fn end_chunk(&mut self) {
        self.sums.push(cut(self.chunk.finalize()));
        self.chunk.reset();
        self.in_chunk = 0;
    }
}
