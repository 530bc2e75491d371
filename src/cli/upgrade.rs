//! `tofufs upgrade`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::args::UpgradeArgs;
use super::control::ControlRequest;
use super::mounts;
use super::options::{self, OptionPlaces};
use super::output::CommandError;
use super::trace::TraceId;
use crate::fuse::session::over::Gap;

/// Has the process of a mount hand over to one that runs this program.
pub fn run(args: &UpgradeArgs) -> Result<(), CommandError> {
    let named = named(&args.mountpoint)?;
    let point = named.as_deref().unwrap_or(&args.mountpoint);
    let entry = mounts::at(point)?;
    let failed = |reason: String| CommandError::Failed(format!("{}: {reason}", point.display()));
    let program = std::env::current_exe()
        .map_err(|e| failed(format!("the path of this program cannot be found: {e}")))?;
    let gap = if args.allow_gap { Gap::Allowed } else { Gap::Refused };
    let request = ControlRequest::Upgrade { program, gap, trace: TraceId::of_process() };
    let connection = mounts::connect(&entry).map_err(failed)?;
    connection.ask_long(&request, |_, _| ControlFlow::Continue(())).map_err(failed)?;
    Ok(())
}

/// The mount point of the mount that has this name. A unit gives the name, in the directory `/`, where
/// there may be a directory that is called alike.
fn named(name: &Path) -> Result<Option<PathBuf>, CommandError> {
    match name.to_str().filter(|name| !name.contains('/')) {
        Some(name) => {
            options::mountpoint_of(name, &OptionPlaces::of_process()).map_err(CommandError::usage)
        }
        None => Ok(None),
    }
}
