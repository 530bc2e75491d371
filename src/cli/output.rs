//! What commands print: results to standard output, and the one line that says why a command failed.

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

    /// The exit code. Who stopped reading our output has seen enough: that is no failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Usage(_) => 2,
            CommandError::Failed(_) => 1,
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
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_wrong_use_from_failure_and_a_closed_pipe_from_both() {
        assert_eq!(CommandError::usage("x").exit_code(), 2);
        assert_eq!(CommandError::failed("x").exit_code(), 1);
        assert_eq!(CommandError::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
        assert_eq!(CommandError::from(io::Error::from(io::ErrorKind::StorageFull)).exit_code(), 1);
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
