//! The namespace as a pure function of known facts.
//!
//! `lookup` and `list` answer from what [`KnownFacts`] says at this moment, or name the one fact
//! that they need next; who asks loads it and asks again. Nothing here does I/O, waits or
//! remembers, so every rule of the namespace can be tested with a table.

pub mod mirror;
pub mod plugins;
pub mod providers;
pub mod registry;
pub mod release;

use std::fmt;

use crate::failure::Subject;
use crate::name::{Host, Repo, RepoName, Selector, Tag};

/// One step towards an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step<T, E> {
    /// The answer.
    Edge(T),
    /// Ask again when this is known.
    Need(Need),
    /// There is no such thing, and the registry (or the grammar of names) says so.
    Absent,
    /// It cannot be known.
    Failed(E),
}

impl<T, E> Step<T, E> {
    /// The next step, if this one has an answer.
    fn and_then<U>(self, next: impl FnOnce(T) -> Step<U, E>) -> Step<U, E> {
        match self {
            Step::Edge(answer) => next(answer),
            Step::Need(need) => Step::Need(need),
            Step::Absent => Step::Absent,
            Step::Failed(e) => Step::Failed(e),
        }
    }
}

/// A fact that can be loaded. Facts about registries only: beneath a digest nothing has to be asked
/// for again.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Need {
    /// The tag list of a repository.
    Tags(Repo),
    /// The list of a registry's repositories.
    Catalog(Host),
    /// The digest for which a tag stands.
    Binding(Repo, Tag),
    /// The platforms of the provider release for which a tag stands. Asked for once: such releases
    /// do not change.
    Platforms(Repo, Tag),
    /// The repositories of a registry that stores of the mount hold. No network is asked.
    Held(Host),
}

impl Need {
    /// The registry that is asked.
    pub fn host(&self) -> &Host {
        match self {
            Need::Tags(repo) | Need::Binding(repo, _) | Need::Platforms(repo, _) => &repo.host,
            Need::Catalog(host) | Need::Held(host) => host,
        }
    }
}

impl Need {
    /// The repository that it is about; `None` of what is about a registry as a whole.
    pub fn repo(&self) -> Option<&Repo> {
        match self {
            Need::Tags(repo) | Need::Binding(repo, _) | Need::Platforms(repo, _) => Some(repo),
            Need::Catalog(_) | Need::Held(_) => None,
        }
    }
}

impl From<&Need> for Subject {
    fn from(need: &Need) -> Subject {
        let reference = |repo: &Repo, tag: &Tag| repo.at(Selector::Tag(tag.clone()));
        let of = |what, whole: Subject| Subject::Of(what, Box::new(whole));
        match need {
            Need::Tags(repo) => of("the tag list of", repo.into()),
            Need::Catalog(host) => of("the catalog of", host.into()),
            Need::Binding(repo, tag) => reference(repo, tag).into(),
            Need::Platforms(repo, tag) => of("the platforms of", reference(repo, tag).into()),
            Need::Held(host) => of("what stores hold of", host.into()),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Subject::from(self).fmt(f)
    }
}

/// What is known of something that a registry was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact<T, E> {
    /// Not asked yet, or too long ago.
    Unknown,
    /// The registry's answer, or the last one while the registry is away.
    Is(T),
    /// The registry says that there is no such thing.
    Absent,
    /// The registry refuses to say (401, 403).
    Denied(E),
    /// There is no answer and none can be had now.
    Failed(E),
}

/// Where a name stands in relation to the repositories that a mount knows without asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A declared source, formerly used, or above such a name inside of a source: a directory
    /// without a request.
    Given,
    /// Above a declared source and outside of all: a directory without a request, of which nothing
    /// can be asked.
    Above,
    /// Below a declared source: has to be asked for.
    Inside,
    /// Outside all sources: absent.
    Outside,
}

/// What the namespace is a function of.
pub trait KnownFacts {
    /// Why something is not known.
    type Error: Clone;

    /// The tag list of `repo`, sorted.
    fn tags(&self, repo: &Repo) -> Fact<std::sync::Arc<Vec<Tag>>, Self::Error>;
    /// The repositories of `host`, sorted.
    fn catalog(&self, host: &Host) -> Fact<std::sync::Arc<Vec<RepoName>>, Self::Error>;
    /// The repositories of `host` that stores of the mount hold, sorted: certain, whatever other
    /// sources of the registry do. Of a registry without stores there are none.
    fn held(&self, host: &Host) -> Fact<std::sync::Arc<Vec<RepoName>>, Self::Error>;
    /// Whether `tag` is known to stand for a manifest. `Unknown` also where it was never asked for
    /// by itself.
    fn binding(&self, repo: &Repo, tag: &Tag) -> Fact<(), Self::Error>;
    /// Whether the answer about `need` counts now by itself, as opposed to one that serves while
    /// the registry is away: what such a list lacks is not there.
    fn is_confirmed(&self, need: &Need) -> bool;
    /// Whether the binding was known once, so that one HEAD can confirm it without a tag list.
    fn was_bound(&self, repo: &Repo, tag: &Tag) -> bool;
    /// Whether `host` is a provider registry: its repositories are `NAMESPACE/TYPE`, and its
    /// releases stay what they are.
    fn is_of_providers(&self, _host: &Host) -> bool {
        false
    }
    /// Where `path` stands.
    fn standing(&self, host: &Host, path: &RepoName) -> Standing;
    /// The declared and formerly used names at or below `path`, sorted.
    fn given_below(&self, host: &Host, path: Option<&RepoName>) -> Vec<RepoName>;
}
