//! What the kernel is told of an inode that is none of an area. Sizes are always true: a node whose
//! size is not known yet says so, and its attributes are not cached.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::attr::{Attr, FileKind, FoundEntry};
use super::inodes::{DirectoryName, Inodes};
use super::node::InodeNode;
use super::referrer::ReferrerPlace;
use crate::facts::Facts;

/// 1980-01-01T00:00:00Z: the time of everything that has none of its own, and the first that a zip
/// can hold.
const NO_TIME: i64 = 315_532_800;

/// The permission bits of directories.
const DIRECTORY: u16 = 0o755;
/// Those of files.
const FILE: u16 = 0o644;
/// Those of files that can be executed.
const PROGRAM: u16 = 0o755;

/// Makes the entries that are sent.
pub(super) struct InodeEntries {
    pub(super) facts: Arc<Facts>,
    pub(super) inodes: Arc<Inodes>,
    /// Owner of everything.
    pub(super) uid: u32,
    /// Group of everything.
    pub(super) gid: u32,
}

impl InodeEntries {
    /// The attributes of `node`, and whether its size is known.
    pub(super) fn attr(&self, ino: u64, node: &InodeNode) -> (Attr, bool) {
        // As an unpacked release has them anywhere else, since programs copy modes. That nothing
        // can be written is said by EROFS, to the owner as to root.
        let directory = (FileKind::Directory, 0, DIRECTORY, NO_TIME, true);
        let (kind, size, mode, time, is_true) = match node {
            InodeNode::Root | InodeNode::Space { .. } | InodeNode::Providers { .. } => directory,
            InodeNode::Release(_) | InodeNode::Platform(..) | InodeNode::Dir { .. } => directory,
            InodeNode::Link(target) => {
                (FileKind::Symlink, target.len() as u64, 0o777, NO_TIME, true)
            }
            InodeNode::Referrers { place, .. } => match place.as_ref() {
                ReferrerPlace::Layer(_, layer) => {
                    (FileKind::Regular, layer.size, FILE, NO_TIME, true)
                }
                _ => directory,
            },
            InodeNode::Lock => (FileKind::Regular, 0, FILE, NO_TIME, true),
            InodeNode::Document(bytes) => {
                (FileKind::Regular, bytes.len() as u64, FILE, NO_TIME, true)
            }
            // The disk knows more; this is for `.` and `..` of a listing, of which the kernel takes
            // number and kind.
            InodeNode::Local(_) => directory,
            InodeNode::Zip(target) => {
                let size = target.size(&self.facts);
                (FileKind::Regular, size.unwrap_or(0), FILE, NO_TIME, size.is_some())
            }
            InodeNode::File { package, number, executable, .. } => {
                let file = package.members.file(*number);
                let mode = if *executable || file.executable { PROGRAM } else { FILE };
                (FileKind::Regular, file.size, mode, file.modified, true)
            }
        };
        // A directory does not tell how many it holds: 2 would make some programs believe that it
        // holds none.
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
            uid: self.uid,
            gid: self.gid,
            accessed: time,
            modified: time,
            changed: time,
        };
        (attr, is_true)
    }

    /// The entry of `node`, whose name and attributes hold for `ttl`.
    pub(super) fn of(&self, ino: u64, node: &InodeNode, ttl: Duration) -> FoundEntry {
        let (attr, is_true) = self.attr(ino, node);
        let ttl = if is_true { ttl } else { Duration::ZERO };
        FoundEntry { attr, ttl, attr_ttl: ttl }
    }

    /// Makes `node` what stands at `place`, and counts a reference.
    pub(super) fn send(
        &self,
        place: DirectoryName,
        node: Arc<InodeNode>,
        ttl: Duration,
    ) -> FoundEntry {
        self.inodes.send(place, node, |ino, node| self.of(ino, node, ttl))
    }
}
