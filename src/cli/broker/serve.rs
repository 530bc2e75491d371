//! The broker's side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::net::RecvFlags;
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};

use super::programs::{Programs, answer_with};
use super::{MountAnswer, REQUEST_MAX, Request, UnmountAnswer};
use crate::cli::settings::MountSettings;
use crate::descriptor;
use crate::fuse::session::{self, Manner, MountError, SessionOptions, UnmountError, mountinfo};

/// What the kernel shows as this process's name.
const NAME: &std::ffi::CStr = c"tofufs-broker";

/// Does what the mount's process asks, until that has ended.
pub(super) fn serve(requests: OwnedFd, settings: MountSettings) {
    let _ = rustix::thread::set_name(NAME);
    if settings.in_background {
        // As the mount's process does after mounting.
        let _ = rustix::process::chdir("/");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    // The other end sees why: nobody answers.
    let _ = runtime.block_on(answer_all(requests, Arc::new(settings)));
    // What blocks is left behind.
    runtime.shutdown_background();
}

async fn answer_all(requests: OwnedFd, settings: Arc<MountSettings>) -> io::Result<()> {
    let programs = Arc::new(Programs::new(&settings));
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
            let (settings, programs) = (Arc::clone(&settings), Arc::clone(&programs));
            tokio::spawn(answer(request, UnixStream::from(connection), settings, programs));
        }
    }
}

/// Does what is asked. Who asked may be gone by then.
async fn answer(
    request: Request,
    connection: UnixStream,
    settings: Arc<MountSettings>,
    programs: Arc<Programs>,
) {
    let _ = match request {
        Request::Credential { host, repo, again } => {
            answer_with(connection, programs.credential(&host, repo.as_deref(), again)).await
        }
        Request::ForgetCredentials => {
            programs.forget();
            Ok(())
        }
        Request::Token { host } => answer_with(connection, programs.token(&host)).await,
        Request::Sign { reference, tag } => {
            answer_with(connection, programs.sign(&reference, tag.as_deref())).await
        }
        Request::Mount(options) => blocking(move || mount(&connection, &options, &settings)).await,
        Request::Unmount { id, device, manner } => {
            blocking(move || tell(&connection, &unmounted(id, &device, manner))).await
        }
    };
}

async fn blocking(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

fn mount(connection: &UnixStream, options: &SessionOptions, settings: &MountSettings) {
    match session::mount(&settings.mountpoint, options) {
        Ok(device) => {
            let sent = text(&MountAnswer::Done);
            let _ = descriptor::send(connection, &sent, device.as_fd());
            if settings.in_background {
                // As the mount's process does, and for the same reason not before.
                let _ = rustix::process::setsid();
            }
        }
        Err(e) => tell(connection, &MountAnswer::Refused(rule(e))),
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
