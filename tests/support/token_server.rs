//! A token service for a registry: answers GET with Basic credentials and POST with a refresh token
//! by a JWT (ES256) that Debian's docker-registry accepts. Plain HTTP, or TLS with a certificate
//! given.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SigningKey};
use serde_json::json;

use super::tls::Tls;

pub const SERVICE: &str = "the registry";
pub const ISSUER: &str = "the test's token server";
pub const REFRESH_TOKEN: &str = "the-refresh-token";
/// The lifetime that every answer names, in seconds.
pub const ANNOUNCED: u64 = 300;
/// For how long distribution takes a token that has expired, in seconds.
const LEEWAY: u64 = 60;

struct Shared {
    key: KeyPair,
    certificate_der: Vec<u8>,
    user: String,
    password: String,
    /// Seconds for which the registry takes a token.
    lifetime: AtomicU64,
    issued: AtomicUsize,
    refused: AtomicUsize,
    scopes: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// A running token service.
pub struct TokenServer {
    shared: Arc<Shared>,
    addr: SocketAddr,
    scheme: &'static str,
    certificate: String,
    thread: Option<JoinHandle<()>>,
}

impl TokenServer {
    /// Starts one that knows one user.
    pub fn start(user: &str, password: &str, tls: Option<&Tls>) -> TokenServer {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, ISSUER);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            key,
            certificate_der: certificate.der().to_vec(),
            user: user.to_owned(),
            password: password.to_owned(),
            lifetime: AtomicU64::new(ANNOUNCED),
            issued: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            scopes: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        });
        let config = tls.map(|tls| Arc::new(tls.server()));
        let scheme = if config.is_some() { "https" } else { "http" };
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || serve(&listener, &of_thread, config));
        TokenServer { shared, addr, scheme, certificate: certificate.pem(), thread: Some(thread) }
    }

    /// The realm of challenges.
    pub fn realm(&self) -> String {
        format!("{}/token", self.origin())
    }

    /// `SCHEME://127.0.0.1:PORT`
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    /// The certificate with which a registry checks tokens, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// How long the registry takes tokens that are made from now on, in seconds. [`ANNOUNCED`] is
    /// what callers are told.
    pub fn set_lifetime(&self, seconds: u64) {
        self.shared.lifetime.store(seconds, Ordering::SeqCst);
    }

    /// How many tokens were handed out.
    pub fn issued(&self) -> usize {
        self.shared.issued.load(Ordering::SeqCst)
    }

    /// How many requests were refused for their credentials.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// The scopes asked for, in the order of the requests.
    pub fn scopes(&self) -> Vec<String> {
        self.shared.scopes.lock().expect("no panic in the server").clone()
    }

    /// A token for `scopes`, as if somebody had asked.
    pub fn token(&self, scopes: &[&str]) -> String {
        self.shared.token(scopes)
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<Arc<rustls::ServerConfig>>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        drop(stream.set_read_timeout(Some(Duration::from_secs(10))));
        let (shared, tls) = (shared.clone(), tls.clone());
        std::thread::spawn(move || {
            let done = match tls.map(rustls::ServerConnection::new) {
                None => answer(stream, &shared),
                Some(Ok(connection)) => {
                    answer(rustls::StreamOwned::new(connection, stream), &shared)
                }
                Some(Err(e)) => panic!("{e}"),
            };
            drop(done);
        });
    }
}

fn answer(stream: impl Read + Write, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split_whitespace().nth(1).unwrap_or("/").to_owned();
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim_end();
        let Some((name, value)) = header.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let posted = String::from_utf8_lossy(&body);
    let parameters: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .chain(url::form_urlencoded::parse(posted.as_bytes()).into_owned())
        .collect();
    let (status, json) = shared.decide(&authorization, &parameters);
    let text = json.to_string();
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )?;
    stream.flush()
}

impl Shared {
    fn decide(
        &self,
        authorization: &str,
        parameters: &[(String, String)],
    ) -> (&'static str, serde_json::Value) {
        let basic =
            format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)));
        let refreshing = parameters.iter().any(|(k, v)| k == "refresh_token" && v == REFRESH_TOKEN);
        if authorization != basic && !refreshing {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return (
                "401 Unauthorized",
                json!({"errors": [{"code": "UNAUTHORIZED", "message": "wrong credentials"}]}),
            );
        }
        let scopes: Vec<&str> = parameters
            .iter()
            .filter(|(k, _)| k == "scope")
            .flat_map(|(_, v)| v.split(' '))
            .filter(|s| !s.is_empty())
            .collect();
        self.scopes
            .lock()
            .expect("no panic in the server")
            .extend(scopes.iter().map(|s| s.to_string()));
        self.issued.fetch_add(1, Ordering::SeqCst);
        let token = self.token(&scopes);
        ("200 OK", json!({"token": token, "access_token": token, "expires_in": ANNOUNCED}))
    }

    fn token(&self, scopes: &[&str]) -> String {
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
        let access: Vec<_> = scopes
            .iter()
            .filter_map(|scope| {
                let (kind, rest) = scope.split_once(':')?;
                let (name, actions) = rest.rsplit_once(':')?;
                Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
            })
            .collect();
        let header =
            json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate_der)]});
        let claims = json!({
            "iss": ISSUER, "sub": self.user, "aud": SERVICE, "access": access, "jti": format!("{now}"),
            "iat": now, "nbf": now - 60, "exp": now + self.lifetime.load(Ordering::SeqCst) - LEEWAY,
        });
        let encode = |v: serde_json::Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = fixed(&self.key.sign(signed.as_bytes()).expect("a signature"));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The two integers of an ASN.1 signature as 32 bytes each, which is how a JWT wants them (RFC
/// 7518, 3.4).
fn fixed(der: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    let mut at = 2;
    for half in out.chunks_exact_mut(32) {
        let length = der[at + 1] as usize;
        let integer = &der[at + 2..at + 2 + length];
        let integer = &integer[integer.len().saturating_sub(32)..];
        half[32 - integer.len()..].copy_from_slice(integer);
        at += 2 + length;
    }
    out
}
