//! Attributes of inodes, and what is told of a name.

use std::time::{Duration, SystemTime};

/// How long the kernel may keep what never changes.
pub const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the kernel may keep the absence of a name that can come to be.
pub(super) const ABSENT_TTL: Duration = Duration::from_secs(1);

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

/// What is told of a found entry.
#[derive(Clone, Copy, Debug)]
pub struct FoundEntry {
    /// Its attributes; `attr.ino` is its number.
    pub attr: Attr,
    /// How long the name stands for it.
    pub ttl: Duration,
    /// How long its attributes hold.
    pub attr_ttl: Duration,
}

/// What became of a name that was looked at.
#[derive(Clone, Copy, Debug)]
pub enum Looked<T> {
    /// It is there.
    Found(T),
    /// It is not there, which holds for that long.
    Absent(Duration),
}

/// The answer to a lookup. The kernel holds one more reference to what was found.
pub type Lookup = Looked<FoundEntry>;
