//! Manifests, and what they say of releases. A manifest does not change: its digest names it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::blocking::blocking;
use super::budget::{self, Budgets};
use super::error::lost;
use super::fetch::Fetcher;
use super::recent_failures::RecentFailures;
use super::registries::JoinedRegistries;
use crate::artifact::{Release, Target, target_package};
use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::name::{Repo, Selector, Tag};
use crate::oci::{Descriptor, MANIFEST_MAX, Manifest};
use crate::store::{Key, Store};

/// How many manifests are kept in memory, and how many bytes they may take.
const KEPT: (usize, u64) = (512, 16 << 20);
/// What a manifest takes for each of its bytes: itself, and what was read in it.
const READ_BYTES: u64 = 3;

/// See the module.
pub struct Manifests {
    store: Arc<Store>,
    registries: Arc<JoinedRegistries>,
    fetcher: Arc<Fetcher>,
    budgets: Arc<Budgets>,
    kept: Mutex<Bounded<Digest, Arc<Manifest>>>,
    flights: Flights<(Repo, Digest), Arc<Manifest>, Refusal>,
    failures: RecentFailures<(Repo, Digest)>,
}

impl Manifests {
    /// A load goes on for `linger` without a waiter.
    pub(super) fn new(
        store: Arc<Store>,
        registries: Arc<JoinedRegistries>,
        fetcher: Arc<Fetcher>,
        budgets: Arc<Budgets>,
        linger: Duration,
    ) -> Manifests {
        let weigh = |manifest: &Arc<Manifest>| READ_BYTES * manifest.raw.len() as u64;
        Manifests {
            store,
            registries,
            fetcher,
            budgets,
            kept: Mutex::new(Bounded::weighed(KEPT.0, KEPT.1, weigh)),
            flights: Flights::new(linger, |_| lost()),
            failures: RecentFailures::default(),
        }
    }

    pub(super) fn forget_failures(&self) {
        self.failures.clear();
    }

    /// The manifest of that digest: from memory, the store, or the registry.
    ///
    /// # Errors
    /// It is not to be had, or it is refused.
    pub async fn get(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<Arc<Manifest>, Refusal> {
        if let Some(manifest) = self.known(digest) {
            return Ok(manifest);
        }
        let key = (repo.clone(), digest);
        self.failures.check(&key)?;
        let (manifests, wanted) = (self.clone(), key.clone());
        let load = move || {
            let (manifests, wanted) = (manifests.clone(), wanted.clone());
            async move {
                let outcome = manifests.load(&wanted.0, digest).await;
                manifests.failures.note(wanted, &outcome);
                outcome
            }
        };
        budget::join(&self.flights, key, load).await
    }

    async fn load(&self, repo: &Repo, digest: Digest) -> Result<Arc<Manifest>, Refusal> {
        let store = self.store.clone();
        let stored = blocking(move || match store.get(&Key::Blob(digest))? {
            Some(object) if object.len() <= MANIFEST_MAX => object.read_all().map(Some),
            _ => Ok(None),
        })
        .await?;
        // Cached bytes that are no manifest are another blob, whose digest says nothing of the
        // registry's manifests.
        let known =
            stored.ok().flatten().and_then(|raw| Manifest::parse(raw.into(), digest, None).ok());
        let manifest = match known {
            Some(manifest) => Arc::new(manifest),
            None => {
                let selector = Selector::Digest(digest);
                let fetch = self.fetcher.manifest(repo, &selector);
                self.budgets.spend(&repo.host, fetch).await?.document?
            }
        };
        self.keep(&manifest);
        Ok(manifest)
    }

    fn keep(&self, manifest: &Arc<Manifest>) {
        self.kept.lock().put(manifest.digest, manifest.clone());
    }

    /// The digest of the manifest for which the registry says that `tag` stands now.
    pub(super) async fn of_tag(&self, repo: &Repo, tag: &Tag) -> Result<Digest, Refusal> {
        let fetched = self.fetcher.manifest(repo, &Selector::Tag(tag.clone())).await?;
        if let Ok(manifest) = &fetched.document {
            self.keep(manifest);
        }
        Ok(fetched.digest)
    }

    /// The manifest of that digest, if it is in memory.
    pub fn known(&self, digest: Digest) -> Option<Arc<Manifest>> {
        self.kept.lock().get(&digest).cloned()
    }

    /// The release for which a manifest stands.
    ///
    /// # Errors
    /// As of [`Manifests::get`], or why it is no release.
    pub async fn release(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<(Arc<Manifest>, Release), Refusal> {
        let manifest = self.get(repo, digest).await?;
        let release = Release::read(&manifest)
            .map_err(|refusal| refusal.about(repo.at(Selector::Digest(digest))))?;
        Ok((manifest, release))
    }

    /// Those of a release's platforms that its sources do not hold, as far as they can say so
    /// without a request: a bundle carries an index whole, and of its platforms those that it was
    /// made for.
    pub async fn lacking(&self, repo: &Repo, targets: &[Target]) -> Vec<Digest> {
        let manifests: Vec<Digest> = targets.iter().map(|target| target.manifest.digest).collect();
        match self.registries.get(&repo.host) {
            Some(joined) => joined.registry.lacking(&repo.name, &manifests).await,
            None => Vec::new(),
        }
    }

    /// The package of one platform of a provider release: its manifest and the descriptor of its
    /// zip.
    ///
    /// # Errors
    /// As of [`Manifests::get`], or the manifest is not what the release's index says.
    pub async fn target(
        self: &Arc<Self>,
        repo: &Repo,
        target: &Target,
    ) -> Result<(Arc<Manifest>, Descriptor), Refusal> {
        let manifest =
            self.get(repo, target.manifest.digest).await.map_err(|e| match e.failure {
                // The index stands, and it is not for the registry to take back what it names.
                Failure::Absent => Refusal::new(
                    Failure::Integrity,
                    repo.at(Selector::Digest(target.manifest.digest)),
                    "the release names a manifest that its source lacks; if that is a bundle for \
                     other platforms, add this one with tofufs bundle, else have the release \
                     published again",
                ),
                _ => e,
            })?;
        checked_target(repo, target, manifest)
    }

    /// Like [`Manifests::target`], if that needs no request.
    pub fn known_target(
        &self,
        repo: &Repo,
        target: &Target,
    ) -> Option<(Arc<Manifest>, Descriptor)> {
        checked_target(repo, target, self.known(target.manifest.digest)?).ok()
    }
}

fn checked_target(
    repo: &Repo,
    target: &Target,
    manifest: Arc<Manifest>,
) -> Result<(Arc<Manifest>, Descriptor), Refusal> {
    let subject = repo.at(Selector::Digest(target.manifest.digest));
    let size = manifest.raw.len() as u64;
    if size != target.manifest.size {
        return Err(Refusal::new(
            Failure::Integrity,
            subject,
            format_args!(
                "the manifest has a size of {size} bytes; its index says {}",
                target.manifest.size
            ),
        ));
    }
    let layer =
        target_package(&manifest, &target.platform).map_err(|refusal| refusal.about(subject))?;
    Ok((manifest, layer))
}
