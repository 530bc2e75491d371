//! Blobs on their way into a registry that lies, fails and refuses.

use std::io;

use super::hostile::{Behaviour, Login, Reply, Seen, all, path};
use super::*;
use tofufs::failure::{Failure, Refusal};
use tofufs::registry::{BlobSource, Upload, Uploaded};

const UPLOADS: &str = "/v2/acme/net/blobs/uploads/";
const BASIC: Login = Login::Basic { user: "user", password: CANARY };

fn puts() -> impl Fn(&Seen) -> bool + Send + 'static {
    |seen| seen.method == "PUT"
}

fn posts() -> impl Fn(&Seen) -> bool + Send + 'static {
    |seen| seen.method == "POST"
}

/// The methods of the requests so far, those to the token service aside.
fn methods(server: &Hostile) -> Vec<String> {
    let requests = server.requests().into_iter().filter(|seen| !seen.path.starts_with("/token"));
    requests.map(|seen| seen.method).collect()
}

fn bearer(server: &Hostile) {
    server.login(Some(Login::Bearer {
        realm: format!("http://{}/token", server.host()),
        user: Some(("user", CANARY)),
    }));
}

fn client(server: &Hostile, credential: Credential) -> Remote {
    remote_with(server, transport_with(Duration::from_secs(5)), credentials(credential))
}

/// Waits for what the server's threads do.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come to that");
}

async fn put(remote: &Remote, content: &[u8]) -> Result<Uploaded, Refusal> {
    let source = Bytes::copy_from_slice(content);
    remote.put_blob(&name("acme/net"), &descriptor(content), &source).await
}

/// Q14: one PUT with a length, no chunks.
#[tokio::test]
async fn a_blob_goes_out_in_one_piece_and_only_where_it_is_missing() {
    let server = Hostile::start();
    let transport = transport_with(Duration::from_secs(5));
    let remote = remote_with(&server, transport.clone(), Arc::default());
    let content = bytes(3_000_001);
    assert_eq!(put(&remote, &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT"]);
    let sent = server.requests().pop().unwrap();
    assert_eq!(
        sent.path,
        format!("{UPLOADS}upload-1?_state=a%2Fb%3D&digest={}", Digest::of(&content))
    );
    assert_eq!(sent.header("content-length"), Some("3000001"));
    assert_eq!((sent.header("transfer-encoding"), sent.body == content), (None, true));
    assert_eq!(put(&remote, &content).await.unwrap(), Uploaded::Present);
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT", "HEAD"]);
    use std::sync::atomic::Ordering::Relaxed;
    assert_eq!(
        (transport.requests().total.load(Relaxed), transport.requests().blob.load(Relaxed)),
        (4, 4)
    );
    assert_eq!(put(&remote, b"").await.unwrap(), Uploaded::Sent);
    assert_eq!(server.blob(&Digest::of(b"")), Some(vec![]));
}

#[tokio::test]
async fn a_blob_is_known_by_whatever_digest_names_it() {
    let server = Hostile::start();
    let digest = Digest::of_with(tofufs::digest::Algorithm::Sha512, b"content");
    let source = Bytes::from_static(b"content");
    let put = remote(&server).put_blob(&name("acme/net"), &sized(digest, 7), &source).await;
    assert_eq!(put.unwrap(), Uploaded::Sent);
    assert_eq!(server.blob(&digest), Some(b"content".to_vec()));
}

/// Gives its bytes and fails where it is told to.
struct Broken {
    bytes: Bytes,
    fails_at: Option<u64>,
}

#[async_trait]
impl BlobSource for Broken {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        match self.fails_at {
            Some(at) if offset >= at => Err(io::Error::other("the disk is gone")),
            _ => self.bytes.read_at(offset, len).await,
        }
    }
}

#[tokio::test]
async fn a_source_that_is_not_the_blob_never_completes() {
    let content = bytes(1_000_000);
    let mut changed = content.clone();
    changed[999_999] ^= 1;
    let of = |bytes: &[u8], fails_at| Broken { bytes: Bytes::copy_from_slice(bytes), fails_at };
    for (source, failure, words) in [
        (of(&changed, None), Failure::Integrity, "holds sha256:"),
        (of(&content[..999_999], None), Failure::Integrity, "ends after 999999 bytes"),
        (of(&bytes(1_000_004), None), Failure::Integrity, "goes on"),
        (of(&content, Some(700_000)), Failure::Io, "the disk is gone"),
        (of(&content, Some(1_000_000)), Failure::Io, "the disk is gone"),
    ] {
        let server = Hostile::start();
        let put = remote(&server).put_blob(&name("acme/net"), &descriptor(&content), &source).await;
        refused(put, failure, &["/acme/net@sha256:", words]);
        assert_eq!(server.blob(&Digest::of(&content)), None);
        // the server keeps a request when its body is in, or its connection has ended
        until(|| methods(&server).len() == 3).await;
        let puts: Vec<_> = server.requests().into_iter().filter(puts()).collect();
        assert!(
            puts.iter().all(|seen| seen.body.len() < content.len()),
            "the last piece is held back"
        );
        assert_eq!(
            methods(&server).iter().filter(|m| *m == "POST").count(),
            1,
            "another try would not help"
        );
    }
    let nothing = sized(Digest::of(b"x"), 0);
    let put = remote(&Hostile::start()).put_blob(&name("acme/net"), &nothing, &Bytes::new()).await;
    refused(put, Failure::Integrity, &["not that of nothing"]);
}

/// R59, CVE-2026-50151
#[tokio::test]
async fn a_foreign_location_gets_neither_bytes_nor_a_credential() {
    let (server, foreign) = (Hostile::start(), Hostile::start());
    server.login(Some(BASIC));
    for location in [
        format!("http://{}/v2/acme/net/blobs/uploads/x", foreign.host()),
        "http://u:p@127.0.0.1/x".to_owned(),
    ] {
        let answer = Reply::new(202, "text/plain", "").with("Location", &*location);
        server.rule(
            |seen| seen.method == "POST" && seen.header("authorization").is_some(),
            Behaviour::Answer(answer),
        );
        refused(
            put(&client(&server, user(CANARY)), b"x").await,
            Failure::Protocol,
            &["Location", "leads away from"],
        );
    }
    assert!(foreign.requests().is_empty());
    assert!(server.requests().iter().all(|seen| seen.method != "PUT"));
    server.behave();
    server.rule(posts(), Behaviour::Answer(Reply::new(202, "text/plain", "").with("Range", "0-0")));
    server.login(None);
    refused(put(&remote(&server), b"x").await, Failure::Protocol, &["Location", "missing"]);
    server.rule(posts(), Behaviour::edit(|_, reply| reply.with("Range", "0-499")));
    refused(put(&remote(&server), b"x").await, Failure::Protocol, &["up to 499"]);
}

/// R59
#[tokio::test]
async fn an_upload_counts_when_the_registry_has_the_blob() {
    let content = bytes(1000);
    let created = || Reply::new(201, "text/plain", "");
    // what it says, and what came of it
    for (answer, failure, words) in [
        (
            created().with("Docker-Content-Digest", Digest::of(b"y").to_string()),
            Failure::Integrity,
            "kept sha256:",
        ),
        (created(), Failure::Integrity, "does not hold what was sent"),
        (Reply::new(202, "text/plain", "").with("Range", "0-99"), Failure::Protocol, "up to 99"),
        (Reply::new(204, "text/plain", ""), Failure::Protocol, "204 where 201"),
        (Reply::new(201, "text/html", "<html>"), Failure::Protocol, "not a registry"),
    ] {
        let server = Hostile::start();
        server.rule(puts(), Behaviour::Answer(answer));
        refused(put(&remote(&server), &content).await, failure, &["/acme/net@sha256:", words]);
    }
    // an answer that says too little, or too much, about what the registry does have
    for edit in [
        |_: &Seen, reply: Reply| Reply { headers: vec![], ..reply },
        |_: &Seen, reply: Reply| Reply { status: 202, ..reply },
        |_: &Seen, reply: Reply| reply.with("Range", "0-99"),
    ] {
        let server = Hostile::start();
        server.rule(puts(), Behaviour::edit(edit));
        assert_eq!(put(&remote(&server), &content).await.unwrap(), Uploaded::Sent);
        assert_eq!(methods(&server), ["HEAD", "POST", "PUT", "HEAD"]);
    }
    let server = Hostile::start();
    server.put_blob(&content);
    server.rule(
        |seen| seen.method == "HEAD",
        Behaviour::edit(|_, reply| reply.with("Content-Length", "999")),
    );
    refused(put(&remote(&server), &content).await, Failure::Integrity, &["999 bytes", "1000"]);
}

/// Q11: a store may refuse HEAD at an address that was signed for GET.
#[tokio::test]
async fn a_store_that_refuses_head_still_holds_the_blob() {
    let (server, store) = (Hostile::start(), Hostile::start());
    server.rule(
        all(),
        Behaviour::Answer(Reply::redirect(307, &format!("http://{}/b", store.host()))),
    );
    store.rule(all(), Behaviour::Answer(Reply::new(403, "application/xml", "<Error/>")));
    assert_eq!(put(&remote(&server), b"x").await.unwrap(), Uploaded::Present);
    store.rule(all(), Behaviour::Answer(Reply::new(404, "application/xml", "<Error/>")));
    server.behave();
    server.rule(
        |seen| seen.method == "HEAD",
        Behaviour::Answer(Reply::redirect(307, &format!("http://{}/b", store.host()))),
    );
    assert_eq!(put(&remote(&server), b"x").await.unwrap(), Uploaded::Sent);
    // and one that knows no HEAD is believed
    server.rule(|seen| seen.method == "HEAD", Behaviour::Answer(Reply::error(405, "UNSUPPORTED")));
    assert_eq!(put(&remote(&server), b"y").await.unwrap(), Uploaded::Sent);
}

/// R59: the session is gone.
#[tokio::test]
async fn a_lost_upload_begins_anew() {
    let server = Hostile::start();
    let content = bytes(200_000);
    server.script(puts(), [Behaviour::Answer(Reply::error(404, "BLOB_UPLOAD_UNKNOWN"))]);
    assert_eq!(put(&remote(&server), &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT", "HEAD", "POST", "PUT"]);
    assert_eq!(server.blob(&Digest::of(&content)), Some(content));

    let server = Hostile::start();
    server.rule(puts(), Behaviour::Answer(Reply::error(404, "BLOB_UPLOAD_UNKNOWN")));
    let words = ["lost the upload", "BLOB_UPLOAD_UNKNOWN", "5 tries"];
    refused(put(&remote(&server), b"x").await, Failure::TimedOut, &words);
    assert_eq!(methods(&server).iter().filter(|m| *m == "PUT").count(), 5);
}

/// R51
#[tokio::test]
async fn an_upload_survives_outages_that_pass() {
    let content = bytes(2_000_000);
    for failures in [
        vec![Behaviour::Answer(Reply::error(503, "UNAVAILABLE")), Behaviour::Reset],
        vec![Behaviour::TakeSome(500_000), Behaviour::TakeSome(0)],
        vec![Behaviour::Answer(Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", "0"))],
        vec![Behaviour::Answer(Reply::error(400, "DIGEST_INVALID"))],
    ] {
        let server = Hostile::start();
        let tries = failures.len() + 1;
        server.script(puts(), failures);
        assert_eq!(put(&remote(&server), &content).await.unwrap(), Uploaded::Sent);
        assert_eq!(server.blob(&Digest::of(&content)).as_deref(), Some(&*content));
        assert_eq!(methods(&server).iter().filter(|m| *m == "POST").count(), tries);
    }
    // the answer alone was lost: nothing is sent twice
    let server = Hostile::start();
    server.put_blob(&content);
    server.script(
        |seen| seen.method == "HEAD",
        [Behaviour::Answer(Reply::error(404, "BLOB_UNKNOWN"))],
    );
    server.script(puts(), [Behaviour::Reset]);
    assert_eq!(put(&remote(&server), &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT", "HEAD"]);

    let server = Hostile::start();
    server.rule(puts(), Behaviour::Answer(Reply::error(400, "DIGEST_INVALID")));
    refused(
        put(&remote(&server), b"x").await,
        Failure::Integrity,
        &["other bytes arrived", "5 tries"],
    );
    // R50
    server.rule(
        puts(),
        Behaviour::Answer(Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", "86400")),
    );
    refused(
        put(&remote(&server), b"x").await,
        Failure::TimedOut,
        &["86400 s", "longer than the deadline"],
    );
}

#[tokio::test]
async fn what_is_written_follows_redirects_at_home_alone() {
    let (server, foreign) = (Hostile::start(), Hostile::start());
    server.login(Some(BASIC));
    let remote = client(&server, user(CANARY));
    let content = bytes(300_000);
    let digest = Digest::of(&content);
    server.rule(
        |seen| seen.method == "PUT" && !seen.path.contains("moved"),
        Behaviour::Answer(Reply::redirect(
            308,
            &format!("upload-1?_state=a%2Fb%3D&moved&digest={digest}"),
        )),
    );
    server.rule(|seen| seen.method == "POST" && !seen.path.contains("moved"), {
        Behaviour::Answer(Reply::redirect(307, &format!("{UPLOADS}?moved")))
    });
    assert_eq!(put(&remote, &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(server.blob(&digest), Some(content));

    server.behave();
    let location = format!("http://{}/x", foreign.host());
    for (status, words) in
        [(307, "leads away"), (308, "leads away"), (301, "drop"), (302, "drop"), (303, "drop")]
    {
        for method in ["POST", "PUT"] {
            let redirect = Behaviour::Answer(Reply::redirect(status, &location));
            server.rule(move |seen| seen.method == method, redirect);
            refused(put(&remote, b"x").await, Failure::Protocol, &["redirect", words]);
            server.behave();
        }
    }
    server.rule(puts(), Behaviour::edit(|seen, _| Reply::redirect(307, &seen.path)));
    refused(put(&remote, b"x").await, Failure::Protocol, &["redirects more than 5 times"]);
    assert!(foreign.requests().is_empty());
}

#[tokio::test]
async fn a_token_to_write_is_asked_for_once_and_apart_from_one_to_read() {
    let server = Hostile::start();
    bearer(&server);
    let remote = client(&server, user(CANARY));
    for content in [b"a", b"b", b"c"] {
        put(&remote, content).await.unwrap();
    }
    assert_eq!(remote.present(&name("acme/net"), &by_tag("1.0")).await.unwrap(), None);
    let scopes =
        || server.requests_to("/token").iter().map(|seen| seen.path.clone()).collect::<Vec<_>>();
    assert_eq!(scopes().len(), 1);
    assert!(scopes()[0].ends_with("scope=repository%3Aacme%2Fnet%3Apull%2Cpush"), "{:?}", scopes());
    remote.resolve(&name("acme/net"), &tag("1.0")).await.unwrap_err();
    assert!(scopes()[1].ends_with("scope=repository%3Aacme%2Fnet%3Apull"), "{:?}", scopes());
    let sent: Vec<_> = server.requests().into_iter().filter(puts()).collect();
    assert!(sent.iter().all(|seen| seen.header("authorization") == Some("Bearer token-1")));
    assert_eq!(sent.len(), 3, "no body is sent before the login");
}

/// R21: in the middle of a push.
#[tokio::test]
async fn a_token_that_runs_out_during_an_upload_is_renewed() {
    let content = bytes(4_000_000);
    let server = Hostile::start();
    bearer(&server);
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"hostile\"", server.host());
    let expired = Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge);
    server.script(puts(), [Behaviour::Early(expired.clone())]);
    assert_eq!(put(&client(&server, user(CANARY)), &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(server.requests_to("/token").len(), 2);
    assert_eq!(server.blob(&Digest::of(&content)), Some(content));

    let server = Hostile::start();
    bearer(&server);
    server.rule(puts(), Behaviour::Answer(expired));
    let words = ["401", "credential from the test", "write into"];
    refused(put(&client(&server, user(CANARY)), b"x").await, Failure::Denied, &words);
    assert_eq!(methods(&server).iter().filter(|m| *m == "PUT").count(), 3);

    // Q4
    let server = Hostile::start();
    server.login(Some(BASIC));
    server.script(
        puts(),
        [Behaviour::Answer(Reply::new(403, "text/plain", "Your authorization token has expired."))],
    );
    assert_eq!(put(&client(&server, user(CANARY)), b"x").await.unwrap(), Uploaded::Sent);
    server.rule(puts(), Behaviour::Answer(Reply::error(403, "DENIED")));
    refused(
        put(&client(&server, user(CANARY)), b"y").await,
        Failure::Denied,
        &["403", "credential from the test"],
    );
}

#[tokio::test]
async fn who_may_not_write_is_told_by_which_credential() {
    let server = Hostile::start();
    server.login(Some(BASIC));
    refused(put(&remote(&server), b"x").await, Failure::Denied, &["no credential", "log in"]);
    server.rule(posts(), Behaviour::Answer(Reply::error(403, "DENIED")));
    let words = [
        "403",
        "the credential from the test",
        "write into this repository",
        "`tofufs refresh PATH`",
    ];
    refused(put(&client(&server, user(CANARY)), b"x").await, Failure::Denied, &words);
    assert!(server.requests().iter().all(|seen| seen.method != "PUT"));
    server.login(None);
    refused(put(&remote(&server), b"x").await, Failure::Denied, &["403", "no credential"]);
}

/// What moves is not cut, what does not ends.
#[tokio::test]
async fn a_slow_upload_ends_when_it_stands_still_and_not_before() {
    let server = Hostile::start();
    let remote = remote_with(&server, transport_with(Duration::from_secs(1)), Arc::default());
    let content = bytes(24 << 20);
    server.script(
        puts(),
        [Behaviour::TakeSlowly { piece: 512 << 10, pause: Duration::from_millis(60) }],
    );
    assert_eq!(put(&remote, &content).await.unwrap(), Uploaded::Sent);
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT"]);
    server.rule(puts(), Behaviour::Silence);
    refused(put(&remote, b"x").await, Failure::TimedOut, &["no progress", "sending the blob"]);
}

/// Gives half a mebibyte and then nothing, and no end.
struct Stuck {
    bytes: Bytes,
    reached: tokio::sync::Notify,
}

#[async_trait]
impl BlobSource for Stuck {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        if offset >= 512 << 10 {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
        self.bytes.read_at(offset, len).await
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_no_blob() {
    let server = Hostile::start();
    let content = bytes(1 << 20);
    let remote = remote(&server);
    let source = Stuck { bytes: content.clone().into(), reached: tokio::sync::Notify::new() };
    let (repo, blob) = (name("acme/net"), descriptor(&content));
    tokio::select! {
        result = remote.put_blob(&repo, &blob, &source) => panic!("{result:?}"),
        () = source.reached.notified() => {}
    }
    until(|| methods(&server).len() == 3).await;
    assert_eq!(server.blob(&Digest::of(&content)), None);
    let arrived = server.requests()[2].body.clone();
    assert!(arrived.len() <= 512 << 10 && content.starts_with(&arrived));
    assert_eq!(put(&remote, &content).await.unwrap(), Uploaded::Sent);
}

/// Q15, Q16, and limits of proxies.
#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let text = |status, text: &'static str| Reply::new(status, "text/plain", text);
    let said = |status, code: &str, message: &str| {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Reply::new(status, "application/json", body)
    };
    let artifactory =
        "Not enough permissions to delete/overwrite artifact 'r:net/_uploads/x' (user: 'u')";
    for (method, answer, failure, words) in [
        (
            "POST",
            said(404, "NAME_UNKNOWN", "The repository does not exist"),
            Failure::Absent,
            "create the repository",
        ),
        ("POST", said(400, "NAME_INVALID", "no"), Failure::Absent, "no repository of this name"),
        ("PUT", text(413, "<html>"), Failure::TooLarge, "raise the limit"),
        ("PUT", said(403, "DENIED", artifactory), Failure::Denied, "unfinished upload"),
        ("POST", text(409, artifactory), Failure::Denied, "unfinished upload"),
        ("PUT", said(400, "UNSUPPORTED", "what?"), Failure::Protocol, "what?"),
        ("POST", said(451, "X", "the law"), Failure::Denied, "451"),
    ] {
        let server = Hostile::start();
        server.rule(move |seen| seen.method == method, Behaviour::Answer(answer));
        let put = put(&remote(&server), b"x").await;
        refused(put, failure, &["/acme/net@sha256:", words]);
        assert!(methods(&server).len() <= 3, "another try would not help");
    }
    let server = Hostile::start();
    server.rule(puts(), Behaviour::Early(text(413, "<html>")));
    refused(
        put(&remote(&server), &bytes(5_000_000)).await,
        Failure::TooLarge,
        &["413", "5000000 bytes"],
    );
    server.rule(path(UPLOADS), Behaviour::Answer(Reply::new(200, "text/html", "<html>")));
    refused(put(&remote(&server), b"x").await, Failure::Protocol, &["not a registry"]);
}
