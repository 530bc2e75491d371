//! Image layouts on disk as a registry: below a store `DIR`, every `DIR/HOST/REPO…` that holds an `oci-layout`.
//!
//! What lies there is no more trusted than what a registry sends. Everything is reached from one descriptor of `DIR`
//! without following any symbolic link, so that nothing outside of `DIR` can be read, and only regular files are.
//! Nothing is kept between calls: what another program writes into `index.json` is seen by the next call. Files are
//! read on the runtime's blocking threads, in pieces of at most [`PIECE`] bytes. Hostile input L26.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;
use serde::de::IgnoredAny;

use super::{BlobError, BlobSink, Failure, RawManifest, Registry, RegistryError};
use crate::digest::Digest;
use crate::name::{Host, Repo, RepoName, Selector, Tag};
use crate::oci::layout::{INDEX_FILE, INDEX_FILE_MAX, LAYOUT_FILE, LAYOUT_FILE_MAX, check_version, entries, tag_of};
use crate::oci::{Descriptor, DocumentError, MANIFEST_MAX};

/// The most bytes that one read takes from a blob.
pub const PIECE: usize = 256 << 10;
/// The most directories that [`Layout::catalog`](Registry::catalog) looks into.
pub const CATALOG_DIRECTORIES_MAX: usize = 100_000;
/// The most components of a repository's name that a catalog lists.
pub const CATALOG_DEPTH_MAX: usize = 32;
/// How often, and after which pause, a document that breaks off is read again.
const REREADS: u32 = 25;
const REREAD_PAUSE: Duration = Duration::from_millis(10);

/// The repositories of one registry in a store.
pub struct Layout {
    store: Arc<Store>,
    host: Host,
}

impl Layout {
    /// The part of the store `dir` that stands for `host`. The directory `dir/HOST` may be absent and be made later.
    ///
    /// # Errors
    /// `Io` where `dir` cannot be opened as a directory.
    pub fn open(dir: &Path, host: &Host) -> Result<Layout, RegistryError> {
        Ok(Layout { store: Arc::new(Store::open(dir)?), host: host.clone() })
    }

    /// The registries for which the store `dir` has a directory, sorted. Names that no registry can have are passed
    /// over.
    ///
    /// # Errors
    /// `Io` where `dir` cannot be read.
    pub fn hosts(dir: &Path) -> Result<Vec<Host>, RegistryError> {
        let store = Store::open(dir)?;
        let unreadable = |e: Errno| store.failed(&store.name, Failure::Io, e);
        let mut hosts = Vec::new();
        for name in subdirectories(store.root.as_fd()).map_err(unreadable)? {
            hosts.extend(name.parse::<Host>());
        }
        hosts.sort();
        Ok(hosts)
    }

    /// Runs `work` on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &Host) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let (store, host) = (self.store.clone(), self.host.clone());
        match tokio::task::spawn_blocking(move || work(&store, &host)).await {
            Ok(result) => result,
            Err(e) => Err(RegistryError::new(Failure::Io, &self.host, format!("reading the store ended early: {e}"))),
        }
    }

    fn repo(&self, name: &RepoName) -> Repo {
        Repo { host: self.host.clone(), name: name.clone() }
    }
}

#[async_trait]
impl Registry for Layout {
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, RegistryError> {
        let repo = self.repo(repo);
        self.on_disk(move |store, _| {
            let mut tags: Vec<Tag> = store.repository(&repo)?.entries()?.iter().filter_map(tag_of).collect();
            tags.sort();
            tags.dedup();
            Ok(tags)
        })
        .await
    }

    async fn catalog(&self) -> Result<Vec<RepoName>, RegistryError> {
        self.on_disk(|store, host| store.catalog(host)).await
    }

    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        let (repo, tag) = (self.repo(repo), tag.clone());
        self.on_disk(move |store, _| store.repository(&repo)?.tagged(&tag).map(|entry| Some(entry.digest))).await
    }

    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, RegistryError> {
        let (repo, selector) = (self.repo(repo), selector.clone());
        self.on_disk(move |store, _| store.repository(&repo)?.manifest(&selector)).await
    }

    async fn blob(&self, repo: &RepoName, blob: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), BlobError> {
        let (repo, wanted) = (self.repo(repo), blob.clone());
        let subject = repo.at(Selector::Digest(blob.digest));
        let mut file = self.on_disk(move |store, _| store.repository(&repo)?.blob(&wanted)).await?;
        if sink.position() > blob.size {
            sink.restart().await?;
        }
        while sink.position() < blob.size {
            let (at, want) = (sink.position(), (blob.size - sink.position()).min(PIECE as u64) as usize);
            let (open, piece) = self.on_disk(move |_, _| Ok(read_piece(file, at, want))).await?;
            file = open;
            match piece {
                Ok(piece) if !piece.is_empty() => sink.write(piece).await?,
                Ok(_) => {
                    let rule = format!("the file ends after {at} bytes; its descriptor says {}", blob.size);
                    return Err(RegistryError::new(Failure::Integrity, subject, rule).into());
                }
                Err(e) => {
                    return Err(
                        RegistryError::new(Failure::Io, subject, format!("reading the file failed: {e}")).into()
                    );
                }
            }
        }
        Ok(())
    }
}

/// At most `want` bytes at `at`; none at the file's end.
fn read_piece(file: OwnedFd, at: u64, want: usize) -> (OwnedFd, Result<Bytes, Errno>) {
    let mut piece = vec![0; want];
    let result = loop {
        match rustix::io::pread(&file, &mut piece, at) {
            Err(Errno::INTR) => {}
            result => break result,
        }
    };
    let result = result.map(|got| {
        piece.truncate(got);
        Bytes::from(piece)
    });
    (file, result)
}

/// The directory of a store, held by descriptor.
struct Store {
    root: OwnedFd,
    /// The path as the user gave it, for sentences only.
    name: String,
}

/// Opens `path` below `dir`; fails with `ELOOP` if any part of it is a symbolic link.
fn open_below(dir: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat2(dir, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// The names of the directories (not links to such) in `dir` that are UTF-8, in no order.
fn subdirectories(dir: impl AsFd) -> Result<Vec<String>, Errno> {
    let dir = dir.as_fd();
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            known => known,
        };
        if kind == FileType::Directory {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn is_layout(dir: impl AsFd) -> Result<bool, Errno> {
    match statat(dir, LAYOUT_FILE, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

impl Store {
    fn open(dir: &Path) -> Result<Store, RegistryError> {
        let name = format!("oci:{}", dir.display());
        match rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(root) if is_layout(&root) == Ok(true) => {
                Err(RegistryError::new(Failure::Io, &name, "this is one image layout and no store of them")
                    .remedy("name the directory that holds it as HOST/REPOSITORY"))
            }
            Ok(root) => Ok(Store { root, name }),
            Err(e) => Err(RegistryError::new(Failure::Io, &name, format!("the store cannot be opened: {e}"))
                .remedy("name a directory that holds HOST/REPOSITORY, each an OCI image layout")),
        }
    }

    fn failed(&self, subject: impl std::fmt::Display, failure: Failure, e: Errno) -> RegistryError {
        RegistryError::new(failure, subject, format!("reading the store {} failed: {e}", self.name))
    }

    /// What a failed open of a directory or document below the store means.
    fn not_opened(&self, repo: &Repo, what: &str, e: Errno) -> RegistryError {
        match e {
            Errno::LOOP | Errno::XDEV => RegistryError::new(
                Failure::Structure,
                repo,
                format!("{what} in the store {} is, or lies behind, a symbolic link", self.name),
            )
            .remedy("copy the layout itself to this place"),
            e => self.failed(format!("{repo} ({what})"), Failure::Io, e),
        }
    }

    /// The layout of `repo`, opened and of a version that is known.
    fn repository(&self, repo: &Repo) -> Result<Repository<'_>, RegistryError> {
        let absent = |what| {
            RegistryError::new(Failure::Absent, repo, format!("{what} in the store {}", self.name))
                .remedy("list the repository's parent to see what the store holds")
        };
        let dir = match open_below(&self.root, &format!("{}/{}", repo.host, repo.name), OFlags::DIRECTORY) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(absent("there is no such repository")),
            Err(e) => return Err(self.not_opened(repo, "the directory", e)),
        };
        let repository = Repository { store: self, repo: repo.clone(), dir };
        match is_layout(&repository.dir) {
            Ok(true) => {}
            Ok(false) => return Err(absent("the directory is no image layout (it has no oci-layout)")),
            Err(e) => return Err(self.not_opened(repo, LAYOUT_FILE, e)),
        }
        let version = repository.document(LAYOUT_FILE, LAYOUT_FILE_MAX)?;
        check_version(&version).map_err(|e| repository.refused(LAYOUT_FILE, e))?;
        Ok(repository)
    }

    /// Every layout below the host's directory. A layout may hold others, except in its `blobs`.
    fn catalog(&self, host: &Host) -> Result<Vec<RepoName>, RegistryError> {
        let failed = |e| self.failed(host, Failure::Io, e);
        let mut repos = Vec::new();
        let mut pending: Vec<Option<RepoName>> = vec![None];
        let mut seen = 0;
        while let Some(at) = pending.pop() {
            seen += 1;
            if seen > CATALOG_DIRECTORIES_MAX {
                let rule = format!("more than {CATALOG_DIRECTORIES_MAX} directories in the store {}", self.name);
                return Err(RegistryError::new(Failure::TooLarge, host, rule));
            }
            let path = at.as_ref().map_or_else(|| host.to_string(), |name| format!("{host}/{name}"));
            let dir = match open_below(&self.root, &path, OFlags::DIRECTORY) {
                Ok(dir) => dir,
                // Gone or replaced since its parent was read.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(e) => return Err(failed(e)),
            };
            let layout = match &at {
                Some(name) if is_layout(&dir).map_err(failed)? => {
                    repos.push(name.clone());
                    true
                }
                _ => false,
            };
            if at.as_ref().is_some_and(|name| name.components().count() >= CATALOG_DEPTH_MAX) {
                continue;
            }
            let children = subdirectories(&dir).map_err(failed)?;
            let children = children.iter().filter(|name| !(layout && *name == "blobs"));
            pending.extend(children.filter_map(|name| RepoName::below(at.as_ref(), name)).map(Some));
        }
        repos.sort();
        Ok(repos)
    }
}

/// One image layout, held by descriptor.
struct Repository<'a> {
    store: &'a Store,
    repo: Repo,
    dir: OwnedFd,
}

/// Why a file of a layout was not opened.
enum NotOpened {
    Missing,
    NotRegular,
    Failed(Errno),
}

impl Repository<'_> {
    /// A regular file of the layout and its length in bytes.
    fn file(&self, path: &str) -> Result<(OwnedFd, u64), NotOpened> {
        let file = match open_below(&self.dir, path, OFlags::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(NotOpened::Missing),
            Err(Errno::LOOP | Errno::XDEV | Errno::NXIO) => return Err(NotOpened::NotRegular),
            Err(e) => return Err(NotOpened::Failed(e)),
        };
        let stat = rustix::fs::fstat(&file).map_err(NotOpened::Failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(NotOpened::NotRegular);
        }
        Ok((file, stat.st_size.max(0) as u64))
    }

    /// The content of a document, at most `max` bytes and one, and its length. Some programs (skopeo) write a document
    /// anew in its place, so one that breaks off is read again for a while.
    fn text(&self, path: &str, max: u64) -> Result<(Vec<u8>, u64), NotOpened> {
        let mut rereads = 0;
        loop {
            let (file, length) = self.file(path)?;
            let bytes = read_up_to(file, max + 1).map_err(NotOpened::Failed)?;
            if rereads == REREADS || !breaks_off(&bytes) {
                let read = bytes.len() as u64;
                return Ok((bytes, if read > max { length.max(read) } else { read }));
            }
            rereads += 1;
            std::thread::sleep(REREAD_PAUSE);
        }
    }

    /// The whole content of one of the layout's own documents.
    fn document(&self, name: &str, max: u64) -> Result<Vec<u8>, RegistryError> {
        let (bytes, _) = self.text(name, max).map_err(|e| match e {
            NotOpened::Missing => self.refused(name, DocumentError::Structure("the file is missing".into())),
            NotOpened::NotRegular => self.store.not_opened(&self.repo, name, Errno::LOOP),
            NotOpened::Failed(e) => self.store.not_opened(&self.repo, name, e),
        })?;
        if bytes.len() as u64 > max {
            let rule = format!("the file has more than {max} bytes, which is the limit");
            return Err(self.refused(name, DocumentError::TooLarge(rule)));
        }
        Ok(bytes)
    }

    fn refused(&self, file: &str, e: DocumentError) -> RegistryError {
        let failure = match e {
            DocumentError::Structure(_) => Failure::Structure,
            DocumentError::TooLarge(_) => Failure::TooLarge,
            DocumentError::Unsupported(_) => Failure::Unsupported,
        };
        RegistryError::new(failure, &self.repo, format!("{file} in the store {} is refused: {e}", self.store.name))
    }

    fn entries(&self) -> Result<Vec<Descriptor>, RegistryError> {
        let bytes = self.document(INDEX_FILE, INDEX_FILE_MAX)?;
        entries(&bytes).map_err(|e| self.refused(INDEX_FILE, e))
    }

    /// The one manifest that `tag` stands for.
    fn tagged(&self, tag: &Tag) -> Result<Descriptor, RegistryError> {
        let subject = self.repo.clone().at(Selector::Tag(tag.clone()));
        let mut found = self.entries()?.into_iter().filter(|entry| tag_of(entry).as_ref() == Some(tag));
        let Some(first) = found.next() else {
            let rule = format!("{INDEX_FILE} in the store {} has no such tag", self.store.name);
            return Err(RegistryError::new(Failure::Absent, subject, rule));
        };
        match found.find(|other| other.digest != first.digest) {
            None => Ok(first),
            Some(other) => {
                let rule = format!(
                    "{INDEX_FILE} in the store {} gives this tag to two manifests, {} and {}",
                    self.store.name, first.digest, other.digest
                );
                Err(RegistryError::new(Failure::Structure, subject, rule).remedy("name the digest instead of the tag"))
            }
        }
    }

    fn manifest(&self, selector: &Selector) -> Result<RawManifest, RegistryError> {
        let subject = self.repo.at(selector.clone());
        let (digest, entry) = match selector {
            Selector::Tag(tag) => {
                let entry = self.tagged(tag)?;
                (entry.digest, Some(entry))
            }
            Selector::Digest(digest) => (*digest, None),
        };
        let refuse = |failure, rule: String| Err(RegistryError::new(failure, &subject, rule));
        let (bytes, length) = match self.text(&blob_path(&digest), MANIFEST_MAX) {
            Ok(read) => read,
            Err(NotOpened::Missing) if entry.is_none() && !self.entries()?.iter().any(|e| e.digest == digest) => {
                return refuse(Failure::Absent, format!("the store {} has no such manifest", self.store.name));
            }
            Err(e) => return Err(self.no_blob(&subject, &digest, e)),
        };
        if length > MANIFEST_MAX {
            return refuse(Failure::TooLarge, format!("the manifest has {length} bytes; the limit is {MANIFEST_MAX}"));
        }
        if let Some(entry) = entry
            && entry.size != length
        {
            let rule = format!("the manifest {digest} has {length} bytes; {INDEX_FILE} says {}", entry.size);
            return refuse(Failure::Integrity, rule);
        }
        let got = Digest::of_with(digest.algorithm(), &bytes);
        if got != digest {
            return refuse(Failure::Integrity, format!("the file named {digest} holds {got}"));
        }
        Ok(RawManifest { bytes: bytes.into(), content_type: None, claimed: Some(digest) })
    }

    fn blob(&self, blob: &Descriptor) -> Result<OwnedFd, RegistryError> {
        let subject = self.repo.at(Selector::Digest(blob.digest));
        let (file, length) =
            self.file(&blob_path(&blob.digest)).map_err(|e| self.no_blob(&subject, &blob.digest, e))?;
        if length != blob.size {
            let rule = format!("the file has {length} bytes; its descriptor says {}", blob.size);
            return Err(RegistryError::new(Failure::Integrity, subject, rule));
        }
        Ok(file)
    }

    /// What it means that the file of a blob that a document names was not opened.
    fn no_blob(&self, subject: impl std::fmt::Display, digest: &Digest, e: NotOpened) -> RegistryError {
        let store = &self.store.name;
        let rule = match e {
            NotOpened::Missing => format!("a manifest or index names {digest}, which the store {store} lacks"),
            NotOpened::NotRegular => {
                format!("the file named {digest} in the store {store} is no regular file or lies behind a link")
            }
            NotOpened::Failed(e) => return self.store.failed(subject, Failure::Io, e),
        };
        RegistryError::new(Failure::Integrity, subject, rule).remedy("copy the artifact into the store again")
    }
}

/// Where a layout keeps the blob `digest`.
fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Whether a JSON document ends before it is complete.
fn breaks_off(document: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(document).is_err_and(|e| e.is_eof())
}

/// The first `max` bytes of a file, or all of it.
fn read_up_to(file: OwnedFd, max: u64) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    match File::from(file).take(max).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(e) => Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests;
