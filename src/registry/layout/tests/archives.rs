//! Stores in one tar.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;

use tar::{EntryType, Header};

use super::*;
use crate::failure::{Failure, Refusal};
use crate::skip::skip;

/// A tar in the making.
#[derive(Default)]
struct Tar(Vec<u8>);

fn header(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header
}

impl Tar {
    fn header(mut self, header: &Header) -> Tar {
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    fn content(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn of_kind(self, name: &str, kind: EntryType) -> Tar {
        self.header(&header(name, kind, 0))
    }

    /// A regular file whose name stands in an extended header, where it is too long for a plain
    /// one.
    fn file(self, name: &str, bytes: &[u8]) -> Tar {
        let size = bytes.len() as u64;
        if name.len() > 100 {
            self.pax(&[("path", name)])
                .header(&header("short", EntryType::Regular, size))
                .content(bytes)
        } else {
            self.header(&header(name, EntryType::Regular, size)).content(bytes)
        }
    }

    fn pax(self, records: &[(&str, &str)]) -> Tar {
        let mut text = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let digits = (rest.len() + 2).to_string().len().max((rest.len() + 3).to_string().len());
            text.push_str(&format!("{}{rest}", rest.len() + digits));
        }
        let bytes = text.as_bytes();
        self.header(&header("pax", EntryType::XHeader, bytes.len() as u64)).content(bytes)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A file, and what opening it as an archive gives.
fn opened(bytes: &[u8]) -> (tempfile::NamedTempFile, Result<LayoutArchive, Refusal>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let archive = LayoutArchive::open(file.path());
    (file, archive)
}

/// The same store as a directory, two repositories with a module each, and the names and bytes of
/// its files.
fn store() -> (Fixture, Vec<(String, Vec<u8>)>) {
    let store = Fixture::new();
    for name in ["acme/net", "acme/net/nested"] {
        let layer = store.blob(name, &format!("the package of {name}").repeat(99).into_bytes());
        let layers = json!([{"mediaType": "archive/zip", "digest": layer.digest.to_string(), "size": layer.size}]);
        let image = json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": layers}).to_string();
        store.repository(name, &[("1.0.0", image.as_bytes()), ("1.1.0", image.as_bytes())]);
    }
    let mut files = Vec::new();
    let mut pending = vec![store.dir.path().to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name =
                    path.strip_prefix(store.dir.path()).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    (store, files)
}

fn packed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    files.iter().fold(Tar::default(), |tar, (name, bytes)| tar.file(name, bytes)).end()
}

/// Everything that the registry `host` of a store says, errors included; with the digests of what
/// its blobs are.
async fn all(registry: &dyn Registry) -> Vec<String> {
    let mut said = vec![format!("{:?}", registry.catalog().await)];
    for name in ["acme/net", "acme/net/nested", "acme", "other"].map(repo) {
        said.push(format!("{:?}", registry.tags(&name).await.map_err(|e| e.failure)));
        for to in ["1.0.0", "1.1.0", "2.0.0"] {
            let raw = registry.manifest(&name, &tag(to)).await;
            said.push(format!("{:?}", raw.as_ref().map(|raw| raw.claimed).map_err(|e| e.failure)));
            said.push(format!(
                "{:?}",
                registry.resolve(&name, &to.parse().unwrap()).await.map_err(|e| e.failure)
            ));
            let Ok(raw) = raw else {
                said.push("no package".to_owned());
                continue;
            };
            let manifest =
                crate::oci::Manifest::parse(raw.bytes, raw.claimed.unwrap(), None).unwrap();
            let crate::oci::ManifestBody::Image(layers) = &manifest.body else {
                panic!("an image")
            };
            let mut sink = MemorySink::default();
            let read = registry.blob(&name, &layers[0], &mut sink).await;
            let failure = read.map_err(|e| match e {
                BlobError::Registry(e) => e.failure,
                BlobError::Sink(_) => panic!("{e}"),
            });
            let intact = Digest::of(&sink.bytes) == layers[0].digest;
            said.push(format!("{failure:?} {intact}"));
        }
    }
    said
}

#[tokio::test]
async fn an_archive_says_what_the_directory_says() {
    let (store, files) = store();
    let wanted = all(&store.layout()).await;
    assert!(
        wanted[0].contains("acme/net/nested") && wanted.contains(&"Ok(()) true".to_owned()),
        "{wanted:?}"
    );
    let (_file, archive) = opened(&packed(&files));
    let archive = Arc::new(archive.unwrap());
    assert_eq!(HostStore::hosts(&*archive).unwrap(), [host()]);
    let holds = |host| HostStore::holds(&*archive, &host);
    assert!(holds(host()) && !holds("other.example".parse().unwrap()));
    assert_eq!(all(archive.registry(&host()).as_ref()).await, wanted);
}

/// With directories, `./` before the names, and what writers of a layout keep for themselves.
#[tokio::test]
async fn archives_of_other_programs_are_read_in_every_format() {
    let (store, _) = store();
    store.write("acme/net", ".tofufs/lock", b"");
    let wanted = all(&store.layout()).await;
    let dir = tempfile::tempdir().unwrap();
    for format in ["gnu", "oldgnu", "pax", "posix", "ustar"] {
        let tar = dir.path().join(format);
        let mut command = Command::new("tar");
        command
            .arg(format!("--format={format}"))
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(store.dir.path())
            .arg(".");
        assert!(command.status().unwrap().success(), "{format}");
        let archive = Arc::new(LayoutArchive::open(&tar).unwrap());
        assert_eq!(all(archive.registry(&host()).as_ref()).await, wanted, "{format}");
    }
}

/// L26
#[test]
fn what_is_no_store_is_refused_with_the_member_and_the_rule() {
    let layout = "reg.example/net/oci-layout";
    let hex = "a".repeat(64);
    let tar = Tar::default;
    for (bytes, says) in [
        (tar().of_kind(layout, EntryType::Symlink).end(), "is a link"),
        (tar().of_kind(layout, EntryType::Link).end(), "is a link"),
        (tar().of_kind(layout, EntryType::Fifo).end(), "no regular file"),
        (tar().of_kind(layout, EntryType::Char).end(), "no regular file"),
        (tar().of_kind(layout, EntryType::GNUSparse).end(), "no regular file"),
        (tar().pax(&[("GNU.sparse.major", "1")]).file(layout, b"").end(), "sparse"),
        (tar().file("/etc/passwd", b"").end(), "no plain relative path"),
        (tar().file("reg.example/../net/oci-layout", b"").end(), "no plain relative path"),
        (tar().of_kind("../", EntryType::Directory).end(), "no plain relative path"),
        (tar().pax(&[("path", "/x")]).file(layout, b"").end(), "no plain relative path"),
        (tar().file(layout, b"a").file(layout, b"b").end(), "there twice"),
        (tar().file(layout, b"a").file(&format!("./{layout}"), b"a").end(), "there twice"),
        (tar().file("README", b"").end(), "no file of an image layout"),
        (tar().file("reg.example/net/blobs/sha256/short", b"").end(), "no file of an image layout"),
        (
            tar().file(&format!("reg.example/net/blobs/md5/{hex}"), b"").end(),
            "no file of an image layout",
        ),
        (tar().file("Upper/net/oci-layout", b"").end(), "in no HOST/REPOSITORY"),
        (tar().file("reg.example/oci-layout", b"").end(), "in no HOST/REPOSITORY"),
        (tar().file("oci-layout", b"").end(), "one image layout"),
        (tar().file(&format!("blobs/sha256/{hex}"), b"").end(), "one image layout"),
        (tar().header(&header("d", EntryType::Directory, 512)).content(b"x").end(), "has content"),
        (
            tar().header(&header("g", EntryType::XGlobalHeader, 9)).content(b"9 path=x\n").end(),
            "global",
        ),
        (tar().header(&header("x", EntryType::XHeader, 1 << 40)).end(), "the limit is 65536"),
        (tar().pax(&[("size", "-1")]).file(layout, b"").end(), "malformed"),
        (b"no tar at all".repeat(100), "no header of a tar"),
        (b"PK\x03\x04".to_vec(), "cut off"),
        (vec![], "cut off"),
    ] {
        let error = opened(&bytes).1.expect_err(says).to_string();
        assert!(error.starts_with("oci-archive:") && error.contains(says), "{error}");
    }
    let failure_of = |path: &Path| LayoutArchive::open(path).map(|_| ()).unwrap_err().failure;
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(failure_of(dir.path()), Failure::Io);
    assert_eq!(failure_of(&dir.path().join("missing")), Failure::Io);
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(failure_of(&pipe), Failure::Io);
}

/// What is after the cut cannot be known, so an archive that is cut at any byte before its end mark
/// is refused.
#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused() {
    let (_, files) = store();
    let whole = packed(&files);
    let contents = whole.len() - 1024;
    for length in (0..contents + 512).step_by(61).chain([contents, contents + 511]) {
        let error = opened(&whole[..length]).1.expect_err("a cut archive");
        assert!(
            error.failure == Failure::Integrity && error.to_string().contains("cut off"),
            "{length}: {error}"
        );
    }
    let member = opened(&whole[..520]).1.unwrap_err().to_string();
    assert!(member.contains("within reg.example/acme/net"), "{member}");
    assert!(opened(&whole[..contents + 512]).1.is_ok());
}

/// A flip in a header is found when the archive is opened, one in a blob by its digest, one in a
/// document by the digest that a writer noted.
#[tokio::test]
async fn a_flipped_bit_in_a_members_content_never_gives_another_byte() {
    let (store, files) = store();
    let wanted = all(&store.layout()).await;
    let mut tar = Tar::default();
    let mut contents = Vec::new();
    for (name, bytes) in &files {
        if !name.contains("blobs") {
            tar = tar.pax(&[("comment", &Digest::of(bytes).to_string())]);
        }
        tar = tar.file(name, bytes);
        let end = tar.0.len() - (bytes.len().next_multiple_of(512) - bytes.len());
        contents.push(end - bytes.len()..end);
    }
    let whole = tar.end();
    let mut random = fastrand::Rng::with_seed(26);
    let (mut flips, mut refused) = (0, 0);
    for content in contents.iter().cycle().take(60) {
        let mut bytes = whole.clone();
        bytes[random.usize(content.clone())] ^= 1 << random.u8(0..8);
        let (_file, archive) = opened(&bytes);
        let said = all(Arc::new(archive.unwrap()).registry(&host()).as_ref()).await;
        flips += 1;
        assert_ne!(said, wanted, "a flip in {content:?} was not found");
        for (now, before) in said.iter().zip(&wanted) {
            let refused =
                now.starts_with("Err(Integrity)") || now.ends_with("false") || now == "no package";
            assert!(refused || now == before, "{now} instead of {before}");
        }
    }
    for at in (0..512).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        refused += usize::from(opened(&bytes).1.is_err());
    }
    assert_eq!((flips, refused), (60, 512usize.div_ceil(7)));
}

#[tokio::test]
async fn an_archive_that_is_written_to_or_replaced_is_not_read_any_more() {
    let (_, files) = store();
    let whole = packed(&files);
    type Change = fn(&Path, &[u8]);
    let changes: [(&str, Change); 4] = [
        ("changed", |path, _| {
            fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"x").unwrap()
        }),
        ("changed", |path, whole| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&whole[700..705], 700).unwrap();
        }),
        ("changed", |path, _| {
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(4096).unwrap()
        }),
        ("replaced", |path, whole| {
            let new = path.with_extension("new");
            fs::write(&new, whole).unwrap();
            fs::rename(&new, path).unwrap();
        }),
    ];
    for (says, change) in changes {
        let (file, archive) = opened(&whole);
        // A moment that no file system's clock takes for the present one.
        file.as_file().set_modified(std::time::UNIX_EPOCH).unwrap();
        drop(archive);
        let archive = Arc::new(LayoutArchive::open(file.path()).unwrap());
        let registry = archive.registry(&host());
        assert!(registry.tags(&repo("acme/net")).await.is_ok());
        change(file.path(), &whole);
        for e in [
            registry.tags(&repo("acme/net")).await.unwrap_err(),
            registry.manifest(&repo("acme/net/nested"), &tag("1.0.0")).await.unwrap_err(),
        ] {
            let text = e.to_string();
            assert!(
                e.failure == Failure::Io && text.contains(says) && text.contains("oci-layout"),
                "{text}"
            );
        }
    }
    let (file, archive) = opened(&whole);
    file.close().unwrap();
    let archive = Arc::new(archive.unwrap());
    assert!(
        archive.registry(&host()).tags(&repo("acme/net")).await.is_ok(),
        "what is held open is what it was"
    );
}

/// Sizes and places beyond what fits into a plain header, in a file that is a hole for the most
/// part.
#[tokio::test]
async fn opening_a_large_archive_reads_its_headers_alone() {
    const HUGE: u64 = 10 << 30;
    let (store, files) = store();
    let file = tempfile::NamedTempFile::new().unwrap();
    let blob = |seed: &[u8]| format!("reg.example/big/blobs/sha256/{}", Digest::of(seed).hex());
    // One larger than the 8 GiB of an octal size, by a pax header, and one by GNU's binary size.
    let by_pax = Tar::default().pax(&[("path", &blob(b"1")), ("size", &HUGE.to_string())]);
    let first = by_pax.header(&header("x", EntryType::Regular, 0)).0;
    let second = Tar::default()
        .pax(&[("path", &blob(b"2"))])
        .header(&header("x", EntryType::Regular, HUGE))
        .0;
    let rest = packed(&files);
    let mut at = 0;
    for (bytes, hole) in [(first, HUGE), (second, HUGE), (rest, 0)] {
        file.as_file().write_all_at(&bytes, at).unwrap();
        at += bytes.len() as u64 + hole;
    }
    let read = || {
        let text = fs::read_to_string("/proc/thread-self/io").ok()?;
        text.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse::<u64>().ok()
    };
    let before = read();
    let archive = LayoutArchive::open(file.path()).unwrap();
    let (Some(before), Some(after)) = (before, read()) else {
        return skip("no /proc/thread-self/io");
    };
    assert!(after - before < 64 << 10, "{} bytes were read", after - before);
    assert_eq!(all(Arc::new(archive).registry(&host()).as_ref()).await, all(&store.layout()).await);
}
