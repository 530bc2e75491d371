//! How a source is, by what it answered last.

use std::fmt;
use std::sync::Arc;

use crate::failure::{Failure, Refusal};
use crate::moment::Moment;

/// What one source answered last; the worst state is the greatest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SourceState {
    /// It was not asked yet.
    Unknown,
    /// It answered.
    Ok,
    /// It answered, and lets nobody in.
    Denied,
    /// Its certificate does not hold.
    Untrusted,
    /// It could not be reached.
    Unreachable,
}

impl SourceState {
    /// Whether the source cannot be used as it is.
    pub fn is_failing(self) -> bool {
        self > SourceState::Ok
    }
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SourceState::Unknown => "unknown",
            SourceState::Ok => "ok",
            SourceState::Denied => "denied",
            SourceState::Untrusted => "untrusted",
            SourceState::Unreachable => "unreachable",
        })
    }
}

/// The state of a source, with the reason of a failing one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// The state.
    pub state: SourceState,
    /// Why it fails: what was seen, and what to do.
    pub reason: Option<Arc<str>>,
    /// When that was seen.
    pub at: Moment,
}

impl Health {
    /// That of a source that was not asked, or that answers.
    pub(super) fn of(state: SourceState) -> Health {
        Health { state, reason: None, at: Moment::now() }
    }

    /// That of one that fails.
    pub(super) fn failing(state: SourceState, reason: impl fmt::Display) -> Health {
        Health { state, reason: Some(reason.to_string().into()), at: Moment::now() }
    }

    /// What an answer about anything says of the source that was as `before`; `None` if it says
    /// nothing.
    pub(super) fn shown_by(error: Option<&Refusal>, before: SourceState) -> Option<Health> {
        use SourceState::{Denied, Ok, Unreachable, Untrusted};
        let Some(error) = error else { return Some(Health::of(Ok)) };
        let state = match error.failure {
            Failure::Unreachable | Failure::TimedOut => Unreachable,
            Failure::Untrusted => Untrusted,
            // One repository may be closed where others are not, unless it is the first answer
            // after an outage.
            Failure::Denied if matches!(before, Unreachable | Untrusted) => Denied,
            Failure::Denied => return None,
            Failure::Absent
            | Failure::Integrity
            | Failure::Structure
            | Failure::TooLarge
            | Failure::Unsupported => Ok,
            // Nothing that it said, or nothing that a registry says.
            _ => return None,
        };
        let is_ok = state == Ok;
        Some(if is_ok { Health::of(Ok) } else { Health::failing(state, error.reason()) })
    }
}

/// A source that fails, as one sentence: `HOST is untrusted: …`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailingSource {
    /// The registry's host, or the store.
    pub name: String,
    /// How it is.
    pub health: Health,
}

impl fmt::Display for FailingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.name, self.health.state)?;
        match &self.health.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(failure: Option<Failure>, before: SourceState) -> Option<SourceState> {
        let error =
            failure.map(|failure| Refusal::new(failure, "r.example/a", "rule").remedy("remedy"));
        Health::shown_by(error.as_ref(), before).map(|health| health.state)
    }

    #[test]
    fn a_source_is_as_its_last_answer_shows_it() {
        use SourceState::{Denied, Ok, Unknown, Unreachable, Untrusted};
        for before in [Unknown, Ok, Denied, Untrusted, Unreachable] {
            assert_eq!(shown(None, before), Some(Ok));
            assert_eq!(shown(Some(Failure::Absent), before), Some(Ok));
            assert_eq!(shown(Some(Failure::Unreachable), before), Some(Unreachable));
            assert_eq!(shown(Some(Failure::TimedOut), before), Some(Unreachable));
            assert_eq!(shown(Some(Failure::Untrusted), before), Some(Untrusted));
            assert_eq!(shown(Some(Failure::Offline), before), None);
        }
        for before in [Unknown, Ok, Denied] {
            assert_eq!(
                shown(Some(Failure::Denied), before),
                None,
                "one repository is not the source"
            );
        }
        assert_eq!(shown(Some(Failure::Denied), Unreachable), Some(Denied));
    }

    #[test]
    fn a_failing_source_is_one_sentence_that_names_it_once() {
        let error = Refusal::new(Failure::Untrusted, "r.example", "no TLS").remedy("trust it");
        let health = Health::shown_by(Some(&error), SourceState::Ok).unwrap();
        let ailing = FailingSource { name: "r.example".to_owned(), health };
        assert_eq!(ailing.to_string(), "r.example is untrusted: no TLS; trust it");
    }
}
