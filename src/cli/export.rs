//! `tofufs export`: what lock files, root modules and references need, in a plain directory.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::args::export::ExportArgs;
use super::directories::{DirectoryEnvironment, absolute};
use super::output::{self, CommandError};
use super::progress::ProgressLine;
use super::quantity::Size;
use super::reading::Registries;
use super::{daemon, mounts, needed};
use crate::copy::export::{ExportDirectory, ExportEnding, ExportPlan, ExportedPackage};
use crate::copy::fetch::Fetched;
use crate::copy::needs::{NeededArtifact, Needs, ReleaseContents};
use crate::name::Platform;

/// Exports, and prints what there is now.
pub fn run(args: &ExportArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let dir = directory(&args.dir, &environment.base)?;
    let mut inputs = needed::inputs(&args.needs, &[Platform::host()], &environment)?;
    // Modules that are called by paths below it are those that it is to hold.
    inputs.mount_points.extend([dir.clone()].into_iter().chain(dir.canonicalize()));
    let registries =
        Registries::for_command(&args.reading, &environment)?.of_platforms(&inputs.platforms);
    let mapping = needed::mapping(&args.needs, &registries)?;
    let runtime = daemon::runtime()?;
    let needs = needed::find(&runtime, &inputs, &mapping, &registries)?;
    let plan = ExportPlan::of(&needs, &mapping).map_err(CommandError::failed)?;
    let mut directory = ExportDirectory::open(&dir).map_err(CommandError::failed)?;
    let missing: Vec<_> = plan.packages.iter().filter(|package| !directory.has(package)).collect();
    let fetched = fetched(&runtime, &needs, &missing, &registries)?;
    let written = laid_out(&runtime, &mut directory, &missing, &plan, &registries)?;
    let releases: Vec<_> = needs
        .artifacts
        .iter()
        .enumerate()
        .map(|(at, artifact)| Exported {
            artifact,
            fetched: fetched[at],
            is_new: written.contains(&at),
        })
        .collect();
    if args.json {
        return output::json(&json!({
            "directory": dir.to_string_lossy(),
            "artifacts": releases.iter().map(Exported::json).collect::<Vec<_>>(),
            "left_out": needed::left_out_json(&needs.left_out),
            "requests": registries.requests(),
        }));
    }
    needed::note_left_out(&needs);
    output::text(releases.iter().map(|release| release.line(&dir)).collect::<String>())
}

/// Where to, as it was typed, so that clients may be told the same; without `..` in it.
fn directory(dir: &Path, base: &Path) -> Result<PathBuf, CommandError> {
    let dir = unambiguous(&absolute(dir, base))
        .map_err(|e| CommandError::Failed(format!("{}: {e}", dir.display())))?;
    if let Some(mount) = mounts::all()?.into_iter().find(|mount| dir.starts_with(&mount.point)) {
        return Err(CommandError::Usage(format!(
            "{} lies in the mount at {}, which shows all of this; name a directory outside of it",
            dir.display(),
            mount.point.display()
        )));
    }
    Ok(dir)
}

/// The path without `..`, which behind a link leads elsewhere than it seems.
pub fn unambiguous(path: &Path) -> io::Result<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) {
        crate::fuse::session::resolved(path)
    } else {
        Ok(path.to_owned())
    }
}

/// Fetches the packages that are not in their places; for each artifact what that took.
fn fetched(
    runtime: &Runtime,
    needs: &Needs,
    missing: &[&ExportedPackage],
    registries: &Registries,
) -> Result<Vec<Fetched>, CommandError> {
    let artifacts = needs.artifacts.iter().enumerate();
    let lacking = artifacts.filter_map(|(at, artifact)| lacking(at, artifact, missing));
    let (numbers, artifacts): (Vec<usize>, Vec<NeededArtifact>) = lacking.unzip();
    let lacking = Needs { artifacts, ..Needs::default() };
    let mut all: Vec<Fetched> = needs.artifacts.iter().map(unfetched).collect();
    if !missing.is_empty() {
        needed::check_limit(&lacking, registries.store())?;
        let _held = needed::held(&lacking, registries)?;
        let fetched = needed::fetched(runtime, &lacking, registries)?;
        for (at, fetched) in numbers.into_iter().zip(fetched) {
            all[at].fetched = fetched.fetched;
        }
    }
    Ok(all)
}

fn unfetched(artifact: &NeededArtifact) -> Fetched {
    Fetched { bytes: artifact.zips().iter().map(|zip| zip.size).sum(), fetched: 0 }
}

/// The part of an artifact that is not in its place, with the artifact's number.
fn lacking(
    number: usize,
    artifact: &NeededArtifact,
    missing: &[&ExportedPackage],
) -> Option<(usize, NeededArtifact)> {
    let mut of_it = missing.iter().filter(|package| package.artifact == number).peekable();
    of_it.peek()?;
    let zips: Vec<_> = of_it.map(|package| package.archive.digest).collect();
    let mut artifact = artifact.clone();
    if let ReleaseContents::Provider(packages) = &mut artifact.contents {
        packages.retain(|package| zips.contains(&package.zip.digest));
    }
    Some((number, artifact))
}

/// Puts everything in its place; the numbers of the artifacts of which something was written.
fn laid_out(
    runtime: &Runtime,
    directory: &mut ExportDirectory,
    missing: &[&ExportedPackage],
    plan: &ExportPlan,
    registries: &Registries,
) -> Result<BTreeSet<usize>, CommandError> {
    let unwatched =
        |e: io::Error| CommandError::Failed(format!("signals cannot be waited for: {e}"));
    let progress = ProgressLine::new("laid out").map_err(unwatched)?;
    let mut step = |_, _| {
        if progress.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let ending = runtime.block_on(directory.lay_out(missing, plan, registries, &mut step));
    match ending.map_err(CommandError::failed)? {
        ExportEnding::Complete { written, notes } => {
            notes.iter().for_each(|sentence| output::note(sentence));
            Ok(written)
        }
        ExportEnding::Stopped => Err(CommandError::failed(
            "it was stopped; the directory is as it was, and what was fetched stays in the cache",
        )
        .stopped_by(progress.stopped_by())),
    }
}

/// A release that is in its place now.
struct Exported<'a> {
    artifact: &'a NeededArtifact,
    fetched: Fetched,
    /// Whether any of it was written.
    is_new: bool,
}

impl Exported<'_> {
    fn line(&self, dir: &Path) -> String {
        let what = match &self.artifact.contents {
            ReleaseContents::Module(_) => "module".to_owned(),
            ReleaseContents::Provider(packages) => {
                let platforms: Vec<_> =
                    packages.iter().map(|package| package.platform.to_string()).collect();
                format!("provider for {}", platforms.join(", "))
            }
        };
        let path = dir.join(self.artifact.reference().to_string());
        let became = if self.is_new { "exported" } else { "was there" };
        format!("{}: {what}, {}, {became}\n", path.display(), Size(self.fetched.bytes))
    }

    fn json(&self) -> Value {
        let mut value = needed::artifact_json(self.artifact, self.fetched);
        value["path"] = self.artifact.reference().to_string().into();
        value["exported"] = self.is_new.into();
        value
    }
}
