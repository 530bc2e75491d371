//! Lists of tags and repositories.

use super::hostile::{Behaviour, Reply, all, path};
use super::*;
use tofufs::failure::Failure;

const LIST: &str = "/v2/acme/net/tags/list";

fn list(body: impl Into<Vec<u8>>) -> Reply {
    Reply::new(200, "application/json", body)
}

#[tokio::test]
async fn tags_come_from_all_pages_sorted() {
    let server = Hostile::start();
    for n in 0..2_500 {
        server.put_manifest("acme/net", Some(&format!("1.0.{n}")), INDEX, b"{}");
    }
    let tags = remote(&server).tags(&name("acme/net")).await.unwrap();
    assert_eq!(tags.len(), 2_500);
    assert!(tags.is_sorted());
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[0].path, format!("{LIST}?n=1000"));
}

#[tokio::test]
async fn links_are_followed_verbatim_relative_or_absolute() {
    let server = Hostile::start();
    let host = server.host();
    server.rule(
        path(LIST),
        Behaviour::edit(move |seen, _| match seen.path.split_once('?').unwrap().1 {
            "n=1000" => list(r#"{"tags":["b"]}"#).with("Link", "<?next_page=x%2Fy>; rel=next"),
            "next_page=x%2Fy" => list(r#"{"tags":["a"]}"#)
                .with("Link", format!("<http://{host}{LIST}?z>; rel=\"next\"")),
            "z" => list(r#"{"tags":["c"]}"#),
            other => panic!("{other}"),
        }),
    );
    assert_eq!(
        remote(&server).tags(&name("acme/net")).await.unwrap(),
        [tag("a"), tag("b"), tag("c")]
    );
}

/// R23
#[tokio::test]
async fn pages_that_form_a_loop_are_an_error_and_no_short_list() {
    let server = Hostile::start();
    let remote = remote(&server);
    let subject = format!("{}/acme/net", server.host());
    let itself = list(r#"{"tags":["a"]}"#).with("Link", "<?n=1000>; rel=\"next\"");
    server.rule(path(LIST), Behaviour::Answer(itself));
    refused(remote.tags(&name("acme/net")).await, Failure::Protocol, &[&subject, "loop"]);
    server.rule(
        path(LIST),
        Behaviour::edit(|seen, _| {
            let next = if seen.path.ends_with("?b") { "?a" } else { "?b" };
            list(r#"{"tags":["a"]}"#).with("Link", format!("<{next}>; rel=\"next\""))
        }),
    );
    refused(remote.tags(&name("acme/net")).await, Failure::Protocol, &["loop"]);
}

/// R24
#[tokio::test]
async fn a_list_of_more_than_a_hundred_thousand_tags_is_too_large() {
    let server = Hostile::start();
    let remote = remote(&server);
    server.rule(
        path(LIST),
        Behaviour::edit(|seen, _| {
            let page: usize = seen.path.split_once("?p").map_or(0, |(_, p)| p.parse().unwrap());
            let tags: Vec<_> = (0..40_000).map(|n| format!("{page}.{n}")).collect();
            list(serde_json::json!({ "tags": tags }).to_string())
                .with("Link", format!("<?p{}>; rel=next", page + 1))
        }),
    );
    refused(remote.tags(&name("acme/net")).await, Failure::TooLarge, &["100000"]);
    assert_eq!(server.requests().len(), 3);
    server.rule(path(LIST), Behaviour::Endless("application/json"));
    refused(remote.tags(&name("acme/net")).await, Failure::TooLarge, &["4194304"]);
}

/// R25
#[tokio::test]
async fn a_link_to_another_origin_is_not_followed() {
    let (server, other) = (Hostile::start(), Hostile::start());
    let link = format!("<http://{}{LIST}>; rel=\"next\"", other.host());
    server.rule(path(LIST), Behaviour::Answer(list(r#"{"tags":["a"]}"#).with("Link", link)));
    refused(remote(&server).tags(&name("acme/net")).await, Failure::Protocol, &["leads away"]);
    assert!(other.requests().is_empty());
}

/// R26, R27, R28
#[tokio::test]
async fn only_valid_tags_are_listed_and_each_once() {
    let server = Hostile::start();
    let remote = remote(&server);
    let long = "x".repeat(129);
    let body = serde_json::json!({ "name": "other/name", "tags": [
        "b", "a", "b", "B", "..", ".", "a/b", "a\0b", long, "ä", "%2e%2e", "-x", "x\ny", "", 7, null, "_digest"
    ]});
    server.rule(path(LIST), Behaviour::Answer(list(body.to_string())));
    let tags = remote.tags(&name("acme/net")).await.unwrap();
    assert_eq!(tags, [tag("B"), tag("_digest"), tag("a"), tag("b")]);
    server.rule(path(LIST), Behaviour::Answer(list(r#"{"name":"acme/net","tags":null}"#)));
    assert!(remote.tags(&name("acme/net")).await.unwrap().is_empty());
    for no_list in
        ["", "[]", "{}", r#"{"tags":{}}"#, r#"{"tags":["a"]"#, r#"{"tags":[],"tags":["a"]}"#]
    {
        server.rule(path(LIST), Behaviour::Answer(list(no_list)));
        refused(
            remote.tags(&name("acme/net")).await,
            Failure::Protocol,
            &["did not answer with a list"],
        );
    }
}

/// Absent is what the registry calls so, in each of the forms that registries have for it, and
/// nothing else.
#[tokio::test]
async fn a_repository_is_absent_when_the_registry_says_so() {
    let server = Hostile::start();
    let remote = remote(&server);
    for (status, code, failure) in [
        (404, "NAME_UNKNOWN", Failure::Absent),
        (410, "NAME_UNKNOWN", Failure::Absent),
        (400, "NAME_UNKNOWN", Failure::Absent),
        (400, "NAME_INVALID", Failure::Absent),
        (400, "UNSUPPORTED", Failure::Protocol),
        (405, "UNSUPPORTED", Failure::Protocol),
        (451, "DENIED", Failure::Denied),
    ] {
        server.rule(path(LIST), Behaviour::Answer(Reply::error(status, code)));
        refused(
            remote.tags(&name("acme/net")).await,
            failure,
            &["/acme/net", &status.to_string(), code],
        );
    }
}

#[tokio::test]
async fn the_catalog_is_listed_where_the_registry_does_and_absent_elsewhere() {
    let server = Hostile::start();
    let remote = remote(&server);
    server.put_manifest("b/c", None, INDEX, b"{}");
    server.put_manifest("a", None, INDEX, b"{}");
    assert_eq!(remote.catalog().await.unwrap(), [name("a"), name("b/c")]);
    for status in [401, 403, 404, 405] {
        let refusal = Reply::error(status, "X").with("WWW-Authenticate", "Basic realm=\"x\"");
        server.rule(all(), Behaviour::Answer(refusal));
        refused(remote.catalog().await, Failure::Absent, &[&server.host(), "does not list"]);
    }
    server.rule(all(), Behaviour::Answer(Reply::new(200, "text/html", "")));
    refused(remote.catalog().await, Failure::Protocol, &["not a registry"]);
}
