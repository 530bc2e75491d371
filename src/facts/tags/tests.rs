//! How long answers count, and what is kept of them.

use super::*;
use crate::failure::{Failure, Refusal};

fn confirmed(at: Option<Instant>, fresh_until: Option<Instant>) -> Option<Confirmed> {
    Some(Confirmed {
        answer: TagAnswer::Binding(Digest::of(b"")),
        at,
        wall: SystemTime::now(),
        fresh_until,
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
    let stale = confirmed(Some(past), Some(past));
    let fact = |last: &Option<Confirmed>, refused| {
        TagSlot { last: last.clone(), refused }.fact(now).map_is()
    };
    assert_eq!(fact(&stale, None), "unknown");
    assert_eq!(fact(&confirmed(Some(past), Some(future)), None), "is");
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
    let slot = TagSlot { last: confirmed(Some(Instant::now()), Some(began)), refused: None };
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
fn edges_in_memory_are_bounded_by_their_bytes() {
    let repo =
        |n: usize| Repo { host: "a.b".parse().unwrap(), name: format!("n{n}").parse().unwrap() };
    let later = Instant::now() + Duration::from_secs(60);
    let tags = TagAnswer::Tags(Arc::new(vec!["1".parse().unwrap(); BYTES_MAX / NAME_BYTES / 4]));
    let list =
        Confirmed { answer: tags, at: None, wall: SystemTime::now(), fresh_until: Some(later) };
    let mut slots = Slots::default();
    for n in 0..3 {
        slots.change(&Need::Tags(repo(n)), |slot| slot.last = Some(list.clone()));
    }
    for n in 3..2 * BYTES_MAX / SLOT_BYTES {
        slots.change(&Need::Tags(repo(n)), |slot| slot.refused = refused(Failure::Absent, later));
        assert!(slots.bytes <= BYTES_MAX && slots.get(&Need::Tags(repo(n))).is_some());
    }
    assert!(
        (0..3).all(|n| slots.get(&Need::Tags(repo(n))).is_some()),
        "absences go before answers that count"
    );
    for n in 0..6 {
        slots.change(&Need::Tags(repo(n)), |slot| slot.last = Some(list.clone()));
        assert!(slots.bytes <= BYTES_MAX && slots.get(&Need::Tags(repo(n))).is_some());
    }
    slots.expire(|_| true);
    assert_eq!(slots.bytes, slots.by_need.values().map(TagSlot::bytes).sum::<usize>());
}
