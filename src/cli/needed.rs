//! What lock files, root modules and references need, for the commands that carry it somewhere.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::args::carry::NeedsArgs;
use super::output::CommandError;
use super::progress::Progress;
use super::quantity::Size;
use super::reading::Registries;
use super::settings::{Environment, absolute};
use super::{mapping, mounts};
use crate::copy::fetch::{self, Ending, Fetched};
use crate::copy::needs::{Artifact, Contents, Inputs, LeftOut, Needs};
use crate::mapping::Mapping;
use crate::name::Platform;

/// What was typed, made ready. `platforms` are those that count where none was typed; none means all.
pub fn inputs(args: &NeedsArgs, platforms: &[Platform], environment: &Environment) -> Result<Inputs, CommandError> {
    if args.lock_file.is_empty() && args.root.is_empty() && args.reference.is_empty() {
        return Err(CommandError::Usage("name a --lock-file, a --root or a REFERENCE".to_owned()));
    }
    let paths = |paths: &[PathBuf]| paths.iter().map(|path| absolute(path, &environment.base)).collect();
    Ok(Inputs {
        lock_files: paths(&args.lock_file),
        roots: paths(&args.root),
        references: args.reference.clone(),
        platforms: if args.platform.is_empty() { platforms.to_vec() } else { args.platform.clone() },
        mount_points: mounts::all()?.into_iter().map(|mount| mount.point).collect(),
    })
}

/// The mapping that the command's flags spell, else that of the CLI configuration.
pub fn mapping(args: &NeedsArgs, registries: &Registries) -> Result<Mapping, CommandError> {
    let flags = args.mapping.mapping().map_err(CommandError::usage)?;
    mapping::mapping(flags.as_ref(), registries.access())
}

/// Finds out what is needed.
pub fn find(
    runtime: &Runtime,
    inputs: &Inputs,
    mapping: &Mapping,
    registries: &Registries,
) -> Result<Needs, CommandError> {
    runtime.block_on(Needs::find(inputs, mapping, registries)).map_err(CommandError::failed)
}

/// Fetches what is needed, with a progress bar; what that took, in the order of [`Needs::artifacts`].
pub fn fetched(runtime: &Runtime, needs: &Needs, registries: &Registries) -> Result<Vec<Fetched>, CommandError> {
    let mut progress = Progress::new("in the cache")
        .map_err(|e| CommandError::Failed(format!("signals cannot be waited for: {e}")))?;
    let mut step = |done, total| progress.step(done, total);
    let ending = runtime.block_on(fetch::fetch(needs, registries, &mut step));
    match ending.map_err(CommandError::failed)? {
        Ending::Complete(fetched) => {
            registries.note_outages();
            Ok(fetched)
        }
        Ending::Stopped => Err(CommandError::failed(
            "it was stopped; what was fetched stays in the cache, and the same command goes on from there",
        )
        .stopped_by(progress.stopped_by())),
    }
}

/// One line for a release: what it is, and its size.
pub fn line(artifact: &Artifact, fetched: Fetched) -> String {
    let what = match &artifact.contents {
        Contents::Module(_) => "module".to_owned(),
        Contents::Provider(packages) => {
            let platforms: Vec<_> = packages.iter().map(|package| package.platform.to_string()).collect();
            format!("provider for {}", platforms.join(", "))
        }
    };
    let new = match fetched.fetched {
        0 => "was there".to_owned(),
        new => format!("{} fetched", Size(new)),
    };
    let name = match artifact.tags.first() {
        Some(tag) => format!("{}:{tag}@{}", artifact.repo, artifact.digest),
        None => artifact.reference().to_string(),
    };
    format!("{name}: {what}, {}, {new}\n", Size(fetched.bytes))
}

/// The same for programs.
pub fn json(artifact: &Artifact, fetched: Fetched) -> Value {
    let (kind, platforms) = match &artifact.contents {
        Contents::Module(_) => ("module", Vec::new()),
        Contents::Provider(packages) => ("provider", packages.iter().map(|p| p.platform.to_string()).collect()),
    };
    json!({
        "reference": artifact.reference().to_string(), "digest": artifact.digest.to_string(),
        "tags": artifact.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "kind": kind, "platforms": platforms, "bytes": fetched.bytes, "fetched_bytes": fetched.fetched,
    })
}

/// What is used and not carried, for programs.
pub fn left_out_json<'a>(left_out: impl IntoIterator<Item = &'a LeftOut>) -> Value {
    left_out.into_iter().map(|left| json!({"what": left.what, "why": left.why})).collect()
}

/// Says on standard error what is used and not carried: it is no result, and no failure either.
pub fn note_left_out(needs: &Needs) {
    for left in &needs.left_out {
        // Nobody listening is no reason to stop.
        let _ = writeln!(io::stderr(), "tofufs: left out: {left}");
    }
}
