//! The memory in which content is served while the cache's disk takes none (O05, O11).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much content may be held in memory for want of disk, by the whole process.
pub(super) const MEMORY_MAX: u64 = 64 * 1024 * 1024;

/// Counts the bytes that are held.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<AtomicU64>);

impl Memory {
    /// Sets `bytes` aside, unless that would pass the limit.
    pub(super) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= MEMORY_MAX);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Reservation { memory: self.clone(), bytes })
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes set aside, until it is dropped.
pub(super) struct Reservation {
    memory: Memory,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
