//! A deterministic writer of archives that can lie in every field.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// One entry: what is written, field by field. The defaults of [`entry`] make a sound one.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// The name in the local header, if it is another.
    pub(super) local_name: Option<Vec<u8>>,
    pub(super) data: Vec<u8>,
    pub(super) method: u16,
    pub(super) local_method: Option<u16>,
    pub(super) flags: u16,
    pub(super) local_flags: Option<u16>,
    pub(super) crc: u32,
    pub(super) compressed: u32,
    pub(super) size: u32,
    /// CRC, compressed and uncompressed size in the local header, if they are others.
    pub(super) local_sizes: Option<(u32, u32, u32)>,
    pub(super) system: u8,
    pub(super) attributes: u32,
    pub(super) date: u16,
    pub(super) time: u16,
    pub(super) extra: Vec<u8>,
    pub(super) local_extra: Vec<u8>,
    pub(super) comment: Vec<u8>,
    pub(super) disk: u16,
    /// What follows the data.
    pub(super) descriptor: Vec<u8>,
    /// The offset in the central directory, if it is another.
    pub(super) offset: Option<u32>,
    pub(super) in_directory: bool,
    pub(super) local_signature: u32,
}

/// The raw deflate stream of `content`.
pub(super) fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A stored file of mode 0644, as Unix tools write it.
pub(super) fn entry(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Entry {
    let content = content.as_ref();
    Entry {
        name: name.as_ref().to_vec(),
        local_name: None,
        data: content.to_vec(),
        method: 0,
        local_method: None,
        flags: 0,
        local_flags: None,
        crc: crc32fast::hash(content),
        compressed: content.len() as u32,
        size: content.len() as u32,
        local_sizes: None,
        system: 3,
        attributes: 0o100_644 << 16,
        date: 0x5a21,
        time: 0x6000,
        extra: Vec::new(),
        local_extra: Vec::new(),
        comment: Vec::new(),
        disk: 0,
        descriptor: Vec::new(),
        offset: None,
        in_directory: true,
        local_signature: 0x0403_4b50,
    }
}

/// A deflated file of mode 0644.
pub(super) fn deflated(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Entry {
    let data = deflate(content.as_ref());
    Entry { compressed: data.len() as u32, data, method: 8, ..entry(name, content) }
}

pub(super) fn directory(name: impl AsRef<[u8]>) -> Entry {
    entry(name, "").mode(0o040_755)
}

impl Entry {
    /// With this Unix mode.
    pub(super) fn mode(mut self, mode: u32) -> Self {
        self.attributes = mode << 16;
        self
    }

    /// With whatever `change` sets.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// As streamed: zeros in the local header, and a data descriptor.
    pub(super) fn streamed(mut self, signature: bool, wide: bool) -> Self {
        self.flags |= 8;
        self.local_sizes = Some((0, 0, 0));
        let mut descriptor = Vec::new();
        if signature {
            descriptor.extend(0x0807_4b50_u32.to_le_bytes());
        }
        descriptor.extend(self.crc.to_le_bytes());
        for size in [self.compressed, self.size] {
            if wide {
                descriptor.extend(u64::from(size).to_le_bytes());
            } else {
                descriptor.extend(size.to_le_bytes());
            }
        }
        self.descriptor = descriptor;
        self
    }
}

/// An extra field.
pub(super) fn extra(id: u16, data: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &(data.len() as u16).to_le_bytes(), data].concat()
}

/// A ZIP64 extra field of these values.
pub(super) fn zip64_extra(values: &[u64]) -> Vec<u8> {
    extra(1, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

/// What a ZIP64 end record holds beyond its signature and length.
#[derive(Clone, Copy)]
pub(super) struct End64 {
    pub(super) entries: u64,
    pub(super) size: u64,
    pub(super) offset: u64,
    /// Where the locator points to, relative to the record.
    pub(super) locator: i64,
    pub(super) disks: u32,
    pub(super) record: bool,
}

/// An archive in the making.
pub(super) struct Archive {
    pub(super) prefix: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    /// Bytes between the data and the central directory.
    pub(super) gap: Vec<u8>,
    /// Bytes between the central directory and the end records.
    pub(super) tail: Vec<u8>,
    pub(super) comment: Vec<u8>,
    pub(super) junk: Vec<u8>,
    /// Changes the count, the size and the offset of the end record.
    pub(super) end: fn(&mut (u16, u32, u32)),
    pub(super) disk: u16,
    /// Adds ZIP64 records that start as the true values.
    pub(super) end64: Option<fn(&mut End64)>,
    /// The order of the central directory, if it is another than that of the data.
    pub(super) reversed: bool,
}

/// An archive of these entries.
pub(super) fn archive(entries: impl IntoIterator<Item = Entry>) -> Archive {
    Archive {
        prefix: Vec::new(),
        entries: entries.into_iter().collect(),
        gap: Vec::new(),
        tail: Vec::new(),
        comment: Vec::new(),
        junk: Vec::new(),
        end: |_| {},
        disk: 0,
        end64: None,
        reversed: false,
    }
}

/// The bytes of an archive of these entries.
pub(super) fn zip(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    archive(entries).bytes()
}

impl Archive {
    /// With whatever `change` sets.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The archive as it is on disk.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = self.prefix.clone();
        let mut headers = Vec::new();
        for entry in &self.entries {
            let offset = entry.offset.unwrap_or(out.len() as u32);
            write_local(&mut out, entry);
            if entry.in_directory {
                headers.push(central(entry, offset));
            }
        }
        if self.reversed {
            headers.reverse();
        }
        out.extend(&self.gap);
        let offset = out.len();
        let count = headers.len();
        out.extend(headers.concat());
        let size = out.len() - offset;
        out.extend(&self.tail);
        if let Some(change) = self.end64 {
            write_end64(&mut out, count, size, offset, change);
        }
        let mut end = (count as u16, size as u32, offset as u32);
        (self.end)(&mut end);
        out.extend(b"PK\x05\x06");
        for half in [self.disk, self.disk, end.0, end.0] {
            out.extend(half.to_le_bytes());
        }
        out.extend(end.1.to_le_bytes());
        out.extend(end.2.to_le_bytes());
        out.extend((self.comment.len() as u16).to_le_bytes());
        out.extend(&self.comment);
        out.extend(&self.junk);
        out
    }
}

fn write_local(out: &mut Vec<u8>, entry: &Entry) {
    let name = entry.local_name.as_ref().unwrap_or(&entry.name);
    let (crc, compressed, size) =
        entry.local_sizes.unwrap_or((entry.crc, entry.compressed, entry.size));
    out.extend(entry.local_signature.to_le_bytes());
    for half in [
        20,
        entry.local_flags.unwrap_or(entry.flags),
        entry.local_method.unwrap_or(entry.method),
        entry.time,
        entry.date,
    ] {
        out.extend(half.to_le_bytes());
    }
    for word in [crc, compressed, size] {
        out.extend(word.to_le_bytes());
    }
    out.extend((name.len() as u16).to_le_bytes());
    out.extend((entry.local_extra.len() as u16).to_le_bytes());
    for bytes in [name, &entry.local_extra, &entry.data, &entry.descriptor] {
        out.extend(bytes);
    }
}

fn central(entry: &Entry, offset: u32) -> Vec<u8> {
    let mut out = b"PK\x01\x02".to_vec();
    out.extend([30, entry.system]);
    for half in [20, entry.flags, entry.method, entry.time, entry.date] {
        out.extend(half.to_le_bytes());
    }
    for word in [entry.crc, entry.compressed, entry.size] {
        out.extend(word.to_le_bytes());
    }
    for bytes in [&entry.name, &entry.extra, &entry.comment] {
        out.extend((bytes.len() as u16).to_le_bytes());
    }
    out.extend(entry.disk.to_le_bytes());
    out.extend([0, 0]);
    out.extend(entry.attributes.to_le_bytes());
    out.extend(offset.to_le_bytes());
    for bytes in [&entry.name, &entry.extra, &entry.comment] {
        out.extend(bytes);
    }
    out
}

fn write_end64(
    out: &mut Vec<u8>,
    count: usize,
    size: usize,
    offset: usize,
    change: fn(&mut End64),
) {
    let mut end = End64 {
        entries: count as u64,
        size: size as u64,
        offset: offset as u64,
        locator: 0,
        disks: 1,
        record: true,
    };
    change(&mut end);
    let start = out.len();
    if end.record {
        out.extend(b"PK\x06\x06");
        out.extend(44_u64.to_le_bytes());
        out.extend([45, 3, 45, 0]);
        out.extend([0; 8]);
        for value in [end.entries, end.entries, end.size, end.offset] {
            out.extend(value.to_le_bytes());
        }
    }
    out.extend(b"PK\x06\x07");
    out.extend([0; 4]);
    out.extend((start as i64 + end.locator).to_le_bytes());
    out.extend(end.disks.to_le_bytes());
}
