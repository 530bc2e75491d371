//! The back end for registries that are reached over the network (OCI distribution spec, "Pull" and
//! "Content discovery"; quirks: docs/registry-quirks.md).
//!
//! What an answer's status means for each question is decided here; how it is asked, in `request`;
//! how a blob comes in, in `transfer`. There is no ping: mounting needs no registry.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, StatusCode, Url};

use super::answer::{ResponseDocument, content_type, is_html, is_json, not_a_registry};
use super::auth::CredentialSource;
use super::connection::Connection;
use super::gate::{Gate, Permit};
use super::mirror::MirrorAddress;
use super::observed::Observed;
use super::origin::Origin;
use super::outage::Asker;
use super::paging::{Moving, PAGE_MAX, PagedList};
use super::request::{Question, RegistryRequester};
use super::retry::{Fault, Patience, RETRIES};
use super::scope::TokenScope;
use super::transport::Transport;
use super::{BlobError, BlobSink, DocumentKind, Greeting, RawManifest, Referrers, Registry};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal, Subject};
use crate::name::{Host, Repo, RepoName, Selector, Tag};
use crate::oci::{Descriptor, MANIFEST_MAX};

/// Tries at a mirror after the first one.
const MIRROR_RETRIES: u32 = 1;
/// Both kinds of manifest.
pub(super) const MANIFESTS: &str =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
const JSON: &str = "application/json";
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How one registry is spoken to.
#[derive(Clone)]
pub struct RemoteOptions {
    /// Its name in references.
    pub host: Host,
    /// Without TLS, because the user asked for that. Basic credentials then go over plain HTTP as
    /// well.
    pub plain_http: bool,
    /// A token service that the user trusts with the registry's credential, beside the registry's
    /// own.
    pub token_realm: Option<Origin>,
    /// Where its credential is looked up.
    pub credentials: Arc<dyn CredentialSource>,
}

/// A registry on the network.
pub struct Remote {
    host: Host,
    base: Url,
    /// The registry that a mirror is asked for.
    on_behalf_of: Option<Host>,
    pub(super) requester: RegistryRequester,
    pub(super) transfers: Arc<Gate>,
    pub(super) questions: Arc<Gate>,
    lists: Moving,
}

impl Remote {
    /// A registry that is reached by `transport`, over a connection of its own. Sends nothing.
    ///
    /// # Errors
    /// The name is no host's.
    pub fn new(transport: Arc<Transport>, options: RemoteOptions) -> Result<Remote, Refusal> {
        let RemoteOptions { host, plain_http, token_realm, credentials } = options;
        let origin = Origin::registry(&host, plain_http).ok_or_else(|| invalid(&host))?;
        let connection = Connection::new(transport, host.clone(), origin, token_realm, credentials);
        Remote::over(&connection, host, Asker::Program)
    }

    /// A mirror, by its own address and credentials, over a connection of its own.
    ///
    /// # Errors
    /// The address is none of http or https.
    pub fn mirror(
        transport: Arc<Transport>,
        address: &MirrorAddress,
        token_realm: Option<Origin>,
        credentials: Arc<dyn CredentialSource>,
    ) -> Result<Remote, Refusal> {
        let origin = address.origin().ok_or_else(|| invalid(address.to_string()))?;
        let connection =
            Connection::new(transport, address.host.clone(), origin, token_realm, credentials);
        Ok(Remote::mirror_over(&connection, address, Asker::Program))
    }

    pub(super) fn over(
        connection: &Connection,
        host: Host,
        asker: Asker,
    ) -> Result<Remote, Refusal> {
        let base =
            Url::parse(&format!("{}/v2/", connection.registry)).map_err(|_| invalid(&host))?;
        Ok(Remote::at(connection, host, base, RETRIES, asker))
    }

    /// It is given up sooner than a registry, for which nobody stands in.
    pub(super) fn mirror_over(
        connection: &Connection,
        address: &MirrorAddress,
        asker: Asker,
    ) -> Remote {
        let (host, base) = (address.host.clone(), address.base.clone());
        let remote = Remote::at(connection, host, base, MIRROR_RETRIES, asker);
        Remote { on_behalf_of: Some(address.of.clone()), ..remote }
    }

    fn at(connection: &Connection, host: Host, base: Url, retries: u32, asker: Asker) -> Remote {
        let Connection { transport, registry, auth, transfers, questions } = connection;
        let (transport, registry, auth) = (transport.clone(), registry.clone(), auth.clone());
        let requester = RegistryRequester { transport, registry, auth, retries, asker };
        let (transfers, questions) = (transfers.clone(), questions.clone());
        Remote {
            host,
            base,
            on_behalf_of: None,
            requester,
            transfers,
            questions,
            lists: Moving::default(),
        }
    }

    /// What its answers so far have shown of it.
    pub fn observed(&self) -> Observed {
        self.requester.transport.observed(&self.requester.registry)
    }

    /// Its name in references.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where its requests go.
    pub fn origin(&self) -> &Origin {
        &self.requester.registry
    }

    pub(super) fn repo(&self, name: &RepoName) -> Repo {
        Repo { host: self.host.clone(), name: name.clone() }
    }

    /// The address of `path` below `/v2/`. Names and digests hold nothing that a path would read
    /// differently.
    pub(super) fn url(&self, path: &str) -> Result<Url, Fault> {
        let url = self.base.join(path);
        let mut url =
            url.map_err(|e| Fault::new(Failure::Protocol, format!("{path:?} is no path: {e}")))?;
        if let Some(host) = &self.on_behalf_of {
            url.query_pairs_mut().append_pair("ns", host.as_str());
        }
        Ok(url)
    }

    /// Asks until there is an answer with its whole body, or nothing more is to be tried.
    pub(super) async fn document(
        &self,
        question: &Question,
        limit: u64,
        what: &str,
        patience: &mut Patience,
    ) -> Result<ResponseDocument, Fault> {
        loop {
            let tried = match self.requester.ask(question, patience).await {
                Ok(answer) => answer.document(limit, what, patience).await,
                Err(fault) => Err(fault),
            };
            match tried {
                Ok(document) => return Ok(document),
                Err(fault) => patience.again(fault).await?,
            }
        }
    }

    pub(super) async fn list<T: Ord + std::str::FromStr>(
        &self,
        path: &str,
        scope: TokenScope,
        judge: fn(&ResponseDocument) -> Result<(), Fault>,
    ) -> Result<Vec<T>, Fault> {
        let place = self.enter_for(&self.questions, &scope).await?;
        let moving = self.lists.begin(&scope);
        let mut question = Question::get(self.url(path)?, JSON, scope);
        let mut listing = PagedList::new(self.requester.registry.clone(), &question.url);
        loop {
            // each page is progress, so that each has the whole of the time and the tries
            let mut patience = self.requester.patience();
            let page =
                self.document(&question, PAGE_MAX, "a page of the list", &mut patience).await?;
            judge(&page)?;
            let Some(next) = listing.page(&question.url, &page)? else { break };
            question.url = next;
            place.moved();
            moving.moved();
        }
        if matches!(question.scope, TokenScope::Pull(_)) {
            let pages = listing.pages();
            self.requester
                .transport
                .observe(&self.requester.registry, |seen| seen.tag_pages = Some(pages));
        }
        let (entries, refused) = listing.finish();
        if refused > 0 {
            tracing::warn!(
                list = %self.base, path, refused, "entries that are no valid names are left out"
            );
        }
        Ok(entries)
    }

    pub(super) async fn enter(&self, gate: &Gate) -> Result<Permit, Fault> {
        gate.enter(self.requester.transport.deadline()).await
    }

    /// Enters for who reads what `scope` is about.
    async fn enter_for(&self, gate: &Gate, scope: &TokenScope) -> Result<Permit, Fault> {
        match scope.repo() {
            Some(repo) => gate.enter_for(repo, self.requester.transport.deadline()).await,
            None => self.enter(gate).await,
        }
    }

    async fn head(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Fault> {
        let url = self.url(&format!("{repo}/manifests/{tag}"))?;
        let mut question = Question::get(url, MANIFESTS, TokenScope::Pull(repo.clone()));
        question.method = Method::HEAD;
        let place = self.enter_for(&self.questions, &question.scope).await?;
        let mut patience = self.requester.patience();
        let answer = self.document(&question, MANIFEST_MAX, "the manifest", &mut patience).await?;
        drop(place);
        match answer.status {
            StatusCode::OK if is_html(&answer.headers) => Err(not_a_registry(&answer.origin)),
            StatusCode::OK => claim(&answer.headers),
            StatusCode::NOT_FOUND if is_json(&answer.headers) => Err(absent(&answer)),
            // HEAD has no body that could tell an absence from a proxy's page, and some stores
            // refuse it
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                question.method = Method::GET;
                let raw = self.get(question, &Selector::Tag(tag.clone())).await?;
                Ok(Some(raw.claimed.unwrap_or_else(|| Digest::of(&raw.bytes))))
            }
            _ => Err(answer.unexpected()),
        }
    }

    /// Asks for the manifest that is `selector` by a question that is a GET.
    pub(super) async fn get(
        &self,
        question: Question,
        selector: &Selector,
    ) -> Result<RawManifest, Fault> {
        let _place = self.enter_for(&self.questions, &question.scope).await?;
        let mut patience = self.requester.patience();
        let answer = self.document(&question, MANIFEST_MAX, "the manifest", &mut patience).await?;
        match answer.status {
            StatusCode::OK => answer.refuse_html()?,
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(absent(&answer)),
            _ => return Err(answer.unexpected()),
        }
        let claimed = claim(&answer.headers)?;
        let mismatch = |what: &str, wanted: &Digest, got: Digest| {
            Fault::new(
                Failure::Integrity,
                format!("the manifest that came is {got}, {what} {wanted}"),
            )
        };
        let wanted = match selector {
            Selector::Digest(digest) => Some(("but was asked for as", *digest)),
            Selector::Tag(_) => None,
        };
        for (what, digest) in
            wanted.into_iter().chain(claimed.map(|d| ("but the registry calls it", d)))
        {
            let got = Digest::of_with(digest.algorithm(), &answer.bytes);
            if got != digest {
                return Err(mismatch(what, &digest, got));
            }
        }
        Ok(RawManifest {
            content_type: content_type(&answer.headers),
            bytes: answer.bytes.into(),
            claimed,
            kind: DocumentKind::Manifest,
        })
    }
}

#[async_trait]
impl Registry for Remote {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        let path = format!("{repo}/tags/list?n=1000");
        let tags = self.list(&path, TokenScope::Pull(repo.clone()), judge_tags).await;
        let mut tags: Vec<Tag> = tags.map_err(|fault| fault.about(self.repo(repo)))?;
        tags.retain(|tag| !tag.is_hidden());
        Ok(tags)
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        match self.list("_catalog?n=1000", TokenScope::Catalog, judge_catalog).await {
            Err(fault) if fault.failure == Failure::Denied => {
                Err(unlisted(&fault.rule).about(&self.host))
            }
            listed => listed.map_err(|fault| fault.about(&self.host)),
        }
    }

    fn last_moved(&self, repo: Option<&RepoName>) -> Option<Instant> {
        self.lists.last(&repo.map_or(TokenScope::Catalog, |repo| TokenScope::Pull(repo.clone())))
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        let digest = self.head(repo, tag).await;
        digest.map_err(|fault| fault.about(self.repo(repo).at(Selector::Tag(tag.clone()))))
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        let raw = match self.url(&format!("{repo}/manifests/{selector}")) {
            Ok(url) => {
                self.get(Question::get(url, MANIFESTS, TokenScope::Pull(repo.clone())), selector)
                    .await
            }
            Err(fault) => Err(fault),
        };
        raw.map_err(|fault| fault.about(self.repo(repo).at(selector.clone())))
    }

    async fn referrers(&self, repo: &RepoName, subject: &Digest) -> Referrers {
        let said = self.referrers_of(repo, subject).await;
        Referrers::of(
            said.map_err(|fault| fault.about(self.repo(repo).at(Selector::Digest(*subject)))),
        )
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let subject = self.repo(repo).at(Selector::Digest(blob.digest));
        let about = |fault: Fault| BlobError::Registry(fault.about(&subject));
        let url = self.url(&format!("{repo}/blobs/{}", blob.digest)).map_err(about)?;
        let deadline = self.requester.transport.deadline();
        let place = self.transfers.enter_for(repo, deadline).await.map_err(about)?;
        let transfer =
            super::transfer::Transfer::new(&self.requester, place, url, repo.clone(), blob.size);
        transfer.run(sink).await.map_err(|end| match end {
            super::transfer::TransferEnd::Fault(fault) => about(fault),
            super::transfer::TransferEnd::Sink(error) => BlobError::Sink(error),
        })
    }

    async fn greet(&self, greeting: Greeting) -> Result<(), Refusal> {
        self.greeted(greeting).await.map_err(|fault| fault.about(&self.host))
    }

    fn refused_login(&self) -> bool {
        self.observed().refused.is_some()
    }
}

/// The error of what is to be a registry's place and is none.
pub(super) fn invalid(place: impl Into<Subject>) -> Refusal {
    Refusal::new(Failure::Unreachable, place, "is not a host's name or address")
}

/// The digest that `Docker-Content-Digest` claims. One that cannot be checked claims nothing.
pub(super) fn claim(headers: &HeaderMap) -> Result<Option<Digest>, Fault> {
    let mut claims = headers.get_all(CONTENT_DIGEST).iter();
    let first = claims.next();
    if let Some(other) = claims.find(|other| Some(*other) != first) {
        let rule = format!("the registry claims two digests at once ({first:?} and {other:?})");
        return Err(Fault::new(Failure::Integrity, rule));
    }
    Ok(first.and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse().ok()))
}

/// The fault of a 404: absence if the registry says so itself, else an answer by somebody else.
fn absent(answer: &ResponseDocument) -> Fault {
    if answer.is_authoritative() {
        return Fault::new(Failure::Absent, answer.words());
    }
    Fault::new(
        Failure::Protocol,
        format!(
            "{}, which is not a registry's answer, so that it proves no absence",
            answer.words()
        ),
    )
    .remedy("check the registry's name, and whether a proxy answers in its place")
}

pub(super) fn judge_tags(page: &ResponseDocument) -> Result<(), Fault> {
    let unknown = || {
        page.error_codes().is_some_and(|codes| {
            codes.iter().any(|code| code == "NAME_UNKNOWN" || code == "NAME_INVALID")
        })
    };
    match page.status {
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(absent(page)),
        StatusCode::BAD_REQUEST if unknown() => Err(absent(page)),
        _ => Err(page.unexpected()),
    }
}

fn judge_catalog(page: &ResponseDocument) -> Result<(), Fault> {
    match page.status {
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::FORBIDDEN => {
            Err(unlisted(&page.words()))
        }
        _ => Err(page.unexpected()),
    }
}

/// The catalog is no part of the specification; most public registries refuse it (registry quirk
/// Q7).
fn unlisted(words: &str) -> Fault {
    Fault::new(Failure::Absent, format!("the registry does not list its repositories ({words})"))
        .remedy("repositories can be opened by their names")
}
