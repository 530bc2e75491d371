//! What is listed where only what policies admit is to be: each version is looked at once, and what
//! is not known is listed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, StreamExt};

use super::Gate;
use crate::artifact::{Release, Target};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{Repo, Selector, Tag};
use crate::trust::{Asked, Policies};

/// How many versions are looked at at once.
const AT_ONCE: usize = 8;
/// How many are remembered.
pub(super) const LISTED_MAX: usize = 10_000;

/// Tags that are not listed.
pub type HiddenTags = HashSet<(Repo, Tag)>;

/// A version, as what it is known, and the state of the policies.
pub(super) type ListedKey = (Repo, Tag, Digest, u64);

impl Gate {
    /// Whether what policies refuse is not listed.
    pub fn hides(&self) -> bool {
        self.lists_signed && self.has_policies()
    }

    /// Those of `tags` that are not listed. Of a provider one of the `wanted` platforms has to be
    /// admitted.
    pub async fn hidden(
        self: &Arc<Self>,
        repo: &Repo,
        tags: &[Tag],
        wanted: &(dyn Fn(&Target) -> bool + Sync),
    ) -> HiddenTags {
        if !self.hides() {
            return HiddenTags::default();
        }
        let looks = tags.iter().map(|tag| async move {
            let is_hidden = self.is_hidden(repo, tag, wanted).await;
            is_hidden.then(|| (repo.clone(), tag.clone()))
        });
        stream::iter(looks.collect::<Vec<_>>())
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    async fn is_hidden(
        self: &Arc<Self>,
        repo: &Repo,
        tag: &Tag,
        wanted: &(dyn Fn(&Target) -> bool + Sync),
    ) -> bool {
        let (policies, generation) = self.policies.read().clone();
        let digest = match self.tags.remembered_binding(repo, tag).await {
            Some(digest) => digest,
            None => match self.tags.bind(repo, tag, Instant::now()).await {
                Ok(digest) => digest,
                Err(_) => return false,
            },
        };
        let key = (repo.clone(), tag.clone(), digest, generation);
        if let Some(is_hidden) = self.listed.lock().get(&key) {
            return *is_hidden;
        }
        let asked = Asked::new(&repo.at(Selector::Tag(tag.clone())), digest);
        match self.is_refused(asked, &policies, wanted).await {
            Ok(is_refused) => {
                self.listed.lock().put(key, is_refused);
                is_refused
            }
            Err(e) => {
                tracing::debug!("{repo}:{tag} is listed, since nothing is known of it: {e}");
                false
            }
        }
    }

    /// Whether all that could be opened of a release is refused, by what is kept of earlier looks
    /// where something is.
    async fn is_refused(
        self: &Arc<Self>,
        asked: Asked,
        policies: &Policies,
        wanted: &(dyn Fn(&Target) -> bool + Sync),
    ) -> Result<bool, Refusal> {
        let mut all = vec![asked.clone()];
        if policies.ask_vendors(&asked.repo) {
            match self.manifests.release_of(&asked.reference(), asked.digest).await {
                Ok((_, Release::Provider(targets))) => {
                    let platforms = targets.into_iter().filter(wanted).map(|t| Some(t.platform));
                    all = platforms.map(|platform| Asked { platform, ..asked.clone() }).collect();
                }
                Ok((_, Release::Module(_))) => {}
                Err(e) if e.failure == Failure::Structure => {}
                Err(e) => return Err(e),
            }
        }
        for asked in &all {
            if self.look(asked, policies, true).await?.is_ok() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
