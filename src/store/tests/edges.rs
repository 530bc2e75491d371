//! Edges are what this cache was given, or absent.

use super::*;
use std::collections::BTreeMap;

fn all(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    store.each_edge(&mut |name, value| {
        found.insert(name.to_owned(), value.to_vec());
    });
    found
}

fn only_file(cache: &Cache) -> PathBuf {
    let mut files = std::fs::read_dir(cache.dir.path().join("v1/edges")).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    file
}

/// L16: names from outside are only ever content.
#[test]
fn an_edge_of_any_name_is_read_back_replaced_and_removed() {
    let cache = Cache::new();
    let names = ["", "tag r.example/a:1", "../../../etc/passwd", "a\0b", &"x".repeat(10_000), "ü"];
    for name in names {
        assert_eq!(cache.store.edge(name), None);
        cache.store.put_edge(name, b"old").unwrap();
        cache.store.put_edge(name, name.as_bytes()).unwrap();
        assert_eq!(cache.again().edge(name).unwrap(), name.as_bytes());
    }
    let expected: BTreeMap<_, _> =
        names.iter().map(|n| ((*n).to_owned(), n.as_bytes().to_vec())).collect();
    assert_eq!(all(&cache.store), expected);
    cache.store.remove_edge("");
    cache.store.remove_edge("never there");
    assert_eq!(all(&cache.store).len(), names.len() - 1);
}

/// O08
#[test]
fn a_changed_edge_file_reads_as_absent() {
    let cache = Cache::new();
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..200 {
        cache.store.put_edge("name", b"some value").unwrap();
        let file = only_file(&cache);
        let mut bytes = std::fs::read(&file).unwrap();
        match round {
            0 => bytes.clear(),
            1 => bytes.push(0),
            2 => bytes.truncate(20),
            _ => bytes[random.usize(..54)] ^= 1 << random.u8(..8),
        }
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(all(&cache.store), BTreeMap::new());
        assert_eq!(cache.store.edge("name"), None);
    }
}

#[test]
fn an_edge_moved_to_another_name_reads_as_absent() {
    let cache = Cache::new();
    cache.store.put_edge("a", b"value of a").unwrap();
    let a = only_file(&cache);
    cache.store.put_edge("b", b"value of b").unwrap();
    let b = std::fs::read_dir(a.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| *p != a)
        .unwrap();
    std::fs::rename(a, b).unwrap();
    assert_eq!((cache.store.edge("a"), cache.store.edge("b")), (None, None));
    assert_eq!(all(&cache.store), BTreeMap::new());
}
