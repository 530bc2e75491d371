//! Debian's `docker-registry` (distribution 2.8) on a free port of 127.0.0.1, with its storage in a
//! directory of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::push::{Credential, Push};
use super::tls::Tls;
use super::token_server::{ISSUER, SERVICE, TokenServer};
use super::{program, wait_until};

pub const USER: &str = "alice";
pub const PASSWORD: &str = "open sesame";

/// Who may read and write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Anybody,
    /// Basic, [`USER`] and [`PASSWORD`].
    Htpasswd,
    /// Bearer, by a token server that knows [`USER`] and [`PASSWORD`].
    Token,
}

/// A running registry.
pub struct DockerRegistry {
    child: Option<Child>,
    dir: tempfile::TempDir,
    port: u16,
    tls: Option<Tls>,
    access: Access,
    token_server: Option<TokenServer>,
    /// The registry of which it is a pull-through cache.
    upstream: Option<String>,
    binary: PathBuf,
}

impl DockerRegistry {
    /// Starts one; `None`, with the reason printed, where that cannot be had on this machine.
    pub fn start(access: Access, tls: bool) -> Option<DockerRegistry> {
        DockerRegistry::start_with(access, tls, None)
    }

    /// Starts a pull-through cache of `upstream` (`http://HOST:PORT`) that anybody may read.
    pub fn pull_through(upstream: &str) -> Option<DockerRegistry> {
        DockerRegistry::start_with(Access::Anybody, false, Some(upstream.to_owned()))
    }

    fn start_with(access: Access, tls: bool, upstream: Option<String>) -> Option<DockerRegistry> {
        let binary = program("docker-registry")?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tls = tls.then(Tls::new);
        let token_server =
            (access == Access::Token).then(|| TokenServer::start(USER, PASSWORD, tls.as_ref()));
        if access == Access::Htpasswd {
            let output = Command::new(program("htpasswd")?)
                .args(["-nbB", USER, PASSWORD])
                .output()
                .expect("htpasswd runs");
            assert!(output.status.success(), "{output:?}");
            fs::write(dir.path().join("htpasswd"), output.stdout).expect("a writable directory");
        }
        let mut registry = DockerRegistry {
            child: None,
            dir,
            port: 0,
            tls,
            access,
            token_server,
            upstream,
            binary,
        };
        for _ in 0..5 {
            registry.port = free_port();
            if registry.run() {
                return Some(registry);
            }
        }
        panic!("docker-registry does not start: {}", registry.log());
    }

    /// Runs the server on the port chosen; false if it ended at once, as where somebody else took
    /// the port.
    fn run(&mut self) -> bool {
        let config = self.dir.path().join("config.yml");
        fs::write(&config, self.config()).expect("a writable directory");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("a log");
        let mut child = Command::new(&self.binary)
            .arg("serve")
            .arg(&config)
            .env_clear()
            .env("HOME", self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let port = self.port;
        let mut ended = false;
        let answers = wait_until(Duration::from_secs(20), || {
            ended = child.try_wait().expect("a child of ours").is_some();
            ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        self.child = Some(child);
        if !answers || ended {
            self.stop();
        }
        answers && !ended
    }

    fn config(&self) -> String {
        let dir = self.dir.path().display();
        let mut text = format!(
            "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {dir}/storage\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{}\n  secret: not-a-secret\n",
            self.port
        );
        if let Some(upstream) = &self.upstream {
            text += &format!("proxy:\n  remoteurl: {upstream}\n");
        }
        if let Some(tls) = &self.tls {
            let [_, certificate, key] = tls.write(self.dir.path());
            text += &format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.display(),
                key.display()
            );
        }
        match (self.access, &self.token_server) {
            (Access::Htpasswd, _) => {
                text += &format!(
                    "auth:\n  htpasswd:\n    realm: the registry\n    path: {dir}/htpasswd\n"
                );
            }
            (Access::Token, Some(server)) => {
                let bundle = self.dir.path().join("token.pem");
                fs::write(&bundle, server.certificate()).expect("a writable directory");
                text += &format!(
                    "auth:\n  token:\n    realm: {}\n    service: {SERVICE}\n    \
                     issuer: \"{ISSUER}\"\n    rootcertbundle: {}\n",
                    server.realm(),
                    bundle.display()
                );
            }
            _ => {}
        }
        text
    }

    /// The registry's name in references: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The authority to trust, where it speaks TLS.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.tls.as_ref().map(|_| self.dir.path().join("ca.pem"))
    }

    /// The token server, where it has one.
    pub fn token_server(&self) -> Option<&TokenServer> {
        self.token_server.as_ref()
    }

    /// The directory in which the server keeps its files (`storage/…`).
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes `config.json`, as `docker login` would, into `dir`.
    pub fn write_docker_config(&self, dir: &Path) -> PathBuf {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let path = dir.join("config.json");
        fs::create_dir_all(dir).expect("a writable directory");
        let config = serde_json::json!({"auths": {self.host(): {"auth": auth}}});
        fs::write(&path, config.to_string()).expect("a writable directory");
        path
    }

    /// A client that may push to `repo`.
    pub fn push(&self, repo: &str) -> Push {
        let credential = match (self.access, &self.token_server) {
            (Access::Anybody, _) => Credential::None,
            (Access::Token, Some(server)) => {
                Credential::Bearer(server.token(&[&format!("repository:{repo}:pull,push")]))
            }
            _ => Credential::Basic(USER.to_owned(), PASSWORD.to_owned()),
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let ca = self.tls.as_ref().map(|tls| tls.ca.as_str());
        Push::new(&format!("{scheme}://{}", self.host()), repo, credential, ca)
    }

    /// What the server has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Stops the server; its content stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Starts it again, on the same port and with the same content.
    pub fn start_again(&mut self) {
        self.stop();
        assert!(self.run(), "docker-registry does not start again: {}", self.log());
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket").port()
}
