//! Names: as OpenTofu would write them, or refused.

use super::build::{archive, deflated, directory, entry, extra, zip};
use super::*;

fn one(name: impl AsRef<[u8]>) -> Vec<u8> {
    zip([entry(name, "x")])
}

#[test]
fn parent_components_are_refused_and_look_alikes_are_names() {
    // Z01
    for name in ["../x", "a/../../x", "..", "a/..", r"..\x", r"a\..\..\x", "a/../b", r"a\.."] {
        refused_for(&one(name), "\"..\" component");
    }
    for name in ["%2e%2e/x", "..;/x", "．．/x", "..x/y", "x../y", "...", "a/...b"] {
        assert!(paths(&one(name)).contains(&name.to_owned()), "{name}");
    }
}

#[test]
fn absolute_names_are_refused() {
    // Z02
    for name in ["/etc/x", "//x", r"C:\x", "c:/x", r"\\srv\x", r"\\?\x", "/"] {
        refused_for(&one(name), "absolute");
    }
}

#[test]
fn other_systems_special_names_are_literal() {
    // Z02 (relative to a drive), Z03, Z52, Z53
    let names = [
        r"a\b",
        "C:x",
        "a:b",
        "CON",
        "nul.txt",
        "dot.",
        "trailing ",
        "-rf",
        "a\nb",
        "\u{1b}[31m",
        "\u{202e}x",
    ];
    for name in names {
        assert_eq!(paths(&one(name)), [name]);
    }
}

#[test]
fn nul_in_a_name_is_refused() {
    // Z04
    refused_for(&one("a\0b"), "NUL");
    refused_for(&zip([entry("a\0b", "1"), entry("a\0c", "2")]), "NUL");
}

#[test]
fn names_are_never_recoded() {
    // Z05: CP437, Shift JIS, KOI8-R, CP866, overlong, a lone surrogate; with and without the UTF-8
    // flag
    let names: [&[u8]; 6] = [
        b"caf\x82.tf",
        b"\x83\x5c.tf",
        b"\xc6\xc1\xca\xcc",
        b"\x94\xa0\xa9\xab",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
    ];
    for name in names {
        for flags in [0, 1 << 11] {
            let zip = zip([entry(name, "x").with(|e| e.flags = flags)]);
            assert_eq!(tree(&zip).unwrap().into_keys().collect::<Vec<_>>(), [name]);
        }
    }
    // Composed and decomposed forms are two names.
    assert_eq!(paths(&zip([entry("\u{e9}", "1"), entry("e\u{301}", "2")])).len(), 2);
}

#[test]
fn unicode_path_field_may_not_give_another_name() {
    // Z06
    let field = |name: &str| extra(0x7075, &[&[1, 0, 0, 0, 0], name.as_bytes()].concat());
    let same = entry("a", "x").with(|e| e.extra = field("a"));
    assert_eq!(paths(&zip([same])), ["a"]);
    refused_for(&zip([entry("a", "x").with(|e| e.extra = field("b"))]), "Unicode-Path");
    refused_for(&zip([entry("a", "x").with(|e| e.local_extra = field("b"))]), "Unicode-Path");
    refused_for(&zip([entry("a", "x").with(|e| e.extra = extra(0x7075, &[1]))]), "Unicode-Path");
}

#[test]
fn names_are_cleaned_as_opentofu_does() {
    // Z07
    for name in ["./a/b", "a/./b", "a//b", "a/b/."] {
        assert_eq!(paths(&one(name)), ["a/", "a/b"], "{name}");
    }
    assert_eq!(
        paths(&zip([directory("./"), directory("."), directory(""), entry("a", "")])),
        ["a"]
    );
    for name in ["", "."] {
        refused_for(&one(name), "top directory");
    }
    refused_for(&one("./"), "directory with content");
    refused_for(&one("a/"), "directory with content");
    // An empty deflate stream is no content; Java's jar writes it.
    let jar = deflated("a/", "").streamed(true, false).mode(0o040_755);
    assert_eq!(paths(&zip([jar])), ["a/"]);
    let hides = deflated("a/", "").with(|e| {
        e.data = b"not deflate".to_vec();
        e.compressed = 11;
    });
    refused_for(&zip([hides]), "directory with content");
}

#[test]
fn directories_are_what_opentofu_takes_for_them() {
    let unix = entry("a", "").mode(0o040_755);
    let dos = entry("b", "").with(|e| (e.system, e.attributes) = (0, 0x10));
    let unknown = entry("c", "").with(|e| (e.system, e.attributes) = (7, 0x10));
    let not_unix = entry("d", "").with(|e| e.attributes = 0x10);
    assert_eq!(paths(&zip([unix, dos, unknown, not_unix])), ["a/", "b/", "c", "d"]);
}

#[test]
fn duplicates_count_once_if_they_are_equal() {
    // Z08
    assert_eq!(paths(&zip([entry("a", "x"), entry("a", "x"), entry("./a", "x")])), ["a"]);
    assert_eq!(paths(&zip([entry("a/b", "xy"), deflated("a//b", "xy")])), ["a/", "a/b"]);
    assert_eq!(paths(&zip([directory("a/"), directory("a//")])), ["a/"]);
    refused_for(&zip([entry("a", "x"), entry("a", "y")]), "twice");
    refused_for(&zip([entry("a", "x"), entry("a", "x"), entry("a", "y")]), "twice");
    refused_for(&zip([entry("a", "x"), entry("a", "x").mode(0o100_755)]), "twice");
    // Only root could write the second over the first.
    let read_only = |name: &str| entry(name, "x").mode(0o100_444);
    let dos = |attributes| entry("a", "x").with(|e| (e.system, e.attributes) = (0, attributes));
    let unknown = || entry("a", "x").with(|e| e.system = 7);
    for pair in [
        [read_only("a"), read_only("a")],
        [entry("b", "x"), read_only("b")],
        [dos(1), dos(1)],
        [unknown(), unknown()],
    ] {
        refused_for(&zip([vec![entry("c", "")], pair.into()].concat()), "write it only once");
    }
    assert_eq!(paths(&zip([dos(0), dos(0)])), ["a"]);
    // Two contents of one size and CRC: they differ by the CRC's polynomial.
    let (one, other) = ([0; 5], [0x41, 0x06, 0x71, 0xdb, 0x01]);
    assert_eq!(crc32fast::hash(&one), crc32fast::hash(&other));
    refused_for(&zip([entry("a", one), deflated("a", other)]), "twice");
    let corrupt = zip([entry("a", "x").with(|e| e.crc ^= 1), entry("a", "x").with(|e| e.crc ^= 1)]);
    refused(&corrupt, "integrity");
}

#[test]
fn file_and_directory_of_one_name_are_refused() {
    // Z09, Z12
    for pair in [
        [entry("a", ""), entry("a/b", "")],
        [entry("a/b", ""), entry("a", "")],
        [directory("a/"), entry("a", "")],
        [entry("a", ""), directory("a/")],
        [entry("a", "/etc").mode(0o120_777), entry("a/passwd", "")],
    ] {
        refused_for(&zip(pair), "file and a directory at once");
    }
}

#[test]
fn names_that_differ_in_case_are_two_files() {
    // Z10
    assert_eq!(paths(&zip([entry("a.tf", "1"), entry("A.tf", "2")])), ["A.tf", "a.tf"]);
}

#[test]
fn special_entries_are_regular_files() {
    // Z11, Z13, Z14: symbolic links hold their text; devices, pipes and sockets their bytes
    for target in ["/etc/passwd", "../../x", "../out-evil", "a"] {
        let zip = zip([entry("a", target).mode(0o120_777)]);
        assert_eq!(contents(&zip).unwrap()[&b"a"[..]], (target.into(), true));
    }
    for kind in [0o020_000, 0o060_000, 0o010_000, 0o140_000] {
        let hard_link = extra(0x000d, &[0; 12]);
        let zip = zip([entry("a", "x").mode(kind | 0o644).with(|e| e.extra = hard_link)]);
        assert_eq!(contents(&zip).unwrap()[&b"a"[..]], (b"x".into(), false));
    }
}

#[test]
fn only_the_owners_execute_bit_counts() {
    // Z15, Z16
    for (mode, executable) in [
        (0o104_755, true),
        (0o106_711, true),
        (0o107_777, true),
        (0o100_000, false),
        (0o100_677, false),
    ] {
        let ids = extra(0x7875, &[1, 4, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
        let zip = zip([entry("a", "x").mode(mode).with(|e| e.extra = ids)]);
        assert_eq!(contents(&zip).unwrap()[&b"a"[..]].1, executable, "{mode:o}");
    }
    let dos = entry("a", "x").with(|e| (e.system, e.attributes) = (0, 0o100_755 << 16));
    assert!(!contents(&zip([dos])).unwrap()[&b"a"[..]].1);
}

#[test]
fn times_that_do_not_exist_are_clamped() {
    // Z17
    const Y1980: i64 = 315_532_800;
    let modified = |date: u16, time: u16, unix: Option<u32>| {
        let field =
            unix.map_or(Vec::new(), |t| extra(0x5455, &[&[1][..], &t.to_le_bytes()].concat()));
        let zip = zip([entry("a", "").with(|e| (e.date, e.time, e.extra) = (date, time, field))]);
        tree(&zip).unwrap()[&b"a"[..]].unwrap().modified
    };
    let dos = |year: u16, month: u16, day: u16| (year - 1980) << 9 | month << 5 | day;
    for date in
        [0, dos(1980, 0, 1), dos(1999, 15, 1), dos(2023, 2, 29), dos(2100, 2, 29), dos(2020, 4, 31)]
    {
        assert_eq!(modified(date, 0, None), Y1980, "{date:#x}");
    }
    assert_eq!(modified(dos(2020, 1, 1), 24 << 11, None), Y1980);
    assert_eq!(modified(dos(1980, 1, 1), 0, None), Y1980);
    assert_eq!(modified(dos(2000, 2, 29), 0, None), 951_782_400);
    assert_eq!(modified(dos(2025, 1, 1), 12 << 11 | 34 << 5 | 28, None), 1_735_734_896);
    assert_eq!(modified(dos(2100, 3, 1), 0, None), 4_107_542_400);
    assert_eq!(modified(dos(2107, 12, 31), 23 << 11 | 59 << 5 | 29, None), 4_354_819_198);
    assert_eq!(modified(dos(2025, 1, 1), 0, Some(1_000_000_000)), 1_000_000_000);
    for unsound in [0, 1 << 31, u32::MAX] {
        assert_eq!(modified(dos(2000, 2, 29), 0, Some(unsound)), 951_782_400);
    }
}

#[test]
fn names_too_long_or_too_deep_are_refused() {
    // Z45, Z46
    assert_eq!(paths(&one("x".repeat(255))).len(), 1);
    refused_for(&one("x".repeat(256)), "255 (component)");
    refused_for(&one("x".repeat(65_535)), "255 (component)");
    assert_eq!(paths(&one("d/".repeat(255) + "x")).len(), 256);
    refused_for(&one("d/".repeat(256) + "x"), "256 (depth)");
    refused_for(&one("d/".repeat(32_767)), "256 (depth)");
    let long = ["x".repeat(255).as_str(); 17].join("/");
    assert_eq!(paths(&one(&long[..4095])).len(), 16);
    refused_for(&one(&long[..4097]), "4095 (path)");
}

#[test]
fn a_refusal_is_one_printable_line() {
    // Z53
    let text = refused(&one(b"\x1b[31m\n\xff\xe2\x80\xae/../\"x"), "structure");
    assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
    assert!(text.contains(r#"\u{1b}[31m\n\xff\u{202e}/../\"x"#), "{text}");
    let text = refused(&one("../".to_owned() + &"x".repeat(60_000)), "structure");
    assert!(text.len() < 1000, "{}", text.len());
}

#[test]
fn comments_and_foreign_fields_are_ignored() {
    // Z41, Z42: unknown and overrunning extra fields, repeated numbers, padding as zipalign writes
    // it
    let fields = [
        extra(0xcafe, &[]),
        extra(0x5455, &[9]),
        extra(0x5455, &[1, 2]),
        vec![0; 7],
        vec![9, 9, 255, 255, 1],
    ];
    let plain = entry("a", "x").with(|e| {
        e.extra = fields.concat();
        e.local_extra = [extra(0xd935, &[0; 40]), vec![0; 3]].concat();
        e.comment = b"\x1b[2J".repeat(16_000);
    });
    let zip = archive([plain]).with(|a| a.comment = b"comment".repeat(9000)).bytes();
    assert_eq!(paths(&zip), ["a"]);
}
