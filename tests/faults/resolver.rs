//! A resolver that answers as it likes, in a network of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

/// Set where this program runs again, in a network of its own.
const INSIDE: &str = "TOFUFS_TEST_RESOLVER";
const DEADLINE: &str = "6s";

/// `$1`: a directory with the files that take the place of those in /etc; then the words to run.
const MAKE: &str = r#"
impossible() { echo "$1" >&2; exit 77; }
ip link set lo up || impossible "a network of its own cannot be set up"
mount --bind "$1/resolv.conf" /etc/resolv.conf || impossible "there are no bind mounts here"
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf || impossible "there is no /etc/nsswitch.conf"
shift
exec "$@"
"#;

/// The header and question of an answer to `query`, with this code and so many answers.
fn head(query: &[u8], code: u8, answers: usize, is_cut: bool) -> Vec<u8> {
    let question_end = 12 + query[12..].iter().position(|b| *b == 0).unwrap_or(0) + 5;
    let mut reply = query[..2].to_vec();
    reply.extend([0x81 | u8::from(is_cut) << 1, 0x80 | code, 0, 1]);
    reply.extend(u16::try_from(answers).unwrap().to_be_bytes());
    reply.extend([0, 0, 0, 0]);
    reply.extend(&query[12..question_end]);
    reply
}

/// The first label that is asked for, and whether for an IPv4 address.
fn asked(query: &[u8]) -> (String, bool) {
    let length = usize::from(query[12]);
    let label = String::from_utf8_lossy(&query[13..13 + length]).into_owned();
    let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap_or(0);
    (label, query[end + 1..end + 3] == [0, 1])
}

/// What is answered; `None`: nothing at all.
fn answer(query: &[u8], is_datagram: bool, has_moved: bool) -> Option<Vec<u8>> {
    let (label, wants_ipv4) = asked(query);
    let local = Ipv4Addr::LOCALHOST;
    let addresses: Vec<Ipv4Addr> = match (&*label, wants_ipv4) {
        ("silent", _) => return None,
        ("refused", _) => return Some(head(query, 5, 0, false)),
        ("broken", _) => return Some(head(query, 2, 0, false)),
        ("unknown", _) => return Some(head(query, 3, 0, false)),
        ("many", true) => (0..500)
            .map(|n| if n == 300 { local } else { Ipv4Addr::new(127, 9, (n >> 8) as u8, n as u8) })
            .collect(),
        ("moves", true) if has_moved => vec![Ipv4Addr::new(127, 0, 0, 2)],
        ("moves" | "hole", true) => vec![local],
        ("hole", false) => {
            let mut reply = head(query, 0, 1, false);
            reply.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 0, 0, 16]);
            reply.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            return Some(reply);
        }
        _ => Vec::new(),
    };
    if is_datagram && addresses.len() > 20 {
        return Some(head(query, 0, 0, true));
    }
    let mut reply = head(query, 0, addresses.len(), false);
    for address in addresses {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

fn over_tcp(mut stream: TcpStream, has_moved: &AtomicBool) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(reply) = answer(&query, false, has_moved.load(Ordering::SeqCst)) else {
            return Ok(());
        };
        stream.write_all(&u16::try_from(reply.len()).unwrap().to_be_bytes())?;
        stream.write_all(&reply)?;
    }
}

/// Answers at the usual port, as long as this process lives.
fn resolver(has_moved: &'static AtomicBool) {
    let datagrams = UdpSocket::bind("127.0.0.1:53").unwrap();
    thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((length, peer)) = datagrams.recv_from(&mut query) {
            let has_moved = has_moved.load(Ordering::SeqCst);
            if let Some(reply) = answer(&query[..length], true, has_moved) {
                let _ = datagrams.send_to(&reply, peer);
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:53").unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(|| over_tcp(stream, has_moved));
        }
    });
}

/// Hands connections at `address` on to `server`.
fn forward(address: (Ipv4Addr, u16), server: std::net::SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(server) else { continue };
            for (mut from, mut to) in
                [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
            {
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
        }
    });
}

/// R58, O04
#[test]
fn whatever_a_resolver_answers_a_registry_is_reached_or_unreachable_within_the_deadline() {
    static HAS_MOVED: AtomicBool = AtomicBool::new(false);
    if std::env::var_os(INSIDE).is_none() {
        return again_in_a_network_of_its_own(
            "resolver::whatever_a_resolver_answers_a_registry_is_reached_or_unreachable_within_the_deadline",
        );
    }
    resolver(&HAS_MOVED);
    let mut server = Hostile::start();
    let content = put_small(&server, "net").0;
    let port = server.addr().port();
    let host = |name: &str| format!("{name}.test:{port}");
    let names = ["many", "hole", "moves", "unknown", "broken", "refused", "empty", "silent"];
    let hosts: Vec<String> = names.iter().map(|name| host(name)).collect();
    let options = hosts.iter().fold(Options::new(), |o, host| o.args(["--plain-http", host]));
    let options = options.args(["--deadline", DEADLINE, "--tag-ttl", "1s"]);
    let Some(mount) = Mount::start(&hosts, options) else { return };
    let bed = Bed { mount };
    let file = |name: &str| bed.path(&format!("{}/net:1.0.0", host(name))).join("main.tf");
    for name in ["many", "hole", "moves"] {
        assert!(
            fs::read(file(name)).is_ok_and(|read| read == content),
            "{name}: {}",
            bed.mount.log()
        );
    }
    for name in ["unknown", "broken", "refused", "empty", "silent"] {
        let failed = errno_of_reading(&bed.mount.join(format!("{}/net:1.0.0/main.tf", host(name))));
        assert!(matches!(failed, Some(Errno::HOSTUNREACH | Errno::TIMEDOUT)), "{name}: {failed:?}");
        bed.reported(&host(name), &[]);
    }
    // The registry goes to another address while it is mounted.
    let elsewhere = Hostile::start();
    let other = noise(77, 900);
    elsewhere.publish("net", "2.0.0", &module(&other));
    server.stop();
    forward((Ipv4Addr::new(127, 0, 0, 2), port), elsewhere.addr());
    HAS_MOVED.store(true, Ordering::SeqCst);
    let moved = bed.mount.join(format!("{}/net:2.0.0/main.tf", host("moves")));
    let found = wait_until(PATIENCE, || fs::read(&moved).is_ok_and(|read| read == other));
    assert!(found, "the registry's new address is not found: {}", bed.mount.log());
}

fn again_in_a_network_of_its_own(name: &str) {
    let skipped = |why: &str| support::skip(&format!("no network of its own: {why}"));
    if !rustix::process::geteuid().is_root() {
        return skipped("only root makes one");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1\n").unwrap();
    fs::write(dir.path().join("nsswitch.conf"), "hosts: dns\n").unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--propagation", "private", "sh", "-c", MAKE, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null());
    let output = finish(command);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || said.starts_with("unshare: ") {
        return skipped(said.trim_end());
    }
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
}
