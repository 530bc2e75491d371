//! Logging in to one registry: what to show it, and where tokens come from.
//!
//! A credential leaves this file in two ways only: in the `Authorization` header that
//! `Auth::log_in` returns, which its caller sends to the registry's own origin and nowhere else,
//! and in a request to the registry's token service, which must satisfy [`may_serve_tokens`] or be
//! named by the user. Token requests follow no redirect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::answer::{ResponseDocument, ResponseHead};
use super::challenge::Challenge;
use super::credentials::{Credential, CredentialError, Credentials, FoundCredential, Secret};
use super::origin::{Origin, may_serve_tokens};
use super::outage::{Asker, Route};
use super::retry::{Fault, Patience, RETRIES};
use super::scope::TokenScope;
use super::transport::{ANSWER, Count, Errand, Transport};
use crate::bounded::Bounded;
use crate::failure::Failure;
use crate::flight::Flights;
use crate::name::{Host, RepoName};

/// The most bytes of a token service's answer.
const TOKEN_MAX: u64 = 64 << 10;
/// Scopes whose tokens are remembered.
const GRANTS_MAX: usize = 10_000;
/// Tokens are used for at least this long, whatever the service says: shorter would mean a login
/// per request.
const LIFETIME_MIN: Duration = Duration::from_secs(60);
/// And for at most this long.
const LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// Where a registry's credential is looked up.
#[async_trait]
pub trait CredentialSource: Send + Sync {
    /// The most specific credential for a repository (`None`: for the registry as a whole).
    /// `again`: the registry refused what was found before.
    async fn find(
        &self,
        host: &Host,
        repo: Option<&RepoName>,
        again: bool,
    ) -> Result<Option<FoundCredential>, CredentialError>;

    /// Why a source was passed over when it was looked up last, with the remedy.
    fn passed_over(&self) -> Option<String> {
        None
    }

    /// Why what seems to be for `host` is not what logs in to it, where `used` is the source of
    /// what does.
    fn unused(&self, _host: &Host, _repo: Option<&RepoName>, _used: Option<&str>) -> Vec<String> {
        Vec::new()
    }

    /// Forgets what was found: the user may have got another credential.
    fn forget(&self) {}
}

#[async_trait]
impl CredentialSource for Credentials {
    async fn find(
        &self,
        host: &Host,
        repo: Option<&RepoName>,
        again: bool,
    ) -> Result<Option<FoundCredential>, CredentialError> {
        Credentials::find(self, host, repo, again).await
    }

    fn passed_over(&self) -> Option<String> {
        Credentials::passed_over(self)
    }

    fn unused(&self, host: &Host, repo: Option<&RepoName>, used: Option<&str>) -> Vec<String> {
        Credentials::unused(self, host, repo, used)
    }

    fn forget(&self) {
        Credentials::forget(self);
    }
}

/// An `Authorization` header that a login gave.
pub(super) struct Grant {
    pub header: HeaderValue,
    /// How the registry asked for it.
    pub challenge: Challenge,
    /// Where the credential behind it was found; `None` for a token that anybody gets.
    pub source: Option<String>,
    /// Whether the registry has accepted it at least once.
    pub worked: AtomicBool,
    serial: u64,
    until: Option<Instant>,
}

impl Grant {
    fn is_current(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// Who may ask, and whom: fixed when a registry is opened.
pub(super) struct RegistryAuth {
    inner: Arc<AuthInner>,
    logins: Flights<TokenScope, Arc<Grant>, Fault>,
}

struct AuthInner {
    transport: Arc<Transport>,
    host: Host,
    registry: Origin,
    token_realm: Option<Origin>,
    source: Arc<dyn CredentialSource>,
    serials: AtomicU64,
    granted: Mutex<Bounded<TokenScope, Arc<Grant>>>,
}

impl RegistryAuth {
    pub fn new(
        transport: Arc<Transport>,
        host: Host,
        registry: Origin,
        token_realm: Option<Origin>,
        source: Arc<dyn CredentialSource>,
    ) -> RegistryAuth {
        let serials = AtomicU64::new(0);
        let granted = Mutex::new(Bounded::counted(GRANTS_MAX));
        let inner = AuthInner { transport, host, registry, token_realm, source, serials, granted };
        // A login ends with the last who waits for it, so that nobody comes upon one that stands
        // still.
        let logins = Flights::new(Duration::ZERO, |_| {
            Fault::passing(Failure::Io, "an internal task ended early")
        });
        RegistryAuth { inner: Arc::new(inner), logins }
    }

    /// The fault of an answer that denies access for `scope`, whose text is `words`, to who showed
    /// `grant`.
    pub fn denied(&self, words: &str, scope: &TokenScope, grant: Option<&Grant>) -> Fault {
        let wanted = match scope {
            TokenScope::Push(_) => "write into",
            TokenScope::Remove(_) => "remove something from",
            TokenScope::Pull(_) | TokenScope::Catalog | TokenScope::Registry => "read",
        };
        match grant.and_then(|grant| grant.source.as_ref()) {
            Some(source) => Fault::new(
                Failure::Denied,
                format!("{words} to the credential from {source}"),
            )
            .remedy(format!(
                "check that it is the right one and may {wanted} this repository; when that \
                 is corrected, `tofufs refresh PATH` has a mount look at once"
            )),
            None => self.inner.no_credential(words),
        }
    }

    /// What an earlier login for the same scope gave, if it is still good.
    pub fn granted(&self, scope: &TokenScope) -> Option<Arc<Grant>> {
        self.inner.current(scope)
    }

    /// Forgets all logins: the user may have got another credential.
    pub fn forget(&self) {
        self.inner.granted.lock().clear();
    }

    /// Logs in as `challenge` wants. `refused` is what the registry has just refused, so that it is
    /// not given again. All who need the same token wait for one login.
    pub async fn log_in(
        &self,
        scope: &TokenScope,
        challenge: Challenge,
        refused: Option<&Grant>,
        asker: Asker,
    ) -> Result<Arc<Grant>, Fault> {
        let (inner, asked) = (self.inner.clone(), scope.clone());
        let refused = refused.map(|grant| grant.serial);
        let log_in = move || async move {
            // Another request may have logged in meanwhile.
            let known = inner.current(&asked).filter(|grant| refused < Some(grant.serial));
            if let Some(grant) = known {
                return Ok(grant);
            }
            let grant = inner.log_in(&asked, challenge, refused.is_some(), asker).await?;
            inner.granted.lock().put(asked, grant.clone());
            Ok(grant)
        };
        self.logins.join(scope.clone(), log_in).await
    }
}

/// What a token service answers; which of the two names it uses differs.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

impl AuthInner {
    fn current(&self, scope: &TokenScope) -> Option<Arc<Grant>> {
        self.granted.lock().get(scope).filter(|grant| grant.is_current()).cloned()
    }

    async fn log_in(
        &self,
        scope: &TokenScope,
        challenge: Challenge,
        again: bool,
        asker: Asker,
    ) -> Result<Arc<Grant>, Fault> {
        let found = self
            .source
            .find(&self.host, scope.repo(), again)
            .await
            .map_err(|error| Fault::new(Failure::Denied, error.to_string()))?;
        let source = found.as_ref().map(|found| found.source.clone());
        self.transport.observe(&self.registry, |seen| seen.credential = source);
        let (header, lifetime) = match &challenge {
            Challenge::Basic => (self.basic(found.as_ref())?, None),
            Challenge::Bearer { realm, service } => match found.as_ref().map(|f| &f.credential) {
                Some(Credential::Tokens { access: Some(access), refresh })
                    if !again || refresh.is_none() =>
                {
                    (bearer(access.expose())?, None)
                }
                _ => {
                    let service = service.as_deref();
                    let (token, lifetime) =
                        self.token(scope, realm, service, found.as_ref(), asker).await?;
                    (bearer(token.expose())?, Some(lifetime))
                }
            },
        };
        let serial = self.serials.fetch_add(1, Ordering::Relaxed) + 1;
        let until = lifetime.map(|lifetime| Instant::now() + lifetime);
        let source = found.map(|found| found.source);
        Ok(Arc::new(Grant {
            header,
            challenge,
            source,
            worked: AtomicBool::new(false),
            serial,
            until,
        }))
    }

    /// The header of the Basic scheme. Over plain HTTP only because the user named the host to be
    /// spoken to so.
    fn basic(&self, found: Option<&FoundCredential>) -> Result<HeaderValue, Fault> {
        match found {
            Some(FoundCredential {
                credential: Credential::Basic { username, password }, ..
            }) => basic(username, password),
            Some(FoundCredential { source, .. }) => Err(Fault::new(
                Failure::Denied,
                format!(
                    "the registry asks for a user name and password, but {source} holds tokens"
                ),
            )
            .remedy(how_to_log_in(&self.host))),
            None => Err(self.no_credential("the registry asks for a user name and password")),
        }
    }

    fn no_credential(&self, rule: &str) -> Fault {
        Fault::new(
            Failure::Denied,
            format!("{rule}, and no credential for {} was found", self.host),
        )
        .remedy(self.source.passed_over().unwrap_or_else(|| how_to_log_in(&self.host)))
    }

    /// Asks the token service.
    async fn token(
        &self,
        scope: &TokenScope,
        realm: &Url,
        service: Option<&str>,
        found: Option<&FoundCredential>,
        asker: Asker,
    ) -> Result<(Secret, Duration), Fault> {
        let service_origin = self.trusted(realm)?;
        let request = token_request(scope, realm, service, found)?;
        let mut patience = Patience::new(self.transport.deadline(), RETRIES);
        let route = Route { registry: self.registry.clone(), scope: scope.clone() };
        let errand = Errand { count: Count::Nothing, from: None, route: &route, asker };
        let response = self.transport.send(request, errand, ANSWER, &patience).await?;
        let answer = ResponseHead { response, origin: service_origin };
        let document = answer
            .document(TOKEN_MAX, "the token service's answer", &mut patience)
            .await
            .map_err(|fault| {
                // a token that large is no token; the limit is not one that a user meets
                if fault.failure == Failure::TooLarge {
                    Fault { failure: Failure::Protocol, ..fault }
                } else {
                    fault
                }
            })?;
        self.granted(&document, found)
    }

    fn granted(
        &self,
        document: &ResponseDocument,
        found: Option<&FoundCredential>,
    ) -> Result<(Secret, Duration), Fault> {
        match document.status {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => return Err(document.overloaded()),
            status if status.is_server_error() => return Err(document.overloaded()),
            status if status.is_client_error() => {
                return Err(match found {
                    Some(found) => Fault::new(
                        Failure::Denied,
                        format!("the token service refused {}: {}", found.source, document.words()),
                    )
                    .remedy(how_to_log_in(&self.host)),
                    None => self.no_credential(&format!(
                        "the token service refused us: {}",
                        document.words()
                    )),
                });
            }
            status if status.is_redirection() => {
                let rule = format!(
                    "the token service answered {status}; token requests follow no redirect"
                );
                return Err(Fault::new(Failure::Protocol, rule));
            }
            _ => return Err(document.unexpected()),
        }
        let malformed = || {
            Fault::new(
                Failure::Protocol,
                format!("{} did not answer with a token", document.origin),
            )
        };
        let answer: TokenAnswer =
            serde_json::from_slice(&document.bytes).map_err(|_| malformed())?;
        let lifetime = lifetime(answer.expires_in.as_ref());
        let access = answer.access_token.map(Secret::new).filter(|s| !s.expose().is_empty());
        let token = answer.token.map(Secret::new).filter(|s| !s.expose().is_empty());
        token.or(access).map(|token| (token, lifetime)).ok_or_else(malformed)
    }

    /// The token service's origin, if our credential may be shown there.
    fn trusted(&self, realm: &Url) -> Result<Origin, Fault> {
        let origin =
            Origin::of(realm).filter(|_| realm.username().is_empty() && realm.password().is_none());
        let Some(origin) = origin else {
            return Err(Fault::new(
                Failure::Denied,
                "the registry names a token service that is not plain https",
            ));
        };
        if self.token_realm.as_ref() == Some(&origin) || may_serve_tokens(&self.registry, &origin) {
            return Ok(origin);
        }
        let rule = format!(
            "{} names {origin} as its token service, which is not part of it",
            self.registry
        );
        Err(Fault::new(Failure::Denied, format!("{rule}; no credential was sent"))
            .remedy(format!("if you trust it, allow it by --token-realm {}={origin}", self.host)))
    }
}

/// What gives this machine a credential for `host`.
pub fn how_to_log_in(host: &Host) -> String {
    let by = |program: &str| format!("`{program} login {host}`");
    let (docker, podman, oras) = (by("docker"), by("podman"), by("oras"));
    format!(
        "to log in, run {docker}, {podman} or {oras}, then `tofufs refresh PATH` if it is mounted"
    )
}

fn token_request(
    scope: &TokenScope,
    realm: &Url,
    service: Option<&str>,
    found: Option<&FoundCredential>,
) -> Result<Request, Fault> {
    let mut url = realm.clone();
    url.set_fragment(None);
    let refresh = match found.map(|f| &f.credential) {
        Some(Credential::Tokens { refresh: Some(refresh), .. }) => Some(refresh),
        _ => None,
    };
    let mut request = if let Some(refresh) = refresh {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token").append_pair("client_id", "tofufs");
        form.append_pair("refresh_token", refresh.expose());
        if *scope != TokenScope::Registry {
            form.append_pair("scope", &scope.to_string());
        }
        if let Some(service) = service {
            form.append_pair("service", service);
        }
        let mut request = Request::new(Method::POST, url);
        *request.body_mut() = Some(form.finish().into());
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        request
    } else {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        if *scope != TokenScope::Registry {
            query.append_pair("scope", &scope.to_string());
        }
        drop(query);
        let mut request = Request::new(Method::GET, url);
        if let Some(Credential::Basic { username, password }) = found.map(|f| &f.credential) {
            request.headers_mut().insert(AUTHORIZATION, basic(username, password)?);
        }
        request
    };
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(request)
}

fn basic(username: &str, password: &Secret) -> Result<HeaderValue, Fault> {
    if username.contains(':') {
        return Err(Fault::new(Failure::Denied, "the user name of the credential holds a colon"));
    }
    let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
    authorization("Basic", &Zeroizing::new(STANDARD.encode(pair.as_bytes())))
}

fn bearer(token: &str) -> Result<HeaderValue, Fault> {
    authorization("Bearer", token)
}

fn authorization(scheme: &str, value: &str) -> Result<HeaderValue, Fault> {
    let text = Zeroizing::new(format!("{scheme} {value}"));
    let sound = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic());
    match HeaderValue::from_str(&text) {
        Ok(mut header) if sound => {
            header.set_sensitive(true);
            Ok(header)
        }
        _ => Err(Fault::new(Failure::Protocol, "the token holds characters that no token has")),
    }
}

/// `expires_in`, clamped; one minute where it is missing or no number (the token specification's
/// default).
fn lifetime(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = expires_in.and_then(serde_json::Value::as_f64).unwrap_or_default();
    Duration::from_secs_f64(seconds.clamp(LIFETIME_MIN.as_secs_f64(), LIFETIME_MAX.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R21
    #[test]
    fn a_tokens_lifetime_is_clamped() {
        for (given, seconds) in [
            (serde_json::json!(300), 300),
            (serde_json::json!(0), 60),
            (serde_json::json!(-1), 60),
            (serde_json::json!(1_000_000_000_000_000_000_u64), 3600),
            (serde_json::json!(1e300), 3600),
            (serde_json::json!("300"), 60),
            (serde_json::Value::Null, 60),
        ] {
            assert_eq!(lifetime(Some(&given)).as_secs(), seconds, "{given}");
        }
        assert_eq!(lifetime(None), LIFETIME_MIN);
    }

    #[test]
    fn what_is_no_user_name_or_token_is_not_sent() {
        let secret = Secret::new("pw".to_owned());
        assert!(basic("user", &secret).is_ok_and(|header| header == "Basic dXNlcjpwdw=="));
        assert_eq!(basic("us:er", &secret).unwrap_err().failure, Failure::Denied);
        assert!(bearer("a.b-c_d~e+f/g==").is_ok());
        for token in ["", "a b", "a\tb", "a\r\nX: y", "ä"] {
            assert_eq!(bearer(token).unwrap_err().failure, Failure::Protocol, "{token:?}");
        }
    }

    /// Neither printed by whoever prints a request, nor put into tables that connections share (RFC
    /// 7541, 7.1.3).
    #[test]
    fn a_header_with_a_secret_is_marked_as_one() {
        let headers =
            [basic("user", &Secret::new("canary".to_owned())).unwrap(), bearer("canary").unwrap()];
        for header in headers {
            assert!(header.is_sensitive() && !format!("{header:?}").contains("canary"));
        }
    }

    struct Nothing;

    #[async_trait]
    impl CredentialSource for Nothing {
        async fn find(
            &self,
            _: &Host,
            _: Option<&RepoName>,
            _: bool,
        ) -> Result<Option<FoundCredential>, CredentialError> {
            Ok(None)
        }
    }

    /// R21
    #[tokio::test]
    async fn a_token_is_shown_until_it_expires_and_for_its_own_scope_alone() {
        let transport =
            Transport::new(super::super::transport::TransportOptions::default()).unwrap();
        let host: Host = "r.example".parse().unwrap();
        let registry = Origin::registry(&host, false).unwrap();
        let auth = RegistryAuth::new(transport, host, registry, None, Arc::new(Nothing));
        let (scope, other) =
            (TokenScope::Pull("a/b".parse().unwrap()), TokenScope::Pull("a/c".parse().unwrap()));
        let now = Instant::now();
        for (until, is_shown) in [
            (None, true),
            (Some(now + Duration::from_secs(60)), true),
            (Some(now - Duration::from_millis(1)), false),
        ] {
            let (header, worked) = (bearer("token").unwrap(), AtomicBool::new(true));
            let grant = Grant {
                header,
                challenge: Challenge::Basic,
                source: None,
                worked,
                serial: 1,
                until,
            };
            auth.inner.granted.lock().put(scope.clone(), Arc::new(grant));
            assert_eq!(auth.granted(&scope).is_some(), is_shown, "{until:?}");
            assert!(
                auth.granted(&other).is_none()
                    && auth.granted(&TokenScope::Push("a/b".parse().unwrap())).is_none()
            );
        }
    }

    /// R20
    #[test]
    fn a_token_request_is_percent_encoded() {
        let realm = Url::parse("https://a.example/t?x=1#f").unwrap();
        let scope = TokenScope::Pull("a/b".parse().unwrap());
        let request = token_request(&scope, &realm, Some("r&scope=*"), None).unwrap();
        let wanted =
            "https://a.example/t?x=1&service=r%26scope%3D*&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(request.url().as_str(), wanted);
    }
}
