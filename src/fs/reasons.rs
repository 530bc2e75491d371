//! Why operations failed: `user.tofufs.error`.
//!
//! A reason belongs to what a node stands for, not to its inode: the kernel forgets inodes when it
//! needs memory, and what is refused stays so. So reasons are kept beside the inodes, and a node
//! asks for its own when it is new.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::node::InodeNode;
use super::{Fs, FsError};
use crate::failure::Subject;
use crate::members::FileNo;
use crate::name::Reference;

/// How many reasons are kept; past it the oldest go.
const KEPT: usize = 1024;

/// What an operation was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    /// Opening or reading the node itself.
    Open,
    /// Looking at a name in it, or at its attributes.
    Look,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Reason {
    sentence: Arc<str>,
    /// Whether opening the node failed, so that looking at a name in it proves nothing.
    of_opening: bool,
}

/// What a node knows of its own reason: one byte, since there may be hundreds of thousands of
/// nodes.
#[derive(Debug, Default)]
pub(super) struct LastError(AtomicBool);

impl LastError {
    /// Whether nothing is kept of the node. Of one that is new something may be.
    fn is_fine(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set_fine(&self, is_fine: bool) {
        self.0.store(is_fine, Ordering::Relaxed);
    }
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
    fn put(&self, node: NodeKey, last: &LastError, reason: Reason) {
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

    fn get(&self, node: &InodeNode) -> Option<Reason> {
        if self.is_empty() {
            return None;
        }
        let key = NodeKey::of(node);
        self.change(|table| table.by_node.get(&key).cloned())
    }

    /// Forgets the reason of a node and marks it so, in one step.
    fn remove(&self, node: &InodeNode, last: &LastError) {
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
    fn of(node: &InodeNode) -> NodeKey {
        match node {
            InodeNode::File { package, number, .. } => NodeKey::File(package.reference(), *number),
            InodeNode::Zip(_) => NodeKey::Zip(node.subject()),
            _ => NodeKey::Named(node.subject()),
        }
    }
}

impl Fs {
    /// Keeps the reason of a failure for `user.tofufs.error`, in the log and in the report. What
    /// went well ends it.
    pub(super) fn note<T>(
        &self,
        node: &InodeNode,
        act: Attempt,
        outcome: Result<T, FsError>,
    ) -> Result<T, FsError> {
        match outcome {
            Ok(value) => {
                self.clear(node, act);
                Ok(value)
            }
            Err(error) => {
                let error = error.about(|| node.subject());
                if let Some(sentence) = error.sentence() {
                    self.report.add(NodeKey::of(node), &error, &sentence);
                    self.set(node, act, sentence);
                }
                Err(error)
            }
        }
    }

    /// Why the last operation on `node` failed.
    pub(super) fn reason(&self, node: &InodeNode) -> Option<Arc<str>> {
        if node.last_error()?.is_fine() {
            return None;
        }
        self.reasons.get(node).map(|reason| reason.sentence)
    }

    fn set(&self, node: &InodeNode, act: Attempt, sentence: Arc<str>) {
        let Some(last) = node.last_error() else { return };
        let of_opening =
            act == Attempt::Open || self.reasons.get(node).is_some_and(|reason| reason.of_opening);
        self.reasons.put(NodeKey::of(node), last, Reason { sentence, of_opening });
    }

    /// What is reported of `node` is over.
    fn ended(&self, node: &InodeNode) {
        if !self.report.is_empty() {
            self.report.ended(&NodeKey::of(node));
        }
    }

    fn clear(&self, node: &InodeNode, act: Attempt) {
        let Some(last) = node.last_error() else { return };
        if last.is_fine() {
            return;
        }
        let is_over = self.reasons.get(node).is_none_or(|before| match (act, node) {
            (Attempt::Open, _) => true,
            // A name that is assumed to be in a release says nothing of it.
            (Attempt::Look, InodeNode::Release(release)) => release.bound().is_some(),
            (
                Attempt::Look,
                InodeNode::Space { .. } | InodeNode::Providers { .. } | InodeNode::Zip(_),
            ) => !before.of_opening,
            (Attempt::Look, _) => true,
        });
        if is_over {
            self.reasons.remove(node, last);
            self.ended(node);
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
