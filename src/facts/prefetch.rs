//! Unpacking ahead: while an archive still arrives, its large members are inflated into files that
//! are nobody's, so that opening one of them takes as long as the slower of download and inflating,
//! not as both.
//!
//! ```text
//! fetch   Fill ── write… ─────────────── digest matches ─┐
//!           │ follows                                    ├── index ── settle ─┐
//! ahead     └─ Tail ─ local header ─ inflate ─ Scratch ──┴────────────────────┴─ agrees? ── the member's key
//!                                                                              └ no: gone
//! ```
//!
//! INVARIANT: what was inflated becomes an object only after the archive was published under its
//! digest, each chunk that was read for it has the checksum of the published one, and the strict
//! index names a file of the same offset, lengths, method and CRC. All else is thrown away without
//! a word, and unpacking when it is opened does the work. So nothing depends on this but time.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::package::{SMALL_MAX, VerifiedPackage};
use super::unpack::{Piped, piped};
use crate::archive::{self, Class, Entries, Limits, Streamed, Upcoming};
use crate::digest::Digest;
use crate::failure::Refusal;
use crate::members::FileNo;
use crate::store::{Begin, Fill, Key, Object, Scratch, Stopper, Store, Tail};

/// Which part of the cache's limit one package may take before it is known that anybody reads it:
/// one of so many.
const PART: u64 = 4;
/// How many members of unknown size may turn out to be small before it is given up: a package of
/// many files is read here and there, if at all.
const BLIND_MAX: usize = 256;

/// When the large members of a package are unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unpacking {
    /// When they are opened.
    WhenOpened,
    /// While the package is fetched, if it has to be: it is entered, and will be read.
    Ahead,
}

/// What happens beside the fetch of a blob.
#[derive(Clone)]
pub(super) enum BesideFetch {
    Nothing,
    Unpacking(Arc<Prefetch>),
}

impl BesideFetch {
    /// A transfer into `fill` begins. Blocks on the disk.
    pub fn follow(&self, store: &Arc<Store>, limits: &Limits, fill: &mut Fill) {
        if let BesideFetch::Unpacking(ahead) = self {
            ahead.follow(store, limits, fill);
        }
    }
}

/// All unpacking ahead in the process.
pub(super) struct Prefetches {
    /// As many at a time as there are cores. Who finds none free does without.
    places: Arc<Semaphore>,
    /// What goes on behind packages that are known already.
    settled: Mutex<HashMap<Digest, watch::Receiver<PrefetchStage>>>,
}

impl Prefetches {
    pub fn new(cores: usize) -> Arc<Self> {
        Arc::new(Prefetches { places: Arc::new(Semaphore::new(cores)), settled: Mutex::default() })
    }

    /// Waits while the member is being inflated, for `most` at most.
    pub async fn join(&self, archive: Digest, number: FileNo, most: Duration) {
        let Some(mut stage) = self.settled.lock().get(&archive).cloned() else { return };
        let free = |stage: &PrefetchStage| {
            *stage != PrefetchStage::Undecided && *stage != PrefetchStage::Inflating(number)
        };
        // What ends the wait does not matter: whoever waited looks into the store.
        let _ = tokio::time::timeout(most, stage.wait_for(free)).await;
    }
}

/// What is known of a run from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PrefetchStage {
    /// Which member is being inflated, if one is, is not known.
    Undecided,
    /// The last one that is going to be.
    Inflating(FileNo),
    /// Nothing more comes.
    Over,
}

/// The unpacking ahead of one package. Dropped before it was settled, all of it is thrown away.
pub(super) struct Prefetch {
    all: Arc<Prefetches>,
    archive: Digest,
    run: Mutex<Option<Run>>,
}

/// A thread that unpacks; it ends when this is dropped.
struct Run {
    stopper: Stopper,
    verdict: SyncSender<Verdict>,
    stage: watch::Receiver<PrefetchStage>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

/// What is true of the archive: it has its digest, and this tree.
struct Verdict {
    zip: Object,
    package: Arc<VerifiedPackage>,
}

impl Prefetch {
    pub fn new(all: &Arc<Prefetches>, archive: Digest) -> Arc<Self> {
        Arc::new(Prefetch { all: all.clone(), archive, run: Mutex::default() })
    }

    /// Follows a transfer, in the place of an earlier one. Blocks on the disk, and needs a runtime.
    fn follow(&self, store: &Arc<Store>, limits: &Limits, fill: &mut Fill) {
        let mut run = self.run.lock();
        *run = None;
        let Ok(place) = self.all.places.clone().try_acquire_owned() else { return };
        let Some(tail) = fill.follow().filter(|tail| tail.len() > SMALL_MAX) else { return };
        let (verdict, verdicts) = sync_channel(1);
        let (stage, seen) = watch::channel(PrefetchStage::Undecided);
        *run = Some(Run { stopper: tail.stopper(), verdict, stage: seen });
        let total = limits.total.max(tail.len().saturating_mul(limits.ratio));
        let unpacker = Unpacker {
            store: store.clone(),
            archive: self.archive,
            entry: limits.entry,
            left: total.min(store.limit() / PART),
            inflating: None,
            verdicts,
            verdict: None,
            stage,
            ready: Vec::new(),
            _place: place,
        };
        drop(tokio::task::spawn_blocking(move || unpacker.run(&tail)));
    }

    /// The archive `zip` was published, and `package` is what it holds. What was inflated becomes
    /// its members; the one that is being inflated goes on. Needs a runtime, with which it ends.
    pub fn settle(&self, zip: Object, package: Arc<VerifiedPackage>) {
        let Some(run) = self.run.lock().take() else { return };
        let (all, archive, stage) = (self.all.clone(), self.archive, run.stage.clone());
        all.settled.lock().insert(archive, stage.clone());
        // Has room for the one verdict. Fails where the run has ended, as the stage says then.
        let _ = run.verdict.try_send(Verdict { zip, package });
        let settled = Settled { all, archive, stage, _run: run };
        tokio::spawn(settled.last());
    }
}

/// A run that others may wait for, until this is dropped.
struct Settled {
    all: Arc<Prefetches>,
    archive: Digest,
    stage: watch::Receiver<PrefetchStage>,
    _run: Run,
}

impl Settled {
    async fn last(mut self) {
        // Fails where the run has ended early.
        let _ = self.stage.wait_for(|stage| *stage == PrefetchStage::Over).await;
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        let mut settled = self.all.settled.lock();
        if settled.get(&self.archive).is_some_and(|stage| stage.same_channel(&self.stage)) {
            settled.remove(&self.archive);
        }
    }
}

/// Why a run ends early. Nobody but the log is told.
type Ended = Box<dyn std::error::Error + Send + Sync>;

/// The working side of a run.
struct Unpacker {
    store: Arc<Store>,
    archive: Digest,
    /// The most bytes of one member.
    entry: u64,
    /// How many bytes may still be inflated.
    left: u64,
    /// Offset of the data that is being inflated.
    inflating: Option<u64>,
    verdicts: Receiver<Verdict>,
    verdict: Option<Verdict>,
    stage: watch::Sender<PrefetchStage>,
    /// What was inflated and waits for the verdict.
    ready: Vec<(Streamed, Scratch)>,
    _place: OwnedSemaphorePermit,
}

impl Unpacker {
    fn run(mut self, tail: &Tail) {
        let archive = self.archive;
        if let Err(why) = self.inflate_all(tail) {
            tracing::debug!(%archive, %why, "nothing more is unpacked ahead");
        }
        if let Err(why) = self.settle(tail) {
            tracing::debug!(%archive, %why, "what was unpacked ahead is thrown away");
        }
        drop(std::mem::take(&mut self.ready));
        self.stage.send_replace(PrefetchStage::Over);
    }

    /// Inflates the large members in their order, until they end or the package is known.
    fn inflate_all(&mut self, tail: &Tail) -> Result<(), Ended> {
        let zip = Arriving(tail);
        let mut entries = Entries::new(&zip);
        let mut blind = BLIND_MAX;
        while let Some(next) = entries.upcoming()? {
            self.look(tail)?;
            if self.verdict.is_some() {
                break;
            }
            let worth = SMALL_MAX + 1..=self.most();
            match next.size() {
                Some(size) if !worth.contains(&size) => {
                    entries.skip(&next);
                }
                Some(_) => self.inflate(tail, &mut entries, &next)?,
                None if blind == 0 => break,
                None => match entries.extract(&next, SMALL_MAX, &mut io::sink()) {
                    Ok(_) => blind -= 1,
                    Err(e) if matches!(e.class(), Class::TooLarge) => {
                        self.inflate(tail, &mut entries, &next)?
                    }
                    Err(e) => return Err(e.into()),
                },
            }
        }
        Ok(())
    }

    /// The most bytes that the next member may have.
    fn most(&self) -> u64 {
        self.entry.min(self.left)
    }

    fn inflate(
        &mut self,
        tail: &Tail,
        entries: &mut Entries<'_>,
        next: &Upcoming,
    ) -> Result<(), Ended> {
        let (scratch, most) = (self.store.scratch()?, self.most());
        self.inflating = Some(next.offset);
        let unpacked = piped(scratch, |pieces| {
            entries.extract(next, most, &mut WantedPieces { pieces, unpacker: &mut *self, tail })
        });
        self.inflating = None;
        let Piped { written, produced } = unpacked?;
        let (scratch, streamed) = (written?, produced?);
        self.left = self.left.saturating_sub(streamed.size());
        self.ready.push((streamed, scratch));
        self.publish(tail)
    }

    /// Waits for the verdict, if it did not come yet.
    fn settle(&mut self, tail: &Tail) -> Result<(), Ended> {
        match self.verdict {
            Some(_) => Ok(()),
            None => {
                let verdict = self.verdicts.recv().map_err(|_| UNWANTED)?;
                self.judge(verdict, tail)
            }
        }
    }

    /// Takes the verdict if it came. An error: what is being done is worth nothing.
    fn look(&mut self, tail: &Tail) -> Result<(), Ended> {
        if self.verdict.is_some() {
            return Ok(());
        }
        match self.verdicts.try_recv() {
            Ok(verdict) => self.judge(verdict, tail),
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => Err(UNWANTED.into()),
        }
    }

    fn judge(&mut self, verdict: Verdict, tail: &Tail) -> Result<(), Ended> {
        let package = self.verdict.insert(verdict).package.clone();
        self.publish(tail)?;
        if let Some(offset) = self.inflating {
            let file = package.members.files().find(|(_, file)| file.offset == offset);
            let (number, _) = file.ok_or("what is being inflated is no file of the package")?;
            self.stage.send_replace(PrefetchStage::Inflating(number));
        }
        Ok(())
    }

    /// Makes objects of what is ready, as far as the verdict lets it.
    fn publish(&mut self, tail: &Tail) -> Result<(), Ended> {
        let Some(Verdict { zip, package }) = &self.verdict else { return Ok(()) };
        if !tail.is_of(zip) {
            return Err("what was read is not what was published".into());
        }
        for (streamed, scratch) in self.ready.drain(..) {
            let Some((number, _)) = package.members.files().find(|(_, file)| streamed.is(file))
            else {
                continue;
            };
            let key = Key::Member { archive: self.archive, number };
            if let Err(error) = publish(&self.store, &key, streamed.size(), scratch) {
                tracing::debug!(%key, %error, "what was unpacked ahead cannot be kept");
            }
        }
        Ok(())
    }
}

const UNWANTED: &str = "the fetch has failed, or nobody waits for it any more";

fn publish(store: &Arc<Store>, key: &Key, size: u64, scratch: Scratch) -> Result<(), Refusal> {
    match store.begin(key, size)? {
        Begin::Fill(mut fill) => {
            fill.take(scratch)?;
            fill.publish().map(drop)
        }
        Begin::Present(_) | Begin::Busy { .. } => Ok(()),
    }
}

/// Passes pieces on while they are wanted.
struct WantedPieces<'a> {
    pieces: &'a mut dyn io::Write,
    unpacker: &'a mut Unpacker,
    tail: &'a Tail,
}

impl io::Write for WantedPieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unpacker.look(self.tail).map_err(io::Error::other)?;
        self.pieces.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob in the making as the archive reader reads it.
struct Arriving<'a>(&'a Tail);

impl archive::ReadAt for Arriving<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

#[cfg(test)]
mod tests;
