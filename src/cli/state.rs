//! The state directory: what mounts at one place leave for the next one, and how two of them keep
//! out of each other's way.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::output::CommandError;
use super::settings::MountSettings;
use crate::digest::Digest;

/// How long another process may take to mount at the same place.
const TURN: Duration = Duration::from_secs(5);

/// Where a mount logs to, if that is a file.
pub fn log_of(settings: &MountSettings) -> Result<Option<PathBuf>, CommandError> {
    if settings.in_background {
        background_log(settings).map(Some)
    } else {
        Ok(settings.log_file.clone())
    }
}

/// Where a mount in the background logs to: one file per mount point, that outlives the mount.
pub fn background_log(settings: &MountSettings) -> Result<PathBuf, CommandError> {
    match &settings.log_file {
        Some(file) => Ok(file.clone()),
        None => {
            let dir = directory(settings, "log")?;
            Ok(dir.join(format!("{}.log", stem(&settings.mountpoint))))
        }
    }
}

/// A directory of the state, made if it is missing.
pub fn directory(settings: &MountSettings, name: &str) -> Result<PathBuf, CommandError> {
    let dir = settings.state_dir.join(name);
    private_dir(&settings.state_dir).and_then(|()| private_dir(&dir)).map_err(no_state)?;
    Ok(dir)
}

/// The directory of the state that belongs to the mounts at this mount point: it outlives them.
pub fn of_mounts(settings: &MountSettings) -> Result<PathBuf, CommandError> {
    let dir = directory(settings, "mounts")?.join(stem(&settings.mountpoint));
    private_dir(&dir).map_err(no_state)?;
    Ok(dir)
}

fn no_state(error: io::Error) -> CommandError {
    CommandError::Failed(format!(
        "the state directory cannot be used: {error}; give another --state-dir"
    ))
}

/// Keeps other processes from mounting at the same place until it is dropped. Afterwards the mount
/// table does.
pub fn turn(settings: &MountSettings) -> Result<File, CommandError> {
    let path = directory(settings, "lock")?.join(format!("{}.lock", stem(&settings.mountpoint)));
    let failed =
        |e: io::Error| CommandError::Failed(format!("cannot lock {}: {e}", path.display()));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let mut left = TURN;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if left.is_zero() => {
                let point = settings.mountpoint.display();
                return Err(CommandError::Failed(format!(
                    "another tofufs is mounting at {point} right now"
                )));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pause = Duration::from_millis(50);
                thread::sleep(pause);
                left = left.saturating_sub(pause);
            }
            Err(e) => return Err(failed(e.into())),
        }
    }
}

/// Makes a directory that only this user can use, or checks that it is one.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(named)?;
    let metadata = fs::symlink_metadata(dir).map_err(named)?;
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if metadata.is_dir() && owner == user && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let reason = if owner == user {
        format!("{} is not a directory that only this user can write to", dir.display())
    } else {
        // As `sudo` leaves it in the home of who called it.
        format!("{} belongs to the user {owner}, not to the user {user}", dir.display())
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// The beginning of the names of files that belong to the mounts at one place.
pub fn stem(mountpoint: &Path) -> String {
    let mut hex = Digest::of(mountpoint.as_os_str().as_encoded_bytes()).hex();
    hex.truncate(16);
    hex
}
