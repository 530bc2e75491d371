//! Content: exactly as declared, or an integrity error for that member.

use std::io;

use super::build::{Entry, deflate, deflated, entry, zip};
use super::*;
use crate::archive::ReadAt;

#[track_caller]
fn corrupt(bad: Entry) {
    let zip = zip([bad]);
    let file = tree(&zip).unwrap_or_else(|error| panic!("{error}"))[&b"a"[..]].unwrap();
    let error = content(&zip, &file).expect_err("not as declared");
    assert_eq!(class(&error), "integrity", "{error}");
}

const TEXT: &[u8] = b"resource resource resource resource resource resource";

#[test]
fn declared_sizes_that_lie_are_integrity_errors() {
    // Z23
    for size in [TEXT.len() as u32 - 1, TEXT.len() as u32 + 1, 0, 1 << 20] {
        corrupt(deflated("a", TEXT).with(|e| e.size = size));
    }
    let stored = entry("a", TEXT).with(|e| e.size += 1);
    refused_for(&zip([stored]), "two sizes differ");
}

#[test]
fn wrong_crcs_are_integrity_errors() {
    // Z25
    for crc in [0, 1, !crc32fast::hash(TEXT)] {
        corrupt(deflated("a", TEXT).with(|e| e.crc = crc));
        corrupt(entry("a", TEXT).with(|e| e.crc = crc));
    }
    corrupt(entry("a", "").with(|e| e.crc = 1));
}

#[test]
fn streams_that_are_not_exactly_one_deflate_stream_are_integrity_errors() {
    // Z26: no stream, an invalid block, a cut, bytes behind the end, a distance too far, empty blocks without end
    let raw = |data: Vec<u8>| {
        deflated("a", TEXT).with(|e| {
            e.compressed = data.len() as u32;
            e.data = data;
        })
    };
    let good = deflate(TEXT);
    corrupt(raw(Vec::new()));
    corrupt(raw(vec![0xff; 20]));
    corrupt(raw(vec![0x07]));
    corrupt(raw(good[..good.len() - 1].to_vec()));
    corrupt(raw([&good[..], b"hidden"].concat()));
    corrupt(raw([&good[..], b"\0"].concat()));
    corrupt(raw([0x63, 0x00, 0x42, 0x00].to_vec()));
    corrupt(raw([0, 0, 0, 0xff, 0xff].repeat(100_000)));
    // Bytes behind the end that pass for a trailer of the true CRC and size.
    let trailer = [crc32fast::hash(TEXT).to_le_bytes(), (TEXT.len() as u32).to_le_bytes()].concat();
    corrupt(raw([&good[..], &trailer, b"hidden"].concat()));
    // The same bytes within the content are none of that.
    let quoting = [TEXT, &trailer].concat();
    let stored_block = [&[1, quoting.len() as u8, 0, !(quoting.len() as u8), 0xff][..], &quoting].concat();
    let honest = deflated("a", &quoting).with(|e| {
        e.compressed = stored_block.len() as u32;
        e.data = stored_block;
    });
    assert_eq!(contents(&zip([honest])).unwrap()[&b"a"[..]].0, quoting);
}

#[test]
fn a_wrong_member_does_not_harm_the_others() {
    let zip = zip([deflated("bad", TEXT).with(|e| e.crc ^= 1), deflated("good", TEXT)]);
    let tree = tree(&zip).unwrap();
    assert!(content(&zip, &tree[&b"bad"[..]].unwrap()).is_err());
    assert_eq!(content(&zip, &tree[&b"good"[..]].unwrap()).unwrap(), TEXT);
}

#[test]
fn large_members_stream() {
    let mut random = fastrand::Rng::with_seed(3);
    let text: Vec<u8> = (0..1_000_000).map(|_| random.alphanumeric() as u8).collect();
    let zip = zip([deflated("a", &text), entry("b", &text), deflated("c", vec![0; 3_000_000])]);
    let contents = contents(&zip).unwrap();
    assert!(contents[&b"a"[..]].0 == text && contents[&b"b"[..]].0 == text);
    assert!(contents[&b"c"[..]].0 == [0; 3_000_000]);
}

/// An archive that cannot be read behind an offset.
struct Broken(Vec<u8>, u64);

impl ReadAt for Broken {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + buf.len() as u64 > self.1 {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.read_exact_at(buf, offset)
    }
}

/// A disk without space.
struct Full;

impl io::Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(28))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn errors_of_reader_and_writer_are_handed_on() {
    let zip = zip([deflated("a", TEXT)]);
    let file = tree(&zip).unwrap()[&b"a"[..]].unwrap();
    let length = zip.len() as u64;
    let Err(error) = index(&Broken(zip.clone(), length - 1), &Limits::default()) else { panic!("read") };
    assert!(matches!(error.class(), Class::Read(source) if source.raw_os_error() == Some(5)));
    let broken = Broken(zip.clone(), file.offset);
    for error in [extract(&broken, &file, &mut Vec::new()).unwrap_err(), inflate(&broken, &file).unwrap_err()] {
        assert!(matches!(error.class(), Class::Read(source) if source.raw_os_error() == Some(5)));
    }
    let error = extract(&zip, &file, &mut Full).unwrap_err();
    assert!(matches!(error.class(), Class::Write(source) if source.raw_os_error() == Some(28)));
}
