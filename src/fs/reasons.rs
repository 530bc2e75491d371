//! Why operations failed: `user.tofufs.error`.
//!
//! A reason belongs to what a node stands for, not to its inode: the kernel forgets inodes when it needs memory, and
//! what is refused stays so. So reasons are kept beside the inodes, and a node asks for its own when it is new.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::node::Node;
use super::{Fs, FsError};

/// How many reasons are kept; past it the oldest go.
const KEPT: usize = 1024;

/// What an operation was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
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

#[derive(Debug, Default)]
enum State {
    /// The node is new, and a reason may be kept.
    #[default]
    New,
    Fine,
    Failed(Reason),
}

/// Why an operation on a node failed last.
#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<State>);

impl LastError {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Table {
    by_node: HashMap<String, Reason>,
    /// The nodes in the order in which they came, some of them gone meanwhile.
    order: VecDeque<String>,
}

/// The reasons that are kept.
#[derive(Default)]
pub(super) struct Reasons {
    table: Mutex<Table>,
    /// How many there are: mostly none, and then no node has to be described.
    count: AtomicUsize,
}

impl Reasons {
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut table);
        self.count.store(table.by_node.len(), Ordering::Relaxed);
        changed
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.change(|table| *table = Table::default());
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn put(&self, node: String, reason: Reason) {
        self.change(|table| {
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

    fn get(&self, node: &Node) -> Option<Reason> {
        if self.is_empty() {
            return None;
        }
        let key = key(node);
        self.change(|table| table.by_node.get(&key).cloned())
    }

    fn remove(&self, node: &Node) {
        if !self.is_empty() {
            let key = key(node);
            self.change(|table| {
                if table.by_node.remove(&key).is_some() {
                    table.order.retain(|other| *other != key);
                }
            });
        }
    }
}

/// A platform's directory and its zip are described alike and fail apart.
pub(super) fn key(node: &Node) -> String {
    let kind = if matches!(node, Node::Zip(_)) { "zip" } else { "" };
    format!("{kind} {}", node.describe())
}

impl Fs {
    /// Keeps the reason of a failure for `user.tofufs.error`, in the log and in the report. What went well ends it.
    pub(super) fn note<T>(&self, node: &Node, act: Act, outcome: Result<T, FsError>) -> Result<T, FsError> {
        match outcome {
            Ok(value) => {
                self.clear(node, act);
                Ok(value)
            }
            Err(error) => {
                let error = error.about(node);
                if let Some(sentence) = error.sentence() {
                    self.report.add(key(node), &error, &sentence);
                    self.set(node, act, sentence);
                }
                Err(error)
            }
        }
    }

    /// Why the last operation on `node` failed.
    pub(super) fn reason(&self, node: &Node) -> Option<Arc<str>> {
        let mut state = node.last_error()?.lock();
        if let State::New = *state {
            *state = self.reasons.get(node).map_or(State::Fine, State::Failed);
        }
        match &*state {
            State::Failed(reason) => Some(reason.sentence.clone()),
            State::New | State::Fine => None,
        }
    }

    fn set(&self, node: &Node, act: Act, sentence: Arc<str>) {
        let Some(last) = node.last_error() else { return };
        let mut state = last.lock();
        let of_opening = act == Act::Open || matches!(&*state, State::Failed(reason) if reason.of_opening);
        let reason = Reason { sentence, of_opening };
        self.reasons.put(key(node), reason.clone());
        *state = State::Failed(reason);
    }

    /// What is reported of `node` is over.
    fn ended(&self, node: &Node) {
        if !self.report.is_empty() {
            self.report.ended(&key(node));
        }
    }

    fn clear(&self, node: &Node, act: Act) {
        let Some(last) = node.last_error() else { return };
        let mut state = last.lock();
        let before = match &*state {
            State::Fine => return,
            State::New => self.reasons.get(node),
            State::Failed(reason) => Some(reason.clone()),
        };
        let Some(before) = before else {
            *state = State::Fine;
            self.ended(node);
            return;
        };
        let is_over = match (act, node) {
            (Act::Open, _) => true,
            // A name that is assumed to be in a release says nothing of it.
            (Act::Look, Node::Release(release)) => release.bound().is_some(),
            (Act::Look, Node::Space { .. } | Node::Providers { .. } | Node::Zip(_)) => !before.of_opening,
            (Act::Look, _) => true,
        };
        if is_over {
            self.reasons.remove(node);
            self.ended(node);
            *state = State::Fine;
        } else {
            *state = State::Failed(before);
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
            reasons.put(format!("node {n}"), reason.clone());
        }
        let (first, last, count) = reasons.change(|table| {
            let has = |n: usize| table.by_node.contains_key(&format!("node {n}"));
            (has(0), has(KEPT), table.by_node.len())
        });
        assert_eq!((first, last, count), (false, true, KEPT));
    }
}
