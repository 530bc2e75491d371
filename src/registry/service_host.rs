//! A host of services that are no OCI registry, such as a provider registry: documents and files
//! over https, at the host itself and wherever it says.
//!
//! A token goes to the origin of the question that it is given for, and to no other, wherever
//! redirects lead.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Method, Request, StatusCode};
use url::Url;

use super::address::Reach;
use super::answer::{
    ResponseDocument, ResponseHead, content_length, is_html, is_json, not_a_registry,
};
use super::credentials::HostToken;
use super::origin::{Origin, Scheme, shown};
use super::outage::{Asker, Route, or_once};
use super::request::{REDIRECTS_MAX, is_redirect, target, too_many_redirects};
use super::retry::{Fault, Patience, RETRIES, Retry};
use super::scope::TokenScope;
use super::transfer::{content_range, strong_etag};
use super::transport::{ANSWER, Count, Errand, Transport};
use super::{BlobError, BlobSink};
use crate::failure::{Failure, Refusal};
use crate::moment::Moment;
use crate::name::{Host, RepoName};

/// By which module registries name an address.
const LOCATION: &str = "x-terraform-get";
/// How much is read of an answer that is an error.
const REFUSAL_MAX: u64 = 16 << 10;

/// The way to one such host, and from there.
pub struct ServiceHost {
    transport: Arc<Transport>,
    home: Origin,
    /// Where somebody says that its services are, so that nobody has to ask at home.
    stated: Option<Origin>,
    /// Where the host lies, once it has answered: it may lead to the public network, and within its
    /// own part.
    lies: Mutex<Option<Reach>>,
    asker: Asker,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct ServiceQuestion<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// What sentences are about: `registry.opentofu.org/hashicorp/aws 5.92.0`.
    pub subject: &'a str,
    /// What it is: `the list of versions`.
    pub what: &'a str,
    /// The part of the host that it belongs to, so that one in trouble is left alone by itself.
    pub part: Option<&'a RepoName>,
    /// The token to show, if any.
    pub token: Option<&'a HostToken>,
    /// The most bytes of it.
    pub limit: u64,
}

/// A document as it came.
pub struct ServiceDocument {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where it came from in the end; addresses in it are relative to that.
    pub url: Url,
    /// Whether it says that it is JSON.
    pub is_json: bool,
    /// When it says that it changed last.
    pub modified: Option<Moment>,
}

/// An answer that names an address.
#[derive(serde::Deserialize)]
struct LocatedDocument {
    location: String,
}

/// An answer and where it came from in the end.
type Arrived = (ResponseHead, Url);

impl ServiceHost {
    /// The host by its name. Connects to nothing. `None` where the name cannot stand in an address.
    pub fn new(transport: &Arc<Transport>, host: &Host, asker: Asker) -> Option<ServiceHost> {
        let (transport, home) = (Arc::clone(transport), Origin::registry(host, false)?);
        Some(ServiceHost { transport, home, stated: None, lies: Mutex::default(), asker })
    }

    /// The same, whose services somebody says to be at `url`.
    pub fn stated_at(self, url: &Url) -> ServiceHost {
        ServiceHost { stated: Origin::of(url), ..self }
    }

    /// The address of a path at the host itself.
    pub fn url(&self, path: &str) -> Option<Url> {
        Url::parse(&format!("{}{path}", self.home)).ok()
    }

    /// Fetches a document; `None` where there is none.
    ///
    /// # Errors
    /// As every back end's: an outage is `TimedOut`, `Unreachable` or `Untrusted`.
    pub async fn document(
        &self,
        question: ServiceQuestion<'_>,
    ) -> Result<Option<ServiceDocument>, Refusal> {
        let read = |answer: ResponseDocument, url| {
            match answer.status {
                StatusCode::OK => answer.refuse_html()?,
                StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
                _ => return Err(refusal(&answer, question)),
            }
            let (is_json, modified) = (is_json(&answer.headers), modified(&answer.headers));
            Ok(Some(ServiceDocument { bytes: answer.bytes, url, is_json, modified }))
        };
        self.asked(question, read).await
    }

    /// Asks where something lies: the address that the answer names by `X-Terraform-Get` or as its
    /// `location`, and where the answer came from in the end. `None` where there is no such thing.
    ///
    /// # Errors
    /// As [`ServiceHost::document`].
    pub async fn address(
        &self,
        question: ServiceQuestion<'_>,
    ) -> Result<Option<(String, Url)>, Refusal> {
        let read = |answer: ResponseDocument, url| {
            match answer.status {
                StatusCode::OK | StatusCode::NO_CONTENT => {}
                StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
                _ => return Err(refusal(&answer, question)),
            }
            let named = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
            let located = || serde_json::from_slice::<LocatedDocument>(&answer.bytes).ok();
            match named.map(str::to_owned).or_else(|| Some(located()?.location)) {
                Some(address) => Ok(Some((address, url))),
                None => {
                    answer.refuse_html()?;
                    let rule = format!("{} was asked for, and no address is named", question.what);
                    Err(Fault::new(Failure::Protocol, rule))
                }
            }
        };
        self.asked(question, read).await
    }

    /// One answer, as `read` takes it.
    async fn asked<T>(
        &self,
        question: ServiceQuestion<'_>,
        read: impl Fn(ResponseDocument, Url) -> Result<Option<T>, Fault>,
    ) -> Result<Option<T>, Refusal> {
        let mut patience = self.patience();
        loop {
            let answered = match self.answered(question, None, &mut patience).await {
                Ok((head, url)) => {
                    let whole = head.document(question.limit, question.what, &mut patience).await;
                    whole.and_then(|answer| read(answer, url))
                }
                Err(fault) => Err(fault),
            };
            match answered {
                Ok(found) => return Ok(found),
                Err(fault) => {
                    patience.again(fault).await.map_err(|fault| about(question, fault))?
                }
            }
        }
    }

    /// Fetches a file into `sink`; what broke off goes on from there where the server can.
    ///
    /// # Errors
    /// `Integrity` where there is none, or it ends too early each time; else as
    /// [`ServiceHost::document`].
    pub async fn download(
        &self,
        question: ServiceQuestion<'_>,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let mut patience = self.patience();
        let mut etag = None;
        loop {
            match self.download_once(question, sink, &mut etag, &mut patience).await {
                Ok(()) => return Ok(()),
                Err(BlobFault::Sink(error)) => return Err(error.into()),
                Err(BlobFault::Fault(fault)) => {
                    patience.again(fault).await.map_err(|fault| about(question, fault))?;
                }
            }
        }
    }

    async fn download_once(
        &self,
        question: ServiceQuestion<'_>,
        sink: &mut dyn BlobSink,
        etag: &mut Option<HeaderValue>,
        patience: &mut Patience,
    ) -> Result<(), BlobFault> {
        let from = if etag.is_some() { sink.position() } else { 0 };
        let range = etag.as_ref().filter(|_| from > 0).map(|etag| (from, etag.clone()));
        let (mut head, _) = self.answered(question, range, patience).await?;
        let headers = head.response.headers();
        let starts = match head.response.status() {
            StatusCode::OK if is_html(headers) => return Err(not_a_registry(&head.origin).into()),
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => first_byte(headers),
            _ => return Err(lacking(head, question, patience).await.into()),
        };
        *etag = strong_etag(headers);
        if starts != sink.position() {
            sink.restart().await?;
            if starts != 0 {
                *etag = None;
                let rule = "the answer to a range holds another one";
                return Err(Fault::passing(Failure::Protocol, rule).into());
            }
        }
        if content_length(headers).is_some_and(|length| starts + length > question.limit) {
            return Err(too_large(question).into());
        }
        patience.body_begins();
        loop {
            let piece = match patience.piece(head.response.chunk()).await? {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(()),
                Err(_) => {
                    let rule =
                        format!("{} breaks off after {} bytes", question.what, sink.position());
                    return Err(Fault::passing(Failure::Integrity, rule).into());
                }
            };
            let position = sink.position() + piece.len() as u64;
            if position > question.limit {
                return Err(too_large(question).into());
            }
            patience.received(piece.len() as u64, position);
            sink.write(piece).await?;
        }
    }

    /// How many bytes a file has, by the smallest question that its server answers.
    ///
    /// # Errors
    /// As of [`ServiceHost::download`]; `Protocol` where the server does not tell.
    pub async fn length(&self, question: ServiceQuestion<'_>) -> Result<u64, Refusal> {
        let mut patience = self.patience();
        loop {
            match self.length_once(question, &mut patience).await {
                Ok(length) => return Ok(length),
                Err(fault) => {
                    patience.again(fault).await.map_err(|fault| about(question, fault))?
                }
            }
        }
    }

    /// Addresses that count for a moment are often signed for GET alone, so what HEAD is refused is
    /// asked by GET, whose body nobody reads.
    async fn length_once(
        &self,
        question: ServiceQuestion<'_>,
        patience: &mut Patience,
    ) -> Result<u64, Fault> {
        let told = |head: &ResponseHead| {
            let headers = head.response.headers();
            let is_file = head.response.status() == StatusCode::OK && !is_html(headers);
            content_length(headers).filter(|_| is_file)
        };
        let route = route_of(&self.home, question);
        let head = self.hops(question, Method::HEAD, None, &route, patience).await;
        if let Some(length) = head.ok().and_then(|(head, _)| told(&head)) {
            return Ok(length);
        }
        let (head, _) = self.answered(question, None, patience).await?;
        if let Some(length) = told(&head) {
            return Ok(length);
        }
        let headers = head.response.headers();
        match head.response.status() {
            StatusCode::OK if is_html(headers) => Err(not_a_registry(&head.origin)),
            StatusCode::OK => {
                let rule = format!("the server of {} does not tell its length", question.what);
                Err(Fault::new(Failure::Protocol, rule))
            }
            _ => Err(lacking(head, question, patience).await),
        }
    }

    fn patience(&self) -> Patience {
        Patience::new(self.transport.deadline(), RETRIES)
    }

    /// One answer, redirects followed. 401, 403, 429 and 5xx are faults.
    async fn answered(
        &self,
        question: ServiceQuestion<'_>,
        range: Option<(u64, HeaderValue)>,
        patience: &mut Patience,
    ) -> Result<Arrived, Fault> {
        let route = route_of(&self.home, question);
        let tries = or_once(self.transport.outages().admit_route(&route), self.asker)?;
        let answer = match self.hops(question, Method::GET, range, &route, patience).await {
            Ok((head, url)) => judged(head, question, patience).await.map(|head| (head, url)),
            Err(fault) => Err(fault),
        };
        self.transport.outages().note_route(&route, &answer);
        tries.of(answer)
    }

    async fn hops(
        &self,
        question: ServiceQuestion<'_>,
        method: Method,
        range: Option<(u64, HeaderValue)>,
        route: &Route,
        patience: &Patience,
    ) -> Result<Arrived, Fault> {
        let mut url = question.url.clone();
        let own = Origin::of(&url);
        let mut count = Count::Request;
        for _ in 0..=REDIRECTS_MAX {
            let Some(origin) = Origin::of(&url).filter(|origin| origin.scheme() == Scheme::Https)
            else {
                return Err(not_https(&url, question.what));
            };
            let mut request = Request::new(method.clone(), url.clone());
            let headers = request.headers_mut();
            headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some(token) = question.token
                && own.as_ref() == Some(&origin)
            {
                headers.insert(AUTHORIZATION, bearer(token)?);
            }
            if let Some((first, etag)) = &range
                && let Ok(bytes) = HeaderValue::from_str(&format!("bytes={first}-"))
            {
                headers.insert(RANGE, bytes);
                headers.insert(IF_RANGE, etag.clone());
            }
            let is_home = origin == self.home || self.stated.as_ref() == Some(&origin);
            let lies = *self.lies.lock();
            let from = if is_home { None } else { lies };
            let errand = Errand { count, from, route, asker: self.asker };
            let response = self.transport.send(request, errand, ANSWER, patience).await?;
            if is_home {
                let lies = response.remote_addr().map(|address| Reach::of(address.ip()));
                *self.lies.lock() = lies;
            }
            if !is_redirect(response.status()) {
                return Ok((ResponseHead { response, origin }, url));
            }
            url = target(&url, response.headers())?;
            count = Count::Nothing;
        }
        Err(too_many_redirects())
    }
}

/// Why a download ended.
enum BlobFault {
    Fault(Fault),
    Sink(super::SinkError),
}

impl From<Fault> for BlobFault {
    fn from(fault: Fault) -> BlobFault {
        BlobFault::Fault(fault)
    }
}

impl From<super::SinkError> for BlobFault {
    fn from(error: super::SinkError) -> BlobFault {
        BlobFault::Sink(error)
    }
}

/// By which trouble with a question is remembered.
fn route_of(home: &Origin, question: ServiceQuestion<'_>) -> Route {
    let scope = question.part.map_or(TokenScope::Registry, |part| TokenScope::Pull(part.clone()));
    Route { registry: home.clone(), scope }
}

fn about(question: ServiceQuestion<'_>, fault: Fault) -> Refusal {
    fault.about(question.subject)
}

fn bearer(token: &HostToken) -> Result<HeaderValue, Fault> {
    let value = HeaderValue::from_str(&format!("Bearer {}", token.secret.expose()));
    let mut value = value.map_err(|_| {
        Fault::new(
            Failure::Denied,
            format!("the token of {} holds characters that no header can", token.source),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The answer, unless it denies access or asks to be left alone.
async fn judged(
    head: ResponseHead,
    question: ServiceQuestion<'_>,
    patience: &mut Patience,
) -> Result<ResponseHead, Fault> {
    match head.response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(refusal(&head.document(REFUSAL_MAX, "the answer", patience).await?, question))
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Err(head.document(REFUSAL_MAX, "the answer", patience).await?.overloaded())
        }
        status if status.is_server_error() => {
            Err(head.document(REFUSAL_MAX, "the answer", patience).await?.overloaded())
        }
        _ => Ok(head),
    }
}

fn refusal(answer: &ResponseDocument, question: ServiceQuestion<'_>) -> Fault {
    let fault = answer.unexpected();
    let rule = format!("{} was asked for, and {}", question.what, fault.rule);
    let remedy = match question.token {
        _ if fault.failure != Failure::Denied => fault.remedy,
        Some(token) => {
            Some(format!("the token of {} was shown; see whether it is valid", token.source))
        }
        None => Some(
            "if it wants a token, name one by TF_TOKEN_HOST or a credentials block, as for the \
             clients"
                .to_owned(),
        ),
    };
    Fault { rule, remedy, retry: Retry::Never, failure: fault.failure }
}

async fn lacking(
    head: ResponseHead,
    question: ServiceQuestion<'_>,
    patience: &mut Patience,
) -> Fault {
    match head.document(REFUSAL_MAX, "the answer", patience).await {
        Ok(answer) if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) => {
            let rule =
                format!("{} is not where the registry says ({})", question.what, answer.words());
            Fault::new(Failure::Integrity, rule)
        }
        Ok(answer) => refusal(&answer, question),
        Err(fault) => fault,
    }
}

fn modified(headers: &HeaderMap) -> Option<Moment> {
    let text = headers.get(LAST_MODIFIED)?.to_str().ok()?;
    let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Moment::at(at.as_secs()))
}

fn first_byte(headers: &HeaderMap) -> u64 {
    let text = headers.get(reqwest::header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    text.and_then(content_range).map_or(u64::MAX, |(first, ..)| first)
}

fn too_large(question: ServiceQuestion<'_>) -> Fault {
    let rule =
        format!("{} has more than {} bytes, the limit for it", question.what, question.limit);
    Fault::new(Failure::TooLarge, rule)
}

fn not_https(url: &Url, what: &str) -> Fault {
    let rule = format!("{what} is to come from {}, which is no https address", shown(url));
    Fault::new(Failure::Protocol, rule)
}
