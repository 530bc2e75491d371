//! How hard tofufs is to break, in numbers. Each test tries one kind of harm many times and says
//! how often tofufs held.
//!
//! They are long, so that they run only where they are asked for: `scripts/scorecard` runs them and
//! prints the table. `TOFUFS_SCORECARD=full` tries as often as the goals say; otherwise each takes
//! a minute or so. `TOFUFS_SCORES` names the file that gets a line of JSON for each score.

mod archives;
mod disk;
mod flips;
mod kills;
mod memory;
mod power;
mod readers;
mod secrets;
mod stress;

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use support::mount::finish;

/// What was tried of one kind of harm.
struct Score {
    name: &'static str,
    tried: u64,
    /// How often tofufs held.
    held: u64,
    /// How often it is to be tried.
    goal: u64,
    /// Figures that belong to it; what failed first, if anything did.
    why: String,
}

impl Score {
    /// Writes the score down. Panics if tofufs did not hold, so that the test says so too.
    #[track_caller]
    fn tell(self) {
        let met = self.held == self.tried && self.tried >= self.goal;
        let why = match (self.held == self.tried, self.tried >= self.goal, is_full()) {
            (true, false, false) => format!("{}; a quick run tries less", self.why),
            _ => self.why,
        };
        let line = json!({
            "name": self.name, "tried": self.tried, "held": self.held,
            "goal": format!("all of {}", self.goal), "met": met, "why": why,
        });
        println!("{line}");
        if let Some(path) = std::env::var_os("TOFUFS_SCORES") {
            let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
            writeln!(file, "{line}").unwrap();
        }
        assert!(self.tried > 0, "{}: nothing was tried", self.name);
        assert_eq!(self.held, self.tried, "{}: {why}", self.name);
    }
}

/// Tries that are counted; the first that did not hold is named.
#[derive(Default)]
struct Tries {
    tried: u64,
    held: u64,
    first: Option<String>,
}

impl Tries {
    fn count(&mut self, held: Result<(), String>) {
        self.tried += 1;
        match held {
            Ok(()) => self.held += 1,
            Err(why) => drop(self.first.get_or_insert(why)),
        }
    }

    fn score(self, name: &'static str, goal: u64, figures: String) -> Score {
        let why = match self.first {
            Some(first) if figures.is_empty() => first,
            Some(first) => format!("{figures}; {first}"),
            None => figures,
        };
        Score { name, tried: self.tried, held: self.held, goal, why }
    }
}

/// Whether the goals are tried in full.
fn is_full() -> bool {
    std::env::var("TOFUFS_SCORECARD").is_ok_and(|amount| amount == "full")
}

/// How often to try: as the goal says, or a share of it.
fn amount(goal: u64, quick: u64) -> u64 {
    if is_full() { goal } else { quick }
}

/// A command of the program with an environment of its own below `dir`.
fn tofufs(dir: &Path) -> Command {
    let mut command = Command::new(support::world::program());
    in_home(&mut command, dir);
    command
}

/// Gives a command the environment of [`tofufs`].
fn in_home(command: &mut Command, dir: &Path) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .stdin(Stdio::null());
}

/// Runs a command; its standard output, or what it said instead.
fn run(command: Command) -> Result<String, String> {
    let words = format!("{command:?}");
    let output = finish(command);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
    }
}

/// Whether `file` holds `wanted`.
fn right(file: &Path, wanted: &[u8]) -> Result<(), String> {
    match fs::read(file) {
        Ok(bytes) if bytes == wanted => Ok(()),
        Ok(_) => Err(format!("wrong bytes in {}", file.display())),
        Err(e) => Err(format!("{}: {e}", file.display())),
    }
}

/// How many files `tofufs cache verify` finds damaged.
fn damaged(home: &Path, cache: &Path) -> Result<usize, String> {
    let mut command = tofufs(home);
    command.args(["cache", "verify", "--json", "--cache-dir"]).arg(cache);
    let output = finish(command);
    let verified: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cache verify: {e}: {}", String::from_utf8_lossy(&output.stderr)))?;
    verified["bad"].as_array().map(Vec::len).ok_or_else(|| "cache verify lists nothing".to_owned())
}
