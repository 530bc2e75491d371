//! What does not change: archives, packages and members, each named by a digest. Once they are in
//! the store, no registry is asked for them again.

mod packages;

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::admit::admitted::Admitted;
use super::blocking::blocking;
use super::error::{lost, refused_archive};
use super::fetch::Fetcher;
use super::package::{MemberContent, SMALL_MAX, StoredArchive, VerifiedPackage};
use super::prefetch::{BesideFetch, Prefetch, Prefetches, Unpacking};
use super::recent_failures::RecentFailures;
use super::running::Download;
use super::unpack::{Unpacked, unpack_into};
use crate::archive::{self, ArchiveError};
use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::members::{FileNo, MemberFile, Members};
use crate::name::{Repo, Selector};
use crate::oci::Descriptor;
use crate::store::{Key, Object};
use packages::{KnownPackages, PackageKey, key_of};

/// How many bytes of inflated small members are kept for the next read of the same file.
const SMALL_KEPT: u64 = 16 << 20;
/// What such a member takes beside its bytes: many have fewer.
const SMALL_BYTES: u64 = 256;
/// How many objects are kept open after their use, each of which costs a descriptor: their next use
/// opens and checks nothing.
const OPEN_MAX: usize = 64;
/// Which part of the cache's limit they may take: one of so many. The store evicts nothing that is
/// open.
const OPEN_PART: u64 = 8;

/// What is loaded from a registry, or made of what was.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum ContentKey {
    Package(PackageKey),
    Blob(PackageKey),
    Member(Repo, Digest, FileNo),
}

/// An archive in the store, and what is in it.
type ReadArchive = (Object, Members);

type Inflated = Bounded<(Digest, FileNo), Arc<[u8]>>;

/// See the module.
pub struct Content {
    fetcher: Arc<Fetcher>,
    packages: KnownPackages,
    /// Those that are kept open.
    objects: Mutex<Bounded<Key, Object>>,
    /// Small members that were inflated.
    inflated: Mutex<Inflated>,
    failures: RecentFailures<ContentKey>,
    package_flights: Flights<PackageKey, Arc<VerifiedPackage>, Refusal>,
    object_flights: Flights<ContentKey, Object, Refusal>,
    /// Unpacking and indexing: as many at a time as there are cores.
    cores: Arc<Semaphore>,
    prefetches: Arc<Prefetches>,
}

impl Content {
    pub(super) fn new(fetcher: Arc<Fetcher>) -> Content {
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let open_bytes = fetcher.store.limit() / OPEN_PART;
        let small_weight = |bytes: &Arc<[u8]>| SMALL_BYTES + bytes.len() as u64;
        Content {
            packages: KnownPackages::new(),
            objects: Mutex::new(Bounded::weighed(OPEN_MAX, open_bytes, Object::len)),
            inflated: Mutex::new(Bounded::weighed(usize::MAX, SMALL_KEPT, small_weight)),
            failures: RecentFailures::default(),
            package_flights: Flights::new(fetcher.deadline, |_| lost()),
            object_flights: Flights::new(fetcher.deadline, |_| lost()),
            cores: Arc::new(Semaphore::new(cores)),
            prefetches: Prefetches::new(cores),
            fetcher,
        }
    }

    pub(super) fn forget_failures(&self) {
        self.failures.clear();
    }

    /// The downloads that are under way, in the order in which they began.
    pub fn downloads(&self) -> Vec<Download> {
        self.fetcher.running.downloads()
    }

    /// The package in an archive: fetched whole, verified, its index read. Of several that ask for
    /// it at once the first says when it is unpacked.
    ///
    /// # Errors
    /// The archive is not to be had, or it is refused.
    pub async fn package(
        self: &Arc<Self>,
        admitted: &Admitted,
        repo: &Repo,
        archive: &Descriptor,
        unpacking: Unpacking,
    ) -> Result<Arc<VerifiedPackage>, Refusal> {
        self.package_of(admitted, repo, archive, (unpacking, None)).await
    }

    /// The same for who may not have leave yet: what the cache holds of the archive is read while
    /// leave is asked for, and given to nobody before it is there.
    ///
    /// # Errors
    /// As of [`Content::package`], or there is no leave.
    pub async fn package_by_leave(
        self: &Arc<Self>,
        leave: impl Future<Output = Result<Admitted, Refusal>>,
        repo: &Repo,
        archive: &Descriptor,
        unpacking: Unpacking,
    ) -> Result<Arc<VerifiedPackage>, Refusal> {
        let mut leave = pin!(leave);
        let looked = poll_fn(|task| Poll::Ready(leave.as_mut().poll(task))).await;
        let (admitted, read) = match looked {
            Poll::Ready(admitted) => (admitted, None),
            Poll::Pending => tokio::join!(leave, self.read_stored(archive)),
        };
        self.package_of(&admitted?, repo, archive, (unpacking, read)).await
    }

    async fn package_of(
        self: &Arc<Self>,
        admitted: &Admitted,
        repo: &Repo,
        archive: &Descriptor,
        (unpacking, read): (Unpacking, Option<ReadArchive>),
    ) -> Result<Arc<VerifiedPackage>, Refusal> {
        let key = key_of(repo, archive).admitted_as(admitted);
        if let Some(package) = self.packages.get(&key) {
            return Ok(package);
        }
        let failing = ContentKey::Package(key.clone());
        self.failures.check(&failing)?;
        let (content, of, archive, at) = (self.clone(), repo.clone(), archive.clone(), key.clone());
        let (digest, admitted) = (archive.digest, admitted.clone());
        let load = move || async move {
            let read = match read {
                Some(read) => Some(read),
                None => content.read_stored(&archive).await,
            };
            let outcome = match read {
                Some((zip, members)) => {
                    content.objects.lock().put(zip.key(), zip);
                    Ok(Arc::new(VerifiedPackage { admitted, repo: of, archive, members }))
                }
                None => content.load_package(admitted, of, archive, unpacking).await,
            };
            if let Ok(package) = &outcome {
                content.packages.keep(at, package);
            }
            content.failures.note(failing, &outcome);
            outcome
        };
        let flight = self.package_flights.join(key, load);
        self.fetcher.running.waited_for(digest, flight).await
    }

    /// What the store holds of an archive, and its index. `None` where it holds nothing of it, or
    /// something is wrong: then it is for [`Content::load_package`] to say or mend what.
    async fn read_stored(&self, archive: &Descriptor) -> Option<ReadArchive> {
        let permit = self.cores.clone().acquire_owned().await;
        let (store, limits) = (self.fetcher.store.clone(), self.fetcher.limits);
        let (key, size) = (Key::Blob(archive.digest), archive.size);
        let read = move || {
            let _permit = permit;
            // A look at what is not there yet is no miss: whoever fetches it counts that.
            store.stored(&key).filter(|stored| *stored == size)?;
            let zip = store.get(&key).ok()??;
            let members = archive::index(&StoredArchive(&zip), &limits).ok()?;
            Some((zip, members))
        };
        blocking(read).await.ok().flatten()
    }

    async fn load_package(
        self: &Arc<Self>,
        admitted: Admitted,
        repo: Repo,
        archive: Descriptor,
        unpacking: Unpacking,
    ) -> Result<Arc<VerifiedPackage>, Refusal> {
        let limits = self.fetcher.limits;
        let index =
            move |zip: &Object| Ok((zip.clone(), archive::index(&StoredArchive(zip), &limits)?));
        let ahead = Prefetch::new(&self.prefetches, archive.digest);
        let beside = match unpacking {
            Unpacking::WhenOpened => BesideFetch::Nothing,
            Unpacking::Ahead => BesideFetch::Unpacking(ahead.clone()),
        };
        let (zip, members) = self.with_archive(&repo, &archive, &beside, index).await?;
        let package = Arc::new(VerifiedPackage { admitted, repo, archive, members });
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
            let permit = self.cores.clone().acquire_owned().await;
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

    /// A blob of a release in `repo`: from the store, or fetched and verified.
    pub async fn blob(
        self: &Arc<Self>,
        _: &Admitted,
        repo: &Repo,
        blob: &Descriptor,
    ) -> Result<Object, Refusal> {
        self.blob_with(repo, blob, &BesideFetch::Nothing).await
    }

    /// A blob that speaks about a manifest, whether or not anybody vouches for it.
    pub(super) async fn unvouched(
        self: &Arc<Self>,
        repo: &Repo,
        blob: &Descriptor,
    ) -> Result<Object, Refusal> {
        self.blob_with(repo, blob, &BesideFetch::Nothing).await
    }

    async fn blob_with(
        self: &Arc<Self>,
        repo: &Repo,
        blob: &Descriptor,
        beside: &BesideFetch,
    ) -> Result<Object, Refusal> {
        let (of, wanted, beside) = (repo.clone(), blob.clone(), beside.clone());
        let fetch = move |content: Arc<Content>| {
            let (of, wanted, beside) = (of.clone(), wanted.clone(), beside.clone());
            async move { content.fetcher.blob(&of, &wanted, &beside).await }
        };
        let got = self.object(ContentKey::Blob(key_of(repo, blob)), Key::Blob(blob.digest), fetch);
        let object = self.fetcher.running.waited_for(blob.digest, got).await?;
        of_size(repo, blob, object)
    }

    /// The object of `key`: the one that is kept open, or what `get` gets, once for all who ask for
    /// `wanted` meanwhile.
    async fn object<W>(
        self: &Arc<Self>,
        wanted: ContentKey,
        key: Key,
        get: impl Fn(Arc<Content>) -> W + Send + 'static,
    ) -> Result<Object, Refusal>
    where
        W: Future<Output = Result<Object, Refusal>> + Send + 'static,
    {
        if let Some(object) = self.objects.lock().get(&key) {
            return Ok(object.clone());
        }
        self.failures.check(&wanted)?;
        let (content, flight) = (self.clone(), wanted.clone());
        let load = move || async move {
            let mut outcome = get(content.clone()).await;
            if content.gives_way(&outcome) {
                outcome = get(content.clone()).await;
            }
            if let Ok(object) = &outcome {
                content.objects.lock().put(key, object.clone());
            }
            content.failures.note(wanted, &outcome);
            outcome
        };
        self.object_flights.join(flight, load).await
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

    /// Closes the kept object of `key`, so that the next use opens (and checks, or fetches) it
    /// anew.
    pub fn drop_object(&self, key: &Key) {
        self.objects.lock().remove(key);
    }

    /// A member's bytes: afterwards reading waits for no network.
    ///
    /// # Errors
    /// They are not to be had.
    pub async fn open(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
        number: FileNo,
    ) -> Result<MemberContent, Refusal> {
        let file = *package.members.file(number);
        if file.size <= SMALL_MAX {
            let archive = self.blob(&package.admitted, &package.repo, &package.archive).await?;
            return Ok(MemberContent::Small { archive, package: package.clone(), number });
        }
        let key = Key::Member { archive: package.archive.digest, number };
        let wanted = ContentKey::Member(package.repo.clone(), package.archive.digest, number);
        let of = package.clone();
        let unpack = move |content: Arc<Content>| {
            let of = of.clone();
            async move { content.unpack(&of, number, file).await }
        };
        Ok(MemberContent::Object(self.object(wanted, key, unpack).await?))
    }

    async fn unpack(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
        number: FileNo,
        file: MemberFile,
    ) -> Result<Object, Refusal> {
        let key = Key::Member { archive: package.archive.digest, number };
        self.prefetches.join(package.archive.digest, number, self.fetcher.deadline).await;
        let store = self.fetcher.store.clone();
        if let Some(object) = blocking(move || store.get(&key)).await?? {
            return Ok(object);
        }
        let store = self.fetcher.store.clone();
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
    /// `Damaged` if cached bytes are: [`Content::heal`] fetches them anew. `Integrity` if the
    /// archive itself is wrong about the member, which stays so.
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
        if let Some(bytes) = self.inflated.lock().get(&key) {
            return Ok(bytes.clone());
        }
        let bytes: Arc<[u8]> =
            archive::inflate(&StoredArchive(archive), package.members.file(number))
                .map_err(|e| refused_archive(package.reference(), &e))?
                .into();
        self.inflated.lock().put(key, bytes.clone());
        Ok(bytes)
    }

    /// Content again, after [`Content::read`] found the cached bytes damaged.
    pub async fn heal(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
        number: FileNo,
    ) -> Result<MemberContent, Refusal> {
        self.drop_object(&Key::Blob(package.archive.digest));
        self.drop_object(&Key::Member { archive: package.archive.digest, number });
        self.open(package, number).await
    }

    /// The `h1:` hashes of a package: of the tree that a client would unpack, and of the archive.
    /// Fetches the package if it is not cached, and reads all of it.
    pub async fn hashes(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
    ) -> Result<archive::Hashes, Refusal> {
        let (limits, of) = (self.fetcher.limits, package.clone());
        let hash = move |zip: &Object| archive::hashes(&StoredArchive(zip), &of.members, &limits);
        self.with_archive(&package.repo, &package.archive, &BesideFetch::Nothing, hash).await
    }

    /// All bytes of a member, which has to fit into memory.
    pub async fn contents(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
        number: FileNo,
    ) -> Result<Vec<u8>, Refusal> {
        let mut content = self.open(package, number).await?;
        let mut healed = false;
        loop {
            let (reader, read, size) =
                (self.clone(), content.clone(), package.members.file(number).size);
            match blocking(move || reader.read_all(&read, size)).await? {
                Err(e) if e.failure == Failure::Damaged && !healed => {
                    healed = true;
                    content = self.heal(package, number).await?;
                }
                outcome => return outcome,
            }
        }
    }

    fn read_all(&self, content: &MemberContent, size: u64) -> Result<Vec<u8>, Refusal> {
        let mut all = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        let mut at = 0;
        while at < all.len() {
            match self.read(content, &mut all[at..], at as u64)? {
                0 => break,
                n => at += n,
            }
        }
        all.truncate(at);
        Ok(all)
    }
}

/// A digest names one length; a descriptor that gives another one lies.
fn of_size(repo: &Repo, blob: &Descriptor, object: Object) -> Result<Object, Refusal> {
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

/// Copies what is at `offset`; how much that was.
fn copy_from(bytes: &[u8], buf: &mut [u8], offset: u64) -> usize {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let length = buf.len().min(bytes.len() - from);
    buf[..length].copy_from_slice(&bytes[from..from + length]);
    length
}
