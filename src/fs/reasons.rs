//! Why operations failed: `user.tofufs.error`.
//!
//! A reason belongs to what a node stands for, not to its inode: the kernel forgets inodes when it
//! needs memory, and what is refused stays so. So reasons are kept beside the inodes, and a node
//! asks for its own when it is new.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::node::{InodeNode, LastError};
use crate::failure::Subject;
use crate::members::FileNo;
use crate::name::Reference;

/// How many reasons are kept; past it the oldest go.
const KEPT: usize = 1024;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reason {
    pub(super) sentence: Arc<str>,
    /// Whether opening the node failed, so that looking at a name in it proves nothing.
    pub(super) of_opening: bool,
}

#[derive(Default)]
struct ReasonTable {
    by_node: HashMap<NodeKey, Reason>,
    /// The nodes in the order in which they came, some of them gone meanwhile.
    order: VecDeque<NodeKey>,
}

/// The reasons that are kept.
#[derive(Default)]
pub(super) struct Reasons {
    table: Mutex<ReasonTable>,
    /// How many there are: mostly none, and then no node has to be described.
    count: AtomicUsize,
}

impl Reasons {
    fn change<T>(&self, change: impl FnOnce(&mut ReasonTable) -> T) -> T {
        let mut table = self.table.lock();
        let changed = change(&mut table);
        self.count.store(table.by_node.len(), Ordering::Relaxed);
        changed
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.change(|table| *table = ReasonTable::default());
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Keeps the reason of a node and marks it so, in one step.
    pub(super) fn put(&self, node: NodeKey, last: &LastError, reason: Reason) {
        self.change(|table| {
            last.set_fine(false);
            if table.by_node.insert(node.clone(), reason).is_none() {
                table.order.push_back(node);
            }
            while table.order.len() > KEPT {
                if let Some(oldest) = table.order.pop_front() {
                    table.by_node.remove(&oldest);
                }
            }
        });
    }

    pub(super) fn get(&self, node: &InodeNode) -> Option<Reason> {
        if self.is_empty() {
            return None;
        }
        let key = NodeKey::of(node);
        self.change(|table| table.by_node.get(&key).cloned())
    }

    /// Forgets the reason of a node and marks it so, in one step.
    pub(super) fn remove(&self, node: &InodeNode, last: &LastError) {
        let key = (!self.is_empty()).then(|| NodeKey::of(node));
        self.change(|table| {
            if let Some(key) = key
                && table.by_node.remove(&key).is_some()
            {
                table.order.retain(|other| *other != key);
            }
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
        for n in 0..=KEPT {
            reasons.put(
                NodeKey::Named(format!("node {n}").into()),
                &LastError::default(),
                reason.clone(),
            );
        }
        let (first, last, count) = reasons.change(|table| {
            let has =
                |n: usize| table.by_node.contains_key(&NodeKey::Named(format!("node {n}").into()));
            (has(0), has(KEPT), table.by_node.len())
        });
        assert_eq!((first, last, count), (false, true, KEPT));
    }
}
