//! The documents of releases, and what they say of packages. A document does not change: its digest
//! names it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::blocking::blocking;
use super::budget::{self, Budgets};
use super::error::lost;
use super::fetch::Fetcher;
use super::offers::Offers;
use super::recent_failures::RecentFailures;
use super::registries::JoinedRegistries;
use crate::artifact::{
    PackageEntry, Release, ReleaseDocument, ReleaseSums, SignatureOutcome, SignaturePolicy, Target,
    target_package,
};
use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::name::{Host, Platform, Reference, Repo, Selector, Tag, ZipName};
use crate::oci::{Descriptor, MANIFEST_MAX, Manifest};
use crate::store::{Key, Store};

/// How many manifests are kept in memory, and how many bytes they may take.
const KEPT: (usize, u64) = (512, 16 << 20);
/// What a manifest takes for each of its bytes: itself, and what was read in it.
const READ_BYTES: u64 = 3;

/// The package of one platform of a provider release.
#[derive(Clone, Debug)]
pub struct TargetPackage {
    /// Its manifest, where the release names one.
    pub manifest: Option<Arc<Manifest>>,
    /// Its zip.
    pub archive: Descriptor,
}

/// See the module.
pub struct Manifests {
    store: Arc<Store>,
    registries: Arc<JoinedRegistries>,
    fetcher: Arc<Fetcher>,
    budgets: Arc<Budgets>,
    offers: Arc<Offers>,
    policy: SignaturePolicy,
    kept: Mutex<Bounded<Digest, ReleaseDocument>>,
    flights: Flights<(Repo, Digest), ReleaseDocument, Refusal>,
    failures: RecentFailures<(Repo, Digest)>,
}

impl Manifests {
    /// A load goes on for `linger` without a waiter.
    pub(super) fn new(
        store: Arc<Store>,
        registries: Arc<JoinedRegistries>,
        fetcher: Arc<Fetcher>,
        budgets: Arc<Budgets>,
        policy: SignaturePolicy,
        linger: Duration,
    ) -> Manifests {
        let offers = Offers::new(store.clone(), registries.clone(), budgets.clone(), linger);
        Manifests {
            store,
            registries,
            fetcher,
            budgets,
            offers: Arc::new(offers),
            policy,
            kept: Mutex::new(Bounded::weighed(KEPT.0, KEPT.1, weight)),
            flights: Flights::new(linger, |_| lost()),
            failures: RecentFailures::default(),
        }
    }

    pub(super) fn forget_failures(&self) {
        self.failures.clear();
        self.offers.forget_failures();
    }

    /// The document of that digest: from memory, the store, or the registry.
    ///
    /// # Errors
    /// It is not to be had, or it is refused.
    pub async fn document(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<ReleaseDocument, Refusal> {
        if let Some(document) = self.known(digest) {
            return Ok(document);
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

    /// The manifest of that digest.
    ///
    /// # Errors
    /// As of [`Manifests::document`]; `Structure` where the document is no manifest.
    pub async fn get(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<Arc<Manifest>, Refusal> {
        let document = self.document(repo, digest).await?;
        document.manifest().cloned().ok_or_else(|| {
            let rule = "this is the SHA256SUMS of a provider registry, which has no manifests";
            Refusal::new(Failure::Structure, repo.at(Selector::Digest(digest)), rule)
        })
    }

    async fn load(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<ReleaseDocument, Refusal> {
        let document = match self.stored(repo, digest).await? {
            Some(document) => document,
            None => {
                let selector = Selector::Digest(digest);
                let fetch = self.fetcher.document(repo, &selector);
                self.budgets.spend(&repo.host, fetch).await?.document?
            }
        };
        self.keep(&document);
        Ok(document)
    }

    /// The document of that digest in the store. Cached bytes that are none are another blob, whose
    /// digest says nothing of the registry's documents; and sums count only where it is known that
    /// they were checked for this repository.
    async fn stored(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<Option<ReleaseDocument>, Refusal> {
        let has_providers =
            self.registries.get(&repo.host).is_some_and(|joined| joined.has_providers());
        let (manifests, edge) = (self.clone(), checked_edge(repo, digest));
        let read = move || {
            let raw = manifests.read_stored(digest)?;
            let checked = has_providers.then(|| manifests.store.edge(&edge)).flatten();
            Some((raw, checked))
        };
        let Some((raw, checked)) = blocking(read).await? else { return Ok(None) };
        let outcome = checked.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        match outcome {
            Some(outcome) => self.admitted(repo, digest, raw, outcome),
            None => Ok(Manifest::parse(raw.into(), digest, None)
                .ok()
                .map(|manifest| ReleaseDocument::Manifest(Arc::new(manifest)))),
        }
    }

    /// Reads manifests that the cache holds into memory. Blocks on the disk.
    pub(super) fn recall(&self, digests: impl Iterator<Item = Digest>) {
        for digest in digests.filter(|digest| self.known(*digest).is_none()) {
            let raw = self.read_stored(digest);
            let manifest = raw.and_then(|raw| Manifest::parse(raw.into(), digest, None).ok());
            if let Some(manifest) = manifest {
                self.keep(&ReleaseDocument::Manifest(Arc::new(manifest)));
            }
        }
    }

    /// The bytes in the store that have this digest, if there can be a document in them.
    fn read_stored(&self, digest: Digest) -> Option<Vec<u8>> {
        let object = self.store.get(&Key::Blob(digest)).ok()??;
        (object.len() <= MANIFEST_MAX).then(|| object.read_all().ok()).flatten()
    }

    /// Sums that were checked before, if what was found then is enough for this mount.
    fn admitted(
        &self,
        repo: &Repo,
        digest: Digest,
        raw: Vec<u8>,
        signature: SignatureOutcome,
    ) -> Result<Option<ReleaseDocument>, Refusal> {
        if !self.policy.admits(signature) {
            let rule = format!("it is {signature}, which is not enough here");
            return Err(Refusal::new(Failure::Unsigned, repo.at(Selector::Digest(digest)), rule));
        }
        let sums = ReleaseSums::parse(raw).ok().filter(|sums| sums.identity() == digest);
        Ok(sums.map(|sums| ReleaseDocument::Sums { sums: Arc::new(sums), signature }))
    }

    fn keep(&self, document: &ReleaseDocument) {
        self.kept.lock().put(document.digest(), document.clone());
    }

    /// The digest of the document for which the registry says that `tag` stands now, and whether
    /// that is one which never changes.
    pub(super) async fn of_tag(&self, repo: &Repo, tag: &Tag) -> Result<BoundDocument, Refusal> {
        let fetched = self.fetcher.document(repo, &Selector::Tag(tag.clone())).await?;
        let mut is_lasting = false;
        if let Ok(document) = &fetched.document {
            self.keep(document);
            if let ReleaseDocument::Sums { signature, .. } = document {
                is_lasting = true;
                let made = fetched.signature.clone();
                self.note_checked(repo, fetched.digest, *signature, made).await?;
            }
        }
        Ok(BoundDocument { digest: fetched.digest, is_lasting })
    }

    async fn note_checked(
        &self,
        repo: &Repo,
        digest: Digest,
        outcome: SignatureOutcome,
        signature: Option<Arc<[u8]>>,
    ) -> Result<(), Refusal> {
        if let SignatureOutcome::SignedByExpiredKey(_) = outcome {
            tracing::warn!("{repo}@{digest}: {outcome}");
        }
        let (store, edge) = (self.store.clone(), checked_edge(repo, digest));
        let beside = signature_edge(repo, digest);
        let keep = move || {
            if let Some(signature) = signature {
                store.put_edge(&beside, &signature)?;
            }
            store.put_edge(&edge, outcome.to_string().as_bytes())
        };
        if let Err(e) = blocking(keep).await? {
            tracing::warn!("{repo}@{digest} cannot be kept for later mounts: {e}");
        }
        Ok(())
    }

    /// The signature of a provider registry's sums: as it came with them, else as it comes with
    /// them now. `None` where the registry names no key that made one.
    ///
    /// # Errors
    /// It cannot be had, or it is that of other sums now.
    pub(super) async fn signature_of(
        &self,
        reference: &Reference,
        digest: Digest,
        sums: &ReleaseSums,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let repo = &reference.repo;
        let (store, edge) = (self.store.clone(), signature_edge(repo, digest));
        if let Some(kept) = blocking(move || store.edge(&edge)).await? {
            return Ok(Some(kept));
        }
        let tag = match &reference.selector {
            Selector::Tag(tag) => Some(tag.clone()),
            Selector::Digest(_) => sums.version().and_then(|version| version.tag()),
        };
        let Some(tag) = tag else { return Ok(None) };
        let selector = Selector::Tag(tag);
        let fetch = self.fetcher.document(repo, &selector);
        let fetched = self.budgets.spend(&repo.host, fetch).await?;
        if fetched.digest != digest {
            return Err(changed(reference, digest, fetched.digest));
        }
        if let Ok(ReleaseDocument::Sums { signature, .. }) = &fetched.document {
            self.note_checked(repo, digest, *signature, fetched.signature.clone()).await?;
        }
        Ok(fetched.signature.map(|signature| signature.to_vec()))
    }

    /// Whether `digest` is that of sums that were checked for `repo`, by this or an earlier mount.
    pub(super) async fn was_checked(&self, repo: &Repo, digest: Digest) -> Result<bool, Refusal> {
        let (store, edge) = (self.store.clone(), checked_edge(repo, digest));
        Ok(blocking(move || store.edge(&edge)).await?.is_some())
    }

    /// The document of that digest, if it is in memory.
    pub fn known(&self, digest: Digest) -> Option<ReleaseDocument> {
        self.kept.lock().get(&digest).cloned()
    }

    /// The release for which a document stands.
    ///
    /// # Errors
    /// As of [`Manifests::document`], or why it is no release.
    pub async fn release(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<(ReleaseDocument, Release), Refusal> {
        let document = self.document(repo, digest).await?;
        let release = document
            .release()
            .map_err(|refusal| refusal.about(repo.at(Selector::Digest(digest))))?;
        Ok((document, release))
    }

    /// The same of what is spelled as `reference`. A provider registry has no document by its
    /// digest: what the cache has lost is fetched by its version again.
    ///
    /// # Errors
    /// As of [`Manifests::release`].
    pub async fn release_of(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
    ) -> Result<(ReleaseDocument, Release), Refusal> {
        let repo = &reference.repo;
        let error = match self.release(repo, digest).await {
            Err(e) if e.failure == Failure::Absent => e,
            outcome => return outcome,
        };
        let Selector::Tag(tag) = &reference.selector else { return Err(error) };
        if !self.registries.get(&repo.host).is_some_and(|joined| joined.has_providers()) {
            return Err(error);
        }
        let now = self.budgets.spend(&repo.host, self.of_tag(repo, tag)).await?.digest;
        if now != digest {
            return Err(changed(reference, digest, now));
        }
        self.failures.clear();
        self.release(repo, digest).await
    }

    /// Those of a release's platforms that its sources do not hold, as far as they can say so
    /// without a request: a bundle carries an index whole, and of its platforms those that it was
    /// made for.
    pub async fn lacking(&self, repo: &Repo, targets: &[Target]) -> Vec<Digest> {
        let named = targets.iter().filter_map(Target::manifest);
        let manifests: Vec<Digest> = named.map(|manifest| manifest.digest).collect();
        match self.registries.get(&repo.host) {
            Some(joined) => joined.registry.lacking(&repo.name, &manifests).await,
            None => Vec::new(),
        }
    }

    /// The package of one platform of a provider release: its manifest, where it has one, and the
    /// descriptor of its zip.
    ///
    /// # Errors
    /// As of [`Manifests::document`], or the manifest is not what the release's index says.
    pub async fn target(
        self: &Arc<Self>,
        repo: &Repo,
        target: &Target,
    ) -> Result<TargetPackage, Refusal> {
        let entry = match &target.package {
            PackageEntry::Manifest(entry) => entry,
            PackageEntry::Zip { name, digest } => {
                let archive = self.offers.with_digest(repo, name, *digest).await?;
                return Ok(TargetPackage { manifest: None, archive });
            }
        };
        let manifest = self.get(repo, entry.digest).await.map_err(|e| match e.failure {
            // The index stands, and it is not for the registry to take back what it names.
            Failure::Absent => Refusal::new(
                Failure::Integrity,
                repo.at(Selector::Digest(entry.digest)),
                "the release names a manifest that its source lacks; if that is a bundle for other \
                 platforms, add this one with tofufs bundle, else have the release published again",
            ),
            _ => e,
        })?;
        checked_target(repo, &target.platform, entry, manifest)
    }

    /// Like [`Manifests::target`], if that needs no request.
    pub fn known_target(&self, repo: &Repo, target: &Target) -> Option<TargetPackage> {
        match &target.package {
            PackageEntry::Manifest(entry) => {
                let manifest = self.known(entry.digest)?.manifest()?.clone();
                checked_target(repo, &target.platform, entry, manifest).ok()
            }
            PackageEntry::Zip { name, digest } => {
                let archive = self.offers.known(repo, &name.parse().ok()?)?;
                (archive.digest == *digest).then_some(TargetPackage { manifest: None, archive })
            }
        }
    }

    /// What a provider registry says of a package whose release nobody resolved yet. Nothing of it
    /// was checked.
    ///
    /// # Errors
    /// As of all that a registry is asked for.
    pub async fn offered(&self, repo: &Repo, zip: &ZipName) -> Result<Descriptor, Refusal> {
        self.offers.of(repo, zip).await
    }

    /// Whether releases of `host` come from a provider registry.
    pub fn are_of_providers(&self, host: &Host) -> bool {
        self.registries.get(host).is_some_and(|joined| joined.is_of_providers())
    }
}

/// How many bytes of memory a document takes, about.
fn weight(document: &ReleaseDocument) -> u64 {
    match document {
        ReleaseDocument::Manifest(manifest) => READ_BYTES * manifest.raw.len() as u64,
        ReleaseDocument::Sums { sums, .. } => sums.weight(),
    }
}

/// For which document a tag stands.
pub(super) struct BoundDocument {
    pub(super) digest: Digest,
    /// Whether the tag may never stand for another one.
    pub(super) is_lasting: bool,
}

/// That a version of a provider stands for another document than before.
pub(super) fn changed(reference: &Reference, before: Digest, now: Digest) -> Refusal {
    let rule = format!(
        "its SHA256SUMS is {now} now, and was {before}: the registry has changed a release"
    );
    Refusal::new(Failure::Integrity, reference, rule).remedy(
        "ask its vendor why; `tofufs refresh --accept PATH` takes the new one for this path of a mount",
    )
}

/// The name under which the store keeps that sums were checked, and what was found.
fn checked_edge(repo: &Repo, digest: Digest) -> String {
    format!("checked {repo}@{digest}")
}

/// The name under which the store keeps the signature of sums.
fn signature_edge(repo: &Repo, digest: Digest) -> String {
    format!("signature {repo}@{digest}")
}

fn checked_target(
    repo: &Repo,
    platform: &Platform,
    entry: &Descriptor,
    manifest: Arc<Manifest>,
) -> Result<TargetPackage, Refusal> {
    let subject = repo.at(Selector::Digest(entry.digest));
    let size = manifest.raw.len() as u64;
    if size != entry.size {
        return Err(Refusal::new(
            Failure::Integrity,
            subject,
            format_args!("the manifest has a size of {size} bytes; its index says {}", entry.size),
        ));
    }
    let archive = target_package(&manifest, platform).map_err(|refusal| refusal.about(subject))?;
    Ok(TargetPackage { manifest: Some(manifest), archive })
}
