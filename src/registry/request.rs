//! One request to a registry: login, redirects, and the answer of whoever answers in the end.
//!
//! `Authorization` is set in one place, [`Requester::request`], and only for the registry's own
//! origin.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Request, Response, StatusCode, Url};

use super::address::Reach;
use super::answer::{ResponseHead, is_json};
use super::auth::{Grant, RegistryAuth};
use super::challenge::Challenge;
use super::origin::{Origin, Scheme};
use super::outage::{Asker, Route, or_once};
use super::retry::{Fault, Patience, Retry};
use super::scope::TokenScope;
use super::transport::{ANSWER, Count, Errand, Transport};
use crate::failure::Failure;

/// Redirects that are followed for one request.
pub(super) const REDIRECTS_MAX: u32 = 5;
/// The longest `Location`, in bytes.
const LOCATION_MAX: usize = 8 << 10;
/// Logins for one request.
const LOGINS_MAX: u32 = 2;
/// How much of a refused answer is read, for its text.
const REFUSAL_MAX: u64 = 16 << 10;

/// What is asked.
pub(super) struct Question {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    /// What is sent along, for methods that write.
    pub body: Bytes,
    pub scope: TokenScope,
    pub count: Count,
    /// Whether a redirect to another origin is an answer, and not followed.
    pub stays: bool,
}

impl Question {
    /// A GET with `accept` for its `Accept` header.
    pub fn get(url: Url, accept: &'static str, scope: TokenScope) -> Question {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Question {
            method: Method::GET,
            url,
            headers,
            body: Bytes::new(),
            scope,
            count: Count::Request,
            stays: false,
        }
    }

    /// Whether it changes nothing at the registry.
    fn only_reads(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

/// The way to one registry, for one who asks.
pub(super) struct RegistryRequester {
    pub transport: Arc<Transport>,
    pub registry: Origin,
    pub auth: Arc<RegistryAuth>,
    /// Tries after the first one, without progress in between.
    pub retries: u32,
    pub asker: Asker,
}

impl RegistryRequester {
    /// A call's share of time and tries.
    pub fn patience(&self) -> Patience {
        Patience::new(self.transport.deadline(), self.retries)
    }

    /// Sends `question` once: with logins and redirects, without trying again what failed. What the
    /// registry itself denies (401, 403), 429 and 5xx are faults; every other status is the
    /// caller's to judge.
    pub async fn ask(
        &self,
        question: &Question,
        patience: &mut Patience,
    ) -> Result<ResponseHead, Fault> {
        let route = Route { registry: self.registry.clone(), scope: question.scope.clone() };
        let tries = or_once(self.transport.outages().admit_route(&route), self.asker)?;
        let answer = self.logged_in(question, &route, patience).await;
        self.transport.outages().note_route(&route, &answer);
        let refused = match &answer {
            Err(fault) if fault.failure == Failure::Denied => Some(fault.rule.clone()),
            _ => None,
        };
        self.transport.observe(&self.registry, |seen| seen.refused = refused);
        tries.of(answer)
    }

    async fn logged_in(
        &self,
        question: &Question,
        route: &Route,
        patience: &mut Patience,
    ) -> Result<ResponseHead, Fault> {
        let mut grant = self.auth.granted(&question.scope);
        let mut logins = 0;
        let mut resolved_again = false;
        loop {
            let answer = self.hops(question, route, grant.as_deref(), patience).await?;
            let status = answer.response.status();
            let own = answer.origin == self.registry;
            match (status, &grant) {
                (StatusCode::UNAUTHORIZED, _) if own => {
                    if logins == LOGINS_MAX {
                        return Err(self
                            .denied(answer, &question.scope, grant.as_deref(), patience)
                            .await);
                    }
                    let challenge = Challenge::of(answer.response.headers())?;
                    self.transport
                        .observe(&self.registry, |seen| seen.login = Some(challenge.scheme()));
                    drop(answer);
                    grant = Some(
                        self.log_in(&question.scope, challenge, grant.as_deref(), patience).await?,
                    );
                    logins += 1;
                }
                // ECR answers so when a token has expired (registry quirk Q4)
                (StatusCode::FORBIDDEN, Some(old))
                    if own && logins == 0 && looks_expired(&answer, old) =>
                {
                    grant = Some(
                        self.log_in(&question.scope, old.challenge.clone(), Some(old), patience)
                            .await?,
                    );
                    logins = LOGINS_MAX;
                }
                (StatusCode::FORBIDDEN, _) if own => {
                    return Err(self
                        .denied(answer, &question.scope, grant.as_deref(), patience)
                        .await);
                }
                // a store's signed address may have expired; a new one comes from the registry
                // (Q11)
                (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)
                    if !own && !resolved_again =>
                {
                    resolved_again = true;
                }
                (status, _) if may_pass(status, question.only_reads()) => {
                    return Err(answer
                        .document(REFUSAL_MAX, "the answer", patience)
                        .await?
                        .overloaded());
                }
                _ => {
                    if let Some(grant) = &grant
                        && !status.is_client_error()
                    {
                        grant.worked.store(true, Ordering::Relaxed);
                    }
                    return Ok(answer);
                }
            }
        }
    }

    /// The fault of an answer that denies access to who showed `grant`.
    async fn denied(
        &self,
        answer: ResponseHead,
        scope: &TokenScope,
        grant: Option<&Grant>,
        patience: &mut Patience,
    ) -> Fault {
        match answer.document(REFUSAL_MAX, "the answer", patience).await {
            Ok(document) => self.auth.denied(&document.words(), scope, grant),
            Err(fault) => fault,
        }
    }

    async fn log_in(
        &self,
        scope: &TokenScope,
        challenge: Challenge,
        refused: Option<&Grant>,
        patience: &Patience,
    ) -> Result<Arc<Grant>, Fault> {
        let login = self.auth.log_in(scope, challenge, refused, self.asker);
        patience.within(self.transport.deadline(), "logging in", login).await?
    }

    /// Follows redirects by the rules: at most five, never from https to http, the credential only
    /// at home.
    pub async fn hops(
        &self,
        question: &Question,
        route: &Route,
        grant: Option<&Grant>,
        patience: &Patience,
    ) -> Result<ResponseHead, Fault> {
        let mut url = question.url.clone();
        let mut count = question.count;
        let mut lies = None;
        for _ in 0..=REDIRECTS_MAX {
            let Some(origin) = Origin::of(&url) else {
                return Err(Fault::new(
                    Failure::Protocol,
                    "an address that is neither http nor https",
                ));
            };
            let request = self.request(question, &url, grant);
            let limit = if question.only_reads() { ANSWER } else { self.transport.deadline() };
            let from = if origin == self.registry { None } else { lies };
            let errand = Errand { count, from, route, asker: self.asker };
            let response = self.transport.send(request, errand, limit, patience).await?;
            if origin == self.registry {
                lies = response.remote_addr().map(|address| Reach::of(address.ip()));
            }
            if !is_redirect(response.status())
                || question.stays && leads_away(&url, response.headers())
            {
                if question.count == Count::Blob
                    && question.method == Method::GET
                    && response.status().is_success()
                {
                    self.transport
                        .observe(&self.registry, |seen| seen.blobs_from = Some(origin.clone()));
                }
                return Ok(ResponseHead { response, origin });
            }
            url = if question.only_reads() {
                target(&url, response.headers())?
            } else {
                self.target_of_write(&url, response.status(), response.headers())?
            };
            count = Count::Nothing;
        }
        Err(too_many_redirects())
    }

    /// The one place where a credential is put into a request.
    fn request(&self, question: &Question, url: &Url, grant: Option<&Grant>) -> Request {
        let mut request = Request::new(question.method.clone(), url.clone());
        *request.headers_mut() = question.headers.clone();
        if let Some(grant) = grant
            && Origin::of(url).as_ref() == Some(&self.registry)
        {
            request.headers_mut().insert(AUTHORIZATION, grant.header.clone());
        }
        if !question.only_reads() {
            *request.body_mut() = Some(question.body.clone().into());
        }
        request
    }

    /// The request of `question`, to which its caller adds a body that can be sent once only; and
    /// the login in it.
    pub fn request_once(&self, question: &Question) -> (Request, Option<Arc<Grant>>) {
        let grant = self.auth.granted(&question.scope);
        (self.request(question, &question.url, grant.as_deref()), grant)
    }

    /// Judges the answer to a [`Requester::request_once`], as [`Requester::ask`] does, except that
    /// redirects are left to the caller. After a refused login there is a new one, of which
    /// `logins` counts, and the fault asks to begin anew.
    pub async fn answered_once(
        &self,
        question: &Question,
        grant: Option<Arc<Grant>>,
        response: Response,
        logins: &mut u32,
        patience: &mut Patience,
    ) -> Result<ResponseHead, Fault> {
        let answer = ResponseHead { response, origin: self.registry.clone() };
        let status = answer.response.status();
        let challenge = match (status, &grant) {
            (StatusCode::UNAUTHORIZED, _) => Some(Challenge::of(answer.response.headers())?),
            (StatusCode::FORBIDDEN, Some(old)) if looks_expired(&answer, old) => {
                Some(old.challenge.clone())
            }
            (StatusCode::FORBIDDEN, _) => None,
            (status, _) if may_pass(status, false) => {
                return Err(answer
                    .document(REFUSAL_MAX, "the answer", patience)
                    .await?
                    .overloaded());
            }
            _ => return Ok(answer),
        };
        match challenge {
            Some(challenge) if *logins < LOGINS_MAX => {
                *logins = if status == StatusCode::FORBIDDEN { LOGINS_MAX } else { *logins + 1 };
                drop(answer);
                self.log_in(&question.scope, challenge, grant.as_deref(), patience).await?;
                let at_once = Retry::After(Some(Duration::ZERO));
                Err(Fault {
                    retry: at_once,
                    ..Fault::new(Failure::Denied, "the login ran out during the upload")
                })
            }
            _ => Err(self.denied(answer, &question.scope, grant.as_deref(), patience).await),
        }
    }

    /// Where a redirect of something that was sent leads: to the registry itself or nowhere.
    pub fn target_of_write(
        &self,
        from: &Url,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Url, Fault> {
        if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
            let rule = format!(
                "the registry redirected an upload with {status}, which would drop its body"
            );
            return Err(Fault::new(Failure::Protocol, rule));
        }
        let url = target(from, headers)?;
        if Origin::of(&url).as_ref() != Some(&self.registry) {
            let rule = format!("a redirect of what is written leads away from {}", self.registry);
            return Err(Fault::new(Failure::Protocol, rule));
        }
        Ok(url)
    }
}

/// Whether another try may get another answer. What is not implemented will not be at the next try.
fn may_pass(status: StatusCode, only_reads: bool) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status.is_server_error() && (only_reads || status != StatusCode::NOT_IMPLEMENTED)
}

/// Whether the answer leads elsewhere.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Whether a redirect leads to another origin, or nowhere.
fn leads_away(from: &Url, headers: &HeaderMap) -> bool {
    !target(from, headers).is_ok_and(|to| Origin::of(&to) == Origin::of(from))
}

/// The fault of a chain of redirects without end.
pub(super) fn too_many_redirects() -> Fault {
    Fault::new(Failure::Protocol, format!("the registry redirects more than {REDIRECTS_MAX} times"))
}

/// Where a redirect leads, if it may be followed (hostile input R10 to R16).
pub(super) fn target(from: &Url, headers: &HeaderMap) -> Result<Url, Fault> {
    let refused =
        |why: &str| Fault::new(Failure::Protocol, format!("a redirect of the registry {why}"));
    let Some(location) = headers.get(LOCATION) else { return Err(refused("names no address")) };
    let text = location.to_str().map_err(|_| refused("leads to an address that is not ASCII"))?;
    if text.len() > LOCATION_MAX {
        return Err(refused("leads to an address of more than 8 KiB"));
    }
    let mut url = from.join(text).map_err(|_| refused("leads to what is no address"))?;
    url.set_fragment(None);
    let Some(origin) = Origin::of(&url) else {
        return Err(refused("leads to an address that is neither http nor https"));
    };
    if origin.scheme() == Scheme::Http
        && Origin::of(from).is_some_and(|o| o.scheme() == Scheme::Https)
    {
        return Err(refused("leads from https to http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("leads to an address with a user name"));
    }
    Ok(url)
}

/// Whether a 403 may mean that the token has expired: one that worked before, or an answer that is
/// not the registry's usual JSON.
fn looks_expired(answer: &ResponseHead, grant: &Grant) -> bool {
    grant.worked.load(Ordering::Relaxed) || !is_json(answer.response.headers())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R13, R14, R16
    #[test]
    fn redirects_lead_to_http_addresses_without_secrets_and_never_down() {
        let from = Url::parse("https://r.example/v2/a/blobs/x").unwrap();
        let to = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_bytes(location.as_bytes()).unwrap());
            target(&from, &headers)
        };
        for (location, wanted) in [
            ("https://s.example/b?sig=1#frag", "https://s.example/b?sig=1"),
            ("/other", "https://r.example/other"),
            ("//s.example:8443/", "https://s.example:8443/"),
        ] {
            assert_eq!(to(location).unwrap().as_str(), wanted);
        }
        let long = format!("/{}", "x".repeat(LOCATION_MAX));
        assert!(to(&long[..LOCATION_MAX]).is_ok());
        for location in [
            "http://r.example/v2/a",
            "https://u:p@s.example/",
            "file:///etc/passwd",
            "unix:/run/x",
            "gopher://s.example/",
            "https://",
            "/ä",
            long.as_str(),
        ] {
            let fault = to(location).unwrap_err();
            assert_eq!(fault.failure, Failure::Protocol, "{location}");
            assert!(!fault.rule.contains("u:p"), "{}", fault.rule);
        }
        assert!(target(&from, &HeaderMap::new()).is_err());
    }
}
