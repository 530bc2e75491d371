//! Bad input and faults through real mounts: what the caller is told, where the reason stands, what
//! is kept.
//!
//! The registry lies (`support/hostile.rs`), the network, the disk and the daemon fail. Every
//! refusal is looked for in all the places where a user finds it ([`Bed::refused`]), and what is
//! refused is never in the cache.

mod ahead;
mod auth;
mod away;
mod budgets;
mod cache;
mod clock;
mod crash;
mod http2;
mod lies;
mod limits;
mod lists;
mod local;
mod logs;
mod looks;
mod manifests;
mod moves;
mod outages;
mod readers;
mod resolver;
mod tls;

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use serde_json::{Value, json};
use tofufs::artifact::{MODULE, ZIP};
use tofufs::digest::Digest;
use tofufs::oci::IMAGE;

use support::hostile::{Hostile, Seen};
use support::mount::{Mount, Options, finish};
use support::pack::{self, Artifact, Document};
use support::wait_until;

/// No test waits longer for something that has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mount of one or more registries.
struct Bed {
    mount: Mount,
}

impl Bed {
    /// Mounts `servers`, spoken to in the clear; `None` on a machine without FUSE.
    fn over(servers: &[&Hostile], arguments: &[&str]) -> Option<Bed> {
        Bed::with(Options::new(), servers, arguments)
    }

    /// The same, with other options of the test's own.
    fn with(options: Options, servers: &[&Hostile], arguments: &[&str]) -> Option<Bed> {
        let hosts: Vec<_> = servers.iter().map(|s| s.host()).collect();
        let options = hosts.iter().fold(options, |o, host| o.args(["--plain-http", host.as_str()]));
        Mount::start(&hosts, options.args(arguments)).map(|mount| Bed { mount })
    }

    /// The listed path of `HOST/REPO:TAG`.
    fn path(&self, reference: &str) -> PathBuf {
        let at = reference.rfind(':').expect("a reference with a tag");
        self.mount.join(format!("{}/{}", &reference[..at], &reference[at + 1..]))
    }

    /// Opening the release `reference` (`HOST/REPO:TAG`) fails with `errno` both ways, though it is
    /// there; the sentence that says why names it, holds `words`, and stands on the release, in the
    /// log and in the status. Returns it.
    #[track_caller]
    fn refused(&self, reference: &str, errno: Errno, words: &[&str]) -> String {
        let path = self.path(reference);
        assert!(path.is_dir(), "{reference}: what is refused can be stat'ed: {}", self.mount.log());
        self.refused_at(&path, reference, errno, words)
    }

    /// The same of a directory at `path`.
    #[track_caller]
    fn refused_at(&self, path: &Path, reference: &str, errno: Errno, words: &[&str]) -> String {
        self.failed(path, reference, errno, words);
        let looked_up = fs::read(path.join("main.tf")).err();
        assert_eq!(
            errno_of(looked_up),
            Some(errno),
            "{reference}: a name in it: {}",
            self.mount.log()
        );
        self.failed(path, reference, errno, words)
    }

    /// The same of one attempt at opening the directory at `path`, for failures that are not
    /// remembered for long.
    #[track_caller]
    fn failed(&self, path: &Path, reference: &str, errno: Errno, words: &[&str]) -> String {
        let opened = fs::read_dir(path).err();
        assert_eq!(
            errno_of(opened),
            Some(errno),
            "{reference}: opening the directory: {}",
            self.mount.log()
        );
        let sentence = support::mount::xattr(path, "user.tofufs.error").expect("user.tofufs.error");
        self.explained(&sentence, reference, words);
        sentence
    }

    /// The sentence names `reference`, holds `words`, is one line and stands in the log and in the
    /// status.
    #[track_caller]
    fn explained(&self, sentence: &str, reference: &str, words: &[&str]) {
        for word in words.iter().chain([&reference]) {
            assert!(sentence.contains(word), "{sentence:?} lacks {word:?}");
        }
        assert!(!sentence.contains('\n') && sentence.len() < 8 << 10, "{sentence:?}");
        // The log has a writer of its own.
        let logged = wait_until(PATIENCE, || self.mount.log().contains(sentence));
        assert!(logged, "the log lacks {sentence:?}:\n{}", self.mount.log());
        assert!(self.errors().iter().any(|e| e == sentence), "the status lacks {sentence:?}");
    }

    /// What no inode can carry: the last sentence in the status names `subject`, holds `words`, and
    /// is in the log.
    #[track_caller]
    fn reported(&self, subject: &str, words: &[&str]) {
        let errors = self.errors();
        let last = errors.last().expect("a sentence in the status");
        self.explained(last, subject, words);
    }

    fn errors(&self) -> Vec<String> {
        let status = self.mount.status();
        let errors = status["errors"].as_array().expect("a list");
        errors.iter().map(|e| e.as_str().expect("a sentence").to_owned()).collect()
    }

    /// The content of `main.tf` in a release.
    #[track_caller]
    fn main_tf(&self, reference: &str) -> Vec<u8> {
        let path = self.path(reference).join("main.tf");
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: {}", path.display(), self.mount.log()))
    }

    /// The file of a blob in the cache, if it is there under its name.
    fn cached(&self, digest: &Digest) -> Option<PathBuf> {
        cached(&self.mount.cache(), digest)
    }

    /// `tofufs refresh` of a path below the mount point.
    fn refresh(&self, path: impl AsRef<Path>) {
        let mut command = self.mount.command("refresh");
        command.arg(self.mount.join(path));
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
    }

    /// `tofufs cache verify` finds nothing damaged; how many objects it looked at.
    #[track_caller]
    fn cache_is_sound(&self) -> u64 {
        let mut command = self.mount.command("cache");
        command.args(["verify", "--json", "--cache-dir"]).arg(self.mount.cache());
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
        let verified: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        verified["checked"].as_u64().expect("a count")
    }
}

fn cached(cache: &Path, digest: &Digest) -> Option<PathBuf> {
    let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
    let shelves = fs::read_dir(cache.join("v1/blobs")).ok()?;
    shelves
        .map(|shelf| shelf.expect("a readable cache").path().join(&name))
        .find(|f| f.symlink_metadata().is_ok())
}

fn errno_of(error: Option<io::Error>) -> Option<Errno> {
    error.and_then(|e| Errno::from_io_error(&e))
}

/// The errno of reading a whole file.
fn errno_of_reading(path: &Path) -> Option<Errno> {
    errno_of(fs::read(path).err())
}

/// Bytes that no compressor shortens and that differ from seed to seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A number for a name.
fn seed_of(name: &str) -> u64 {
    name.bytes().fold(7, |seed, b| seed.wrapping_mul(31).wrapping_add(u64::from(b)))
}

/// A module package whose `main.tf` is this.
fn module(content: &[u8]) -> Artifact {
    pack::module(&[("main.tf", content)])
}

/// The blob of a module package.
fn package_of(artifact: &Artifact) -> &Vec<u8> {
    artifact.blobs.last().expect("a module has a package")
}

/// A module of a few hundred bytes in `repo` at `1.0.0`; its content and the digest of its package.
fn put_small(server: &Hostile, repo: &str) -> (Vec<u8>, Digest) {
    let content = noise(seed_of(repo), 700);
    let artifact = module(&content);
    server.publish(repo, "1.0.0", &artifact);
    (content, Digest::of(package_of(&artifact)))
}

/// A module manifest as it ought to be, to be spoilt.
fn module_manifest(zip: &[u8]) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": IMAGE, "artifactType": MODULE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}").to_string(), "size": 2},
        "layers": [{"mediaType": ZIP, "digest": Digest::of(zip).to_string(), "size": zip.len()}],
    })
}

/// Matches requests for blobs of a repository.
fn blobs_of(repo: &str) -> impl Fn(&Seen) -> bool + Send + 'static {
    let prefix = format!("/v2/{repo}/blobs/");
    move |seen| seen.path.starts_with(&prefix)
}

/// Matches requests for manifests of a repository.
fn manifests_of(repo: &str) -> impl Fn(&Seen) -> bool + Send + 'static {
    let prefix = format!("/v2/{repo}/manifests/");
    move |seen| seen.path.starts_with(&prefix)
}

/// How often blobs of a repository were asked for.
fn blob_requests(server: &Hostile, repo: &str) -> usize {
    server.requests_to(&format!("/v2/{repo}/blobs/")).len()
}

/// A document as it is pushed.
fn document(value: &Value) -> Document {
    Document { media_type: IMAGE, bytes: value.to_string().into_bytes() }
}
