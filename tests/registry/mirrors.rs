//! Registries with mirrors that lack things, lie and fail: what comes is what the registry itself
//! would have sent.

use super::hostile::{Behaviour, Login, Reply, Seen, all, blobs};
use super::*;
use tofufs::failure::{Failure, Refusal};
use tofufs::registry::decorate::{Mirrored, Scoped};
use tofufs::registry::mirror::MirrorAddress;

/// A credential for each registry.
struct ByHost(Vec<(String, &'static str)>);

#[async_trait]
impl CredentialSource for ByHost {
    async fn find(
        &self,
        host: &Host,
        _: Option<&RepoName>,
        _: bool,
    ) -> Result<Option<FoundCredential>, CredentialError> {
        let found = self.0.iter().find(|(of, _)| of == host.as_str());
        Ok(found.map(|(of, password)| FoundCredential {
            credential: user(password),
            source: of.clone(),
        }))
    }
}

fn mirrored(
    origin: &Hostile,
    mirrors: &[(&Hostile, &str)],
    credentials: Vec<(String, &'static str)>,
) -> Mirrored {
    let transport = transport_with(Duration::from_secs(5));
    let credentials = Arc::new(ByHost(credentials));
    let host: Host = origin.host().parse().unwrap();
    let open = |(server, path): &(&Hostile, &str)| {
        let address =
            MirrorAddress::parse(host.clone(), &format!("http://{}{path}", server.host())).unwrap();
        let remote =
            Remote::mirror(transport.clone(), &address, None, credentials.clone()).unwrap();
        (address, Arc::new(remote) as Arc<dyn Registry>)
    };
    let mirrors = mirrors.iter().map(open).collect();
    let options = RemoteOptions {
        host: host.clone(),
        plain_http: true,
        token_realm: None,
        credentials: credentials.clone(),
    };
    Mirrored::new(Arc::new(Remote::new(transport.clone(), options).unwrap()), mirrors)
}

const TEXT: &[u8] = br#"{"a manifest": true}"#;

fn publish(server: &Hostile, repo: &str) -> Vec<u8> {
    let content = bytes(300_000);
    server.put_blob(&content);
    server.put_manifest(repo, Some("1.0"), INDEX, TEXT);
    content
}

async fn read(registry: &dyn Registry, content: &[u8]) -> Result<usize, Refusal> {
    let repo = name("acme/net");
    for selector in [by_tag("1.0"), Selector::Digest(Digest::of(TEXT))] {
        assert_eq!(&*registry.manifest(&repo, &selector).await?.bytes, TEXT);
    }
    let mut sink = MemorySink::default();
    match registry.blob(&repo, &descriptor(content), &mut sink).await {
        Err(BlobError::Registry(e)) => return Err(e),
        done => done.unwrap(),
    }
    assert!(sink.bytes == content);
    Ok(sink.restarts)
}

fn gets(server: &Hostile) -> usize {
    server.requests().iter().filter(|seen| seen.method == "GET").count()
}

#[tokio::test]
async fn content_comes_from_the_first_mirror_that_has_it() {
    let (origin, empty, full) = (Hostile::start(), Hostile::start(), Hostile::start());
    let content = publish(&origin, "acme/net");
    publish(&full, "proxy/ghcr/acme/net");
    let registry = mirrored(&origin, &[(&empty, ""), (&full, "/proxy/ghcr")], vec![]);
    assert_eq!(read(&registry, &content).await.unwrap(), 0);
    assert_eq!(gets(&origin), 0, "one request without content for the tag is all");
    assert_eq!(origin.requests().iter().map(|seen| &*seen.method).collect::<Vec<_>>(), ["HEAD"]);
    let digest = Digest::of(&content);
    let asked = &full.requests().pop().unwrap().path;
    let ns = origin.host().replace(':', "%3A");
    assert_eq!(*asked, format!("/v2/proxy/ghcr/acme/net/blobs/{digest}?ns={ns}"));
    assert!(
        empty.requests()[0].path.starts_with("/v2/acme/net/manifests/1.0?"),
        "so that a cache learns the tag"
    );
}

/// R01, R02, R04: the registry decides.
#[tokio::test]
async fn nothing_that_a_mirror_does_makes_content_absent_denied_or_damaged() {
    let flipped = |_: &Seen, mut reply: Reply| {
        let at = reply.body.len() / 2;
        reply.body[at] ^= 1;
        reply
    };
    let flipped_and_named = |seen: &Seen, reply: Reply| {
        let mut reply = reply;
        if seen.method == "GET" && !reply.body.is_empty() {
            reply.body[0] ^= 1;
            let digest = Digest::of(&reply.body).to_string();
            reply = reply.with("Docker-Content-Digest", digest);
        }
        reply
    };
    for behaviour in [
        Behaviour::Answer(Reply::error(404, "NAME_UNKNOWN")),
        Behaviour::Answer(Reply::new(404, "text/html", "<html>")),
        Behaviour::Answer(Reply::new(200, "text/html", "<html>")),
        Behaviour::Answer(
            Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", "Basic realm=x"),
        ),
        Behaviour::Answer(Reply::error(403, "DENIED")),
        Behaviour::Answer(Reply::error(410, "X")),
        Behaviour::Answer(Reply::error(500, "X")),
        Behaviour::Answer(Reply::redirect(307, "http://169.254.169.254/")),
        Behaviour::Reset,
        Behaviour::edit(flipped),
        Behaviour::edit(flipped_and_named),
        Behaviour::edit(|_, reply| Reply { body: reply.body[1..].to_vec(), ..reply }),
        Behaviour::Cut { after: 10, reset: false },
    ] {
        let (origin, mirror) = (Hostile::start(), Hostile::start());
        let content = publish(&origin, "acme/net");
        publish(&mirror, "acme/net");
        mirror.rule(all(), behaviour);
        let registry = mirrored(&origin, &[(&mirror, "/v2/")], vec![]);
        read(&registry, &content).await.unwrap();
        assert_eq!(gets(&origin), 3);
        assert!(!mirror.requests().is_empty());
    }
    // and what the registry lacks or denies is as it says, whatever mirrors hold
    let (origin, mirror) = (Hostile::start(), Hostile::start());
    let content = publish(&mirror, "acme/net");
    let registry = mirrored(&origin, &[(&mirror, "")], vec![]);
    let resolved = registry.resolve(&name("acme/net"), &tag("1.0")).await;
    refused(resolved, Failure::Absent, &["404"]);
    refused(read(&registry, &content).await.map(drop), Failure::Absent, &["404"]);
    refused(registry.tags(&name("acme/net")).await, Failure::Absent, &["NAME_UNKNOWN"]);
    refused(
        registry.manifest(&name("acme/net"), &Selector::Digest(Digest::of(b"x"))).await,
        Failure::Absent,
        &[],
    );
}

#[tokio::test]
async fn damage_at_a_mirror_is_fetched_again_from_the_registry() {
    let (origin, mirror) = (Hostile::start(), Hostile::start());
    let content = publish(&origin, "acme/net");
    publish(&mirror, "acme/net");
    mirror.rule(
        blobs(),
        Behaviour::edit(|_, mut reply| {
            reply.body[299_999] ^= 1;
            reply
        }),
    );
    assert_eq!(read(&mirrored(&origin, &[(&mirror, "")], vec![]), &content).await.unwrap(), 1);
    assert_eq!((gets(&origin), gets(&mirror)), (1, 3));
}

/// I3
#[tokio::test]
async fn a_mirror_gets_its_own_credential_and_never_the_registrys() {
    let (origin, mirror) = (Hostile::start(), Hostile::start());
    let content = publish(&origin, "acme/net");
    publish(&mirror, "acme/net");
    origin.login(Some(Login::Basic { user: "user", password: CANARY }));
    mirror.login(Some(Login::Basic { user: "user", password: "of the mirror" }));
    let credentials = vec![(origin.host(), CANARY), (mirror.host(), "of the mirror")];
    read(&mirrored(&origin, &[(&mirror, "")], credentials), &content).await.unwrap();
    assert_eq!(gets(&origin), 0);
    let sent = |server: &Hostile| {
        let headers = server
            .requests()
            .into_iter()
            .filter_map(|seen| seen.header("authorization").map(str::to_owned));
        headers.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(sent(&origin).len() == 1 && sent(&mirror).len() == 1);
    assert_ne!(sent(&origin), sent(&mirror));
    // one that wants a login and for which there is none is passed over
    let credentials = vec![(origin.host(), CANARY)];
    let before = sent(&mirror);
    read(&mirrored(&origin, &[(&mirror, "")], credentials), &content).await.unwrap();
    assert_eq!(sent(&mirror), before);
}

/// R62
#[tokio::test]
async fn what_moves_is_asked_of_the_registry_and_of_a_mirror_as_its_stand_in_alone() {
    let (mut origin, mirror) = (Hostile::start(), Hostile::start());
    publish(&origin, "acme/net");
    let old = mirror.put_manifest("acme/net", Some("1.0"), INDEX, b"{ }");
    mirror.put_manifest("acme/net", Some("0.9"), INDEX, b"{ }");
    let host: Host = origin.host().parse().unwrap();
    let registry = Arc::new(mirrored(&origin, &[(&mirror, "")], vec![]));
    let scoped = Scoped::new(registry.clone(), host, Some(name("acme")));
    let repo = name("acme/net");
    for registry in [registry.as_ref() as &dyn Registry, &scoped] {
        assert_eq!(registry.resolve(&repo, &tag("1.0")).await.unwrap(), Some(Digest::of(TEXT)));
        assert_eq!(registry.tags(&repo).await.unwrap(), [tag("1.0")]);
        assert_eq!(registry.catalog().await.unwrap(), std::slice::from_ref(&repo));
    }
    origin.stop();
    for registry in [registry.as_ref() as &dyn Registry, &scoped] {
        refused(registry.resolve(&repo, &tag("1.0")).await, Failure::Unreachable, &[]);
        refused(registry.tags(&repo).await, Failure::Unreachable, &[]);
        let stand_in = registry.stand_in().unwrap();
        assert_eq!(stand_in.resolve(&repo, &tag("1.0")).await.unwrap(), Some(old));
        assert_eq!(stand_in.tags(&repo).await.unwrap(), [tag("0.9"), tag("1.0")]);
        refused(stand_in.catalog().await, Failure::Absent, &[]);
    }
    refused(scoped.stand_in().unwrap().tags(&name("net")).await, Failure::Absent, &["outside"]);
    assert!(remote(&origin).stand_in().is_none());
}

/// R51: the breaker is the mirror's own.
#[tokio::test]
async fn a_mirror_that_keeps_failing_is_left_alone() {
    let (origin, mirror) = (Hostile::start(), Hostile::start());
    let content = publish(&origin, "acme/net");
    mirror.rule(all(), Behaviour::Reset);
    let registry = mirrored(&origin, &[(&mirror, "")], vec![]);
    for _ in 0..5 {
        read(&registry, &content).await.unwrap();
    }
    assert_eq!(mirror.requests().len(), 5);
    assert_eq!(gets(&origin), 15);
}
