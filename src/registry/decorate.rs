//! Registries made of other registries: a part of one, several as one, none at all.

mod mirrored;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::future::join_all;

pub use mirrored::Mirrored;

use super::{
    BlobError, BlobSink, BlobSource, Greeting, Hold, RawManifest, Referrers, Registry, Removed,
    Upload, Uploaded,
};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal, Subject};
use crate::name::{Host, Repo, RepoName, Selector, Tag, ZipName};
use crate::oci::{Descriptor, Manifest};

/// The part of a registry that a source `HOST/PREFIX` declares.
///
/// A name outside of it is `Absent` without a request, whatever the registry would say.
pub struct Scoped<R: ?Sized = dyn Registry> {
    inner: Arc<R>,
    host: Host,
    prefix: Option<RepoName>,
    /// Parts of the same registry that other sources have.
    elsewhere: Vec<Option<RepoName>>,
    /// The parts whose repositories this one lists; where there is none, another source lists them.
    lists: Vec<Option<RepoName>>,
}

impl<R: ?Sized> Scoped<R> {
    /// The repositories of `inner` that are `prefix` or lie below it; all of them if it is `None`.
    pub fn new(inner: Arc<R>, host: Host, prefix: Option<RepoName>) -> Scoped<R> {
        let lists = vec![prefix.clone()];
        Scoped { inner, host, prefix, elsewhere: Vec::new(), lists }
    }

    /// The same as one of several parts of one registry, between the `earlier` and the `later`
    /// ones, so that nothing is asked twice: a name that an earlier part has is asked for there,
    /// and the first part lists what all of them have.
    pub fn between(
        mut self,
        earlier: Vec<Option<RepoName>>,
        later: Vec<Option<RepoName>>,
    ) -> Scoped<R> {
        if earlier.is_empty() {
            self.lists.extend(later);
        } else {
            self.lists.clear();
        }
        self.elsewhere = earlier;
        self
    }

    fn within(&self, repo: &RepoName) -> Result<(), Refusal> {
        match &self.prefix {
            Some(prefix) if !repo.is_within(Some(prefix)) => {
                let subject = Repo { host: self.host.clone(), name: repo.clone() };
                let rule =
                    format!("the name lies outside of the declared source {}/{prefix}", self.host);
                Err(Refusal::new(Failure::Absent, subject, rule)
                    .remedy("name it as a source of the mount"))
            }
            _ if self.elsewhere.iter().any(|part| repo.is_within(part.as_ref())) => {
                let subject = Repo { host: self.host.clone(), name: repo.clone() };
                Err(Refusal::new(
                    Failure::Absent,
                    subject,
                    "an earlier source of the mount has that name",
                ))
            }
            _ => Ok(()),
        }
    }

    fn is_listed(&self, repo: &RepoName) -> bool {
        self.lists.iter().any(|part| repo.is_within(part.as_ref()))
    }
}

#[async_trait]
impl<R: Registry + ?Sized> Registry for Scoped<R> {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        self.within(repo)?;
        self.inner.tags(repo).await
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        if self.lists.is_empty() {
            return Ok(Vec::new());
        }
        let mut repos = self.inner.catalog().await?;
        repos.retain(|repo| self.is_listed(repo));
        Ok(repos)
    }

    async fn held(&self) -> Result<Vec<RepoName>, Refusal> {
        let mut repos = self.inner.held().await?;
        repos.retain(|repo| self.is_listed(repo));
        Ok(repos)
    }

    fn last_moved(&self, repo: Option<&RepoName>) -> Option<Instant> {
        self.inner.last_moved(repo)
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        self.within(repo)?;
        self.inner.resolve(repo, tag).await
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        self.within(repo)?;
        self.inner.manifest(repo, selector).await
    }

    async fn referrers(&self, repo: &RepoName, subject: &Digest) -> Referrers {
        match self.within(repo) {
            Ok(()) => self.inner.referrers(repo, subject).await,
            Err(e) => Referrers::unheard(e),
        }
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        self.within(repo)?;
        self.inner.blob(repo, blob, sink).await
    }

    async fn lacking(&self, repo: &RepoName, manifests: &[Digest]) -> Vec<Digest> {
        match self.within(repo) {
            Ok(()) => self.inner.lacking(repo, manifests).await,
            Err(_) => manifests.to_vec(),
        }
    }

    async fn offered(&self, repo: &RepoName, zip: &ZipName) -> Result<Descriptor, Refusal> {
        self.within(repo)?;
        self.inner.offered(repo, zip).await
    }

    async fn greet(&self, greeting: Greeting) -> Result<(), Refusal> {
        self.inner.greet(greeting).await
    }

    fn refused_login(&self) -> bool {
        self.inner.refused_login()
    }

    fn stand_in(&self) -> Option<Arc<dyn Registry>> {
        let inner = self.inner.stand_in()?;
        let (host, prefix) = (self.host.clone(), self.prefix.clone());
        let (elsewhere, lists) = (self.elsewhere.clone(), self.lists.clone());
        Some(Arc::new(Scoped { inner, host, prefix, elsewhere, lists }))
    }
}

#[async_trait]
impl<R: Upload + ?Sized> Upload for Scoped<R> {
    async fn put_blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<Uploaded, Refusal> {
        self.within(repo)?;
        self.inner.put_blob(repo, blob, source).await
    }

    async fn put_manifest(
        &self,
        repo: &RepoName,
        selector: &Selector,
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        self.within(repo)?;
        self.inner.put_manifest(repo, selector, manifest).await
    }

    async fn present(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<Option<Digest>, Refusal> {
        self.within(repo)?;
        self.inner.present(repo, selector).await
    }

    async fn read_back(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<RawManifest, Refusal> {
        self.within(repo)?;
        self.inner.read_back(repo, selector).await
    }

    async fn tags_now(&self, repo: &RepoName, after: Option<&str>) -> Result<Vec<Tag>, Refusal> {
        self.within(repo)?;
        self.inner.tags_now(repo, after).await
    }

    async fn lists_referrers(&self, repo: &RepoName, subject: &Digest) -> Result<bool, Refusal> {
        self.within(repo)?;
        self.inner.lists_referrers(repo, subject).await
    }

    async fn remove(&self, repo: &RepoName, digest: &Digest) -> Result<Removed, Refusal> {
        self.within(repo)?;
        self.inner.remove(repo, digest).await
    }

    async fn hold(&self, repo: &RepoName) -> Result<Option<Hold>, Refusal> {
        self.within(repo)?;
        self.inner.hold(repo).await
    }
}

/// Several sources of one host as one, in the order in which they were given.
///
/// Of what may move (a tag) the first source that holds it decides, so an earlier source must have
/// said `Absent` before a later one is asked: one that is out of reach might hold another answer,
/// and the request fails as it did. What is named by its digest may come from any source. Lists are
/// the union of all and fail if one fails, since a list that is short looks complete.
///
/// A source that answers `Offline` was taken away by the user's own wish and stands for no outage:
/// it is passed over, and only where no other source has an answer the answer is `Offline`.
pub struct Union {
    host: Host,
    sources: Vec<Arc<dyn Registry>>,
}

impl Union {
    /// The union of `sources`, each of which is one of `host`.
    pub fn new(host: Host, sources: Vec<Arc<dyn Registry>>) -> Union {
        Union { host, sources }
    }

    fn absent(&self, subject: impl Into<Subject>) -> Refusal {
        Refusal::new(Failure::Absent, subject, "no source of this registry holds it")
    }

    fn repo(&self, repo: &RepoName) -> Repo {
        Repo { host: self.host.clone(), name: repo.clone() }
    }

    /// The answer of a source that `Absent` and `Offline` of the sources before it allow.
    ///
    /// `None` goes on to the next source.
    fn decide<T>(answer: Result<T, Refusal>, passed: &mut Passed) -> Option<Result<T, Refusal>> {
        match answer {
            Err(e) if matches!(e.failure, Failure::Absent | Failure::Offline) => {
                passed.add(e);
                None
            }
            answer => Some(answer),
        }
    }
}

/// What the sources said that had no answer: of several, what leaves the most uncertainty that the
/// thing exists.
#[derive(Default)]
struct Passed(Option<Refusal>);

impl Passed {
    fn add(&mut self, e: Refusal) {
        let uncertainty = |failure| match failure {
            Failure::TimedOut | Failure::Unreachable | Failure::Untrusted => 4,
            Failure::Offline => 3,
            Failure::Denied => 2,
            Failure::Absent => 0,
            _ => 1,
        };
        if self.0.as_ref().is_none_or(|held| uncertainty(e.failure) > uncertainty(held.failure)) {
            self.0 = Some(e);
        }
    }

    fn or(self, absent: Refusal) -> Refusal {
        self.0.unwrap_or(absent)
    }
}

#[async_trait]
impl Registry for Union {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        let mut passed = Passed::default();
        let mut tags: Option<BTreeSet<Tag>> = None;
        for answer in join_all(self.sources.iter().map(|source| source.tags(repo))).await {
            if let Some(list) = Union::decide(answer, &mut passed) {
                tags.get_or_insert_default().extend(list?);
            }
        }
        match tags {
            Some(tags) => Ok(tags.into_iter().collect()),
            None => {
                let error = passed.or(self.absent(self.repo(repo)));
                // What was taken away by the user's own wish does not stand before what a store
                // holds below the name.
                let is_above = |name: &RepoName| name.is_within(Some(repo));
                if error.failure == Failure::Offline && self.held().await?.iter().any(is_above) {
                    return Err(self.absent(self.repo(repo)));
                }
                Err(error)
            }
        }
    }

    /// `Absent` if one of the sources does not list what it holds: a partial list would make the
    /// rest look absent.
    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        let mut offline = None;
        let mut repos: Option<BTreeSet<RepoName>> = None;
        for answer in join_all(self.sources.iter().map(|source| source.catalog())).await {
            match answer {
                Err(e) if e.failure == Failure::Offline => offline = Some(e),
                answer => repos.get_or_insert_default().extend(answer?),
            }
        }
        match repos {
            Some(repos) => Ok(repos.into_iter().collect()),
            None => Err(offline.unwrap_or_else(|| self.absent(&self.host))),
        }
    }

    fn last_moved(&self, repo: Option<&RepoName>) -> Option<Instant> {
        self.sources.iter().filter_map(|source| source.last_moved(repo)).max()
    }

    async fn held(&self) -> Result<Vec<RepoName>, Refusal> {
        let mut repos = BTreeSet::new();
        for source in &self.sources {
            repos.extend(source.held().await?);
        }
        Ok(repos.into_iter().collect())
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        let mut passed = Passed::default();
        for source in &self.sources {
            if let Some(answer) = Union::decide(source.resolve(repo, tag).await, &mut passed) {
                return answer;
            }
        }
        Err(passed.or(self.absent(self.repo(repo).at(Selector::Tag(tag.clone())))))
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        let mut passed = Passed::default();
        for source in &self.sources {
            let answer = source.manifest(repo, selector).await;
            match (selector, answer) {
                (Selector::Digest(_), Err(e)) => passed.add(e),
                (_, answer) => {
                    if let Some(answer) = Union::decide(answer, &mut passed) {
                        return answer;
                    }
                }
            }
        }
        Err(passed.or(self.absent(self.repo(repo).at(selector.clone()))))
    }

    /// What any of them knows. One that was taken away by the user's own wish leaves the others
    /// whole.
    async fn referrers(&self, repo: &RepoName, subject: &Digest) -> Referrers {
        let (mut all, mut passed, mut offline) = (Referrers::default(), Passed::default(), None);
        let mut is_heard = false;
        for said in join_all(self.sources.iter().map(|s| s.referrers(repo, subject))).await {
            match said.unheard {
                None => is_heard = true,
                Some(e) if e.failure == Failure::Offline => offline = Some(e),
                Some(e) => passed.add(e),
            }
            all.add(said.entries);
        }
        all.unheard = passed.0.or(offline.filter(|_| !is_heard));
        all
    }

    async fn offered(&self, repo: &RepoName, zip: &ZipName) -> Result<Descriptor, Refusal> {
        let mut passed = Passed::default();
        for source in &self.sources {
            match source.offered(repo, zip).await {
                Ok(offered) => return Ok(offered),
                Err(e) if e.failure == Failure::Unsupported => {}
                Err(e) => passed.add(e),
            }
        }
        Err(passed.or(self.absent(self.repo(repo))))
    }

    /// What is lacking in all of them.
    async fn lacking(&self, repo: &RepoName, manifests: &[Digest]) -> Vec<Digest> {
        let mut lacking = manifests.to_vec();
        for source in &self.sources {
            lacking = source.lacking(repo, &lacking).await;
        }
        lacking
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let mut passed = Passed::default();
        let held = sink.position();
        for source in &self.sources {
            // Bytes of a source that failed are not mixed with those of the next: nobody has
            // verified them yet.
            if sink.position() != held {
                sink.restart().await?;
            }
            match source.blob(repo, blob, sink).await {
                Err(BlobError::Registry(e)) => passed.add(e),
                done => return done,
            }
        }
        Err(passed.or(self.absent(self.repo(repo).at(Selector::Digest(blob.digest)))).into())
    }
}

/// A registry that is not to be asked: every answer is `Offline`, and no connection is made.
pub struct Offline {
    host: Host,
}

impl Offline {
    /// Stands in for the registry `host`.
    pub fn new(host: Host) -> Offline {
        Offline { host }
    }

    fn refuse(&self, subject: impl Into<Subject>) -> Refusal {
        Refusal::new(Failure::Offline, subject, "not in the cache, and the mount is offline")
            .remedy("mount without --offline, or fetch it beforehand")
    }

    fn refuse_to_write(&self, subject: impl Into<Subject>) -> Refusal {
        Refusal::new(
            Failure::Offline,
            subject,
            "nothing can be written to a registry while the mount is offline",
        )
        .remedy("mount without --offline")
    }

    fn repo(&self, repo: &RepoName) -> Repo {
        Repo { host: self.host.clone(), name: repo.clone() }
    }
}

#[async_trait]
impl Registry for Offline {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        Err(self.refuse(self.repo(repo)))
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        Err(self.refuse(&self.host))
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        Err(self.refuse(self.repo(repo).at(Selector::Tag(tag.clone()))))
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        Err(self.refuse(self.repo(repo).at(selector.clone())))
    }

    async fn referrers(&self, repo: &RepoName, subject: &Digest) -> Referrers {
        Referrers::unheard(self.refuse(self.repo(repo).at(Selector::Digest(*subject))))
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        _: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        Err(self.refuse(self.repo(repo).at(Selector::Digest(blob.digest))).into())
    }

    async fn offered(&self, repo: &RepoName, _: &ZipName) -> Result<Descriptor, Refusal> {
        Err(self.refuse(self.repo(repo)))
    }

    async fn greet(&self, _: Greeting) -> Result<(), Refusal> {
        Err(self.refuse(&self.host))
    }
}

#[async_trait]
impl Upload for Offline {
    async fn put_blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        _: &dyn BlobSource,
    ) -> Result<Uploaded, Refusal> {
        Err(self.refuse_to_write(self.repo(repo).at(Selector::Digest(blob.digest))))
    }

    async fn put_manifest(
        &self,
        repo: &RepoName,
        selector: &Selector,
        _: &Manifest,
    ) -> Result<(), Refusal> {
        Err(self.refuse_to_write(self.repo(repo).at(selector.clone())))
    }

    async fn present(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<Option<Digest>, Refusal> {
        Err(self.refuse_to_write(self.repo(repo).at(selector.clone())))
    }

    async fn tags_now(&self, repo: &RepoName, _: Option<&str>) -> Result<Vec<Tag>, Refusal> {
        Err(self.refuse_to_write(self.repo(repo)))
    }

    async fn remove(&self, repo: &RepoName, digest: &Digest) -> Result<Removed, Refusal> {
        Err(self.refuse_to_write(self.repo(repo).at(Selector::Digest(*digest))))
    }
}

#[cfg(test)]
mod tests;
