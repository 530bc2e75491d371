//! Manifests on their way into a registry, and whether they arrived.

use super::hostile::{Behaviour, Reply, Seen};
use super::*;
use tofufs::failure::{Failure, Refusal};
use tofufs::oci::{IMAGE, Manifest};
use tofufs::registry::decorate::{Offline, Scoped};
use tofufs::registry::{Upload, Uploaded};

const TEXT: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",  "artifactType":"application/vnd.opentofu.provider","manifests":[]}"#;

fn index() -> Manifest {
    manifest(TEXT)
}

fn manifest(text: &str) -> Manifest {
    Manifest::parse(text.as_bytes().into(), Digest::of(text.as_bytes()), None).unwrap()
}

fn module(layer: &[u8]) -> Manifest {
    let blob = |bytes: &[u8], media_type: &str| serde_json::json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    manifest(
        &serde_json::json!({
            "schemaVersion": 2, "mediaType": IMAGE, "artifactType": tofufs::artifact::MODULE,
            "config": blob(b"{}", "application/vnd.oci.empty.v1+json"), "layers": [blob(layer, "archive/zip")],
        })
        .to_string(),
    )
}

fn puts() -> impl Fn(&Seen) -> bool + Send + 'static {
    |seen| seen.method == "PUT"
}

async fn put(remote: &Remote, reference: &str) -> Result<(), Refusal> {
    let selector = reference.parse().map_or_else(|_| by_tag(reference), Selector::Digest);
    remote.put_manifest(&name("acme/net"), &selector, &index()).await
}

#[tokio::test]
async fn a_manifest_goes_out_byte_for_byte_and_is_found_again() {
    let server = Hostile::start();
    let remote = remote(&server);
    let digest = index().digest;
    let look =
        async |selector: &Selector| remote.present(&name("acme/net"), selector).await.unwrap();
    assert_eq!(look(&by_tag("1.0")).await, None);
    put(&remote, &digest.to_string()).await.unwrap();
    assert_eq!(look(&Selector::Digest(digest)).await, Some(digest));
    assert_eq!(look(&by_tag("1.0")).await, None);
    put(&remote, "1.0").await.unwrap();
    assert_eq!(look(&by_tag("1.0")).await, Some(digest));
    assert_eq!(server.manifest("acme/net", "1.0").as_deref(), Some(TEXT.as_bytes()));
    assert_eq!(
        &*remote.read_back(&name("acme/net"), &by_tag("1.0")).await.unwrap().bytes,
        TEXT.as_bytes()
    );
    for seen in server.requests() {
        match &*seen.method {
            "PUT" => assert_eq!(seen.header("content-type"), Some(INDEX)),
            _ => assert_eq!(seen.header("cache-control"), Some("no-cache"), "{seen:?}"),
        }
    }
    let other =
        remote.put_manifest(&name("acme/net"), &Selector::Digest(Digest::of(b"x")), &index()).await;
    refused(other, Failure::Integrity, &["not what it is sent as"]);
}

/// R59, R60
#[tokio::test]
async fn a_manifest_counts_when_the_registry_has_it() {
    let created = || Reply::new(201, "text/plain", "");
    let server = Hostile::start();
    let other = Digest::of(b"other").to_string();
    server.rule(puts(), Behaviour::Answer(created().with("Docker-Content-Digest", &*other)));
    refused(
        put(&remote(&server), "1.0").await,
        Failure::Integrity,
        &["/acme/net:1.0 (sha256:", "kept", &other],
    );
    server.rule(puts(), Behaviour::Answer(created()));
    refused(
        put(&remote(&server), "1.0").await,
        Failure::Integrity,
        &["does not hold what was sent"],
    );
    server.rule(puts(), Behaviour::edit(|_, reply| Reply { headers: vec![], ..reply }));
    put(&remote(&server), "1.0").await.unwrap();
    // R60: what is served is not what was taken
    server.rule(
        |seen| seen.method == "GET",
        Behaviour::edit(|_, mut reply| {
            reply.body.push(b' ');
            reply
        }),
    );
    let back =
        remote(&server).read_back(&name("acme/net"), &Selector::Digest(index().digest)).await;
    refused(back, Failure::Integrity, &["but was asked for as"]);
    // R61: somebody else's tag
    server.behave();
    let theirs = server.put_manifest("acme/net", Some("1.0"), INDEX, b"{ }");
    assert_eq!(
        remote(&server).present(&name("acme/net"), &by_tag("1.0")).await.unwrap(),
        Some(theirs)
    );
}

/// An outage is not an absence.
#[tokio::test]
async fn a_tag_is_missing_when_the_registry_says_so() {
    let server = Hostile::start();
    let look = async || remote(&server).present(&name("acme/net"), &by_tag("1.0")).await;
    assert_eq!(look().await.unwrap(), None);
    let heads = |seen: &Seen| seen.method == "HEAD";
    server.rule(heads, Behaviour::Answer(Reply { status: 404, headers: vec![], body: vec![] }));
    assert_eq!(look().await.unwrap(), None, "the GET says so");
    let digest = server.put_manifest("acme/net", Some("1.0"), INDEX, TEXT.as_bytes());
    assert_eq!(look().await.unwrap(), Some(digest), "the GET has it");
    server.behave();
    server
        .rule(heads, Behaviour::edit(|_, reply| Reply { headers: vec![], body: vec![], ..reply }));
    assert_eq!(
        look().await.unwrap(),
        Some(digest),
        "the digest is computed where HEAD does not tell it"
    );
    server.behave();
    for (status, failure) in
        [(404, Failure::Protocol), (403, Failure::Denied), (400, Failure::Protocol)]
    {
        server.rule(|_| true, Behaviour::Answer(Reply::new(status, "text/html", "<html></html>")));
        refused(look().await, failure, &["/acme/net:1.0"]);
    }
}

/// Q16, Q18, Q19
#[tokio::test]
async fn a_refused_manifest_says_what_to_do() {
    let said = |status, code: &str, message: &str| {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Reply::new(status, "application/json", body)
    };
    let immutable = "The image tag '1.0' already exists in the 'net' repository and cannot be overwritten because the \
                     repository is immutable.";
    for (answer, failure, words) in [
        (
            said(400, "MANIFEST_INVALID", "unknown artifact type"),
            Failure::Unsupported,
            "ALLOWED_OCI_ARTIFACT_TYPES",
        ),
        (
            said(400, "MANIFEST_INVALID", "unknown"),
            Failure::Unsupported,
            "application/vnd.opentofu.provider",
        ),
        (
            said(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown"),
            Failure::Integrity,
            "push the artifact again",
        ),
        (said(400, "TAG_INVALID", immutable), Failure::Denied, "another tag"),
        (
            said(412, "PRECONDITION", "'net:1.0' configured as immutable"),
            Failure::Denied,
            "another tag",
        ),
        (said(404, "NAME_UNKNOWN", "no such repository"), Failure::Absent, "create the repository"),
        (Reply::new(404, "text/plain", "404 page not found"), Failure::Unsupported, "old Gitea"),
        (Reply::new(501, "text/plain", ""), Failure::Unsupported, "old Gitea"),
        (Reply::new(413, "text/html", "<html>"), Failure::TooLarge, "raise the limit"),
        (said(403, "DENIED", "not you"), Failure::Denied, "no credential"),
        (said(400, "UNSUPPORTED", "what?"), Failure::Protocol, "what?"),
    ] {
        let server = Hostile::start();
        server.rule(puts(), Behaviour::Answer(answer));
        refused(put(&remote(&server), "1.0").await, failure, &["/acme/net:1.0", words]);
        assert_eq!(server.requests().len(), 1, "another try would not help");
    }
    // R51
    let server = Hostile::start();
    server.script(puts(), [Behaviour::Answer(Reply::error(503, "X")), Behaviour::Reset]);
    put(&remote(&server), "1.0").await.unwrap();
    assert_eq!(server.requests().len(), 3);
    // children before what names them
    let lacking =
        remote(&server).put_manifest(&name("acme/net"), &by_tag("2.0"), &module(b"zip")).await;
    refused(lacking, Failure::Integrity, &["names content that the repository lacks"]);
}

#[tokio::test]
async fn a_part_of_a_registry_is_written_to_in_that_part_and_an_offline_one_not_at_all() {
    let server = Hostile::start();
    let host: Host = server.host().parse().unwrap();
    let scoped = Scoped::new(Arc::new(remote(&server)), host.clone(), Some(name("acme")));
    let zip = Bytes::from_static(b"zip");
    for blob in [zip.clone(), Bytes::from_static(b"{}")] {
        let put = scoped.put_blob(&name("acme/net"), &descriptor(&blob), &blob).await;
        assert_eq!(put.unwrap(), Uploaded::Sent);
    }
    scoped.put_manifest(&name("acme/net"), &by_tag("1.0"), &module(b"zip")).await.unwrap();
    let digest = scoped.present(&name("acme/net"), &by_tag("1.0")).await.unwrap();
    assert_eq!(digest, Some(module(b"zip").digest));
    let before = server.requests().len();
    let outside = ["outside of the declared source"];
    refused(
        scoped.put_blob(&name("acme2/net"), &descriptor(b"zip"), &zip).await,
        Failure::Absent,
        &outside,
    );
    refused(
        scoped.put_manifest(&name("net"), &by_tag("1.0"), &index()).await,
        Failure::Absent,
        &outside,
    );
    refused(scoped.present(&name("net"), &by_tag("1.0")).await, Failure::Absent, &outside);
    assert_eq!(server.requests().len(), before);
    let offline = Offline::new(host);
    let words = ["offline", "without --offline"];
    refused(
        offline.put_blob(&name("a"), &descriptor(b"zip"), &zip).await,
        Failure::Offline,
        &words,
    );
    refused(
        offline.put_manifest(&name("a"), &by_tag("1"), &index()).await,
        Failure::Offline,
        &words,
    );
    refused(offline.present(&name("a"), &by_tag("1")).await, Failure::Offline, &words);
}
