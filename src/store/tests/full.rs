//! The budget, and disks that take no more.

use super::*;
use crate::skip::skip;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::time::Duration;

fn used(cache: &Cache, key: &Key, ago: u64) {
    let path = if cache.sidecar(key).exists() { cache.sidecar(key) } else { cache.file(key) };
    for path in [path, cache.file(key)] {
        let time = SystemTime::now() - Duration::from_secs(ago);
        std::fs::File::open(path).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn the_longest_unused_go_first_and_open_ones_stay() {
    let cache = Cache::new();
    let contents: Vec<_> = (0..6).map(|n| content(2 * CHUNK, n)).collect();
    let keys: Vec<_> = contents.iter().map(|bytes| blob(bytes)).collect();
    for (n, (key, bytes)) in keys.iter().zip(&contents).enumerate() {
        drop(put(&cache.store, key, bytes));
        used(&cache, key, 100_000 - 10_000 * n as u64);
    }
    // Use counts: the oldest is the youngest now. The second oldest is open (O32).
    drop(cache.store.get(&keys[0]).unwrap().unwrap());
    let open = cache.store.get(&keys[1]).unwrap().unwrap();
    used(&cache, &keys[1], 90_000);
    let each = cache.store.usage().bytes / 6;
    assert_eq!(cache.store.usage().objects, 6);
    let pruned = cache.store.prune(3 * each);
    assert_eq!(pruned, Pruned { objects: 3, bytes: 3 * each, refused: 0 });
    let left: Vec<bool> = keys.iter().map(|key| cache.file(key).exists()).collect();
    assert_eq!(left, [true, true, false, false, false, true]);
    assert!(!cache.sidecar(&keys[2]).exists());
    // O33: everything that is left is open, so nothing can go, and nothing hangs.
    cache.store.prune(0);
    assert_eq!((cache.store.usage().objects, open.read_all().unwrap()), (1, contents[1].clone()));
}

#[test]
fn the_budget_is_kept() {
    let limit = 20 * CHUNK as u64;
    let cache = Cache::limited(limit);
    let (mut before, mut evictions) = (0, 0);
    for n in 0..60 {
        let bytes = content(CHUNK + 1, n);
        drop(put(&cache.store, &blob(&bytes), &bytes));
        let usage = cache.store.usage();
        assert!(usage.bytes <= limit, "{usage:?}");
        if usage.bytes < before {
            assert!(usage.bytes <= limit / 10 * 9, "room for more than the next one: {usage:?}");
            evictions += 1;
        }
        before = usage.bytes;
    }
    assert!(evictions > 0);
    let damaged = blob(&content(CHUNK + 1, 59));
    let before = cache.store.usage();
    cache.store.quarantine(&damaged, "the test says so");
    assert_eq!(cache.store.usage().objects, before.objects - 1);
    let counted = cache.store.usage();
    assert!(counted.objects > 5, "{counted:?}");
    assert_eq!(counted.bytes, cache.again().usage().bytes, "the running sum is what a walk finds");
    // O34: another process evicted what is open here.
    let bytes = content(3 * CHUNK, 100);
    let object = put(&cache.store, &blob(&bytes), &bytes);
    cache.again().prune(0);
    assert!(!cache.file(&blob(&bytes)).exists());
    assert_eq!(object.read_all().unwrap(), bytes);
}

/// L12, O34: what another process adds is noticed before long.
#[test]
fn a_budget_that_two_processes_share_is_kept() {
    let limit = 20 * CHUNK as u64;
    let cache = Cache::limited(limit);
    let other = open(cache.dir.path(), limit);
    for n in 0..60 {
        let bytes = content(CHUNK + 1, n);
        drop(put(if n % 2 == 0 { &cache.store } else { &other }, &blob(&bytes), &bytes));
        // Each looks again when it has added a sixteenth by itself.
        let usage = cache.again().usage();
        assert!(usage.bytes <= limit + limit / 4, "{usage:?}");
    }
}

#[test]
fn memory_for_full_disks_is_bounded_and_given_back() {
    let memory = Memory::default();
    let half = memory.reserve(memory::MEMORY_MAX / 2).unwrap();
    assert!(memory.reserve(memory::MEMORY_MAX / 2 + 1).is_none());
    assert!(memory.reserve(u64::MAX).is_none());
    let rest = memory.reserve(memory::MEMORY_MAX / 2).unwrap();
    assert_eq!(memory.held(), memory::MEMORY_MAX);
    drop((half, rest));
    assert_eq!(memory.held(), 0);
}

/// A small file system of its own, unmounted at the end.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None`, with the reason printed, where this user may not mount.
    fn new(size: &std::ffi::CStr) -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        match mount(
            "tofufs-test",
            dir.path(),
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            Some(size),
        ) {
            Ok(()) => Some(Disk { dir }),
            Err(errno) => {
                skip(&format!("a tmpfs cannot be mounted here: {errno}"));
                None
            }
        }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

/// O05
#[test]
fn on_a_full_disk_old_objects_go_then_memory_serves_then_there_is_no_space() {
    let Some(disk) = Disk::new(c"size=2m,mode=0700") else { return };
    let dir = disk.cache();
    let store = open(&dir, BIG);
    let (a, b, c) = (content(1_200_000, 1), content(1_200_000, 2), content(1_500_000, 3));
    drop(put(&store, &blob(&a), &a));
    let on_disk = put(&store, &blob(&b), &b);
    assert!(on_disk.fd().is_some() && !file(&dir, &blob(&a)).exists(), "the old one had to go");
    for key in [blob(&c), member(1)] {
        // The only object on the disk is open, so nothing can go.
        let in_memory = put(&store, &key, &c);
        assert!(in_memory.fd().is_none());
        assert_eq!(store.usage().in_memory, c.len() as u64);
        assert_eq!(in_memory.read_all().unwrap(), c);
        assert_eq!(store.get(&key).unwrap().unwrap().read_all().unwrap(), c);
        drop(in_memory);
        assert_eq!(store.usage().in_memory, 0);
        assert!(store.get(&key).unwrap().is_none());
    }
    // Bytes in memory are checked like all others.
    let mut wrong = fill(&store, &blob(&c), c.len());
    wrong.write(&c[1..]).unwrap();
    wrong.write(&c[..1]).unwrap();
    assert_eq!(wrong.publish().unwrap_err().failure, Failure::Integrity);
    let mut huge = fill(&store, &blob(b"huge"), memory::MEMORY_MAX as usize + 1);
    let error = huge.write(&content(2_000_000, 4)).unwrap_err();
    assert_eq!(error.failure, Failure::NoSpace);
    assert!(error.rule.contains("No space left"), "{error}");
    drop(huge);
    assert_eq!(on_disk.read_all().unwrap(), b);
    drop(on_disk);
    assert!(put(&store, &blob(&c), &c).fd().is_some(), "with room again, it is cached again");
}

/// O05
#[test]
fn on_a_full_disk_what_was_written_ahead_goes_before_anything_else() {
    let Some(disk) = Disk::new(c"size=2m,mode=0700") else { return };
    let dir = disk.cache();
    let store = open(&dir, BIG);
    let (old, new) = (content(300_000, 1), content(1_000_000, 2));
    drop(put(&store, &blob(&old), &old));
    let mut ahead = store.scratch().unwrap();
    ahead.write(&content(1_300_000, 3)).unwrap();
    let object = put(&store, &blob(&new), &new);
    assert!(object.fd().is_some(), "it is on the disk");
    assert!(file(&dir, &blob(&old)).exists(), "for which nothing was evicted");
    assert_eq!(ahead.write(b"more").unwrap_err().failure, Failure::NoSpace);
    let mut member_fill = fill(&store, &member(1), 1_300_000);
    assert_eq!(member_fill.take(ahead).unwrap_err().failure, Failure::NoSpace);
    drop(member_fill);
    // Nothing goes for the sake of what is written ahead.
    let mut ahead = store.scratch().unwrap();
    assert_eq!(ahead.write(&content(2_000_000, 4)).unwrap_err().failure, Failure::NoSpace);
    assert!(file(&dir, &blob(&old)).exists());
    drop(ahead);
    assert_eq!(std::fs::read_dir(dir.join("v1/tmp")).unwrap().count(), 0);
}

/// O05: a disk may be full of files with room for bytes.
#[test]
fn on_a_disk_without_room_for_another_file_old_objects_go() {
    // Of two numbers that differ by one, one runs out at the partial file and the other at the
    // checksums.
    for size in [c"size=8m,mode=0700,nr_inodes=40", c"size=8m,mode=0700,nr_inodes=41"] {
        let Some(disk) = Disk::new(size) else { return };
        let store = open(&disk.cache(), BIG);
        for n in 0..60 {
            let bytes = content(1000, n);
            let object = put(&store, &member(n as u32), &bytes);
            assert!(object.fd().is_some(), "{n} is cached");
            assert_eq!(object.read_all().unwrap(), bytes);
        }
    }
}

/// O11
#[test]
fn on_a_disk_that_became_read_only_the_cache_is_read_and_the_rest_served_from_memory() {
    let Some(disk) = Disk::new(c"size=4m,mode=0700") else { return };
    let dir = disk.cache();
    let store = open(&dir, BIG);
    let (a, b) = (content(200_000, 1), content(200_000, 2));
    drop(put(&store, &blob(&a), &a));
    store.put_edge("e", b"v").unwrap();
    let read_only = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(disk.dir.path(), read_only, c"").unwrap();
    for store in [store, open(&dir, BIG)] {
        assert_eq!(store.get(&blob(&a)).unwrap().unwrap().read_all().unwrap(), a);
        let object = put(&store, &blob(&b), &b);
        assert_eq!((object.fd().is_none(), object.read_all().unwrap()), (true, b.clone()));
        assert_eq!(store.edge("e").unwrap(), b"v");
        assert_eq!(store.put_edge("f", b"v").unwrap_err().failure, Failure::Io);
        assert!(store.space().unwrap().total >= 4 << 20);
    }
}
