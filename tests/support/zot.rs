//! zot on a free port of 127.0.0.1, with its storage in a directory of its own.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::{program, wait_until};

/// A running registry. Ended when it is dropped.
pub struct Zot {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Zot {
    /// Starts one, with TLS by a certificate and its key; `None`, with the reason printed, where it
    /// is not installed.
    pub fn start(tls: Option<(&Path, &Path)>) -> Option<Zot> {
        let binary = program("zot")?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let mut http = json!({ "address": "127.0.0.1", "port": port.to_string() });
        if let Some((certificate, key)) = tls {
            http["tls"] = json!({ "cert": certificate, "key": key });
        }
        let configuration = json!({
            "distSpecVersion": "1.1.0",
            "storage": { "rootDirectory": dir.path().join("store") },
            "http": http,
            "log": { "level": "error", "output": dir.path().join("log") },
        });
        let file = dir.path().join("zot.json");
        std::fs::write(&file, configuration.to_string()).expect("a writable directory");
        let mut command = Command::new(binary);
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().expect("zot starts");
        let zot = Zot { child, dir, port };
        let is_there = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(wait_until(Duration::from_secs(60), is_there), "zot does not answer");
        Some(zot)
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where its repositories lie.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }
}

impl Drop for Zot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
