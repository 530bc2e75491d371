//! A registry that is farther away: a relay on 127.0.0.1 that holds back each piece of a request.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The relay. Takes no more connections when it is dropped.
pub struct Delay {
    host: String,
    stopped: Arc<AtomicBool>,
}

impl Delay {
    /// A relay to `upstream` (`127.0.0.1:PORT`), by `time` slower.
    pub fn start(upstream: &str, time: Duration) -> Delay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("a bound socket").to_string();
        let stopped = Arc::new(AtomicBool::new(false));
        let (upstream, is_stopped) = (upstream.to_owned(), stopped.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(near), Ok(far)) = (connection, TcpStream::connect(&upstream)) else {
                    continue;
                };
                for stream in [&near, &far] {
                    stream.set_nodelay(true).expect("a connection");
                }
                let back = [&far, &near].map(|stream| stream.try_clone().expect("a descriptor"));
                std::thread::spawn(move || relay(near, far, time));
                let [far, near] = back;
                std::thread::spawn(move || relay(far, near, Duration::ZERO));
            }
        });
        Delay { host, stopped }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.host.clone()
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(&self.host));
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, time: Duration) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        std::thread::sleep(time);
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
