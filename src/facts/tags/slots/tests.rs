//! How long answers count, and what is kept of them.

use super::*;
use crate::failure::Refusal;
use crate::name::{Host, Repo};

fn confirmed(at: Instant, until: Instant) -> Option<Confirmed> {
    Some(Confirmed {
        answer: TagAnswer::Binding(Digest::of(b"")),
        wall: SystemTime::now(),
        fresh: Some(Freshness { at, until }),
    })
}

fn refused(failure: Failure, until: Instant) -> Option<Refused> {
    Some(Refused {
        error: Refusal::new(failure, "x", "y"),
        at: until - Duration::from_secs(9),
        until,
    })
}

#[test]
fn an_outage_leaves_the_last_answer_standing() {
    let now = Instant::now();
    let (past, future) = (now - Duration::from_secs(5), now + Duration::from_secs(5));
    let stale = confirmed(past, past);
    let fact = |last: &Option<Confirmed>, refused| {
        TagSlot { last: last.clone(), refused }.fact(now).map_is()
    };
    assert_eq!(fact(&stale, None), "unknown");
    assert_eq!(fact(&confirmed(past, future), None), "is");
    assert_eq!(fact(&stale, refused(Failure::Unreachable, future)), "is");
    assert_eq!(fact(&None, refused(Failure::Unreachable, future)), "failed");
    assert_eq!(fact(&stale, refused(Failure::Denied, future)), "denied");
    assert_eq!(fact(&stale, refused(Failure::Absent, future)), "absent");
    assert_eq!(fact(&stale, refused(Failure::Integrity, future)), "failed");
    assert_eq!(fact(&stale, refused(Failure::Unreachable, past)), "unknown");
}

#[test]
fn a_registry_without_a_list_is_asked_for_it_rarely_and_an_absence_counts_no_longer_than_an_answer()
{
    let host: Host = "a.b".parse().unwrap();
    let tags = Need::Tags(Repo { host: host.clone(), name: "n".parse().unwrap() });
    let kept =
        |need: &Need, failure, ttl| kept_for(need, failure, Duration::from_secs(ttl)).as_secs();
    for failure in [Failure::Absent, Failure::Denied] {
        assert_eq!(kept(&Need::Catalog(host.clone()), failure, 1), 300);
    }
    assert_eq!((kept(&tags, Failure::Absent, 1), kept(&tags, Failure::Absent, 3600)), (1, 30));
    assert_eq!((kept(&tags, Failure::Denied, 1), kept(&tags, Failure::Unreachable, 1)), (10, 2));
}

#[test]
fn an_answer_counts_for_the_operation_that_waited_for_it() {
    let began = Instant::now();
    let slot = TagSlot { last: confirmed(Instant::now(), began), refused: None };
    assert_eq!(slot.fact(began).map_is(), "is");
    assert_eq!(slot.fact(Instant::now() + Duration::from_secs(1)).map_is(), "unknown");
}

impl<T, E> Fact<T, E> {
    fn map_is(&self) -> &'static str {
        match self {
            Fact::Unknown => "unknown",
            Fact::Is(_) => "is",
            Fact::Absent => "absent",
            Fact::Denied(_) => "denied",
            Fact::Failed(_) => "failed",
        }
    }
}

#[test]
fn of_edges_in_memory_those_give_way_that_were_used_longest_ago_and_no_others() {
    let need = |n: usize| {
        Need::Tags(Repo { host: "a.b".parse().unwrap(), name: format!("n{n}").parse().unwrap() })
    };
    let list = |names: usize| {
        let tags = TagAnswer::Tags(Arc::new(vec!["1".parse().unwrap(); names]));
        TagSlot { last: Some(Confirmed::now(tags, Duration::from_secs(60))), refused: None }
    };
    let known = |slots: &TagSlots, upto: usize| {
        let has = |n: &usize| slots.0.iter().any(|(kept, _)| *kept == need(*n));
        (0..upto).filter(has).collect::<Vec<_>>()
    };
    let all = BYTES_MAX as usize / NAME_BYTES;
    let mut slots = TagSlots::default();
    for n in 0..4 {
        slots.change(&need(n), |slot| *slot = list(all / 5));
    }
    assert!(slots.get(&need(0)).is_some());
    slots.change(&need(4), |slot| *slot = list(all / 5));
    assert_eq!(known(&slots, 5), [0, 2, 3, 4], "the table is full of answers that count");
    slots.expire(|_| true);
    assert_eq!(known(&slots, 5), [0, 2, 3, 4], "none goes that is only to be asked for again");

    slots.change(&need(5), |slot| *slot = list(2 * all));
    assert_eq!(known(&slots, 6), [5], "what is too large is found by who asked for it");
    let until = Instant::now() + Duration::from_secs(60);
    for n in 6..9 {
        slots.change(&need(n), |slot| slot.refused = refused(Failure::Absent, until));
    }
    assert_eq!(known(&slots, 9), [6, 7, 8]);
}
