//! Single flight: however many ask for one thing at once, one works and all get its result.
//!
//! INVARIANT: per key at most one work runs; every waiter gets an answer, also when the work panics
//! or its runtime ends; a result is kept by nobody, so who comes after a failure tries again.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::Instrument as _;

/// For works that go on whoever stops waiting for them.
pub const TO_THE_END: Duration = Duration::MAX;

/// The works that run now, by key.
pub struct Flights<K, T, E> {
    shared: Arc<SharedFlight<K, T, E>>,
}

struct SharedFlight<K, T, E> {
    running: Mutex<HashMap<K, Flight<T, E>>>,
    linger: Duration,
    lost: fn(&K) -> E,
}

struct Flight<T, E> {
    result: watch::Receiver<Option<Result<T, E>>>,
    waiters: watch::Sender<usize>,
}

impl<T, E> Flight<T, E> {
    /// Whether nobody waits for it any more and it does not outlive that: its task may not have
    /// seen so yet.
    fn is_given_up(&self, linger: Duration) -> bool {
        linger.is_zero() && *self.waiters.borrow() == 0
    }
}

impl<K, T, E> Flights<K, T, E>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// A work outlives its last waiter by `linger` and is then dropped. `lost` makes the error for
    /// waiters whose work ended without a result (it panicked, or the runtime was shut down).
    pub fn new(linger: Duration, lost: fn(&K) -> E) -> Self {
        Flights {
            shared: Arc::new(SharedFlight { running: Mutex::new(HashMap::new()), linger, lost }),
        }
    }

    /// The result of the work for `key`: of the one that runs, else of `work`, which is then
    /// spawned on the runtime of the caller. May be dropped at any time.
    pub async fn join<F, W>(&self, key: K, work: F) -> Result<T, E>
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<T, E>> + Send + 'static,
    {
        let asked = key.clone();
        let (mut result, _waiter, begins) = {
            let mut running = self.shared.running.lock();
            match running.get(&key).filter(|flight| !flight.is_given_up(self.shared.linger)) {
                Some(flight) => (flight.result.clone(), FlightWaiter::new(&flight.waiters), None),
                None => {
                    let (sender, result) = watch::channel(None);
                    let waiters = watch::Sender::new(0);
                    let waiter = FlightWaiter::new(&waiters);
                    running.insert(
                        key.clone(),
                        Flight { result: result.clone(), waiters: waiters.clone() },
                    );
                    let landing = Landing { shared: self.shared.clone(), key, waiters };
                    (result, waiter, Some((landing, sender)))
                }
            }
        };
        // Not under the lock: a runtime that has ended drops the work at once, and with it takes
        // the flight out.
        if let Some((landing, sender)) = begins {
            tokio::spawn(fly(landing, work, sender).in_current_span());
        }
        match result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err((self.shared.lost)(&asked)),
        }
    }

    /// How many works run now.
    pub fn running(&self) -> usize {
        self.shared.running.lock().len()
    }
}

/// Counts one waiter of a flight while it lives.
struct FlightWaiter(watch::Sender<usize>);

impl FlightWaiter {
    fn new(waiters: &watch::Sender<usize>) -> Self {
        waiters.send_modify(|n| *n += 1);
        FlightWaiter(waiters.clone())
    }
}

impl Drop for FlightWaiter {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Takes the flight out of the table when its work ends, however it ends.
struct Landing<K: Eq + Hash, T, E> {
    shared: Arc<SharedFlight<K, T, E>>,
    key: K,
    waiters: watch::Sender<usize>,
}

impl<K: Eq + Hash, T, E> Landing<K, T, E> {
    fn land(&self, only_if_deserted: bool) -> bool {
        let mut running = self.shared.running.lock();
        if only_if_deserted && *self.waiters.borrow() > 0 {
            return false;
        }
        if running.get(&self.key).is_some_and(|flight| flight.waiters.same_channel(&self.waiters)) {
            running.remove(&self.key);
        }
        true
    }
}

impl<K: Eq + Hash, T, E> Drop for Landing<K, T, E> {
    fn drop(&mut self) {
        self.land(false);
    }
}

async fn fly<K, T, E, F, W>(
    landing: Landing<K, T, E>,
    work: F,
    sender: watch::Sender<Option<Result<T, E>>>,
) where
    K: Eq + Hash,
    F: FnOnce() -> W,
    W: Future<Output = Result<T, E>>,
{
    let mut work = pin!(work());
    let mut waiters = landing.waiters.subscribe();
    loop {
        tokio::select! {
            result = &mut work => {
                // Out of the table first: who joins after the result is known starts anew.
                landing.land(false);
                sender.send_replace(Some(result));
                return;
            }
            () = deserted(&mut waiters, landing.shared.linger) => {
                if landing.land(true) {
                    return;
                }
            }
        }
    }
}

/// Returns when nobody has waited for the time `linger`.
async fn deserted(waiters: &mut watch::Receiver<usize>, linger: Duration) {
    loop {
        if waiters.wait_for(|n| *n == 0).await.is_err() {
            return;
        }
        if tokio::time::timeout(linger, waiters.wait_for(|n| *n > 0)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
