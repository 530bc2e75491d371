//! `tofufs cache`: works on the directory itself, so beside running mounts and without one.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{CacheArgs, CacheCommand};
use super::output::{self, CommandError, pairs};
use super::quantity::Size;
use super::settings::Environment;
use crate::store::{Options, Store};

/// Runs one of the commands.
pub fn run(args: &CacheArgs) -> Result<(), CommandError> {
    let environment = Environment::of_process().map_err(CommandError::usage)?;
    let dir = environment.cache_dir(args.cache_dir.as_deref()).map_err(CommandError::usage)?;
    // The budget is a mount's; no command here evicts because of one.
    let store = Store::open(Options { dir, limit: u64::MAX }).map_err(CommandError::failed)?;
    match args.command {
        CacheCommand::Info => info(&store, args.json),
        CacheCommand::Verify => verify(&store, args.json),
        CacheCommand::Prune { to } => prune(&store, to, args.json),
    }
}

fn info(store: &Store, as_json: bool) -> Result<(), CommandError> {
    let usage = store.usage();
    let space = store.space().map_err(CommandError::failed)?;
    let dir = usage.dir.display().to_string();
    if as_json {
        return output::json(&json!({
            "dir": dir, "bytes": usage.bytes, "objects": usage.objects, "available": space.available,
        }));
    }
    output::text(pairs(&[
        ("directory", dir),
        ("holds", format!("{} in {} objects", Size(usage.bytes), usage.objects)),
        ("free on its disk", Size(space.available).to_string()),
    ]))
}

fn verify(store: &Arc<Store>, as_json: bool) -> Result<(), CommandError> {
    let mut progress = Progress::new();
    let verified = store.verify(&mut |done, total| progress.show(done, total));
    progress.bar.finish_and_clear();
    let bad: Vec<(String, &String)> = verified.bad.iter().map(|(key, rule)| (key.to_string(), rule)).collect();
    if as_json {
        let bad: Vec<_> = bad.iter().map(|(key, rule)| json!({"object": key, "rule": rule})).collect();
        output::json(&json!({"checked": verified.checked, "bad": bad}))?;
    } else {
        let lines: String = bad.iter().map(|(key, rule)| format!("{key}: {rule}\n")).collect();
        output::text(format!("{lines}{} objects checked, {} damaged\n", verified.checked, bad.len()))?;
    }
    match bad.len() {
        0 => Ok(()),
        damaged => Err(CommandError::Failed(format!(
            "{damaged} objects of the cache were damaged; they are set aside and will be fetched again when needed"
        ))),
    }
}

fn prune(store: &Store, to: Size, as_json: bool) -> Result<(), CommandError> {
    let pruned = store.prune(to.0);
    if as_json {
        return output::json(&json!({"removed": pruned.objects, "bytes": pruned.bytes}));
    }
    output::text(format!("removed {} objects, {}\n", pruned.objects, Size(pruned.bytes)))
}

/// A bar on a terminal, a plain line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    last: Instant,
}

impl Progress {
    const PAUSE: Duration = Duration::from_secs(5);

    fn new() -> Progress {
        let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        // It draws to standard error, and only if that is a terminal.
        Progress { bar: ProgressBar::new(0).with_style(style), last: Instant::now() }
    }

    fn show(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.last.elapsed() >= Progress::PAUSE {
            self.last = Instant::now();
            let _ = writeln!(std::io::stderr(), "checked {} of {}", Size(done), Size(total));
        }
    }
}
