//! The laws.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, sync_channel};
use std::{env, panic, thread};

use fastrand::Rng;

use crate::opentofu::{OpenTofu, receive, send};
use crate::support::skip;
use crate::tree::{Tree, shown};
use crate::{build, kept, mutate, numbers, plain};

/// The refusals of what OpenTofu takes: where readers disagree, where bytes are hidden, and limits.
/// A rule begins with one of these texts, or with an entry's name and then one of these.
const DELIBERATE: &[&str] = &[
    // Z02, Z06, Z07, Z08
    "its name is an absolute path",
    "its Unicode-Path field gives another name",
    "it is a directory with content",
    "it stands in the archive twice, with ",
    // Z19, Z20, Z24, Z30, Z56: bytes that belong to two entries or to none
    "it overlaps the next entry",
    "its data runs into the central directory",
    "it has no local header where the central directory says",
    "behind its data are bytes that belong to no entry",
    "behind its data is not the data descriptor",
    // Z25, Z26: OpenTofu takes a CRC of 0 for none, and does not look behind a deflate stream
    "its content does not have the declared CRC",
    "its data goes on behind the end of its deflate stream",
    // Z27, Z28, Z29, Z36: records that disagree
    "its name differs",
    "its compression method differs",
    "its flag word differs",
    "its CRC or size differs",
    "its ZIP64 field and its header disagree",
    "its header refers to a ZIP64 value that is not there",
    "it has two ZIP64 fields",
    "it is stored as it is, yet its two sizes differ",
    // Z31 to Z36: where the central directory lies
    "there are bytes before the first entry",
    "it is no zip archive: there is no end record",
    "there are two end records",
    "behind the end record stands something else",
    "the central directory ",
    "the end record ",
    "the ZIP64 ",
    "the archive is split over several",
    "it stands on another disk",
    // Z38, Z39, Z40: OpenTofu does not look at flags, nor at the method of a directory
    "it is encrypted",
    "its compression method is ",
    "it has patch or reserved flag bits set",
    // Z18, Z21, Z43, Z46
    "its name has a depth of ",
    "its size is ",
    "the size of all entries",
    "the number of entries is ",
];

/// An archive that was made up.
pub struct Case {
    pub number: u64,
    /// Whether packers write such archives.
    pub plain: bool,
    pub zip: Vec<u8>,
}

fn case(number: u64) -> Case {
    let mut rng = Rng::with_seed(number);
    let form = rng.u8(..10);
    let mut zip = match form {
        0..=2 => plain::archive(&mut rng).bytes(),
        3 => build::Archive::of(vec![plain::strange_file(&mut rng, b"main.tf")]).bytes(),
        _ => mutate::archive(&mut rng).bytes(),
    };
    if form == 1 || form == 4 {
        mutate::bytes_of(&mut rng, &mut zip);
    }
    Case { number, plain: matches!(form, 0 | 2), zip }
}

/// The first cases.
pub fn cases_until(end: u64) -> impl Iterator<Item = Case> {
    (0..end).map(case)
}

/// What became of a case. An `Err` breaks a law.
fn judge(case: &Case, theirs: Result<Tree, String>) -> Result<String, String> {
    let Ok(ours) = panic::catch_unwind(|| shown(&case.zip)) else {
        return Err("tofufs panics".into());
    };
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) if ours == theirs => Ok("one tree".into()),
        (Ok(ours), Ok(theirs)) => Err(format!("the trees differ: {ours:?}, OpenTofu: {theirs:?}")),
        (Ok(_), Err(error)) => Err(format!("OpenTofu refuses what tofufs shows: {error}")),
        (Err(error), Ok(_)) if case.plain => {
            Err(format!("tofufs refuses what packers write: {error}"))
        }
        (Err(error), Ok(_)) => {
            match DELIBERATE.iter().find(|rule| error.rule().starts_with(**rule)) {
                Some(rule) => Ok(format!("refused: {rule}")),
                None => Err(format!("tofufs refuses what OpenTofu takes: {error}")),
            }
        }
        (Err(_), Err(_)) => Ok("refused by both".into()),
    }
}

/// Reads the answers to `cases`; how many there are of each kind.
fn compare(cases: &Receiver<Case>, output: &mut BufReader<ChildStdout>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let mut broken = Vec::new();
    for case in cases {
        let theirs = receive(output).expect("an answer");
        match judge(&case, theirs) {
            Ok(kind) => *counts.entry(kind).or_default() += 1,
            Err(law) => {
                let kept = kept(&format!("archive-{}.zip", case.number), &case.zip);
                broken.push(format!("case {} ({}): {law}", case.number, kept.display()));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "{} laws broken:\n{}",
        broken.len(),
        broken[..broken.len().min(20)].join("\n")
    );
    counts
}

/// Holds all of `cases` against the laws; how many there are of each kind, or `None` where OpenTofu
/// cannot be asked.
fn hold(cases: impl Iterator<Item = Case> + Send + 'static) -> Option<BTreeMap<String, u64>> {
    let (_process, mut input, mut output) = OpenTofu::start()?;
    let (tx, rx) = sync_channel(256);
    let writer = thread::spawn(move || {
        for case in cases {
            send(&mut input, &case.zip).expect("the extractor reads");
            if tx.send(case).is_err() {
                return;
            }
        }
    });
    let counts = compare(&rx, &mut output);
    writer.join().expect("all cases were sent");
    for (kind, count) in &counts {
        println!("{count:8} {kind}");
    }
    Some(counts)
}

/// hostile inputs Z01 to Z58, as they come
#[test]
fn what_tofufs_shows_is_what_opentofu_unpacks() {
    let cases = numbers(1);
    let least = (cases.end - cases.start) / 10;
    let Some(counts) = hold(cases.map(case)) else { return };
    for kind in ["one tree", "refused by both"] {
        assert!(counts.get(kind).is_some_and(|count| *count >= least), "too few: {kind}");
    }
}

/// hostile input Z51
#[test]
fn a_flipped_bit_makes_no_third_tree() {
    let entries = vec![
        build::entry(b"main.tf", &b"resource \"x\" \"y\" {}\n".repeat(9), 8),
        build::entry(b"modules/", b"", 0),
        build::entry(b"modules/\xc3\xa9.tf", b"# umlaut", 0),
        {
            let mut streamed = build::entry(b"run.sh", b"#!/bin/sh\n", 8);
            streamed.attributes = 0o100_755 << 16;
            streamed.stream(true, false, true);
            streamed
        },
    ];
    let whole = build::Archive::of(entries).bytes();
    let flipped = (0..whole.len() * 8).map(move |bit| {
        let mut zip = whole.clone();
        zip[bit / 8] ^= 1 << (bit % 8);
        Case { number: bit as u64, plain: false, zip }
    });
    let _ = hold(flipped);
}

#[test]
fn archives_that_packers_made_are_shown() {
    let Some(dir) = env::var_os("TOFUFS_INPUTS_ZIPS") else {
        return skip("TOFUFS_INPUTS_ZIPS names no directory of archives");
    };
    let files = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("a directory").path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|suffix| suffix == "zip")).collect();
    files.sort();
    files.iter().enumerate().for_each(|(number, path)| println!("{number} {}", path.display()));
    let cases = files.into_iter().enumerate().map(|(number, path)| Case {
        number: number as u64,
        plain: true,
        zip: std::fs::read(path).expect("a readable file"),
    });
    let _ = hold(cases);
}
