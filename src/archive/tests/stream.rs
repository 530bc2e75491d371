//! What comes out of the front of an archive, held against what its index says.

use proptest::prelude::*;

use super::build::{Entry, archive, deflated, directory, entry, extra, zip, zip64_extra};
use super::*;
use crate::archive::{Entries, Streamed};

/// What streams out of `zip`, and whether it came to its end without an error.
fn streamed(zip: &[u8]) -> (Vec<(Streamed, Vec<u8>)>, bool) {
    let mut entries = Entries::new(&zip);
    let mut found = Vec::new();
    loop {
        match entries.upcoming() {
            Ok(None) => return (found, true),
            Err(_) => return (found, false),
            Ok(Some(next)) => {
                let mut content = Vec::new();
                match entries.extract(&next, 64 << 20, &mut content) {
                    Ok(streamed) => found.push((streamed, content)),
                    Err(_) => return (found, false),
                }
            }
        }
    }
}

/// No file of the index has another content than what streams as its own. How many stream.
#[track_caller]
pub(super) fn agrees(zip: &[u8]) -> usize {
    let Ok(members) = index(&zip, &Limits::default()) else { return 0 };
    let (found, _) = streamed(zip);
    let mut same = 0;
    for (no, file) in members.files() {
        for (_, content) in found.iter().filter(|(streamed, _)| streamed.is(file)) {
            assert_eq!(
                super::content(zip, file).as_ref().ok(),
                Some(content),
                "{:?}",
                members.path(no)
            );
            same += 1;
        }
    }
    same
}

fn sample() -> Vec<Entry> {
    let text = b"resource \"x\" \"y\" {}\n".repeat(5000);
    vec![
        directory("modules/"),
        entry("modules/a.tf", "a stored file"),
        deflated("modules/b.tf", &text),
        entry("empty", ""),
        deflated("c", "x"),
    ]
}

fn with_descriptors(signature: bool, wide: bool) -> Vec<u8> {
    let streamed = |entry: Entry| match entry.method {
        8 => entry.streamed(signature, wide),
        _ => entry,
    };
    zip(sample().into_iter().map(streamed))
}

#[test]
fn all_of_a_plain_archive_streams() {
    assert_eq!(agrees(&zip(sample())), 4);
    assert!(streamed(&zip(sample())).1);
    assert_eq!(
        agrees(&archive(sample()).with(|a| a.reversed = true).bytes()),
        4,
        "Z56: another order in the index"
    );
    assert_eq!(agrees(&archive(sample()).with(|a| a.end64 = Some(|_| {})).bytes()), 4);
    let many: Vec<_> = (0..3000)
        .map(|n| deflated(format!("f{n}"), format!("content {n}").repeat(n % 40)))
        .collect();
    assert_eq!(agrees(&zip(many)), 3000);
}

/// Z57
#[test]
fn entries_whose_sizes_stand_behind_them_stream() {
    for (signature, wide) in [(true, false), (true, true), (false, false), (false, true)] {
        let zip = with_descriptors(signature, wide);
        assert_eq!(agrees(&zip), 4, "{signature} {wide}");
        let mut entries = Entries::new(&zip);
        let sizes: Vec<_> = std::iter::from_fn(|| {
            let next = entries.upcoming().unwrap()?;
            entries.extract(&next, u64::MAX, &mut std::io::sink()).unwrap();
            Some(next.size())
        })
        .collect();
        assert_eq!(sizes, [Some(0), Some(13), None, Some(0), None]);
    }
}

#[test]
fn wide_sizes_of_a_local_header_stream() {
    let large = deflated("large", vec![7; 100_000]);
    let (size, compressed) = (u64::from(large.size), u64::from(large.compressed));
    let wide = large.with(|e| {
        e.local_sizes = Some((e.crc, u32::MAX, u32::MAX));
        e.local_extra = zip64_extra(&[size, compressed]);
    });
    assert_eq!(agrees(&zip([wide.clone(), entry("b", "b")])), 2);
    let broken = wide.with(|e| e.local_extra = zip64_extra(&[size]));
    assert_eq!(streamed(&zip([broken])).0.len(), 0);
}

#[test]
fn an_entry_is_gone_over_without_reading_where_its_size_is_known() {
    let zip = with_descriptors(true, false);
    let mut entries = Entries::new(&zip);
    for expected in [true, true, false] {
        let next = entries.upcoming().unwrap().unwrap();
        assert_eq!(entries.skip(&next), expected);
    }
    let next = entries.upcoming().unwrap().unwrap();
    assert_eq!(next.size(), None, "it is still the next one");
}

#[test]
fn content_of_unknown_size_is_bounded_and_can_be_read_again() {
    let content = vec![1; 200_000];
    let zip = zip([deflated("a", &content).streamed(true, false), entry("b", "b")]);
    let mut entries = Entries::new(&zip);
    let next = entries.upcoming().unwrap().unwrap();
    let mut out = Vec::new();
    let error = entries.extract(&next, 199_999, &mut out).map(|s| s.size()).unwrap_err();
    assert_eq!(class(&error), "too large");
    assert!(out.len() < content.len());
    let next = entries.upcoming().unwrap().unwrap();
    out.clear();
    assert_eq!(entries.extract(&next, 200_000, &mut out).unwrap().size(), 200_000);
    assert!(out == content && entries.upcoming().unwrap().is_some());
}

#[test]
fn records_in_stored_data_are_data() {
    let inner = zip(sample());
    let outer = zip([entry("inner.zip", &inner), deflated("after", "x")]);
    let (found, whole) = streamed(&outer);
    assert!(whole && found.len() == 2 && found[0].1 == inner);
}

/// Z23 to Z29, Z31, Z38 to Z40, Z48
#[test]
fn what_cannot_be_followed_ends_the_sequence() {
    let first = || deflated("a", vec![3; 5000]);
    let second = |change: fn(&mut Entry)| zip([entry("ok", "ok"), first().with(change)]);
    let stored_stream = entry("s", "some content").streamed(true, false);
    for (name, zip) in [
        ("encrypted", second(|e| e.flags |= 1)),
        ("patch", second(|e| e.flags |= 1 << 5)),
        ("method", second(|e| e.method = 12)),
        ("stored, two sizes", second(|e| e.method = 0)),
        ("wrong CRC", second(|e| e.local_sizes = Some((1, e.compressed, e.size)))),
        ("size too small", second(|e| e.local_sizes = Some((e.crc, e.compressed, 10)))),
        ("size too large", second(|e| e.local_sizes = Some((e.crc, e.compressed, 5001)))),
        ("data too short", second(|e| e.local_sizes = Some((e.crc, e.compressed - 1, e.size)))),
        ("data too long", second(|e| e.local_sizes = Some((e.crc, e.compressed + 1, e.size)))),
        ("past the end", second(|e| e.local_sizes = Some((e.crc, u32::MAX - 1, e.size)))),
        (
            "two ZIP64 fields",
            second(|e| e.local_extra = [zip64_extra(&[]), extra(1, &[])].concat()),
        ),
        ("stored without an end", zip([entry("ok", "ok"), stored_stream])),
        ("no descriptor", second(|e| (e.flags, e.local_sizes) = (8, Some((0, 0, 0))))),
        (
            "another descriptor",
            zip([entry("ok", "ok"), first().streamed(true, false).with(|e| e.descriptor[5] ^= 1)]),
        ),
    ] {
        assert_eq!(streamed(&zip).0.len(), 1, "{name}");
    }
    assert_eq!(streamed(&archive(sample()).with(|a| a.prefix = b"#!".to_vec()).bytes()).0.len(), 0);
    for zip in [&b""[..], b"PK", b"PK\x03\x04", &zip([])] {
        assert_eq!(streamed(zip).0.len(), 0);
    }
}

/// Z50
#[test]
fn an_archive_that_is_cut_off_streams_what_is_there() {
    let whole = with_descriptors(true, false);
    let all = streamed(&whole).0;
    let mut most = 0;
    for length in 0..whole.len() {
        let (found, _) = streamed(&whole[..length]);
        assert!(found.iter().zip(&all).all(|(found, all)| found.1 == all.1) && found.len() >= most);
        most = found.len();
    }
    assert_eq!(most, all.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_archive_all_of_it_streams_as_it_is(
        files in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), 0..6_u8, 1..40_usize), 0..12)
    ) {
        let entries = files.iter().enumerate().map(|(n, (content, kind, times))| {
            let content = content.repeat(*times);
            match kind {
                0 => entry(format!("f{n}"), content),
                1 => deflated(format!("f{n}"), content),
                kind => deflated(format!("f{n}"), content).streamed(kind & 1 == 0, kind & 2 == 0),
            }
        });
        prop_assert_eq!(agrees(&zip(entries)), files.len());
    }
}
