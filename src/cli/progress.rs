//! How far a long command is, on standard error: a bar on a terminal, else a plain line at each tenth. And whether
//! somebody asked it to stop.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::lifecycle::Signals;
use super::quantity::Size;

/// How often it is looked whether somebody asked to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How far a command is.
pub struct Progress {
    /// What is being done: `checked`.
    verb: &'static str,
    bar: Option<ProgressBar>,
    tenth: u64,
    stop: Arc<AtomicBool>,
}

impl Progress {
    /// Nothing is shown before the first step. From now on SIGINT, SIGTERM and SIGHUP stop the command after the step
    /// at which it is, instead of ending the process.
    pub fn new(verb: &'static str) -> io::Result<Progress> {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
            let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.with_message(verb)
        });
        Ok(Progress { verb, bar, tenth: 0, stop: stopped_by_signals()? })
    }

    /// Shows that `done` of `total` bytes are done; breaks if the command was asked to stop.
    pub fn step(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            None => self.line(done, total),
        }
        if self.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn line(&mut self, done: u64, total: u64) {
        let tenth = tenth(done, total);
        if tenth > self.tenth {
            self.tenth = tenth;
            // Nobody listening is no reason to stop.
            let _ = writeln!(io::stderr(), "{} {} of {}", self.verb, Size(done), Size(total));
        }
    }

    /// Whether the command was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A progress that tasks tell.
pub struct Told(Mutex<Progress>);

impl Told {
    /// As [`Progress::new`].
    pub fn new(verb: &'static str) -> io::Result<Told> {
        Ok(Told(Mutex::new(Progress::new(verb)?)))
    }

    /// Shows that `done` of `total` bytes are done.
    pub fn step(&self, done: u64, total: u64) {
        // Whether to stop is looked at elsewhere, since a task may wait without progress.
        let _ = self.held().step(done, total);
    }

    /// Returns when somebody asked to stop.
    pub async fn stopped(&self) {
        let mut look = tokio::time::interval(LOOK);
        while !self.held().is_stopped() {
            look.tick().await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last tenth of `total` that was reached.
fn tenth(done: u64, total: u64) -> u64 {
    u64::try_from(u128::from(done) * 10 / u128::from(total.max(1))).unwrap_or(u64::MAX)
}

fn stopped_by_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::catch() })?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(signals.next());
        stopped.store(true, Ordering::Relaxed);
    })?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_reached_when_all_of_it_is_done() {
        for (done, total, wanted) in [(0, 10, 0), (1, 10, 1), (19, 100, 1), (20, 100, 2), (7, 7, 10), (0, 0, 0)] {
            assert_eq!(tenth(done, total), wanted, "{done} of {total}");
        }
        assert_eq!(tenth(u64::MAX, u64::MAX), 10);
    }
}
