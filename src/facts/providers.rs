//! What the mount shows of providers: which ones, from which repositories, for which platforms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::remembered;
use crate::failure::{Failure, Refusal};
use crate::mapping::{Mapping, MappingError};
use crate::name::{Host, Platform, ProviderAddr, Repo, RepoName, Tag, Version};
use crate::store::Store;
use crate::tree::{Fact, KnownFacts};

/// What of providers was asked for.
#[derive(Clone, Default, Debug)]
pub struct ProviderOptions {
    /// From providers to repositories. Without rules there are no providers.
    pub mapping: Mapping,
    /// The providers to show, beside those that are found.
    pub declared: BTreeSet<ProviderAddr>,
    /// Providers that count as looked up before: those that bundles among the sources carry.
    pub carried: BTreeSet<ProviderAddr>,
    /// The platforms to show.
    pub platforms: BTreeSet<Platform>,
    /// Whether a release is asked for its platforms before they are shown.
    pub verify_platforms: bool,
    /// Whether no registry can be asked, so that only releases are listed that are known here.
    pub offline: bool,
}

/// See the module.
pub struct Providers {
    store: Arc<Store>,
    mapping: Mapping,
    declared: BTreeSet<ProviderAddr>,
    wanted: Vec<Platform>,
    verify_platforms: bool,
    offline: bool,
    looked_up: Mutex<Arc<BTreeSet<ProviderAddr>>>,
    /// The repositories of all these providers.
    repos: Mutex<BTreeMap<Host, BTreeSet<RepoName>>>,
}

impl Providers {
    /// Reads the providers that were looked up before from the store.
    pub(super) fn new(options: ProviderOptions, store: Arc<Store>) -> Providers {
        let ProviderOptions { mapping, declared, carried, platforms, verify_platforms, offline } =
            options;
        let mut looked_up = carried;
        if !mapping.rules().is_empty() {
            looked_up.extend(remembered::providers(&store));
        }
        let providers = Providers {
            store,
            mapping,
            wanted: platforms.into_iter().collect(),
            verify_platforms,
            offline,
            looked_up: Mutex::default(),
            repos: Mutex::default(),
            declared,
        };
        for provider in looked_up.iter().chain(&providers.declared) {
            providers.add_repos(provider);
        }
        *providers.looked_up.lock() = Arc::new(looked_up);
        providers
    }

    fn add_repos(&self, provider: &ProviderAddr) {
        let mut repos = self.repos.lock();
        for repo in self.mapping.repos(provider).unwrap_or_default() {
            repos.entry(repo.host).or_default().insert(repo.name);
        }
    }

    /// The repositories of providers that are known in `host`.
    pub(super) fn with_repos<T>(
        &self,
        host: &Host,
        look: impl FnOnce(&BTreeSet<RepoName>) -> T,
    ) -> Option<T> {
        self.repos.lock().get(host).map(look)
    }

    /// From providers to repositories.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The providers that were declared.
    pub(super) fn declared(&self) -> &BTreeSet<ProviderAddr> {
        &self.declared
    }

    /// The providers that were looked up, by this or an earlier mount.
    pub(super) fn looked_up(&self) -> Arc<BTreeSet<ProviderAddr>> {
        self.looked_up.lock().clone()
    }

    /// The platforms to show.
    pub(super) fn wanted(&self) -> &[Platform] {
        &self.wanted
    }

    /// Whether a release is asked for its platforms before they are shown.
    pub(super) fn verifies_platforms(&self) -> bool {
        self.verify_platforms
    }

    /// Whether no registry can be asked.
    pub(super) fn is_offline(&self) -> bool {
        self.offline
    }

    /// The repositories of `provider`, in the order of the rules.
    pub(super) fn repos(&self, provider: &ProviderAddr) -> Result<Vec<Repo>, Refusal> {
        let wrong = |e: MappingError| Refusal::new(Failure::Unsupported, &e.subject, &e.rule);
        self.mapping.repos(provider).map_err(wrong)
    }

    /// The first repository of a declared provider in `host`.
    pub(super) fn declared_repo(&self, host: &Host) -> Option<Repo> {
        let repos = |provider| self.mapping.repos(provider).unwrap_or_default();
        self.declared.iter().flat_map(repos).find(|repo| repo.host == *host)
    }

    /// Whether the providers in `host` are found by the registry's list of repositories.
    pub(super) fn are_listed_by(&self, host: &Host) -> bool {
        let rules = self.mapping.rules().iter();
        rules.filter_map(|rule| rule.prefix()).any(|(led_to, _)| led_to == *host)
    }

    /// Whether `repo` is known to hold releases of a provider.
    pub fn is_mapped(&self, repo: &Repo) -> bool {
        self.with_repos(&repo.host, |names| names.contains(&repo.name)).unwrap_or(false)
    }

    /// Whether `platform` is one of those that are shown without a release being asked for them.
    pub fn assumes(&self, platform: &Platform) -> bool {
        self.wanted.contains(platform)
    }

    /// Remembers a provider that was looked up, now and for later mounts, if it is known to have a
    /// version.
    pub fn note(&self, provider: &ProviderAddr, known: &impl KnownFacts) {
        if self.looked_up.lock().contains(provider) {
            return;
        }
        let repos = self.mapping.repos(provider).unwrap_or_default();
        let is_release = |tag: &Tag| Version::of_tag(tag).is_some();
        if !repos
            .iter()
            .any(|repo| matches!(known.tags(repo), Fact::Is(tags) if tags.iter().any(is_release)))
        {
            return;
        }
        {
            let mut looked_up = self.looked_up.lock();
            if looked_up.len() >= remembered::PROVIDERS_MAX
                || !Arc::make_mut(&mut looked_up).insert(provider.clone())
            {
                return;
            }
        }
        self.add_repos(provider);
        let (store, provider) = (self.store.clone(), provider.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(e) = remembered::add_providers(&store, &BTreeSet::from([provider])) {
                tracing::warn!(
                    "the providers that were looked up cannot be kept for later mounts: {e}"
                );
            }
        });
    }
}
