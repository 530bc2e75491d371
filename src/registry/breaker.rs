//! The breaker: what keeps failing is left alone for a while, so that nobody waits for it.
//!
//! A state machine over instants that are passed in; it does no I/O and never sleeps.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// The longest time between two probes.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// The first and the longest time between two probes where failing costs nobody anything: no
/// connection came about, and that was clear at once. A registry that restarts is back in a moment.
const CHEAP_PROBE_FIRST: Duration = Duration::from_millis(250);
const CHEAP_PROBE_MAX: Duration = Duration::from_secs(2);

/// What a failure cost who asked, and who was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cost {
    /// Nothing: there was no connection, and no wait for one.
    Nothing,
    /// A wait, or an answer of somebody in trouble.
    Something,
}

/// The state of one line or route.
#[derive(Debug)]
pub(super) struct Breaker {
    /// The first time between opening and probing.
    probe_after: Duration,
    state: BreakerState,
}

#[derive(Clone, Copy, Debug)]
enum BreakerState {
    Closed {
        failures: u32,
    },
    Open {
        since: Instant,
        wait: Duration,
    },
    /// One request is under way. It may have been dropped, so that after `wait` another is let
    /// through.
    Probing {
        since: Instant,
        wait: Duration,
    },
}

impl Breaker {
    pub fn new(probe_after: Duration) -> Breaker {
        Breaker {
            probe_after: probe_after.min(PROBE_MAX),
            state: BreakerState::Closed { failures: 0 },
        }
    }

    /// Whether a request may be sent now; if not, how long until the next probe.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            BreakerState::Closed { .. } => Ok(()),
            BreakerState::Open { since, wait } | BreakerState::Probing { since, wait } => {
                let waited = now.saturating_duration_since(since);
                if waited < wait {
                    return Err(wait - waited);
                }
                self.state = BreakerState::Probing { since: now, wait };
                Ok(())
            }
        }
    }

    /// Whether nothing is refused.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, BreakerState::Closed { .. })
    }

    /// It answered.
    pub fn success(&mut self) {
        self.state = BreakerState::Closed { failures: 0 };
    }

    /// It could not be reached, stayed silent, or answered that it is broken.
    pub fn failure(&mut self, now: Instant, cost: Cost) {
        let cheap = |wait: Duration| BreakerState::Open {
            since: now,
            wait: wait.min(CHEAP_PROBE_MAX).min(self.probe_after),
        };
        self.state = match (self.state, cost) {
            (BreakerState::Closed { failures }, _) if failures + 1 < FAILURES => {
                BreakerState::Closed { failures: failures + 1 }
            }
            (BreakerState::Closed { .. }, Cost::Nothing) => cheap(CHEAP_PROBE_FIRST),
            (BreakerState::Probing { wait, .. }, Cost::Nothing) => cheap(wait * 2),
            (BreakerState::Closed { .. }, Cost::Something) => {
                BreakerState::Open { since: now, wait: self.probe_after }
            }
            (BreakerState::Open { since, wait }, _) => BreakerState::Open { since, wait },
            (BreakerState::Probing { wait, .. }, Cost::Something) => BreakerState::Open {
                since: now,
                wait: (wait * 2).clamp(self.probe_after, PROBE_MAX),
            },
        };
    }

    /// Requests are let through from now on; the first failure opens it again. For a user who knows
    /// that what failed is back.
    pub fn trust(&mut self) {
        if !self.is_closed() {
            self.state = BreakerState::Closed { failures: FAILURES - 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// R51
    #[test]
    fn five_failures_in_a_row_open_it_and_one_probe_closes_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(10 * S);
        for _ in 0..4 {
            breaker.failure(now, Cost::Something);
        }
        breaker.success();
        for _ in 0..5 {
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failure(now, Cost::Something);
        }
        assert_eq!(breaker.admit(now + 4 * S), Err(6 * S));
        assert_eq!(breaker.admit(now + 10 * S), Ok(()));
        assert!(breaker.admit(now + 10 * S).is_err(), "one probe at a time");
        breaker.success();
        assert_eq!(breaker.admit(now + 10 * S), Ok(()));
    }

    /// O03: the time between probes grows, but not past 30 s.
    #[test]
    fn failing_probes_come_at_most_thirty_seconds_apart() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(10 * S);
        for _ in 0..5 {
            breaker.failure(now, Cost::Something);
        }
        for wait in [10, 20, 30, 30] {
            assert!(breaker.admit(now + (wait - 1) * S).is_err());
            now += wait * S;
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failure(now, Cost::Something);
        }
        assert_eq!(breaker.admit(now + 30 * S), Ok(()));
        assert_eq!(
            breaker.admit(now + 60 * S),
            Ok(()),
            "a probe that was dropped does not block for ever"
        );
    }

    /// O03: a registry that refuses connections is asked every two seconds, however long; a silent
    /// one is not.
    #[test]
    fn what_fails_at_no_cost_is_probed_soon_and_often() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(10 * S);
        for _ in 0..5 {
            breaker.failure(now, Cost::Nothing);
        }
        for wait in [S / 4, S / 2, S, 2 * S, 2 * S, 2 * S] {
            assert_eq!(breaker.admit(now + wait / 2), Err(wait / 2));
            now += wait;
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failure(now, Cost::Nothing);
        }
        now += 2 * S;
        assert_eq!(breaker.admit(now), Ok(()));
        breaker.failure(now, Cost::Something);
        assert_eq!(breaker.admit(now + 2 * S), Err(8 * S));
    }

    #[test]
    fn one_that_is_trusted_again_lets_all_through_until_one_fails() {
        let now = Instant::now();
        let mut breaker = Breaker::new(10 * S);
        for _ in 0..5 {
            breaker.failure(now, Cost::Something);
        }
        breaker.trust();
        assert_eq!((breaker.admit(now), breaker.admit(now)), (Ok(()), Ok(())));
        breaker.failure(now, Cost::Something);
        assert_eq!(breaker.admit(now), Err(10 * S));
    }
}
