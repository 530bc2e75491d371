//! How an edge is loaded: from the registry, from what an earlier mount was told, or from who
//! stands in for a registry that is out of reach.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Tags;
use super::slots::{Confirmed, Freshness, Refused, TagAnswer, TagSlot, kept_for};
use crate::artifact::Release;
use crate::digest::Digest;
use crate::facts::manifests::changed;
use crate::failure::{Failure, Refusal};
use crate::name::{Repo, Selector, Tag};
use crate::registry::Registry;
use crate::tree::{Fact, Need};

/// How long an answer counts that is asked for once.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Tags {
    /// Asks the registry, and keeps what it says in the slot of `need` as long as that counts.
    pub(super) async fn ask(self: &Arc<Self>, need: &Need) -> Result<(), Refusal> {
        if self.slot(need).last.is_none() {
            self.recall(need).await;
            // What another mount confirmed just now counts for this one.
            if matches!(self.slot(need).fact(Instant::now()), Fact::Is(_)) {
                return Ok(());
            }
        }
        let answer = match need {
            Need::Held(_) => self.ask_registry(need).await,
            _ => self.budgets.spend(need.host(), self.ask_registry(need)).await,
        };
        match answer {
            Ok(answer) => self.confirm(need, answer).await,
            Err(error) if error.failure == Failure::Crowded => return Err(error),
            Err(error) => self.refuse(need, error).await,
        }
        Ok(())
    }

    async fn confirm(&self, need: &Need, answer: TagAnswer) {
        if let Need::Tags(repo) | Need::Binding(repo, _) = need {
            self.names.note_used(repo);
        }
        let confirmed = Confirmed::now(answer, self.counts_for(need));
        if !matches!(need, Need::Held(_)) {
            self.kept.put(need, &confirmed).await;
        }
        self.change(need, |slot| *slot = TagSlot { last: Some(confirmed), refused: None });
    }

    async fn refuse(&self, need: &Need, error: Refusal) {
        let now = Instant::now();
        if error.failure.is_outage() && self.slot(need).last.is_none() {
            self.recall_of_registry(need).await;
        }
        if error.failure.is_outage() && self.slot(need).last.is_none() {
            self.ask_stand_in(need, &error).await;
        }
        let unlisted = self.as_unlisted(need, error.failure);
        if let Some(unlisted) = &unlisted {
            self.kept.put(need, unlisted).await;
        }
        let gone = error.failure == Failure::Absent && unlisted.is_none();
        if gone {
            self.kept.remove(need).await;
        }
        self.change(need, |slot| {
            if unlisted.is_some() {
                slot.last = unlisted;
            } else if gone {
                slot.last = None;
            } else if slot.last.is_some() && error.failure.is_outage() {
                tracing::warn!(
                    "{need}: the last answer is served, since it cannot be confirmed: {error}"
                );
            }
            let until = now + kept_for(need, error.failure, self.ttl);
            slot.refused = Some(Refused { error, at: Instant::now(), until });
        });
    }

    /// That a registry does not list its repositories is an answer about it, which has to serve
    /// while it is away: what names stand for depends on it. A registry that merely refuses for now
    /// is one whose list is known.
    fn as_unlisted(&self, need: &Need, failure: Failure) -> Option<Confirmed> {
        let Need::Catalog(_) = need else { return None };
        let is_listed = || matches!(self.slot(need).answer(), Some(TagAnswer::Catalog(_)));
        match failure {
            Failure::Absent => {}
            Failure::Denied if !is_listed() => {}
            _ => return None,
        }
        Some(Confirmed::now(TagAnswer::NoCatalog, self.counts_for(need)))
    }

    async fn ask_registry(self: &Arc<Self>, need: &Need) -> Result<TagAnswer, Refusal> {
        let registry = self.registries.reached(need.host())?.registry.clone();
        match need {
            Need::Tags(repo) => Ok(TagAnswer::Tags(Arc::new(registry.tags(&repo.name).await?))),
            Need::Catalog(_) => Ok(TagAnswer::Catalog(Arc::new(registry.catalog().await?))),
            Need::Binding(repo, tag) => {
                self.ask_binding(registry.as_ref(), repo, tag).await.map(TagAnswer::Binding)
            }
            Need::Platforms(repo, tag) => self.ask_platforms(repo, tag).await,
            Need::Held(_) => Ok(TagAnswer::Catalog(Arc::new(registry.held().await?))),
        }
    }

    async fn ask_binding(
        &self,
        registry: &dyn Registry,
        repo: &Repo,
        tag: &Tag,
    ) -> Result<Digest, Refusal> {
        let last = self.last_binding(repo, tag);
        if let Some(digest) = last
            && registry.resolve(&repo.name, tag).await? == Some(digest)
        {
            return Ok(digest);
        }
        let told = self.manifests.of_tag(repo, tag).await;
        let Some(last) = last else { return Ok(told?.digest) };
        match told {
            // A version of a provider stands for one release for good, also when its registry
            // lists it no longer.
            Err(e)
                if e.failure == Failure::Absent
                    && self.manifests.was_checked(repo, last).await? =>
            {
                Ok(last)
            }
            Ok(now)
                if now.is_lasting
                    && now.digest != last
                    && self.manifests.was_checked(repo, last).await? =>
            {
                Err(changed(&repo.at(Selector::Tag(tag.clone())), last, now.digest))
            }
            told => Ok(told?.digest),
        }
    }

    /// The platforms of the release for which `tag` stands: asks the registry for what is not in
    /// the store.
    // It loads another fact on the way, so that its type cannot be left to inference.
    fn ask_platforms<'a>(
        self: &'a Arc<Self>,
        repo: &'a Repo,
        tag: &'a Tag,
    ) -> Pin<Box<dyn Future<Output = Result<TagAnswer, Refusal>> + Send + 'a>> {
        Box::pin(async move {
            let digest = match self.last_binding(repo, tag) {
                Some(digest) => digest,
                None => self.bind(repo, tag, Instant::now()).await?,
            };
            match self.manifests.release(repo, digest).await?.1 {
                Release::Provider(targets) => Ok(TagAnswer::Platforms(Arc::new(
                    targets.into_iter().map(|t| t.platform).collect(),
                ))),
                Release::Module(_) => Err(Refusal::new(
                    Failure::Structure,
                    repo.at(Selector::Tag(tag.clone())),
                    "this is a module package, but the mapping takes it for a provider release",
                )),
            }
        })
    }

    fn counts_for(&self, need: &Need) -> Duration {
        match need {
            Need::Platforms(..) => FOREVER,
            _ => self.ttl,
        }
    }

    /// Asks who stands in for a registry that is out of reach. The answer is served as one that was
    /// never confirmed, and not kept for later mounts.
    async fn ask_stand_in(&self, need: &Need, error: &Refusal) {
        let joined = self.registries.get(need.host());
        let Some(stand_in) = joined.and_then(|joined| joined.registry.stand_in()) else { return };
        let answer = match need {
            Need::Tags(repo) => {
                stand_in.tags(&repo.name).await.ok().map(|tags| TagAnswer::Tags(Arc::new(tags)))
            }
            Need::Binding(repo, tag) => {
                stand_in.resolve(&repo.name, tag).await.ok().flatten().map(TagAnswer::Binding)
            }
            Need::Catalog(_) | Need::Platforms(..) | Need::Held(_) => None,
        };
        if let Some(answer) = answer {
            tracing::warn!("{need}: a mirror's answer is served, which may be old: {error}");
            let served = Confirmed { answer, wall: SystemTime::now(), fresh: None };
            self.change(need, |slot| slot.last = Some(served));
        }
    }

    /// Takes up what an earlier mount of the same sources was told. A store is asked anew, since
    /// that costs nothing.
    pub(super) async fn recall(&self, need: &Need) {
        let counts = !self.registries.get(need.host()).is_some_and(|joined| joined.has_store());
        self.take_up(need, self.kept.get(need).await, counts);
    }

    /// Takes up what a mount of the registry alone was told, where stores stand beside it that have
    /// no answer: of what a tag stands for, since a list lacks what the stores hold.
    async fn recall_of_registry(&self, need: &Need) {
        let is_beside = self
            .registries
            .get(need.host())
            .is_some_and(|joined| joined.has_store() && joined.has_registry());
        if is_beside && let Need::Binding(..) | Need::Platforms(..) = need {
            self.take_up(need, self.kept.of_registry(need).await, false);
        }
    }

    /// Takes up an answer that was kept; whether it `counts` without being asked for again, as long
    /// as it is fresh.
    fn take_up(&self, need: &Need, kept: Option<(TagAnswer, SystemTime)>, counts: bool) {
        let Some((answer, wall)) = kept else { return };
        let forgotten = *self.forgotten.lock();
        // An age that the clock denies (a time in the future) is no age that counts.
        let age = SystemTime::now().duration_since(wall).ok();
        let at = age.and_then(|age| Instant::now().checked_sub(age));
        let at = at.filter(|at| counts && forgotten.is_none_or(|forgotten| *at > forgotten));
        let fresh = at.map(|at| Freshness { at, until: at + self.counts_for(need) });
        self.change(need, |slot| {
            slot.last.get_or_insert(Confirmed { answer, wall, fresh });
        });
    }
}
