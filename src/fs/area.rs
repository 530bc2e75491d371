//! Areas: the writable parts of a mount, each a tree on local disk with rules of its own.

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::attr::{Attr, FOREVER, FileKind, FoundEntry};
use super::error::{Errno, FsError};
use super::kernel_cache::{Caching, KernelCache};
use crate::local::{self, LocalTree, Name, RelPath, Stat};

/// The bits that make who runs a file somebody else.
const SET_ID: u16 = 0o6000;

/// The bit that lets the owner write.
const OWNER_WRITES: u16 = 0o200;

/// What may be made and removed in an area.
pub(super) trait Rules: fmt::Debug + Send + Sync {
    /// Whether `name` may come to be in `dir`; `kind` is what it would be.
    fn may_make(&self, dir: &RelPath, name: &Name, kind: FileKind) -> Result<(), Errno>;
    /// Whether what stands at `path` may be removed or get another name.
    fn may_remove(&self, path: &RelPath) -> Result<(), Errno>;
    /// Whether what stands at `path`, or lies in it, may be changed now.
    fn may_change(&self, _: &RelPath) -> Result<(), Errno> {
        Ok(())
    }
}

/// A writable part of a mount.
#[derive(Debug)]
pub(super) struct Area {
    /// Its name in the mount's root.
    pub(super) name: &'static str,
    pub(super) tree: Arc<LocalTree>,
    pub(super) rules: Box<dyn Rules>,
    pub(super) shown: ShownAs,
}

/// As what things in an area are shown, where that is not what the disk says.
#[derive(Clone, Copy, Default, Debug)]
pub struct ShownAs {
    /// The user to whom everything belongs.
    pub uid: Option<u32>,
    /// The group likewise.
    pub gid: Option<u32>,
    /// Everything shows that its owner may write it: where the kernel refuses by modes, that is how
    /// the owner always may.
    pub writable: bool,
}

/// A file, link or directory of an area.
#[derive(Clone, Debug)]
pub(super) struct LocalNode {
    pub(super) area: Arc<Area>,
    pub(super) node: Arc<local::TreeNode>,
    pub(super) kept: Arc<KernelCache>,
}

impl LocalNode {
    pub(super) fn new(area: Arc<Area>, node: Arc<local::TreeNode>) -> LocalNode {
        LocalNode { area, node, kept: Arc::default() }
    }

    pub(super) fn top(area: &Arc<Area>) -> LocalNode {
        LocalNode::new(area.clone(), area.tree.top().clone())
    }

    pub(super) fn below(&self, name: Name) -> LocalNode {
        LocalNode::new(self.area.clone(), local::TreeNode::below(&self.node, name))
    }

    pub(super) fn stat(&self) -> Result<Stat, FsError> {
        Ok(self.area.tree.stat(&self.node)?)
    }

    /// Its kind.
    pub(super) fn kind(&self) -> Result<FileKind, FsError> {
        Ok(kind(self.stat()?.st_mode))
    }

    /// Whether it is a directory.
    pub(super) fn is_dir(&self) -> bool {
        self.kind().is_ok_and(|kind| kind == FileKind::Directory)
    }

    /// The value of an extended attribute.
    pub(super) fn xattr(&self, name: &OsStr) -> Result<Vec<u8>, FsError> {
        Ok(self.area.tree.xattr(&self.node, name)?)
    }

    /// The names of its extended attributes that are shown, each followed by NUL.
    pub(super) fn xattrs(&self) -> Result<Vec<u8>, FsError> {
        let names = self.area.tree.xattrs(&self.node)?;
        let shown = names.split_inclusive(|byte| *byte == 0).filter(|name| is_shown(name));
        Ok(shown.flatten().copied().collect())
    }

    /// The disk on which it lies.
    pub(super) fn disk_space(&self) -> Option<DiskSpace> {
        let disk = self.area.tree.space().ok()?;
        Some(DiskSpace {
            block: disk.f_frsize,
            blocks: disk.f_blocks,
            free: disk.f_bfree,
            available: disk.f_bavail,
            files: disk.f_files,
            files_free: disk.f_ffree,
        })
    }

    pub(super) fn describe(&self) -> String {
        match self.node.path() {
            Ok(path) if path.names().is_empty() => self.area.name.to_owned(),
            Ok(path) => format!("{}/{}", self.area.name, path.to_os_string().display()),
            Err(_) => format!("a removed file of {}", self.area.name),
        }
    }

    /// The entry that is sent. Nobody but the kernel changes names and attributes here, so it may
    /// keep them: what moves inside of the area it moves in its own memory. What leaves the area,
    /// and what a commit removes, is told apart (see [`Inodes::left`] and [`Inodes::vanished`]).
    ///
    /// [`Inodes::left`]: super::inodes::Inodes::left
    /// [`Inodes::vanished`]: super::inodes::Inodes::vanished
    pub(super) fn entry(&self, ino: u64, stat: &Stat) -> FoundEntry {
        let attr = self.attr(ino, stat);
        let has_set_id = attr.kind == FileKind::Regular && attr.mode & SET_ID != 0;
        // Writing takes the bits away, which the kernel does not note.
        let attr_ttl = if has_set_id { Duration::ZERO } else { FOREVER };
        FoundEntry { attr, ttl: FOREVER, attr_ttl }
    }

    /// The entry that is sent with the name.
    pub(super) fn told(&self, ino: u64, stat: &Stat) -> FoundEntry {
        FoundEntry { ttl: self.kept.name_ttl(), ..self.entry(ino, stat) }
    }

    fn attr(&self, ino: u64, stat: &Stat) -> Attr {
        Attr {
            ino,
            kind: kind(stat.st_mode),
            size: stat.st_size.cast_unsigned(),
            blocks: stat.st_blocks.cast_unsigned(),
            mode: (stat.st_mode & 0o7777) as u16
                | if self.area.shown.writable { OWNER_WRITES } else { 0 },
            device: device(stat.st_rdev),
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: self.area.shown.uid.unwrap_or(stat.st_uid),
            gid: self.area.shown.gid.unwrap_or(stat.st_gid),
            accessed: time(stat.st_atime, stat.st_atime_nsec),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// How the names of all extended attributes begin that there are here.
const SHOWN: &[u8] = b"user.";

/// Whether there can be an extended attribute of that name here.
pub(super) fn is_shown(xattr: &[u8]) -> bool {
    xattr.starts_with(SHOWN)
}

pub(super) fn kind(mode: u32) -> FileKind {
    use rustix::fs::FileType;
    match FileType::from_raw_mode(mode) {
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::RegularFile | FileType::Unknown => FileKind::Regular,
    }
}

/// A device's number as the kernel takes it from a file system.
fn device(number: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base =
        if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.and_then(|base| base.checked_add(Duration::from_nanos(nanoseconds))).unwrap_or(UNIX_EPOCH)
}

/// An open file of an area.
#[derive(Debug)]
pub(super) struct AreaFile {
    pub(super) at: LocalNode,
    pub(super) file: Arc<local::LocalFile>,
    /// Whether it writes past the kernel's pages.
    pub(super) bypasses: bool,
}

impl Drop for AreaFile {
    fn drop(&mut self) {
        if self.bypasses {
            self.at.kept.end_bypass();
        }
    }
}

/// A handle of an open file of an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenedLocal {
    /// The handle.
    pub handle: u64,
    /// What the kernel does with its pages.
    pub caching: Caching,
}

/// What a disk holds and can hold, in blocks of `block` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpace {
    /// Bytes per block.
    pub block: u64,
    /// All blocks.
    pub blocks: u64,
    /// Those that are free.
    pub free: u64,
    /// Those that are free for this user.
    pub available: u64,
    /// All inodes.
    pub files: u64,
    /// Those that are free.
    pub files_free: u64,
}

impl From<local::Errno> for FsError {
    fn from(error: local::Errno) -> Self {
        FsError::plain(Errno(error.raw_os_error()))
    }
}
