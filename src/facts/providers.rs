//! What the mount offers of providers: which ones, from which repositories, for which platforms.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::tags::TagAnswer;
use super::{Facts, FactsView, remembered};
use crate::artifact::Release;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::mapping::{Mapping, MappingError};
use crate::name::{Host, Platform, ProviderAddr, Repo, RepoName, Selector, Tag, Version};
use crate::store::Store;
use crate::tree::providers::Offered;
use crate::tree::{Fact, KnownFacts, Need};

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

pub(super) struct KnownProviders {
    mapping: Mapping,
    declared: BTreeSet<ProviderAddr>,
    wanted: Vec<Platform>,
    verify_platforms: bool,
    offline: bool,
    looked_up: Mutex<Arc<BTreeSet<ProviderAddr>>>,
    /// The repositories of all these providers.
    mapped: Mutex<BTreeMap<Host, BTreeSet<RepoName>>>,
}

impl KnownProviders {
    /// Reads the providers that were looked up before from the store.
    pub(super) fn new(options: ProviderOptions, store: &Store) -> KnownProviders {
        let ProviderOptions { mapping, declared, carried, platforms, verify_platforms, offline } =
            options;
        let mut looked_up = carried;
        if !mapping.rules().is_empty() {
            looked_up.extend(remembered::providers(store));
        }
        let offers = KnownProviders {
            mapping,
            wanted: platforms.into_iter().collect(),
            verify_platforms,
            offline,
            looked_up: Mutex::default(),
            mapped: Mutex::default(),
            declared,
        };
        for provider in looked_up.iter().chain(&offers.declared) {
            offers.add_repos(provider);
        }
        *offers.looked_up.lock() = Arc::new(looked_up);
        offers
    }

    fn add_repos(&self, provider: &ProviderAddr) {
        let mut mapped = self.mapped.lock();
        for repo in self.mapping.repos(provider).unwrap_or_default() {
            mapped.entry(repo.host).or_default().insert(repo.name);
        }
    }

    /// The repositories of providers that are known in `host`.
    pub(super) fn with_mapped<T>(
        &self,
        host: &Host,
        look: impl FnOnce(&BTreeSet<RepoName>) -> T,
    ) -> Option<T> {
        self.mapped.lock().get(host).map(look)
    }
}

impl Facts {
    /// From providers to repositories.
    pub fn mapping(&self) -> &Mapping {
        &self.offers.mapping
    }

    /// The first repository of a declared provider in `host`.
    pub(super) fn declared_repo(&self, host: &Host) -> Option<Repo> {
        let repos = |provider| self.offers.mapping.repos(provider).unwrap_or_default();
        self.offers.declared.iter().flat_map(repos).find(|repo| repo.host == *host)
    }

    /// Whether the providers in `host` are found by the registry's list of repositories.
    pub(super) fn lists_providers_of(&self, host: &Host) -> bool {
        let rules = self.offers.mapping.rules().iter();
        rules.filter_map(|rule| rule.prefix()).any(|(led_to, _)| led_to == *host)
    }

    /// Whether `repo` is known to hold releases of a provider.
    pub fn is_mapped(&self, repo: &Repo) -> bool {
        self.offers.with_mapped(&repo.host, |names| names.contains(&repo.name)).unwrap_or(false)
    }

    /// Whether `platform` is one of those that are shown without a release being asked for them.
    pub fn assumes(&self, platform: &Platform) -> bool {
        self.offers.wanted.contains(platform)
    }

    /// Remembers a provider that was looked up, now and for later mounts, if it is known to have a
    /// version.
    pub fn note_provider(self: &Arc<Self>, provider: &ProviderAddr, view: &FactsView<'_>) {
        if self.offers.looked_up.lock().contains(provider) {
            return;
        }
        let repos = self.offers.mapping.repos(provider).unwrap_or_default();
        let is_release = |tag: &Tag| Version::of_tag(tag).is_some();
        if !repos
            .iter()
            .any(|repo| matches!(view.tags(repo), Fact::Is(tags) if tags.iter().any(is_release)))
        {
            return;
        }
        {
            let mut looked_up = self.offers.looked_up.lock();
            if looked_up.len() >= remembered::PROVIDERS_MAX
                || !Arc::make_mut(&mut looked_up).insert(provider.clone())
            {
                return;
            }
        }
        self.offers.add_repos(provider);
        let (facts, provider) = (self.clone(), provider.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(e) = remembered::add_providers(&facts.store, &BTreeSet::from([provider])) {
                tracing::warn!(
                    "the providers that were looked up cannot be kept for later mounts: {e}"
                );
            }
        });
    }

    /// The platforms of the release for which `tag` stands: asks the registry for what is not in
    /// the store.
    // It loads another fact on the way, so that its type cannot be left to inference.
    pub(super) fn ask_platforms<'a>(
        self: &'a Arc<Self>,
        repo: &'a Repo,
        tag: &'a Tag,
    ) -> Pin<Box<dyn Future<Output = Result<TagAnswer, Refusal>> + Send + 'a>> {
        Box::pin(async move {
            let digest = match self.last_binding(repo, tag) {
                Some(digest) => digest,
                None => self.bind(repo, tag, Instant::now()).await?,
            };
            match self.release(repo, digest).await?.1 {
                Release::Provider(targets) => Ok(TagAnswer::Platforms(Arc::new(
                    targets.into_iter().map(|t| t.platform).collect(),
                ))),
                Release::Module(_) => Err(not_a_provider(repo, tag)),
            }
        })
    }

    /// The digest for which `tag` stands, for an operation that began at `since`.
    pub async fn bind(
        self: &Arc<Self>,
        repo: &Repo,
        tag: &Tag,
        since: Instant,
    ) -> Result<Digest, Refusal> {
        loop {
            let fact = self.view(since).bound(repo, tag);
            match fact {
                Fact::Is(digest) => return Ok(digest),
                Fact::Unknown => self.load(Need::Binding(repo.clone(), tag.clone())).await?,
                Fact::Absent => {
                    return Err(Refusal::new(
                        Failure::Absent,
                        repo,
                        format_args!("there is no tag {tag}"),
                    ));
                }
                Fact::Denied(e) | Fact::Failed(e) => return Err(e),
            }
        }
    }
}

fn not_a_provider(repo: &Repo, tag: &Tag) -> Refusal {
    let subject = repo.at(Selector::Tag(tag.clone()));
    Refusal::new(
        Failure::Structure,
        subject,
        "this is a module package, but the mapping takes it for a provider release",
    )
}

impl Offered for FactsView<'_> {
    fn mapping(&self) -> &Mapping {
        &self.facts().offers.mapping
    }

    fn declared(&self) -> &BTreeSet<ProviderAddr> {
        &self.facts().offers.declared
    }

    fn looked_up(&self) -> Arc<BTreeSet<ProviderAddr>> {
        self.facts().offers.looked_up.lock().clone()
    }

    fn wanted(&self) -> &[Platform] {
        &self.facts().offers.wanted
    }

    fn verifies_platforms(&self) -> bool {
        self.facts().offers.verify_platforms
    }

    fn is_offline(&self) -> bool {
        self.facts().offers.offline
    }

    fn platforms(&self, repo: &Repo, tag: &Tag) -> Fact<Arc<Vec<Platform>>, Refusal> {
        let facts = self.facts();
        let entered = facts.last_binding(repo, tag).and_then(|digest| facts.known_manifest(digest));
        match entered.map(|manifest| Release::read(&manifest)) {
            Some(Ok(Release::Provider(targets))) => {
                Fact::Is(Arc::new(targets.into_iter().map(|t| t.platform).collect()))
            }
            _ => self.known_platforms(repo, tag),
        }
    }

    fn repos(&self, provider: &ProviderAddr) -> Result<Vec<Repo>, Refusal> {
        let wrong = |e: MappingError| Refusal::new(Failure::Unsupported, &e.subject, &e.rule);
        self.facts().offers.mapping.repos(provider).map_err(wrong)
    }
}
