//! What is known of commits beyond the life of the process: one record for each artifact root.
//!
//! A record is replaced as a whole (temporary file, fsync, rename, fsync of the directory), so
//! after a crash it is the old or the new one. It says how far a commit came; what is there is
//! always asked of the registry again, so a record that is behind costs requests and nothing else.
//! `done` is written after the tag was looked at, and before anything of the stage is removed.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Committed;
use super::roots::path_of;
use super::tree::{list, read_small};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};

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

/// What a finished commit put under a tag.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommitOutcome {
    /// The reference with its tag.
    pub reference: String,
    /// The tag.
    pub tag: String,
    /// What it stands for.
    pub digest: String,
}

impl CommitOutcome {
    pub(super) fn of(committed: &Committed) -> CommitOutcome {
        CommitOutcome {
            reference: committed.reference.clone(),
            tag: committed.tag.clone(),
            digest: committed.digest.clone(),
        }
    }

    /// What a repeated commit says: nothing was sent for it.
    pub(super) fn committed(&self) -> Committed {
        Committed {
            reference: self.reference.clone(),
            digest: self.digest.clone(),
            tag: self.tag.clone(),
            uploaded_bytes: 0,
            skipped_blobs: 0,
        }
    }
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
    pub results: Vec<CommitOutcome>,
    /// Why it failed.
    pub error: Option<String>,
}

impl JournalRecord {
    /// The root below the staging directory.
    pub fn path(&self) -> PathBuf {
        path_of(self.path.clone())
    }
}

/// The records, on disk and in memory.
pub(super) struct Journal {
    dir: OwnedFd,
    name: String,
    records: Mutex<HashMap<PathBuf, JournalRecord>>,
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
            {
                records.insert(record.path(), record);
            }
        }
        Ok(Journal { dir, name: name.to_owned(), records: Mutex::new(records) })
    }

    /// The record of a root.
    pub(super) fn get(&self, path: &Path) -> Option<JournalRecord> {
        self.records.lock().get(path).cloned()
    }

    /// All records.
    pub(super) fn all(&self) -> Vec<JournalRecord> {
        self.records.lock().values().cloned().collect()
    }

    /// Replaces the record of a root, durably: `change` gets the one that was there, or an empty
    /// one.
    pub(super) fn write(
        &self,
        path: &Path,
        change: impl FnOnce(&mut JournalRecord),
    ) -> Result<(), Refusal> {
        // Held while writing: two writers of one record would overtake each other.
        let mut records = self.records.lock();
        let serial = records.values().map(|record| record.serial).max().unwrap_or(0) + 1;
        let bytes = path.as_os_str().as_bytes().to_vec();
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
        records.insert(path.to_path_buf(), record);
        self.shrink(&mut records);
        Ok(())
    }

    /// Forgets the records for which `gone` holds. Not durable: after a crash they are forgotten
    /// the next time.
    pub(super) fn forget(&self, gone: impl Fn(&JournalRecord) -> bool) {
        self.records.lock().retain(|_, record| {
            let kept = !gone(record);
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

    fn shrink(&self, records: &mut HashMap<PathBuf, JournalRecord>) {
        let done = |record: &&JournalRecord| record.stand == Stand::Done;
        if records.values().filter(done).count() <= DONE_MAX {
            return;
        }
        let oldest = records
            .values()
            .filter(done)
            .min_by_key(|record| record.serial)
            .map(JournalRecord::path);
        if let Some(path) = oldest
            && records.remove(&path).is_some()
        {
            let _ = unlinkat(&self.dir, file_of(path.as_os_str().as_bytes()), AtFlags::empty());
        }
    }
}

/// The file of a root's record: paths can be longer than names, and hold slashes.
fn file_of(path: &[u8]) -> String {
    format!("{}{SUFFIX}", Digest::of(path).hex())
}
