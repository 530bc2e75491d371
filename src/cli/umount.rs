//! `tofufs umount`.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::args::UmountArgs;
use super::mounts;
use super::output::CommandError;
use crate::fuse::session::{self, Manner, UnmountError, over};

/// How long the mount's process may take to end after the mount is gone.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Unmounts, dead mounts too. Returns when the mount's process takes no more requests, unless it
/// still serves files that are open behind a lazily removed mount.
pub fn run(args: &UmountArgs) -> Result<(), CommandError> {
    let entry = mounts::at(&args.mountpoint)?;
    // Whoever stands in the mount and calls this is told of itself only, not of this process too.
    rustix::process::chdir("/")
        .map_err(|e| CommandError::Failed(format!("cannot leave the mount: {e}")))?;
    let socket = mounts::control(&entry).ok();
    let manner = if args.lazy { Manner::Lazily } else { Manner::Unused };
    session::unmount(&entry.point, manner).map_err(|e| match e {
        UnmountError::Busy { .. } => CommandError::Failed(format!(
            "{e}; end what uses it, or take it out of sight with `tofufs umount --lazy`"
        )),
        e => CommandError::failed(e),
    })?;
    over::clear_left(&entry.point, &session::OwnRights).map_err(CommandError::failed)?;
    match socket {
        Some(socket) if !args.lazy && !closed(&socket) => Err(CommandError::Failed(format!(
            "{} is unmounted here, but its process did not end within {} s; as long as another \
             mount namespace, as of a container, holds a copy of the mount, it is served there",
            entry.point.display(),
            END_LIMIT.as_secs()
        ))),
        _ => Ok(()),
    }
}

fn closed(socket: &Path) -> bool {
    let start = Instant::now();
    while UnixStream::connect(socket).is_ok() {
        if start.elapsed() > END_LIMIT {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}
