//! A store in a directory, held by descriptor: `DIR/HOST/REPO…`, each an image layout.
//!
//! INVARIANT: every path is opened below the descriptor of `DIR` without following any symbolic
//! link.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, statat};
use rustix::io::Errno;

use super::medium::{CARRIED, Medium, NotOpened, Unreadable};
use super::{CATALOG_DEPTH_MAX, CATALOG_DIRECTORIES_MAX};
use crate::digest::Digest;
use crate::disk::{open_below, piece_at};
use crate::failure::{Failure, Refusal};
use crate::name::{Host, Repo, RepoName};
use crate::oci::layout::{BLOBS, LAYOUT_FILE, LayoutPart};

/// The directory in a layout that is no part of the image layout, which other tools pass over:
/// locks, and files that are being written.
pub(super) const OWN: &str = ".tofufs";
/// The lock of who changes `index.json`, for a moment.
pub(super) const INDEX_LOCK: &str = "lock";

/// See the module.
pub struct LayoutDirectory {
    pub(super) root: OwnedFd,
    /// The one repository that it is, where it is no store but one layout.
    pub(super) only: Option<Repo>,
    name: String,
}

impl LayoutDirectory {
    /// Opens the store `dir`.
    ///
    /// # Errors
    /// `Io` where `dir` cannot be opened as a directory, or is one image layout itself.
    pub fn open(dir: &Path) -> Result<LayoutDirectory, Refusal> {
        let name = format!("oci:{}", dir.display());
        match rustix::fs::open(
            dir,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(root) if is_layout(&root) == Ok(true) => Err(Refusal::new(
                Failure::Io,
                &name,
                "this is one image layout and no store of them",
            )
            .remedy("name the directory that holds it as HOST/REPOSITORY")),
            Ok(root) => Ok(LayoutDirectory { root, only: None, name }),
            Err(e) => {
                Err(Refusal::new(Failure::Io, &name, format!("the store cannot be opened: {e}"))
                    .remedy(
                        "name a directory that holds HOST/REPOSITORY, each an OCI image layout",
                    ))
            }
        }
    }

    /// Opens `dir` as one image layout, which may be made later, that stands for `repo`.
    ///
    /// # Errors
    /// `Io` where `dir` cannot be opened as a directory.
    pub fn layout(dir: &Path, repo: Repo) -> Result<LayoutDirectory, Refusal> {
        let name = format!("oci:{}", dir.display());
        match rustix::fs::open(
            dir,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(root) => Ok(LayoutDirectory { root, only: Some(repo), name }),
            Err(e) => Err(Refusal::new(
                Failure::Io,
                &name,
                format!("the image layout cannot be opened: {e}"),
            )),
        }
    }

    fn unreadable(&self, e: Errno) -> Unreadable {
        Unreadable {
            failure: Failure::Io,
            rule: format!("reading the store {} failed: {e}", self.name),
            remedy: None,
        }
    }
}

impl Medium for LayoutDirectory {
    type Place = OwnedFd;
    type File = OwnedFd;

    fn name(&self) -> &str {
        &self.name
    }

    fn hosts(&self) -> Result<Vec<Host>, Refusal> {
        if let Some(only) = &self.only {
            return Ok(vec![only.host.clone()]);
        }
        let names =
            subdirectories(self.root.as_fd()).map_err(|e| self.unreadable(e).about(&self.name))?;
        let mut hosts: Vec<Host> = names.iter().filter_map(|name| name.parse().ok()).collect();
        hosts.sort();
        Ok(hosts)
    }

    fn holds(&self, host: &Host) -> bool {
        if let Some(only) = &self.only {
            return only.host == *host;
        }
        statat(&self.root, host.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn catalog(&self, host: &Host) -> Result<Vec<RepoName>, Refusal> {
        if let Some(only) = &self.only {
            return Ok(if only.host == *host { vec![only.name.clone()] } else { Vec::new() });
        }
        let failed = |e| self.unreadable(e).about(host);
        let mut repos = Vec::new();
        let mut pending: Vec<Option<RepoName>> = vec![None];
        let mut seen = 0;
        while let Some(at) = pending.pop() {
            seen += 1;
            if seen > CATALOG_DIRECTORIES_MAX {
                let rule = format!(
                    "more than {CATALOG_DIRECTORIES_MAX} directories in the store {}",
                    self.name
                );
                return Err(Refusal::new(Failure::TooLarge, host, rule));
            }
            let path =
                at.as_ref().map_or_else(|| host.to_string(), |name| format!("{host}/{name}"));
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
            let children = children.iter().filter(|name| !(layout && *name == BLOBS));
            pending
                .extend(children.filter_map(|name| RepoName::below(at.as_ref(), name)).map(Some));
        }
        repos.sort();
        Ok(repos)
    }

    fn place(&self, repo: &Repo) -> Result<OwnedFd, NotOpened> {
        let path = match &self.only {
            Some(only) if only == repo => ".".to_owned(),
            Some(_) => return Err(NotOpened::Missing),
            None => format!("{}/{}", repo.host, repo.name),
        };
        open_below(&self.root, &path, OFlags::DIRECTORY).map_err(|e| self.not_opened(e))
    }

    fn open(&self, place: &OwnedFd, part: LayoutPart) -> Result<(OwnedFd, u64), NotOpened> {
        self.regular(place, &part.to_string())
    }

    fn open_carried(&self) -> Result<(OwnedFd, u64), NotOpened> {
        if self.only.is_some() {
            return Err(NotOpened::Missing);
        }
        self.regular(&self.root, CARRIED)
    }

    fn list(&self, place: &OwnedFd) -> Result<Vec<(Digest, u64)>, Unreadable> {
        self.list_blobs(place).map_err(|e| self.unreadable(e))
    }

    fn read(&self, file: &OwnedFd, at: u64, want: usize) -> Result<Bytes, Unreadable> {
        piece_at(file, want, at).map(Bytes::from).map_err(|e| self.unreadable(e))
    }
}

impl LayoutDirectory {
    /// A regular file below `dir`, and its length.
    fn regular(&self, dir: impl AsFd, path: &str) -> Result<(OwnedFd, u64), NotOpened> {
        let file = open_below(dir, path, OFlags::empty()).map_err(|e| self.not_opened(e))?;
        let stat = rustix::fs::fstat(&file).map_err(|e| self.not_opened(e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(NotOpened::NotRegular);
        }
        Ok((file, u64::try_from(stat.st_size).unwrap_or(0)))
    }

    fn list_blobs(&self, place: &OwnedFd) -> Result<Vec<(Digest, u64)>, Errno> {
        let mut found = Vec::new();
        let blobs = match open_below(place, BLOBS, OFlags::DIRECTORY) {
            Err(Errno::NOENT) => return Ok(found),
            blobs => blobs?,
        };
        for algorithm in subdirectories(&blobs)? {
            let dir = open_below(&blobs, &algorithm, OFlags::DIRECTORY)?;
            for entry in Dir::read_from(&dir)? {
                let entry = entry?;
                let digest = entry
                    .file_name()
                    .to_str()
                    .ok()
                    .and_then(|hex| format!("{algorithm}:{hex}").parse().ok());
                let Some(digest) = digest else { continue };
                let stat = statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                found.push((digest, u64::try_from(stat.st_size).unwrap_or(0)));
            }
        }
        found.sort();
        Ok(found)
    }

    fn not_opened(&self, e: Errno) -> NotOpened {
        match e {
            Errno::NOENT | Errno::NOTDIR => NotOpened::Missing,
            Errno::LOOP | Errno::XDEV | Errno::NXIO => NotOpened::NotRegular,
            e => NotOpened::Failed(self.unreadable(e)),
        }
    }
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
            FileType::Unknown => FileType::from_raw_mode(
                statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
            ),
            known => known,
        };
        if kind == FileType::Directory {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Whether `dir` holds an `oci-layout`, whatever that is.
pub(super) fn is_layout(dir: impl AsFd) -> Result<bool, Errno> {
    match statat(dir, LAYOUT_FILE, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}
