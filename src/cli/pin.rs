//! `tofufs cache pin`: what lock files, root modules and references need is fetched and stays in
//! the cache.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::args::carry::PinArgs;
use super::directories::DirectoryEnvironment;
use super::output::{self, CommandError};
use super::quantity::Size;
use super::reading::Registries;
use super::{daemon, needed};
use crate::copy::needs::{self, NeededArtifact, ReferencePattern};
use crate::digest::Digest;
use crate::name::{Platform, Selector};
use crate::store::{Pin, Store};

/// Pins, lists or unpins.
pub fn run(args: &PinArgs, cache_dir: Option<&Path>, as_json: bool) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let registries = Registries::open(&args.reading, cache_dir, &environment)?;
    let named = &args.needs;
    match (
        named.lock_file.is_empty() && named.root.is_empty() && named.reference.is_empty(),
        args.remove,
    ) {
        (true, false) => list(registries.store(), as_json),
        (_, true) => remove(args, &registries, &environment, as_json),
        (false, false) => pin(args, registries, &environment, as_json),
    }
}

fn pin(
    args: &PinArgs,
    registries: Registries,
    environment: &DirectoryEnvironment,
    as_json: bool,
) -> Result<(), CommandError> {
    let inputs = needed::inputs(&args.needs, &[Platform::host()], environment)?;
    let registries = &registries.of_platforms(&inputs.platforms);
    let mapping = needed::mapping(&args.needs, registries)?;
    let store = registries.store();
    let runtime = daemon::runtime()?;
    let needs = needed::find(&runtime, &inputs, &mapping, registries)?;
    let held = needed::held(&needs, registries)?;
    let fetched = needed::fetched(&runtime, &needs, registries)?;
    let speaking = needed::referrers(&runtime, &needs, args.referrers.into(), registries)?;
    needed::remember(&args.needs, &needs, registries)?;
    let pins: Vec<Pin> = needs.artifacts.iter().zip(speaking).map(pin_of).collect();
    store.pin(&pins).map_err(CommandError::failed)?;
    drop(held);
    let usage = store.pinned_usage();
    if as_json {
        return output::json(&json!({
            "artifacts": needed::json(&needs, &fetched),
            "left_out": needed::left_out_json(&needs.left_out),
            "pinned": {"bytes": usage.bytes, "objects": usage.objects},
            "requests": registries.requests(),
        }));
    }
    needed::note_left_out(&needs);
    let mut text = needed::lines(&needs, &fetched);
    text += &format!("{} are pinned", Size(usage.bytes));
    if usage.bytes > store.limit() {
        text += &format!(
            ", more than the {} that the cache may hold: a mount of that limit keeps nothing else",
            Size(store.limit())
        );
    }
    output::text(text + "\n")
}

fn pin_of((artifact, speaking): (&NeededArtifact, BTreeSet<Digest>)) -> Pin {
    let zips = artifact.zips().into_iter().map(|zip| zip.digest);
    Pin {
        reference: artifact.repo.at(Selector::Digest(artifact.digest)),
        tags: artifact.tags.clone(),
        objects: artifact.manifests().into_iter().chain(zips).chain(speaking).collect(),
    }
}

fn list(store: &Store, as_json: bool) -> Result<(), CommandError> {
    let (pins, usage) = (store.pins(), store.pinned_usage());
    if as_json {
        return output::json(&json!({
            "pins": pins.iter().map(shown).collect::<Vec<_>>(),
            "bytes": usage.bytes, "objects": usage.objects,
        }));
    }
    output::text(pins.iter().map(line).collect::<String>())
}

fn remove(
    args: &PinArgs,
    registries: &Registries,
    environment: &DirectoryEnvironment,
    as_json: bool,
) -> Result<(), CommandError> {
    if !args.needs.root.is_empty() {
        let rule =
            "--remove takes lock files and references; `tofufs cache pin` lists what is pinned";
        return Err(CommandError::usage(rule));
    }
    let inputs = needed::inputs(&args.needs, &[], environment)?;
    let mapping = needed::mapping(&args.needs, registries)?;
    let mut wanted = inputs.references;
    let runtime = daemon::runtime()?;
    for path in &inputs.lock_files {
        let file = runtime.block_on(needs::read_lock_file(path)).map_err(CommandError::failed)?;
        for (address, lock) in file.locks() {
            let repos = mapping.repos(address).map_err(CommandError::failed)?;
            let tag = lock.version.tag();
            wanted.extend(repos.iter().filter_map(|repo| {
                Some(ReferencePattern::One(repo.at(Selector::Tag(tag.clone()?))))
            }));
        }
    }
    let is_wanted = |pin: &Pin| {
        let Selector::Digest(digest) = &pin.reference.selector else { return false };
        wanted.iter().any(|pattern| pattern.matches(&pin.reference.repo, digest, &pin.tags))
    };
    let removed = registries.store().unpin(is_wanted).map_err(CommandError::failed)?;
    if removed.is_empty() {
        return Err(CommandError::failed(
            "none of that is pinned; `tofufs cache pin` lists what is",
        ));
    }
    if as_json {
        output::json(&json!({"removed": removed.iter().map(shown).collect::<Vec<_>>()}))
    } else {
        output::text(
            removed
                .iter()
                .map(|pin| format!("no longer pinned: {}", line(pin)))
                .collect::<String>(),
        )
    }
}

fn line(pin: &Pin) -> String {
    let tags: Vec<_> = pin.tags.iter().map(ToString::to_string).collect();
    let tags = if tags.is_empty() { String::new() } else { format!(" ({})", tags.join(", ")) };
    format!("{}{tags}\n", pin.reference)
}

fn shown(pin: &Pin) -> Value {
    json!({
        "reference": pin.reference.to_string(),
        "tags": pin.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "objects": pin.objects.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
