//! What a person types and reads: arguments, settings, output, exit codes, and the life of a
//! mount's process.
//!
//! Standard output carries results and nothing else. A command that fails says why in one line on
//! standard error.

pub mod access;
pub mod account;
pub mod allocator;
pub mod args;
pub mod attach;
pub mod background;
pub mod broker;
pub mod bundle;
pub mod cache;
pub mod carried;
pub mod commit;
pub mod config;
pub mod control;
pub mod controlled;
pub mod copy;
pub mod daemon;
pub mod directories;
pub mod doctor;
pub mod export;
pub mod handover;
pub mod helper;
pub mod imported;
pub mod lifecycle;
pub mod lock;
pub mod log;
pub mod look;
pub mod man;
pub mod mapping;
pub mod metrics;
pub mod mirror;
pub mod mount;
pub mod mounts;
pub mod needed;
pub mod network;
pub mod notify;
pub mod options;
pub mod origins;
pub mod output;
pub mod pin;
pub mod policy;
pub mod privileges;
pub mod progress;
pub mod providers;
pub mod pull;
pub mod push;
pub mod quantity;
pub mod reach;
pub mod reading;
pub mod refresh;
pub mod replace;
pub mod settings;
pub mod settings_error;
pub mod sign;
pub mod signing;
pub mod source;
pub mod staging;
pub mod state;
pub mod status;
pub mod takeover;
pub mod tofurc;
pub mod trace;
pub mod typed;
pub mod umount;
pub mod upgrade;
pub mod users;
pub mod verify;
pub mod workshop;

use std::ffi::OsString;
use std::io;

use clap::CommandFactory;
use clap::error::ErrorKind;

use args::{Command, CommandLine, LogFormat};
use helper::Translation;
use log::LogWriter;
use options::{OptionPlaces, ReadCommandLine, Unread};
use output::CommandError;

/// Runs a command line, the program's name first.
pub fn run(words: Vec<OsString>) -> Result<(), CommandError> {
    let words = match helper::translate(&words) {
        None => words,
        Some(Ok(Translation::CommandLine(words))) => words,
        Some(Ok(Translation::Nothing)) => return Ok(()),
        Some(Err(e)) => return Err(CommandError::usage(e)),
    };
    let read = options::read(&words, &OptionPlaces::of_process());
    let ReadCommandLine { line, verbosity, origins } = match read {
        Ok(read) => read,
        Err(e) => return unread(e, &words),
    };
    let log = log_of(&line, verbosity).map_err(CommandError::failed)?;
    let done = carried_out(line, &words).map_err(|e| origins.told(e));
    log.inspect(LogWriter::flush);
    done
}

/// The log of a command that is to say more. A mount has its own.
fn log_of(line: &CommandLine, verbosity: u8) -> io::Result<Option<LogWriter>> {
    if verbosity == 0 || matches!(line.command, Command::Mount(_)) {
        return Ok(None);
    }
    let log = LogWriter::to(io::stderr(), LogFormat::Text);
    log.start()?;
    log.install(verbosity);
    trace::begin();
    Ok(Some(log))
}

/// Prints the help text that was asked for, or says what is wrong.
fn unread(error: Unread, words: &[OsString]) -> Result<(), CommandError> {
    match error {
        Unread::Typed(e)
            if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            output::text(e.render().to_string())
        }
        Unread::Typed(e) => Err(CommandError::Usage(in_one_line(&e, words))),
        Unread::Said(e) => Err(e),
    }
}

fn carried_out(line: CommandLine, words: &[OsString]) -> Result<(), CommandError> {
    match line.command {
        Command::Mount(args) => mount::run(&args, words),
        Command::Umount(args) => umount::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Refresh(args) => refresh::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Commit(args) => commit::run(&args),
        Command::Push(args) => push::run(&args),
        Command::Mirror(args) => mirror::run(&args),
        Command::Copy(args) => copy::run(*args),
        Command::Attach(args) => attach::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Verify(args) => verify::run(*args),
        Command::Policy(args) => verify::policy(&args),
        Command::Lock(args) => lock::run(&args),
        Command::Bundle(args) => bundle::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Tofurc(args) => tofurc::written::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "tofufs", &mut script);
            output::text(script)
        }
        Command::Man { dir } => man::run(&dir),
    }
}

/// The error's own paragraph and what was meant.
fn in_one_line(error: &clap::Error, words: &[OsString]) -> String {
    let mut command = CommandLine::command();
    let mut help = "tofufs help".to_owned();
    // Commands have commands, between which options may stand.
    for word in words.iter().skip(1) {
        let named = command.get_subcommands().find(|c| word == c.get_name()).cloned();
        if let Some(named) = named {
            help = format!("{help} {}", named.get_name());
            command = named;
        }
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return format!("a command is missing; `{help}` lists them");
    }
    let text = error.render().to_string();
    // Of its advice what was probably meant. The rest is about options that look like values.
    let meant = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tip: "))
        .find(|tip| tip.contains("similar"));
    let meant = meant.map(|tip| format!("; {}", tip.trim_start_matches("some ")));
    format!("{}{}; see `{help}`", first_paragraph(error), meant.unwrap_or_default())
}

/// The paragraph in which an error says what is wrong, on one line.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests;
