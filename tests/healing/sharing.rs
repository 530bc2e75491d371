//! Two daemons, one cache directory.

use super::*;
use crate::support::hostile::{Behaviour, blobs};
use std::sync::Barrier;
use std::time::Duration;

// O19
#[test]
fn two_daemons_on_one_cache_download_once_for_both() {
    let releases = Releases::new(3, &[1 << 20, 300_000, 1000]);
    let shared = tempfile::tempdir().unwrap();
    let start = || releases.mount(releases.options().cache(shared.path()));
    let (Some(first), Some(second)) = (start(), start()) else { return };
    // Slow, so that both are at it at once.
    releases
        .server
        .rule(blobs(), Behaviour::Slow { piece: 64 << 10, pause: Duration::from_millis(10) });
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (releases, barrier, mount) =
                (&releases, &barrier, if reader % 2 == 0 { &first } else { &second });
            scope.spawn(move || {
                barrier.wait();
                releases.all_right(mount);
            });
        }
    });
    assert_eq!(releases.downloads(), releases.packages.len());
    assert_eq!((damaged(&first), files_below(&shared.path().join("v1/tmp")).len()), (0, 0));
}

// O19, O12: the one that downloads is killed; the other goes on with what it got.
#[test]
fn when_the_downloading_daemon_is_killed_the_other_takes_over() {
    let releases = Releases::new(1, &[2 << 20]);
    let shared = tempfile::tempdir().unwrap();
    let start = || releases.mount(releases.options().cache(shared.path()));
    let (Some(mut first), Some(second)) = (start(), start()) else { return };
    releases
        .server
        .rule(blobs(), Behaviour::Slow { piece: 16 << 10, pause: Duration::from_millis(20) });
    let (path, wanted) = &releases.files[0];
    std::thread::scope(|scope| {
        let doomed = first.join(path);
        scope.spawn(move || {
            assert!(read_fresh(&doomed).is_err(), "the reader of a killed mount is served")
        });
        let partial = || {
            files_below(&shared.path().join("v1/tmp"))
                .iter()
                .any(|f| f.metadata().is_ok_and(|m| m.len() > 100_000))
        };
        assert!(
            support::wait_until(Duration::from_secs(20), partial),
            "the download does not begin"
        );
        let waiting = second.join(path);
        let other = scope.spawn(move || right(&waiting, wanted));
        std::thread::sleep(Duration::from_millis(200));
        first.kill();
        other.join().unwrap();
    });
    let ranges: Vec<_> = releases
        .server
        .requests_to("/v2/acme/net/blobs/")
        .iter()
        .map(|s| s.header("range").is_some())
        .collect();
    assert_eq!(ranges, [false, true], "the second download goes on where the first one ended");
}
