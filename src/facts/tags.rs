//! Edges: tag → digest, lists of tags, lists of repositories.
//!
//! Each edge has a slot with the registry's last answer and, for a while, its last refusal. Answers
//! are also kept in the store (`record`), so that a later mount can serve them while the registry
//! is away.

mod record;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

pub(super) use record::{formerly_used, remember_used};

use super::error::lost;
use super::walk::{Left, Pending};
use super::{Facts, budget};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::name::{Host, Platform, Repo, RepoName, Selector, Tag};
use crate::tree::{Fact, KnownFacts, Need, Standing};
use record::{TagRecord, name_of};

/// How many bytes of edges are held in memory, about; past it those that expired are dropped, else
/// all. Answers stay in the store.
const BYTES_MAX: usize = 32 << 20;
/// What an edge takes, beside the names and the sentence in it.
const SLOT_BYTES: usize = 1 << 10;
/// What a name in a list takes.
const NAME_BYTES: usize = 64;

/// How long a registry is taken for one that does not list its repositories.
const NO_CATALOG: Duration = Duration::from_secs(300);

/// How long an answer counts that is asked for once.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A registry's answer about an edge.
#[derive(Clone, Debug)]
pub(super) enum TagAnswer {
    Tags(Arc<Vec<Tag>>),
    Catalog(Arc<Vec<RepoName>>),
    /// The registry does not list its repositories.
    NoCatalog,
    Binding(Digest),
    Platforms(Arc<Vec<Platform>>),
}

#[derive(Clone, Debug)]
struct Confirmed {
    answer: TagAnswer,
    /// `None`: by an earlier mount, too long ago to count.
    at: Option<Instant>,
    wall: SystemTime,
    fresh_until: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Refused {
    error: Refusal,
    at: Instant,
    until: Instant,
}

#[derive(Clone, Debug, Default)]
struct TagSlot {
    last: Option<Confirmed>,
    refused: Option<Refused>,
}

impl TagSlot {
    /// How many bytes of memory it takes, about.
    fn bytes(&self) -> usize {
        let names = match self.last.as_ref().map(|last| &last.answer) {
            Some(TagAnswer::Tags(tags)) => tags.len(),
            Some(TagAnswer::Catalog(names)) => names.len(),
            Some(TagAnswer::Platforms(platforms)) => platforms.len(),
            Some(TagAnswer::Binding(_) | TagAnswer::NoCatalog) | None => 0,
        };
        let sentence = self.refused.as_ref().map_or(0, |refused| refused.error.to_string().len());
        SLOT_BYTES + names * NAME_BYTES + sentence
    }

    /// The refusal that counts for an operation that began at `since`.
    fn refused(&self, since: Instant) -> Option<&Refused> {
        self.refused.as_ref().filter(|r| r.until > Instant::now() || r.at >= since)
    }

    /// Whether the last answer counts by itself, and does not serve because nobody confirms it.
    fn is_confirmed(&self, since: Instant) -> bool {
        self.refused(since).is_none() && matches!(self.fact(since), Fact::Is(_))
    }

    /// What the slot says to an operation that began at `since`.
    fn fact(&self, since: Instant) -> Fact<&TagAnswer, Refusal> {
        let now = Instant::now();
        let is = |last: &Option<Confirmed>| {
            last.as_ref().map(|c| c.at >= Some(since) || c.fresh_until > Some(now))
        };
        match self.refused(since) {
            Some(r) => match (&r.error.failure, &self.last) {
                (Failure::Absent, _) => Fact::Absent,
                (Failure::Denied, _) => Fact::Denied(r.error.clone()),
                (failure, Some(last)) if failure.is_outage() => Fact::Is(&last.answer),
                _ => Fact::Failed(r.error.clone()),
            },
            _ => match (is(&self.last), &self.last) {
                (Some(true), Some(last)) => Fact::Is(&last.answer),
                _ => Fact::Unknown,
            },
        }
    }
}

/// The slots, and how many bytes they take.
#[derive(Default)]
struct Slots {
    by_need: HashMap<Need, TagSlot>,
    bytes: usize,
}

impl Slots {
    fn get(&self, need: &Need) -> Option<&TagSlot> {
        self.by_need.get(need)
    }

    /// Changes the slot of `need`, which stays whatever is dropped to make room for it.
    fn change(&mut self, need: &Need, change: impl FnOnce(&mut TagSlot)) {
        let before = self.by_need.remove(need);
        self.bytes -= before.as_ref().map_or(0, TagSlot::bytes);
        let mut slot = before.unwrap_or_default();
        change(&mut slot);
        let bytes = slot.bytes();
        if self.bytes + bytes > BYTES_MAX {
            let now = Instant::now();
            self.by_need.retain(|_, s| s.last.as_ref().is_some_and(|c| c.fresh_until > Some(now)));
            self.bytes = self.by_need.values().map(TagSlot::bytes).sum();
        }
        if self.bytes + bytes > BYTES_MAX {
            *self = Slots::default();
        }
        self.by_need.insert(need.clone(), slot);
        self.bytes += bytes;
    }

    /// Makes the answers of the `wanted` edges count no more.
    fn expire(&mut self, wanted: impl Fn(&Need) -> bool) {
        for (need, slot) in self.by_need.iter_mut().filter(|(need, _)| wanted(need)) {
            tracing::debug!("{need} will be asked for again");
            self.bytes -= slot.bytes();
            slot.refused = None;
            if let Some(last) = &mut slot.last {
                (last.at, last.fresh_until) = (None, None);
            }
            self.bytes += slot.bytes();
        }
    }
}

pub(super) struct TagCache {
    slots: Mutex<Slots>,
    flights: Flights<Need, (), Refusal>,
    /// When edges were forgotten last: what other mounts confirmed before does not count.
    forgotten: Mutex<Option<Instant>>,
    pub(super) pending: Pending,
}

impl TagCache {
    pub(super) fn new(linger: Duration) -> Self {
        TagCache {
            slots: Mutex::default(),
            flights: Flights::new(linger, |_| lost()),
            forgotten: Mutex::default(),
            pending: Pending::default(),
        }
    }

    pub(super) fn forget(&self, wanted: impl Fn(&Need) -> bool) {
        *self.forgotten.lock() = Some(Instant::now());
        self.slots.lock().expire(wanted);
    }

    /// Why `need` was not to be had just now.
    pub(super) fn refusal(&self, need: &Need) -> Option<Refusal> {
        self.slot(need).refused.map(|refused| refused.error)
    }

    /// Why `need` was not to be had just now; it is asked for again at the next use.
    pub(super) fn take_refusal(&self, need: &Need) -> Option<Refusal> {
        let refused = self.slot(need).refused?;
        self.change(need, |slot| slot.refused = None);
        Some(refused.error)
    }

    /// Whether the last answer is that there is nothing.
    fn is_empty(&self, need: &Need) -> bool {
        match self.slot(need).last.map(|last| last.answer) {
            Some(TagAnswer::Tags(tags)) => tags.is_empty(),
            Some(TagAnswer::Catalog(names)) => names.is_empty(),
            _ => false,
        }
    }

    /// Whether the registry was taken for one that does not list its repositories when it was asked
    /// last.
    pub(super) fn is_unlisted(&self, need: &Need) -> bool {
        matches!(self.slot(need).last, Some(Confirmed { answer: TagAnswer::NoCatalog, .. }))
    }

    fn slot(&self, need: &Need) -> TagSlot {
        self.slots.lock().get(need).cloned().unwrap_or_default()
    }

    fn change(&self, need: &Need, change: impl FnOnce(&mut TagSlot)) {
        self.slots.lock().change(need, change);
    }
}

/// The facts as they stand for one operation. See [`Facts::view`].
pub struct FactsView<'a> {
    facts: &'a Facts,
    since: Instant,
    /// See [`View::without`].
    pub(super) left: Vec<Left>,
}

impl<'a> FactsView<'a> {
    pub(super) fn new(facts: &'a Facts, since: Instant) -> Self {
        FactsView { facts, since, left: Vec::new() }
    }

    pub(super) fn facts(&self) -> &'a Facts {
        self.facts
    }

    /// The platforms of a release, where they were asked for.
    pub(super) fn known_platforms(
        &self,
        repo: &Repo,
        tag: &Tag,
    ) -> Fact<Arc<Vec<Platform>>, Refusal> {
        self.fact(&Need::Platforms(repo.clone(), tag.clone()), |answer| match answer {
            TagAnswer::Platforms(platforms) => Some(platforms.clone()),
            _ => None,
        })
    }

    /// The manifest for which `tag` stands.
    pub fn bound(&self, repo: &Repo, tag: &Tag) -> Fact<Digest, Refusal> {
        self.fact(&Need::Binding(repo.clone(), tag.clone()), |answer| match answer {
            TagAnswer::Binding(digest) => Some(*digest),
            _ => None,
        })
    }

    /// How long the registry has not confirmed an edge that is served although its time to live is
    /// over.
    pub fn stale(&self, need: &Need) -> Option<Duration> {
        let slot = self.facts.edges.slot(need);
        let last = slot.last?;
        let now = Instant::now();
        (last.fresh_until <= Some(now))
            .then(|| SystemTime::now().duration_since(last.wall).unwrap_or_default())
    }

    /// How long the answer about `need` may be kept by who asked: at most the time to live, and not
    /// longer than a refusal counts, during which the last answer is served.
    pub fn fresh_for(&self, need: &Need) -> Duration {
        let slot = self.facts.edges.slot(need);
        let now = Instant::now();
        let until = slot
            .refused
            .map(|r| r.until)
            .filter(|until| *until > now)
            .or_else(|| slot.last.and_then(|c| c.fresh_until));
        until.map(|u| u.saturating_duration_since(now)).unwrap_or_default().min(self.facts.tag_ttl)
    }

    /// What the slot of `need` says, whose answer is of the kind that `read` takes.
    fn fact<T>(&self, need: &Need, read: impl FnOnce(&TagAnswer) -> Option<T>) -> Fact<T, Refusal> {
        let slots = self.facts.edges.slots.lock();
        let slot = slots.get(need);
        match slot.map_or(Fact::Unknown, |slot| slot.fact(self.since)) {
            Fact::Is(answer) => read(answer).map_or(Fact::Unknown, Fact::Is),
            Fact::Unknown => match self.left.iter().find_map(|left| left.concerns(need)) {
                None => Fact::Unknown,
                Some(error) => {
                    let last = slot.and_then(|slot| slot.last.as_ref());
                    let last = last.and_then(|last| read(&last.answer));
                    last.map_or_else(|| Fact::Failed(error.clone()), Fact::Is)
                }
            },
            Fact::Absent => Fact::Absent,
            Fact::Denied(e) => Fact::Denied(e),
            Fact::Failed(e) => Fact::Failed(e),
        }
    }
}

impl KnownFacts for FactsView<'_> {
    type Error = Refusal;

    fn tags(&self, repo: &Repo) -> Fact<Arc<Vec<Tag>>, Refusal> {
        self.fact(&Need::Tags(repo.clone()), |answer| match answer {
            TagAnswer::Tags(tags) => Some(tags.clone()),
            _ => None,
        })
    }

    fn catalog(&self, host: &Host) -> Fact<Arc<Vec<RepoName>>, Refusal> {
        let names = |answer: &TagAnswer| match answer {
            TagAnswer::Catalog(names) => Some(Some(names.clone())),
            TagAnswer::NoCatalog => Some(None),
            _ => None,
        };
        match self.fact(&Need::Catalog(host.clone()), names) {
            Fact::Is(Some(names)) => Fact::Is(names),
            Fact::Is(None) | Fact::Absent => Fact::Absent,
            Fact::Unknown => Fact::Unknown,
            Fact::Denied(e) => Fact::Denied(e),
            Fact::Failed(e) => Fact::Failed(e),
        }
    }

    fn held(&self, host: &Host) -> Fact<Arc<Vec<RepoName>>, Refusal> {
        if !self.facts.origins.get(host).is_some_and(|origin| origin.has_store()) {
            return Fact::Is(Arc::default());
        }
        self.fact(&Need::Held(host.clone()), |answer| match answer {
            TagAnswer::Catalog(names) => Some(names.clone()),
            _ => None,
        })
    }

    fn binding(&self, repo: &Repo, tag: &Tag) -> Fact<(), Refusal> {
        self.fact(&Need::Binding(repo.clone(), tag.clone()), |_| Some(()))
    }

    fn is_confirmed(&self, need: &Need) -> bool {
        self.facts.edges.slots.lock().get(need).is_some_and(|slot| slot.is_confirmed(self.since))
    }

    fn was_bound(&self, repo: &Repo, tag: &Tag) -> bool {
        self.facts.edges.slot(&Need::Binding(repo.clone(), tag.clone())).last.is_some()
    }

    fn standing(&self, host: &Host, path: &RepoName) -> Standing {
        self.facts.standing(host, path)
    }

    fn given_below(&self, host: &Host, path: Option<&RepoName>) -> Vec<RepoName> {
        self.facts.given_below(host, path)
    }
}

impl Facts {
    /// Loads the fact that `need` names. The outcome, good or bad, is then in every [`FactsView`]
    /// of an operation that began before.
    ///
    /// # Errors
    /// Only if there is no outcome, and asking again is of no use: the load was lost, as when the
    /// runtime ends, or no request is sent for who asks (`Crowded`).
    pub async fn load(self: &Arc<Self>, need: Need) -> Result<(), Refusal> {
        let (facts, wanted) = (self.clone(), need.clone());
        let load = move || {
            let (facts, wanted) = (facts.clone(), wanted.clone());
            async move {
                let _pending = facts.edges.pending.begin(&wanted);
                facts.clone().ask(wanted.clone()).await
            }
        };
        budget::join(&self.edges.flights, need, load).await
    }

    /// Asks the registry, and keeps what it says in the slot of `need` as long as that counts.
    async fn ask(self: Arc<Self>, need: Need) -> Result<(), Refusal> {
        if self.edges.slot(&need).last.is_none() {
            self.recall(&need).await;
            // What another mount confirmed just now counts for this one.
            if matches!(self.edges.slot(&need).fact(Instant::now()), Fact::Is(_)) {
                return Ok(());
            }
        }
        let answer = match need {
            Need::Held(_) => self.ask_registry(&need).await,
            _ => self.budgets.spend(need.host(), self.ask_registry(&need)).await,
        };
        let now = Instant::now();
        match answer {
            Ok(answer) => {
                if let Need::Tags(repo) | Need::Binding(repo, _) = &need {
                    self.note_used(repo);
                }
                let fresh_until = Some(now + self.counts_for(&need));
                let confirmed =
                    Confirmed { answer, at: Some(now), wall: SystemTime::now(), fresh_until };
                if !matches!(need, Need::Held(_)) {
                    self.keep(&need, &confirmed).await;
                }
                self.edges
                    .change(&need, |slot| *slot = TagSlot { last: Some(confirmed), refused: None });
            }
            Err(error) if error.failure == Failure::Crowded => return Err(error),
            Err(error) => {
                if error.failure.is_outage() && self.edges.slot(&need).last.is_none() {
                    self.recall_of_registry(&need).await;
                }
                if error.failure.is_outage() && self.edges.slot(&need).last.is_none() {
                    self.ask_stand_in(&need, &error).await;
                }
                let unlisted = self.as_unlisted(&need, error.failure);
                if let Some(unlisted) = &unlisted {
                    self.keep(&need, unlisted).await;
                }
                let gone = error.failure == Failure::Absent && unlisted.is_none();
                if gone {
                    let (store, name) = (self.store.clone(), self.name_of(&need));
                    tokio::task::spawn_blocking(move || store.remove_edge(&name)).await.ok();
                }
                self.edges.change(&need, |slot| {
                    if unlisted.is_some() {
                        slot.last = unlisted;
                    } else if gone {
                        slot.last = None;
                    } else if slot.last.is_some() && error.failure.is_outage() {
                        tracing::warn!("{need}: the last answer is served, since it cannot be confirmed: {error}");
                    }
                    let until = now + kept_for(&need, error.failure, self.tag_ttl);
                    slot.refused = Some(Refused { error, at: Instant::now(), until });
                });
            }
        }
        Ok(())
    }

    /// Forgets an answer that there is nothing: what is published next is to be seen.
    pub(super) async fn forget_if_empty(&self, need: &Need) {
        if self.edges.is_empty(need) {
            let (store, name) = (self.store.clone(), self.name_of(need));
            tokio::task::spawn_blocking(move || store.remove_edge(&name)).await.ok();
            self.edges.change(need, |slot| slot.last = None);
        }
    }

    /// That a registry does not list its repositories is an answer about it, which has to serve
    /// while it is away: what names stand for depends on it. A registry that merely refuses for now
    /// is one whose list is known.
    fn as_unlisted(&self, need: &Need, failure: Failure) -> Option<Confirmed> {
        let Need::Catalog(_) = need else { return None };
        let is_listed = || {
            matches!(
                self.edges.slot(need).last,
                Some(Confirmed { answer: TagAnswer::Catalog(_), .. })
            )
        };
        match failure {
            Failure::Absent => {}
            Failure::Denied if !is_listed() => {}
            _ => return None,
        }
        let now = Instant::now();
        let fresh_until = Some(now + self.counts_for(need));
        Some(Confirmed {
            answer: TagAnswer::NoCatalog,
            at: Some(now),
            wall: SystemTime::now(),
            fresh_until,
        })
    }

    async fn ask_registry(self: &Arc<Self>, need: &Need) -> Result<TagAnswer, Refusal> {
        let registry = self.origin(need.host())?.registry.clone();
        match need {
            Need::Tags(repo) => Ok(TagAnswer::Tags(Arc::new(registry.tags(&repo.name).await?))),
            Need::Catalog(_) => Ok(TagAnswer::Catalog(Arc::new(registry.catalog().await?))),
            Need::Binding(repo, tag) => {
                if let Some(Confirmed { answer: TagAnswer::Binding(digest), .. }) =
                    self.edges.slot(need).last
                    && registry.resolve(&repo.name, tag).await? == Some(digest)
                {
                    return Ok(TagAnswer::Binding(digest));
                }
                let digest = self.fetch_manifest(repo, &Selector::Tag(tag.clone())).await?;
                Ok(TagAnswer::Binding(digest))
            }
            Need::Platforms(repo, tag) => self.ask_platforms(repo, tag).await,
            Need::Held(_) => Ok(TagAnswer::Catalog(Arc::new(registry.held().await?))),
        }
    }

    fn counts_for(&self, need: &Need) -> Duration {
        match need {
            Need::Platforms(..) => FOREVER,
            _ => self.tag_ttl,
        }
    }

    /// The digest for which `tag` stood when it was asked for last.
    pub(super) fn last_binding(&self, repo: &Repo, tag: &Tag) -> Option<Digest> {
        match self.edges.slot(&Need::Binding(repo.clone(), tag.clone())).last?.answer {
            TagAnswer::Binding(digest) => Some(digest),
            _ => None,
        }
    }

    /// The digest for which `tag` stood when this or an earlier mount asked for it last.
    pub async fn remembered_binding(&self, repo: &Repo, tag: &Tag) -> Option<Digest> {
        let need = Need::Binding(repo.clone(), tag.clone());
        if self.edges.slot(&need).last.is_none() {
            self.recall(&need).await;
        }
        self.last_binding(repo, tag)
    }

    /// Whether a later mount of the same sources finds out from the store that `tag` stands for
    /// `digest`.
    pub async fn keeps_binding(&self, repo: &Repo, tag: &Tag, digest: Digest) -> bool {
        let kept = self.kept(&Need::Binding(repo.clone(), tag.clone())).await;
        matches!(kept, Some(TagAnswer::Binding(kept)) if kept == digest)
    }

    /// Whether a later mount of the same sources finds out from the store which tags `repo` has.
    pub async fn keeps_tags(&self, repo: &Repo) -> bool {
        self.kept(&Need::Tags(repo.clone())).await.is_some()
    }

    /// The answer about `need` that the store keeps for later mounts.
    async fn kept(&self, need: &Need) -> Option<TagAnswer> {
        let (store, name) = (self.store.clone(), self.name_of(need));
        let bytes = tokio::task::spawn_blocking(move || store.edge(&name)).await.ok()??;
        let record = serde_json::from_slice::<TagRecord>(&bytes).ok()?;
        record.answer(need).map(|(answer, _)| answer)
    }

    /// Asks who stands in for a registry that is out of reach. The answer is served as one that was
    /// never confirmed, and not kept for later mounts.
    async fn ask_stand_in(self: &Arc<Self>, need: &Need, error: &Refusal) {
        let stand_in = self.origin(need.host()).ok().and_then(|origin| origin.registry.stand_in());
        let Some(stand_in) = stand_in else { return };
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
            let served = Confirmed { answer, at: None, wall: SystemTime::now(), fresh_until: None };
            self.edges.change(need, |slot| slot.last = Some(served));
        }
    }

    /// The name under which `need` is kept for later mounts of the same sources.
    fn name_of(&self, need: &Need) -> String {
        let origin = self.origins.get(need.host());
        let apart = origin.map(|origin| match need {
            Need::Catalog(_) => origin.lists_kept_apart(),
            _ => origin.kept_apart().to_owned(),
        });
        name_of(need) + &apart.unwrap_or_default()
    }

    /// Takes up what an earlier mount of the same sources was told.
    async fn recall(&self, need: &Need) {
        let counts = !self.origins.get(need.host()).is_some_and(|origin| origin.has_store());
        self.recall_named(need, self.name_of(need), counts).await;
    }

    /// Takes up what a mount of the registry alone was told, where stores stand beside it that have
    /// no answer: of what a tag stands for, since a list lacks what the stores hold.
    async fn recall_of_registry(&self, need: &Need) {
        let is_beside = self
            .origins
            .get(need.host())
            .is_some_and(|origin| origin.has_store() && origin.has_registry());
        if let (Need::Binding(..) | Need::Platforms(..), true) = (need, is_beside) {
            self.recall_named(need, name_of(need), false).await;
        }
    }

    /// Takes up what is kept under `name`; whether it `counts` without being asked for again, as
    /// long as it is fresh.
    async fn recall_named(&self, need: &Need, name: String, counts: bool) {
        let store = self.store.clone();
        let Ok(Some(bytes)) = tokio::task::spawn_blocking(move || store.edge(&name)).await else {
            return;
        };
        let Ok(record) = serde_json::from_slice::<TagRecord>(&bytes) else { return };
        let Some((answer, wall)) = record.answer(need) else { return };
        let now = Instant::now();
        // An age that the clock denies (a time in the future) is no age that counts.
        let forgotten = *self.edges.forgotten.lock();
        let at = SystemTime::now().duration_since(wall).ok().and_then(|age| now.checked_sub(age));
        let at = at.filter(|at| counts && Some(*at) > forgotten);
        let fresh_until = at.map(|at| at + self.counts_for(need));
        let confirmed = Confirmed { answer, at, wall, fresh_until };
        self.edges.change(need, |slot| {
            slot.last.get_or_insert(confirmed);
        });
    }

    async fn keep(&self, need: &Need, confirmed: &Confirmed) {
        let (store, name) = (self.store.clone(), self.name_of(need));
        let Ok(bytes) = serde_json::to_vec(&TagRecord::of(confirmed)) else { return };
        let kept = tokio::task::spawn_blocking(move || store.put_edge(&name, &bytes)).await;
        if let Ok(Err(e)) = kept {
            tracing::warn!("{need} cannot be kept for later mounts: {e}");
        }
    }
}

/// How long a refusal is kept. Whether a registry lists its repositories is a property of the
/// registry; any other absence is an answer, and counts no longer than an answer does.
fn kept_for(need: &Need, failure: Failure, tag_ttl: Duration) -> Duration {
    match (need, failure) {
        (Need::Catalog(_), Failure::Absent | Failure::Denied) => NO_CATALOG,
        (_, Failure::Absent) => failure.kept_for().min(tag_ttl),
        _ => failure.kept_for(),
    }
}

#[cfg(test)]
mod tests;
