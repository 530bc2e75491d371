//! The one place that decides about trying again and about giving up.
//!
//! [`Fault`] is what a single try ended with. [`Patience`] belongs to one call of the `Registry`
//! trait: it counts the tries since the last progress and the time without any, and every wait on a
//! peer passes through it.

use std::future::Future;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::failure::{Failure, Refusal, Subject};

/// Tries after the first one, without progress in between.
pub(super) const RETRIES: u32 = 4;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Below this many bytes in a second a transfer does not count as moving.
const LOW_SPEED: u64 = 1024;
/// How long what was handed to a connection may be on its way there, beside the deadline.
const IN_FLIGHT_TIME: Duration = Duration::from_secs(300);
/// How long a transfer may be that slow before it is tried again.
const LOW_SPEED_TIME: Duration = Duration::from_secs(15);

/// Whether another try can help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It would end the same way.
    Never,
    /// It may; after this long, if the peer asked for that.
    After(Option<Duration>),
}

/// What one try ended with; becomes a [`Refusal`] when nothing more is tried.
#[derive(Clone, Debug)]
pub struct Fault {
    pub failure: Failure,
    pub rule: String,
    pub remedy: Option<String>,
    pub retry: Retry,
}

impl Fault {
    /// A fault that another try would not mend.
    pub fn new(failure: Failure, rule: impl Into<String>) -> Fault {
        Fault { failure, rule: rule.into(), remedy: None, retry: Retry::Never }
    }

    /// A fault that may pass.
    pub fn passing(failure: Failure, rule: impl Into<String>) -> Fault {
        Fault { retry: Retry::After(None), ..Fault::new(failure, rule) }
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Fault {
        self.remedy = Some(remedy.into());
        self
    }

    /// The refusal of the call that asked for `subject`.
    pub fn about(self, subject: impl Into<Subject>) -> Refusal {
        let refusal = Refusal::new(self.failure, subject, self.rule);
        Refusal { remedy: self.remedy, ..refusal }
    }
}

/// What is left of a call's tries and time.
pub(super) struct Patience {
    deadline: Duration,
    retries: u32,
    progress_at: Instant,
    tries: u32,
    /// The furthest position of a body that any try has reached.
    furthest: u64,
    slow_since: Instant,
    slow_bytes: u64,
}

impl Patience {
    /// `deadline`: how long the call may go on without progress. `retries`: how often it is tried
    /// again without any.
    pub fn new(deadline: Duration, retries: u32) -> Patience {
        let now = Instant::now();
        Patience {
            deadline,
            retries,
            progress_at: now,
            tries: 0,
            furthest: 0,
            slow_since: now,
            slow_bytes: 0,
        }
    }

    /// The time until the call has gone without progress for too long.
    fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.progress_at.elapsed())
    }

    fn expired(&self, doing: &str) -> Fault {
        Fault::new(
            Failure::TimedOut,
            format!("no progress for {} while {doing}", in_words(self.deadline)),
        )
        .remedy("see whether the registry can be reached; --deadline sets the limit")
    }

    /// Waits for a peer, at most `limit` and never past the deadline.
    pub async fn within<T>(
        &self,
        limit: Duration,
        doing: &str,
        peer: impl Future<Output = T>,
    ) -> Result<T, Fault> {
        let left = self.left();
        match tokio::time::timeout(limit.min(left), peer).await {
            Ok(value) => Ok(value),
            Err(_) if left <= limit => Err(self.expired(doing)),
            Err(_) => Err(Fault::passing(
                Failure::TimedOut,
                format!("no answer within {} while {doing}", in_words(limit)),
            )),
        }
    }

    fn progressed(&mut self) {
        let now = Instant::now();
        self.progress_at = now;
        self.slow_since = now;
        self.slow_bytes = 0;
    }

    /// A new answer's body begins.
    pub fn body_begins(&mut self) {
        self.slow_since = Instant::now();
        self.slow_bytes = 0;
    }

    /// Waits for the next piece of a body, within the low-speed rule.
    pub async fn piece<T>(&self, peer: impl Future<Output = T>) -> Result<T, Fault> {
        let limit = LOW_SPEED_TIME.saturating_sub(self.slow_since.elapsed());
        let left = self.left();
        match tokio::time::timeout(limit.min(left), peer).await {
            Ok(value) => Ok(value),
            Err(_) if left <= limit => Err(self.expired("receiving the body")),
            Err(_) => Err(Fault::passing(
                Failure::TimedOut,
                format!("the body came slower than 1 KiB/s for {}", in_words(LOW_SPEED_TIME)),
            )),
        }
    }

    /// A piece of a body was taken on its way to a peer.
    pub fn sent(&mut self) {
        self.progressed();
    }

    /// The time until a body that is being sent has stood still for too long, of which `in_flight`
    /// bytes may still be on their way without a sign, and `sent` bytes were sent in `elapsed`.
    /// What is on its way is taken to move as fast as all before it, and at the low-speed limit at
    /// least; but a peer that has it all and is silent looks alike, so that there is an end to it.
    pub fn left_to_send(&self, in_flight: u64, sent: u64, elapsed: Duration) -> Duration {
        let seen = sent.saturating_sub(in_flight) as f64 / elapsed.as_secs_f64().max(0.001);
        let on_its_way = Duration::from_secs_f64(in_flight as f64 / seen.max(LOW_SPEED as f64));
        (self.deadline + on_its_way.min(IN_FLIGHT_TIME)).saturating_sub(self.progress_at.elapsed())
    }

    /// The fault of a body that stood still for too long on its way to a peer.
    pub fn not_sent(&self, doing: &str) -> Fault {
        self.expired(doing)
    }

    /// `bytes` of a body came and it now reaches to `position`. Only a body that moves at the
    /// low-speed limit or faster holds the deadline off, and only one that gets further than before
    /// earns new tries.
    pub fn received(&mut self, bytes: u64, position: u64) {
        self.slow_bytes += bytes;
        let seconds = self.slow_since.elapsed().as_secs_f64().max(1.0);
        if self.slow_bytes as f64 >= LOW_SPEED as f64 * seconds {
            self.progressed();
        }
        if position > self.furthest {
            self.furthest = position;
            self.tries = 0;
        }
    }

    /// Sleeps before the next try, or gives `fault` back as final.
    pub async fn again(&mut self, fault: Fault) -> Result<(), Fault> {
        let Retry::After(asked) = fault.retry else { return Err(fault) };
        let left = self.left();
        if let Some(asked) = asked
            && asked >= left
        {
            return Err(Fault {
                failure: Failure::TimedOut,
                rule: format!(
                    "{}; it asks to be left alone for {} (until {}), longer than the deadline of \
                     {} allows",
                    fault.rule,
                    in_words(asked),
                    SystemTime::now().checked_add(asked).map_or("far away".to_owned(), httpdate_of),
                    in_words(self.deadline),
                ),
                remedy: Some("try again then, or log in for a higher limit".to_owned()),
                retry: Retry::Never,
            });
        }
        if self.tries >= self.retries {
            let rule = format!("{} ({} tries without progress)", fault.rule, self.tries + 1);
            return Err(Fault { rule, retry: Retry::Never, ..fault });
        }
        let pause = asked.unwrap_or_else(|| backoff(self.tries, fastrand::f64()));
        if pause >= left {
            return Err(Fault { retry: Retry::Never, ..fault });
        }
        self.tries += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Full jitter: anything between nothing and a limit that doubles with each try.
fn backoff(tries: u32, random: f64) -> Duration {
    BACKOFF_FIRST
        .saturating_mul(1 << tries.min(16))
        .min(BACKOFF_MAX)
        .mul_f64(random.clamp(0.0, 1.0))
}

/// Dates beyond the year 9999 have no HTTP form.
fn httpdate_of(time: SystemTime) -> String {
    const YEAR_9999: Duration = Duration::from_secs(253_370_764_800);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since < YEAR_9999 => httpdate::fmt_http_date(time),
        _ => "far away".to_owned(),
    }
}

/// `Retry-After`: seconds or a date. What is neither, or is in the past, asks for nothing.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(
            value.parse().unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX)),
        ));
    }
    httpdate::parse_http_date(value).ok()?.duration_since(now).ok()
}

pub(super) fn in_words(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R50
    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after("2", now), Some(Duration::from_secs(2)));
        assert_eq!(retry_after(" 86400 ", now), Some(Duration::from_secs(86400)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now),
            Some(Duration::from_secs(10))
        );
        for nothing in ["-5", "", "soon", "1.5", "Sun, 06 Nov 1994 08:49:27 GMT"] {
            assert_eq!(retry_after(nothing, now), None, "{nothing}");
        }
        assert!(retry_after("99999999999999999999999", now).is_some());
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        assert_eq!(backoff(0, 1.0), BACKOFF_FIRST);
        assert_eq!(backoff(3, 1.0), Duration::from_millis(800));
        assert_eq!(backoff(30, 1.0), BACKOFF_MAX);
        assert_eq!(backoff(3, 0.0), Duration::ZERO);
    }

    #[tokio::test]
    async fn when_the_time_is_over_nothing_is_tried_again_and_the_last_fault_stands() {
        let broken = Fault::passing(Failure::Unreachable, "broken").remedy("mend it");
        let fault = Patience::new(Duration::ZERO, RETRIES).again(broken).await.unwrap_err();
        assert_eq!(
            (fault.failure, &*fault.rule, fault.retry),
            (Failure::Unreachable, "broken", Retry::Never)
        );
        assert_eq!(fault.remedy.as_deref(), Some("mend it"));
    }

    /// R08: bytes that trickle do not hold the low-speed limit off.
    #[tokio::test]
    async fn the_time_for_slow_bytes_runs_on_while_they_come() {
        let mut patience = Patience::new(Duration::from_secs(600), RETRIES);
        let Some(before) = Instant::now().checked_sub(LOW_SPEED_TIME) else { return };
        patience.slow_since = before;
        patience.received(5, 5);
        let waited =
            tokio::time::timeout(LOW_SPEED_TIME / 2, patience.piece(std::future::pending::<()>()))
                .await;
        let fault = waited.expect("no new time was given").unwrap_err();
        assert_eq!((fault.failure, fault.retry), (Failure::TimedOut, Retry::After(None)));
        patience.received(1 << 20, 1 << 20);
        assert!(patience.slow_since.elapsed() < LOW_SPEED_TIME, "what moves has its time again");
    }

    #[tokio::test]
    async fn a_body_that_gets_no_further_earns_no_new_tries() {
        let broken = || Fault::passing(Failure::TimedOut, "broken");
        let mut patience = Patience::new(Duration::from_secs(600), RETRIES);
        patience.tries = RETRIES;
        patience.received(10, 10);
        assert_eq!(patience.tries, 0);
        patience.tries = RETRIES;
        patience.received(10, 10);
        assert!(patience.again(broken()).await.is_err_and(|f| f.rule.contains("5 tries")));
        assert!(
            Patience::new(Duration::from_secs(600), RETRIES)
                .again(Fault::new(Failure::Absent, "x"))
                .await
                .is_err()
        );
    }
}
