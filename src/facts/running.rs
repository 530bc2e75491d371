//! Downloads that are under way, and who waits for them: for people who ask why something takes
//! long.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::digest::Digest;

/// The shortest time over which a rate is taken.
const PACE: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// The thread on whose behalf the task runs.
    static CALLER: u32;
}

/// Runs `work` on behalf of the thread `caller`, which is told to be waiting where it waits for a
/// download.
pub fn on_behalf_of<W: Future>(caller: u32, work: W) -> impl Future<Output = W::Output> {
    CALLER.scope(caller, work)
}

/// A download that is under way.
#[derive(Clone, PartialEq, Debug)]
pub struct Download {
    /// The reference of the blob.
    pub subject: String,
    /// Bytes that came so far, with those of an earlier try that it goes on from.
    pub bytes: u64,
    /// Its size.
    pub size: u64,
    /// Bytes per second lately.
    pub rate: u64,
    /// The threads that wait for it.
    pub waiting: Vec<u32>,
}

/// How far a download was at some time.
#[derive(Clone, Copy)]
struct TransferMark {
    at: Instant,
    bytes: u64,
}

/// The progress of one transfer, which is under way until this is dropped.
pub(super) struct RunningTransfer {
    running: Arc<Running>,
    digest: Digest,
    subject: String,
    size: u64,
    bytes: AtomicU64,
    /// The last two marks, at least [`PACE`] apart.
    marks: Mutex<[TransferMark; 2]>,
}

impl RunningTransfer {
    /// The first `bytes` are there.
    pub(super) fn reached(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        let (at, mut marks) = (Instant::now(), self.marks.lock());
        if at.duration_since(marks[1].at) >= PACE {
            *marks = [marks[1], TransferMark { at, bytes }];
        }
    }

    fn rate(&self, now: Instant) -> u64 {
        let [earlier, _] = *self.marks.lock();
        let bytes = self.bytes.load(Ordering::Relaxed).saturating_sub(earlier.bytes);
        let seconds = now.duration_since(earlier.at).as_secs_f64();
        (bytes as f64 / seconds.max(0.001)) as u64
    }

    fn told(&self, waiting: &[(Digest, u32)]) -> Download {
        let mut waiting: Vec<u32> =
            waiting.iter().filter(|(of, _)| *of == self.digest).map(|(_, who)| *who).collect();
        waiting.sort_unstable();
        waiting.dedup();
        let bytes = self.bytes.load(Ordering::Relaxed);
        Download {
            subject: self.subject.clone(),
            bytes,
            size: self.size,
            rate: self.rate(Instant::now()),
            waiting,
        }
    }
}

/// All transfers of a mount, and who waits for which blob.
#[derive(Default)]
pub(super) struct Running {
    transfers: Mutex<Vec<Arc<RunningTransfer>>>,
    waiting: Mutex<Vec<(Digest, u32)>>,
}

/// A transfer among those that run. It is none any more when this is dropped.
pub(super) struct Entered(Arc<RunningTransfer>);

impl Entered {
    pub(super) fn transfer(&self) -> &Arc<RunningTransfer> {
        &self.0
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.running.transfers.lock().retain(|other| !Arc::ptr_eq(other, &self.0));
    }
}

impl Running {
    /// A transfer of `digest` begins behind its first `bytes`.
    pub(super) fn begin(
        self: &Arc<Self>,
        subject: String,
        digest: Digest,
        size: u64,
        bytes: u64,
    ) -> Entered {
        let marks = Mutex::new([TransferMark { at: Instant::now(), bytes }; 2]);
        let running = self.clone();
        let transfer = Arc::new(RunningTransfer {
            running,
            digest,
            subject,
            size,
            bytes: bytes.into(),
            marks,
        });
        self.transfers.lock().push(transfer.clone());
        Entered(transfer)
    }

    /// Waits for `work`, which needs the blob `digest`; who waits is known meanwhile.
    pub(super) async fn waited_for<W: Future>(&self, digest: Digest, work: W) -> W::Output {
        let Ok(caller) = CALLER.try_with(|caller| *caller) else { return work.await };
        let _waiter = Waiter::new(self, (digest, caller));
        work.await
    }

    /// What is under way now, in the order in which it began.
    pub(super) fn downloads(&self) -> Vec<Download> {
        let waiting = self.waiting.lock().clone();
        self.transfers.lock().iter().map(|transfer| transfer.told(&waiting)).collect()
    }
}

struct Waiter<'a> {
    running: &'a Running,
    who: (Digest, u32),
}

impl<'a> Waiter<'a> {
    fn new(running: &'a Running, who: (Digest, u32)) -> Waiter<'a> {
        running.waiting.lock().push(who);
        Waiter { running, who }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.running.waiting.lock();
        if let Some(at) = waiting.iter().position(|who| *who == self.who) {
            waiting.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_download_is_told_with_its_bytes_and_who_waits_for_it() {
        let running = Arc::new(Running::default());
        let (digest, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let entered = running.begin("r.example/a@x".to_owned(), digest, 100, 10);
        entered.transfer().reached(40);
        let look = async { running.downloads() };
        let seen = on_behalf_of(7, running.waited_for(digest, look)).await;
        assert_eq!(
            (seen.len(), seen[0].bytes, seen[0].size, &*seen[0].waiting),
            (1, 40, 100, &[7][..])
        );
        let seen = on_behalf_of(7, running.waited_for(other, async { running.downloads() })).await;
        assert!(seen[0].waiting.is_empty(), "it waits for something else");
        assert!(
            running.waited_for(digest, async { running.downloads() }).await[0].waiting.is_empty()
        );
        drop(entered);
        assert!(running.downloads().is_empty() && running.waiting.lock().is_empty());
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let running = Arc::new(Running::default());
        let entered = running.begin(String::new(), Digest::of(b""), 1 << 30, 1 << 20);
        let transfer = entered.transfer();
        let begun = transfer.marks.lock()[0].at;
        transfer.reached(3 << 20);
        assert_eq!(
            transfer.rate(begun + Duration::from_secs(2)),
            1 << 20,
            "what was there before is not counted"
        );
        assert_eq!(
            transfer.rate(begun + Duration::from_secs(200)),
            10_485,
            "one that stands still slows down"
        );
    }
}
