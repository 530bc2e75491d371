//! A table by numbers that come from a counter. Neighbours lie side by side, so that it takes
//! little more than what is in it, and grows and shrinks page by page.

use std::collections::HashMap;

/// How many numbers a page has.
const PAGE: u64 = 64;

struct Page<T> {
    values: Box<[Option<T>]>,
    used: u64,
}

impl<T> Page<T> {
    fn new() -> Self {
        Page { values: (0..PAGE).map(|_| None).collect(), used: 0 }
    }
}

/// See the module.
pub(super) struct Numbered<T> {
    pages: HashMap<u64, Page<T>>,
    count: usize,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Numbered { pages: HashMap::new(), count: 0 }
    }
}

impl<T> Numbered<T> {
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        self.pages.get(&(number / PAGE))?.values[(number % PAGE) as usize].as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.pages.get_mut(&(number / PAGE))?.values[(number % PAGE) as usize].as_mut()
    }

    /// Adds the value of a number that has none.
    pub(super) fn insert(&mut self, number: u64, value: T) {
        let page = self.pages.entry(number / PAGE).or_insert_with(Page::new);
        if page.values[(number % PAGE) as usize].replace(value).is_none() {
            page.used += 1;
            self.count += 1;
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let page = self.pages.get_mut(&(number / PAGE))?;
        let value = page.values[(number % PAGE) as usize].take()?;
        page.used -= 1;
        self.count -= 1;
        if page.used == 0 {
            self.pages.remove(&(number / PAGE));
            if self.pages.capacity() > 64.max(8 * self.pages.len()) {
                self.pages.shrink_to(2 * self.pages.len());
            }
        }
        Some(value)
    }

    /// How many numbers have a value.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_lives_as_long_as_something_is_in_it() {
        let mut table = Numbered::default();
        (1..100 * PAGE).for_each(|n| table.insert(n, n));
        assert_eq!((table.count(), table.pages.len()), (100 * PAGE as usize - 1, 100));
        assert!(
            (1..100 * PAGE).filter(|n| n % (2 * PAGE) != 7).all(|n| table.remove(n) == Some(n))
        );
        assert_eq!((table.count(), table.pages.len(), table.remove(8)), (50, 50, None));
        assert_eq!((table.get(7), table.get(8)), (Some(&7), None));
        assert_eq!(table.get_mut(7 + 2 * PAGE), Some(&mut (7 + 2 * PAGE)));
        assert!((0..50).all(|n| table.remove(7 + 2 * n * PAGE).is_some()));
        assert_eq!((table.count(), table.pages.len()), (0, 0));
        assert!(table.pages.capacity() <= 64);
    }
}
