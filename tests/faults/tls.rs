//! TLS that does not hold.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use super::support::hostile::{Behaviour, Reply};
use super::support::tls::Tls;
use super::*;

/// A server that asks for a certificate of its client.
fn demanding(tls: &Tls) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(tls.ca.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .unwrap();
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(tls.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).unwrap(),
        )
        .unwrap()
}

/// Answers every connection with these bytes and its end; the first byte of each is kept.
fn raw(answer: &'static [u8]) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let first_bytes = kept.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut first) = (client.unwrap(), [0]);
            if client.read_exact(&mut first).is_ok() {
                kept.lock().unwrap().push(first[0]);
                let _ = client.write_all(answer);
            }
        }
    });
    (host, first_bytes)
}

/// R13, R54
#[test]
fn tls_that_does_not_hold_is_unreachable_with_its_reason_and_never_replaced() {
    let [sound, other, expired] =
        [Tls::new(), Tls::with(&["other.example"], 2100), Tls::with(&["127.0.0.1"], 2001)];
    let stranger = Tls::with(&["127.0.0.1"], 2099);
    let files = [&sound, &other, &expired].map(|tls| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &tls.ca).unwrap();
        file
    });
    let start = |tls: &Tls| Hostile::start_tls(Arc::new(tls.server()));
    let (good, wrong, old, unknown) =
        (start(&sound), start(&other), start(&expired), start(&stranger));
    let wants = Hostile::start_tls(Arc::new(demanding(&sound)));
    let (cut_host, _) = raw(b"\x16\x03\x03");
    let (clear_host, first_bytes) = raw(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let cases = [
        (wrong.host(), "another host"),
        (old.host(), "expired"),
        (unknown.host(), "unknown authority"),
        (wants.host(), "ertificate"),
        (cut_host, "https://"),
        (clear_host, "TLS"),
    ];
    let (content, _) = put_small(&good, "net");
    let (_, moved) = put_small(&good, "moved");
    let plain = Hostile::start();
    plain.rule(|_| true, Behaviour::Answer(Reply::new(200, "application/octet-stream", "x")));
    good.rule(
        blobs_of("moved"),
        Behaviour::Answer(Reply::redirect(307, &format!("http://{}/x", plain.host()))),
    );
    let hosts: Vec<_> = cases.iter().map(|(host, _)| host.clone()).chain([good.host()]).collect();
    let options = files.iter().fold(Options::new().args(["--deadline", "10s"]), |options, file| {
        options.args(["--ca-file", &file.path().display().to_string()])
    });
    let Some(mount) = Mount::start(&hosts, options) else { return };
    let bed = Bed { mount };
    for (host, word) in &cases {
        let reference = format!("{host}/net:1.0.0");
        let found = fs::metadata(bed.mount.join(&reference)).err();
        assert_eq!(errno_of(found), Some(Errno::HOSTUNREACH), "{word}: {}", bed.mount.log());
        bed.reported(&reference, &[word]);
    }
    assert_eq!(bed.main_tf(&format!("{}/net:1.0.0", good.host())), content);
    let words = ["from https to http", &moved.to_string()];
    bed.refused(&format!("{}/moved:1.0.0", good.host()), Errno::PROTO, &words);
    for server in [&wrong, &old, &unknown, &wants, &plain] {
        assert!(server.requests().is_empty());
    }
    let tls_handshake = 22;
    assert!(
        first_bytes.lock().unwrap().iter().all(|byte| *byte == tls_handshake),
        "never asked in the clear"
    );
}

/// A process that is stopped when the value is dropped.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate for 127.0.0.1 in `dir` that its authority `ca.pem` has signed by way of SHA-1.
fn sign_with_sha1(openssl: &Path, dir: &Path) {
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=sha1";
    for line in [
        format!("req -x509 {key} -days 30 -keyout ca.key -out ca.pem"),
        format!("req {key} -keyout server.key -out server.csr"),
        "x509 -req -sha1 -in server.csr -CA ca.pem -CAkey ca.key -set_serial 7 -days 30 -extfile \
         names -out server.pem"
            .to_owned(),
    ] {
        let mut command = Command::new(openssl);
        command.args(line.split(' ')).current_dir(dir);
        let output = finish(command);
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

/// R54: what only an old program would accept.
#[test]
fn tls_1_0_and_sha_1_are_not_accepted() {
    let Some(openssl) = support::program("openssl") else { return };
    let [old, weak] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    Tls::new().write(old.path());
    sign_with_sha1(&openssl, weak.path());
    let mut servers = Vec::new();
    let mut options = Options::new().args(["--deadline", "10s"]);
    for (dir, flags) in [(&old, &["-tls1"][..]), (&weak, &[][..])] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(&openssl);
        command.args([
            "s_server",
            "-www",
            "-quiet",
            "-cipher",
            "ALL:@SECLEVEL=0",
            "-cert",
            "server.pem",
        ]);
        command
            .args(["-key", "server.key", "-accept", &port.to_string()])
            .args(flags)
            .current_dir(dir.path());
        let server = Stopped(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        assert!(
            support::wait_until(PATIENCE, || TcpStream::connect(port).is_ok()),
            "s_server listens"
        );
        options = options.args(["--ca-file", &dir.path().join("ca.pem").display().to_string()]);
        servers.push((port.to_string(), server));
    }
    let hosts: Vec<_> = servers.iter().map(|(host, _)| host.clone()).collect();
    let Some(mount) = Mount::start(&hosts, options) else { return };
    let bed = Bed { mount };
    for (host, word) in hosts.iter().zip(["ProtocolVersion", "SHA-1"]) {
        let reference = format!("{host}/net:1.0.0");
        assert_eq!(
            errno_of(fs::metadata(bed.mount.join(&reference)).err()),
            Some(Errno::HOSTUNREACH)
        );
        bed.reported(&reference, &[word]);
    }
}
