//! A registry with mirrors: pull-through caches and peer-to-peer proxies, by which many machines
//! share one download.
//!
//! What is named by its digest comes from the first mirror that has it, else from the registry
//! itself: whoever sends it, it is what it is called. What moves (tags, lists) is asked of the
//! registry alone, by a request without content: a mirror may hold a tag as it was weeks ago, or
//! list those tags only that somebody has fetched through it (hostile input R62). Where the
//! registry is out of reach and nothing is remembered, the mirrors are its
//! [stand-in](Registry::stand_in), whose answers nobody takes for confirmed.
//!
//! INVARIANT: nothing that a mirror says or does not say makes anything absent, denied or damaged.
//! The registry decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::mirror::MirrorAddress;
use super::super::{BlobError, BlobSink, Greeting, RawManifest, Referrers, Registry, SinkError};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::failure::{Failure, Refusal};
use crate::name::{RepoName, Selector, Tag};
use crate::oci::Descriptor;

/// A registry, and its mirrors in the user's order.
pub struct Mirrored {
    origin: Arc<dyn Registry>,
    mirrors: Arc<Mirrors>,
}

impl Mirrored {
    /// `origin`, with mirrors that are asked before it. Each is a registry that is reached at its
    /// address.
    pub fn new(
        origin: Arc<dyn Registry>,
        mirrors: Vec<(MirrorAddress, Arc<dyn Registry>)>,
    ) -> Mirrored {
        let mirrors = mirrors.into_iter().map(|(address, registry)| Mirror {
            address,
            registry,
            ailing: false.into(),
        });
        Mirrored { origin, mirrors: Arc::new(Mirrors(mirrors.collect())) }
    }
}

#[async_trait]
impl Registry for Mirrored {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        self.origin.tags(repo).await
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        self.origin.catalog().await
    }

    fn last_moved(&self, repo: Option<&RepoName>) -> Option<Instant> {
        self.origin.last_moved(repo)
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        self.origin.resolve(repo, tag).await
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        let (digest, tag) = match selector {
            Selector::Digest(digest) => (Some(*digest), None),
            Selector::Tag(tag) => (self.origin.resolve(repo, tag).await?, Some(tag)),
        };
        let Some(digest) = digest else { return self.origin.manifest(repo, selector).await };
        match self.mirrors.found(repo, &digest, tag).await {
            Ok(raw) => Ok(RawManifest { claimed: Some(digest), ..raw }),
            Err(_) => self.origin.manifest(repo, selector).await,
        }
    }

    async fn referrers(&self, repo: &RepoName, subject: &Digest) -> Referrers {
        self.origin.referrers(repo, subject).await
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        match self.mirrors.blob(repo, blob, sink).await {
            Err(BlobError::Registry(_)) => self.origin.blob(repo, blob, sink).await,
            done => done,
        }
    }

    async fn greet(&self, greeting: Greeting) -> Result<(), Refusal> {
        self.origin.greet(greeting).await
    }

    fn refused_login(&self) -> bool {
        self.origin.refused_login()
    }

    fn stand_in(&self) -> Option<Arc<dyn Registry>> {
        Some(self.mirrors.clone())
    }
}

/// The mirrors of a registry as one. What has a digest is checked against it here, so that the next
/// one is asked for what this one sent damaged.
struct Mirrors(Vec<Mirror>);

struct Mirror {
    address: MirrorAddress,
    registry: Arc<dyn Registry>,
    /// Whether its last answer was none.
    ailing: AtomicBool,
}

impl Mirror {
    /// Says in the log, once, that it is of no help, or that it is again.
    fn note<T>(&self, answer: &Result<T, Refusal>) {
        let Mirror { address, ailing, .. } = self;
        match answer {
            // it has not everything that the registry has
            Err(e) if e.failure == Failure::Absent => {}
            Err(e) if !ailing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    "the mirror {address} is passed over, and {} asked itself: {e}",
                    address.of
                );
            }
            Err(e) => tracing::debug!("the mirror {address} is passed over: {e}"),
            Ok(_) if ailing.swap(false, Ordering::Relaxed) => {
                tracing::info!("the mirror {address} of {} answers again", address.of);
            }
            Ok(_) => {}
        }
    }
}

impl Mirrors {
    /// The manifest of that digest. Who knows by which tag it is wanted asks by that first, so that
    /// a pull-through cache learns what the tag stands for; if it has an older answer, that is not
    /// taken.
    async fn found(
        &self,
        repo: &RepoName,
        digest: &Digest,
        tag: Option<&Tag>,
    ) -> Result<RawManifest, Refusal> {
        if let Some(tag) = tag {
            for (mirror, name) in self.of(repo) {
                let raw = mirror.registry.manifest(&name, &Selector::Tag(tag.clone())).await;
                if let Some(raw) =
                    raw.ok().and_then(|raw| checked(raw, digest, &mirror.address).ok())
                {
                    return Ok(raw);
                }
            }
        }
        self.manifest(repo, &Selector::Digest(*digest)).await
    }

    /// Those that may hold the repository, and what it is called there.
    fn of<'a>(&'a self, repo: &'a RepoName) -> impl Iterator<Item = (&'a Mirror, RepoName)> {
        self.0.iter().filter_map(|mirror| Some((mirror, mirror.address.name_of(repo)?)))
    }
}

fn none(repo: &RepoName) -> Refusal {
    Refusal::new(Failure::Absent, repo.as_str(), "no mirror holds it")
}

#[async_trait]
impl Registry for Mirrors {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        let mut outcome = Err(none(repo));
        for (mirror, name) in self.of(repo) {
            outcome = mirror.registry.tags(&name).await;
            mirror.note(&outcome);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        Err(Refusal::new(Failure::Absent, "mirrors", "they do not list what the registry holds"))
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        let mut outcome = Err(none(repo));
        for (mirror, name) in self.of(repo) {
            outcome = mirror.registry.resolve(&name, tag).await;
            mirror.note(&outcome);
            if let Ok(Some(_)) = outcome {
                break;
            }
        }
        outcome
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        let mut outcome = Err(none(repo));
        for (mirror, name) in self.of(repo) {
            let answer = mirror.registry.manifest(&name, selector).await;
            outcome = answer.and_then(|raw| match selector {
                Selector::Digest(digest) => checked(raw, digest, &mirror.address),
                Selector::Tag(_) => Ok(raw),
            });
            mirror.note(&outcome);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Their lists may be old and short, so that nothing follows from them.
    async fn referrers(&self, repo: &RepoName, _: &Digest) -> Referrers {
        let rule = "mirrors are not asked for what speaks about a manifest";
        Referrers::unheard(Refusal::new(Failure::Unreachable, repo.as_str(), rule))
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let mut outcome = Err(none(repo));
        for (mirror, name) in self.of(repo) {
            let mut hashed = HashedSink::new(sink, blob);
            outcome = match mirror.registry.blob(&name, blob, &mut hashed).await {
                Ok(()) => hashed.check(blob, &mirror.address),
                Err(BlobError::Registry(e)) => Err(e),
                Err(BlobError::Sink(e)) => return Err(e.into()),
            };
            let begun = hashed.begun;
            mirror.note(&outcome);
            match &outcome {
                Ok(()) => break,
                // nobody has verified what came so far: it is not mixed with what another sends
                Err(_) if sink.position() != begun => sink.restart().await?,
                Err(_) => {}
            }
        }
        Ok(outcome?)
    }
}

fn checked(
    raw: RawManifest,
    digest: &Digest,
    address: &MirrorAddress,
) -> Result<RawManifest, Refusal> {
    let got = Digest::of_with(digest.algorithm(), &raw.bytes);
    if got == *digest { Ok(raw) } else { Err(damaged(digest, &got, address)) }
}

fn damaged(digest: &Digest, got: &Digest, address: &MirrorAddress) -> Refusal {
    let rule = format!("the mirror {address} sent {got} in its place");
    Refusal::new(Failure::Integrity, digest, rule)
}

/// Passes a blob on and hashes it. What the sink held before cannot be hashed, and is the matter of
/// its owner.
struct HashedSink<'a> {
    sink: &'a mut dyn BlobSink,
    begun: u64,
    hasher: Option<Hasher>,
    algorithm: Algorithm,
}

impl<'a> HashedSink<'a> {
    fn new(sink: &'a mut dyn BlobSink, blob: &Descriptor) -> HashedSink<'a> {
        let (begun, algorithm) = (sink.position(), blob.digest.algorithm());
        HashedSink { sink, begun, hasher: (begun == 0).then(|| Hasher::new(algorithm)), algorithm }
    }

    fn check(&mut self, blob: &Descriptor, address: &MirrorAddress) -> Result<(), Refusal> {
        match self.hasher.take().map(Hasher::finish) {
            Some(got) if got != blob.digest => Err(damaged(&blob.digest, &got, address)),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl BlobSink for HashedSink<'_> {
    fn position(&self) -> u64 {
        self.sink.position()
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        self.sink.write(chunk).await
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.sink.restart().await?;
        self.hasher = Some(Hasher::new(self.algorithm));
        Ok(())
    }
}
