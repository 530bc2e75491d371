//! What failed: the reasons that `user.tofufs.error` tells, and the log that `tofufs status` shows.

use std::sync::Arc;

use super::error::FsError;
use super::node::InodeNode;
use super::reasons::{NodeKey, Reason, Reasons};
use super::report::FailureLog;
use crate::metrics::metrics;

/// What an operation was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    /// Opening or reading the node itself.
    Open,
    /// Looking at a name in it, or at its attributes.
    Look,
}

/// See the module.
#[derive(Default)]
pub(super) struct Failures {
    pub(super) reasons: Reasons,
    pub(super) log: FailureLog,
}

impl Failures {
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
                    metrics().failed(error.reason(), &format!("{:?}", error.errno));
                    self.log.add(NodeKey::of(node), &error, &sentence);
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
        if !self.log.is_empty() {
            self.log.ended(&NodeKey::of(node));
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
