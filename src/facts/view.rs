//! The facts as they stand for one operation: what the namespace is a function of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::admit::HiddenTags;
use super::manifests::Manifests;
use super::names::KnownNames;
use super::providers::Providers;
use super::registries::JoinedRegistries;
use super::tags::{TagAnswer, Tags};
use super::walk::Left;
use crate::artifact::Release;
use crate::digest::Digest;
use crate::failure::Refusal;
use crate::mapping::Mapping;
use crate::name::{Host, Platform, ProviderAddr, Repo, RepoName, Tag};
use crate::tree::providers::Offered;
use crate::tree::{Fact, KnownFacts, Need, Standing};

/// See the module, and [`Facts::view`](super::Facts::view).
pub struct FactsView<'a> {
    pub(super) registries: &'a JoinedRegistries,
    pub(super) names: &'a KnownNames,
    pub(super) providers: &'a Providers,
    pub(super) manifests: &'a Manifests,
    pub(super) tags: &'a Tags,
    /// When the operation began.
    pub(super) since: Instant,
    /// See [`FactsView::without`].
    pub(super) left: Vec<Left>,
    /// See [`FactsView::hiding`].
    pub(super) hidden: Option<Arc<HiddenTags>>,
}

impl FactsView<'_> {
    /// The same, in which what was left is not asked for, but has failed where it was not known
    /// before.
    pub fn without(mut self, left: &[Left]) -> Self {
        self.left = left.to_vec();
        self
    }

    /// The same, without these tags in any list.
    pub fn hiding(mut self, hidden: &Arc<HiddenTags>) -> Self {
        self.hidden = Some(hidden.clone()).filter(|hidden| !hidden.is_empty());
        self
    }

    /// The manifest for which `tag` stands.
    pub fn bound(&self, repo: &Repo, tag: &Tag) -> Fact<Digest, Refusal> {
        self.fact(&Need::Binding(repo.clone(), tag.clone()), TagAnswer::binding)
    }

    /// How long the registry has not confirmed an edge that is served although its time to live is
    /// over.
    pub fn stale(&self, need: &Need) -> Option<Duration> {
        let last = self.tags.slot(need).last?;
        (!last.is_fresh(Instant::now()))
            .then(|| SystemTime::now().duration_since(last.wall).unwrap_or_default())
    }

    /// How long the answer about `need` may be kept by who asked: at most the time to live, and not
    /// longer than a refusal counts, during which the last answer is served.
    pub fn fresh_for(&self, need: &Need) -> Duration {
        self.tags.slot(need).counts_for(Instant::now()).min(self.tags.ttl())
    }

    /// What is known about `need`, whose answer is of the kind that `read` takes.
    fn fact<T>(&self, need: &Need, read: impl Fn(&TagAnswer) -> Option<T>) -> Fact<T, Refusal> {
        self.tags.fact(need, self.since, &self.left, read)
    }
}

impl KnownFacts for FactsView<'_> {
    type Error = Refusal;

    fn tags(&self, repo: &Repo) -> Fact<Arc<Vec<Tag>>, Refusal> {
        let tags = self.fact(&Need::Tags(repo.clone()), TagAnswer::tags);
        match (tags, &self.hidden) {
            (Fact::Is(tags), Some(hidden)) => {
                let is_shown = |tag: &&Tag| !hidden.contains(&(repo.clone(), (*tag).clone()));
                Fact::Is(Arc::new(tags.iter().filter(is_shown).cloned().collect()))
            }
            (tags, _) => tags,
        }
    }

    fn catalog(&self, host: &Host) -> Fact<Arc<Vec<RepoName>>, Refusal> {
        // The protocol of provider registries has no such list.
        if self.is_of_providers(host) {
            return Fact::Absent;
        }
        let need = Need::Catalog(host.clone());
        match self.fact(&need, |answer| Some(answer.clone())) {
            Fact::Is(TagAnswer::Catalog(names)) => Fact::Is(names),
            Fact::Is(TagAnswer::NoCatalog) | Fact::Absent => Fact::Absent,
            Fact::Is(_) | Fact::Unknown => Fact::Unknown,
            Fact::Denied(e) => Fact::Denied(e),
            Fact::Failed(e) => Fact::Failed(e),
        }
    }

    fn held(&self, host: &Host) -> Fact<Arc<Vec<RepoName>>, Refusal> {
        if !self.registries.get(host).is_some_and(|joined| joined.has_store()) {
            return Fact::Is(Arc::default());
        }
        self.fact(&Need::Held(host.clone()), TagAnswer::catalog)
    }

    fn binding(&self, repo: &Repo, tag: &Tag) -> Fact<(), Refusal> {
        self.fact(&Need::Binding(repo.clone(), tag.clone()), |_| Some(()))
    }

    fn is_confirmed(&self, need: &Need) -> bool {
        self.tags.is_confirmed(need, self.since)
    }

    fn was_bound(&self, repo: &Repo, tag: &Tag) -> bool {
        self.tags.slot(&Need::Binding(repo.clone(), tag.clone())).last.is_some()
    }

    fn is_of_providers(&self, host: &Host) -> bool {
        self.registries.get(host).is_some_and(|joined| joined.is_of_providers())
    }

    fn standing(&self, host: &Host, path: &RepoName) -> Standing {
        self.names.standing(host, path)
    }

    fn given_below(&self, host: &Host, path: Option<&RepoName>) -> Vec<RepoName> {
        self.names.given_below(host, path)
    }
}

impl Offered for FactsView<'_> {
    fn mapping(&self) -> &Mapping {
        self.providers.mapping()
    }

    fn declared(&self) -> &BTreeSet<ProviderAddr> {
        self.providers.declared()
    }

    fn looked_up(&self) -> Arc<BTreeSet<ProviderAddr>> {
        self.providers.looked_up()
    }

    fn wanted(&self) -> &[Platform] {
        self.providers.wanted()
    }

    fn verifies_platforms(&self) -> bool {
        self.providers.verifies_platforms()
    }

    fn is_offline(&self) -> bool {
        self.providers.is_offline()
    }

    fn platforms(&self, repo: &Repo, tag: &Tag) -> Fact<Arc<Vec<Platform>>, Refusal> {
        let digest = self.tags.last_binding(repo, tag);
        let entered = digest.and_then(|digest| self.manifests.known(digest));
        match entered.map(|document| document.release()) {
            Some(Ok(Release::Provider(targets))) => {
                Fact::Is(Arc::new(targets.into_iter().map(|t| t.platform).collect()))
            }
            _ => self.fact(&Need::Platforms(repo.clone(), tag.clone()), TagAnswer::platforms),
        }
    }

    fn repos(&self, provider: &ProviderAddr) -> Result<Vec<Repo>, Refusal> {
        self.providers.repos(provider)
    }
}
