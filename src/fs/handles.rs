//! Open files and directories.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::directory::Listing;
use super::error::{Errno, FsError};
use super::node::Node;
use crate::facts::Content;

/// An open file: its content stays readable whatever is evicted or moved meanwhile.
pub(super) struct OpenFile {
    pub(super) node: Arc<Node>,
    content: Mutex<Content>,
}

impl OpenFile {
    pub(super) fn content(&self) -> Content {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts healed content in the place of a damaged one.
    pub(super) fn replace(&self, content: Content) {
        *self.content.lock().unwrap_or_else(PoisonError::into_inner) = content;
    }
}

/// An open directory: a snapshot.
pub(super) struct Directory {
    pub(super) ino: u64,
    pub(super) node: Arc<Node>,
    pub(super) listing: Listing,
}

enum Handle {
    File(Arc<OpenFile>),
    Directory(Arc<Directory>),
}

#[derive(Default)]
pub(super) struct Handles {
    open: RwLock<HashMap<u64, Handle>>,
    next: AtomicU64,
}

impl Handles {
    fn add(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, handle);
        number
    }

    pub(super) fn open_file(&self, node: Arc<Node>, content: Content) -> u64 {
        self.add(Handle::File(Arc::new(OpenFile { node, content: Mutex::new(content) })))
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
