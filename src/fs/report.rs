//! What went wrong lately, for the log and for `tofufs status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::{Errno, FsError};
use super::reasons::NodeKey;
use crate::bounded::Bounded;
use crate::facts::{Download, Health};
use crate::moment::Moment;
use crate::name::Host;

/// How many sentences are kept.
const KEPT: usize = 20;
/// A sentence that was logged is not logged again for so long, however often its file is read.
const QUIET: Duration = Duration::from_secs(10);
/// How many logged sentences are remembered; past it the oldest may be logged again too soon.
const LOGGED: usize = 1024;

/// Why something failed, and when it did so last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// The sentence.
    pub sentence: Arc<str>,
    /// What the caller was told.
    pub errno: Errno,
    /// When it failed last.
    pub at: Moment,
}

struct ReportedFailure {
    /// What it is about.
    node: NodeKey,
    /// The registry whose being out of reach was the reason.
    out_of_reach: Option<Host>,
    failed: Failed,
}

/// The last failures that no success has ended, by what is said of them.
type LastFailures = Bounded<Arc<str>, ReportedFailure>;

/// See the module.
pub(super) struct FailureLog {
    entries: Mutex<LastFailures>,
    /// How many there are: mostly none, and then no node has to be described.
    count: AtomicUsize,
    /// When sentences were logged.
    logged: Mutex<Bounded<Arc<str>, Instant>>,
}

impl Default for FailureLog {
    fn default() -> Self {
        FailureLog {
            entries: Mutex::new(Bounded::counted(KEPT)),
            count: AtomicUsize::new(0),
            logged: Mutex::new(Bounded::counted(LOGGED)),
        }
    }
}

impl FailureLog {
    fn change<T>(&self, change: impl FnOnce(&mut LastFailures) -> T) -> T {
        let mut entries = self.entries.lock();
        let changed = change(&mut entries);
        self.count.store(entries.len(), Ordering::Relaxed);
        changed
    }

    /// Keeps that `node` failed.
    pub(super) fn add(&self, node: NodeKey, error: &FsError, sentence: &Arc<str>) {
        let failed = Failed { sentence: sentence.clone(), errno: error.errno, at: Moment::now() };
        let out_of_reach = error.out_of_reach().cloned();
        let failure = ReportedFailure { node, out_of_reach, failed };
        self.change(|entries| entries.put(sentence.clone(), failure));
        if self.is_news(sentence, Instant::now()) {
            log(error.errno, sentence);
        }
    }

    /// Whether the sentence is to be logged, which then counts as done.
    fn is_news(&self, sentence: &Arc<str>, now: Instant) -> bool {
        let mut logged = self.logged.lock();
        let is_news = logged.get(sentence).is_none_or(|at| now.duration_since(*at) >= QUIET);
        if is_news {
            logged.put(sentence.clone(), now);
        }
        is_news
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// `node` did not fail: what was kept of it is over.
    pub(super) fn ended(&self, node: &NodeKey) {
        self.change(|entries| entries.retain(|_, entry| entry.node != *node));
    }

    /// Those that are kept, the oldest first, but for those that were about a registry's being out
    /// of reach that `answers` now.
    pub(super) fn standing(&self, answers: impl Fn(&Host) -> bool) -> Vec<Failed> {
        self.change(|entries| {
            entries.retain(|_, entry| !entry.out_of_reach.as_ref().is_some_and(&answers));
            entries.iter().rev().map(|(_, entry)| entry.failed.clone()).collect()
        })
    }
}

/// Logs a failure. The log gives each place that writes to it an allowance of its own, and each
/// kind of failure has such a place here: a reader who provokes one of them leaves room for the
/// others.
fn log(errno: Errno, sentence: &str) {
    macro_rules! log_here {
        () => {
            tracing::warn!("{sentence} ({errno:?})")
        };
    }
    match errno {
        Errno::EHOSTUNREACH | Errno::ETIMEDOUT => log_here!(),
        Errno::EACCES => log_here!(),
        Errno::EBADMSG | Errno::EFBIG | Errno::EOPNOTSUPP | Errno::EPROTO => log_here!(),
        _ => log_here!(),
    }
}

/// The state of a mount.
#[derive(Clone, Debug)]
pub struct MountReport {
    /// The sources as the user named them, and how they are.
    pub sources: Vec<(String, Health)>,
    /// The last distinct failures that no success has ended, oldest first.
    pub errors: Vec<Failed>,
    /// The downloads that are under way.
    pub downloads: Vec<Download>,
    /// How many inodes the kernel holds.
    pub inodes: usize,
    /// Bytes in the cache.
    pub cache_bytes: u64,
    /// The cache's budget, in bytes.
    pub cache_limit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Failure, Refusal, Subject};

    #[test]
    fn a_sentence_is_logged_once_in_a_while_however_many_there_are() {
        let (log, start) = (FailureLog::default(), Instant::now());
        let all: Vec<Arc<str>> = (0..100).map(|n| format!("sentence {n}").into()).collect();
        let news = |now| all.iter().filter(|sentence| log.is_news(sentence, now)).count();
        assert_eq!((news(start), news(start + QUIET / 2)), (100, 0));
        assert_eq!((news(start + QUIET), news(start + QUIET)), (100, 0));
    }

    #[test]
    fn a_failure_is_kept_until_it_is_ended_and_one_of_reach_until_its_registry_answers() {
        let log = FailureLog::default();
        let fail = |node: &NodeKey, failure, subject: Subject| {
            let error = FsError::from(Refusal::new(failure, subject, "failed"));
            log.add(node.clone(), &error, &error.sentence().unwrap());
        };
        let kept = |well: &str| -> Vec<String> {
            let answers = |host: &Host| host.as_str() == well;
            log.standing(answers).into_iter().map(|failed| failed.sentence.to_string()).collect()
        };
        assert!(log.is_empty());
        let release = |tag| Subject::Reference(format!("a.b/net:{tag}").parse().unwrap());
        let registry = Subject::Registry("c.d".parse().unwrap());
        let view = NodeKey::Named("plugins/a.b/x/y".into());
        fail(&NodeKey::Named(release(1)), Failure::Unreachable, release(1));
        fail(&NodeKey::Zip(release(2)), Failure::Integrity, release(2));
        fail(&NodeKey::Named(registry.clone()), Failure::Untrusted, registry);
        fail(&view, Failure::Offline, "plugins/a.b/x/y".into());
        assert_eq!(kept("e.f").len(), 4);
        assert_eq!(kept("a.b"), ["a.b/net:2: failed", "c.d: failed", "plugins/a.b/x/y: failed"]);
        log.ended(&NodeKey::Zip(release(2)));
        log.ended(&view);
        assert_eq!(kept("e.f"), ["c.d: failed"]);
        assert!(kept("c.d").is_empty() && log.is_empty());
    }
}
