//! Pins: content that stays in the cache whatever else is wanted, by release.
//!
//! All pins are one value, kept like an edge but synced to the disk, so that they outlive a power
//! loss. Every process that shares the cache reads them before it evicts, so a pin counts for
//! mounts that run.
//!
//! INVARIANT: an object whose digest a pin names, and every member of such an archive, is removed
//! only where it is damaged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::system;
use super::layout::CacheLayout;
use super::walk::{on_disk, walk};
use super::{Key, Store, edges};
use crate::digest::Digest;
use crate::failure::Refusal;
use crate::name::{Reference, Tag};

/// The value under which pins are kept.
const NAME: &str = "pins";

/// A release that stays in the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pin {
    /// The release, by digest.
    pub reference: Reference,
    /// The tags by which it was pinned.
    pub tags: BTreeSet<Tag>,
    /// Its manifests and blobs.
    pub objects: BTreeSet<Digest>,
}

/// What pins hold.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PinnedUsage {
    /// The space that pinned objects take, in bytes.
    pub bytes: u64,
    /// How many pinned objects are in the cache.
    pub objects: u64,
}

/// A pin as it is kept, under its reference.
#[derive(Serialize, Deserialize)]
struct PinRecord {
    tags: Vec<String>,
    objects: Vec<String>,
}

impl PinRecord {
    fn of(pin: &Pin) -> PinRecord {
        let tags = pin.tags.iter().map(Tag::to_string).collect();
        PinRecord { tags, objects: pin.objects.iter().map(Digest::to_string).collect() }
    }

    fn pin(self, reference: &str) -> Option<Pin> {
        let tags = self.tags.iter().map(|tag| tag.parse().ok()).collect::<Option<_>>()?;
        let objects =
            self.objects.iter().map(|digest| digest.parse().ok()).collect::<Option<_>>()?;
        Some(Pin { reference: reference.parse().ok()?, tags, objects })
    }
}

/// Keeps the threads of this process apart while they change such a value; a lock on the directory
/// does so for processes.
#[derive(Default)]
pub(super) struct Pinning(Mutex<()>);

impl Store {
    /// All pins, in the order of their references.
    pub fn pins(&self) -> Vec<Pin> {
        read(&self.layout())
    }

    /// Adds pins. One of a release that is pinned already adds its tags and objects to it.
    ///
    /// # Errors
    /// The disk takes no writes.
    pub fn pin(&self, pins: &[Pin]) -> Result<(), Refusal> {
        self.change_pins(|all| {
            for pin in pins {
                match all.iter_mut().find(|old| old.reference == pin.reference) {
                    Some(old) => {
                        old.tags.extend(pin.tags.iter().cloned());
                        old.objects.extend(&pin.objects);
                    }
                    None => all.push(pin.clone()),
                }
            }
        })
    }

    /// Removes the pins for which `gone` holds; they are returned. Their content stays until its
    /// space is wanted.
    ///
    /// # Errors
    /// As of [`Store::pin`].
    pub fn unpin(&self, gone: impl Fn(&Pin) -> bool) -> Result<Vec<Pin>, Refusal> {
        let mut removed = Vec::new();
        self.change_pins(|all| {
            let (out, kept) = std::mem::take(all).into_iter().partition(&gone);
            (removed, *all) = (out, kept);
        })?;
        Ok(removed)
    }

    /// The space that pinned content takes now. Walks the cache.
    pub fn pinned_usage(&self) -> PinnedUsage {
        let layout = self.layout();
        let pinned = pinned(&layout);
        let mut usage = PinnedUsage::default();
        for found in walk(&layout).iter().filter(|found| is_pinned(&pinned, &found.key)) {
            usage.bytes += found.bytes;
            usage.objects += 1;
        }
        usage
    }

    /// The space that `objects` of these lengths take, and that of all pinned content beside them.
    /// Walks the cache.
    pub fn space_with_pins(&self, objects: &HashMap<Key, u64>) -> (u64, u64) {
        let layout = self.layout();
        let pinned = pinned(&layout);
        let own = objects.iter().map(|(key, size)| on_disk(key, *size)).sum();
        let all = walk(&layout);
        let beside =
            all.iter().filter(|f| is_pinned(&pinned, &f.key) && !objects.contains_key(&f.key));
        (own, beside.map(|found| found.bytes).sum())
    }

    fn change_pins(&self, change: impl FnOnce(&mut Vec<Pin>)) -> Result<(), Refusal> {
        self.change(NAME, edges::put_durably, |bytes| {
            let mut all = parsed(bytes);
            change(&mut all);
            let records: BTreeMap<String, PinRecord> =
                all.iter().map(|pin| (pin.reference.to_string(), PinRecord::of(pin))).collect();
            serde_json::to_vec(&records).ok()
        })
    }

    /// Replaces the value of an edge by what `change` makes of it; nothing, where it makes nothing.
    /// No other process does so meanwhile.
    ///
    /// # Errors
    /// The disk takes no writes.
    pub fn change_edge(
        &self,
        name: &str,
        change: impl FnOnce(Option<Vec<u8>>) -> Option<Vec<u8>>,
    ) -> Result<(), Refusal> {
        self.change(name, edges::put, change)
    }

    fn change(
        &self,
        name: &str,
        put: impl Fn(&CacheLayout, &str, &[u8]) -> Result<(), Refusal>,
        change: impl FnOnce(Option<Vec<u8>>) -> Option<Vec<u8>>,
    ) -> Result<(), Refusal> {
        let _alone = self.pinning.0.lock();
        let layout = self.layout_to_write()?;
        let failed = |errno| system(format_args!("the {name} of the cache"), "change them", errno);
        flock(&layout.edges, FlockOperation::LockExclusive).map_err(failed)?;
        let changed = change(edges::get(&layout, name));
        let kept = changed.map_or(Ok(()), |value| put(&layout, name, &value));
        // Dropped with the process in any case.
        let _ = flock(&layout.edges, FlockOperation::Unlock);
        kept
    }
}

fn read(layout: &CacheLayout) -> Vec<Pin> {
    parsed(edges::get(layout, NAME))
}

fn parsed(bytes: Option<Vec<u8>>) -> Vec<Pin> {
    let records: BTreeMap<String, PinRecord> =
        serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default();
    records.into_iter().filter_map(|(reference, record)| record.pin(&reference)).collect()
}

/// The digests that may not be evicted.
pub(super) fn pinned(layout: &CacheLayout) -> HashSet<Digest> {
    read(layout).into_iter().flat_map(|pin| pin.objects).collect()
}

/// Whether an object is pinned: by its digest, or as a member of a pinned archive.
pub(super) fn is_pinned(pinned: &HashSet<Digest>, key: &Key) -> bool {
    let (Key::Blob(digest) | Key::Member { archive: digest, .. }) = key;
    pinned.contains(digest)
}
