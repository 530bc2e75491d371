//! Following a fill, and content that is written before its key is known.

use std::thread;

use super::*;

fn read(tail: &Tail, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut buf = vec![0; len];
    tail.read_exact_at(&mut buf, offset).ok().map(|()| buf)
}

#[test]
fn a_tail_gives_what_was_written_and_waits_for_what_comes() {
    let cache = Cache::new();
    let bytes = content(5 * CHUNK + 100, 1);
    let mut fill = fill(&cache.store, &blob(&bytes), bytes.len());
    fill.write(&bytes[..CHUNK + 10]).unwrap();
    let tail = fill.follow().unwrap();
    assert_eq!(read(&tail, 5, CHUNK - 5).as_deref(), Some(&bytes[5..CHUNK]));
    let object = thread::scope(|scope| {
        let rest = scope.spawn(move || {
            let whole = read(&tail, 0, tail.len() as usize);
            (whole, tail)
        });
        for part in bytes[CHUNK + 10..].chunks(9_999) {
            fill.write(part).unwrap();
        }
        let object = fill.publish().unwrap();
        let (whole, tail) = rest.join().unwrap();
        assert!(whole.as_ref() == Some(&bytes));
        assert!(tail.is_of(&object));
        // The published file is the one that is followed.
        assert_eq!(read(&tail, 3, 10).as_deref(), Some(&bytes[3..13]));
        assert_eq!(read(&tail, tail.len() - 5, 6), None, "there is an end");
        assert_eq!((read(&tail, u64::MAX, 1), read(&tail, tail.len(), 1)), (None, None));
        object
    });
    assert!(!tail_of_another(&cache, &bytes).is_of(&object));
}

/// A tail that has read a blob of the same length with one other byte.
fn tail_of_another(cache: &Cache, bytes: &[u8]) -> Tail {
    let mut other = bytes.to_vec();
    other[3 * CHUNK] ^= 1;
    let mut fill = fill(&cache.store, &blob(&other), other.len());
    let tail = fill.follow().unwrap();
    fill.write(&other).unwrap();
    drop(fill.publish().unwrap());
    assert!(read(&tail, 3 * CHUNK as u64, 1).is_some());
    tail
}

#[test]
fn a_tail_of_a_resumed_fill_begins_at_the_front() {
    let cache = Cache::new();
    let bytes = content(3 * CHUNK, 2);
    let mut first = fill(&cache.store, &blob(&bytes), bytes.len());
    first.write(&bytes[..2 * CHUNK + 7]).unwrap();
    drop(first);
    let mut fill = fill(&cache.store, &blob(&bytes), bytes.len());
    let tail = fill.follow().unwrap();
    assert!(read(&tail, 0, 2 * CHUNK).as_deref() == Some(&bytes[..2 * CHUNK]));
    fill.write(&bytes[2 * CHUNK + 7..]).unwrap();
    assert!(read(&tail, 0, 3 * CHUNK).as_ref() == Some(&bytes));
    assert!(tail.is_of(&fill.publish().unwrap()));
}

/// O02
#[test]
fn a_tail_ends_with_its_fill_with_a_restart_and_when_it_is_stopped() {
    let cache = Cache::new();
    let bytes = content(3 * CHUNK, 3);
    let waits = |end: &dyn Fn(Fill, Stopper)| {
        let mut fill = fill(&cache.store, &blob(&bytes), bytes.len());
        fill.restart().unwrap();
        let tail = fill.follow().unwrap();
        let stopper = tail.stopper();
        fill.write(&bytes[..CHUNK + 1]).unwrap();
        assert!(read(&tail, 0, CHUNK).is_some());
        thread::scope(|scope| {
            let waiting = scope.spawn(move || (read(&tail, CHUNK as u64, 1), tail));
            end(fill, stopper);
            let (came, tail) = waiting.join().unwrap();
            assert_eq!(came, None);
            tail
        })
    };
    let ended = waits(&|fill, _| drop(fill));
    assert!(read(&ended, 0, CHUNK).is_some(), "what came is there");
    let restarted = waits(&|mut fill, _| {
        fill.restart().unwrap();
        fill.write(&bytes).unwrap();
        drop(fill.publish().unwrap());
    });
    assert_eq!(read(&restarted, 2 * CHUNK as u64, 1), None, "not even what is there again");
    cache.store.prune(0);
    let stopped = waits(&|_fill, stopper| stopper.stop());
    assert_eq!(read(&stopped, CHUNK as u64, 1), None);
}

#[test]
fn what_was_written_ahead_becomes_what_a_fill_would_have_made() {
    let cache = Cache::new();
    for (number, length) in [0, 1, CHUNK, 3 * CHUNK + 5].into_iter().enumerate() {
        let (key, bytes) = (member(number as u32), content(length, 4));
        drop(put(&cache.store, &key, &bytes));
        let made = [cache.file(&key), cache.sidecar(&key)].map(|path| std::fs::read(path).unwrap());
        cache.store.prune(0);
        let mut scratch = cache.store.scratch().unwrap();
        bytes.chunks(7_777).for_each(|part| scratch.write(part).unwrap());
        assert!(!cache.file(&key).exists() && cache.store.get(&key).unwrap().is_none());
        let mut fill = fill(&cache.store, &key, length);
        fill.take(scratch).unwrap();
        let again = cache.again().begin(&key, length as u64).unwrap();
        assert!(matches!(again, Begin::Busy { .. }), "the lock was taken over: {again:?}");
        let object = fill.publish().unwrap();
        assert_eq!(object.read_all().unwrap(), bytes);
        assert!(object.make_sure_whole().unwrap());
        assert!(
            made == [cache.file(&key), cache.sidecar(&key)]
                .map(|path| std::fs::read(path).unwrap())
        );
        assert_eq!(cache.temporaries(), 0);
    }
}

#[test]
fn what_was_written_ahead_is_taken_at_its_length_by_a_member_only() {
    let cache = Cache::new();
    let bytes = content(100, 5);
    let ahead = || {
        let mut scratch = cache.store.scratch().unwrap();
        scratch.write(&bytes).unwrap();
        scratch
    };
    let mut blob = fill(&cache.store, &blob(&bytes), 100);
    assert_eq!(blob.take(ahead()).unwrap_err().failure, Failure::Integrity);
    drop(blob);
    let mut short = fill(&cache.store, &member(1), 101);
    assert_eq!(short.take(ahead()).unwrap_err().failure, Failure::Integrity);
    assert_eq!(short.publish().unwrap_err().failure, Failure::Integrity);
    assert_eq!((cache.temporaries(), cache.store.usage().objects), (0, 0));
}

/// O12, O13
#[test]
fn what_was_written_ahead_is_gone_with_its_process() {
    let cache = Cache::new();
    let mut scratch = cache.store.scratch().unwrap();
    scratch.write(b"written").unwrap();
    let left = cache.dir.path().join("v1/tmp/0123.scratch");
    std::fs::write(&left, b"of a process that was killed").unwrap();
    cache.again().prune(u64::MAX);
    assert!(!left.exists());
    assert_eq!(cache.temporaries(), 1, "that of a living process stays");
    let mut fill = fill(&cache.store, &member(1), 7);
    fill.take(scratch).unwrap();
    assert_eq!(fill.publish().unwrap().read_all().unwrap(), b"written");
    drop(cache.store.scratch().unwrap());
    assert_eq!(cache.temporaries(), 0);
}
