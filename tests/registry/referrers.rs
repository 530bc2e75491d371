//! Lists of referrers as registries make them, refuse them and lie about them.

use serde_json::json;
use tofufs::name::Repo;
use tofufs::registry::referrers::attach;

use crate::support::hostile::{Behaviour, Reply, path};
use crate::*;

const REPO: &str = "acme/net";

fn subject() -> Digest {
    Digest::of(b"subject")
}

fn list(entries: &[Digest]) -> String {
    let entries: Vec<_> = entries
        .iter()
        .map(|digest| {
            json!({"mediaType": tofufs::oci::IMAGE, "digest": digest.to_string(), "size": 7,
                "artifactType": "a/b"})
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string()
}

fn own_list() -> impl Fn(&support::hostile::Seen) -> bool + Send + 'static {
    path(format!("/v2/{REPO}/referrers/{}", subject()))
}

fn under_tag() -> impl Fn(&support::hostile::Seen) -> bool + Send + 'static {
    path(format!("/v2/{REPO}/manifests/sha256-{}", subject().hex()))
}

/// What is said of the subject by a registry that answers so to the question for its list, and to
/// that for the tag.
async fn said(own: Reply, tag: Option<Reply>) -> Result<Vec<Digest>, Failure> {
    let server = Hostile::start();
    server.rule(own_list(), Behaviour::Answer(own));
    if let Some(tag) = tag {
        server.rule(under_tag(), Behaviour::Answer(tag));
    }
    let said = remote(&server).referrers(&name(REPO), &subject()).await.whole();
    said.map(|all| all.iter().map(|e| e.digest).collect()).map_err(|e| e.failure)
}

fn page(entries: &[Digest]) -> Reply {
    Reply::new(200, INDEX, list(entries))
}

#[tokio::test]
async fn a_registry_that_makes_no_lists_is_asked_for_the_tag() {
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let own = || page(&[one]);
    assert_eq!(said(own(), Some(page(&[two]))).await, Ok(vec![one]));
    assert_eq!(said(page(&[]), Some(page(&[two]))).await, Ok(vec![]));
    let none = [
        Reply::new(404, "text/html", "<html>no</html>"),
        Reply::new(404, "text/plain", "404 page not found"),
        Reply::error(404, "UNSUPPORTED"),
        Reply::error(405, "UNSUPPORTED"),
        Reply::redirect(303, "https://elsewhere.example/login"),
    ];
    for none in none {
        assert_eq!(said(none.clone(), Some(page(&[two]))).await, Ok(vec![two]));
        assert_eq!(said(none, None).await, Ok(vec![]), "no such tag");
    }
}

#[tokio::test]
async fn what_stands_under_the_tag_is_a_list_the_subject_or_an_error() {
    let none = || Reply::error(404, "UNSUPPORTED");
    let of = async |tag: Reply| said(none(), Some(tag)).await;
    // Some registries resolve the tag to the subject itself (registry quirk Q21).
    assert_eq!(of(Reply::new(200, "application/octet-stream", "subject")).await, Ok(vec![]));
    assert_eq!(of(Reply::new(404, "text/html", "<html>")).await, Err(Failure::Protocol));
    assert_eq!(of(Reply::new(200, "text/html", "<html>")).await, Err(Failure::Protocol));
    assert_eq!(of(Reply::new(200, INDEX, "{}")).await, Err(Failure::Protocol));
    assert_eq!(
        of(Reply::new(200, tofufs::oci::IMAGE, r#"{"layers":[]}"#)).await,
        Err(Failure::Protocol)
    );
}

#[tokio::test]
async fn a_list_that_was_not_had_is_not_an_empty_one() {
    let of = async |own: Reply| said(own, Some(page(&[Digest::of(b"1")]))).await;
    assert_eq!(of(Reply::error(401, "UNAUTHORIZED")).await, Err(Failure::Denied));
    assert_eq!(of(Reply::error(403, "DENIED")).await, Err(Failure::Denied));
    assert_eq!(of(Reply::error(400, "BAD")).await, Err(Failure::Protocol));
    assert_eq!(of(Reply::new(200, "text/html", "<html>")).await, Err(Failure::Protocol));
    assert_eq!(of(Reply::new(200, INDEX, "{\"manifests\":")).await, Err(Failure::Protocol));
    assert_eq!(of(Reply::error(503, "BUSY")).await, Err(Failure::TimedOut));
    assert_eq!(of(Reply::error(429, "TOOMANYREQUESTS")).await, Err(Failure::TimedOut));
    let many: Vec<Digest> = (0..10_001).map(|n: u32| Digest::of(&n.to_be_bytes())).collect();
    assert_eq!(of(page(&many)).await, Err(Failure::TooLarge));
    assert_eq!(of(page(&many[1..])).await.map(|all| all.len()), Ok(10_000));
}

#[tokio::test]
async fn a_list_comes_in_pages_that_end() {
    let next = |page: Reply, to: &str| page.with("Link", format!("<{to}>; rel=\"next\""));
    let at = format!("/v2/{REPO}/referrers/{}", subject());
    let second = || {
        let wanted = format!("{at}?p=2");
        move |seen: &support::hostile::Seen| seen.path == wanted
    };
    let first = {
        let wanted = at.clone();
        move |seen: &support::hostile::Seen| seen.path == wanted
    };
    let server = Hostile::start();
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    server.rule(second(), Behaviour::Answer(page(&[two, one])));
    server.rule(first, Behaviour::Answer(next(page(&[one]), "?p=2")));
    let registry = remote(&server);
    let all = registry.referrers(&name(REPO), &subject()).await.whole().unwrap();
    assert_eq!(all.iter().map(|e| e.digest).collect::<Vec<_>>(), [one, two]);
    server.rule(second(), Behaviour::Answer(next(page(&[two]), &at)));
    let looped = registry.referrers(&name(REPO), &subject()).await.whole();
    assert_eq!(looped.unwrap_err().failure, Failure::Protocol);
    server.rule(
        move |seen| seen.path.starts_with(&at),
        Behaviour::edit(move |seen, _| {
            let n = seen.path.rsplit_once('=').map_or(0, |(_, n)| n.parse::<u32>().unwrap_or(0));
            next(page(&[]), &format!("?p={}", n + 1))
        }),
    );
    let endless = registry.referrers(&name(REPO), &subject()).await.whole();
    assert_eq!(endless.unwrap_err().failure, Failure::TooLarge);
}

/// The question is sent to a registry once that has said that it makes no lists.
#[tokio::test]
async fn that_there_are_no_lists_is_remembered() {
    let server = Hostile::start();
    let registry = remote(&server);
    for _ in 0..3 {
        assert!(registry.referrers(&name(REPO), &subject()).await.whole().unwrap().is_empty());
    }
    assert_eq!(server.requests_to(&format!("/v2/{REPO}/referrers/")).len(), 1);
    assert_eq!(server.requests_to(&format!("/v2/{REPO}/manifests/")).len(), 3);
}

/// Both kinds of registry, and one that resolves the tag to the subject.
#[tokio::test]
async fn what_is_attached_is_listed_by_either_kind_of_registry() {
    for makes_lists in [false, true] {
        let server = Hostile::start();
        if makes_lists {
            server.list_referrers();
        }
        let release = support::pack::module(&[("main.tf", b"# 1\n")]);
        let digest = server.publish(REPO, "1.0.0", &release);
        let registry = remote(&server);
        let repo = Repo { host: registry.host().clone(), name: name(REPO) };
        let text = json!({"schemaVersion": 2, "mediaType": tofufs::oci::IMAGE,
            "artifactType": "a/b", "layers": [], "config": {"mediaType": "c/d",
                "digest": Digest::of(b"{}").to_string(), "size": 2},
            "subject": {"mediaType": tofufs::oci::IMAGE, "digest": digest.to_string(),
                "size": release.root().bytes.len()}});
        let raw = text.to_string().into_bytes();
        let said = Digest::of(&raw);
        let manifest = tofufs::oci::Manifest::parse(raw.into(), said, None).unwrap();
        server.put_blob(b"{}");
        for _ in 0..2 {
            attach(&registry, &repo, &manifest, &digest, &|_| {}).await.unwrap();
            let all = registry.referrers(&name(REPO), &digest).await.whole().unwrap();
            assert_eq!(all.iter().map(|e| e.digest).collect::<Vec<_>>(), [said]);
            assert_eq!(all[0].artifact_type.as_deref(), Some("a/b"));
        }
        let list = format!("sha256-{}", digest.hex());
        assert_eq!(server.manifest(REPO, &list).is_some(), !makes_lists);
        assert_eq!(registry.tags(&name(REPO)).await.unwrap(), [tag("1.0.0")]);
    }
}
