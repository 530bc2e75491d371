//! What one place says of options.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::{RULE, RULE_PARTS};
use crate::cli::args::mapping::RuleArgs;
use crate::cli::settings_error::SettingsError;

/// Where a value was said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueOrigin {
    /// On the command line.
    Typed,
    /// By the mount that `--like` names.
    Like(PathBuf),
    /// By this variable.
    Variable(String),
    /// In a file.
    File {
        /// Which one.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    Default,
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueOrigin::Typed => f.write_str("flag"),
            ValueOrigin::Like(point) => write!(f, "--like {}", point.display()),
            ValueOrigin::Variable(name) => f.write_str(name),
            ValueOrigin::File { path, line } => write!(f, "{}:{line}", path.display()),
            ValueOrigin::Default => f.write_str("default"),
        }
    }
}

/// The values of an option, as they would be typed, and where they were said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Of a switch: `true` or `false`; of a count: the number.
    pub values: Vec<OsString>,
    pub origin: ValueOrigin,
}

/// What one place says, by the names of options.
#[derive(Clone, Default, Debug)]
pub struct Layer(pub BTreeMap<String, Said>);

impl Layer {
    /// Makes whole rules of the parts that the place says beside `rules`: `include` and `exclude`
    /// are for its one template.
    pub fn with_rules(mut self, mut rules: Vec<RuleArgs>) -> Result<Layer, SettingsError> {
        let [templates, include, exclude] = RULE_PARTS.map(|part| self.0.remove(part));
        let texts = |said: &Option<Said>| -> Vec<String> {
            let values = said.iter().flat_map(|said| &said.values);
            values.map(|value| value.to_string_lossy().into_owned()).collect()
        };
        rules.extend(texts(&templates).into_iter().map(RuleArgs::of));
        let patterns = include.as_ref().or(exclude.as_ref());
        if let Some(patterns) = patterns {
            let [rule] = &mut rules[..] else {
                let reason = match rules.len() {
                    0 => "it belongs to oci_mirror, and the same place names none".to_owned(),
                    n => format!(
                        "it belongs to one oci_mirror, and there are {n} beside it; the \
                         configuration file can have an include and an exclude for each"
                    ),
                };
                return Err(SettingsError::new(&patterns.origin, reason));
            };
            rule.include.extend(texts(&include));
            rule.exclude.extend(texts(&exclude));
        }
        if let Some(said) = templates {
            let values = rules.iter().map(|rule| rule.to_string().into()).collect();
            self.0.insert(RULE.to_owned(), Said { values, ..said });
        }
        Ok(self)
    }
}
