//! The broker's side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::net::RecvFlags;
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};

use super::programs::{Programs, answer_with};
use super::{MountAnswer, REQUEST_MAX, Request, UnmountAnswer};
use crate::cli::handover::MountStart;
use crate::cli::settings::MountSettings;
use crate::descriptor;
use crate::fuse::session::over::{self, Gap};
use crate::fuse::session::{self, Manner, MountError, SessionOptions, UnmountError, mountinfo};

/// What the kernel shows as this process's name.
const NAME: &std::ffi::CStr = c"tofufs-broker";

/// Does what the mount's process asks, until that has ended.
pub(super) fn serve(requests: OwnedFd, settings: MountSettings, start: MountStart) {
    let _ = rustix::thread::set_name(NAME);
    if settings.in_background {
        // As the mount's process does after mounting.
        let _ = rustix::process::chdir("/");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    // The other end sees why: nobody answers.
    let _ = runtime.block_on(async {
        let programs = Programs::new(&settings);
        let brokerage = Brokerage { settings, start, programs, made: Mutex::default() };
        answer_all(requests, Arc::new(brokerage)).await
    });
    // What blocks is left behind.
    runtime.shutdown_background();
}

async fn answer_all(requests: OwnedFd, brokerage: Arc<Brokerage>) -> io::Result<()> {
    // A signal to all processes of a terminal or a service ends the mount's process, which then
    // wants to be unmounted. They are caught, not ignored: what this process runs would ignore them
    // too.
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let _caught = kinds.map(signal);
    let requests = std::os::unix::net::UnixDatagram::from(requests);
    requests.set_nonblocking(true)?;
    let requests = UnixDatagram::from_std(requests)?;
    loop {
        let mut bytes = vec![0; REQUEST_MAX];
        let received = requests
            .async_io(Interest::READABLE, || {
                descriptor::receive(&requests, &mut bytes, RecvFlags::empty())
            })
            .await?;
        let (length @ 1.., Some(connection)) = received else { return Ok(()) };
        bytes.truncate(length);
        if let Ok(request) = serde_json::from_slice(&bytes) {
            tokio::spawn(answer(request, UnixStream::from(connection), Arc::clone(&brokerage)));
        }
    }
}

/// What the broker knows of its mount.
struct Brokerage {
    settings: MountSettings,
    start: MountStart,
    programs: Programs,
    /// A mount that has no place yet.
    made: Mutex<Option<OwnedFd>>,
}

/// Does what is asked. Who asked may be gone by then.
async fn answer(request: Request, connection: UnixStream, brokerage: Arc<Brokerage>) {
    let _ = match request {
        Request::Credential { host, repo, again } => {
            let programs = &brokerage.programs;
            answer_with(connection, programs.credential(&host, repo.as_deref(), again)).await
        }
        Request::ForgetCredentials => {
            brokerage.programs.forget();
            Ok(())
        }
        Request::Token { host } => answer_with(connection, brokerage.programs.token(&host)).await,
        Request::Sign { reference, tag } => {
            answer_with(connection, brokerage.programs.sign(&reference, tag.as_deref())).await
        }
        Request::Mount(options) => {
            blocking(brokerage, move |b| b.mount(&connection, &options)).await
        }
        Request::MountOver { old, options, gap } => {
            blocking(brokerage, move |b| b.mount_over(&connection, old, &options, gap)).await
        }
        Request::TakePlace { old } => {
            blocking(brokerage, move |b| b.take_place(&connection, old)).await
        }
        Request::Successor => blocking(brokerage, move |b| b.start_successor(connection)).await,
        Request::Unmount { id, device, manner } => {
            let unmount = move |_: &Brokerage| tell(&connection, &unmounted(id, &device, manner));
            blocking(brokerage, unmount).await
        }
    };
}

async fn blocking(
    brokerage: Arc<Brokerage>,
    work: impl FnOnce(&Brokerage) + Send + 'static,
) -> io::Result<()> {
    tokio::task::spawn_blocking(move || work(&brokerage)).await.map_err(io::Error::other)
}

impl Brokerage {
    fn mount(&self, connection: &UnixStream, options: &SessionOptions) {
        self.mounted(connection, session::mount(&self.settings.mountpoint, options));
    }

    fn mount_over(&self, connection: &UnixStream, old: u64, options: &SessionOptions, gap: Gap) {
        let made = self.there(old).and_then(|old| over::made(&old, options, gap));
        let device = made.map(|(device, mount)| {
            *self.made.lock() = mount;
            device
        });
        self.mounted(connection, device);
    }

    fn take_place(&self, connection: &UnixStream, old: u64) {
        let placed = self.placed(old);
        tell(connection, &placed.map_or_else(MountAnswer::Refused, |()| MountAnswer::Done));
    }

    /// Sends the kernel's connection, or why there is none.
    fn mounted(&self, connection: &UnixStream, device: Result<OwnedFd, MountError>) {
        match device {
            Ok(device) => {
                let sent = text(&MountAnswer::Done);
                let _ = descriptor::send(connection, &sent, device.as_fd());
                if self.settings.in_background {
                    // As the mount's process does, and for the same reason not before.
                    let _ = rustix::process::setsid();
                }
            }
            Err(e) => tell(connection, &MountAnswer::Refused(rule(e))),
        }
    }

    /// The mount of tofufs that is seen at the mount point, if it has this number.
    fn there(&self, id: u64) -> Result<mountinfo::MountInfo, MountError> {
        let point = &self.settings.mountpoint;
        let table = mountinfo::read().unwrap_or_default();
        let top = mountinfo::top_at(&table, point).filter(|top| top.id == id && top.is_ours());
        top.cloned().ok_or_else(|| MountError::Refused {
            point: point.clone(),
            rule: "what was mounted there is gone".to_owned(),
        })
    }

    fn placed(&self, old: u64) -> Result<(), String> {
        let Some(mount) = self.made.lock().take() else { return Ok(()) };
        let old = self.there(old).map_err(rule)?;
        over::put_in_place(&mount, &old)
            .map_err(|e| format!("it cannot be put in the place of the old one: {e}"))
    }

    /// Starts the successor, and waits until it ends, as a parent has to. Where it cannot be started
    /// its streams are closed, which is seen at their other end.
    fn start_successor(&self, connection: UnixStream) {
        let stderr = descriptor::receive(&connection, &mut [0], RecvFlags::empty());
        let (Ok((_, Some(stderr))), Ok(stdout)) = (stderr, connection.try_clone()) else { return };
        let mut command = self.start.successor();
        command.stdin(OwnedFd::from(connection)).stdout(OwnedFd::from(stdout)).stderr(stderr);
        let child = command.spawn();
        // Closes this process's copies of the streams.
        drop(command);
        if let Ok(mut child) = child {
            let _ = child.wait();
        }
    }
}

fn text(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).unwrap_or_default()
}

fn tell(mut connection: &UnixStream, answer: &impl Serialize) {
    let _ = io::Write::write_all(&mut connection, &text(answer));
}

/// What stands behind the mount point in the sentence of an error.
fn rule(error: MountError) -> String {
    match error {
        MountError::Refused { rule, .. } => rule,
        MountError::System { what, source, .. } => format!("{what}: {source}"),
    }
}

/// Unmounts a mount of tofufs.
fn unmounted(id: u64, device: &str, manner: Manner) -> UnmountAnswer {
    let table = match mountinfo::read() {
        Ok(table) => table,
        Err(e) => return UnmountAnswer::Failed(e.to_string()),
    };
    let is_meant =
        |entry: &&mountinfo::MountInfo| entry.id == id && entry.device == device && entry.is_ours();
    match table.iter().find(is_meant) {
        None => UnmountAnswer::Done,
        Some(entry) => match session::unmount(&entry.point, manner) {
            Ok(()) => UnmountAnswer::Done,
            Err(UnmountError::Busy { holders, .. }) => UnmountAnswer::Busy(
                holders.into_iter().map(|h| (h.pid, h.command, h.path.into_os_string())).collect(),
            ),
            Err(UnmountError::System { reason, .. }) => UnmountAnswer::Failed(reason),
            Err(e @ (UnmountError::Covered { .. } | UnmountError::Foreign { .. })) => {
                UnmountAnswer::Failed(e.to_string())
            }
        },
    }
}
