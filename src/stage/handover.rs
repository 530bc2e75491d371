//! Giving the stage to another process: of two processes that have one directory, one commits.
//!
//! What is open for writing in the process that gave it is written until it is closed. It locks each
//! such file, shared; who has the stage commits no release in which a file is locked. A lock ends
//! with the open file, however its process ends.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::Stage;
use super::tree::{FILE, PLAIN_DIRECTORY, list, open_plain};
use crate::disk::lock;
use crate::failure::Refusal;

/// Whether commits are taken, and those that are under way.
#[derive(Default)]
pub(super) struct Commits {
    given: Arc<RwLock<Given>>,
    /// Whether another process had the stage before.
    inherited: AtomicBool,
}

/// Whether another process has the stage.
#[derive(Default)]
pub(super) struct Given(bool);

/// A commit that is under way: the stage stays while it lives.
pub(super) struct UnderWay {
    _commits: OwnedRwLockReadGuard<Given>,
}

impl Commits {
    /// Begins a commit, when nobody is about to take the stage; `None` if another process has it.
    pub(super) async fn begin(&self) -> Option<UnderWay> {
        let commits = Arc::clone(&self.given).read_owned().await;
        (!commits.0).then_some(UnderWay { _commits: commits })
    }

    /// The same, if it can be said at once.
    pub(super) fn begin_now(&self) -> Option<UnderWay> {
        let commits = Arc::clone(&self.given).try_read_owned().ok()?;
        (!commits.0).then_some(UnderWay { _commits: commits })
    }
}

/// A stage at rest: no commit is under way, and new ones wait until this is dropped or given.
pub struct StageAtRest(OwnedRwLockWriteGuard<Given>);

impl StageAtRest {
    /// Another process has the stage from now on. Commits that wait are told so.
    pub fn give(mut self) {
        self.0.0 = true;
    }
}

impl Stage {
    /// Another process had the stage until now, and may have files open for writing.
    pub fn inherit(&self) {
        self.going.inherited.store(true, Ordering::Release);
    }

    /// A file below `dir` that the process before has open for writing.
    pub(super) fn held_before(
        &self,
        dir: BorrowedFd,
        subject: &str,
    ) -> Result<Option<String>, Refusal> {
        if self.going.inherited.load(Ordering::Acquire) { held(dir, subject) } else { Ok(None) }
    }

    /// Waits until the commits that are under way have ended, and has later ones wait.
    pub async fn rest(&self) -> StageAtRest {
        StageAtRest(Arc::clone(&self.going.given).write_owned().await)
    }
}

fn held(dir: BorrowedFd, subject: &str) -> Result<Option<String>, Refusal> {
    for (name, kind) in list(dir, subject)? {
        let shown = || format!("{subject}/{}", String::from_utf8_lossy(&name));
        match kind {
            FileType::Directory => {
                let inner =
                    open_plain(dir, &name, PLAIN_DIRECTORY).map_err(|e| Refusal::io(shown(), e))?;
                if let Some(found) = held(inner.as_fd(), &shown())? {
                    return Ok(Some(found));
                }
            }
            FileType::RegularFile => {
                let file = open_plain(dir, &name, FILE).map_err(|e| Refusal::io(shown(), e))?;
                if !lock::try_lock(&file).map_err(|e| Refusal::io(shown(), e))? {
                    return Ok(Some(shown()));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}
