//! `tofufs refresh`.

use super::args::RefreshArgs;
use super::control::ControlRequest;
use super::mounts;
use super::output::CommandError;
use super::trace::TraceId;

/// Has the mount that holds the path forget what it remembers below it.
pub fn run(args: &RefreshArgs) -> Result<(), CommandError> {
    let (entry, below) = mounts::holding(&args.path)?;
    let failed =
        |reason: String| CommandError::Failed(format!("{}: {reason}", args.path.display()));
    let path =
        below.to_str().ok_or_else(|| failed("no name in a mount is like this".into()))?.to_owned();
    let connection = mounts::connect(&entry).map_err(failed)?;
    let trace = TraceId::of_process();
    connection
        .ask(&ControlRequest::Refresh { path, accept: args.accept, trace })
        .map_err(failed)?;
    Ok(())
}
