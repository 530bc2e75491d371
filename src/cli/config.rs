//! `tofufs config show`: the value of each option, and where it was said.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;

use clap::Arg;
use clap::error::ErrorKind;
use serde_json::{Map, Value, json};

use super::args::config::{ConfigArgs, ConfigCommand};
use super::args::mapping::RuleArgs;
use super::options::{
    self, Kind, OptionPlaces, RULE, RULE_PARTS, Said, SettledOptions, Unread, ValueOrigin, key,
    kind,
};
use super::output::{self, CommandError};

/// Shows them.
pub fn run(args: &ConfigArgs) -> Result<(), CommandError> {
    let ConfigCommand::Show(args) = &args.command;
    let places = OptionPlaces::of_process();
    for name in options::unknown_variables(&places) {
        output::note(&format!("{}: there is no such option", name.to_string_lossy()));
    }
    // Behind the command it is a word of that command, and means this one as well.
    let (asks_json, command): (Vec<_>, Vec<_>) =
        args.command.iter().cloned().partition(|word| word == "--json");
    let words: Vec<OsString> = [OsString::from("tofufs")].into_iter().chain(command).collect();
    let settled = match settled(&words, &places) {
        Ok(settled) => settled,
        Err(e) => return super::unread(e, &words),
    };
    let rows = rows(&settled);
    if args.json || !asks_json.is_empty() {
        let options: Map<String, Value> =
            rows.iter().map(|row| (row.key.clone(), row.json())).collect();
        let mount = settled.named.as_ref().map(|named| {
            let words: Vec<_> = named.words.iter().map(|word| word.to_string_lossy()).collect();
            json!({"words": words, "place": place(&named.origin)})
        });
        return output::json(&json!({"options": options, "mount": mount}));
    }
    let mut text = String::new();
    if let Some(named) = &settled.named {
        let words: Vec<_> =
            named.words.iter().map(|word| output::shell_word(&word.to_string_lossy())).collect();
        let _ = writeln!(text, "# mount {}  # {}", words.join(" "), named.origin);
    }
    rows.iter().for_each(|row| text += &row.line());
    output::text(text)
}

fn settled(words: &[OsString], places: &OptionPlaces) -> Result<SettledOptions, Unread> {
    if words.len() == 1 {
        return SettledOptions::of_all(places);
    }
    match options::read(words, places) {
        // It is not to be run, so it may be incomplete.
        Err(Unread::Typed(e)) if e.kind() != ErrorKind::MissingRequiredArgument => {
            return Err(Unread::Typed(e));
        }
        Err(Unread::Said(e)) => return Err(Unread::Said(e)),
        _ => {}
    }
    SettledOptions::of(words, places)
}

/// One option.
struct Row {
    key: String,
    kind: Kind,
    said: Said,
    /// What it is without a value, in words.
    without: String,
}

fn rows(settled: &SettledOptions) -> Vec<Row> {
    let rule = settled.said.get(RULE);
    let mut rows = BTreeMap::new();
    for option in &settled.typed.options {
        let Some(key) = key(option).filter(|key| key != RULE) else { continue };
        let typed = settled
            .typed
            .values
            .get(&key)
            .map(|values| Said { values: values.clone(), origin: ValueOrigin::Typed });
        let said = rule
            .filter(|_| RULE_PARTS.contains(&key.as_str()))
            .or_else(|| settled.said.get(&key))
            .cloned();
        let default = || Said { values: defaults(option), origin: ValueOrigin::Default };
        // The one rule setting stands in the row of its template.
        if rule.is_none() || !RULE_PARTS[1..].contains(&key.as_str()) {
            let said = typed.or(said).unwrap_or_else(default);
            rows.insert(
                key.clone(),
                Row { key, kind: kind(option), said, without: without(option) },
            );
        }
    }
    rows.into_values().collect()
}

fn defaults(option: &Arg) -> Vec<OsString> {
    option.get_default_values().iter().map(|value| value.to_os_string()).collect()
}

/// What an option is without a value, as its help tells.
fn without(option: &Arg) -> String {
    let help = option.get_help().map(ToString::to_string).unwrap_or_default();
    let told = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    told.map_or("none", |(told, _)| told).to_owned()
}

impl Row {
    fn value(&self) -> Value {
        let texts = || self.said.values.iter().map(|value| value.to_string_lossy().into_owned());
        match self.kind {
            Kind::Switch => json!(texts().next().is_some_and(|text| text == "true")),
            Kind::Count => {
                json!(texts().next().and_then(|text| text.parse::<u8>().ok()).unwrap_or(0))
            }
            Kind::One => json!(texts().next()),
            Kind::Several if self.key == RULE_PARTS[0] => texts().map(rule).collect(),
            Kind::Several => texts().collect(),
        }
    }

    fn json(&self) -> Value {
        let origin = match self.said.origin {
            ValueOrigin::Typed => "flag",
            ValueOrigin::Like(_) => "like",
            ValueOrigin::Variable(_) => "variable",
            ValueOrigin::File { .. } => "file",
            ValueOrigin::Default => "default",
        };
        json!({"value": self.value(), "origin": origin, "place": place(&self.said.origin)})
    }

    /// As a line of a configuration file; what was not said is a comment.
    fn line(&self) -> String {
        if self.kind == Kind::One && self.said.values.is_empty() {
            return format!("# {}  # default: {}\n", self.key, self.without);
        }
        let comment = if self.said.origin == ValueOrigin::Default { "# " } else { "" };
        format!(
            "{comment}{} = {}  # {}\n",
            self.key,
            toml(&self.value()),
            output::printable(&self.said.origin.to_string())
        )
    }
}

/// A rule that settings handed over, or a template alone as it was typed.
fn rule(text: String) -> Value {
    let whole = text.parse::<RuleArgs>().ok().and_then(|rule| serde_json::to_value(rule).ok());
    whole.unwrap_or(Value::String(text))
}

fn place(origin: &ValueOrigin) -> Option<String> {
    (!matches!(origin, ValueOrigin::Typed | ValueOrigin::Default)).then(|| origin.to_string())
}

/// A value in the notation of configuration files, whose texts are those of JSON.
fn toml(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(toml).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key} = {}", toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
