//! What a hostile packer changes.

use fastrand::Rng;

use super::build::{Archive, Bytes, Entry, Lie, Wide, entry, extra};
use super::plain;

/// Names that are no plain ones.
const NAMES: &[&str] = &[
    "",
    ".",
    "..",
    "/",
    "./",
    "../x",
    "a/../b",
    "a/..",
    "..\\x",
    "a\\..\\x",
    "\\x",
    "/etc/passwd",
    "//x",
    "C:\\x",
    "C:x",
    "c:/x",
    "./main.tf",
    "a//b",
    "a/./b",
    "a/.",
    "main.tf/",
    "main.tf/x",
    "modules",
    "modules/",
    "a",
    "a/",
    "a/b",
    "a\\",
    "a\\b",
    "x\0y",
    "x\0",
    "\\\\srv\\x",
    "main.tf//",
    "./",
    ".//",
    "a/b/",
    "A",
    "..;/x",
    ". ",
    ".\\",
    ".\\x",
    "...",
    "main.tf/.",
    "main.tf/./",
    "modules/net",
];

/// The archive of a case: a plain one that was changed up to four times.
pub fn archive(rng: &mut Rng) -> Archive {
    let mut archive = plain::archive(rng);
    for _ in 0..rng.usize(1..=3) {
        match rng.u8(..10) {
            0..=5 => {
                let at = rng.usize(..archive.entries.len());
                let others = archive.entries.len();
                entry_at(rng, &mut archive.entries[at], others);
            }
            6 => names(rng, &mut archive),
            7 => strange(rng, &mut archive),
            _ => structure(rng, &mut archive),
        }
    }
    archive
}

/// A number that is likely to be on some edge.
fn number(rng: &mut Rng) -> u64 {
    match rng.u8(..6) {
        0 => rng.u64(..4),
        1 => u64::from(u16::MAX) - rng.u64(..2),
        2 => u64::from(u32::MAX) - rng.u64(..2),
        3 => *rng
            .choice(&[u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 31, 1 << 32, 65_536])
            .expect("edges"),
        4 => rng.u64(..300),
        _ => rng.u64(..),
    }
}

fn bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    (0..rng.usize(..most)).map(|_| rng.u8(..)).collect()
}

fn nudge(rng: &mut Rng, value: u32) -> u32 {
    match rng.u8(..5) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => 0,
        3 => u32::MAX,
        _ => number(rng) as u32,
    }
}

/// Adds entries whose names fit to those that are there, or not.
fn names(rng: &mut Rng, archive: &mut Archive) {
    let known = archive.entries[rng.usize(..archive.entries.len())].clone();
    let name = known.central.name.clone();
    let added = match rng.u8(..6) {
        0 => known,
        1 => plain::file(rng, &name),
        2 => plain::file(rng, &[&name[..], b"/below"].concat()),
        3 => plain::file(rng, &[b"./", &name[..]].concat()),
        4 => entry(&[&name[..], b"/"].concat(), b"", 0),
        _ => {
            let name = rng.choice(NAMES).expect("names").as_bytes();
            plain::file(rng, name)
        }
    };
    let at = rng.usize(..=archive.entries.len());
    archive.entries.insert(at, added);
    archive.order = (0..archive.entries.len()).collect();
}

fn strange(rng: &mut Rng, archive: &mut Archive) {
    let name = plain::name(rng);
    let mut strange = plain::strange_file(rng, &name);
    if rng.u8(..4) == 0 {
        strange.stream(rng.bool(), rng.u8(..4) == 0, rng.bool());
    }
    archive.order.push(archive.entries.len());
    archive.entries.push(strange);
}

/// Changes one entry; `others` is how many there are.
fn entry_at(rng: &mut Rng, entry: &mut Entry, others: usize) {
    let odd_name = rng.choice(NAMES).expect("names").as_bytes().to_vec();
    let number = number(rng);
    match rng.u8(..42) {
        0..=3 => entry.both(|header| header.name = odd_name.clone()),
        4 => entry.local.name = odd_name,
        5 => entry.central.name = odd_name,
        6 => entry.both(|header| header.name = vec![b'l'; 256 + number as usize % 300]),
        7 => entry.both(|header| header.name = b"d/".repeat(number as usize % 400)),
        8 => entry.central.crc = nudge(rng, entry.central.crc),
        9 => entry.local.crc = nudge(rng, entry.local.crc),
        10 => entry.both(|header| header.crc = 0),
        11 => entry.central.size = nudge(rng, entry.central.size),
        12 => entry.local.size = nudge(rng, entry.local.size),
        13 => entry.central.compressed = nudge(rng, entry.central.compressed),
        14 => entry.local.compressed = nudge(rng, entry.local.compressed),
        15 => entry.both(|header| header.size = header.size.wrapping_add(number as u32)),
        16 => entry.both(|header| {
            header.method =
                *[1, 6, 8, 0, 9, 12, 14, 93, 95, 99].get(number as usize % 10).unwrap_or(&0)
        }),
        17 => entry.local.method ^= 8,
        18 => entry.central.method ^= 8,
        19 => entry.both(|header| header.flags ^= 1 << (number % 16)),
        20 => entry.local.flags ^= 1 << (number % 16),
        21 => entry.central.flags ^= 1 << (number % 16),
        22 => entry.attributes = number as u32,
        23 => entry.made_by = (number as u16) << 8 | 20,
        24 => {
            entry.attributes |= *rng
                .choice(&[0o040_000 << 16, 0x10, 0o4000 << 16, 0o120_000 << 16])
                .expect("attributes")
        }
        25 => entry.disk = number as u16,
        26 => entry.shift = *rng.choice(&[1, -1, 4, -4, 30, i64::from(i32::MAX)]).expect("shifts"),
        27 => entry.points_to = Some(rng.usize(..others)),
        28 => entry.before = bytes(rng, 40),
        29 => entry.data.extend(bytes(rng, 20)),
        30 => entry.stream(rng.bool(), rng.bool(), rng.bool()),
        31 => entry.descriptor = bytes(rng, 26),
        32 => {
            entry.descriptor =
                entry.descriptor.iter().map(|byte| byte ^ u8::from(number & 8 != 0)).collect()
        }
        33 => entry.both(|header| header.extra = bytes(&mut Rng::with_seed(number), 30)),
        34 => entry.central.extra = wide_field(rng, entry),
        35 => entry.local.extra = wide_field(rng, entry),
        36 => wide_header(rng, entry),
        37 => entry.central.extra.extend(extra(0x7075, &[&[1, 0, 0, 0, 0][..], b"other"].concat())),
        38 => entry.local_signature ^= 1 << (number % 32),
        39 => entry.central_signature ^= 1 << (number % 32),
        40 => entry.comment = vec![b'c'; number as usize % 70_000 % 65_536],
        _ => entry.data.truncate(rng.usize(..=entry.data.len())),
    }
}

/// A ZIP64 field of up to four values, which are the true ones or others.
fn wide_field(rng: &mut Rng, entry: &Entry) -> Vec<u8> {
    let mut field = Bytes::default();
    for value in [entry.central.size, entry.central.compressed, 0].into_iter().take(rng.usize(..4))
    {
        let value = if rng.u8(..4) == 0 { number(rng) } else { value.into() };
        field.u64(value);
    }
    match rng.u8(..6) {
        0 => field.u32(0),
        1 => field.u16(0),
        _ => &mut field,
    };
    let once = extra(1, &field.0);
    if rng.u8(..8) == 0 { once.repeat(2) } else { once }
}

/// Marks sizes in both headers, whose values stand in ZIP64 fields.
fn wide_header(rng: &mut Rng, entry: &mut Entry) {
    let (size, compressed) = (entry.central.size, entry.central.compressed);
    let (local, central) = (rng.bool(), rng.bool());
    for (header, which) in [(&mut entry.local, local), (&mut entry.central, central)] {
        let mut field = Bytes::default();
        field.u64(size.into());
        header.size = u32::MAX;
        if which {
            field.u64(compressed.into());
            header.compressed = u32::MAX;
        }
        if rng.u8(..8) == 0 {
            field.0.truncate(rng.usize(..field.0.len()));
        }
        header.extra = extra(1, &field.0);
    }
}

const LIES: &[Lie] = &[
    |end, value| end.entries = end.entries.wrapping_add(value),
    |end, value| end.entries_here = end.entries_here.wrapping_add(value),
    |end, value| (end.entries, end.entries_here) = (value, value),
    |end, value| {
        (end.entries, end.entries_here) =
            (end.entries + 65_536, end.entries_here + 65_536 * (value & 1))
    },
    |end, value| end.size = end.size.wrapping_add(value),
    |end, value| end.size = value,
    |end, value| end.offset = end.offset.wrapping_add(value),
    |end, value| end.offset = end.offset.wrapping_sub(value),
    |end, value| {
        (end.offset, end.size) = (end.offset.wrapping_add(value), end.size.wrapping_sub(value))
    },
    |end, value| end.disk = value,
    |end, value| end.directory_disk = value,
];

/// Changes what lies around the entries.
fn structure(rng: &mut Rng, archive: &mut Archive) {
    let count = archive.entries.len();
    match rng.u8(..18) {
        0 => (archive.prefix, archive.relative) = (bytes(rng, 60), rng.bool()),
        1 => {
            archive.prefix = rng
                .choice(&[&b"PK00"[..], b"PK\x07\x08", b"#!/bin/sh\n"])
                .expect("prefixes")
                .to_vec()
        }
        2 => archive.before_directory = bytes(rng, 30),
        3 => archive.behind_directory = bytes(rng, 30),
        4 => drop(archive.order.pop()),
        5 => archive.order.push(rng.usize(..count)),
        6 => archive.trailing = bytes(rng, 30),
        7 => {
            archive.trailing =
                vec![0; *rng.choice(&[1, 1002, 1003, 65_535, 65_536, 66_560]).expect("lengths")]
        }
        8 => archive.comment_length = Some(number(rng) as u16),
        9 | 10 => {
            let (lie, wide) =
                (*rng.choice(LIES).expect("lies"), archive.wide.is_some() && rng.bool());
            let value = number(rng);
            archive.lies.push((lie, wide, value));
        }
        11 => {
            let other = plain::archive(rng).bytes();
            archive.comment = other;
        }
        12 => archive.comment = Archive::of(Vec::new()).bytes(),
        13 => {
            let marked = [rng.bool(), rng.bool(), rng.bool(), rng.bool()];
            archive.wide = Some(Wide { marked, disks: 1, length: 44, ..Wide::default() });
        }
        14 | 15 => wide_end(rng, archive),
        16 => {
            archive.comment = archive.bytes();
        }
        _ => {
            archive.entries.clear();
            archive.entries.push(entry(b"d/", b"", 0));
            archive.order = (0..rng.usize(..2)).collect();
        }
    }
    if archive.order.is_empty() && rng.u8(..8) != 0 {
        archive.order = (0..archive.entries.len()).collect();
    }
}

fn wide_end(rng: &mut Rng, archive: &mut Archive) {
    let number = number(rng);
    let wide = archive.wide.get_or_insert_with(|| Wide {
        marked: [true; 4],
        disks: 1,
        length: 44,
        ..Wide::default()
    });
    match rng.u8(..6) {
        0 => wide.locator_disk = number as u32,
        1 => wide.disks = number as u32,
        2 => wide.locator_shift = *rng.choice(&[1, -1, -20, 56, i64::MIN]).expect("shifts"),
        3 => wide.length = number,
        4 => wide.extensible = bytes(rng, 20),
        _ => wide.marked[rng.usize(..4)] ^= true,
    }
}

/// Changes some bytes, wherever they are, mostly near records.
pub fn bytes_of(rng: &mut Rng, zip: &mut Vec<u8>) {
    for _ in 0..rng.usize(1..4) {
        if zip.is_empty() {
            return;
        }
        let records: Vec<usize> =
            (0..zip.len().saturating_sub(1)).filter(|at| zip[*at..].starts_with(b"PK")).collect();
        let at = match rng.choice(&records) {
            Some(at) if rng.u8(..3) != 0 => (at + rng.usize(..60)).min(zip.len() - 1),
            _ => rng.usize(..zip.len()),
        };
        match rng.u8(..8) {
            0..=2 => zip[at] ^= 1 << rng.u8(..8),
            3 => zip[at] = *rng.choice(&[0, 1, 0x7f, 0x80, 0xff]).expect("bytes"),
            4 => drop(zip.remove(at)),
            5 => zip.insert(at, rng.u8(..)),
            6 => {
                let end = (at + rng.usize(..80)).min(zip.len());
                let piece: Vec<u8> = zip[at..end].to_vec();
                let to = rng.usize(..=zip.len());
                drop(zip.splice(to..to, piece));
            }
            _ => zip.truncate(at),
        }
    }
}
