//! HTTP as one process speaks it: TLS roots, proxies, connection pools, the breakers and the count
//! of requests.
//!
//! One `Transport::send` is one request and one answer's head. No redirect is followed and nothing
//! is tried again here. No URL is logged or put into an error with its user, password or query.

mod authorities;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

pub use authorities::Authorities;
use authorities::tls;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use reqwest::{Client, Request, Response, StatusCode};

use super::Requests;
use super::address::{Forbidden, Guarded, Reach};
use super::no_answer::{causes, fault_of, forbidden, proxy_denies, proxy_of, way_to};
use super::observed::{Observations, Observed, seconds_ahead};
use super::origin::{Origin, shown};
use super::outage::{Asker, Outages, Route, or_once};
use super::retry::{Fault, Patience};
use crate::failure::{Failure, Refusal};
use crate::metrics::{RequestKind, metrics};

/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// Time from the request to the answer's head, on a connection that stands.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// Time from nothing to an answer's head, for whatever only reads.
pub(super) const ANSWER: Duration = CONNECT.saturating_add(FIRST_BYTE);
/// The largest head of an HTTP/2 answer, in bytes. HTTP/1 heads are bounded by the library (about
/// 400 KiB).
const HEAD_MAX: u32 = 256 << 10;

/// What a [`Transport`] is made with.
#[derive(Clone, Debug)]
pub struct TransportOptions {
    /// PEM files of certificate authorities that are trusted beside those of the system.
    pub ca_files: Vec<PathBuf>,
    /// The time that any call may go on without progress.
    pub deadline: Duration,
    /// `User-Agent`.
    pub user_agent: String,
    /// How long what keeps failing is left alone before a probe, at most 30 s.
    pub probe_after: Duration,
}

impl Default for TransportOptions {
    fn default() -> Self {
        TransportOptions {
            ca_files: Vec::new(),
            deadline: Duration::from_secs(60),
            user_agent: concat!("tofufs/", env!("CARGO_PKG_VERSION")).to_owned(),
            probe_after: Duration::from_secs(10),
        }
    }
}

/// The HTTP client of a process. Connections are pooled by origin; all registries share it.
#[derive(Debug)]
pub struct Transport {
    /// For everything but loopback, by way of the proxies that the environment names.
    client: Client,
    /// For loopback, which no proxy can reach for us.
    direct: Client,
    /// For redirects that no proxy carries (a proxy resolves the names itself), by where the
    /// registry lies: they connect to no address that it may not redirect to.
    guarded: Vec<(Reach, Client)>,
    deadline: Duration,
    outages: Outages,
    requests: Requests,
    observations: Observations,
}

/// An answer's head that is on its way.
pub(super) type Answering = BoxFuture<'static, Result<Response, reqwest::Error>>;

/// A request's purpose, beside what is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand<'a> {
    pub count: Count,
    /// Where the registry lies whose redirect this follows to another origin.
    pub from: Option<Reach>,
    /// What it is about, wherever it is sent.
    pub route: &'a Route,
    pub asker: Asker,
}

/// How a request is counted, unless it is answered 401.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Count {
    /// Not at all: a token request, or a further hop of one that was counted.
    Nothing,
    /// As a request to a registry.
    Request,
    /// As a request for a blob.
    Blob,
}

impl Transport {
    /// A transport with the system's certificate authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// are honoured), those of the options, and the proxies of the environment. `Io` if a file of
    /// authorities cannot be read.
    pub fn new(options: TransportOptions) -> Result<Arc<Transport>, Refusal> {
        let tls = tls(&options.ca_files)?;
        let client = |proxies: bool, guard: Option<Reach>| {
            let builder = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .user_agent(options.user_agent.as_str())
                .connect_timeout(CONNECT)
                .http2_max_header_list_size(HEAD_MAX)
                .pool_idle_timeout(Duration::from_secs(30));
            let builder = if proxies { builder } else { builder.no_proxy() };
            let builder = match guard {
                Some(reach) => builder.dns_resolver(Guarded(reach)),
                None => builder,
            };
            builder.build().map_err(|e| {
                Refusal::new(
                    Failure::Io,
                    "the HTTP client",
                    format!("cannot be set up: {}", causes(&e)),
                )
            })
        };
        let guarded = Reach::ALL.iter().map(|&reach| Ok((reach, client(false, Some(reach))?)));
        Ok(Arc::new(Transport {
            client: client(true, None)?,
            direct: client(false, None)?,
            guarded: guarded.collect::<Result<_, Refusal>>()?,
            deadline: options.deadline,
            outages: Outages::new(options.probe_after),
            requests: Requests::default(),
            observations: Observations::default(),
        }))
    }

    /// What was sent so far.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// What the requests so far have shown of an origin.
    pub fn observed(&self, origin: &Origin) -> Observed {
        self.observations.of(origin)
    }

    /// Adds to what is known of an origin.
    pub(super) fn observe(&self, origin: &Origin, note: impl FnOnce(&mut Observed)) {
        self.observations.note(origin, note);
    }

    /// Registries that have said that they make no lists of referrers are asked again.
    pub(super) fn ask_for_lists_again(&self) {
        self.observations.note_all(|seen| seen.lists_no_referrers = false);
    }

    /// The time that a call may go on without progress.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Sends one request and waits for the answer's head, at most `limit`.
    pub(super) async fn send(
        &self,
        request: Request,
        errand: Errand<'_>,
        limit: Duration,
        patience: &Patience,
    ) -> Result<Response, Fault> {
        let doing = Origin::of(request.url())
            .map_or_else(String::new, |origin| format!("waiting for {}", way_to(&origin)));
        self.exchange(request, errand, |answering| patience.within(limit, &doing, answering)).await
    }

    /// Sends one request; `wait` waits for the answer's head, for as long as it likes, and does
    /// meanwhile what there is to do.
    pub(super) async fn exchange<F>(
        &self,
        request: Request,
        errand: Errand<'_>,
        wait: impl FnOnce(Answering) -> F,
    ) -> Result<Response, Fault>
    where
        F: Future<Output = Result<Result<Response, reqwest::Error>, Fault>>,
    {
        let url = request.url().clone();
        let Some(origin) = Origin::of(&url) else {
            return Err(Fault::new(Failure::Protocol, "an address that is neither http nor https"));
        };
        let Errand { count, from, route, asker } = errand;
        let tries = or_once(self.outages.admit_line(&origin), asker)?;
        let (method, begun) = (request.method().clone(), Instant::now());
        let client = self.client_for(&origin, from)?;
        let sent = wait(client.execute(request).boxed()).await;
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let answer = match sent {
            Ok(Ok(response)) => {
                tracing::debug!(
                    %method, url = %shown(&url), status = response.status().as_u16(), ms, "request"
                );
                self.count(&origin, count, Some(response.status()));
                let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
                if let Some(ahead) = date.and_then(|date| seconds_ahead(date, SystemTime::now())) {
                    self.observe(&origin, |seen| seen.clock_ahead = Some(ahead));
                }
                sound_head(response, &origin)
            }
            Ok(Err(error)) => {
                tracing::debug!(
                    %method, url = %shown(&url), error = %causes(&error), ms, "request"
                );
                if !error.is_connect() {
                    self.count(&origin, count, None);
                }
                Err(fault_of(&error, &origin))
            }
            Err(given_up) => {
                tracing::debug!(%method, url = %shown(&url), error = %given_up.rule, ms, "request");
                self.count(&origin, count, None);
                Err(given_up)
            }
        };
        self.outages.note_line(&origin, route, &answer, begun.elapsed());
        tries.of(answer)
    }

    /// The client that sends to `origin`, as far as an address from there may be followed.
    fn client_for(&self, origin: &Origin, from: Option<Reach>) -> Result<&Client, Fault> {
        Ok(match (from, origin.address()) {
            (Some(reach), Some(address)) if !reach.permits(address) => {
                return Err(forbidden(&Forbidden(address.to_string())));
            }
            _ if origin.is_loopback() && from.is_none_or(|reach| reach == Reach::Loopback) => {
                &self.direct
            }
            (Some(reach), _) if proxy_of(origin).is_none() => {
                self.guarded.iter().find(|(r, _)| *r == reach).map_or(&self.client, |(_, c)| c)
            }
            _ => &self.client,
        })
    }

    /// Who is left alone for now.
    pub(super) fn outages(&self) -> &Outages {
        &self.outages
    }

    /// Ends the time for which what failed is left alone: the user says that it is back, or wants
    /// to know.
    pub fn trust_again(&self) {
        self.outages.trust_again();
    }

    fn count(&self, origin: &Origin, count: Count, status: Option<StatusCode>) {
        let kind = match count {
            Count::Nothing => RequestKind::Step,
            Count::Request => RequestKind::Document,
            Count::Blob => RequestKind::Blob,
        };
        metrics().requested(&origin.authority(), kind, status.map(|status| status.as_u16()));
        if count == Count::Nothing || status == Some(StatusCode::UNAUTHORIZED) {
            return;
        }
        self.requests.total.fetch_add(1, Ordering::Relaxed);
        if count == Count::Blob {
            self.requests.blob.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What no answer may have, whatever its status (hostile input R05, R06).
fn sound_head(response: Response, origin: &Origin) -> Result<Response, Fault> {
    if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        return Err(proxy_denies(origin));
    }
    let headers = response.headers();
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return Err(Fault::new(
            Failure::Protocol,
            format!("{origin} answers with both Content-Length and Transfer-Encoding"),
        ));
    }
    let encoded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .find(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"));
    match encoded {
        Some(encoding) if response.status().is_success() => Err(Fault::new(
            Failure::Protocol,
            format!("{origin} answers with Content-Encoding {encoding:?}; identity was asked for"),
        )),
        _ => Ok(response),
    }
}
