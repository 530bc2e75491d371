//! `tofufs status`, and the shape of what it prints. Scripts read that shape: fields are added, never changed.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::args::StatusArgs;
use super::control::Request;
use super::output::{self, CommandError};
use super::quantity::Size;
use super::{mounts, output::pairs};
use crate::fuse::session::mountinfo::Entry;
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
    pub sources: Vec<Source>,
    /// The cache; null if the process does not answer.
    pub cache: Option<Cache>,
    /// What is staged.
    pub staged: Vec<Staged>,
    /// HTTP requests since the mount, token requests and those answered 401 aside.
    pub requests: Requests,
    /// The last different errors, the oldest first.
    pub errors: Vec<String>,
}

/// One source of a mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source {
    /// As it was given.
    pub name: String,
    /// What it answered last.
    pub state: SourceState,
    /// The addresses of its mirrors, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
}

/// What a source answered last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// It was not asked yet.
    Unknown,
    /// It answered.
    Ok,
    /// It did not.
    Unreachable,
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
pub struct Staged {
    /// Below the mount point.
    pub path: String,
    /// `open`, `sealed`, `uploading` or `failed`.
    pub state: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// HTTP requests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Requests {
    /// All.
    pub total: u64,
    /// Those for blobs.
    pub blob: u64,
}

impl Requests {
    /// Those that were sent so far.
    pub fn of(transport: &Transport) -> Requests {
        let requests = transport.requests();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Requests { total: count(&requests.total), blob: count(&requests.blob) }
    }
}

/// Asks the mounts' processes and prints. A mount that does not answer is shown with the reason; asking for it alone
/// is then a failure.
pub fn run(args: &StatusArgs) -> Result<(), CommandError> {
    let entries = match &args.mountpoint {
        Some(mountpoint) => vec![mounts::at(mountpoint)?],
        None => mounts::all()?,
    };
    let answers: Vec<Result<Mount, String>> = entries.iter().map(ask).collect();
    let failure = answers.iter().find_map(|answer| answer.as_ref().err().cloned());
    let mounts = entries.iter().zip(answers).map(|(entry, answer)| answer.unwrap_or_else(|e| silent(entry, e)));
    let status = Status { mounts: mounts.collect() };
    if args.json {
        output::json(&status)?;
    } else {
        output::text(status.mounts.iter().map(described).collect::<Vec<_>>().join("\n"))?;
    }
    match (&args.mountpoint, failure) {
        (Some(mountpoint), Some(reason)) => Err(CommandError::Failed(format!("{}: {reason}", mountpoint.display()))),
        _ => Ok(()),
    }
}

fn ask(entry: &Entry) -> Result<Mount, String> {
    let answer = mounts::connect(entry)?.ask(&Request::Status(()))?;
    let mount: Mount = serde_json::from_value(answer).map_err(|e| format!("its answer cannot be read: {e}"))?;
    // Where this mount is seen from here, which may be another place than where it was made.
    Ok(Mount { mountpoint: entry.point.to_string_lossy().into_owned(), ..mount })
}

fn silent(entry: &Entry, reason: String) -> Mount {
    Mount {
        mountpoint: entry.point.to_string_lossy().into_owned(),
        pid: None,
        read_only: false,
        offline: false,
        sources: vec![Source { name: entry.source.clone(), state: SourceState::Unknown, mirrors: vec![] }],
        cache: None,
        staged: Vec::new(),
        requests: Requests::default(),
        errors: vec![reason],
    }
}

fn described(mount: &Mount) -> String {
    let mut rows = Vec::new();
    let words = [(mount.read_only, "read-only"), (mount.offline, "offline")];
    let words: Vec<&str> = words.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect();
    let Some(pid) = mount.pid else {
        // Nothing but its place in the mount table is known.
        rows.extend(mount.sources.iter().map(|source| ("source", source.name.clone())));
        rows.extend(mount.errors.iter().map(|error| ("error", error.clone())));
        return block(&mount.mountpoint, &rows);
    };
    rows.push(("process", pid.to_string()));
    if !words.is_empty() {
        rows.push(("mode", words.join(", ")));
    }
    for source in &mount.sources {
        let state = match source.state {
            SourceState::Unknown => "not asked yet",
            SourceState::Ok => "ok",
            SourceState::Unreachable => "unreachable",
        };
        rows.push(("source", format!("{} ({state})", source.name)));
        rows.extend(source.mirrors.iter().map(|mirror| ("mirror", format!("{mirror} of {}", source.name))));
    }
    if let Some(cache) = &mount.cache {
        rows.push(("cache", format!("{}: {} of {}", cache.dir, Size(cache.bytes), Size(cache.limit))));
    }
    for staged in &mount.staged {
        let error = staged.error.as_deref().map(|e| format!(": {e}")).unwrap_or_default();
        rows.push(("staged", format!("{} ({}{error})", staged.path, staged.state)));
    }
    rows.push(("requests", format!("{}, {} of them for blobs", mount.requests.total, mount.requests.blob)));
    rows.extend(mount.errors.iter().map(|error| ("error", error.clone())));
    block(&mount.mountpoint, &rows)
}

fn block(heading: &str, rows: &[(&str, String)]) -> String {
    let mut text = format!("{}\n", output::printable(heading));
    for line in pairs(rows).lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount() -> Mount {
        Mount {
            mountpoint: "/mnt".into(),
            pid: Some(7),
            read_only: true,
            offline: false,
            sources: vec![Source { name: "ghcr.io/acme".into(), state: SourceState::Ok, mirrors: vec![] }],
            cache: Some(Cache { dir: "/c".into(), bytes: 1, limit: 2 }),
            staged: Vec::new(),
            requests: Requests { total: 3, blob: 1 },
            errors: vec!["x".into()],
        }
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let text = serde_json::to_string(&Status { mounts: vec![mount()] }).unwrap();
        assert_eq!(
            text,
            r#"{"mounts":[{"mountpoint":"/mnt","pid":7,"read_only":true,"offline":false,"sources":[{"name":"ghcr.io/acme","state":"ok"}],"cache":{"dir":"/c","bytes":1,"limit":2},"staged":[],"requests":{"total":3,"blob":1},"errors":["x"]}]}"#
        );
        assert_eq!(serde_json::to_string(&SourceState::Unreachable).unwrap(), r#""unreachable""#);
        assert_eq!(serde_json::to_string(&SourceState::Unknown).unwrap(), r#""unknown""#);
    }

    #[test]
    fn people_read_one_block_per_mount() {
        let text = described(&mount());
        assert_eq!(
            text,
            "/mnt\n  process   7\n  mode      read-only\n  source    ghcr.io/acme (ok)\n  cache     /c: 1 B of 2 B\n  \
             requests  3, 1 of them for blobs\n  error     x\n"
        );
        let silent = Mount { pid: None, cache: None, ..mount() };
        assert_eq!(described(&silent), "/mnt\n  source  ghcr.io/acme\n  error   x\n");
    }
}
