//! How many requests one registry gets at a time, and how many of them may be about one repository,
//! so that one which hangs leaves places for the others.
//!
//! Waiting for a place ends with an error only if nothing moved on the places that are taken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::retry::{Fault, in_words};
use crate::failure::Failure;
use crate::name::RepoName;

/// The places of one registry.
pub(super) struct Gate {
    all: Arc<Places>,
    /// How many of them one repository may have.
    most_of_one: usize,
    of_one: Mutex<HashMap<RepoName, Weak<Places>>>,
}

/// A number of places.
struct Places {
    free: Arc<Semaphore>,
    moved: AtomicU64,
}

/// A place that is taken; free again when dropped.
struct Taken {
    _permit: OwnedSemaphorePermit,
    places: Arc<Places>,
}

/// A taken place of a gate; free again when dropped.
pub(super) struct Permit {
    all: Taken,
    of_one: Option<Taken>,
}

impl Gate {
    /// One of `places` places, of which a single repository gets three quarters.
    pub fn new(places: usize) -> Gate {
        let most_of_one = (places * 3 / 4).max(1);
        Gate { all: Places::new(places), most_of_one, of_one: Mutex::default() }
    }

    /// Waits for a place, for `deadline` since something last moved through the gate.
    pub async fn enter(&self, deadline: Duration) -> Result<Permit, Fault> {
        Ok(Permit { all: self.all.take(deadline).await?, of_one: None })
    }

    /// The same for a request about `repo`, whose own requests wait for each other first.
    pub async fn enter_for(&self, repo: &RepoName, deadline: Duration) -> Result<Permit, Fault> {
        let of_one = self.places_of(repo).take(deadline).await?;
        Ok(Permit { all: self.all.take(deadline).await?, of_one: Some(of_one) })
    }

    fn places_of(&self, repo: &RepoName) -> Arc<Places> {
        let mut of_one = self.of_one.lock();
        if let Some(places) = of_one.get(repo).and_then(Weak::upgrade) {
            return places;
        }
        of_one.retain(|_, places| places.strong_count() > 0);
        let places = Places::new(self.most_of_one);
        of_one.insert(repo.clone(), Arc::downgrade(&places));
        places
    }
}

impl Places {
    fn new(number: usize) -> Arc<Places> {
        Arc::new(Places { free: Arc::new(Semaphore::new(number)), moved: AtomicU64::new(0) })
    }

    async fn take(self: &Arc<Self>, deadline: Duration) -> Result<Taken, Fault> {
        loop {
            let before = self.moved.load(Ordering::Relaxed);
            match tokio::time::timeout(deadline, self.free.clone().acquire_owned()).await {
                Ok(Ok(permit)) => return Ok(Taken { _permit: permit, places: self.clone() }),
                Err(_) if self.moved.load(Ordering::Relaxed) != before => {}
                _ => {
                    let rule = format!(
                        "other requests to the registry made no progress for {}",
                        in_words(deadline)
                    );
                    return Err(Fault::new(Failure::TimedOut, rule));
                }
            }
        }
    }
}

impl Taken {
    fn moved(&self) {
        self.places.moved.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.moved();
    }
}

impl Permit {
    /// Tells those who wait that this place is in use and moves.
    pub fn moved(&self) {
        self.all.moved();
        self.of_one.iter().for_each(Taken::moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_place_waits_while_something_moves_and_no_longer() {
        let deadline = Duration::from_millis(20);
        let gate = Gate::new(2);
        let (first, second) =
            (gate.enter(deadline).await.unwrap(), gate.enter(deadline).await.unwrap());
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

    #[tokio::test]
    async fn one_repository_never_has_all_places() {
        let (hangs, healthy): (RepoName, RepoName) =
            ("hangs".parse().unwrap(), "healthy".parse().unwrap());
        let deadline = Duration::from_millis(20);
        let gate = Gate::new(8);
        let mut taken = Vec::new();
        for _ in 0..6 {
            taken.push(gate.enter_for(&hangs, deadline).await.unwrap());
        }
        let healthy_moves = async {
            for _ in 0..50 {
                drop(gate.enter_for(&healthy, Duration::from_secs(60)).await.unwrap());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // What moves elsewhere gives nobody hope who waits behind what hangs.
        let (refused, ()) = tokio::join!(gate.enter_for(&hangs, deadline), healthy_moves);
        assert_eq!(refused.map(drop).unwrap_err().failure, Failure::TimedOut);
        taken.pop();
        assert!(gate.enter_for(&hangs, deadline).await.is_ok());
        taken.clear();
        drop(gate.enter_for(&healthy, deadline).await.unwrap());
        assert_eq!(gate.of_one.lock().len(), 1, "what nobody asks for is forgotten");
    }
}
