//! Writing into image layouts.
//!
//! ```text
//! blob:      .tofufs/RANDOM.part ─ length and digest match ─ fsync ─ rename to blobs/ALGORITHM/HEX ─ directory sync
//! manifest:  its blob likewise ─ lock ─ index.json read, changed, written anew, renamed into place ─ oci-layout
//! ```
//!
//! INVARIANT: at every moment the layout is what it was before or what it is afterwards, whoever
//! dies. `oci-layout`, which makes a directory a repository, is written last. Only `index.json` is
//! ever replaced, under the lock.

use std::os::fd::OwnedFd;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{OFlags, fdatasync};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::super::{BlobSource, Hold, Registry, Removed, Upload, Uploaded};
use super::directory::{INDEX_LOCK, LayoutDirectory, OWN, is_layout};
use super::medium::Medium;
use super::repository::Repository;
use super::{PIECE, RegistryLayout};
use crate::digest::{Digest, Hasher};
use crate::disk::draft::{Draft, clean};
use crate::disk::{lock, make_directory, open_below};
use crate::failure::{Failure, Refusal, Subject};
use crate::name::{Repo, RepoName, Selector, Tag};
use crate::oci::layout::{
    BLOBS, INDEX_FILE, LAYOUT_DOCUMENT, LAYOUT_FILE, LayoutPart, check_version, with_manifest,
};
use crate::oci::{Descriptor, Manifest, ManifestBody};

/// The lock of who decides what a tag is to stand for, from its look at the tag until it has put
/// it.
const TURN: &str = "turn";
/// How many pieces of a blob wait to be hashed and written.
const QUEUE: usize = 16;

#[async_trait]
impl Upload for RegistryLayout {
    async fn put_blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<Uploaded, Refusal> {
        let (repo, wanted) = (self.repo(repo), blob.clone());
        let begun = self.on_disk(move |store| {
            let writer = Writer::open(store, &repo)?;
            if writer.holds(&wanted)? {
                Ok(None)
            } else {
                Ok(Some((writer.draft(&wanted.digest)?, repo)))
            }
        });
        let Some((draft, repo)) = begun.await? else { return Ok(Uploaded::Present) };
        let (tx, rx) = mpsc::channel(QUEUE);
        let (wanted, subject) = (blob.clone(), repo.at(Selector::Digest(blob.digest)));
        let written = self.on_disk(move |store| receive(store, &repo, &wanted, draft, rx));
        let sent = async move {
            let outcome = send(source, blob.size, &tx).await;
            drop(tx);
            outcome
        };
        let (sent, written) = futures_util::future::join(sent, written).await;
        match (sent, written) {
            (Err(Unsent::Source(e)), _) => Err(Refusal::new(
                Failure::Io,
                subject,
                format!("what is to be stored cannot be read: {e}"),
            )),
            (Err(Unsent::TooLong), _) => {
                let rule = format!(
                    "there are more than the {} bytes that its descriptor gives it",
                    blob.size
                );
                Err(Refusal::new(Failure::Integrity, subject, rule))
            }
            (Ok(()) | Err(Unsent::NotTaken), written) => written.map(|()| Uploaded::Sent),
        }
    }

    async fn put_manifest(
        &self,
        repo: &RepoName,
        selector: &Selector,
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        let (repo, selector, manifest) = (self.repo(repo), selector.clone(), manifest.clone());
        let deadline = self.deadline;
        self.on_disk(move |store| {
            Writer::open(store, &repo)?.put_manifest(&selector, &manifest, deadline)
        })
        .await
    }

    fn is_whole(&self) -> bool {
        false
    }

    async fn present(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<Option<Digest>, Refusal> {
        let (repo, wanted) = (self.repo(repo), selector.clone());
        let found = self.on_disk(move |store| {
            let repository = Repository::open(store, &repo)?;
            match &wanted {
                Selector::Tag(tag) => repository.tagged(tag).map(|entry| entry.digest),
                Selector::Digest(digest) => repository.manifest(&wanted).map(|_| *digest),
            }
        });
        match (found.await, selector) {
            (Ok(digest), _) => Ok(Some(digest)),
            (Err(e), _) if e.failure == Failure::Absent => Ok(None),
            // Bytes that are not the manifest are none, and can be written again.
            (Err(e), Selector::Digest(_)) if e.failure == Failure::Integrity => Ok(None),
            (Err(e), _) => Err(e),
        }
    }

    async fn tags_now(&self, repo: &RepoName, _: Option<&str>) -> Result<Vec<Tag>, Refusal> {
        match self.tags(repo).await {
            Err(e) if e.failure == Failure::Absent => Ok(Vec::new()),
            tags => tags,
        }
    }

    async fn remove(&self, _: &RepoName, _: &Digest) -> Result<Removed, Refusal> {
        Ok(Removed::Refused)
    }

    async fn hold(&self, repo: &RepoName) -> Result<Option<Hold>, Refusal> {
        let (repo, deadline) = (self.repo(repo), self.deadline);
        let lock = self.on_disk(move |store| {
            let writer = Writer::open(store, &repo)?;
            writer.lock(&writer.own()?, TURN, &repo, deadline)
        });
        Ok(Some(Hold(lock.await?)))
    }
}

/// Why not all of a blob was sent to who writes it.
enum Unsent {
    Source(std::io::Error),
    TooLong,
    NotTaken,
}

/// Sends `size` bytes of `source`, and `None` when they were all of it.
async fn send(
    source: &dyn BlobSource,
    size: u64,
    tx: &mpsc::Sender<Option<Bytes>>,
) -> Result<(), Unsent> {
    let mut at = 0;
    loop {
        let want = (size - at).min(PIECE as u64).max(1) as usize;
        let piece = source.read_at(at, want).await.map_err(Unsent::Source)?;
        if piece.is_empty() {
            return tx.send(None).await.map_err(|_| Unsent::NotTaken);
        }
        at += piece.len() as u64;
        if at > size {
            return Err(Unsent::TooLong);
        }
        tx.send(Some(piece)).await.map_err(|_| Unsent::NotTaken)?;
    }
}

/// Writes what comes, and publishes it if it came to its end and is what `blob` says.
fn receive(
    store: &LayoutDirectory,
    repo: &Repo,
    blob: &Descriptor,
    mut draft: Draft,
    mut rx: mpsc::Receiver<Option<Bytes>>,
) -> Result<(), Refusal> {
    let subject = repo.at(Selector::Digest(blob.digest));
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let mut length = 0;
    let mut ended = false;
    while let Some(piece) = rx.blocking_recv() {
        let Some(piece) = piece else {
            ended = true;
            break;
        };
        hasher.update(&piece);
        length += piece.len() as u64;
        draft.write(&piece).map_err(|e| not_written(store, &subject, e))?;
    }
    let refused = |rule| Err(Refusal::new(Failure::Integrity, &subject, rule));
    if !ended {
        return refused("the transfer was given up".to_owned());
    }
    if length != blob.size {
        return refused(format!("there are {length} bytes; its descriptor says {}", blob.size));
    }
    let got = hasher.finish();
    if got != blob.digest {
        return refused(format!("the bytes have the digest {got}"));
    }
    Writer::open(store, repo)?.publish(draft, &blob.digest)
}

/// A repository's directory, made where it was missing, whether or not it is a layout yet.
struct Writer<'a> {
    store: &'a LayoutDirectory,
    repo: Repo,
    dir: OwnedFd,
}

impl<'a> Writer<'a> {
    fn open(store: &'a LayoutDirectory, repo: &Repo) -> Result<Self, Refusal> {
        if store.only.is_some() {
            let dir = open_below(&store.root, ".", OFlags::DIRECTORY)
                .map_err(|e| not_written(store, repo, e))?;
            return Ok(Writer { store, repo: repo.clone(), dir });
        }
        let mut layout = false;
        let mut dir = make_directory(&store.root, repo.host.as_str())
            .map_err(|e| not_written(store, repo, e))?;
        for component in repo.name.components() {
            if layout && component == BLOBS {
                let rule = format!(
                    "the name lies in the blobs of another repository in the store {}",
                    store.name()
                );
                return Err(
                    Refusal::new(Failure::Structure, repo, rule).remedy("choose another name")
                );
            }
            dir = make_directory(&dir, component).map_err(|e| not_written(store, repo, e))?;
            layout = is_layout(&dir).map_err(|e| not_written(store, repo, e))?;
        }
        Ok(Writer { store, repo: repo.clone(), dir })
    }

    fn failed(&self, e: Errno) -> Refusal {
        not_written(self.store, &self.repo, e)
    }

    fn own(&self) -> Result<OwnedFd, Refusal> {
        make_directory(&self.dir, OWN).map_err(|e| self.failed(e))
    }

    /// A file to write the blob `digest` into.
    fn draft(&self, digest: &Digest) -> Result<Draft, Refusal> {
        let subject = self.repo.at(Selector::Digest(*digest));
        Draft::new(self.own()?, "").map_err(|e| not_written(self.store, subject, e))
    }

    /// Gives a blob that was written its name.
    fn publish(&self, draft: Draft, digest: &Digest) -> Result<(), Refusal> {
        let published = make_directory(&self.dir, BLOBS)
            .and_then(|blobs| make_directory(&blobs, digest.algorithm().name()))
            .and_then(|dir| draft.publish(&dir, &digest.hex()));
        published.map_err(|e| not_written(self.store, self.repo.at(Selector::Digest(*digest)), e))
    }

    /// Whether the blob is there with its own bytes, safe from a power loss.
    fn holds(&self, blob: &Descriptor) -> Result<bool, Refusal> {
        let Ok((file, length)) = self.store.open(&self.dir, LayoutPart::Blob(blob.digest)) else {
            return Ok(false);
        };
        if length != blob.size {
            return Ok(false);
        }
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let mut at = 0;
        while at < length {
            match self.store.read(&file, at, PIECE) {
                Ok(piece) if !piece.is_empty() => {
                    hasher.update(&piece);
                    at += piece.len() as u64;
                }
                _ => return Ok(false),
            }
        }
        if hasher.finish() != blob.digest {
            return Ok(false);
        }
        fdatasync(&file).map_err(|e| self.failed(e))?;
        Ok(true)
    }

    fn put_manifest(
        &self,
        selector: &Selector,
        manifest: &Manifest,
        deadline: Duration,
    ) -> Result<(), Refusal> {
        let subject = self.repo.at(selector.clone());
        let (digest, tag) = match selector {
            Selector::Digest(digest) => (*digest, None),
            Selector::Tag(tag) => (manifest.digest, Some(tag)),
        };
        let got = Digest::of_with(digest.algorithm(), &manifest.raw);
        if got != digest {
            let rule = format!("the manifest's digest is {got}; expected {digest}");
            return Err(Refusal::new(Failure::Integrity, subject, rule));
        }
        self.check_layers(&subject, manifest)?;
        let own = self.own()?;
        let _lock = self.lock(&own, INDEX_LOCK, &subject, deadline)?;
        clean(&own, "");
        self.put_blob(&digest, &manifest.raw)?;
        self.put_documents(manifest, digest, tag)
    }

    fn lock(
        &self,
        own: &OwnedFd,
        name: &str,
        subject: impl Into<Subject>,
        deadline: Duration,
    ) -> Result<OwnedFd, Refusal> {
        lock::take(own, name, deadline).map_err(|e| match e {
            lock::NotLocked::Failed(e) => self.failed(e),
            lock::NotLocked::TimedOut => {
                let rule = format!(
                    "another process holds the lock {}/{OWN}/{name} in the store {} for more than \
                     {deadline:?}",
                    self.repo,
                    self.store.name()
                );
                Refusal::new(Failure::TimedOut, subject, rule)
                    .remedy("wait until it has ended, or end it: the lock goes with its process")
            }
        })
    }

    /// What an image names has to be there. An index may name more than the store holds.
    fn check_layers(
        &self,
        subject: impl Into<Subject>,
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        let ManifestBody::Image(layers) = &manifest.body else { return Ok(()) };
        for layer in layers {
            let held = self.store.open(&self.dir, LayoutPart::Blob(layer.digest));
            if !held.is_ok_and(|(_, length)| length == layer.size) {
                let rule = format!(
                    "the manifest names {}, which the store {} lacks",
                    layer.digest,
                    self.store.name()
                );
                return Err(
                    Refusal::new(Failure::Integrity, subject, rule).remedy("store its blobs first")
                );
            }
        }
        Ok(())
    }

    fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Refusal> {
        let blob = Descriptor::bare(*digest, bytes.len() as u64);
        if self.holds(&blob)? {
            return Ok(());
        }
        let mut draft = self.draft(digest)?;
        draft.write(bytes).map_err(|e| self.failed(e))?;
        self.publish(draft, digest)
    }

    /// Brings `index.json` and `oci-layout` up to date. The lock is held.
    fn put_documents(
        &self,
        manifest: &Manifest,
        digest: Digest,
        tag: Option<&crate::name::Tag>,
    ) -> Result<(), Refusal> {
        let place = self
            .dir
            .try_clone()
            .map_err(|e| self.failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        let layout = Repository { medium: self.store, repo: self.repo.clone(), place };
        let version = layout.document(LayoutPart::Version)?;
        if let Some(version) = &version {
            check_version(version).map_err(|e| layout.refused(LAYOUT_FILE, e))?;
        }
        let index = layout.document(LayoutPart::Index)?;
        let changed = with_manifest(index.as_deref(), manifest, digest, tag);
        if let Some(index) = changed.map_err(|e| layout.refused(INDEX_FILE, e))? {
            self.replace(INDEX_FILE, &index)?;
        }
        match version {
            Some(_) => Ok(()),
            None => self.replace(LAYOUT_FILE, LAYOUT_DOCUMENT),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let mut draft = Draft::new(self.own()?, "").map_err(|e| self.failed(e))?;
        draft.write(bytes).and_then(|()| draft.publish(&self.dir, name)).map_err(|e| self.failed(e))
    }
}

/// What it means that a part of the store was not written.
pub(super) fn not_written(
    store: &LayoutDirectory,
    subject: impl Into<Subject>,
    e: Errno,
) -> Refusal {
    let store = store.name();
    match e {
        Errno::NOSPC | Errno::DQUOT => Refusal::new(
            Failure::NoSpace,
            subject,
            format!("the disk of the store {store} is full: {e}"),
        )
        .remedy("free space there, and try again: what was stored stays"),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Refusal::new(
            Failure::Denied,
            subject,
            format!("the store {store} cannot be written: {e}"),
        )
        .remedy("let the user who runs tofufs write there"),
        Errno::LOOP | Errno::XDEV | Errno::NOTDIR => {
            let rule = format!(
                "its place in the store {store} is, or lies behind, a symbolic link or a file"
            );
            Refusal::new(Failure::Structure, subject, rule).remedy("move that away")
        }
        e => Refusal::new(
            Failure::Io,
            subject,
            format!("writing into the store {store} failed: {e}"),
        ),
    }
}
