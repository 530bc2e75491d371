//! Writing, as one process sees it. Deaths and other processes: `tests/stores`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::super::super::{BlobSource, Upload, Uploaded};
use super::*;
use crate::failure::{Failure, Refusal};
use crate::oci::{INDEX, Manifest};

struct Source(Vec<u8>);

#[async_trait]
impl BlobSource for Source {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let from = (offset as usize).min(self.0.len());
        // Pieces of odd sizes, as a network gives them.
        Ok(Bytes::copy_from_slice(&self.0[from..(from + len.min(100_003)).min(self.0.len())]))
    }
}

struct Broken(AtomicUsize);

#[async_trait]
impl BlobSource for Broken {
    async fn read_at(&self, _: u64, len: usize) -> io::Result<Bytes> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(Bytes::from(vec![0; len])),
            _ => Err(io::Error::other("the line was cut")),
        }
    }
}

fn blob(bytes: &[u8]) -> Descriptor {
    descriptor(Digest::of(bytes), bytes.len() as u64)
}

fn manifest(value: Value) -> Manifest {
    let raw = value.to_string().into_bytes();
    let digest = Digest::of(&raw);
    Manifest::parse(raw.into(), digest, None).unwrap()
}

fn image(layers: &[&Descriptor]) -> Manifest {
    let layer = |l: &&Descriptor| json!({"mediaType": "archive/zip", "digest": l.digest.to_string(), "size": l.size});
    let layers: Vec<_> = layers.iter().map(layer).collect();
    manifest(json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": layers}))
}

fn error<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Refusal {
    result.expect_err("a failure")
}

impl Fixture {
    fn own(&self, repo: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(repo, ".tofufs"))
            .map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }
}

async fn put(layout: &RegistryLayout, name: &str, to: &str, bytes: &[u8]) -> Manifest {
    let layer = blob(bytes);
    layout.put_blob(&repo(name), &layer, &Source(bytes.to_vec())).await.unwrap();
    let manifest = image(&[&layer]);
    layout.put_manifest(&repo(name), &tag(to), &manifest).await.unwrap();
    manifest
}

#[tokio::test]
async fn what_is_written_is_read_back_and_the_second_time_changes_nothing() {
    let store = Fixture::new();
    let layout = store.layout();
    let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i % 253) as u8).collect();
    let (name, layer) = (repo("acme/net"), blob(&bytes));
    assert_eq!(layout.present(&name, &tag("1.0.0")).await.unwrap(), None);
    assert_eq!(
        layout.put_blob(&name, &layer, &Source(bytes.clone())).await.unwrap(),
        Uploaded::Sent
    );
    assert_eq!(layout.catalog().await.unwrap(), [], "blobs alone make no repository");
    let manifest = image(&[&layer]);
    let selectors = [Selector::Digest(manifest.digest), tag("1.0.0")];
    for selector in &selectors {
        layout.put_manifest(&name, selector, &manifest).await.unwrap();
    }
    let index = fs::metadata(store.path("acme/net", INDEX_FILE)).unwrap();
    for selector in &selectors {
        assert_eq!(layout.present(&name, selector).await.unwrap(), Some(manifest.digest));
        layout.put_manifest(&name, selector, &manifest).await.unwrap();
        assert_eq!(layout.manifest(&name, selector).await.unwrap().bytes, manifest.raw);
    }
    assert_eq!(
        layout.put_blob(&name, &layer, &Source(bytes.clone())).await.unwrap(),
        Uploaded::Present
    );
    assert_eq!(fs::metadata(store.path("acme/net", INDEX_FILE)).unwrap().ino(), index.ino());
    let mut sink = MemorySink::default();
    layout.blob(&name, &layer, &mut sink).await.unwrap();
    assert!(sink.bytes == bytes);
    assert_eq!(layout.tags(&name).await.unwrap().len(), 1);
    assert_eq!(store.own("acme/net"), ["lock"]);
    let empty = blob(b"");
    assert_eq!(layout.put_blob(&name, &empty, &Source(vec![])).await.unwrap(), Uploaded::Sent);
}

#[tokio::test]
async fn a_tag_that_moves_takes_nothing_away() {
    let store = Fixture::new();
    store.repository("net", &[("1.0.0", b"manifest"), ("reg.example/net:2.0.0", b"other")]);
    let layout = store.layout();
    let moved = put(&layout, "net", "2.0.0", b"new").await;
    let one = layout.resolve(&repo("net"), &"1.0.0".parse().unwrap()).await.unwrap();
    assert_eq!(one, Some(Digest::of(b"manifest")));
    let two = layout.resolve(&repo("net"), &"2.0.0".parse().unwrap()).await.unwrap();
    assert_eq!(two, Some(moved.digest));
    let before = Selector::Digest(Digest::of(b"other"));
    assert_eq!(&layout.manifest(&repo("net"), &before).await.unwrap().bytes[..], b"other");
}

#[tokio::test]
async fn bytes_that_are_not_what_was_announced_are_not_stored() {
    let store = Fixture::new();
    let layout = store.layout();
    let good = vec![7; PIECE + 9];
    let wanted = blob(&good);
    let wrong: [Vec<u8>; 4] =
        [vec![8; good.len()], good[1..].to_vec(), [&good[..], b"x"].concat(), vec![]];
    for bytes in wrong {
        let e = error(layout.put_blob(&repo("net"), &wanted, &Source(bytes)).await);
        assert_eq!(e.failure, Failure::Integrity, "{e}");
    }
    let e = error(layout.put_blob(&repo("net"), &wanted, &Broken(AtomicUsize::new(0))).await);
    assert!(e.failure == Failure::Io && e.to_string().contains("the line was cut"), "{e}");
    assert!(!store.path("net", &blob_path(&wanted.digest)).exists());
    assert_eq!(store.own("net"), [] as [&str; 0], "what was begun is gone");
    let manifest = image(&[&wanted]);
    let e = error(layout.put_manifest(&repo("net"), &tag("1"), &manifest).await);
    assert!(
        e.failure == Failure::Integrity && e.to_string().contains(&wanted.digest.to_string()),
        "{e}"
    );
    let other = Selector::Digest(Digest::of(b"other"));
    assert_eq!(
        failure(layout.put_manifest(&repo("net"), &other, &image(&[])).await),
        Failure::Integrity
    );
    assert_eq!(layout.catalog().await.unwrap(), []);
}

#[tokio::test]
async fn a_damaged_blob_is_written_again() {
    let store = Fixture::new();
    let layout = store.layout();
    let manifest = put(&layout, "net", "1", b"content").await;
    let layer = blob(b"content");
    for (digest, damage) in
        [(layer.digest, &b"CONTENT"[..]), (manifest.digest, b"short"), (layer.digest, b"")]
    {
        let path = store.path("net", &blob_path(&digest));
        fs::write(&path, damage).unwrap();
        put(&layout, "net", "1", b"content").await;
        assert_eq!(Digest::of(&fs::read(&path).unwrap()), digest);
    }
    let path = store.path("net", &blob_path(&manifest.digest));
    fs::write(&path, b"damaged").unwrap();
    assert_eq!(
        layout.present(&repo("net"), &Selector::Digest(manifest.digest)).await.unwrap(),
        None
    );
}

/// L07, L26: nothing outside of the store is written, read or removed.
#[tokio::test]
async fn writers_follow_no_link() {
    for place in [
        "",
        "net",
        "net/blobs",
        "net/blobs/sha256",
        "net/.tofufs",
        "net/.tofufs/lock",
        "net/index.json",
    ] {
        let (store, outside) = (Fixture::new(), tempfile::tempdir().unwrap());
        let target = outside.path().join("target");
        if place.contains("lock") || place.contains("index") {
            fs::write(&target, b"{\"manifests\":[]}").unwrap();
        } else {
            fs::create_dir(&target).unwrap();
        }
        let link = store.path(place, "");
        let link = PathBuf::from(link.to_str().unwrap().trim_end_matches('/'));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&target, &link).unwrap();
        let layout = store.layout();
        let stored = async {
            let layer = blob(b"content");
            layout.put_blob(&repo("net"), &layer, &Source(b"content".to_vec())).await?;
            layout.put_manifest(&repo("net"), &tag("1"), &image(&[&layer])).await
        };
        let e = error(stored.await);
        assert_eq!(e.failure, Failure::Structure, "{place}: {e}");
        if target.is_dir() {
            assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{place}");
        } else {
            assert_eq!(fs::read(&target).unwrap(), b"{\"manifests\":[]}", "{place}");
        }
    }
    // A link in a blob's own place is replaced, not followed.
    let (store, outside) = (Fixture::new(), tempfile::NamedTempFile::new().unwrap());
    let layer = blob(b"content");
    let path = store.path("net", &blob_path(&layer.digest));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(outside.path(), &path).unwrap();
    put(&store.layout(), "net", "1", b"content").await;
    assert!(
        fs::symlink_metadata(&path).unwrap().is_file()
            && fs::read(outside.path()).unwrap().is_empty()
    );
}

#[tokio::test]
async fn no_repository_is_made_in_the_blobs_of_another() {
    let store = Fixture::new();
    let layout = store.layout();
    put(&layout, "net", "1", b"x").await;
    let e = error(
        layout.put_blob(&repo("net/blobs/sha256"), &blob(b"y"), &Source(b"y".to_vec())).await,
    );
    assert_eq!(e.failure, Failure::Structure, "{e}");
    put(&layout, "net/nested", "1", b"x").await;
    put(&layout, "blobs/net", "1", b"x").await;
    assert_eq!(layout.catalog().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_lock_is_waited_for_until_the_deadline_and_goes_with_its_holder() {
    let store = Fixture::new();
    put(&store.layout(), "net", "1", b"x").await;
    let held = File::open(store.path("net", ".tofufs/lock")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let layout = store.layout().with_deadline(Duration::from_millis(30));
    let e = error(layout.put_manifest(&repo("net"), &tag("2"), &image(&[])).await);
    assert_eq!(e.failure, Failure::TimedOut);
    assert!(e.to_string().contains("reg.example/net/.tofufs/lock"), "{e}");
    let waiting = store.layout();
    let (name, to, document) = (repo("net"), tag("2"), image(&[]));
    let (put, ()) = tokio::join!(waiting.put_manifest(&name, &to, &document), async { drop(held) });
    put.unwrap();
    // A lock file that somebody replaces meanwhile keeps nobody apart, so it does not count.
    fs::remove_file(store.path("net", ".tofufs/lock")).unwrap();
    put_many(&store, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_the_same_time_lose_nothing() {
    let store = Fixture::new();
    put_many(&store, 24).await;
    let layout = store.layout();
    assert_eq!(layout.tags(&repo("net")).await.unwrap().len(), 24);
    for n in 0..24 {
        let raw = layout.manifest(&repo("net"), &tag(&format!("1.0.{n}"))).await.unwrap();
        assert!(raw.claimed == Some(Digest::of(&raw.bytes)));
    }
    assert_eq!(store.own("net"), ["lock"]);
}

/// Each by an own opening of the store, as processes have it: the lock is one of open files.
async fn put_many(store: &Fixture, count: usize) {
    let writers = (0..count).map(|n| {
        let layout = store.layout();
        tokio::spawn(async move {
            put(&layout, "net", &format!("1.0.{n}"), format!("content {}", n % 5).as_bytes()).await;
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn what_a_dead_writer_left_is_removed_and_what_a_living_one_writes_is_not() {
    let store = Fixture::new();
    put(&store.layout(), "net", "1", b"x").await;
    for name in ["dead.part", "alive.part", "other"] {
        store.write("net", &format!(".tofufs/{name}"), b"begun");
    }
    let alive = File::open(store.path("net", ".tofufs/alive.part")).unwrap();
    flock(&alive, FlockOperation::LockExclusive).unwrap();
    put(&store.layout(), "net", "2", b"x").await;
    assert_eq!(store.own("net"), ["alive.part", "lock", "other"]);
}

#[tokio::test]
async fn layouts_that_are_refused_are_not_written_to() {
    for (file, bytes) in [
        (LAYOUT_FILE, &br#"{"imageLayoutVersion":"2.0.0"}"#[..]),
        (LAYOUT_FILE, b"[]"),
        (INDEX_FILE, b"[]"),
        (INDEX_FILE, br#"{"manifests":[{"digest":"sha256:1"}]}"#),
    ] {
        let store = Fixture::new();
        store.repository("net", &[("1", b"manifest")]);
        store.write("net", file, bytes);
        let before = fs::read(store.path("net", INDEX_FILE)).unwrap();
        let e = error(store.layout().put_manifest(&repo("net"), &tag("2"), &image(&[])).await);
        assert!(e.failure == Failure::Structure && e.to_string().contains(file), "{e}");
        assert_eq!(fs::read(store.path("net", INDEX_FILE)).unwrap(), before);
        assert_eq!(fs::read(store.path("net", file)).unwrap(), bytes);
    }
    // A layout that another program is about to make: index.json comes last there.
    let store = Fixture::new();
    store.write("net", LAYOUT_FILE, br#"{"imageLayoutVersion":"1.0.0"}"#);
    put(&store.layout(), "net", "1", b"x").await;
    assert_eq!(store.layout().tags(&repo("net")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_index_may_name_manifests_that_are_not_there_and_hides_those_that_are() {
    let store = Fixture::new();
    let layout = store.layout();
    let child = put(&layout, "net", "child", b"x").await;
    layout.put_manifest(&repo("net"), &Selector::Digest(child.digest), &child).await.unwrap();
    let entries = [child.digest, Digest::of(b"absent")].map(
        |digest| json!({"mediaType": IMAGE, "digest": digest.to_string(), "size": child.raw.len()}),
    );
    let index = manifest(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}));
    layout.put_manifest(&repo("net"), &tag("1"), &index).await.unwrap();
    assert_eq!(layout.manifest(&repo("net"), &tag("1")).await.unwrap().bytes, index.raw);
    assert_eq!(layout.tags(&repo("net")).await.unwrap().len(), 2);
}
