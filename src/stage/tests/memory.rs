//! A registry in memory that keeps a log of what is written to it, and can fail, lie, or do
//! something at a certain call.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{RepoName, Selector, Tag};
use crate::oci::{Descriptor, Manifest};
use crate::registry::{
    BlobError, BlobSink, BlobSource, RawManifest, Registry, Removed, Upload, Uploaded,
};

/// Called before each call is carried out, with the call's name.
type Before = Box<dyn FnMut(&Memory, &str) -> Result<(), Refusal> + Send>;

#[derive(Default)]
pub struct Memory {
    pub blobs: Mutex<HashMap<(RepoName, Digest), Vec<u8>>>,
    pub manifests: Mutex<HashMap<(RepoName, Digest), Vec<u8>>>,
    pub tags: Mutex<HashMap<(RepoName, Tag), Digest>>,
    /// Calls in their order: `blob sent|there`, `manifest`, `tag`, `read`, `present`; `claim`,
    /// `list`, `look at claim`, `remove`.
    pub calls: Mutex<Vec<String>>,
    /// Whether nothing can be removed.
    pub keeps: bool,
    before: Mutex<Option<Before>>,
}

impl Memory {
    /// One that removes nothing, or one that does.
    pub fn that_keeps(keeps: bool) -> Memory {
        Memory { keeps, ..Memory::default() }
    }

    /// From now on `before` is called ahead of each call.
    pub fn before(
        &self,
        before: impl FnMut(&Memory, &str) -> Result<(), Refusal> + Send + 'static,
    ) {
        *self.before.lock() = Some(Box::new(before));
    }

    /// Nothing is called any more.
    pub fn calm(&self) {
        *self.before.lock() = None;
    }

    /// The calls since the last time.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }

    pub fn tag(&self, repo: &str, tag: &str) -> Option<Digest> {
        self.tags.lock().get(&(repo.parse().unwrap(), tag.parse().unwrap())).copied()
    }

    pub fn document(&self, repo: &str, digest: Digest) -> Manifest {
        let raw = self.manifests.lock()[&(repo.parse().unwrap(), digest)].clone();
        Manifest::parse(raw.into(), digest, None).unwrap()
    }

    pub fn blob(&self, repo: &str, digest: Digest) -> Vec<u8> {
        self.blobs.lock()[&(repo.parse().unwrap(), digest)].clone()
    }

    /// Puts a manifest and a tag past all calls.
    pub fn set(&self, repo: &str, tag: &str, manifest: &Manifest) {
        let repo: RepoName = repo.parse().unwrap();
        self.manifests.lock().insert((repo.clone(), manifest.digest), manifest.raw.to_vec());
        self.tags.lock().insert((repo, tag.parse().unwrap()), manifest.digest);
    }

    async fn call(&self, call: &str) -> Result<(), Refusal> {
        tokio::task::yield_now().await;
        let taken = self.before.lock().take();
        let Some(mut before) = taken else { return Ok(()) };
        let result = before(self, call);
        self.before.lock().get_or_insert(before);
        result
    }

    fn note(&self, call: &str) {
        self.calls.lock().push(call.to_owned());
    }
}

pub fn failure(failure: Failure) -> Refusal {
    Refusal::new(failure, "the registry", "it was told to fail")
}

#[async_trait]
impl Registry for Memory {
    async fn tags(&self, _: &RepoName) -> Result<Vec<Tag>, Refusal> {
        Err(failure(Failure::Unsupported))
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        Err(failure(Failure::Unsupported))
    }

    async fn resolve(&self, _: &RepoName, _: &Tag) -> Result<Option<Digest>, Refusal> {
        Err(failure(Failure::Unsupported))
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        let call = if matches!(selector, Selector::Tag(_)) { "look at claim" } else { "read" };
        self.call(call).await?;
        self.note(call);
        let digest = match selector {
            Selector::Digest(digest) => Some(*digest),
            Selector::Tag(tag) => self.tags.lock().get(&(repo.clone(), tag.clone())).copied(),
        };
        let digest = digest.ok_or_else(|| failure(Failure::Absent))?;
        let bytes = self.manifests.lock().get(&(repo.clone(), digest)).cloned();
        let bytes = bytes.ok_or_else(|| failure(Failure::Absent))?;
        Ok(RawManifest { bytes: bytes.into(), content_type: None, claimed: None })
    }

    async fn blob(
        &self,
        _: &RepoName,
        _: &Descriptor,
        _: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        Err(failure(Failure::Unsupported).into())
    }
}

#[async_trait]
impl Upload for Memory {
    async fn put_blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<Uploaded, Refusal> {
        self.call("blob").await?;
        let key = (repo.clone(), blob.digest);
        if self.blobs.lock().contains_key(&key) {
            self.note("blob there");
            return Ok(Uploaded::Present);
        }
        let mut bytes = Vec::new();
        loop {
            let piece: Bytes = source.read_at(bytes.len() as u64, 1000).await.unwrap();
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(&piece);
        }
        if Digest::of(&bytes) != blob.digest || bytes.len() as u64 != blob.size {
            return Err(failure(Failure::Integrity));
        }
        self.blobs.lock().insert(key, bytes);
        self.note("blob sent");
        Ok(Uploaded::Sent)
    }

    async fn put_manifest(
        &self,
        repo: &RepoName,
        selector: &Selector,
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        let call = match selector {
            Selector::Tag(tag) if tag.is_claim() => "claim",
            Selector::Tag(_) => "tag",
            Selector::Digest(_) => "manifest",
        };
        self.call(call).await?;
        let named = match &manifest.body {
            crate::oci::ManifestBody::Image(layers) => layers
                .iter()
                .all(|layer| self.blobs.lock().contains_key(&(repo.clone(), layer.digest))),
            crate::oci::ManifestBody::Index(entries) => entries
                .iter()
                .all(|entry| self.manifests.lock().contains_key(&(repo.clone(), entry.digest))),
        };
        assert!(named, "what a manifest names has to be there before it");
        self.manifests.lock().insert((repo.clone(), manifest.digest), manifest.raw.to_vec());
        if let Selector::Tag(tag) = selector {
            self.tags.lock().insert((repo.clone(), tag.clone()), manifest.digest);
        }
        self.note(call);
        Ok(())
    }

    async fn present(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<Option<Digest>, Refusal> {
        self.call("present").await?;
        self.note("present");
        match selector {
            Selector::Tag(tag) => Ok(self.tags.lock().get(&(repo.clone(), tag.clone())).copied()),
            Selector::Digest(_) => Err(failure(Failure::Unsupported)),
        }
    }

    async fn tags_now(&self, repo: &RepoName, after: Option<&str>) -> Result<Vec<Tag>, Refusal> {
        self.call("list").await?;
        self.note("list");
        let tags = self.tags.lock();
        let all =
            tags.keys().filter(|(of, tag)| of == repo && tag.as_str() > after.unwrap_or_default());
        Ok(all.map(|(_, tag)| tag.clone()).collect())
    }

    async fn remove(&self, repo: &RepoName, digest: &Digest) -> Result<Removed, Refusal> {
        self.call("remove").await?;
        self.note("remove");
        if self.keeps {
            return Ok(Removed::Refused);
        }
        self.tags.lock().retain(|(of, _), stands| of != repo || stands != digest);
        self.manifests.lock().remove(&(repo.clone(), *digest));
        Ok(Removed::Yes)
    }
}
