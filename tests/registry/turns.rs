//! Turns of writers, over HTTP.

use super::hostile::{Behaviour, Reply, Seen};
use super::*;
use tofufs::artifact::MODULE;
use tofufs::name::Repo;
use tofufs::oci::Manifest;
use tofufs::oci::write::image;
use tofufs::registry::Upload;
use tofufs::registry::turn::Turn;

const TAGS: &str = "/v2/acme/net/tags/list";

fn repo(server: &Hostile) -> Repo {
    Repo { host: server.host().parse().unwrap(), name: name("acme/net") }
}

fn release(text: &str) -> Manifest {
    image(MODULE, &[], &BTreeMap::from([("is".to_owned(), text.to_owned())])).unwrap()
}

fn quiet(_: &str) {}

/// One change of the tag `1`.
async fn change(remote: &Remote, repo: &Repo, text: &str) {
    let tag = tag("1");
    let mut turn = Turn::take(remote, repo, &tag, &quiet).await.unwrap();
    turn.put(&release(text)).await.unwrap();
    turn.end().await;
}

fn holding_the_empty_blob() -> Hostile {
    let server = Hostile::start();
    server.put_blob(b"{}");
    server
}

fn methods(server: &Hostile) -> Vec<String> {
    server.requests().iter().map(|seen| seen.method.clone()).collect()
}

fn lists() -> impl Fn(&Seen) -> bool + Send + 'static {
    |seen| seen.path.starts_with(TAGS)
}

#[tokio::test]
async fn a_turn_costs_a_claim_a_list_and_the_removal() {
    let server = holding_the_empty_blob();
    change(&remote(&server), &repo(&server), "a").await;
    assert_eq!(methods(&server), ["PUT", "GET", "PUT", "DELETE"]);
    let list = &server.requests()[1].path;
    assert!(list.starts_with(TAGS) && list.contains("&last=_tofufs.1."), "{list}");
    assert_eq!(server.manifest("acme/net", "1").unwrap(), release("a").raw.to_vec());
    assert_eq!(remote(&server).tags_now(&name("acme/net"), None).await.unwrap(), [tag("1")]);
}

#[tokio::test]
async fn a_claim_is_no_tag_that_is_listed_and_is_found_by_its_name() {
    let server = holding_the_empty_blob();
    let (remote, repo, tag) = (remote(&server), repo(&server), tag("1"));
    let turn = Turn::take(&remote, &repo, &tag, &quiet).await.unwrap();
    let claims = remote.tags_now(&repo.name, None).await.unwrap();
    assert!(matches!(&claims[..], [claim] if claim.is_claim()), "{claims:?}");
    assert!(remote.tags(&repo.name).await.unwrap().is_empty());
    let raw = remote.manifest(&repo.name, &Selector::Tag(claims[0].clone())).await.unwrap();
    assert!(String::from_utf8_lossy(&raw.bytes).contains("application/vnd.tofufs.claim"));
    turn.end().await;
    assert!(remote.tags_now(&repo.name, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_registry_that_removes_nothing_is_asked_once_and_holds_nobody_up() {
    for refusal in [
        Reply::error(405, "UNSUPPORTED"),
        Reply::error(403, "DENIED"),
        Reply::error(400, "UNSUPPORTED"),
    ] {
        let server = holding_the_empty_blob();
        server.rule(|seen| seen.method == "DELETE", Behaviour::Answer(refusal));
        let (remote, repo) = (remote(&server), repo(&server));
        change(&remote, &repo, "a").await;
        assert_eq!(methods(&server), ["PUT", "GET", "PUT", "DELETE", "PUT"], "given up by a put");
        change(&remote, &repo, "b").await;
        assert_eq!(
            methods(&server)[5..],
            ["PUT", "GET", "GET", "PUT", "PUT"],
            "what was given up is looked at"
        );
        assert_eq!(server.manifest("acme/net", "1").unwrap(), release("b").raw.to_vec());
        assert_eq!(remote.tags(&repo.name).await.unwrap(), [tag("1")]);
    }
}

#[tokio::test]
async fn a_list_that_lags_is_waited_for() {
    let server = holding_the_empty_blob();
    let stale = || {
        Behaviour::Answer(Reply::new(200, "application/json", r#"{"name":"acme/net","tags":[]}"#))
    };
    server.script(lists(), (0..6).map(|_| stale()));
    change(&remote(&server), &repo(&server), "a").await;
    assert_eq!(server.requests().iter().filter(|seen| lists()(seen)).count(), 7);
}

#[tokio::test]
async fn a_list_that_begins_elsewhere_than_asked_is_read_as_a_whole() {
    for answer in [
        Reply::new(200, "application/json", r#"{"name":"acme/net","tags":[]}"#),
        Reply::error(400, "PAGINATION_NUMBER_INVALID"),
    ] {
        let server = holding_the_empty_blob();
        server.rule(|seen| seen.path.contains("last="), Behaviour::Answer(answer));
        change(&remote(&server), &repo(&server), "a").await;
        assert_eq!(methods(&server), ["PUT", "GET", "GET", "PUT", "DELETE"]);
    }
}

#[tokio::test]
async fn what_a_claim_names_is_put_where_it_is_missing() {
    let server = Hostile::start();
    let (remote, repo, tag) = (remote(&server), repo(&server), tag("1"));
    Turn::take(&remote, &repo, &tag, &quiet).await.unwrap().end().await;
    assert_eq!(methods(&server), ["PUT", "HEAD", "POST", "PUT", "PUT", "GET", "DELETE"]);
}
