//! The life of a mount's process after it serves: until somebody unmounts, or a signal has it
//! unmount by itself.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

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
        let kind = match self {
            Caught::Terminate => SignalKind::terminate(),
            Caught::Interrupt => SignalKind::interrupt(),
            Caught::Hangup => SignalKind::hangup(),
        };
        u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX)
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

/// Returns when the mount has ended, in one of these ways: somebody unmounted it; a signal came and
/// it was unused; a signal came while it was in use, so that it went out of sight and its last user
/// closed what was open, or a second signal came; the kernel's side was aborted. SIGHUP is no such
/// signal where there is a log file: it has `log_file` opened again.
pub async fn until_unmounted(
    session: &Arc<Session>,
    mut end: SessionEnd,
    signals: &mut Signals,
    log_file: Option<&LogWriter>,
) -> Result<(), CommandError> {
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
            // An end that was not noticed yet goes before a signal: what is unmounted afterwards
            // may be another's.
            biased;
            ended = &mut end => return after_end(session, ended.unwrap_or(Ok(()))).await,
            () = drain => {
                tracing::warn!(
                    "operations that were under way did not end within {} s", DRAIN.as_secs()
                );
                return Ok(());
            }
            caught = signals.next() => {
                if caught == Caught::Hangup && let Some(log) = log_file {
                    log.reopen();
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

/// Unmounts, lazily if the mount is in use.
async fn out_of_sight(session: &Arc<Session>) -> Result<Manner, CommandError> {
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
