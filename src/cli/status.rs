//! `tofufs status`, and the shape of what it prints. Scripts read that shape: fields are added,
//! never changed.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::args::StatusArgs;
use super::control::ControlRequest;
use super::output::{self, CommandError};
use super::privileges::SandboxStatus;
use super::quantity::Size;
use super::{mounts, output::pairs, users};
use crate::facts::{self, Health};
use crate::fs::Failed;
use crate::fuse::session::mountinfo::MountInfo;
use crate::registry::transport::Transport;

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub struct Status {
    /// All mounts, or the one that was asked for.
    pub mounts: Vec<Mount>,
}

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is.
    pub mountpoint: String,
    /// Its process; null if that does not answer.
    pub pid: Option<u32>,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Whether no connection is made.
    pub offline: bool,
    /// In the order of preference.
    pub sources: Vec<SourceStatus>,
    /// The cache; null if the process does not answer.
    pub cache: Option<Cache>,
    /// What is staged.
    pub staged: Vec<StagedStatus>,
    /// HTTP requests since the mount, token requests and those answered 401 aside.
    pub requests: RequestCounts,
    /// The last different errors that nothing has ended, the oldest first.
    pub errors: Vec<String>,
    /// The same with their times.
    #[serde(default)]
    pub failures: Vec<ReportedError>,
    /// What is being fetched now.
    #[serde(default)]
    pub downloads: Vec<DownloadStatus>,
    /// The file that the mount logs to; null if it is none, or not known.
    #[serde(default)]
    pub log: Option<String>,
    /// What its process cannot do any more; null if it does not tell.
    #[serde(default)]
    pub sandbox: Option<SandboxStatus>,
    /// Who mounted it, where that is another user and the rest is not to be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// An error with its time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportedError {
    /// When it came up last (RFC 3339).
    pub time: String,
    /// What readers were told, as in `EACCES`.
    pub errno: String,
    /// The sentence.
    pub error: String,
}

impl ReportedError {
    /// That of a report.
    pub fn of(failed: &Failed) -> ReportedError {
        ReportedError {
            time: failed.at.to_string(),
            errno: format!("{:?}", failed.errno),
            error: failed.sentence.to_string(),
        }
    }
}

/// A blob that is being fetched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DownloadStatus {
    /// Which one.
    pub reference: String,
    /// How many bytes came.
    pub bytes: u64,
    /// Of how many.
    pub size: u64,
    /// How many came lately in a second.
    pub bytes_per_second: u64,
    /// The processes that wait for it.
    pub waiting: Vec<Waiting>,
}

/// A process that waits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

impl DownloadStatus {
    /// That of a report; threads that wait are told as their processes.
    pub fn of(download: &facts::Download) -> DownloadStatus {
        let waiting: BTreeSet<Waiting> =
            download.waiting.iter().filter_map(|thread| waiting(*thread)).collect();
        DownloadStatus {
            reference: download.subject.clone(),
            bytes: download.bytes,
            size: download.size,
            bytes_per_second: download.rate,
            waiting: waiting.into_iter().collect(),
        }
    }
}

/// The process of a thread; `None` if it is gone, or not to be seen from here.
fn waiting(thread: u32) -> Option<Waiting> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let pid = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Waiting { pid, name: name.trim_end().to_owned() })
}

/// One source of a mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    /// As it was given.
    pub name: String,
    /// What it answered last.
    pub state: SourceStateText,
    /// The addresses of its mirrors, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// Why it fails, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When that was seen (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

impl SourceStatus {
    /// A source without mirrors, as it was seen last.
    pub fn new(name: String, health: Option<&Health>) -> SourceStatus {
        let state = health.map_or(SourceStateText::Unknown, |health| health.state.into());
        let failing = health.filter(|health| health.state.is_failing());
        let reason = failing.and_then(|health| health.reason.as_deref().map(str::to_owned));
        SourceStatus {
            name,
            state,
            mirrors: Vec::new(),
            reason,
            time: failing.map(|health| health.at.to_string()),
        }
    }

    /// What is wrong with it, as one sentence with its time.
    fn problem(&self) -> Option<String> {
        let time = self.time.as_ref()?;
        let reason = self.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        Some(format!("{time}  {} is {}{reason}", self.name, self.state.word()))
    }
}

/// What a source answered last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceStateText {
    /// It was not asked yet.
    Unknown,
    /// It answered.
    Ok,
    /// It lets nobody in.
    Denied,
    /// Its certificate does not hold.
    Untrusted,
    /// It did not answer.
    Unreachable,
}

impl SourceStateText {
    fn word(self) -> &'static str {
        match self {
            SourceStateText::Unknown => "not asked yet",
            SourceStateText::Ok => "ok",
            SourceStateText::Denied => "denied",
            SourceStateText::Untrusted => "untrusted",
            SourceStateText::Unreachable => "unreachable",
        }
    }
}

impl From<facts::SourceState> for SourceStateText {
    fn from(state: facts::SourceState) -> SourceStateText {
        match state {
            facts::SourceState::Unknown => SourceStateText::Unknown,
            facts::SourceState::Ok => SourceStateText::Ok,
            facts::SourceState::Denied => SourceStateText::Denied,
            facts::SourceState::Untrusted => SourceStateText::Untrusted,
            facts::SourceState::Unreachable => SourceStateText::Unreachable,
        }
    }
}

/// The cache of a mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cache {
    /// Its directory.
    pub dir: String,
    /// What it holds, in bytes.
    pub bytes: u64,
    /// What it may hold, in bytes.
    pub limit: u64,
}

/// Something in staging.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StagedStatus {
    /// Below the mount point.
    pub path: String,
    /// `open`, `sealed`, `uploading` or `failed`.
    pub state: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// HTTP requests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct RequestCounts {
    /// All.
    pub total: u64,
    /// Those for blobs.
    pub blob: u64,
}

impl RequestCounts {
    /// Those that were sent so far.
    pub fn of(transport: &Transport) -> RequestCounts {
        let requests = transport.requests();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts { total: count(&requests.total), blob: count(&requests.blob) }
    }
}

/// Asks the mounts' processes and prints. A mount that does not answer is shown with the reason;
/// asking for it alone is then a failure.
pub fn run(args: &StatusArgs) -> Result<(), CommandError> {
    let entries = match &args.mountpoint {
        Some(mountpoint) => vec![mounts::at(mountpoint)?],
        None => mounts::all()?,
    };
    let answers: Vec<Result<Mount, String>> = entries.iter().map(ask).collect();
    let failure = answers.iter().find_map(|answer| answer.as_ref().err().cloned());
    let mounts = entries
        .iter()
        .zip(answers)
        .map(|(entry, answer)| answer.unwrap_or_else(|e| silent(entry, e)));
    let status = Status { mounts: mounts.collect() };
    if args.json {
        output::json(&status)?;
    } else {
        output::text(status.mounts.iter().map(described).collect::<Vec<_>>().join("\n"))?;
    }
    match (&args.mountpoint, failure) {
        (Some(mountpoint), Some(reason)) => {
            Err(CommandError::Failed(format!("{}: {reason}", mountpoint.display())))
        }
        _ => Ok(()),
    }
}

fn ask(entry: &MountInfo) -> Result<Mount, String> {
    if let Some(owner) = entry.foreign_owner() {
        return anothers(entry, owner);
    }
    let connection = match (mounts::connect(entry), entry.owner) {
        (Ok(connection), _) => connection,
        // Root looks into no mount that its owner has closed to all others.
        (Err(_), Some(owner)) if owner != rustix::process::geteuid().as_raw() => {
            return anothers(entry, owner);
        }
        (Err(reason), _) => return Err(reason),
    };
    let answer = connection.ask(&ControlRequest::Status(()))?;
    let mount: Mount =
        serde_json::from_value(answer).map_err(|e| format!("its answer cannot be read: {e}"))?;
    // Where this mount is seen from here, which may be another place than where it was made.
    Ok(Mount { mountpoint: entry.point.to_string_lossy().into_owned(), ..mount })
}

/// A mount whose process answers this user.
pub fn of(entry: &MountInfo) -> Option<Mount> {
    ask(entry).ok()
}

/// What anybody may know of another user's mount: whose it is, and whether it is dead.
fn anothers(entry: &MountInfo, owner: u32) -> Result<Mount, String> {
    let owner = users::shown(owner);
    match mounts::is_dead(&entry.point) {
        Some(false) => Ok(Mount { owner: Some(owner), ..in_table(entry) }),
        Some(true) => Err(format!("the user {owner} mounted it, and its process is gone")),
        None => Err(format!("the user {owner} mounted it, and its process does not answer")),
    }
}

fn silent(entry: &MountInfo, reason: String) -> Mount {
    Mount { errors: vec![reason], ..in_table(entry) }
}

/// A mount of which nothing is known but its place in the mount table.
fn in_table(entry: &MountInfo) -> Mount {
    Mount {
        mountpoint: entry.point.to_string_lossy().into_owned(),
        pid: None,
        read_only: false,
        offline: false,
        sources: vec![SourceStatus::new(entry.source.clone(), None)],
        cache: None,
        staged: Vec::new(),
        requests: RequestCounts::default(),
        errors: Vec::new(),
        failures: Vec::new(),
        downloads: Vec::new(),
        log: None,
        sandbox: None,
        owner: None,
    }
}

fn described(mount: &Mount) -> String {
    let mut rows: Vec<_> =
        mount.sources.iter().filter_map(|source| Some(("problem", source.problem()?))).collect();
    match mount.pid {
        Some(pid) => rows.extend(known(mount, pid)),
        None => rows.extend(of_table(mount)),
    }
    block(&mount.mountpoint, &rows)
}

fn of_table(mount: &Mount) -> Vec<StatusRow> {
    let sources = mount.sources.iter().map(|source| ("source", source.name.clone()));
    let shown = |owner| {
        format!("{owner}, who is told more, as is root where it is mounted with --allow-other")
    };
    let owner = mount.owner.iter().map(|owner| ("owner", shown(owner)));
    sources.chain(owner).chain(mount.errors.iter().map(|error| ("error", error.clone()))).collect()
}

fn known(mount: &Mount, pid: u32) -> Vec<StatusRow> {
    let mut rows = vec![("process", pid.to_string())];
    let words = [(mount.read_only, "read-only"), (mount.offline, "offline")];
    let words: Vec<&str> =
        words.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect();
    if !words.is_empty() {
        rows.push(("mode", words.join(", ")));
    }
    for source in &mount.sources {
        rows.push(("source", format!("{} ({})", source.name, source.state.word())));
        rows.extend(
            source.mirrors.iter().map(|mirror| ("mirror", format!("{mirror} of {}", source.name))),
        );
    }
    if let Some(cache) = &mount.cache {
        rows.push((
            "cache",
            format!("{}: {} of {}", cache.dir, Size(cache.bytes), Size(cache.limit)),
        ));
    }
    rows.extend(mount.sandbox.iter().map(|sandbox| ("sandbox", sandbox.described())));
    rows.extend(mount.log.iter().map(|log| ("log", log.clone())));
    rows.extend(mount.staged.iter().map(|staged| ("staged", staging(staged))));
    rows.extend(mount.downloads.iter().map(|download| ("download", downloading(download))));
    rows.push((
        "requests",
        format!("{}, {} of them for blobs", mount.requests.total, mount.requests.blob),
    ));
    let failure = |failure: &ReportedError| {
        format!("{}  {} ({})", failure.time, failure.error, failure.errno)
    };
    rows.extend(mount.failures.iter().map(|failed| ("error", failure(failed))));
    rows
}

fn staging(staged: &StagedStatus) -> String {
    let error = staged.error.as_deref().map(|e| format!(": {e}")).unwrap_or_default();
    format!("{} ({}{error})", staged.path, staged.state)
}

fn downloading(download: &DownloadStatus) -> String {
    let DownloadStatus { reference, bytes, size, bytes_per_second: rate, waiting } = download;
    let waiting: Vec<String> =
        waiting.iter().map(|process| format!("{} ({})", process.name, process.pid)).collect();
    let waiting = if waiting.is_empty() {
        "nobody waits".to_owned()
    } else {
        format!("for {}", waiting.join(", "))
    };
    format!("{reference}: {} of {}, {}/s, {waiting}", Size(*bytes), Size(*size), Size(*rate))
}

/// A name and a value.
type StatusRow = (&'static str, String);

fn block(heading: &str, rows: &[StatusRow]) -> String {
    let mut text = format!("{}\n", output::printable(heading));
    for line in pairs(rows).lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::privileges::{LandlockStatus, SeccompStatus};

    fn mount() -> Mount {
        Mount {
            mountpoint: "/mnt".into(),
            pid: Some(7),
            read_only: true,
            offline: false,
            sources: vec![SourceStatus {
                name: "ghcr.io/acme".into(),
                state: SourceStateText::Ok,
                mirrors: vec![],
                reason: None,
                time: None,
            }],
            cache: Some(Cache { dir: "/c".into(), bytes: 1, limit: 2 }),
            staged: Vec::new(),
            requests: RequestCounts { total: 3, blob: 1 },
            errors: vec!["x".into()],
            failures: vec![ReportedError {
                time: "2026-11-29T18:20:11Z".into(),
                errno: "EIO".into(),
                error: "x".into(),
            }],
            downloads: Vec::new(),
            log: Some("/l".into()),
            sandbox: Some(SandboxStatus {
                capabilities: vec![],
                no_new_privs: true,
                seccomp: SeccompStatus::Filter,
                landlock: LandlockStatus::Files,
                broker_gone: false,
            }),
            owner: None,
        }
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let text = serde_json::to_string(&Status { mounts: vec![mount()] }).unwrap();
        assert_eq!(
            text,
            r#"{"mounts":[{"mountpoint":"/mnt","pid":7,"read_only":true,"offline":false,"sources":[{"name":"ghcr.io/acme","state":"ok"}],"cache":{"dir":"/c","bytes":1,"limit":2},"staged":[],"requests":{"total":3,"blob":1},"errors":["x"],"failures":[{"time":"2026-11-29T18:20:11Z","errno":"EIO","error":"x"}],"downloads":[],"log":"/l","sandbox":{"capabilities":[],"no_new_privs":true,"seccomp":"filter","landlock":"files"}}]}"#
        );
        assert_eq!(
            serde_json::to_string(&SourceStateText::Unreachable).unwrap(),
            r#""unreachable""#
        );
        assert_eq!(serde_json::to_string(&SourceStateText::Unknown).unwrap(), r#""unknown""#);
        assert_eq!(serde_json::to_string(&SourceStateText::Untrusted).unwrap(), r#""untrusted""#);
        assert_eq!(serde_json::to_string(&SourceStateText::Denied).unwrap(), r#""denied""#);
    }

    #[test]
    fn people_read_one_block_per_mount() {
        let text = described(&mount());
        assert_eq!(
            text,
            "/mnt\n  process   7\n  mode      read-only\n  source    ghcr.io/acme (ok)\n  cache     /c: 1 B of 2 B\n  \
             sandbox   no capabilities, no_new_privs, seccomp: filter, landlock: files\n  log       /l\n  requests  3, 1 of them for blobs\n  error     2026-11-29T18:20:11Z  x (EIO)\n"
        );
        let silent = Mount { pid: None, cache: None, ..mount() };
        assert_eq!(described(&silent), "/mnt\n  source  ghcr.io/acme\n  error   x\n");
    }
    #[test]
    fn a_source_that_fails_is_told_first_and_with_its_time() {
        let source = SourceStatus {
            name: "r.example".into(),
            state: SourceStateText::Untrusted,
            mirrors: vec![],
            reason: Some("no TLS; trust it".into()),
            time: Some("2026-11-29T18:20:11Z".into()),
        };
        let text = described(&Mount { sources: vec![source], ..mount() });
        let first = text.lines().nth(1).unwrap();
        assert_eq!(
            first,
            "  problem   2026-11-29T18:20:11Z  r.example is untrusted: no TLS; trust it"
        );
        assert!(text.contains("  source    r.example (untrusted)\n"), "{text}");
    }

    #[test]
    fn a_download_is_told_with_its_bytes_its_rate_and_who_waits() {
        let waiting = vec![Waiting { pid: 7, name: "tofu".into() }];
        let mut download = DownloadStatus {
            reference: "r.example/a@sha256:x".into(),
            bytes: 3 << 20,
            size: 8 << 20,
            bytes_per_second: 1 << 20,
            waiting,
        };
        let text = described(&Mount { downloads: vec![download.clone()], ..mount() });
        assert!(
            text.contains(
                "  download  r.example/a@sha256:x: 3 MiB of 8 MiB, 1 MiB/s, for tofu (7)\n"
            ),
            "{text}"
        );
        download.waiting.clear();
        assert!(downloading(&download).ends_with("nobody waits"));
        let own = waiting_of_this_thread();
        assert_eq!(own.pid, std::process::id());
    }

    fn waiting_of_this_thread() -> Waiting {
        waiting(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap()
    }

    #[test]
    fn the_mount_of_another_user_is_told_with_its_owner_and_no_error() {
        let mount =
            Mount { pid: None, owner: Some("ann (1000)".into()), errors: vec![], ..mount() };
        let text = described(&mount);
        assert!(text.contains("owner   ann (1000)") && !text.contains("error"), "{text}");
    }
}
