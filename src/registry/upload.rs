//! Writing into repositories: what remote registries and image layouts on disk have in common.
//!
//! INVARIANT: a call that returned `Ok` left exactly the bytes of that digest behind. Each call is
//! a no-op the second time, so that a commit can be taken up where it stopped.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;

use super::{RawManifest, Registry};
use crate::digest::Digest;
use crate::failure::Refusal;
use crate::name::{RepoName, Selector, Tag};
use crate::oci::{Descriptor, Manifest};

/// Where the bytes of a blob come from. The same range may be asked for again, when an upload
/// begins anew.
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// The bytes at `offset`, at most `len` of them; none at the end alone.
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;
}

#[async_trait]
impl BlobSource for Bytes {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(self.slice(start..start.saturating_add(len).min(self.len())))
    }
}

/// What an upload did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uploaded {
    /// The bytes were sent.
    Sent,
    /// They were there already.
    Present,
}

/// A host's repositories that can be written to.
///
/// Contract of every back end, beside that of [`Registry`]: what can be repeated is repeated
/// inside, within the deadline without progress. `Denied` names the credential's source. Nothing is
/// ever overwritten except what a tag stands for, and nothing removed but by [`Upload::remove`].
#[async_trait]
pub trait Upload: Registry {
    /// Makes sure that the repository holds a blob, by sending it where it is not there.
    ///
    /// `Integrity` where the source's bytes do not have the descriptor's digest and size (then the
    /// blob is not there afterwards), or the registry says that it kept others.
    async fn put_blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<Uploaded, Refusal>;

    /// Puts a manifest under its digest, or under a tag, which stands for it afterwards. What it
    /// names has to be there.
    async fn put_manifest(
        &self,
        repo: &RepoName,
        selector: &Selector,
        manifest: &Manifest,
    ) -> Result<(), Refusal>;

    /// The digest that a tag stands for at this moment, past every cache and mirror. `None` if
    /// there is no such tag.
    async fn present(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<Option<Digest>, Refusal>;

    /// Whether a tag that stands for a manifest says that all that the manifest names is there. A
    /// registry refuses a manifest whose parts it lacks; a store may carry an index without some,
    /// or have lost a file.
    fn is_whole(&self) -> bool {
        true
    }

    /// A manifest's bytes as they are at this moment, past every cache and mirror: what was
    /// written, read back. As [`Registry::manifest`] otherwise.
    async fn read_back(
        &self,
        repo: &RepoName,
        selector: &Selector,
    ) -> Result<RawManifest, Refusal> {
        self.manifest(repo, selector).await
    }

    /// The tags behind `after` in the order of their bytes, or all; as they are at this moment,
    /// claims included. There may be more than were asked for. None where there is no such
    /// repository.
    async fn tags_now(&self, repo: &RepoName, after: Option<&str>) -> Result<Vec<Tag>, Refusal>;

    /// Whether a manifest that names a subject is in the list of its referrers by being there. Where
    /// it is not, who puts it enters it (see [`super::referrers`]).
    async fn lists_referrers(&self, _repo: &RepoName, _subject: &Digest) -> Result<bool, Refusal> {
        Ok(true)
    }

    /// Removes a manifest with every tag that stands for it. To be called for what its writer alone
    /// can have named.
    async fn remove(&self, repo: &RepoName, digest: &Digest) -> Result<Removed, Refusal>;

    /// Keeps all other writers of a repository away while it is held. `None` where nothing can: who
    /// writes there takes turns by claims (see [`super::turn`]).
    async fn hold(&self, _repo: &RepoName) -> Result<Option<Hold>, Refusal> {
        Ok(None)
    }
}

/// What became of a manifest that was to be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removed {
    /// It is not there any more.
    Yes,
    /// It was not there, or is not any more; a tag that stood for it may still be listed.
    WasAbsent,
    /// The registry removes nothing for this user.
    Refused,
}

/// A lock that other processes see. It ends when it is dropped, or with the process.
pub struct Hold(#[expect(dead_code, reason = "held, never read")] pub(super) std::os::fd::OwnedFd);
