//! A source of a registry, and whether it could be reached when it was asked last.
//!
//! Several sources may make up one registry; each is reported by itself, so that a store is not
//! told to be out of reach where the registry beside it is.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::health::{FailingSource, Health, SourceState};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{RepoName, Selector, Tag, ZipName};
use crate::oci::Descriptor;
use crate::registry::{BlobError, BlobSink, Greeting, RawManifest, Referrers, Registry};

/// See the module.
pub(super) struct WatchedSource {
    inner: Arc<dyn Registry>,
    /// As the log calls it.
    name: String,
    health: Mutex<Health>,
}

impl WatchedSource {
    pub(super) fn new(inner: Arc<dyn Registry>, name: impl Display) -> WatchedSource {
        WatchedSource {
            inner,
            name: name.to_string(),
            health: Mutex::new(Health::of(SourceState::Unknown)),
        }
    }

    /// What it answered last.
    pub(super) fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Keeps what an answer says about its being reachable.
    fn noted<T>(&self, answer: Result<T, Refusal>) -> Result<T, Refusal> {
        self.note(answer.as_ref().err());
        answer
    }

    fn note(&self, error: Option<&Refusal>) {
        if let Some(health) = Health::shown_by(error, self.health().state) {
            self.mark(health);
        }
    }

    /// It is as somebody has seen it just now.
    pub(super) fn mark(&self, health: Health) {
        let before = std::mem::replace(&mut *self.health.lock(), health.clone());
        if before.state == health.state {
            return;
        }
        if health.state.is_failing() {
            let ailing = FailingSource { name: self.name.clone(), health };
            tracing::warn!("{ailing} (what was read before keeps working)");
        } else if before.state.is_failing() {
            tracing::info!("{} answers again", self.name);
        }
    }
}

#[async_trait]
impl Registry for WatchedSource {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        self.noted(self.inner.tags(repo).await)
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        let answer = self.inner.catalog().await;
        // That it lists nothing may be all that it says to who is not let in.
        match &answer {
            Err(e) if e.failure == Failure::Absent && self.inner.refused_login() => {}
            answer => self.note(answer.as_ref().err()),
        }
        answer
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        self.noted(self.inner.resolve(repo, tag).await)
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        self.noted(self.inner.manifest(repo, selector).await)
    }

    async fn referrers(&self, repo: &RepoName, subject: &Digest) -> Referrers {
        let said = self.inner.referrers(repo, subject).await;
        self.note(said.unheard.as_ref());
        said
    }

    async fn lacking(&self, repo: &RepoName, manifests: &[Digest]) -> Vec<Digest> {
        self.inner.lacking(repo, manifests).await
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let outcome = self.inner.blob(repo, blob, sink).await;
        match &outcome {
            Ok(()) => self.note(None),
            Err(BlobError::Registry(e)) => self.note(Some(e)),
            // Who took the bytes wants no more of them.
            Err(BlobError::Sink(_)) => {}
        }
        outcome
    }

    async fn offered(&self, repo: &RepoName, zip: &ZipName) -> Result<Descriptor, Refusal> {
        self.noted(self.inner.offered(repo, zip).await)
    }

    fn last_moved(&self, repo: Option<&RepoName>) -> Option<Instant> {
        self.inner.last_moved(repo)
    }

    async fn greet(&self, greeting: Greeting) -> Result<(), Refusal> {
        self.noted(self.inner.greet(greeting).await)
    }

    fn refused_login(&self) -> bool {
        self.inner.refused_login()
    }

    async fn held(&self) -> Result<Vec<RepoName>, Refusal> {
        self.inner.held().await
    }

    fn stand_in(&self) -> Option<Arc<dyn Registry>> {
        self.inner.stand_in()
    }
}
