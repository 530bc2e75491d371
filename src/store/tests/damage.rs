//! Whatever happens to the cache's files, no wrong byte is read.

use std::ops::ControlFlow;

use super::*;
use std::os::unix::fs::symlink;

/// The object's bytes, or nothing: through a store that has not opened it yet.
fn read(store: &Arc<Store>, key: &Key) -> Option<Vec<u8>> {
    store.get(key).unwrap()?.read_all().ok()
}

/// O08, L10, L11
#[test]
fn every_one_of_1000_random_flips_is_noticed() {
    let cache = Cache::new();
    let bytes = content(3 * CHUNK + 500, 1);
    let mut random = fastrand::Rng::with_seed(2);
    for key in [blob(&bytes), member(3)] {
        drop(put(&cache.store, &key, &bytes));
        let files = [
            (cache.file(&key), bytes.clone()),
            (cache.sidecar(&key), std::fs::read(cache.sidecar(&key)).unwrap()),
        ];
        for round in 0..500 {
            let (path, good) = &files[round % 2];
            let mut flipped = good.clone();
            flipped[random.usize(..good.len())] ^= 1 << random.u8(..8);
            overwrite(path, &flipped);
            let healed = matches!(key, Key::Blob(_)) && round % 2 == 1;
            assert_eq!(read(&cache.store, &key), healed.then(|| bytes.clone()), "round {round}");
            for (path, good) in &files {
                let _ = std::fs::remove_file(path);
                std::fs::write(path, good).unwrap();
            }
            assert_eq!(read(&cache.store, &key).as_ref(), Some(&bytes));
        }
    }
}

/// Several threads share the work: none of its parts may be left out, wherever they meet.
#[test]
fn a_whole_check_looks_at_every_chunk() {
    let cache = Cache::new();
    let bytes = content(67 * CHUNK + 500, 9);
    let key = blob(&bytes);
    for chunk in 0..bytes.len().div_ceil(CHUNK) {
        let object = put(&cache.store, &key, &bytes);
        object.verify_whole().unwrap();
        let mut flipped = bytes.clone();
        flipped[(chunk * CHUNK + 499).min(bytes.len() - 1)] ^= 1;
        overwrite(&cache.file(&key), &flipped);
        assert_eq!(object.verify_whole().unwrap_err().failure, Failure::Damaged, "{chunk}");
    }
}

#[test]
fn a_flip_under_an_open_object_fails_the_read_and_removes_the_object() {
    let cache = Cache::new();
    let bytes = content(4 * CHUNK, 3);
    let key = blob(&bytes);
    let object = put(&cache.store, &key, &bytes);
    let mut flipped = bytes.clone();
    flipped[2 * CHUNK + 7] ^= 4;
    overwrite(&cache.file(&key), &flipped);
    let mut buf = vec![1; CHUNK];
    assert_eq!(object.read_at(&mut buf, 0).unwrap(), CHUNK, "other chunks are still good");
    let error = object.read_at(&mut buf, 2 * CHUNK as u64).unwrap_err();
    assert_eq!(error.failure, Failure::Damaged);
    assert!(error.to_string().contains(&key.to_string()), "{error}");
    assert!(buf.iter().all(|b| *b == 0), "no wrong byte is left in the buffer");
    assert!(
        cache.store.get(&key).unwrap().is_none(),
        "what is open and damaged is given to nobody else"
    );
    assert!(object.read_at(&mut [0; 10], 2 * CHUNK as u64).is_err());
    assert!(object.verify_whole().is_err());
    assert!(!cache.file(&key).exists());
    // It is fetched again, and the old descriptor does not spoil the new file.
    let again = put(&cache.store, &key, &bytes);
    assert!(object.verify_whole().is_err());
    assert_eq!(again.read_all().unwrap(), bytes);
    assert!(cache.file(&key).exists());
}

#[test]
fn a_small_blob_that_changed_is_noticed_at_opening_and_by_a_whole_check() {
    let cache = Cache::new();
    let bytes = content(1000, 4);
    let key = blob(&bytes);
    let object = put(&cache.store, &key, &bytes);
    overwrite(&cache.file(&key), &content(1000, 5));
    assert_eq!(object.read_all().unwrap(), bytes);
    assert_eq!(read(&cache.again(), &key), None);
    overwrite_fresh(&cache.file(&key), &content(1000, 5));
    assert!(cache.again().get(&key).unwrap().is_none());
    let again = cache.again();
    let object = put(&again, &key, &bytes);
    overwrite(&cache.file(&key), &content(1000, 5));
    assert_eq!(object.verify_whole().unwrap_err().failure, Failure::Damaged);
}

fn overwrite_fresh(path: &Path, bytes: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, bytes).unwrap();
}

/// O09
#[test]
fn a_file_of_another_length_counts_as_missing() {
    let cache = Cache::new();
    for len in [1000, 3 * CHUNK] {
        let bytes = content(len, 6);
        for key in [blob(&bytes), member(len as u32)] {
            let mut longer = bytes.clone();
            longer.push(0);
            for wrong in [&[][..], &bytes[..len / 2], &longer] {
                drop(put(&cache.store, &key, &bytes));
                overwrite(&cache.file(&key), wrong);
                assert_eq!(read(&cache.store, &key), None);
                assert!(!cache.file(&key).exists());
            }
        }
    }
}

#[test]
fn a_file_cut_short_while_open_fails_the_read() {
    let cache = Cache::new();
    let bytes = content(3 * CHUNK, 7);
    let object = put(&cache.store, &blob(&bytes), &bytes);
    overwrite(&cache.file(&blob(&bytes)), &bytes[..CHUNK]);
    assert_eq!(object.read_all().unwrap_err().failure, Failure::Damaged);
}

/// O10
#[test]
fn deletion_underneath_leaves_open_objects_and_allows_new_ones() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 8);
    let key = blob(&bytes);
    let object = put(&cache.store, &key, &bytes);
    std::fs::remove_dir_all(cache.dir.path().join("v1")).unwrap();
    assert_eq!(object.read_all().unwrap(), bytes);
    object.verify_whole().unwrap();
    drop(object);
    assert!(cache.store.get(&key).unwrap().is_none());
    assert_eq!(put(&cache.store, &key, &bytes).read_all().unwrap(), bytes);
    assert_eq!(cache.again().get(&key).unwrap().unwrap().read_all().unwrap(), bytes);
    std::fs::remove_dir_all(cache.dir.path().join("v1/edges")).unwrap();
    cache.store.put_edge("a", b"b").unwrap();
    assert_eq!(cache.store.edge("a").unwrap(), b"b");
}

/// O10: a download that is under way when somebody clears the cache.
#[test]
fn a_fill_outlives_the_cache_that_it_began_in() {
    let cache = Cache::new();
    for len in [100, 3 * CHUNK] {
        let bytes = content(len, 9);
        let key = blob(&bytes);
        let mut fill = fill(&cache.store, &key, len);
        fill.write(&bytes[..len / 2]).unwrap();
        std::fs::remove_dir_all(cache.dir.path().join("v1")).unwrap();
        fill.write(&bytes[len / 2..]).unwrap();
        assert_eq!(fill.publish().unwrap().read_all().unwrap(), bytes);
        assert!(put(&cache.store, &key, &bytes).fd().is_some(), "the next one is cached again");
    }
}

/// L06
#[test]
fn what_stands_in_a_files_place_is_neither_followed_nor_harmed() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 9);
    let key = blob(&bytes);
    let victim = cache.dir.path().join("victim");
    std::fs::write(&victim, &bytes).unwrap();
    let path = cache.file(&key);
    let replacements: [(&str, &dyn Fn()); 5] = [
        ("symlink", &|| symlink(&victim, &path).unwrap()),
        ("dangling symlink", &|| symlink("/nowhere/at/all", &path).unwrap()),
        ("hard link", &|| std::fs::hard_link(&victim, &path).unwrap()),
        ("directory", &|| std::fs::create_dir(&path).unwrap()),
        ("fifo", &|| {
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0)
                .unwrap();
        }),
    ];
    for (what, replace) in replacements {
        drop(put(&cache.store, &key, &bytes));
        std::fs::remove_file(&path).unwrap();
        replace();
        assert!(cache.store.get(&key).unwrap().is_none(), "{what}");
        assert!(path.symlink_metadata().is_err(), "{what}");
        assert_eq!(std::fs::read(&victim).unwrap(), bytes, "{what}");
        assert_eq!(
            victim.metadata().unwrap().permissions().mode() & 0o777,
            0o644 & !umask(),
            "{what}"
        );
    }
    // The same for the directory above it.
    let shard = path.parent().unwrap();
    drop(put(&cache.store, &key, &bytes));
    std::fs::rename(shard, cache.dir.path().join("elsewhere")).unwrap();
    symlink(cache.dir.path().join("elsewhere"), shard).unwrap();
    assert!(cache.store.get(&key).unwrap().is_none());
    assert_eq!(put(&cache.store, &key, &bytes).read_all().unwrap(), bytes);
    assert!(shard.symlink_metadata().unwrap().is_dir());
}

fn umask() -> u32 {
    let probe = tempfile::tempdir().unwrap();
    std::fs::write(probe.path().join("f"), "").unwrap();
    0o666 & !std::fs::metadata(probe.path().join("f")).unwrap().permissions().mode()
}

/// L09
#[test]
fn a_partial_file_made_by_somebody_else_is_replaced() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 10);
    let key = blob(&bytes);
    let victim = cache.dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    for hard in [false, true] {
        if hard {
            std::fs::hard_link(&victim, cache.partial(&key)).unwrap();
        } else {
            symlink(&victim, cache.partial(&key)).unwrap();
        }
        drop(put(&cache.store, &key, &bytes));
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        cache.store.quarantine(&key, "the test goes on");
    }
}

/// L04
#[test]
fn a_cache_directory_that_others_could_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let refused = |path: &Path| {
        let error = Store::open(StoreOptions { dir: path.to_owned(), limit: BIG }).unwrap_err();
        assert_eq!(error.failure, Failure::Io, "{error}");
        assert!(
            error.remedy.is_some() && error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    };
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    drop(open(&path, BIG));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    for bad in [0o770, 0o702, 0o1777] {
        mode(&path, bad);
        refused(&path);
    }
    mode(&path, 0o755);
    drop(open(&path, BIG));
    mode(&path.join("v1"), 0o755);
    let error = Store::open(StoreOptions { dir: path.clone(), limit: BIG }).unwrap_err();
    assert_eq!(error.failure, Failure::Io);
    mode(&path.join("v1"), 0o700);
    symlink(&path, dir.path().join("link")).unwrap();
    refused(&dir.path().join("link"));
    std::fs::write(dir.path().join("file"), "").unwrap();
    refused(&dir.path().join("file"));
    if is_root() {
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        refused(&path);
    } else {
        eprintln!("not root: a directory of another user is not tried");
    }
}

/// L05
#[test]
fn a_cache_directory_replaced_while_open_is_not_followed() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 11);
    let outer = tempfile::tempdir().unwrap();
    let (path, moved) = (outer.path().join("cache"), outer.path().join("moved"));
    let store = open(&path, BIG);
    std::fs::rename(&path, &moved).unwrap();
    symlink(cache.dir.path(), &path).unwrap();
    drop(put(&store, &blob(&bytes), &bytes));
    assert!(file(&moved, &blob(&bytes)).exists());
    assert!(!cache.file(&blob(&bytes)).exists());
}

#[test]
fn bytes_behind_the_content_are_not_read_and_fail_a_whole_check() {
    let cache = Cache::new();
    for len in [1000, 3 * CHUNK] {
        let bytes = content(len, 18);
        for key in [blob(&bytes), member(len as u32)] {
            let object = put(&cache.store, &key, &bytes);
            overwrite(&cache.file(&key), &[&bytes[..], b"more"].concat());
            assert_eq!(object.read_all().unwrap(), bytes);
            let error = object.verify_whole().unwrap_err();
            assert_eq!(error.failure, Failure::Damaged);
            assert!(error.to_string().contains("length"), "{error}");
        }
    }
}

/// Passthrough: before the first use by a process, and whenever somebody has touched the file.
#[test]
fn what_was_checked_whole_is_checked_again_once_it_was_touched() {
    let cache = Cache::new();
    let bytes = content(3 * CHUNK, 19);
    let key = blob(&bytes);
    let written = put(&cache.store, &key, &bytes);
    assert!(!written.is_whole(), "another may have had it open while it was written");
    assert!(written.make_sure_whole().unwrap() && written.is_whole());
    let store = cache.again();
    let object = store.get(&key).unwrap().unwrap();
    assert!(!object.is_whole());
    let writer = std::fs::File::options().write(true).open(cache.file(&key)).unwrap();
    assert!(!object.make_sure_whole().unwrap(), "somebody can write to it");
    drop(writer);
    assert!(object.make_sure_whole().unwrap());
    assert!(object.is_whole());
    let writer = std::fs::File::options().write(true).open(cache.file(&key)).unwrap();
    assert!(!object.is_whole(), "somebody can write to it");
    drop(writer);
    assert!(object.is_whole());
    let mut flipped = bytes.clone();
    flipped[CHUNK] ^= 1;
    let ctime =
        || fstat(object.fd().unwrap()).map(|stat| (stat.st_ctime, stat.st_ctime_nsec)).unwrap();
    let before = ctime();
    // The clock of a file system ticks a few hundred times in a second on older kernels.
    while ctime() == before {
        overwrite(&cache.file(&key), &flipped);
    }
    assert!(!object.is_whole());
    assert_eq!(object.make_sure_whole().unwrap_err().failure, Failure::Damaged);
    assert!(!object.is_whole());
}

#[test]
fn a_disk_that_returns_other_bytes_than_it_was_given_is_not_believed() {
    let cache = Cache::new();
    for len in [1000, 2 * CHUNK] {
        let (bytes, other) = (content(len, 21), content(len, 22));
        let key = blob(&bytes);
        let mut fill = fill(&cache.store, &key, len);
        fill.write(&bytes).unwrap();
        std::fs::write(cache.partial(&key), &other).unwrap();
        match fill.publish() {
            Ok(object) => assert_eq!(object.read_all().unwrap_err().failure, Failure::Damaged),
            Err(error) => assert_eq!(error.failure, Failure::Integrity),
        }
        assert!(cache.store.get(&key).unwrap().is_none());
        assert_eq!(put(&cache.store, &key, &bytes).read_all().unwrap(), bytes);
    }
}

/// L11
#[test]
fn a_sidecar_of_another_object_of_this_cache_is_worth_nothing() {
    let cache = Cache::new();
    let (first, second) = (content(2 * CHUNK, 23), content(2 * CHUNK, 24));
    for bytes in [&first, &second] {
        drop(put(&cache.store, &member(u32::from(bytes == &second)), bytes));
    }
    overwrite(&cache.file(&member(0)), &second);
    overwrite(&cache.sidecar(&member(0)), &std::fs::read(cache.sidecar(&member(1))).unwrap());
    assert_eq!(read(&cache.store, &member(0)), None);
    // Nor is a part of its own, though it were sealed.
    let layout = cache.store.layout();
    let whole = std::fs::read(cache.sidecar(&member(1))).unwrap();
    let sums = |body: &[u8]| {
        let sealed = [body, layout.seals.sidecar(body).as_bytes()].concat();
        ChunkSums::from_sidecar(&sealed, &layout.seals, &member(1), second.len() as u64)
    };
    let body = &whole[..whole.len() - seal::SEAL_LEN];
    assert!(
        sums(body).is_some()
            && sums(&body[..body.len() - 16]).is_none()
            && sums(&body[..body.len() - 1]).is_none()
    );
}

/// L11
#[test]
fn a_sidecar_of_another_cache_is_worth_nothing() {
    let (cache, other) = (Cache::new(), Cache::new());
    let (bytes, wrong) = (content(2 * CHUNK, 12), content(2 * CHUNK, 13));
    for key in [blob(&bytes), member(1)] {
        drop(put(&cache.store, &key, &bytes));
        // The other cache made a consistent pair for the same name; a member's fill is not checked
        // by a digest.
        drop(put(&other.store, &member(1), &wrong));
        overwrite(&cache.file(&key), &wrong);
        overwrite(&cache.sidecar(&key), &std::fs::read(other.sidecar(&member(1))).unwrap());
        assert_eq!(read(&cache.store, &key), None);
        other.store.quarantine(&member(1), "the test goes on");
    }
}

#[test]
fn a_lost_key_costs_members_and_edges_but_no_blob() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 14);
    drop(put(&cache.store, &blob(&bytes), &bytes));
    drop(put(&cache.store, &member(1), &bytes));
    cache.store.put_edge("e", b"v").unwrap();
    overwrite(&cache.dir.path().join("v1/key"), b"short");
    let store = cache.again();
    assert_eq!(read(&store, &blob(&bytes)).unwrap(), bytes);
    assert_eq!(read(&store, &member(1)), None);
    assert_eq!(store.edge("e"), None);
    assert_eq!(
        cache.dir.path().join("v1/key").metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
}

/// L11: who could read the key could have sealed anything with it.
#[test]
fn a_key_that_others_could_read_is_replaced() {
    let cache = Cache::new();
    let bytes = content(2 * CHUNK, 25);
    drop(put(&cache.store, &blob(&bytes), &bytes));
    cache.store.put_edge("e", b"v").unwrap();
    let path = cache.dir.path().join("v1/key");
    let key = std::fs::read(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let store = cache.again();
    assert_eq!(store.edge("e"), None);
    assert_eq!(read(&store, &blob(&bytes)).unwrap(), bytes);
    assert_ne!(std::fs::read(&path).unwrap(), key);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn verify_finds_what_is_wrong_and_removes_it() {
    let cache = Cache::new();
    let (good, bad, small) = (content(3 * CHUNK, 15), content(3 * CHUNK, 16), content(99, 17));
    for bytes in [&good, &bad, &small] {
        drop(put(&cache.store, &blob(bytes), bytes));
    }
    drop(put(&cache.store, &member(9), &bad));
    for key in [blob(&bad), blob(&small), member(9)] {
        let mut bytes = std::fs::read(cache.file(&key)).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        overwrite(&cache.file(&key), &bytes);
    }
    let mut last = (0, 0);
    let verified = cache.store.verify(&mut |done, total| {
        last = (done, total);
        ControlFlow::Continue(())
    });
    assert_eq!(last.0, last.1);
    assert_eq!(verified.checked, 4);
    let mut keys: Vec<Key> = verified.bad.into_iter().map(|(key, _)| key).collect();
    keys.sort();
    let mut expected = vec![blob(&bad), blob(&small), member(9)];
    expected.sort();
    assert_eq!(keys, expected);
    let again = cache.store.verify(&mut |_, _| ControlFlow::Continue(()));
    assert_eq!(again, StoreVerified { checked: 1, ..StoreVerified::default() });
}

#[test]
fn verify_and_prune_break_off_after_the_object_at_which_they_are_told_to() {
    let cache = Cache::new();
    for seed in 0..5 {
        let bytes = content(3 * CHUNK, 20 + seed);
        drop(put(&cache.store, &blob(&bytes), &bytes));
    }
    let verified = cache.store.verify(&mut |_, _| ControlFlow::Break(()));
    assert_eq!(verified, StoreVerified { checked: 1, left: 4, ..StoreVerified::default() });
    let mut calls = 0;
    let pruned = cache.again().prune_while(0, &mut |freed, excess| {
        assert!(freed > 0 && freed < excess);
        calls += 1;
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(pruned.objects, 2);
    assert_eq!(cache.again().usage().objects, 3);
}
