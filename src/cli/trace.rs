//! The trace that a command belongs to (W3C Trace Context): the one of `TRACEPARENT`, else one of
//! its own. Log lines have its number, and a request to a mount takes it along.

use std::cell::Cell;
use std::env;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing::span::EnteredSpan;

/// The variable by which a process is told of its trace.
const VARIABLE: &str = "TRACEPARENT";

/// The span of this process, if it is one command.
static COMMAND: OnceLock<Span> = OnceLock::new();

thread_local! {
    /// That span, in a thread that is in it until it ends.
    static ENTERED: Cell<Option<EnteredSpan>> = const { Cell::new(None) };
}

/// The number of a trace, which is never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TraceId(u128);

/// Why a text is no `traceparent`, or no number of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it is not of the form VERSION-TRACE_ID-PARENT_ID-FLAGS in lower-case hexadecimal digits")]
pub struct TraceparentError;

impl TraceId {
    /// One that no other trace has.
    fn new() -> TraceId {
        TraceId(fastrand::u128(1..))
    }

    /// That of this process: what `TRACEPARENT` says, if it says what it may.
    pub fn of_process() -> Option<TraceId> {
        env::var(VARIABLE).ok()?.parse().ok()
    }

    /// The span of work that belongs to this trace, or to one of its own. There is none without
    /// `-v`.
    pub fn span(trace: Option<TraceId>) -> Span {
        let trace = trace.unwrap_or_else(TraceId::new);
        tracing::debug_span!("command", trace_id = %trace)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<TraceId> for String {
    fn from(trace: TraceId) -> String {
        trace.to_string()
    }
}

impl TryFrom<String> for TraceId {
    type Error = TraceparentError;

    fn try_from(text: String) -> Result<TraceId, TraceparentError> {
        Ok(TraceId(number(&text, 32)?))
    }
}

impl FromStr for TraceId {
    type Err = TraceparentError;

    /// Reads a `traceparent`. A version that is not known yet may have more behind its flags.
    fn from_str(text: &str) -> Result<TraceId, TraceparentError> {
        let mut fields = text.splitn(5, '-');
        let mut field = || fields.next().ok_or(TraceparentError);
        let (version, trace, parent, flags) = (field()?, field()?, field()?, field()?);
        let has_more = fields.next().is_some();
        let is_version =
            hexadecimal(version, 2) && version != "ff" && (!has_more || version != "00");
        if !is_version || !hexadecimal(flags, 2) {
            return Err(TraceparentError);
        }
        number(parent, 16)?;
        Ok(TraceId(number(trace, 32)?))
    }
}

fn hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A number that is not 0.
fn number(text: &str, length: usize) -> Result<u128, TraceparentError> {
    let number = u128::from_str_radix(text, 16).unwrap_or(0);
    if hexadecimal(text, length) && number != 0 { Ok(number) } else { Err(TraceparentError) }
}

/// This process is one command: what its threads log from now on belongs to its trace.
pub fn begin() {
    let _ = COMMAND.set(TraceId::span(TraceId::of_process()));
    enter();
    note_invalid();
}

/// Has all that this thread logs belong to the command's trace, if this process is one command.
pub fn enter() {
    if let Some(span) = COMMAND.get() {
        ENTERED.set(Some(span.clone().entered()));
    }
}

/// Says that `TRACEPARENT` is passed over, where it is.
pub fn note_invalid() {
    let said = env::var_os(VARIABLE).filter(|said| !said.is_empty());
    if said.is_some() && TraceId::of_process().is_none() {
        tracing::debug!("{VARIABLE} is passed over: {TraceparentError}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let read = |text: &str| text.parse::<TraceId>().map(|trace| trace.to_string());
        for good in [
            "00-ID-00f067aa0ba902b7-01",
            "00-ID-00f067aa0ba902b7-ff",
            "cc-ID-1234567890123456-01-more",
        ] {
            assert_eq!(read(&good.replace("ID", ID)).as_deref(), Ok(ID), "{good}");
        }
        for bad in [
            "",
            "00",
            "00-ID",
            "00-ID-00f067aa0ba902b7",
            "00-ID-00f067aa0ba902b7-",
            "00-ID-00f067aa0ba902b7-1",
            "00-ID-00f067aa0ba902b7-01-more",
            "00-ID-00f067aa0ba902b7-01-",
            "00-ID-0000000000000000-01",
            "00-ID-00F067AA0BA902B7-01",
            "ff-ID-00f067aa0ba902b7-01",
            "0-ID-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            " 00-ID-00f067aa0ba902b7-01",
            "00-ID-00f067aa0ba902b7-01 ",
        ] {
            assert_eq!(read(&bad.replace("ID", ID)), Err(TraceparentError), "{bad}");
        }
    }

    #[test]
    fn a_trace_goes_to_a_mount_as_its_number() {
        let trace: TraceId = format!("00-{ID}-00f067aa0ba902b7-01").parse().unwrap();
        let text = serde_json::to_string(&trace).unwrap();
        assert_eq!(text, format!("{ID:?}"));
        assert_eq!(serde_json::from_str::<TraceId>(&text).unwrap(), trace);
        assert!(serde_json::from_str::<TraceId>("\"1\"").is_err());
        assert_ne!(TraceId::new(), TraceId::new());
    }
}
