//! What moves, the edges: tag → digest, lists of tags, lists of repositories.
//!
//! Each edge has a slot (`slots`) with the registry's last answer and, for a while, its last
//! refusal. Answers are also kept in the store (`kept`), so that a later mount can serve them while
//! the registry is away.

mod kept;
mod load;
mod slots;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::budget::{self, Budgets};
use super::error::lost;
use super::manifests::Manifests;
use super::names::KnownNames;
use super::registries::JoinedRegistries;
use super::walk::{Awaited, Left, PATIENCE, Pending};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::name::{Reference, Repo, Selector, Tag, no_such_tag};
use crate::store::Store;
use crate::tree::{Fact, Need};
use kept::KeptTags;
use slots::TagSlots;
pub(super) use slots::{TagAnswer, TagSlot};

/// See the module.
pub struct Tags {
    registries: Arc<JoinedRegistries>,
    names: Arc<KnownNames>,
    manifests: Arc<Manifests>,
    budgets: Arc<Budgets>,
    kept: KeptTags,
    ttl: Duration,
    slots: Mutex<TagSlots>,
    flights: Flights<Need, (), Refusal>,
    /// When edges were forgotten last: what other mounts confirmed before does not count.
    forgotten: Mutex<Option<Instant>>,
    pending: Pending,
}

/// What tags are read from and kept in.
pub(super) struct TagSources {
    pub(super) store: Arc<Store>,
    pub(super) registries: Arc<JoinedRegistries>,
    pub(super) names: Arc<KnownNames>,
    pub(super) manifests: Arc<Manifests>,
    pub(super) budgets: Arc<Budgets>,
}

impl Tags {
    /// Edges count for `ttl` without being confirmed; a load goes on for `linger` without a waiter.
    pub(super) fn new(sources: TagSources, ttl: Duration, linger: Duration) -> Tags {
        let TagSources { store, registries, names, manifests, budgets } = sources;
        Tags {
            kept: KeptTags::new(store, registries.clone()),
            registries,
            names,
            manifests,
            budgets,
            ttl,
            slots: Mutex::default(),
            flights: Flights::new(linger, |_| lost()),
            forgotten: Mutex::default(),
            pending: Pending::default(),
        }
    }

    /// How long an edge counts without being confirmed.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The tags of a repository.
    ///
    /// # Errors
    /// `Absent` if the registry says that there is no such repository.
    pub async fn list(self: &Arc<Self>, repo: &Repo) -> Result<Arc<Vec<Tag>>, Refusal> {
        self.answer(Need::Tags(repo.clone()), Instant::now(), TagAnswer::tags).await
    }

    /// The digest for which `tag` stands, for an operation that began at `since`: what the registry
    /// says, or said last while it is away.
    ///
    /// # Errors
    /// `Absent` if the registry says that there is no such tag.
    pub async fn bind(
        self: &Arc<Self>,
        repo: &Repo,
        tag: &Tag,
        since: Instant,
    ) -> Result<Digest, Refusal> {
        let need = Need::Binding(repo.clone(), tag.clone());
        self.answer(need, since, TagAnswer::binding).await
    }

    /// The manifest for which a reference stands: a digest for itself, a tag as in [`Tags::bind`].
    ///
    /// # Errors
    /// `Absent`, with the tags that there are, if the registry says that there is no such tag.
    pub async fn resolve(self: &Arc<Self>, reference: &Reference) -> Result<Digest, Refusal> {
        let tag = match &reference.selector {
            Selector::Digest(digest) => return Ok(*digest),
            Selector::Tag(tag) => tag,
        };
        match self.bind(&reference.repo, tag, Instant::now()).await {
            Err(error) if error.failure == Failure::Absent => {
                Err(self.no_such_tag(reference, tag).await)
            }
            answer => answer,
        }
    }

    /// Why there is no such tag, with those that there are.
    async fn no_such_tag(self: &Arc<Self>, reference: &Reference, tag: &Tag) -> Refusal {
        match self.list(&reference.repo).await {
            Ok(tags) => Refusal::new(Failure::Absent, reference, no_such_tag(tag, &tags)),
            Err(error) if error.failure == Failure::Absent => error.about(reference),
            Err(_) => {
                Refusal::new(Failure::Absent, reference, format_args!("there is no tag {tag}"))
            }
        }
    }

    /// The answer about `need` for who waits for it, in an operation that began at `since`: what is
    /// known counts, what is not is loaded.
    async fn answer<T>(
        self: &Arc<Self>,
        need: Need,
        since: Instant,
        read: fn(&TagAnswer) -> Option<T>,
    ) -> Result<T, Refusal> {
        loop {
            match self.fact(&need, since, &[], read) {
                Fact::Is(answer) => return Ok(answer),
                Fact::Absent => return Err(absence(&need)),
                Fact::Denied(e) | Fact::Failed(e) => return Err(e),
                Fact::Unknown => self.load(need.clone()).await?,
            }
        }
    }

    /// Loads the fact that `need` names. The outcome, good or bad, then counts for every operation
    /// that began before.
    ///
    /// # Errors
    /// Only if there is no outcome, and asking again is of no use: the load was lost, as when the
    /// runtime ends, or no request is sent for who asks (`Crowded`).
    pub async fn load(self: &Arc<Self>, need: Need) -> Result<(), Refusal> {
        let (tags, wanted) = (self.clone(), need.clone());
        let load = move || {
            let (tags, wanted) = (tags.clone(), wanted.clone());
            async move {
                let _pending = tags.pending.begin(&wanted);
                tags.ask(&wanted).await
            }
        };
        budget::join(&self.flights, need, load).await
    }

    /// The same as [`Tags::load`], for who does not want to wait for this one fact for long. Time
    /// that others have waited for it counts.
    ///
    /// # Errors
    /// As of [`Tags::load`].
    pub async fn load_for_walk(self: &Arc<Self>, need: Need) -> Result<Awaited, Refusal> {
        let began = tokio::time::Instant::now();
        let load = self.load(need.clone());
        tokio::pin!(load);
        loop {
            let until = self.last_sign(&need).unwrap_or(began) + PATIENCE;
            if let Ok(loaded) = tokio::time::timeout_at(until, &mut load).await {
                return loaded.map(|()| Awaited::Loaded);
            }
            if self.last_sign(&need).unwrap_or(began) + PATIENCE <= tokio::time::Instant::now() {
                return Ok(Awaited::Left(Left::new(need)));
            }
        }
    }

    /// When a fact that is being asked for moved last, or was begun to be asked for.
    fn last_sign(&self, need: &Need) -> Option<tokio::time::Instant> {
        let registry = || self.registries.get(need.host()).map(|joined| joined.registry.clone());
        let moved = match need {
            Need::Tags(repo) => registry().and_then(|r| r.last_moved(Some(&repo.name))),
            Need::Catalog(_) => registry().and_then(|r| r.last_moved(None)),
            Need::Binding(..) | Need::Platforms(..) | Need::Held(_) => None,
        };
        let moved = moved.map(tokio::time::Instant::from_std);
        self.pending.since(need).into_iter().chain(moved).max()
    }

    /// What is known about `need`, whose answer is of the kind that `read` takes, to an operation
    /// that began at `since` and waits no longer for what it `left`.
    pub(super) fn fact<T>(
        &self,
        need: &Need,
        since: Instant,
        left: &[Left],
        read: impl Fn(&TagAnswer) -> Option<T>,
    ) -> Fact<T, Refusal> {
        self.slots.lock().fact(need, since, left, read)
    }

    /// Whether the answer about `need` counts by itself for an operation that began at `since`.
    pub(super) fn is_confirmed(&self, need: &Need, since: Instant) -> bool {
        self.slots.lock().get(need).is_some_and(|slot| slot.is_confirmed(since))
    }

    pub(super) fn slot(&self, need: &Need) -> TagSlot {
        self.slots.lock().get(need).cloned().unwrap_or_default()
    }

    /// Makes the answers of the `wanted` edges count no more, so that they are asked for again. The
    /// last answers stay as what serves during an outage.
    pub(super) fn forget(&self, wanted: impl Fn(&Need) -> bool) {
        *self.forgotten.lock() = Some(Instant::now());
        self.slots.lock().expire(wanted);
    }

    /// Forgets what the `wanted` tags, and `named`, stood for. Blocks on the disk.
    pub(super) fn accept(&self, wanted: impl Fn(&Need) -> bool, named: Option<Need>) {
        let is_binding = |need: &Need| matches!(need, Need::Binding(..)) && wanted(need);
        let mut forgotten = self.slots.lock().needs(is_binding);
        forgotten.extend(named);
        for need in forgotten {
            self.kept.remove_now(&need);
            self.change(&need, |slot| *slot = TagSlot::default());
        }
    }

    /// Forgets an answer that there is nothing: what is published next is to be seen.
    pub(super) async fn forget_if_empty(&self, need: &Need) {
        if self.slot(need).is_empty() {
            self.kept.remove(need).await;
            self.change(need, |slot| slot.last = None);
        }
    }

    /// Why `need` was not to be had just now.
    pub(super) fn refusal(&self, need: &Need) -> Option<Refusal> {
        self.slot(need).refused.map(|refused| refused.error)
    }

    /// Lets `need` be asked for again at the next use.
    pub(super) fn forget_refusal(&self, need: &Need) {
        self.change(need, |slot| slot.refused = None);
    }

    fn change(&self, need: &Need, change: impl FnOnce(&mut TagSlot)) {
        self.slots.lock().change(need, change);
    }

    /// The digest for which `tag` stood when it was asked for last.
    pub(super) fn last_binding(&self, repo: &Repo, tag: &Tag) -> Option<Digest> {
        self.slot(&Need::Binding(repo.clone(), tag.clone())).answer()?.binding()
    }

    /// The digest for which `tag` stood when this or an earlier mount asked for it last.
    pub async fn remembered_binding(&self, repo: &Repo, tag: &Tag) -> Option<Digest> {
        let need = Need::Binding(repo.clone(), tag.clone());
        if self.slot(&need).last.is_none() {
            self.recall(&need).await;
        }
        self.last_binding(repo, tag)
    }

    /// Whether a later mount of the same sources finds out from the store that `tag` stands for
    /// `digest`.
    pub async fn keeps_binding(&self, repo: &Repo, tag: &Tag, digest: Digest) -> bool {
        let kept = self.kept.get(&Need::Binding(repo.clone(), tag.clone())).await;
        kept.and_then(|(answer, _)| answer.binding()) == Some(digest)
    }

    /// Whether a later mount of the same sources finds out from the store which tags `repo` has.
    pub async fn keeps_list(&self, repo: &Repo) -> bool {
        self.kept.get(&Need::Tags(repo.clone())).await.is_some()
    }
}

/// The registry has said that there is no such thing.
fn absence(need: &Need) -> Refusal {
    match need {
        Need::Tags(repo) => {
            let rule = format_args!("there is no repository {}", repo.name);
            Refusal::new(Failure::Absent, need, rule)
        }
        Need::Binding(repo, tag) | Need::Platforms(repo, tag) => {
            Refusal::new(Failure::Absent, repo, format_args!("there is no tag {tag}"))
        }
        Need::Catalog(_) | Need::Held(_) => {
            Refusal::new(Failure::Absent, need, "there is no list of repositories")
        }
    }
}
