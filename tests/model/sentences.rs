//! What a user is told when a release cannot be read: one sentence, which names what was opened
//! once.

use std::ffi::OsStr;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tofufs::failure::Failure;
use tofufs::fs::{Errno, Fs, FsError, Lookup, ROOT, ReadTarget, Thread};
use tokio::runtime::Runtime;

use crate::kernel::{mount, open_store};
use crate::memory::MemoryRegistry;
use crate::pack::{Artifact, module_of, zip};
use crate::registry::registry_of;
use crate::truth::HOST;

/// A mount of one artifact, `r.test/a:1`.
struct Mounted {
    runtime: Runtime,
    fake: Arc<MemoryRegistry>,
    fs: Arc<Fs>,
    digest: String,
    archive: String,
    _cache: tempfile::TempDir,
}

fn mounted(artifact: &Artifact) -> Mounted {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fake = Arc::new(registry_of(&["a"], std::slice::from_ref(artifact), true));
    fake.set_tag("a", "1", Some(artifact.digest()));
    let cache = tempfile::tempdir().unwrap();
    let fs = mount(&fake, &open_store(&cache), Duration::from_secs(60), false);
    let archive = tofufs::digest::Digest::of(artifact.blobs.last().unwrap()).to_string();
    Mounted { runtime, fake, fs, digest: artifact.digest().to_string(), archive, _cache: cache }
}

impl Mounted {
    fn find(&self, path: &[&str]) -> Result<u64, FsError> {
        let mut at = ROOT;
        for name in path {
            at = match self.runtime.block_on(self.fs.clone().lookup(
                Thread(0),
                at,
                OsStr::new(name).into(),
            ))? {
                Lookup::Found(entry) => entry.attr.ino,
                Lookup::Absent(_) => panic!("{name} is absent"),
            };
        }
        Ok(at)
    }

    fn read(&self, ino: u64) -> Result<Vec<u8>, FsError> {
        let handle = self.runtime.block_on(self.fs.clone().open(ino, false))?.handle;
        let mut buf = vec![0; 100];
        let read = match self.fs.read(ReadTarget::Handle(handle), 0, &mut buf) {
            Ok(Some(read)) => Ok(buf[..read].to_vec()),
            Ok(None) => self.runtime.block_on(self.fs.clone().read_again(
                ReadTarget::Handle(handle),
                0,
                100,
            )),
            Err(e) => Err(e),
        };
        self.fs.release(handle);
        read
    }
}

/// A zip in which the CRC of `content` is wrong wherever it stands.
fn wrong(name: &str, content: &[u8]) -> Vec<u8> {
    let mut zip = zip(&[("right", b"right"), (name, content)]);
    let crc = crc32fast::hash(content).to_le_bytes();
    let places: Vec<usize> =
        zip.windows(4).enumerate().filter(|(_, w)| *w == crc).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 2, "a local header and a central one");
    places.iter().for_each(|at| zip[*at] ^= 0xff);
    zip
}

// Z: a CRC that does not fit, of a member that is inflated when read, and of one that is unpacked.
#[test]
fn a_wrong_member_is_an_error_that_names_it_and_is_not_fetched_again() {
    for size in [9, 400_000] {
        let content: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let m = mounted(&module_of(wrong("d/wrong\u{202e}.tf", &content)));
        let ino = m.find(&[HOST, "a", "1", "d", "wrong\u{202e}.tf"]).unwrap();
        for _ in 0..3 {
            let error = m.read(ino).unwrap_err();
            assert_eq!(error.errno, Errno::EIO);
            let sentence = error.sentence().unwrap();
            let begins = format!("r.test/a@{} file \"d/wrong\\u{{202e}}.tf\": ", m.archive);
            assert!(sentence.starts_with(&begins), "{sentence}");
            assert_eq!(sentence.matches(&m.archive).count(), 1, "{sentence}");
            let told = m.fs.getxattr(ino, "user.tofufs.error".as_ref()).unwrap();
            assert_eq!(told, sentence.as_bytes());
        }
        assert_eq!(m.read(m.find(&[HOST, "a", "1", "right"]).unwrap()).unwrap(), b"right");
        assert!(m.fake.state().downloads.values().all(|&n| n == 1), "size {size}");
    }
}

#[test]
fn a_refused_release_is_named_once() {
    let m = mounted(&module_of(b"no zip".to_vec()));
    let ino = m.find(&[HOST, "a", "1"]).unwrap();
    let error = m.runtime.block_on(m.fs.clone().opendir(Thread(0), ino)).unwrap_err();
    assert_eq!(error.errno, Errno::EBADMSG);
    let sentence = error.sentence().unwrap();
    assert!(sentence.starts_with(&format!("r.test/a:1 ({}): ", m.digest)), "{sentence}");
    assert_eq!(sentence.matches("r.test").count(), 1, "{sentence}");
}

#[test]
fn a_reason_outlives_the_inode_that_the_kernel_forgot() {
    let m = mounted(&module_of(b"no zip".to_vec()));
    let ino = m.find(&[HOST, "a", "1"]).unwrap();
    let sentence =
        m.runtime.block_on(m.fs.clone().opendir(Thread(0), ino)).unwrap_err().sentence().unwrap();
    m.fs.forget(ino, 9);
    let again = m.find(&[HOST, "a", "1"]).unwrap();
    assert_ne!(again, ino, "the kernel forgot it");
    let told =
        |name: &str| m.fs.getxattr(again, name.as_ref()).map(|v| String::from_utf8(v).unwrap());
    assert_eq!(told("user.tofufs.error").unwrap(), *sentence);
    assert_eq!(told("user.oci.artifact_type").unwrap(), tofufs::artifact::MODULE);
    assert_eq!(told("user.tofu.zh").unwrap(), m.archive.replace("sha256", "zh"));
    // What was forgotten on purpose is told by the next failure.
    m.fs.refresh("".as_ref());
    m.fs.forget(again, 9);
    let after = m.find(&[HOST, "a", "1"]).unwrap();
    assert_eq!(
        m.fs.getxattr(after, "user.tofufs.error".as_ref()),
        Err(FsError::plain(Errno::ENODATA))
    );
}

/// What cannot be read is no proof that a name exists.
#[test]
fn a_registry_that_speaks_another_protocol_shows_no_names() {
    let m = mounted(&module_of(zip(&[("f", b"")])));
    m.find(&[HOST, "a"]).unwrap();
    m.fake.state().failing = Some(Failure::Protocol);
    for name in ["zz", "1", "README.md"] {
        assert_eq!(m.find(&[HOST, "a", name]).unwrap_err().errno, Errno::EPROTO, "{name}");
    }
    assert_eq!(m.find(&[HOST, "a:1"]).unwrap_err().errno, Errno::EPROTO);
}

/// Requests still come in while a mount ends. They are polled on the thread that serves the kernel.
#[test]
fn an_operation_ends_though_its_runtime_has() {
    let Mounted { runtime, fs, _cache, .. } = mounted(&module_of(zip(&[("f", b"")])));
    let host = match runtime.block_on(fs.clone().lookup(Thread(0), ROOT, OsStr::new(HOST).into())) {
        Ok(Lookup::Found(entry)) => entry.attr.ino,
        other => panic!("{other:?}"),
    };
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let (done, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _entered = handle.enter();
        let mut operation = std::pin::pin!(fs.lookup(Thread(0), host, OsStr::new("a").into()));
        // A runtime takes a moment to end.
        let answer = loop {
            match operation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => break answer,
                Poll::Pending => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        // Nobody waits any more where the test has failed already.
        drop(done.send(answer));
    });
    match outcome.recv_timeout(Duration::from_secs(20)).expect("an answer") {
        Err(e) => assert_eq!(e.errno, Errno::EIO),
        other => panic!("{other:?}"),
    }
}
