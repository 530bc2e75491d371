//! What went wrong lately, for the log and for `tofufs status`.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::path::{Component as PathComponent, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::node::InodeNode;
use super::reasons::NodeKey;
use super::{Errno, Fs, FsError};
use crate::facts::{Download, Health};
use crate::moment::Moment;
use crate::name::{Component, Host, RepoName, Selector};
use crate::tree::Need;

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

/// The last failures that no success has ended.
#[derive(Default)]
pub(super) struct FailureLog {
    entries: Mutex<VecDeque<ReportedFailure>>,
    /// How many there are: mostly none, and then no node has to be described.
    count: AtomicUsize,
    logged: Mutex<Logged>,
}

/// When sentences were logged, as far as that was lately.
#[derive(Default)]
struct Logged {
    at: HashMap<Arc<str>, Instant>,
    /// The same, oldest first.
    order: VecDeque<(Arc<str>, Instant)>,
}

impl Logged {
    /// Whether the sentence is to be logged, which then counts as done.
    fn is_news(&mut self, sentence: &Arc<str>, now: Instant) -> bool {
        let past = |at: Instant| now.duration_since(at) >= QUIET;
        while self.order.front().is_some_and(|(_, at)| past(*at) || self.order.len() >= LOGGED) {
            if let Some((oldest, _)) = self.order.pop_front() {
                self.at.remove(&oldest);
            }
        }
        let is_news = !self.at.contains_key(sentence);
        if is_news {
            self.at.insert(sentence.clone(), now);
            self.order.push_back((sentence.clone(), now));
        }
        is_news
    }
}

impl FailureLog {
    fn change<T>(&self, change: impl FnOnce(&mut VecDeque<ReportedFailure>) -> T) -> T {
        let mut entries = self.entries.lock();
        let changed = change(&mut entries);
        self.count.store(entries.len(), Ordering::Relaxed);
        changed
    }

    /// Keeps that `node` failed.
    pub(super) fn add(&self, node: NodeKey, error: &FsError, sentence: &Arc<str>) {
        self.change(|entries| {
            entries.retain(|entry| entry.failed.sentence != *sentence);
            let failed =
                Failed { sentence: sentence.clone(), errno: error.errno, at: Moment::now() };
            let out_of_reach = error.out_of_reach().cloned();
            entries.push_back(ReportedFailure { node, out_of_reach, failed });
            if entries.len() > KEPT {
                entries.pop_front();
            }
        });
        if self.logged.lock().is_news(sentence, Instant::now()) {
            log(error.errno, sentence);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// `node` did not fail: what was kept of it is over.
    pub(super) fn ended(&self, node: &NodeKey) {
        self.change(|entries| entries.retain(|entry| entry.node != *node));
    }

    /// Those that are kept, the oldest first, but for those that were about a registry's being out
    /// of reach that `answers` now.
    fn standing(&self, answers: impl Fn(&Host) -> bool) -> Vec<Failed> {
        self.change(|entries| {
            entries.retain(|entry| !entry.out_of_reach.as_ref().is_some_and(&answers));
            entries.iter().map(|entry| entry.failed.clone()).collect()
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

impl Fs {
    /// The state of the mount.
    pub fn report(&self) -> MountReport {
        let usage = self.facts.store().usage();
        MountReport {
            sources: self.facts.sources(),
            errors: self.report.standing(|host| self.facts.is_well(host)),
            downloads: self.facts.content().downloads(),
            inodes: self.inodes.count(),
            cache_bytes: usage.bytes,
            cache_limit: usage.limit,
        }
    }

    /// How many inodes the kernel knows.
    pub fn inodes(&self) -> usize {
        self.inodes.count()
    }

    /// Forgets tags, lists and refusals at and below `path` (from the mount's root). Yields the
    /// directory entries that the kernel has to drop, as number of the directory and name; they
    /// must not be dropped from inside an operation of this file system.
    pub fn refresh(&self, path: &Path) -> Vec<(u64, Box<OsStr>)> {
        self.reasons.clear();
        let components: Vec<&str> = path
            .components()
            .filter_map(|c| match c {
                PathComponent::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect();
        if let Some((view, rest)) = components.split_first()
            && self.views().any(|v| v.name() == *view)
        {
            return self.refresh_view(rest);
        }
        let below = Below::parse(&components);
        self.facts.forget(|need| below.holds_edge(need));
        self.inodes.places(|node| match node {
            InodeNode::Space { space, .. } => {
                below.holds(space.host.as_str(), space.path.as_ref(), None)
            }
            InodeNode::Release(release) => {
                let reference = &release.reference;
                let tag = match &reference.selector {
                    Selector::Tag(tag) => Some(tag.as_str()),
                    Selector::Digest(_) => None,
                };
                below.holds(reference.repo.host.as_str(), Some(&reference.repo.name), tag)
            }
            _ => false,
        })
    }
}

/// What lies at or below a path, read both ways: as a repository (or a prefix of one), and as a tag
/// in one.
struct Below<'a> {
    host: Option<&'a str>,
    names: Vec<RepoName>,
    /// A tag and its repository.
    tag: Option<(RepoName, String)>,
}

impl<'a> Below<'a> {
    fn parse(components: &[&'a str]) -> Self {
        let Some((host, rest)) = components.split_first() else {
            return Below { host: None, names: Vec::new(), tag: None };
        };
        let mut at: Option<RepoName> = None;
        let mut below = Below { host: Some(host), names: Vec::new(), tag: None };
        for (i, component) in rest.iter().enumerate() {
            let last = i + 1 == rest.len();
            if let Component::Manifest(name, selector) = Component::parse(component) {
                if let (Some(repo), Selector::Tag(tag)) =
                    (RepoName::below(at.as_ref(), &name), selector)
                {
                    below.tag = Some((repo, tag.to_string()));
                }
                return below;
            }
            if last && let Some(repo) = &at {
                below.tag = Some((repo.clone(), (*component).to_owned()));
            }
            match RepoName::below(at.as_ref(), component) {
                Some(next) => at = Some(next),
                None => return below,
            }
        }
        below.names.extend(at);
        below
    }

    fn holds(&self, host: &str, name: Option<&RepoName>, tag: Option<&str>) -> bool {
        let Some(wanted) = self.host else { return true };
        if wanted != host {
            return false;
        }
        if self.names.is_empty() && self.tag.is_none() {
            return true;
        }
        let by_name = name.is_some_and(|name| self.names.iter().any(|n| name.is_within(Some(n))));
        let by_tag = match (&self.tag, name, tag) {
            (Some((repo, wanted)), Some(name), Some(tag)) => repo == name && wanted == tag,
            _ => false,
        };
        by_name || by_tag
    }

    fn holds_edge(&self, need: &Need) -> bool {
        let host = need.host().as_str();
        match need {
            Need::Tags(repo) => {
                let of_tag = self.tag.as_ref().is_some_and(|(wanted, _)| *wanted == repo.name);
                self.holds(host, Some(&repo.name), None) || of_tag && self.host == Some(host)
            }
            Need::Binding(repo, tag) | Need::Platforms(repo, tag) => {
                self.holds(host, Some(&repo.name), Some(tag.as_str()))
            }
            Need::Catalog(_) | Need::Held(_) => self.host.is_none_or(|h| h == host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Failure, Refusal, Subject};
    use crate::name::Repo;

    #[test]
    fn a_sentence_is_logged_once_in_a_while_however_many_there_are() {
        let (mut sentences, start) = (Logged::default(), Instant::now());
        let all: Vec<Arc<str>> = (0..100).map(|n| format!("sentence {n}").into()).collect();
        let mut news = |now| all.iter().filter(|sentence| sentences.is_news(sentence, now)).count();
        assert_eq!((news(start), news(start + QUIET / 2)), (100, 0));
        assert_eq!((news(start + QUIET), news(start + QUIET)), (100, 0));
    }

    #[test]
    fn logged_sentences_are_bounded() {
        let (mut sentences, now) = (Logged::default(), Instant::now());
        for n in 0..3 * LOGGED {
            assert!(sentences.is_news(&format!("sentence {n}").into(), now));
        }
        assert_eq!((sentences.at.len(), sentences.order.len()), (LOGGED, LOGGED));
    }

    fn holds(path: &str, need: &Need) -> bool {
        let components: Vec<_> = path.split('/').filter(|c| !c.is_empty()).collect();
        Below::parse(&components).holds_edge(need)
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

    #[test]
    fn a_path_covers_what_lies_at_and_below_it() {
        let repo = |name: &str| Repo { host: "a.b".parse().unwrap(), name: name.parse().unwrap() };
        let tags = Need::Tags(repo("acme/net"));
        let tag = Need::Binding(repo("acme/net"), "1.0".parse().unwrap());
        let other = Need::Binding(repo("acme/net"), "2.0".parse().unwrap());
        for path in ["", "a.b", "a.b/acme", "a.b/acme/net"] {
            assert!(holds(path, &tags) && holds(path, &tag) && holds(path, &other), "{path}");
        }
        for path in ["a.b/acme/net/1.0", "a.b/acme/net:1.0"] {
            assert!(holds(path, &tags) && holds(path, &tag) && !holds(path, &other), "{path}");
        }
        for path in ["c.d", "a.b/ac", "a.b/acme/network"] {
            assert!(!holds(path, &tags) && !holds(path, &tag), "{path}");
        }
    }
}
