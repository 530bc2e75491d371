//! Bundles: what is needed, carried into a store or into one archive.
//!
//! A release is carried as it is, by digest. Of a provider release for certain platforms the index
//! stays whole, so that its digest is the same on both sides, and the other platforms' manifests
//! and packages stay behind. What is there already stays; what is missing is added.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::RegistryFacts;
use super::graph::{CarriedReferrers, Graph, graph};
use super::needs::{NeededArtifact, Needs, ReleaseContents};
use crate::digest::Digest;
use crate::facts::{Admitted, Facts, blocking};
use crate::failure::{Failure, Refusal};
use crate::mapping;
use crate::name::{Reference, Repo, Selector, Tag};
use crate::oci::layout::{LAYOUT_DOCUMENT, LayoutPart, in_order, with_manifest};
use crate::oci::{Descriptor, Manifest};
use crate::registry::layout::{
    LayoutArchive, LayoutDirectory, MEMBERS_MAX, Packer, RegistryLayout, Stored,
};
use crate::registry::{BlobSource, HostStore, Upload};
use crate::store::Object;

/// What is carried of one release.
#[derive(Clone, Debug)]
pub struct BundledRelease {
    /// Which it is.
    pub reference: Reference,
    /// Its manifest.
    pub digest: Digest,
    /// The platforms that are carried; none of a module.
    pub platforms: Vec<String>,
    /// The bytes of its manifests and blobs.
    pub bytes: u64,
}

/// What is carried of one repository.
#[derive(Default, Debug)]
struct CarriedRepository {
    /// Each once, behind those that it names.
    manifests: Vec<Arc<Manifest>>,
    /// The manifests that releases are, by their tags; without tags those that speak about them.
    roots: BTreeMap<Digest, BTreeSet<Tag>>,
    blobs: BTreeMap<Digest, Descriptor>,
    /// Leave to read the blobs.
    admitted: Option<Admitted>,
}

/// What a bundle carries.
#[derive(Default, Debug)]
pub struct BundlePlan {
    /// In the order of the needs.
    pub releases: Vec<BundledRelease>,
    /// What the bundle says of the providers in it, beside what it said before.
    pub says: mapping::Carried,
    repositories: BTreeMap<Repo, CarriedRepository>,
}

/// How much of a plan something is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Amount {
    /// Manifests and blobs, each once per repository.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What is told while a bundle is written: bytes done, and of how many.
pub type BundleProgress<'a> = &'a mut (dyn FnMut(u64, u64) -> ControlFlow<()> + Send);

impl BundlePlan {
    /// Reads the manifests of what is needed. `whole`: of an index everything, also what is no
    /// platform.
    ///
    /// # Errors
    /// A manifest that cannot be had.
    pub async fn of(
        needs: &Needs,
        whole: bool,
        referrers: CarriedReferrers,
        origins: &dyn RegistryFacts,
    ) -> Result<BundlePlan, Refusal> {
        let mut plan = BundlePlan::default();
        for artifact in &needs.artifacts {
            let facts = origins.facts(&artifact.repo.host)?;
            let wanted: BTreeSet<Digest> = artifact.manifests().into_iter().collect();
            let carried = |child: &Descriptor| whole || wanted.contains(&child.digest);
            let (repo, root) = (&artifact.repo, artifact.digest);
            let graph = graph(&facts, repo, root, &carried, referrers).await?;
            let admitted = artifact.admitted(&facts).await?;
            plan.add(artifact, graph, admitted);
        }
        Ok(plan)
    }

    fn add(&mut self, artifact: &NeededArtifact, graph: Graph, admitted: Admitted) {
        let blobs: u64 = graph.all_blobs().map(|blob| blob.size).sum();
        let manifests = graph.manifests.iter().chain(&graph.referrers.manifests);
        let manifests: u64 = manifests.map(|manifest| manifest.raw.len() as u64).sum();
        self.releases.push(BundledRelease {
            reference: artifact.reference(),
            digest: artifact.digest,
            platforms: match &artifact.contents {
                ReleaseContents::Module(_) => Vec::new(),
                ReleaseContents::Provider(packages) => {
                    packages.iter().map(|package| package.platform.to_string()).collect()
                }
            },
            bytes: blobs + manifests,
        });
        let (repo, tags) = (artifact.repo.clone(), artifact.tags.iter().cloned());
        self.carry(repo, artifact.digest, tags, graph, admitted);
    }

    /// Adds what a graph holds to a repository: its root by these tags, or by its digest alone.
    pub fn carry(
        &mut self,
        repo: Repo,
        root: Digest,
        tags: impl IntoIterator<Item = Tag>,
        graph: Graph,
        admitted: Admitted,
    ) {
        let carried = self.repositories.entry(repo).or_default();
        carried.admitted = Some(admitted);
        let speaking = graph.referrers;
        for manifest in &speaking.manifests {
            carried.roots.entry(manifest.digest).or_default();
        }
        for manifest in graph.manifests.into_iter().chain(speaking.manifests) {
            if !carried.manifests.iter().any(|held| held.digest == manifest.digest) {
                carried.manifests.push(manifest);
            }
        }
        carried.blobs.extend(speaking.blobs);
        for (tag, digest) in speaking.tags {
            carried.roots.entry(digest).or_default().insert(tag);
        }
        carried.blobs.extend(graph.blobs);
        carried.roots.entry(root).or_default().extend(tags);
    }

    /// All of it.
    pub fn amount(&self) -> Amount {
        self.missing_in(|_| BTreeMap::new())
    }

    /// What is not among the objects that `held` gives of each repository, with their lengths.
    fn missing_in(&self, held: impl Fn(&Repo) -> BTreeMap<Digest, u64>) -> Amount {
        let mut amount = Amount::default();
        for (repo, carried) in &self.repositories {
            let held = held(repo);
            let manifests = carried
                .manifests
                .iter()
                .map(|manifest| (manifest.digest, manifest.raw.len() as u64));
            let blobs = carried.blobs.values().map(|blob| (blob.digest, blob.size));
            let missing =
                manifests.chain(blobs).filter(|(digest, size)| held.get(digest) != Some(size));
            missing.for_each(|(_, size)| amount.add(size));
        }
        amount
    }

    /// What `store` lacks of it. Reads names and lengths alone.
    pub async fn missing(
        self: &Arc<Self>,
        store: Option<Arc<dyn HostStore>>,
    ) -> Result<Amount, Refusal> {
        let Some(store) = store else { return Ok(self.amount()) };
        let plan = self.clone();
        // A repository that is refused is told when it is written to.
        let held = move |repo: &Repo| store.blobs(repo).unwrap_or_default().into_iter().collect();
        blocking(move || plan.missing_in(held)).await
    }

    /// Adds to the store in `dir` what it lacks. `deadline`: how long to wait for other writers.
    ///
    /// # Errors
    /// A blob that cannot be had, a store that cannot be written; or it was stopped. What was added
    /// stays.
    pub async fn into_directory(
        &self,
        dir: &Arc<LayoutDirectory>,
        deadline: Duration,
        origins: &dyn RegistryFacts,
        progress: BundleProgress<'_>,
    ) -> Result<(), Refusal> {
        let total = self.amount().bytes;
        let mut done = 0;
        for (repo, carried) in &self.repositories {
            let layout = RegistryLayout::of(dir.clone(), &repo.host).with_deadline(deadline);
            let facts = origins.facts(&repo.host)?;
            for blob in carried.blobs.values() {
                let Some(admitted) = &carried.admitted else { continue };
                let source = BundleBlob::of(&facts, admitted, repo, blob);
                let put = unless_stopped(
                    layout.put_blob(&repo.name, blob, &source),
                    progress,
                    done,
                    total,
                )
                .await?;
                source.failure().map_or(Ok(()), Err)?;
                put?;
                done += blob.size;
                step(progress, done, total)?;
            }
            for manifest in &carried.manifests {
                let tags = carried.roots.get(&manifest.digest);
                let by_digest = Selector::Digest(manifest.digest);
                let mut selectors: Vec<_> =
                    tags.into_iter().flatten().cloned().map(Selector::Tag).collect();
                if selectors.is_empty() {
                    selectors.push(by_digest);
                }
                for selector in &selectors {
                    layout.put_manifest(&repo.name, selector, manifest).await?;
                }
                done += manifest.raw.len() as u64;
                step(progress, done, total)?;
            }
        }
        let (dir, says) = (dir.clone(), self.says.clone());
        blocking(move || dir.carry(&says, deadline)).await?
    }

    /// Writes an archive at `path`, with all that `before`, the archive that is there, holds. One
    /// that lacks nothing stays as it is.
    ///
    /// # Errors
    /// A blob that cannot be had, a disk that cannot be written, an archive whose content is
    /// damaged; or it was stopped. Then what was at `path` still is.
    pub async fn into_archive(
        &self,
        path: &Path,
        before: Option<Arc<LayoutArchive>>,
        origins: &dyn RegistryFacts,
        progress: BundleProgress<'_>,
    ) -> Result<(), Refusal> {
        let members = self.members(before.as_ref()).await?;
        let said = match before.clone() {
            Some(before) => blocking(move || before.carried()).await??,
            None => mapping::Carried::default(),
        };
        let says = said.clone().and(&self.says);
        if before.is_some() && said == says && !members.values().any(BundleMember::is_new) {
            return Ok(());
        }
        if members.len() >= MEMBERS_MAX {
            let rule = format!(
                "the archive would have {} members; the limit is {MEMBERS_MAX}",
                members.len()
            );
            return Err(Refusal::new(Failure::TooLarge, path, rule));
        }
        let total = members.values().map(BundleMember::len).sum();
        let mut done = 0;
        let mut packer = Packer::create(path, before.clone()).await?;
        if !says.is_empty() {
            packer = packer.carried(&says).await?;
        }
        for (place, member) in &members {
            let packed = pack(packer, place, member, origins);
            packer = unless_stopped(packed, progress, done, total).await??;
            done += member.len();
        }
        packer.finish().await?;
        let _ = progress(done, total);
        Ok(())
    }

    /// The members of an archive in their order: what `before` holds, and what it lacks.
    async fn members(
        &self,
        before: Option<&Arc<LayoutArchive>>,
    ) -> Result<BTreeMap<MemberPlace, BundleMember>, Refusal> {
        let mut members = BTreeMap::new();
        let mut documents: BTreeMap<Repo, Vec<u8>> = BTreeMap::new();
        let mut unchanged = BTreeMap::new();
        if let Some(archive) = before {
            for repo in archive.repositories() {
                let stored = Stored::of(archive.clone(), &repo.host);
                documents
                    .extend(stored.index(&repo.name).await?.map(|index| (repo.clone(), index)));
                for (digest, size) in archive.blobs(repo)? {
                    let blob = Descriptor::bare(digest, size);
                    members.insert(
                        MemberPlace::new(repo, LayoutPart::Blob(digest)),
                        BundleMember::Held(archive.clone(), blob),
                    );
                }
            }
        }
        unchanged.clone_from(&documents);
        for (repo, carried) in &self.repositories {
            let mut add = |digest: Digest, member: BundleMember| {
                let place = MemberPlace::new(repo, LayoutPart::Blob(digest));
                if members.get(&place).is_none_or(|held| held.len() != member.len()) {
                    members.insert(place, member);
                }
            };
            for manifest in &carried.manifests {
                add(manifest.digest, BundleMember::document(manifest.raw.clone(), true));
            }
            for (blob, admitted) in carried.blobs.values().zip(carried.admitted.iter().cycle()) {
                add(blob.digest, BundleMember::New(admitted.clone(), blob.clone()));
            }
            let index = carried.index(documents.remove(repo));
            documents
                .insert(repo.clone(), index.map_err(|e| e.about(format!("{repo} (index.json)")))?);
        }
        for (repo, index) in documents {
            let is_new = unchanged.get(&repo) != Some(&index);
            members.insert(
                MemberPlace::new(&repo, LayoutPart::Index),
                BundleMember::document(index, is_new),
            );
            members.insert(
                MemberPlace::new(&repo, LayoutPart::Version),
                BundleMember::document(LAYOUT_DOCUMENT, is_new),
            );
        }
        Ok(members)
    }
}

/// Puts one more member into an archive.
async fn pack(
    packer: Packer,
    MemberPlace { repo, part, .. }: &MemberPlace,
    member: &BundleMember,
    origins: &dyn RegistryFacts,
) -> Result<Packer, Refusal> {
    match (member, part) {
        (BundleMember::Document(bytes, _), LayoutPart::Blob(digest)) => {
            Ok(packer.manifest(repo, digest, bytes).await?)
        }
        (BundleMember::Document(bytes, _), part) => {
            Ok(packer.document(repo, *part, bytes.to_vec()).await?)
        }
        (BundleMember::New(admitted, blob), _) => {
            let facts = origins.facts(&repo.host)?;
            let object = facts.content().blob(admitted, repo, blob).await?;
            Ok(packer.blob(repo, &blob.digest, blob.size, &Cached(object)).await?)
        }
        (BundleMember::Held(archive, blob), _) => {
            let source = Stored::of(archive.clone(), &repo.host).source(&repo.name, blob).await?;
            Ok(packer.blob(repo, &blob.digest, blob.size, &source).await?)
        }
    }
}

impl CarriedRepository {
    /// `index.json` with what is carried, added to what was in it.
    fn index(&self, before: Option<Vec<u8>>) -> Result<Vec<u8>, crate::oci::DocumentError> {
        let mut index = before;
        for (digest, tags) in &self.roots {
            let Some(manifest) = self.manifests.iter().find(|manifest| manifest.digest == *digest)
            else {
                continue;
            };
            let untagged = tags.is_empty().then_some(None);
            for tag in tags.iter().map(Some).chain(untagged) {
                let changed = with_manifest(index.as_deref(), manifest, *digest, tag)?;
                index = changed.or(index);
            }
        }
        in_order(&index.unwrap_or_default())
    }
}

/// Where a member stands in an archive; in the order of the members' names.
#[derive(Clone, PartialEq, Eq, Debug)]
struct MemberPlace {
    name: String,
    repo: Repo,
    part: LayoutPart,
}

impl MemberPlace {
    fn new(repo: &Repo, part: LayoutPart) -> MemberPlace {
        MemberPlace { name: format!("{repo}/{part}"), repo: repo.clone(), part }
    }
}

impl Ord for MemberPlace {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

impl PartialOrd for MemberPlace {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What a member of a new archive is made from.
enum BundleMember {
    /// Bytes that are here; and whether they are others than the archive had.
    Document(Arc<[u8]>, bool),
    /// A blob of the archive before.
    Held(Arc<LayoutArchive>, Descriptor),
    /// A blob that is fetched.
    New(Admitted, Descriptor),
}

impl BundleMember {
    fn document(bytes: impl Into<Arc<[u8]>>, is_new: bool) -> BundleMember {
        BundleMember::Document(bytes.into(), is_new)
    }

    fn len(&self) -> u64 {
        match self {
            BundleMember::Document(bytes, _) => bytes.len() as u64,
            BundleMember::Held(_, blob) | BundleMember::New(_, blob) => blob.size,
        }
    }

    /// Whether the archive did not have it before.
    fn is_new(&self) -> bool {
        matches!(self, BundleMember::New(..) | BundleMember::Document(_, true))
    }
}

/// How often it is asked whether to go on with a large blob.
const TICK: Duration = Duration::from_millis(250);

/// Does `work`, unless it is to be stopped meanwhile.
async fn unless_stopped<T>(
    work: impl Future<Output = T>,
    progress: BundleProgress<'_>,
    done: u64,
    total: u64,
) -> Result<T, Refusal> {
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            outcome = &mut work => return Ok(outcome),
            _ = tick.tick() => step(progress, done, total)?,
        }
    }
}

fn step(progress: BundleProgress<'_>, done: u64, total: u64) -> Result<(), Refusal> {
    match progress(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => {
            Err(Refusal::new(Failure::Io, "the bundle", "it was stopped; begin again to go on"))
        }
    }
}

/// A verified blob in the cache.
struct Cached(Object);

#[async_trait]
impl BlobSource for Cached {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let object = self.0.clone();
        let read = move || {
            let mut piece = vec![0; len];
            let got = object.read_at(&mut piece, offset).map_err(io::Error::other)?;
            piece.truncate(got);
            Ok(Bytes::from(piece))
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// A blob that is fetched when it is first read.
pub(super) struct BundleBlob<'a> {
    facts: &'a Arc<Facts>,
    admitted: &'a Admitted,
    repo: &'a Repo,
    blob: &'a Descriptor,
    fetched: OnceCell<Result<Cached, Refusal>>,
}

impl<'a> BundleBlob<'a> {
    pub(super) fn of(
        facts: &'a Arc<Facts>,
        admitted: &'a Admitted,
        repo: &'a Repo,
        blob: &'a Descriptor,
    ) -> BundleBlob<'a> {
        BundleBlob { facts, admitted, repo, blob, fetched: OnceCell::new() }
    }

    /// Why it could not be fetched, if that was tried.
    pub(super) fn failure(&self) -> Option<Refusal> {
        self.fetched.get()?.as_ref().err().cloned()
    }
}

#[async_trait]
impl BlobSource for BundleBlob<'_> {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let BundleBlob { facts, admitted, repo, blob, .. } = self;
        let fetch = || async { facts.content().blob(admitted, repo, blob).await.map(Cached) };
        match self.fetched.get_or_init(fetch).await {
            Ok(cached) => cached.read_at(offset, len).await,
            Err(e) => Err(io::Error::other(e.clone())),
        }
    }
}
