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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_place_waits_while_something_moves_and_no_longer() {
        let deadline = Duration::from_millis(20);
        let gate = Gate::new(2);
        let (first, second) = (gate.enter(deadline).await.unwrap(), gate.enter(deadline).await.unwrap());
        let fault = gate.enter(deadline).await.map(drop).unwrap_err();
        assert_eq!(fault.failure, Failure::TimedOut);
        assert!(fault.rule.contains("no progress"), "{}", fault.rule);
        let moves = async {
            let begun = std::time::Instant::now();
            while begun.elapsed() < 10 * deadline {
                first.moved();
                tokio::task::yield_now().await;
            }
            drop(first);
        };
        let (entered, ()) = tokio::join!(gate.enter(deadline), moves);
        assert!(entered.is_ok(), "the place was given up after many deadlines");
        drop(second);
    }
}
