//! How many requests one registry gets at a time.
//!
//! Waiting for a place ends with an error only if nothing moved on the places that are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Failure;
use super::retry::{Fault, in_words};

/// A number of places.
pub(super) struct Gate {
    places: Semaphore,
    moved: Arc<AtomicU64>,
}

/// A taken place; free again when dropped.
pub(super) struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    moved: Arc<AtomicU64>,
}

impl Gate {
    pub fn new(places: usize) -> Gate {
        Gate { places: Semaphore::new(places), moved: Arc::default() }
    }

    /// Waits for a place, for `deadline` since something last moved through the gate.
    pub async fn enter(&self, deadline: Duration) -> Result<Place<'_>, Fault> {
        loop {
            let before = self.moved.load(Ordering::Relaxed);
            match tokio::time::timeout(deadline, self.places.acquire()).await {
                Ok(Ok(permit)) => return Ok(Place { _permit: permit, moved: self.moved.clone() }),
                Err(_) if self.moved.load(Ordering::Relaxed) != before => {}
                _ => {
                    let rule = format!("other requests to the registry made no progress for {}", in_words(deadline));
                    return Err(Fault::new(Failure::TimedOut, rule));
                }
            }
        }
    }
}

impl Place<'_> {
    /// Tells those who wait that this place is in use and moves.
    pub fn moved(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.moved();
    }
}
