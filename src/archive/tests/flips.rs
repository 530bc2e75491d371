//! Damage: an archive that is cut or has a changed bit is refused, or has the same tree.

use super::build::{archive, deflated, directory, entry, zip};
use super::tools::{line, oracle};
use super::*;

fn sample() -> Vec<u8> {
    let text = |n: usize| format!("variable \"v{n}\" {{\n  type = string\n}}\n");
    let mut entries = vec![directory("modules/"), entry("README", "# x\n"), entry("run", "#!").mode(0o100_755)];
    entries.extend((0..3).map(|n| deflated(format!("{n}.tf"), text(n))));
    entries.extend((3..6).map(|n| deflated(format!("modules/{n}.tf"), text(n)).streamed(n % 2 == 0, n == 5)));
    entries.push(entry("link", "README").mode(0o120_777));
    archive(entries).with(|a| a.comment = b"made by hand".to_vec()).bytes()
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    // Z50
    let whole = sample();
    assert_eq!(paths(&whole).len(), 10);
    for length in 0..whole.len() {
        refused(&whole[..length], "structure");
        refused(&whole[whole.len() - length..], "structure");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_gives_the_same_tree() {
    // Z51: what may change is what OpenTofu takes from the directory alone, the execute bit
    let whole = sample();
    let expected = contents(&whole).unwrap();
    let (mut refused, mut changed_mode) = (0, 0);
    for bit in 0..whole.len() * 8 {
        let mut zip = whole.clone();
        zip[bit / 8] ^= 1 << (bit % 8);
        match contents(&zip) {
            Err(_) => refused += 1,
            Ok(mut contents) if contents != expected => {
                for (path, (_, executable)) in &mut contents {
                    *executable = expected.get(path).is_some_and(|(_, executable)| *executable);
                }
                assert!(contents == expected, "bit {bit} makes another tree");
                changed_mode += 1;
            }
            Ok(_) => {}
        }
    }
    assert!(refused > whole.len() * 4, "only {refused} flips were noticed");
    assert!((1..=10 * 24).contains(&changed_mode), "{changed_mode} flips changed a mode");
}

#[test]
fn random_bytes_never_panic() {
    // Z59: three random changes in sound archives, by a fixed seed
    let mut random = fastrand::Rng::with_seed(59);
    let whole = zip([directory("d/"), deflated("d/a", "a a a a a").streamed(true, false), entry("b", "b")]);
    for _ in 0..20_000 {
        let mut zip = whole.clone();
        for _ in 0..3 {
            let at = random.usize(..zip.len());
            let any = random.u8(..);
            zip[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff, any]).unwrap();
        }
        let _ = contents(&zip);
    }
}

#[test]
fn what_is_accepted_is_what_opentofu_extracts() {
    // Z51, Z58: every flipped bit, and random changes, against the rules of OpenTofu's extractor
    let mut random = fastrand::Rng::with_seed(58);
    let whole = sample();
    let mut archives: Vec<Vec<u8>> = (0..whole.len() * 8)
        .map(|bit| {
            let mut zip = whole.clone();
            zip[bit / 8] ^= 1 << (bit % 8);
            zip
        })
        .collect();
    let lookalikes = ["a/b", "a", "a//b", "./a", "a/", "..", "a\\..", "/a", "a/.", "\u{e9}", ".", "a\0"];
    for _ in 0..5000 {
        let entries = (0..random.usize(1..4)).map(|_| {
            let name = random.choice(lookalikes).unwrap();
            let content = *random.choice(&["", "x", "xx"]).unwrap();
            let made = if random.bool() { deflated(name, content) } else { entry(name, content) };
            made.with(|e| {
                e.system = *random.choice(&[0, 3, 7, 11, 19]).unwrap();
                let mode = *random.choice(&[0o100_755, 0o040_755, 0o120_777, 0o100_000]).unwrap();
                e.attributes = mode << 16 | u32::from(random.bool()) << 4;
                e.flags = if random.bool() { 1 << 11 } else { 0 };
            })
        });
        archives.push(zip(entries.collect::<Vec<_>>()));
    }
    archives.retain(|zip| contents(zip).is_ok());
    let Some(theirs) = oracle(&archives) else { return };
    assert_eq!(theirs.len(), archives.len());
    assert!(archives.len() > 500, "only {} archives to compare", archives.len());
    for (zip, theirs) in archives.iter().zip(theirs) {
        assert_eq!(line(&contents(zip).unwrap()), theirs);
    }
}
