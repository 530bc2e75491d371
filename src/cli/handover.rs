//! `tofufs upgrade`, in the process that serves: it starts its successor, and hands over to it.
//!
//! The successor is started by the broker, which has kept what this process has given up: the program
//! that is by now where the one of this mount was, with the same words, environment, working
//! directory and rights, in the same control group and namespaces. They speak over its standard
//! input and output, which are a socket:
//!
//! 1. this process sends the [`HandoverTerms`];
//! 2. the successor says `prepared` and its number: its settings fit;
//! 3. this process ends the commits under way, lets no new one begin, and gives the turn: one byte,
//!    with the socket of the metrics, where there is one;
//! 4. the successor mounts in this mount's place and says `ready`.
//!
//! Until `ready` this process is the one that serves: where the successor ends, fails or is silent
//! before, nothing has changed. Where this process ends before the turn, the successor ends too.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::background::{FAILED, READY, SOURCE};
use super::broker::Broker;
use crate::descriptor;
use crate::fuse::session::over::Gap;

/// The option by which a process learns that it is a successor.
pub const OPTION: &str = "--take-over";
/// What the successor says when its settings fit.
pub const PREPARED: &str = "prepared";
/// The turn.
pub const TURN: u8 = b'!';
/// How long the successor may take for each of its two steps.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// How a mount's process was started, so that another can be started alike.
#[derive(Clone, Debug)]
pub struct MountStart {
    /// Where its program was then.
    pub program: PathBuf,
    /// The words of its command line.
    pub words: Vec<OsString>,
    /// Its working directory then.
    pub base: PathBuf,
}

impl MountStart {
    /// The command of a successor.
    pub fn successor(&self) -> Command {
        let words = self.words.iter().skip(2).filter(|word| *word != OPTION);
        let mut command = Command::new(&self.program);
        command.args([OsStr::new("mount"), OsStr::new(OPTION)]).args(words);
        command.current_dir(&self.base);
        command
    }
}

/// What has to be the same for the successor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HandoverTerms {
    /// Where is mounted.
    pub mountpoint: PathBuf,
    /// Where the state of mounts is kept: two processes with one directory keep out of each other's
    /// way, and what is staged lies there.
    pub state_dir: PathBuf,
    /// Where metrics are told, if its socket comes with the turn.
    pub metrics: Option<String>,
    /// Whether the mount may be missing for a moment.
    #[serde(default)]
    pub gap: Gap,
}

/// A successor that is not ready yet. It is killed when this is dropped.
pub struct SuccessorProcess {
    pid: Option<Pid>,
    socket: UnixStream,
    lines: Receiver<String>,
}

impl SuccessorProcess {
    /// Has it started, and waits until it is prepared.
    pub fn start(
        broker: &Broker,
        start: &MountStart,
        terms: &HandoverTerms,
    ) -> Result<SuccessorProcess, String> {
        let cannot = |e: io::Error| format!("no other process can be started: {e}");
        if !start.base.is_dir() {
            return Err(format!(
                "the directory {} from which it was mounted is gone; unmount it and mount it again",
                start.base.display()
            ));
        }
        let mut socket = broker.successor().map_err(cannot)?;
        let lines = lines_of(socket.try_clone().map_err(cannot)?);
        let text = serde_json::to_string(terms).map_err(|e| e.to_string())?;
        let sent = socket.write_all(format!("{text}\n").as_bytes());
        let mut successor = SuccessorProcess { pid: None, socket, lines };
        sent.map_err(|_| ended())?;
        let prepared = successor.said(PREPARED)?;
        successor.pid = prepared.trim().parse().ok().and_then(Pid::from_raw);
        Ok(successor)
    }

    /// Gives it the turn, and waits until it serves in this process's place; its number.
    pub fn serves(mut self, metrics: Option<OwnedFd>) -> Result<Pid, String> {
        let given = match &metrics {
            Some(metrics) => descriptor::send(&self.socket, &[TURN], metrics.as_fd()),
            None => self.socket.write_all(&[TURN]),
        };
        given.map_err(|_| ended())?;
        self.said(READY)?;
        self.pid.take().ok_or_else(ended)
    }

    /// Waits for a line that begins so, and passes over what is said of sources; its rest.
    fn said(&mut self, wanted: &str) -> Result<String, String> {
        loop {
            match self.lines.recv_timeout(STEP_LIMIT) {
                Ok(line) if line.starts_with(SOURCE) => {}
                Ok(line) => {
                    return match (line.strip_prefix(wanted), line.strip_prefix(FAILED)) {
                        (Some(rest), _) => Ok(rest.to_owned()),
                        (None, Some(reason)) => Err(reason.to_owned()),
                        (None, None) => Err(ended()),
                    };
                }
                Err(RecvTimeoutError::Timeout) => {
                    let limit = STEP_LIMIT.as_secs();
                    return Err(format!("the new process was not ready within {limit} s"));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        }
    }
}

fn ended() -> String {
    "the new process ended before it was ready, and the log may say why".to_owned()
}

impl Drop for SuccessorProcess {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// The lines of a socket, read by a thread of their own.
fn lines_of(socket: UnixStream) -> Receiver<String> {
    let (line, lines) = mpsc::channel();
    let read = move || {
        for text in BufReader::new(socket).lines() {
            let Ok(text) = text else { return };
            if line.send(text).is_err() {
                return;
            }
        }
    };
    // Without the thread the line's end is closed, which is like a successor that has ended.
    let _ = thread::Builder::new().name("successor".into()).spawn(read);
    lines
}
