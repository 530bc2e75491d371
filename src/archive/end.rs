//! The end records of an archive: where its central directory lies, said in exactly one way.
//!
//! APPNOTE.TXT 4.3.14 to 4.3.16. Readers disagree on which end record they take when there are
//! several, on bytes behind it, and on when the ZIP64 records count; an archive for which that
//! would matter is refused.

use super::headers::{u16_at, u32_at, u64_at};
use super::{ArchiveError, Limits, ReadAt};

const END_SIGNATURE: &[u8; 4] = b"PK\x05\x06";
const END_LENGTH: usize = 22;
const END64_SIGNATURE: u32 = 0x0606_4b50;
const END64_LENGTH: usize = 56;
const LOCATOR_SIGNATURE: u32 = 0x0706_4b50;
const LOCATOR_LENGTH: usize = 20;
/// What an archive's length is a multiple of where zeros fill it up: the least block of a tape.
const BLOCK: u64 = 512;

/// Where the central directory lies: it ends where the end records begin.
pub(super) struct CentralDirectory {
    /// Offset of its first byte.
    pub(super) start: u64,
    /// Offset of the byte behind it.
    pub(super) end: u64,
    /// Number of its entries.
    pub(super) entries: u64,
}

/// What an end record declares, at the width of either form.
struct EndRecord {
    disk: u64,
    directory_disk: u64,
    entries_here: u64,
    entries: u64,
    size: u64,
    offset: u64,
}

/// Finds the central directory of `zip`.
pub(super) fn locate(zip: &dyn ReadAt, limits: &Limits) -> Result<CentralDirectory, ArchiveError> {
    let length = zip.len();
    let window = length.min((END_LENGTH + usize::from(u16::MAX)) as u64);
    let mut tail = vec![0; window as usize];
    zip.read_exact_at(&mut tail, length - window).map_err(ArchiveError::read)?;
    let at = find(&tail, length - window)?;
    let position = length - window + at as u64;
    let record = &tail[at..];
    let mut end = EndRecord {
        disk: u16_at(record, 4).into(),
        directory_disk: u16_at(record, 6).into(),
        entries_here: u16_at(record, 8).into(),
        entries: u16_at(record, 10).into(),
        size: u32_at(record, 12).into(),
        offset: u32_at(record, 16).into(),
    };
    let mut directory_end = position;
    if let Some((start, wide)) = zip64(zip, position)? {
        end = widen(&end, wide)?;
        directory_end = start;
    }
    if end.disk != 0 || end.directory_disk != 0 {
        return Err(ArchiveError::unsupported("the archive is split over several disks"));
    }
    if end.entries_here != end.entries {
        return Err(ArchiveError::structure("the end record counts its entries in two ways"));
    }
    if end.offset.checked_add(end.size) != Some(directory_end) {
        return Err(ArchiveError::structure(
            "the central directory does not end where the end record begins (bytes before the \
             archive or hidden in it)",
        ));
    }
    if end.entries == 0 {
        return Err(ArchiveError::structure("the archive is empty, which OpenTofu refuses"));
    }
    if end.entries > limits.entries {
        return Err(ArchiveError::too_large(
            "the number of entries",
            end.entries,
            "entries",
            limits.entries,
        ));
    }
    Ok(CentralDirectory { start: end.offset, end: directory_end, entries: end.entries })
}

/// The position in `tail`, which begins at offset `base` of the archive, of the one end record.
///
/// It is the last signature, since that is the one OpenTofu takes, and its comment reaches the end
/// of the archive, or zeros that fill its last block (as bsdtar writes them to a pipe). No other
/// place in the search window may pass for an end record: by a comment that reaches as far, or by
/// pointing at a central directory right before it. (The end record of a zip that is stored as a
/// member does neither.)
fn find(tail: &[u8], base: u64) -> Result<usize, ArchiveError> {
    let missing = || ArchiveError::structure("it is no zip archive: there is no end record");
    let last = tail.len().checked_sub(END_LENGTH).ok_or_else(missing)?;
    let padded = (base + tail.len() as u64).is_multiple_of(BLOCK);
    let mut found = None;
    for at in (0..=last).rev().filter(|at| tail[*at..].starts_with(END_SIGNATURE)) {
        let record = &tail[at..];
        let behind = record.get(END_LENGTH + usize::from(u16_at(record, 20))..);
        let closes = behind
            .is_some_and(|rest| rest.is_empty() || padded && rest.iter().all(|byte| *byte == 0));
        match found {
            None if closes => found = Some(at),
            None => {
                return Err(ArchiveError::structure(
                    "behind the end record stands something else than the comment it declares",
                ));
            }
            Some(_) if closes || points_before_itself(record, base + at as u64) => {
                return Err(ArchiveError::structure("there are two end records"));
            }
            Some(_) => {}
        }
    }
    found.ok_or_else(missing)
}

/// Whether the end record at offset `position` of the archive declares a central directory that
/// ends right there.
fn points_before_itself(record: &[u8], position: u64) -> bool {
    u64::from(u32_at(record, 12)) + u64::from(u32_at(record, 16)) == position
}

/// The ZIP64 end record that the locator before `position` points to, with its offset.
fn zip64(zip: &dyn ReadAt, position: u64) -> Result<Option<(u64, EndRecord)>, ArchiveError> {
    let Some(locator_at) = position.checked_sub(LOCATOR_LENGTH as u64) else { return Ok(None) };
    let mut locator = [0; LOCATOR_LENGTH];
    zip.read_exact_at(&mut locator, locator_at).map_err(ArchiveError::read)?;
    if u32_at(&locator, 0) != LOCATOR_SIGNATURE {
        return Ok(None);
    }
    // OpenTofu takes no notice of ZIP64 records with other disk numbers.
    if u32_at(&locator, 4) != 0 || u32_at(&locator, 16) != 1 {
        return Err(ArchiveError::unsupported(
            "the archive is split over several disks (ZIP64 locator)",
        ));
    }
    let start = u64_at(&locator, 8);
    if start.checked_add(END64_LENGTH as u64) != Some(locator_at) {
        return Err(ArchiveError::structure(
            "the ZIP64 locator does not point to the record right before it",
        ));
    }
    let mut record = [0; END64_LENGTH];
    zip.read_exact_at(&mut record, start).map_err(ArchiveError::read)?;
    if u32_at(&record, 0) != END64_SIGNATURE || u64_at(&record, 4) != (END64_LENGTH - 12) as u64 {
        return Err(ArchiveError::structure(
            "the ZIP64 end record is missing or of another length",
        ));
    }
    let end = EndRecord {
        disk: u32_at(&record, 16).into(),
        directory_disk: u32_at(&record, 20).into(),
        entries_here: u64_at(&record, 24),
        entries: u64_at(&record, 32),
        size: u64_at(&record, 40),
        offset: u64_at(&record, 48),
    };
    Ok(Some((start, end)))
}

/// The ZIP64 values, if the narrow record agrees: each of its fields holds the same value or the
/// mark "see ZIP64".
fn widen(narrow: &EndRecord, wide: EndRecord) -> Result<EndRecord, ArchiveError> {
    const MARK16: u64 = u16::MAX as u64;
    const MARK32: u64 = u32::MAX as u64;
    let agree = [
        (narrow.disk, wide.disk, MARK16),
        (narrow.directory_disk, wide.directory_disk, MARK16),
        (narrow.entries_here, wide.entries_here, MARK16),
        (narrow.entries, wide.entries, MARK16),
        (narrow.size, wide.size, MARK32),
        (narrow.offset, wide.offset, MARK32),
    ]
    .into_iter()
    .all(|(narrow, wide, mark)| narrow == wide || narrow == mark);
    // OpenTofu looks for ZIP64 records only if the count or the offset is marked.
    let noticed = narrow.size != MARK32 || narrow.entries == MARK16 || narrow.offset == MARK32;
    if !agree || !noticed {
        return Err(ArchiveError::structure("the end record and the ZIP64 end record disagree"));
    }
    Ok(wide)
}
