//! Unpacking ahead, on a store of its own: the transfer is played by the test.

use std::io::{Cursor, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use futures_util::FutureExt as _;
use tokio::runtime::Runtime;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::super::admit::admitted::Admitted;
use super::super::package::StoredArchive;
use super::super::unpack::{Unpacked, unpack_into};
use super::*;
use crate::archive::index;
use crate::name::Repo;
use crate::oci::Descriptor;
use crate::store::StoreOptions;

const LARGE: usize = 3 * SMALL_MAX as usize + 12_345;
const PATIENCE: Duration = Duration::from_secs(30);

struct Bed {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    all: Arc<Prefetches>,
    runtime: Runtime,
}

/// A fetch under way that is followed.
struct Fetch {
    fill: Fill,
    ahead: Arc<Prefetch>,
    stage: watch::Receiver<PrefetchStage>,
}

impl Bed {
    fn new() -> Bed {
        Bed::limited(1 << 30)
    }

    fn limited(limit: u64) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions { dir: dir.path().to_owned(), limit }).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Bed { dir, store, all: Prefetches::new(2), runtime }
    }

    /// Begins to fetch what has the digest of `zip`.
    fn fetch(&self, zip: &[u8]) -> Fetch {
        let _inside = self.runtime.enter();
        let digest = Digest::of(zip);
        let Begin::Fill(mut fill) = self.store.begin(&Key::Blob(digest), zip.len() as u64).unwrap()
        else {
            panic!("a fill")
        };
        let ahead = Prefetch::new(&self.all, digest);
        ahead.follow(&self.store, &Limits::default(), &mut fill);
        let stage = ahead.run.lock().as_ref().expect("it is followed").stage.clone();
        Fetch { fill, ahead, stage }
    }

    fn names(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut pending = vec![self.dir.path().join("v1").join(part)];
        while let Some(dir) = pending.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { pending.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    /// The members in the store: data and checksums.
    fn members(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.names("members")
            .into_iter()
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    }

    /// Waits until so many bytes were inflated that are nobody's.
    #[track_caller]
    fn until_inflated(&self, bytes: usize) {
        wait_until(|| self.inflated() == bytes);
    }

    fn inflated(&self) -> usize {
        let scratches = self
            .names("tmp")
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "scratch"));
        scratches.filter_map(|path| path.metadata().ok()).map(|m| m.len() as usize).sum()
    }

    /// The package that a published archive holds.
    fn package(&self, zip: &Object) -> Arc<VerifiedPackage> {
        let Key::Blob(digest) = zip.key() else { panic!("a blob") };
        let members = index(&StoredArchive(zip), &Limits::default()).unwrap();
        let repo = Repo { host: "registry.example".parse().unwrap(), name: "net".parse().unwrap() };
        let (archive, admitted) = (Descriptor::bare(digest, zip.len()), Admitted::unasked());
        Arc::new(VerifiedPackage { admitted, repo, archive, members })
    }

    /// What happens behind a transfer that ended well, to its end.
    #[track_caller]
    fn settle(&self, fetch: Fetch) -> (Object, Arc<VerifiedPackage>) {
        let _inside = self.runtime.enter();
        let Fetch { fill, ahead, mut stage } = fetch;
        let zip = fill.publish().unwrap();
        let package = self.package(&zip);
        ahead.settle(zip.clone(), package.clone());
        let over = async {
            tokio::time::timeout(PATIENCE, stage.wait_for(|stage| *stage == PrefetchStage::Over))
                .await
                .is_ok()
        };
        assert!(self.runtime.block_on(over));
        wait_until(|| self.all.settled.lock().is_empty());
        (zip, package)
    }

    /// Fetches `zip` whole, of which so many bytes are inflated before anything is known of it.
    #[track_caller]
    fn fetched(&self, zip: &[u8], inflated: usize) -> (Object, Arc<VerifiedPackage>) {
        let mut fetch = self.fetch(zip);
        zip.chunks(50_000).for_each(|piece| fetch.fill.write(piece).unwrap());
        self.until_inflated(inflated);
        self.settle(fetch)
    }
}

#[track_caller]
fn wait_until(done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < PATIENCE, "it did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..16)).collect()
}

const DEFLATED: CompressionMethod = CompressionMethod::Deflated;
const STORED: CompressionMethod = CompressionMethod::Stored;

fn zip(files: &[(&str, &[u8], CompressionMethod)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, method) in files {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(*method)).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// As a writer makes it that cannot go back: sizes stand behind the data.
fn streamed_zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new_stream(Vec::new());
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn members_are_those_that_unpacking_makes_bit_for_bit() {
    let (a, b, text) = (content(LARGE, 1), content(LARGE + 1, 2), content(1000, 3));
    let inner = zip(&[("inner", &a, STORED), ("text", &text, DEFLATED)]);
    for zip in [
        zip(&[
            ("text", &text, DEFLATED),
            ("a", &a, DEFLATED),
            ("empty", b"", STORED),
            ("b", &b, STORED),
        ]),
        zip(&[("inner.zip", &inner, STORED), ("b", &b, DEFLATED)]),
        streamed_zip(&[("text", &text), ("a", &a), ("more", &text), ("b", &b)]),
    ] {
        let bed = Bed::new();
        let members = index(&zip, &Limits::default()).unwrap();
        let inflated: u64 =
            members.files().map(|(_, file)| file.size).filter(|size| *size > SMALL_MAX).sum();
        let (archive, package) = bed.fetched(&zip, inflated as usize);
        let ahead = bed.members();
        let large: Vec<_> =
            package.members.files().filter(|(_, file)| file.size > SMALL_MAX).collect();
        assert_eq!((ahead.len(), bed.names("tmp").len()), (2 * large.len(), 0));
        assert_eq!(large.len(), 2);
        bed.store.prune(0);
        assert!(bed.members().is_empty());
        for (number, file) in large {
            let key = Key::Member { archive: package.archive.digest, number };
            assert!(matches!(unpack_into(&bed.store, &key, &archive, file), Ok(Unpacked::Done(_))));
        }
        assert!(bed.members() == ahead);
    }
}

/// R01: no unverified byte.
#[test]
fn of_a_package_with_a_wrong_digest_no_member_ever_appears() {
    let bed = Bed::new();
    let zip = zip(&[("a", &content(LARGE, 1), DEFLATED), ("b", &content(LARGE, 2), STORED)]);
    let mut wrong = zip.clone();
    // In the end record, where no member's content is touched.
    *wrong.last_mut().unwrap() ^= 1;
    let mut fetch = bed.fetch(&wrong);
    fetch.fill.write(&zip).unwrap();
    bed.until_inflated(2 * LARGE);
    assert!(bed.members().is_empty(), "all was inflated, and nothing is visible");
    assert!(fetch.fill.publish().is_err());
    drop(fetch.ahead);
    wait_until(|| bed.names("tmp").is_empty() && *fetch.stage.borrow() == PrefetchStage::Over);
    assert!(bed.members().is_empty() && bed.store.usage().objects == 0);
}

#[test]
fn nothing_appears_before_the_index_was_read_nor_if_it_is_refused() {
    let bed = Bed::new();
    let zip = zip(&[("a", &content(LARGE, 1), DEFLATED)]);
    let mut fetch = bed.fetch(&zip);
    fetch.fill.write(&zip).unwrap();
    bed.until_inflated(LARGE);
    let object = fetch.fill.publish().unwrap();
    assert!(bed.members().is_empty());
    drop(fetch.ahead);
    wait_until(|| *fetch.stage.borrow() == PrefetchStage::Over);
    assert_eq!(
        (bed.members().len(), bed.names("tmp").len(), object.len()),
        (0, 0, zip.len() as u64)
    );
}

/// Other content with the CRC of `content`: CRCs are linear, and the generator has the CRC 0.
fn forged(content: &[u8]) -> Vec<u8> {
    const GENERATOR: u64 = 0x1_04c1_1db7;
    let mut forged = content.to_vec();
    for bit in (0..33).filter(|bit| GENERATOR >> (32 - bit) & 1 == 1) {
        forged[1000 + bit / 8] ^= 1 << (bit % 8);
    }
    assert!(forged != content && crc32fast::hash(&forged) == crc32fast::hash(content));
    forged
}

/// R53: a registry that sends other bytes first, breaks off, and then the right ones, of equal
/// offsets, sizes and CRCs.
#[test]
fn what_came_before_a_restart_is_never_published() {
    let bed = Bed::new();
    let good = content(LARGE, 1);
    let [evil, zip] = [&forged(&good), &good]
        .map(|a| zip(&[("a", a, STORED), ("b", &content(200_000, 2), STORED)]));
    let mut fetch = bed.fetch(&zip);
    fetch.fill.write(&evil[..evil.len() - 100]).unwrap();
    bed.until_inflated(LARGE);
    fetch.fill.restart().unwrap();
    fetch.fill.write(&zip).unwrap();
    let (archive, package) = bed.settle(fetch);
    assert_eq!((bed.members().len(), bed.names("tmp").len()), (0, 0));
    let (number, file) = package.members.files().next().unwrap();
    let key = Key::Member { archive: package.archive.digest, number };
    let Ok(Unpacked::Done(object)) = unpack_into(&bed.store, &key, &archive, file) else {
        panic!("unpacked")
    };
    assert!(object.read_all().unwrap() == good);
}

/// The same where somebody changes the file while it is read: what was read is not what was hashed.
#[test]
fn what_was_read_has_to_be_what_was_hashed() {
    let bed = Bed::new();
    let good = content(LARGE, 1);
    let evil = zip(&[("a", &forged(&good), STORED)]);
    let zip = zip(&[("a", &good, STORED)]);
    let mut fetch = bed.fetch(&zip);
    // Of the last chunk nothing is there yet, so that nothing was read when the file changes.
    let head = 60_000;
    fetch.fill.write(&zip[..head]).unwrap();
    let partial = bed
        .names("tmp")
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "part"))
        .unwrap();
    let write = |bytes: &[u8]| {
        use std::os::unix::fs::FileExt as _;
        std::fs::OpenOptions::new()
            .write(true)
            .open(&partial)
            .unwrap()
            .write_all_at(bytes, 0)
            .unwrap();
    };
    write(&evil[..head]);
    fetch.fill.write(&zip[head..]).unwrap();
    bed.until_inflated(LARGE);
    write(&zip[..head]);
    bed.settle(fetch);
    assert_eq!((bed.members().len(), bed.names("tmp").len()), (0, 0));
}

/// R02, O02, O30
#[test]
fn a_transfer_that_breaks_off_leaves_nothing_but_what_can_be_resumed() {
    let bed = Bed::new();
    let a = content(LARGE, 1);
    let zip = zip(&[("a", &a, DEFLATED), ("b", &content(2 * LARGE, 2), DEFLATED)]);
    let mut fetch = bed.fetch(&zip);
    fetch.fill.write(&zip[..zip.len() - 500_000]).unwrap();
    wait_until(|| bed.names("tmp").len() == 3);
    drop((fetch.fill, fetch.ahead));
    wait_until(|| *fetch.stage.borrow() == PrefetchStage::Over);
    assert_eq!((bed.names("tmp").len(), bed.members().len()), (1, 0));
    // And it is followed from its front when it is resumed.
    let mut fetch = bed.fetch(&zip);
    assert_eq!(fetch.fill.position(), zip.len() as u64 - 500_000);
    fetch.fill.write(&zip[zip.len() - 500_000..]).unwrap();
    bed.until_inflated(3 * LARGE);
    bed.settle(fetch);
    assert_eq!((bed.names("tmp").len(), bed.members().len()), (0, 4));
}

#[test]
fn a_transfer_that_begins_anew_is_followed_anew() {
    let bed = Bed::new();
    let zip = zip(&[("a", &content(LARGE, 1), DEFLATED)]);
    let mut first = bed.fetch(&zip);
    first.fill.write(&zip[1..]).unwrap();
    first.fill.write(&zip[..1]).unwrap();
    assert!(first.fill.publish().is_err());
    let _inside = bed.runtime.enter();
    let Ok(Begin::Fill(mut fill)) = bed.store.begin(&Key::Blob(Digest::of(&zip)), zip.len() as u64)
    else {
        panic!("a fill")
    };
    first.ahead.follow(&bed.store, &Limits::default(), &mut fill);
    let stage = first.ahead.run.lock().as_ref().unwrap().stage.clone();
    fill.write(&zip).unwrap();
    bed.until_inflated(LARGE);
    bed.settle(Fetch { fill, ahead: first.ahead, stage });
    assert_eq!(bed.members().len(), 2);
}

#[test]
fn what_is_taken_ahead_is_a_part_of_the_cache_at_most() {
    let zip = zip(&[("a", &content(LARGE, 1), DEFLATED), ("b", &content(LARGE, 2), DEFLATED)]);
    for (limit, members) in [(2 * LARGE, 2), (2 * LARGE - 1, 1), (LARGE, 1), (LARGE - 1, 0)] {
        let bed = Bed::limited(limit as u64 * PART);
        let inflated = [0, LARGE, 2 * LARGE][members];
        bed.fetched(&zip, inflated);
        assert_eq!((bed.members().len(), bed.names("tmp").len()), (2 * members, 0), "{limit}");
        let bed = Bed::limited(limit as u64 * PART);
        bed.fetched(
            &streamed_zip(&[("a", &content(LARGE, 1)), ("b", &content(LARGE, 2))]),
            inflated,
        );
        assert_eq!(
            (bed.members().len(), bed.names("tmp").len()),
            (2 * members, 0),
            "{limit}, streamed"
        );
    }
}

/// Z18
#[test]
fn a_bomb_is_given_up_at_the_limits() {
    let bed = Bed::new();
    let zip = streamed_zip(&[("a", &vec![0; 8 << 20]), ("b", &content(LARGE, 2))]);
    let _inside = bed.runtime.enter();
    let Ok(Begin::Fill(mut fill)) = bed.store.begin(&Key::Blob(Digest::of(&zip)), zip.len() as u64)
    else {
        panic!("a fill")
    };
    let ahead = Prefetch::new(&bed.all, Digest::of(&zip));
    ahead.follow(&bed.store, &Limits { entry: 1 << 20, ..Limits::default() }, &mut fill);
    let stage = ahead.run.lock().as_ref().unwrap().stage.clone();
    fill.write(&zip).unwrap();
    bed.settle(Fetch { fill, ahead, stage });
    assert_eq!((bed.members().len(), bed.names("tmp").len()), (0, 0));
}

#[test]
fn as_many_are_followed_as_there_are_places_and_no_small_ones() {
    let bed = Bed::new();
    let _inside = bed.runtime.enter();
    let begin = |seed, length| {
        let bytes = content(length, seed);
        let Ok(Begin::Fill(fill)) = bed.store.begin(&Key::Blob(Digest::of(&bytes)), length as u64)
        else {
            panic!("a fill")
        };
        let ahead = Prefetch::new(&bed.all, Digest::of(&bytes));
        (fill, ahead)
    };
    let follow = |(fill, ahead): &mut (Fill, Arc<Prefetch>)| {
        ahead.follow(&bed.store, &Limits::default(), fill);
        ahead.run.lock().is_some()
    };
    assert!(!follow(&mut begin(1, SMALL_MAX as usize)));
    let mut all: Vec<_> = (2..5).map(|seed| begin(seed, LARGE)).collect();
    assert_eq!(all.iter_mut().map(follow).collect::<Vec<_>>(), [true, true, false]);
    drop(all.remove(0));
    wait_until(|| bed.all.places.available_permits() == 1);
    assert!(follow(all.last_mut().unwrap()));
}

#[test]
fn who_opens_a_member_waits_for_it_and_for_no_other() {
    let bed = Bed::new();
    let archive = Digest::of(b"zip");
    let join = |number| bed.all.join(archive, FileNo(number), PATIENCE).now_or_never().is_some();
    let _inside = bed.runtime.enter();
    assert!(join(0), "nothing goes on");
    let (stage, seen) = watch::channel(PrefetchStage::Undecided);
    bed.all.settled.lock().insert(archive, seen);
    assert!(!join(0) && !join(1));
    stage.send_replace(PrefetchStage::Inflating(FileNo(1)));
    assert!(join(0) && !join(1));
    let waits = bed.runtime.spawn({
        let all = bed.all.clone();
        async move { all.join(archive, FileNo(1), PATIENCE).await }
    });
    stage.send_replace(PrefetchStage::Over);
    bed.runtime.block_on(waits).unwrap();
    assert!(join(1));
    stage.send_replace(PrefetchStage::Inflating(FileNo(1)));
    drop(stage);
    assert!(join(1), "who inflated it is gone");
}

#[test]
fn a_member_that_is_being_inflated_when_the_package_is_known_is_finished() {
    let bed = Bed::new();
    // Long enough that it is under way still when the index is there; if it is not, the result is
    // the same.
    let long = content(24 << 20, 1);
    let zip = zip(&[
        ("a", &content(LARGE, 2), DEFLATED),
        ("long", &long, DEFLATED),
        ("c", &content(LARGE, 3), DEFLATED),
    ]);
    let mut fetch = bed.fetch(&zip);
    fetch.fill.write(&zip).unwrap();
    wait_until(|| bed.inflated() > LARGE);
    let (_, package) = bed.settle(fetch);
    let key = |number| Key::Member { archive: package.archive.digest, number: FileNo(number) };
    assert!(bed.store.get(&key(0)).unwrap().is_some());
    assert!(bed.store.get(&key(1)).unwrap().unwrap().read_all().unwrap() == long);
    assert_eq!(bed.names("tmp").len(), 0);
}

#[test]
fn it_ends_with_its_runtime() {
    let bed = Bed::new();
    let zip = zip(&[("a", &content(LARGE, 1), DEFLATED)]);
    let mut fetch = bed.fetch(&zip);
    fetch.fill.write(&zip[..zip.len() - 1]).unwrap();
    drop(fetch.ahead);
    // Waits for its threads.
    drop(bed.runtime);
    assert_eq!(*fetch.stage.borrow(), PrefetchStage::Over);
}
