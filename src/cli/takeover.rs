//! `mount --take-over`: a process that serves in the place of the one that started it. See
//! [`super::handover`].

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::RecvFlags;

use super::background;
use super::handover::{HandoverTerms, PREPARED, TURN};
use super::output::CommandError;
use super::settings::MountSettings;
use crate::descriptor;
use crate::fuse::session::over::Gap;

/// The longest line of terms.
const TERMS_MAX: u64 = 64 * 1024;

/// The conversation with the process that serves until now.
pub struct Takeover {
    socket: UnixStream,
    terms: HandoverTerms,
}

impl Takeover {
    /// The one on standard input.
    pub fn of_stdin() -> Result<Takeover, CommandError> {
        let gone = |e: io::Error| CommandError::Failed(format!("nothing is handed over: {e}"));
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(gone)?);
        let mut line = String::new();
        // Byte by byte: what comes behind the line has a descriptor with it.
        BufReader::with_capacity(1, &socket).take(TERMS_MAX).read_line(&mut line).map_err(gone)?;
        let terms = serde_json::from_str(&line).map_err(|e| gone(e.into()))?;
        Ok(Takeover { socket, terms })
    }

    /// Whether what configuration files and variables say by now still fits.
    pub fn check(&self, settings: &MountSettings) -> Result<(), CommandError> {
        let HandoverTerms { mountpoint, state_dir, .. } = &self.terms;
        let pairs = [
            ("mount point", mountpoint, &settings.mountpoint),
            ("state directory", state_dir, &settings.state_dir),
        ];
        match pairs.into_iter().find(|(_, old, new)| old != new) {
            None => Ok(()),
            Some((what, old, new)) => Err(CommandError::Failed(format!(
                "the {what} is {} and would be {} now; unmount it and mount it again",
                old.display(),
                new.display()
            ))),
        }
    }

    /// Whether the mount may be missing for a moment.
    pub fn gap(&self) -> Gap {
        self.terms.gap
    }

    /// Says that all is prepared, and waits for the turn; the socket of the metrics, if that was
    /// handed over and is still the one that is wanted.
    pub fn turn(self, settings: &MountSettings) -> Result<Option<OwnedFd>, CommandError> {
        let gone = || CommandError::failed("the process that serves the mount is gone");
        background::tell(&format!("{PREPARED} {}", std::process::id())).map_err(|_| gone())?;
        let mut byte = [0];
        let received = descriptor::receive(&self.socket, &mut byte, RecvFlags::empty());
        let (length, descriptor) = received.map_err(|_| gone())?;
        if (length, byte) != (1, [TURN]) {
            return Err(gone());
        }
        let wanted = settings.metrics.as_ref().map(ToString::to_string);
        Ok(descriptor.filter(|_| wanted == self.terms.metrics))
    }
}
