//! A registry in memory, with switches for what happens to registries.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tofufs::digest::Digest;
use tofufs::failure::{Failure, Refusal};
use tofufs::name::{RepoName, Selector, Tag};
use tofufs::oci::Descriptor;
use tofufs::registry::{BlobError, BlobSink, RawManifest, Registry};

use crate::pack::Artifact;

/// How the registry answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Up,
    Away,
    Denied,
    /// Something answers that is no registry.
    Portal,
    /// All that it has is beyond what is read.
    Huge,
}

pub struct State {
    pub mode: Mode,
    pub has_catalog: bool,
    /// Repository → tag → manifest. A repository that stands here exists, also without a tag.
    pub tags: BTreeMap<String, BTreeMap<String, Digest>>,
    manifests: HashMap<Digest, (Bytes, &'static str)>,
    blobs: HashMap<Digest, Bytes>,
    /// How often it was asked for anything, and for manifests.
    pub requests: usize,
    pub manifests_asked: usize,
    /// How often each blob was sent whole.
    pub downloads: HashMap<Digest, usize>,
}

/// Holds every artifact in every repository; only the tags differ.
pub struct Fake(Mutex<State>);

impl Fake {
    pub fn new(repos: &[&str], artifacts: &[Artifact], has_catalog: bool) -> Fake {
        let documents = artifacts.iter().flat_map(|a| &a.manifests);
        Fake(Mutex::new(State {
            mode: Mode::Up,
            has_catalog,
            tags: repos.iter().map(|&repo| (repo.to_owned(), BTreeMap::new())).collect(),
            manifests: documents
                .map(|d| (d.digest(), (d.bytes.clone().into(), d.media_type)))
                .collect(),
            blobs: artifacts
                .iter()
                .flat_map(|a| &a.blobs)
                .map(|b| (Digest::of(b), b.clone().into()))
                .collect(),
            requests: 0,
            manifests_asked: 0,
            downloads: HashMap::new(),
        }))
    }

    /// Gives `bytes` from now on where the manifest `digest` is asked for.
    pub fn lie(&self, digest: Digest, bytes: &[u8], media_type: &'static str) {
        self.state().manifests.insert(digest, (bytes.to_vec().into(), media_type));
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn answer<T>(
        &self,
        subject: &str,
        answer: impl FnOnce(&State) -> Option<T>,
    ) -> Result<T, Refusal> {
        let mut state = self.state();
        state.requests += 1;
        match state.mode {
            Mode::Up => {
                answer(&state).ok_or(Refusal::new(Failure::Absent, subject, "no such thing"))
            }
            Mode::Away => Err(Refusal::new(Failure::Unreachable, subject, "no connection")),
            Mode::Denied => Err(Refusal::new(Failure::Denied, subject, "not for you")),
            Mode::Huge => Err(Refusal::new(Failure::TooLarge, subject, "over the limit")),
            Mode::Portal => {
                Err(Refusal::new(Failure::Protocol, subject, "log in at the hotel's desk"))
            }
        }
    }
}

#[async_trait]
impl Registry for Fake {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        self.answer(repo.as_str(), |state| {
            Some(state.tags.get(repo.as_str())?.keys().map(|tag| tag.parse().unwrap()).collect())
        })
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        self.answer("catalog", |state| {
            state.has_catalog.then(|| state.tags.keys().map(|name| name.parse().unwrap()).collect())
        })
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        self.answer(tag.as_str(), |state| {
            Some(Some(*state.tags.get(repo.as_str())?.get(tag.as_str())?))
        })
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        self.state().manifests_asked += 1;
        self.answer(&selector.to_string(), |state| {
            let tags = state.tags.get(repo.as_str())?;
            let digest = match selector {
                Selector::Tag(tag) => tags.get(tag.as_str())?,
                Selector::Digest(digest) => digest,
            };
            let (bytes, media_type) = state.manifests.get(digest)?;
            Some(RawManifest {
                bytes: bytes.as_ref().into(),
                content_type: Some((*media_type).into()),
                claimed: None,
            })
        })
    }

    async fn blob(
        &self,
        _: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let bytes = self.answer("blob", |state| state.blobs.get(&blob.digest).cloned())?;
        while sink.position() < bytes.len() as u64 {
            let from = sink.position() as usize;
            sink.write(bytes.slice(from..bytes.len().min(from + 50_000))).await?;
        }
        *self.state().downloads.entry(blob.digest).or_default() += 1;
        Ok(())
    }
}
