//! The one kind of cache: what was used last, as many values and as much of them as is allowed.

use std::hash::Hash;

use lru::LruCache;

/// Values by key. Where there are too many of them, or they weigh too much together, those go that
/// were used longest ago, and no others.
#[derive(Debug)]
pub struct Bounded<K: Hash + Eq, V> {
    values: LruCache<K, V>,
    count_max: usize,
    weight: u64,
    weight_max: u64,
    weigh: fn(&V) -> u64,
}

impl<K: Clone + Hash + Eq, V> Bounded<K, V> {
    /// At most `count_max` values.
    pub fn counted(count_max: usize) -> Self {
        Bounded::weighed(count_max, 0, |_| 0)
    }

    /// At most `count_max` values that weigh `weight_max` together.
    pub fn weighed(count_max: usize, weight_max: u64, weigh: fn(&V) -> u64) -> Self {
        Bounded { values: LruCache::unbounded(), count_max, weight: 0, weight_max, weigh }
    }

    /// The value of `key`, which counts as used.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    /// Keeps `value` in the place of the one that is returned. One that is too heavy by itself is
    /// not kept, and moves no other out.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        let before = self.remove(&key);
        let weight = (self.weigh)(&value);
        if weight <= self.weight_max {
            self.weight += weight;
            self.values.put(key, value);
            self.shrink();
        }
        before
    }

    /// Changes the value of `key`, which counts as used, if there is one.
    pub fn change<T>(&mut self, key: &K, change: impl FnOnce(&mut V) -> T) -> Option<T> {
        let mut value = self.remove(key)?;
        let changed = change(&mut value);
        self.put(key.clone(), value);
        Some(changed)
    }

    /// Changes the value of `key`, which is made if there is none.
    pub fn change_or<T>(
        &mut self,
        key: &K,
        make: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> T,
    ) -> T {
        let mut value = self.remove(key).unwrap_or_else(make);
        let changed = change(&mut value);
        self.put(key.clone(), value);
        changed
    }

    /// Changes all values. None counts as used.
    pub fn change_all(&mut self, mut change: impl FnMut(&K, &mut V)) {
        self.weight = 0;
        for (key, value) in &mut self.values {
            change(key, value);
            self.weight += (self.weigh)(value);
        }
        self.shrink();
    }

    /// Takes the value of `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.values.pop(key)?;
        self.weight -= (self.weigh)(&value);
        Some(value)
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.values.clear();
        self.weight = 0;
    }

    /// Lets go of those that are not to be kept. None counts as used.
    pub fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        let gone = self.iter().filter(|(key, value)| !keep(key, value));
        let gone: Vec<K> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values, what was used last first. None counts as used.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.values.iter()
    }

    fn shrink(&mut self) {
        while self.values.len() > self.count_max || self.weight > self.weight_max {
            let Some((_, oldest)) = self.values.pop_lru() else { break };
            self.weight -= (self.weigh)(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys<V>(kept: &Bounded<u64, V>) -> Vec<u64> {
        let mut keys: Vec<u64> = kept.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn what_was_used_longest_ago_gives_way_and_nothing_else_does() {
        let mut kept = Bounded::counted(3);
        for key in 1..=3 {
            kept.put(key, key);
        }
        assert_eq!(kept.get(&1), Some(&1));
        assert_eq!(kept.change(&2, |value| *value += 10), Some(()));
        kept.put(4, 4);
        assert_eq!(keys(&kept), [1, 2, 4]);
        assert_eq!(kept.change_or(&5, || 50, |value| *value), 50);
        assert_eq!(keys(&kept), [2, 4, 5]);
        assert_eq!((kept.put(2, 7), kept.len()), (Some(12), 3));
        assert_eq!((kept.remove(&2), kept.change(&2, |_| ())), (Some(7), None));
        assert_eq!(kept.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [5, 4]);
        kept.retain(|key, _| *key == 4);
        assert_eq!(keys(&kept), [4]);
    }

    #[test]
    fn what_is_kept_is_bounded_by_its_weight_as_it_changes() {
        let mut kept = Bounded::weighed(3, 10, |value| *value);
        for key in 0..5 {
            kept.put(key, 1);
        }
        assert_eq!((keys(&kept), kept.weight), (vec![2, 3, 4], 3));
        kept.put(7, 8);
        assert_eq!((keys(&kept), kept.weight), (vec![3, 4, 7], 10));
        kept.put(9, 11);
        assert_eq!(keys(&kept), [3, 4, 7], "what is too heavy is not kept and moves nothing");
        kept.change(&4, |value| *value = 2);
        assert_eq!((keys(&kept), kept.weight), (vec![4, 7], 10));
        kept.change_all(|_, value| *value += 1);
        assert_eq!((keys(&kept), kept.weight), (vec![4], 3));
        kept.put(4, 11);
        assert_eq!((kept.is_empty(), kept.weight), (true, 0), "nor is what became too heavy");
        kept.put(1, 5);
        kept.put(2, 3);
        kept.retain(|_, value| *value < 5);
        assert_eq!((keys(&kept), kept.weight), (vec![2], 3));
        kept.clear();
        assert_eq!((kept.is_empty(), kept.weight), (true, 0));
    }
}
