//! What commands print: results to standard output, and the one line that says why a command
//! failed.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// A signal stopped it before it was done.
    #[error("{sentence}")]
    Stopped {
        /// What was done, and how to go on.
        sentence: String,
        /// The signal's number.
        signal: u8,
    },
    /// The result could not be printed.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// A failure with another error's sentence.
    pub fn failed(reason: impl fmt::Display) -> Self {
        CommandError::Failed(reason.to_string())
    }

    /// A wrong use with another error's sentence.
    pub fn usage(reason: impl fmt::Display) -> Self {
        CommandError::Usage(reason.to_string())
    }

    /// The same, if a signal was the cause of it.
    pub fn stopped_by(self, signal: Option<u8>) -> Self {
        match (self, signal) {
            (CommandError::Failed(sentence), Some(signal)) => {
                CommandError::Stopped { sentence, signal }
            }
            (error, _) => error,
        }
    }

    /// The exit code: of a stopped command as a shell counts it. Who stopped reading our output has
    /// seen enough: that is no failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Usage(_) => 2,
            CommandError::Failed(_) => 1,
            CommandError::Stopped { signal, .. } => 128_u8.saturating_add(*signal),
            CommandError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => 0,
            CommandError::Output(_) => 1,
        }
    }
}

/// Writes the one line `tofufs: …` to standard error, if anybody still listens there.
pub fn report(error: &CommandError) {
    if error.exit_code() != 0 {
        let line = error.to_string().replace(['\n', '\r'], " ");
        let _ = writeln!(io::stderr(), "tofufs: {}", printable(&line));
    }
}

/// Writes one line to standard error about what is worth knowing, though nothing failed.
pub fn note(sentence: &str) {
    // Nobody listening is no reason to stop.
    let _ = writeln!(io::stderr(), "tofufs: {}", printable(&sentence.replace(['\n', '\r'], " ")));
}

/// Prints a result as one line of JSON.
pub fn json(value: &impl Serialize) -> Result<(), CommandError> {
    let mut line = serde_json::to_vec(value).map_err(CommandError::failed)?;
    line.push(b'\n');
    text(&line)
}

/// Prints bytes as they are.
pub fn text(text: impl AsRef<[u8]>) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    Ok(out.flush()?)
}

/// Rows of a name and a value, the values in one column.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {}\n", printable(value))).collect()
}

/// A text on one line, in which nothing can steer a terminal: names of files may hold any byte.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// The same with a verb, of one and of several: `1 object was`, `2 objects were`.
pub fn count_with(
    number: impl TryInto<u64> + Copy,
    one: &str,
    [singular, plural]: [&str; 2],
) -> String {
    let verb = if number.try_into().is_ok_and(|number| number == 1) { singular } else { plural };
    format!("{} {verb}", count(number, one))
}

/// Some of a list, as many as one line can hold, and how many there are beside them.
pub fn listed(all: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A word as a shell takes it.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@".contains(c);
    if word.chars().all(plain) && !word.is_empty() {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How many there are of something: `1 object`, `2 objects`.
pub fn count(number: impl TryInto<u64>, one: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {one}"),
        number if one.ends_with('y') => format!("{number} {}ies", one.trim_end_matches('y')),
        number if one.ends_with('h') => format!("{number} {one}es"),
        number => format!("{number} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_wrong_use_from_failure_and_a_closed_pipe_from_both() {
        assert_eq!(CommandError::usage("x").exit_code(), 2);
        assert_eq!(CommandError::failed("x").exit_code(), 1);
        assert_eq!(CommandError::failed("x").stopped_by(Some(2)).exit_code(), 130);
        assert_eq!(CommandError::failed("x").stopped_by(None).exit_code(), 1);
        assert_eq!(CommandError::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
        assert_eq!(CommandError::from(io::Error::from(io::ErrorKind::StorageFull)).exit_code(), 1);
    }

    #[test]
    fn one_thing_is_not_several() {
        assert_eq!(
            [
                count(1_u64, "object"),
                count(2_usize, "object"),
                count(0_u64, "repository"),
                count(3_u64, "hash")
            ],
            ["1 object", "2 objects", "0 repositories", "3 hashes"]
        );
        let all: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(
            (listed(&all[..2]).as_str(), listed(&all).as_str()),
            ("0, 1", "0, 1, 2, 3, 4, 5, 6, 7 and 2 more")
        );
    }

    #[test]
    fn values_stand_in_one_column() {
        assert_eq!(pairs(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
    }

    #[test]
    fn a_name_can_neither_break_a_line_nor_steer_a_terminal() {
        assert_eq!(pairs(&[("dir", "/a\nb\u{1b}[31m ü".into())]), "dir  /a\\nb\\u{1b}[31m ü\n");
    }
}
