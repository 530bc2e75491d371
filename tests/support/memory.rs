//! A registry in memory, and a sink for blobs: what unit tests and integration tests have in place
//! of real ones. A test says what happens before a call and what fails, and sees what was asked.
#![allow(dead_code, reason = "every test program uses a part of it")]

use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tofufs::digest::Digest;
use tofufs::failure::{Failure, Refusal};
use tofufs::name::{RepoName, Selector, Tag};
use tofufs::oci::referrer::{listed, referrers_tag};
use tofufs::oci::{Descriptor, Manifest, ManifestBody};
use tofufs::registry::{
    BlobError, BlobSink, BlobSource, DocumentKind, RawManifest, Referrers, Registry, Removed,
    SinkError, Upload, Uploaded,
};

/// What is asked of the registry.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    Tags,
    Catalog,
    Resolve,
    Manifest(&'a Selector),
    Referrers,
    Blob(Digest),
    PutBlob,
    PutManifest(&'a Selector),
    Present,
    TagsNow,
    Remove,
}

impl Call<'_> {
    /// As it stands in the log.
    pub fn name(self) -> &'static str {
        match self {
            Call::Tags => "tags",
            Call::Catalog => "catalog",
            Call::Resolve => "resolve",
            Call::Manifest(Selector::Tag(_)) => "look",
            Call::Manifest(Selector::Digest(_)) => "read",
            Call::Referrers => "referrers",
            Call::Blob(_) => "fetch",
            Call::PutBlob => "blob",
            Call::PutManifest(Selector::Tag(tag)) if tag.is_claim() => "claim",
            Call::PutManifest(Selector::Tag(_)) => "tag",
            Call::PutManifest(Selector::Digest(_)) => "manifest",
            Call::Present => "present",
            Call::TagsNow => "list",
            Call::Remove => "remove",
        }
    }
}

/// When a call goes on, and whether it fails.
pub type Pass = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;
type Before = Box<dyn FnMut(&MemoryRegistry, Call<'_>) -> Pass + Send>;

/// One repository. It exists also without a tag.
#[derive(Default)]
pub struct MemoryRepo {
    pub tags: BTreeMap<Tag, Digest>,
    /// Each with its media type, where that is told.
    pub manifests: HashMap<Digest, (Bytes, Option<&'static str>)>,
    pub blobs: HashMap<Digest, Bytes>,
}

impl MemoryRepo {
    fn referrers(&self, subject: &Digest, lists: bool) -> Vec<Descriptor> {
        let parsed = |digest: &Digest, (bytes, _): &(Bytes, Option<&'static str>)| {
            Manifest::parse(bytes.as_ref().into(), *digest, None).ok()
        };
        if !lists {
            let list = self.tags.get(&referrers_tag(subject)).and_then(|d| self.manifests.get(d));
            return list.map_or(Vec::new(), |(bytes, _)| listed(bytes).expect("a list"));
        }
        let all = self.manifests.iter().filter_map(|(digest, held)| parsed(digest, held));
        let speaks =
            |m: &Manifest| m.subject().ok().flatten().is_some_and(|s| s.digest == *subject);
        let mut found: Vec<_> = all.filter(speaks).map(|m| m.as_referrer()).collect();
        found.sort_by_key(|entry| entry.digest);
        found
    }
}

/// What the registry holds, how it answers, and what it was asked.
pub struct MemoryContent {
    pub repos: BTreeMap<RepoName, MemoryRepo>,
    pub has_catalog: bool,
    /// Whether anything can be removed.
    pub removes: bool,
    /// Whether it makes lists of referrers itself; else writers keep them under tags.
    pub lists_referrers: bool,
    /// What every call ends with.
    pub failing: Option<Failure>,
    /// How many wrong bytes of a blob arrive before it fails.
    pub arriving: usize,
    /// How often each kind of call was made, whatever it ended with.
    pub asked: HashMap<&'static str, usize>,
    /// How often each blob was sent to its end.
    pub downloads: HashMap<Digest, usize>,
    done: Vec<String>,
}

impl MemoryContent {
    /// How many calls were made.
    pub fn requests(&self) -> usize {
        self.asked.values().sum()
    }

    /// How many of them asked for manifests.
    pub fn manifests_asked(&self) -> usize {
        ["look", "read"].iter().filter_map(|name| self.asked.get(name)).sum()
    }

    pub fn repo(&mut self, repo: &str) -> &mut MemoryRepo {
        self.repos.entry(repo.parse().expect("a repository")).or_default()
    }
}

/// A connection to a registry in memory.
pub struct MemoryRegistry {
    content: Arc<Mutex<MemoryContent>>,
    before: Mutex<Option<Before>>,
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        let content = MemoryContent {
            repos: BTreeMap::new(),
            has_catalog: true,
            removes: true,
            lists_referrers: true,
            failing: None,
            arriving: 0,
            asked: HashMap::new(),
            downloads: HashMap::new(),
            done: Vec::new(),
        };
        MemoryRegistry { content: Arc::new(Mutex::new(content)), before: Mutex::default() }
    }
}

impl MemoryRegistry {
    /// One that holds nothing and answers `failure` to everything.
    pub fn failing(failure: Failure) -> MemoryRegistry {
        let registry = MemoryRegistry::default();
        registry.state().failing = Some(failure);
        registry
    }

    /// Repositories, tags, and what they stand for, which is there as a blob too.
    pub fn holding(tags: &[(&str, &str, &str)]) -> MemoryRegistry {
        let registry = MemoryRegistry::default();
        for (repo, tag, content) in tags {
            let digest = registry.add(repo, content.as_bytes(), None);
            registry.add_blob(repo, content.as_bytes());
            registry.set_tag(repo, tag, Some(digest));
        }
        registry
    }

    /// Another connection, ahead of whose calls nothing happens.
    pub fn again(&self) -> MemoryRegistry {
        MemoryRegistry { content: Arc::clone(&self.content), before: Mutex::default() }
    }

    pub fn state(&self) -> MutexGuard<'_, MemoryContent> {
        self.content.lock()
    }

    /// From now on `before` is called ahead of each call.
    pub fn before(
        &self,
        mut before: impl FnMut(&MemoryRegistry, &str) -> Result<(), Refusal> + Send + 'static,
    ) {
        let before = move |registry: &MemoryRegistry, call: Call<'_>| -> Pass {
            Box::pin(ready(before(registry, call.name())))
        };
        *self.before.lock() = Some(Box::new(before));
    }

    /// From now on each call waits for what `pass` gives for it.
    pub fn wait(&self, mut pass: impl FnMut(Call<'_>) -> Pass + Send + 'static) {
        let before = move |_: &MemoryRegistry, call: Call<'_>| pass(call);
        *self.before.lock() = Some(Box::new(before));
    }

    /// Nothing happens ahead of calls any more.
    pub fn calm(&self) {
        *self.before.lock() = None;
    }

    /// The calls that were carried out since the last time, by their names; of an upload of a blob,
    /// `blob sent` or `blob there`.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().done)
    }

    pub fn add(&self, repo: &str, manifest: &[u8], media_type: Option<&'static str>) -> Digest {
        let digest = Digest::of(manifest);
        let manifest = (Bytes::copy_from_slice(manifest), media_type);
        self.state().repo(repo).manifests.insert(digest, manifest);
        digest
    }

    pub fn add_blob(&self, repo: &str, bytes: &[u8]) {
        let blob = Bytes::copy_from_slice(bytes);
        self.state().repo(repo).blobs.insert(Digest::of(bytes), blob);
    }

    pub fn set_tag(&self, repo: &str, tag: &str, digest: Option<Digest>) {
        let tag = tag.parse().expect("a tag");
        let mut state = self.state();
        let tags = &mut state.repo(repo).tags;
        match digest {
            Some(digest) => tags.insert(tag, digest),
            None => tags.remove(&tag),
        };
    }

    /// Puts a manifest and a tag past all calls.
    pub fn set(&self, repo: &str, tag: &str, manifest: &Manifest) {
        self.add(repo, &manifest.raw, None);
        self.set_tag(repo, tag, Some(manifest.digest));
    }

    pub fn tag(&self, repo: &str, tag: &str) -> Option<Digest> {
        self.state().repo(repo).tags.get(&tag.parse().expect("a tag")).copied()
    }

    pub fn document(&self, repo: &str, digest: Digest) -> Manifest {
        let (raw, _) = self.state().repo(repo).manifests[&digest].clone();
        Manifest::parse(raw.as_ref().into(), digest, None).expect("a manifest")
    }

    pub fn stored(&self, repo: &str, digest: Digest) -> Vec<u8> {
        self.state().repo(repo).blobs[&digest].to_vec()
    }

    /// Changes every repository.
    pub fn each(&self, change: impl FnMut(&mut MemoryRepo)) {
        self.state().repos.values_mut().for_each(change);
    }

    async fn call(&self, call: Call<'_>) -> Result<(), Refusal> {
        *self.state().asked.entry(call.name()).or_default() += 1;
        tokio::task::yield_now().await;
        let taken = self.before.lock().take();
        if let Some(mut before) = taken {
            let passes = before(self, call);
            self.before.lock().get_or_insert(before);
            passes.await?;
        }
        let failing = self.state().failing;
        if let Some(told) = failing {
            return Err(failure(told));
        }
        if !matches!(call, Call::PutBlob) {
            self.state().done.push(call.name().to_owned());
        }
        Ok(())
    }

    fn of<T>(
        &self,
        repo: &RepoName,
        of: impl FnOnce(&MemoryRepo) -> Option<T>,
    ) -> Result<T, Refusal> {
        self.state().repos.get(repo).and_then(of).ok_or_else(|| failure(Failure::Absent))
    }
}

/// What a registry says that was told to fail.
pub fn failure(failure: Failure) -> Refusal {
    Refusal::new(failure, "the registry", "it was told to fail")
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        self.call(Call::Tags).await?;
        self.of(repo, |repo| Some(repo.tags.keys().filter(|t| !t.is_hidden()).cloned().collect()))
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        self.call(Call::Catalog).await?;
        let state = self.state();
        let repos = || state.repos.keys().cloned().collect();
        state.has_catalog.then(repos).ok_or_else(|| failure(Failure::Absent))
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        self.call(Call::Resolve).await?;
        self.of(repo, |repo| repo.tags.get(tag).copied()).map(Some)
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        self.call(Call::Manifest(selector)).await?;
        self.of(repo, |repo| {
            let digest = match selector {
                Selector::Tag(tag) => repo.tags.get(tag)?,
                Selector::Digest(digest) => digest,
            };
            let (bytes, media_type) = repo.manifests.get(digest)?;
            let content_type = media_type.map(str::to_owned);
            Some(RawManifest {
                bytes: bytes.as_ref().into(),
                content_type,
                claimed: None,
                kind: DocumentKind::Manifest,
            })
        })
    }

    async fn referrers(&self, repo: &RepoName, subject: &Digest) -> Referrers {
        if let Err(e) = self.call(Call::Referrers).await {
            return Referrers::unheard(e);
        }
        let lists = self.state().lists_referrers;
        Referrers::of(self.of(repo, |repo| Some(repo.referrers(subject, lists))))
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let arriving = self.state().arriving;
        if arriving > 0 {
            sink.write(vec![0; arriving].into()).await?;
        }
        self.call(Call::Blob(blob.digest)).await?;
        let stored = self.of(repo, |repo| repo.blobs.get(&blob.digest).cloned()).ok();
        let bytes = stored.filter(|bytes| bytes.len() as u64 == blob.size);
        let bytes = bytes.ok_or_else(|| failure(Failure::Integrity))?;
        while sink.position() < blob.size {
            let from = sink.position() as usize;
            sink.write(bytes.slice(from..bytes.len().min(from + 50_000))).await?;
        }
        *self.state().downloads.entry(blob.digest).or_default() += 1;
        Ok(())
    }
}

#[async_trait]
impl Upload for MemoryRegistry {
    async fn put_blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<Uploaded, Refusal> {
        self.call(Call::PutBlob).await?;
        if self.of(repo, |repo| repo.blobs.get(&blob.digest).cloned()).is_ok() {
            self.state().done.push("blob there".to_owned());
            return Ok(Uploaded::Present);
        }
        let mut bytes = Vec::new();
        loop {
            let piece = source.read_at(bytes.len() as u64, 1000).await.expect("a source");
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(&piece);
        }
        if Digest::of(&bytes) != blob.digest || bytes.len() as u64 != blob.size {
            return Err(failure(Failure::Integrity));
        }
        self.add_blob(repo.as_str(), &bytes);
        self.state().done.push("blob sent".to_owned());
        Ok(Uploaded::Sent)
    }

    async fn put_manifest(
        &self,
        repo: &RepoName,
        selector: &Selector,
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        self.call(Call::PutManifest(selector)).await?;
        let mut state = self.state();
        let repo = state.repos.entry(repo.clone()).or_default();
        let named = match &manifest.body {
            ManifestBody::Image(layers) => {
                layers.iter().all(|layer| repo.blobs.contains_key(&layer.digest))
            }
            ManifestBody::Index(entries) => {
                entries.iter().all(|entry| repo.manifests.contains_key(&entry.digest))
            }
        };
        assert!(named, "what a manifest names has to be there before it");
        let raw = Bytes::copy_from_slice(&manifest.raw);
        repo.manifests.insert(manifest.digest, (raw, None));
        if let Selector::Tag(tag) = selector {
            repo.tags.insert(tag.clone(), manifest.digest);
        }
        Ok(())
    }

    async fn present(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<Option<Digest>, Refusal> {
        self.call(Call::Present).await?;
        let there = self.of(repo, |repo| match selector {
            Selector::Tag(tag) => repo.tags.get(tag).copied(),
            Selector::Digest(digest) => repo.manifests.contains_key(digest).then_some(*digest),
        });
        Ok(there.ok())
    }

    async fn tags_now(&self, repo: &RepoName, after: Option<&str>) -> Result<Vec<Tag>, Refusal> {
        self.call(Call::TagsNow).await?;
        let after = after.unwrap_or_default();
        let behind = |tag: &&Tag| tag.as_str() > after;
        let tags = self.of(repo, |repo| Some(repo.tags.keys().filter(behind).cloned().collect()));
        Ok(tags.unwrap_or_default())
    }

    async fn lists_referrers(&self, _: &RepoName, _: &Digest) -> Result<bool, Refusal> {
        Ok(self.state().lists_referrers)
    }

    async fn remove(&self, repo: &RepoName, digest: &Digest) -> Result<Removed, Refusal> {
        self.call(Call::Remove).await?;
        let mut state = self.state();
        if !state.removes {
            return Ok(Removed::Refused);
        }
        let repo = state.repos.entry(repo.clone()).or_default();
        repo.tags.retain(|_, stands| stands != digest);
        Ok(repo.manifests.remove(digest).map_or(Removed::WasAbsent, |_| Removed::Yes))
    }
}

/// Keeps what it is given.
#[derive(Default)]
pub struct MemorySink {
    pub bytes: Vec<u8>,
    pub restarts: usize,
    /// The length of the longest piece.
    pub largest: usize,
    /// Whether it takes no more.
    pub full: bool,
}

impl MemorySink {
    pub fn that_holds(bytes: &[u8]) -> MemorySink {
        MemorySink { bytes: bytes.to_vec(), ..MemorySink::default() }
    }

    pub fn that_is_full() -> MemorySink {
        MemorySink { full: true, ..MemorySink::default() }
    }
}

#[async_trait]
impl BlobSink for MemorySink {
    fn position(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        if self.full {
            return Err(SinkError);
        }
        self.largest = self.largest.max(chunk.len());
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.bytes.clear();
        self.restarts += 1;
        Ok(())
    }
}
