//! The snapshot that an open directory lists.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::area::LocalNode;
use super::attr::FoundEntry;
use super::error::{Errno, FsError};
use super::node::InodeNode;
use crate::facts::VerifiedPackage;
use crate::local::Name;
use crate::members::DirNo;
use crate::tree::registry::RegistryEntry;
use crate::tree::release::ReleaseEntry;

/// An open directory: a snapshot.
pub(super) struct OpenDirectory {
    pub(super) ino: u64,
    pub(super) node: Arc<InodeNode>,
    pub(super) listing: DirectoryListing,
}

/// What an open directory lists, in the order in which it does.
pub(super) enum DirectoryListing {
    /// The areas, the views and the registries.
    Root(Vec<OsString>),
    /// A space.
    Names(Vec<(String, RegistryEntry)>),
    /// A directory of a view of providers, and what could not be learnt of it.
    Made { entries: Vec<(String, Arc<InodeNode>)>, ttl: Duration, error: Option<FsError> },
    /// A provider release.
    Targets(Vec<(String, ReleaseEntry)>),
    /// A directory of a package.
    Members { package: Arc<VerifiedPackage>, dir: DirNo, plugins: bool },
    /// A directory of an area.
    Local(LocalListing),
}

/// The names in a directory of an area, as they were when it was listed from its beginning last:
/// who goes back there sees what came and went since.
pub(super) struct LocalListing {
    pub(super) dir: LocalNode,
    names: Mutex<Option<Arc<Vec<Name>>>>,
}

impl LocalListing {
    pub(super) fn new(dir: LocalNode) -> LocalListing {
        LocalListing { dir, names: Mutex::default() }
    }

    pub(super) fn names(&self, offset: u64) -> Result<Arc<Vec<Name>>, FsError> {
        let mut names = self.names.lock();
        match &*names {
            Some(names) if offset > 0 => Ok(names.clone()),
            _ => {
                let now = Arc::new(self.dir.area.tree.list(&self.dir.node)?);
                // What is behind the names cannot be told where an ordinary user may list a
                // directory and not go in: that is an error, since an empty listing would be a lie.
                if let Some(name) = now.first()
                    && let Err(e) = self.dir.below(name.clone()).stat()
                    && e.errno == Errno::EACCES
                {
                    return Err(e);
                }
                Ok(names.insert(now).clone())
            }
        }
    }
}

/// An entry of a listing as it is delivered.
pub struct Listed<'a> {
    /// The name.
    pub name: &'a OsStr,
    /// The entry.
    pub entry: FoundEntry,
    /// The offset at which the next entry begins.
    pub next: u64,
}
