//! Writing into a registry on the network (OCI distribution spec, "Push"; quirks:
//! docs/registry-quirks.md).
//!
//! A blob goes out as POST and one monolithic PUT: several registries take chunks wrongly or not at
//! all (Q14). What ends a try without saying that the next would end alike is followed by a new
//! upload from the first byte; before it, as before the first one, the registry is asked whether it
//! holds the blob by now. Nothing is written anywhere but at the registry's own origin.

mod body;
mod refusal;

use async_trait::async_trait;
use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::RawManifest;
use super::answer::{
    ResponseDocument, ResponseHead, content_length, is_html, is_json, not_a_registry,
};
use super::origin::Origin;
use super::remote::{MANIFESTS, Remote, claim, judge_tags};
use super::request::{Question, REDIRECTS_MAX, is_redirect, too_many_redirects};
use super::retry::{Fault, Patience};
use super::scope::TokenScope;
use super::transport::Count;
use super::upload::{BlobSource, Removed, Upload, Uploaded};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal, Subject};
use crate::name::{RepoName, Selector, Tag};
use crate::oci::{Descriptor, MANIFEST_MAX, Manifest};
use body::Outgoing;
use refusal::WriteSubject;

/// How much is read of an answer to what was written.
const ANSWER_MAX: u64 = 1 << 20;
/// The longest `Location`, in bytes.
const LOCATION_MAX: usize = 8 << 10;

#[async_trait]
impl Upload for Remote {
    async fn put_blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<Uploaded, Refusal> {
        let uploaded = BlobPush { remote: self, repo, blob, source, logins: 0 }.run().await;
        uploaded.map_err(|fault| fault.about(self.repo(repo).at(Selector::Digest(blob.digest))))
    }

    async fn put_manifest(
        &self,
        repo: &RepoName,
        selector: &Selector,
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        let put = self.put(repo, selector, manifest).await;
        put.map_err(|fault| match selector {
            Selector::Digest(_) => fault.about(self.repo(repo).at(selector.clone())),
            Selector::Tag(_) => {
                let reference = self.repo(repo).at(selector.clone());
                fault.about(Subject::Manifest(reference, manifest.digest))
            }
        })
    }

    async fn present(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<Option<Digest>, Refusal> {
        let found = self.look(repo, selector).await;
        found.map_err(|fault| fault.about(self.repo(repo).at(selector.clone())))
    }

    async fn read_back(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<RawManifest, Refusal> {
        let raw = match self.manifest_question(repo, selector) {
            Ok(question) => self.get(question, selector).await,
            Err(fault) => Err(fault),
        };
        raw.map_err(|fault| fault.about(self.repo(repo).at(selector.clone())))
    }

    async fn tags_now(&self, repo: &RepoName, after: Option<&str>) -> Result<Vec<Tag>, Refusal> {
        let after = after.map(|after| format!("&last={after}")).unwrap_or_default();
        let path = format!("{repo}/tags/list?n=1000{after}");
        match self.list(&path, TokenScope::Push(repo.clone()), judge_tags).await {
            Err(fault) if fault.failure == Failure::Absent => Ok(Vec::new()),
            listed => listed.map_err(|fault| fault.about(self.repo(repo))),
        }
    }

    async fn lists_referrers(&self, repo: &RepoName, subject: &Digest) -> Result<bool, Refusal> {
        let makes = self.makes_lists(repo, subject).await;
        makes.map_err(|fault| fault.about(self.repo(repo).at(Selector::Digest(*subject))))
    }

    async fn remove(&self, repo: &RepoName, digest: &Digest) -> Result<Removed, Refusal> {
        if self.observed().keeps_manifests {
            return Ok(Removed::Refused);
        }
        let removed = match self.delete(repo, digest).await {
            Err(fault) if fault.failure == Failure::Denied => Removed::Refused,
            removed => removed
                .map_err(|fault| fault.about(self.repo(repo).at(Selector::Digest(*digest))))?,
        };
        if removed == Removed::Refused {
            self.requester
                .transport
                .observe(&self.requester.registry, |seen| seen.keeps_manifests = true);
        }
        Ok(removed)
    }
}

impl Remote {
    async fn delete(&self, repo: &RepoName, digest: &Digest) -> Result<Removed, Fault> {
        let url = self.url(&format!("{repo}/manifests/{digest}"))?;
        let mut question = Question::get(url, "application/json", TokenScope::Remove(repo.clone()));
        question.method = Method::DELETE;
        let _place = self.enter(&self.questions).await?;
        let answer = self
            .document(&question, ANSWER_MAX, "the answer", &mut self.requester.patience())
            .await?;
        match answer.status {
            status if status.is_success() => {
                answer.refuse_html()?;
                Ok(Removed::Yes)
            }
            StatusCode::NOT_FOUND | StatusCode::GONE if answer.is_authoritative() => {
                Ok(Removed::WasAbsent)
            }
            status if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => {
                Ok(Removed::Refused)
            }
            _ => Err(answer.unexpected()),
        }
    }

    /// A GET of a manifest by who writes: past every cache, and by the token that may write too.
    fn manifest_question(&self, repo: &RepoName, selector: &Selector) -> Result<Question, Fault> {
        let url = self.url(&format!("{repo}/manifests/{selector}"))?;
        let mut question = Question::get(url, MANIFESTS, TokenScope::Push(repo.clone()));
        question.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(question)
    }

    async fn look(&self, repo: &RepoName, selector: &Selector) -> Result<Option<Digest>, Fault> {
        let mut question = self.manifest_question(repo, selector)?;
        question.method = Method::HEAD;
        let place = self.enter(&self.questions).await?;
        let mut patience = self.requester.patience();
        let answer = self.document(&question, MANIFEST_MAX, "the manifest", &mut patience).await?;
        drop(place);
        match answer.status {
            StatusCode::OK if is_html(&answer.headers) => {
                return Err(not_a_registry(&answer.origin));
            }
            StatusCode::OK => {
                if let Some(digest) = claim(&answer.headers)? {
                    return Ok(Some(digest));
                }
            }
            StatusCode::NOT_FOUND if is_json(&answer.headers) => return Ok(None),
            // HEAD has no body that could tell an absence from a proxy's page, and some stores
            // refuse it
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {}
            _ => return Err(answer.unexpected()),
        }
        question.method = Method::GET;
        match self.get(question, selector).await {
            Ok(raw) => Ok(Some(match selector {
                Selector::Digest(digest) => *digest,
                Selector::Tag(_) => raw.claimed.unwrap_or_else(|| Digest::of(&raw.bytes)),
            })),
            Err(fault) if fault.failure == Failure::Absent => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn put(
        &self,
        repo: &RepoName,
        selector: &Selector,
        manifest: &Manifest,
    ) -> Result<(), Fault> {
        let wanted = manifest.digest;
        let got = Digest::of_with(wanted.algorithm(), &manifest.raw);
        if got != wanted || matches!(selector, Selector::Digest(digest) if *digest != wanted) {
            let rule = format!("the manifest to be sent is {got} and not what it is sent as");
            return Err(Fault::new(Failure::Integrity, rule));
        }
        let url = self.url(&format!("{repo}/manifests/{selector}"))?;
        let mut question = Question::get(url, "application/json", TokenScope::Push(repo.clone()));
        question.method = Method::PUT;
        question.headers.insert(CONTENT_TYPE, HeaderValue::from_static(manifest.media_type));
        question.body = manifest.raw.to_vec().into();
        let place = self.enter(&self.questions).await?;
        let mut patience = self.requester.patience();
        let written = WriteSubject::Manifest(manifest);
        let answer = self.document(&question, ANSWER_MAX, "the answer", &mut patience).await;
        drop(place);
        let answer = answer.map_err(|fault| refusal::of_fault(fault, &written))?;
        if !answer.status.is_success() {
            return Err(refusal::of_answer(&answer, &written));
        }
        answer.refuse_html()?;
        let kept = match claim(&answer.headers)? {
            Some(digest) if digest.algorithm() == wanted.algorithm() => Some(digest),
            _ => self.look(repo, selector).await?,
        };
        match kept {
            Some(digest) if digest == wanted => Ok(()),
            Some(digest) if digest.algorithm() != wanted.algorithm() => Ok(()),
            Some(digest) => Err(Fault::new(
                Failure::Integrity,
                format!("the registry says that it kept {digest} where {wanted} was sent"),
            )),
            None => Err(lost(&answer)),
        }
    }
}

/// The fault of a registry that took something and does not have it.
fn lost(answer: &ResponseDocument) -> Fault {
    Fault::new(
        Failure::Integrity,
        format!("{}, but it does not hold what was sent", answer.words()),
    )
    .remedy("try again, and see the registry's log if that does not help")
}

/// What a registry says of a blob.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlobPresence {
    Yes,
    No,
    /// It does not tell.
    Untold,
}

/// One blob on its way into a registry.
struct BlobPush<'a> {
    remote: &'a Remote,
    repo: &'a RepoName,
    blob: &'a Descriptor,
    source: &'a dyn BlobSource,
    /// Logins since the upload began.
    logins: u32,
}

impl BlobPush<'_> {
    async fn run(mut self) -> Result<Uploaded, Fault> {
        let remote = self.remote;
        let place = remote.enter(&remote.transfers).await?;
        let mut patience = remote.requester.patience();
        let mut outgoing = Outgoing::new(self.blob, self.source, place)?;
        loop {
            let tried = match self.held(&mut patience).await {
                Ok(BlobPresence::Yes) if outgoing.was_sent() => return Ok(Uploaded::Sent),
                Ok(BlobPresence::Yes) => return Ok(Uploaded::Present),
                Ok(BlobPresence::No | BlobPresence::Untold) => {
                    self.attempt(&mut outgoing, &mut patience).await
                }
                Err(fault) => Err(fault),
            };
            match tried {
                Ok(()) => return Ok(Uploaded::Sent),
                Err(fault) => {
                    patience.again(refusal::of_fault(fault, &WriteSubject::Blob(self.blob))).await?
                }
            }
        }
    }

    fn question(&self, method: Method, url: Url) -> Question {
        let mut question = Question::get(url, "*/*", TokenScope::Push(self.repo.clone()));
        question.method = method;
        question.count = Count::Blob;
        question
    }

    /// Asks whether the registry holds the blob.
    async fn held(&self, patience: &mut Patience) -> Result<BlobPresence, Fault> {
        let url = self.remote.url(&format!("{}/blobs/{}", self.repo, self.blob.digest))?;
        let question = self.question(Method::HEAD, url);
        let answer = self.remote.document(&question, u64::MAX, "the blob", patience).await?;
        let own = answer.origin == *self.remote.origin();
        match answer.status {
            StatusCode::OK if is_html(&answer.headers) => Err(not_a_registry(&answer.origin)),
            StatusCode::OK => self.held_as_it_is(&answer.headers),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(BlobPresence::No),
            // a store may refuse HEAD at an address that was signed for GET (Q11), but the registry
            // named it
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED
                if !own =>
            {
                Ok(BlobPresence::Yes)
            }
            _ => Ok(BlobPresence::Untold),
        }
    }

    fn held_as_it_is(&self, headers: &HeaderMap) -> Result<BlobPresence, Fault> {
        let Descriptor { digest, size, .. } = self.blob;
        if let Some(claimed) = claim(headers)?
            && claimed.algorithm() == digest.algorithm()
            && claimed != *digest
        {
            return Err(Fault::new(
                Failure::Integrity,
                format!("the registry shows {claimed} in its place"),
            ));
        }
        match content_length(headers) {
            // some registries send no length of what they do not send
            None | Some(0) => Ok(BlobPresence::Yes),
            Some(length) if length == *size => Ok(BlobPresence::Yes),
            Some(length) => Err(Fault::new(
                Failure::Integrity,
                format!(
                    "the registry holds {length} bytes under this digest, whose content has {size}"
                ),
            )),
        }
    }

    /// One upload, from the first byte to the registry's word that it has the blob.
    async fn attempt(
        &mut self,
        outgoing: &mut Outgoing<'_>,
        patience: &mut Patience,
    ) -> Result<(), Fault> {
        let mut url = self.session(patience).await?;
        append_digest(&mut url, &self.blob.digest);
        for _ in 0..=REDIRECTS_MAX {
            let question = self.question(Method::PUT, url.clone());
            let requester = &self.remote.requester;
            let answer = outgoing.send(requester, &question, &mut self.logins, patience).await?;
            if !is_redirect(answer.response.status()) {
                return self.judge(answer, patience).await;
            }
            url = requester.target_of_write(
                &url,
                answer.response.status(),
                answer.response.headers(),
            )?;
        }
        Err(too_many_redirects())
    }

    /// Begins an upload: where its bytes are to go.
    async fn session(&self, patience: &mut Patience) -> Result<Url, Fault> {
        let url = self.remote.url(&format!("{}/blobs/uploads/", self.repo))?;
        let question = self.question(Method::POST, url);
        let answer = self.remote.document(&question, ANSWER_MAX, "the answer", patience).await?;
        if !answer.status.is_success() {
            return Err(refusal::of_answer(&answer, &WriteSubject::Blob(self.blob)));
        }
        answer.refuse_html()?;
        if let Some(last) = last_of_range(&answer.headers)
            && last > 0
        {
            let rule = format!(
                "a new upload at the registry claims to hold the bytes up to {last} already"
            );
            return Err(Fault::new(Failure::Protocol, rule));
        }
        location(&question.url, &answer.headers, self.remote.origin())
    }

    /// What the answer to the last byte means.
    async fn judge(&self, answer: ResponseHead, patience: &mut Patience) -> Result<(), Fault> {
        let answer = answer.document(ANSWER_MAX, "the answer", patience).await?;
        if !answer.status.is_success() {
            return Err(refusal::of_answer(&answer, &WriteSubject::Blob(self.blob)));
        }
        answer.refuse_html()?;
        let Descriptor { digest, size, .. } = self.blob;
        let range = last_of_range(&answer.headers);
        let told =
            claim(&answer.headers)?.filter(|claimed| claimed.algorithm() == digest.algorithm());
        if let Some(kept) = told
            && kept != *digest
        {
            let rule = format!("the registry says that it kept {kept} where {digest} was sent");
            return Err(Fault::new(Failure::Integrity, rule));
        }
        let whole = range.is_none_or(|last| last.saturating_add(1) == *size);
        if answer.status == StatusCode::CREATED && told.is_some() && whole {
            return Ok(());
        }
        match self.held(patience).await? {
            BlobPresence::Yes => Ok(()),
            BlobPresence::Untold if answer.status == StatusCode::CREATED && whole => Ok(()),
            _ if answer.status == StatusCode::CREATED => Err(lost(&answer)),
            _ => {
                let status = answer.status.as_u16();
                let range = range
                    .map(|last| format!(", and to have the bytes up to {last}"))
                    .unwrap_or_default();
                Err(Fault::new(
                    Failure::Protocol,
                    format!(
                        "the registry says {status} where 201 would end the upload{range}; it \
                         lacks the blob"
                    ),
                ))
            }
        }
    }
}

/// Where the bytes of an upload are to go. At the registry itself: a credential goes along
/// (CVE-2026-50151).
fn location(at: &Url, headers: &HeaderMap, registry: &Origin) -> Result<Url, Fault> {
    let refused =
        |why: String| Fault::new(Failure::Protocol, format!("the Location of the upload {why}"));
    let Some(location) = headers.get(LOCATION) else {
        return Err(refused("is missing".to_owned()));
    };
    let text = location.to_str().ok().filter(|text| text.len() <= LOCATION_MAX);
    let Some(mut url) = text.and_then(|text| at.join(text).ok()) else {
        return Err(refused("is not an address".to_owned()));
    };
    url.set_fragment(None);
    match Origin::of(&url) {
        Some(origin)
            if origin == *registry && url.username().is_empty() && url.password().is_none() =>
        {
            Ok(url)
        }
        Some(origin) => {
            Err(refused(format!("leads away from {registry}, to {origin}; nothing was sent there"))
                .remedy(
                    "if a proxy stands before the registry, let it pass on host, port and scheme \
                 (X-Forwarded-Proto)",
                ))
        }
        None => Err(refused(format!("leads away from {registry}; nothing was sent there"))),
    }
}

/// Adds the parameter that ends an upload. What the query holds is the registry's and stays as it
/// is.
fn append_digest(url: &mut Url, digest: &Digest) {
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&digest={digest}"),
        _ => format!("digest={digest}"),
    };
    url.set_query(Some(&query));
}

/// The last position of `Range: 0-LAST`, as answers to uploads have it.
fn last_of_range(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let (_, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    last.parse().ok()
}

#[cfg(test)]
mod tests;
