//! What lock files, root modules and references need, for the commands that carry it somewhere.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::args::carry::NeedsArgs;
use super::directories::{DirectoryEnvironment, absolute};
use super::mounts;
use super::output::CommandError;
use super::progress::ProgressLine;
use super::quantity::Size;
use super::reading::Registries;
use crate::copy::fetch::{self, FetchEnding, Fetched};
use crate::copy::graph::CarriedReferrers;
use crate::copy::needs::{Inputs, LeftOut, NeededArtifact, Needs, ReleaseContents};
use crate::digest::Digest;
use crate::facts;
use crate::mapping::Mapping;
use crate::name::Platform;
use crate::store::{CacheHold, Key, Store};

/// What was typed, made ready. `platforms` are those that count where none was typed; none means
/// all.
pub fn inputs(
    args: &NeedsArgs,
    platforms: &[Platform],
    environment: &DirectoryEnvironment,
) -> Result<Inputs, CommandError> {
    if args.lock_file.is_empty() && args.root.is_empty() && args.reference.is_empty() {
        return Err(CommandError::Usage("name a --lock-file, a --root or a REFERENCE".to_owned()));
    }
    let paths =
        |paths: &[PathBuf]| paths.iter().map(|path| absolute(path, &environment.base)).collect();
    Ok(Inputs {
        lock_files: paths(&args.lock_file),
        roots: paths(&args.root),
        references: args.reference.clone(),
        platforms: if args.platform.is_empty() {
            platforms.to_vec()
        } else {
            args.platform.clone()
        },
        mount_points: mounts::all()?.into_iter().map(|mount| mount.point).collect(),
    })
}

/// The mapping that the command's flags spell, else that of the stores that it reads and of the CLI
/// configuration.
pub fn mapping(args: &NeedsArgs, registries: &Registries) -> Result<Mapping, CommandError> {
    let flags = args.mapping.mapping().map_err(CommandError::usage)?;
    registries.mapping(flags.as_ref())
}

/// Keeps what is needed in the cache, whoever else uses that, until the value is dropped.
pub fn held(needs: &Needs, registries: &Registries) -> Result<CacheHold, CommandError> {
    registries.store().hold(&needs.digests()).map_err(CommandError::failed)
}

/// Refuses what the cache could not keep, with all that is pinned beside it.
pub fn check_limit(needs: &Needs, store: &Store) -> Result<(), CommandError> {
    let mut objects: HashMap<Key, u64> = HashMap::new();
    for artifact in &needs.artifacts {
        objects.extend(artifact.zips().into_iter().map(|zip| (Key::Blob(zip.digest), zip.size)));
        objects.extend(artifact.manifests().into_iter().map(|digest| {
            let key = Key::Blob(digest);
            (key, store.stored(&key).unwrap_or(0))
        }));
    }
    let (needed, pinned) = store.space_with_pins(&objects);
    if needed.saturating_add(pinned) <= store.limit() {
        return Ok(());
    }
    let beside =
        if pinned > 0 { format!(", {} are pinned beside it", Size(pinned)) } else { String::new() };
    Err(CommandError::Failed(format!(
        "what is needed takes {} in the cache {}{beside}, and the cache may hold {}: it could not \
         be kept; give a larger --cache-size, here and to the mounts that share the cache",
        Size(needed),
        store.dir().display(),
        Size(store.limit())
    )))
}

/// Notes what was fetched as used, and the rules that the command was told: a mount of the same
/// sources shows it then without being told anything.
pub fn remember(
    args: &NeedsArgs,
    needs: &Needs,
    registries: &Registries,
) -> Result<(), CommandError> {
    let flags = args.mapping.mapping().map_err(CommandError::usage)?;
    let used = registries.told(flags.as_ref())?.carried_with(&needs.providers);
    facts::remember(registries.store(), &used).map_err(CommandError::failed)
}

/// Finds out what is needed; it is an error if none of it can be had.
pub fn find(
    runtime: &Runtime,
    inputs: &Inputs,
    mapping: &Mapping,
    registries: &Registries,
) -> Result<Needs, CommandError> {
    let needs =
        runtime.block_on(Needs::find(inputs, mapping, registries)).map_err(CommandError::failed)?;
    if needs.artifacts.is_empty() && !needs.left_out.is_empty() {
        note_left_out(&needs);
        return Err(CommandError::failed(
            "all that is needed is left out, so that nothing was done",
        ));
    }
    Ok(needs)
}

/// Fetches what is needed, with a progress bar; what that took, in the order of
/// [`Needs::artifacts`].
pub fn fetched(
    runtime: &Runtime,
    needs: &Needs,
    registries: &Registries,
) -> Result<Vec<Fetched>, CommandError> {
    let mut progress = ProgressLine::new("in the cache")
        .map_err(|e| CommandError::Failed(format!("signals cannot be waited for: {e}")))?;
    let mut step = |done, total| progress.step(done, total);
    let ending = runtime.block_on(fetch::fetch(needs, registries, &mut step));
    match ending.map_err(CommandError::failed)? {
        FetchEnding::Complete(fetched) => {
            registries.note_outages();
            Ok(fetched)
        }
        FetchEnding::Stopped => Err(CommandError::failed(
            "it was stopped; what was fetched stays in the cache, and the same command goes on \
             from there",
        )
        .stopped_by(progress.stopped_by())),
    }
}

/// Fetches what speaks about the releases; the digests, in the order of [`Needs::artifacts`].
pub fn referrers(
    runtime: &Runtime,
    needs: &Needs,
    wanted: CarriedReferrers,
    registries: &Registries,
) -> Result<Vec<BTreeSet<Digest>>, CommandError> {
    let fetched = runtime.block_on(fetch::referrers(needs, wanted, registries));
    fetched.map_err(CommandError::failed)
}

/// A line for each release: what it is, and its size.
pub fn lines(needs: &Needs, fetched: &[Fetched]) -> String {
    needs
        .artifacts
        .iter()
        .zip(fetched)
        .map(|(artifact, fetched)| line(artifact, *fetched))
        .collect()
}

fn line(artifact: &NeededArtifact, fetched: Fetched) -> String {
    let what = match &artifact.contents {
        ReleaseContents::Module(_) => "module".to_owned(),
        ReleaseContents::Provider(packages) => {
            let platforms: Vec<_> =
                packages.iter().map(|package| package.platform.to_string()).collect();
            format!("provider for {}", platforms.join(", "))
        }
    };
    let new = match fetched.fetched {
        0 => "was there".to_owned(),
        new => format!("{} fetched", Size(new)),
    };
    let name = match artifact.tags.first() {
        Some(tag) => format!("{}@{}", artifact.repo.tagged(tag), artifact.digest),
        None => artifact.reference().to_string(),
    };
    format!("{name}: {what}, {}, {new}\n", Size(fetched.bytes))
}

/// The same for programs.
pub fn json(needs: &Needs, fetched: &[Fetched]) -> Vec<Value> {
    let releases = needs.artifacts.iter().zip(fetched);
    releases.map(|(artifact, fetched)| artifact_json(artifact, *fetched)).collect()
}

/// One of them.
pub fn artifact_json(artifact: &NeededArtifact, fetched: Fetched) -> Value {
    let (kind, platforms) = match &artifact.contents {
        ReleaseContents::Module(_) => ("module", Vec::new()),
        ReleaseContents::Provider(packages) => {
            ("provider", packages.iter().map(|p| p.platform.to_string()).collect())
        }
    };
    json!({
        "reference": artifact.reference().to_string(), "digest": artifact.digest.to_string(),
        "tags": artifact.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "kind": kind, "platforms": platforms, "bytes": fetched.bytes,
        "fetched_bytes": fetched.fetched,
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
