//! A source of a registry, and whether it could be reached when it was asked last.
//!
//! Several sources may make up one registry; each is reported by itself, so that a store is not told to be out of reach
//! where the registry beside it is.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;

use super::{SourceState, lock};
use crate::digest::Digest;
use crate::name::{RepoName, Selector, Tag};
use crate::oci::Descriptor;
use crate::registry::{BlobError, BlobSink, Failure, RawManifest, Registry, RegistryError};

/// See the module.
pub(super) struct Watched {
    inner: Arc<dyn Registry>,
    /// As the log calls it.
    name: String,
    state: Mutex<SourceState>,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn Registry>, name: impl Display) -> Watched {
        Watched { inner, name: name.to_string(), state: Mutex::new(SourceState::Unknown) }
    }

    /// What it answered last.
    pub(super) fn state(&self) -> SourceState {
        *lock(&self.state)
    }

    /// Keeps what an answer says about its being reachable.
    fn noted<T>(&self, answer: Result<T, RegistryError>) -> Result<T, RegistryError> {
        self.note(answer.as_ref().err());
        answer
    }

    fn note(&self, error: Option<&RegistryError>) {
        let state = match error.map(|e| e.failure) {
            Some(Failure::Unreachable | Failure::TimedOut) => SourceState::Unreachable,
            // Nothing that it said.
            Some(Failure::Offline | Failure::NoSpace | Failure::Io) => return,
            _ => SourceState::Ok,
        };
        let before = std::mem::replace(&mut *lock(&self.state), state);
        match (before, state) {
            (SourceState::Unreachable, SourceState::Ok) => tracing::info!("{} answers again", self.name),
            (SourceState::Unreachable, _) | (_, SourceState::Ok | SourceState::Unknown) => {}
            _ => tracing::warn!("{} cannot be reached; what was read before keeps working", self.name),
        }
    }
}

#[async_trait]
impl Registry for Watched {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, RegistryError> {
        self.noted(self.inner.tags(repo).await)
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, RegistryError> {
        self.noted(self.inner.catalog().await)
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        self.noted(self.inner.resolve(repo, tag).await)
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, RegistryError> {
        self.noted(self.inner.manifest(repo, selector).await)
    }

    async fn lacking(&self, repo: &RepoName, manifests: &[Digest]) -> Vec<Digest> {
        self.inner.lacking(repo, manifests).await
    }

    async fn blob(&self, repo: &RepoName, blob: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), BlobError> {
        let outcome = self.inner.blob(repo, blob, sink).await;
        match &outcome {
            Ok(()) => self.note(None),
            Err(BlobError::Registry(e)) => self.note(Some(e)),
            // Who took the bytes wants no more of them.
            Err(BlobError::Sink(_)) => {}
        }
        outcome
    }

    fn last_moved(&self, repo: Option<&RepoName>) -> Option<Instant> {
        self.inner.last_moved(repo)
    }

    async fn held(&self) -> Result<Vec<RepoName>, RegistryError> {
        self.inner.held().await
    }

    fn stand_in(&self) -> Option<Arc<dyn Registry>> {
        self.inner.stand_in()
    }
}
