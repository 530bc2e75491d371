//! Open files and directories.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use lru::LruCache;

use super::area::LocalFile;
use super::directory::Listing;
use super::error::{Errno, FsError};
use super::node::Node;
use super::replaced::Over;
use crate::facts::Content;

/// An open file: its content stays readable whatever is evicted or moved meanwhile.
pub(super) struct OpenFile {
    pub(super) node: Arc<Node>,
    pub(super) is_backed: bool,
    /// What is written over it, where that is allowed.
    pub(super) over: Option<Over>,
    content: Mutex<Content>,
}

impl OpenFile {
    pub(super) fn content(&self) -> Content {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The copy that holds what was written over it and is something else.
    pub(super) fn copy(&self) -> Option<&LocalFile> {
        self.over.as_ref()?.copy.get()
    }

    /// Puts healed content in the place of a damaged one.
    fn replace(&self, content: Content) {
        *self.content.lock().unwrap_or_else(PoisonError::into_inner) = content;
    }
}

/// An open directory: a snapshot.
pub(super) struct Directory {
    pub(super) ino: u64,
    pub(super) node: Arc<Node>,
    pub(super) listing: Listing,
}

/// What is read: an open file, or an inode that is read without being opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// The handle of an open file.
    Handle(u64),
    /// An inode.
    Inode(u64),
}

/// How many contents of inodes that are read without being opened are kept.
const UNOPENED_KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

enum Handle {
    File(Arc<OpenFile>),
    Local(Arc<LocalFile>),
    Directory(Arc<Directory>),
}

pub(super) struct Handles {
    open: RwLock<HashMap<u64, Handle>>,
    unopened: Mutex<LruCache<u64, Arc<OpenFile>>>,
    next: AtomicU64,
}

impl Handles {
    pub(super) fn new() -> Self {
        Handles { open: RwLock::default(), unopened: Mutex::new(LruCache::new(UNOPENED_KEPT)), next: AtomicU64::new(0) }
    }

    /// The file that is read; `None` for an inode whose content is not loaded.
    pub(super) fn file_of(&self, of: Of) -> Result<Option<Arc<OpenFile>>, FsError> {
        match of {
            Of::Handle(handle) => self.file(handle).map(Some),
            Of::Inode(ino) => Ok(self.unopened.lock().unwrap_or_else(PoisonError::into_inner).get(&ino).cloned()),
        }
    }

    /// Keeps loaded content for the next read.
    pub(super) fn keep(&self, of: Of, node: &Arc<Node>, content: Content) {
        match of {
            Of::Handle(handle) => {
                if let Ok(file) = self.file(handle) {
                    file.replace(content);
                }
            }
            Of::Inode(ino) => {
                let file = OpenFile { node: node.clone(), is_backed: false, over: None, content: Mutex::new(content) };
                let before = self.unopened.lock().unwrap_or_else(PoisonError::into_inner).put(ino, Arc::new(file));
                drop(before);
            }
        }
    }

    fn add(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, handle);
        number
    }

    pub(super) fn open_file(&self, node: Arc<Node>, content: Content, is_backed: bool) -> u64 {
        self.add(Handle::File(Arc::new(OpenFile { node, is_backed, over: None, content: Mutex::new(content) })))
    }

    /// Opens a file of a release to be written over.
    pub(super) fn open_over(&self, node: Arc<Node>, content: Content, over: Over) -> u64 {
        let file = OpenFile { node, is_backed: false, over: Some(over), content: Mutex::new(content) };
        self.add(Handle::File(Arc::new(file)))
    }

    /// The files that are written over under the number `ino`.
    pub(super) fn all_over(&self, ino: u64) -> Vec<Arc<OpenFile>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let files = open.values().filter_map(|handle| match handle {
            Handle::File(file) if file.over.as_ref().is_some_and(|over| over.ino == ino) => Some(file.clone()),
            _ => None,
        });
        files.collect()
    }

    pub(super) fn open_local(&self, file: LocalFile) -> u64 {
        self.add(Handle::Local(Arc::new(file)))
    }

    /// An open file of an area; `None` if it is none.
    pub(super) fn local(&self, number: u64) -> Option<Arc<LocalFile>> {
        match self.open.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            Some(Handle::Local(file)) => Some(file.clone()),
            _ => None,
        }
    }

    /// An open file of an area for which `wanted` holds.
    pub(super) fn find_local(&self, wanted: impl Fn(&LocalFile) -> bool) -> Option<Arc<LocalFile>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.values().find_map(|handle| match handle {
            Handle::Local(file) if wanted(file) => Some(file.clone()),
            _ => None,
        })
    }

    pub(super) fn open_directory(&self, ino: u64, node: Arc<Node>, listing: Listing) -> u64 {
        self.add(Handle::Directory(Arc::new(Directory { ino, node, listing })))
    }

    pub(super) fn file(&self, number: u64) -> Result<Arc<OpenFile>, FsError> {
        match self.open.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            Some(Handle::File(file)) => Ok(file.clone()),
            _ => Err(FsError::plain(Errno::EBADF)),
        }
    }

    pub(super) fn directory(&self, number: u64) -> Result<Arc<Directory>, FsError> {
        match self.open.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            Some(Handle::Directory(directory)) => Ok(directory.clone()),
            _ => Err(FsError::plain(Errno::EBADF)),
        }
    }

    pub(super) fn close(&self, number: u64) {
        let closed = self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        // Closing a file of the store can take a system call: not under the lock.
        drop(closed);
    }
}
