//! `tofufs cache`: works on the directory itself, so beside running mounts and without one.

use std::sync::Arc;

use serde_json::json;

use super::args::{CacheArgs, CacheCommand};
use super::directories::DirectoryEnvironment;
use super::output::{self, CommandError, count, count_with, pairs};
use super::progress::ProgressLine;
use super::quantity::Size;
use crate::store::{Store, StoreOptions};

/// Runs one of the commands.
pub fn run(args: &CacheArgs) -> Result<(), CommandError> {
    match &args.command {
        CacheCommand::Info => info(&*existing(args)?, args.json),
        CacheCommand::Verify => verify(&existing(args)?, args.json),
        CacheCommand::Prune { to } => prune(&*existing(args)?, *to, args.json),
        CacheCommand::Pin(pin) => super::pin::run(pin, args.cache_dir.as_deref(), args.json),
    }
}

/// The cache, which has to be there.
fn existing(args: &CacheArgs) -> Result<Arc<Store>, CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let dir = environment.cache_dir(args.cache_dir.as_deref()).map_err(CommandError::usage)?;
    if !Store::is_at(&dir) {
        return Err(CommandError::Failed(format!(
            "{}: there is no cache; a mount makes it",
            dir.display()
        )));
    }
    // The budget is a mount's; no command here evicts because of one.
    Store::open(StoreOptions { dir, limit: u64::MAX }).map_err(CommandError::failed)
}

fn info(store: &Store, as_json: bool) -> Result<(), CommandError> {
    let usage = store.usage();
    let pinned = store.pinned_usage();
    let space = store.space().map_err(CommandError::failed)?;
    let dir = usage.dir.display().to_string();
    if as_json {
        return output::json(&json!({
            "dir": dir, "bytes": usage.bytes, "objects": usage.objects,
            "available": space.available,
            "pinned": {"bytes": pinned.bytes, "objects": pinned.objects},
        }));
    }
    output::text(pairs(&[
        ("directory", dir),
        ("holds", format!("{} in {}", Size(usage.bytes), count(usage.objects, "object"))),
        (
            "of which pinned",
            format!("{} in {}", Size(pinned.bytes), count(pinned.objects, "object")),
        ),
        ("free on its disk", Size(space.available).to_string()),
    ]))
}

fn verify(store: &Arc<Store>, as_json: bool) -> Result<(), CommandError> {
    let mut progress = progress("checked")?;
    let verified = store.verify(&mut |done, total| progress.step(done, total));
    let signal = progress.stopped_by().filter(|_| verified.left > 0);
    drop(progress);
    let bad: Vec<(String, &String)> =
        verified.bad.iter().map(|(key, rule)| (key.to_string(), rule)).collect();
    if as_json {
        let bad: Vec<_> =
            bad.iter().map(|(key, rule)| json!({"object": key, "rule": rule})).collect();
        output::json(&json!({"checked": verified.checked, "bad": bad, "left": verified.left}))?;
    } else {
        let lines: String = bad.iter().map(|(key, rule)| format!("{key}: {rule}\n")).collect();
        output::text(format!(
            "{lines}{} checked, {} damaged\n",
            count(verified.checked, "object"),
            bad.len()
        ))?;
    }
    let mut reasons = Vec::new();
    if !bad.is_empty() {
        let damaged = count_with(bad.len(), "object", ["of the cache was", "of the cache were"]);
        reasons.push(format!("{damaged} damaged; what was is fetched again when needed"));
    }
    if verified.left > 0 {
        let left = count_with(verified.left, "object", ["was", "were"]);
        reasons.push(format!("it was stopped; {left} not looked at"));
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(CommandError::Failed(reasons.join("; ")).stopped_by(signal))
    }
}

fn prune(store: &Store, to: Size, as_json: bool) -> Result<(), CommandError> {
    let mut progress = progress("freed")?;
    let pruned = store.prune_while(to.0, &mut |done, total| progress.step(done, total));
    let stopped = progress.stopped_by();
    drop(progress);
    let (left, pinned) = (store.usage(), store.pinned_usage());
    if as_json {
        output::json(&json!({
            "removed": pruned.objects, "bytes": pruned.bytes,
            "left": {"objects": left.objects, "bytes": left.bytes},
            "pinned": {"objects": pinned.objects, "bytes": pinned.bytes},
        }))?;
    } else {
        output::text(format!(
            "removed {}, {}; {} left, {}{}\n",
            count(pruned.objects, "object"),
            Size(pruned.bytes),
            count_with(left.objects, "object", ["is", "are"]),
            Size(left.bytes),
            if pinned.objects > 0 {
                format!(", of which {} are pinned", Size(pinned.bytes))
            } else {
                String::new()
            }
        ))?;
    }
    if left.bytes > to.0 && stopped.is_some() {
        let sentence = format!("it was stopped before the cache held at most {to}");
        return Err(CommandError::Failed(sentence).stopped_by(stopped));
    }
    if left.bytes > to.0 && pruned.refused > 0 {
        return Err(CommandError::Failed(format!(
            "{} could not be removed from {}, so that the cache holds more than {to}; run it as \
             who owns the cache, on a disk that takes writes",
            count(pruned.refused, "object"),
            left.dir.display()
        )));
    }
    Ok(())
}

fn progress(verb: &'static str) -> Result<ProgressLine, CommandError> {
    ProgressLine::new(verb)
        .map_err(|e| CommandError::Failed(format!("signals cannot be waited for: {e}")))
}
