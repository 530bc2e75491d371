//! The cache directory: made, checked, and held open.
//!
//! Everything lies below a directory that carries the version of the layout, so that programs of
//! different versions share a cache directory without reading each other's files.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RenameFlags, fdatasync, fstat, renameat_with};
use rustix::io::Errno;

use super::disk::{CacheDirectory, is_sound, random_name, read_sound};
use super::error::{refused, system};
use super::seal::Seals;
use super::{Key, SIDECAR};
use crate::disk::write_all_at;
use crate::failure::{Failure, Refusal};

const VERSION: &str = "v1";

/// Where a cache in `dir` has its content.
pub(super) fn version_dir(dir: &Path) -> PathBuf {
    dir.join(VERSION)
}
const KEY: &str = "key";
const KEY_LEN: usize = 32;
/// A file of every cache, which says to backup programs what the directory is.
pub const TAG: &str = "CACHEDIR.TAG";
/// The signature is what <https://bford.info/cachedir/> fixes.
const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory is a cache of tofufs. It may be deleted at any time.\n";

/// The open directories of a cache, and its key.
#[derive(Debug)]
pub(super) struct CacheLayout {
    blobs: CacheDirectory,
    members: CacheDirectory,
    pub(super) edges: CacheDirectory,
    pub(super) tmp: CacheDirectory,
    pub(super) seals: Seals,
}

impl CacheLayout {
    /// Opens the cache at `path`, made if it is missing. Refuses a directory that others could
    /// write in (L04).
    pub(super) fn open(path: &Path) -> Result<CacheLayout, Refusal> {
        let system = |purpose: &str, errno| system(path.display(), purpose, errno);
        let top = open_top(path)?;
        check_owned(&top, path, "", Mode::WGRP | Mode::WOTH)?;
        let version =
            top.child_or_make(VERSION).map_err(|e| system("make the cache's directories", e))?;
        check_owned(&version, path, VERSION, Mode::RWXG | Mode::RWXO)?;
        let part = |name: &str| {
            let dir = version
                .child_or_make(name)
                .map_err(|e| system("make the cache's directories", e))?;
            check_owned(&dir, path, &format!("{VERSION}/{name}"), Mode::RWXG | Mode::RWXO)?;
            Ok(dir)
        };
        let (blobs, members, edges, tmp) =
            (part("blobs")?, part("members")?, part("edges")?, part("tmp")?);
        if top.stat(TAG).is_err()
            && let Err(errno) = write_tag(&top)
        {
            tracing::debug!(dir = %path.display(), %errno, "cannot write {TAG}");
        }
        let key = key(&version, &tmp).map_err(|e| system("read or make the cache's key", e))?;
        Ok(CacheLayout { blobs, members, edges, tmp, seals: Seals::new(&key) })
    }

    /// Whether somebody removed a directory that is held open here.
    pub(super) fn is_removed(&self) -> bool {
        [&self.blobs, &self.members, &self.edges, &self.tmp]
            .into_iter()
            .any(CacheDirectory::is_removed)
    }

    fn kind(&self, key: &Key) -> &CacheDirectory {
        match key {
            Key::Blob(_) => &self.blobs,
            Key::Member { .. } => &self.members,
        }
    }

    /// The directory in which the object `key` lies.
    pub(super) fn shard(&self, key: &Key) -> Result<CacheDirectory, Errno> {
        self.kind(key).child(&key.shard())
    }

    /// The directory in which the object `key` is to lie; what else has that name is set aside.
    pub(super) fn shard_or_make(&self, key: &Key) -> Result<CacheDirectory, Errno> {
        let (kind, name) = (self.kind(key), key.shard());
        match kind.child_or_make(&name) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                kind.clear(&name, &self.tmp)?;
                kind.child_or_make(&name)
            }
            other => other,
        }
    }

    /// All directories that hold objects, with the function that reads a key from a file's name
    /// there.
    pub(super) fn shards(&self) -> impl Iterator<Item = (CacheDirectory, fn(&str) -> Option<Key>)> {
        let blobs = self.blobs.names().into_iter().filter_map(|name| self.blobs.child(&name).ok());
        let members =
            self.members.names().into_iter().filter_map(|name| self.members.child(&name).ok());
        let blob: fn(&str) -> Option<Key> = Key::blob_from;
        let member: fn(&str) -> Option<Key> = Key::member_from;
        blobs.map(move |dir| (dir, blob)).chain(members.map(move |dir| (dir, member)))
    }

    /// Removes the object's files, data first: a sidecar alone is nothing, while data alone would
    /// cost a rehash.
    pub(super) fn remove(&self, key: &Key) -> Result<(), Errno> {
        let dir = match self.shard(key) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) if is_misplaced(errno) => {
                return self.kind(key).clear(&key.shard(), &self.tmp);
            }
            Err(errno) => return Err(errno),
        };
        let name = key.file_name();
        dir.clear(&name, &self.tmp)?;
        dir.clear(&format!("{name}{SIDECAR}"), &self.tmp)
    }

    /// Writes a file under `name` of `dir`, atomically and without waiting for the disk.
    pub(super) fn write(
        &self,
        dir: &CacheDirectory,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        self.replace(dir, name, bytes, |_| Ok(()))
    }

    /// As [`Layout::write`]; what is written is on the disk when it returns.
    pub(super) fn write_durably(
        &self,
        dir: &CacheDirectory,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        self.replace(dir, name, bytes, |file| fdatasync(file))?;
        dir.sync()
    }

    fn replace(
        &self,
        dir: &CacheDirectory,
        name: &str,
        bytes: &[u8],
        before_rename: impl FnOnce(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let scratch = format!("{}.new", random_name());
        let written = self
            .tmp
            .make(&scratch)
            .and_then(|file| write_all_at(&file, bytes, 0).and_then(|()| before_rename(&file)))
            .and_then(|()| self.tmp.rename(&scratch, dir, name));
        if written.is_err() {
            let _ = self.tmp.unlink(&scratch);
        }
        written
    }
}

/// Opens the cache directory itself. Its parents may be links; it may not.
fn open_top(path: &Path) -> Result<CacheDirectory, Refusal> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, Mode::empty());
    let opened = match open() {
        Err(Errno::NOENT) => {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                system(path.display(), "make the cache directory", errno)
                    .remedy("give another --cache-dir")
            })?;
            open()
        }
        other => other,
    };
    match opened {
        Ok(fd) => Ok(CacheDirectory::new(fd)),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let rule = "the cache directory must be a directory and no symbolic link";
            Err(refused(Failure::Io, path.display(), rule)
                .remedy("give the directory's own path as --cache-dir"))
        }
        Err(errno) => {
            let error = system(path.display(), "open the cache directory", errno);
            Err(error.remedy("give another --cache-dir"))
        }
    }
}

/// Refuses a directory that is another user's, or whose mode has one of the `forbidden` bits.
fn check_owned(
    dir: &CacheDirectory,
    path: &Path,
    below: &str,
    forbidden: Mode,
) -> Result<(), Refusal> {
    let path = if below.is_empty() { path.to_owned() } else { path.join(below) };
    let stat = fstat(dir).map_err(|e| system(path.display(), "look at the cache directory", e))?;
    let refuse = |rule: String, remedy: String| {
        Err(refused(Failure::Io, path.display(), rule).remedy(remedy))
    };
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != me {
        let rule = format!("the cache directory belongs to user {}, not to user {me}", stat.st_uid);
        return refuse(rule, "give a --cache-dir of your own".to_owned());
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(forbidden) {
        let rule = format!(
            "the cache directory is open to other users (mode {:04o})",
            stat.st_mode & 0o7777
        );
        return refuse(rule, format!("run: chmod 700 {}", path.display()));
    }
    Ok(())
}

fn write_tag(top: &CacheDirectory) -> Result<(), Errno> {
    match top.make(TAG) {
        Err(Errno::EXIST) => Ok(()),
        file => write_all_at(file?, TAG_TEXT.as_bytes(), 0),
    }
}

/// The cache's key, made at the first use of the cache. On a read-only disk without one it lasts as
/// long as the process.
fn key(version: &CacheDirectory, tmp: &CacheDirectory) -> Result<[u8; KEY_LEN], Errno> {
    if let Some(key) = read_key(version) {
        return Ok(key);
    }
    let mut key = [0; KEY_LEN];
    let random = rustix::fs::open("/dev/urandom", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::io::read(&random, &mut key)? != KEY_LEN {
        return Err(Errno::IO);
    }
    match store_key(version, tmp, &key) {
        // Another process may have been first: what lies there now counts.
        Ok(()) => Ok(read_key(version).unwrap_or(key)),
        Err(Errno::ROFS) => Ok(key),
        Err(errno) => Err(errno),
    }
}

fn read_key(version: &CacheDirectory) -> Option<[u8; KEY_LEN]> {
    let file = version.open(KEY).ok()?;
    let stat = fstat(&file).ok()?;
    let private = !Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    if !private || !is_sound(&stat) {
        return None;
    }
    read_sound(&file, KEY_LEN as u64)?.try_into().ok()
}

fn store_key(
    version: &CacheDirectory,
    tmp: &CacheDirectory,
    key: &[u8; KEY_LEN],
) -> Result<(), Errno> {
    if version.stat(KEY).is_ok() {
        tracing::warn!(
            "the cache's key was damaged or readable by others: it is replaced, and what it \
             sealed is checked anew"
        );
        version.clear(KEY, tmp)?;
    }
    let scratch = format!("{}.new", random_name());
    let file = tmp.make(&scratch)?;
    let stored = write_all_at(&file, key, 0).and_then(|()| fdatasync(&file)).and_then(|()| {
        match renameat_with(tmp, &scratch, version, KEY, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => tmp.rename(&scratch, version, KEY),
            other => other,
        }
    });
    match stored {
        Ok(()) => version.sync(),
        Err(errno) => {
            let _ = tmp.unlink(&scratch);
            if errno == Errno::EXIST { Ok(()) } else { Err(errno) }
        }
    }
}

/// Whether what a failed open says means that something else stands in the file's place.
pub(super) fn is_misplaced(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::LOOP
            | Errno::NXIO
            | Errno::ISDIR
            | Errno::NOTDIR
            | Errno::ACCESS
            | Errno::PERM
            | Errno::NODEV
            | Errno::IO
    )
}
