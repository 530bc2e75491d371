//! The registries of a mount. Each is what the sources of its name hold together; which there are changes only where a
//! store comes to hold another one.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::name::{Host, RepoName};
use crate::registry::decorate::{Scoped, Union};
use crate::registry::{HostStore, Registry};

/// A source of a mount.
pub enum Source {
    /// A registry.
    Registry {
        /// Which one.
        host: Host,
        /// The part of it that is mounted; `None` is all of it.
        prefix: Option<RepoName>,
        /// How it is reached.
        registry: Arc<dyn Registry>,
        /// As the user wrote it.
        name: String,
    },
    /// A store, which may come to hold repositories of any registry.
    Store {
        /// The store.
        store: Arc<dyn HostStore>,
        /// As the user wrote it.
        name: String,
    },
}

impl Source {
    fn name(&self) -> &str {
        match self {
            Source::Registry { name, .. } | Source::Store { name, .. } => name,
        }
    }

    /// The parts of registries that it stands for: the one that was declared, or all registries that a store holds now.
    pub fn declared(&self) -> Vec<(Host, Option<RepoName>)> {
        match self {
            Source::Registry { host, prefix, .. } => vec![(host.clone(), prefix.clone())],
            Source::Store { store, name } => match store.hosts() {
                Ok(hosts) => hosts.into_iter().map(|host| (host, None)).collect(),
                Err(e) => {
                    tracing::warn!("{name}: {e}");
                    Vec::new()
                }
            },
        }
    }

    /// Whether the source holds something of `host` now, or was declared to.
    pub fn holds(&self, host: &Host) -> bool {
        match self {
            Source::Registry { host: declared, .. } => declared == host,
            Source::Store { store, .. } => store.holds(host),
        }
    }

    fn part(&self, of: &Host) -> (Arc<dyn Registry>, Option<RepoName>) {
        match self {
            Source::Registry { host, prefix: Some(prefix), registry, .. } => {
                let scoped = Scoped::new(registry.clone(), host.clone(), Some(prefix.clone()));
                (Arc::new(scoped), Some(prefix.clone()))
            }
            Source::Registry { registry, .. } => (registry.clone(), None),
            Source::Store { store, .. } => (store.clone().registry(of), None),
        }
    }
}

/// One registry of the mount: its sources joined.
pub(super) struct Origin {
    pub(super) registry: Arc<dyn Registry>,
    /// The parts of the registry that are mounted, one per source; `None` is all of it.
    pub(super) prefixes: Vec<Option<RepoName>>,
    /// Which sources take part, in their order.
    sources: Vec<usize>,
}

/// See the module.
pub(super) struct Origins {
    sources: Vec<Source>,
    joined: RwLock<BTreeMap<Host, Arc<Origin>>>,
}

impl Origins {
    /// The registries of `sources`. Reads the stores.
    pub(super) fn new(sources: Vec<Source>) -> Origins {
        let origins = Origins { sources, joined: RwLock::default() };
        origins.present();
        origins
    }

    /// Whether no other registry can come.
    pub(super) fn are_fixed(&self) -> bool {
        !self.sources.iter().any(|source| matches!(source, Source::Store { .. }))
    }

    /// The registry `host`, as the mount knew it when it was last looked for. Reads no store.
    pub(super) fn get(&self, host: &Host) -> Option<Arc<Origin>> {
        self.joined.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// Looks for `host` in the sources; whether one of them holds it now, or was declared to.
    pub(super) fn seek(&self, host: &Host) -> bool {
        let holding: Vec<usize> = (0..self.sources.len()).filter(|at| self.sources[*at].holds(host)).collect();
        if holding.is_empty() {
            return false;
        }
        let mut joined = self.joined.write().unwrap_or_else(PoisonError::into_inner);
        // A store that no longer holds the registry still takes part: what is open reads from it.
        let mut sources = joined.get(host).map_or_else(Vec::new, |origin| origin.sources.clone());
        let before = sources.len();
        sources.extend(holding);
        sources.sort_unstable();
        sources.dedup();
        if sources.len() > before {
            joined.insert(host.clone(), Arc::new(self.join(host, sources)));
        }
        true
    }

    /// The registries that were declared, and those that stores hold now, sorted.
    pub(super) fn present(&self) -> Vec<Host> {
        let mut hosts = Vec::new();
        for source in &self.sources {
            match source {
                Source::Registry { host, .. } => hosts.push(host.clone()),
                Source::Store { store, name } => match store.hosts() {
                    Ok(held) => hosts.extend(held),
                    Err(e) => tracing::warn!("what {name} holds is not known: {e}"),
                },
            }
        }
        hosts.sort();
        hosts.dedup();
        hosts.retain(|host| self.seek(host));
        hosts
    }

    /// Which sources answer about `host`, with their prefixes where a list of repositories is asked for; none where the
    /// registry alone does, all of it.
    pub(super) fn answering(&self, host: &Host, with_prefixes: bool) -> Vec<String> {
        let Some(origin) = self.get(host) else { return Vec::new() };
        let part = |at: &usize| match &self.sources[*at] {
            Source::Registry { prefix: Some(prefix), .. } if with_prefixes => format!("{host}/{prefix}"),
            Source::Registry { .. } => host.to_string(),
            Source::Store { name, .. } => name.clone(),
        };
        let parts: Vec<String> = origin.sources.iter().map(part).collect();
        if parts == [host.to_string()] { Vec::new() } else { parts }
    }

    /// Every source under each registry of which it holds a part.
    pub(super) fn names(&self) -> Vec<(Host, String)> {
        let joined = self.joined.read().unwrap_or_else(PoisonError::into_inner);
        let of = |(host, origin): (&Host, &Arc<Origin>)| {
            let names = origin.sources.iter().map(|at| (host.clone(), self.sources[*at].name().to_owned()));
            names.collect::<Vec<_>>()
        };
        joined.iter().flat_map(of).collect()
    }

    fn join(&self, host: &Host, sources: Vec<usize>) -> Origin {
        let parts = sources.iter().map(|at| self.sources[*at].part(host));
        let (mut registries, prefixes): (Vec<_>, Vec<_>) = parts.unzip();
        let registry = match registries.pop() {
            Some(only) if registries.is_empty() => only,
            last => {
                registries.extend(last);
                Arc::new(Union::new(host.clone(), registries))
            }
        };
        Origin { registry, prefixes, sources }
    }
}
