//! Outages: silence, slowness, overload, and how they end.

use tofufs::failure::{Failure, Refusal};
use tofufs::registry::Asker;
use tofufs::registry::connections::{ConnectionOptions, Connections};
use tofufs::registry::mirror::MirrorAddress;

use super::hostile::{Behaviour, Login, Reply, all, blobs, path};
use super::*;

const MANIFEST: &str = "/v2/acme/net/manifests/1.0";

fn server() -> Hostile {
    let server = Hostile::start();
    server.put_manifest("acme/net", Some("1.0"), INDEX, b"{}");
    server
}

fn client(server: &Hostile, deadline: u64) -> Remote {
    remote_with(server, transport_with(Duration::from_secs(deadline)), Arc::default())
}

async fn get(remote: &Remote) -> Result<(), Refusal> {
    remote.manifest(&name("acme/net"), &by_tag("1.0")).await.map(drop)
}

/// R51
#[tokio::test]
async fn a_registry_that_fails_and_recovers_is_not_noticed() {
    for status in [500, 502, 503, 504, 429] {
        let server = server();
        server.script(
            path(MANIFEST),
            (0..4).map(|_| Behaviour::Answer(Reply::new(status, "text/plain", "busy"))),
        );
        get(&client(&server, 30)).await.unwrap();
        assert_eq!(server.requests().len(), 5);
    }
}

/// R51
#[tokio::test]
async fn a_repository_that_always_fails_is_tried_five_times_and_then_left_alone() {
    let server = server();
    let remote = client(&server, 30);
    server.rule(all(), Behaviour::Answer(Reply::new(503, "text/plain", "out of order")));
    refused(
        get(&remote).await,
        Failure::TimedOut,
        &["/acme/net:1.0", "503", "out of order", "5 tries"],
    );
    refused(
        get(&remote).await,
        Failure::TimedOut,
        &["answered 503", "acme/net of ", "left alone", "tried again"],
    );
    assert_eq!(server.requests().len(), 5);
}

/// Whatever a repository does, the others of its registry are asked and answer, and so does its
/// catalog.
#[tokio::test]
async fn a_repository_that_fails_leaves_the_others_as_they_are() {
    let answer = |status: u16| Behaviour::Answer(Reply::new(status, "text/plain", "no"));
    for bad in
        [answer(500), answer(503), answer(429), answer(403), Behaviour::Silence, Behaviour::Reset]
    {
        let server = server();
        server.put_manifest("acme/bad", Some("1.0"), INDEX, b"{}");
        server.rule(|seen| seen.path.starts_with("/v2/acme/bad/"), bad);
        let remote = client(&server, 2);
        for _ in 0..3 {
            remote.tags(&name("acme/bad")).await.unwrap_err();
            assert!(remote.manifest(&name("acme/bad"), &by_tag("1.0")).await.is_err());
        }
        get(&remote).await.unwrap();
        assert_eq!(remote.tags(&name("acme/net")).await.unwrap().len(), 1);
        assert_eq!(remote.catalog().await.unwrap().len(), 2);
    }
}

/// A person who waits for a command is let through, for one try, whether a repository fails or its
/// whole registry does.
#[tokio::test]
async fn a_person_is_never_refused_unasked() {
    let mut server = server();
    let transport = transport_with(Duration::from_secs(30));
    let options = |asker| ConnectionOptions {
        plain_http: vec![server.host().parse().unwrap()],
        token_realms: Vec::new(),
        mirrors: Vec::new(),
        credentials: Arc::<Fixed>::default(),
        asker,
    };
    let connections = Connections::new(transport.clone(), options(Asker::Program));
    let host: Host = server.host().parse().unwrap();
    let (program, person) =
        (connections.registry(&host).unwrap(), connections.writer(&host).unwrap());
    server.rule(all(), Behaviour::Answer(Reply::new(503, "text/plain", "out of order")));
    assert!(get(&program).await.is_err());
    refused(get(&program).await, Failure::TimedOut, &["left alone"]);
    let before = server.requests().len();
    refused(get(&person).await, Failure::TimedOut, &["503", "out of order"]);
    assert_eq!(server.requests().len(), before + 1);
    server.behave();
    get(&person).await.unwrap();
    get(&program).await.expect("it is known to be back");
    server.stop();
    assert!(get(&program).await.is_err());
    server.restart();
    get(&person).await.unwrap();
}

/// One connection, whatever names the registry: its logins are shared.
#[tokio::test]
async fn all_who_name_a_registry_share_its_logins() {
    let server = server();
    let user = Some(("user", "canary"));
    server.login(Some(Login::Bearer { realm: format!("http://{}/token", server.host()), user }));
    let host: Host = server.host().parse().unwrap();
    let mirror =
        MirrorAddress::parse("other.example".parse().unwrap(), &format!("http://{host}/acme"))
            .unwrap();
    let options = ConnectionOptions {
        plain_http: vec![host.clone()],
        token_realms: Vec::new(),
        mirrors: vec![mirror],
        credentials: credentials(super::user("canary")),
        asker: Asker::Program,
    };
    let connections = Connections::new(transport_with(Duration::from_secs(5)), options);
    for _ in 0..2 {
        get(&connections.registry(&host).unwrap()).await.unwrap();
        get(&connections.writer(&host).unwrap()).await.unwrap();
        let reader = connections.reader(&host).unwrap();
        reader.manifest(&name("acme/net"), &by_tag("1.0")).await.unwrap();
        let (address, mirror) =
            connections.mirrors(&"other.example".parse().unwrap()).unwrap().remove(0);
        let there = address.name_of(&name("net")).unwrap();
        mirror.manifest(&there, &by_tag("1.0")).await.unwrap();
    }
    assert_eq!(server.requests_to("/token").len(), 1);
    connections.renew();
    get(&connections.registry(&host).unwrap()).await.unwrap();
    assert_eq!(server.requests_to("/token").len(), 2);
}

/// O03
#[tokio::test]
async fn a_registry_that_is_back_is_found_by_a_probe() {
    let mut server = server();
    let probe_after = Duration::from_millis(200);
    let deadline = Duration::from_secs(5);
    let transport =
        Transport::new(TransportOptions { deadline, probe_after, ..TransportOptions::default() })
            .unwrap();
    let remote = remote_with(&server, transport, Arc::default());
    server.stop();
    let error = get(&remote).await.unwrap_err();
    assert_eq!(error.failure, Failure::Unreachable, "{error}");
    server.restart();
    for _ in 0..100 {
        if get(&remote).await.is_ok() {
            // It is asked as ever from now on.
            for _ in 0..5 {
                get(&remote).await.unwrap();
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the registry was not found again");
}

/// O03: who knows that the registry is back does not wait for a probe.
#[tokio::test]
async fn a_repository_that_is_trusted_again_is_asked_at_once_and_left_alone_after_one_failure() {
    let server = server();
    let transport = transport_with(Duration::from_secs(30));
    let remote = remote_with(&server, transport.clone(), Arc::default());
    server.rule(all(), Behaviour::Answer(Reply::new(503, "text/plain", "out of order")));
    assert!(get(&remote).await.is_err());
    refused(get(&remote).await, Failure::TimedOut, &["left alone"]);
    transport.trust_again();
    refused(get(&remote).await, Failure::TimedOut, &["left alone"]);
    assert_eq!(server.requests().len(), 6, "one failure is enough");
    server.behave();
    refused(get(&remote).await, Failure::TimedOut, &["left alone"]);
    transport.trust_again();
    let (one, other) = tokio::join!(get(&remote), get(&remote));
    one.and(other).unwrap();
}

/// R51
#[tokio::test]
async fn a_registry_that_takes_no_connection_is_left_alone() {
    let mut server = server();
    let remote = client(&server, 30);
    server.stop();
    refused(get(&remote).await, Failure::Unreachable, &["cannot be reached", "5 tries"]);
    // By now, or after the one try of a probe.
    refused(get(&remote).await, Failure::Unreachable, &["cannot be reached", "left alone"]);
}

/// R50
#[tokio::test]
async fn retry_after_is_honoured_within_the_deadline_and_named_beyond_it() {
    let server = server();
    let limited = |after: &str| {
        Behaviour::Answer(Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", after))
    };
    for after in ["1", "-5", "soon"] {
        server.script(path(MANIFEST), [limited(after)]);
        get(&client(&server, 5)).await.unwrap();
    }
    server.behave();
    let before = server.requests().len();
    server.rule(path(MANIFEST), limited("86400"));
    refused(
        get(&client(&server, 5)).await,
        Failure::TimedOut,
        &["86400 s", "until ", "GMT", "TOOMANYREQUESTS"],
    );
    server.rule(path(MANIFEST), limited("Fri, 31 Dec 9999 23:59:59 GMT"));
    refused(get(&client(&server, 5)).await, Failure::TimedOut, &["left alone"]);
    assert_eq!(server.requests().len(), before + 2, "it fails at once");
}

/// R09
#[tokio::test]
async fn a_silent_registry_ends_as_timed_out_within_the_deadline() {
    let server = server();
    server.black_hole(true);
    let remote = client(&server, 1);
    let waited = tokio::time::timeout(Duration::from_secs(20), get(&remote)).await.expect("an end");
    refused(waited, Failure::TimedOut, &["/acme/net:1.0", "no progress for 1 s", "--deadline"]);
}

/// R08: the body moves, but below the low-speed limit.
#[tokio::test]
async fn a_body_of_a_few_bytes_a_second_ends_as_timed_out() {
    let server = server();
    let content = bytes(100_000);
    server.put_blob(&content);
    server.rule(blobs(), Behaviour::Slow { piece: 5, pause: Duration::from_millis(50) });
    let remote = client(&server, 2);
    let (sink, end) =
        tokio::time::timeout(Duration::from_secs(20), fetch(&remote, &descriptor(&content)))
            .await
            .expect("an end");
    blob_refused(end, Failure::TimedOut, &["no progress for 2 s"]);
    assert!(!sink.bytes.is_empty() && sink.bytes.len() < content.len());
}

/// R09, O02: the connection stands, and nothing more comes.
#[tokio::test]
async fn a_body_that_stalls_ends_as_timed_out() {
    let server = server();
    let content = bytes(100_000);
    server.put_blob(&content);
    server.rule(blobs(), Behaviour::Stall { after: 60_000 });
    let remote = client(&server, 1);
    let (sink, end) =
        tokio::time::timeout(Duration::from_secs(20), fetch(&remote, &descriptor(&content)))
            .await
            .expect("an end");
    blob_refused(end, Failure::TimedOut, &["no progress for 1 s"]);
    assert!(sink.bytes == content[..sink.bytes.len()] && !sink.bytes.is_empty());
}

/// What moves is not cut, however long it takes in all.
#[tokio::test]
async fn a_transfer_that_moves_outlasts_the_deadline() {
    let server = server();
    let content = bytes(400_000);
    server.put_blob(&content);
    server.rule(blobs(), Behaviour::Slow { piece: 10_000, pause: Duration::from_millis(100) });
    let (sink, end) = fetch(&client(&server, 2), &descriptor(&content)).await;
    end.unwrap();
    assert!(sink.bytes == content);
}

/// R04: RST before an answer.
#[tokio::test]
async fn a_connection_that_is_reset_is_tried_again() {
    let server = server();
    server.script(path(MANIFEST), [Behaviour::Reset, Behaviour::Reset]);
    get(&client(&server, 10)).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}

/// R58, O01
#[tokio::test]
async fn a_host_that_does_not_answer_or_exist_is_unreachable() {
    let mut server = server();
    let remote = client(&server, 5);
    server.stop();
    refused(get(&remote).await, Failure::Unreachable, &["/acme/net:1.0", "cannot be reached"]);
    // a name that no resolver has to be asked about: its first label is too long
    let host = format!("{}.example", "x".repeat(64)).parse().unwrap();
    let options = RemoteOptions {
        host,
        plain_http: true,
        token_realm: None,
        credentials: Arc::<Fixed>::default(),
    };
    let remote = Remote::new(transport_with(Duration::from_secs(5)), options).unwrap();
    refused(get(&remote).await, Failure::Unreachable, &["xx.example/acme/net:1.0"]);
}

/// A call may be dropped at any await; the places that it held, all that one repository gets, are
/// free again.
#[tokio::test]
async fn dropped_transfers_leave_their_places() {
    let server = server();
    let content = bytes(1000);
    server.put_blob(&content);
    server.script(blobs(), (0..6).map(|_| Behaviour::Silence));
    let remote = client(&server, 10);
    let blob = descriptor(&content);
    let stuck = futures_util::future::join_all((0..6).map(|_| fetch(&remote, &blob)));
    let all_sent = async {
        while server.requests().len() < 6 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = stuck => panic!("silence is no answer"),
        () = all_sent => {}
    }
    fetch(&remote, &blob).await.1.unwrap();
}
