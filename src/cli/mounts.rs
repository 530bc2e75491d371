//! Finding the mounts of this host and their processes, without ever waiting for a mount that does
//! not answer.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::control::ControlConnection;
use super::output::CommandError;
use crate::fuse::session::mountinfo::{self, MountInfo};
use crate::fuse::session::{STUCK, within};

pub use crate::fuse::session::over::CONTROL;

/// How long a mount's process may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// All mounts of tofufs that can be seen, in the order of mounting.
pub fn all() -> Result<Vec<MountInfo>, CommandError> {
    let table = table()?;
    let seen = |entry: &&MountInfo| {
        entry.is_ours() && mountinfo::top_at(&table, &entry.point) == Some(entry)
    };
    Ok(table.iter().filter(seen).cloned().collect())
}

/// The mount at exactly `path`.
pub fn at(path: &Path) -> Result<MountInfo, CommandError> {
    let table = table()?;
    spellings(path)
        .iter()
        .find_map(|point| mountinfo::top_at(&table, point))
        .filter(|entry| entry.is_ours())
        .cloned()
        .ok_or_else(|| {
            CommandError::Failed(format!("{} is not a mount point of tofufs", path.display()))
        })
}

/// The mount that holds `path`, and the rest of the path below its root.
pub fn holding(path: &Path) -> Result<(MountInfo, PathBuf), CommandError> {
    let table = table()?;
    spellings(path)
        .iter()
        .find_map(|path| {
            let entry = mountinfo::holding(&table, path).filter(|entry| entry.is_ours())?;
            Some((entry.clone(), path.strip_prefix(&entry.point).ok()?.to_owned()))
        })
        .ok_or_else(|| {
            CommandError::Failed(format!("{} is not below a mount point of tofufs", path.display()))
        })
}

fn table() -> Result<Vec<MountInfo>, CommandError> {
    mountinfo::read()
        .map_err(|e| CommandError::Failed(format!("the mount table cannot be read: {e}")))
}

/// The path as mount tables may spell it: as it was typed, and with links followed. The second
/// spelling enters the mount, so it is tried last and not waited for.
fn spellings(path: &Path) -> Vec<PathBuf> {
    let mut spellings = Vec::new();
    if let Ok(absolute) = std::path::absolute(path)
        && !absolute.components().any(|part| part == Component::ParentDir)
    {
        spellings.push(absolute.components().collect());
    }
    let typed = path.to_owned();
    // A dead mount has no canonical path, but its parent has.
    let followed = within(STUCK, move || {
        typed.canonicalize().or_else(|_| crate::fuse::session::resolved(&typed))
    });
    spellings.extend(followed.and_then(Result::ok));
    spellings
}

/// The control socket of a mount. One of another user is not even looked at: its process could
/// answer anything.
pub fn control(entry: &MountInfo) -> Result<PathBuf, String> {
    if let Some(owner) = entry.foreign_owner() {
        return Err(format!("the user {owner} mounted it; that user and root can control it"));
    }
    let root = entry.point.clone();
    let read = within(STUCK, move || {
        let mut buffer = [0; 256];
        rustix::fs::getxattr(&root, CONTROL, &mut buffer).map(|length| buffer[..length].to_vec())
    });
    match read {
        None => Err("its process does not answer".into()),
        Some(Err(Errno::NOTCONN)) => {
            Err("its process is gone; `tofufs umount` removes the mount".into())
        }
        Some(Err(Errno::ACCESS)) => {
            Err("another user mounted it without --allow-other, so that nobody else can look \
                                         into it, root neither; run this as that user"
                .into())
        }
        Some(Err(e)) => Err(format!("its control socket cannot be found: {}", io::Error::from(e))),
        Some(Ok(path)) => Ok(PathBuf::from(std::ffi::OsString::from_vec(path))),
    }
}

/// Connects to the process of a mount.
pub fn connect(entry: &MountInfo) -> Result<ControlConnection, String> {
    let socket = control(entry)?;
    ControlConnection::open(&socket, ANSWER)
        .map_err(|e| format!("its control socket {} does not answer: {e}", socket.display()))
}

/// Whether the mount at `point` has lost its process; `None` if what is mounted there does not
/// answer.
pub fn is_dead(point: &Path) -> Option<bool> {
    let root = point.to_owned();
    let answer = within(STUCK, move || rustix::fs::statfs(&root))?;
    Some(answer.is_err_and(|e| e == Errno::NOTCONN))
}
