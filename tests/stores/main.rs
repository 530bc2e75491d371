//! Stores of image layouts that the program writes: by whom they can be read, and what a dead
//! writer leaves.
//!
//! What is not installed is skipped with a printed reason.

mod archives;
mod bundles;
mod deaths;
mod readers;

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use bytes::Bytes;
use support::pack::Artifact;
use tofufs::digest::Digest;
use tofufs::failure::Refusal;
use tofufs::name::{RepoName, Selector};
use tofufs::oci::{Descriptor, Manifest};
use tofufs::registry::Upload;
use tofufs::registry::layout::RegistryLayout;

const HOST: &str = "reg.example";

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/octet-stream".into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        artifact_type: None,
        platform: None,
        annotations: Default::default(),
    }
}

fn layout(store: &Path) -> RegistryLayout {
    RegistryLayout::open(store, &HOST.parse().expect("a host")).expect("a store")
}

/// Stores an artifact as a commit does: blobs, manifests by digest, the tag last.
async fn put(
    layout: &RegistryLayout,
    repo: &str,
    tag: &str,
    artifact: &Artifact,
) -> Result<(), Refusal> {
    let repo: RepoName = repo.parse().expect("a repository");
    for bytes in &artifact.blobs {
        layout.put_blob(&repo, &blob(bytes), &Bytes::copy_from_slice(bytes)).await?;
    }
    for document in &artifact.manifests {
        let manifest = Manifest::parse(document.bytes.clone().into(), document.digest(), None)
            .expect("a manifest");
        layout.put_manifest(&repo, &Selector::Digest(manifest.digest), &manifest).await?;
        if document.digest() == artifact.digest() {
            layout
                .put_manifest(&repo, &Selector::Tag(tag.parse().expect("a tag")), &manifest)
                .await?;
        }
    }
    Ok(())
}

/// Runs async work where all waiting for disks happens on one thread.
fn run<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.max_blocking_threads(1).enable_time().build().expect("a runtime").block_on(work)
}

#[test]
fn an_ordinary_user_can_do_the_same() {
    support::world::again_as_ordinary(&["bundles::"]);
}
