//! Archives: the tree of a zip by OpenTofu's rules, or a refusal; and the bytes of one member.
//!
//! [`index`] reads the whole structure of an archive before anything of it is shown, and accepts
//! only what can be read in one way: what it returns is the tree that OpenTofu's extractor would
//! write, never a third one. [`extract`] and [`inflate`] give the content of one member and know
//! whether size and CRC hold only at their end: what they wrote before an error is not to be
//! served. Names never become paths on disk here.
//!
//! [`Entries`] reads the front of an archive that has not arrived whole, for who wants to work
//! ahead.
//!
//! [`write()`] makes archives that are the same bytes for the same files, and that [`index`]
//! accepts.
//!
//! An archive is read through [`ReadAt`], may be hostile, and costs memory in proportion to its
//! number of entries.

mod end;
mod error;
mod hashes;
mod headers;
mod index;
mod names;
mod read;
mod stream;
mod tarball;
mod window;
mod write;

use std::io;

pub use error::{ArchiveError, Class};
pub use hashes::{Hashes, hashes};
pub use index::index;
pub use read::{extract, inflate};
pub use stream::{Entries, Streamed, Upcoming};
pub use tarball::{TarEntryKind, TarVisit, tarball};
pub use write::{ArchiveOutput, EntryContents, WrittenArchive, ZipEntry, write};

use crate::digest::Hasher;

/// The bytes of an archive, at any offset.
pub trait ReadAt {
    /// Length in bytes; it never changes.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset` on. An end before `buf` is full is an error.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = start.checked_add(buf.len()).and_then(|end| self.get(start..end));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        ReadAt::len(&self.as_slice())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}

/// Keeps only the digest of what is written.
struct HashingSink(Hasher);

impl io::Write for HashingSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How large an archive may be. A value that is exceeded is named in the refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of the archive itself.
    pub archive: u64,
    /// Bytes of all entries together, as declared. Larger totals are accepted up to `ratio`.
    pub total: u64,
    /// Total of all entries to the size of the archive, accepted even above `total`.
    pub ratio: u64,
    /// Bytes of one entry, as declared.
    pub entry: u64,
    /// Entries, directories included.
    pub entries: u64,
    /// Components of a path.
    pub depth: usize,
    /// Bytes of a component. Above 255 no file system holds it.
    pub component: usize,
    /// Bytes of a path.
    pub path: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            archive: 4 << 30,
            total: 4 << 30,
            ratio: 100,
            entry: 4 << 30,
            entries: 200_000,
            depth: 256,
            component: 255,
            path: 4095,
        }
    }
}

impl Limits {
    /// The usual limits, but for archives of `archive` bytes and entries of `entry` bytes. What
    /// these two allow, the total allows as well.
    pub fn up_to(archive: u64, entry: u64) -> Limits {
        let usual = Limits::default();
        Limits { archive, entry, total: usual.total.max(archive).max(entry), ..usual }
    }
}

#[cfg(test)]
mod tests;
