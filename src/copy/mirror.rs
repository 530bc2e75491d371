//! From a provider registry into a repository: the versions that are selected, each zip byte for
//! byte, with what its vendor signed kept beside it.
//!
//! A release is made as `push` makes it, and as `push` puts it: platforms first, index next, tag
//! last, in this writer's turn. What is there is not fetched again.

mod memory;
mod selection;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::origin::{ProviderOrigin, SOURCE};
use crate::artifact::{H1_ANNOTATION, PACKAGE_DIGEST_ANNOTATION, Release, Target, target_package};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal, Subject};
use crate::lockfile::PackageHash;
use crate::moment::Moment;
use crate::name::{Platform, Repo, Selector, Tag, Version};
use crate::oci::{Descriptor, Manifest, ManifestBody};
use crate::provider_registry::{OfferedVersion, SignatureOutcome, VerifiedRelease};
use crate::registry::Upload;
use crate::stage::plan::{PlannedArtifact, PlannedPlatform, TITLE};
use crate::stage::push::{self, Observer, PushOptions, Pushed};

pub use memory::MirrorMemory;
pub use selection::VersionSelection;

/// Indexes that are read at once.
const INDEXES_AT_ONCE: usize = 8;

/// One provider on its way into one repository.
pub struct ProviderMirror<'a> {
    /// Where it is published.
    pub origin: ProviderOrigin<'a>,
    /// Where its releases go.
    pub repo: Repo,
    /// The way in.
    pub upload: &'a dyn Upload,
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
    /// What had to be read to tell its age.
    verified: Option<VerifiedRelease>,
}

/// The versions that are selected, and what else was found.
#[derive(Clone, Default, Debug)]
pub struct SelectedReleases {
    /// The oldest first.
    pub releases: Vec<SelectedRelease>,
    /// Versions that match and have not been out for long enough, and since when they have.
    pub young: Vec<(Version, Moment)>,
    tags: BTreeSet<Tag>,
}

impl SelectedReleases {
    /// The tags of versions that are there, are not selected, and are not among the `keep` newest
    /// ones; the oldest first.
    pub fn could_go(&self, keep: usize) -> Vec<Tag> {
        let of_version = |tag: &Tag| Some((Version::of_tag(tag)?, tag.clone()));
        let there: BTreeMap<Version, Tag> = self.tags.iter().filter_map(of_version).collect();
        let is_selected = |tag: &Tag| self.releases.iter().any(|release| release.tag == *tag);
        let kept = there.len().saturating_sub(keep);
        there.into_values().take(kept).filter(|tag| !is_selected(tag)).collect()
    }
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
    /// version that is there and not in `memory`. Where an age is asked for, the sums of each
    /// version that is not there, too.
    ///
    /// # Errors
    /// `Absent` where no version matches; `Exists` where a tag stands for something else.
    pub async fn select(
        &self,
        selection: &VersionSelection,
        memory: &mut MirrorMemory,
    ) -> Result<SelectedReleases, Refusal> {
        let versions = self.origin.registry.versions(&self.origin.provider).await?;
        let matching = selection.matching(&versions);
        if matching.is_empty() {
            let rule = format!(
                "none of its {} versions at {} matches {selection}",
                versions.len(),
                self.origin.registry.host()
            );
            return Err(Refusal::new(Failure::Absent, &self.origin.provider, rule));
        }
        let tags: BTreeSet<Tag> = match self.upload.tags(&self.repo.name).await {
            Ok(tags) => tags.into_iter().collect(),
            Err(e) if e.failure == Failure::Absent => BTreeSet::new(),
            Err(e) => return Err(e),
        };
        memory.keep_releases(&tags);
        let mut selected = SelectedReleases { tags, ..SelectedReleases::default() };
        let aged = self.aged(matching, selection, &mut selected, memory).await;
        let looks = aged.into_iter().map(|(offered, verified)| {
            self.look(selection, offered, verified, &selected.tags, memory).boxed()
        });
        let looks: Vec<(SelectedRelease, Option<Manifest>)> =
            stream::iter(looks.collect::<Vec<_>>()).buffered(INDEXES_AT_ONCE).try_collect().await?;
        for (release, index) in looks {
            if let Some(index) = index {
                memory.note_release(&release.tag, &index);
            }
            selected.releases.push(release);
        }
        selected.releases.reverse();
        Ok(selected)
    }

    /// The versions that are old enough, the newest first, with what had to be read for that. One
    /// that is there is old enough.
    async fn aged<'v>(
        &self,
        matching: Vec<&'v OfferedVersion>,
        selection: &VersionSelection,
        selected: &mut SelectedReleases,
        memory: &mut MirrorMemory,
    ) -> Vec<(&'v OfferedVersion, Option<VerifiedRelease>)> {
        let mut aged = Vec::new();
        let now = Moment::now();
        let known = memory.clone();
        let asks = matching.into_iter().map(|offered| {
            let is_there = offered.version.tag().is_some_and(|tag| selected.tags.contains(&tag));
            let is_asked = selection.min_age > Duration::ZERO
                && !is_there
                && known.published(&offered.version).is_none();
            let first = offered.platforms.first().filter(|_| is_asked);
            async move {
                // What cannot be had is told when it is to be mirrored.
                let release = match first {
                    Some(first) => self.origin.release(&offered.version, first).await.ok(),
                    None => None,
                };
                (offered, is_there, release)
            }
            .boxed()
        });
        let mut asks = stream::iter(asks.collect::<Vec<_>>()).buffered(INDEXES_AT_ONCE);
        while !selection.is_full(aged.len()) {
            let Some((offered, is_there, release)) = asks.next().await else { break };
            if let Some(release) = &release {
                memory.note_published(&offered.version, release.published.unwrap_or(now));
            }
            match memory.published(&offered.version).filter(|_| !is_there) {
                Some(at) if now.since(at) < selection.min_age => {
                    selected.young.push((offered.version.clone(), at));
                }
                _ => aged.push((offered, release)),
            }
        }
        aged
    }

    /// What of a version is there, and the index that was read to tell.
    async fn look(
        &self,
        selection: &VersionSelection,
        offered: &OfferedVersion,
        verified: Option<VerifiedRelease>,
        tags: &BTreeSet<Tag>,
        memory: &MirrorMemory,
    ) -> Result<(SelectedRelease, Option<Manifest>), Refusal> {
        let version = offered.version.clone();
        let tag = version.tag().ok_or_else(|| {
            let rule = format!("the version {version} is too long for a tag");
            Refusal::new(Failure::Invalid, &self.origin.provider, rule)
        })?;
        let remembered = memory.release(&tag);
        let read = match &remembered {
            None if tags.contains(&tag) => self.index(&tag).await?,
            _ => None,
        };
        let there = remembered.as_ref().or(read.as_ref());
        let there = there.map(|index| self.there(&tag, index)).transpose()?;
        let (platforms, not_offered) = selection.platforms_of(offered);
        Ok((SelectedRelease { version, tag, there, platforms, not_offered, verified }, read))
    }

    /// The document for which a tag stands.
    async fn index(&self, tag: &Tag) -> Result<Option<Manifest>, Refusal> {
        let selector = Selector::Tag(tag.clone());
        let raw = match self.upload.manifest(&self.repo.name, &selector).await {
            Ok(raw) => raw,
            Err(e) if e.failure == Failure::Absent => return Ok(None),
            Err(e) => return Err(e),
        };
        let digest = Digest::of(&raw.bytes);
        let manifest = Manifest::parse(raw.bytes, digest, raw.content_type.as_deref());
        manifest.map(Some).map_err(|e| e.about(self.repo.at(selector)))
    }

    /// What a tag stands for, by its document.
    fn there(&self, tag: &Tag, manifest: &Manifest) -> Result<ReleaseThere, Refusal> {
        let refuse = |rule: String| {
            Err(Refusal::new(Failure::Exists, self.repo.at(Selector::Tag(tag.clone())), rule)
                .remedy("choose another place by --to"))
        };
        let source = self.origin.source();
        match (Release::read(manifest), manifest.annotations.get(SOURCE)) {
            (Ok(Release::Provider(_)), Some(other)) if *other != source => refuse(format!(
                "the tag stands for the release of {other}, and that of {source} was to be added; \
                 zips of one never appear under the address of another"
            )),
            (Ok(Release::Provider(targets)), _) => {
                Ok(ReleaseThere { digest: manifest.digest, targets })
            }
            (Ok(Release::Module(_)) | Err(_), _) => {
                refuse("the tag stands for something else than a provider release".to_owned())
            }
        }
    }

    /// Fetches what is missing of a release, and puts it there.
    ///
    /// # Errors
    /// What [`ProviderOrigin::release`] refuses; `Integrity` for a zip that is not what its sums
    /// say, or that `lock` does not hold; those of [`push::push`].
    pub async fn release(
        &self,
        selected: &SelectedRelease,
        lock: &BTreeSet<PackageHash>,
        memory: &mut MirrorMemory,
        observer: &dyn Observer,
    ) -> Result<Option<MirroredRelease>, Refusal> {
        let missing = selected.missing();
        let Some(first) = missing.first() else { return Ok(None) };
        let release = match &selected.verified {
            Some(release) => release.clone(),
            None => self.origin.release(&selected.version, first).await?,
        };
        if let Some(there) = &selected.there {
            self.check_same_sums(there, &release).await?;
        }
        let missing: Vec<Platform> = missing.into_iter().cloned().collect();
        let plan = self.origin.plan(&release, &missing, &self.repo, &selected.tag).await?;
        if let PlannedArtifact::Provider { targets, .. } = &plan.artifact {
            check_locked(&release, targets, lock)?;
        }
        let pushed = push::push(&plan, self.upload, PushOptions::default(), observer).await?;
        let pushed = pushed.into_iter().next().ok_or_else(|| Refusal::lost(&self.repo))?;
        let index = plan.release()?;
        // A tag that stood for other platforms before stands for those, too.
        if index.digest == pushed.digest {
            memory.note_release(&selected.tag, &index);
        }
        Ok(Some(MirroredRelease { pushed, outcome: release.outcome }))
    }

    /// A release is extended only by platforms of the same release: by the same sums.
    async fn check_same_sums(
        &self,
        there: &ReleaseThere,
        release: &VerifiedRelease,
    ) -> Result<(), Refusal> {
        let Some(entry) = there.targets.first().and_then(Target::manifest) else { return Ok(()) };
        let name = self.origin.provider.file_name(&release.version, "SHA256SUMS");
        let manifest = self.manifest(entry).await?;
        let ManifestBody::Image(layers) = &manifest.body else { return Ok(()) };
        let kept = layers.iter().find(|layer| layer.annotations.get(TITLE) == Some(&name));
        match kept {
            Some(kept) if kept.digest != release.identity() => {
                let rule = format!(
                    "{} has another SHA256SUMS for it ({}) than when it was mirrored ({})",
                    self.origin.registry.host(),
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
        let release = self.origin.release(version, &first.platform).await?;
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
