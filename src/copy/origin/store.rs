//! A provider registry as a store, for commands that carry releases: a version is a tag, and its
//! release is made when it is asked for, as `mirror` makes it. What was made lives as long as the
//! value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::ProviderOrigin;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::lockfile::PackageHash;
use crate::mapping::{Carried, Mapping, MappingError, MappingRule};
use crate::name::{Host, Platform, ProviderAddr, Repo, RepoName, Selector, Tag, Version};
use crate::oci::{Descriptor, Manifest};
use crate::provider_registry::{ProviderRegistry, ReleaseSums, SignaturePolicy, VerifiedRelease};
use crate::registry::{
    BlobError, BlobSink, BlobSource as _, DocumentKind, HostStore, RawManifest, Referrers, Registry,
};
use crate::stage::plan::ReleasePlan;
use crate::stage::{PushBlob, Workshop};
use crate::store::Store;

/// Releases that are made at once, each with several packages.
const AT_ONCE: usize = 2;
/// What a sink is given at once.
const PIECE: usize = 1 << 20;

/// How releases are made.
pub struct OriginOptions {
    /// What is asked of signatures.
    pub policy: SignaturePolicy,
    /// Of these platforms; of all that a release has if there is none.
    pub platforms: BTreeSet<Platform>,
    /// Where packages lie meanwhile.
    pub workshop: Arc<Workshop>,
    /// Where they may lie already.
    pub cache: Arc<Store>,
    /// Is told of a release before its packages are fetched.
    pub told: Box<dyn Fn(&VerifiedRelease) + Send + Sync>,
}

/// See the module.
pub struct OriginStore {
    registry: ProviderRegistry,
    options: OriginOptions,
    places: Semaphore,
    made: Mutex<BTreeMap<(RepoName, Tag), MadeOnce>>,
}

/// A release that is made by whoever asks first.
type MadeOnce = Arc<OnceCell<MadeRelease>>;

/// A release as it was made.
struct MadeRelease {
    index: Manifest,
    sums: ReleaseSums,
    plan: ReleasePlan,
}

impl MadeRelease {
    /// All manifests, the release's own first.
    fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        [&self.index].into_iter().chain(self.plan.manifests())
    }

    fn blob(&self, digest: Digest) -> Option<&PushBlob> {
        self.plan.blobs.iter().find(|blob| blob.descriptor.digest == digest)
    }
}

impl OriginStore {
    /// The releases of `registry`. Connects to nothing.
    pub fn new(registry: ProviderRegistry, options: OriginOptions) -> OriginStore {
        let places = Semaphore::new(AT_ONCE);
        OriginStore { registry, options, places, made: Mutex::default() }
    }

    /// The rule by which the host's providers stand for themselves.
    ///
    /// # Errors
    /// The host's name is no part of a pattern.
    pub fn rule(host: &Host) -> Result<MappingRule, MappingError> {
        let template = format!("{host}/${{namespace}}/${{type}}");
        MappingRule::new(&template, &[format!("{host}/*/*")], &[])
    }

    /// `zh:` of every line of a release's `SHA256SUMS`, as the clients lock them.
    ///
    /// # Errors
    /// The release cannot be made.
    pub async fn zip_hashes(
        &self,
        repo: &RepoName,
        tag: &Tag,
    ) -> Result<BTreeSet<PackageHash>, Refusal> {
        let made = self.release(repo, tag).await?;
        let made = made.get().ok_or_else(|| Refusal::lost(self.registry.host()))?;
        Ok(made.sums.all().map(|digest| PackageHash::of_zip(&digest.hex())).collect())
    }

    fn origin(&self, repo: &RepoName) -> Result<ProviderOrigin<'_>, Refusal> {
        let host = self.registry.host();
        let parts = repo.as_str().split_once('/');
        let provider =
            parts.and_then(|(namespace, kind)| ProviderAddr::new(host.clone(), namespace, kind));
        let provider = provider.ok_or_else(|| {
            let rule = format!("{repo} is no NAMESPACE/TYPE, as providers have");
            Refusal::new(Failure::Absent, host, rule)
        })?;
        Ok(ProviderOrigin {
            provider,
            registry: &self.registry,
            policy: self.options.policy,
            workshop: Arc::clone(&self.options.workshop),
            cache: Some(Arc::clone(&self.options.cache)),
        })
    }

    /// The release, made once however many ask for it. A failure is not kept.
    async fn release(&self, repo: &RepoName, tag: &Tag) -> Result<MadeOnce, Refusal> {
        let cell = Arc::clone(self.made.lock().entry((repo.clone(), tag.clone())).or_default());
        cell.get_or_try_init(|| self.make(repo, tag)).await?;
        Ok(cell)
    }

    async fn make(&self, repo: &RepoName, tag: &Tag) -> Result<MadeRelease, Refusal> {
        let origin = self.origin(repo)?;
        let place = self.places.acquire().await;
        let _place = place.map_err(|_| Refusal::lost(&origin.provider))?;
        let versions = self.registry.versions(&origin.provider).await?;
        let offered = Version::of_tag(tag)
            .and_then(|version| versions.into_iter().find(|offered| offered.version == version));
        let offered = offered.ok_or_else(|| {
            let rule = format!("{} has no such version", self.registry.host());
            Refusal::new(Failure::Absent, format!("{} {tag}", origin.provider), rule)
        })?;
        let wanted = &self.options.platforms;
        let platforms = if wanted.is_empty() { &offered.platforms } else { wanted };
        let absent = platforms.difference(&offered.platforms).next();
        let Some(first) = platforms.first().filter(|_| absent.is_none()) else {
            let all: Vec<String> = offered.platforms.iter().map(Platform::to_string).collect();
            let wanted = absent.map_or("any platform".to_owned(), Platform::to_string);
            let rule = format!("it has no package for {wanted}; it has {}", all.join(", "));
            let subject = format!("{} {}", origin.provider, offered.version);
            return Err(Refusal::new(Failure::Structure, subject, rule)
                .remedy("name platforms that it has by --platform"));
        };
        let release = origin.release(&offered.version, first).await?;
        (self.options.told)(&release);
        let platforms: Vec<Platform> = platforms.iter().cloned().collect();
        let repo = Repo { host: self.registry.host().clone(), name: repo.clone() };
        let plan = origin.plan(&release, &platforms, &repo, tag).await?;
        Ok(MadeRelease { index: plan.release()?, sums: release.sums, plan })
    }

    /// What the first of the repository's releases that has it says.
    fn found<T>(&self, repo: &RepoName, look: impl Fn(&MadeRelease) -> Option<T>) -> Option<T> {
        let made = self.made.lock();
        let of_repo = made.iter().filter(|((of, _), _)| of == repo);
        of_repo.filter_map(|(_, cell)| cell.get()).find_map(look)
    }
}

fn raw(manifest: &Manifest) -> RawManifest {
    RawManifest {
        bytes: manifest.raw.clone(),
        content_type: Some(manifest.media_type.to_owned()),
        claimed: Some(manifest.digest),
        kind: DocumentKind::Manifest,
    }
}

#[async_trait]
impl Registry for OriginStore {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        let origin = self.origin(repo)?;
        let versions = self.registry.versions(&origin.provider).await?;
        let tags = versions.iter().filter_map(|offered| offered.version.tag());
        Ok(tags.collect::<BTreeSet<Tag>>().into_iter().collect())
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        let rule = "a provider registry does not list its providers";
        Err(Refusal::new(Failure::Absent, self.registry.host(), rule))
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        let made = self.release(repo, tag).await?;
        Ok(made.get().map(|made| made.index.digest))
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        let found = match selector {
            Selector::Tag(tag) => self.release(repo, tag).await?.get().map(|made| raw(&made.index)),
            Selector::Digest(digest) => self.found(repo, |made| {
                made.manifests().find(|manifest| manifest.digest == *digest).map(raw)
            }),
        };
        found.ok_or_else(|| {
            let rule = "a provider registry has releases by their versions alone";
            let repo = Repo { host: self.registry.host().clone(), name: repo.clone() };
            Refusal::new(Failure::Absent, repo.at(selector.clone()), rule)
        })
    }

    /// Nothing speaks about what was made here of a provider registry's answers.
    async fn referrers(&self, _: &RepoName, _: &Digest) -> Referrers {
        Referrers::default()
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let found = self.found(repo, |made| made.blob(blob.digest).cloned());
        let Some(found) = found.filter(|found| found.descriptor.size == blob.size) else {
            let rule = "no release that was made of it has this blob";
            let repo = Repo { host: self.registry.host().clone(), name: repo.clone() };
            let subject = repo.at(Selector::Digest(blob.digest));
            return Err(Refusal::new(Failure::Integrity, subject, rule).into());
        };
        while sink.position() < blob.size {
            let read = found.read_at(sink.position(), PIECE).await;
            let piece: Bytes = read.map_err(|e| Refusal::io(self.options.workshop.name(), e))?;
            if piece.is_empty() {
                return Err(Refusal::lost(self.options.workshop.name()).into());
            }
            sink.write(piece).await?;
        }
        Ok(())
    }
}

impl HostStore for OriginStore {
    fn hosts(&self) -> Result<Vec<Host>, Refusal> {
        Ok(vec![self.registry.host().clone()])
    }

    fn holds(&self, host: &Host) -> bool {
        self.registry.host() == host
    }

    fn entries(&self, repo: &Repo) -> Result<Vec<Descriptor>, Refusal> {
        let made = self.made.lock();
        let of_repo = made.iter().filter(|((name, _), _)| *name == repo.name);
        Ok(of_repo.filter_map(|(_, cell)| cell.get()).map(|m| m.index.descriptor()).collect())
    }

    fn blobs(&self, repo: &Repo) -> Result<Vec<(Digest, u64)>, Refusal> {
        let made = self.made.lock();
        let of_repo = made.iter().filter(|((name, _), _)| *name == repo.name);
        let mut all = BTreeMap::new();
        for made in of_repo.filter_map(|(_, cell)| cell.get()) {
            all.extend(made.manifests().map(|one| (one.digest, one.raw.len() as u64)));
            let blobs = made.plan.blobs.iter().map(|blob| &blob.descriptor);
            all.extend(blobs.map(|blob| (blob.digest, blob.size)));
        }
        Ok(all.into_iter().collect())
    }

    fn carried(&self) -> Result<Carried, Refusal> {
        let rule = OriginStore::rule(self.registry.host());
        let rule = rule.map_err(|e| Refusal::new(Failure::Invalid, self.registry.host(), e))?;
        Ok(Carried { providers: BTreeSet::new(), mapping: Mapping::new(vec![rule]) })
    }

    fn registry(self: Arc<Self>, _host: &Host) -> Arc<dyn Registry> {
        self
    }
}
