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
    for size in [TEXT.len() as u32 - 1, TEXT.len() as u32 + 1, 1, 1 << 20] {
        corrupt(deflated("a", TEXT).with(|e| e.size = size));
    }
    // No more than declared comes out on the way to the error: a bomb stays as small as it says.
    let bomb = zip([deflated("a", vec![0; 1 << 20]).with(|e| e.size = 10)]);
    let mut written = Vec::new();
    let file = tree(&bomb).unwrap()[&b"a"[..]].unwrap();
    assert!(
        extract(&bomb, &file, &mut written).is_err() && written.len() <= 10,
        "{}",
        written.len()
    );
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
}

#[test]
fn files_that_are_not_as_empty_as_declared_refuse_the_archive() {
    // Z23, Z25, Z26: nobody ever reads the content of an empty file
    for hollow in [
        deflated("a", TEXT).with(|e| e.size = 0),
        deflated("a", TEXT).with(|e| (e.size, e.crc) = (0, 0)),
        deflated("a", "").with(|e| e.crc = 1),
        deflated("a", "").with(|e| (e.compressed, e.data) = (0, Vec::new())),
        entry("a", "").with(|e| e.crc = 1),
        deflated("a", "").with(|e| (e.compressed, e.data) = (2, vec![7, 0])),
        deflated("a", "").with(|e| (e.compressed, e.data) = (3, vec![3, 0, 0])),
    ] {
        let text = refused(&zip([entry("b", "x"), hollow]), "integrity");
        assert!(text.starts_with("entry \"a\""), "{text}");
    }
    let padded = [[0, 0, 0, 0xff, 0xff].repeat(10_000), vec![3, 0]].concat();
    let honest = deflated("a", "").with(|e| (e.compressed, e.data) = (padded.len() as u32, padded));
    assert_eq!(contents(&zip([honest])).unwrap()[&b"a"[..]].0, b"");
}

#[test]
fn streams_that_are_not_exactly_one_deflate_stream_are_integrity_errors() {
    // Z26: no stream, an invalid block, a cut, bytes behind the end, a distance too far, empty
    // blocks without end
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
}

#[test]
fn codes_that_do_not_exist_are_integrity_errors() {
    // Z26: what some readers take for a length of 258 (286, 287), a distance of 24577 (30) and the
    // only distance of a table that has one code (the other bit). Size and CRC are those that they
    // find.
    let repeated = |count: usize| vec![b'a'; count];
    for (stream, content) in [
        (fixed(&[(0b1001_0001, 8), (0b1100_0110, 8), (0, 5), (0, 7)]), repeated(259)),
        (fixed(&[(0b1001_0001, 8), (0b1100_0111, 8), (0, 5), (0, 7)]), repeated(259)),
        (only_distance(1), repeated(4)),
    ] {
        let entry = deflated("a", &content).with(|e| {
            e.compressed = stream.len() as u32;
            e.data = stream;
        });
        corrupt(entry);
    }
    let right = only_distance(0);
    let honest =
        deflated("a", repeated(4)).with(|e| (e.compressed, e.data) = (right.len() as u32, right));
    assert_eq!(contents(&zip([honest])).unwrap()[&b"a"[..]].0, repeated(4));
}

/// A block of these codes by the fixed tables.
fn fixed(codes: &[(u32, u32)]) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.number(1, 1).number(1, 2);
    for (code, length) in codes {
        bits.code(*code, *length);
    }
    bits.bytes
}

/// `a`, then three bytes more at distance 1, whose code is `bit` in a table that has only the code
/// 0.
fn only_distance(bit: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    // 258 lengths for literals, 1 for distances, 18 for the lengths' own codes.
    bits.number(1, 1).number(2, 2).number(1, 5).number(0, 5).number(14, 4);
    // The lengths 0, 1 and 2 have codes of 3, 2 and 2 bits, as have runs of 0 (18: 1 bit).
    for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1] {
        bits.number(
            match symbol {
                18 => 1,
                1 => 3,
                2 => 2,
                0 => 3,
                _ => 0,
            },
            3,
        );
    }
    // 97 zeros, `a` (1 bit), 158 zeros, the end and the length 3 (2 bits each), the distance 1 (1
    // bit).
    bits.code(0, 1)
        .number(97 - 11, 7)
        .code(0b111, 3)
        .code(0, 1)
        .number(138 - 11, 7)
        .code(0, 1)
        .number(20 - 11, 7);
    bits.code(0b10, 2).code(0b10, 2).code(0b111, 3);
    bits.code(0, 1).code(0b11, 2).code(bit, 1).code(0b10, 2);
    bits.bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    /// A number of `count` bits, the lowest first.
    fn number(&mut self, value: u32, count: u32) -> &mut Self {
        for bit in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((value >> bit & 1) << (self.used % 8)) as u8;
            self.used += 1;
        }
        self
    }

    /// A code of `length` bits, the highest first.
    fn code(&mut self, code: u32, length: u32) -> &mut Self {
        for bit in (0..length).rev() {
            self.number(code >> bit & 1, 1);
        }
        self
    }
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
    let Err(error) = index(&Broken(zip.clone(), length - 1), &Limits::default()) else {
        panic!("read")
    };
    assert!(matches!(error.class(), Class::Read(source) if source.raw_os_error() == Some(5)));
    let broken = Broken(zip.clone(), file.offset);
    for error in [
        extract(&broken, &file, &mut Vec::new()).unwrap_err(),
        inflate(&broken, &file).unwrap_err(),
    ] {
        assert!(matches!(error.class(), Class::Read(source) if source.raw_os_error() == Some(5)));
    }
    let error = extract(&zip, &file, &mut Full).unwrap_err();
    assert!(matches!(error.class(), Class::Write(source) if source.raw_os_error() == Some(28)));
}
