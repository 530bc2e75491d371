//! Starting the process that serves a mount, and hearing from it when the mount is ready.
//!
//! The process is this program again, with the same words and `--background`: a fork of a process
//! that may have threads could do little. Its standard output is a pipe to who started it and
//! carries lines `source SENTENCE`, one for each source that fails, and as the last one `ready` or
//! `failed SENTENCE`; its standard error is the log.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use super::output::CommandError;
use crate::facts::FailingSource;
use crate::fuse::session::within;

/// How long a mount may take to get ready. It depends on no answer of a registry, for which it
/// waits a few seconds.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The last line of a process whose mount is ready.
pub const READY: &str = "ready";
/// How the last line of one begins that has none.
pub const FAILED: &str = "failed ";
/// How a line begins that tells of a source that fails.
pub const SOURCE: &str = "source ";
/// The most that is passed on, in bytes.
const TOLD_MAX: u64 = 256 * 1024;

/// What the process has told.
#[derive(Default)]
struct BackgroundWord {
    ailing: Vec<String>,
    /// The last line; empty if there was none.
    end: String,
}

/// Starts the process with the words of `tofufs mount …` (the first is the program's name) and
/// waits until it serves. What it says of sources that fail.
pub fn start(words: &[OsString], log: File) -> Result<Vec<String>, CommandError> {
    let cannot =
        |e: io::Error| CommandError::failed(format!("cannot start the background process: {e}"));
    let mut child = Command::new("/proc/self/exe")
        .arg("mount")
        .arg("--background")
        .args(words.iter().skip(2))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(cannot)?;
    let Some(pipe) = child.stdout.take() else {
        return Err(cannot(io::ErrorKind::BrokenPipe.into()));
    };
    let Some(told) = within(READY_LIMIT, move || told(pipe)) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(CommandError::failed(format!(
            "the mount was not ready within {} s",
            READY_LIMIT.as_secs()
        )));
    };
    match told.end.as_str() {
        READY => Ok(told.ailing),
        line => {
            let status = child.wait().map_err(cannot)?;
            Err(CommandError::Failed(match line.strip_prefix(FAILED) {
                Some(sentence) => sentence.to_owned(),
                None => format!(
                    "the background process ended ({status}) before the mount was ready; see its \
                     log"
                ),
            }))
        }
    }
}

fn told(pipe: ChildStdout) -> BackgroundWord {
    let mut told = BackgroundWord::default();
    // What cannot be read is as good as no line: the process's end tells the rest.
    for line in BufReader::new(pipe.take(TOLD_MAX)).lines().map_while(Result::ok) {
        match line.strip_prefix(SOURCE) {
            Some(sentence) => told.ailing.push(sentence.to_owned()),
            None => {
                told.end = line;
                break;
            }
        }
    }
    told
}

/// Leaves the terminal and the working directory of who started this process.
pub fn detach() -> Result<(), CommandError> {
    let cannot =
        |e: rustix::io::Errno| CommandError::failed(format!("cannot run in the background: {e}"));
    rustix::process::setsid().map_err(cannot)?;
    rustix::process::chdir("/").map_err(cannot)
}

/// Tells who started this process that the mount is ready, and which sources fail. An error means
/// that nobody waits any more.
pub fn tell_ready(ailing: &[FailingSource]) -> io::Result<()> {
    ailing.iter().try_for_each(|source| tell(&format!("{SOURCE}{}", in_one_line(source))))?;
    tell(READY)
}

/// Tells who started this process why there is no mount.
pub fn tell_failed(error: &CommandError) {
    let _ = tell(&format!("{FAILED}{}", in_one_line(error)));
}

fn in_one_line(sentence: &impl ToString) -> String {
    sentence.to_string().replace(['\n', '\r'], " ")
}

/// Says a line to who started this process.
pub fn tell(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
