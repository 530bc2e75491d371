//! How far a long command is, on standard error: a bar on a terminal, else one line when it is
//! done. And whether somebody asked it to stop.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::lifecycle::Signals;
use super::output::CommandError;
use super::quantity::Size;

/// How often it is looked whether somebody asked to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Work that takes no longer is not worth a line.
const SOON: Duration = Duration::from_millis(500);

/// How far a command is.
pub struct ProgressLine {
    /// What is being done: `checked`.
    verb: &'static str,
    shown: Shown,
    began: Instant,
    /// The number of the signal that asked the command to stop; 0 before.
    stop: Arc<AtomicU8>,
}

/// Where it is shown.
enum Shown {
    /// To somebody who watches; the bar comes when the work takes its time.
    Terminal(Option<ProgressBar>),
    /// In a file or a pipe: how far it came.
    Line { done: u64, total: u64 },
}

impl ProgressLine {
    /// Nothing is shown before the first step. From now on SIGINT, SIGTERM and SIGHUP stop the
    /// command after the step at which it is, instead of ending the process.
    pub fn new(verb: &'static str) -> io::Result<ProgressLine> {
        let shown = if io::stderr().is_terminal() {
            Shown::Terminal(None)
        } else {
            Shown::Line { done: 0, total: 0 }
        };
        Ok(ProgressLine { verb, shown, began: Instant::now(), stop: stopped_by_signals()? })
    }

    /// Shows that `done` of `total` bytes are done; breaks if the command was asked to stop.
    pub fn step(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        // The last file may be larger than what was left to do.
        let total = total.max(done);
        let is_long = self.is_long();
        match &mut self.shown {
            Shown::Line { done: before, total: of } => (*before, *of) = (done, total),
            Shown::Terminal(bar) if bar.is_some() || is_long => {
                let bar = bar.get_or_insert_with(|| new_bar(self.verb));
                bar.set_length(total);
                bar.set_position(done);
            }
            Shown::Terminal(_) => {}
        }
        if self.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn is_long(&self) -> bool {
        self.began.elapsed() >= SOON
    }

    /// Whether the command was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped_by().is_some()
    }

    /// The number of the signal by which the command was asked to stop.
    pub fn stopped_by(&self) -> Option<u8> {
        Some(self.stop.load(Ordering::Relaxed)).filter(|signal| *signal > 0)
    }
}

fn new_bar(verb: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
    let bar =
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(verb)
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        match &self.shown {
            Shown::Terminal(bar) => bar.iter().for_each(ProgressBar::finish_and_clear),
            Shown::Line { done, total } if *total > 0 && self.is_long() => {
                // Nobody listening is no reason to stop.
                let _ = writeln!(io::stderr(), "{} {} of {}", self.verb, Size(*done), Size(*total));
            }
            Shown::Line { .. } => {}
        }
    }
}

/// A progress that tasks tell.
pub struct SharedProgress(Mutex<ProgressLine>);

impl SharedProgress {
    /// As [`ProgressLine::new`].
    pub fn new(verb: &'static str) -> io::Result<SharedProgress> {
        Ok(SharedProgress(Mutex::new(ProgressLine::new(verb)?)))
    }

    /// Shows that `done` of `total` bytes are done.
    pub fn step(&self, done: u64, total: u64) {
        // Whether to stop is looked at elsewhere, since a task may wait without progress.
        let _ = self.0.lock().step(done, total);
    }

    /// Returns when somebody asked to stop.
    pub async fn stopped(&self) {
        let mut look = tokio::time::interval(LOOK);
        while !self.0.lock().is_stopped() {
            look.tick().await;
        }
    }

    /// An error as that of a command that was stopped, if this one was.
    pub fn ended(&self, error: CommandError) -> CommandError {
        error.stopped_by(self.0.lock().stopped_by())
    }
}

fn stopped_by_signals() -> io::Result<Arc<AtomicU8>> {
    let stop = Arc::new(AtomicU8::new(0));
    let stopped = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::catch() })?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let caught = runtime.block_on(signals.next());
        stopped.store(caught.number(), Ordering::Relaxed);
    })?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_done_than_there_is_to_do() {
        let mut progress = ProgressLine::new("freed").unwrap();
        assert!(progress.step(7, 5).is_continue());
        assert!(matches!(
            progress.shown,
            Shown::Line { done: 7, total: 7 } | Shown::Terminal(None)
        ));
        assert_eq!(progress.stopped_by(), None);
    }
}
