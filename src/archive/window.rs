//! A moving buffer over an archive: many small reads in few calls.

use super::{ArchiveError, ReadAt};

/// How much is read where reading goes forward.
const AHEAD: usize = 64 * 1024;
/// How much is read after a jump: a header with its name and extra fields.
const JUMP: usize = 1024;

/// The bytes around the last place that was read.
///
/// It holds at most the longest slice that was asked for, or [`AHEAD`] bytes.
pub(super) struct Window<'a> {
    zip: &'a dyn ReadAt,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(zip: &'a dyn ReadAt) -> Self {
        Window { zip, start: 0, bytes: Vec::new() }
    }

    /// The `length` bytes at `offset`, or `None` where the archive ends before them.
    pub(super) fn get(
        &mut self,
        offset: u64,
        length: usize,
    ) -> Result<Option<&[u8]>, ArchiveError> {
        let available = self.zip.len().saturating_sub(offset);
        if available < length as u64 {
            return Ok(None);
        }
        let held = self.start..self.start + self.bytes.len() as u64;
        if offset < held.start || offset + length as u64 > held.end {
            let forward = held.start <= offset && offset <= held.end + AHEAD as u64;
            let wanted = length.max(if forward { AHEAD } else { JUMP });
            let wanted = usize::try_from(available).unwrap_or(usize::MAX).min(wanted);
            self.start = offset;
            self.bytes.resize(wanted, 0);
            if let Err(error) = self.zip.read_exact_at(&mut self.bytes, offset) {
                self.bytes.clear();
                return Err(ArchiveError::read(error));
            }
        }
        let at = (offset - self.start) as usize;
        Ok(self.bytes.get(at..at + length))
    }
}
