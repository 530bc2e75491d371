//! The entries of an archive in the order in which they stand in it, for who reads it while it
//! still arrives.
//!
//! Only local headers are there yet, and they decide nothing: what comes out of here is content of
//! which nobody can say what it is, until [`super::index`] has read the whole archive and
//! [`Streamed::is`] says that it is that of a file. What cannot be followed with certainty ends the
//! sequence, as an error or without one.

use std::io;

use super::headers::{
    FLAG_DESCRIPTOR, LOCAL_LENGTH, Local, SIGNATURE_LENGTH, Sizes, begins_entry, is_descriptor,
    local_length,
};
use super::index::method_of;
use super::window::Window;
use super::{ArchiveError, ReadAt, read};
use crate::members::{MemberFile, Method};

/// The lengths of data descriptors, the usual ones first (APPNOTE.TXT 4.3.9).
const DESCRIPTORS: [usize; 4] = [16, 24, 12, 20];

/// The entries from the front.
pub struct Entries<'a> {
    zip: &'a dyn ReadAt,
    locals: Window<'a>,
    /// Where the next local header is to be.
    at: u64,
}

/// An entry that comes next.
#[derive(Clone, Copy)]
pub struct Upcoming {
    /// Offset of the first byte of its data in the archive.
    pub offset: u64,
    method: Method,
    /// What its local header says. `None` if that stands behind the data.
    sizes: Option<Sizes>,
    /// Whether its local header marks both sizes.
    wide_sizes: bool,
}

impl Upcoming {
    /// Length of the content in bytes, where the local header says it.
    pub fn size(&self) -> Option<u64> {
        self.sizes.map(|sizes| sizes.size)
    }
}

/// Content that was read, and all that is known of it.
#[derive(Clone, Copy)]
pub struct Streamed {
    offset: u64,
    method: Method,
    sizes: Sizes,
}

impl Streamed {
    /// Length of the content in bytes.
    pub fn size(&self) -> u64 {
        self.sizes.size
    }

    /// Whether it is the content of `file`, of an index of the same archive.
    pub fn is(&self, file: &MemberFile) -> bool {
        let declared = Sizes { crc32: file.crc32, compressed: file.compressed, size: file.size };
        (self.offset, self.method, self.sizes) == (file.offset, file.method, declared)
    }
}

impl<'a> Entries<'a> {
    /// The entries of `zip`, whose reads may wait for bytes.
    pub fn new(zip: &'a dyn ReadAt) -> Self {
        Entries { zip, locals: Window::new(zip), at: 0 }
    }

    /// The next entry. `None` where something else stands, as behind the last one.
    ///
    /// # Errors
    /// An entry that [`super::index`] refuses, or [`super::Class::Read`].
    pub fn upcoming(&mut self) -> Result<Option<Upcoming>, ArchiveError> {
        let fixed = self.locals.get(self.at, LOCAL_LENGTH)?;
        let Some(length) = fixed.and_then(local_length) else { return Ok(None) };
        let Some(record) = self.locals.get(self.at, length)? else { return Ok(None) };
        let common = Local::parse(record)?.common;
        let method = method_of(&common)?;
        let offset = self.at + length as u64;
        let sizes = match common.flags & FLAG_DESCRIPTOR {
            0 => Some(common.sizes),
            // Where stored data ends is not to be seen.
            _ if method == Method::Stored => return Ok(None),
            _ => None,
        };
        let compressed = sizes.map_or(0, |sizes| sizes.compressed);
        if offset.checked_add(compressed).is_none_or(|end| end > self.zip.len()) {
            return Ok(None);
        }
        Ok(Some(Upcoming { offset, method, sizes, wide_sizes: common.wide_sizes }))
    }

    /// Goes behind `entry`, the one that comes next, without reading it. False: where it ends is
    /// not known.
    pub fn skip(&mut self, entry: &Upcoming) -> bool {
        let Some(sizes) = entry.sizes else { return false };
        self.at = entry.offset + sizes.compressed;
        true
    }

    /// Writes the content of `entry`, the one that comes next, to `out`, and goes behind it.
    ///
    /// # Errors
    /// As [`super::extract`]; [`super::Class::TooLarge`] for content of more than `most` bytes
    /// whose size was not known: it is the next one still. What was written before an error is
    /// worth nothing.
    pub fn extract(
        &mut self,
        entry: &Upcoming,
        most: u64,
        out: &mut dyn io::Write,
    ) -> Result<Streamed, ArchiveError> {
        let Upcoming { offset, method, sizes, wide_sizes } = *entry;
        let mut file = MemberFile {
            size: most,
            compressed: 0,
            offset,
            crc32: 0,
            method,
            executable: false,
            modified: 0,
        };
        if let Some(sizes) = sizes {
            (file.size, file.compressed, file.crc32) = (sizes.size, sizes.compressed, sizes.crc32);
            read::extract(self.zip, &file, out)?;
            self.at = offset + sizes.compressed;
            return Ok(Streamed { offset, method, sizes });
        }
        file.compressed = self.zip.len() - offset;
        let sizes = read::inflate_to_end(self.zip, &file, out)?;
        let end = offset + sizes.compressed;
        self.at = self.behind_descriptor(end, sizes, wide_sizes)?.ok_or_else(|| {
            ArchiveError::structure("behind its data is no data descriptor that agrees with it")
        })?;
        Ok(Streamed { offset, method, sizes })
    }

    /// Where the record behind the data descriptor at `end` begins.
    fn behind_descriptor(
        &mut self,
        end: u64,
        sizes: Sizes,
        wide_sizes: bool,
    ) -> Result<Option<u64>, ArchiveError> {
        for length in DESCRIPTORS {
            let Some(bytes) = self.locals.get(end, length + SIGNATURE_LENGTH)? else { continue };
            let (descriptor, next) = bytes.split_at(length);
            if is_descriptor(descriptor, sizes, wide_sizes) && begins_entry(next) {
                return Ok(Some(end + length as u64));
            }
        }
        Ok(None)
    }
}
