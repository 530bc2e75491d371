//! What is pushed to a real registry (Debian's docker-registry) is read back by our own read path.

use std::sync::atomic::Ordering;

use super::support::docker_registry::{Access, DockerRegistry, PASSWORD, USER};
use super::support::pack::{self, Artifact};
use super::*;
use tofufs::failure::Failure;
use tofufs::oci::Manifest;
use tofufs::registry::{Upload, Uploaded};

fn client(registry: &DockerRegistry) -> (Remote, Arc<Transport>) {
    let ca_files = registry.ca_file().into_iter().collect();
    let transport =
        Transport::new(TransportOptions { ca_files, ..TransportOptions::default() }).unwrap();
    let password = Secret::new(PASSWORD.to_owned());
    let options = RemoteOptions {
        host: registry.host().parse().unwrap(),
        plain_http: registry.ca_file().is_none(),
        token_realm: None,
        credentials: credentials(Credential::Basic { username: USER.to_owned(), password }),
    };
    (Remote::new(transport.clone(), options).unwrap(), transport)
}

fn documents(artifact: &Artifact) -> Vec<Manifest> {
    let parse =
        |d: &pack::Document| Manifest::parse(d.bytes.clone().into(), d.digest(), None).unwrap();
    artifact.manifests.iter().map(parse).collect()
}

/// Blobs, manifests by digest, the tag last; how many blobs were sent.
async fn push(remote: &Remote, repo: &RepoName, tag: &str, artifact: &Artifact) -> usize {
    let mut sent = 0;
    for blob in &artifact.blobs {
        let put =
            remote.put_blob(repo, &descriptor(blob), &Bytes::copy_from_slice(blob)).await.unwrap();
        sent += usize::from(put == Uploaded::Sent);
    }
    for manifest in documents(artifact) {
        let selector = Selector::Digest(manifest.digest);
        if remote.present(repo, &selector).await.unwrap().is_none() {
            remote.put_manifest(repo, &selector, &manifest).await.unwrap();
        }
        assert_eq!(remote.read_back(repo, &selector).await.unwrap().bytes, manifest.raw);
    }
    let root = documents(artifact).pop().unwrap();
    if remote.present(repo, &by_tag(tag)).await.unwrap() != Some(root.digest) {
        remote.put_manifest(repo, &by_tag(tag), &root).await.unwrap();
    }
    assert_eq!(remote.present(repo, &by_tag(tag)).await.unwrap(), Some(root.digest));
    sent
}

async fn check(access: Access, tls: bool) {
    let Some(registry) = DockerRegistry::start(access, tls) else { return };
    let large = bytes(5_000_000);
    let module = pack::module_of(pack::zip(&[("main.tf", b"# 1\n"), ("large.bin", &large)]));
    let provider = pack::provider("hello", "0.1.0", &["linux_amd64", "darwin_arm64"]);
    for (repo, artifact) in [("acme/net", &module), ("acme/providers/hello", &provider)] {
        let repo = name(repo);
        let (remote, transport) = client(&registry);
        assert_eq!(push(&remote, &repo, "0.1.0", artifact).await, artifact.blobs.len());
        if let Some(server) = registry.token_server() {
            assert_eq!(
                server.scopes().last(),
                Some(&format!("repository:{repo}:pull,push")),
                "one login for all"
            );
        }
        let before = transport.requests().total.load(Ordering::Relaxed);
        assert_eq!(push(&remote, &repo, "0.1.0", artifact).await, 0);
        // one look at each blob, a look and a reading of each manifest, two looks at the tag
        let asked = artifact.blobs.len() + 2 * artifact.manifests.len() + 2;
        assert_eq!(transport.requests().total.load(Ordering::Relaxed) - before, asked as u64);

        let (reader, _) = client(&registry);
        assert_eq!(reader.tags(&repo).await.unwrap(), [tag("0.1.0")]);
        assert_eq!(reader.resolve(&repo, &tag("0.1.0")).await.unwrap(), Some(artifact.digest()));
        for manifest in documents(artifact) {
            let raw = reader.manifest(&repo, &Selector::Digest(manifest.digest)).await.unwrap();
            assert_eq!(raw.bytes, manifest.raw);
        }
        for blob in &artifact.blobs {
            let mut sink = MemorySink::default();
            reader.blob(&repo, &descriptor(blob), &mut sink).await.unwrap();
            assert!(sink.bytes == *blob);
        }
    }
    if let Some(server) = registry.token_server() {
        assert_eq!(server.issued(), 4, "one token to write and one to read for each repository");
    }
}

#[tokio::test]
async fn what_is_pushed_is_read_back() {
    check(Access::Anybody, false).await;
}

#[tokio::test]
async fn what_is_pushed_with_a_password_is_read_back() {
    check(Access::Htpasswd, false).await;
}

#[tokio::test]
async fn what_is_pushed_with_a_token_over_tls_is_read_back() {
    check(Access::Token, true).await;
}

#[tokio::test]
async fn a_registry_that_does_not_know_us_takes_nothing() {
    let Some(registry) = DockerRegistry::start(Access::Htpasswd, false) else { return };
    let host = registry.host().parse().unwrap();
    let options = RemoteOptions {
        host,
        plain_http: true,
        token_realm: None,
        credentials: Arc::<Fixed>::default(),
    };
    let remote = Remote::new(transport_with(Duration::from_secs(5)), options).unwrap();
    let put =
        remote.put_blob(&name("acme/net"), &descriptor(b"x"), &Bytes::from_static(b"x")).await;
    refused(put, Failure::Denied, &["no credential for 127.0.0.1"]);
    let (remote, _) = client(&registry);
    let manifest = documents(&pack::module(&[("main.tf", b"# 1\n")])).pop().unwrap();
    let put = remote.put_manifest(&name("acme/net"), &by_tag("1.0.0"), &manifest).await;
    refused(put, Failure::Integrity, &["names content that the repository lacks"]);
    assert_eq!(remote.present(&name("acme/net"), &by_tag("1.0.0")).await.unwrap(), None);
}
