//! Redirects: where they lead, and what goes with them.

use super::hostile::{Behaviour, Login, Reply, blobs, path};
use super::*;
use std::sync::atomic::Ordering;
use tofufs::failure::Failure;

const BASIC: Login = Login::Basic { user: "user", password: CANARY };

/// R11, R12: another port is another origin.
#[tokio::test]
async fn a_redirect_is_followed_to_another_origin_without_the_credential() {
    for status in [301, 302, 303, 307, 308] {
        let (server, store) = (Hostile::start(), Hostile::start());
        server.login(Some(BASIC));
        let content = bytes(1000);
        let digest = store.put_blob(&content);
        let location = format!("http://{}/v2/acme/net/blobs/{digest}?sig=x", store.host());
        server.rule(
            |seen| seen.path.contains("/blobs/") && seen.header("authorization").is_some(),
            Behaviour::Answer(Reply::redirect(status, &location)),
        );
        let transport = transport_with(Duration::from_secs(5));
        let remote = remote_with(&server, transport.clone(), credentials(user(CANARY)));
        let (sink, end) = fetch(&remote, &descriptor(&content)).await;
        end.unwrap();
        assert_eq!(sink.bytes, content);
        let at_store = store.requests();
        assert_eq!(at_store.len(), 1);
        assert!(
            at_store[0].header("authorization").is_none() && at_store[0].header("cookie").is_none()
        );
        assert!(!format!("{at_store:?}").contains(CANARY));
        // the 401 does not count, and the redirect's two hops are one request
        assert_eq!(transport.requests().total.load(Ordering::Relaxed), 1);
        assert_eq!(transport.requests().blob.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_redirect_within_the_registry_keeps_the_credential() {
    let server = Hostile::start();
    server.login(Some(BASIC));
    let content = bytes(10);
    let digest = server.put_blob(&content);
    server.script(
        |seen| seen.path.contains("/acme/net/blobs/") && seen.header("authorization").is_some(),
        [Behaviour::Answer(Reply::redirect(307, &format!("/v2/else/where/blobs/{digest}")))],
    );
    let remote =
        remote_with(&server, transport_with(Duration::from_secs(5)), credentials(user(CANARY)));
    fetch(&remote, &descriptor(&content)).await.1.unwrap();
    assert!(
        server
            .requests_to("/v2/else/where/")
            .iter()
            .all(|seen| seen.header("authorization").is_some())
    );
}

/// R10
#[tokio::test]
async fn more_than_five_redirects_are_refused() {
    let server = Hostile::start();
    let remote = remote(&server);
    let blob = descriptor(&bytes(10));
    server.rule(blobs(), Behaviour::edit(|seen, _| Reply::redirect(307, &seen.path)));
    blob_refused(fetch(&remote, &blob).await.1, Failure::Protocol, &["more than 5 times"]);
    assert_eq!(server.requests().len(), 6);
    let chain = |hops: usize| {
        Behaviour::edit(move |seen, honest| match seen.path.matches('x').count() {
            n if n < hops => Reply::redirect(307, &format!("{}x", seen.path)),
            _ => Reply { status: 200, ..honest.with("Content-Type", "application/octet-stream") },
        })
    };
    server.rule(blobs(), chain(11));
    blob_refused(fetch(&remote, &blob).await.1, Failure::Protocol, &["more than 5 times"]);
    server.rule(|seen| seen.path.contains("/manifests/"), chain(5));
    remote.manifest(&name("acme/net"), &by_tag("1.0")).await.unwrap();
}

/// R14, R16
#[tokio::test]
async fn a_redirect_to_what_is_no_plain_http_address_is_refused() {
    let server = Hostile::start();
    let remote = remote(&server);
    for location in [
        "file:///etc/passwd",
        "unix:/run/x",
        "gopher://x/",
        &format!("http://u:{CANARY}@{}/", server.host()),
    ] {
        server.rule(blobs(), Behaviour::Answer(Reply::redirect(307, location)));
        blob_refused(
            fetch(&remote, &descriptor(b"x")).await.1,
            Failure::Protocol,
            &["a redirect of the registry"],
        );
    }
}

/// registry quirk Q11
#[tokio::test]
async fn a_store_that_refuses_an_expired_address_is_resolved_again_once() {
    let (server, store) = (Hostile::start(), Hostile::start());
    let content = bytes(1000);
    let digest = store.put_blob(&content);
    let location = format!("http://{}/v2/acme/net/blobs/{digest}", store.host());
    server.rule(blobs(), Behaviour::Answer(Reply::redirect(307, &location)));
    let expired = Reply::new(403, "application/xml", "<Error>Request has expired</Error>");
    store.script(blobs(), [Behaviour::Answer(expired.clone())]);
    let remote = remote(&server);
    fetch(&remote, &descriptor(&content)).await.1.unwrap();
    assert_eq!((server.requests().len(), store.requests().len()), (2, 2));
    store.rule(blobs(), Behaviour::Answer(expired));
    blob_refused(
        fetch(&remote, &descriptor(&content)).await.1,
        Failure::Denied,
        &["403", "has expired"],
    );
    assert_eq!((server.requests().len(), store.requests().len()), (4, 4));
}

/// What a store asks for is not the registry's wish: nobody logs in to it, nor for it.
#[tokio::test]
async fn a_challenge_of_a_store_is_not_answered() {
    let (server, store) = (Hostile::start(), Hostile::start());
    let content = bytes(1000);
    let digest = server.put_blob(&content);
    let location = format!("http://{}/v2/acme/net/blobs/{digest}", store.host());
    server.rule(blobs(), Behaviour::Answer(Reply::redirect(307, &location)));
    for challenge in
        [format!("Bearer realm=\"http://{}/token\"", store.host()), "Basic realm=x".to_owned()]
    {
        store.rule(
            blobs(),
            Behaviour::Answer(
                Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge),
            ),
        );
        let source = credentials(user(CANARY));
        let remote = remote_with(&server, transport_with(Duration::from_secs(5)), source.clone());
        blob_refused(fetch(&remote, &descriptor(&content)).await.1, Failure::Denied, &["401"]);
        assert!(source.asked.lock().unwrap().is_empty(), "no credential is even looked for");
    }
    assert!(
        store
            .requests()
            .iter()
            .all(|seen| seen.path.contains("/blobs/") && seen.header("authorization").is_none())
    );
}

/// A redirect's target is never kept.
#[tokio::test]
async fn every_try_asks_the_registry_for_the_stores_address() {
    let (server, store) = (Hostile::start(), Hostile::start());
    let content = bytes(1000);
    let digest = store.put_blob(&content);
    let location = format!("http://{}/v2/acme/net/blobs/{digest}", store.host());
    server.rule(
        path(format!("/v2/acme/net/blobs/{digest}")),
        Behaviour::Answer(Reply::redirect(307, &location)),
    );
    store.script(blobs(), [Behaviour::Cut { after: 400, reset: false }]);
    let (sink, end) = fetch(&remote(&server), &descriptor(&content)).await;
    end.unwrap();
    assert_eq!((sink.bytes == content, sink.restarts), (true, 0));
    assert_eq!(server.requests().len(), 2);
    assert_eq!(store.requests()[1].header("range"), Some("bytes=400-999"));
}

/// R14: a registry of this machine may redirect within this machine, not into other networks.
#[tokio::test]
async fn a_redirect_into_another_local_network_is_refused_unconnected() {
    let server = Hostile::start();
    for address in ["169.254.169.254", "10.0.0.1", "[fe80::1]", "[::ffff:192.168.0.1]"] {
        server.rule(
            blobs(),
            Behaviour::Answer(Reply::redirect(307, &format!("http://{address}/latest/meta-data"))),
        );
        let (_, end) = fetch(&remote(&server), &descriptor(b"x")).await;
        blob_refused(end, Failure::Protocol, &["leads to a forbidden address"]);
    }
}
