//! Directories held by descriptor, and the system calls that are made in them.
//!
//! INVARIANT: every call takes one name that the store made itself (hexadecimal, digits and fixed
//! words) and never follows a symbolic link, so nothing that happens to the path of the cache leads
//! out of the held directories. One component without links is what `openat2` with
//! `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS` would promise, on kernels that lack it too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timestamps, UTIME_NOW, fstat, fsync,
    mkdirat, openat, renameat, renameat_with, statat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::disk::{is_named, read_at};

/// Mode of directories: the owner's alone, since private registries' content lies below.
pub(super) const DIR_MODE: Mode = Mode::RWXU;
/// Mode of files that are being written.
pub(super) const WRITING: Mode = Mode::RUSR.union(Mode::WUSR);
/// Mode of published files, which nobody writes again.
pub(super) const PUBLISHED: Mode = Mode::RUSR;

/// An open directory of the cache.
#[derive(Debug)]
pub(super) struct CacheDirectory(OwnedFd);

impl CacheDirectory {
    pub(super) fn new(fd: OwnedFd) -> Self {
        CacheDirectory(fd)
    }

    /// The directory `name` in this one.
    pub(super) fn child(&self, name: &str) -> Result<CacheDirectory, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(CacheDirectory(openat(&self.0, name, flags, Mode::empty())?))
    }

    /// The directory `name` in this one, made if it is missing.
    pub(super) fn child_or_make(&self, name: &str) -> Result<CacheDirectory, Errno> {
        match self.child(name) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        match mkdirat(&self.0, name, DIR_MODE) {
            Ok(()) | Err(Errno::EXIST) => self.child(name),
            Err(errno) => Err(errno),
        }
    }

    /// Opens a file for reading. Does not hang on a FIFO that somebody put in its place.
    pub(super) fn open(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        openat(&self.0, name, flags, Mode::empty())
    }

    /// Opens a file for reading and writing, made if it is missing.
    pub(super) fn open_or_make(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(&self.0, name, flags, WRITING)
    }

    /// Makes a new file; fails if the name is taken.
    pub(super) fn make(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.0, name, flags, WRITING)
    }

    /// Attributes of what the name stands for; a symbolic link's own.
    pub(super) fn stat(&self, name: &str) -> Result<Stat, Errno> {
        statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether `name` still stands for the open file `fd`.
    pub(super) fn holds(&self, name: &str, fd: impl AsFd) -> bool {
        is_named(&self.0, name, fd)
    }

    /// Atomically moves a file, over one that may be there.
    pub(super) fn rename(&self, name: &str, to: &CacheDirectory, new: &str) -> Result<(), Errno> {
        renameat(&self.0, name, &to.0, new)
    }

    /// Puts the file `name` in the place of `other`, which gets its name.
    pub(super) fn exchange(&self, name: &str, other: &str) -> Result<(), Errno> {
        renameat_with(&self.0, name, &self.0, other, RenameFlags::EXCHANGE)
    }

    pub(super) fn unlink(&self, name: &str) -> Result<(), Errno> {
        unlinkat(&self.0, name, AtFlags::empty())
    }

    /// Makes `name` free, whatever stands there. A directory cannot be unlinked at once: it is set
    /// aside in `tmp`.
    pub(super) fn clear(&self, name: &str, tmp: &CacheDirectory) -> Result<(), Errno> {
        match self.unlink(name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                let aside = format!("{}.bad", random_name());
                self.rename(name, tmp, &aside)?;
                // Fails if it has entries. They are not the store's, so they are left to their
                // owner.
                let _ = unlinkat(&tmp.0, &aside, AtFlags::REMOVEDIR);
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Sets the modification time of `name` to now.
    pub(super) fn touch(&self, name: &str) -> Result<(), Errno> {
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let times = Timestamps { last_access: omit, last_modification: now };
        utimensat(&self.0, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Makes renames in this directory durable.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        fsync(&self.0)
    }

    /// Whether somebody removed this directory. Nothing can be made in it any more.
    pub(super) fn is_removed(&self) -> bool {
        fstat(&self.0).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// The names in this directory that are UTF-8, as all of the store's are; what cannot be read
    /// is left out.
    pub(super) fn names(&self) -> Vec<String> {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.0) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| name != "." && name != "..")
            .collect()
    }
}

impl AsFd for CacheDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether an open file is one that the store may have made: a regular file of our own with one
/// name.
pub(super) fn is_sound(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_nlink == 1
}

/// A file's length in bytes.
pub(super) fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// The whole content of a sound file of exactly `len` bytes; `None` if it is anything else.
pub(super) fn read_sound(fd: impl AsFd, len: u64) -> Option<Vec<u8>> {
    let stat = fstat(&fd).ok()?;
    if !is_sound(&stat) || length(&stat) != len {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    (read_at(&fd, &mut bytes, 0).ok()? == bytes.len()).then_some(bytes)
}

/// A name that nobody can have made before.
pub(super) fn random_name() -> String {
    format!("{:032x}", fastrand::u128(..))
}
