//! How much may be logged. Whoever may read a mount can make it log, by looking at what fails: so
//! each kind of sentence has an allowance, and so have all kinds together. What exceeds one is left
//! out, counted, and said.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;

/// How long lines of a kind are left out before it is said how many they are.
pub(super) const SAID_AFTER: Duration = Duration::from_secs(5);

/// The allowance of one kind of sentence: about 80 KiB in 6 s.
const OF_A_KIND: Allowance = Allowance { at_once: 32 << 10, per_second: 8 << 10 };
/// The allowance of all kinds together: about 640 KiB in 6 s.
const OF_ALL: Allowance = Allowance { at_once: 256 << 10, per_second: 64 << 10 };

/// Bytes that may be logged.
struct Allowance {
    at_once: i64,
    per_second: i64,
}

/// What is left of an allowance. The last line that fits may overdraw it.
struct LogAllowance {
    of: &'static Allowance,
    left: i64,
    at: Instant,
}

impl LogAllowance {
    fn full(of: &'static Allowance, now: Instant) -> LogAllowance {
        LogAllowance { of, left: of.at_once, at: now }
    }

    /// Whether there is something left, after what came in until `now`.
    fn has_some(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_millis();
        let earned =
            i64::try_from(passed).unwrap_or(i64::MAX).saturating_mul(self.of.per_second) / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.of.at_once);
            self.at = now;
        }
        self.left > 0
    }
}

/// Lines of one kind that were left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LeftOutLines {
    /// How many.
    pub(super) count: u64,
    /// The first of them.
    pub(super) first: Vec<u8>,
    since: Instant,
}

struct SentenceKind {
    account: LogAllowance,
    left_out: Option<LeftOutLines>,
}

/// The accounts of the kinds of sentences, which are as many as there are places in the program
/// that log.
pub(super) struct Budget {
    all: LogAllowance,
    kinds: HashMap<Identifier, SentenceKind>,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Budget {
        Budget { all: LogAllowance::full(&OF_ALL, now), kinds: HashMap::new() }
    }

    /// Whether a line of this kind may be logged; else it is counted.
    pub(super) fn allows(&mut self, kind: Identifier, line: &[u8], now: Instant) -> bool {
        let kind = self.kinds.entry(kind).or_insert_with(|| SentenceKind {
            account: LogAllowance::full(&OF_A_KIND, now),
            left_out: None,
        });
        if kind.account.has_some(now) && self.all.has_some(now) {
            let length = i64::try_from(line.len()).unwrap_or(i64::MAX);
            kind.account.left = kind.account.left.saturating_sub(length);
            self.all.left = self.all.left.saturating_sub(length);
            return true;
        }
        let none = || LeftOutLines { count: 0, first: line.to_vec(), since: now };
        kind.left_out.get_or_insert_with(none).count += 1;
        false
    }

    /// What was left out and is to be said now: all of it where the log ends, else what is old
    /// enough.
    pub(super) fn take_due(&mut self, now: Instant, is_the_end: bool) -> Vec<LeftOutLines> {
        let due = |left_out: &mut LeftOutLines| is_the_end || now >= left_out.since + SAID_AFTER;
        self.kinds.values_mut().filter_map(|kind| kind.left_out.take_if(due)).collect()
    }

    /// Whether something was left out that was not said yet.
    pub(super) fn owes(&self) -> bool {
        self.kinds.values().any(|kind| kind.left_out.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use tracing::callsite::Callsite;
    use tracing::subscriber::Interest;
    use tracing::{Metadata, callsite};

    /// A place in the program that logs. It is known by its address, so it must have one of its
    /// own.
    struct Place(#[allow(dead_code, reason = "makes a size, and so an address of its own")] usize);

    impl Callsite for Place {
        fn set_interest(&self, _: Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("nobody asks")
        }
    }

    fn kinds(count: usize) -> Vec<Identifier> {
        let places: &'static [Place] = Vec::leak((0..count).map(Place).collect());
        places.iter().map(|place| callsite::Identifier(place)).collect()
    }

    /// Logs lines of all kinds in turn, one a tenth of a millisecond; the bytes that were let
    /// through.
    fn flood(
        budget: &mut Budget,
        kinds: &[Identifier],
        length: usize,
        from: Instant,
        time: Duration,
    ) -> usize {
        let (step, line) = (Duration::from_micros(100), vec![b'x'; length]);
        let ticks = (0..).map(|tick| from + step * tick).take_while(|now| *now < from + time);
        let allowed = ticks
            .zip(kinds.iter().cycle())
            .filter(|(now, kind)| budget.allows((*kind).clone(), &line, *now));
        allowed.count() * length
    }

    #[test]
    fn no_mixture_of_kinds_exceeds_a_mebibyte_in_six_seconds() {
        let six = Duration::from_secs(6);
        for count in [1, 2, 10, 100] {
            for length in [80, 300, 5_000] {
                let start = Instant::now();
                let (mut budget, kinds) = (Budget::new(start), kinds(count));
                for round in 0..3 {
                    let bytes = flood(&mut budget, &kinds, length, start + six * round, six);
                    assert!(bytes < 1 << 20, "{count} kinds of {length}: {bytes}");
                    assert!(count > 1 || bytes <= 100 << 10, "one kind: {bytes}");
                }
            }
        }
    }

    #[test]
    fn one_kind_leaves_room_to_others() {
        let start = Instant::now();
        let (mut budget, kinds) = (Budget::new(start), kinds(2));
        flood(&mut budget, &kinds[..1], 200, start, Duration::from_secs(60));
        let later = start + Duration::from_secs(60);
        assert!(!budget.allows(kinds[0].clone(), b"again", later));
        assert!(budget.allows(kinds[1].clone(), b"another", later));
    }

    #[test]
    fn what_was_left_out_is_counted_and_said_once() {
        let start = Instant::now();
        let (mut budget, kinds) = (Budget::new(start), kinds(1));
        let long = vec![b'x'; 40 << 10];
        assert!(budget.allows(kinds[0].clone(), &long, start));
        for line in [b"one", b"two"] {
            assert!(!budget.allows(kinds[0].clone(), line, start));
        }
        assert!(budget.owes() && budget.take_due(start, false).is_empty());
        let said = budget.take_due(start + SAID_AFTER, false);
        assert_eq!(said, [LeftOutLines { count: 2, first: b"one".to_vec(), since: start }]);
        assert!(!budget.owes() && budget.take_due(start + SAID_AFTER, true).is_empty());
        assert!(budget.allows(kinds[0].clone(), b"three", start + SAID_AFTER));
    }

    #[test]
    fn the_end_says_all_that_was_left_out() {
        let start = Instant::now();
        let (mut budget, kinds) = (Budget::new(start), kinds(1));
        budget.allows(kinds[0].clone(), &vec![b'x'; 40 << 10], start);
        budget.allows(kinds[0].clone(), b"one", start);
        assert_eq!(budget.take_due(start, true).len(), 1);
    }
}
