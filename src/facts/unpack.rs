//! A member's way from its archive into the store: inflated on one thread, hashed and written on
//! another, so that a large member takes as long as inflating it.
//!
//! INVARIANT: at most [`PIECES`] pieces are on their way. They go round: written ones come back to
//! be filled.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use parking_lot::Mutex;

use super::package::StoredArchive;
use crate::archive::{self, ArchiveError};
use crate::failure::{Failure, Refusal};
use crate::members::MemberFile;
use crate::store::{Begin, Fill, Key, Object, Scratch, Store};

/// Bytes that are passed on at once: several of the store's chunks, so that each of them is hashed
/// in one go.
const PIECE: usize = 256 << 10;
/// Pieces in one unpacking.
const PIECES: usize = 6;

/// How unpacking ended, where the archive is not to blame.
pub(super) enum Unpacked {
    Done(Object),
    /// Another process unpacks the same member.
    Busy,
    Failed(Refusal),
}

/// Unpacks `file` of `zip` into the store, as `key`.
pub(super) fn unpack_into(
    store: &Arc<Store>,
    key: &Key,
    zip: &Object,
    file: &MemberFile,
) -> Result<Unpacked, ArchiveError> {
    let fill = match store.begin(key, file.size) {
        Ok(Begin::Present(object)) => return Ok(Unpacked::Done(object)),
        Ok(Begin::Busy { .. }) => return Ok(Unpacked::Busy),
        Ok(Begin::Fill(fill)) => fill,
        Err(e) => return Ok(Unpacked::Failed(e)),
    };
    let unpacked = match piped(fill, |pieces| archive::extract(&StoredArchive(zip), file, pieces)) {
        Ok(unpacked) => unpacked,
        Err(e) => {
            return Ok(Unpacked::Failed(Refusal::new(
                Failure::Io,
                key.to_string(),
                format_args!("it cannot be unpacked: {e}"),
            )));
        }
    };
    match (unpacked.written, unpacked.produced) {
        (Err(e), _) => Ok(Unpacked::Failed(e)),
        (Ok(_), Err(e)) => Err(e),
        (Ok(fill), Ok(())) => Ok(fill.publish().map_or_else(Unpacked::Failed, Unpacked::Done)),
    }
}

/// What bytes are written into.
pub(super) trait UnpackTarget: Send {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal>;
}

impl UnpackTarget for Fill {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.write(bytes)
    }
}

impl UnpackTarget for Scratch {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.write(bytes)
    }
}

/// How both ends of [`piped`] ended. Where writing failed, so did producing, for that reason.
pub(super) struct Piped<W, P> {
    pub written: Result<W, Refusal>,
    pub produced: P,
}

/// Runs `produce`, and writes what it makes into `target` on another thread.
///
/// # Errors
/// There is no other thread to be had, or it panicked.
pub(super) fn piped<W: UnpackTarget, P>(
    target: W,
    produce: impl FnOnce(&mut dyn io::Write) -> P,
) -> io::Result<Piped<W, P>> {
    let (full, to_write) = sync_channel(PIECES);
    let (written, spare) = sync_channel(PIECES);
    for _ in 1..PIECES {
        // Has room for all of them, and both ends are here.
        let _ = written.send(Vec::with_capacity(PIECE));
    }
    let mut pieces = Pieces { filling: Vec::with_capacity(PIECE), full, spare };
    // A thread that cannot be started must not take the target with it.
    let target = Mutex::new(Some(target));
    let taken = || target.lock().take();
    let lost = || io::Error::other("an internal task ended early");
    thread::scope(|scope| {
        let write = || taken().map(|target| write_all(target, to_write, written));
        let Ok(writer) = thread::Builder::new().spawn_scoped(scope, write) else {
            return taken().map(|target| alone(target, produce)).ok_or_else(lost);
        };
        let produced = produce(&mut pieces);
        pieces.finish();
        let written = writer.join().ok().flatten().ok_or_else(lost)?;
        Ok(Piped { written, produced })
    })
}

/// [`piped`] where no thread can be started beside this one (a limit of processes): slower, and
/// that is all (O26).
fn alone<W: UnpackTarget, P>(
    target: W,
    produce: impl FnOnce(&mut dyn io::Write) -> P,
) -> Piped<W, P> {
    let mut writer = Alone { target, failed: None };
    let produced = produce(&mut writer);
    Piped { written: writer.failed.map_or(Ok(writer.target), Err), produced }
}

/// A target that is written by who inflates.
struct Alone<W> {
    target: W,
    failed: Option<Refusal>,
}

impl<W: UnpackTarget> io::Write for Alone<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.target.take(bytes).map_err(|e| {
            self.failed = Some(e);
            io::Error::from(io::ErrorKind::Other)
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all<W: UnpackTarget>(
    mut target: W,
    to_write: Receiver<Vec<u8>>,
    written: SyncSender<Vec<u8>>,
) -> Result<W, Refusal> {
    for mut piece in to_write {
        target.take(&piece)?;
        piece.clear();
        // Nobody fills it after the last one.
        let _ = written.send(piece);
    }
    Ok(target)
}

/// The inflating end.
struct Pieces {
    filling: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
}

impl Pieces {
    /// Passes the last piece on, and lets the writer come to its end.
    fn finish(self) {
        // Fails where the writer has ended already.
        let _ = self.full.send(self.filling);
    }

    /// Waits for a spare piece, and so for the disk. Fails where the writer has ended; its own
    /// error says why.
    fn pass_on(&mut self) -> io::Result<()> {
        let next = self.spare.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        let full = std::mem::replace(&mut self.filling, next);
        self.full.send(full).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.filling.len());
        self.filling.extend_from_slice(&bytes[..taken]);
        if self.filling.len() == PIECE {
            self.pass_on()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::archive::Limits;
    use crate::digest::Digest;
    use crate::members::FileNo;
    use crate::store::StoreOptions;

    fn content(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..length).map(|_| random.u8(..16)).collect()
    }

    /// A zip of one member, in a store.
    fn bed(content: &[u8]) -> (tempfile::TempDir, Arc<Store>, Object, MemberFile) {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file("member", SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
        let zip = writer.finish().unwrap().into_inner();
        let file = *archive::index(&zip, &Limits::default()).unwrap().file(FileNo(0));
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(StoreOptions { dir: dir.path().join("cache"), limit: 1 << 30 }).unwrap();
        let Begin::Fill(mut fill) =
            store.begin(&Key::Blob(Digest::of(&zip)), zip.len() as u64).unwrap()
        else {
            panic!("it is there already")
        };
        fill.write(&zip).unwrap();
        let object = fill.publish().unwrap();
        (dir, store, object, file)
    }

    fn key(zip: &Object) -> Key {
        let Key::Blob(archive) = zip.key() else { panic!("a blob") };
        Key::Member { archive, number: FileNo(0) }
    }

    #[test]
    fn a_member_arrives_whole_wherever_its_pieces_end() {
        for length in
            [0, 1, PIECE - 1, PIECE, PIECE + 1, PIECES * PIECE, 3 * PIECES * PIECE + 12_345]
        {
            let content = content(length);
            let (_dir, store, zip, file) = bed(&content);
            let Ok(Unpacked::Done(object)) = unpack_into(&store, &key(&zip), &zip, &file) else {
                panic!("{length}")
            };
            assert!(object.read_all().unwrap() == content, "{length}");
        }
    }

    /// O26
    #[test]
    fn without_another_thread_a_member_is_unpacked_by_this_one() {
        let content = content(PIECES * PIECE + 12_345);
        let (_dir, store, zip, file) = bed(&content);
        let Ok(Begin::Fill(fill)) = store.begin(&key(&zip), file.size) else { panic!("a fill") };
        let unpacked = alone(fill, |out| archive::extract(&StoredArchive(&zip), &file, out));
        unpacked.produced.unwrap();
        assert!(unpacked.written.unwrap().publish().unwrap().read_all().unwrap() == content);
    }

    /// hostile input Z25
    #[test]
    fn a_member_with_a_wrong_checksum_is_not_published() {
        let (_dir, store, zip, mut file) = bed(&content(2 * PIECES * PIECE));
        file.crc32 ^= 1;
        assert!(unpack_into(&store, &key(&zip), &zip, &file).is_err());
        assert!(store.get(&key(&zip)).unwrap().is_none());
    }

    #[test]
    fn a_member_is_unpacked_by_one_at_a_time() {
        let (_dir, store, zip, file) = bed(&content(PIECE));
        let other = store.begin(&key(&zip), file.size).unwrap();
        assert!(matches!(unpack_into(&store, &key(&zip), &zip, &file), Ok(Unpacked::Busy)));
        drop(other);
        assert!(matches!(unpack_into(&store, &key(&zip), &zip, &file), Ok(Unpacked::Done(_))));
    }

    #[test]
    fn inflating_ends_with_its_writer() {
        let (full, to_write) = sync_channel(PIECES);
        let (written, spare) = sync_channel(PIECES);
        drop((to_write, written));
        let mut pieces = Pieces { filling: Vec::new(), full, spare };
        let error = pieces.write_all(&content(2 * PIECE)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
