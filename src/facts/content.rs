//! Nodes: manifests, packages, blobs and members, each named by a digest and never changing.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::error::{lost, refused_archive};
use super::open_objects::OpenObjects;
use super::prefetch::{BesideFetch, Prefetch, Prefetches, Unpacking};
use super::unpack::{Unpacked, unpack_into};
use super::weighed::Weighed;
use super::{Facts, budget};
use crate::archive::{self, ArchiveError};
use crate::artifact::{Release, Target, target_package};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::members::{FileNo, MemberFile, Members};
use crate::name::{Reference, Repo, Selector};
use crate::oci::{Descriptor, Manifest};
use crate::store::{Key, Object};

/// Members of at most this many bytes are inflated when they are read; larger ones are kept in the
/// store, unpacked.
pub const SMALL_MAX: u64 = 256 << 10;
/// How many bytes of inflated small members are kept for the next read of the same file.
const SMALL_KEPT: usize = 16 << 20;
/// What such a member takes beside its bytes: many have fewer.
const SMALL_BYTES: usize = 256;
/// How many packages are kept beside those that an inode holds, and how many bytes their trees may
/// take.
const PACKAGES_KEPT: (usize, usize) = (16, 32 << 20);
/// How many manifests are kept in memory, and how many bytes they may take.
const MANIFESTS_KEPT: (usize, usize) = (512, 16 << 20);
/// What a manifest takes for each of its bytes: itself, and what was read in it.
const READ_BYTES: usize = 3;
/// How many failures are remembered.
const FAILURES_MAX: usize = 10_000;

/// A package whose archive was verified and whose index was read.
#[derive(Debug)]
pub struct VerifiedPackage {
    /// Where its archive can be fetched again.
    pub repo: Repo,
    /// The archive.
    pub archive: Descriptor,
    /// Its tree.
    pub members: Members,
}

impl VerifiedPackage {
    /// The reference of the archive.
    pub fn reference(&self) -> Reference {
        self.repo.at(Selector::Digest(self.archive.digest))
    }
}

/// A member's bytes, ready to be read without waiting.
#[derive(Clone, Debug)]
pub enum MemberContent {
    /// A file of the store: a blob as it is, or an unpacked member.
    Object(Object),
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// A small member, inflated from its archive when it is read.
    Small {
        /// The archive, kept from eviction while this value lives.
        archive: Object,
        /// The package.
        package: Arc<VerifiedPackage>,
        /// Which member.
        number: FileNo,
    },
}

/// A repository, and digest and size of an archive in it. With the size, since a manifest that lies
/// about it must not spoil the same archive for one that does not.
type PackageKey = (Repo, Digest, u64);

fn key_of(repo: &Repo, archive: &Descriptor) -> PackageKey {
    (repo.clone(), archive.digest, archive.size)
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum ContentNode {
    Manifest(Repo, Digest),
    Package(PackageKey),
    Blob(PackageKey),
    Member(Repo, Digest, FileNo),
}

/// Members that were inflated, by archive and number.
type Inflated = Weighed<(Digest, FileNo), Arc<[u8]>>;

pub(super) struct ContentCache {
    manifests: Mutex<Weighed<Digest, Arc<Manifest>>>,
    packages: Mutex<HashMap<PackageKey, Weak<VerifiedPackage>>>,
    recent: Mutex<Weighed<PackageKey, Arc<VerifiedPackage>>>,
    objects: Mutex<OpenObjects>,
    inflated: Mutex<Inflated>,
    failures: Mutex<HashMap<ContentNode, (Refusal, Instant)>>,
    manifest_flights: Flights<(Repo, Digest), Arc<Manifest>, Refusal>,
    package_flights: Flights<PackageKey, Arc<VerifiedPackage>, Refusal>,
    object_flights: Flights<ContentNode, Object, Refusal>,
    /// Unpacking and indexing: as many at a time as there are cores.
    cores: Arc<Semaphore>,
    aheads: Arc<Prefetches>,
}

fn kept<K: std::hash::Hash + Eq, V>((count, bytes): (usize, usize)) -> Mutex<Weighed<K, V>> {
    Mutex::new(Weighed::new(count, bytes))
}

impl ContentCache {
    pub(super) fn new(linger: Duration, cache_limit: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        ContentCache {
            manifests: kept(MANIFESTS_KEPT),
            packages: Mutex::default(),
            recent: kept(PACKAGES_KEPT),
            objects: Mutex::new(OpenObjects::new(cache_limit)),
            inflated: kept((usize::MAX, SMALL_KEPT)),
            failures: Mutex::default(),
            manifest_flights: Flights::new(linger, |_| lost()),
            package_flights: Flights::new(linger, |_| lost()),
            object_flights: Flights::new(linger, |_| lost()),
            cores: Arc::new(Semaphore::new(cores)),
            aheads: Prefetches::new(cores),
        }
    }

    pub(super) fn forget_failures(&self) {
        self.failures.lock().clear();
    }

    /// Whether a load failed for want of what unused objects hold: descriptors, space in the cache,
    /// or the memory that stands in for a full disk. They are let go of then. True also where
    /// another load has let go of them just now.
    fn gives_way<T>(&self, outcome: &Result<T, Refusal>) -> bool {
        let wanting =
            |error: &Refusal| matches!(error.failure, Failure::NoDescriptor | Failure::NoSpace);
        let gives_way = outcome.as_ref().is_err_and(wanting);
        if gives_way {
            self.objects.lock().clear();
        }
        gives_way
    }

    fn failed(&self, node: &ContentNode) -> Result<(), Refusal> {
        match self.failures.lock().get(node) {
            Some((error, until)) if *until > Instant::now() => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Remembers how a load ended. An absence is remembered too: by digest nothing appears soon
    /// after it was missed.
    fn remember<T>(&self, node: ContentNode, outcome: &Result<T, Refusal>) {
        let mut failures = self.failures.lock();
        match outcome {
            Ok(_) => {
                failures.remove(&node);
            }
            // It says nothing of the node, and others are not refused.
            Err(error) if error.failure == Failure::Crowded => {}
            Err(error) => {
                let now = Instant::now();
                if failures.len() >= FAILURES_MAX {
                    failures.retain(|_, (_, until)| *until > now);
                }
                if failures.len() < FAILURES_MAX {
                    failures.insert(node, (error.clone(), now + error.failure.kept_for()));
                }
            }
        }
    }

    pub(super) fn keep_manifest(&self, manifest: Arc<Manifest>) {
        let bytes = READ_BYTES * manifest.raw.len();
        self.manifests.lock().put(manifest.digest, manifest, bytes);
    }

    fn package(&self, key: &PackageKey) -> Option<Arc<VerifiedPackage>> {
        if let Some(package) = self.recent.lock().get(key) {
            return Some(package.clone());
        }
        let package = self.packages.lock().get(key)?.upgrade()?;
        self.recent.lock().put(key.clone(), package.clone(), package.members.weight());
        Some(package)
    }

    fn keep_package(&self, key: PackageKey, package: &Arc<VerifiedPackage>) {
        let mut packages = self.packages.lock();
        packages.retain(|_, p| p.strong_count() > 0);
        packages.insert(key.clone(), Arc::downgrade(package));
        drop(packages);
        self.recent.lock().put(key, package.clone(), package.members.weight());
    }

    fn inflated(&self, key: &(Digest, FileNo)) -> Option<Arc<[u8]>> {
        self.inflated.lock().get(key).cloned()
    }

    fn keep_inflated(&self, key: (Digest, FileNo), bytes: Arc<[u8]>) {
        let weight = SMALL_BYTES + bytes.len();
        self.inflated.lock().put(key, bytes, weight);
    }
}

impl Facts {
    /// The manifest of that digest: from memory, the store, or the registry.
    pub async fn manifest(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<Arc<Manifest>, Refusal> {
        if let Some(manifest) = self.nodes.manifests.lock().get(&digest) {
            return Ok(manifest.clone());
        }
        let node = ContentNode::Manifest(repo.clone(), digest);
        self.nodes.failed(&node)?;
        let (facts, of) = (self.clone(), repo.clone());
        let load = move || {
            let (facts, of, node) = (facts.clone(), of.clone(), node.clone());
            async move {
                let outcome = facts.load_manifest(&of, digest).await;
                facts.nodes.remember(node, &outcome);
                outcome
            }
        };
        budget::join(&self.nodes.manifest_flights, (repo.clone(), digest), load).await
    }

    async fn load_manifest(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<Arc<Manifest>, Refusal> {
        let store = self.store.clone();
        let stored = blocking(move || match store.get(&Key::Blob(digest))? {
            Some(object) if object.len() <= crate::oci::MANIFEST_MAX => object.read_all().map(Some),
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
                self.budgets
                    .spend(&repo.host, self.fetch_manifest_parsed(repo, &selector))
                    .await?
                    .1?
            }
        };
        self.nodes.keep_manifest(manifest.clone());
        Ok(manifest)
    }

    /// The manifest of that digest, if it is in memory.
    pub fn known_manifest(&self, digest: Digest) -> Option<Arc<Manifest>> {
        self.nodes.manifests.lock().get(&digest).cloned()
    }

    /// The release for which a manifest stands, or why it is none.
    pub async fn release(
        self: &Arc<Self>,
        repo: &Repo,
        digest: Digest,
    ) -> Result<(Arc<Manifest>, Release), Refusal> {
        let manifest = self.manifest(repo, digest).await?;
        let release = Release::read(&manifest)
            .map_err(|refusal| refusal.about(repo.at(Selector::Digest(digest))))?;
        Ok((manifest, release))
    }

    /// Those of a release's platforms that its sources do not hold, as far as they can say so
    /// without a request: a bundle carries an index whole, and of its platforms those that it was
    /// made for.
    pub async fn lacking(&self, repo: &Repo, targets: &[Target]) -> Vec<Digest> {
        let manifests: Vec<Digest> = targets.iter().map(|target| target.manifest.digest).collect();
        match self.origin(&repo.host) {
            Ok(origin) => origin.registry.lacking(&repo.name, &manifests).await,
            Err(_) => Vec::new(),
        }
    }

    /// The package of one platform of a provider release: its manifest and the descriptor of its
    /// zip.
    pub async fn target(
        self: &Arc<Self>,
        repo: &Repo,
        target: &Target,
    ) -> Result<(Arc<Manifest>, Descriptor), Refusal> {
        let manifest = self.manifest(repo, target.manifest.digest).await.map_err(|e| match e.failure {
            // The index stands, and it is not for the registry to take back what it names.
            Failure::Absent => Refusal::new(
                Failure::Integrity,
                repo.at(Selector::Digest(target.manifest.digest)),
                "the release names a manifest that its source lacks; if that is a bundle for other platforms, add this one \
                 with tofufs bundle, else have the release published again",
            ),
            _ => e,
        })?;
        self.check_target(repo, target, manifest)
    }

    /// Like [`Facts::target`], if that needs no request.
    pub fn known_target(
        &self,
        repo: &Repo,
        target: &Target,
    ) -> Option<(Arc<Manifest>, Descriptor)> {
        let manifest = self.nodes.manifests.lock().get(&target.manifest.digest)?.clone();
        self.check_target(repo, target, manifest).ok()
    }

    fn check_target(
        &self,
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
        let layer = target_package(&manifest, &target.platform)
            .map_err(|refusal| refusal.about(subject))?;
        Ok((manifest, layer))
    }

    /// The package in an archive: fetched whole, verified, its index read. Of several that ask for
    /// it at once the first says when it is unpacked.
    pub async fn package(
        self: &Arc<Self>,
        repo: &Repo,
        archive: &Descriptor,
        unpacking: Unpacking,
    ) -> Result<Arc<VerifiedPackage>, Refusal> {
        let key = key_of(repo, archive);
        if let Some(package) = self.nodes.package(&key) {
            return Ok(package);
        }
        let node = ContentNode::Package(key.clone());
        self.nodes.failed(&node)?;
        let (facts, of, archive, at) = (self.clone(), repo.clone(), archive.clone(), key.clone());
        let digest = archive.digest;
        let load = move || async move {
            let outcome = facts.load_package(of, archive, unpacking).await;
            if let Ok(package) = &outcome {
                facts.nodes.keep_package(at, package);
            }
            facts.nodes.remember(node, &outcome);
            outcome
        };
        self.running.waited_for(digest, self.nodes.package_flights.join(key, load)).await
    }

    async fn load_package(
        self: &Arc<Self>,
        repo: Repo,
        archive: Descriptor,
        unpacking: Unpacking,
    ) -> Result<Arc<VerifiedPackage>, Refusal> {
        let limits = self.limits;
        let index = move |zip: &Object| Ok((zip.clone(), archive::index(&Bytes(zip), &limits)?));
        let ahead = Prefetch::new(&self.nodes.aheads, archive.digest);
        let beside = match unpacking {
            Unpacking::WhenOpened => BesideFetch::Nothing,
            Unpacking::Ahead => BesideFetch::Unpacking(ahead.clone()),
        };
        let (zip, members) = self.with_archive(&repo, &archive, &beside, index).await?;
        let package = Arc::new(VerifiedPackage { repo, archive, members });
        ahead.settle(zip, package.clone());
        Ok(package)
    }

    /// Runs `work` on an archive's bytes; once more on new ones if the cached ones turn out to be
    /// damaged.
    pub(super) async fn with_archive<T: Send + 'static>(
        self: &Arc<Self>,
        repo: &Repo,
        archive: &Descriptor,
        beside: &BesideFetch,
        work: impl Fn(&Object) -> Result<T, ArchiveError> + Clone + Send + 'static,
    ) -> Result<T, Refusal> {
        let mut healed = false;
        loop {
            let object = self.blob_with(repo, archive, beside).await?;
            let permit = self.nodes.cores.clone().acquire_owned().await;
            let work = work.clone();
            let outcome = blocking(move || {
                let _permit = permit;
                work(&object)
            })
            .await?;
            match outcome
                .map_err(|e| refused_archive(repo.at(Selector::Digest(archive.digest)), &e))
            {
                Err(e) if e.failure == Failure::Damaged && !healed => {
                    healed = true;
                    self.drop_object(&Key::Blob(archive.digest));
                }
                outcome => return outcome,
            }
        }
    }

    /// A blob of `repo`: from the store, or fetched and verified.
    pub async fn blob(self: &Arc<Self>, repo: &Repo, blob: &Descriptor) -> Result<Object, Refusal> {
        self.blob_with(repo, blob, &BesideFetch::Nothing).await
    }

    async fn blob_with(
        self: &Arc<Self>,
        repo: &Repo,
        blob: &Descriptor,
        beside: &BesideFetch,
    ) -> Result<Object, Refusal> {
        let (of, wanted, beside) = (repo.clone(), blob.clone(), beside.clone());
        let fetch = move |facts: Arc<Facts>| {
            let (of, wanted, beside) = (of.clone(), wanted.clone(), beside.clone());
            async move { facts.fetch_blob(&of, &wanted, &beside).await }
        };
        let got = self.object(ContentNode::Blob(key_of(repo, blob)), Key::Blob(blob.digest), fetch);
        let object = self.running.waited_for(blob.digest, got).await?;
        self.of_size(repo, blob, object)
    }

    /// The object of `key`: the one that is kept open, or what `get` gets, once for all who ask for
    /// `node` meanwhile.
    async fn object<W>(
        self: &Arc<Self>,
        node: ContentNode,
        key: Key,
        get: impl Fn(Arc<Facts>) -> W + Send + 'static,
    ) -> Result<Object, Refusal>
    where
        W: Future<Output = Result<Object, Refusal>> + Send + 'static,
    {
        if let Some(object) = self.nodes.objects.lock().get(&key) {
            return Ok(object.clone());
        }
        self.nodes.failed(&node)?;
        let (facts, flight) = (self.clone(), node.clone());
        let load = move || async move {
            let mut outcome = get(facts.clone()).await;
            if facts.nodes.gives_way(&outcome) {
                outcome = get(facts.clone()).await;
            }
            if let Ok(object) = &outcome {
                facts.nodes.objects.lock().put(key, object.clone());
            }
            facts.nodes.remember(node, &outcome);
            outcome
        };
        self.nodes.object_flights.join(flight, load).await
    }

    /// A digest names one length; a descriptor that gives another one lies.
    fn of_size(&self, repo: &Repo, blob: &Descriptor, object: Object) -> Result<Object, Refusal> {
        if object.len() == blob.size {
            return Ok(object);
        }
        let subject = repo.at(Selector::Digest(blob.digest));
        Err(Refusal::new(
            Failure::Integrity,
            subject,
            format_args!(
                "the blob has a size of {} bytes; its manifest says {}",
                object.len(),
                blob.size
            ),
        ))
    }

    /// Closes the kept object of `key`, so that the next use opens (and checks, or fetches) it
    /// anew.
    pub fn drop_object(&self, key: &Key) {
        self.nodes.objects.lock().pop(key);
    }

    /// A member's bytes: afterwards reading waits for no network.
    pub async fn content(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
        number: FileNo,
    ) -> Result<MemberContent, Refusal> {
        let file = *package.members.file(number);
        if file.size <= SMALL_MAX {
            let archive = self.blob(&package.repo, &package.archive).await?;
            return Ok(MemberContent::Small { archive, package: package.clone(), number });
        }
        let key = Key::Member { archive: package.archive.digest, number };
        let node = ContentNode::Member(package.repo.clone(), package.archive.digest, number);
        let of = package.clone();
        let unpack = move |facts: Arc<Facts>| {
            let of = of.clone();
            async move { facts.unpack(&of, number, file).await }
        };
        Ok(MemberContent::Object(self.object(node, key, unpack).await?))
    }

    async fn unpack(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
        number: FileNo,
        file: MemberFile,
    ) -> Result<Object, Refusal> {
        let key = Key::Member { archive: package.archive.digest, number };
        self.nodes.aheads.join(package.archive.digest, number, self.deadline).await;
        let store = self.store.clone();
        if let Some(object) = blocking(move || store.get(&key)).await?? {
            return Ok(object);
        }
        let store = self.store.clone();
        loop {
            let store = store.clone();
            let unpack = move |zip: &Object| unpack_into(&store, &key, zip, &file);
            match self
                .with_archive(&package.repo, &package.archive, &BesideFetch::Nothing, unpack)
                .await?
            {
                Unpacked::Done(object) => return Ok(object),
                // Another process unpacks the same member; its lock ends with it.
                Unpacked::Busy => tokio::time::sleep(Duration::from_millis(50)).await,
                Unpacked::Failed(e) => return Err(e),
            }
        }
    }

    /// Reads from `content`.
    ///
    /// # Errors
    /// `Damaged` if cached bytes are: [`Facts::heal`] fetches them anew. `Integrity` if the archive
    /// itself is wrong about the member, which stays so.
    pub fn read(
        &self,
        content: &MemberContent,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, Refusal> {
        match content {
            MemberContent::Object(object) => Ok(object.read_at(buf, offset)?),
            MemberContent::Bytes(bytes) => Ok(copy_from(bytes, buf, offset)),
            MemberContent::Small { archive, package, number } => {
                Ok(copy_from(&self.inflate(archive, package, *number)?, buf, offset))
            }
        }
    }

    fn inflate(
        &self,
        archive: &Object,
        package: &VerifiedPackage,
        number: FileNo,
    ) -> Result<Arc<[u8]>, Refusal> {
        let key = (package.archive.digest, number);
        if let Some(bytes) = self.nodes.inflated(&key) {
            return Ok(bytes);
        }
        let bytes: Arc<[u8]> = archive::inflate(&Bytes(archive), package.members.file(number))
            .map_err(|e| refused_archive(package.reference(), &e))?
            .into();
        self.nodes.keep_inflated(key, bytes.clone());
        Ok(bytes)
    }

    /// Content again, after [`Facts::read`] found the cached bytes damaged.
    pub async fn heal(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
        number: FileNo,
    ) -> Result<MemberContent, Refusal> {
        self.drop_object(&Key::Blob(package.archive.digest));
        self.drop_object(&Key::Member { archive: package.archive.digest, number });
        self.content(package, number).await
    }
}

/// Copies what is at `offset`; how much that was.
fn copy_from(bytes: &[u8], buf: &mut [u8], offset: u64) -> usize {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let length = buf.len().min(bytes.len() - from);
    buf[..length].copy_from_slice(&bytes[from..from + length]);
    length
}

/// An object as the archive reader reads it.
pub(super) struct Bytes<'a>(pub(super) &'a Object);

impl archive::ReadAt for Bytes<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> std::io::Result<()> {
        while !buf.is_empty() {
            match self.0.read_at(buf, offset).map_err(std::io::Error::other)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }
}

/// Runs `work` where blocking is allowed.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| lost())
}
