//! `mirror/` behind a plain web server, as a network mirror.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::clients::Client;
use crate::support::mount::Mount;
use crate::support::tls::Tls;
use crate::support::{program, wait_until};
use crate::tiny::{self, OTHER};
use crate::{declared, here, mapped, registry};

/// Serves a directory over TLS on a free port, which it prints into a file.
const SERVER: &str = "\
import functools, http.server, os, ssl, sys
directory, certificate, key, told = sys.argv[1:]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(told + '.new', 'w') as file:
    file.write(str(server.server_address[1]))
os.rename(told + '.new', told)
server.serve_forever()
";

/// A plain web server over TLS.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Serves `directory` with this certificate; the file `told` must not be there. `None`, with
    /// the reason printed, without Python.
    pub fn start(directory: &Path, certificate: &Path, key: &Path, told: &Path) -> Option<Server> {
        let mut command = Command::new(program("python3")?);
        command.args(["-c", SERVER]).args([directory, certificate, key, told]);
        let child =
            command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("python starts");
        let mut server = Server { child, port: 0 };
        assert!(
            wait_until(Duration::from_secs(20), || told.exists()),
            "the web server does not start"
        );
        server.port = fs::read_to_string(told).unwrap().parse().unwrap();
        assert!(TcpStream::connect(("127.0.0.1", server.port)).is_ok());
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn a_web_server_over_mirror_is_a_network_mirror(name: &str) {
    let (Some(_), Some(_)) = (program(name), program("python3")) else { return };
    let Some(registry) = registry() else { return };
    let Some(()) = tiny::publish(&registry, &["1.0.0"]) else { return };
    let options = mapped(&registry).args(declared(&["acme/tiny"])).args([
        "--platform",
        &here(),
        "--platform",
        OTHER,
    ]);
    let Some(mount) = Mount::start(&[registry.host()], options) else { return };

    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    let [authority, certificate, key] = Tls::new().write(&base);
    let server = Server::start(&mount.join("mirror"), &certificate, &key, &base.join("port"))
        .expect("python is there");
    let port = server.port;

    let configuration = format!(
        "provider_installation {{\n  network_mirror {{\n    \
         url = \"https://127.0.0.1:{port}/\"\n  }}\n}}\n"
    );
    let client = Client::new(name, &base, "work", &configuration).expect("it is installed");
    let client = client.with("SSL_CERT_FILE", &authority);
    client.use_provider();
    // Terraform records what it computed, OpenTofu also what the mirror says.
    assert_eq!(client.lock().contains("zh:"), name == "tofu", "{}", client.lock());
    // The hashes of the other platform are right too: this downloads and checks it.
    let mirror = format!("-net-mirror=https://127.0.0.1:{port}/");
    client.run(&["providers", "lock", "-no-color", &mirror, &format!("-platform={OTHER}")]);
}

#[test]
fn terraform_installs_through_a_web_server() {
    a_web_server_over_mirror_is_a_network_mirror("terraform");
}

#[test]
fn opentofu_installs_through_a_web_server() {
    a_web_server_over_mirror_is_a_network_mirror("tofu");
}
