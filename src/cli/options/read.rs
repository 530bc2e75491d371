//! Reading a command line together with what other places say.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::file::{self, ConfigurationFile, NamedMount};
use super::{Kind, Layer, RULE, RULE_PARTS, Said, described, key, kind, like, variable, variables};
use crate::cli::args::{self, CommandLine};
use crate::cli::first_paragraph;
use crate::cli::output::CommandError;
use crate::cli::settings_error::SettingsError;

/// Where options are said beside the command line.
#[derive(Clone, Default, Debug)]
pub struct OptionPlaces {
    /// The variables whose names begin with `TOFUFS_`.
    pub variables: BTreeMap<OsString, OsString>,
    /// The configuration files, the stronger first.
    pub files: Vec<PathBuf>,
    /// The user's home.
    pub home: Option<PathBuf>,
}

impl OptionPlaces {
    /// Those of this process.
    pub fn of_process() -> OptionPlaces {
        let ours = |(name, _): &(OsString, OsString)| name.as_bytes().starts_with(b"TOFUFS_");
        let absolute = |path: &PathBuf| path.is_absolute();
        let home = std::env::home_dir().filter(absolute);
        let config_home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute);
        let files = file::paths(config_home, home.as_deref());
        OptionPlaces { variables: std::env::vars_os().filter(ours).collect(), files, home }
    }
}

/// A command line that was understood.
#[derive(Debug)]
pub struct ReadCommandLine {
    /// What is to be done.
    pub line: CommandLine,
    /// How often `--verbose` was said.
    pub verbosity: u8,
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
                RULE => RULE_PARTS
                    .map(typed)
                    .into_iter()
                    .chain(["repository template".to_owned()])
                    .collect(),
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
    let ends = |at: usize| {
        !sentence[at + option.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '-')
    };
    sentence.match_indices(option).any(|(at, _)| ends(at))
}

/// Reads a command line, the program's name first.
pub fn read(words: &[OsString], places: &OptionPlaces) -> Result<ReadCommandLine, Unread> {
    let settled = SettledOptions::of(words, places)?;
    let command = with_defaults(CommandLine::command(), &settled.typed.path, &settled.said);
    let mut matches = command.try_get_matches_from(&settled.words)?;
    let verbosity = path_of(&matches).1.try_get_one::<u8>("verbose").ok().flatten().copied();
    let mut line = CommandLine::from_arg_matches_mut(&mut matches)?;
    if let (args::Command::Mount(args), Some(named)) = (&mut line.command, settled.named) {
        args.sources_and_mountpoint = named.words;
    }
    let verbosity = verbosity.unwrap_or(0);
    Ok(ReadCommandLine { line, verbosity, origins: Origins(settled.said) })
}

/// What was typed, and what other places say of the options that were not.
#[derive(Debug)]
pub struct SettledOptions {
    /// What clap reads: switches stand without a value.
    words: Vec<OsString>,
    /// What was typed.
    pub typed: TypedCommand,
    /// What other places say, by the names of options.
    pub said: BTreeMap<String, Said>,
    /// The named mount that is meant.
    pub named: Option<NamedMount>,
}

impl SettledOptions {
    /// Looks at all places.
    pub fn of(words: &[OsString], places: &OptionPlaces) -> Result<SettledOptions, Unread> {
        let (words, switched_off) = switched(words)?;
        let typed = TypedCommand::of(&words, switched_off)?;
        SettledOptions::with(words, typed, places)
    }

    /// The options of all commands, none of which was typed.
    pub fn of_all(places: &OptionPlaces) -> Result<SettledOptions, Unread> {
        let options = all_options(&CommandLine::command()).into_values().collect();
        let typed =
            TypedCommand { path: Vec::new(), options, values: BTreeMap::new(), names: Vec::new() };
        SettledOptions::with(Vec::new(), typed, places)
    }

    fn with(
        words: Vec<OsString>,
        typed: TypedCommand,
        places: &OptionPlaces,
    ) -> Result<SettledOptions, Unread> {
        let mut layers = vec![variables::layer(&places.variables, typed.options.iter())?];
        let mut files = Vec::new();
        for path in &places.files {
            files.extend(ConfigurationFile::read(path, places.home.as_deref())?);
        }
        let named = typed.named_mount(&files, places)?;
        layers.extend(named.as_ref().map(|named| named.options.clone()));
        layers.extend(files.into_iter().map(|file| file.options));
        typed.take_after(&mut layers)?;

        let mut said: BTreeMap<String, Said> = BTreeMap::new();
        for (key, value) in layers.into_iter().flat_map(|layer| layer.0) {
            if typed.takes(&key) {
                said.entry(key).or_insert(value);
            }
        }
        for option in &typed.options {
            if let Some(said) = key(option).and_then(|key| said.get(&key)) {
                check(option, said)?;
            }
        }
        Ok(SettledOptions { words, typed, said, named })
    }
}

/// The mount point of the mount that a configuration file calls `name`.
pub fn mountpoint_of(name: &str, places: &OptionPlaces) -> Result<Option<PathBuf>, SettingsError> {
    for path in &places.files {
        let file = ConfigurationFile::read(path, places.home.as_deref())?;
        let named = file.and_then(|mut file| file.mounts.remove(name));
        if let Some(point) = named.and_then(|named| named.words.last().map(PathBuf::from)) {
            return Ok(Some(point));
        }
    }
    Ok(None)
}

/// The words, in which a switch of the command may have been typed with its value:
/// `--offline=false` takes back what another place says. The last word on a switch counts. The
/// names of those that were typed so.
fn switched(words: &[OsString]) -> Result<(Vec<OsString>, BTreeSet<String>), clap::Error> {
    let switches = options_of(&path_of(&looked(words)?).0);
    let is_switch =
        |name: &str| switches.iter().any(|o| o.get_long() == Some(name) && kind(o) == Kind::Switch);
    let mut off = BTreeSet::new();
    let mut kept: Vec<OsString> = Vec::new();
    let mut words = words.iter();
    for word in words.by_ref() {
        let text = word.to_string_lossy();
        let (name, value) = text.split_once('=').unwrap_or((&text, "true"));
        match (name.strip_prefix("--").filter(|name| is_switch(name)), value) {
            (Some(long), "true") => {
                off.remove(&long.replace('-', "_"));
                kept.push(name.to_owned().into());
            }
            (Some(long), "false") => {
                off.insert(long.replace('-', "_"));
                kept.retain(|word| word != name);
            }
            _ => kept.push(word.clone()),
        }
        if word == "--" {
            break;
        }
    }
    kept.extend(words.cloned());
    Ok((kept, off))
}

/// A first look at the words, that passes over what is wrong.
fn looked(words: &[OsString]) -> Result<ArgMatches, clap::Error> {
    described().ignore_errors(true).try_get_matches_from(words)
}

/// The names of the command, and what was typed behind the last of them.
fn path_of(matches: &ArgMatches) -> (Vec<String>, &ArgMatches) {
    let (mut path, mut inner) = (Vec::new(), matches);
    while let Some((name, matches)) = inner.subcommand() {
        path.push(name.to_owned());
        inner = matches;
    }
    (path, inner)
}

/// What was typed: the command and its options.
#[derive(Debug)]
pub struct TypedCommand {
    /// The names of the command.
    pub path: Vec<String>,
    /// Its options, those that it has from the commands above it too.
    pub options: Vec<Arg>,
    /// The values of those that were typed.
    pub values: BTreeMap<String, Vec<OsString>>,
    /// The words of `mount` that are no options.
    names: Vec<OsString>,
}

impl TypedCommand {
    /// Passes over what is wrong, which is found when the line is read with its defaults.
    fn of(words: &[OsString], switched_off: BTreeSet<String>) -> Result<TypedCommand, clap::Error> {
        let matches = looked(words)?;
        let (path, inner) = path_of(&matches);
        let options = options_of(&path);
        let off = switched_off.into_iter().map(|key| (key, vec!["false".into()]));
        let typed =
            options.iter().filter_map(|option| Some((key(option)?, typed_values(option, inner)?)));
        let values = off.chain(typed).collect();
        let names = match path.first().map(String::as_str) {
            Some("mount") => inner
                .get_raw("sources_and_mountpoint")
                .into_iter()
                .flatten()
                .map(OsStr::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        Ok(TypedCommand { path, options, values, names })
    }

    /// Whether the command has this option and it was not typed.
    fn takes(&self, name: &str) -> bool {
        let is_typed = match name {
            RULE => RULE_PARTS.iter().any(|part| self.values.contains_key(*part)),
            name => self.values.contains_key(name),
        };
        !is_typed && self.options.iter().any(|option| key(option).as_deref() == Some(name))
    }

    /// The named mount that is meant, if a name stands alone.
    fn named_mount(
        &self,
        files: &[ConfigurationFile],
        places: &OptionPlaces,
    ) -> Result<Option<NamedMount>, SettingsError> {
        let [name] = &self.names[..] else { return Ok(None) };
        let found =
            name.to_str().and_then(|name| files.iter().find_map(|file| file.mounts.get(name)));
        if found.is_none() {
            let looked = places
                .files
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(" nor ");
            let reason = format!(
                "neither {looked} has a mount of this name; else a SOURCE and a MOUNTPOINT are \
                 wanted; see `tofufs help mount`"
            );
            return Err(SettingsError::new(
                format_args!("mount {}", name.to_string_lossy()),
                reason,
            ));
        }
        Ok(found.cloned())
    }

    /// Puts what a mount says that is to be taken after right behind the place that names it.
    fn take_after(&self, layers: &mut Vec<Layer>) -> Result<(), Unread> {
        const LIKE: &str = "like";
        let typed = self.values.get(LIKE).map(|values| (0, values.clone()));
        let said = || {
            layers
                .iter()
                .enumerate()
                .find_map(|(at, layer)| Some((at + 1, layer.0.get(LIKE)?.values.clone())))
        };
        let has_it = self.options.iter().any(|option| key(option).as_deref() == Some(LIKE));
        if let Some((at, values)) = typed.or_else(said).filter(|_| has_it) {
            for point in values {
                layers.insert(at, like::layer(Path::new(&point)).map_err(Unread::Said)?);
            }
        }
        Ok(())
    }
}

/// The options of a command and of all below it, by their names.
pub fn all_options(command: &Command) -> BTreeMap<String, Arg> {
    let own = command.get_opts().filter_map(|option| Some((key(option)?, option.clone())));
    command.get_subcommands().flat_map(all_options).chain(own).collect()
}

/// The variables that look like ours and are of no option.
pub fn unknown_variables(places: &OptionPlaces) -> Vec<OsString> {
    let known: BTreeSet<OsString> =
        all_options(&CommandLine::command()).keys().map(|key| variable(key).into()).collect();
    places.variables.keys().filter(|name| !known.contains(*name)).cloned().collect()
}

/// The options of the command at `path`.
fn options_of(path: &[String]) -> Vec<Arg> {
    let mut options: Vec<Arg> = Vec::new();
    let mut command = CommandLine::command();
    for name in path {
        options.extend(command.get_arguments().filter(|option| option.is_global_set()).cloned());
        command = command.find_subcommand(name).cloned().unwrap_or_default();
    }
    options.extend(command.get_opts().cloned());
    options
}

/// The values of an option that was typed.
fn typed_values(option: &Arg, matches: &ArgMatches) -> Option<Vec<OsString>> {
    let id = option.get_id().as_str();
    if matches.value_source(id) != Some(ValueSource::CommandLine) {
        return None;
    }
    Some(match kind(option) {
        Kind::Switch => vec!["true".into()],
        Kind::Count => vec![matches.get_count(id).to_string().into()],
        Kind::One | Kind::Several => {
            matches.get_raw(id).into_iter().flatten().map(OsStr::to_owned).collect()
        }
    })
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
    parsed.map(drop).map_err(|error| SettingsError::new(&said.origin, first_paragraph(&error)))
}

/// The command line, in which the options of the command at `path` have what was said as their
/// defaults.
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
        Some((name, below)) => {
            command.mut_subcommand(name, |inner| with_defaults(inner, below, said))
        }
    }
}
