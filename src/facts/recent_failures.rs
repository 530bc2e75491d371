//! Loads that failed a short while ago. Nothing appears under a digest soon after it was missed, so
//! each is tried again only when its time is over.

use std::hash::Hash;
use std::time::Instant;

use parking_lot::Mutex;

use crate::bounded::Bounded;
use crate::failure::{Failure, Refusal};

/// How many failures are remembered.
const COUNT_MAX: usize = 10_000;

/// Why what `K` names could not be loaded, and until when that counts.
pub(super) struct RecentFailures<K: Hash + Eq>(Mutex<Bounded<K, (Refusal, Instant)>>);

impl<K: Clone + Hash + Eq> Default for RecentFailures<K> {
    fn default() -> Self {
        RecentFailures(Mutex::new(Bounded::counted(COUNT_MAX)))
    }
}

impl<K: Clone + Hash + Eq> RecentFailures<K> {
    /// Fails as the load of `key` did, while that counts.
    pub(super) fn check(&self, key: &K) -> Result<(), Refusal> {
        match self.0.lock().get(key) {
            Some((error, until)) if *until > Instant::now() => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Remembers how the load of `key` ended.
    pub(super) fn note<T>(&self, key: K, outcome: &Result<T, Refusal>) {
        let mut failures = self.0.lock();
        match outcome {
            Ok(_) => {
                failures.remove(&key);
            }
            // It says nothing about what was asked for, and others are not refused.
            Err(error) if error.failure == Failure::Crowded => {}
            Err(error) => {
                let until = Instant::now() + error.failure.kept_for();
                failures.put(key, (error.clone(), until));
            }
        }
    }

    /// Lets everything be tried again.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}
