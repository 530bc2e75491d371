//! Archives as a sum of their records, each of which can lie.

use super::deflate;

/// What local and central header of an entry both have.
#[derive(Clone, Debug, Default)]
pub struct Header {
    pub version: u16,
    pub flags: u16,
    pub method: u16,
    pub time: u16,
    pub date: u16,
    pub crc: u32,
    pub compressed: u32,
    pub size: u32,
    pub name: Vec<u8>,
    pub extra: Vec<u8>,
}

/// An entry: its records in their order.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Bytes before the local header that belong to nothing.
    pub before: Vec<u8>,
    pub local: Header,
    pub local_signature: u32,
    pub data: Vec<u8>,
    /// What stands behind the data.
    pub descriptor: Vec<u8>,
    pub central: Header,
    pub central_signature: u32,
    pub made_by: u16,
    pub disk: u16,
    pub attributes: u32,
    pub comment: Vec<u8>,
    /// Added to the offset in the central header.
    pub shift: i64,
    /// The central header gives another entry's offset.
    pub points_to: Option<usize>,
    /// The offset stands in the ZIP64 field, where this is.
    pub wide_offset: bool,
    /// The central header marks its sizes, and its ZIP64 field holds all that there can be in one.
    pub whole_field: bool,
}

/// The fields of an end record, of either width.
#[derive(Clone, Debug, Default)]
pub struct End {
    pub disk: u64,
    pub directory_disk: u64,
    pub entries_here: u64,
    pub entries: u64,
    pub size: u64,
    pub offset: u64,
}

/// A ZIP64 end record and its locator.
#[derive(Clone, Debug, Default)]
pub struct Wide {
    /// Which fields of the plain record are marked.
    pub marked: [bool; 4],
    pub locator_disk: u32,
    pub disks: u32,
    pub locator_shift: i64,
    pub length: u64,
    pub extensible: Vec<u8>,
}

/// Changes an end record after its true values were computed.
pub type Lie = fn(&mut End, u64);

/// An archive.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    pub prefix: Vec<u8>,
    /// Whether offsets count from the first entry instead of from the first byte.
    pub relative: bool,
    pub entries: Vec<Entry>,
    /// Entries in the order of the central directory; some may be missing or there twice.
    pub order: Vec<usize>,
    pub before_directory: Vec<u8>,
    pub behind_directory: Vec<u8>,
    pub wide: Option<Wide>,
    pub lies: Vec<(Lie, bool, u64)>,
    pub comment: Vec<u8>,
    pub comment_length: Option<u16>,
    pub trailing: Vec<u8>,
}

/// A plain entry: `content`, deflated or stored.
pub fn entry(name: &[u8], content: &[u8], method: u16) -> Entry {
    let data = if method == 8 { deflate::compress(content) } else { content.to_vec() };
    with_data(name, content, method, data)
}

/// An entry of `content` whose data was made elsewhere.
pub fn with_data(name: &[u8], content: &[u8], method: u16, data: Vec<u8>) -> Entry {
    let header = Header {
        version: 20,
        method,
        date: 0x5821,
        crc: crc32fast::hash(content),
        compressed: data.len() as u32,
        size: content.len() as u32,
        name: name.to_vec(),
        ..Header::default()
    };
    Entry {
        local: header.clone(),
        local_signature: 0x0403_4b50,
        data,
        central: header,
        central_signature: 0x0201_4b50,
        made_by: 3 << 8 | 20,
        attributes: 0o100_644 << 16,
        ..Entry::default()
    }
}

impl Entry {
    /// Changes both headers.
    pub fn both(&mut self, change: impl Fn(&mut Header)) {
        change(&mut self.local);
        change(&mut self.central);
    }

    /// Moves CRC and sizes behind the data.
    pub fn stream(&mut self, signed: bool, wide: bool, zeroed: bool) {
        self.both(|header| header.flags |= 8);
        let mut descriptor = Bytes::default();
        if signed {
            descriptor.u32(0x0807_4b50);
        }
        descriptor.u32(self.central.crc);
        for number in [self.central.compressed, self.central.size] {
            if wide {
                descriptor.u64(number.into())
            } else {
                descriptor.u32(number)
            };
        }
        self.descriptor = descriptor.0;
        if zeroed {
            (self.local.crc, self.local.compressed, self.local.size) = (0, 0, 0);
        }
    }
}

/// ZIP64 fields, as packers write them that do not know how large an entry becomes.
impl Entry {
    /// Whether its headers have no ZIP64 field yet.
    pub fn is_narrow(&self) -> bool {
        !self.wide_offset
            && !self.whole_field
            && self.local.extra.is_empty()
            && self.central.extra.is_empty()
    }

    /// Sizes in ZIP64 fields in any case, that of the central header with an offset and a disk
    /// behind them.
    pub fn always_wide(&mut self) {
        self.local.extra = sizes_field(&self.central);
        (self.local.size, self.local.compressed) = (u32::MAX, u32::MAX);
        self.whole_field = true;
    }

    /// A ZIP64 field of zeros in the local header, which has its true sizes by itself.
    pub fn keep_room(&mut self, length: usize) {
        self.local.extra = extra(1, &vec![0; length]);
    }

    /// Sizes in ZIP64 fields, which the data descriptor refers to as the headers do.
    pub fn mark_descriptor(&mut self, signed: bool) {
        self.both(|header| header.flags |= 8);
        self.central.extra = sizes_field(&self.central);
        (self.central.size, self.central.compressed) = (u32::MAX, u32::MAX);
        self.local.extra = extra(1, &[0; 16]);
        (self.local.crc, self.local.size, self.local.compressed) = (0, u32::MAX, u32::MAX);
        let mut descriptor = Bytes::default();
        if signed {
            descriptor.u32(0x0807_4b50);
        }
        descriptor.u32(self.central.crc).u32(u32::MAX).u32(u32::MAX);
        self.descriptor = descriptor.0;
    }
}

fn sizes_field(header: &Header) -> Vec<u8> {
    let mut field = Bytes::default();
    field.u64(header.size.into()).u64(header.compressed.into());
    extra(1, &field.0)
}

impl Archive {
    /// The plain archive of `entries`.
    pub fn of(entries: Vec<Entry>) -> Self {
        Archive { order: (0..entries.len()).collect(), entries, ..Archive::default() }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Bytes(self.prefix.clone());
        let base = if self.relative { 0 } else { self.prefix.len() };
        let start = self.prefix.len() - base;
        let mut offsets = Vec::new();
        for entry in &self.entries {
            out.0.extend(&entry.before);
            offsets.push((out.0.len() - start) as i64);
            out.u32(entry.local_signature);
            out.header(&entry.local);
            out.0.extend([&entry.local.name[..], &entry.local.extra].concat());
            out.0.extend([&entry.data[..], &entry.descriptor].concat());
        }
        out.0.extend(&self.before_directory);
        let directory = out.0.len();
        for at in self.order.iter().filter(|at| **at < self.entries.len()) {
            let entry = &self.entries[*at];
            let at = entry.points_to.filter(|at| *at < offsets.len()).unwrap_or(*at);
            out.central(entry, (offsets[at] + entry.shift) as u64);
        }
        let size = (out.0.len() - directory) as u64;
        out.0.extend(&self.behind_directory);
        let count = self.order.len() as u64;
        let true_end = End {
            entries_here: count,
            entries: count,
            size,
            offset: (directory - start) as u64,
            ..End::default()
        };
        self.end_records(&mut out, &true_end);
        out.0.extend(&self.trailing);
        out.0
    }

    fn end_records(&self, out: &mut Bytes, true_end: &End) {
        let lied = |wide: bool| {
            let mut end = true_end.clone();
            for (lie, _, value) in self.lies.iter().filter(|(_, about_wide, _)| *about_wide == wide)
            {
                lie(&mut end, *value);
            }
            end
        };
        let mut narrow = lied(false);
        if let Some(wide) = &self.wide {
            let at = out.0.len() as i64 + wide.locator_shift;
            let end = lied(true);
            out.u32(0x0606_4b50)
                .u64(wide.length)
                .u16(45)
                .u16(45)
                .u32(end.disk as u32)
                .u32(end.directory_disk as u32);
            out.u64(end.entries_here).u64(end.entries).u64(end.size).u64(end.offset);
            out.0.extend(&wide.extensible);
            out.u32(0x0706_4b50).u32(wide.locator_disk).u64(at as u64).u32(wide.disks);
            let [here, entries, size, offset] = wide.marked;
            let mark = |value: &mut u64, marked: bool, mark: u64| {
                *value = if marked { mark } else { *value }
            };
            mark(&mut narrow.entries_here, here, 0xffff);
            mark(&mut narrow.entries, entries, 0xffff);
            mark(&mut narrow.size, size, 0xffff_ffff);
            mark(&mut narrow.offset, offset, 0xffff_ffff);
        }
        out.u32(0x0605_4b50).u16(narrow.disk as u16).u16(narrow.directory_disk as u16);
        out.u16(narrow.entries_here as u16).u16(narrow.entries as u16).u32(narrow.size as u32);
        out.u32(narrow.offset as u32).u16(self.comment_length.unwrap_or(self.comment.len() as u16));
        out.0.extend(&self.comment);
    }
}

/// Little-endian records in the making.
#[derive(Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn header(&mut self, header: &Header) {
        self.u16(header.version)
            .u16(header.flags)
            .u16(header.method)
            .u16(header.time)
            .u16(header.date);
        self.u32(header.crc).u32(header.compressed).u32(header.size);
        self.u16(header.name.len() as u16).u16(header.extra.len() as u16);
    }

    fn central(&mut self, entry: &Entry, offset: u64) {
        let mut header = entry.central.clone();
        if entry.wide_offset {
            header.extra.extend(extra(1, &offset.to_le_bytes()));
        }
        if entry.whole_field {
            let mut field = Bytes::default();
            field.u64(header.size.into()).u64(header.compressed.into()).u64(offset).u32(0);
            header.extra.extend(extra(1, &field.0));
            (header.size, header.compressed) = (u32::MAX, u32::MAX);
        }
        self.u32(entry.central_signature).u16(entry.made_by);
        self.header(&header);
        self.u16(entry.comment.len() as u16).u16(entry.disk).u16(0).u32(entry.attributes);
        self.u32(if entry.wide_offset { u32::MAX } else { offset as u32 });
        self.0.extend([&header.name[..], &header.extra, &entry.comment].concat());
    }
}

/// An extra field.
pub fn extra(id: u16, data: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes(), &(data.len() as u16).to_le_bytes(), data].concat()
}
