//! Eviction while everything is being read.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long: `HEALING_SECONDS`, or a quick 20.
fn duration() -> Duration {
    Duration::from_secs(
        std::env::var("HEALING_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20),
    )
}

/// More than this is memory that grows, in KiB: the bounds of all queues and caches are far below.
const MEMORY_MAX: u64 = 96 << 10;

/// How many arenas glibc's allocator has made for the mount's threads, beside its first one: each
/// begins at a multiple of its reserved 64 MiB, the part in use in front of the inaccessible rest.
fn arenas(mount: &Mount) -> usize {
    const RESERVED: u64 = 64 << 20;
    let Ok(maps) = fs::read_to_string(format!("/proc/{}/maps", mount.pid().as_raw_nonzero()))
    else {
        support::skip("the memory of a mount's process is private: only root can look at its map");
        return 0;
    };
    let regions: Vec<(u64, u64, &str)> = maps
        .lines()
        .map(|line| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            (number(start), number(end), &rest[..4])
        })
        .collect();
    let is_arena = |used: &(u64, u64, &str), rest: &(u64, u64, &str)| {
        used.0.is_multiple_of(RESERVED)
            && used.2 == "rw-p"
            && rest.2 == "---p"
            && (used.1, used.0 + RESERVED) == (rest.0, rest.1)
    };
    regions.windows(2).filter(|pair| is_arena(&pair[0], &pair[1])).count()
}

// O32, O33, O34, L10
#[test]
fn eight_readers_over_a_cache_of_a_fifth_read_no_wrong_byte() {
    let releases = Releases::new(20, &[1 << 20, 400_000]);
    let in_all: u64 = releases.files.iter().map(|(_, content)| content.len() as u64).sum();
    // Packages and unpacked members are both kept.
    let fifth = (2 * in_all / 5) >> 10;
    let options =
        releases.options().args(["--cache-size", &format!("{fifth}KiB")]).longer(duration());
    let Some(mount) = releases.mount(options) else { return };
    releases.all_right(&mount);
    let (mut memory, stop) = (vec![resident(&mount)], AtomicBool::new(false));
    let (reads, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (releases, mount, stop, reads, bytes) = (&releases, &mount, &stop, &reads, &bytes);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(reader);
                while !stop.load(Ordering::Relaxed) {
                    let (path, wanted) = &releases.files[random.usize(..releases.files.len())];
                    right(&mount.join(path), wanted);
                    reads.fetch_add(1, Ordering::Relaxed);
                    bytes.fetch_add(wanted.len() as u64, Ordering::Relaxed);
                }
            });
        }
        // Another process evicts what this mount has open, too.
        while begin.elapsed() < duration() {
            let mut prune = mount.command("cache");
            prune.args(["prune", "--to", "1024KiB", "--cache-dir"]).arg(mount.cache());
            let pruned = support::mount::finish(prune);
            assert!(pruned.status.success(), "{pruned:?}");
            if begin.elapsed() * 8 > duration() * u32::try_from(memory.len()).unwrap() {
                memory.push(resident(&mount));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (reads, mib) = (reads.into_inner(), bytes.into_inner() >> 20);
    memory.push(resident(&mount));
    eprintln!(
        "{reads} reads of {mib} MiB over {} MiB in {:?}, {} downloads; resident KiB from begin to \
         end: {memory:?}",
        in_all >> 20,
        duration(),
        releases.downloads(),
    );
    assert!(memory.iter().all(|kib| *kib < MEMORY_MAX), "{memory:?}");
    assert!(
        arenas(&mount) <= 1,
        "{} arenas: what threads once needed is kept for each of them",
        arenas(&mount)
    );
    assert!(releases.downloads() > 2 * releases.packages.len(), "nothing was ever evicted");
    assert_eq!(damaged(&mount), 0);
}
