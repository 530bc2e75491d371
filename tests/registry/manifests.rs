//! Manifests and tags.

use super::hostile::{Behaviour, Reply, all, path};
use super::*;
use std::sync::atomic::Ordering;
use tofufs::failure::Failure;

const MANIFEST: &str = "/v2/acme/net/manifests/1.0";

fn server() -> Hostile {
    let server = Hostile::start();
    server.put_manifest("acme/net", Some("1.0"), INDEX, b"{\"x\":1}");
    server
}

#[tokio::test]
async fn a_manifest_comes_with_its_type_and_the_registrys_claim() {
    let server = server();
    let transport = transport_with(Duration::from_secs(5));
    let remote = remote_with(&server, transport.clone(), Arc::default());
    let digest = Digest::of(b"{\"x\":1}");
    let raw = remote.manifest(&name("acme/net"), &by_tag("1.0")).await.unwrap();
    assert_eq!((&*raw.bytes, raw.claimed), (&b"{\"x\":1}"[..], Some(digest)));
    assert_eq!(raw.content_type.as_deref(), Some(INDEX));
    assert_eq!(remote.resolve(&name("acme/net"), &tag("1.0")).await.unwrap(), Some(digest));
    remote.manifest(&name("acme/net"), &Selector::Digest(digest)).await.unwrap();

    let requests = server.requests();
    assert_eq!(
        requests.iter().map(|r| &*r.method).collect::<Vec<_>>(),
        ["GET", "HEAD", "GET"],
        "and no ping"
    );
    assert!(
        requests[0]
            .header("accept")
            .is_some_and(|a| a.contains(INDEX) && a.contains("image.manifest"))
    );
    assert!(requests.iter().all(|r| r.header("accept-encoding") == Some("identity")));
    assert_eq!(transport.requests().total.load(Ordering::Relaxed), 3);
    assert_eq!(transport.requests().blob.load(Ordering::Relaxed), 0);
}

/// R44, R45
#[tokio::test]
async fn a_wrong_claim_of_the_digest_is_an_integrity_failure_and_a_missing_one_is_not() {
    let server = server();
    let remote = remote(&server);
    let other = Digest::of(b"other");
    let claims =
        |value: String| Behaviour::edit(move |_, r| r.with("Docker-Content-Digest", value.clone()));
    server.rule(path(MANIFEST), claims(other.to_string()));
    let subject = format!("{}/acme/net:1.0", server.host());
    let wrong = remote.manifest(&name("acme/net"), &by_tag("1.0")).await;
    refused(wrong, Failure::Integrity, &[&subject, &other.to_string()]);
    server
        .rule(path(MANIFEST), Behaviour::edit(|_, r| r.and("Docker-Content-Digest", "sha256:00")));
    refused(
        remote.manifest(&name("acme/net"), &by_tag("1.0")).await,
        Failure::Integrity,
        &["two digests"],
    );

    for unusable in ["md5:d41d8cd98f00b204e9800998ecf8427e", "nonsense"] {
        server.rule(path(MANIFEST), claims(unusable.to_owned()));
        assert_eq!(remote.manifest(&name("acme/net"), &by_tag("1.0")).await.unwrap().claimed, None);
        assert_eq!(remote.resolve(&name("acme/net"), &tag("1.0")).await.unwrap(), None);
    }
    let sha512 = Digest::of_with(tofufs::digest::Algorithm::Sha512, b"{\"x\":1}");
    server.rule(path(MANIFEST), claims(sha512.to_string()));
    assert_eq!(
        remote.manifest(&name("acme/net"), &by_tag("1.0")).await.unwrap().claimed,
        Some(sha512)
    );
}

#[tokio::test]
async fn a_manifest_asked_for_by_digest_must_have_that_digest() {
    let server = server();
    let digest = Digest::of(b"{\"x\":1}");
    server.rule(all(), Behaviour::Answer(Reply::new(200, INDEX, "{}")));
    let wrong = remote(&server).manifest(&name("acme/net"), &Selector::Digest(digest)).await;
    refused(
        wrong,
        Failure::Integrity,
        &[&format!("/acme/net@{digest}"), &Digest::of(b"{}").to_string()],
    );
}

/// R29, R07
#[tokio::test]
async fn a_manifest_over_four_mebibytes_is_too_large_by_header_and_by_body() {
    let server = server();
    let remote = remote(&server);
    let limit = 4 << 20;
    for (length, fits) in [(limit, true), (limit + 1, false)] {
        let body = vec![b' '; length];
        server.rule(all(), Behaviour::Answer(Reply::new(200, INDEX, body.clone())));
        let by_header = remote.manifest(&name("acme/net"), &by_tag("1.0")).await;
        let head = format!("HTTP/1.1 200 X\r\nContent-Type: {INDEX}\r\n\r\n");
        server.rule(all(), Behaviour::Raw([head.as_bytes(), &body].concat()));
        let by_body = remote.manifest(&name("acme/net"), &by_tag("1.0")).await;
        for result in [by_header, by_body] {
            if fits {
                drop(result.unwrap())
            } else {
                refused(result, Failure::TooLarge, &["4194304"])
            }
        }
        server.behave();
    }
    server.rule(all(), Behaviour::Endless(INDEX));
    refused(
        remote.manifest(&name("acme/net"), &by_tag("1.0")).await,
        Failure::TooLarge,
        &["/acme/net:1.0"],
    );
}

/// R38, R49
#[tokio::test]
async fn a_web_page_is_no_answer_and_proves_no_absence() {
    let server = server();
    let remote = remote(&server);
    let (repo, portal) = (name("acme/net"), "an HTML page");
    server.rule(
        all(),
        Behaviour::Answer(Reply::new(200, "text/html; charset=utf-8", "<html>log in</html>")),
    );
    refused(
        remote.manifest(&repo, &by_tag("1.0")).await,
        Failure::Protocol,
        &[portal, "not a registry"],
    );
    refused(remote.resolve(&repo, &tag("1.0")).await, Failure::Protocol, &["not a registry"]);
    refused(remote.tags(&repo).await, Failure::Protocol, &["not a registry"]);
    server.rule(all(), Behaviour::Answer(Reply::new(404, "text/html", "<html>gone</html>")));
    refused(
        remote.manifest(&repo, &by_tag("1.0")).await,
        Failure::Protocol,
        &["404", "no absence"],
    );
    refused(remote.resolve(&repo, &tag("1.0")).await, Failure::Protocol, &["404", "no absence"]);
    refused(remote.tags(&repo).await, Failure::Protocol, &["404", "no absence"]);
}

#[tokio::test]
async fn absence_is_what_the_registry_itself_says() {
    let server = server();
    let remote = remote(&server);
    refused(
        remote.manifest(&name("acme/net"), &by_tag("2.0")).await,
        Failure::Absent,
        &["/acme/net:2.0", "404"],
    );
    refused(
        remote.resolve(&name("acme/net"), &tag("2.0")).await,
        Failure::Absent,
        &["/acme/net:2.0"],
    );
    refused(
        remote.tags(&name("acme/nothing")).await,
        Failure::Absent,
        &["/acme/nothing", "NAME_UNKNOWN"],
    );
    remote.manifest(&name("acme/net"), &by_tag("1.0")).await.unwrap();
    server.remove_tag("acme/net", "1.0");
    refused(
        remote.manifest(&name("acme/net"), &by_tag("1.0")).await,
        Failure::Absent,
        &["/acme/net:1.0"],
    );
    // an OCI error body says it under any type; HEAD has no body, so that GET confirms
    server.rule(all(), Behaviour::edit(|_, reply| reply.with("Content-Type", "text/plain")));
    refused(
        remote.resolve(&name("acme/net"), &tag("2.0")).await,
        Failure::Absent,
        &["MANIFEST_UNKNOWN"],
    );
}

#[tokio::test]
async fn a_registry_that_refuses_head_is_asked_by_get() {
    let server = server();
    server.rule(|seen| seen.method == "HEAD", Behaviour::Answer(Reply::new(405, "text/plain", "")));
    let digest = remote(&server).resolve(&name("acme/net"), &tag("1.0")).await.unwrap();
    assert_eq!(digest, Some(Digest::of(b"{\"x\":1}")));
}

/// R05, R06, R56
#[tokio::test]
async fn an_answer_that_two_readers_would_understand_differently_is_refused() {
    let server = server();
    let remote = remote(&server);
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n\
         {\"x\":1}\r\n0\r\n\r\n";
    server.rule(all(), Behaviour::Raw(both.into()));
    let repo = name("acme/net");
    refused(
        remote.manifest(&repo, &by_tag("1.0")).await,
        Failure::Protocol,
        &["both Content-Length and"],
    );
    for encoding in ["gzip", "x-gzip", "br", "identity, gzip"] {
        server
            .rule(all(), Behaviour::edit(move |_, reply| reply.with("Content-Encoding", encoding)));
        refused(remote.manifest(&repo, &by_tag("1.0")).await, Failure::Protocol, &[encoding]);
    }
    server.rule(all(), Behaviour::edit(|_, reply| reply.with("Content-Encoding", "identity")));
    remote.manifest(&repo, &by_tag("1.0")).await.unwrap();
    let (long, many) = ("x".repeat(1 << 20), "a: b\r\n".repeat(10_000));
    for garbage in [
        "SSH-2.0-x\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nA B\0: c\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nA: {long}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
    ] {
        server.rule(all(), Behaviour::Raw(garbage.into()));
        refused(
            remote.manifest(&repo, &by_tag("1.0")).await,
            Failure::Protocol,
            &["does not speak HTTP"],
        );
    }
}

/// R57
#[tokio::test]
async fn server_text_in_an_error_is_bounded_and_escaped() {
    let server = server();
    let text = format!("\x1b[31mno\r\n{}", "x".repeat(1 << 20));
    server.rule(all(), Behaviour::Answer(Reply::new(403, "text/plain", text)));
    let error = remote(&server).manifest(&name("acme/net"), &by_tag("1.0")).await.unwrap_err();
    assert_eq!(error.failure, Failure::Denied);
    assert!(error.rule.contains("\\u{1b}[31mno\\r\\n"), "{error}");
    assert!(error.rule.len() < 4096 + 200, "{}", error.rule.len());
}
