//! Budget: what lies in the cache, what goes first, and what is left over from processes that died.
//!
//! The directories are the only record. They are counted by walking them: once at the start, in the
//! background, and again whenever this process added enough that the sum may have passed the limit,
//! which also notices what other processes added and removed. Use is written into modification
//! times: of the sidecar, or of a small blob's data file. (A sidecar's, since a change of the data
//! file's ctime would make passthrough check it again.)
//!
//! INVARIANT: no object that this process holds open is evicted, nor one that is pinned or held,
//! and eviction takes names only, so whoever else holds one open keeps its bytes.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::disk::length;
use super::error::is_full;
use super::holds::{self, HOLD};
use super::layout::CacheLayout;
use super::scratch::SCRATCH;
use super::walk::{SCRATCH_AGE, age_of, blocks, on_disk, walk};
use super::{Key, PARTIAL, Store, pins};
use crate::disk::lock::try_lock;
use crate::metrics::metrics;

/// After how long a partial file that nobody writes is given up.
pub(super) const PARTIAL_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How far eviction goes below the limit, so that it does not run at every fill: to nine tenths.
const EVICT_TO: (u64, u64) = (9, 10);

/// What [`Store::prune`] removed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Pruned {
    /// Objects removed.
    pub objects: u64,
    /// Space freed, in bytes.
    pub bytes: u64,
    /// Objects whose removal the disk refused.
    pub refused: u64,
}

/// What the cache holds on disk, as far as it is known.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Totals {
    pub(super) bytes: u64,
    pub(super) objects: u64,
}

/// The running sum.
#[derive(Default)]
pub(super) struct Ledger {
    sum: Mutex<EvictionSum>,
    /// Held while objects are evicted, so that two threads do not free the same bytes twice.
    pub(super) sweeping: Mutex<()>,
}

#[derive(Default)]
struct EvictionSum {
    /// `None` until the directories were walked once.
    totals: Option<Totals>,
    /// What this process added since the last walk began.
    added: Totals,
}

impl Ledger {
    pub(super) fn totals(&self) -> Option<Totals> {
        self.sum.lock().totals
    }

    /// A walk begins: what is added from now on may be missed by it.
    pub(super) fn walking(&self) {
        self.sum.lock().added = Totals::default();
    }

    /// A walk found that much. What was added meanwhile may be counted twice until the next walk.
    pub(super) fn set(&self, bytes: u64, objects: u64) {
        let mut sum = self.sum.lock();
        sum.totals =
            Some(Totals { bytes: bytes + sum.added.bytes, objects: objects + sum.added.objects });
    }

    /// Counts an object of `size` bytes in. Whether it is time to look at the limit.
    pub(super) fn add(&self, key: &Key, size: u64, limit: u64) -> bool {
        let mut sum = self.sum.lock();
        let bytes = on_disk(key, size);
        sum.added.bytes += bytes;
        sum.added.objects += 1;
        let much = sum.added.bytes > limit / 16;
        let Some(totals) = sum.totals.as_mut() else { return false };
        totals.bytes += bytes;
        totals.objects += 1;
        totals.bytes > limit || much
    }

    /// Counts an object of `size` bytes out.
    pub(super) fn subtract(&self, key: &Key, size: u64) {
        if let Some(totals) = self.sum.lock().totals.as_mut() {
            totals.bytes = totals.bytes.saturating_sub(on_disk(key, size));
            totals.objects = totals.objects.saturating_sub(1);
        }
    }
}

impl Store {
    /// Removes the longest unused objects until at most `to_bytes` are left, and partial files that
    /// nobody writes. What this process holds open stays, and what is pinned.
    pub fn prune(&self, to_bytes: u64) -> Pruned {
        self.prune_while(to_bytes, &mut |_, _| ControlFlow::Continue(()))
    }

    /// As [`Store::prune`]; `progress` is told what was freed and what is to be freed, in bytes,
    /// after each object, and may break off.
    pub fn prune_while(
        &self,
        to_bytes: u64,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Pruned {
        let freed = reap(&self.layout(), Duration::ZERO);
        let mut pruned = self.sweep_alone(&self.ledger.sweeping.lock(), Some(to_bytes), progress);
        pruned.bytes += freed;
        pruned
    }

    /// Frees space on a disk that answered `errno`, if that says that it is full: at least `bytes`,
    /// and a tenth of the cache.
    pub(super) fn make_room(&self, bytes: u64, errno: Errno) {
        if !is_full(errno) {
            return;
        }
        // What was only made ahead of its use goes first.
        if self.scratches.give_up() > bytes {
            return;
        }
        let freed = reap(&self.layout(), Duration::ZERO);
        let held = self.count().bytes;
        let pruned = self.sweep(Some(held.saturating_sub(bytes.saturating_mul(2).max(held / 10))));
        tracing::warn!(
            dir = %self.options.dir.display(),
            freed = freed + pruned.bytes,
            objects = pruned.objects,
            "the cache's disk is full: the longest unused objects were evicted"
        );
    }

    /// What the cache holds; walks its directories if nobody did before.
    pub(super) fn count(&self) -> Totals {
        let sweeping = self.ledger.sweeping.lock();
        if let Some(totals) = self.ledger.totals() {
            return totals;
        }
        self.sweep_alone(&sweeping, None, &mut |_, _| ControlFlow::Continue(()));
        self.ledger.totals().unwrap_or_default()
    }

    /// Counts the cache; evicts down to `to_bytes`, or below the limit if that is passed.
    pub(super) fn sweep(&self, to_bytes: Option<u64>) -> Pruned {
        self.sweep_alone(&self.ledger.sweeping.lock(), to_bytes, &mut |_, _| {
            ControlFlow::Continue(())
        })
    }

    fn sweep_alone(
        &self,
        _sweeping: &MutexGuard<'_, ()>,
        to_bytes: Option<u64>,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Pruned {
        self.ledger.walking();
        let layout = self.layout();
        let found = walk(&layout);
        let mut bytes = found.iter().map(|found| found.bytes).sum::<u64>();
        let mut objects = found.len() as u64;
        let limit = self.options.limit;
        let target = to_bytes.unwrap_or(if bytes > limit {
            limit / EVICT_TO.1 * EVICT_TO.0
        } else {
            u64::MAX
        });
        let excess = bytes.saturating_sub(target);
        let mut pruned = Pruned::default();
        let mut pinned = HashSet::new();
        if excess > 0 {
            pinned = pins::pinned(&layout);
            pinned.extend(holds::held(&layout));
        }
        for found in found.into_iter().filter(|found| !pins::is_pinned(&pinned, &found.key)) {
            if bytes <= target {
                break;
            }
            let in_use =
                self.open.lock().get(&found.key).is_some_and(|open| open.strong_count() > 0);
            if in_use {
                continue;
            }
            if let Err(errno) = layout.remove(&found.key) {
                tracing::warn!(key = %found.key, %errno, "a cached object cannot be removed");
                pruned.refused += 1;
            } else {
                bytes -= found.bytes;
                objects -= 1;
                pruned.bytes += found.bytes;
                pruned.objects += 1;
                if progress(pruned.bytes, excess).is_break() {
                    break;
                }
            }
        }
        self.ledger.set(bytes, objects);
        if pruned.objects > 0 {
            metrics().evicted_objects.inc_by(pruned.objects);
            metrics().evicted_bytes.inc_by(pruned.bytes);
            tracing::info!(
                objects = pruned.objects,
                bytes = pruned.bytes,
                left = bytes,
                "evicted from the cache"
            );
        }
        pruned
    }
}

/// Removes temporary files of dead processes: partial files that nobody has locked and that are
/// older than `partial_age`, and old scratch files. Returns the bytes freed.
pub(super) fn reap(layout: &CacheLayout, partial_age: Duration) -> u64 {
    let mut freed = 0;
    for name in layout.tmp.names() {
        let Ok(stat) = layout.tmp.stat(&name) else { continue };
        let limit = match name.as_str() {
            name if name.ends_with(PARTIAL) => partial_age,
            // Locked from its first moment to its last.
            name if name.ends_with(SCRATCH) || name.ends_with(HOLD) => Duration::ZERO,
            _ => SCRATCH_AGE,
        };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || age_of(&stat) < limit {
            continue;
        }
        let Ok(file) = layout.tmp.open(&name) else { continue };
        let unused = try_lock(&file) == Ok(true);
        // Only under the lock, and only if the name still stands for the file that was locked.
        if unused && layout.tmp.holds(&name, &file) && layout.tmp.unlink(&name).is_ok() {
            freed += blocks(length(&stat));
        }
    }
    freed
}
