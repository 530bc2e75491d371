//! access(2): what the mount's owner may do with something, asked without doing it.
//!
//! The kernel asks on mounts that are their owner's alone; where others are let in it decides by
//! modes.

use super::attr::FileKind;

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Executing a file, or looking names up in a directory.
    pub execute: bool,
}

impl Wish {
    /// Whether the owner of a file of that kind and mode, or root, may do all of that with it,
    /// apart from writing.
    pub(super) fn is_granted(self, kind: FileKind, mode: u16, is_root: bool) -> bool {
        let may_read = is_root || mode & 0o400 != 0;
        let may_execute = match kind {
            FileKind::Directory => is_root || mode & 0o100 != 0,
            _ if is_root => mode & 0o111 != 0,
            _ => mode & 0o100 != 0,
        };
        (!self.read || may_read) && (!self.execute || may_execute)
    }
}
