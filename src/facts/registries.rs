//! The registries of a mount. Each is what the sources of its name hold together; which there are
//! changes only where a store comes to hold another one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;

use super::health::{FailingSource, Health, SourceState};
use super::watched_source::WatchedSource;
use crate::failure::{Failure, Refusal};
use crate::name::{Host, RepoName};
use crate::registry::decorate::{Scoped, Union};
use crate::registry::{HostStore, Registry};

/// What kind of registry a source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegistryKind {
    /// An OCI registry.
    Oci,
    /// A provider registry: its repositories are `NAMESPACE/TYPE`, and its releases documents of
    /// another kind than manifests.
    Providers,
}

/// A source of a mount.
pub enum MountSource {
    /// A registry.
    Registry {
        /// Which one.
        host: Host,
        /// Of which kind.
        kind: RegistryKind,
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

impl MountSource {
    fn name(&self) -> &str {
        match self {
            MountSource::Registry { name, .. } | MountSource::Store { name, .. } => name,
        }
    }

    /// The parts of registries that it stands for: the one that was declared, or all registries
    /// that a store holds now.
    pub fn declared(&self) -> Vec<(Host, Option<RepoName>)> {
        match self {
            MountSource::Registry { host, prefix, .. } => vec![(host.clone(), prefix.clone())],
            MountSource::Store { store, name } => match store.hosts() {
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
            MountSource::Registry { host: declared, .. } => declared == host,
            MountSource::Store { store, .. } => store.holds(host),
        }
    }

    fn prefix(&self) -> Option<RepoName> {
        match self {
            MountSource::Registry { prefix, .. } => prefix.clone(),
            MountSource::Store { .. } => None,
        }
    }

    /// The kind of registry that it is; `None` of a store.
    fn kind(&self) -> Option<RegistryKind> {
        match self {
            MountSource::Registry { kind, .. } => Some(*kind),
            MountSource::Store { .. } => None,
        }
    }

    /// Whether both are parts of one registry, reached over one connection.
    fn is_of_same(&self, other: &MountSource) -> bool {
        match (self, other) {
            (
                MountSource::Registry { registry: one, .. },
                MountSource::Registry { registry: other, .. },
            ) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// What it holds of `of`, between the `earlier` and the `later` parts of the same registry.
    fn part(
        &self,
        of: &Host,
        earlier: Vec<Option<RepoName>>,
        later: Vec<Option<RepoName>>,
    ) -> SourcePart {
        match self {
            MountSource::Registry { host, prefix, registry, .. } => {
                let watched = Arc::new(WatchedSource::new(registry.clone(), of));
                let inner: Arc<dyn Registry> = watched.clone();
                let scoped =
                    Scoped::new(inner, host.clone(), prefix.clone()).between(earlier, later);
                SourcePart { watched, registry: Arc::new(scoped) }
            }
            MountSource::Store { store, name } => {
                let watched = Arc::new(WatchedSource::new(store.clone().registry(of), name));
                SourcePart { registry: watched.clone(), watched }
            }
        }
    }

    /// How a store is. That of a registry is seen when it is asked.
    fn health(&self) -> Option<Health> {
        match self {
            MountSource::Registry { .. } => None,
            MountSource::Store { store, .. } => Some(match store.hosts() {
                Ok(_) => Health::of(SourceState::Ok),
                Err(e) => Health::failing(SourceState::Unreachable, e.reason()),
            }),
        }
    }
}

/// What one source holds of a registry.
#[derive(Clone)]
struct SourcePart {
    /// What it answered last.
    watched: Arc<WatchedSource>,
    /// The source, and nothing outside of it.
    registry: Arc<dyn Registry>,
}

/// One registry of the mount: its sources joined.
pub(super) struct JoinedRegistry {
    pub(super) registry: Arc<dyn Registry>,
    /// The parts of the registry that are mounted, one per source; `None` is all of it.
    pub(super) prefixes: Vec<Option<RepoName>>,
    /// Which sources take part, in their order.
    sources: Vec<usize>,
    /// What each of them holds of the registry. Of one that an earlier source has as a whole, it is
    /// that one's.
    parts: Vec<SourcePart>,
    /// The ways to the registry itself, without the stores beside it.
    pub(super) asked: Vec<Arc<WatchedSource>>,
    has_store: bool,
    has_providers: bool,
    has_oci: bool,
    kept_apart: String,
}

impl JoinedRegistry {
    /// What is added to the names under which edges are kept for later mounts: what stores
    /// answered, alone or before a registry, is no answer of a mount without them.
    pub(super) fn kept_apart(&self) -> &str {
        &self.kept_apart
    }

    /// The same of lists of repositories, which are complete for the mounted parts of the registry
    /// alone.
    pub(super) fn lists_kept_apart(&self) -> String {
        let parts: Option<Vec<&str>> =
            self.prefixes.iter().map(|part| part.as_ref().map(RepoName::as_str)).collect();
        match parts {
            Some(parts) => format!("{} below {}", self.kept_apart, parts.join(";")),
            None => self.kept_apart.clone(),
        }
    }

    /// Whether a store is among its sources. Asking it costs nothing, so that nothing that was kept
    /// counts before it.
    pub(super) fn has_store(&self) -> bool {
        self.has_store
    }

    /// Whether a registry is among its sources.
    pub(super) fn has_registry(&self) -> bool {
        self.has_providers || self.has_oci
    }

    /// Whether a provider registry is among its sources.
    pub(super) fn has_providers(&self) -> bool {
        self.has_providers
    }

    /// Whether it is a provider registry, and no OCI registry as well.
    pub(super) fn is_of_providers(&self) -> bool {
        self.has_providers && !self.has_oci
    }
}

/// See the module.
pub(super) struct JoinedRegistries {
    sources: Vec<MountSource>,
    /// See [`super::FactsOptions::stores_stand_in`].
    stores_stand_in: bool,
    joined: RwLock<BTreeMap<Host, Arc<JoinedRegistry>>>,
}

impl JoinedRegistries {
    /// The registries of `sources`. Reads the stores.
    pub(super) fn new(sources: Vec<MountSource>, stores_stand_in: bool) -> JoinedRegistries {
        let registries = JoinedRegistries { sources, stores_stand_in, joined: RwLock::default() };
        registries.present();
        registries
    }

    /// Whether no other registry can come.
    pub(super) fn are_fixed(&self) -> bool {
        !self.sources.iter().any(|source| matches!(source, MountSource::Store { .. }))
    }

    /// The registry `host`, as the mount knew it when it was last looked for. Reads no store.
    pub(super) fn get(&self, host: &Host) -> Option<Arc<JoinedRegistry>> {
        self.joined.read().get(host).cloned()
    }

    /// The same, for who asks it for something.
    ///
    /// # Errors
    /// It belongs to no source.
    pub(super) fn reached(&self, host: &Host) -> Result<Arc<JoinedRegistry>, Refusal> {
        self.get(host).ok_or_else(|| Refusal::new(Failure::Absent, host, "no source of this mount"))
    }

    /// Whether the registry `host` itself answered when it was asked last.
    pub(super) fn is_well(&self, host: &Host) -> bool {
        let Some(joined) = self.get(host) else { return false };
        let is_ok = |asked: &Arc<WatchedSource>| asked.health().state == SourceState::Ok;
        !joined.asked.is_empty() && joined.asked.iter().all(is_ok)
    }

    /// Looks for `host` in the sources; whether one of them holds it now, or was declared to.
    pub(super) fn seek(&self, host: &Host) -> bool {
        let holding: Vec<usize> =
            (0..self.sources.len()).filter(|at| self.sources[*at].holds(host)).collect();
        if holding.is_empty() {
            return false;
        }
        let mut joined = self.joined.write();
        // A store that no longer holds the registry still takes part: what is open reads from it.
        let mut sources = joined.get(host).map_or_else(Vec::new, |origin| origin.sources.clone());
        let before = sources.len();
        sources.extend(holding);
        sources.sort_unstable();
        sources.dedup();
        if sources.len() > before {
            let origin = self.join(host, sources, joined.get(host).map(Arc::as_ref));
            joined.insert(host.clone(), Arc::new(origin));
        }
        true
    }

    /// The registries that were declared, and those that stores hold now, sorted.
    pub(super) fn present(&self) -> Vec<Host> {
        let mut hosts = Vec::new();
        for source in &self.sources {
            match source {
                MountSource::Registry { host, .. } => hosts.push(host.clone()),
                MountSource::Store { store, name } => match store.hosts() {
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

    /// Every source under each registry of which it holds a part, and how it is. Reads the stores.
    pub(super) fn states(&self) -> Vec<(String, Health)> {
        let joined = self.joined.read();
        let parts = joined.values().flat_map(|origin| origin.sources.iter().zip(&origin.parts));
        let of_parts =
            parts.map(|(at, part)| (self.sources[*at].name().to_owned(), part.watched.health()));
        let of_stores = self
            .sources
            .iter()
            .filter_map(|source| Some((source.name().to_owned(), source.health()?)));
        of_parts.chain(of_stores).collect()
    }

    /// The stores that cannot be read.
    pub(super) fn ailing_stores(&self) -> Vec<FailingSource> {
        let stores =
            self.sources.iter().filter_map(|source| Some((source.name(), source.health()?)));
        let ailing = stores.filter(|(_, health)| health.state.is_failing());
        ailing.map(|(name, health)| FailingSource { name: name.to_owned(), health }).collect()
    }

    /// The registries that were declared, sorted.
    pub(super) fn registries(&self) -> BTreeSet<Host> {
        let host = |source: &MountSource| match source {
            MountSource::Registry { host, .. } => Some(host.clone()),
            MountSource::Store { .. } => None,
        };
        self.sources.iter().filter_map(host).collect()
    }

    /// Those of `others` that are parts of the same registry as the source `of`.
    fn siblings(&self, of: usize, others: &[usize]) -> Vec<Option<RepoName>> {
        let others = others.iter().map(|at| &self.sources[*at]);
        others
            .filter(|other| other.is_of_same(&self.sources[of]))
            .map(MountSource::prefix)
            .collect()
    }

    /// The place of one among `earlier` sources that has the part of the registry for which the
    /// source `of` stands.
    fn covering(&self, earlier: &[usize], of: usize) -> Option<usize> {
        let prefix = self.sources[of].prefix();
        let covers = |other: &MountSource| match (other.prefix(), &prefix) {
            (None, _) => true,
            (Some(part), Some(prefix)) => prefix.is_within(Some(&part)),
            (Some(_), None) => false,
        };
        let mut others = earlier.iter().map(|at| &self.sources[*at]);
        others.position(|other| other.is_of_same(&self.sources[of]) && covers(other))
    }

    /// See [`JoinedRegistry::kept_apart`].
    fn kept_apart(&self, sources: &[usize]) -> String {
        let of_kind = |kind| move |at: &&usize| self.sources[**at].kind() == kind;
        let stores = sources.iter().filter(of_kind(None));
        let stores: Vec<&str> = stores.map(|at| self.sources[*at].name()).collect();
        let mut kept_apart = String::new();
        if !stores.is_empty() && !self.stores_stand_in {
            kept_apart += &format!(" of {}", stores.join(";"));
        }
        // A registry of the other kind may have the same name.
        if sources.iter().any(|at| of_kind(Some(RegistryKind::Providers))(&at)) {
            kept_apart += " by providers";
        }
        kept_apart
    }

    /// What `sources` hold of `host` together; those that took part `before` go on as they were.
    fn join(
        &self,
        host: &Host,
        sources: Vec<usize>,
        before: Option<&JoinedRegistry>,
    ) -> JoinedRegistry {
        let known = |at: usize| {
            let before = before?;
            before.sources.binary_search(&at).ok().map(|place| before.parts[place].clone())
        };
        let mut parts: Vec<SourcePart> = Vec::new();
        let mut registries: Vec<Arc<dyn Registry>> = Vec::new();
        for (place, at) in sources.iter().enumerate() {
            if let Some(covering) = self.covering(&sources[..place], *at) {
                parts.push(parts[covering].clone());
                continue;
            }
            let (earlier, later) = (&sources[..place], &sources[place + 1..]);
            let new = || {
                self.sources[*at].part(host, self.siblings(*at, earlier), self.siblings(*at, later))
            };
            let part = known(*at).unwrap_or_else(new);
            registries.push(part.registry.clone());
            parts.push(part);
        }
        let prefixes = sources.iter().map(|at| self.sources[*at].prefix()).collect();
        let registry = match registries.pop() {
            Some(only) if registries.is_empty() => only,
            last => {
                registries.extend(last);
                Arc::new(Union::new(host.clone(), registries))
            }
        };
        let is_registry = |at: &usize| matches!(self.sources[*at], MountSource::Registry { .. });
        let asked = sources.iter().zip(&parts).filter(|(at, _)| is_registry(at));
        let mut asked: Vec<Arc<WatchedSource>> =
            asked.map(|(_, part)| part.watched.clone()).collect();
        asked.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let has = |kind| sources.iter().any(|at| self.sources[*at].kind() == kind);
        let (has_store, has_providers) = (has(None), has(Some(RegistryKind::Providers)));
        let has_oci = has(Some(RegistryKind::Oci));
        let kept_apart = self.kept_apart(&sources);
        JoinedRegistry {
            registry,
            prefixes,
            sources,
            parts,
            asked,
            has_store,
            has_providers,
            has_oci,
            kept_apart,
        }
    }
}
