//! Structure: every byte accounted for, everything said twice and in agreement, within the limits.

use super::build::{Entry, archive, deflated, directory, entry, extra, zip, zip64_extra};
use super::*;

fn sample() -> Vec<Entry> {
    vec![directory("d/"), entry("d/a", "hello"), deflated("b", "world world world world")]
}

#[test]
fn limits_refuse_by_what_is_declared() {
    // Z18, Z21, Z43: nothing of the content is read
    let too_large = |zip: &[u8], limits: Limits, name: &str| {
        let error = tree_within(zip, &limits).unwrap_err();
        assert_eq!(class(&error), "too large", "{error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    let limits = Limits::default();
    let claims = |size: u32| deflated("a", "x").with(|e| e.size = size);
    let wide = |size: u64| {
        let entry = claims(u32::MAX).with(|e| {
            e.extra = zip64_extra(&[size]);
            e.local_extra = zip64_extra(&[size, e.compressed.into()]);
        });
        zip([entry])
    };
    tree_within(&wide(4 << 30), &limits).expect("the last size that is accepted");
    too_large(&wide((4 << 30) + 1), limits, "4294967296 (entry; --entry-max-size raises it)");
    too_large(&wide(1 << 62), limits, "(entry");
    too_large(&wide(4 << 30), Limits::up_to(4 << 30, 1 << 30), "1073741824 (entry");
    // What a raised limit allows, the total does not refuse.
    tree_within(&wide(6 << 30), &Limits::up_to(4 << 30, 6 << 30))
        .expect("an entry within its limit");
    let bomb = (0..5).map(|n| claims(1 << 30).with(|e| e.name = vec![b'a' + n]));
    too_large(&zip(bomb), limits, "4294967296 or 100 times the archive's size (total and ratio)");

    let small = zip(sample());
    tree_within(&small, &Limits { total: 0, ..limits }).expect("the ratio holds");
    tree_within(&small, &Limits { ratio: 0, ..limits }).expect("the total holds");
    too_large(&small, Limits { total: 27, ratio: 0, ..limits }, "27 or 0 times");
    too_large(&small, Limits { entries: 2, ..limits }, "2 (entries)");
    too_large(
        &small,
        Limits { archive: 100, ..limits },
        "100 (archive; --archive-max-size raises it)",
    );
}

#[test]
fn each_limit_is_the_last_value_that_is_accepted() {
    // hostile input, limits
    let Limits { archive, total, ratio, entry, entries, depth, component, path } =
        Limits::default();
    assert_eq!((archive, total, ratio, entry), (4 << 30, 4 << 30, 100, 4 << 30));
    assert_eq!((entries, depth, component, path), (200_000, 256, 255, 4095));
    let zip = zip(sample());
    let length = zip.len() as u64;
    type Limit = (&'static str, u64, fn(&mut Limits, u64));
    let limits: [Limit; 7] = [
        ("(archive;", length, |limits, value| limits.archive = value),
        ("(total and ratio)", 28, |limits, value| (limits.total, limits.ratio) = (value, 0)),
        ("(entry;", 23, |limits, value| limits.entry = value),
        ("(entries)", 3, |limits, value| limits.entries = value),
        ("(depth)", 2, |limits, value| limits.depth = value as usize),
        ("(component)", 1, |limits, value| limits.component = value as usize),
        ("(path)", 3, |limits, value| limits.path = value as usize),
    ];
    for (name, most, set) in limits {
        let within = |value| {
            let mut limits = Limits::default();
            set(&mut limits, value);
            tree_within(&zip, &limits).map_err(|error| error.to_string())
        };
        assert_eq!(within(most).map(|tree| tree.len()), Ok(3), "{name}");
        let error = within(most - 1).map(|tree| tree.len()).unwrap_err();
        assert!(error.contains(name) && error.contains(&(most - 1).to_string()), "{error}");
    }
}

#[test]
fn two_hundred_thousand_entries_are_the_limit() {
    // Z43
    let many = |count: u32| {
        let entries = (0..count).map(|n| entry(format!("d{}/f{n}", n % 100), ""));
        let wide = count > 65_535;
        archive(entries).with(|a| {
            if wide {
                a.end64 = Some(|_| {});
                a.end = |end| end.0 = u16::MAX;
            }
        })
    };
    for count in [65_535, 65_536] {
        assert_eq!(tree(&many(count).bytes()).unwrap().len(), count as usize + 100);
    }
    let error = tree(&many(200_001).bytes()).unwrap_err();
    assert_eq!(class(&error), "too large", "{error}");
}

#[test]
fn overlapping_entries_are_refused() {
    // Z19: many names for one entry
    let kernel = deflated("a", vec![0; 100_000]);
    let copy = kernel.clone().with(|e| e.offset = Some(0));
    refused_for(&zip([kernel.clone(), copy]), "overlaps");
    // Z20: the data of the first entry, stored, holds the local header of the second
    let inner = zip([entry("b", "x")]);
    let quoted = inner[..inner.len() - 22 - 47].to_vec();
    let outer = entry("a", &quoted);
    let within = entry("b", "x").with(|e| e.offset = Some(31));
    let both = zip([outer, within]);
    refused_for(&both, "overlaps");
}

#[test]
fn data_behind_the_entries_is_refused() {
    // Z24
    for compressed in [6, 1000, 1 << 20] {
        let lie = entry("a", "hello").with(|e| (e.compressed, e.size) = (compressed, compressed));
        refused_for(&zip([lie]), "runs into the central directory");
    }
    let shorter = deflated("a", "hello").with(|e| e.compressed -= 1);
    refused_for(&zip([shorter]), "belong to no entry");
    let into_next = deflated("a", "hello").with(|e| e.compressed += 1);
    refused_for(&zip([into_next, entry("b", "")]), "overlaps");
}

#[test]
fn headers_that_disagree_are_refused() {
    // Z27, Z28, Z29
    refused_for(
        &zip([deflated("a", "x").with(|e| e.local_method = Some(0))]),
        "compression method differs",
    );
    refused_for(&zip([entry("a", "x").with(|e| e.local_name = Some(b"b".into()))]), "name differs");
    refused_for(
        &zip([entry("a", "x").with(|e| e.local_name = Some(b"a/".into()))]),
        "name differs",
    );
    let real = entry("a", "x");
    for (crc, compressed, size) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
        let sizes = (real.crc + crc, real.compressed + compressed, real.size + size);
        refused_for(
            &zip([entry("a", "x").with(|e| e.local_sizes = Some(sizes))]),
            "CRC or size differs",
        );
        let streamed = entry("a", "x").streamed(true, false).with(|e| e.local_sizes = Some(sizes));
        refused_for(&zip([streamed]), "CRC or size differs");
    }
    refused_for(
        &zip([entry("a", "x").with(|e| e.local_sizes = Some((0, 0, 0)))]),
        "CRC or size differs",
    );
    // The flag of descriptors in one header only.
    refused_for(&zip([entry("a", "x").with(|e| e.local_flags = Some(8))]), "flag word differs");
    refused_for(
        &zip([entry("a", "x").streamed(true, false).with(|e| e.local_flags = Some(0))]),
        "flag word differs",
    );
    // The flag of UTF-8 decides nothing for ASCII names.
    assert_eq!(paths(&zip([entry("a", "x").with(|e| e.local_flags = Some(1 << 11))])), ["a"]);
    refused_for(
        &zip([entry("\u{e9}", "x").with(|e| e.local_flags = Some(1 << 11))]),
        "flag word differs",
    );
}

#[test]
fn streamed_entries_are_read() {
    // Z57
    for signature in [false, true] {
        for wide in [false, true] {
            let entries = sample().into_iter().map(|e| e.streamed(signature, wide));
            assert_eq!(contents(&zip(entries)).unwrap(), contents(&zip(sample())).unwrap());
            let known = deflated("a", "x").streamed(signature, wide).with(|e| e.local_sizes = None);
            assert_eq!(paths(&zip([known])), ["a"]);
        }
    }
    // ZIP64 marks with zeros, as Python writes for streams of unknown length.
    let python = deflated("a", "x").streamed(true, true).with(|e| {
        e.local_sizes = Some((0, u32::MAX, u32::MAX));
        e.local_extra = zip64_extra(&[0, 0]);
    });
    assert_eq!(paths(&zip([python])), ["a"]);
}

#[test]
fn descriptors_that_disagree_are_refused() {
    // Z29
    for signature in [false, true] {
        for wide in [false, true] {
            let good = deflated("a", "x").streamed(signature, wide);
            for at in 0..good.descriptor.len() {
                let bad = good.clone().with(|e| e.descriptor[at] ^= 1);
                refused_for(&zip([bad, entry("b", "")]), "descriptor");
            }
            let length = good.descriptor.len();
            refused_for(
                &zip([good.clone().with(|e| e.descriptor.truncate(length - 1))]),
                "descriptor",
            );
            refused_for(&zip([good.clone().with(|e| e.descriptor.push(0))]), "descriptor");
            refused_for(&zip([good.clone().with(|e| e.descriptor.clear())]), "descriptor");
        }
    }
}

#[test]
fn entries_in_one_place_only_are_refused() {
    // Z30
    for at in 0..3 {
        let mut entries = sample();
        entries[at].in_directory = false;
        let text = refused(&zip(entries), "structure");
        assert!(
            text.contains("before the first entry") || text.contains("belong to no entry"),
            "{text}"
        );
    }
    let nowhere = entry("b", "").with(|e| e.offset = Some(1 << 20));
    refused_for(&zip([entry("a", "x"), nowhere]), "no local header");
    refused_for(&zip([entry("a", "x").with(|e| e.local_signature += 1)]), "no local header");
    refused_for(
        &zip([entry("a", "x"), entry("b", "").with(|e| e.offset = Some(5))]),
        "no local header",
    );
}

#[test]
fn bytes_outside_the_entries_are_refused() {
    // Z31, Z32, Z34, Z49 (archives behind an image or a document), Z56
    let made = |change: fn(&mut super::build::Archive)| archive(sample()).with(change).bytes();
    refused_for(&made(|a| a.prefix = b"%PDF-1.7\n".into()), "before the first entry");
    let mut unadjusted = b"\x7fELF".to_vec();
    unadjusted.extend(zip(sample()));
    refused_for(&unadjusted, "does not end where the end record begins");
    refused_for(&made(|a| a.gap = vec![0]), "belong to no entry");
    refused_for(&made(|a| a.tail = vec![0]), "does not end where the end record begins");
    let whole = zip(sample());
    for length in [1, 22, 512, 65_535] {
        let mut junk = whole.clone();
        junk.resize(junk.len() + length, 0);
        refused_for(&junk, "something else");
    }
    for length in [512, 10_240, 65_024] {
        let mut padded = whole.clone();
        padded.resize(length, 0);
        assert_eq!(paths(&padded).len(), 3);
        padded[length - 1] = 1;
        refused_for(&padded, "something else");
    }
    refused_for(&[&whole[..], b"\n"].concat(), "something else");
    let mut junk = whole.clone();
    junk.resize(junk.len() + 65_536, 0);
    refused_for(&junk, "no end record");
    assert_eq!(paths(&made(|a| a.comment = vec![b'x'; 65_535])).len(), 3);
    let gaps = sample().into_iter().map(|e| e.with(|e| e.descriptor = b"gap".into()));
    refused_for(&zip(gaps), "belong to no entry");
    assert_eq!(paths(&made(|a| a.reversed = true)).len(), 3);
}

#[test]
fn a_second_end_record_is_refused() {
    // Z33: in the comment, as a second record, in the data of an entry
    let good = zip(sample());
    let end = good[good.len() - 22..].to_vec();
    let comment = |comment: Vec<u8>| archive(sample()).with(|a| a.comment = comment).bytes();
    refused_for(&comment(end.clone()), "two end records");
    refused_for(&comment([&end[..], b"more"].concat()), "something else");
    refused_for(&comment(b"PK\x05\x06".repeat(6)), "something else");
    // Too short a rest for a record: no reader takes it for one.
    assert_eq!(paths(&comment(b"PK\x05\x06".into())).len(), 3);

    let to_the_end = |rest: u16| [&end[..20], &rest.to_le_bytes()].concat();
    let inner = entry("a", to_the_end(0));
    let distance = zip([inner]).len() - 31 - 22;
    refused_for(&zip([entry("a", to_the_end(distance as u16))]), "two end records");
    let mut here = end.clone();
    here[12..20].copy_from_slice(&[31, 0, 0, 0, 0, 0, 0, 0]);
    refused_for(&zip([entry("a", here)]), "two end records");
    // Z22: a zip within a zip is a file.
    assert_eq!(contents(&zip([entry("inner.zip", &good)])).unwrap()[&b"inner.zip"[..]].0, good);
}

#[test]
fn end_records_that_lie_are_refused() {
    // Z34
    let lie = |end: fn(&mut (u16, u32, u32))| archive(sample()).with(|a| a.end = end).bytes();
    refused_for(&lie(|end| end.0 += 1), "fewer entries");
    refused_for(&lie(|end| end.0 -= 1), "more than the entries");
    refused_for(&lie(|end| end.0 = u16::MAX), "fewer entries");
    for end in [
        |end: &mut (u16, u32, u32)| end.1 += 1,
        |end: &mut (u16, u32, u32)| end.1 -= 1,
        |end: &mut (u16, u32, u32)| end.2 += 1,
        |end: &mut (u16, u32, u32)| end.2 -= 1,
        |end: &mut (u16, u32, u32)| end.1 = u32::MAX,
        |end: &mut (u16, u32, u32)| end.2 = u32::MAX,
    ] {
        refused_for(&lie(end), "does not end where");
    }
    refused_for(
        &lie(|end| {
            end.1 += 1;
            end.2 -= 1;
        }),
        "fewer entries",
    );
    refused_for(
        &lie(|end| {
            end.1 -= 1;
            end.2 += 1;
        }),
        "fewer entries",
    );
}

#[test]
fn split_archives_are_unsupported() {
    // Z35
    unsupported_for(&archive(sample()).with(|a| a.disk = 1).bytes(), "split");
    unsupported_for(&zip([entry("a", "x").with(|e| e.disk = 1)]), "split");
    for mark in [b"PK00", b"PK\x07\x08"] {
        unsupported_for(&archive(sample()).with(|a| a.prefix = mark.into()).bytes(), "split");
    }
}

#[test]
fn zip64_end_records_must_agree() {
    // Z36
    type Change64 = fn(&mut super::build::End64);
    type Change = fn(&mut (u16, u32, u32));
    let made = |end64: Change64, end: Change| {
        archive(sample())
            .with(|a| {
                a.end64 = Some(end64);
                a.end = end;
            })
            .bytes()
    };
    let all_marks: Change = |end| *end = (u16::MAX, u32::MAX, u32::MAX);
    for end in [all_marks, |_| {}, |end| end.0 = u16::MAX, |end| end.2 = u32::MAX] {
        assert_eq!(paths(&made(|_| {}, end)), ["b", "d/", "d/a"]);
    }
    refused_for(&made(|_| {}, |end| end.1 = u32::MAX), "disagree");
    refused_for(&made(|_| {}, |end| end.0 = 2), "disagree");
    refused_for(&made(|_| {}, |end| end.2 = 0), "disagree");
    let lies: [(Change64, &str); 5] = [
        (|e| e.record = false, "locator does not point"),
        (|e| e.locator = -20, "locator does not point"),
        (|e| e.size = 1 << 63, "does not end where"),
        (|e| e.offset = u64::MAX, "does not end where"),
        (|e| e.entries = 4, "fewer entries"),
    ];
    for (lie, rule) in lies {
        refused_for(&made(lie, all_marks), rule);
    }
    unsupported_for(&made(|e| e.disks = 2, all_marks), "split");
    let error = tree(&made(|e| e.entries = 1 << 63, all_marks)).unwrap_err();
    assert_eq!(class(&error), "too large");
}

#[test]
fn zip64_fields_must_agree() {
    // Z36
    let marked = |extra: Vec<u8>, local: Vec<u8>| {
        let entry = entry("a", "hello").with(|e| {
            (e.compressed, e.size) = (u32::MAX, u32::MAX);
            (e.extra, e.local_extra) = (extra, local);
        });
        zip([entry])
    };
    let both = zip64_extra(&[5, 5]);
    assert_eq!(paths(&marked(both.clone(), both.clone())), ["a"]);
    assert_eq!(paths(&marked(zip64_extra(&[5, 5, 0]), both.clone())), ["a"]);
    refused_for(&marked(Vec::new(), both.clone()), "not there");
    refused_for(&marked(both.clone(), Vec::new()), "not there");
    refused_for(&marked(zip64_extra(&[5]), both.clone()), "not there");
    refused_for(&marked(both.clone(), zip64_extra(&[5])), "not there");
    refused_for(&marked(both.clone(), zip64_extra(&[6, 5])), "differs");
    refused_for(&marked(zip64_extra(&[5, 5, 7]), both.clone()), "disagree");
    refused_for(&marked([both.clone(), both.clone()].concat(), both.clone()), "two ZIP64 fields");
    refused_for(&marked(both.clone(), [both.clone(), both.clone()].concat()), "two ZIP64 fields");

    let unmarked = |extra: Vec<u8>, local: Vec<u8>| {
        zip([entry("a", "hello").with(|e| (e.extra, e.local_extra) = (extra, local))])
    };
    assert_eq!(paths(&unmarked(both.clone(), both.clone())), ["a"]);
    refused_for(&unmarked(zip64_extra(&[5, 6]), Vec::new()), "disagree");
    refused_for(&unmarked(zip64_extra(&[5, 5, 0, 5]), Vec::new()), "disagree");
    // A disk number may be marked as well: the first disk is the only one.
    let on_disk = |number: u8| {
        let entry = entry("a", "hello").with(|e| {
            (e.compressed, e.size, e.disk) = (u32::MAX, u32::MAX, u16::MAX);
            let (mut extra, disk) = (zip64_extra(&[5, 5]), [number, 0, 0, 0]);
            extra[2] += 4;
            extra.extend(disk);
            (e.extra, e.local_extra) = (extra, zip64_extra(&[5, 5]));
        });
        zip([entry])
    };
    assert_eq!(paths(&on_disk(0)), ["a"]);
    assert!(tree(&on_disk(1)).is_err());
}

#[test]
fn a_zip64_field_may_hold_more_than_is_referred_to_if_that_is_true() {
    let field = |offset: u64, disk: u32| {
        let mut field: Vec<u8> = [5, 5, offset].into_iter().flat_map(u64::to_le_bytes).collect();
        field.extend(disk.to_le_bytes());
        extra(1, &field)
    };
    let marked = |extra: Vec<u8>| {
        let entry = entry("a", "hello").with(|e| {
            (e.compressed, e.size) = (u32::MAX, u32::MAX);
            (e.extra, e.local_extra) = (extra, zip64_extra(&[5, 5]));
        });
        zip([entry])
    };
    assert_eq!(paths(&marked(field(0, 0))), ["a"]);
    refused_for(&marked(field(1, 0)), "disagree");
    refused_for(&marked(field(0, 1)), "disagree");
    let unmarked = |extra: Vec<u8>| zip([entry("a", "hello").with(|e| e.extra = extra)]);
    assert_eq!(paths(&unmarked(field(0, 0))), ["a"]);
    refused_for(&unmarked(field(7, 0)), "disagree");
    // Neither a list of the standard, nor without a place to hide bytes in.
    refused_for(&marked(extra(1, &[&field(0, 0)[4..], &[0]].concat())), "disagree");
    refused_for(&marked(extra(1, &[&field(0, 0)[4..28], &[0; 3]].concat())), "disagree");
    // With the offset unmarked nobody can say where the disk number stands.
    let disk = entry("a", "hello").with(|e| (e.disk, e.extra) = (u16::MAX, field(0, 0)));
    unsupported_for(&zip([disk]), "another disk");
}

#[test]
fn room_for_zip64_sizes_may_be_left_empty_in_a_local_header() {
    let made = |local: Vec<u8>| zip([entry("a", "hello").with(|e| e.local_extra = local)]);
    for length in [0, 8, 16, 24, 28] {
        assert_eq!(paths(&made(extra(1, &vec![0; length]))), ["a"], "{length}");
    }
    refused_for(&made(extra(1, &[0; 29])), "differs");
    for at in 0..16 {
        let mut room = [0; 16];
        room[at] = 1;
        refused_for(&made(extra(1, &room)), "differs");
    }
    // A value that is referred to is no room.
    let half = entry("a", "hello").with(|e| {
        e.local_sizes = Some((e.crc, e.compressed, u32::MAX));
        e.local_extra = zip64_extra(&[5, 0]);
    });
    refused_for(&zip([half]), "differs");
    // Nor is it in the central directory, to which nobody goes back.
    refused_for(&zip([entry("a", "hello").with(|e| e.extra = zip64_extra(&[0, 0]))]), "disagree");
}

#[test]
fn a_descriptor_may_refer_to_zip64_sizes_as_the_headers_do() {
    let made = |signed: bool, change: fn(&mut Entry)| {
        let entry = deflated("a", "hello").streamed(signed, false).with(|e| {
            let sizes = e.descriptor.len() - 8;
            e.descriptor[sizes..].fill(0xff);
            e.local_sizes = Some((0, u32::MAX, u32::MAX));
            e.local_extra = zip64_extra(&[0, 0]);
            e.extra = zip64_extra(&[e.size.into(), e.compressed.into()]);
            (e.compressed, e.size) = (u32::MAX, u32::MAX);
        });
        zip([entry.with(change)])
    };
    for signed in [false, true] {
        let content = contents(&made(signed, |_| {})).unwrap();
        assert_eq!(content[&b"a"[..]].0, b"hello");
        for at in 0..8 {
            let mut zip = made(signed, |_| {});
            let descriptor =
                zip.windows(8).position(|bytes| bytes == [0xff; 8]).expect("the local header");
            let behind = descriptor + 8;
            let sizes = behind
                + zip[behind..].windows(8).position(|bytes| bytes == [0xff; 8]).expect("two sizes");
            zip[sizes + at] ^= 1;
            refused_for(&zip, "descriptor");
        }
        // Only where the central directory refers to them too.
        let narrow = made(signed, |e| {
            e.extra.clear();
            (e.compressed, e.size) = (e.data.len() as u32, 5);
        });
        refused_for(&narrow, "descriptor");
        let wide = made(signed, |e| {
            let sizes = e.descriptor.len() - 8;
            e.descriptor.truncate(sizes);
            e.descriptor.extend([0xff; 16]);
        });
        refused_for(&wide, "descriptor");
        refused_for(&made(signed, |e| e.crc ^= 1), "descriptor");
    }
}

/// The bytes of an archive, changed at `offset` from the `which`th `mark` on.
fn patched(mut zip: Vec<u8>, mark: &[u8; 4], which: usize, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let found =
        (0..zip.len()).filter(|at| zip[*at..].starts_with(mark)).nth(which).expect("the record");
    zip[found + offset..][..bytes.len()].copy_from_slice(bytes);
    zip
}

#[test]
fn each_field_of_the_end_records_is_held_to_its_value() {
    // Z34, Z35, Z36
    let end =
        |offset, value: u16| patched(zip(sample()), b"PK\x05\x06", 0, offset, &value.to_le_bytes());
    unsupported_for(&end(4, 1), "split over several disks");
    unsupported_for(&end(6, 1), "split over several disks");
    refused_for(&end(8, 2), "counts its entries in two ways");
    let wide = || {
        let marked: fn(&mut (u16, u32, u32)) = |end| *end = (u16::MAX, u32::MAX, u32::MAX);
        let made = archive(sample()).with(|a| {
            a.end64 = Some(|_| {});
            a.end = marked;
        });
        made.bytes()
    };
    assert_eq!(paths(&wide()).len(), 3);
    unsupported_for(&patched(wide(), b"PK\x06\x07", 0, 4, &[1, 0, 0, 0]), "ZIP64 locator");
    unsupported_for(&patched(wide(), b"PK\x06\x07", 0, 16, &[2, 0, 0, 0]), "ZIP64 locator");
    refused_for(
        &patched(wide(), b"PK\x06\x06", 0, 0, b"PK\x06\x05"),
        "missing or of another length",
    );
    refused_for(&patched(wide(), b"PK\x06\x06", 0, 4, &[45]), "missing or of another length");
}

#[test]
fn headers_that_reach_beyond_their_place_are_refused() {
    // Z30, Z34: the comment of an entry that is not the last, the extra field of a local header
    let most = [0xff, 0xff];
    refused_for(&patched(zip(sample()), b"PK\x01\x02", 0, 32, &most), "fewer entries");
    refused_for(&patched(zip(sample()), b"PK\x01\x02", 2, 32, &most), "fewer entries");
    for which in 0..3 {
        refused_for(&patched(zip(sample()), b"PK\x03\x04", which, 28, &most), "no local header");
    }
    // Not as far as the archive goes, so that all bytes are there.
    let long = archive(sample()).with(|a| a.comment = vec![b'x'; 5000]).bytes();
    refused_for(&patched(long, b"PK\x01\x02", 0, 32, &1000_u16.to_le_bytes()), "fewer entries");
    let whole = zip(sample());
    let local = whole.len() as u16 - 30 - 2;
    refused_for(&patched(whole, b"PK\x03\x04", 0, 28, &local.to_le_bytes()), "no local header");
}

#[test]
fn encryption_is_unsupported() {
    // Z38
    for flags in [1, 1 << 6 | 1, 1 << 13] {
        unsupported_for(&zip([entry("a", "x").with(|e| e.flags = flags)]), "encrypted");
    }
    unsupported_for(&zip([entry("a", "x").with(|e| e.method = 99)]), "encrypted");
}

#[test]
fn methods_other_than_stored_and_deflate_are_unsupported() {
    // Z39
    for method in [1, 6, 9, 12, 14, 93, 95, 96, 97, 98] {
        unsupported_for(
            &zip([entry("a", "x").with(|e| e.method = method)]),
            "compression method is",
        );
    }
}

#[test]
fn patch_and_reserved_flags_are_refused() {
    // Z40
    for bit in [4, 5, 7, 8, 9, 10, 12, 14, 15] {
        refused_for(&zip([entry("a", "x").with(|e| e.flags = 1 << bit)]), "reserved flag bits");
    }
}

#[test]
fn empty_archives_are_refused_and_trees_of_directories_are_not() {
    // Z48
    refused_for(&zip([]), "empty, which OpenTofu refuses");
    refused_for(&[], "no zip archive");
    refused_for(&zip([])[..21], "no zip archive");
    assert_eq!(paths(&zip([directory("a/"), directory("b/c/")])), ["a/", "b/", "b/c/"]);
}

#[test]
fn other_formats_are_refused() {
    // Z49
    for other in [
        &b"\x1f\x8b\x08\0\0\0\0\0\0\xff"[..],
        b"<!doctype html><title>404</title>",
        b"\x7fELF\x02\x01\x01\0",
    ] {
        refused_for(&[other, &[0; 600]].concat(), "no zip archive");
    }
}
