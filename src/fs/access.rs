//! access(2): what the mount's owner may do with something, asked without doing it.
//!
//! The kernel asks on mounts that are their owner's alone; where others are let in it decides by
//! modes.

use super::error::{Errno, FsError};
use super::node::InodeNode;
use super::providers::ProviderView;
use super::write::CallerIdentity;
use super::{FileKind, Fs, attr};

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

impl Fs {
    /// Whether `who` may do all of that with `ino`.
    ///
    /// # Errors
    /// EROFS for writing where nothing can be written, EACCES where modes forbid it.
    pub fn access(&self, who: CallerIdentity, ino: u64, wish: Wish) -> Result<(), FsError> {
        let node = self.inodes.node(ino)?;
        if wish.write && !self.takes_writes(ino, &node) {
            return Err(FsError::plain(Errno::EROFS));
        }
        let (kind, mode) = match node.as_ref() {
            InodeNode::Local(at) => {
                let stat = at.stat()?;
                (super::area::kind(stat.st_mode), (stat.st_mode & 0o777) as u16)
            }
            other => {
                let (attr, _) = attr::of(ino, other, &self.options, &self.facts);
                (attr.kind, attr.mode)
            }
        };
        let is_root = who.uid == 0;
        let may_read = is_root || mode & 0o400 != 0;
        let may_execute = match kind {
            FileKind::Directory => is_root || mode & 0o100 != 0,
            _ if is_root => mode & 0o111 != 0,
            _ => mode & 0o100 != 0,
        };
        let may = (!wish.read || may_read) && (!wish.execute || may_execute) && self.is_owner(who);
        if may { Ok(()) } else { Err(FsError::plain(Errno::EACCES)) }
    }

    /// Whether the owner may write there, whatever the mode.
    fn takes_writes(&self, ino: u64, node: &InodeNode) -> bool {
        match node {
            InodeNode::Local(_)
            | InodeNode::Lock
            | InodeNode::Providers { view: ProviderView::PluginCache, .. } => true,
            _ => self.replaced(ino).is_some(),
        }
    }
}
