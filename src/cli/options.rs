//! Options that nobody typed: said by a variable, a configuration file or a running mount.
//!
//! One mechanism for all options of all commands. What was typed is read first; what other places
//! say of the options that were not typed becomes their default, and the command line is read again
//! with it. So a value has one parser and one meaning, wherever it was said.

mod file;
mod layer;
pub mod like;
mod read;
mod variables;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command, CommandFactory};

pub use file::NamedMount;
pub use layer::{Layer, Said, ValueOrigin};
pub use read::{
    OptionPlaces, Origins, ReadCommandLine, SettledOptions, TypedCommand, Unread, all_options,
    mountpoint_of, read, unknown_variables,
};

use super::args::CommandLine;

/// Options that are for one process alone, and so belong on its command line.
const TYPED_ALONE: [&str; 4] = ["help", "version", "foreground", "for"];

/// The hidden option that holds a whole rule of the mapping, and the three that spell one on the
/// command line. They are one setting: the place that says one of them says all.
pub const RULE: &str = "oci_mirror_rule";
/// The options that spell a rule: its template first.
pub const RULE_PARTS: [&str; 3] = ["oci_mirror", "include", "exclude"];

/// How many values an option has, and of what kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It is on or off.
    Switch,
    /// It is a number of times.
    Count,
    /// It has one value.
    One,
    /// It has any number of values.
    Several,
}

/// The name of an option as settings write it, with `_` for `-`. `None` of what can only be typed.
pub fn key(argument: &Arg) -> Option<String> {
    let long = argument.get_long().filter(|long| !TYPED_ALONE.contains(long))?;
    let key = long.replace('-', "_");
    (!argument.is_hide_set() || key == RULE).then_some(key)
}

/// Its kind.
pub fn kind(argument: &Arg) -> Kind {
    match argument.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => Kind::Switch,
        ArgAction::Count => Kind::Count,
        ArgAction::Append => Kind::Several,
        _ => Kind::One,
    }
}

/// The variable that says it.
pub fn variable(key: &str) -> String {
    format!("TOFUFS_{}", key.to_ascii_uppercase())
}

/// The command line as the help shows it: each option with its variable.
pub fn described() -> Command {
    each_command(CommandLine::command(), &|argument| match key(&argument) {
        Some(key) if key != RULE => with_variable(argument, &variable(&key)),
        _ => argument,
    })
}

/// The option with its variable, which stands in the help behind its text: a line of its own would
/// double the help.
fn with_variable(option: Arg, variable: &str) -> Arg {
    let behind = |text: &StyledStr| format!("{text} [env: {variable}]");
    let help = option.get_help().map(behind).unwrap_or_default();
    let long = option.get_long_help().map(behind);
    let option = option.env(variable.to_owned()).hide_env(true).hide_env_values(true).help(help);
    match long {
        Some(long) => option.long_help(long),
        None => option,
    }
}

/// Every argument of a command and of those below it, changed.
fn each_command(command: Command, change: &dyn Fn(Arg) -> Arg) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    names.into_iter().fold(command.mut_args(change), |command, name| {
        command.mut_subcommand(name, |inner| each_command(inner, change))
    })
}

#[cfg(test)]
mod tests;
