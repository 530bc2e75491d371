//! The records of an archive as it is written: headers, end records, and ZIP64 fields where numbers
//! do not fit.

use super::ZipEntry;
use crate::archive::headers::{EXTRA_ZIP64, FLAG_UTF8, LOCAL_LENGTH, MARK};
use crate::digest::Digest;

/// 1980-01-01 as DOS has it, the earliest date of an archive.
const DATE: u16 = 1 << 5 | 1;
/// The system that archives are made on, for the meaning of the modes.
const UNIX: u16 = 3;
/// The version of the standard that is needed to read an archive.
const VERSION: u16 = 20;
/// The version that has ZIP64.
const VERSION_WIDE: u16 = 45;
/// Numbers of entries from here on stand in the wide end record.
const WIDE: u64 = 0xffff;
/// The sizes of files from here on stand in ZIP64 fields. Headers are laid out before it is known
/// how long the data becomes, and deflate lengthens some data a little: 64 MiB are far more than it
/// does to 4 GiB.
const WIDE_SIZE: u64 = MARK - (64 << 20);

pub(super) const STORED: u16 = 0;
pub(super) const DEFLATE: u16 = 8;

/// What the headers of an entry say of its data.
#[derive(Clone, Copy)]
pub(super) struct Data {
    pub(super) method: u16,
    pub(super) crc32: u32,
    pub(super) compressed: u64,
    /// Of the content.
    pub(super) sum: Digest,
}

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;

/// Length of the local header of `entry`.
pub(super) fn header_length(entry: &ZipEntry) -> u64 {
    let field = if has_wide_sizes(entry) { 4 + 2 * 8 } else { 0 };
    (LOCAL_LENGTH + entry.name.len() + field) as u64
}

fn has_wide_sizes(entry: &ZipEntry) -> bool {
    entry.size >= WIDE_SIZE
}

/// A number for a field of 32 bits, or the mark that it stands elsewhere.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn local_header(entry: &ZipEntry, data: &Data) -> Vec<u8> {
    header(LOCAL, entry, data, None)
}

/// The header of an entry in the central directory, whose local header stands at `offset`.
pub(super) fn central_header(entry: &ZipEntry, data: &Data, offset: u64) -> Vec<u8> {
    header(CENTRAL, entry, data, Some(offset))
}

/// A local header, or a central one where the entry's offset is given (APPNOTE.TXT 4.3.7 and
/// 4.3.12).
fn header(signature: u32, entry: &ZipEntry, data: &Data, offset: Option<u64>) -> Vec<u8> {
    let field = wide_field(entry, data, offset);
    let version = if field.is_empty() { VERSION } else { VERSION_WIDE };
    let mut record = Record::new(signature);
    if offset.is_some() {
        record.u16(UNIX << 8 | version);
    }
    let utf8 = !entry.name.is_ascii() && std::str::from_utf8(entry.name).is_ok();
    record.u16(version).u16(if utf8 { FLAG_UTF8 } else { 0 });
    record.u16(data.method).u16(0).u16(DATE).u32(data.crc32);
    let marks = has_wide_sizes(entry);
    for size in [data.compressed, entry.size] {
        record.u32(if marks { u32::MAX } else { narrow(size) });
    }
    // Names were held against a limit below this type's.
    record.u16(entry.name.len() as u16).u16(field.len() as u16);
    if let Some(offset) = offset {
        let mode: u32 = if entry.executable { 0o100_755 } else { 0o100_644 };
        record.u16(0).u16(0).u16(0).u32(mode << 16).u32(narrow(offset));
    }
    record.0.extend_from_slice(entry.name);
    record.0.extend(field);
    record.0
}

/// The ZIP64 field of a header: what does not fit into the header, in the order of APPNOTE.TXT
/// 4.5.3.
fn wide_field(entry: &ZipEntry, data: &Data, offset: Option<u64>) -> Vec<u8> {
    let mut values = Vec::new();
    if has_wide_sizes(entry) {
        values.extend([entry.size, data.compressed]);
    }
    values.extend(offset.filter(|offset| *offset >= MARK));
    if values.is_empty() {
        return Vec::new();
    }
    let mut field = Record(EXTRA_ZIP64.to_le_bytes().into());
    field.u16(8 * values.len() as u16);
    for value in values {
        field.u64(value);
    }
    field.0
}

/// What follows a central directory of so many entries, which begins at `start` and ends at `end`.
pub(super) fn end_records(entries: u64, start: u64, end: u64) -> Vec<u8> {
    let mut record = Record::new(0x0605_4b50);
    record.u16(0).u16(0);
    let count = u16::try_from(entries).unwrap_or(u16::MAX);
    record.u16(count).u16(count).u32(narrow(end - start)).u32(narrow(start)).u16(0);
    if entries < WIDE && start.max(end - start) < MARK {
        return record.0;
    }
    [wide_end(entries, start, end), record.0].concat()
}

/// The wide end record and its locator, for numbers that do not fit into the plain one (APPNOTE.TXT
/// 4.3.14 and 4.3.15).
fn wide_end(entries: u64, start: u64, end: u64) -> Vec<u8> {
    let mut record = Record::new(0x0606_4b50);
    record.u64(44).u16(UNIX << 8 | VERSION_WIDE).u16(VERSION_WIDE).u32(0).u32(0);
    record.u64(entries).u64(entries).u64(end - start).u64(start);
    record.u32(0x0706_4b50).u32(0).u64(end).u32(1);
    record.0
}

/// A record of little-endian fields.
struct Record(Vec<u8>);

impl Record {
    fn new(signature: u32) -> Self {
        Record(signature.to_le_bytes().into())
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::headers::{Central, Local};

    #[test]
    fn numbers_that_do_not_fit_stand_in_zip64_fields() {
        let data = Data { method: DEFLATE, crc32: 1, compressed: 7, sum: Digest::of(b"") };
        for (size, offset, field) in [
            (5, 0, 0),
            (5, MARK - 1, 0),
            (5, MARK, 12),
            (WIDE_SIZE - 1, 0, 0),
            (WIDE_SIZE, 0, 20),
            (MARK, MARK - 1, 20),
            (5 << 30, 9 << 30, 28),
        ] {
            let entry = ZipEntry { name: b"name", size, executable: true };
            let (central, local) =
                (central_header(&entry, &data, offset), local_header(&entry, &data));
            assert_eq!(central.len(), 46 + 4 + field, "{size} {offset}");
            assert_eq!(local.len() as u64, header_length(&entry));
            let read = Central::parse(&central).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(
                (read.common.sizes.size, read.common.sizes.compressed, read.offset),
                (size, 7, offset)
            );
            assert!(Local::parse(&local).unwrap().agrees(read.common.sizes, false));
        }
    }
}
