//! Facts: what is known of the registries, and how to come to know more.
//!
//! Two kinds. *Edges* move (tag → digest, lists of tags and repositories): they are kept with the time at which the
//! registry confirmed them, are asked for again after `--tag-ttl`, and the last answer serves while the registry is
//! away. *Nodes* do not move (a manifest, a package, a blob, a member, all named by digest): once they are in the
//! store, no registry is asked for them again. Every load is a single flight: however many callers wait, one request.
//!
//! INVARIANT: nothing leaves this layer that was not verified against the digest it was asked by.

mod edges;
mod error;
mod fetch;
mod kept;
mod nodes;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use edges::View;
pub use error::{FactError, Failure};
pub use nodes::{Content, Package, blocking};

use crate::archive;
use crate::name::{Host, Repo, RepoName};
use crate::registry::Registry;
use crate::registry::decorate::{Scoped, Union};
use crate::store::Store;
use crate::tree::{Need, Standing};

/// A source of a mount.
pub struct Source {
    /// The registry.
    pub host: Host,
    /// The part of it that is mounted; `None` is all of it.
    pub prefix: Option<RepoName>,
    /// How it is reached.
    pub registry: Arc<dyn Registry>,
    /// As the user wrote it.
    pub name: String,
}

/// How facts are kept.
pub struct Options {
    /// Sources in the user's order: of several that hold a name the first wins.
    pub sources: Vec<Source>,
    /// The cache.
    pub store: Arc<Store>,
    /// How long an edge counts without being confirmed.
    pub tag_ttl: Duration,
    /// How long a load goes on without a waiter.
    pub deadline: Duration,
    /// Limits of archives.
    pub limits: archive::Limits,
}

/// One registry of the mount: its sources joined.
struct Origin {
    registry: Arc<dyn Registry>,
    prefixes: Vec<Option<RepoName>>,
}

/// What one source answered last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceState {
    /// It answered.
    Ok,
    /// It could not be reached.
    Unreachable,
    /// It was not asked yet.
    Unknown,
}

/// See the module.
pub struct Facts {
    store: Arc<Store>,
    origins: BTreeMap<Host, Origin>,
    names: Vec<(Host, String)>,
    states: Mutex<BTreeMap<Host, SourceState>>,
    tag_ttl: Duration,
    deadline: Duration,
    limits: archive::Limits,
    edges: edges::Edges,
    nodes: nodes::Nodes,
    used: Mutex<BTreeMap<Host, BTreeSet<RepoName>>>,
}

/// A lock whose holder panicked guards plain values here: they are as good as before.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most formerly used repositories that are remembered per registry.
const USED_MAX: usize = 10_000;

impl Facts {
    /// Facts over `options.sources`. Reads the names of formerly used repositories from the store; asks no registry.
    pub fn new(options: Options) -> Arc<Facts> {
        let mut by_host: BTreeMap<Host, Vec<Source>> = BTreeMap::new();
        let mut names = Vec::new();
        for source in options.sources {
            names.push((source.host.clone(), source.name.clone()));
            by_host.entry(source.host.clone()).or_default().push(source);
        }
        let mut used = BTreeMap::new();
        let origins = by_host
            .into_iter()
            .map(|(host, sources)| {
                used.insert(host.clone(), edges::formerly_used(&options.store, &host));
                let prefixes = sources.iter().map(|s| s.prefix.clone()).collect();
                let mut scoped: Vec<Arc<dyn Registry>> = sources
                    .into_iter()
                    .map(|s| match s.prefix {
                        None => s.registry,
                        Some(prefix) => Arc::new(Scoped::new(s.registry, s.host, Some(prefix))) as Arc<dyn Registry>,
                    })
                    .collect();
                let registry = match scoped.pop() {
                    Some(only) if scoped.is_empty() => only,
                    last => {
                        scoped.extend(last);
                        Arc::new(Union::new(host.clone(), scoped))
                    }
                };
                (host, Origin { registry, prefixes })
            })
            .collect();
        let nodes = nodes::Nodes::new(options.deadline, options.store.limit());
        Arc::new(Facts {
            store: options.store,
            origins,
            names,
            states: Mutex::default(),
            tag_ttl: options.tag_ttl,
            deadline: options.deadline,
            limits: options.limits,
            edges: edges::Edges::new(options.deadline),
            nodes,
            used: Mutex::new(used),
        })
    }

    /// The cache below.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How long an edge counts without being confirmed.
    pub fn tag_ttl(&self) -> Duration {
        self.tag_ttl
    }

    /// The registries of the mount, sorted.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.origins.keys()
    }

    /// The sources as the user named them, with what their registry answered last.
    pub fn sources(&self) -> Vec<(String, SourceState)> {
        let states = lock(&self.states);
        self.names
            .iter()
            .map(|(host, name)| (name.clone(), states.get(host).copied().unwrap_or(SourceState::Unknown)))
            .collect()
    }

    /// What is known to an operation that began at `since`: an answer that came later counts as fresh for it, however
    /// short the time to live.
    pub fn view(&self, since: Instant) -> View<'_> {
        View::new(self, since)
    }

    /// Forgets the edges for which `wanted` holds, and all failures, so that they are asked for again. The last
    /// answers stay as what serves during an outage.
    pub fn forget(&self, wanted: impl Fn(&Need) -> bool) {
        self.edges.forget(wanted);
        self.nodes.forget_failures();
    }

    fn origin(&self, host: &Host) -> Result<&Origin, FactError> {
        self.origins.get(host).ok_or_else(|| FactError::new(Failure::Absent, host, "no source of this mount"))
    }

    /// Keeps what a registry's answer says about its being reachable.
    fn note_answer<T>(&self, host: &Host, answer: &Result<T, FactError>) {
        let state = match answer {
            Err(e) if matches!(e.failure, Failure::Unreachable | Failure::TimedOut) => SourceState::Unreachable,
            // Nothing that the registry said.
            Err(e) if matches!(e.failure, Failure::Offline | Failure::NoSpace | Failure::Io) => return,
            _ => SourceState::Ok,
        };
        let before = lock(&self.states).insert(host.clone(), state);
        match (before, state) {
            (Some(SourceState::Unreachable), SourceState::Ok) => tracing::info!("{host} answers again"),
            (Some(SourceState::Unreachable), SourceState::Unreachable) | (_, SourceState::Ok) => {}
            _ => tracing::warn!("{host} cannot be reached; what was read before keeps working"),
        }
    }

    fn standing(&self, host: &Host, path: &RepoName) -> Standing {
        let Some(origin) = self.origins.get(host) else { return Standing::Outside };
        let used = lock(&self.used);
        let is_used = used.get(host).is_some_and(|names| {
            names
                .range(path.clone()..)
                .take_while(|n| n.as_str().starts_with(path.as_str()))
                .any(|n| n.is_within(Some(path)))
        });
        let above_prefix = origin.prefixes.iter().flatten().any(|p| p.is_within(Some(path)));
        let inside = origin.prefixes.iter().any(|p| path.is_within(p.as_ref()));
        match (is_used && inside || above_prefix, inside) {
            (true, _) => Standing::Given,
            (false, true) => Standing::Inside,
            (false, false) => Standing::Outside,
        }
    }

    fn given_below(&self, host: &Host, path: Option<&RepoName>) -> Vec<RepoName> {
        let Some(origin) = self.origins.get(host) else { return Vec::new() };
        let mut names: BTreeSet<RepoName> =
            origin.prefixes.iter().flatten().filter(|p| p.is_within(path)).cloned().collect();
        if let Some(used) = lock(&self.used).get(host) {
            let inside = |n: &&RepoName| n.is_within(path) && origin.prefixes.iter().any(|p| n.is_within(p.as_ref()));
            names.extend(used.iter().filter(inside).cloned());
        }
        names.into_iter().collect()
    }

    /// Remembers that `repo` exists, now and for later mounts.
    fn note_used(self: &Arc<Self>, repo: &Repo) {
        let names = {
            let mut used = lock(&self.used);
            let names = used.entry(repo.host.clone()).or_default();
            if names.len() >= USED_MAX || !names.insert(repo.name.clone()) {
                return;
            }
            names.clone()
        };
        let (facts, host) = (self.clone(), repo.host.clone());
        tokio::task::spawn_blocking(move || edges::remember_used(&facts.store, &host, names));
    }
}
