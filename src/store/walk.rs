//! What lies in the cache: each object, the space that it takes, and when it was last used.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

use super::disk::length;
use super::layout::CacheLayout;
use super::sums::ChunkSums;
use super::{Key, SIDECAR};

/// After how long a file beside the objects is taken for one of a dead process; they live for
/// milliseconds.
pub(super) const SCRATCH_AGE: Duration = Duration::from_secs(10 * 60);
/// The unit in which file systems give out space.
const BLOCK: u64 = 4096;

/// The space that an object takes, its sidecar included.
pub(super) fn on_disk(key: &Key, size: u64) -> u64 {
    let sidecar = if key.is_small(size) { 0 } else { ChunkSums::sidecar_len(key, size) };
    blocks(size) + blocks(sidecar)
}

/// The space that `len` bytes take.
pub(super) fn blocks(len: u64) -> u64 {
    len.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// An object as it was found on disk.
pub(super) struct CachedObject {
    pub(super) key: Key,
    /// The space that it takes.
    pub(super) bytes: u64,
    /// When it was last used: seconds and nanoseconds since 1970.
    used: (i64, i64),
}

/// Everything that lies in the cache, longest unused first. Sidecars left without data are removed.
pub(super) fn walk(layout: &CacheLayout) -> Vec<CachedObject> {
    let mut all = Vec::new();
    for (dir, key_of) in layout.shards() {
        let mut shard: HashMap<Key, (CachedObject, bool)> = HashMap::new();
        for name in dir.names() {
            let (data_name, is_data) = match name.strip_suffix(SIDECAR) {
                Some(data_name) => (data_name, false),
                None => (name.as_str(), true),
            };
            let (Some(key), Ok(stat)) = (key_of(data_name), dir.stat(&name)) else { continue };
            let used = modified(&stat);
            let found = shard.entry(key).or_insert((CachedObject { key, bytes: 0, used }, false));
            found.0.bytes += blocks(length(&stat));
            found.0.used = found.0.used.max(used);
            found.1 |= is_data;
        }
        for (found, has_data) in shard.into_values() {
            if has_data {
                all.push(found);
            } else if age(found.used) > SCRATCH_AGE {
                // Younger ones are those of a file that is just being published.
                let _ = layout.remove(&found.key);
            }
        }
    }
    all.sort_unstable_by_key(|found| found.used);
    all
}

fn modified(stat: &Stat) -> (i64, i64) {
    // The types of these fields differ between architectures.
    #[allow(clippy::unnecessary_cast)]
    (stat.st_mtime as i64, stat.st_mtime_nsec as i64)
}

/// How long ago a file was last used; 0 for times to come.
pub(super) fn age_of(stat: &Stat) -> Duration {
    age(modified(stat))
}

fn age((seconds, _): (i64, i64)) -> Duration {
    let then = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::now().duration_since(then).unwrap_or_default()
}
