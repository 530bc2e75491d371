//! Why operations failed: `user.tofufs.error`.
//!
//! A reason belongs to what a node stands for, not to its inode: the kernel forgets inodes when it
//! needs memory, and what is refused stays so. So reasons are kept beside the inodes, and a node
//! asks for its own when it is new.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::node::{InodeNode, LastError};
use crate::bounded::Bounded;
use crate::failure::Subject;
use crate::members::FileNo;
use crate::name::Reference;

/// How many reasons are kept; past it those go that were used longest ago.
const KEPT: usize = 1024;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reason {
    pub(super) sentence: Arc<str>,
    /// Whether opening the node failed, so that looking at a name in it proves nothing.
    pub(super) of_opening: bool,
}

/// The reasons that are kept.
pub(super) struct Reasons {
    by_node: Mutex<Bounded<NodeKey, Reason>>,
    /// How many there are: mostly none, and then no node has to be described.
    count: AtomicUsize,
}

impl Default for Reasons {
    fn default() -> Self {
        Reasons { by_node: Mutex::new(Bounded::counted(KEPT)), count: AtomicUsize::new(0) }
    }
}

impl Reasons {
    fn change<T>(&self, change: impl FnOnce(&mut Bounded<NodeKey, Reason>) -> T) -> T {
        let mut by_node = self.by_node.lock();
        let changed = change(&mut by_node);
        self.count.store(by_node.len(), Ordering::Relaxed);
        changed
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.change(Bounded::clear);
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Keeps the reason of a node and marks it so, in one step.
    pub(super) fn put(&self, node: NodeKey, last: &LastError, reason: Reason) {
        self.change(|by_node| {
            last.set_fine(false);
            by_node.put(node, reason);
        });
    }

    pub(super) fn get(&self, node: &InodeNode) -> Option<Reason> {
        if self.is_empty() {
            return None;
        }
        let key = NodeKey::of(node);
        self.by_node.lock().get(&key).cloned()
    }

    /// Forgets the reason of a node and marks it so, in one step.
    pub(super) fn remove(&self, node: &InodeNode, last: &LastError) {
        let key = (!self.is_empty()).then(|| NodeKey::of(node));
        self.change(|by_node| {
            key.and_then(|key| by_node.remove(&key));
            last.set_fine(true);
        });
    }
}

/// What a node stands for, however often the kernel forgets its inode.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum NodeKey {
    /// To name a file its path is looked for in the whole package, and its number is at hand.
    File(Reference, FileNo),
    /// A platform's directory and its zip are called alike and fail apart.
    Zip(Subject),
    /// Any other.
    Named(Subject),
}

impl NodeKey {
    pub(super) fn of(node: &InodeNode) -> NodeKey {
        match node {
            InodeNode::File { package, number, .. } => NodeKey::File(package.reference(), *number),
            InodeNode::Zip(_) => NodeKey::Zip(node.subject()),
            _ => NodeKey::Named(node.subject()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded_and_the_oldest_go() {
        let reasons = Reasons::default();
        let reason = Reason { sentence: "x".into(), of_opening: true };
        let key = |n: usize| NodeKey::Named(format!("node {n}").into());
        for n in 0..=KEPT {
            reasons.put(key(n), &LastError::default(), reason.clone());
        }
        let kept = reasons.by_node.into_inner();
        assert!(kept.iter().rev().map(|(key, _)| key.clone()).eq((1..=KEPT).map(key)));
    }
}
