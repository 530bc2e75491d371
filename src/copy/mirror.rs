//! From a provider registry into a repository: the versions that are selected, each zip byte for
//! byte, with what its vendor signed kept beside it.
//!
//! A release is made as `push` makes it, and as `push` puts it: platforms first, index next, tag
//! last, in this writer's turn. What is there is not fetched again.

mod draft;
mod selection;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::artifact::{H1_ANNOTATION, PACKAGE_DIGEST_ANNOTATION, Release, Target, target_package};
use crate::digest::Digest;
use crate::facts::blocking;
use crate::failure::{Failure, Refusal, Subject};
use crate::lockfile::PackageHash;
use crate::name::{Platform, ProviderAddr, Repo, Selector, Tag, Version};
use crate::oci::{Descriptor, Manifest, ManifestBody};
use crate::provider_registry::{
    ProviderRegistry, SignatureOutcome, SignaturePolicy, VerifiedRelease,
};
use crate::registry::{BlobError, Upload};
use crate::stage::Workshop;
use crate::stage::plan::{Destined, PlannedArtifact, ReleasePlan, TITLE};
use crate::stage::provider::{PlannedPlatform, ProviderContents, Zip};
use crate::stage::push::{self, Observer, PushOptions, Pushed};

use draft::PackageDraft;
pub use selection::VersionSelection;

/// Packages that are fetched at once.
const AT_ONCE: usize = 3;
/// Indexes that are read at once.
const INDEXES_AT_ONCE: usize = 8;
/// Annotation of a release: where it comes from.
const SOURCE: &str = "org.opencontainers.image.source";

/// One provider on its way into one repository.
pub struct ProviderMirror<'a> {
    /// Whose releases.
    pub provider: ProviderAddr,
    /// Where they are published.
    pub registry: &'a ProviderRegistry,
    /// What is asked of their signatures.
    pub policy: SignaturePolicy,
    /// Where they go.
    pub repo: Repo,
    /// The way in.
    pub upload: &'a dyn Upload,
    /// Where packages lie meanwhile.
    pub workshop: Arc<Workshop>,
}

/// A version that is selected, and what of it is there.
#[derive(Clone, Debug)]
pub struct SelectedRelease {
    /// The version.
    pub version: Version,
    /// Its tag.
    pub tag: Tag,
    /// What the tag stands for.
    pub there: Option<ReleaseThere>,
    /// The platforms that are wanted and offered.
    pub platforms: BTreeSet<Platform>,
    /// Those that are wanted by name, and not offered.
    pub not_offered: Vec<Platform>,
}

/// A release in the repository.
#[derive(Clone, Debug)]
pub struct ReleaseThere {
    /// Its digest.
    pub digest: Digest,
    targets: Vec<Target>,
}

impl SelectedRelease {
    /// The platforms that are not there.
    pub fn missing(&self) -> Vec<&Platform> {
        let there = |platform: &Platform| {
            let targets = self.there.iter().flat_map(|there| &there.targets);
            targets.into_iter().any(|target| target.platform == *platform)
        };
        self.platforms.iter().filter(|platform| !there(platform)).collect()
    }
}

/// A release that was mirrored.
#[derive(Clone, Debug)]
pub struct MirroredRelease {
    /// What was put.
    pub pushed: Pushed,
    /// What was found of its signature.
    pub outcome: SignatureOutcome,
}

impl ProviderMirror<'_> {
    /// The versions that are selected: one list of versions, one of tags, and an index per selected
    /// version that is there.
    ///
    /// # Errors
    /// `Absent` where no version matches; `Exists` where a tag stands for something else.
    pub async fn select(
        &self,
        selection: &VersionSelection,
    ) -> Result<Vec<SelectedRelease>, Refusal> {
        let versions = self.registry.versions(&self.provider).await?;
        let selected = selection.of(&versions);
        if selected.is_empty() {
            let rule = format!(
                "none of its {} versions at {} matches {selection}",
                versions.len(),
                self.registry.host()
            );
            return Err(Refusal::new(Failure::Absent, &self.provider, rule));
        }
        let tags: BTreeSet<Tag> = match self.upload.tags(&self.repo.name).await {
            Ok(tags) => tags.into_iter().collect(),
            Err(e) if e.failure == Failure::Absent => BTreeSet::new(),
            Err(e) => return Err(e),
        };
        let looks = selected.into_iter().map(|offered| {
            let tags = &tags;
            async move {
                let tag = offered.version.tag().ok_or_else(|| {
                    let rule = format!("the version {} is too long for a tag", offered.version);
                    Refusal::new(Failure::Invalid, &self.provider, rule)
                })?;
                let there = if tags.contains(&tag) { self.there(&tag).await? } else { None };
                let (platforms, not_offered) = selection.platforms_of(offered);
                let version = offered.version.clone();
                Ok(SelectedRelease { version, tag, there, platforms, not_offered })
            }
            .boxed()
        });
        stream::iter(looks.collect::<Vec<_>>()).buffered(INDEXES_AT_ONCE).try_collect().await
    }

    /// What a tag stands for.
    async fn there(&self, tag: &Tag) -> Result<Option<ReleaseThere>, Refusal> {
        let selector = Selector::Tag(tag.clone());
        let reference = self.repo.at(selector.clone());
        let raw = match self.upload.manifest(&self.repo.name, &selector).await {
            Ok(raw) => raw,
            Err(e) if e.failure == Failure::Absent => return Ok(None),
            Err(e) => return Err(e),
        };
        let digest = Digest::of(&raw.bytes);
        let manifest = Manifest::parse(raw.bytes, digest, raw.content_type.as_deref())
            .map_err(|e| e.about(&reference))?;
        let refuse = |rule: String| {
            Err(Refusal::new(Failure::Exists, &reference, rule)
                .remedy("choose another place by --to"))
        };
        let source = self.source();
        match (Release::read(&manifest), manifest.annotations.get(SOURCE)) {
            (Ok(Release::Provider(_)), Some(other)) if *other != source => refuse(format!(
                "the tag stands for the release of {other}, and that of {source} was to be added; \
                 zips of one never appear under the address of another"
            )),
            (Ok(Release::Provider(targets)), _) => Ok(Some(ReleaseThere { digest, targets })),
            (Ok(Release::Module(_)) | Err(_), _) => {
                refuse("the tag stands for something else than a provider release".to_owned())
            }
        }
    }

    fn source(&self) -> String {
        format!("https://{}", self.provider)
    }

    /// Fetches what is missing of a release, and puts it there.
    ///
    /// # Errors
    /// What [`ProviderRegistry::release`] refuses; `Integrity` for a zip that is not what its sums
    /// say, or that `lock` does not hold; those of [`push::push`].
    pub async fn release(
        &self,
        selected: &SelectedRelease,
        lock: &BTreeSet<PackageHash>,
        observer: &dyn Observer,
    ) -> Result<Option<MirroredRelease>, Refusal> {
        let missing = selected.missing();
        let Some(first) = missing.first() else { return Ok(None) };
        let release =
            self.registry.release(&self.provider, &selected.version, first, self.policy).await?;
        if let Some(there) = &selected.there {
            self.check_same_sums(there, &release).await?;
        }
        let fetches = missing.iter().map(|platform| self.package(&release, platform).boxed());
        let zips: Vec<Zip> =
            stream::iter(fetches.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await?;
        let plan = self.plan(&release, zips, &selected.tag).await?;
        if let PlannedArtifact::Provider { targets, .. } = &plan.artifact {
            check_locked(&release, targets, lock)?;
        }
        let pushed = push::push(&plan, self.upload, PushOptions::default(), observer).await?;
        let mirrored = pushed
            .into_iter()
            .next()
            .map(|pushed| MirroredRelease { pushed, outcome: release.outcome });
        mirrored.ok_or_else(|| Refusal::lost(&self.repo)).map(Some)
    }

    /// The zip for a platform, checked against the release's sums.
    async fn package(
        &self,
        release: &VerifiedRelease,
        platform: &Platform,
    ) -> Result<Zip, Refusal> {
        let (version, wanted) = (&release.version, release.package(platform)?);
        let name = self.provider.zip_name(version, platform);
        let subject = format!("{} {version}", self.provider);
        let workshop = Arc::clone(&self.workshop);
        let file = blocking(move || workshop.draft()).await;
        let file = file.map_err(|_| Refusal::lost(subject.as_str()))??;
        let mut draft = PackageDraft::new(file);
        let limit = self.workshop.limits().archive;
        match self.registry.package(release, platform, limit, &mut draft).await {
            Ok(()) => {}
            Err(BlobError::Registry(e)) => return Err(e),
            Err(BlobError::Sink(_)) => return Err(draft.failure(self.workshop.name())),
        }
        let (file, got): (OwnedFd, Digest) = draft.finish(self.workshop.name()).await?;
        if got != wanted {
            let rule = format!(
                "{name} came as {got}, and its SHA256SUMS says {wanted}: it was cut or changed"
            );
            return Err(Refusal::new(Failure::Integrity, subject, rule));
        }
        let says = name.parse().map_err(|e| Refusal::new(Failure::Invalid, subject.as_str(), e))?;
        Ok(Zip { path: name.clone(), name, says, file })
    }

    async fn plan(
        &self,
        release: &VerifiedRelease,
        zips: Vec<Zip>,
        tag: &Tag,
    ) -> Result<ReleasePlan, Refusal> {
        let (provider, version) = (&self.provider, &release.version);
        let mut contents = ProviderContents::new(&format!("{provider} {version}"));
        contents.zips = zips;
        contents.keep(&provider.file_name(version, "SHA256SUMS"), release.sums.raw().to_vec());
        // What was not looked at is not passed on.
        if let (Some(signature), Some(key)) = (&release.signature, &release.key) {
            contents.keep(&provider.file_name(version, "SHA256SUMS.sig"), signature.clone());
            contents.keep(&provider.file_name(version, "signing-key.asc"), key.clone().into());
        }
        if let Some(manifest) = self.registry.manifest(release).await? {
            contents.keep(&provider.file_name(version, "manifest.json"), manifest);
        }
        let destined = Destined {
            repo: self.repo.clone(),
            tags: vec![tag.clone()],
            annotations: BTreeMap::from([(SOURCE.to_owned(), self.source())]),
        };
        let workshop = Arc::clone(&self.workshop);
        let planned = blocking(move || contents.plan(destined, &workshop)).await;
        planned.map_err(|_| Refusal::lost(provider))?
    }

    /// A release is extended only by platforms of the same release: by the same sums.
    async fn check_same_sums(
        &self,
        there: &ReleaseThere,
        release: &VerifiedRelease,
    ) -> Result<(), Refusal> {
        let Some(entry) = there.targets.first().and_then(Target::manifest) else { return Ok(()) };
        let name = self.provider.file_name(&release.version, "SHA256SUMS");
        let manifest = self.manifest(entry).await?;
        let ManifestBody::Image(layers) = &manifest.body else { return Ok(()) };
        let kept = layers.iter().find(|layer| layer.annotations.get(TITLE) == Some(&name));
        match kept {
            Some(kept) if kept.digest != release.identity() => {
                let rule = format!(
                    "{} has another SHA256SUMS for it ({}) than when it was mirrored ({})",
                    self.registry.host(),
                    release.identity(),
                    kept.digest
                );
                let subject = self.repo.at(Selector::Digest(there.digest));
                Err(Refusal::new(Failure::Integrity, subject, rule)
                    .remedy("ask the vendor whether the release was replaced"))
            }
            _ => Ok(()),
        }
    }

    async fn manifest(&self, entry: &Descriptor) -> Result<Manifest, Refusal> {
        let selector = Selector::Digest(entry.digest);
        let subject = self.repo.at(selector.clone());
        let raw = self.upload.manifest(&self.repo.name, &selector).await?;
        let got = Digest::of_with(entry.digest.algorithm(), &raw.bytes);
        if got != entry.digest {
            let rule = format!("the registry gives {got} for it");
            return Err(Refusal::new(Failure::Integrity, subject, rule));
        }
        Manifest::parse(raw.bytes, entry.digest, raw.content_type.as_deref())
            .map_err(|e| e.about(subject))
    }

    /// Compares what is there of a release with what its vendor signed; one sentence per
    /// difference.
    ///
    /// # Errors
    /// One of both cannot be read.
    pub async fn verify(&self, selected: &SelectedRelease) -> Result<Vec<String>, Refusal> {
        let Some(there) = &selected.there else { return Ok(Vec::new()) };
        let wanted: Vec<&Target> = there
            .targets
            .iter()
            .filter(|target| selected.platforms.contains(&target.platform))
            .collect();
        let Some(first) = wanted.first() else { return Ok(Vec::new()) };
        let version = &selected.version;
        let release =
            self.registry.release(&self.provider, version, &first.platform, self.policy).await?;
        let reference = self.repo.at(Selector::Tag(selected.tag.clone()));
        let mut differing = Vec::new();
        for target in wanted {
            let platform = &target.platform;
            let (signed, kept) = (release.package(platform)?, self.package_there(target).await?);
            if signed != kept {
                differing.push(format!(
                    "{reference}: the zip for {platform} is {kept}, and the vendor's SHA256SUMS \
                     says {signed}"
                ));
            }
        }
        Ok(differing)
    }

    async fn package_there(&self, target: &Target) -> Result<Digest, Refusal> {
        let Some(entry) = target.manifest() else { return Ok(target.digest()) };
        let manifest = self.manifest(entry).await?;
        let layer = target_package(&manifest, &target.platform)
            .map_err(|e| Refusal::new(Failure::Structure, &self.repo, e))?;
        Ok(layer.digest)
    }

    /// Refuses what is there and is not what `lock` holds, as far as the index tells.
    ///
    /// # Errors
    /// `Integrity`.
    pub fn check_there(
        &self,
        selected: &SelectedRelease,
        lock: &BTreeSet<PackageHash>,
    ) -> Result<(), Refusal> {
        let targets = selected.there.iter().flat_map(|there| &there.targets);
        for target in targets.filter(|target| selected.platforms.contains(&target.platform)) {
            let Some(entry) = target.manifest() else { continue };
            let annotations = &entry.annotations;
            let zip = annotations.get(PACKAGE_DIGEST_ANNOTATION).and_then(|d| d.parse().ok());
            let Some(zip) = zip else { continue };
            if !is_locked(lock, zip, annotations.get(H1_ANNOTATION)) {
                let reference = self.repo.at(Selector::Tag(selected.tag.clone()));
                return Err(not_locked(reference, &target.platform, zip));
            }
        }
        Ok(())
    }
}

fn check_locked(
    release: &VerifiedRelease,
    targets: &[PlannedPlatform],
    lock: &BTreeSet<PackageHash>,
) -> Result<(), Refusal> {
    let strange = targets.iter().find(|target| {
        !is_locked(lock, target.package, target.entry.annotations.get(H1_ANNOTATION))
    });
    match strange {
        Some(target) => {
            let subject = format!("{} {}", release.provider, release.version);
            Err(not_locked(subject, &target.platform, target.package))
        }
        None => Ok(()),
    }
}

/// Whether a lock file holds a zip by one of its hashes; where there is no lock file, nothing is
/// asked.
fn is_locked(lock: &BTreeSet<PackageHash>, zip: Digest, h1: Option<&String>) -> bool {
    let h1 = h1.and_then(|h1| h1.parse::<PackageHash>().ok());
    lock.is_empty()
        || lock.contains(&PackageHash::of_zip(&zip.hex()))
        || h1.is_some_and(|h1| lock.contains(&h1))
}

fn not_locked(subject: impl Into<Subject>, platform: &Platform, zip: Digest) -> Refusal {
    let rule = format!("the lock file holds no hash of its zip for {platform} ({zip})");
    Refusal::new(Failure::Integrity, subject, rule)
        .remedy("lock that platform, or name those that are locked by --platform")
}
