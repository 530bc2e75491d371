//! Who is left alone for now, since asking again would be of no use.
//!
//! Two things can be in trouble. A *line* to an origin is, if no connection comes about or nothing
//! answers on it. A *route* of a registry (one repository, or its catalog) is, if its answers say
//! so (5xx, 429) or never come. A status is an answer, so that it shows that the line is sound: a
//! repository that fails leaves all others of its registry as they are. Silence counts for the line
//! only where several routes in a row are silent.
//!
//! A person who waits for a command is never refused unasked; see [`Asker`].

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::breaker::{Breaker, Cost};
use super::origin::Origin;
use super::retry::{Fault, Retry};
use super::scope::TokenScope;
use crate::bounded::Bounded;
use crate::failure::Failure;

/// How many lines and how many routes in trouble are remembered. A registry can name any number of
/// origins by redirects.
const REMEMBERED: usize = 1024;
/// A connection that is refused within this time held nobody up.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Who wants an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// A program that reads a mount. What keeps failing is not asked for its sake.
    Program,
    /// A person, by a command. What keeps failing is asked at once, though only once.
    Person,
}

/// What a request is about: a registry, and the part of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Route {
    pub registry: Origin,
    pub scope: TokenScope,
}

/// All lines and routes of one process.
#[derive(Debug)]
pub(super) struct Outages {
    probe_after: Duration,
    lines: Mutex<Bounded<Origin, Trouble>>,
    routes: Mutex<Bounded<Route, Trouble>>,
}

/// One that has failed, and how it failed last.
#[derive(Debug)]
struct Trouble {
    breaker: Breaker,
    last: Option<Fault>,
    /// Of a line: the routes that were silent since it was heard of last.
    silent: Vec<Route>,
}

impl Trouble {
    fn new(probe_after: Duration) -> Trouble {
        Trouble { breaker: Breaker::new(probe_after), last: None, silent: Vec::new() }
    }

    fn is_over(&mut self) {
        self.breaker.success();
        self.silent.clear();
    }

    fn goes_on(&mut self, fault: &Fault, cost: Cost) {
        self.breaker.failure(Instant::now(), cost);
        self.last = Some(fault.clone());
    }

    /// Why it is not to be asked now. There is no time in it: the same sentence is logged once.
    fn admit(&mut self, what: &dyn std::fmt::Display) -> Result<(), Fault> {
        self.breaker.admit(Instant::now()).map_err(|wait| {
            tracing::debug!(%what, ?wait, "left alone");
            let (failure, rule, remedy) = match &self.last {
                Some(last) => (last.failure, last.rule.as_str(), last.remedy.as_deref()),
                None => (Failure::Unreachable, "it failed", None),
            };
            let rule = format!(
                "{rule}; that was one of several failures in a row, and {what} is left alone for \
                 now"
            );
            let again = "it is tried again by itself within half a minute";
            Fault::new(failure, rule).remedy(remedy.unwrap_or(again))
        })
    }
}

impl Outages {
    /// `probe_after`: how long what keeps failing is left alone at first.
    pub fn new(probe_after: Duration) -> Outages {
        let (lines, routes) =
            (Mutex::new(Bounded::counted(REMEMBERED)), Mutex::new(Bounded::counted(REMEMBERED)));
        Outages { probe_after, lines, routes }
    }

    /// Whether the line to `origin` may be used.
    pub fn admit_line(&self, origin: &Origin) -> Result<(), Fault> {
        self.lines.lock().change(origin, |line| line.admit(origin)).unwrap_or(Ok(()))
    }

    /// Whether `route` may be asked.
    pub fn admit_route(&self, route: &Route) -> Result<(), Fault> {
        let admit = |trouble: &mut Trouble| match route.scope.repo() {
            Some(repo) => trouble.admit(&format_args!("{} of {}", repo, route.registry)),
            None => trouble.admit(&format_args!("the catalog of {}", route.registry)),
        };
        self.routes.lock().change(route, admit).unwrap_or(Ok(()))
    }

    /// What a request about `route` has shown of the line to `origin`, after the time that it
    /// `took`.
    pub fn note_line<T>(
        &self,
        origin: &Origin,
        route: &Route,
        outcome: &Result<T, Fault>,
        took: Duration,
    ) {
        let mut lines = self.lines.lock();
        let fault = match outcome {
            Err(fault)
                if matches!(
                    fault.failure,
                    Failure::TimedOut | Failure::Unreachable | Failure::Untrusted
                ) =>
            {
                fault
            }
            _ => {
                lines.change(origin, Trouble::is_over);
                return;
            }
        };
        let is_silent = fault.failure == Failure::TimedOut;
        let cost = if is_silent || took >= AT_ONCE { Cost::Something } else { Cost::Nothing };
        let fails = |line: &mut Trouble| {
            if is_silent && line.breaker.is_closed() {
                if line.silent.contains(route) {
                    return;
                }
                line.silent.push(route.clone());
            }
            line.goes_on(fault, cost);
        };
        lines.change_or(origin, || Trouble::new(self.probe_after), fails);
    }

    /// What the answer to a request about `route` has shown of it.
    pub fn note_route<T>(&self, route: &Route, outcome: &Result<T, Fault>) {
        let mut routes = self.routes.lock();
        match outcome {
            // No connection says nothing of what would have been answered.
            Err(fault) if matches!(fault.failure, Failure::Unreachable | Failure::Untrusted) => {}
            Err(fault) if fault.failure == Failure::TimedOut => {
                let fails = |trouble: &mut Trouble| trouble.goes_on(fault, Cost::Something);
                routes.change_or(route, || Trouble::new(self.probe_after), fails);
            }
            _ => {
                routes.change(route, Trouble::is_over);
            }
        }
    }

    /// Ends the time for which anything is left alone: the user says that it is back, or wants to
    /// know.
    pub fn trust_again(&self) {
        self.lines.lock().change_all(|_, line| line.breaker.trust());
        self.routes.lock().change_all(|_, route| route.breaker.trust());
    }
}

/// What becomes of a refusal for the sake of who asks: a person is let through, to try once.
pub(super) fn or_once(admitted: Result<(), Fault>, asker: Asker) -> Result<Tries, Fault> {
    match (admitted, asker) {
        (Ok(()), _) => Ok(Tries::Several),
        (Err(_), Asker::Person) => Ok(Tries::One),
        (Err(fault), Asker::Program) => Err(fault),
    }
}

/// How often what fails is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tries {
    Several,
    One,
}

impl Tries {
    /// `outcome`, final where there is no second try.
    pub fn of<T>(self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        outcome.map_err(|fault| match self {
            Tries::Several => fault,
            Tries::One => Fault { retry: Retry::Never, ..fault },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(repo: &str) -> Route {
        Route { registry: registry(), scope: TokenScope::Pull(repo.parse().unwrap()) }
    }

    fn registry() -> Origin {
        "https://r.example".parse().unwrap()
    }

    fn fault(failure: Failure) -> Result<(), Fault> {
        Err(Fault::passing(failure, "broken"))
    }

    fn outages() -> Outages {
        Outages::new(Duration::from_secs(10))
    }

    #[test]
    fn a_route_that_fails_is_left_alone_and_no_other() {
        let outages = outages();
        for _ in 0..5 {
            outages.note_line(&registry(), &route("bad"), &Ok(()), AT_ONCE);
            outages.note_route(&route("bad"), &fault(Failure::TimedOut));
        }
        let refused = outages.admit_route(&route("bad")).unwrap_err();
        assert_eq!(refused.failure, Failure::TimedOut);
        assert!(
            refused.rule.contains("bad of https://r.example is left alone"),
            "{}",
            refused.rule
        );
        assert!(
            outages.admit_route(&route("good")).is_ok() && outages.admit_line(&registry()).is_ok()
        );
        assert_eq!(or_once(Err(refused), Asker::Person).unwrap(), Tries::One);
    }

    #[test]
    fn a_line_is_left_alone_if_no_connection_comes_about() {
        let outages = outages();
        for _ in 0..5 {
            assert!(outages.admit_line(&registry()).is_ok());
            outages.note_line(&registry(), &route("a"), &fault(Failure::Unreachable), AT_ONCE);
        }
        assert_eq!(outages.admit_line(&registry()).unwrap_err().failure, Failure::Unreachable);
        assert!(outages.admit_line(&"https://other.example".parse().unwrap()).is_ok());
        outages.trust_again();
        assert!(outages.admit_line(&registry()).is_ok());
    }

    #[test]
    fn one_silent_route_is_no_silent_line_and_several_are() {
        let outages = outages();
        let silent = |repo: &str| {
            outages.note_line(&registry(), &route(repo), &fault(Failure::TimedOut), AT_ONCE)
        };
        (0..20).for_each(|_| silent("bad"));
        assert!(outages.admit_line(&registry()).is_ok());
        outages.note_line(&registry(), &route("good"), &Ok(()), AT_ONCE);
        ["a", "b", "c", "d"].into_iter().for_each(silent);
        assert!(outages.admit_line(&registry()).is_ok());
        silent("e");
        assert!(outages.admit_line(&registry()).is_err());
    }

    #[test]
    fn a_flood_of_failing_origins_does_not_end_the_rest_of_one_that_is_asked_again() {
        let outages = outages();
        let failing = |origin: &Origin| {
            outages.note_line(origin, &route("a"), &fault(Failure::Unreachable), AT_ONCE);
        };
        (0..5).for_each(|_| failing(&registry()));
        for port in 1..=3 * REMEMBERED {
            failing(&format!("https://other.example:{port}").parse().unwrap());
            assert!(port % 500 != 0 || outages.admit_line(&registry()).is_err(), "{port}");
        }
        assert!(outages.admit_line(&registry()).is_err());
        assert_eq!(outages.lines.lock().len(), REMEMBERED);
    }
}
