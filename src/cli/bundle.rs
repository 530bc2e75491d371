//! `tofufs bundle`: what is needed, into a store or one tar; and the check of such a bundle.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::access::ClientConfiguration;
use super::args::carry::{BundleArgs, BundleCommand, VerifyArgs};
use super::directories::DirectoryEnvironment;
use super::output::{self, CommandError, count, count_with};
use super::progress::ProgressLine;
use super::quantity::Size;
use super::reading::Registries;
use super::source::SourceSetting;
use super::{daemon, mapping, needed};
use crate::copy::bundle::{Amount, BundlePlan};
use crate::copy::needs::{self, Needs};
use crate::copy::verify::{Verification, VerifiedStore, VerifyFinding};
use crate::mapping::Mapping;
use crate::registry::HostStore;
use crate::registry::layout::{LayoutArchive, LayoutDirectory};

/// Bundles, or checks a bundle.
pub fn run(args: &BundleArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    match &args.command {
        Some(BundleCommand::Verify(args)) => verify(args, &environment),
        None => bundle(args, &environment),
    }
}

/// The place of a bundle, which need not be there yet.
enum BundlePlace {
    Directory(PathBuf),
    Archive(PathBuf),
}

impl BundlePlace {
    fn of(source: SourceSetting) -> Result<BundlePlace, CommandError> {
        match source {
            SourceSetting::Layouts(dir) => Ok(BundlePlace::Directory(dir)),
            SourceSetting::Archive(file) => Ok(BundlePlace::Archive(file)),
            SourceSetting::Registry { host, prefix: None } if host.as_str().ends_with(".tar") => {
                Err(CommandError::Usage(format!(
                    "{host}: a file is written with oci-archive: before it; write \
                     oci-archive:{host}"
                )))
            }
            SourceSetting::Registry { .. } | SourceSetting::Providers { .. } => {
                Err(CommandError::Usage(format!(
                    "{source}: a bundle is a store; write oci:DIR or oci-archive:FILE (tofufs copy \
                 fills registries)"
                )))
            }
        }
    }
}

/// What a bundle is written into.
enum BundleDestination {
    Directory(Arc<LayoutDirectory>),
    /// With what is there already.
    Archive(PathBuf, Option<Arc<LayoutArchive>>),
    /// A directory that would be made.
    Missing,
}

impl BundleDestination {
    /// Opens a destination; a missing directory is made unless this is a dry run.
    fn open(place: &BundlePlace, dry_run: bool) -> Result<BundleDestination, CommandError> {
        match place {
            BundlePlace::Directory(dir) if !dir.exists() && dry_run => {
                Ok(BundleDestination::Missing)
            }
            BundlePlace::Directory(dir) => {
                std::fs::create_dir_all(dir).map_err(|e| {
                    CommandError::Failed(format!("{} cannot be made: {e}", dir.display()))
                })?;
                Ok(BundleDestination::Directory(Arc::new(
                    LayoutDirectory::open(dir).map_err(CommandError::failed)?,
                )))
            }
            BundlePlace::Archive(file) => match std::fs::symlink_metadata(file) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    Ok(BundleDestination::Archive(file.clone(), None))
                }
                _ => {
                    let archive = LayoutArchive::open(file).map_err(CommandError::failed)?;
                    Ok(BundleDestination::Archive(file.clone(), Some(Arc::new(archive))))
                }
            },
        }
    }

    fn store(&self) -> Option<Arc<dyn HostStore>> {
        match self {
            BundleDestination::Directory(store) => Some(store.clone()),
            BundleDestination::Archive(_, Some(store)) => Some(store.clone()),
            BundleDestination::Archive(_, None) | BundleDestination::Missing => None,
        }
    }
}

fn bundle(args: &BundleArgs, environment: &DirectoryEnvironment) -> Result<(), CommandError> {
    let output = args.output.as_deref().unwrap_or_default();
    let output = SourceSetting::parse(output, &environment.base).map_err(CommandError::usage)?;
    let shown = output.to_string();
    let place = BundlePlace::of(output)?;
    let inputs = needed::inputs(&args.needs, &[], environment)?;
    let registries =
        Registries::for_command(&args.reading, environment)?.of_platforms(&inputs.platforms);
    let mapping = needed::mapping(&args.needs, &registries)?;
    let destination = BundleDestination::open(&place, args.dry_run)?;
    let mut progress = progress("bundled")?;
    let runtime = daemon::runtime()?;
    let needs = needed::find(&runtime, &inputs, &mapping, &registries)?;
    let (plan, missing) = runtime.block_on(async {
        let (whole, referrers) = (inputs.platforms.is_empty(), args.referrers.into());
        let plan = BundlePlan::of(&needs, whole, referrers, &registries).await;
        let mut plan = plan.map_err(CommandError::failed)?;
        plan.says = mapping.carried_with(&needs.providers);
        let plan = Arc::new(plan);
        let missing = plan.missing(destination.store()).await.map_err(CommandError::failed)?;
        if !args.dry_run {
            let mut step = |done, total| progress.step(done, total);
            let written = match &destination {
                BundleDestination::Directory(dir) => {
                    plan.into_directory(dir, registries.network().deadline, &registries, &mut step)
                        .await
                }
                BundleDestination::Archive(file, before) => {
                    plan.into_archive(file, before.clone(), &registries, &mut step).await
                }
                BundleDestination::Missing => Ok(()),
            };
            written.map_err(|e| CommandError::failed(e).stopped_by(progress.stopped_by()))?;
        }
        Ok::<_, CommandError>((plan, missing))
    })?;
    drop(progress);
    report(args, &shown, &needs, &plan, missing, &registries)
}

fn report(
    args: &BundleArgs,
    shown: &str,
    needs: &Needs,
    plan: &BundlePlan,
    missing: Amount,
    registries: &Registries,
) -> Result<(), CommandError> {
    let amount = plan.amount();
    if args.json {
        let releases = plan.releases.iter().map(|release| {
            json!({
                "reference": release.reference.to_string(), "digest": release.digest.to_string(),
                "platforms": release.platforms, "bytes": release.bytes,
            })
        });
        return output::json(&json!({
            "destination": shown, "written": !args.dry_run,
            "releases": releases.collect::<Vec<_>>(),
            "left_out": needed::left_out_json(&needs.left_out),
            "objects": amount.objects, "bytes": amount.bytes,
            "added_objects": missing.objects, "added_bytes": missing.bytes,
            "requests": registries.requests(),
        }));
    }
    needed::note_left_out(needs);
    let mut text = String::new();
    for release in &plan.releases {
        text += &format!("{} {} {}", release.reference, release.digest, Size(release.bytes));
        if release.platforms.is_empty() {
            text += "\n";
        } else {
            text += &format!(" {}\n", release.platforms.join(" "));
        }
    }
    let verb = if args.dry_run { "would be added" } else { "added" };
    text += &format!(
        "{shown}: {}, {}; {verb}: {}, {}\n",
        count(plan.releases.len(), "release"),
        Size(amount.bytes),
        count(missing.objects, "object"),
        Size(missing.bytes)
    );
    output::text(text)
}

fn verify(args: &VerifyArgs, environment: &DirectoryEnvironment) -> Result<(), CommandError> {
    let source =
        SourceSetting::parse(&args.source, &environment.base).map_err(CommandError::usage)?;
    let shown = source.to_string();
    let store: Arc<dyn HostStore> = match BundlePlace::of(source)? {
        BundlePlace::Directory(dir) => {
            Arc::new(LayoutDirectory::open(&dir).map_err(CommandError::failed)?)
        }
        BundlePlace::Archive(file) => {
            Arc::new(LayoutArchive::open(&file).map_err(CommandError::failed)?)
        }
    };
    let mapping = if args.lock_file.is_empty() {
        Mapping::default()
    } else {
        let flags = args.mapping.mapping().map_err(CommandError::usage)?;
        let tofurc = args.tofurc.as_ref().map(|file| environment.base.join(file));
        let configuration = ClientConfiguration::new(tofurc);
        match mapping::given(flags.as_ref(), &configuration)? {
            Some(given) => given,
            // What is wrong with what it says of itself is told below.
            None => store
                .carried()
                .unwrap_or_default()
                .mapping
                .or(&mapping::of_configuration(&configuration)?),
        }
    };
    let mut progress = progress("checked")?;
    let (found, lacking) = daemon::runtime()?.block_on(async {
        let mut step = |done, total| progress.step(done, total);
        let verification =
            Verification::of(store, &mut step).await.map_err(CommandError::failed)?;
        let mut lacking = Vec::new();
        for file in &args.lock_file {
            let path = environment.base.join(file);
            let lock_file = needs::read_lock_file(&path).await.map_err(CommandError::failed)?;
            lacking.extend(verification.lacks(&lock_file, &mapping, &args.platform).await);
        }
        Ok::<_, CommandError>((verification.found(), lacking))
    })?;
    let signal = progress.stopped_by().filter(|_| found.stopped);
    drop(progress);
    report_verified(&shown, &found, &lacking, args.json).map_err(|e| e.stopped_by(signal))
}

fn report_verified(
    shown: &str,
    found: &VerifiedStore,
    lacking: &[VerifyFinding],
    as_json: bool,
) -> Result<(), CommandError> {
    if as_json {
        let list = |findings: &[VerifyFinding]| -> Vec<Value> {
            findings
                .iter()
                .map(|finding| json!({"what": finding.what, "rule": finding.rule}))
                .collect()
        };
        output::json(&json!({
            "source": shown, "repositories": found.repositories, "objects": found.checked.objects,
            "bytes": found.checked.bytes, "bad": list(&found.bad), "partial": list(&found.partial),
            "lacking": list(lacking), "stopped": found.stopped,
        }))?;
    } else {
        let lines = |verb: &str, findings: &[VerifyFinding]| -> String {
            findings
                .iter()
                .map(|finding| format!("{verb}: {}: {}\n", finding.what, finding.rule))
                .collect()
        };
        output::text(format!(
            "{}{}{}{shown}: {} in {} checked, {}\n",
            lines("bad", &found.bad),
            lines("partial", &found.partial),
            lines("lacking", lacking),
            count(found.checked.objects, "object"),
            count(found.repositories, "repository"),
            Size(found.checked.bytes)
        ))?;
    }
    let reasons = reasons(found, lacking);
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(CommandError::Failed(format!("{shown}: {}", reasons.join("; "))))
    }
}

/// Why a store is not all that it should be.
fn reasons(found: &VerifiedStore, lacking: &[VerifyFinding]) -> Vec<String> {
    let mut reasons = Vec::new();
    if found.stopped {
        reasons.push("it was stopped before its end".to_owned());
    }
    if !found.bad.is_empty() {
        let bad = count_with(found.bad.len(), "thing", ["is", "are"]);
        reasons.push(format!("{bad} damaged or missing; bundle again"));
    }
    if !lacking.is_empty() {
        let lacking = count_with(
            lacking.len(),
            "thing",
            ["that the lock file needs is", "that the lock file needs are"],
        );
        reasons.push(format!("{lacking} lacking; add what is missing with tofufs bundle"));
    }
    reasons
}

fn progress(verb: &'static str) -> Result<ProgressLine, CommandError> {
    ProgressLine::new(verb)
        .map_err(|e| CommandError::Failed(format!("signals cannot be waited for: {e}")))
}
