//! The records of one entry, as they stand in the archive: central header, local header, data
//! descriptor.
//!
//! APPNOTE.TXT 4.3.7 to 4.3.12 and 4.5. Nothing here is compared or judged beyond the form of a
//! record.

use super::ArchiveError;

/// Length of a central header without its variable part.
pub(super) const CENTRAL_LENGTH: usize = 46;
/// Length of a local header without its variable part.
pub(super) const LOCAL_LENGTH: usize = 30;

/// Length of the signature with which each record begins.
pub(super) const SIGNATURE_LENGTH: usize = 4;

const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const DESCRIPTOR_SIGNATURE: u32 = 0x0807_4b50;

/// Flag bit 3: CRC and sizes stand behind the data.
pub(super) const FLAG_DESCRIPTOR: u16 = 1 << 3;
/// Flag bit 11: the name is UTF-8. OpenTofu takes it as bytes in any case.
pub(super) const FLAG_UTF8: u16 = 1 << 11;
/// Flag bits 1 and 2: how hard the compressor tried.
pub(super) const FLAGS_EFFORT: u16 = 0b110;
/// Flag bits 0, 6 and 13: encryption of the data, and of the headers.
pub(super) const FLAGS_ENCRYPTION: u16 = 1 | 1 << 6 | 1 << 13;

pub(super) const EXTRA_ZIP64: u16 = 0x0001;
const EXTRA_TIME: u16 = 0x5455;
const EXTRA_UNICODE_PATH: u16 = 0x7075;
/// The value of a 32-bit field whose true value stands in the ZIP64 extra field.
pub(super) const MARK: u64 = u32::MAX as u64;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// CRC and sizes of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) crc32: u32,
    pub(super) compressed: u64,
    pub(super) size: u64,
}

/// An entry of the central directory.
pub(super) struct Central<'a> {
    /// Bits that both headers of an entry hold.
    pub(super) common: Common<'a>,
    /// The system whose attributes these are.
    system: u8,
    attributes: u32,
    /// Where the disk number is not 0, the entry begins in another file.
    pub(super) disk: u16,
    /// Offset of the local header.
    pub(super) offset: u64,
}

/// What central and local header both say.
pub(super) struct Common<'a> {
    pub(super) flags: u16,
    pub(super) method: u16,
    time: u16,
    date: u16,
    pub(super) sizes: Sizes,
    /// Whether both sizes stand in the ZIP64 field.
    pub(super) wide_sizes: bool,
    pub(super) name: &'a [u8],
    extra: &'a [u8],
}

/// The length of the central header that begins with `fixed`, or `None` if none begins there.
pub(super) fn central_length(fixed: &[u8]) -> Option<usize> {
    let variable = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
    (u32_at(fixed, 0) == CENTRAL_SIGNATURE).then(|| CENTRAL_LENGTH + variable.iter().sum::<usize>())
}

/// The length of the local header that begins with `fixed`, or `None` if none begins there.
pub(super) fn local_length(fixed: &[u8]) -> Option<usize> {
    let variable = [26, 28].map(|at| usize::from(u16_at(fixed, at)));
    (u32_at(fixed, 0) == LOCAL_SIGNATURE).then(|| LOCAL_LENGTH + variable.iter().sum::<usize>())
}

/// Whether `signature` is that of a local or a central header.
pub(super) fn begins_entry(signature: &[u8]) -> bool {
    matches!(u32_at(signature, 0), LOCAL_SIGNATURE | CENTRAL_SIGNATURE)
}

/// Whether a split archive's mark stands at its beginning instead of a local header.
pub(super) fn is_split_mark(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK00") || bytes.starts_with(b"PK\x07\x08")
}

impl<'a> Central<'a> {
    /// Reads a header of `central_length` bytes.
    pub(super) fn parse(record: &'a [u8]) -> Result<Self, ArchiveError> {
        let mut common = Common::parse(&record[6..], &record[CENTRAL_LENGTH..]);
        let mut offset = u64::from(u32_at(record, 42));
        let mut disk = u16_at(record, 34);
        let Sizes { compressed, size, .. } = &mut common.sizes;
        let wide =
            unmark(common.extra, [size, compressed, &mut offset]).map_err(|e| e.of(common.name))?;
        if disk == u16::MAX && wide.disk == Some(0) {
            disk = 0;
        }
        if !wide.agrees(&[common.sizes.size, common.sizes.compressed, offset], false) {
            return Err(
                ArchiveError::structure("its ZIP64 field and its header disagree").of(common.name)
            );
        }
        Ok(Central { common, system: record[5], attributes: u32_at(record, 38), disk, offset })
    }

    /// Whether OpenTofu makes a directory of it.
    pub(super) fn is_directory(&self) -> bool {
        let marked = match self.system {
            SYSTEM_UNIX | SYSTEM_MACOS => (self.attributes >> 16) & 0o170_000 == 0o040_000,
            SYSTEM_FAT | SYSTEM_NTFS | SYSTEM_VFAT => self.attributes & 0x10 != 0,
            _ => false,
        };
        marked || self.common.name.ends_with(b"/")
    }

    /// Whether its owner may execute it: only systems with Unix modes can say so.
    pub(super) fn is_executable(&self) -> bool {
        matches!(self.system, SYSTEM_UNIX | SYSTEM_MACOS) && (self.attributes >> 16) & 0o100 != 0
    }

    /// Whether OpenTofu, as an ordinary user, could write over the file that it makes of it.
    pub(super) fn is_writable(&self) -> bool {
        match self.system {
            SYSTEM_UNIX | SYSTEM_MACOS => (self.attributes >> 16) & 0o600 == 0o600,
            SYSTEM_FAT | SYSTEM_NTFS | SYSTEM_VFAT => self.attributes & 1 == 0,
            _ => false,
        }
    }

    /// When it was modified, in seconds since 1970: the Unix time if there is a positive one, else
    /// the DOS time, taken as UTC.
    pub(super) fn modified(&self) -> i64 {
        let unix = extras(self.common.extra).find_map(|(id, data)| match data {
            [flags, a, b, c, d, ..] if id == EXTRA_TIME && flags & 1 != 0 => {
                Some(i32::from_le_bytes([*a, *b, *c, *d]))
            }
            _ => None,
        });
        match unix {
            Some(seconds) if seconds > 0 => seconds.into(),
            _ => dos_time(self.common.date, self.common.time),
        }
    }
}

// The systems whose attributes OpenTofu knows (APPNOTE.TXT 4.4.2).
const SYSTEM_FAT: u8 = 0;
const SYSTEM_UNIX: u8 = 3;
const SYSTEM_NTFS: u8 = 11;
const SYSTEM_VFAT: u8 = 14;
const SYSTEM_MACOS: u8 = 19;

/// A local header.
pub(super) struct Local<'a> {
    pub(super) common: Common<'a>,
    wide: Wide<'a>,
}

impl<'a> Local<'a> {
    /// Reads a header of `local_length` bytes.
    pub(super) fn parse(record: &'a [u8]) -> Result<Self, ArchiveError> {
        let mut common = Common::parse(&record[4..], &record[LOCAL_LENGTH..]);
        let Sizes { compressed, size, .. } = &mut common.sizes;
        let wide = unmark(common.extra, [size, compressed])?;
        Ok(Local { common, wide })
    }

    /// Whether CRC and sizes are those of the central directory. Where they stand behind the data,
    /// 0 is as good.
    pub(super) fn agrees(&self, sizes: Sizes, descriptor: bool) -> bool {
        let here = self.common.sizes;
        let same = |here: u64, there: u64| here == there || descriptor && here == 0;
        same(here.crc32.into(), sizes.crc32.into())
            && same(here.compressed, sizes.compressed)
            && same(here.size, sizes.size)
            && (self.wide.agrees(&[sizes.size, sizes.compressed], descriptor)
                || self.wide.is_room())
    }
}

impl<'a> Common<'a> {
    /// `fixed` begins with the version needed to extract; `variable` with the name.
    fn parse(fixed: &[u8], variable: &'a [u8]) -> Self {
        let (name, extra) = (usize::from(u16_at(fixed, 22)), usize::from(u16_at(fixed, 24)));
        let [compressed, size] = [14, 18].map(|at| u64::from(u32_at(fixed, at)));
        Common {
            flags: u16_at(fixed, 2),
            method: u16_at(fixed, 4),
            time: u16_at(fixed, 6),
            date: u16_at(fixed, 8),
            sizes: Sizes { crc32: u32_at(fixed, 10), compressed, size },
            wide_sizes: compressed == MARK && size == MARK,
            name: &variable[..name],
            extra: &variable[name..name + extra],
        }
    }

    /// Whether a Unicode-Path field gives another name than the header. OpenTofu ignores the field,
    /// others do not.
    pub(super) fn has_other_name(&self) -> bool {
        extras(self.extra)
            .any(|(id, data)| id == EXTRA_UNICODE_PATH && data.get(5..) != Some(self.name))
    }
}

/// The extra fields: number and data. A field that overruns the rest ends them, as it does for
/// OpenTofu.
fn extras(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_at_checked(4)?;
        let (data, tail) = tail.split_at_checked(u16_at(head, 2).into())?;
        rest = tail;
        Some((u16_at(head, 0), data))
    })
}

/// A ZIP64 extra field after the marked values were taken from it.
struct Wide<'a> {
    data: &'a [u8],
    /// Whether the header refers to a value of it.
    used: bool,
    /// Whether it holds more than the marked values.
    surplus: bool,
    /// The disk number that follows the marked values.
    disk: Option<u32>,
}

impl Wide<'_> {
    /// Whether the field holds the marked values alone, or the list of the standard from its first
    /// value on, and that agrees with the header (some writers fill in all of it, whichever they
    /// refer to). With `open`, a 0 agrees with everything. The list's end, a disk number, agrees if
    /// it is that of the first disk.
    fn agrees(&self, values: &[u64], open: bool) -> bool {
        let (chunks, rest) = self.data.as_chunks::<8>();
        let ends = rest.is_empty() || chunks.len() == BEFORE_DISK && rest == [0; 4];
        let full = ends
            && chunks.len() <= values.len()
            && chunks.iter().zip(values).all(|(chunk, value)| {
                let here = u64::from_le_bytes(*chunk);
                here == *value || open && here == 0
            });
        !self.surplus || full
    }

    /// Whether it is room that was kept for sizes and turned out not to be needed: zeros that no
    /// value refers to. Who writes to a file keeps it before he knows the sizes, and goes back to
    /// fill in the header.
    fn is_room(&self) -> bool {
        !self.used
            && self.data.len() <= 8 * BEFORE_DISK + 4
            && self.data.iter().all(|byte| *byte == 0)
    }
}

/// How many values of 8 bytes the whole list of a ZIP64 field has before its disk number.
const BEFORE_DISK: usize = 3;

/// Replaces marked values by those of the ZIP64 extra field, which holds the marked ones in this
/// order.
fn unmark<'a, const N: usize>(
    extra: &'a [u8],
    values: [&mut u64; N],
) -> Result<Wide<'a>, ArchiveError> {
    let mut fields = extras(extra).filter(|(id, _)| *id == EXTRA_ZIP64);
    let data = fields.next().map_or(&[][..], |(_, data)| data);
    if fields.next().is_some() {
        return Err(ArchiveError::structure("it has two ZIP64 fields"));
    }
    let mut rest = data;
    let mut used = false;
    for value in values.into_iter().filter(|value| **value == MARK) {
        used = true;
        let (wide, after) = rest.split_first_chunk::<8>().ok_or_else(|| {
            ArchiveError::structure("its header refers to a ZIP64 value that is not there")
        })?;
        *value = u64::from_le_bytes(*wide);
        rest = after;
    }
    let disk = rest.try_into().ok().map(u32::from_le_bytes);
    Ok(Wide { data, used, surplus: !(rest.is_empty() || disk == Some(0)), disk })
}

/// Whether `bytes`, all that stands between an entry's data and what follows, are its data
/// descriptor: with or without a signature, with sizes of 4 or 8 bytes. Sizes of 4 bytes may be
/// marked where those of the header are (`wide_sizes`): some packers write so whatever they do not
/// know beforehand.
pub(super) fn is_descriptor(bytes: &[u8], sizes: Sizes, wide_sizes: bool) -> bool {
    let (signed, wide) = match bytes.len() {
        12 => (false, false),
        16 => (true, false),
        20 => (false, true),
        24 => (true, true),
        _ => return false,
    };
    // Without a signature, a CRC that looks like one would be misread by OpenTofu.
    if (u32_at(bytes, 0) == DESCRIPTOR_SIGNATURE) != signed {
        return false;
    }
    let bytes = if signed { &bytes[4..] } else { bytes };
    let number = |index: usize| {
        if wide { u64_at(bytes, 4 + 8 * index) } else { u32_at(bytes, 4 + 4 * index).into() }
    };
    let here = Sizes { crc32: u32_at(bytes, 0), compressed: number(0), size: number(1) };
    let marked = Sizes { crc32: sizes.crc32, compressed: MARK, size: MARK };
    here == sizes || wide_sizes && !wide && here == marked
}

/// Seconds since 1970 of a DOS date and time; 1980-01-01 for a date that does not exist.
fn dos_time(date: u16, time: u16) -> i64 {
    const EPOCH: i64 = 315_532_800;
    let (year, month, day) = (i64::from(date >> 9) + 1980, date >> 5 & 15, date & 31);
    let (hour, minute, second) = (time >> 11, time >> 5 & 63, (time & 31) * 2);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let Some(before) = usize::from(month).checked_sub(1).filter(|month| *month < 12) else {
        return EPOCH;
    };
    if day == 0 || day > lengths[before] || hour > 23 || minute > 59 || second > 59 {
        return EPOCH;
    }
    // Of the years 1980 to 2107 only 2100 is divisible by 4 and no leap year.
    let leap_days = (year - 1980 + 3) / 4 - i64::from(year > 2100);
    let days = (year - 1980) * 365
        + leap_days
        + lengths[..before].iter().map(|d| i64::from(*d)).sum::<i64>();
    EPOCH
        + (days + i64::from(day) - 1) * 86_400
        + i64::from(hour) * 3600
        + i64::from(minute) * 60
        + i64::from(second)
}
