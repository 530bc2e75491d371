//! Starting the process that serves a mount, and hearing from it when the mount is ready.
//!
//! The process is this program again, with the same words and `--background`: a fork of a process that may have threads
//! could do little. Its standard output is a pipe to who started it and carries one line, `ready` or `failed SENTENCE`;
//! its standard error is the log.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use super::output::CommandError;
use crate::fuse::session::within;

/// How long a mount may take to get ready. It makes no connection before it is.
const READY_LIMIT: Duration = Duration::from_secs(60);
const READY: &str = "ready";
const FAILED: &str = "failed ";
/// The longest sentence that is passed on, in bytes.
const LINE_MAX: u64 = 16 * 1024;

/// Starts the process with the words of `tofufs mount …` (the first is the program's name) and waits until it serves.
pub fn start(words: &[OsString], log: File) -> Result<(), CommandError> {
    let cannot = |e: io::Error| CommandError::failed(format!("cannot start the background process: {e}"));
    let mut child = Command::new("/proc/self/exe")
        .arg("mount")
        .arg("--background")
        .args(words.iter().skip(2))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(cannot)?;
    let Some(pipe) = child.stdout.take() else { return Err(cannot(io::ErrorKind::BrokenPipe.into())) };
    let Some(line) = within(READY_LIMIT, move || first_line(pipe)) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(CommandError::failed(format!("the mount was not ready within {} s", READY_LIMIT.as_secs())));
    };
    match line.as_str() {
        READY => Ok(()),
        line => {
            let status = child.wait().map_err(cannot)?;
            Err(CommandError::Failed(match line.strip_prefix(FAILED) {
                Some(sentence) => sentence.to_owned(),
                None => format!("the background process ended ({status}) before the mount was ready; see its log"),
            }))
        }
    }
}

fn first_line(pipe: ChildStdout) -> String {
    let mut line = String::new();
    // What cannot be read is as good as no line: the process's end tells the rest.
    let _ = BufReader::new(pipe.take(LINE_MAX)).read_line(&mut line);
    line.trim_end().to_owned()
}

/// Leaves the terminal and the working directory of who started this process.
pub fn detach() -> Result<(), CommandError> {
    let cannot = |e: rustix::io::Errno| CommandError::failed(format!("cannot run in the background: {e}"));
    rustix::process::setsid().map_err(cannot)?;
    rustix::process::chdir("/").map_err(cannot)
}

/// Tells who started this process that the mount is ready. An error means that nobody waits any more.
pub fn tell_ready() -> io::Result<()> {
    tell(READY)
}

/// Tells who started this process why there is no mount.
pub fn tell_failed(error: &CommandError) {
    let _ = tell(&format!("{FAILED}{}", error.to_string().replace('\n', " ")));
}

fn tell(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
