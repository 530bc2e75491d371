//! A small archive that is cut short at every byte, and in which every single bit is another.
//!
//! What it shows then are the names and contents that it had, or it is refused. Whether a file is
//! executable may differ: that stands in one place alone, so that no second one contradicts it.

use std::panic;

#[allow(dead_code, reason = "of the trees, what an archive shows")]
#[path = "../inputs/tree.rs"]
mod tree;

use super::support::pack;
use super::*;
use tree::Node;

const SIZE: usize = 4096;

/// An archive of exactly [`SIZE`] bytes: text that deflates, noise that does not, a directory.
fn archive() -> Vec<u8> {
    let text = b"variable \"region\" {}\n".repeat(30);
    let of = |fill: usize| {
        let noise = pack::noise(4, fill);
        pack::zip(&[("main.tf", &text), ("modules/net/main.tf!", &text), ("noise.bin", &noise)])
    };
    let without = of(1000).len();
    let fill = 1000 + SIZE - without;
    // A stream of noise grows by as much as the noise, but for the heads of its blocks.
    (fill - 16..=fill + 16).map(of).find(|zip| zip.len() == SIZE).expect("an archive of that size")
}

/// Names with sizes and contents, or nothing where it is refused.
fn shown(zip: &[u8]) -> Result<Option<Vec<(String, String)>>, String> {
    let seen = panic::catch_unwind(|| tree::shown(zip)).map_err(|_| "it panics".to_owned())?;
    let content = |node: Node| match node {
        Node::File { size, sha256, .. } => format!("{size} {sha256}"),
        node => format!("{node:?}"),
    };
    Ok(seen.ok().map(|tree| tree.into_iter().map(|(name, node)| (name, content(node))).collect()))
}

fn compared(zip: &[u8], whole: &[(String, String)]) -> Result<bool, String> {
    match shown(zip)? {
        None => Ok(true),
        Some(tree) if tree == whole => Ok(false),
        Some(tree) => Err(format!("it shows {tree:?}")),
    }
}

// Z01 to Z60 are archives that somebody made; these are those that chance makes.
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn an_archive_cut_short_anywhere_or_with_any_bit_flipped_shows_what_it_had_or_is_refused() {
    let zip = archive();
    let whole = shown(&zip).unwrap().expect("a sound archive");
    assert_eq!(whole.len(), 5, "{whole:?}");
    let mut cut = Tries::default();
    for length in 0..zip.len() {
        let outcome = compared(&zip[..length], &whole);
        let refused = outcome.and_then(|refused| {
            if refused { Ok(()) } else { Err("it is taken for whole".to_owned()) }
        });
        cut.count(refused.map_err(|e| format!("cut to {length} bytes: {e}")));
    }
    let mut flipped = Tries::default();
    let mut refused = 0;
    let mut damaged = zip.clone();
    for bit in 0..zip.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        let outcome = compared(&damaged, &whole);
        refused += u64::from(outcome == Ok(true));
        flipped.count(outcome.map(drop).map_err(|e| format!("bit {bit}: {e}")));
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    cut.score("archive cut at every byte", SIZE as u64, "all are refused".to_owned()).tell();
    let figures = format!("{refused} are refused, the others change no name and no content");
    flipped.score("archive, every single bit", 8 * SIZE as u64, figures).tell();
}
