mod archives;
mod writing;

use std::fs;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use bytes::Bytes;
use rustix::fs::{FileType, Mode};
use serde_json::{Value, json};

use super::super::HostStore;
use super::*;
use crate::failure::Failure;
use crate::memory::MemorySink;
use crate::oci::layout::{INDEX_FILE, LAYOUT_FILE, LayoutPart};
use crate::oci::{IMAGE, MANIFEST_MAX};

/// A store in a directory of its own, written file by file.
struct Fixture {
    dir: tempfile::TempDir,
}

const HOST: &str = "reg.example";

fn blob_path(digest: &Digest) -> String {
    LayoutPart::Blob(*digest).to_string()
}

fn host() -> Host {
    HOST.parse().unwrap()
}

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn tag(text: &str) -> Selector {
    Selector::Tag(text.parse().unwrap())
}

impl Fixture {
    fn new() -> Self {
        Fixture { dir: tempfile::tempdir().unwrap() }
    }

    fn layout(&self) -> RegistryLayout {
        RegistryLayout::open(self.dir.path(), &host()).unwrap()
    }

    fn path(&self, repo: &str, file: &str) -> PathBuf {
        self.dir.path().join(HOST).join(repo).join(file)
    }

    fn write(&self, repo: &str, file: &str, bytes: &[u8]) {
        let path = self.path(repo, file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn blob(&self, repo: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        self.write(repo, &blob_path(&digest), bytes);
        descriptor(digest, bytes.len() as u64)
    }

    /// A layout whose manifests are `(ref.name, bytes)`.
    fn repository(&self, repo: &str, manifests: &[(&str, &[u8])]) {
        self.write(repo, LAYOUT_FILE, br#"{"imageLayoutVersion":"1.0.0"}"#);
        let entries: Vec<Value> = manifests
            .iter()
            .map(|(name, bytes)| {
                let blob = self.blob(repo, bytes);
                json!({"mediaType": IMAGE, "digest": blob.digest.to_string(), "size": blob.size,
                    "annotations": {"org.opencontainers.image.ref.name": name}})
            })
            .collect();
        self.write(
            repo,
            INDEX_FILE,
            json!({"schemaVersion": 2, "manifests": entries}).to_string().as_bytes(),
        );
    }
}

fn descriptor(digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: "archive/zip".into(),
        digest,
        size,
        artifact_type: None,
        platform: None,
        annotations: Default::default(),
    }
}

fn failure<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Failure {
    result.expect_err("a failure").failure
}

fn blob_failure(result: Result<(), BlobError>) -> Failure {
    match result {
        Err(BlobError::Registry(e)) => e.failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tags_are_the_ref_names_sorted_and_once() {
    let store = Fixture::new();
    store.repository(
        "acme/net",
        &[("1.1.0", b"b"), ("reg.example/acme/net:1.0.0", b"a"), ("1.1.0", b"b"), ("..", b"c")],
    );
    let layout = store.layout();
    let tags = layout.tags(&repo("acme/net")).await.unwrap();
    assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["1.0.0", "1.1.0"]);
    assert_eq!(
        failure(layout.tags(&repo("acme")).await),
        Failure::Absent,
        "a directory above a layout is none"
    );
    assert_eq!(failure(layout.tags(&repo("acme/other")).await), Failure::Absent);
    let elsewhere =
        RegistryLayout::open(store.dir.path(), &"other.example".parse().unwrap()).unwrap();
    assert_eq!(failure(elsewhere.tags(&repo("acme/net")).await), Failure::Absent);
}

#[tokio::test]
async fn a_manifest_is_found_by_tag_and_by_any_digest_among_the_blobs() {
    let store = Fixture::new();
    store.repository("net", &[("1.0.0", b"manifest")]);
    let child = store.blob("net", b"child").digest;
    let long = Digest::of_with(crate::digest::Algorithm::Sha512, b"long");
    store.write("net", &blob_path(&long), b"long");
    let layout = store.layout();
    let digest = Digest::of(b"manifest");
    assert_eq!(
        layout.resolve(&repo("net"), &"1.0.0".parse().unwrap()).await.unwrap(),
        Some(digest)
    );
    for (selector, bytes) in [
        (tag("1.0.0"), &b"manifest"[..]),
        (Selector::Digest(digest), b"manifest"),
        (Selector::Digest(child), b"child"),
        (Selector::Digest(long), b"long"),
    ] {
        let raw = layout.manifest(&repo("net"), &selector).await.unwrap();
        assert_eq!(&raw.bytes[..], bytes);
        assert_eq!(raw.claimed, Some(Digest::of_with(raw.claimed.unwrap().algorithm(), bytes)));
    }
    for selector in [tag("2.0.0"), Selector::Digest(Digest::of(b"unknown"))] {
        assert_eq!(
            failure(layout.manifest(&repo("net"), &selector).await),
            Failure::Absent,
            "{selector}"
        );
    }
}

#[tokio::test]
async fn what_is_written_into_the_index_is_seen_by_the_next_call() {
    let store = Fixture::new();
    store.repository("net", &[("1.0.0", b"first")]);
    let layout = store.layout();
    let one = "1.0.0".parse().unwrap();
    assert_eq!(layout.resolve(&repo("net"), &one).await.unwrap(), Some(Digest::of(b"first")));
    store.repository("net", &[("1.0.0", b"second"), ("2.0.0", b"third")]);
    assert_eq!(layout.resolve(&repo("net"), &one).await.unwrap(), Some(Digest::of(b"second")));
    assert_eq!(layout.tags(&repo("net")).await.unwrap().len(), 2);
}

/// As skopeo does: each document is truncated in its place, then written.
#[tokio::test]
async fn a_document_that_is_being_rewritten_is_waited_for() {
    use std::io::Write;
    let store = Fixture::new();
    let manifest = br#"{"schemaVersion":2}"#;
    store.repository("net", &[("1.0.0", manifest)]);
    let documents =
        [LAYOUT_FILE.to_owned(), INDEX_FILE.to_owned(), blob_path(&Digest::of(manifest))];
    let documents = documents
        .map(|name| (store.path("net", &name), fs::read(store.path("net", &name)).unwrap()));
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            for (path, content) in &documents {
                let mut file = File::create(path).unwrap();
                let (begin, end) = content.split_at(content.len() / 2);
                file.write_all(begin).unwrap();
                file.write_all(end).unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let layout = store.layout();
    for _ in 0..500 {
        assert_eq!(layout.tags(&repo("net")).await.unwrap().len(), 1);
        assert_eq!(
            layout.manifest(&repo("net"), &tag("1.0.0")).await.unwrap().bytes[..],
            manifest[..]
        );
    }
    drop(stop);
    writer.join().unwrap();
}

#[tokio::test]
async fn a_tag_of_two_manifests_is_refused_and_the_others_are_not() {
    let store = Fixture::new();
    store.repository("net", &[("1", b"a"), ("x:1", b"b"), ("2", b"c")]);
    let layout = store.layout();
    let error = layout.manifest(&repo("net"), &tag("1")).await.unwrap_err();
    assert_eq!(error.failure, Failure::Structure);
    for digest in [Digest::of(b"a"), Digest::of(b"b")] {
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
    }
    assert!(layout.manifest(&repo("net"), &tag("2")).await.is_ok());
}

#[tokio::test]
async fn a_blob_streams_in_pieces_from_the_position_of_its_sink() {
    let store = Fixture::new();
    store.repository("net", &[]);
    let bytes: Vec<u8> = (0..3 * PIECE + 17).map(|i| (i % 251) as u8).collect();
    let blob = store.blob("net", &bytes);
    let layout = store.layout();
    for held in [0, 1, PIECE, bytes.len()] {
        let mut sink = MemorySink::that_holds(&bytes[..held]);
        layout.blob(&repo("net"), &blob, &mut sink).await.unwrap();
        assert!(sink.bytes == bytes && sink.largest <= PIECE, "from {held}");
    }
    let mut too_far = MemorySink::that_holds(&vec![0; bytes.len() + 1]);
    layout.blob(&repo("net"), &blob, &mut too_far).await.unwrap();
    assert!(too_far.bytes == bytes);
    let empty = store.blob("net", b"");
    let mut sink = MemorySink::default();
    layout.blob(&repo("net"), &empty, &mut sink).await.unwrap();
    assert!(sink.bytes.is_empty());
}

/// L26
#[tokio::test]
async fn a_blob_that_is_missing_of_another_size_or_no_file_is_an_integrity_failure() {
    let store = Fixture::new();
    store.repository("net", &[("1", b"manifest")]);
    let outside = store.dir.path().join("outside");
    fs::write(&outside, b"linked").unwrap();
    let linked = descriptor(Digest::of(b"linked"), 6);
    symlink(&outside, store.path("net", &blob_path(&linked.digest))).unwrap();
    let directory = descriptor(Digest::of(b"directory"), 9);
    fs::create_dir(store.path("net", &blob_path(&directory.digest))).unwrap();
    let pipe = descriptor(Digest::of(b"pipe"), 4);
    let pipe_path = store.path("net", &blob_path(&pipe.digest));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe_path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let short = Descriptor { size: 4, ..store.blob("net", b"short") };
    let layout = store.layout();
    for blob in [linked, directory, pipe, short, descriptor(Digest::of(b"missing"), 7)] {
        let mut sink = MemorySink::default();
        let result = layout.blob(&repo("net"), &blob, &mut sink).await;
        assert_eq!(blob_failure(result), Failure::Integrity, "{}", blob.digest);
        assert!(sink.bytes.is_empty());
    }
    fs::remove_file(store.path("net", &blob_path(&Digest::of(b"manifest")))).unwrap();
    for selector in [tag("1"), Selector::Digest(Digest::of(b"manifest"))] {
        assert_eq!(
            failure(layout.manifest(&repo("net"), &selector).await),
            Failure::Integrity,
            "{selector}"
        );
    }
}

/// L26
#[tokio::test]
async fn a_manifest_whose_name_or_size_is_not_its_content_is_an_integrity_failure() {
    let store = Fixture::new();
    store.repository("net", &[("1", b"manifest"), ("2", b"other")]);
    store.write("net", &blob_path(&Digest::of(b"manifest")), b"MANIFEST");
    store.write("net", &blob_path(&Digest::of(b"other")), b"other and more");
    for name in ["1", "2"] {
        assert_eq!(
            failure(store.layout().manifest(&repo("net"), &tag(name)).await),
            Failure::Integrity,
            "{name}"
        );
    }
}

/// L26, R29
#[tokio::test]
async fn documents_over_their_limit_are_refused() {
    let store = Fixture::new();
    store.repository("net", &[]);
    let big = store.blob("net", &vec![b' '; MANIFEST_MAX as usize + 1]);
    let layout = store.layout();
    let selector = Selector::Digest(big.digest);
    assert_eq!(failure(layout.manifest(&repo("net"), &selector).await), Failure::TooLarge);
    let index = fs::File::options().write(true).open(store.path("net", INDEX_FILE)).unwrap();
    index.set_len(1 << 30).unwrap();
    assert_eq!(failure(layout.tags(&repo("net")).await), Failure::TooLarge);
}

/// L26
#[tokio::test]
async fn a_layout_of_another_structure_is_refused_with_the_reason() {
    let broken = |file: &str, bytes: Option<&[u8]>| {
        let store = Fixture::new();
        store.repository("net", &[("1", b"manifest")]);
        match bytes {
            Some(bytes) => store.write("net", file, bytes),
            None => {
                let moved = store.dir.path().join("moved");
                fs::rename(store.path("net", file), &moved).unwrap();
                symlink(&moved, store.path("net", file)).unwrap();
            }
        }
        store
    };
    for (file, bytes) in [
        (LAYOUT_FILE, Some(&br#"{"imageLayoutVersion":"2.0.0"}"#[..])),
        (LAYOUT_FILE, Some(b"")),
        (LAYOUT_FILE, None),
        (INDEX_FILE, Some(b"[]")),
        (INDEX_FILE, Some(br#"{"manifests":[],"Manifests":[]}"#)),
        (INDEX_FILE, None),
    ] {
        let error = broken(file, bytes).layout().tags(&repo("net")).await.unwrap_err();
        assert_eq!(error.failure, Failure::Structure, "{file}: {error}");
        assert!(
            error.to_string().contains(file) && error.to_string().contains("reg.example/net"),
            "{error}"
        );
    }
    let store = Fixture::new();
    store.repository("net", &[("1", b"manifest")]);
    fs::remove_file(store.path("net", INDEX_FILE)).unwrap();
    assert_eq!(failure(store.layout().tags(&repo("net")).await), Failure::Structure);
}

/// L26
#[tokio::test]
async fn a_repository_behind_a_symbolic_link_is_refused() {
    let (store, elsewhere) = (Fixture::new(), Fixture::new());
    elsewhere.repository("net", &[("1", b"manifest")]);
    fs::create_dir_all(store.path("", "")).unwrap();
    symlink(elsewhere.path("net", ""), store.path("", "net")).unwrap();
    symlink(elsewhere.path("", ""), store.path("", "up")).unwrap();
    let layout = store.layout();
    for name in ["net", "up/net"] {
        assert_eq!(failure(layout.tags(&repo(name)).await), Failure::Structure, "{name}");
    }
    assert_eq!(layout.catalog().await.unwrap(), []);
}

#[tokio::test]
async fn the_catalog_is_every_layout_below_the_host() {
    let store = Fixture::new();
    assert_eq!(
        store.layout().catalog().await.unwrap(),
        [],
        "a host without a directory holds nothing"
    );
    for name in ["net", "acme/net", "acme/net/nested", "a/b/c/d", "blobs/net"] {
        store.repository(name, &[]);
    }
    store.repository("net/blobs/hidden", &[]);
    store.write("Upper", LAYOUT_FILE, b"");
    store.write("not-one", "README", b"");
    let catalog = store.layout().catalog().await.unwrap();
    let names: Vec<_> = catalog.iter().map(RepoName::as_str).collect();
    assert_eq!(names, ["a/b/c/d", "acme/net", "acme/net/nested", "blobs/net", "net"]);
}

#[test]
fn the_hosts_of_a_store_are_its_directories() {
    let store = Fixture::new();
    for name in ["reg.example", "localhost:5000", "staging", ".git"] {
        fs::create_dir(store.dir.path().join(name)).unwrap();
    }
    fs::write(store.dir.path().join("file.example"), b"").unwrap();
    let directory = LayoutDirectory::open(store.dir.path()).unwrap();
    let hosts = HostStore::hosts(&directory).unwrap();
    assert_eq!(
        hosts.iter().map(Host::as_str).collect::<Vec<_>>(),
        ["localhost:5000", "reg.example"]
    );
    for name in ["localhost:5000", "reg.example", "file.example", "none.example"] {
        let host: Host = name.parse().unwrap();
        assert_eq!(HostStore::holds(&directory, &host), hosts.contains(&host), "{name}");
    }
    let missing = store.dir.path().join("missing");
    let opened = |dir: &Path| LayoutDirectory::open(dir).map(|_| ());
    assert_eq!(failure(opened(&missing)), Failure::Io);
    // `oci:DIR` is one layout to other tools; mounted, it would be an empty store.
    let layout = tempfile::tempdir().unwrap();
    std::fs::write(layout.path().join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let error = opened(layout.path()).unwrap_err().to_string();
    assert!(error.contains("one image layout") && error.contains("HOST/REPOSITORY"), "{error}");
    assert_eq!(failure(RegistryLayout::open(&missing, &host()).map(|_| ())), Failure::Io);
}
