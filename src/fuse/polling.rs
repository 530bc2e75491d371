//! Waiting for the kernel's next request without sleeping, while requests follow each other closely.
//!
//! Most of a request that is answered from memory is not the answer but the sleep before it: the kernel wakes this
//! process on another core, which on a virtual machine costs several times the work (docs/performance.md, `grep -r`).
//! So a thread that has answered one of a series looks for the next one for a moment before it goes to sleep in read(2).
//!
//! INVARIANT: it is one thread at a time, for at most [`WINDOW`] after an answer, only within a series (the request came
//! less than [`SERIES`] after the answer before it), ever more rarely while nothing comes, and only while the machine has a core
//! for this thread and one for who asks: a core that is looked away from others costs them more than is won.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

/// How long the next request is looked for.
const WINDOW: Duration = Duration::from_micros(50);
/// Requests that come within this time of the last answer are a series. It is longer than [`WINDOW`] by the time that a
/// sleeping thread takes to wake up.
const SERIES: Duration = Duration::from_micros(120);
/// For how long it counts how many threads of the machine want to run.
const LOAD: Duration = Duration::from_millis(4);
/// After so many windows in a row in which nothing came, every 2⁶th answer of a series is followed by one.
const RAREST: u32 = 6;

/// When the last answer was given, and how often looking for the next request was in vain.
#[derive(Debug)]
pub struct Polling {
    watched: OnceLock<Watched>,
    started: Instant,
    /// Nanoseconds since `started`.
    answered: AtomicU64,
    polling: AtomicBool,
    /// Nanoseconds since `started`.
    load_seen: AtomicU64,
    has_room: AtomicBool,
    misses: AtomicU32,
    /// Answers that are not followed by a window, because of misses.
    passes: AtomicU32,
}

/// What is looked at.
#[derive(Debug)]
struct Watched {
    device: OwnedFd,
    /// `/proc/loadavg`.
    load: OwnedFd,
    /// Those that this process may use.
    cores: usize,
}

/// One request between its arrival and its answer; dropped when it was answered or handed on.
#[derive(Debug)]
pub(super) struct Answering<'a> {
    polling: &'a Polling,
    /// Set if the next request is to be looked for.
    watched: Option<&'a Watched>,
}

impl Default for Polling {
    fn default() -> Self {
        Polling {
            watched: OnceLock::new(),
            started: Instant::now(),
            answered: AtomicU64::new(0),
            polling: AtomicBool::new(false),
            load_seen: AtomicU64::new(0),
            has_room: AtomicBool::new(false),
            misses: AtomicU32::new(0),
            passes: AtomicU32::new(0),
        }
    }
}

impl Polling {
    /// Begins to look for requests at `device`. Before this threads sleep at once.
    pub fn watch(&self, device: BorrowedFd<'_>) -> io::Result<()> {
        let load = rustix::fs::open("/proc/loadavg", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let cores = std::thread::available_parallelism()?.get();
        // A second call would be for the same connection.
        let _ = self.watched.set(Watched { device: device.try_clone_to_owned()?, load, cores });
        Ok(())
    }

    /// A request has arrived, and who asked waits for its answer.
    pub(super) fn answering(&self) -> Answering<'_> {
        let now = self.now();
        if self.is_series(now) && now >= self.load_seen.load(Relaxed) + nanos(LOAD) {
            self.load_seen.store(now, Relaxed);
            // This thread is counted, who asks is not: there has to be a core for both.
            let running = self.watched.get().and_then(Watched::running);
            self.has_room.store(running.is_some_and(|(running, cores)| running < cores), Relaxed);
        }
        self.told()
    }

    /// A request has arrived whose sender does not wait for an answer.
    pub(super) fn told(&self) -> Answering<'_> {
        let looks = self.is_series(self.now()) && self.has_room.load(Relaxed);
        Answering { polling: self, watched: self.watched.get().filter(|_| looks) }
    }

    fn is_series(&self, now: u64) -> bool {
        now < self.answered.load(Relaxed) + nanos(SERIES)
    }

    fn now(&self) -> u64 {
        nanos(self.started.elapsed())
    }

    /// Whether the answer that was just given is followed by a window.
    fn is_due(&self) -> bool {
        // Threads may get into each other's way here: the count is a measure, nothing hangs on it.
        let passes = self.passes.load(Relaxed);
        self.passes.store(passes.saturating_sub(1), Relaxed);
        passes == 0
    }

    fn looked(&self, came: bool) {
        let misses = if came { 0 } else { (self.misses.load(Relaxed) + 1).min(RAREST) };
        self.misses.store(misses, Relaxed);
        self.passes.store((1 << misses) - 1, Relaxed);
    }

    fn look(&self, device: &OwnedFd) {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let until = self.now() + nanos(WINDOW);
        loop {
            // An error is one of the device, which reading it meets as well.
            let ready = poll(&mut [PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN)], Some(&AT_ONCE));
            if ready != Ok(0) {
                return self.looked(true);
            }
            if self.now() >= until {
                return self.looked(false);
            }
            // Whoever else wants this core goes first: it may be who asks.
            std::thread::yield_now();
        }
    }
}

impl Watched {
    /// How many threads run or want to on the whole machine (the fourth field of `/proc/loadavg`, proc(5)), and how many
    /// cores there are.
    fn running(&self) -> Option<(usize, usize)> {
        let mut text = [0; 64];
        let length = rustix::io::pread(&self.load, &mut text, 0).ok()?;
        let field = str::from_utf8(&text[..length]).ok()?.split(' ').nth(3)?;
        Some((field.split('/').next()?.parse().ok()?, self.cores))
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        let polling = self.polling;
        if let Some(watched) = self.watched
            && polling.is_due()
            && !polling.polling.swap(true, Relaxed)
        {
            polling.look(&watched.device);
            polling.polling.store(false, Relaxed);
        }
        polling.answered.store(polling.now(), Relaxed);
    }
}

/// Bounded by the life of the process: 584 years.
fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that watches the reading end of a pipe, as on a machine with a core for each of its threads.
    fn watching(device: impl AsFd) -> Polling {
        let polling = Polling::default();
        polling.watch(device.as_fd()).unwrap();
        polling.watched.get().unwrap().running().expect("a number");
        polling.load_seen.store(u64::MAX / 2, Relaxed);
        polling.has_room.store(true, Relaxed);
        polling
    }

    /// How many of `answers` in a series are followed by a window.
    fn windows(polling: &Polling, answers: usize) -> usize {
        (0..answers).filter(|_| polling.is_due()).inspect(|_| polling.looked(false)).count()
    }

    #[test]
    fn what_comes_ends_the_window_and_nothing_makes_it_rarer() {
        let (reader, writer) = io::pipe().unwrap();
        let polling = watching(&reader);
        polling.look(&polling.watched.get().unwrap().device);
        assert_eq!((polling.misses.load(Relaxed), polling.passes.load(Relaxed)), (1, 1));
        rustix::io::write(&writer, b"a request").unwrap();
        polling.look(&polling.watched.get().unwrap().device);
        assert_eq!((polling.misses.load(Relaxed), polling.passes.load(Relaxed)), (0, 0));
    }

    #[test]
    fn windows_in_vain_are_ever_rarer_and_one_hit_brings_them_back() {
        let polling = Polling::default();
        assert_eq!(windows(&polling, 1000), 6 + 14, "after 1, 3, 7, 15, 31, 63 answers and each 64th from then on");
        polling.looked(true);
        assert!(polling.is_due());
        assert!(polling.is_due());
    }

    #[test]
    fn the_next_request_is_looked_for_in_a_series_with_cores_to_spare_only() {
        let (reader, _writer) = io::pipe().unwrap();
        let polling = watching(&reader);
        let long_ago = polling.now();
        polling.answered.store(long_ago, Relaxed);
        while polling.now() <= long_ago + nanos(SERIES) {
            std::hint::spin_loop();
        }
        assert!(polling.answering().watched.is_none());
        polling.answered.store(u64::MAX / 2, Relaxed);
        assert!(polling.answering().watched.is_some());
        polling.answered.store(u64::MAX / 2, Relaxed);
        polling.has_room.store(false, Relaxed);
        assert!(polling.answering().watched.is_none(), "others want the cores");
        assert!(Polling::default().answering().watched.is_none(), "nothing is watched");
    }
}
