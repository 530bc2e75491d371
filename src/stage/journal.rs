//! What is known of commits beyond the life of the process: one record for each artifact root.
//!
//! A record is replaced as a whole (temporary file, fsync, rename, fsync of the directory), so
//! after a crash it is the old or the new one. It says how far a commit came; what is there is
//! always asked of the registry again, so a record that is behind costs requests and nothing else.
//! `done` is written after the tag was looked at, and before anything of the stage is removed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::push::Pushed;
use super::tree::{list, read_small};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::local::RelPath;

/// The most bytes of a record.
const RECORD_MAX: u64 = 1 << 20;
/// Records of finished commits that are kept; the oldest go first.
const DONE_MAX: usize = 2_000;
const SUFFIX: &str = ".json";

/// How far a commit came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stand {
    /// The plan is made; its digests are in the record.
    Intent,
    /// All blobs are in the registry.
    Blobs,
    /// All manifests are there by digest and were read back.
    Manifests,
    /// It did not succeed; the stage is as it was.
    Failed,
    /// The tags stand for it.
    Done,
}

/// The record of one artifact root.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JournalRecord {
    /// The root below the staging directory, as bytes.
    path: Vec<u8>,
    /// Counts up with each record that is written, over all roots.
    pub(super) serial: u64,
    /// How far it came.
    pub stand: Stand,
    /// What was to be pushed: digests of blobs and manifests.
    pub digests: Vec<String>,
    /// What it became, once it is done.
    pub results: Vec<Pushed>,
    /// Why it failed.
    pub error: Option<String>,
}

impl JournalRecord {
    /// The root below the staging directory; `None` of a record that says none.
    pub fn path(&self) -> Option<RelPath> {
        RelPath::new(Path::new(OsStr::from_bytes(&self.path))).ok()
    }
}

/// The records, on disk and in memory.
pub(super) struct Journal {
    dir: OwnedFd,
    name: String,
    records: Mutex<HashMap<RelPath, JournalRecord>>,
}

impl Journal {
    /// Reads the records of the directory `dir`, which messages call `name`. What is no record is
    /// passed over.
    pub(super) fn open(dir: OwnedFd, name: &str) -> Result<Journal, Refusal> {
        let mut records = HashMap::new();
        for (file, _) in list(dir.as_fd(), name)? {
            let Ok(file) = String::from_utf8(file) else { continue };
            if !file.ends_with(SUFFIX) {
                // Of a write that was cut off.
                let _ = unlinkat(&dir, &file, AtFlags::empty());
                continue;
            }
            let Ok(Some(bytes)) = read_small(dir.as_fd(), name, &file, RECORD_MAX) else {
                continue;
            };
            if let Ok(record) = serde_json::from_slice::<JournalRecord>(&bytes)
                && file_of(&record.path) == file
                && let Some(path) = record.path()
            {
                records.insert(path, record);
            }
        }
        Ok(Journal { dir, name: name.to_owned(), records: Mutex::new(records) })
    }

    /// The record of a root.
    pub(super) fn get(&self, path: &RelPath) -> Option<JournalRecord> {
        self.records.lock().get(path).cloned()
    }

    /// All records, by their roots.
    pub(super) fn all(&self) -> Vec<(RelPath, JournalRecord)> {
        self.records.lock().iter().map(|(path, record)| (path.clone(), record.clone())).collect()
    }

    /// Replaces the record of a root, durably: `change` gets the one that was there, or an empty
    /// one.
    pub(super) fn write(
        &self,
        path: &RelPath,
        change: impl FnOnce(&mut JournalRecord),
    ) -> Result<(), Refusal> {
        // Held while writing: two writers of one record would overtake each other.
        let mut records = self.records.lock();
        let serial = records.values().map(|record| record.serial).max().unwrap_or(0) + 1;
        let bytes = path.to_os_string().into_vec();
        let fresh = || JournalRecord {
            path: bytes,
            serial,
            stand: Stand::Intent,
            digests: Vec::new(),
            results: Vec::new(),
            error: None,
        };
        let mut record = records.get(path).cloned().unwrap_or_else(fresh);
        record.serial = serial;
        change(&mut record);
        self.put(&record)?;
        records.insert(path.clone(), record);
        self.shrink(&mut records);
        Ok(())
    }

    /// Forgets the records for which `gone` holds. Not durable: after a crash they are forgotten
    /// the next time.
    pub(super) fn forget(&self, gone: impl Fn(&RelPath, &JournalRecord) -> bool) {
        self.records.lock().retain(|path, record| {
            let kept = !gone(path, record);
            if !kept {
                let _ = unlinkat(&self.dir, file_of(&record.path), AtFlags::empty());
            }
            kept
        });
    }

    fn put(&self, record: &JournalRecord) -> Result<(), Refusal> {
        let failed = |e: Errno| Refusal::io(format!("the journal in {}", self.name), e);
        let bytes = serde_json::to_vec(record)
            .map_err(|e| Refusal::new(Failure::Io, format!("the journal in {}", self.name), e))?;
        let temporary = format!("{:032x}.tmp", fastrand::u128(..));
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, &temporary, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let mut rest = bytes.as_slice();
        let written = loop {
            if rest.is_empty() {
                break fsync(&file);
            }
            match rustix::io::retry_on_intr(|| rustix::io::write(&file, rest)) {
                Ok(0) => break Err(Errno::NOSPC),
                Ok(put) => rest = &rest[put..],
                Err(e) => break Err(e),
            }
        };
        let renamed = written
            .and_then(|()| renameat(&self.dir, &temporary, &self.dir, file_of(&record.path)));
        if let Err(e) = renamed {
            let _ = unlinkat(&self.dir, &temporary, AtFlags::empty());
            return Err(failed(e));
        }
        fsync(&self.dir).map_err(failed)
    }

    fn shrink(&self, records: &mut HashMap<RelPath, JournalRecord>) {
        let done = |record: &&JournalRecord| record.stand == Stand::Done;
        if records.values().filter(done).count() <= DONE_MAX {
            return;
        }
        let oldest = records
            .values()
            .filter(done)
            .min_by_key(|record| record.serial)
            .and_then(JournalRecord::path);
        if let Some(path) = oldest
            && records.remove(&path).is_some()
        {
            let _ = unlinkat(&self.dir, file_of(path.to_os_string().as_bytes()), AtFlags::empty());
        }
    }
}

/// The file of a root's record: paths can be longer than names, and hold slashes.
fn file_of(path: &[u8]) -> String {
    format!("{}{SUFFIX}", Digest::of(path).hex())
}
