//! A registry that speaks HTTP/2 and floods its client (R55).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use super::support::tls::Tls;
use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// How much a flood sends on one connection at most, in bytes. All of them together are many times
/// what the client may keep.
const FLOOD: usize = 32 << 20;
/// How much the process may grow by a flood, in KiB.
const GROWTH: u64 = 48 << 10;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of `:status: 200` and headers whose names and values are new each time.
fn headers(count: usize) -> Vec<u8> {
    let mut block = vec![0x88];
    for n in 0..count {
        let (name, value) = (format!("x-{n:06}"), "v".repeat(100));
        block.extend([0x00, name.len() as u8]);
        block.extend(name.bytes());
        block.push(value.len() as u8);
        block.extend(value.bytes());
    }
    block
}

/// A header block that has one long header put into the table, and names it again and again.
fn bomb() -> Vec<u8> {
    let value = "v".repeat(3000);
    let mut block = vec![0x88, 0x40, 1, b'x', 0x7f];
    // 3000 in HPACK's variable integers: 127 and the rest in groups of seven bits.
    block.extend([(2873 % 128) as u8 | 0x80, (2873 / 128) as u8]);
    block.extend(value.bytes());
    block.extend(std::iter::repeat_n(0xbe, 12_000));
    block
}

/// What is sent to the first request of a connection: a beginning, and what follows it without end.
struct Answer {
    name: &'static str,
    first: Vec<u8>,
    again: Vec<u8>,
}

fn answers() -> Vec<Answer> {
    let answer = |name, first, again| Answer { name, first, again };
    let head = || frame(HEADERS, 4, 1, &[0x88]);
    let part = frame(DATA, 0, 1, &[b'x'; 100]);
    let going = frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    vec![
        answer("settings", Vec::new(), frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        answer("pings", Vec::new(), frame(PING, 0, 0, &[7; 8])),
        answer("resets", Vec::new(), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        answer(
            "continuations",
            frame(HEADERS, 0, 1, &headers(1)),
            frame(CONTINUATION, 0, 1, &headers(100)[1..]),
        ),
        answer("empty continuations", frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 1, &[])),
        answer("empty data", head(), frame(DATA, 0, 1, &[])),
        answer("bomb", frame(HEADERS, 4, 1, &bomb()), Vec::new()),
        answer("goaway in a body", [head(), part, going].concat(), Vec::new()),
        answer("pushes", Vec::new(), frame(5, 4, 1, &[0, 0, 0, 2, 0x82])),
    ]
}

/// Takes what the client says up to its first request, then answers.
fn serve(mut stream: impl Read + Write, answer: &Answer, sent: &AtomicUsize) -> io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    assert_eq!(preface, PREFACE, "the client speaks HTTP/2");
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length])?;
        if head[3] == HEADERS {
            break;
        }
    }
    stream.write_all(&answer.first)?;
    if answer.again.is_empty() {
        stream.flush()?;
        thread::sleep(Duration::from_millis(200));
        return Ok(());
    }
    let many = answer.again.repeat((64 << 10) / answer.again.len() + 1);
    let mut flooded = 0;
    while flooded < FLOOD {
        stream.write_all(&many)?;
        flooded += many.len();
        sent.fetch_add(many.len(), Ordering::Relaxed);
    }
    Ok(())
}

fn flooding(tls: &Tls, answer: Answer, sent: &Arc<AtomicUsize>) -> String {
    let mut config = tls.server();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (config, sent) = (Arc::new(config), sent.clone());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, answer) = (client.unwrap(), answer.clone());
            let session = ServerConnection::new(config.clone()).unwrap();
            let sent = sent.clone();
            // The client ends it as soon as it has seen enough.
            thread::spawn(move || serve(StreamOwned::new(session, client), &answer, &sent).ok());
        }
    });
    host
}

/// The most that a process has had in memory, in KiB.
fn peak(bed: &Bed) -> u64 {
    let pid = bed.mount.pid().as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// R55
#[test]
fn floods_over_http_2_end_in_an_error_and_cost_no_memory() {
    let tls = Tls::new();
    let dir = tempfile::tempdir().unwrap();
    let [ca, ..] = tls.write(dir.path());
    let sound = Hostile::start_tls(Arc::new(tls.server()));
    let (content, _) = put_small(&sound, "net");
    let sent = Arc::new(AtomicUsize::new(0));
    let floods: Vec<_> =
        answers().into_iter().map(|answer| (answer.name, flooding(&tls, answer, &sent))).collect();
    let hosts: Vec<_> = floods.iter().map(|(_, host)| host.clone()).chain([sound.host()]).collect();
    let ca = ca.to_str().unwrap();
    let options = Options::new().args(["--deadline", "3s", "--ca-file", ca]);
    let Some(mount) = Mount::start(&hosts, options) else { return };
    let bed = Bed { mount };
    assert_eq!(bed.main_tf(&format!("{}/net:1.0.0", sound.host())), content);
    let before = peak(&bed);
    thread::scope(|scope| {
        for (name, host) in &floods {
            let path = bed.mount.join(format!("{host}/net/1.0.0"));
            scope.spawn(move || {
                let failed = errno_of(fs::read_dir(path).err());
                let expected = [Errno::PROTO, Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::IO];
                assert!(
                    failed.is_some_and(|errno| expected.contains(&errno)),
                    "{name}: {failed:?}"
                );
            });
        }
    });
    let grown = peak(&bed).saturating_sub(before);
    let sent = sent.load(Ordering::Relaxed) >> 10;
    println!("the process grew by {grown} KiB of {sent} KiB that were sent");
    assert!(sent > 2 * GROWTH as usize && grown < GROWTH, "by {grown} KiB of {sent} KiB");
    bed.refresh(sound.host());
    assert_eq!(bed.main_tf(&format!("{}/net:1.0.0", sound.host())), content);
}
