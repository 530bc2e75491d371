//! What is known of each edge: the registry's last answer and, for a while, its last refusal.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::facts::walk::Left;
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, RepoName, Tag};
use crate::tree::{Fact, Need};

/// How many bytes of edges are held in memory, about; past it those go that were used longest ago.
/// Answers stay in the store.
const BYTES_MAX: u64 = 32 << 20;
/// What an edge takes, beside the names and the sentence in it.
const SLOT_BYTES: usize = 1 << 10;
/// What a name in a list takes.
const NAME_BYTES: usize = 64;

/// How long a registry is taken for one that does not list its repositories.
const NO_CATALOG: Duration = Duration::from_secs(300);

/// A registry's answer about an edge.
#[derive(Clone, Debug)]
pub(in crate::facts) enum TagAnswer {
    Tags(Arc<Vec<Tag>>),
    Catalog(Arc<Vec<RepoName>>),
    /// The registry does not list its repositories.
    NoCatalog,
    Binding(Digest),
    Platforms(Arc<Vec<Platform>>),
}

impl TagAnswer {
    pub(in crate::facts) fn tags(&self) -> Option<Arc<Vec<Tag>>> {
        if let TagAnswer::Tags(tags) = self { Some(tags.clone()) } else { None }
    }

    pub(in crate::facts) fn catalog(&self) -> Option<Arc<Vec<RepoName>>> {
        if let TagAnswer::Catalog(names) = self { Some(names.clone()) } else { None }
    }

    pub(in crate::facts) fn binding(&self) -> Option<Digest> {
        if let TagAnswer::Binding(digest) = self { Some(*digest) } else { None }
    }

    pub(in crate::facts) fn platforms(&self) -> Option<Arc<Vec<Platform>>> {
        if let TagAnswer::Platforms(platforms) = self { Some(platforms.clone()) } else { None }
    }
}

/// For which operations an answer counts by itself: for those that began by `at`, when it came, and
/// for all until it is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freshness {
    pub(super) at: Instant,
    pub(super) until: Instant,
}

/// An answer, and when the registry confirmed it.
#[derive(Clone, Debug)]
pub(in crate::facts) struct Confirmed {
    pub(super) answer: TagAnswer,
    pub(in crate::facts) wall: SystemTime,
    /// `None` of one that serves only where none other is to be had: it came from an earlier mount,
    /// too long ago to count, or from a mirror, or was forgotten.
    pub(super) fresh: Option<Freshness>,
}

impl Confirmed {
    /// An answer that has just come, and counts for so long.
    pub(super) fn now(answer: TagAnswer, counts_for: Duration) -> Confirmed {
        let at = Instant::now();
        let fresh = Some(Freshness { at, until: at + counts_for });
        Confirmed { answer, wall: SystemTime::now(), fresh }
    }

    /// Whether its time to live is not over.
    pub(in crate::facts) fn is_fresh(&self, now: Instant) -> bool {
        self.fresh.is_some_and(|fresh| fresh.until > now)
    }

    /// Whether it counts for an operation that began at `since`.
    fn counts(&self, since: Instant, now: Instant) -> bool {
        self.is_fresh(now) || self.fresh.is_some_and(|fresh| fresh.at >= since)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) error: Refusal,
    pub(super) at: Instant,
    pub(super) until: Instant,
}

/// What is known of one edge.
#[derive(Clone, Debug, Default)]
pub(in crate::facts) struct TagSlot {
    pub(in crate::facts) last: Option<Confirmed>,
    pub(super) refused: Option<Refused>,
}

impl TagSlot {
    /// How many bytes of memory it takes, about. One that takes more than all may counts as all, so
    /// that it is kept alone: who asked for it is to find it.
    fn weight(&self) -> u64 {
        let names = match self.last.as_ref().map(|last| &last.answer) {
            Some(TagAnswer::Tags(tags)) => tags.len(),
            Some(TagAnswer::Catalog(names)) => names.len(),
            Some(TagAnswer::Platforms(platforms)) => platforms.len(),
            Some(TagAnswer::Binding(_) | TagAnswer::NoCatalog) | None => 0,
        };
        let sentence = self.refused.as_ref().map_or(0, |refused| refused.error.to_string().len());
        BYTES_MAX.min((SLOT_BYTES + names * NAME_BYTES + sentence) as u64)
    }

    /// The refusal that counts for an operation that began at `since`.
    fn refused(&self, since: Instant) -> Option<&Refused> {
        self.refused.as_ref().filter(|r| r.until > Instant::now() || r.at >= since)
    }

    /// The answer of the last time.
    pub(super) fn answer(&self) -> Option<&TagAnswer> {
        self.last.as_ref().map(|last| &last.answer)
    }

    /// Whether the last answer is that there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        match self.answer() {
            Some(TagAnswer::Tags(tags)) => tags.is_empty(),
            Some(TagAnswer::Catalog(names)) => names.is_empty(),
            _ => false,
        }
    }

    /// Whether the registry was taken for one that does not list its repositories when it was asked
    /// last.
    pub(in crate::facts) fn is_unlisted(&self) -> bool {
        matches!(self.answer(), Some(TagAnswer::NoCatalog))
    }

    /// Whether the last answer counts by itself, and does not serve because nobody confirms it.
    pub(super) fn is_confirmed(&self, since: Instant) -> bool {
        self.refused(since).is_none() && matches!(self.fact(since), Fact::Is(_))
    }

    /// How long what it says counts from `now` on.
    pub(in crate::facts) fn counts_for(&self, now: Instant) -> Duration {
        let refused = self.refused.as_ref().map(|r| r.until).filter(|until| *until > now);
        let fresh = || self.last.as_ref()?.fresh.map(|fresh| fresh.until);
        let until = refused.or_else(fresh);
        until.map(|until| until.saturating_duration_since(now)).unwrap_or_default()
    }

    /// What the slot says to an operation that began at `since`.
    pub(super) fn fact(&self, since: Instant) -> Fact<&TagAnswer, Refusal> {
        match (self.refused(since), &self.last) {
            (Some(r), last) => match (r.error.failure, last) {
                (Failure::Absent, _) => Fact::Absent,
                (Failure::Denied, _) => Fact::Denied(r.error.clone()),
                (failure, Some(last)) if failure.is_outage() => Fact::Is(&last.answer),
                _ => Fact::Failed(r.error.clone()),
            },
            (None, Some(last)) if last.counts(since, Instant::now()) => Fact::Is(&last.answer),
            _ => Fact::Unknown,
        }
    }
}

/// The slots of the edges that were used last.
pub(super) struct TagSlots(Bounded<Need, TagSlot>);

impl Default for TagSlots {
    fn default() -> Self {
        TagSlots(Bounded::weighed(usize::MAX, BYTES_MAX, TagSlot::weight))
    }
}

impl TagSlots {
    pub(super) fn get(&mut self, need: &Need) -> Option<&TagSlot> {
        self.0.get(need)
    }

    /// What is known about `need`, whose answer is of the kind that `read` takes, to an operation
    /// that began at `since` and waits no longer for what it `left`.
    pub(super) fn fact<T>(
        &mut self,
        need: &Need,
        since: Instant,
        left: &[Left],
        read: impl Fn(&TagAnswer) -> Option<T>,
    ) -> Fact<T, Refusal> {
        let slot = self.get(need);
        match slot.map_or(Fact::Unknown, |slot| slot.fact(since)) {
            Fact::Is(answer) => read(answer).map_or(Fact::Unknown, Fact::Is),
            Fact::Unknown => match left.iter().find_map(|left| left.concerns(need)) {
                None => Fact::Unknown,
                Some(error) => {
                    let last = slot.and_then(TagSlot::answer).and_then(read);
                    last.map_or_else(|| Fact::Failed(error.clone()), Fact::Is)
                }
            },
            Fact::Absent => Fact::Absent,
            Fact::Denied(e) => Fact::Denied(e),
            Fact::Failed(e) => Fact::Failed(e),
        }
    }

    /// Changes the slot of `need`.
    pub(super) fn change(&mut self, need: &Need, change: impl FnOnce(&mut TagSlot)) {
        self.0.change_or(need, TagSlot::default, change);
    }

    /// The `wanted` edges of which something is known.
    pub(super) fn needs(&self, wanted: impl Fn(&Need) -> bool) -> Vec<Need> {
        self.0.iter().map(|(need, _)| need).filter(|need| wanted(need)).cloned().collect()
    }

    /// Makes the answers of the `wanted` edges count no more.
    pub(super) fn expire(&mut self, wanted: impl Fn(&Need) -> bool) {
        self.0.change_all(|need, slot| {
            if wanted(need) {
                tracing::debug!("{need} will be asked for again");
                slot.refused = None;
                if let Some(last) = &mut slot.last {
                    last.fresh = None;
                }
            }
        });
    }
}

/// How long a refusal is kept. Whether a registry lists its repositories is a property of the
/// registry; any other absence is an answer, and counts no longer than an answer does.
pub(super) fn kept_for(need: &Need, failure: Failure, tag_ttl: Duration) -> Duration {
    match (need, failure) {
        (Need::Catalog(_), Failure::Absent | Failure::Denied) => NO_CATALOG,
        (_, Failure::Absent) => failure.kept_for().min(tag_ttl),
        _ => failure.kept_for(),
    }
}

#[cfg(test)]
mod tests;
