//! `mount --metrics`: what a mount's process counts, for Prometheus, over a socket of this machine.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, Opts};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::args::metrics::MetricsAddress;
use super::status::{Mount, SourceStateText};
use crate::metrics::metrics;

/// How many connections are served at a time; others wait.
const AT_A_TIME: usize = 4;
/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The format of the text.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A socket that metrics are told on. Its path goes when it is dropped.
pub struct MetricsSocket {
    listener: Listener,
    path: Option<PathBuf>,
    /// Whether another process has it by now, so that its path stays.
    handed_over: Arc<AtomicBool>,
}

/// The way to hand a socket over that is served.
#[derive(Clone)]
pub struct MetricsHandle {
    listener: Arc<OwnedFd>,
    handed_over: Arc<AtomicBool>,
}

impl MetricsHandle {
    /// The socket, for another process.
    pub fn listener(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone()
    }

    /// The other process has it.
    pub fn handed_over(&self) {
        self.handed_over.store(true, Ordering::Release);
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(std::net::TcpListener),
}

impl MetricsSocket {
    /// Makes the socket. One that a process left behind is replaced; one that somebody listens on
    /// is not.
    pub fn bind(address: &MetricsAddress) -> io::Result<MetricsSocket> {
        match address {
            MetricsAddress::Loopback(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(MetricsSocket::new(Listener::Tcp(listener), None))
            }
            MetricsAddress::Unix(path) => {
                if is_left_behind(path) {
                    fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                listener.set_nonblocking(true)?;
                Ok(MetricsSocket::new(Listener::Unix(listener), Some(path.clone())))
            }
        }
    }

    /// The socket at `address` that another process had.
    pub fn inherited(address: &MetricsAddress, listener: OwnedFd) -> MetricsSocket {
        match address {
            MetricsAddress::Loopback(_) => MetricsSocket::new(Listener::Tcp(listener.into()), None),
            MetricsAddress::Unix(path) => {
                MetricsSocket::new(Listener::Unix(listener.into()), Some(path.clone()))
            }
        }
    }

    fn new(listener: Listener, path: Option<PathBuf>) -> MetricsSocket {
        MetricsSocket { listener, path, handed_over: Arc::default() }
    }

    /// The way to hand it over.
    pub fn handle(&self) -> io::Result<MetricsHandle> {
        let listener = match &self.listener {
            Listener::Unix(listener) => listener.as_fd().try_clone_to_owned(),
            Listener::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
        };
        let handed_over = Arc::clone(&self.handed_over);
        Ok(MetricsHandle { listener: Arc::new(listener?), handed_over })
    }

    /// Answers until dropped; `look` tells how the mount is. Runs inside the async runtime.
    pub async fn serve<F>(self, look: impl Fn() -> F + Send + Sync + 'static) -> io::Result<()>
    where
        F: Future<Output = Result<Mount, String>> + Send + 'static,
    {
        let (look, turns) = (Arc::new(look), Arc::new(Semaphore::new(AT_A_TIME)));
        let listener = match &self.listener {
            Listener::Unix(listener) => {
                AsyncListener::Unix(tokio::net::UnixListener::from_std(listener.try_clone()?)?)
            }
            Listener::Tcp(listener) => {
                AsyncListener::Tcp(tokio::net::TcpListener::from_std(listener.try_clone()?)?)
            }
        };
        while let Ok(turn) = Arc::clone(&turns).acquire_owned().await {
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(e) => {
                    tracing::warn!("the socket for metrics: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let look = Arc::clone(&look);
            tokio::spawn(async move {
                let answer = service_fn(|request| answer(request, look.as_ref()));
                let served = http1::Builder::new()
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), answer);
                // Who asks has gone, or takes too long: he asks again.
                let _ = timeout(PATIENCE, served).await;
                drop(turn);
            });
        }
        Ok(())
    }
}

impl Drop for MetricsSocket {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_ref().filter(|_| !self.handed_over.load(Ordering::Acquire))
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether a socket is there on which nobody listens.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

enum AsyncListener {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl AsyncListener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            AsyncListener::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            AsyncListener::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

async fn answer<F>(
    request: Request<Incoming>,
    look: &impl Fn() -> F,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible>
where
    F: Future<Output = Result<Mount, String>>,
{
    let mut answer = Response::new(Full::default());
    if request.uri().path() != "/metrics" {
        *answer.status_mut() = StatusCode::NOT_FOUND;
        *answer.body_mut() = Full::from("metrics are at /metrics\n");
    } else if request.method() != Method::GET {
        *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    } else {
        match look().await {
            Ok(mount) => {
                answer.headers_mut().insert(CONTENT_TYPE, TEXT);
                *answer.body_mut() = Full::from(metrics().text(families(&mount)));
            }
            Err(reason) => {
                *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                *answer.body_mut() = Full::from(format!("{reason}\n"));
            }
        }
    }
    Ok(answer)
}

/// How the mount is at this moment.
fn families(mount: &Mount) -> Vec<MetricFamily> {
    let cache = mount.cache.as_ref();
    let waiting = mount.downloads.iter().map(|download| download.waiting.len()).sum::<usize>();
    let mut told = vec![
        by("tofufs_build_info", "1, with the version as a label.", "version", |version| {
            version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        }),
        one("tofufs_cache_bytes", "Bytes in the cache.", cache.map(|cache| cache.bytes)),
        one("tofufs_cache_limit_bytes", "Bytes that the cache may hold.", cache.map(|c| c.limit)),
        one("tofufs_downloads", "Downloads under way.", Some(mount.downloads.len() as u64)),
        one("tofufs_download_waiters", "Processes that wait for a download.", Some(waiting as u64)),
    ];
    told.push(by("tofufs_source_up", "1: the source answers; 0: it fails.", "source", |up| {
        for source in mount.sources.iter().filter(|s| s.state != SourceStateText::Unknown) {
            let answers = source.state == SourceStateText::Ok;
            up.with_label_values(&[source.name.as_str()]).set(f64::from(answers));
        }
    }));
    told.push(by("tofufs_staged", "Directories in staging/, by state.", "state", |staged| {
        for state in ["open", "sealed", "uploading", "failed"] {
            let count = mount.staged.iter().filter(|staged| staged.state == state).count();
            staged.with_label_values(&[state]).set(count as f64);
        }
    }));
    told.into_iter().flatten().collect()
}

/// A metric without labels; none where there is no value.
fn one(name: &str, help: &str, value: Option<u64>) -> Vec<MetricFamily> {
    let Some(value) = value else { return Vec::new() };
    let gauge = Gauge::new(name, help).expect("the name is valid");
    gauge.set(value as f64);
    gauge.collect()
}

/// A metric with one label.
fn by(name: &str, help: &str, label: &str, set: impl FnOnce(&GaugeVec)) -> Vec<MetricFamily> {
    let gauges = GaugeVec::new(Opts::new(name, help), &[label]).expect("the name is valid");
    set(&gauges);
    gauges.collect().into_iter().filter(|family| !family.get_metric().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::metrics::MetricsAddressError;

    #[test]
    fn metrics_are_told_on_this_machine_only() {
        let parsed = |text: &str| text.parse::<MetricsAddress>();
        assert_eq!(parsed("unix:run/m"), Ok(MetricsAddress::Unix("run/m".into())));
        for (text, shown) in [
            ("127.0.0.1:9100", "127.0.0.1:9100"),
            ("localhost:9100", "127.0.0.1:9100"),
            ("[::1]:9100", "[::1]:9100"),
            ("unix:/run/m", "unix:/run/m"),
        ] {
            assert_eq!(parsed(text).unwrap().to_string(), shown);
        }
        for text in ["0.0.0.0:9100", "10.1.2.3:9100", "[::]:9100"] {
            assert_eq!(parsed(text), Err(MetricsAddressError::NotLoopback), "{text}");
        }
        for text in ["", "unix:", "9100", ":9100", "example.com:9100", "127.0.0.1", "/run/m"] {
            assert_eq!(parsed(text), Err(MetricsAddressError::Form), "{text}");
        }
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        drop(UnixListener::bind(&path).unwrap());
        let address = MetricsAddress::Unix(path.clone());
        let socket = MetricsSocket::bind(&address).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let second = MetricsSocket::bind(&address).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "a file of somebody").unwrap();
        assert!(MetricsSocket::bind(&address).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"a file of somebody");
    }
}
