//! Configuration files: the long options with `_` for `-` as keys, and named mounts.
//!
//! What a file says decides what is run and trusted, so one that others can write to is refused,
//! like one that says what nobody reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Arg, CommandFactory, ValueHint};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{Kind, Layer, RULE, RULE_PARTS, Said, ValueOrigin, all_options, kind};
use crate::cli::args::CommandLine;
use crate::cli::args::mapping::RuleArgs;
use crate::cli::settings_error::SettingsError;
use crate::input;

/// The most bytes of a file.
const FILE_MAX: u64 = 1 << 20;
/// The table of named mounts.
const MOUNTS: &str = "mount";

/// What a file says.
#[derive(Clone, Debug)]
pub struct ConfigurationFile {
    /// Of options, for all commands.
    pub options: Layer,
    /// Its named mounts.
    pub mounts: BTreeMap<String, NamedMount>,
}

/// A mount that has a name.
#[derive(Clone, Debug)]
pub struct NamedMount {
    /// Its sources and behind them its mount point, as they would be typed.
    pub words: Vec<OsString>,
    /// What it says of options.
    pub options: Layer,
    /// Where it stands.
    pub origin: ValueOrigin,
}

impl ConfigurationFile {
    /// Reads a file; `None` where there is none. A path in it that begins with `~/` is below
    /// `home`.
    ///
    /// # Errors
    /// It cannot be read, others can write to it, or it says what cannot be.
    pub fn read(
        path: &Path,
        home: Option<&Path>,
    ) -> Result<Option<ConfigurationFile>, SettingsError> {
        let failed = |reason: &dyn fmt::Display| SettingsError::new(path.display(), reason);
        let file = match input::open(path) {
            Ok(file) => file,
            Err(e) if e.is_absence() => return Ok(None),
            Err(e) => return Err(failed(&e)),
        };
        let metadata = file.metadata().map_err(|e| failed(&e))?;
        if metadata.is_file() {
            check_owner(metadata.uid(), metadata.mode()).map_err(|reason| failed(&reason))?;
        }
        let mut bytes = Vec::new();
        input::append_from(file, FILE_MAX, &mut bytes).map_err(|e| failed(&e))?;
        let text = String::from_utf8(bytes).map_err(|_| failed(&input::InputError::NotText))?;
        Reader { path, text: &text, home }.configuration().map(Some)
    }
}

/// Whether nobody but this user and root can have written a file.
fn check_owner(owner: u32, mode: u32) -> Result<(), String> {
    let user = rustix::process::geteuid().as_raw();
    if owner != user && owner != 0 {
        return Err(format!(
            "it belongs to the user {owner}, and says what the user {user} does; it is not read"
        ));
    }
    match mode & 0o022 {
        0 => Ok(()),
        _ => Err("others can write to it; run `chmod go-w` on it".to_owned()),
    }
}

/// The options that a table can hold, by their keys.
type Options = BTreeMap<String, Arg>;

/// A file that is being read.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    home: Option<&'a Path>,
}

/// A value that stands somewhere in the file.
type PlacedValue<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn configuration(&self) -> Result<ConfigurationFile, SettingsError> {
        let document = DeTable::parse(self.text).map_err(|e| {
            self.refused(e.span().map_or(0, |span| span.start), e.message().replace('\n', " "))
        })?;
        let all = CommandLine::command();
        let of_mount = all.find_subcommand("mount").map(all_options).unwrap_or_default();
        let mut mounts = BTreeMap::new();
        if let Some(tables) = document.get_ref().get(MOUNTS) {
            for (name, table) in self.table(tables, MOUNTS)?.iter() {
                mounts.insert(
                    name.get_ref().to_string(),
                    self.mount(table, name.get_ref(), &of_mount)?,
                );
            }
        }
        let options = self.options(document.get_ref(), &all_options(&all), &[MOUNTS])?;
        Ok(ConfigurationFile { options, mounts })
    }

    fn mount(
        &self,
        value: &PlacedValue,
        name: &str,
        options: &Options,
    ) -> Result<NamedMount, SettingsError> {
        const SOURCES: &str = "sources";
        const MOUNTPOINT: &str = "mountpoint";
        let table = self.table(value, name)?;
        let wanted = |key: &str| {
            let missing =
                || self.refused(value.span().start, format!("the mount {name:?} has no {key}"));
            table.get(key).ok_or_else(missing)
        };
        let mut words = self.texts(SOURCES, wanted(SOURCES)?)?;
        if words.is_empty() {
            return Err(
                self.refused(value.span().start, format!("the mount {name:?} has no {SOURCES}"))
            );
        }
        words.push(
            self.path_from(wanted(MOUNTPOINT)?, self.text(MOUNTPOINT, wanted(MOUNTPOINT)?)?)?,
        );
        let options = self.options(table, options, &[SOURCES, MOUNTPOINT])?;
        Ok(NamedMount { words, options, origin: self.origin(value.span().start) })
    }

    /// What a table says of options, but for the keys that are read elsewhere.
    fn options(
        &self,
        table: &DeTable,
        options: &Options,
        others: &[&str],
    ) -> Result<Layer, SettingsError> {
        let mut layer = Layer::default();
        let mut rules = Vec::new();
        for (name, value) in
            table.iter().filter(|(name, _)| !others.contains(&name.get_ref().as_ref()))
        {
            let key = name.get_ref().to_string();
            let Some(option) = options.get(&key).filter(|_| key != RULE) else {
                return Err(self.refused(name.span().start, self.unknown(&key, options)));
            };
            let values = if key == RULE_PARTS[0] {
                rules = self.rules(value)?;
                Vec::new()
            } else {
                self.values(&key, option, value)?
            };
            layer.0.insert(key, Said { values, origin: self.origin(name.span().start) });
        }
        layer.with_rules(rules)
    }

    fn unknown(&self, key: &str, options: &Options) -> String {
        let dashed = key.replace('-', "_");
        if options.contains_key(&dashed) && dashed != key {
            format!("{key}: keys are written with _; write {dashed}")
        } else {
            format!("{key}: there is no such option here")
        }
    }

    /// Templates, each alone or in a table with its patterns.
    fn rules(&self, value: &PlacedValue) -> Result<Vec<RuleArgs>, SettingsError> {
        let one = std::slice::from_ref(value);
        let elements = value.get_ref().as_array().map_or(one, |array: &DeArray| array.as_ref());
        elements.iter().map(|element| self.rule(element)).collect()
    }

    fn rule(&self, value: &PlacedValue) -> Result<RuleArgs, SettingsError> {
        let Some(table) = value.get_ref().as_table() else {
            return Ok(RuleArgs::of(self.text(RULE_PARTS[0], value)?.to_owned()));
        };
        let parts: BTreeSet<&str> = ["template", "include", "exclude"].into();
        if let Some((name, _)) =
            table.iter().find(|(name, _)| !parts.contains(name.get_ref().as_ref()))
        {
            let reason = format!("{}: a rule has template, include and exclude", name.get_ref());
            return Err(self.refused(name.span().start, reason));
        }
        let Some(template) = table.get("template") else {
            return Err(self.refused(value.span().start, "oci_mirror: the template is missing"));
        };
        let patterns = |name: &str| -> Result<Vec<String>, SettingsError> {
            let texts = table.get(name).map_or(Ok(Vec::new()), |value| self.texts(name, value))?;
            Ok(texts.into_iter().map(|text| text.to_string_lossy().into_owned()).collect())
        };
        let template = self.text("template", template)?.to_owned();
        Ok(RuleArgs { template, include: patterns("include")?, exclude: patterns("exclude")? })
    }

    fn values(
        &self,
        key: &str,
        option: &Arg,
        value: &PlacedValue,
    ) -> Result<Vec<OsString>, SettingsError> {
        let is_path = matches!(option.get_value_hint(), ValueHint::FilePath | ValueHint::DirPath);
        let path = |text: OsString| {
            if is_path { self.path_from(value, &text.to_string_lossy()) } else { Ok(text) }
        };
        match (kind(option), value.get_ref()) {
            (Kind::Switch, DeValue::Boolean(on)) => Ok(vec![on.to_string().into()]),
            (Kind::Switch, _) => Err(self.kind(key, "true or false", value)),
            (Kind::Count | Kind::One, DeValue::Integer(number)) if number.radix() == 10 => {
                Ok(vec![number.as_str().into()])
            }
            (Kind::Count, _) => Err(self.kind(key, "a number", value)),
            (Kind::One, _) => Ok(vec![path(self.local(key, value)?)?]),
            (Kind::Several, _) => self.texts(key, value)?.into_iter().map(path).collect(),
        }
    }

    /// One text, or a list of them.
    fn texts(&self, key: &str, value: &PlacedValue) -> Result<Vec<OsString>, SettingsError> {
        match value.get_ref() {
            DeValue::Array(array) => array.iter().map(|element| self.local(key, element)).collect(),
            DeValue::String(_) => Ok(vec![self.local(key, value)?]),
            _ => Err(self.kind(key, "a list of texts", value)),
        }
    }

    fn text<'v>(&self, key: &str, value: &'v PlacedValue<'_>) -> Result<&'v str, SettingsError> {
        value.get_ref().as_str().ok_or_else(|| self.kind(key, "a text", value))
    }

    /// A text. One that names a store holds a path.
    fn local(&self, key: &str, value: &PlacedValue) -> Result<OsString, SettingsError> {
        let text = self.text(key, value)?;
        for scheme in ["oci:", "oci-archive:"] {
            let path = text.strip_prefix(scheme).filter(|path| !path.starts_with("//"));
            if let Some(path) = path {
                let mut named = OsString::from(scheme);
                named.push(self.path_from(value, path)?);
                return Ok(named);
            }
        }
        Ok(text.into())
    }

    /// A path, which means the same wherever the command is run.
    fn path_from(&self, value: &PlacedValue, text: &str) -> Result<OsString, SettingsError> {
        match (text.strip_prefix("~/"), self.home) {
            (Some(below), Some(home)) => Ok(home.join(below).into()),
            (None, _) if text.starts_with('/') => Ok(text.into()),
            _ => {
                let reason = format!(
                    "{text:?}: a path in a configuration file begins with / or, in the home, with \
                     ~/"
                );
                Err(self.refused(value.span().start, reason))
            }
        }
    }

    fn table<'v, 'i>(
        &self,
        value: &'v PlacedValue<'i>,
        name: &str,
    ) -> Result<&'v DeTable<'i>, SettingsError> {
        value.get_ref().as_table().ok_or_else(|| self.kind(name, "a table", value))
    }

    fn kind(&self, key: &str, wanted: &str, value: &PlacedValue) -> SettingsError {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refused(value.span().start, format!("{key}: {wanted} is wanted, and this is {found}"))
    }

    fn refused(&self, at: usize, reason: impl fmt::Display) -> SettingsError {
        SettingsError::new(self.origin(at), reason)
    }

    /// A place in the text.
    fn origin(&self, at: usize) -> ValueOrigin {
        let line = 1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        ValueOrigin::File { path: self.path.to_owned(), line }
    }
}

/// The files, the stronger first: the user's and the system's.
pub fn paths(config_home: Option<PathBuf>, home: Option<&Path>) -> Vec<PathBuf> {
    const SYSTEM: &str = "/etc/tofufs/config.toml";
    let config_home = config_home.or_else(|| home.map(|home| home.join(".config")));
    let user = config_home.map(|dir| dir.join("tofufs/config.toml"));
    user.into_iter().chain([PathBuf::from(SYSTEM)]).collect()
}
