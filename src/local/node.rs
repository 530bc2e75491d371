//! Nodes: places in a tree.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Errno, LocalFile, Name, RelPath, TreeResult};

/// A file, link or directory of a tree: where it stands, and what of it is open.
///
/// There is one node per thing as long as anybody holds it; who hands out nodes keeps it so.
#[derive(Debug)]
pub struct TreeNode {
    place: Mutex<NodePlace>,
    open: Mutex<Vec<Weak<LocalFile>>>,
}

#[derive(Clone, Debug)]
pub(super) enum NodePlace {
    Top,
    In(Arc<TreeNode>, Name),
    /// It was removed, or something else was renamed over it.
    Gone,
}

impl TreeNode {
    fn at(place: NodePlace) -> Arc<TreeNode> {
        Arc::new(TreeNode { place: Mutex::new(place), open: Mutex::default() })
    }

    pub(super) fn top() -> Arc<TreeNode> {
        TreeNode::at(NodePlace::Top)
    }

    /// The node of `name` in `dir`.
    pub fn below(dir: &Arc<TreeNode>, name: Name) -> Arc<TreeNode> {
        TreeNode::at(NodePlace::In(dir.clone(), name))
    }

    pub(super) fn place(&self) -> NodePlace {
        self.place.lock().clone()
    }

    pub(super) fn put(&self, place: NodePlace) {
        let before = std::mem::replace(&mut *self.place.lock(), place);
        drop(before);
    }

    /// Notes that it was removed by somebody else than who uses the tree.
    pub fn lose(&self) {
        self.put(NodePlace::Gone);
    }

    /// Where it stands now.
    ///
    /// # Errors
    /// `ENOENT` if it, or a directory above it, was removed.
    pub fn path(&self) -> TreeResult<RelPath> {
        let mut names = Vec::new();
        let mut at = self.place();
        loop {
            at = match at {
                NodePlace::Top => break,
                NodePlace::Gone => return Err(Errno::NOENT),
                NodePlace::In(dir, name) => {
                    names.push(name);
                    dir.place()
                }
            };
        }
        Ok(names.into_iter().rev().collect())
    }

    /// Notes that `file` is open.
    pub(super) fn opened(&self, file: &Arc<LocalFile>) {
        let mut open = self.open.lock();
        open.retain(|file| file.strong_count() > 0);
        open.push(Arc::downgrade(file));
    }

    /// An open file of it for which `wanted` holds.
    pub(super) fn open_file(&self, wanted: impl Fn(&LocalFile) -> bool) -> Option<Arc<LocalFile>> {
        self.open.lock().iter().filter_map(Weak::upgrade).find(|file| wanted(file))
    }
}
