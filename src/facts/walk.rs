//! Facts for who looks at everything, as clients do that search a mirror: what hangs is left out
//! after a moment, so that it holds up nobody who came for something else. It is asked for as
//! before, and there when it comes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::{Facts, FactsView};
use crate::failure::{Failure, Refusal};
use crate::tree::Need;

/// How long a fact is waited for without a sign of it.
const PATIENCE: Duration = Duration::from_secs(4);

/// What became of a fact that was waited for.
pub enum Awaited {
    /// There is an outcome.
    Loaded,
    /// There is none yet.
    Left(Left),
}

/// A fact that is not waited for any longer.
#[derive(Clone, Debug)]
pub struct Left {
    need: Need,
    error: Refusal,
}

impl Left {
    fn new(need: Need) -> Left {
        let words = format!(
            "no answer for {} s; it is still waited for, and shown when it has come",
            PATIENCE.as_secs()
        );
        let error = Refusal::new(Failure::TimedOut, &need, words);
        Left { need, error }
    }

    /// Why `need` is not waited for either, if it would be answered by the same repository, or the
    /// same catalog.
    pub(super) fn concerns(&self, need: &Need) -> Option<&Refusal> {
        let same = match (self.need.repo(), need.repo()) {
            (Some(left), Some(repo)) => left == repo,
            _ => self.need == *need,
        };
        same.then_some(&self.error)
    }
}

/// Since when facts have been asked for that have not come yet.
#[derive(Default)]
pub(super) struct Pending(Mutex<HashMap<Need, Instant>>);

/// A fact that is being asked for; forgotten when dropped.
pub(super) struct Asked<'a> {
    pending: &'a Pending,
    need: Need,
}

impl Pending {
    pub(super) fn begin(&self, need: &Need) -> Asked<'_> {
        self.0.lock().insert(need.clone(), Instant::now());
        Asked { pending: self, need: need.clone() }
    }

    fn since(&self, need: &Need) -> Option<Instant> {
        self.0.lock().get(need).copied()
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.pending.0.lock().remove(&self.need);
    }
}

impl Facts {
    /// The same as [`Facts::load`], for who does not want to wait for this one fact for long. Time
    /// that others have waited for it counts.
    ///
    /// # Errors
    /// As of [`Facts::load`].
    pub async fn load_for_walk(self: &Arc<Self>, need: Need) -> Result<Awaited, Refusal> {
        let began = Instant::now();
        let load = self.load(need.clone());
        tokio::pin!(load);
        loop {
            let until = self.last_sign(&need).unwrap_or(began) + PATIENCE;
            if let Ok(loaded) = timeout_at(until, &mut load).await {
                return loaded.map(|()| Awaited::Loaded);
            }
            if self.last_sign(&need).unwrap_or(began) + PATIENCE <= Instant::now() {
                return Ok(Awaited::Left(Left::new(need)));
            }
        }
    }

    /// When a fact that is being asked for moved last, or was begun to be asked for.
    fn last_sign(&self, need: &Need) -> Option<Instant> {
        let moved = match need {
            Need::Tags(repo) => self.registry_of(need).and_then(|r| r.last_moved(Some(&repo.name))),
            Need::Catalog(_) => self.registry_of(need).and_then(|r| r.last_moved(None)),
            Need::Binding(..) | Need::Platforms(..) | Need::Held(_) => None,
        };
        self.edges.pending.since(need).max(moved.map(Instant::from_std))
    }

    fn registry_of(&self, need: &Need) -> Option<Arc<dyn crate::registry::Registry>> {
        Some(self.origins.get(need.host())?.registry.clone())
    }
}

impl FactsView<'_> {
    /// The same, in which what was left is not asked for, but has failed where it was not known
    /// before.
    pub fn without(mut self, left: &[Left]) -> Self {
        self.left = left.to_vec();
        self
    }
}
