//! `tofufs pull`: what lock files, root modules and references need, into the cache.

use serde_json::json;

use super::args::carry::PullArgs;
use super::directories::DirectoryEnvironment;
use super::output::{self, CommandError};
use super::reading::Registries;
use super::{daemon, needed};
use crate::name::Platform;

/// Fetches, and prints what there is now.
pub fn run(args: &PullArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let inputs = needed::inputs(&args.needs, &[Platform::host()], &environment)?;
    let registries =
        Registries::for_command(&args.reading, &environment)?.of_platforms(&inputs.platforms);
    let mapping = needed::mapping(&args.needs, &registries)?;
    let runtime = daemon::runtime()?;
    let needs = needed::find(&runtime, &inputs, &mapping, &registries)?;
    needed::check_limit(&needs, registries.store())?;
    let _held = needed::held(&needs, &registries)?;
    let fetched = needed::fetched(&runtime, &needs, &registries)?;
    needed::referrers(&runtime, &needs, args.referrers.into(), &registries)?;
    needed::remember(&args.needs, &needs, &registries)?;
    if args.json {
        return output::json(&json!({
            "artifacts": needed::json(&needs, &fetched),
            "left_out": needed::left_out_json(&needs.left_out),
            "requests": registries.requests(),
        }));
    }
    needed::note_left_out(&needs);
    output::text(needed::lines(&needs, &fetched))
}
