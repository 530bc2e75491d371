//! The Unix socket over which a mount is controlled: one request and one reply, a line of JSON
//! each. While a request takes long, lines come before the reply that tell how far it is, so that
//! silence always means that nobody answers.
//!
//! Only the mount's owner and root are answered. Messages, connections and waits are bounded, so
//! that nobody who can connect can hold the daemon up: neither by silence nor by what takes long.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::state::{private_dir, stem};
use super::trace::TraceId;
use crate::fuse::session::over::Gap;
use crate::stage::UploadProgress;

/// The longest request, in bytes. A path is at most 4,096.
const REQUEST_MAX: u64 = 16 * 1024;
/// The longest reply, in bytes.
const REPLY_MAX: u64 = 4 * 1024 * 1024;
/// How many connections may be silent, without a whole request; of more than that the oldest is
/// closed.
const SILENT_MAX: usize = 64;
/// How many requests of one kind are carried out at a time; others wait for their turn.
const AT_A_TIME: usize = 8;
/// How long a client may take to send its request, and to take the reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a request that takes long tells how far it is.
const BEAT: Duration = Duration::from_millis(500);
/// The longest path of a socket, without the final NUL (unix(7)).
const PATH_MAX: usize = 107;

/// What a mount can be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlRequest {
    /// How it is. The reply is one element of `mounts` of `tofufs status --json`.
    Status(()),
    /// To forget tags, lists and refusals below a path.
    Refresh {
        /// Relative to the mount's root.
        path: String,
        /// Whether what releases of provider registries have become is taken as it is.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accept: bool,
        /// The trace that it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<TraceId>,
    },
    /// To publish what is staged at or below a path. The reply is a list of
    /// [`Pushed`](crate::stage::Pushed).
    Commit {
        /// Relative to the staging directory.
        path: String,
        /// Annotations of the releases.
        annotations: BTreeMap<String, String>,
        /// Whether a tag that holds another digest is overwritten.
        allow_overwrite: bool,
        /// The trace that it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<TraceId>,
    },
    /// Its mapping of providers. The reply is a
    /// [`MountMapping`](super::tofurc::mount_mapping::MountMapping).
    Mapping(()),
    /// To have another process serve in its place.
    Upgrade {
        /// The program of that process.
        program: PathBuf,
        /// Whether the mount may be missing for a moment.
        #[serde(default)]
        gap: Gap,
        /// The trace that it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<TraceId>,
    },
    /// What it was told that other commands can take over. The reply has the values of options by
    /// their names.
    Settings(()),
}

impl ControlRequest {
    /// The span of what is done for it.
    fn span(&self) -> Span {
        match self {
            ControlRequest::Commit { trace, .. }
            | ControlRequest::Refresh { trace, .. }
            | ControlRequest::Upgrade { trace, .. } => TraceId::span(*trace),
            ControlRequest::Status(())
            | ControlRequest::Mapping(())
            | ControlRequest::Settings(()) => Span::none(),
        }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done; what was asked for, else null.
    Done(Value),
    /// It was not, and why.
    Error(String),
    /// It goes on; this is not the last line.
    Progress {
        /// How many bytes are done.
        done: u64,
        /// Of how many.
        total: u64,
    },
}

/// How far a request is.
#[derive(Default, Debug)]
pub struct Steps {
    done: AtomicU64,
    total: AtomicU64,
}

impl Steps {
    fn reply(&self) -> Reply {
        Reply::Progress {
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }
}

impl UploadProgress for Steps {
    fn uploaded(&self, done: u64, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }
}

/// Answers requests.
#[async_trait]
pub trait Service: Send + Sync {
    /// Does what is asked, or says why not; tells how far it is where it takes long.
    async fn answer(&self, request: ControlRequest, steps: &Arc<Steps>) -> Result<Value, String>;
}

/// The socket of one mount. Removed when dropped.
#[derive(Debug)]
pub struct Socket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket of the mount at `mountpoint` in the first of `dirs` that can be used, and
    /// removes sockets that processes left behind there.
    pub fn bind(mountpoint: &Path, dirs: &[PathBuf]) -> io::Result<Socket> {
        let mut result = Err(io::ErrorKind::NotFound.into());
        for dir in dirs {
            result = private_dir(dir).and_then(|()| bind_in(dir, mountpoint));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until dropped. Runs inside the async runtime.
    pub async fn serve(&self, service: Arc<dyn Service>) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let owner = rustix::process::geteuid().as_raw();
        let (turns, mut silent) = (Arc::new(Turns::new()), Silent::default());
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of descriptors, as a rule: connections wait until some are free again.
                    tracing::warn!("control socket: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let allowed =
                stream.peer_cred().is_ok_and(|peer| peer.uid() == owner || peer.uid() == 0);
            if allowed {
                let (service, turns) = (Arc::clone(&service), Arc::clone(&turns));
                silent.add(tokio::spawn(listen(stream, service, turns)).abort_handle());
            }
        }
    }
}

/// Connections that have not sent a whole request yet.
#[derive(Default)]
struct Silent(VecDeque<AbortHandle>);

impl Silent {
    fn add(&mut self, connection: AbortHandle) {
        self.0.retain(|connection| !connection.is_finished());
        if self.0.len() >= SILENT_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(connection);
    }
}

/// Whose turn it is. What takes long keeps nobody from asking how the mount is.
struct Turns {
    short: Semaphore,
    long: Semaphore,
    upgrade: Semaphore,
}

impl Turns {
    fn new() -> Self {
        Turns {
            short: Semaphore::new(AT_A_TIME),
            long: Semaphore::new(AT_A_TIME),
            upgrade: Semaphore::new(1),
        }
    }

    async fn of(&self, request: &ControlRequest) -> Option<SemaphorePermit<'_>> {
        let turn = match request {
            ControlRequest::Commit { .. } => &self.long,
            // It waits for commits.
            ControlRequest::Upgrade { .. } => &self.upgrade,
            ControlRequest::Status(())
            | ControlRequest::Refresh { .. }
            | ControlRequest::Mapping(())
            | ControlRequest::Settings(()) => &self.short,
        };
        turn.acquire().await.ok()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn bind_in(dir: &Path, mountpoint: &Path) -> io::Result<Socket> {
    let stem = stem(mountpoint);
    remove_abandoned(dir, &stem);
    // Two mounts at one place may serve for a while, when the earlier one was unmounted lazily.
    let path = dir.join(format!("{stem}-{}.sock", std::process::id()));
    if path.as_os_str().len() > PATH_MAX {
        let reason = format!(
            "{} is longer than {PATH_MAX} bytes; choose a shorter --state-dir",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    // Nobody but this user can look into the directory, so nobody connects before the mode is set.
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    let socket = Socket { listener, path };
    fs::set_permissions(&socket.path, Permissions::from_mode(0o600))?;
    Ok(socket)
}

fn remove_abandoned(dir: &Path, stem: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(stem));
        let socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        let refused = |path: &Path| {
            std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
        };
        if ours && socket && refused(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Takes a request, for which there is not much time, and has it answered.
async fn listen(stream: UnixStream, service: Arc<dyn Service>, turns: Arc<Turns>) {
    let (reading, writing) = stream.into_split();
    let mut line = Vec::new();
    let mut reading = tokio::io::BufReader::new(reading.take(REQUEST_MAX));
    match tokio::time::timeout(PATIENCE, reading.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) => drop(tokio::spawn(answer(line, writing, service, turns))),
        Ok(Err(e)) => tracing::debug!("control socket: {e}"),
        Err(e) => tracing::debug!("control socket: no request came: {e}"),
    }
}

async fn answer(
    line: Vec<u8>,
    mut writing: OwnedWriteHalf,
    service: Arc<dyn Service>,
    turns: Arc<Turns>,
) {
    let replied = match serde_json::from_slice(&line) {
        Ok(request) => reply_to(request, &mut writing, &*service, &turns).await,
        Err(e) => {
            let reason = format!("this is no request that this version of tofufs knows: {e}");
            send(&mut writing, &Reply::Error(reason)).await
        }
    };
    if let Err(e) = replied {
        tracing::debug!("control socket: {e}");
    }
}

async fn reply_to(
    request: ControlRequest,
    writing: &mut OwnedWriteHalf,
    service: &dyn Service,
    turns: &Turns,
) -> io::Result<()> {
    let steps = Arc::new(Steps::default());
    let answering = async {
        let _turn = turns.of(&request).await;
        service.answer(request.clone(), &steps).await
    };
    let mut answering = pin!(answering.instrument(request.span()));
    let mut beat = tokio::time::interval_at(Instant::now() + BEAT, BEAT);
    let answer = loop {
        tokio::select! {
            answer = &mut answering => break answer,
            _ = beat.tick() => send(writing, &steps.reply()).await?,
        }
    };
    let reply = match answer {
        Ok(value) => Reply::Done(value),
        Err(reason) => Reply::Error(reason),
    };
    send(writing, &reply).await
}

async fn send(writing: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut text = serde_json::to_vec(reply)?;
    text.push(b'\n');
    tokio::time::timeout(PATIENCE, writing.write_all(&text)).await?
}

/// An open conversation with a mount's process.
#[derive(Debug)]
pub struct ControlConnection {
    stream: std::os::unix::net::UnixStream,
}

impl ControlConnection {
    /// Connects. Every wait on the connection ends after `limit`.
    pub fn open(socket: &Path, limit: Duration) -> io::Result<ControlConnection> {
        let stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(ControlConnection { stream })
    }

    /// Asks, and waits for the answer.
    pub fn ask(self, request: &ControlRequest) -> Result<Value, String> {
        self.ask_long(request, |_, _| ControlFlow::Continue(()))
    }

    /// Asks, and waits as long as lines come that tell how far it is (done, total); `told` may
    /// break off the wait.
    pub fn ask_long(
        mut self,
        request: &ControlRequest,
        mut told: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Value, String> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                "the mount's process does not answer".to_owned()
            }
            _ => format!("the mount's process does not answer: {e}"),
        };
        let mut text = serde_json::to_vec(request).map_err(|e| e.to_string())?;
        text.push(b'\n');
        self.stream.write_all(&text).map_err(failed)?;
        let mut reading = BufReader::new(self.stream);
        loop {
            let mut line = Vec::new();
            (&mut reading).take(REPLY_MAX).read_until(b'\n', &mut line).map_err(failed)?;
            match serde_json::from_slice(&line) {
                Ok(Reply::Done(value)) => return Ok(value),
                Ok(Reply::Error(reason)) => return Err(reason),
                Ok(Reply::Progress { done, total }) => {
                    if told(done, total).is_break() {
                        return Err("stopped waiting; the mount goes on with it".to_owned());
                    }
                }
                Err(e) => {
                    return Err(format!(
                        "the mount's process answers with something else than a reply: {e}"
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    struct Echo;

    #[async_trait]
    impl Service for Echo {
        async fn answer(
            &self,
            request: ControlRequest,
            steps: &Arc<Steps>,
        ) -> Result<Value, String> {
            match request {
                ControlRequest::Commit { path, .. } => {
                    steps.uploaded(1, 2);
                    tokio::time::sleep(3 * BEAT).await;
                    Ok(path.into())
                }
                ControlRequest::Status(()) => Ok("fine".into()),
                ControlRequest::Refresh { path, .. } => Err(format!("not {path}")),
                ControlRequest::Mapping(())
                | ControlRequest::Settings(())
                | ControlRequest::Upgrade { .. } => Ok(Value::Null),
            }
        }
    }

    fn serve(test: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let socket = Socket::bind(Path::new("/mnt"), &[dir.path().join("control")]).unwrap();
        let path = socket.path().to_owned();
        let serving = runtime.spawn(async move { socket.serve(Arc::new(Echo)).await });
        test(&path);
        serving.abort();
    }

    fn ask(path: &Path, request: ControlRequest) -> Result<Value, String> {
        ControlConnection::open(path, PATIENCE).unwrap().ask(&request)
    }

    #[test]
    fn requests_are_single_lines_of_json() {
        let text = |request| serde_json::to_string(&request).unwrap();
        assert_eq!(text(ControlRequest::Status(())), r#"{"status":null}"#);
        assert_eq!(
            text(ControlRequest::Refresh { path: "a".into(), accept: false, trace: None }),
            r#"{"refresh":{"path":"a"}}"#
        );
    }

    #[test]
    fn a_request_gets_its_answer_or_the_reason() {
        serve(|path| {
            assert_eq!(ask(path, ControlRequest::Status(())), Ok("fine".into()));
            assert_eq!(
                ask(path, ControlRequest::Refresh { path: "a".into(), accept: false, trace: None }),
                Err("not a".into())
            );
        });
    }

    #[test]
    fn a_long_request_tells_how_far_it_is_and_the_wait_can_be_broken_off() {
        serve(|path| {
            let commit = ControlRequest::Commit {
                path: "a".into(),
                annotations: BTreeMap::new(),
                allow_overwrite: false,
                trace: None,
            };
            let mut lines = Vec::new();
            let reply = ControlConnection::open(path, PATIENCE).unwrap().ask_long(
                &commit,
                |done, total| {
                    lines.push((done, total));
                    ControlFlow::Continue(())
                },
            );
            assert_eq!(reply, Ok("a".into()));
            assert!(!lines.is_empty() && lines.iter().all(|line| *line == (1, 2)));
            let stopped = ControlConnection::open(path, PATIENCE)
                .unwrap()
                .ask_long(&commit, |_, _| ControlFlow::Break(()));
            assert!(stopped.unwrap_err().contains("goes on"));
        });
    }

    // L17
    #[test]
    fn the_socket_is_private() {
        serve(|path| {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        });
    }

    // L17
    #[test]
    fn an_oversized_message_and_a_thousand_connections_leave_it_working() {
        serve(|path| {
            let mut long = UnixStream::connect(path).unwrap();
            let _ = long.write_all(&vec![b' '; 10 * REQUEST_MAX as usize]);
            for _ in 0..1000 {
                drop(UnixStream::connect(path).unwrap());
            }
            assert_eq!(ask(path, ControlRequest::Status(())), Ok("fine".into()));
        });
    }

    #[test]
    fn neither_silent_connections_nor_long_requests_keep_anybody_from_asking() {
        serve(|path| {
            let silent: Vec<_> = (0..400).map(|_| UnixStream::connect(path).unwrap()).collect();
            assert_eq!(ask(path, ControlRequest::Status(())), Ok("fine".into()));
            drop(silent);
            let commit = ControlRequest::Commit {
                path: "a".into(),
                annotations: BTreeMap::new(),
                allow_overwrite: false,
                trace: None,
            };
            let mut line = serde_json::to_vec(&commit).unwrap();
            line.push(b'\n');
            let mut long: Vec<_> =
                (0..4 * AT_A_TIME).map(|_| UnixStream::connect(path).unwrap()).collect();
            long.iter_mut().for_each(|connection| connection.write_all(&line).unwrap());
            // They are told that it goes on, which the first of them is as soon as it has its turn.
            let mut told = [0];
            long[0].read_exact(&mut told).unwrap();
            assert_eq!(ask(path, ControlRequest::Status(())), Ok("fine".into()));
        });
    }

    // L17
    #[test]
    fn a_directory_of_others_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(Socket::bind(Path::new("/mnt"), &[open.clone(), link]).is_err());
        let good = dir.path().join("good");
        let socket = Socket::bind(Path::new("/mnt"), &[open, good.clone()]).unwrap();
        assert!(socket.path().starts_with(good));
    }

    #[test]
    fn an_abandoned_socket_is_removed_and_a_long_path_refused() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("control");
        private_dir(&control).unwrap();
        let abandoned = control.join(format!("{}-1.sock", stem(Path::new("/mnt"))));
        drop(std::os::unix::net::UnixListener::bind(&abandoned).unwrap());
        let socket = Socket::bind(Path::new("/mnt"), &[control]).unwrap();
        assert!(!abandoned.exists() && socket.path().exists());
        let long =
            Socket::bind(Path::new("/mnt"), &[dir.path().join("x".repeat(100))]).unwrap_err();
        assert!(long.to_string().contains("--state-dir"), "{long}");
    }
}
