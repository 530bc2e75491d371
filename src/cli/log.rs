//! The log. Its lines go through a bounded queue to a thread that writes them: a full disk, a closed pipe or a slow
//! terminal costs lines, never a wait and never an error in who logs.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::LogFormat;

/// How many lines may wait to be written.
const QUEUE: usize = 1024;
/// How long the end of the program waits for lines that are not written yet.
const LAST_WORDS: Duration = Duration::from_millis(200);

enum Message {
    Line(Vec<u8>),
    Flushed(SyncSender<()>),
}

/// The way to the writing thread. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Starts the writing thread.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Log> {
        let (queue, lines) = mpsc::sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let losses = Arc::clone(&lost);
        thread::Builder::new().name("log".into()).spawn(move || write_lines(&lines, out, &losses))?;
        Ok(Log { queue, lost })
    }

    /// Makes this the destination of all tracing events of the process. Libraries are heard from their warnings on at
    /// most: what they say below that can hold credentials. With `-vv` every request of the kernel is a line: its kind,
    /// its inode and names, never content.
    pub fn install(&self, format: LogFormat, verbose: u8) {
        let ours = match verbose {
            0 => LevelFilter::INFO,
            1 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        let requests = if verbose < 2 { LevelFilter::ERROR } else { LevelFilter::DEBUG };
        let filter =
            Targets::new().with_default(LevelFilter::WARN).with_target("tofufs", ours).with_target("fuser", requests);
        let registry = tracing_subscriber::registry().with(filter);
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_writer(self.clone());
        // A second subscriber in one process can only come from a test's own; it then stays.
        let _ = match format {
            LogFormat::Text => registry.with(lines).try_init(),
            LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        };
    }

    /// Waits a short time for what was logged to be written.
    pub fn flush(&self) {
        let (flushed, done) = mpsc::sync_channel(1);
        if self.queue.try_send(Message::Flushed(flushed)).is_ok() {
            let _ = done.recv_timeout(LAST_WORDS);
        }
    }
}

fn write_lines(lines: &Receiver<Message>, mut out: impl Write, lost: &AtomicU64) {
    for message in lines {
        let written = match &message {
            Message::Line(line) => out.write_all(line).inspect_err(|_| {
                lost.fetch_add(1, Ordering::Relaxed);
            }),
            Message::Flushed(_) => out.flush(),
        };
        let gone = if written.is_ok() { lost.swap(0, Ordering::Relaxed) } else { 0 };
        if gone > 0 && writeln!(out, "({gone} lines of the log were lost)").is_err() {
            lost.fetch_add(gone, Ordering::Relaxed);
        }
        if let Message::Flushed(done) = message {
            let _ = done.try_send(());
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { log: self.clone(), bytes: Vec::with_capacity(256) }
    }
}

/// One line of the log, queued when it is complete.
pub struct Line {
    log: Log,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if !line.is_empty() && self.log.queue.try_send(Message::Line(line)).is_err() {
            self.log.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Opens a log file for appending; only its owner may read a new one.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Fails as long as it is told to.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            if disk.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say(log: &Log, line: &str) {
        log.make_writer().write_all(line.as_bytes()).unwrap();
    }

    // O38
    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let disk = Disk::default();
        let log = Log::to(disk.clone()).unwrap();
        disk.0.lock().unwrap().0 = true;
        say(&log, "one\n");
        while log.lost.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        disk.0.lock().unwrap().0 = false;
        say(&log, "two\n");
        while log.lost.load(Ordering::Relaxed) != 0 {
            thread::yield_now();
        }
        drop(log);
        let text = || String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        while !text().ends_with("lost)\n") {
            thread::yield_now();
        }
        assert_eq!(text(), "two\n(1 lines of the log were lost)\n");
    }

    // O38
    #[test]
    fn a_writer_that_never_returns_does_not_stop_who_logs() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = mpsc::channel();
        let log = Log::to(Stuck(stuck)).unwrap();
        for _ in 0..3 * QUEUE {
            say(&log, "line\n");
        }
        assert!(log.lost.load(Ordering::Relaxed) >= QUEUE as u64);
        drop(release);
    }
}
