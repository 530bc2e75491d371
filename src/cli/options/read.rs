//! Reading a command line together with what other places say.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::{Kind, RULE, RULE_PARTS, Said, described, key, kind, variables};
use crate::cli::args::CommandLine;
use crate::cli::output::CommandError;
use crate::cli::settings::SettingsError;

/// Where options are said beside the command line.
#[derive(Clone, Default, Debug)]
pub struct Places {
    /// The variables whose names begin with `TOFUFS_`.
    pub variables: BTreeMap<OsString, OsString>,
}

impl Places {
    /// Those of this process.
    pub fn of_process() -> Places {
        let ours = |(name, _): &(OsString, OsString)| name.as_bytes().starts_with(b"TOFUFS_");
        Places { variables: std::env::vars_os().filter(ours).collect() }
    }
}

/// A command line that was understood.
#[derive(Debug)]
pub struct Read {
    /// What is to be done.
    pub line: CommandLine,
    /// Where its options were said.
    pub origins: Origins,
}

/// A command line that was not.
#[derive(Debug)]
pub enum Unread {
    /// It is wrong, or asks for a help text.
    Typed(clap::Error),
    /// Another place says what cannot be.
    Said(CommandError),
}

impl From<clap::Error> for Unread {
    fn from(error: clap::Error) -> Unread {
        Unread::Typed(error)
    }
}

impl From<SettingsError> for Unread {
    fn from(error: SettingsError) -> Unread {
        Unread::Said(CommandError::usage(error))
    }
}

/// Where the options of a command were said, if they were not typed.
#[derive(Clone, Default, Debug)]
pub struct Origins(BTreeMap<String, Said>);

impl Origins {
    /// The same error, with the places of the options that its sentence names: nobody typed them.
    pub fn told(&self, error: CommandError) -> CommandError {
        match error {
            CommandError::Usage(sentence) => CommandError::Usage(self.with_places(sentence)),
            CommandError::Failed(sentence) => CommandError::Failed(self.with_places(sentence)),
            other => other,
        }
    }

    fn with_places(&self, sentence: String) -> String {
        let named = self.0.iter().filter_map(|(key, said)| {
            let names: Vec<String> = match key.as_str() {
                RULE => RULE_PARTS.map(typed).into_iter().chain(["repository template".to_owned()]).collect(),
                key => vec![typed(key)],
            };
            let option = names.iter().find(|name| is_named(name, &sentence))?;
            Some(format!("{option} is from {}", said.origin))
        });
        match named.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => sentence,
            places => format!("{sentence} ({places})"),
        }
    }
}

/// An option as it is typed.
fn typed(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// Whether a sentence names an option, and not one that begins alike.
fn is_named(option: &str, sentence: &str) -> bool {
    let ends = |at: usize| !sentence[at + option.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '-');
    sentence.match_indices(option).any(|(at, _)| ends(at))
}

/// Reads a command line, the program's name first.
pub fn read(words: &[OsString], places: &Places) -> Result<Read, Unread> {
    let (words, switched_off) = switched(words);
    let typed = Typed::of(&words, switched_off)?;
    let options = typed.options();
    let mut said: BTreeMap<String, Said> = BTreeMap::new();
    for layer in [variables::layer(&places.variables, options.iter())?] {
        for (key, value) in layer.0 {
            if !typed.has(&key) {
                said.entry(key).or_insert(value);
            }
        }
    }
    for option in &options {
        if let Some(said) = key(option).and_then(|key| said.get(&key)) {
            check(option, said)?;
        }
    }
    let command = with_defaults(CommandLine::command(), &typed.path, &said);
    let mut matches = command.try_get_matches_from(&words)?;
    let line = CommandLine::from_arg_matches_mut(&mut matches)?;
    Ok(Read { line, origins: Origins(said) })
}

/// The words, in which a switch may have been typed with its value: `--offline=false` takes back what another place
/// says. The names of those that were typed so.
fn switched(words: &[OsString]) -> (Vec<OsString>, BTreeSet<String>) {
    let switches = all_switches(&CommandLine::command());
    let mut off = BTreeSet::new();
    let mut kept = Vec::new();
    let mut words = words.iter();
    for word in words.by_ref() {
        let text = word.to_string_lossy();
        let switch = text.strip_prefix("--").and_then(|text| text.split_once('='));
        match switch.filter(|(name, _)| switches.contains(*name)) {
            Some((name, "true")) => kept.push(format!("--{name}").into()),
            Some((name, "false")) => {
                off.insert(name.replace('-', "_"));
            }
            _ => kept.push(word.clone()),
        }
        if word == "--" {
            break;
        }
    }
    kept.extend(words.cloned());
    (kept, off)
}

fn all_switches(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter(|argument| kind(argument) == Kind::Switch && key(argument).is_some());
    let own = own.filter_map(|argument| argument.get_long().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(all_switches)).collect()
}

/// What was typed: the command and its options.
struct Typed {
    path: Vec<String>,
    keys: BTreeSet<String>,
}

impl Typed {
    /// Passes over what is wrong, which is found when the line is read with its defaults.
    fn of(words: &[OsString], switched_off: BTreeSet<String>) -> Result<Typed, clap::Error> {
        let matches = described().ignore_errors(true).try_get_matches_from(words)?;
        let mut typed = Typed { path: Vec::new(), keys: switched_off };
        let mut inner = &matches;
        while let Some((name, matches)) = inner.subcommand() {
            typed.path.push(name.to_owned());
            inner = matches;
        }
        let options = typed.options();
        typed.keys.extend(options.iter().filter(|option| is_typed(option, inner)).filter_map(key));
        Ok(typed)
    }

    /// The options of the command, those that it has from the commands above it too.
    fn options(&self) -> Vec<Arg> {
        let mut options: Vec<Arg> = Vec::new();
        let mut command = CommandLine::command();
        for name in &self.path {
            options.extend(command.get_arguments().filter(|option| option.is_global_set()).cloned());
            command = command.find_subcommand(name).cloned().unwrap_or_default();
        }
        options.extend(command.get_arguments().cloned());
        options
    }

    fn has(&self, key: &str) -> bool {
        match key {
            RULE => RULE_PARTS.iter().any(|part| self.keys.contains(*part)),
            key => self.keys.contains(key),
        }
    }
}

fn is_typed(option: &Arg, matches: &ArgMatches) -> bool {
    matches.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// Refuses a value that the option would refuse.
fn check(option: &Arg, said: &Said) -> Result<(), SettingsError> {
    let Some(long) = option.get_long() else { return Ok(()) };
    let mut alone = Arg::new("value").long(long.to_owned()).action(ArgAction::Append);
    alone = match kind(option) {
        Kind::Switch => return Ok(()),
        Kind::Count => alone.value_parser(clap::value_parser!(u8)),
        Kind::One | Kind::Several => alone.value_parser(option.get_value_parser().clone()),
    };
    let words = said.values.iter().map(|value| {
        let mut word = OsString::from(format!("--{long}="));
        word.push(value);
        word
    });
    let parsed = Command::new("tofufs").no_binary_name(true).arg(alone).try_get_matches_from(words);
    parsed.map(drop).map_err(|error| SettingsError::new(&said.origin, super::super::first_paragraph(&error)))
}

/// The command line, in which the options of the command at `path` have what was said as their defaults.
fn with_defaults(command: Command, path: &[String], said: &BTreeMap<String, Said>) -> Command {
    let with_default = |argument: Arg| match key(&argument).and_then(|key| said.get(&key)) {
        Some(said) if path.is_empty() || argument.is_global_set() => {
            argument.required(false).default_values(said.values.clone())
        }
        _ => argument,
    };
    let command = command.mut_args(with_default);
    match path.split_first() {
        None => command,
        Some((name, below)) => command.mut_subcommand(name, |inner| with_defaults(inner, below, said)),
    }
}
