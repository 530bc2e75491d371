//! Open files and directories.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::area::AreaFile;
use super::directory::{DirectoryListing, OpenDirectory};
use super::error::{Errno, FsError};
use super::node::InodeNode;
use super::replaced::Over;
use crate::bounded::Bounded;
use crate::facts::MemberContent;

/// An open file: its content stays readable whatever is evicted or moved meanwhile.
pub(super) struct FileHandle {
    pub(super) node: Arc<InodeNode>,
    pub(super) is_backed: bool,
    /// What is written over it, where that is allowed.
    pub(super) over: Option<Over>,
    content: Mutex<MemberContent>,
}

impl FileHandle {
    pub(super) fn content(&self) -> MemberContent {
        self.content.lock().clone()
    }

    /// The copy that holds what was written over it and is something else.
    pub(super) fn copy(&self) -> Option<&AreaFile> {
        self.over.as_ref()?.copy.get()
    }

    /// Puts healed content in the place of a damaged one.
    fn replace(&self, content: MemberContent) {
        *self.content.lock() = content;
    }
}

/// What is read: an open file, or an inode that is read without being opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadTarget {
    /// The handle of an open file.
    Handle(u64),
    /// An inode.
    Inode(u64),
}

/// How many contents of inodes that are read without being opened are kept.
const UNOPENED_KEPT: usize = 256;

enum Handle {
    File(Arc<FileHandle>),
    Local(Arc<AreaFile>),
    Directory(Arc<OpenDirectory>),
}

pub(super) struct Handles {
    open: RwLock<HashMap<u64, Handle>>,
    unopened: Mutex<Bounded<u64, Arc<FileHandle>>>,
    next: AtomicU64,
}

impl Handles {
    pub(super) fn new() -> Self {
        Handles {
            open: RwLock::default(),
            unopened: Mutex::new(Bounded::counted(UNOPENED_KEPT)),
            next: AtomicU64::new(0),
        }
    }

    /// The file that is read; `None` for an inode whose content is not loaded.
    pub(super) fn file_of(&self, of: ReadTarget) -> Result<Option<Arc<FileHandle>>, FsError> {
        match of {
            ReadTarget::Handle(handle) => self.file(handle).map(Some),
            ReadTarget::Inode(ino) => Ok(self.unopened.lock().get(&ino).cloned()),
        }
    }

    /// Keeps loaded content for the next read.
    pub(super) fn keep(&self, of: ReadTarget, node: &Arc<InodeNode>, content: MemberContent) {
        match of {
            ReadTarget::Handle(handle) => {
                if let Ok(file) = self.file(handle) {
                    file.replace(content);
                }
            }
            ReadTarget::Inode(ino) => {
                let file = FileHandle {
                    node: node.clone(),
                    is_backed: false,
                    over: None,
                    content: Mutex::new(content),
                };
                let before = self.unopened.lock().put(ino, Arc::new(file));
                drop(before);
            }
        }
    }

    fn add(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(number, handle);
        number
    }

    pub(super) fn open_file(
        &self,
        node: Arc<InodeNode>,
        content: MemberContent,
        is_backed: bool,
    ) -> u64 {
        self.add(Handle::File(Arc::new(FileHandle {
            node,
            is_backed,
            over: None,
            content: Mutex::new(content),
        })))
    }

    /// Opens a file of a release to be written over.
    pub(super) fn open_over(
        &self,
        node: Arc<InodeNode>,
        content: MemberContent,
        over: Over,
    ) -> u64 {
        let file =
            FileHandle { node, is_backed: false, over: Some(over), content: Mutex::new(content) };
        self.add(Handle::File(Arc::new(file)))
    }

    /// The files that are written over under the number `ino`.
    pub(super) fn all_over(&self, ino: u64) -> Vec<Arc<FileHandle>> {
        let open = self.open.read();
        let files = open.values().filter_map(|handle| match handle {
            Handle::File(file) if file.over.as_ref().is_some_and(|over| over.ino == ino) => {
                Some(file.clone())
            }
            _ => None,
        });
        files.collect()
    }

    pub(super) fn open_local(&self, file: AreaFile) -> u64 {
        self.add(Handle::Local(Arc::new(file)))
    }

    /// An open file of an area; `None` if it is none.
    pub(super) fn local(&self, number: u64) -> Option<Arc<AreaFile>> {
        match self.open.read().get(&number) {
            Some(Handle::Local(file)) => Some(file.clone()),
            _ => None,
        }
    }

    /// An open file of an area for which `wanted` holds.
    pub(super) fn find_local(&self, wanted: impl Fn(&AreaFile) -> bool) -> Option<Arc<AreaFile>> {
        let open = self.open.read();
        open.values().find_map(|handle| match handle {
            Handle::Local(file) if wanted(file) => Some(file.clone()),
            _ => None,
        })
    }

    pub(super) fn open_directory(
        &self,
        ino: u64,
        node: Arc<InodeNode>,
        listing: DirectoryListing,
    ) -> u64 {
        self.add(Handle::Directory(Arc::new(OpenDirectory { ino, node, listing })))
    }

    pub(super) fn file(&self, number: u64) -> Result<Arc<FileHandle>, FsError> {
        match self.open.read().get(&number) {
            Some(Handle::File(file)) => Ok(file.clone()),
            _ => Err(FsError::plain(Errno::EBADF)),
        }
    }

    pub(super) fn directory(&self, number: u64) -> Result<Arc<OpenDirectory>, FsError> {
        match self.open.read().get(&number) {
            Some(Handle::Directory(directory)) => Ok(directory.clone()),
            _ => Err(FsError::plain(Errno::EBADF)),
        }
    }

    pub(super) fn close(&self, number: u64) {
        let closed = self.open.write().remove(&number);
        // Closing a file of the store can take a system call: not under the lock.
        drop(closed);
    }
}
