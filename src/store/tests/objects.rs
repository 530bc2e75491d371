//! What goes in comes out, and nothing else goes in.

use super::*;
use std::os::unix::fs::MetadataExt;

#[test]
fn what_was_published_is_read_back_by_every_later_store() {
    let cache = Cache::new();
    for (number, len) in
        [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 77].into_iter().enumerate()
    {
        let bytes = content(len, len as u64);
        for key in [blob(&bytes), member(number as u32)] {
            assert!(cache.store.get(&key).unwrap().is_none());
            assert_eq!(put(&cache.store, &key, &bytes).read_all().unwrap(), bytes);
            let later = cache.again().get(&key).unwrap().unwrap();
            assert_eq!((later.read_all().unwrap(), later.len()), (bytes.clone(), len as u64));
            later.verify_whole().unwrap();
            assert!(matches!(cache.store.begin(&key, len as u64).unwrap(), Begin::Present(_)));
        }
    }
    assert_eq!(cache.temporaries(), 0);
}

#[test]
fn a_read_of_any_place_and_length_gives_those_bytes() {
    let cache = Cache::new();
    let bytes = content(5 * CHUNK + 123, 1);
    let object = put(&cache.store, &blob(&bytes), &bytes);
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..500 {
        let at = random.usize(..bytes.len() + 100);
        let mut buf = vec![0xee; random.usize(..3 * CHUNK)];
        let n = object.read_at(&mut buf, at as u64).unwrap();
        let rest = bytes.get(at..).unwrap_or_default();
        assert_eq!(n, rest.len().min(buf.len()));
        assert_eq!(buf[..n], rest[..n]);
    }
    assert_eq!(object.read_at(&mut [0; 9], u64::MAX).unwrap(), 0);
}

/// Passthrough: the kernel reads the data file itself.
#[test]
fn the_data_file_is_exactly_the_content_and_nobody_may_write_it() {
    let cache = Cache::new();
    for len in [10, 2 * CHUNK + 5] {
        let bytes = content(len, 3);
        let key = blob(&bytes);
        let object = put(&cache.store, &key, &bytes);
        assert_eq!(std::fs::read(cache.file(&key)).unwrap(), bytes);
        let stat = fstat(object.fd().unwrap()).unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_nlink, stat.st_size), (0o400, 1, len as i64));
    }
}

#[test]
fn use_is_written_down_without_making_passthrough_check_a_big_file_again() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK + 5, 3);
    let key = blob(&bytes);
    drop(put(&cache.store, &key, &bytes));
    let old = SystemTime::now() - Duration::from_secs(100_000);
    for path in [cache.file(&key), cache.sidecar(&key)] {
        std::fs::File::open(path).unwrap().set_modified(old).unwrap();
    }
    let ctime = |path: &Path| std::fs::metadata(path).map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
    let before = ctime(&cache.file(&key));
    cache.store.get(&key).unwrap().unwrap();
    assert_eq!(ctime(&cache.file(&key)), before);
    assert!(
        cache.sidecar(&key).metadata().unwrap().modified().unwrap()
            > old + Duration::from_secs(90_000)
    );
}

#[test]
fn wrong_bytes_are_never_published() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 4);
    let key = blob(&bytes);
    let mut other = bytes.clone();
    other[CHUNK] ^= 1;
    for wrong in [&other[..], &bytes[..CHUNK], &[]] {
        let mut fill = fill(&cache.store, &key, bytes.len());
        fill.write(wrong).unwrap();
        let error = fill.publish().unwrap_err();
        assert_eq!(error.failure, Failure::Integrity);
        assert!(error.to_string().contains(&key.to_string()), "{error}");
        assert!(cache.store.get(&key).unwrap().is_none());
        assert_eq!(cache.temporaries(), 0, "what mismatched is not resumed");
    }
    let mut short = fill(&cache.store, &member(1), bytes.len());
    short.write(&bytes[..CHUNK]).unwrap();
    assert_eq!(short.publish().unwrap_err().failure, Failure::Integrity);
    let mut fill = fill(&cache.store, &key, bytes.len());
    fill.write(&bytes).unwrap();
    assert_eq!(fill.write(b"x").unwrap_err().failure, Failure::Integrity);
    drop(fill);
    assert_eq!(cache.temporaries(), 0);
}

/// O02
#[test]
fn a_broken_off_blob_is_resumed_and_a_broken_off_member_is_not() {
    let cache = Cache::new();
    let bytes = content(3 * CHUNK, 5);
    let half = CHUNK + 1000;
    for (key, kept) in [(blob(&bytes), half as u64), (member(1), 0)] {
        let mut first = fill(&cache.store, &key, bytes.len());
        first.write(&bytes[..half]).unwrap();
        drop(first);
        let mut second = fill(&cache.again(), &key, bytes.len());
        assert_eq!(second.position(), kept);
        second.write(&bytes[kept as usize..]).unwrap();
        assert_eq!(second.publish().unwrap().read_all().unwrap(), bytes);
    }
    // Nor one that a process left that was killed: nothing would tell whether it is this member's
    // beginning.
    std::fs::write(cache.partial(&member(2)), content(half, 6)).unwrap();
    let mut again = fill(&cache.store, &member(2), bytes.len());
    assert_eq!(again.position(), 0);
    again.write(&bytes).unwrap();
    assert_eq!(again.publish().unwrap().read_all().unwrap(), bytes);
}

#[test]
fn a_fill_can_start_again() {
    let cache = Cache::new();
    let bytes = content(CHUNK + 9, 6);
    let mut fill = fill(&cache.store, &blob(&bytes), bytes.len());
    fill.write(&content(CHUNK, 7)).unwrap();
    fill.restart().unwrap();
    assert_eq!(fill.position(), 0);
    fill.write(&bytes).unwrap();
    assert_eq!(fill.publish().unwrap().read_all().unwrap(), bytes);
}

/// O12, O16: what a dead process or a power loss left in a partial file.
#[test]
fn garbage_in_a_partial_file_is_never_published_and_costs_at_most_one_mismatch() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 8);
    let key = blob(&bytes);
    for (found, taken_over) in
        [(vec![0; CHUNK], CHUNK), (content(bytes.len() + 1, 9), 0), (bytes[..9].to_vec(), 9)]
    {
        std::fs::write(cache.partial(&key), &found).unwrap();
        let mut resumed = fill(&cache.store, &key, bytes.len());
        assert_eq!(resumed.position(), taken_over as u64);
        resumed.write(&bytes[taken_over..]).unwrap();
        let published = resumed.publish();
        if !bytes.starts_with(&found[..taken_over]) {
            assert_eq!(published.unwrap_err().failure, Failure::Integrity);
            assert_eq!(put(&cache.store, &key, &bytes).read_all().unwrap(), bytes);
        } else {
            assert_eq!(published.unwrap().read_all().unwrap(), bytes);
            assert_eq!(std::fs::read(cache.file(&key)).unwrap(), bytes, "nothing stands behind it");
        }
        cache.store.quarantine(&key, "the test goes on");
    }
}

#[test]
fn of_two_that_open_an_object_at_once_both_get_the_first() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 9);
    let key = blob(&bytes);
    drop(put(&cache.store, &key, &bytes));
    let [first, second] = [(), ()].map(|()| cache.store.load(&key).unwrap().unwrap().0);
    let [first, second] = [first, second]
        .map(|content| cache.store.opened(ObjectInner::new(cache.store.clone(), key, content)));
    assert!(Arc::ptr_eq(&first.0, &second.0));
    drop(second);
    assert_eq!(cache.store.prune(0).objects, 0, "the one that is used is known to be open");
}

/// Credential helpers and whatever else is started must not come to hold what the cache keeps for
/// its owner.
#[test]
fn no_program_that_is_started_inherits_the_caches_files() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 10);
    let key = blob(&bytes);
    drop(put(&cache.store, &key, &bytes));
    let store = cache.again();
    let _open = store.get(&key).unwrap().unwrap();
    let _filling = fill(&store, &member(1), 100);
    let listed = std::process::Command::new("ls").args(["-l", "/proc/self/fd/"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("/proc/") && !listed.contains(cache.dir.path().to_str().unwrap()),
        "{listed}"
    );
}

#[test]
fn keys_and_file_names_stand_for_each_other() {
    let long = Digest::of_with(crate::digest::Algorithm::Sha512, b"x");
    for digest in [Digest::of(b"x"), long] {
        let key = Key::Blob(digest);
        assert_eq!(Key::blob_from(&key.file_name()), Some(key));
        let key = Key::Member { archive: digest, number: FileNo(77) };
        assert_eq!(Key::member_from(&key.file_name()), Some(key));
        assert_eq!(Key::blob_from(&key.file_name()), None);
    }
    assert_eq!(Key::member_from("sha256-00-01"), None);
}
