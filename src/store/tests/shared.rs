//! Several processes, and processes that die.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// O19
#[test]
fn of_two_stores_one_fills_and_the_other_sees_its_progress() {
    let cache = Cache::new();
    let other = cache.again();
    let bytes = content(3 * CHUNK, 1);
    for key in [blob(&bytes), member(1)] {
        let mut first = fill(&cache.store, &key, bytes.len());
        for store in [&cache.store, &other] {
            assert!(matches!(
                store.begin(&key, bytes.len() as u64).unwrap(),
                Begin::Busy { bytes: 0 }
            ));
        }
        first.write(&bytes[..CHUNK]).unwrap();
        let busy = other.begin(&key, bytes.len() as u64).unwrap();
        assert!(matches!(busy, Begin::Busy { bytes } if bytes == CHUNK as u64), "{busy:?}");
        first.write(&bytes[CHUNK..]).unwrap();
        drop(first.publish().unwrap());
        match other.begin(&key, bytes.len() as u64).unwrap() {
            Begin::Present(object) => assert_eq!(object.read_all().unwrap(), bytes),
            other => panic!("present, not {other:?}"),
        }
    }
}

/// O19, O34: every thread gets the object, however fills, evictions and openings interleave.
#[test]
fn many_threads_of_two_stores_fill_evict_and_read_the_same_keys() {
    let cache = Cache::new();
    let stores = [cache.store.clone(), cache.again()];
    let contents: Vec<_> = (0..4).map(|n| content(CHUNK + 1000 * n, n as u64)).collect();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (store, contents) = (&stores[thread % 2], &contents);
            scope.spawn(move || {
                for round in 0..30 {
                    let bytes = &contents[(thread + round) % contents.len()];
                    let key = blob(bytes);
                    let object = loop {
                        match store.begin(&key, bytes.len() as u64).unwrap() {
                            Begin::Present(object) => break object,
                            Begin::Busy { .. } => std::thread::yield_now(),
                            Begin::Fill(mut fill) => {
                                fill.write(&bytes[fill.position() as usize..]).unwrap();
                                break fill.publish().unwrap();
                            }
                        }
                    };
                    if round % 5 == 0 {
                        store.prune(0);
                    }
                    assert_eq!(object.read_all().unwrap(), *bytes);
                }
            });
        }
    });
}

/// O19: one download, whoever asks at the same moment; and one more after wrong bytes.
#[test]
fn of_many_that_ask_for_a_key_at_once_one_fills_it() {
    let cache = Cache::new();
    let stores = [cache.store.clone(), cache.again()];
    for round in 0..60 {
        let bytes = content(2000, round);
        let (key, wrong_ones) = (blob(&bytes), AtomicU64::new(round % 2));
        let (fills, barrier) = (AtomicU64::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (store, bytes, fills, wrong_ones, barrier) =
                    (&stores[thread % 2], &bytes, &fills, &wrong_ones, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    loop {
                        let mut fill = match store.begin(&key, bytes.len() as u64).unwrap() {
                            Begin::Present(object) => {
                                return assert_eq!(object.read_all().unwrap(), *bytes);
                            }
                            Begin::Busy { .. } => continue,
                            Begin::Fill(fill) => fill,
                        };
                        fills.fetch_add(1, Ordering::SeqCst);
                        let is_wrong =
                            wrong_ones.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                                n.checked_sub(1)
                            });
                        fill.write(if is_wrong.is_ok() { &[0; 2000] } else { bytes }).unwrap();
                        match (is_wrong, fill.publish()) {
                            (Ok(_), published) => assert!(published.is_err()),
                            (Err(_), published) => drop(published.unwrap()),
                        }
                    }
                });
            }
        });
        assert_eq!(fills.into_inner(), 1 + round % 2, "round {round}");
    }
}

/// O12: the kernel frees the lock of a killed process, and what it wrote is gone on with. This test
/// starts itself as the process to be killed.
#[test]
fn a_killed_process_leaves_a_fill_that_another_goes_on_with() {
    const CHILD: &str = "TOFUFS_TEST_KILLED_FILL";
    let bytes = content(3 * CHUNK, 2);
    let (key, half) = (blob(&bytes), CHUNK + 5);
    if let Some(dir) = std::env::var_os(CHILD) {
        let store = open(Path::new(&dir), BIG);
        let mut fill = fill(&store, &key, bytes.len());
        fill.write(&bytes[..half]).unwrap();
        println!("\nHALF WRITTEN");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let cache = Cache::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("store::tests::shared::a_killed_process_leaves_a_fill_that_another_goes_on_with")
        .env(CHILD, cache.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .any(|l| l == "HALF WRITTEN");
    assert!(said);
    let busy = cache.store.begin(&key, bytes.len() as u64).unwrap();
    assert!(matches!(busy, Begin::Busy { bytes } if bytes == half as u64), "{busy:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let mut fill = fill(&cache.store, &key, bytes.len());
    assert_eq!(fill.position(), half as u64);
    fill.write(&bytes[half..]).unwrap();
    assert_eq!(fill.publish().unwrap().read_all().unwrap(), bytes);
}

/// O12: a kill between the steps of publishing.
#[test]
fn a_kill_between_the_steps_of_publishing_costs_no_byte() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 3);
    let key = blob(&bytes);
    drop(put(&cache.store, &key, &bytes));
    // Before the mode was set.
    std::fs::set_permissions(cache.file(&key), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(cache.store.get(&key).unwrap().unwrap().read_all().unwrap(), bytes);
    assert_eq!(cache.file(&key).metadata().unwrap().permissions().mode() & 0o777, 0o400);
    // Without a sidecar: it is made again.
    std::fs::remove_file(cache.sidecar(&key)).unwrap();
    assert_eq!(cache.store.get(&key).unwrap().unwrap().read_all().unwrap(), bytes);
    assert!(cache.sidecar(&key).exists());
    // With a sidecar alone.
    std::fs::remove_file(cache.file(&key)).unwrap();
    assert!(cache.store.get(&key).unwrap().is_none());
    assert_eq!(put(&cache.store, &key, &bytes).read_all().unwrap(), bytes);
    // A member that was published, but not written by the disk before power was lost (O13, O16).
    drop(put(&cache.store, &member(1), &bytes));
    overwrite(&cache.file(&member(1)), &vec![0; bytes.len()]);
    assert!(cache.store.get(&member(1)).unwrap().unwrap().read_all().is_err());
    assert!(cache.store.get(&member(1)).unwrap().is_none());
}

#[test]
fn checksums_without_their_file_go_when_they_are_old() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 5);
    for (number, is_old) in [(1, true), (2, false)] {
        drop(put(&cache.store, &member(number), &bytes));
        std::fs::remove_file(cache.file(&member(number))).unwrap();
        if is_old {
            let day = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
            std::fs::File::open(cache.sidecar(&member(number))).unwrap().set_modified(day).unwrap();
        }
    }
    assert_eq!(cache.again().usage().objects, 0);
    assert!(!cache.sidecar(&member(1)).exists(), "nobody is about to publish its file");
    assert!(cache.sidecar(&member(2)).exists(), "somebody may be");
}

#[test]
fn old_temporary_files_go_unless_somebody_writes_them() {
    let cache = Cache::new();
    let tmp = cache.dir.path().join("v1/tmp");
    let bytes = content(1000, 4);
    let mut locked = fill(&cache.store, &blob(&bytes), bytes.len());
    locked.write(&bytes).unwrap();
    let week = SystemTime::now() - Duration::from_secs(7 * 24 * 60 * 60);
    let make = |name: &str, old: bool| {
        let file = std::fs::File::create(tmp.join(name)).unwrap();
        if old {
            file.set_modified(week).unwrap();
        }
    };
    std::fs::File::open(cache.partial(&blob(&bytes))).unwrap().set_modified(week).unwrap();
    for (name, old) in
        [("old.part", true), ("old.new", true), ("young.part", false), ("young.new", false)]
    {
        make(name, old);
    }
    evict::reap(&cache.store.layout(), PARTIAL_AGE);
    let mut left: Vec<_> = std::fs::read_dir(&tmp).unwrap().map(|e| e.unwrap().path()).collect();
    left.sort();
    let mut expected =
        vec![tmp.join("young.part"), tmp.join("young.new"), cache.partial(&blob(&bytes))];
    expected.sort();
    assert_eq!(left, expected);
    locked.publish().unwrap();
}

/// O20: programs of another version keep their files beside ours, in a directory of their own.
#[test]
fn what_another_version_keeps_in_the_same_cache_is_neither_read_nor_counted_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = ["v0/blobs/00/old", "v2/blobs/00/new", "v2/key", "v2/tmp/partial.part"];
    for file in theirs {
        let file = dir.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, vec![7; 100_000]).unwrap();
    }
    let store = open(dir.path(), 200_000);
    assert_eq!(store.usage().objects, 0);
    for n in 0..10 {
        let bytes = content(50_000, n);
        put(&store, &blob(&bytes), &bytes);
    }
    assert!(store.usage().objects > 0, "there is room beside theirs");
    evict::reap(&store.layout(), Duration::ZERO);
    for file in theirs {
        assert_eq!(std::fs::read(dir.path().join(file)).unwrap(), vec![7; 100_000], "{file}");
    }
}
