//! Objects that are kept open after their use, so that the next use opens and checks nothing.
//!
//! INVARIANT: what is kept is pinned, as the store evicts nothing that is open. So it is a small
//! part of the cache's limit at most, and all of it can be let go at any time.

use lru::LruCache;

use crate::store::{Key, Object};

/// How many objects are kept, each of which costs a descriptor.
const COUNT: usize = 64;
/// Which part of the cache's limit may be kept from eviction: one of so many.
const PART: u64 = 8;

/// The objects used last.
pub(super) struct OpenObjects {
    objects: LruCache<Key, Object>,
    bytes: u64,
    bytes_max: u64,
}

impl OpenObjects {
    /// Keeps a part of a cache that may hold `limit` bytes.
    pub fn new(limit: u64) -> OpenObjects {
        OpenObjects { objects: LruCache::unbounded(), bytes: 0, bytes_max: limit / PART }
    }

    pub fn get(&mut self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    /// Keeps an object, and lets go of those that were used longest ago. One that is too large by
    /// itself is not kept.
    pub fn put(&mut self, key: Key, object: Object) {
        self.pop(&key);
        self.bytes = self.bytes.saturating_add(object.len());
        self.objects.put(key, object);
        while self.objects.len() > COUNT || self.bytes > self.bytes_max {
            match self.objects.pop_lru() {
                Some((_, gone)) => self.bytes = self.bytes.saturating_sub(gone.len()),
                None => break,
            }
        }
    }

    pub fn pop(&mut self, key: &Key) {
        if let Some(gone) = self.objects.pop(key) {
            self.bytes = self.bytes.saturating_sub(gone.len());
        }
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.objects.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::store::{Begin, Store, StoreOptions};

    #[test]
    fn what_is_kept_is_bounded_by_number_and_by_a_part_of_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(StoreOptions { dir: dir.path().to_owned(), limit: u64::MAX }).unwrap();
        let object = |text: &str| {
            let key = Key::Blob(Digest::of(text.as_bytes()));
            let Ok(Begin::Fill(mut fill)) = store.begin(&key, text.len() as u64) else {
                panic!("a fill")
            };
            fill.write(text.as_bytes()).unwrap();
            (key, fill.publish().unwrap())
        };
        let mut kept = OpenObjects::new(PART * 10);
        let (first, second, large) = (object("12345"), object("abcde"), object("more than ten"));
        for (key, object) in [&first, &second, &first] {
            kept.put(*key, object.clone());
        }
        assert_eq!((kept.objects.len(), kept.bytes), (2, 10));
        assert!(kept.get(&first.0).is_some());
        let third = object("x");
        kept.put(third.0, third.1);
        assert!(
            kept.get(&second.0).is_none() && kept.get(&first.0).is_some(),
            "the longest unused one goes"
        );
        kept.put(large.0, large.1);
        assert!(kept.get(&large.0).is_none(), "what is too large is not kept");
        assert_eq!((kept.objects.len(), kept.bytes), (0, 0));

        let mut many = OpenObjects::new(u64::MAX);
        for n in 0..2 * COUNT {
            let (key, object) = object(&n.to_string());
            many.put(key, object);
        }
        assert_eq!(many.objects.len(), COUNT);
        many.clear();
        assert_eq!((many.objects.len(), many.bytes), (0, 0));
    }
}
