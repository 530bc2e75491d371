//! The log. Its lines go through a bounded queue to a thread that writes them: a full disk, a
//! closed pipe or a slow terminal costs lines, never a wait and never an error in who logs. Nor
//! does who reads a mount fill a disk with them: what is logged is bounded by a `Budget`, and a
//! file by its [`Rotation`].

mod budget;
mod file;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::LogFormat;
use budget::{Budget, LeftOutLines, SAID_AFTER};
pub use file::{LogFile, Rotation, open};

/// How many lines may wait to be written.
const QUEUE: usize = 1024;
/// How long the end of the program waits for lines that are not written yet.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How much is shown of a line that was left out, in characters.
const EXAMPLE: usize = 200;

enum Message {
    Line(Vec<u8>, Option<Identifier>),
    Flushed(SyncSender<()>),
    /// Something else is to be looked at.
    Nudge,
}

/// Where lines go.
pub trait Sink: Write + Send + 'static {
    /// Makes room for a line of so many bytes.
    fn make_room(&mut self, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    /// Goes on in the file that has the log's name now.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for io::Stderr {}

impl Sink for LogFile {
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        LogFile::make_room(self, bytes)
    }

    fn reopen(&mut self) -> io::Result<()> {
        LogFile::reopen(self)
    }
}

/// What the writing thread does.
type WritingThread = Box<dyn FnOnce() + Send>;

/// The way to the writing thread. Cheap to clone.
#[derive(Clone)]
pub struct LogWriter {
    /// Until the thread is started.
    writing: Arc<Mutex<Option<WritingThread>>>,
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    /// Whether the file is to be opened again.
    reopen: Arc<AtomicBool>,
    format: LogFormat,
}

impl LogWriter {
    /// A log whose lines wait until the writing thread is started.
    pub fn to(out: impl Sink, format: LogFormat) -> LogWriter {
        let (queue, lines) = mpsc::sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let reopen = Arc::new(AtomicBool::new(false));
        let budget = Budget::new(Instant::now());
        let pen = Pen { out, format, lost: Arc::clone(&lost), reopen: Arc::clone(&reopen), budget };
        let writing: WritingThread = Box::new(move || pen.write_all(&lines));
        let writing = Arc::new(Mutex::new(Some(writing)));
        LogWriter { writing, queue, lost, reopen, format }
    }

    /// Starts the writing thread, if that was not done.
    pub fn start(&self) -> io::Result<()> {
        match self.writing.lock().take() {
            None => Ok(()),
            Some(writing) => thread::Builder::new().name("log".into()).spawn(writing).map(drop),
        }
    }

    /// Makes this the destination of all tracing events of the process. Libraries are heard from
    /// their warnings on at most: what they say below that can hold credentials. With `-vv` every
    /// request of the kernel is a line: its kind, its inode and names, never content.
    pub fn install(&self, verbose: u8) {
        let ours = match verbose {
            0 => LevelFilter::INFO,
            1 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        let requests = if verbose < 2 { LevelFilter::ERROR } else { LevelFilter::DEBUG };
        let filter = Targets::new()
            .with_default(LevelFilter::WARN)
            .with_target("tofufs", ours)
            .with_target("fuser", requests);
        let registry = tracing_subscriber::registry().with(filter);
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_writer(self.clone());
        // A second subscriber in one process can only come from a test's own; it then stays.
        let _ = match self.format {
            LogFormat::Text => registry.with(lines).try_init(),
            LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        };
    }

    /// Has a log in a file go on in the file that has its name now.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // Where the queue is full, the thread has something else to wake up for.
        let _ = self.queue.try_send(Message::Nudge);
    }

    /// Waits a short time for what was logged to be written.
    pub fn flush(&self) {
        // Without the thread nothing comes, and the wait ends as it does for a log that is stuck.
        let _ = self.start();
        let (flushed, done) = mpsc::sync_channel(1);
        if self.queue.try_send(Message::Flushed(flushed)).is_ok() {
            let _ = done.recv_timeout(LAST_WORDS);
        }
    }
}

/// What the writing thread holds.
struct Pen<S> {
    out: S,
    format: LogFormat,
    /// Lines that found the queue full, or could not be written.
    lost: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
    budget: Budget,
}

impl<S: Sink> Pen<S> {
    /// Writes until nobody can log any more.
    fn write_all(mut self, messages: &Receiver<Message>) {
        loop {
            let message = if self.budget.owes() {
                messages.recv_timeout(SAID_AFTER)
            } else {
                messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            if self.reopen.swap(false, Ordering::Acquire) {
                self.reopen();
            }
            match message {
                Ok(Message::Line(line, kind)) => self.take(&line, kind),
                Ok(Message::Nudge) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Flushed(done)) => {
                    self.say_what_was_left_out(true);
                    let _ = self.out.flush();
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Disconnected) => return self.say_what_was_left_out(true),
            }
            self.say_what_was_left_out(false);
        }
    }

    /// Writes a line, unless there were too many of its kind.
    fn take(&mut self, line: &[u8], kind: Option<Identifier>) {
        let now = Instant::now();
        if kind.is_none_or(|kind| self.budget.allows(kind, line, now)) {
            self.line(line);
        }
    }

    /// Writes a line; after it, how many were lost before.
    fn line(&mut self, line: &[u8]) {
        if let Err(e) = self.out.make_room(line.len()) {
            self.remark(&format!("the log cannot be rotated, and goes on in the same file: {e}"));
        }
        if self.out.write_all(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let gone = self.lost.swap(0, Ordering::Relaxed);
        if gone > 0 && !self.remark(&format!("{gone} lines of the log were lost")) {
            self.lost.fetch_add(gone, Ordering::Relaxed);
        }
    }

    fn reopen(&mut self) {
        if let Err(e) = self.out.reopen() {
            self.remark(&format!(
                "the log cannot be opened again, and goes on in the file that it had: {e}"
            ));
        }
    }

    fn say_what_was_left_out(&mut self, is_the_end: bool) {
        for LeftOutLines { count, first, .. } in self.budget.take_due(Instant::now(), is_the_end) {
            let example = message_of(&first, self.format);
            self.remark(&format!(
                "{count} lines were left out of the log, since there were too many such as: \
                 {example}"
            ));
        }
    }

    /// A sentence about the log itself; whether it could be written.
    fn remark(&mut self, sentence: &str) -> bool {
        let mut time = String::new();
        // Writing to a String cannot fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let line = match self.format {
            LogFormat::Text => format!("{time}  WARN {sentence}\n"),
            LogFormat::Json => {
                let line =
                    serde_json::json!({"timestamp": time, "level": "WARN", "message": sentence});
                format!("{line}\n")
            }
        };
        self.out.write_all(line.as_bytes()).is_ok()
    }
}

/// The sentence of a line, cut to what is worth repeating.
fn message_of(line: &[u8], format: LogFormat) -> String {
    let text = String::from_utf8_lossy(line);
    let message = match format {
        // The time and the level come first.
        LogFormat::Text => text.split_whitespace().skip(2).collect::<Vec<_>>().join(" "),
        LogFormat::Json => {
            let line: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            line["message"].as_str().unwrap_or_default().to_owned()
        }
    };
    match message.char_indices().nth(EXAMPLE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { log: self.clone(), bytes: Vec::with_capacity(256), kind: None }
    }

    /// What is logged for a person who asked for more than usual is not bounded.
    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line {
        let kind = (*about.level() <= Level::INFO).then(|| about.callsite());
        let mut line = self.make_writer();
        line.kind = kind;
        line
    }
}

/// One line of the log, queued when it is complete.
pub struct Line {
    log: LogWriter,
    bytes: Vec<u8>,
    /// The place in the program that says it, where what that says is bounded.
    kind: Option<Identifier>,
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
        if !line.is_empty()
            && self.log.queue.try_send(Message::Line(line, self.kind.take())).is_err()
        {
            self.log.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as long as it is told to.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock();
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

    impl Sink for Disk {}

    fn say(log: &LogWriter, line: &str) {
        log.make_writer().write_all(line.as_bytes()).unwrap();
    }

    // O38
    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let disk = Disk::default();
        let log = LogWriter::to(disk.clone(), LogFormat::Text);
        log.start().unwrap();
        disk.0.lock().0 = true;
        say(&log, "one\n");
        while log.lost.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        disk.0.lock().0 = false;
        say(&log, "two\n");
        while log.lost.load(Ordering::Relaxed) != 0 {
            thread::yield_now();
        }
        drop(log);
        let text = || String::from_utf8(disk.0.lock().1.clone()).unwrap();
        while !text().ends_with("lost\n") {
            thread::yield_now();
        }
        let text = text();
        assert!(
            text.starts_with("two\n") && text.ends_with("  WARN 1 lines of the log were lost\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2);
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
        impl Sink for Stuck {}
        let (release, stuck) = mpsc::channel();
        let log = LogWriter::to(Stuck(stuck), LogFormat::Text);
        log.start().unwrap();
        for _ in 0..3 * QUEUE {
            say(&log, "line\n");
        }
        assert!(log.lost.load(Ordering::Relaxed) >= QUEUE as u64);
        drop(release);
    }

    #[test]
    fn the_sentence_of_a_line_is_found_in_both_forms_and_cut() {
        let text = b"2026-01-01T00:00:00.0Z  WARN net:1.0.0: it is refused (EBADMSG)\n";
        assert_eq!(message_of(text, LogFormat::Text), "net:1.0.0: it is refused (EBADMSG)");
        let json =
            br#"{"timestamp":"2026-01-01T00:00:00.0Z","level":"WARN","message":"it is refused"}"#;
        assert_eq!(message_of(json, LogFormat::Json), "it is refused");
        let long = format!("time WARN {}", "\u{e9}".repeat(300));
        assert_eq!(
            message_of(long.as_bytes(), LogFormat::Text),
            format!("{}…", "\u{e9}".repeat(EXAMPLE))
        );
    }
}
