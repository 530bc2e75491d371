//! The `Registry` trait of the remote back end against a registry that lies: one law per test, with
//! the numbers of the hostile inputs that it covers.

mod auth;
mod blobs;
mod doctor;
mod documents;
mod laws;
mod lists;
mod manifests;
mod mirrors;
mod outages;
mod push;
mod pushed;
mod redirects;
mod referrers;
mod tls;
mod turns;

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tofufs::digest::Digest;
use tofufs::failure::{Failure, Refusal};
use tofufs::name::{Host, RepoName, Selector, Tag};
use tofufs::oci::Descriptor;
use tofufs::registry::auth::CredentialSource;
use tofufs::registry::credentials::{Credential, CredentialError, FoundCredential, Secret};
use tofufs::registry::remote::{Remote, RemoteOptions};
use tofufs::registry::transport::{Transport, TransportOptions};
use tofufs::registry::{BlobError, Registry, SinkError};

use support::hostile::{self, Hostile};
use support::memory::MemorySink;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A text that must never show up where secrets do not belong.
const CANARY: &str = "canary-5f2b";

/// Gives one credential, and another one when asked again.
#[derive(Default)]
struct Fixed {
    first: Option<Credential>,
    again: Option<Credential>,
    asked: Mutex<Vec<bool>>,
}

#[async_trait]
impl CredentialSource for Fixed {
    async fn find(
        &self,
        _: &Host,
        _: Option<&RepoName>,
        again: bool,
    ) -> Result<Option<FoundCredential>, CredentialError> {
        self.asked.lock().unwrap().push(again);
        let credential =
            if again { self.again.clone().or(self.first.clone()) } else { self.first.clone() };
        Ok(credential
            .map(|credential| FoundCredential { credential, source: "the test".to_owned() }))
    }
}

fn user(password: &str) -> Credential {
    Credential::Basic { username: "user".to_owned(), password: Secret::new(password.to_owned()) }
}

fn credentials(credential: Credential) -> Arc<Fixed> {
    Arc::new(Fixed { first: Some(credential), ..Fixed::default() })
}

fn transport_with(deadline: Duration) -> Arc<Transport> {
    Transport::new(TransportOptions { deadline, ..TransportOptions::default() }).unwrap()
}

fn remote_with(server: &Hostile, transport: Arc<Transport>, credentials: Arc<Fixed>) -> Remote {
    remote_to(&server.host(), transport, credentials)
}

fn remote_to(host: &str, transport: Arc<Transport>, credentials: Arc<Fixed>) -> Remote {
    let host = host.parse().unwrap();
    Remote::new(transport, RemoteOptions { host, plain_http: true, token_realm: None, credentials })
        .unwrap()
}

/// A client that knows no credential and waits five seconds.
fn remote(server: &Hostile) -> Remote {
    remote_at(&server.host())
}

fn remote_at(host: &str) -> Remote {
    remote_to(host, transport_with(Duration::from_secs(5)), Arc::default())
}

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn by_tag(text: &str) -> Selector {
    Selector::Tag(tag(text))
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    sized(Digest::of(bytes), bytes.len() as u64)
}

fn sized(digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: "archive/zip".to_owned(),
        digest,
        size,
        artifact_type: None,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

/// Bytes that differ at every position's neighbourhood, so that a wrong splice shows.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(length)
        .collect()
}

async fn fetch(remote: &Remote, blob: &Descriptor) -> (MemorySink, Result<(), BlobError>) {
    let mut sink = MemorySink::default();
    let end = remote.blob(&name("acme/net"), blob, &mut sink).await;
    (sink, end)
}

/// The error's class must be this, its sentence must name what was asked for and hold these words,
/// and no secret.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>, failure: Failure, words: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.failure, failure, "{text}");
    assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
    for word in words {
        assert!(text.contains(word), "{text:?} lacks {word:?}");
    }
}

#[track_caller]
fn blob_refused(result: Result<(), BlobError>, failure: Failure, words: &[&str]) {
    match result {
        Err(BlobError::Registry(error)) => {
            assert!(error.subject.to_string().contains("/acme/net@sha256:"), "{error}");
            refused(Err::<(), _>(error), failure, words);
        }
        other => panic!("{other:?}"),
    }
}
