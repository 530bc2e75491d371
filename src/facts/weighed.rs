//! What was used last, as many and as much of it as was allowed.

use std::hash::Hash;

use lru::LruCache;

/// Values with their weight in bytes; what was used longest ago goes first.
pub(super) struct Weighed<K: Hash + Eq, V> {
    kept: LruCache<K, (V, usize)>,
    count_max: usize,
    weight: usize,
    weight_max: usize,
}

impl<K: Hash + Eq, V> Weighed<K, V> {
    /// At most `count_max` values of `weight_max` bytes together.
    pub(super) fn new(count_max: usize, weight_max: usize) -> Self {
        Weighed { kept: LruCache::unbounded(), count_max, weight: 0, weight_max }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.kept.get(key).map(|(value, _)| value)
    }

    /// Keeps `value`. One that is too heavy by itself is not kept.
    pub(super) fn put(&mut self, key: K, value: V, weight: usize) {
        self.weight += weight;
        if let Some((_, before)) = self.kept.put(key, (value, weight)) {
            self.weight -= before;
        }
        while self.kept.len() > self.count_max || self.weight > self.weight_max {
            let Some((_, (_, oldest))) = self.kept.pop_lru() else { break };
            self.weight -= oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_number_and_by_weight() {
        let mut kept = Weighed::new(3, 10);
        for n in 0..5 {
            kept.put(n, n, 1);
        }
        assert_eq!((kept.kept.len(), kept.weight), (3, 3));
        assert!(kept.get(&1).is_none() && kept.get(&2).is_some());
        kept.put(7, 7, 8);
        assert_eq!((kept.kept.len(), kept.weight), (3, 10));
        kept.put(8, 8, 2);
        assert_eq!(kept.weight, 10);
        assert!(kept.get(&3).is_none() && kept.get(&7).is_some());
        kept.put(7, 7, 1);
        assert_eq!((kept.kept.len(), kept.weight), (2, 3));
        kept.put(9, 9, 11);
        assert_eq!((kept.kept.len(), kept.weight), (0, 0), "what is too heavy is not kept");
    }
}
