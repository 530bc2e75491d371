//! A cache that heals: mounts whose cache files, disk, descriptors and neighbours fail them. One
//! law above all: no read returns a wrong byte.

mod commands;
mod damage;
mod descriptors;
mod disk;
mod doctor;
mod eviction;
mod sharing;

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::fs::{Advice, fadvise};
use serde_json::Value;
use tofufs::digest::Digest;

use support::hostile::Hostile;
use support::mount::{Mount, Options};
use support::pack;

/// Bytes that no compression makes smaller, other ones for each seed.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// A registry with module releases `acme/net`, tagged `1.0.0`, `1.0.1`, …; the files of each with
/// their contents.
struct Releases {
    server: Hostile,
    files: Vec<(PathBuf, Vec<u8>)>,
    packages: Vec<Digest>,
}

impl Releases {
    /// Each release has a member of each of these sizes in bytes.
    fn new(releases: u64, sizes: &[usize]) -> Releases {
        let server = Hostile::start();
        let (mut files, mut packages) = (Vec::new(), Vec::new());
        for release in 0..releases {
            let members: Vec<(String, Vec<u8>)> = (0u64..)
                .zip(sizes)
                .map(|(n, size)| (format!("m{n}.bin"), content(*size, release << 16 | n)))
                .collect();
            let zipped: Vec<(&str, &[u8])> =
                members.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
            let artifact = pack::module(&zipped);
            for blob in &artifact.blobs {
                server.put_blob(blob);
            }
            let (tag, root) = (format!("1.0.{release}"), artifact.root());
            server.put_manifest("acme/net", Some(&tag), root.media_type, &root.bytes);
            packages.push(Digest::of(&artifact.blobs[1]));
            let dir = Path::new(&server.host()).join("acme/net").join(tag);
            files.extend(members.into_iter().map(|(name, content)| (dir.join(name), content)));
        }
        Releases { server, files, packages }
    }

    fn options(&self) -> Options {
        Options::new().args(["--plain-http", &self.server.host(), "--deadline", "10s"])
    }

    /// A mount of the registry; `None`, with the reason printed, where there can be none.
    fn mount(&self, options: Options) -> Option<Mount> {
        Mount::start(&[self.server.host()], options)
    }

    /// How often packages were asked for.
    fn downloads(&self) -> usize {
        self.server.requests().iter().filter(|seen| seen.path.contains("/blobs/")).count()
    }

    /// Reads every file; all must be right.
    #[track_caller]
    fn all_right(&self, mount: &Mount) {
        for (path, wanted) in &self.files {
            right(&mount.join(path), wanted);
        }
    }
}

/// The file's bytes, none of them from the kernel's memory, where they would hide what the cache
/// holds.
fn read_fresh(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut bytes = Vec::new();
    let read = file.read_to_end(&mut bytes);
    fadvise(&file, 0, None, Advice::DontNeed)?;
    read.map(|_| bytes)
}

#[track_caller]
fn right(path: &Path, wanted: &[u8]) {
    match read_fresh(path) {
        Ok(bytes) => assert!(bytes == wanted, "wrong bytes in {}", path.display()),
        Err(e) => panic!("{}: {e}", path.display()),
    }
}

/// All regular files below `dir`.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()))
        } else {
            found.push(entry.path())
        }
    }
    found.sort();
    found
}

/// The cache's files that hold content or its checksums.
fn objects(cache: &Path) -> Vec<PathBuf> {
    ["blobs", "members"].iter().flat_map(|kind| files_below(&cache.join("v1").join(kind))).collect()
}

/// What `tofufs cache verify` finds damaged.
fn damaged(mount: &Mount) -> usize {
    let mut command = mount.command("cache");
    command.args(["verify", "--json", "--cache-dir"]).arg(mount.cache());
    json(&support::mount::finish(command))["bad"].as_array().unwrap().len()
}

/// The JSON that a command printed.
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Resident memory of the daemon, in KiB.
fn resident(mount: &Mount) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
