//! A directory tree on local disk that others may write to: what stands behind the writable parts
//! of a mount.
//!
//! The tree is held by a descriptor of its top. A [`TreeNode`] is a place in it, a directory and a
//! name, that a rename changes; a path is made of places at the moment it is used, is resolved
//! beneath the top without following any symbolic link, and its last name is never followed either.
//! So nothing in the tree leads out of it, and a node costs no descriptor. What was removed while
//! it was open is reached through its open files.
//!
//! Whoever uses the tree may write all of it: modes are kept and shown, and refuse nothing to their
//! owner.
//!
//! There are no hard links in a tree: every file has one place.

mod attributes;
mod file;
mod grant;
mod node;
mod path;
mod tree;

pub use attributes::{Change, Time};
pub use file::{Access, LocalFile};
pub use grant::as_owner;
pub use node::TreeNode;
pub use path::{Name, RelPath};
pub use rustix::fs::Stat;
pub use rustix::io::Errno;
pub use tree::{How, KnownNodes, LocalTree, Maker, Removal};

/// What a call on a tree gives: the system's own error number where it failed.
pub type TreeResult<T> = std::result::Result<T, Errno>;

#[cfg(test)]
mod tests;
