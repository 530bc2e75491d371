//! Telling a service manager that a mount can be used (sd_notify(3)).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that names the manager's socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// What it is told.
const MESSAGE: &[u8] = b"READY=1\nSTATUS=Mounted";

/// Tells the manager that started this process that the mount can be used, if one waits for it. A
/// manager that cannot be told gives up by its own limit; the log says why.
pub fn ready() {
    let Some(socket) = env::var_os(SOCKET).filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&socket) {
        tracing::warn!(%error, "the service manager at {} cannot be told", socket.display());
    }
}

/// A name that begins with @ is one of the abstract namespace.
fn send(socket: &OsStr) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(MESSAGE, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn a_manager_is_told_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("tofufs-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let managers = [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), OsString::from(format!("@{name}"))),
        ];
        for (manager, socket) in managers {
            send(&socket).unwrap();
            let mut told = [0; 64];
            let length = manager.recv(&mut told).unwrap();
            assert!(told[..length].starts_with(b"READY=1\n"));
        }
        assert!(send(dir.path().join("nobody").as_os_str()).is_err());
    }
}
