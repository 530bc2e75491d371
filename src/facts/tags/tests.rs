//! How long answers count, and what is kept of them.

use super::*;
use crate::failure::Failure;

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
        error: FactError::new(failure, "x", "y"),
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
    let tags =
        TagAnswer::Tags(Arc::new(vec!["1".parse().unwrap(); BYTES_MAX as usize / NAME_BYTES / 4]));
    let list =
        Confirmed { answer: tags, at: None, wall: SystemTime::now(), fresh_until: Some(later) };
    let mut slots = slots();
    let mut set = |n: usize, change: &dyn Fn(&mut TagSlot)| {
        slots.change_or(&Need::Tags(repo(n)), TagSlot::default, |slot| change(slot));
        for used in (0..n.min(3)).chain([n]) {
            assert!(slots.get(&Need::Tags(repo(used))).is_some(), "what is used stays");
        }
        n % 1000 != 0 || slots.iter().map(|(_, slot)| slot.weight()).sum::<u64>() <= BYTES_MAX
    };
    for n in 0..3 {
        assert!(set(n, &|slot| slot.last = Some(list.clone())));
    }
    for n in 3..2 * BYTES_MAX as usize / SLOT_BYTES {
        assert!(set(n, &|slot| slot.refused = refused(Failure::Absent, later)));
    }
    let huge =
        TagAnswer::Tags(Arc::new(vec!["1".parse().unwrap(); 2 * BYTES_MAX as usize / NAME_BYTES]));
    let huge = Confirmed { answer: huge, ..list };
    slots.change_or(&Need::Tags(repo(0)), TagSlot::default, |slot| slot.last = Some(huge));
    assert_eq!((slots.len(), slots.get(&Need::Tags(repo(0))).is_some()), (1, true));
}
