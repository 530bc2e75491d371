//! Damage: an archive that is cut or has a changed bit is refused, or has the same tree.

use super::build::{archive, deflated, directory, entry, zip};
use super::*;

fn sample() -> Vec<u8> {
    let text = |n: usize| format!("variable \"v{n}\" {{\n  type = string\n}}\n");
    let mut entries =
        vec![directory("modules/"), entry("README", "# x\n"), entry("run", "#!").mode(0o100_755)];
    entries.extend((0..3).map(|n| deflated(format!("{n}.tf"), text(n))));
    entries.extend(
        (3..6).map(|n| deflated(format!("modules/{n}.tf"), text(n)).streamed(n % 2 == 0, n == 5)),
    );
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
    let whole =
        zip([directory("d/"), deflated("d/a", "a a a a a").streamed(true, false), entry("b", "b")]);
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
