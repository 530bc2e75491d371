//! Changing attributes: of a place, and of what is only open any more.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags,
};

use super::grant::{as_owner, by_descriptor, modes};
use super::tree::{At, LocalTree};
use super::{Access, Errno, LocalFile, Stat, TreeNode, TreeResult};

/// A time that is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Time {
    /// The disk's present time.
    Now,
    /// Seconds since 1970 and nanoseconds.
    At(i64, u32),
}

/// What is to change; `None` stays as it is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Change {
    /// Permission bits, set-id and sticky bits included.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of the last access.
    pub accessed: Option<Time>,
    /// Time of the last modification.
    pub modified: Option<Time>,
}

/// The longest list of names that the system gives (XATTR_LIST_MAX), and the longest value
/// (XATTR_SIZE_MAX).
const XATTR_MAX: usize = 64 * 1024;

fn timespec(time: Option<Time>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        Some(Time::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ },
        Some(Time::At(seconds, nanoseconds)) => {
            Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() }
        }
    }
}

impl LocalTree {
    /// The attributes of `node`.
    pub fn stat(&self, node: &TreeNode) -> TreeResult<Stat> {
        let _names = self.read_names();
        self.stat_of(node)
    }

    fn stat_of(&self, node: &TreeNode) -> TreeResult<Stat> {
        match self.reach(node) {
            Ok((_, stat)) => Ok(stat),
            Err(e) => node.open_file(|_| true).ok_or(e)?.stat(),
        }
    }

    /// The place of `node` and what is there. An ordinary user may have closed the directory to
    /// itself, and then has no way but through what is open.
    fn reach(&self, node: &TreeNode) -> TreeResult<(At, Stat)> {
        let at = self.locate(node)?;
        let stat = at.stat()?;
        Ok((at, stat))
    }

    /// Changes attributes of `node`, and gives the new ones. A size is changed through `file` where
    /// one is given: whoever opened a file for writing may cut it, whatever its mode is by now.
    pub fn change(
        &self,
        node: &TreeNode,
        change: &Change,
        file: Option<&LocalFile>,
    ) -> TreeResult<Stat> {
        let _names = self.read_names();
        match self.reach(node) {
            Ok((at, _)) => {
                self.change_place(&at, change, file)?;
                at.stat()
            }
            Err(e) => {
                let open =
                    node.open_file(|open| change.size.is_none() || open.is_writable()).ok_or(e)?;
                change_open(&open, change)?;
                open.stat()
            }
        }
    }

    fn change_place(&self, at: &At, change: &Change, file: Option<&LocalFile>) -> TreeResult<()> {
        if let Some(size) = change.size {
            match file {
                Some(file) => rustix::fs::ftruncate(file, size)?,
                None => rustix::fs::ftruncate(
                    at.open_as_owner(OFlags::WRONLY | OFlags::NONBLOCK)?,
                    size,
                )?,
            }
        }
        let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(at.dir(), at.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        // After the owner: changing that clears set-id bits.
        if let Some(mode) = change.mode {
            self.set_mode(at, Mode::from_raw_mode(mode))?;
        }
        if change.accessed.is_some() || change.modified.is_some() {
            rustix::fs::utimensat(at.dir(), at.name(), &times(change), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    pub(super) fn set_mode(&self, at: &At, mode: Mode) -> TreeResult<()> {
        let place = at.open(OFlags::PATH)?;
        if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode).is_symlink() {
            return Err(Errno::OPNOTSUPP);
        }
        let _modes = modes();
        rustix::fs::chmod(by_descriptor(place.as_fd()), mode)
    }

    /// Has the disk keep the names in a directory.
    pub fn sync_names(&self, dir: &TreeNode) -> TreeResult<()> {
        let _names = self.read_names();
        rustix::fs::fsync(self.locate(dir)?.open(OFlags::RDONLY | OFlags::DIRECTORY)?)
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, node: &TreeNode, name: &OsStr) -> TreeResult<Vec<u8>> {
        self.with_attributes(node, |path| {
            let mut value = vec![0; XATTR_MAX];
            let length = rustix::fs::getxattr(path, name, &mut value)?;
            value.truncate(length);
            Ok(value)
        })
    }

    /// The names of all extended attributes, each followed by NUL.
    pub fn xattrs(&self, node: &TreeNode) -> TreeResult<Vec<u8>> {
        self.with_attributes(node, |path| {
            let mut names = vec![0; XATTR_MAX];
            let length = rustix::fs::listxattr(path, &mut names)?;
            names.truncate(length);
            Ok(names)
        })
    }

    /// Sets an extended attribute; `flags` are those of setxattr(2).
    pub fn set_xattr(
        &self,
        node: &TreeNode,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> TreeResult<()> {
        let flags = XattrFlags::from_bits(flags.cast_unsigned()).ok_or(Errno::INVAL)?;
        self.with_attributes(node, |path| rustix::fs::setxattr(path, name, value, flags))
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, node: &TreeNode, name: &OsStr) -> TreeResult<()> {
        self.with_attributes(node, |path| rustix::fs::removexattr(path, name))
    }

    fn with_attributes<T>(
        &self,
        node: &TreeNode,
        call: impl Fn(&str) -> TreeResult<T>,
    ) -> TreeResult<T> {
        let _names = self.read_names();
        match self.reach(node) {
            Ok((at, _)) => {
                let place = at.open(OFlags::PATH)?;
                as_owner(&[place.as_fd()], || call(&by_descriptor(place.as_fd())))
            }
            Err(e) => {
                let open: Arc<LocalFile> = node.open_file(|_| true).ok_or(e)?;
                as_owner(&[open.as_fd()], || call(&by_descriptor(open.as_fd())))
            }
        }
    }

    /// Opens a file of which only open files are left.
    pub(super) fn open_again(&self, node: &TreeNode, access: Access) -> TreeResult<LocalFile> {
        let open = node.open_file(|_| true).ok_or(Errno::NOENT)?;
        let flags = access.flags() | OFlags::CLOEXEC;
        let again = || rustix::fs::open(by_descriptor(open.as_fd()), flags, Mode::empty());
        Ok(LocalFile::new(as_owner(&[open.as_fd()], again)?, access))
    }
}

fn times(change: &Change) -> Timestamps {
    Timestamps {
        last_access: timespec(change.accessed),
        last_modification: timespec(change.modified),
    }
}

fn change_open(file: &LocalFile, change: &Change) -> TreeResult<()> {
    if let Some(size) = change.size {
        rustix::fs::ftruncate(file, size)?;
    }
    let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
    if uid.is_some() || gid.is_some() {
        rustix::fs::fchown(file, uid, gid)?;
    }
    if let Some(mode) = change.mode {
        let _modes = modes();
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    }
    if change.accessed.is_some() || change.modified.is_some() {
        rustix::fs::futimens(file, &times(change))?;
    }
    Ok(())
}
