//! TLS and proxies.

use super::hostile::{Behaviour, Reply, all, blobs};
use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use tofufs::failure::{Failure, Refusal};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;

/// A certificate authority and its certificate as a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();
        Authority { issuer: Issuer::new(params, key), file }
    }

    /// A server's configuration with a certificate for `name` that is good until the given year.
    fn server(&self, name: &str, until: i32) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
                )
                .unwrap();
        Arc::new(config)
    }

    fn transport(&self) -> Arc<Transport> {
        let ca_files = vec![self.file.path().to_owned()];
        let deadline = Duration::from_secs(5);
        Transport::new(TransportOptions { ca_files, deadline, ..TransportOptions::default() })
            .unwrap()
    }
}

fn server(tls: Arc<ServerConfig>) -> Hostile {
    let server = Hostile::start_tls(tls);
    server.put_manifest("acme/net", Some("1.0"), INDEX, b"{}");
    server
}

fn client(host: &str, transport: Arc<Transport>) -> Remote {
    let host = host.parse().unwrap();
    let options = RemoteOptions {
        host,
        plain_http: false,
        token_realm: None,
        credentials: Arc::<Fixed>::default(),
    };
    Remote::new(transport, options).unwrap()
}

async fn get(remote: &Remote) -> Result<(), Refusal> {
    remote.manifest(&name("acme/net"), &by_tag("1.0")).await.map(drop)
}

#[tokio::test]
async fn an_authority_named_by_the_user_is_trusted() {
    let authority = Authority::new();
    let server = server(authority.server("127.0.0.1", 2100));
    get(&client(&server.host(), authority.transport())).await.unwrap();
}

/// R54
#[tokio::test]
async fn a_certificate_that_does_not_hold_is_not_trusted_for_the_exact_reason() {
    let authority = Authority::new();
    let sound = server(authority.server("127.0.0.1", 2100));
    let stranger = client(&sound.host(), transport_with(Duration::from_secs(5)));
    refused(
        get(&stranger).await,
        Failure::Untrusted,
        &["/acme/net:1.0", "unknown authority", "--ca-file"],
    );
    let expired = server(authority.server("127.0.0.1", 2001));
    refused(
        get(&client(&expired.host(), authority.transport())).await,
        Failure::Untrusted,
        &["expired on 2001-01-01, ", " days ago", "clock"],
    );
    let wrong = server(authority.server("other.example", 2100));
    refused(
        get(&client(&wrong.host(), authority.transport())).await,
        Failure::Untrusted,
        &["another host (other.example)"],
    );
    for server in [&sound, &expired, &wrong] {
        assert!(server.requests().is_empty());
    }
}

/// R54: no TLS is no reason to do without.
#[tokio::test]
async fn a_server_without_tls_is_never_asked_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let first_bytes = Arc::new(Mutex::new(Vec::new()));
    let kept = first_bytes.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut first = [0];
            client.read_exact(&mut first).unwrap();
            kept.lock().unwrap().push(first[0]);
            client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        }
    });
    let result = get(&client(&host, transport_with(Duration::from_secs(5)))).await;
    refused(result, Failure::Unreachable, &["/acme/net:1.0", "does not speak TLS", "--plain-http"]);
    let tls_handshake = 22;
    assert!(first_bytes.lock().unwrap().iter().all(|&byte| byte == tls_handshake));
}

/// R13
#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let authority = Authority::new();
    let (server, plain) = (server(authority.server("127.0.0.1", 2100)), Hostile::start());
    server.rule(
        blobs(),
        Behaviour::Answer(Reply::redirect(307, &format!("http://{}/x", plain.host()))),
    );
    let remote = client(&server.host(), authority.transport());
    blob_refused(
        fetch(&remote, &descriptor(b"x")).await.1,
        Failure::Protocol,
        &["from https to http"],
    );
    assert!(plain.requests().is_empty());
}

/// R18
#[tokio::test]
async fn a_token_service_without_tls_gets_nothing_from_a_registry_with_tls() {
    let authority = Authority::new();
    let (server, plain) = (server(authority.server("127.0.0.1", 2100)), Hostile::start());
    let challenge = format!("Bearer realm=\"http://{}/token\"", plain.host());
    server
        .rule(all(), Behaviour::Answer(Reply::error(401, "X").with("WWW-Authenticate", challenge)));
    let host = server.host().parse().unwrap();
    let credentials = credentials(user(CANARY));
    let options = RemoteOptions { host, plain_http: false, token_realm: None, credentials };
    let remote = Remote::new(authority.transport(), options).unwrap();
    refused(get(&remote).await, Failure::Denied, &["token service", "--token-realm"]);
    assert!(plain.requests().is_empty());
}

#[test]
fn a_file_that_holds_no_certificate_is_refused_by_its_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path().to_owned(), file.path().with_extension("missing")] {
        let ca_files = vec![path.clone()];
        let result = Transport::new(TransportOptions { ca_files, ..TransportOptions::default() });
        refused(result, Failure::Io, &[path.to_str().unwrap(), "--ca-file"]);
    }
}

/// Takes CONNECT for any name and leads it to `target`; counts.
fn connect_proxy(target: std::net::SocketAddr, used: Arc<AtomicUsize>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = BufReader::new(client.unwrap());
            let mut line = String::new();
            while client.read_line(&mut line).unwrap() > 2 {}
            if line.is_empty() {
                continue;
            }
            assert!(line.starts_with("CONNECT registry.example:443 "), "{line}");
            used.fetch_add(1, Ordering::SeqCst);
            let mut client = client.into_inner();
            if !line.contains("Basic ") {
                client.write_all(b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n").unwrap();
                continue;
            }
            client.write_all(b"HTTP/1.1 200 X\r\n\r\n").unwrap();
            let server = TcpStream::connect(target).unwrap();
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    addr
}

/// O39. The environment belongs to a process, so that the client of the next test runs in one of
/// its own.
#[test]
fn a_registry_is_reached_by_the_proxy_of_the_environment() {
    let authority = Authority::new();
    let server = server(authority.server("registry.example", 2100));
    let used = Arc::new(AtomicUsize::new(0));
    let proxy = connect_proxy(server.addr(), used.clone());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (proxy, wanted) in [
        (format!("user:pw@{proxy}"), "done"),
        (
            proxy.to_string(),
            &format!(
                "the proxy http://{proxy} on the way to https://registry.example asks for a password (407)"
            ),
        ),
        (closed.to_string(), &format!("cannot be reached through the proxy http://{closed}")),
    ] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::client_behind_a_proxy", "--nocapture"])
            .env("HTTPS_PROXY", format!("http://{proxy}"))
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .env("TOFUFS_TEST_CA_FILE", authority.file.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains(wanted),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert!(used.load(Ordering::SeqCst) >= 2);
    assert_eq!(server.requests().len(), 1);
}

/// The other half of the test above; by itself it has no proxy to go through.
#[tokio::test]
async fn client_behind_a_proxy() {
    let Some(file) = std::env::var_os("TOFUFS_TEST_CA_FILE") else { return };
    let options = TransportOptions { ca_files: vec![file.into()], ..TransportOptions::default() };
    match get(&client("registry.example", Transport::new(options).unwrap())).await {
        Ok(()) => println!("done"),
        Err(error) => println!("{:?} {error}", error.failure),
    }
}

/// O39, without TLS: the proxy answers for itself.
#[test]
fn a_proxy_of_a_registry_without_tls_is_named() {
    let proxy = Hostile::start();
    proxy.put_manifest("acme/net", Some("1.0"), INDEX, b"{}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let overloaded = Reply::new(502, "text/html", "<html>");
    let denies =
        Reply::new(407, "text/html", "<html>").with("Proxy-Authenticate", "Basic realm=proxy");
    for (address, answer, wanted) in [
        (proxy.host(), None, "done".to_owned()),
        (
            proxy.host(),
            Some(denies),
            format!("Denied 127.0.0.1:5: the proxy http://{}", proxy.host()),
        ),
        (
            proxy.host(),
            Some(overloaded),
            format!(
                "http://registry.example through the proxy http://{} answered 502 (an HTML page)",
                proxy.host()
            ),
        ),
        (closed.clone(), None, format!("through the proxy http://{closed}")),
    ] {
        proxy.behave();
        // as a proxy is asked: by the whole address
        proxy.rule(
            |_| true,
            Behaviour::edit(move |seen, _| match (&answer, seen.path.starts_with("http://r")) {
                (Some(answer), _) => answer.clone(),
                (None, true) => Reply::new(200, INDEX, "{}"),
                (None, false) => Reply::error(500, "NOT_A_PROXY"),
            }),
        );
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::plain_client_behind_a_proxy", "--nocapture"])
            .env("http_proxy", format!("http://user:{CANARY}@{address}"))
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout)
            .replace("registry.example/acme/net:1.0", "127.0.0.1:5");
        assert!(
            output.status.success() && text.contains(&wanted) && !text.contains(CANARY),
            "{text}"
        );
    }
}

/// What NO_PROXY excepts, be it by a network, is not laid at the proxy's door.
#[test]
fn a_proxy_that_was_not_asked_is_not_named() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (excepted, asked) in [("10.0.0.0/8", true), ("0.0.0.0/8", false)] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::plain_client_behind_a_proxy", "--nocapture"])
            .env("http_proxy", format!("http://user:{CANARY}@{closed}"))
            .env("no_proxy", excepted)
            .env_remove("NO_PROXY")
            // This machine, by an address that is not one of loopback.
            .env("TOFUFS_TEST_REGISTRY", format!("0.0.0.0:{}", closed.port()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("cannot be reached"), "{text}");
        assert_eq!(text.contains(&format!("through the proxy http://{closed}")), asked, "{text}");
    }
}

/// The other half of the two tests above.
#[tokio::test]
async fn plain_client_behind_a_proxy() {
    if !std::env::var("http_proxy").is_ok_and(|proxy| proxy.contains(CANARY)) {
        return;
    }
    let host = std::env::var("TOFUFS_TEST_REGISTRY").unwrap_or("registry.example".to_owned());
    let options = RemoteOptions {
        host: host.parse().unwrap(),
        plain_http: true,
        token_realm: None,
        credentials: Arc::<Fixed>::default(),
    };
    match get(&Remote::new(transport_with(Duration::from_secs(5)), options).unwrap()).await {
        Ok(()) => println!("done"),
        Err(error) => println!("{:?} {error}", error.failure),
    }
}
