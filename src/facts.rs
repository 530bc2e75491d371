//! Facts: what is known of the registries, and how to come to know more.
//!
//! Two kinds. *Edges* move (tag → digest, lists of tags and repositories): they are kept with the
//! time at which the registry confirmed them, are asked for again after `--tag-ttl`, and the last
//! answer serves while the registry is away. *Nodes* do not move (a manifest, a package, a blob, a
//! member, all named by digest): once they are in the store, no registry is asked for them again.
//! Every load is a single flight: however many callers wait, one request.
//!
//! INVARIANT: nothing leaves this layer that was not verified against the digest it was asked by.

mod ask;
mod budget;
mod content;
mod error;
mod fetch;
mod hash;
mod health;
mod look;
mod open_objects;
mod prefetch;
mod providers;
mod registries;
mod remembered;
mod running;
mod tags;
mod unpack;
mod walk;
mod watched_source;
mod weighed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use budget::RequestingUser;
pub use content::{MemberContent, VerifiedPackage, blocking};
pub use health::{FailingSource, Health, SourceState};
pub use prefetch::Unpacking;
pub use providers::ProviderOptions;
pub use registries::MountSource;
pub use remembered::{remember, remembered_in};
pub use running::{Download, on_behalf_of};
pub use tags::FactsView;
pub use walk::{Awaited, Left};

use crate::archive;
use crate::failure::{Failure, Refusal};
use crate::name::{Host, Repo, RepoName};
use crate::store::Store;
use crate::tree::{Need, Standing};
use registries::{JoinedRegistries, JoinedRegistry};

/// How facts are kept.
pub struct FactsOptions {
    /// Sources in the user's order: of several that hold a name the first wins.
    pub sources: Vec<MountSource>,
    /// Whether stores take the place of the registries that they hold: what they say is then kept
    /// for later mounts as what those registries said.
    pub stores_stand_in: bool,
    /// The cache.
    pub store: Arc<Store>,
    /// How long an edge counts without being confirmed.
    pub tag_ttl: Duration,
    /// How long a load goes on without a waiter.
    pub deadline: Duration,
    /// Limits of archives.
    pub limits: archive::Limits,
    /// What of providers was asked for.
    pub providers: ProviderOptions,
}

/// See the module.
pub struct Facts {
    store: Arc<Store>,
    origins: JoinedRegistries,
    tag_ttl: Duration,
    deadline: Duration,
    limits: archive::Limits,
    edges: tags::TagCache,
    nodes: content::ContentCache,
    offers: providers::KnownProviders,
    budgets: budget::Budgets,
    used: Mutex<BTreeMap<Host, BTreeSet<RepoName>>>,
    running: Arc<running::Running>,
}

/// The most formerly used repositories that are remembered per registry.
const USED_MAX: usize = 10_000;

impl Facts {
    /// Facts over `options.sources`. Reads what stores hold, and the names of formerly used
    /// repositories; asks no registry.
    pub fn new(options: FactsOptions) -> Arc<Facts> {
        let nodes = content::ContentCache::new(options.deadline, options.store.limit());
        let offers = providers::KnownProviders::new(options.providers, &options.store);
        let facts = Facts {
            offers,
            store: options.store,
            origins: JoinedRegistries::new(options.sources, options.stores_stand_in),
            tag_ttl: options.tag_ttl,
            deadline: options.deadline,
            limits: options.limits,
            edges: tags::TagCache::new(options.deadline),
            nodes,
            budgets: budget::Budgets::new(),
            used: Mutex::default(),
            running: Arc::default(),
        };
        facts.hosts();
        Arc::new(facts)
    }

    /// The cache below.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How long an edge counts without being confirmed.
    pub fn tag_ttl(&self) -> Duration {
        self.tag_ttl
    }

    /// How long who asked waits without progress.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The registries of the mount, sorted: those that were declared, and those of which a store
    /// holds something now. Reads the stores.
    pub fn hosts(&self) -> Vec<Host> {
        let hosts = self.origins.present();
        hosts.iter().for_each(|host| self.recall_used(host));
        hosts
    }

    /// Whether `host` is one of [`Facts::hosts`]. Looks into the stores.
    pub fn has_host(&self, host: &Host) -> bool {
        let found = self.origins.seek(host);
        if found {
            self.recall_used(host);
        }
        found
    }

    /// Whether [`Facts::hosts`] never changes.
    pub fn hosts_are_fixed(&self) -> bool {
        self.origins.are_fixed()
    }

    /// The sources as the user named them, once for each registry of which they hold a part, and
    /// how they are. Looks into the stores.
    pub fn sources(&self) -> Vec<(String, Health)> {
        self.origins.states()
    }

    /// Whether the registry `host` itself answered when it was asked last.
    pub fn is_well(&self, host: &Host) -> bool {
        let asked = self.origins.get(host).map(|origin| origin.asked.clone()).unwrap_or_default();
        !asked.is_empty() && asked.iter().all(|registry| registry.health().state == SourceState::Ok)
    }

    /// The downloads that are under way, in the order in which they began.
    pub fn downloads(&self) -> Vec<Download> {
        self.running.downloads()
    }

    /// What is known to an operation that began at `since`: an answer that came later counts as
    /// fresh for it, however short the time to live.
    pub fn view(&self, since: Instant) -> FactsView<'_> {
        FactsView::new(self, since)
    }

    /// Forgets the edges for which `wanted` holds, and all failures, so that they are asked for
    /// again. The last answers stay as what serves during an outage.
    pub fn forget(&self, wanted: impl Fn(&Need) -> bool) {
        self.edges.forget(wanted);
        self.nodes.forget_failures();
    }

    fn origin(&self, host: &Host) -> Result<Arc<JoinedRegistry>, Refusal> {
        self.origins
            .get(host)
            .ok_or_else(|| Refusal::new(Failure::Absent, host, "no source of this mount"))
    }

    fn standing(&self, host: &Host, path: &RepoName) -> Standing {
        let Some(origin) = self.origins.get(host) else { return Standing::Outside };
        let holds = |names: &BTreeSet<RepoName>| {
            let mut from =
                names.range(path.clone()..).take_while(|n| n.as_str().starts_with(path.as_str()));
            from.any(|n| n.is_within(Some(path)))
        };
        let is_used = self.used.lock().get(host).is_some_and(holds)
            || self.offers.with_mapped(host, holds) == Some(true);
        let above_prefix = origin.prefixes.iter().flatten().any(|p| p.is_within(Some(path)));
        let inside = origin.prefixes.iter().any(|p| path.is_within(p.as_ref()));
        match (inside, is_used || above_prefix) {
            (true, true) => Standing::Given,
            (true, false) => Standing::Inside,
            (false, _) if above_prefix => Standing::Above,
            (false, _) => Standing::Outside,
        }
    }

    fn given_below(&self, host: &Host, path: Option<&RepoName>) -> Vec<RepoName> {
        let Some(origin) = self.origins.get(host) else { return Vec::new() };
        let mut names: BTreeSet<RepoName> =
            origin.prefixes.iter().flatten().filter(|p| p.is_within(path)).cloned().collect();
        let inside = |n: &&RepoName| {
            n.is_within(path) && origin.prefixes.iter().any(|p| n.is_within(p.as_ref()))
        };
        let mut add = |more: &BTreeSet<RepoName>| names.extend(more.iter().filter(inside).cloned());
        self.used.lock().get(host).map(&mut add);
        self.offers.with_mapped(host, add);
        names.into_iter().collect()
    }

    /// Takes up what earlier mounts have used of `host`.
    fn recall_used(&self, host: &Host) {
        if !self.used.lock().contains_key(host) {
            let formerly = tags::formerly_used(&self.store, host, &self.kept_apart(host));
            self.used.lock().entry(host.clone()).or_default().extend(formerly);
        }
    }

    /// Remembers that `repo` exists, now and for later mounts.
    pub fn note_used(self: &Arc<Self>, repo: &Repo) {
        let names = {
            let mut used = self.used.lock();
            let names = used.entry(repo.host.clone()).or_default();
            if names.len() >= USED_MAX || !names.insert(repo.name.clone()) {
                return;
            }
            names.clone()
        };
        let (facts, host, kept_apart) =
            (self.clone(), repo.host.clone(), self.kept_apart(&repo.host));
        tokio::task::spawn_blocking(move || {
            tags::remember_used(&facts.store, &host, &kept_apart, names)
        });
    }

    fn kept_apart(&self, host: &Host) -> String {
        self.origins.get(host).map(|origin| origin.kept_apart().to_owned()).unwrap_or_default()
    }
}
