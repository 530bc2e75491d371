//! From a plan to an artifact in a repository.
//!
//! Order: blobs, manifests by digest, read back and compared, then, in this writer's turn at the
//! tag, a look at what it stands for, the tag, and another look. Each step does nothing the second
//! time, so a push that was cut off is taken up by pushing again. INVARIANT: a tag never stands for
//! something incomplete, and never changes from what it stood for when it was looked at last,
//! except where that was asked for. (A program that takes no turns can come between that look and
//! the put.)

mod approval;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use self::approval::Approval;
pub use self::approval::ReleaseCheck;
use super::blob::PushBlob;
use super::plan::{PlannedArtifact, PlannedPlatform, ReleasePlan};
use super::sign::ReleaseSigner;
use crate::artifact::{self, PACKAGE_DIGEST_ANNOTATION, Release, Target};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{Reference, Selector, Tag, text};
use crate::oci::write::extended;
use crate::oci::{Descriptor, DocumentError, Manifest, ManifestBody};
use crate::registry::turn::{NotPut, Told, Turn};
use crate::registry::{BlobSource, Upload, Uploaded};

/// Blobs that are uploaded at once.
const AT_ONCE: usize = 3;
/// How often an index is made anew because a program that takes no turns changed the tag.
const MERGES: u32 = 6;
/// Pauses before a manifest is put again of which the registry says that it lacks what the manifest
/// names.
const LACKING_PAUSES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(150), Duration::from_millis(400)];
/// How many turns are taken that end before the tag is put.
const TRIES: u32 = 5;

/// How a push is done.
#[derive(Clone, Copy, Default)]
pub struct PushOptions<'a> {
    /// A tag, or a platform of a provider release, that holds another digest is overwritten.
    pub allow_overwrite: bool,
    /// Who signs each release, before its tag makes it visible.
    pub signer: Option<&'a dyn ReleaseSigner>,
    /// Who is asked whether it may be opened, before its tag makes it visible.
    pub check: Option<&'a dyn ReleaseCheck>,
}

/// A tag that stands for what was pushed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pushed {
    /// The reference with its tag.
    #[serde(with = "text")]
    pub reference: Reference,
    /// What the tag stands for.
    #[serde(with = "text")]
    pub digest: Digest,
    /// The tag.
    #[serde(with = "text")]
    pub tag: Tag,
    /// Bytes of blobs that were sent for it.
    #[serde(default)]
    pub uploaded_bytes: u64,
    /// Blobs that were there already.
    #[serde(default)]
    pub skipped_blobs: u64,
}

impl Pushed {
    /// What is said of it when it is asked for again: nothing was sent.
    pub(super) fn as_known(&self) -> Pushed {
        Pushed { uploaded_bytes: 0, skipped_blobs: 0, ..self.clone() }
    }
}

/// A step that is durable in the registry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PushStep {
    /// All blobs are there.
    Blobs,
    /// All manifests are there by digest, and were read back.
    Manifests,
    /// The tags stand for it.
    Tagged,
}

/// Who is told of a push's way.
#[async_trait]
pub trait Observer: Send + Sync {
    /// A step was taken. The push goes on when this returns, and fails if it does.
    async fn reached(&self, step: PushStep) -> Result<(), Refusal>;

    /// `done` of `total` bytes of blobs are there.
    fn progress(&self, done: u64, total: u64);

    /// Something else has to happen first: `what` is a sentence.
    fn waits(&self, what: &str);
}

/// Pushes `plan`.
///
/// # Errors
/// `Exists` with both digests where a tag holds something else; `Integrity` where the registry
/// keeps something else than it was given (hostile inputs R59, R60); those of [`Upload`].
pub async fn push(
    plan: &ReleasePlan,
    upload: &dyn Upload,
    options: PushOptions<'_>,
    observer: &dyn Observer,
) -> Result<Vec<Pushed>, Refusal> {
    if let Some(tag) = plan.tags.iter().find(|tag| tag.is_hidden()) {
        let rule = format!(
            "{tag} is a name that is there for machines (claims of writers, lists of referrers), and no list shows it"
        );
        return Err(Refusal::new(Failure::Invalid, &plan.repo, rule).remedy("choose another tag"));
    }
    let told = |what: &str| observer.waits(what);
    let mut push = ReleasePush {
        plan,
        upload,
        options,
        observer,
        told: &told,
        content: None,
        approval: Approval::by(options.signer, options.check),
    };
    push.check_free().await?;
    let mut pushed: Vec<Pushed> = Vec::new();
    for tag in &plan.tags {
        let digest = match &plan.artifact {
            PlannedArtifact::Module(manifest) => push.module(tag, manifest).await?,
            PlannedArtifact::Provider { .. } => push.provider(tag).await?,
        };
        // What was sent is told once, beside the first tag.
        let (sent, skipped) = match (&push.content, pushed.is_empty()) {
            (Some(content), true) => (content.sent, content.skipped),
            _ => (0, plan.blobs.len() as u64),
        };
        let reference = plan.repo.at(Selector::Tag(tag.clone()));
        pushed.push(Pushed {
            reference,
            tag: tag.clone(),
            digest,
            uploaded_bytes: sent,
            skipped_blobs: skipped,
        });
    }
    push.observer.reached(PushStep::Tagged).await?;
    Ok(pushed)
}

/// What became of the blobs.
struct Sent {
    sent: u64,
    skipped: u64,
}

struct ReleasePush<'a> {
    plan: &'a ReleasePlan,
    upload: &'a dyn Upload,
    options: PushOptions<'a>,
    observer: &'a dyn Observer,
    told: Told<'a>,
    /// Set when blobs and manifests are there.
    content: Option<Sent>,
    approval: Approval<'a>,
}

impl ReleasePush<'_> {
    /// Of several tags, one that is taken is found before anything is sent.
    async fn check_free(&self) -> Result<(), Refusal> {
        if let PlannedArtifact::Module(manifest) = &self.plan.artifact
            && self.plan.tags.len() > 1
        {
            for tag in &self.plan.tags {
                self.is_free(tag, manifest.digest).await?;
            }
        }
        Ok(())
    }

    async fn module(&mut self, tag: &Tag, manifest: &Manifest) -> Result<Digest, Refusal> {
        let ours = manifest.digest;
        if !self.is_free(tag, ours).await? {
            self.approve(tag, manifest).await?;
            return Ok(ours);
        }
        self.content().await?;
        self.approve(tag, manifest).await?;
        for _ in 0..TRIES {
            let mut turn = self.turn(tag).await?;
            let put = self.module_in_turn(&mut turn, tag, manifest).await;
            turn.end().await;
            if put? {
                return Ok(ours);
            }
        }
        Err(self.too_slow(tag))
    }

    /// False where the turn was over before the tag was put.
    async fn module_in_turn(
        &self,
        turn: &mut Turn<'_>,
        tag: &Tag,
        manifest: &Manifest,
    ) -> Result<bool, Refusal> {
        let ours = manifest.digest;
        // Uploading may have taken hours.
        if !self.is_free(tag, ours).await? {
            return Ok(true);
        }
        if !put_in_time(turn, manifest).await? {
            return Ok(false);
        }
        match self.present(tag).await? {
            Some(now) if now == ours => Ok(true),
            now => Err(self.lost(tag, ours, now)),
        }
    }

    async fn turn<'a>(&'a self, tag: &'a Tag) -> Result<Turn<'a>, Refusal> {
        Turn::take(self.upload, &self.plan.repo, tag, self.told).await
    }

    /// Whether the tag may be put; false if it stands for `ours` already.
    async fn is_free(&self, tag: &Tag, ours: Digest) -> Result<bool, Refusal> {
        match self.present(tag).await? {
            Some(now) if now == ours => Ok(false),
            Some(other) if !self.options.allow_overwrite => Err(self.exists(tag, ours, other)),
            _ => Ok(true),
        }
    }

    async fn provider(&mut self, tag: &Tag) -> Result<Digest, Refusal> {
        let there = self.present(tag).await?;
        if let Merged::Same(digest) = self.merged(tag, there).await? {
            if self.approval.is_wanted() {
                self.approve(tag, &self.manifest(digest).await?).await?;
            }
            return Ok(digest);
        }
        self.content().await?;
        for _ in 0..TRIES {
            let mut turn = self.turn(tag).await?;
            let put = self.provider_in_turn(&mut turn, tag).await;
            turn.end().await;
            if let Some(digest) = put? {
                return Ok(digest);
            }
        }
        Err(self.too_slow(tag))
    }

    /// None where the turn was over before the tag was put.
    async fn provider_in_turn(
        &self,
        turn: &mut Turn<'_>,
        tag: &Tag,
    ) -> Result<Option<Digest>, Refusal> {
        let mut before = self.present(tag).await?;
        let mut ours = None;
        for _ in 0..MERGES {
            let merged = match self.merged(tag, before).await? {
                Merged::Same(digest) => return Ok(Some(digest)),
                Merged::New(manifest) => manifest,
            };
            ours = Some(merged.digest);
            self.put_by_digest(&merged).await?;
            self.approve(tag, &merged).await?;
            let now = self.present(tag).await?;
            if now != before {
                before = now;
                continue;
            }
            if !put_in_time(turn, &merged).await? {
                return Ok(None);
            }
            before = self.present(tag).await?;
            if before == Some(merged.digest) {
                return Ok(before);
            }
            if before.is_none() {
                break;
            }
        }
        let ours = ours.unwrap_or_else(|| Digest::of(b""));
        Err(self.lost(tag, ours, before))
    }

    /// Has the release approved under a tag that is to stand for it.
    async fn approve(&self, tag: &Tag, manifest: &Manifest) -> Result<(), Refusal> {
        self.approval.of(self.plan, self.upload, tag, manifest).await
    }

    async fn merged(&self, tag: &Tag, there: Option<Digest>) -> Result<Merged, Refusal> {
        let there = match there {
            Some(digest) => Some(self.manifest(digest).await?),
            None => None,
        };
        self.merge(tag, there.as_ref()).await
    }

    /// The index that holds what is there and what is planned.
    async fn merge(&self, tag: &Tag, there: Option<&Manifest>) -> Result<Merged, Refusal> {
        let PlannedArtifact::Provider { targets, annotations } = &self.plan.artifact else {
            return Err(Refusal::lost(self.reference(tag)));
        };
        let document = |e: DocumentError| e.about(self.reference(tag));
        let fresh = || self.plan.release().map(Merged::New);
        let Some(there) = there else { return fresh() };
        let release = match (Release::read(there), &there.body) {
            (Ok(Release::Provider(release)), ManifestBody::Index(_)) => release,
            // Something else than a provider release: there is nothing to keep.
            _ if self.options.allow_overwrite => return fresh(),
            _ => return Err(self.exists(tag, self.plan.release()?.digest, there.digest)),
        };
        let mut missing = Vec::new();
        for target in targets {
            let known = release.iter().find(|known| known.platform == target.platform);
            let same = match known {
                None => false,
                Some(known) if known.digest() == target.entry.digest => true,
                Some(known) => {
                    self.holds_package(known, target).await?
                        && !self.adds_files(known, target).await?
                }
            };
            if !same {
                self.check_replaces(tag, there, known.map(Target::digest), target)?;
                missing.push(target.entry.clone());
            }
        }
        let told = annotations.iter().all(|(key, value)| there.annotations.get(key) == Some(value));
        let contradicts = annotations
            .iter()
            .any(|(key, value)| there.annotations.get(key).is_some_and(|known| known != value));
        if missing.is_empty() && told {
            return Ok(Merged::Same(there.digest));
        }
        let merged = extended(there, &missing, annotations).map_err(document)?;
        if !self.options.allow_overwrite && (contradicts || missing.is_empty()) {
            return Err(self.exists(tag, merged.digest, there.digest));
        }
        Ok(Merged::New(merged))
    }

    /// Whether a platform that is there has the package of `target`, in a manifest that others
    /// made.
    async fn holds_package(
        &self,
        known: &Target,
        target: &PlannedPlatform,
    ) -> Result<bool, Refusal> {
        let Some(known) = known.manifest() else { return Ok(known.digest() == target.package) };
        if let Some(digest) = known.annotations.get(PACKAGE_DIGEST_ANNOTATION) {
            return Ok(*digest == target.package.to_string());
        }
        let manifest = self.manifest(known.digest).await?;
        Ok(artifact::target_package(&manifest, &target.platform)
            .is_ok_and(|layer| layer.digest == target.package))
    }

    /// Whether `target` keeps files beside its package, as sums and their signature, which a
    /// platform that may be overwritten lacks.
    async fn adds_files(&self, known: &Target, target: &PlannedPlatform) -> Result<bool, Refusal> {
        let (Some(known), ManifestBody::Image(ours)) = (known.manifest(), &target.manifest.body)
        else {
            return Ok(false);
        };
        if !self.options.allow_overwrite || ours.len() < 2 {
            return Ok(false);
        }
        let manifest = self.manifest(known.digest).await?;
        let ManifestBody::Image(theirs) = &manifest.body else { return Ok(false) };
        let is_there = |layer: &Descriptor| theirs.iter().any(|there| there.digest == layer.digest);
        Ok(!ours.iter().all(is_there))
    }

    /// Whether `target` may be put into the release.
    fn check_replaces(
        &self,
        tag: &Tag,
        there: &Manifest,
        known: Option<Digest>,
        target: &PlannedPlatform,
    ) -> Result<(), Refusal> {
        if self.options.allow_overwrite {
            return Ok(());
        }
        let platform = &target.platform;
        let rule = match known {
            Some(known) => {
                format!(
                    "{platform} is there with the digest {known}, and was to get {}",
                    target.entry.digest
                )
            }
            None if target.packed_here => format!(
                "directories are packed only for a version that does not exist yet, and this one \
                 does ({}); {platform} would have become {}",
                there.digest, target.entry.digest
            ),
            None => return Ok(()),
        };
        Err(Refusal::new(Failure::Exists, self.reference(tag), rule).remedy(OVERWRITE))
    }

    /// Makes sure that blobs and manifests are there.
    async fn content(&mut self) -> Result<(), Refusal> {
        if self.content.is_some() {
            return Ok(());
        }
        let sent = self.blobs().await?;
        self.observer.reached(PushStep::Blobs).await?;
        for manifest in self.plan.manifests() {
            self.put_by_digest(manifest).await?;
        }
        self.observer.reached(PushStep::Manifests).await?;
        self.content = Some(sent);
        Ok(())
    }

    async fn blobs(&self) -> Result<Sent, Refusal> {
        let progress = PushProgress {
            observer: self.observer,
            total: self.plan.size(),
            done: Mutex::new(HashMap::with_capacity(self.plan.blobs.len())),
        };
        progress.at(None, 0);
        let uploads: Vec<_> =
            self.plan.blobs.iter().map(|blob| self.blob(blob, &progress).boxed()).collect();
        let sent: Vec<(Uploaded, u64)> =
            stream::iter(uploads).buffer_unordered(AT_ONCE).try_collect().await?;
        let bytes = sent
            .iter()
            .filter(|(uploaded, _)| *uploaded == Uploaded::Sent)
            .map(|(_, size)| size)
            .sum();
        let skipped = sent.iter().filter(|(uploaded, _)| *uploaded == Uploaded::Present).count();
        Ok(Sent { sent: bytes, skipped: skipped as u64 })
    }

    async fn blob(
        &self,
        blob: &PushBlob,
        progress: &PushProgress<'_>,
    ) -> Result<(Uploaded, u64), Refusal> {
        let Descriptor { digest, size, .. } = blob.descriptor;
        let counted = Counted { blob, progress };
        let uploaded =
            self.upload.put_blob(&self.plan.repo.name, &blob.descriptor, &counted).await?;
        progress.at(Some(digest), size);
        Ok((uploaded, size))
    }

    /// Puts a manifest under its digest, and compares what the registry has under it.
    async fn put_by_digest(&self, manifest: &Manifest) -> Result<(), Refusal> {
        let selector = Selector::Digest(manifest.digest);
        let mut pauses = LACKING_PAUSES.iter();
        while let Err(e) = self.upload.put_manifest(&self.plan.repo.name, &selector, manifest).await
        {
            // While another writer sends the same blob, a registry on files may not see it
            // (distribution).
            match pauses.next() {
                Some(pause) if e.failure == Failure::Integrity => tokio::time::sleep(*pause).await,
                _ => return Err(e),
            }
        }
        let back = self.upload.manifest(&self.plan.repo.name, &selector).await?;
        if back.bytes == manifest.raw {
            return Ok(());
        }
        let rule = format!(
            "the registry took this manifest, but gives {} for it",
            Digest::of(&back.bytes)
        );
        Err(Refusal::new(Failure::Integrity, self.plan.repo.at(selector), rule))
    }

    async fn present(&self, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        match self.upload.present(&self.plan.repo.name, &Selector::Tag(tag.clone())).await {
            // A repository that is made by its first push.
            Err(e) if e.failure == Failure::Absent => Ok(None),
            other => Ok(other?),
        }
    }

    /// A manifest of the repository, checked against its digest.
    async fn manifest(&self, digest: Digest) -> Result<Manifest, Refusal> {
        let selector = Selector::Digest(digest);
        let raw = self.upload.manifest(&self.plan.repo.name, &selector).await?;
        let subject = self.plan.repo.at(selector);
        let got = Digest::of_with(digest.algorithm(), &raw.bytes);
        if got != digest {
            return Err(Refusal::new(
                Failure::Integrity,
                subject,
                format!("the registry gives {got} for it"),
            ));
        }
        Manifest::parse(raw.bytes, digest, raw.content_type.as_deref())
            .map_err(|e| e.about(subject))
    }

    fn reference(&self, tag: &Tag) -> Reference {
        self.plan.repo.at(Selector::Tag(tag.clone()))
    }

    fn exists(&self, tag: &Tag, ours: Digest, there: Digest) -> Refusal {
        let rule = format!("the tag stands for {there}, and was to stand for {ours}");
        Refusal::new(Failure::Exists, self.reference(tag), rule).remedy(OVERWRITE)
    }

    fn too_slow(&self, tag: &Tag) -> Refusal {
        let rule = format!(
            "the registry answered too slowly, {TRIES} times, to change the tag before others might"
        );
        Refusal::new(Failure::TimedOut, self.reference(tag), rule).remedy("push again")
    }

    /// The tag does not stand for what was put under it.
    fn lost(&self, tag: &Tag, ours: Digest, now: Option<Digest>) -> Refusal {
        match now {
            Some(now) => {
                let rule = format!(
                    "the tag stands for {now}, although {ours} was put: another writer was there, \
                     or the registry does not keep what it accepts"
                );
                Refusal::new(Failure::Exists, self.reference(tag), rule)
                    .remedy("look at what is there, then repeat")
            }
            None => {
                let rule =
                    format!("the registry accepted {ours}, but says that there is no such tag");
                Refusal::new(Failure::Integrity, self.reference(tag), rule)
            }
        }
    }
}

/// Puts the tag; false where the turn was over before.
async fn put_in_time(turn: &mut Turn<'_>, manifest: &Manifest) -> Result<bool, Refusal> {
    match turn.put(manifest).await {
        Ok(()) => Ok(true),
        Err(NotPut::TooLate) => Ok(false),
        Err(NotPut::Failed(e)) => Err(e),
    }
}

const OVERWRITE: &str = "choose another tag, or say --allow-overwrite";

enum Merged {
    /// What is there holds it all.
    Same(Digest),
    New(Manifest),
}

/// How far the blobs are, all together.
struct PushProgress<'a> {
    observer: &'a dyn Observer,
    total: u64,
    done: Mutex<HashMap<Digest, u64>>,
}

impl PushProgress<'_> {
    fn at(&self, blob: Option<Digest>, done: u64) {
        let mut all = self.done.lock();
        if let Some(blob) = blob {
            all.insert(blob, done);
        }
        let sum = all.values().sum();
        drop(all);
        self.observer.progress(sum, self.total);
    }
}

/// A blob whose bytes are counted as they leave.
struct Counted<'a> {
    blob: &'a PushBlob,
    progress: &'a PushProgress<'a>,
}

#[async_trait]
impl BlobSource for Counted<'_> {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let bytes = self.blob.read_at(offset, len).await?;
        self.progress.at(Some(self.blob.descriptor.digest), offset);
        Ok(bytes)
    }
}
