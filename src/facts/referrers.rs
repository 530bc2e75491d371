//! What speaks about a manifest: the list of its referrers, which is an edge, and their documents,
//! which are nodes like all others.
//!
//! A list is kept for later mounts, so that what was checked once is checked again without a
//! request. It is never taken for more than a list of names: what a referrer says is in its own
//! manifest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::blocking::blocking;
use super::content::Content;
use super::error::lost;
use super::manifests::Manifests;
use super::registries::JoinedRegistries;
use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::name::{Repo, Selector};
use crate::oci::referrer::{list_of, listed};
use crate::oci::{Descriptor, Manifest, ManifestBody};
use crate::registry::Referrers;
use crate::store::{Object, Store};

/// How many lists are kept in memory.
const LISTS_MAX: usize = 10_000;

/// How many entries a list has at most whose manifests are read along with it.
const READ_ALONG_MAX: usize = 8;

type ListKey = (Repo, Digest);

/// A list, and when it was made.
#[derive(Clone)]
struct FreshList {
    said: Arc<Referrers>,
    at: Instant,
}

/// See the module.
pub struct ReferrerFacts {
    store: Arc<Store>,
    registries: Arc<JoinedRegistries>,
    manifests: Arc<Manifests>,
    content: Arc<Content>,
    fresh: Mutex<Bounded<ListKey, FreshList>>,
    flights: Flights<ListKey, Arc<Referrers>, Refusal>,
    ttl: Duration,
}

impl ReferrerFacts {
    /// Lists count for `ttl`; a load goes on for `linger` without a waiter.
    pub(super) fn new(
        store: Arc<Store>,
        registries: Arc<JoinedRegistries>,
        manifests: Arc<Manifests>,
        content: Arc<Content>,
        ttl: Duration,
        linger: Duration,
    ) -> ReferrerFacts {
        ReferrerFacts {
            store,
            registries,
            manifests,
            content,
            fresh: Mutex::new(Bounded::counted(LISTS_MAX)),
            flights: Flights::new(linger, |_| lost()),
            ttl,
        }
    }

    /// Forgets which lists are fresh.
    pub(super) fn forget(&self) {
        self.fresh.lock().clear();
    }

    /// Forgets which lists of what speaks about `subject` are fresh.
    pub(super) fn forget_lists_of(&self, subject: Digest) {
        self.fresh.lock().retain(|(_, of), _| *of != subject);
    }

    /// What is said to speak about `subject`: as it was said within the time to live, else as the
    /// registry says now. Where not all who may know have answered, also what they said before.
    pub async fn of(self: &Arc<Self>, repo: &Repo, subject: Digest) -> Arc<Referrers> {
        let key = (repo.clone(), subject);
        if let Some(fresh) = self.fresh.lock().get(&key)
            && fresh.at.elapsed() < self.ttl
        {
            return fresh.said.clone();
        }
        let (facts, wanted) = (self.clone(), key.clone());
        let load = move || async move { Ok(Arc::new(facts.load(&wanted).await)) };
        match self.flights.join(key, load).await {
            Ok(said) => said,
            Err(e) => Arc::new(Referrers::unheard(e)),
        }
    }

    async fn load(&self, key: &ListKey) -> Referrers {
        let (repo, subject) = key;
        let mut said = match self.registries.reached(&repo.host) {
            Ok(joined) => joined.registry.referrers(&repo.name, subject).await,
            Err(e) => Referrers::unheard(e),
        };
        match &said.unheard {
            None => {
                self.keep(key, &said.entries).await;
                let fresh = FreshList { said: Arc::new(said.clone()), at: Instant::now() };
                self.fresh.lock().put(key.clone(), fresh);
            }
            Some(_) => said.add(self.kept(repo, *subject).await.unwrap_or_default()),
        }
        said
    }

    /// The list as it was said last, to this mount or an earlier one. Of a short one the manifests
    /// that the cache holds are read along, so that looking at them takes no further way to the disk.
    pub async fn kept(&self, repo: &Repo, subject: Digest) -> Option<Vec<Descriptor>> {
        let (store, manifests) = (self.store.clone(), self.manifests.clone());
        let name = self.name_of(repo, &subject);
        let read = move || {
            let list = listed(&store.edge(&name)?).ok()?;
            if list.len() <= READ_ALONG_MAX {
                manifests.recall(list.iter().map(|entry| entry.digest));
            }
            Some(list)
        };
        blocking(read).await.ok().flatten()
    }

    async fn keep(&self, (repo, subject): &ListKey, entries: &[Descriptor]) {
        let (store, name) = (self.store.clone(), self.name_of(repo, subject));
        let list = list_of(entries);
        let kept = blocking(move || store.put_edge(&name, &list));
        if let Ok(Err(e)) = kept.await {
            tracing::warn!("{repo}@{subject}: its list of referrers cannot be kept: {e}");
        }
    }

    fn name_of(&self, repo: &Repo, subject: &Digest) -> String {
        let apart = self.registries.get(&repo.host).map(|joined| joined.kept_apart().to_owned());
        format!("referrers {repo}@{subject}{}", apart.unwrap_or_default())
    }

    /// The manifest of a referrer, if its own text says that it speaks about `subject`.
    ///
    /// # Errors
    /// It cannot be had, or it is refused; `Structure` where it speaks about something else.
    pub async fn manifest(
        self: &Arc<Self>,
        repo: &Repo,
        subject: Digest,
        referrer: &Descriptor,
    ) -> Result<Arc<Manifest>, Refusal> {
        let at = || repo.at(Selector::Digest(referrer.digest));
        let manifest = self.manifests.get(repo, referrer.digest).await.map_err(named)?;
        let says = manifest.subject().map_err(|e| e.about(at()))?;
        match says {
            Some(says) if says.digest == subject => Ok(manifest),
            _ => {
                let rule = format!("it is listed as speaking about {subject}, and does not");
                Err(Refusal::new(Failure::Structure, at(), rule))
            }
        }
    }

    /// The content of one of a referrer's blobs: verified, and not vouched for by any policy.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn blob(self: &Arc<Self>, repo: &Repo, blob: &Descriptor) -> Result<Object, Refusal> {
        self.content.unvouched(repo, blob).await
    }

    /// The bytes of one of a referrer's layers: those that its manifest carries, else its blob.
    ///
    /// # Errors
    /// As of [`ReferrerFacts::blob`]; `TooLarge` over `limit`.
    pub async fn layer(
        self: &Arc<Self>,
        repo: &Repo,
        manifest: &Manifest,
        layer: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, Refusal> {
        if layer.size > limit {
            let subject = repo.at(Selector::Digest(layer.digest));
            let rule = format!("it has {} bytes; the limit is {limit}", layer.size);
            return Err(Refusal::new(Failure::TooLarge, subject, rule));
        }
        if let Some(bytes) = manifest.inline(layer) {
            return Ok(bytes);
        }
        let object = self.blob(repo, layer).await?;
        blocking(move || object.read_all()).await?
    }

    /// The manifests that speak about `subject`. What was listed and speaks about something else
    /// is left out, and told in the log.
    ///
    /// # Errors
    /// The list or a manifest cannot be had. During an outage the last list serves, and a registry
    /// that is not to be asked has none.
    pub async fn all(
        self: &Arc<Self>,
        repo: &Repo,
        subject: Digest,
    ) -> Result<Vec<Arc<Manifest>>, Refusal> {
        let said = self.of(repo, subject).await;
        if let Some(e) = &said.unheard {
            let is_known = e.failure.is_outage() && self.kept(repo, subject).await.is_some();
            if !is_known && e.failure != Failure::Offline {
                return Err(e.clone());
            }
            tracing::warn!("{repo}@{subject}: what speaks about it is told from the cache: {e}");
        }
        let mut manifests = Vec::new();
        for referrer in &said.entries {
            match self.manifest(repo, subject, referrer).await {
                Ok(manifest) if matches!(manifest.body, ManifestBody::Image(_)) => {
                    manifests.push(manifest);
                }
                Ok(manifest) => {
                    tracing::warn!("{repo}@{}: an index is no referrer", manifest.digest)
                }
                Err(e) if e.failure == Failure::Structure => tracing::warn!("{e}"),
                Err(e) => return Err(e),
            }
        }
        Ok(manifests)
    }
}

/// What a list names has to be there: it is no absence of evidence that it is not.
fn named(e: Refusal) -> Refusal {
    match e.failure {
        Failure::Absent => Refusal { failure: Failure::Integrity, ..e }
            .remedy("it is in the list of referrers; have it pushed again, or taken from the list"),
        _ => e,
    }
}
