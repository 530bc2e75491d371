//! Checking a store: every byte against its digest, every name against what is there, and what a
//! lock file needs of it.
//!
//! Reads the store itself, never the cache, and of a file no more than a descriptor says that there
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::bundle::{Amount, BundleProgress};
use crate::artifact::{PACKAGE_DIGEST_ANNOTATION, Release, Target, target_package};
use crate::digest::{Digest, Hasher};
use crate::facts::blocking;
use crate::failure::Refusal;
use crate::lockfile::{LockFile, PackageHash, ProviderLock};
use crate::mapping::Mapping;
use crate::name::{Platform, ProviderAddr, Reference, Repo, Selector, Tag};
use crate::oci::{Descriptor, MANIFEST_MAX, Manifest, ManifestBody};
use crate::registry::{BlobSink, HostStore, Registry, SinkError};

/// The most bytes that are read of a file that no manifest names, as one that was cut off may leave
/// behind.
const UNNAMED_MAX: u64 = 4 << 30;

/// Something that is wrong, and the rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct VerifyFinding {
    /// A reference, or a provider.
    pub what: String,
    /// What is wrong with it.
    pub rule: String,
}

/// What was found in a store.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct VerifiedStore {
    /// Repositories.
    pub repositories: usize,
    /// Manifests and blobs that were read.
    pub checked: Amount,
    /// Damaged or missing; sorted.
    pub bad: Vec<VerifyFinding>,
    /// Releases of which some platforms are left out, with these; sorted.
    pub partial: Vec<VerifyFinding>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// What was found to be sound, with its length.
#[derive(Default, Debug)]
pub struct Sound(BTreeMap<Repo, BTreeMap<Digest, u64>>);

/// The largest size that any descriptor of a repository gives to each digest.
type DescriptorSizes = BTreeMap<Digest, u64>;

/// A store that is being checked.
pub struct Verification {
    store: Arc<dyn HostStore>,
    found: VerifiedStore,
    sound: Sound,
}

impl Verification {
    /// Checks every byte of `store` that a digest names.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub async fn of(
        store: Arc<dyn HostStore>,
        progress: BundleProgress<'_>,
    ) -> Result<Verification, Refusal> {
        let mut all = Vec::new();
        for host in on_disk(&store, |store| store.hosts()).await? {
            let registry = store.clone().registry(&host);
            let names = registry.catalog().await?;
            all.extend(
                names.into_iter().map(|name| (Repo { host: host.clone(), name }, registry.clone())),
            );
        }
        let mut this =
            Verification { store, found: VerifiedStore::default(), sound: Sound::default() };
        let mut blobs = Vec::new();
        for (repo, registry) in &all {
            let of = repo.clone();
            match on_disk(&this.store, move |store| store.blobs(&of)).await {
                Ok(listed) => {
                    let sizes = this.sizes(repo, registry.as_ref()).await;
                    let limited = listed.into_iter().map(|(digest, size)| {
                        (repo, registry, digest, size, sizes.get(&digest).copied())
                    });
                    blobs.extend(limited);
                }
                Err(e) => this.bad(repo, e),
            }
        }
        let read = blobs.iter().filter(|(_, _, _, size, limit)| *size <= most(*limit));
        let total = read.map(|(_, _, _, size, _)| size).sum();
        for (repo, registry, digest, size, limit) in blobs {
            if size > most(limit) {
                this.oversized(&repo.at(Selector::Digest(digest)), size, limit);
            } else {
                this.check_blob(repo, registry.as_ref(), digest, size).await;
            }
            if progress(this.found.checked.bytes, total) == ControlFlow::Break(()) {
                this.found.stopped = true;
                return Ok(this);
            }
        }
        if let Err(e) = on_disk(&this.store, |store| store.carried()).await {
            this.bad("what it says of its providers", e);
        }
        for (repo, registry) in &all {
            this.found.repositories += 1;
            this.check_names(repo, registry.as_ref()).await;
        }
        Ok(this)
    }

    /// What was found.
    pub fn found(mut self) -> VerifiedStore {
        for list in [&mut self.found.bad, &mut self.found.partial] {
            list.sort();
            list.dedup();
        }
        self.found
    }

    fn bad(&mut self, what: impl std::fmt::Display, rule: impl std::fmt::Display) {
        self.found.bad.push(VerifyFinding { what: what.to_string(), rule: rule.to_string() });
    }

    /// A file that is longer than it may be: nothing of it is read.
    fn oversized(&mut self, subject: &Reference, size: u64, limit: Option<u64>) {
        self.found.checked.objects += 1;
        match limit {
            Some(limit) => {
                let rule = format_args!("the file has {size} bytes; its descriptor says {limit}");
                self.bad(subject, rule)
            }
            None => self.bad(
                subject,
                format_args!(
                    "the file has {size} bytes, more than {UNNAMED_MAX}, and nothing names it; \
                     remove it"
                ),
            ),
        }
    }

    /// The sizes that the repository's manifests name. What cannot be read is told when names are
    /// checked.
    async fn sizes(&self, repo: &Repo, registry: &dyn Registry) -> DescriptorSizes {
        let mut sizes = DescriptorSizes::new();
        let of = repo.clone();
        let mut pending =
            on_disk(&self.store, move |store| store.entries(&of)).await.unwrap_or_default();
        let mut seen = BTreeSet::new();
        while let Some(entry) = pending.pop() {
            note(&mut sizes, &entry, MANIFEST_MAX);
            if !seen.insert(entry.digest) {
                continue;
            }
            let Ok(manifest) = read(registry, repo, entry.digest).await else { continue };
            match &manifest.body {
                ManifestBody::Index(children) => pending.extend(children.iter().cloned()),
                ManifestBody::Image(_) => {
                    let blobs = manifest.blobs().unwrap_or_default();
                    blobs.iter().for_each(|blob| note(&mut sizes, blob, u64::MAX));
                }
            }
        }
        sizes
    }

    async fn check_blob(
        &mut self,
        repo: &Repo,
        registry: &dyn Registry,
        digest: Digest,
        size: u64,
    ) {
        let mut hashing =
            Hashing { hasher: Box::new(Hasher::new(digest.algorithm())), position: 0 };
        let outcome =
            registry.blob(&repo.name, &Descriptor::bare(digest, size), &mut hashing).await;
        self.found.checked.objects += 1;
        self.found.checked.bytes += size;
        let subject = repo.at(Selector::Digest(digest));
        match outcome {
            Err(e) => self.bad(subject, e),
            Ok(()) => {
                let got = hashing.hasher.finish();
                if got == digest {
                    self.sound.0.entry(repo.clone()).or_default().insert(digest, size);
                } else {
                    self.bad(subject, format_args!("damaged: its bytes have the digest {got}"));
                }
            }
        }
    }

    /// Whether all that the repository's manifests name is there.
    async fn check_names(&mut self, repo: &Repo, registry: &dyn Registry) {
        let of = repo.clone();
        let entries = match on_disk(&self.store, move |store| store.entries(&of)).await {
            Ok(entries) => entries,
            Err(e) => return self.bad(repo, e),
        };
        // Says which tags stand for two manifests.
        for tag in entries.iter().filter_map(crate::oci::layout::tag_of).collect::<BTreeSet<Tag>>()
        {
            if let Err(e) = registry.resolve(&repo.name, &tag).await {
                self.bad(repo.at(Selector::Tag(tag)), e);
            }
        }
        let mut seen = BTreeSet::new();
        let mut pending: Vec<(String, Descriptor)> =
            entries.into_iter().map(|e| (shown(repo, &e), e)).collect();
        while let Some((from, entry)) = pending.pop() {
            if !seen.insert(entry.digest) {
                continue;
            }
            let Some(manifest) = self.manifest(repo, registry, &from, entry.digest).await else {
                continue;
            };
            if manifest.raw.len() as u64 != entry.size {
                let rule = format!(
                    "{} has {} bytes; {} are named",
                    entry.digest,
                    manifest.raw.len(),
                    entry.size
                );
                self.bad(&from, rule);
            }
            let below = self.check_named(repo, &from, &manifest);
            pending.extend(below.into_iter().map(|child| (from.clone(), child)));
        }
    }

    /// Checks what a manifest names; the manifests of it that are carried.
    fn check_named(&mut self, repo: &Repo, from: &str, manifest: &Manifest) -> Vec<Descriptor> {
        match &manifest.body {
            ManifestBody::Index(children) => {
                let (there, missing): (Vec<_>, Vec<_>) =
                    children.iter().cloned().partition(|child| self.is_there(repo, &child.digest));
                if !missing.is_empty() {
                    let missing: Vec<_> = missing.iter().map(part).collect();
                    let rule = format!("carried without {}", missing.join(", "));
                    self.found.partial.push(VerifyFinding { what: from.to_owned(), rule });
                }
                return there;
            }
            ManifestBody::Image(_) => match manifest.blobs() {
                Err(e) => self.bad(from, e),
                Ok(blobs) => {
                    let missing = blobs.into_iter().filter(|blob| !self.is_whole(repo, blob));
                    for blob in missing.collect::<Vec<_>>() {
                        self.bad(from, format_args!("{} is missing or damaged", blob.digest));
                    }
                }
            },
        }
        Vec::new()
    }

    async fn manifest(
        &mut self,
        repo: &Repo,
        registry: &dyn Registry,
        from: &str,
        digest: Digest,
    ) -> Option<Manifest> {
        match read(registry, repo, digest).await {
            Ok(manifest) => Some(manifest),
            Err(rule) => {
                self.bad(from, rule);
                None
            }
        }
    }

    fn is_there(&self, repo: &Repo, digest: &Digest) -> bool {
        self.sound.0.get(repo).is_some_and(|sound| sound.contains_key(digest))
    }

    /// Whether a blob is there, and of the size that its descriptor says.
    fn is_whole(&self, repo: &Repo, blob: &Descriptor) -> bool {
        self.sound.0.get(repo).and_then(|sound| sound.get(&blob.digest)) == Some(&blob.size)
    }

    /// What the store lacks of what `lock_file` holds: of `platforms`, or of all whose packages the
    /// file has hashes of.
    pub async fn lacks(
        &self,
        lock_file: &LockFile,
        mapping: &Mapping,
        platforms: &[Platform],
    ) -> Vec<VerifyFinding> {
        let mut lacking = Vec::new();
        for (address, lock) in lock_file.locks() {
            let rules = self.lacks_of(address, lock, mapping, platforms).await;
            let what = format!("{address} {}", lock.version);
            lacking
                .extend(rules.into_iter().map(|rule| VerifyFinding { what: what.clone(), rule }));
        }
        lacking
    }

    async fn lacks_of(
        &self,
        address: &ProviderAddr,
        lock: &ProviderLock,
        mapping: &Mapping,
        platforms: &[Platform],
    ) -> Vec<String> {
        let repos = match mapping.repos(address) {
            Err(e) => return vec![e.to_string()],
            Ok(repos) if repos.is_empty() => {
                return vec![
                    "no rule maps this provider to a repository; give --oci-mirror".to_owned(),
                ];
            }
            Ok(repos) => repos,
        };
        let Some(tag) = lock.version.tag() else {
            return vec!["the version is too long for a tag".to_owned()];
        };
        for repo in &repos {
            let registry = self.store.clone().registry(&repo.host);
            let Ok(Some(digest)) = registry.resolve(&repo.name, &tag).await else { continue };
            return match read(registry.as_ref(), repo, digest).await.map(|m| Release::read(&m)) {
                Ok(Ok(Release::Provider(targets))) => {
                    self.lacks_of_release(registry.as_ref(), repo, &targets, lock, platforms).await
                }
                Ok(Ok(Release::Module(_))) => {
                    vec!["it is a module, no provider release".to_owned()]
                }
                Ok(Err(e)) => vec![e.to_string()],
                Err(e) => vec![e],
            };
        }
        let shown: Vec<_> =
            repos.iter().map(|repo| repo.at(Selector::Tag(tag.clone())).to_string()).collect();
        vec![format!("{} is not there", shown.join(" or "))]
    }

    async fn lacks_of_release(
        &self,
        registry: &dyn Registry,
        repo: &Repo,
        targets: &[Target],
        lock: &ProviderLock,
        platforms: &[Platform],
    ) -> Vec<String> {
        let named =
            |platform: &&Platform| !targets.iter().any(|target| target.platform == **platform);
        let mut lacking: Vec<_> = platforms
            .iter()
            .filter(named)
            .map(|p| format!("the release has no package for {p}"))
            .collect();
        let mut unmatched: BTreeSet<_> =
            lock.hashes.iter().filter(|hash| hash.is("zh")).cloned().collect();
        let has_zh = !unmatched.is_empty();
        let mut unknown = Vec::new();
        for target in targets {
            let zip = self.zip_of(registry, repo, target).await;
            let annotations = target.manifest().map(|manifest| &manifest.annotations);
            let annotated = annotations
                .and_then(|told| told.get(PACKAGE_DIGEST_ANNOTATION))
                .and_then(|digest| digest.parse().ok());
            let hash = zip
                .as_ref()
                .map(|zip| zip.digest)
                .or(annotated)
                .map(|digest| PackageHash::of_zip(&digest.hex()));
            let is_locked = hash.as_ref().map(|hash| !has_zh || unmatched.remove(hash));
            let platform = &target.platform;
            match (platforms.is_empty(), is_locked) {
                (false, _) if !platforms.contains(platform) => continue,
                // Packages whose hashes the file does not hold are not asked of the store.
                (true, Some(false)) => continue,
                (false, Some(false)) => {
                    lacking.push(format!("the lock file does not hold the package for {platform}"))
                }
                (true, None) if has_zh => {
                    unknown.push(platform.to_string());
                    continue;
                }
                _ => {}
            }
            if !zip.is_some_and(|zip| self.is_whole(repo, &zip)) {
                lacking.push(format!("the package for {platform} is not carried, or damaged"));
            }
        }
        // Of a platform whose manifest is not carried the hash is not known, but how many are
        // missing is.
        if !unmatched.is_empty() && !unknown.is_empty() {
            let (count, among) = (unmatched.len(), unknown.join(", "));
            lacking.push(format!(
                "{count} packages that the lock file holds are not carried, among those for {among}"
            ));
        }
        lacking
    }

    async fn zip_of(
        &self,
        registry: &dyn Registry,
        repo: &Repo,
        target: &Target,
    ) -> Option<Descriptor> {
        let manifest = read(registry, repo, target.manifest()?.digest).await.ok()?;
        target_package(&manifest, &target.platform).ok()
    }
}

/// The most bytes that are read of a file whose largest descriptor says `limit`.
fn most(limit: Option<u64>) -> u64 {
    limit.unwrap_or(UNNAMED_MAX)
}

/// Notes the size that a descriptor says, as far as `max`.
fn note(sizes: &mut DescriptorSizes, entry: &Descriptor, max: u64) {
    let size = sizes.entry(entry.digest).or_default();
    *size = (*size).max(entry.size.min(max));
}

/// A manifest, or why there is none.
async fn read(registry: &dyn Registry, repo: &Repo, digest: Digest) -> Result<Manifest, String> {
    let raw = registry
        .manifest(&repo.name, &Selector::Digest(digest))
        .await
        .map_err(|e| e.to_string())?;
    Manifest::parse(raw.bytes, digest, None).map_err(|e| format!("{digest}: {e}"))
}

async fn on_disk<T: Send + 'static>(
    store: &Arc<dyn HostStore>,
    work: impl FnOnce(&dyn HostStore) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let store = store.clone();
    blocking(move || work(store.as_ref())).await?
}

/// How an entry of `index.json` is told: by its tag, else by its digest.
fn shown(repo: &Repo, entry: &Descriptor) -> String {
    let tag = crate::oci::layout::tag_of(entry).map(Selector::Tag);
    repo.at(tag.unwrap_or(Selector::Digest(entry.digest))).to_string()
}

/// How an entry of an index is told: by its platform, else by its digest.
fn part(entry: &Descriptor) -> String {
    match &entry.platform {
        Some(platform) => format!("{}_{}", platform.os, platform.architecture),
        None => entry.digest.to_string(),
    }
}

/// Hashes what comes.
struct Hashing {
    hasher: Box<Hasher>,
    position: u64,
}

#[async_trait]
impl BlobSink for Hashing {
    fn position(&self) -> u64 {
        self.position
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        self.hasher.update(&chunk);
        self.position += chunk.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        // Of the other algorithm's hasher nothing is known here: a store never asks for it.
        Err(SinkError)
    }
}
