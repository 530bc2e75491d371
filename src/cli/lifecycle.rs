//! The life of a mount's process after it serves: until somebody unmounts, or a signal has it
//! unmount by itself.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, kill_process, waitpid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::log::LogWriter;
use super::output::CommandError;
use crate::fuse::session::{Manner, Session, SessionEnd, UnmountError};

/// How long operations under way may take to end after the mount is gone.
const DRAIN: Duration = Duration::from_secs(4);

/// The signals that end a mount.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on these signals wait to be taken. Runs inside the async runtime.
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.terminate.recv() => Caught::Terminate,
            _ = self.interrupt.recv() => Caught::Interrupt,
            _ = self.hangup.recv() => Caught::Hangup,
        }
    }
}

/// A signal that was caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caught {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGHUP: the terminal is gone, or the log is to be opened again.
    Hangup,
}

impl Caught {
    /// Its number.
    pub fn number(self) -> u8 {
        u8::try_from(self.signal().as_raw()).unwrap_or(u8::MAX)
    }

    fn signal(self) -> rustix::process::Signal {
        match self {
            Caught::Terminate => rustix::process::Signal::TERM,
            Caught::Interrupt => rustix::process::Signal::INT,
            Caught::Hangup => rustix::process::Signal::HUP,
        }
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Caught::Terminate => "SIGTERM",
            Caught::Interrupt => "SIGINT",
            Caught::Hangup => "SIGHUP",
        })
    }
}

/// A mount from the moment when it can be used.
#[derive(Clone, Copy)]
pub struct Lifecycle<'a> {
    /// The kernel's side.
    pub session: &'a Arc<Session>,
    /// The log, where it is in a file.
    pub log_file: Option<&'a LogWriter>,
    /// Whether who started it waits for this process alone: signals are for those that took over
    /// too.
    pub stays: bool,
}

impl Lifecycle<'_> {
    /// Returns when the mount has ended, in one of these ways: somebody unmounted it; a signal came
    /// and it was unused; a signal came while it was in use, so that it went out of sight and its
    /// last user closed what was open, or a second signal came; the kernel's side was aborted.
    /// SIGHUP is no such signal where there is a log file: it has the file opened again.
    pub async fn until_unmounted(
        self,
        mut end: SessionEnd,
        signals: &mut Signals,
    ) -> Result<(), CommandError> {
        let session = self.session;
        let mut signalled = false;
        let mut drained: Option<Instant> = None;
        loop {
            let drain = async {
                match drained {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // An end that was not noticed yet goes before a signal: what is unmounted
                // afterwards may be another's.
                biased;
                ended = &mut end => return after_end(session, ended.unwrap_or(Ok(()))).await,
                () = drain => {
                    tracing::warn!(
                        "operations that were under way did not end within {} s", DRAIN.as_secs()
                    );
                    return Ok(());
                }
                caught = signals.next() => {
                    if self.is_passed_on(caught) {
                        continue;
                    }
                    if std::mem::replace(&mut signalled, true) {
                        tracing::warn!("{caught} again: ending while the mount is in use");
                        return Ok(());
                    }
                    tracing::info!("{caught}: unmounting");
                    if out_of_sight(session).await? == Manner::Unused {
                        drained = Some(Instant::now() + DRAIN);
                    }
                }
            }
        }
    }

    /// Passes a signal on to the log and to the processes that took over; whether that was all.
    fn is_passed_on(self, caught: Caught) -> bool {
        let is_replaced = self.session.is_replaced();
        if is_replaced && self.stays {
            pass_on(caught, self.log_file.is_some());
        }
        let is_for_log = caught == Caught::Hangup && (self.log_file.is_some() || is_replaced);
        if is_for_log && let Some(log) = self.log_file {
            log.reopen();
        }
        is_for_log
    }
}

/// Returns when all processes that took over have ended, with the failure of one of them. Signals are
/// passed on to them.
pub async fn until_children_ended(
    signals: &mut Signals,
    has_log_file: bool,
) -> Result<(), CommandError> {
    let mut ended = signal(SignalKind::child()).map_err(CommandError::failed)?;
    let mut failed = false;
    loop {
        loop {
            match waitpid(None, WaitOptions::NOHANG) {
                Ok(Some((_, status))) => failed |= status.exit_status() != Some(0),
                Ok(None) => break,
                Err(_) => {
                    // It has said why, on the same standard error.
                    let sentence = "the process that took over failed";
                    return if failed { Err(CommandError::failed(sentence)) } else { Ok(()) };
                }
            }
        }
        tokio::select! {
            _ = ended.recv() => {}
            caught = signals.next() => pass_on(caught, has_log_file),
        }
    }
}

/// Sends a signal to every process that this one has led to, unless it comes from the terminal: then
/// they have it already, and a second one would end them while they are in use.
fn pass_on(caught: Caught, has_log_file: bool) {
    match caught {
        Caught::Terminate => {}
        Caught::Hangup if has_log_file => {}
        Caught::Interrupt | Caught::Hangup => return,
    }
    for pid in descendants() {
        let _ = kill_process(pid, caught.signal());
    }
}

/// The children of this process, their children, and so on.
fn descendants() -> Vec<Pid> {
    let parent_of = |pid: Pid| -> Option<Pid> {
        let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
        let stat = std::fs::read_to_string(path).ok()?;
        // The name may hold anything, and ends with the last bracket.
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?;
        Pid::from_raw(parent.parse().ok()?)
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(Pid, Pid)> =
        pids.filter_map(Pid::from_raw).filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut found = vec![rustix::process::getpid()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Unmounts, lazily if the mount is in use.
async fn out_of_sight(session: &Arc<Session>) -> Result<Manner, CommandError> {
    if session.is_replaced() {
        tracing::info!(
            "another process serves the mount; this one ends when nothing is open in it"
        );
        return Ok(Manner::Lazily);
    }
    match unmount(session, Manner::Unused).await {
        Ok(()) => Ok(Manner::Unused),
        Err(busy @ UnmountError::Busy { .. }) => {
            tracing::warn!(
                "{busy}; the mount is out of sight, and is served until what is open is closed"
            );
            unmount(session, Manner::Lazily).await.map_err(CommandError::failed)?;
            Ok(Manner::Lazily)
        }
        Err(e) => Err(CommandError::failed(e)),
    }
}

async fn unmount(session: &Arc<Session>, manner: Manner) -> Result<(), UnmountError> {
    let unmounting = Arc::clone(session);
    match tokio::task::spawn_blocking(move || unmounting.unmount(manner)).await {
        Ok(result) => result,
        Err(e) => {
            Err(UnmountError::System { point: session.point().to_owned(), reason: e.to_string() })
        }
    }
}

/// A mount that was unmounted is gone from the mount table. One whose connection was aborted is
/// still there, dead, and is removed (O37).
async fn after_end(session: &Arc<Session>, ended: io::Result<()>) -> Result<(), CommandError> {
    let looked_at = Arc::clone(session);
    if tokio::task::spawn_blocking(move || looked_at.is_dead()).await.unwrap_or(false) {
        tracing::warn!(
            "{}: the kernel's connection was aborted; removing the mount",
            session.point().display()
        );
        unmount(session, Manner::Lazily).await.map_err(CommandError::failed)?;
    }
    match ended {
        // The two ways in which an aborted connection shows (fuse(4)).
        Err(e) if !matches!(e.raw_os_error(), Some(libc::ECONNABORTED | libc::ENODEV)) => {
            Err(CommandError::failed(format!(
                "serving the mount at {} ended: {e}",
                session.point().display()
            )))
        }
        _ => Ok(()),
    }
}
