//! The names that a mount knows without asking: its registries, its sources' parts of them, and the
//! repositories that were used or hold a provider.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::providers::Providers;
use super::registries::JoinedRegistries;
use crate::name::{Host, Repo, RepoName};
use crate::store::Store;
use crate::tree::Standing;

/// The most formerly used repositories that are remembered per registry.
const USED_MAX: usize = 10_000;

/// See the module.
pub struct KnownNames {
    store: Arc<Store>,
    registries: Arc<JoinedRegistries>,
    providers: Arc<Providers>,
    used: Mutex<BTreeMap<Host, BTreeSet<RepoName>>>,
}

impl KnownNames {
    /// Reads what stores hold, and the names of formerly used repositories; asks no registry.
    pub(super) fn new(
        store: Arc<Store>,
        registries: Arc<JoinedRegistries>,
        providers: Arc<Providers>,
    ) -> KnownNames {
        let names = KnownNames { store, registries, providers, used: Mutex::default() };
        names.hosts();
        names
    }

    /// The registries of the mount, sorted: those that were declared, and those of which a store
    /// holds something now. Reads the stores.
    pub fn hosts(&self) -> Vec<Host> {
        let hosts = self.registries.present();
        hosts.iter().for_each(|host| self.recall_used(host));
        hosts
    }

    /// Whether `host` is one of [`KnownNames::hosts`]. Looks into the stores.
    pub fn has_host(&self, host: &Host) -> bool {
        let found = self.registries.seek(host);
        if found {
            self.recall_used(host);
        }
        found
    }

    /// Whether [`KnownNames::hosts`] never changes.
    pub fn hosts_are_fixed(&self) -> bool {
        self.registries.are_fixed()
    }

    /// Where `path` stands.
    pub(super) fn standing(&self, host: &Host, path: &RepoName) -> Standing {
        let Some(joined) = self.registries.get(host) else { return Standing::Outside };
        let holds = |names: &BTreeSet<RepoName>| {
            let mut from =
                names.range(path.clone()..).take_while(|n| n.as_str().starts_with(path.as_str()));
            from.any(|n| n.is_within(Some(path)))
        };
        let is_used = self.used.lock().get(host).is_some_and(holds)
            || self.providers.with_repos(host, holds).unwrap_or(false);
        let above_prefix = joined.prefixes.iter().flatten().any(|p| p.is_within(Some(path)));
        let inside = joined.prefixes.iter().any(|p| path.is_within(p.as_ref()));
        match (inside, is_used || above_prefix) {
            (true, true) => Standing::Given,
            (true, false) => Standing::Inside,
            (false, _) if above_prefix => Standing::Above,
            (false, _) => Standing::Outside,
        }
    }

    /// The declared and formerly used names at or below `path`, sorted.
    pub(super) fn given_below(&self, host: &Host, path: Option<&RepoName>) -> Vec<RepoName> {
        let Some(joined) = self.registries.get(host) else { return Vec::new() };
        let mut names: BTreeSet<RepoName> =
            joined.prefixes.iter().flatten().filter(|p| p.is_within(path)).cloned().collect();
        let inside = |n: &&RepoName| {
            n.is_within(path) && joined.prefixes.iter().any(|p| n.is_within(p.as_ref()))
        };
        let mut add = |more: &BTreeSet<RepoName>| names.extend(more.iter().filter(inside).cloned());
        self.used.lock().get(host).map(&mut add);
        self.providers.with_repos(host, add);
        names.into_iter().collect()
    }

    /// Remembers that `repo` exists, now and for later mounts.
    pub fn note_used(&self, repo: &Repo) {
        let names = {
            let mut used = self.used.lock();
            let names = used.entry(repo.host.clone()).or_default();
            if names.len() >= USED_MAX || !names.insert(repo.name.clone()) {
                return;
            }
            names.clone()
        };
        let (store, host, edge) = (self.store.clone(), repo.host.clone(), self.edge(&repo.host));
        tokio::task::spawn_blocking(move || remember_used(&store, &host, &edge, names));
    }

    /// Takes up what earlier mounts have used of `host`.
    fn recall_used(&self, host: &Host) {
        if !self.used.lock().contains_key(host) {
            let formerly = formerly_used(&self.store, &self.edge(host));
            self.used.lock().entry(host.clone()).or_default().extend(formerly);
        }
    }

    /// The name under which the store keeps the used repositories of `host`.
    fn edge(&self, host: &Host) -> String {
        let joined = self.registries.get(host);
        format!("repositories {host}{}", joined.as_ref().map_or("", |joined| joined.kept_apart()))
    }
}

/// The repositories that any mount of this cache has used of the same stores.
fn formerly_used(store: &Store, edge: &str) -> BTreeSet<RepoName> {
    store
        .edge(edge)
        .and_then(|bytes| serde_json::from_slice::<Vec<String>>(&bytes).ok())
        .map(|names| names.iter().filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default()
}

/// Adds `names` to the used repositories of `host` in the store.
fn remember_used(store: &Store, host: &Host, edge: &str, names: BTreeSet<RepoName>) {
    let mut all = formerly_used(store, edge);
    all.extend(names);
    let all: Vec<String> = all.iter().map(RepoName::to_string).collect();
    if let Ok(Err(e)) = serde_json::to_vec(&all).map(|bytes| store.put_edge(edge, &bytes)) {
        tracing::warn!("the used repositories of {host} cannot be kept for later mounts: {e}");
    }
}
