//! Nodes: places in a tree.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Errno, File, Name, RelPath, Result};

/// A file, link or directory of a tree: where it stands, and what of it is open.
///
/// There is one node per thing as long as anybody holds it; who hands out nodes keeps it so.
#[derive(Debug)]
pub struct Node {
    place: Mutex<Place>,
    open: Mutex<Vec<Weak<File>>>,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    Top,
    In(Arc<Node>, Name),
    /// It was removed, or something else was renamed over it.
    Gone,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    fn at(place: Place) -> Arc<Node> {
        Arc::new(Node { place: Mutex::new(place), open: Mutex::default() })
    }

    pub(super) fn top() -> Arc<Node> {
        Node::at(Place::Top)
    }

    /// The node of `name` in `dir`.
    pub fn below(dir: &Arc<Node>, name: Name) -> Arc<Node> {
        Node::at(Place::In(dir.clone(), name))
    }

    pub(super) fn place(&self) -> Place {
        lock(&self.place).clone()
    }

    pub(super) fn put(&self, place: Place) {
        let before = std::mem::replace(&mut *lock(&self.place), place);
        drop(before);
    }

    /// Notes that it was removed by somebody else than who uses the tree.
    pub fn lose(&self) {
        self.put(Place::Gone);
    }

    /// Where it stands now.
    ///
    /// # Errors
    /// `ENOENT` if it, or a directory above it, was removed.
    pub fn path(&self) -> Result<RelPath> {
        let mut names = Vec::new();
        let mut at = self.place();
        loop {
            at = match at {
                Place::Top => break,
                Place::Gone => return Err(Errno::NOENT),
                Place::In(dir, name) => {
                    names.push(name);
                    dir.place()
                }
            };
        }
        Ok(names.into_iter().rev().collect())
    }

    /// Notes that `file` is open.
    pub(super) fn opened(&self, file: &Arc<File>) {
        let mut open = lock(&self.open);
        open.retain(|file| file.strong_count() > 0);
        open.push(Arc::downgrade(file));
    }

    /// An open file of it for which `wanted` holds.
    pub(super) fn open_file(&self, wanted: impl Fn(&File) -> bool) -> Option<Arc<File>> {
        lock(&self.open).iter().filter_map(Weak::upgrade).find(|file| wanted(file))
    }
}
