//! The life of a mount's process after it serves: until somebody unmounts, or a signal has it unmount by itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::output::CommandError;
use crate::fuse::session::{End, Manner, Session, UnmountError};

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

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        self.next_number().await.0
    }

    /// The name and number of the next one.
    pub async fn next_number(&mut self) -> (&'static str, SignalKind) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
            _ = self.hangup.recv() => ("SIGHUP", SignalKind::hangup()),
        }
    }
}

/// Returns when the mount has ended, in one of these ways: somebody unmounted it; a signal came and it was unused; a
/// signal came while it was in use, so that it went out of sight and its last user closed what was open, or a second
/// signal came; the kernel's side was aborted.
pub async fn until_unmounted(session: &Arc<Session>, mut end: End, signals: &mut Signals) -> Result<(), CommandError> {
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
            // An end that was not noticed yet goes before a signal: what is unmounted afterwards may be another's.
            biased;
            ended = &mut end => return after_end(session, ended.unwrap_or(Ok(()))).await,
            () = drain => {
                tracing::warn!("operations that were under way did not end within {} s", DRAIN.as_secs());
                return Ok(());
            }
            name = signals.next() => {
                if std::mem::replace(&mut signalled, true) {
                    tracing::warn!("{name} again: ending while the mount is in use");
                    return Ok(());
                }
                tracing::info!("{name}: unmounting");
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
            tracing::warn!("{busy}; the mount is out of sight, and is served until what is open is closed");
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
        Err(e) => Err(UnmountError::System { point: session.point().to_owned(), reason: e.to_string() }),
    }
}

/// A mount that was unmounted is gone from the mount table. One whose connection was aborted is still there, dead, and
/// is removed (O37).
async fn after_end(session: &Arc<Session>, ended: io::Result<()>) -> Result<(), CommandError> {
    let looked_at = Arc::clone(session);
    if tokio::task::spawn_blocking(move || looked_at.is_dead()).await.unwrap_or(false) {
        tracing::warn!("{}: the kernel's connection was aborted; removing the mount", session.point().display());
        unmount(session, Manner::Lazily).await.map_err(CommandError::failed)?;
    }
    match ended {
        // The two ways in which an aborted connection shows (fuse(4)).
        Err(e) if !matches!(e.raw_os_error(), Some(libc::ECONNABORTED | libc::ENODEV)) => {
            Err(CommandError::failed(format!("serving the mount at {} ended: {e}", session.point().display())))
        }
        _ => Ok(()),
    }
}
