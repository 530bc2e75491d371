//! Somebody replaces staged files by links to what lies elsewhere, while they are published.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Bed, HOST};
use crate::support::mount::Options;

const SOUND: &str = "# sound\n";
const SECRET: &str = "of somebody else\n";
const ROUNDS: usize = 25;

/// Puts a link to `secret` and the file in the place of each other, until it is told to end.
fn swap(dir: &Path, secret: &Path, is_over: &AtomicBool) -> usize {
    let (file, new) = (dir.join("main.tf"), dir.join("new"));
    let mut swaps = 0;
    while !is_over.load(Ordering::SeqCst) {
        let swapped = symlink(secret, &new)
            .and_then(|()| fs::rename(&new, &file))
            .and_then(|()| fs::write(&new, SOUND))
            .and_then(|()| fs::rename(&new, &file));
        swaps += usize::from(swapped.is_ok());
        if swapped.is_err() {
            let _ = fs::remove_file(&new);
        }
    }
    swaps
}

/// L07
#[test]
fn a_file_that_is_swapped_for_a_link_while_it_is_published_brings_nothing_from_outside() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    let Some(bed) = Bed::start(Options::new()) else { return };
    let (mut published, mut refused, mut swaps) = (0, 0, 0);
    for round in 0..ROUNDS {
        let release = format!("acme/net/1.0.{round}");
        let dir = bed.dir(&release);
        fs::write(dir.join("main.tf"), SOUND).unwrap();
        // As many files as give the other time.
        for number in 0..20 {
            fs::write(dir.join(format!("other{number}.tf")), SOUND.repeat(500)).unwrap();
        }
        let is_over = AtomicBool::new(false);
        let done = thread::scope(|scope| {
            let swapper = scope.spawn(|| swap(&dir, &secret, &is_over));
            thread::sleep(std::time::Duration::from_millis(2));
            let done = fs::rename(&dir, bed.mount.join(HOST).join(&release));
            is_over.store(true, Ordering::SeqCst);
            swaps += swapper.join().unwrap();
            done
        });
        match done {
            Ok(()) => {
                published += 1;
                let seen = fs::read_to_string(bed.mount.join(HOST).join(&release).join("main.tf"));
                // Of the two steps of a swap the release may have met the one between them.
                assert!(seen.as_ref().is_ok_and(|text| text == SOUND), "round {round}: {seen:?}");
            }
            Err(_) => refused += 1,
        }
    }
    println!("{swaps} swaps: {published} releases published, {refused} refused");
    assert!(swaps > 0 && published + refused == ROUNDS);
}
