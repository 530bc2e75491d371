//! The broker: a process that does for the one that serves a mount what that one has given up. It
//! is split off before the mount's process reads anything from others, keeps all privileges, and
//! does nothing but what is in `Request`: it speaks to its mount's process alone.
//!
//! A request is a message on a socket that both share, with one end of a connection of its own over
//! which the answer comes. Who asks no more closes the other end. The broker ends with its mount's
//! process.

mod credentials;
mod process;
mod programs;
mod serve;

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::handover::MountStart;
use super::output::CommandError;
use super::settings::MountSettings;
use crate::descriptor;
use crate::fuse::session::holders::Holder;
use crate::fuse::session::mountinfo::MountInfo;
use crate::fuse::session::over::{Gap, Replacing};
use crate::fuse::session::{Manner, MountError, Mounting, SessionOptions, UnmountError};
use crate::registry::auth::CredentialSource;
use credentials::BrokeredCredentials;

/// The longest request, in bytes.
const REQUEST_MAX: usize = 64 << 10;
/// How often it is looked whether it is there.
const SEEN: Duration = Duration::from_secs(5);
/// Why nothing is done any more.
const GONE: &str = "the mount's broker is gone; unmount with `tofufs umount`, and mount again";
/// How long mounting and unmounting may take: longer than the broker waits for `fusermount3`, which
/// it runs three times at most.
const MOUNTING: Duration = Duration::from_secs(40);

/// What the broker does.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Mounts at the mount point, once. The kernel's connection comes with the answer, a
    /// [`MountAnswer`].
    Mount(SessionOptions),
    /// Finds a credential for a repository, or for a registry as a whole. `again`: the registry
    /// refused what was found before. The answer is a
    /// [`CredentialAnswer`](credentials::CredentialAnswer).
    Credential { host: String, repo: Option<String>, again: bool },
    /// Forgets what credential helpers said.
    ForgetCredentials,
    /// Finds the token for a host of services.
    Token { host: String },
    /// Runs the program that signs, which was named when the mount began.
    Sign { reference: String, tag: Option<String> },
    /// Makes a mount for the place of the one of this number. The answer is as to `Mount`.
    MountOver { old: u64, options: SessionOptions, gap: Gap },
    /// Gives that mount the place. The answer is a [`MountAnswer`].
    TakePlace { old: u64 },
    /// Starts the program of this mount once more, as its successor: with the words, the
    /// environment and the directory with which this one was started, and nothing that the mount's
    /// process could choose. The connection becomes its standard input and output; over it comes
    /// its standard error before. There is no answer.
    Successor,
    /// Unmounts the mount of tofufs of this number and device. The answer is an [`UnmountAnswer`].
    Unmount { id: u64, device: String, manner: Manner },
}

#[derive(Debug, Serialize, Deserialize)]
enum MountAnswer {
    Done,
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
enum UnmountAnswer {
    Done,
    Busy(Vec<(u32, String, OsString)>),
    Failed(String),
}

/// The way to the broker.
#[derive(Debug)]
pub struct Broker {
    requests: OwnedFd,
}

impl Broker {
    /// Splits the broker off. This process must have one thread.
    pub fn start(settings: &MountSettings, start: &MountStart) -> Result<Broker, CommandError> {
        let serve = |requests| serve::serve(requests, settings.clone(), start.clone());
        let requests = process::split_off(serve)
            .map_err(|e| CommandError::Failed(format!("no process can be split off: {e}")))?;
        Ok(Broker { requests })
    }

    /// What this process's credentials are, when it asks the broker for them.
    pub fn credentials(self: &Arc<Self>) -> Arc<dyn CredentialSource> {
        Arc::new(BrokeredCredentials::new(Arc::clone(self)))
    }

    /// Sends a request; over what is returned the answer comes.
    fn send(&self, request: &Request) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        descriptor::send(&self.requests, &serde_json::to_vec(request)?, theirs.as_fd())?;
        Ok(ours)
    }

    /// Waits for the answer to `request`.
    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<(T, Option<OwnedFd>), String> {
        let answered = || -> io::Result<(T, Option<OwnedFd>)> {
            let mut stream = self.send(request)?;
            stream.set_read_timeout(Some(MOUNTING))?;
            let mut bytes = vec![0; 4096];
            let (length, descriptor) =
                descriptor::receive(&stream, &mut bytes, RecvFlags::empty())?;
            bytes.truncate(length);
            stream.read_to_end(&mut bytes)?;
            Ok((serde_json::from_slice(&bytes)?, descriptor))
        };
        answered().map_err(|e| self.no_answer(&e))
    }

    /// Why there is no answer.
    fn no_answer(&self, error: &io::Error) -> String {
        if self.is_gone() {
            return GONE.to_owned();
        }
        format!("the mount's broker does not answer: {error}")
    }

    /// Whether the broker has ended before this process.
    pub fn is_gone(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        // It sends nothing over this socket: what can be read is its end.
        let read = rustix::net::recv(&self.requests, &mut [0; 1], flags);
        !matches!(read, Err(Errno::WOULDBLOCK | Errno::INTR))
    }

    /// Says in the log, once, that the broker has ended before this process.
    pub async fn say_when_gone(self: Arc<Self>) {
        let mut often = tokio::time::interval(SEEN);
        while !self.is_gone() {
            often.tick().await;
        }
        tracing::error!(
            "the mount's broker is gone: the mount is served, but no credentials are read any \
             more, and it does not unmount itself; unmount with `tofufs umount`, and mount again"
        );
    }
}

impl Broker {
    /// Starts the successor of this mount's process; the other end of its standard streams.
    pub fn successor(&self) -> io::Result<UnixStream> {
        let stream = self.send(&Request::Successor)?;
        descriptor::send(&stream, b"\n", io::stderr().as_fd())?;
        Ok(stream)
    }

    /// Has it end: its successors belong to who stays.
    pub fn end(&self) {
        let _ = rustix::net::shutdown(&self.requests, rustix::net::Shutdown::Both);
    }

    fn device(&self, point: &Path, request: &Request) -> Result<OwnedFd, MountError> {
        let refused = |rule| MountError::Refused { point: point.to_owned(), rule };
        match self.ask(request).map_err(refused)? {
            (MountAnswer::Done, Some(device)) => Ok(device),
            (MountAnswer::Done, None) => {
                Err(refused("the mount's broker sent no descriptor".to_owned()))
            }
            (MountAnswer::Refused(rule), _) => Err(refused(rule)),
        }
    }
}

impl Replacing for Broker {
    fn mount_over(
        &self,
        old: &MountInfo,
        options: &SessionOptions,
        gap: Gap,
    ) -> Result<OwnedFd, MountError> {
        let request = Request::MountOver { old: old.id, options: options.clone(), gap };
        self.device(&old.point, &request)
    }

    fn take_place(&self, old: &MountInfo) -> Result<(), MountError> {
        let refused = |rule| MountError::Refused { point: old.point.clone(), rule };
        match self.ask(&Request::TakePlace { old: old.id }).map_err(refused)?.0 {
            MountAnswer::Done => Ok(()),
            MountAnswer::Refused(rule) => Err(refused(rule)),
        }
    }
}

impl Mounting for Broker {
    fn mount(&self, point: &Path, options: &SessionOptions) -> Result<OwnedFd, MountError> {
        self.device(point, &Request::Mount(options.clone()))
    }

    fn unmount(&self, entry: &MountInfo, manner: Manner) -> Result<(), UnmountError> {
        let point = || entry.point.clone();
        let failed = |reason| UnmountError::System { point: point(), reason };
        let request = Request::Unmount { id: entry.id, device: entry.device.clone(), manner };
        match self.ask(&request).map_err(failed)?.0 {
            UnmountAnswer::Done => Ok(()),
            UnmountAnswer::Busy(holders) => {
                let holder = |(pid, command, path): (u32, String, OsString)| Holder {
                    pid,
                    command,
                    path: path.into(),
                };
                let holders = holders.into_iter().map(holder).collect();
                Err(UnmountError::Busy { point: point(), holders })
            }
            UnmountAnswer::Failed(reason) => Err(failed(reason)),
        }
    }
}
