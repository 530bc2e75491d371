//! Areas: the writable parts of a mount, each a tree on local disk with rules of its own.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::{Errno, FsError};
use super::handles::ReadTarget;
use super::inodes::DirectoryName;
use super::kernel_cache::{Caching, KernelCache};
use super::node::InodeNode;
use super::{Attr, FOREVER, FileKind, FoundEntry, Fs, Lookup};
use crate::local::{self, Access, LocalTree, Name, RelPath, Stat};

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

    pub(super) fn describe(&self) -> String {
        match self.node.path() {
            Ok(path) if path.names().is_empty() => self.area.name.to_owned(),
            Ok(path) => format!("{}/{}", self.area.name, path.to_os_string().display()),
            Err(_) => format!("a removed file of {}", self.area.name),
        }
    }

    /// The entry that is sent. Nobody but the kernel changes names and attributes here, so it may
    /// keep them: what moves inside of the area it moves in its own memory. What leaves the area,
    /// and what a commit removes, is told apart (see [`Fs::left`] and [`Fs::vanished`]).
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

impl Fs {
    pub(super) fn find_local(
        &self,
        place: DirectoryName,
        dir: &LocalNode,
        name: &OsStr,
    ) -> Result<Lookup, FsError> {
        let name = Name::new(name)?;
        match dir.area.tree.find(&dir.node, &name) {
            Ok(stat) => Ok(Lookup::Found(self.send_local(place, dir.below(name), &stat))),
            // Nobody but the kernel makes names here, so it knows when this one comes to be.
            Err(local::Errno::NOENT) => {
                // What was there was removed without the kernel: it was committed.
                self.lose(dir, &name, &place)?;
                Ok(Lookup::Absent(FOREVER))
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn send_local(
        &self,
        place: DirectoryName,
        node: LocalNode,
        stat: &Stat,
    ) -> FoundEntry {
        self.inodes.send(place, Arc::new(InodeNode::Local(node.clone())), |ino, kept| {
            kept.told(&node, ino, stat)
        })
    }

    /// Like [`Fs::send_local`] for what was just made: what the kernel still holds of that name is
    /// something else.
    pub(super) fn send_made(
        &self,
        place: DirectoryName,
        node: LocalNode,
        stat: &Stat,
    ) -> FoundEntry {
        if let Some(InodeNode::Local(lost)) = self.inodes.vacate(&place).as_deref() {
            lost.node.lose();
        }
        self.send_local(place, node, stat)
    }

    /// Notes that what the kernel holds at `place` is gone, if nothing has the name `name` in
    /// `dir`.
    fn lose(&self, dir: &LocalNode, name: &Name, place: &DirectoryName) -> Result<(), FsError> {
        if self.inodes.at(place).is_none() {
            return Ok(());
        }
        let known = || match self.inodes.vacate(place).as_deref() {
            Some(InodeNode::Local(lost)) => Some(lost.node.clone()),
            _ => None,
        };
        Ok(dir.area.tree.lose(&dir.node, name, known)?)
    }

    /// To be asked before what stands at `place` gets a name outside of its area: the kernel would
    /// go on showing it under the new name for as long as it keeps the name, and so would not see
    /// what stands there.
    ///
    /// # Errors
    /// ESTALE if the kernel keeps the name: it looks the name up once more, learns that it cannot
    /// be kept, and asks again.
    pub(super) fn left(&self, place: &DirectoryName) -> Result<(), FsError> {
        match self.inodes.at(place).as_deref() {
            Some(InodeNode::Local(at)) if !at.kept.ask_for_name() => {
                Err(FsError::plain(Errno::ESTALE))
            }
            _ => Ok(()),
        }
    }

    /// It did not leave after all.
    pub(super) fn stayed(&self, place: &DirectoryName) {
        if let Some(InodeNode::Local(at)) = self.inodes.at(place).as_deref() {
            at.kept.keep_name();
        }
    }

    /// What had the path `path` in `area` was taken from the disk by somebody else than the kernel,
    /// or was put back after that. Yields the name that the kernel has to drop.
    pub(super) fn vanished(&self, area: &Arc<Area>, path: &RelPath) -> Option<(u64, Box<OsStr>)> {
        let (above, name) = path.split_last()?;
        let names =
            [OsStr::new(area.name)].into_iter().chain(path.names().iter().map(Name::as_os_str));
        let place = self.inodes.place_of(names)?;
        let dir = LocalNode::new(area.clone(), area.tree.node_at(&above));
        if let Err(e) = self.lose(&dir, name, &place) {
            tracing::debug!("{}: {e:?}", path.to_os_string().display());
        }
        Some(place.into_parts())
    }

    /// The text of the symbolic link `ino`.
    pub fn readlink(&self, ino: u64) -> Result<OsString, FsError> {
        match self.inodes.node(ino)?.as_ref() {
            InodeNode::Local(at) => Ok(at.area.tree.read_link(&at.node)?),
            InodeNode::Link(target) => Ok(OsString::from(&**target)),
            _ => Err(FsError::plain(Errno::EINVAL)),
        }
    }

    pub(super) fn open_local(
        &self,
        at: &LocalNode,
        access: Access,
    ) -> Result<OpenedLocal, FsError> {
        let file = at.area.tree.open_file(&at.node, access)?;
        let caching = at.kept.caching();
        let handle = self.handles.open_local(AreaFile { at: at.clone(), file, bypasses: false });
        Ok(OpenedLocal { handle, caching })
    }

    /// Reads from an open file of an area; `None` if it is a file of a release.
    pub(super) fn read_local(
        &self,
        of: ReadTarget,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<Option<usize>, FsError> {
        match of {
            ReadTarget::Handle(handle) => match self.handles.local(handle) {
                Some(open) => Ok(Some(open.file.read_at(buf, offset)?)),
                None => Ok(None),
            },
            ReadTarget::Inode(_) => Ok(None),
        }
    }

    /// The disk on which `ino` lies, where it is one that can be written to.
    pub fn disk_space(&self, ino: u64) -> Option<DiskSpace> {
        let node = self.inodes.node(ino).ok()?;
        let InodeNode::Local(at) = node.as_ref() else { return None };
        let disk = at.area.tree.space().ok()?;
        Some(DiskSpace {
            block: disk.f_frsize,
            blocks: disk.f_blocks,
            free: disk.f_bfree,
            available: disk.f_bavail,
            files: disk.f_files,
            files_free: disk.f_ffree,
        })
    }

    pub(super) fn local_xattr(at: &LocalNode, name: &OsStr) -> Result<Vec<u8>, FsError> {
        Ok(at.area.tree.xattr(&at.node, name)?)
    }

    pub(super) fn local_xattrs(at: &LocalNode) -> Result<Vec<u8>, FsError> {
        let names = at.area.tree.xattrs(&at.node)?;
        let shown = names
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| name.starts_with(super::xattr::SHOWN));
        Ok(shown.flatten().copied().collect())
    }
}

impl From<local::Errno> for FsError {
    fn from(error: local::Errno) -> Self {
        FsError::plain(Errno(error.raw_os_error()))
    }
}
