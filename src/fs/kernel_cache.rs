//! What the kernel keeps of something in an area: its name and, of a file, its pages.
//!
//! Nobody but the kernel changes an area, so it may keep both; with two exceptions. A name that
//! leaves the area takes what the kernel holds along, which hides what stands at the new name. And
//! a file that was just made is written past the pages: there are none yet, and before it writes
//! through pages the kernel asks for the file's capabilities each time.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use super::attr::FOREVER;

/// The name may be kept.
const NAME_KEPT: u8 = 0;
/// The name is looked up whenever it is used.
const NAME_ASKED: u8 = 1;
/// Likewise, and the kernel was told so.
const NAME_ASKED_AS_TOLD: u8 = 2;

/// See the module.
#[derive(Default, Debug)]
pub(super) struct KernelCache {
    name: AtomicU8,
    /// How many handles are open that write past the pages.
    bypassed_by: AtomicUsize,
    /// Whether there may be pages that differ from the file.
    pages_doubtful: AtomicBool,
}

/// What the kernel does with its pages of a file of an area that is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caching {
    /// It uses those that it has.
    Kept,
    /// It drops those that it has and reads the file anew.
    Anew,
    /// It uses none: what is read and written through this handle goes to the file.
    Bypassed,
}

impl KernelCache {
    /// Has the kernel look the name up from now on whenever it uses it; whether it was told that
    /// already.
    pub(super) fn ask_for_name(&self) -> bool {
        let before =
            self.name.compare_exchange(NAME_KEPT, NAME_ASKED, Ordering::AcqRel, Ordering::Acquire);
        before == Err(NAME_ASKED_AS_TOLD)
    }

    /// Lets the kernel keep the name again.
    pub(super) fn keep_name(&self) {
        self.name.store(NAME_KEPT, Ordering::Release);
    }

    /// How long the kernel may keep the name, in an answer that it gets.
    pub(super) fn name_ttl(&self) -> Duration {
        let before = self.name.compare_exchange(
            NAME_ASKED,
            NAME_ASKED_AS_TOLD,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if before == Err(NAME_KEPT) { FOREVER } else { Duration::ZERO }
    }

    /// What the kernel does with the pages of what is opened now. As long as one handle bypasses
    /// them, all do: a page that is read while the file is written past it would stay as it was. A
    /// mapping has pages all the same, so they count as doubtful until the file is opened plainly.
    pub(super) fn caching(&self) -> Caching {
        if self.bypassed_by.load(Ordering::Acquire) > 0 {
            Caching::Bypassed
        } else if self.pages_doubtful.swap(false, Ordering::AcqRel) {
            Caching::Anew
        } else {
            Caching::Kept
        }
    }

    /// Has a file that was just made be written past its pages, until [`KernelCache::end_bypass`].
    pub(super) fn bypass_pages(&self) {
        self.bypassed_by.fetch_add(1, Ordering::AcqRel);
        self.pages_doubtful.store(true, Ordering::Release);
    }

    pub(super) fn end_bypass(&self) {
        self.bypassed_by.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leaves_only_after_the_kernel_was_told_to_ask_for_it() {
        let kept = KernelCache::default();
        assert_eq!(kept.name_ttl(), FOREVER);
        assert!(!kept.ask_for_name() && !kept.ask_for_name());
        assert_eq!(kept.name_ttl(), Duration::ZERO);
        assert!(kept.ask_for_name());
        assert_eq!(kept.name_ttl(), Duration::ZERO);
        kept.keep_name();
        assert_eq!(kept.name_ttl(), FOREVER);
        assert!(!kept.ask_for_name());
    }

    #[test]
    fn pages_are_used_when_nobody_writes_past_them_any_more_and_those_before_are_dropped_once() {
        let kept = KernelCache::default();
        assert_eq!(kept.caching(), Caching::Kept);
        kept.bypass_pages();
        assert_eq!((kept.caching(), kept.caching()), (Caching::Bypassed, Caching::Bypassed));
        kept.end_bypass();
        assert_eq!((kept.caching(), kept.caching()), (Caching::Anew, Caching::Kept));
    }
}
