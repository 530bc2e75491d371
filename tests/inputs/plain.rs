//! Archives in all the forms that packers write.

use std::collections::HashSet;

use fastrand::Rng;

use super::build::{Archive, Entry, Wide, entry, extra, with_data};
use super::deflate;

const NAMES: &[&str] = &[
    "main.tf",
    "variables.tf",
    "README.md",
    "modules/net/main.tf",
    "modules/net/a b.tf",
    "a/b/c/d/e.txt",
    ".terraform.lock.hcl",
    ".git/config",
    "e\u{301}.tf",
    "\u{e9}.tf",
    "A.tf",
    "a.tf",
    "-rf",
    "x:y",
    "con",
    "dot.",
    "space ",
    "...",
    "..a",
    "a..",
    "%2e%2e",
    "win\\path\\main.tf",
    "new\nline",
    "\u{202e}rtl",
    "\u{1b}[31m",
    "*",
    "terraform-provider-x_v1.0.0",
    "LICENSE",
    "a.b.c",
];

/// The archive, and the names of its entries.
pub fn archive(rng: &mut Rng) -> Archive {
    let mut taken = HashSet::new();
    let mut entries = Vec::new();
    for _ in 0..rng.usize(1..7) {
        let name = name(rng);
        if !free(&mut taken, &name) {
            continue;
        }
        entries.push(if rng.u8(..5) == 0 { directory(rng, name) } else { file(rng, &name) });
    }
    if entries.is_empty() {
        entries.push(file(rng, b"main.tf"));
    }
    let mut archive = Archive::of(entries);
    if rng.u8(..4) == 0 {
        rng.shuffle(&mut archive.order);
    }
    if rng.u8(..6) == 0 {
        archive.comment = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
    }
    if rng.u8(..6) == 0 {
        let marked = match rng.u8(..3) {
            0 => [true; 4],
            1 => [false; 4],
            _ => [true, true, false, false],
        };
        archive.wide = Some(Wide { marked, disks: 1, length: 44, ..Wide::default() });
    }
    if rng.u8(..12) == 0 {
        // Zeros up to a block's end, as bsdtar writes them.
        let length = archive.bytes().len();
        archive.trailing =
            vec![0; length.next_multiple_of(*rng.choice(&[512, 10_240]).expect("blocks")) - length];
    }
    archive
}

/// Whether no entry has this name, nor needs a directory where another has a file.
fn free(taken: &mut HashSet<(Vec<u8>, bool)>, name: &[u8]) -> bool {
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    let above: Vec<Vec<u8>> = (1..parts.len()).map(|count| parts[..count].join(&b'/')).collect();
    let whole = name.to_vec();
    if above.iter().any(|path| taken.contains(&(path.clone(), true)))
        || taken.contains(&(whole.clone(), true))
        || taken.contains(&(whole.clone(), false))
    {
        return false;
    }
    taken.extend(above.into_iter().map(|path| (path, false)));
    taken.insert((whole, true));
    true
}

pub fn name(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..12) {
        0 => (0..rng.usize(1..6))
            .map(|_| *rng.choice(b"ab.\\ \xe9\xff~").expect("bytes"))
            .filter(|b| *b != b'\\')
            .chain(*b"n")
            .collect(),
        1 => vec![b'n'; rng.usize(240..=255)],
        2 => (0..rng.usize(1..30)).map(|_| "d/").chain(["f"]).collect::<String>().into(),
        _ => rng.choice(NAMES).expect("names").as_bytes().to_vec(),
    }
}

pub fn content(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..6) {
        0 => Vec::new(),
        1 => (0..rng.usize(..60)).map(|_| rng.u8(..)).collect(),
        2 => b"resource \"x\" \"y\" {}\n".repeat(rng.usize(1..40)),
        3 => vec![rng.u8(..); rng.usize(..3000)],
        4 => vec![b'x'; rng.usize(1..4)],
        _ => (0..rng.usize(..400)).map(|_| rng.u8(b'a'..=b'd')).collect(),
    }
}

/// A file, whose data is such as compressors make.
pub fn file(rng: &mut Rng, name: &[u8]) -> Entry {
    let content = content(rng);
    let mut entry = entry(name, &content, if rng.bool() { 8 } else { 0 });
    attributes(rng, &mut entry);
    fields(rng, &mut entry);
    match rng.u8(..16) {
        0..=3 => entry.stream(rng.u8(..4) != 0, rng.u8(..5) == 0, rng.bool()),
        4 if entry.is_narrow() => entry.mark_descriptor(rng.u8(..4) != 0),
        5 if entry.is_narrow() => entry.always_wide(),
        6 if entry.is_narrow() => entry.keep_room(*rng.choice(&[8, 16, 24, 28]).expect("lengths")),
        _ => {}
    }
    entry
}

/// A file, whose data need not be such as any compressor makes.
pub fn strange_file(rng: &mut Rng, name: &[u8]) -> Entry {
    let (data, content) = deflate::random(rng);
    with_data(name, &content.unwrap_or_default(), 8, data)
}

fn attributes(rng: &mut Rng, entry: &mut Entry) {
    let system = *rng.choice(&[3_u16, 3, 3, 0, 11, 14, 19, 10, 7]).expect("systems");
    entry.made_by = system << 8 | rng.u16(10..64);
    entry.attributes = match system {
        3 | 19 => {
            let kind = *rng
                .choice(&[
                    0o100_000_u32,
                    0o100_000,
                    0,
                    0o120_000,
                    0o010_000,
                    0o020_000,
                    0o060_000,
                    0o140_000,
                ])
                .expect("kinds");
            (kind | rng.u32(..=0o7777) & *rng.choice(&[0o777, 0o755, 0o7777, 0]).expect("masks"))
                << 16
                | rng.u32(..2)
        }
        _ => *rng.choice(&[0, 0x20, 0x01, 0x21, 0x80]).expect("attributes") | rng.u32(..4) << 30,
    };
    if system == 0 || system == 11 || system == 14 {
        entry.attributes &= !0x10;
    }
}

fn directory(rng: &mut Rng, mut name: Vec<u8>) -> Entry {
    name.push(b'/');
    let mut made = match rng.u8(..4) {
        // As the jar tool of old writes them.
        0 => with_data(&name, b"", 8, vec![3, 0]),
        _ => entry(&name, b"", 0),
    };
    (made.made_by, made.attributes) = *rng
        .choice(&[(3 << 8 | 20, 0o040_755 << 16 | 0x10), (20, 0x10), (20, 0), (0x314, 0)])
        .expect("forms");
    fields(rng, &mut made);
    if rng.u8(..4) == 0 {
        made.stream(rng.bool(), false, rng.bool());
    }
    made
}

/// Everything that does not matter to the tree.
fn fields(rng: &mut Rng, entry: &mut Entry) {
    let (time, date, version) =
        (rng.u16(..), rng.u16(..), *rng.choice(&[10, 20, 45, 0x314]).expect("versions"));
    let utf8 =
        if rng.bool() { 1 << 11 } else { 0 } | *rng.choice(&[0, 0, 0, 2, 4, 6]).expect("efforts");
    entry.both(|header| {
        (header.time, header.date, header.version, header.flags) = (time, date, version, utf8)
    });
    if rng.u8(..8) == 0 {
        entry.comment = (0..rng.usize(..20)).map(|_| rng.u8(..)).collect();
    }
    let time: Vec<u8> = [&[rng.u8(..8)][..], &rng.u32(..).to_le_bytes()].concat();
    match rng.u8(..14) {
        0 => entry.both(|header| header.extra = extra(0x5455, &time)),
        1 => entry.both(|header| header.extra = extra(0x7875, &[1, 4, 0, 0, 0, 0, 4, 0, 0, 0, 0])),
        2 => entry.both(|header| header.extra = extra(0x000a, &[7; 32])),
        3 => entry.local.extra = extra(0xcafe, b""),
        // Padding, as zipalign writes it.
        4 => entry.local.extra = vec![0; rng.usize(1..4)],
        5 => entry.local.extra = extra(0xd935, &vec![0; rng.usize(..60)]),
        6 => entry.both(|header| {
            header.extra = [extra(0x5455, &time), extra(0x7875, &[1, 0, 0])].concat()
        }),
        7 if rng.bool() => {
            // A ZIP64 field that is reserved, and one that is used.
            let sizes = [
                u64::from(entry.central.size).to_le_bytes(),
                u64::from(entry.central.compressed).to_le_bytes(),
            ]
            .concat();
            entry.local.extra = extra(1, &sizes);
            if rng.bool() {
                (entry.local.size, entry.local.compressed) = (u32::MAX, u32::MAX);
            }
        }
        8 => entry.wide_offset = true,
        _ => {}
    }
}
