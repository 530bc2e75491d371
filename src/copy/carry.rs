//! Copying artifacts as they are: an index, its manifests and all blobs keep their digests.
//!
//! Order: blobs, manifests each behind all that it names, read back and compared, the tags last.
//! What is there already is not sent, so a copy that was cut off is taken up by copying again.
//! INVARIANT: everything that passes is checked against its digest, and a tag never stands for
//! something incomplete, nor changes without being asked to.

mod referrers;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::RegistryFacts;
use super::bundle::BundleBlob;
use super::graph::{CarriedReferrers, Graph, graph};
use crate::artifact::Target;
use crate::digest::Digest;
use crate::facts::{Admitted, Facts, blocking};
use crate::failure::{Failure, Refusal};
use crate::name::{Host, Reference, Repo, RepoName, Selector, Tag};
use crate::oci::layout::tag_of;
use crate::oci::referrer::is_bundle;
use crate::oci::{Descriptor, Manifest, ManifestBody};
use crate::registry::layout::{LayoutArchive, LayoutDirectory, Stored};
use crate::registry::turn::{NotPut, Turn};
use crate::registry::{BlobSource, HostStore, Registry, Upload, Uploaded};

/// Blobs that are copied at once.
const AT_ONCE: usize = 3;
/// How many turns are taken that end before the tag is put.
const TRIES: u32 = 5;

/// Why something was not copied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CopyError {
    /// It cannot be read, listed or written.
    #[error(transparent)]
    Failed(#[from] Refusal),
    /// A rule of copying forbids it.
    #[error("{0}")]
    Refused(String),
}

impl CopyError {
    /// A tag of the destination stands for something else.
    pub fn exists(reference: &Reference, there: &Digest, ours: &Digest) -> CopyError {
        CopyError::Refused(format!(
            "{reference}: the tag stands for {there} there, and was to stand for {ours}; \
             --allow-overwrite replaces it"
        ))
    }

    /// Two repositories would become one.
    fn collision(target: &Repo, one: &Repo, other: &Repo) -> CopyError {
        CopyError::Refused(format!(
            "{target}: {one} and {other} would both be copied there; --keep-host keeps them apart"
        ))
    }
}

/// An artifact of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceArtifact {
    /// Where it is.
    pub repo: Repo,
    /// Its manifest or index.
    pub digest: Digest,
    /// What stands for it; perhaps nothing.
    pub tags: Vec<Tag>,
}

/// All that a store holds: what its repositories list, tagged or not.
///
/// # Errors
/// A repository that cannot be read.
pub async fn all_of_store(store: Arc<dyn HostStore>) -> Result<Vec<SourceArtifact>, CopyError> {
    let mut found = Vec::new();
    for host in store.hosts()? {
        for name in store.clone().registry(&host).catalog().await? {
            let repo = Repo { host: host.clone(), name };
            let (store, of) = (store.clone(), repo.clone());
            let entries = blocking(move || store.entries(&of)).await??;
            let mut roots: BTreeMap<Digest, Vec<Tag>> = BTreeMap::new();
            for entry in &entries {
                let tag = tag_of(entry);
                if !tag.as_ref().is_some_and(Tag::is_hidden) {
                    roots.entry(entry.digest).or_default().extend(tag);
                }
            }
            found.extend(roots.into_iter().map(|(digest, tags)| SourceArtifact {
                repo: repo.clone(),
                digest,
                tags,
            }));
        }
    }
    Ok(found)
}

/// All tags of a registry's repositories at or below `prefix`.
///
/// # Errors
/// The registry does not list its repositories, or does not answer.
pub async fn all_of_registry(
    registry: &dyn Registry,
    host: &Host,
    prefix: Option<&RepoName>,
    origins: &dyn RegistryFacts,
) -> Result<Vec<SourceArtifact>, CopyError> {
    let names: Vec<RepoName> = match (registry.catalog().await, prefix) {
        (Ok(names), _) => names.into_iter().filter(|name| name.is_within(prefix)).collect(),
        // one repository can be named, whether or not the others can be listed
        (Err(e), Some(prefix)) => match registry.tags(prefix).await {
            Ok(_) => vec![prefix.clone()],
            Err(_) => return Err(e.remedy("name the repositories one by one").into()),
        },
        (Err(e), None) => return Err(e.remedy("name the repositories one by one").into()),
    };
    let facts = origins.facts(host)?;
    let mut found = Vec::new();
    for name in names {
        let repo = Repo { host: host.clone(), name };
        let mut roots: BTreeMap<Digest, Vec<Tag>> = BTreeMap::new();
        let tags = match registry.tags(&repo.name).await {
            // a repository that was emptied is still in some catalogs
            Err(e) if e.failure == Failure::Absent => Vec::new(),
            tags => tags?,
        };
        for tag in tags {
            let digest = facts.tags().resolve(&repo.at(Selector::Tag(tag.clone()))).await?;
            roots.entry(digest).or_default().push(tag);
        }
        found.extend(roots.into_iter().map(|(digest, tags)| SourceArtifact {
            repo: repo.clone(),
            digest,
            tags,
        }));
    }
    Ok(found)
}

/// An artifact with all that it names, and where it goes.
#[derive(Clone, Debug)]
pub struct CarriedArtifact {
    /// What it is.
    pub found: SourceArtifact,
    /// The repository that gets it.
    pub to: Repo,
    /// All of it.
    pub graph: Graph,
    /// Leave to read it.
    pub admitted: Admitted,
    /// How many manifests that its indexes name are not in the source, and stay behind.
    pub left_behind: usize,
}

/// Reads all manifests of what was found. `held` says, for a store, which manifests it holds; an
/// index may name others.
///
/// # Errors
/// A manifest that cannot be had or is refused; two repositories that would become one.
pub async fn artifacts(
    found: Vec<SourceArtifact>,
    target: &(dyn Fn(&Repo) -> Result<Repo, CopyError> + Sync),
    held: Option<Arc<dyn HostStore>>,
    referrers: CarriedReferrers,
    origins: &dyn RegistryFacts,
) -> Result<Vec<CarriedArtifact>, CopyError> {
    let mut sources: BTreeMap<Repo, Repo> = BTreeMap::new();
    let mut artifacts = Vec::new();
    for found in found {
        let to = target(&found.repo)?;
        let one = sources.entry(to.clone()).or_insert_with(|| found.repo.clone());
        if *one != found.repo {
            return Err(CopyError::collision(&to, one, &found.repo));
        }
        let there: Option<BTreeSet<Digest>> = match &held {
            None => None,
            Some(store) => {
                let (store, repo) = (store.clone(), found.repo.clone());
                let blobs = blocking(move || store.blobs(&repo)).await??;
                Some(blobs.into_iter().map(|(digest, _)| digest).collect())
            }
        };
        let carried =
            |child: &Descriptor| there.as_ref().is_none_or(|there| there.contains(&child.digest));
        let facts = origins.facts(&found.repo.host)?;
        let graph = graph(&facts, &found.repo, found.digest, &carried, referrers).await?;
        let left_behind = graph.manifests.iter().map(|manifest| match &manifest.body {
            ManifestBody::Index(children) => {
                children.iter().filter(|child| !carried(child)).count()
            }
            ManifestBody::Image(_) => 0,
        });
        let left_behind = left_behind.sum();
        let admitted = admitted(&facts, &found, &graph).await?;
        artifacts.push(CarriedArtifact { to, left_behind, graph, admitted, found });
    }
    if referrers != CarriedReferrers::All {
        artifacts.retain(|a| !a.found.tags.is_empty() || !speaks(a, referrers));
    }
    // what an index of the same repository names, and what speaks about it, comes with it
    let named: BTreeSet<(Repo, Digest)> = artifacts.iter().flat_map(children).collect();
    artifacts.retain(|a| {
        !a.found.tags.is_empty() || !named.contains(&(a.found.repo.clone(), a.found.digest))
    });
    Ok(artifacts)
}

/// Leave to copy an artifact by each of its tags.
async fn admitted(
    facts: &Facts,
    found: &SourceArtifact,
    graph: &Graph,
) -> Result<Admitted, Refusal> {
    let SourceArtifact { repo, digest, tags } = found;
    let by_digest = [Selector::Digest(*digest)];
    let by_tags = tags.iter().cloned().map(Selector::Tag);
    let names: Vec<Selector> = if tags.is_empty() { by_digest.to_vec() } else { by_tags.collect() };
    let is_carried =
        |target: &Target| graph.manifests.iter().any(|manifest| manifest.digest == target.digest());
    let mut admitted = None;
    for name in names {
        let (leave, _) = facts.gate().admit_all(&repo.at(name), *digest, &is_carried).await?;
        admitted = Some(leave);
    }
    admitted.ok_or_else(|| Refusal::new(Failure::Invalid, repo, "it has no name"))
}

fn children(artifact: &CarriedArtifact) -> Vec<(Repo, Digest)> {
    let named =
        artifact.graph.manifests.iter().filter(|manifest| manifest.digest != artifact.found.digest);
    named
        .chain(&artifact.graph.referrers.manifests)
        .map(|manifest| (artifact.found.repo.clone(), manifest.digest))
        .collect()
}

/// Whether an artifact is one of those that speak about others and stay behind.
fn speaks(artifact: &CarriedArtifact, carried: CarriedReferrers) -> bool {
    let Some(root) = artifact.graph.manifests.last() else { return false };
    let is_signature = root.kind().is_some_and(|kind| is_bundle(&kind));
    matches!(root.subject(), Ok(Some(_))) && (carried == CarriedReferrers::None || !is_signature)
}

/// The bytes of all blobs of `artifacts`.
pub fn size(artifacts: &[CarriedArtifact]) -> u64 {
    artifacts.iter().flat_map(|artifact| artifact.graph.all_blobs()).map(|blob| blob.size).sum()
}

/// Where blobs are read from.
pub enum Blobs<'a> {
    /// Registries, through the cache: fetched when they are first read, verified before that.
    Fetched(&'a dyn RegistryFacts),
    /// A store on disk, straight from it.
    Directory(Arc<LayoutDirectory>),
    /// An archive, straight from it.
    Archive(Arc<LayoutArchive>),
}

/// What became of an artifact: one for each of its tags, or one without.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copied {
    /// Where it is now.
    pub reference: Reference,
    /// The tag, where it has one.
    pub tag: Option<Tag>,
    /// What it is.
    pub digest: Digest,
    /// Bytes of blobs that were sent for it.
    pub uploaded_bytes: u64,
    /// Blobs that were there already.
    pub skipped_blobs: u64,
}

/// How far a copy is, counted in the bytes of blobs.
pub struct Meter<'a> {
    done: AtomicU64,
    total: u64,
    tell: &'a (dyn Fn(u64, u64) + Sync),
}

impl<'a> Meter<'a> {
    /// `tell` is told of bytes done, and of how many.
    pub fn new(total: u64, tell: &'a (dyn Fn(u64, u64) + Sync)) -> Meter<'a> {
        Meter { done: AtomicU64::new(0), total, tell }
    }

    fn add(&self, bytes: u64) {
        (self.tell)(self.done.fetch_add(bytes, Ordering::Relaxed) + bytes, self.total);
    }
}

/// A blob whose reading is told, as far as it comes for the first time.
struct Metered<'a> {
    source: Box<dyn BlobSource + 'a>,
    furthest: AtomicU64,
    meter: &'a Meter<'a>,
}

impl Metered<'_> {
    fn reached(&self, position: u64) {
        let before = self.furthest.fetch_max(position, Ordering::Relaxed);
        self.meter.add(position.saturating_sub(before));
    }
}

#[async_trait]
impl BlobSource for Metered<'_> {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let piece = self.source.read_at(offset, len).await?;
        self.reached(offset + piece.len() as u64);
        Ok(piece)
    }
}

/// A copy into one destination.
pub struct Copy<'a> {
    /// Where blobs come from.
    pub blobs: Blobs<'a>,
    /// Whether a tag that stands for something else is replaced.
    pub allow_overwrite: bool,
    /// Who is told how far it is.
    pub meter: Meter<'a>,
}

impl Copy<'_> {
    /// Copies one artifact into `to`, which is its destination's registry.
    ///
    /// # Errors
    /// `Exists` before anything was sent where a tag stands for something else; those of reading
    /// and of [`Upload`].
    pub async fn artifact(
        &self,
        artifact: &CarriedArtifact,
        to: &dyn Upload,
    ) -> Result<Vec<Copied>, CopyError> {
        let digest = artifact.found.digest;
        let mut wanted = Vec::new();
        for tag in &artifact.found.tags {
            if self.is_free(artifact, to, tag).await? {
                wanted.push(tag);
            }
        }
        let is_there = to.is_whole() && wanted.is_empty() && !artifact.found.tags.is_empty();
        let blobs = artifact.graph.all_blobs().count() as u64;
        let (mut sent, mut skipped) = if is_there {
            self.meter.add(artifact.graph.blobs.values().map(|blob| blob.size).sum());
            (0, artifact.graph.blobs.len() as u64)
        } else {
            self.content(artifact, to).await?
        };
        // before the tag, so that whoever sees it finds its signatures
        let referrers = self.referrers(artifact, to).await?;
        (sent, skipped) = (sent + referrers.0, skipped + referrers.1);
        for tag in wanted {
            self.tag(artifact, to, tag).await?;
        }
        let copied = |tag: Option<&Tag>, uploaded_bytes, skipped_blobs| {
            let selector = tag.cloned().map_or(Selector::Digest(digest), Selector::Tag);
            Copied {
                reference: artifact.to.at(selector),
                tag: tag.cloned(),
                digest,
                uploaded_bytes,
                skipped_blobs,
            }
        };
        let mut tags = artifact.found.tags.iter();
        // what was sent is told once
        let first = copied(tags.next(), sent, skipped);
        Ok([first].into_iter().chain(tags.map(|tag| copied(Some(tag), 0, blobs))).collect())
    }

    /// Has the tag stand for the artifact.
    async fn tag(
        &self,
        artifact: &CarriedArtifact,
        to: &dyn Upload,
        tag: &Tag,
    ) -> Result<(), CopyError> {
        for _ in 0..TRIES {
            let told = |what: &str| tracing::warn!("{}:{tag}: {what}", artifact.to);
            let mut turn = Turn::take(to, &artifact.to, tag, &told).await?;
            let put = self.tag_in_turn(artifact, to, tag, &mut turn).await;
            turn.end().await;
            if put? {
                return Ok(());
            }
        }
        let rule = format!(
            "the registry answered too slowly, {TRIES} times, to change the tag before others might"
        );
        Err(Refusal::new(Failure::TimedOut, artifact.to.at(Selector::Tag(tag.clone())), rule)
            .into())
    }

    /// False where the turn was over before the tag was put.
    async fn tag_in_turn(
        &self,
        artifact: &CarriedArtifact,
        to: &dyn Upload,
        tag: &Tag,
        turn: &mut Turn<'_>,
    ) -> Result<bool, CopyError> {
        // copying may have taken hours
        if !self.is_free(artifact, to, tag).await? {
            return Ok(true);
        }
        let (digest, selector) = (artifact.found.digest, Selector::Tag(tag.clone()));
        if let Some(root) = artifact.graph.manifests.last() {
            match turn.put(root).await {
                Ok(()) => {}
                Err(NotPut::TooLate) => return Ok(false),
                Err(NotPut::Failed(e)) => return Err(e.into()),
            }
        }
        let now = to.present(&artifact.to.name, &selector).await?;
        if now == Some(digest) {
            return Ok(true);
        }
        let stands = now.map_or("nothing".to_owned(), |now| now.to_string());
        let rule = format!(
            "{digest} was put, but the tag stands for {stands} now; another writer came between"
        );
        Err(Refusal::new(Failure::Integrity, artifact.to.at(selector), rule).into())
    }

    /// Whether the tag may be put; false if it stands for the artifact already.
    async fn is_free(
        &self,
        artifact: &CarriedArtifact,
        to: &dyn Upload,
        tag: &Tag,
    ) -> Result<bool, CopyError> {
        let selector = Selector::Tag(tag.clone());
        let there = match to.present(&artifact.to.name, &selector).await {
            // a repository that is made by its first push
            Err(e) if e.failure == Failure::Absent => None,
            there => there?,
        };
        match there {
            Some(there) if there == artifact.found.digest => Ok(false),
            Some(there) if !self.allow_overwrite => {
                Err(CopyError::exists(&artifact.to.at(selector), &there, &artifact.found.digest))
            }
            _ => Ok(true),
        }
    }

    /// Makes sure that blobs and manifests are there; the bytes that were sent, and how many blobs
    /// were not.
    async fn content(
        &self,
        artifact: &CarriedArtifact,
        to: &dyn Upload,
    ) -> Result<(u64, u64), CopyError> {
        let sent = self.blobs(artifact, artifact.graph.blobs.values(), to).await?;
        for manifest in &artifact.graph.manifests {
            self.manifest(&artifact.to, manifest, to).await?;
            self.attach(&artifact.to, manifest, to).await?;
        }
        Ok(sent)
    }

    async fn blobs<'b>(
        &self,
        artifact: &CarriedArtifact,
        blobs: impl Iterator<Item = &'b Descriptor>,
        to: &dyn Upload,
    ) -> Result<(u64, u64), CopyError> {
        let uploads: Vec<_> = blobs.map(|blob| self.blob(artifact, blob, to).boxed()).collect();
        let sent: Vec<(Uploaded, u64)> =
            stream::iter(uploads).buffer_unordered(AT_ONCE).try_collect().await?;
        let bytes = sent
            .iter()
            .filter(|(uploaded, _)| *uploaded == Uploaded::Sent)
            .map(|(_, size)| size)
            .sum();
        let skipped = sent.iter().filter(|(uploaded, _)| *uploaded == Uploaded::Present).count();
        Ok((bytes, skipped as u64))
    }

    async fn blob(
        &self,
        artifact: &CarriedArtifact,
        blob: &Descriptor,
        to: &dyn Upload,
    ) -> Result<(Uploaded, u64), CopyError> {
        let repo = &artifact.found.repo;
        let put = async |source: Box<dyn BlobSource + '_>| {
            let metered = Metered { source, furthest: AtomicU64::new(0), meter: &self.meter };
            let put = to.put_blob(&artifact.to.name, blob, &metered).await;
            if put.is_ok() {
                metered.reached(blob.size);
            }
            put
        };
        let put = match &self.blobs {
            Blobs::Directory(store) => {
                put(Box::new(Stored::of(store.clone(), &repo.host).source(&repo.name, blob).await?))
                    .await?
            }
            Blobs::Archive(store) => {
                put(Box::new(Stored::of(store.clone(), &repo.host).source(&repo.name, blob).await?))
                    .await?
            }
            Blobs::Fetched(origins) => {
                let facts = origins.facts(&repo.host)?;
                let source = Arc::new(BundleBlob::of(&facts, &artifact.admitted, repo, blob));
                let put = put(Box::new(Lent(source.clone()))).await;
                // the reason why nothing could be read is better than that nothing could
                source.failure().map_or(Ok(()), Err)?;
                put?
            }
        };
        Ok((put, blob.size))
    }

    /// Puts a manifest under its digest, unless it is there, and compares what is kept under it.
    async fn manifest(
        &self,
        repo: &Repo,
        manifest: &Manifest,
        to: &dyn Upload,
    ) -> Result<(), CopyError> {
        let selector = Selector::Digest(manifest.digest);
        let there = match to.present(&repo.name, &selector).await {
            Err(e) if e.failure == Failure::Absent => None,
            there => there?,
        };
        if there == Some(manifest.digest) {
            return Ok(());
        }
        to.put_manifest(&repo.name, &selector, manifest).await?;
        let back = to.read_back(&repo.name, &selector).await?;
        if back.bytes == manifest.raw {
            return Ok(());
        }
        let rule = format!(
            "the registry took this manifest, but gives {} for it",
            Digest::of(&back.bytes)
        );
        Err(Refusal::new(Failure::Integrity, repo.at(selector), rule).into())
    }
}

/// A source that somebody else holds too.
struct Lent<'a>(Arc<BundleBlob<'a>>);

#[async_trait]
impl BlobSource for Lent<'_> {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.0.read_at(offset, len).await
    }
}
