//! Attributes. Sizes are always true: a node whose size is not known yet says so, and its attributes are not cached.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Options;
use super::node::Node;
use crate::facts::Facts;

/// What kind of file an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
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
    /// Permission bits.
    pub mode: u16,
    /// Number of links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Access, modification and change time.
    pub time: SystemTime,
}

/// 1980-01-01T00:00:00Z: the time of everything that has none of its own, and the first that a zip can hold.
const NO_TIME: i64 = 315_532_800;

/// The attributes of `node`, and whether its size is known.
pub(super) fn of(ino: u64, node: &Node, options: &Options, facts: &Facts) -> (Attr, bool) {
    let directory = |mode| (FileKind::Directory, 0, mode, NO_TIME, true);
    let (kind, size, mode, time, is_true) = match node {
        Node::Root | Node::Space { .. } => directory(if options.read_only { 0o555 } else { 0o755 }),
        Node::Release(_) | Node::Platform(..) | Node::Dir { .. } => directory(0o555),
        Node::Zip(target) => {
            let size = target.known(facts).map(|(_, layer)| layer.size);
            (FileKind::Regular, size.unwrap_or(0), 0o444, NO_TIME, size.is_some())
        }
        Node::File { package, number, executable, .. } => {
            let file = package.members.file(*number);
            let mode = if *executable || file.executable { 0o555 } else { 0o444 };
            (FileKind::Regular, file.size, mode, file.modified, true)
        }
    };
    // A directory does not tell how many it holds: 2 would make some programs believe that it holds none.
    let nlink = 1;
    let time = UNIX_EPOCH + Duration::from_secs(time.max(0) as u64);
    (Attr { ino, kind, size, mode, nlink, uid: options.uid, gid: options.gid, time }, is_true)
}
