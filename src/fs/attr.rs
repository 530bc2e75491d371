//! Attributes. Sizes are always true: a node whose size is not known yet says so, and its
//! attributes are not cached.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::FsOptions;
use super::node::InodeNode;
use crate::facts::Facts;

/// What kind of file an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A block device's name: the mount is `nodev`, so that is all it is.
    BlockDevice,
    /// A character device's name.
    CharDevice,
}

/// The attributes of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Kind.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes that it takes up.
    pub blocks: u64,
    /// Permission bits.
    pub mode: u16,
    /// The number of a device.
    pub device: u32,
    /// Number of links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last access.
    pub accessed: SystemTime,
    /// Time of the last modification.
    pub modified: SystemTime,
    /// Time of the last change of content or attributes.
    pub changed: SystemTime,
}

/// 1980-01-01T00:00:00Z: the time of everything that has none of its own, and the first that a zip
/// can hold.
const NO_TIME: i64 = 315_532_800;

/// The permission bits of directories.
const DIRECTORY: u16 = 0o755;
/// Those of files.
const FILE: u16 = 0o644;
/// Those of files that can be executed.
const PROGRAM: u16 = 0o755;

/// The attributes of `node`, and whether its size is known.
pub(super) fn of(ino: u64, node: &InodeNode, options: &FsOptions, facts: &Facts) -> (Attr, bool) {
    // As an unpacked release has them anywhere else, since programs copy modes. That nothing can be
    // written is said by EROFS, to the owner as to root.
    let directory = (FileKind::Directory, 0, DIRECTORY, NO_TIME, true);
    let (kind, size, mode, time, is_true) = match node {
        InodeNode::Root | InodeNode::Space { .. } | InodeNode::Providers { .. } => directory,
        InodeNode::Release(_) | InodeNode::Platform(..) | InodeNode::Dir { .. } => directory,
        InodeNode::Link(target) => (FileKind::Symlink, target.len() as u64, 0o777, NO_TIME, true),
        InodeNode::Lock => (FileKind::Regular, 0, FILE, NO_TIME, true),
        InodeNode::Document(bytes) => (FileKind::Regular, bytes.len() as u64, FILE, NO_TIME, true),
        // The disk knows more; this is for `.` and `..` of a listing, of which the kernel takes
        // number and kind.
        InodeNode::Local(_) => directory,
        InodeNode::Zip(target) => {
            let size = target.known(facts).map(|(_, layer)| layer.size);
            (FileKind::Regular, size.unwrap_or(0), FILE, NO_TIME, size.is_some())
        }
        InodeNode::File { package, number, executable, .. } => {
            let file = package.members.file(*number);
            let mode = if *executable || file.executable { PROGRAM } else { FILE };
            (FileKind::Regular, file.size, mode, file.modified, true)
        }
    };
    // A directory does not tell how many it holds: 2 would make some programs believe that it holds
    // none.
    let nlink = 1;
    let time = UNIX_EPOCH + Duration::from_secs(time.max(0) as u64);
    let attr = Attr {
        ino,
        kind,
        size,
        blocks: size.div_ceil(512),
        mode,
        device: 0,
        nlink,
        uid: options.uid,
        gid: options.gid,
        accessed: time,
        modified: time,
        changed: time,
    };
    (attr, is_true)
}
