//! `tofufs commit`: has a mount publish what is staged in it.

use std::path::Path;

use super::args::commit::CommitArgs;
use super::control::ControlRequest;
use super::mounts;
use super::output::CommandError;
use super::progress::ProgressLine;
use super::push::{self, annotations};
use super::trace::TraceId;
use crate::fs::staging;
use crate::stage::Pushed;

/// Publishes, and prints a line for each release.
pub fn run(args: &CommitArgs) -> Result<(), CommandError> {
    let annotations = annotations(&args.annotation)?;
    let (entry, below) = mounts::holding(&args.path)?;
    let failed =
        |reason: String| CommandError::Failed(format!("{}: {reason}", args.path.display()));
    // The root stands for all that is staged.
    let staged = if below.as_os_str().is_empty() {
        Ok(Path::new(""))
    } else {
        below.strip_prefix(staging::NAME)
    };
    let Some(path) = staged.ok().and_then(Path::to_str) else {
        let wanted = entry.point.join(staging::NAME);
        return Err(failed(format!(
            "it does not lie in {}, where releases are staged",
            wanted.display()
        )));
    };
    let request = ControlRequest::Commit {
        path: path.to_owned(),
        annotations,
        allow_overwrite: args.allow_overwrite,
        trace: TraceId::of_process(),
    };
    let connection = mounts::connect(&entry).map_err(failed)?;
    let mut progress = ProgressLine::new("uploaded").map_err(CommandError::failed)?;
    let reply = connection.ask_long(&request, |done, total| progress.step(done, total));
    let signal = progress.stopped_by();
    drop(progress);
    let reply = reply.map_err(|reason| CommandError::Failed(reason).stopped_by(signal))?;
    let committed: Vec<Pushed> = serde_json::from_value(reply).map_err(|e| {
        failed(format!("the mount's process answers with something else than releases: {e}"))
    })?;
    push::report(&committed, args.json)
}
