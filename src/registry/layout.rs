//! Stores of image layouts as registries: every `HOST/REPO…` that holds an `oci-layout`, in a
//! directory or in one tar.
//!
//! What lies there is no more trusted than what a registry sends. Everything is reached from one
//! descriptor without following any symbolic link, so that nothing outside of the store can be read
//! or written, and only regular files are. Nothing is kept between calls: what another program
//! writes into `index.json` is seen by the next call. Files are read and written on the runtime's
//! blocking threads, in pieces of at most [`PIECE`] bytes. Hostile input L26.

mod archive;
mod carried;
mod directory;
mod headers;
mod medium;
mod pack;
mod repository;
mod write;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use archive::{LayoutArchive, MEMBERS_MAX};
pub use directory::LayoutDirectory;
pub use pack::Packer;

use super::{BlobError, BlobSink, BlobSource, HostStore, RawManifest, Referrers, Registry};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::mapping::Carried;
use crate::name::{Host, Repo, RepoName, Selector, Tag};
use crate::oci::Descriptor;
use crate::oci::layout::{LayoutPart, tag_of};
use medium::{Medium, NotOpened};
use repository::Repository;

/// The most bytes that one read takes from a blob.
pub const PIECE: usize = 256 << 10;
/// The most directories that the catalog of a store looks into.
pub const CATALOG_DIRECTORIES_MAX: usize = 100_000;
/// The most components of a repository's name that a catalog lists.
pub const CATALOG_DEPTH_MAX: usize = 32;
/// How long a writer waits for other writers of the same layout, if nothing else was asked for.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(60);

/// The repositories of one registry in a store.
pub struct Stored<M> {
    medium: Arc<M>,
    host: Host,
    deadline: Duration,
}

/// The repositories of one registry in a store on disk.
pub type RegistryLayout = Stored<LayoutDirectory>;

impl RegistryLayout {
    /// The part of the store `dir` that stands for `host`. The directory `dir/HOST` may be absent
    /// and be made later.
    ///
    /// # Errors
    /// `Io` where `dir` cannot be opened as a directory.
    pub fn open(dir: &Path, host: &Host) -> Result<RegistryLayout, Refusal> {
        Ok(RegistryLayout::of(Arc::new(LayoutDirectory::open(dir)?), host))
    }

    /// How long a write waits while other processes write into the same layout.
    pub fn with_deadline(self, deadline: Duration) -> RegistryLayout {
        RegistryLayout { deadline, ..self }
    }
}

impl<M: Medium> Stored<M> {
    /// The part of an open store that stands for `host`.
    pub fn of(medium: Arc<M>, host: &Host) -> Stored<M> {
        Stored { medium, host: host.clone(), deadline: LOCK_DEADLINE }
    }

    /// Runs `work` on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&M) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let medium = self.medium.clone();
        match tokio::task::spawn_blocking(move || work(&medium)).await {
            Ok(result) => result,
            Err(e) => Err(Refusal::new(
                Failure::Io,
                &self.host,
                format!("work on the store ended early: {e}"),
            )),
        }
    }

    fn repo(&self, name: &RepoName) -> Repo {
        Repo { host: self.host.clone(), name: name.clone() }
    }
}

/// A blob of a store, from which another place is filled.
pub struct StoredBlob<M: Medium> {
    medium: Arc<M>,
    file: Arc<M::File>,
}

impl<M: Medium> Stored<M> {
    /// A blob of a repository, opened.
    ///
    /// # Errors
    /// `Integrity` where it is missing or of another size.
    pub async fn source(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
    ) -> Result<StoredBlob<M>, Refusal> {
        let (repo, wanted) = (self.repo(repo), blob.clone());
        let file =
            self.on_disk(move |medium| Repository::open(medium, &repo)?.blob(&wanted)).await?;
        Ok(StoredBlob { medium: self.medium.clone(), file: Arc::new(file) })
    }

    /// The content of a repository's `index.json`.
    ///
    /// # Errors
    /// `Absent` where there is no such repository.
    pub async fn index(&self, repo: &RepoName) -> Result<Option<Vec<u8>>, Refusal> {
        let repo = self.repo(repo);
        self.on_disk(move |medium| Repository::open(medium, &repo)?.document(LayoutPart::Index))
            .await
    }
}

impl<M: Medium> HostStore for M {
    fn hosts(&self) -> Result<Vec<Host>, Refusal> {
        Medium::hosts(self)
    }

    fn holds(&self, host: &Host) -> bool {
        Medium::holds(self, host)
    }

    fn entries(&self, repo: &Repo) -> Result<Vec<Descriptor>, Refusal> {
        Repository::open(self, repo)?.entries()
    }

    fn blobs(&self, repo: &Repo) -> Result<Vec<(Digest, u64)>, Refusal> {
        Repository::open(self, repo)?.list()
    }

    fn carried(&self) -> Result<Carried, Refusal> {
        carried::read(self)
    }

    fn registry(self: Arc<Self>, host: &Host) -> Arc<dyn Registry> {
        Arc::new(Stored::of(self, host))
    }
}

#[async_trait]
impl<M: Medium> BlobSource for StoredBlob<M> {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let (medium, file) = (self.medium.clone(), self.file.clone());
        let read = move || {
            medium.read(&file, offset, len.min(PIECE)).map_err(|e| io::Error::other(e.rule))
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

#[async_trait]
impl<M: Medium> Registry for Stored<M> {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal> {
        let repo = self.repo(repo);
        self.on_disk(move |medium| {
            let mut tags: Vec<Tag> =
                Repository::open(medium, &repo)?.entries()?.iter().filter_map(tag_of).collect();
            tags.retain(|tag| !tag.is_hidden());
            tags.sort();
            tags.dedup();
            Ok(tags)
        })
        .await
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal> {
        let host = self.host.clone();
        self.on_disk(move |medium| medium.catalog(&host)).await
    }

    async fn held(&self) -> Result<Vec<RepoName>, Refusal> {
        self.catalog().await
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal> {
        let (repo, tag) = (self.repo(repo), tag.clone());
        self.on_disk(move |medium| {
            Repository::open(medium, &repo)?.tagged(&tag).map(|entry| Some(entry.digest))
        })
        .await
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal> {
        let (repo, selector) = (self.repo(repo), selector.clone());
        self.on_disk(move |medium| Repository::open(medium, &repo)?.manifest(&selector)).await
    }

    async fn referrers(&self, repo: &RepoName, subject: &Digest) -> Referrers {
        let (repo, subject) = (self.repo(repo), *subject);
        let found =
            self.on_disk(move |medium| Repository::open(medium, &repo)?.referrers(&subject));
        Referrers::of(found.await)
    }

    async fn lacking(&self, repo: &RepoName, manifests: &[Digest]) -> Vec<Digest> {
        let (repo, all) = (self.repo(repo), manifests.to_vec());
        let lacking = self.on_disk(move |medium| {
            let is_missing = |digest: &Digest| match medium.place(&repo) {
                Ok(place) => matches!(
                    medium.open(&place, LayoutPart::Blob(*digest)),
                    Err(NotOpened::Missing)
                ),
                Err(e) => matches!(e, NotOpened::Missing),
            };
            Ok(all.into_iter().filter(is_missing).collect())
        });
        lacking.await.unwrap_or_default()
    }

    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let (repo, wanted) = (self.repo(repo), blob.clone());
        let subject = repo.at(Selector::Digest(blob.digest));
        let mut file =
            self.on_disk(move |medium| Repository::open(medium, &repo)?.blob(&wanted)).await?;
        if sink.position() > blob.size {
            sink.restart().await?;
        }
        while sink.position() < blob.size {
            let (at, want) =
                (sink.position(), (blob.size - sink.position()).min(PIECE as u64) as usize);
            let read = self.on_disk(move |medium| {
                let piece = medium.read(&file, at, want);
                Ok((file, piece))
            });
            let (open, piece) = read.await?;
            file = open;
            match piece {
                Ok(piece) if !piece.is_empty() => sink.write(piece).await?,
                Ok(_) => {
                    let rule = format!(
                        "the file ends after {at} bytes; its descriptor says {}",
                        blob.size
                    );
                    return Err(Refusal::new(Failure::Integrity, subject, rule).into());
                }
                Err(e) => return Err(e.about(subject).into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
