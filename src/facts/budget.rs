//! How many requests a mount sends for those who may read it and do not own it.
//!
//! A registry counts the requests of a credential, and the credential is the owner's: without a
//! limit, whoever may look up names could use up what the registry grants. A budget is a rate with
//! a reserve for what ordinary work asks at once; who has used it up waits for his turn, so that
//! one program that asks for one thing after another is slowed down and never refused. Who asks for
//! many things at once is refused: an operation that waits can keep others from the same name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::name::Host;

/// For whom an operation asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestingUser {
    /// The mount's owner, root, or this program itself.
    Owner,
    /// Another user.
    Other(u32),
}

tokio::task_local! {
    static ASKER: RequestingUser;
}

impl RequestingUser {
    /// Runs `operation` for this user.
    pub async fn run<F: Future>(self, operation: F) -> F::Output {
        ASKER.scope(self, operation).await
    }

    fn current() -> RequestingUser {
        ASKER.try_with(|asker| *asker).unwrap_or(RequestingUser::Owner)
    }
}

/// A reserve of requests, and how soon one of them is there again.
struct Rate {
    reserve: u32,
    every: Duration,
}

/// What one user has.
const OF_ONE: Rate = Rate { reserve: 200, every: Duration::from_millis(100) };
/// What all others than the owner have together: who may use many numbers gets no more by that.
const OF_ALL: Rate = Rate { reserve: 1000, every: Duration::from_millis(20) };
/// How long a request waits for its turn at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many users are told apart. Past it, those with a full reserve are forgotten; then the rest
/// share one.
const USERS_MAX: usize = 1024;

impl Rate {
    /// How long a request has to wait at `now`, where the reserve is full again at `full`; `None`
    /// if that is too long.
    fn wait(&self, full: Instant, now: Instant) -> Option<Duration> {
        let missing = full.max(now) + self.every - now;
        let wait = missing.saturating_sub(self.every * self.reserve);
        (wait <= PATIENCE).then_some(wait)
    }
}

/// When each reserve is full again.
struct Reserves {
    by_user: HashMap<u32, Instant>,
    of_all: Instant,
}

impl Reserves {
    /// The user's place in the table.
    fn place(&mut self, user: u32, now: Instant) -> &mut Instant {
        if self.by_user.len() >= USERS_MAX && !self.by_user.contains_key(&user) {
            self.by_user.retain(|_, full| *full > now);
        }
        let is_crowded = self.by_user.len() >= USERS_MAX && !self.by_user.contains_key(&user);
        self.by_user.entry(if is_crowded { u32::MAX } else { user }).or_insert(now)
    }

    /// Takes one request of `user`; how long it has to wait.
    fn take(&mut self, user: u32, now: Instant) -> Option<Duration> {
        let of_all = OF_ALL.wait(self.of_all, now)?;
        let place = self.place(user, now);
        let of_one = OF_ONE.wait(*place, now)?;
        *place = (*place).max(now) + OF_ONE.every;
        self.of_all = self.of_all.max(now) + OF_ALL.every;
        Some(of_all.max(of_one))
    }

    /// Puts back what was taken and not used.
    fn put_back(&mut self, user: u32, now: Instant) {
        let place = self.place(user, now);
        *place = place.checked_sub(OF_ONE.every).unwrap_or(now);
        self.of_all = self.of_all.checked_sub(OF_ALL.every).unwrap_or(now);
    }
}

/// See the module.
pub(super) struct Budgets(Mutex<Reserves>);

impl Budgets {
    pub(super) fn new() -> Self {
        Budgets(Mutex::new(Reserves { by_user: HashMap::new(), of_all: Instant::now() }))
    }

    /// Sends a request to `host` when it is the turn of who asks for it.
    pub(super) async fn spend<T>(
        &self,
        host: &Host,
        request: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let RequestingUser::Other(user) = RequestingUser::current() else { return request.await };
        let wait = self.0.lock().take(user, Instant::now());
        let Some(wait) = wait else { return Err(exhausted(host, user)) };
        tokio::time::sleep(wait).await;
        let outcome = request.await;
        if matches!(&outcome, Err(e) if e.failure == Failure::Offline) {
            self.0.lock().put_back(user, Instant::now());
        }
        outcome
    }
}

fn exhausted(host: &Host, user: u32) -> Refusal {
    let Rate { reserve, every } = OF_ONE;
    let rate = Duration::from_secs(1).as_millis() / every.as_millis();
    Refusal::new(
        Failure::Crowded,
        host,
        format_args!(
            "the user {user} has asked for more names at once than a user other than the mount's \
             owner may ({reserve}, and {rate} a second); ask again, for one after another"
        ),
    )
}

/// Joins the flight of `key`, which begins for who asks now. Where it has ended for want of another
/// user's budget, a new one is joined.
pub(super) async fn join<K, T, F, W>(
    flights: &Flights<K, T, Refusal>,
    key: K,
    load: F,
) -> Result<T, Refusal>
where
    K: Clone + Eq + std::hash::Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = Result<T, Refusal>> + Send + 'static,
{
    let (asker, load) = (RequestingUser::current(), Arc::new(load));
    let mut is_first = true;
    loop {
        let load = load.clone();
        let outcome = flights.join(key.clone(), move || asker.run(load())).await;
        let is_crowded = matches!(&outcome, Err(e) if e.failure == Failure::Crowded);
        if !is_crowded || (asker != RequestingUser::Owner && !is_first) {
            return outcome;
        }
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_reserve_then_a_rate_and_others_keep_theirs() {
        let now = Instant::now();
        let mut reserves = Reserves { by_user: HashMap::new(), of_all: now };
        let mut take = |user, now| reserves.take(user, now);
        assert!((0..OF_ONE.reserve).all(|_| take(7, now) == Some(Duration::ZERO)));
        for nth in 1..=10 {
            assert_eq!(take(7, now), Some(OF_ONE.every * nth), "who asks on waits for his turn");
        }
        assert_eq!(take(7, now), None, "who does not wait is refused");
        assert_eq!(take(8, now), Some(Duration::ZERO));
        let later = now + OF_ONE.every * 10;
        assert_eq!(take(7, later), Some(OF_ONE.every), "one after another is never refused");
        let much_later = now + OF_ONE.every * 1000;
        assert!((0..OF_ONE.reserve).all(|_| take(7, much_later) == Some(Duration::ZERO)));
    }

    #[test]
    fn many_users_have_no_more_than_all_have_together() {
        let now = Instant::now();
        let mut reserves = Reserves { by_user: HashMap::new(), of_all: now };
        let taken = (0..100_000).filter(|user| reserves.take(*user, now).is_some()).count();
        let most = OF_ALL.reserve + (PATIENCE.as_millis() / OF_ALL.every.as_millis()) as u32;
        assert_eq!(taken, most as usize);
        assert!(reserves.by_user.len() <= USERS_MAX + 1);
    }

    #[tokio::test]
    async fn what_needs_no_request_costs_nothing() {
        let budgets = Budgets::new();
        let host: Host = "a.b".parse().unwrap();
        let offline = || async { Err::<(), _>(Refusal::new(Failure::Offline, "x", "y")) };
        for _ in 0..3 * OF_ONE.reserve {
            let outcome = RequestingUser::Other(7).run(budgets.spend(&host, offline())).await;
            assert_eq!(outcome.unwrap_err().failure, Failure::Offline);
        }
        for _ in 0..3 * OF_ALL.reserve {
            budgets.spend(&host, async { Ok(()) }).await.unwrap();
        }
    }
}
