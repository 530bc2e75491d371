//! The one place where bytes enter: from a registry, unverified, into a fill of the store, which
//! publishes them only if they are what their digest says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::blocking::blocking;
use super::error::lost;
use super::prefetch::BesideFetch;
use super::registries::JoinedRegistries;
use super::running::{Running, RunningTransfer};
use crate::archive::Limits;
use crate::artifact::{ReleaseDocument, ReleaseSums};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal, Subject};
use crate::name::{Reference, Repo, Selector};
use crate::oci::{Descriptor, Manifest};
use crate::registry::{BlobError, BlobSink, DocumentKind, RawManifest, SinkError};
use crate::store::{Begin, Fill, Key, Object, Store};

/// How many pieces of a transfer wait to be hashed and written.
const QUEUE: usize = 16;
/// How often a fill in another process is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The document of a release that was fetched.
pub(super) struct FetchedDocument {
    pub(super) digest: Digest,
    /// Its parsed view, or why the document is refused. A refused document has a digest all the
    /// same, since a tag that stands for it can be listed and asked for the reason.
    pub(super) document: Result<ReleaseDocument, Refusal>,
    /// The signature of a provider registry's sums.
    pub(super) signature: Option<Arc<[u8]>>,
}

/// The object, or the right to fill it.
enum FetchStart {
    Present(Object),
    Fill(Box<Fill>),
}

/// The way from the registries into the store.
pub(super) struct Fetcher {
    pub(super) store: Arc<Store>,
    pub(super) registries: Arc<JoinedRegistries>,
    /// How long another fill of the same blob may make no progress.
    pub(super) deadline: Duration,
    pub(super) limits: Limits,
    /// The transfers that are under way.
    pub(super) running: Arc<Running>,
}

impl Fetcher {
    /// Fetches and verifies the document of a release, and keeps it in the store.
    pub(super) async fn document(
        &self,
        repo: &Repo,
        selector: &Selector,
    ) -> Result<FetchedDocument, Refusal> {
        let subject = repo.at(selector.clone());
        let registry = self.registries.reached(&repo.host)?.registry.clone();
        let raw = registry.manifest(&repo.name, selector).await?;
        let digest = match selector {
            Selector::Digest(wanted) => *wanted,
            Selector::Tag(_) => Digest::of(&raw.bytes),
        };
        let expected = match selector {
            Selector::Digest(wanted) => Some(*wanted),
            Selector::Tag(_) => raw.claimed,
        };
        if let Some(expected) = expected {
            let got = Digest::of_with(expected.algorithm(), &raw.bytes);
            if got != expected {
                return Err(Refusal::new(
                    Failure::Integrity,
                    subject,
                    format_args!("the manifest's digest is {got}; expected {expected}"),
                ));
            }
        }
        let document = read(&raw, digest, &subject);
        let signature = match &raw.kind {
            DocumentKind::Sums { signature, .. } => signature.clone(),
            DocumentKind::Manifest => None,
        };
        if document.is_ok() {
            let store = self.store.clone();
            let kept = blocking(move || keep(&store, digest, &raw.bytes)).await?;
            if let Err(e) = kept {
                tracing::warn!("{subject} ({digest}) is served without being kept: {e}");
            }
        }
        Ok(FetchedDocument { digest, document, signature })
    }

    /// A blob from the store, or from the registry into the store.
    pub(super) async fn blob(
        self: &Arc<Self>,
        repo: &Repo,
        blob: &Descriptor,
        beside: &BesideFetch,
    ) -> Result<Object, Refusal> {
        let subject = repo.at(Selector::Digest(blob.digest));
        let limit = self.limits.archive;
        if blob.size > limit {
            return Err(Refusal::new(
                Failure::TooLarge,
                subject,
                format_args!(
                    "the archive has {} bytes; the limit for archives is {limit}, and \
                     --archive-max-size raises it",
                    blob.size
                ),
            ));
        }
        let mut tried = false;
        loop {
            let fill = match self.begin(&subject, blob).await? {
                FetchStart::Present(object) => return Ok(object),
                FetchStart::Fill(fill) => fill,
            };
            match self.transfer(repo, blob, fill, beside).await {
                // Wrong bytes get one more chance: a fault on the way is likelier than a lying
                // registry.
                Err(e) if e.failure == Failure::Integrity && !tried => {
                    tracing::warn!("{e}; fetching it once more");
                    tried = true;
                }
                outcome => return outcome,
            }
        }
    }

    /// Waits while another fill of the blob makes progress: of another process, or of the same blob
    /// in another repository.
    async fn begin(&self, subject: &Reference, blob: &Descriptor) -> Result<FetchStart, Refusal> {
        let (mut seen, mut moved) = (None, Instant::now());
        loop {
            let (store, key, size) = (self.store.clone(), Key::Blob(blob.digest), blob.size);
            match blocking(move || store.begin(&key, size)).await?? {
                Begin::Present(object) => return Ok(FetchStart::Present(object)),
                Begin::Fill(fill) => return Ok(FetchStart::Fill(Box::new(fill))),
                Begin::Busy { bytes } => {
                    if seen != Some(bytes) {
                        (seen, moved) = (Some(bytes), Instant::now());
                    } else if moved.elapsed() > self.deadline {
                        return Err(Refusal::new(
                            Failure::TimedOut,
                            subject,
                            format_args!(
                                "it is being fetched already, for another repository or by \
                                 another process that shares this cache, but without progress for \
                                 {:?}",
                                self.deadline
                            ),
                        ));
                    }
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    /// One transfer: the registry's side here, hashing and writing on a thread of their own, a
    /// bounded queue between.
    async fn transfer(
        self: &Arc<Self>,
        repo: &Repo,
        blob: &Descriptor,
        fill: Box<Fill>,
        beside: &BesideFetch,
    ) -> Result<Object, Refusal> {
        let subject = repo.at(Selector::Digest(blob.digest));
        let (fetcher, beside, position) = (self.clone(), beside.clone(), fill.position());
        let entered = self.running.begin(subject.to_string(), blob.digest, blob.size, position);
        let progress = entered.transfer().clone();
        let mut pipe = Pipe { fetcher, beside, position, progress, end: FetchEnd::Idle(fill) };
        let registry = self.registries.reached(&repo.host)?.registry.clone();
        let sent = registry.blob(&repo.name, blob, &mut pipe).await;
        // Where writing has failed, sending failed for that reason.
        let fill = pipe.close().await?;
        sent.map_err(|e| match e {
            BlobError::Registry(e) => e,
            BlobError::Sink(e) => Refusal::new(Failure::Io, subject.clone(), e),
        })?;
        let published = blocking(move || fill.publish()).await?;
        published.map_err(|e| match e.failure {
            Failure::Integrity => e.about(subject),
            _ => e,
        })
    }
}

fn read(
    raw: &RawManifest,
    digest: Digest,
    subject: &Reference,
) -> Result<ReleaseDocument, Refusal> {
    let about = match &subject.selector {
        Selector::Digest(_) => subject.into(),
        Selector::Tag(_) => Subject::Manifest(subject.clone(), digest),
    };
    match &raw.kind {
        DocumentKind::Manifest => {
            Manifest::parse(raw.bytes.clone(), digest, raw.content_type.as_deref())
                .map(|manifest| ReleaseDocument::Manifest(Arc::new(manifest)))
                .map_err(|e| e.about(about))
        }
        DocumentKind::Sums { outcome, .. } => ReleaseSums::parse(raw.bytes.to_vec())
            .map(|sums| ReleaseDocument::Sums { sums: Arc::new(sums), signature: *outcome })
            .map_err(|rule| Refusal::new(Failure::Structure, about, rule)),
    }
}

fn keep(store: &Arc<Store>, digest: Digest, bytes: &[u8]) -> Result<(), Refusal> {
    match store.begin(&Key::Blob(digest), bytes.len() as u64)? {
        Begin::Present(_) | Begin::Busy { .. } => Ok(()),
        Begin::Fill(mut fill) => {
            fill.restart()?;
            fill.write(bytes)?;
            fill.publish().map(drop)
        }
    }
}

enum Piece {
    Bytes(Bytes),
    Restart,
}

/// The way of a transfer's bytes into a fill. It takes a thread from the first of them on: the
/// threads are few, and many transfers may wait for a registry that serves few at a time, or is
/// silent.
struct Pipe {
    fetcher: Arc<Fetcher>,
    beside: BesideFetch,
    position: u64,
    progress: Arc<RunningTransfer>,
    end: FetchEnd,
}

enum FetchEnd {
    Idle(Box<Fill>),
    Writing { tx: mpsc::Sender<Piece>, writer: JoinHandle<Result<Box<Fill>, Refusal>> },
    Closed,
}

impl Pipe {
    async fn pass(&mut self, piece: Piece) -> Result<(), SinkError> {
        self.end = match std::mem::replace(&mut self.end, FetchEnd::Closed) {
            FetchEnd::Idle(mut fill) => {
                let (tx, rx) = mpsc::channel(QUEUE);
                let (fetcher, beside) = (self.fetcher.clone(), self.beside.clone());
                let write = move || {
                    beside.follow(&fetcher.store, &fetcher.limits, &mut fill);
                    write_all(fill, rx)
                };
                FetchEnd::Writing { tx, writer: tokio::task::spawn_blocking(write) }
            }
            other => other,
        };
        match &self.end {
            FetchEnd::Writing { tx, .. } => tx.send(piece).await.map_err(|_| SinkError),
            _ => Err(SinkError),
        }
    }

    /// The fill, when all that was passed is written.
    async fn close(mut self) -> Result<Box<Fill>, Refusal> {
        match std::mem::replace(&mut self.end, FetchEnd::Closed) {
            FetchEnd::Idle(fill) => Ok(fill),
            FetchEnd::Writing { tx, writer } => {
                drop(tx);
                Ok(writer.await.map_err(|_| lost())??)
            }
            FetchEnd::Closed => Err(lost()),
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Dropping a fill looks at the disk.
        if let FetchEnd::Idle(fill) = std::mem::replace(&mut self.end, FetchEnd::Closed) {
            drop(tokio::task::spawn_blocking(move || drop(fill)));
        }
    }
}

#[async_trait]
impl BlobSink for Pipe {
    fn position(&self) -> u64 {
        self.position
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        let length = chunk.len() as u64;
        self.pass(Piece::Bytes(chunk)).await?;
        self.position += length;
        self.progress.reached(self.position);
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.pass(Piece::Restart).await?;
        self.position = 0;
        self.progress.reached(0);
        Ok(())
    }
}

fn write_all(mut fill: Box<Fill>, mut rx: mpsc::Receiver<Piece>) -> Result<Box<Fill>, Refusal> {
    while let Some(piece) = rx.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => fill.write(&bytes)?,
            Piece::Restart => fill.restart()?,
        }
    }
    Ok(fill)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{MountSource, RegistryKind};
    use crate::memory::{Call, MemoryRegistry};

    /// Sends one blob, and is silent about all others.
    fn silent_but_for(repo: &str, sent: &[u8]) -> MemoryRegistry {
        let (registry, digest) = (MemoryRegistry::default(), Digest::of(sent));
        registry.add_blob(repo, sent);
        registry.wait(move |call| match call {
            Call::Blob(asked) if asked == digest => Box::pin(std::future::ready(Ok(()))),
            _ => Box::pin(std::future::pending()),
        });
        registry
    }

    fn descriptor(content: &[u8]) -> Descriptor {
        Descriptor::bare(Digest::of(content), content.len() as u64)
    }

    /// However many transfers wait for a silent registry, threads are left for who reads from the
    /// cache.
    #[test]
    fn a_transfer_without_bytes_holds_no_thread() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(crate::store::StoreOptions { dir: dir.path().to_owned(), limit: 1 << 30 })
                .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (host, sent) =
            ("registry.example".parse::<crate::name::Host>().unwrap(), Bytes::from_static(b"sent"));
        let registry = Arc::new(silent_but_for("acme/net", &sent));
        let name = host.to_string();
        let _entered = runtime.enter();
        let source = MountSource::Registry {
            host: host.clone(),
            kind: RegistryKind::Oci,
            prefix: None,
            registry,
            name,
        };
        let fetcher = Arc::new(Fetcher {
            store,
            registries: Arc::new(JoinedRegistries::new(vec![source], false)),
            deadline: Duration::from_secs(60),
            limits: Limits::default(),
            running: Arc::default(),
        });
        let repo = Repo { host, name: "acme/net".parse().unwrap() };
        runtime.block_on(async {
            let (silent, answered) = (descriptor(b"silent"), descriptor(&sent));
            let mut waiting = Box::pin(fetcher.blob(&repo, &silent, &BesideFetch::Nothing));
            let begun = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
            assert!(begun.is_err(), "a silent registry sends nothing");
            let object = tokio::time::timeout(
                Duration::from_secs(20),
                fetcher.blob(&repo, &answered, &BesideFetch::Nothing),
            )
            .await;
            assert_eq!(object.expect("a thread is free").unwrap().read_all().unwrap(), sent);
        });
    }
}
