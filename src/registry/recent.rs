//! A map that is bounded: what was used longest ago gives way.

use std::collections::HashMap;
use std::hash::Hash;

/// At most so many values, each with the time of its last use.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    most: usize,
    uses: u64,
    entries: HashMap<K, (u64, V)>,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// An empty one that holds at most `most` values, and one at least.
    pub fn new(most: usize) -> Recent<K, V> {
        Recent { most: most.max(1), uses: 0, entries: HashMap::new() }
    }

    /// The value of `key`, which counts as used.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.uses += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.uses;
        Some(value)
    }

    /// The value of `key`, which is made if there is none.
    pub fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        if !self.entries.contains_key(key) && self.entries.len() >= self.most {
            self.drop_oldest();
        }
        let (used, value) = self.entries.entry(key.clone()).or_insert_with(|| (0, make()));
        *used = self.uses;
        value
    }

    /// All values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut().map(|(_, value)| value)
    }

    fn drop_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_gives_way_and_nothing_else_does() {
        let mut recent = Recent::new(3);
        for key in ["a", "b", "c"] {
            recent.get_or_insert_with(&key, || key.len());
        }
        assert!(recent.get_mut(&"a").is_some());
        recent.get_or_insert_with(&"d", || 4);
        let held = ["a", "b", "c", "d"].map(|key| recent.get_mut(&key).is_some());
        assert_eq!(held, [true, false, true, true]);
        assert_eq!(recent.values_mut().count(), 3);
        *recent.get_or_insert_with(&"d", || 0) += 1;
        assert_eq!(recent.get_mut(&"d"), Some(&mut 5));
    }
}
