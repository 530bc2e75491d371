//! Pins: what stays, for whom, and for how long.

use super::*;

fn pin(name: &str, objects: &[&Key]) -> Pin {
    let digest = |key: &&Key| match key {
        Key::Blob(digest) => *digest,
        Key::Member { archive, .. } => *archive,
    };
    let objects: std::collections::BTreeSet<_> = objects.iter().map(digest).collect();
    let reference = format!("a.b/{name}@{}", Digest::of(name.as_bytes())).parse().unwrap();
    Pin { reference, tags: ["1.0.0".parse().unwrap()].into(), objects }
}

#[test]
fn what_is_pinned_is_evicted_by_no_process_until_it_is_no_longer() {
    let cache = Cache::new();
    let (kept, gone) = (content(3 * CHUNK, 1), content(3 * CHUNK, 2));
    for bytes in [&kept, &gone] {
        drop(put(&cache.store, &blob(bytes), bytes));
    }
    // Members go with their archive.
    drop(put(&cache.store, &member(7), &gone));
    cache.store.pin(&[pin("x", &[&blob(&kept), &member(7)])]).unwrap();
    let other = cache.again();
    assert_eq!(other.pins(), cache.store.pins());
    other.prune(0);
    assert!(
        cache.file(&blob(&kept)).exists()
            && cache.file(&member(7)).exists()
            && !cache.file(&blob(&gone)).exists()
    );
    let (pinned, all) = (cache.store.pinned_usage(), cache.again().usage());
    assert_eq!((pinned.bytes, pinned.objects), (all.bytes, 2));
    // Twice the same adds up; a part of it does not go with another name.
    cache.store.pin(&[pin("x", &[&blob(&gone)]), pin("y", &[&blob(&kept)])]).unwrap();
    assert_eq!(cache.store.pins()[0].objects.len(), 3);
    assert_eq!(
        cache.store.unpin(|pin| pin.reference.to_string().starts_with("a.b/x@")).unwrap().len(),
        1
    );
    other.prune(0);
    assert!(cache.file(&blob(&kept)).exists() && !cache.file(&member(7)).exists());
    cache.store.unpin(|_| true).unwrap();
    other.prune(0);
    assert!(!cache.file(&blob(&kept)).exists() && cache.store.pins().is_empty());
}

#[test]
fn a_cache_that_is_full_of_pins_is_read_through() {
    // O33
    let limit = 10 * CHUNK as u64;
    let cache = Cache::limited(limit);
    let pinned = content(10 * CHUNK, 1);
    cache.store.pin(&[pin("x", &[&blob(&pinned)])]).unwrap();
    drop(put(&cache.store, &blob(&pinned), &pinned));
    for n in 2..10 {
        let bytes = content(2 * CHUNK, n);
        let object = put(&cache.store, &blob(&bytes), &bytes);
        assert_eq!(object.read_all().unwrap(), bytes);
        drop(object);
        assert!(
            cache.store.usage().objects <= 2,
            "what was read before has gone: {:?}",
            cache.store.usage()
        );
    }
    assert!(cache.store.get(&blob(&pinned)).unwrap().is_some());
}

#[test]
fn pins_of_many_threads_and_processes_all_count_and_damaged_ones_are_none() {
    let cache = Cache::new();
    let stores = [cache.store.clone(), cache.again()];
    std::thread::scope(|scope| {
        for n in 0..8 {
            let store = &stores[n % 2];
            scope.spawn(move || store.pin(&[pin(&format!("r{n}"), &[&member(1)])]).unwrap());
        }
    });
    assert_eq!(cache.store.pins().len(), 8);
    for entry in std::fs::read_dir(cache.dir.path().join("v1/edges")).unwrap() {
        overwrite(&entry.unwrap().path(), b"{}");
    }
    assert!(cache.store.pins().is_empty());
    cache.store.pin(&[pin("r", &[&member(1)])]).unwrap();
    assert_eq!(cache.again().pins().len(), 1);
}

#[test]
fn what_is_held_is_told_while_it_is_filled() {
    let cache = Cache::new();
    let bytes = content(3 * CHUNK, 1);
    assert_eq!(cache.store.held(&blob(&bytes)), 0);
    let mut filling = fill(&cache.store, &blob(&bytes), bytes.len());
    filling.write(&bytes[..2 * CHUNK]).unwrap();
    let held = cache.store.held(&blob(&bytes));
    assert!(held > 0 && held <= 2 * CHUNK as u64, "{held}");
    filling.write(&bytes[2 * CHUNK..]).unwrap();
    drop(filling.publish().unwrap());
    assert_eq!(cache.store.held(&blob(&bytes)), bytes.len() as u64);
}
