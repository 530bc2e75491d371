//! The store's laws, each on a cache directory of its own.

mod ahead;
mod damage;
mod edges;
mod full;
mod objects;
mod pins;
mod shared;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::memory::Memory;
use super::sums::CHUNK;
use super::*;
use crate::digest::Digest;
use crate::failure::Failure;
use crate::members::FileNo;

const BIG: u64 = 1 << 30;

struct Cache {
    dir: tempfile::TempDir,
    store: Arc<Store>,
}

impl Cache {
    fn new() -> Self {
        Cache::limited(BIG)
    }

    fn limited(limit: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), limit);
        Cache { dir, store }
    }

    /// Another store on the same directory, as another process would have.
    fn again(&self) -> Arc<Store> {
        open(self.dir.path(), BIG)
    }

    fn file(&self, key: &Key) -> PathBuf {
        file(self.dir.path(), key)
    }

    fn sidecar(&self, key: &Key) -> PathBuf {
        let mut path = self.file(key).into_os_string();
        path.push(SIDECAR);
        path.into()
    }

    fn partial(&self, key: &Key) -> PathBuf {
        self.dir.path().join("v1/tmp").join(format!("{}{PARTIAL}", key.file_name()))
    }

    fn temporaries(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("v1/tmp")).unwrap().count()
    }
}

fn open(dir: &Path, limit: u64) -> Arc<Store> {
    let store = Store::open(StoreOptions { dir: dir.to_owned(), limit }).unwrap();
    // Waits for the count, which runs in the background.
    store.usage();
    store
}

fn file(dir: &Path, key: &Key) -> PathBuf {
    let kind = if matches!(key, Key::Blob(_)) { "blobs" } else { "members" };
    dir.join("v1").join(kind).join(key.shard()).join(key.file_name())
}

fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

fn blob(bytes: &[u8]) -> Key {
    Key::Blob(Digest::of(bytes))
}

fn member(number: u32) -> Key {
    Key::Member { archive: Digest::of(b"an archive"), number: FileNo(number) }
}

fn fill(store: &Arc<Store>, key: &Key, size: usize) -> Fill {
    match store.begin(key, size as u64).unwrap() {
        Begin::Fill(fill) => fill,
        other => panic!("a fill, not {other:?}"),
    }
}

fn put(store: &Arc<Store>, key: &Key, bytes: &[u8]) -> Object {
    let mut fill = fill(store, key, bytes.len());
    for part in bytes.chunks(10_000) {
        fill.write(part).unwrap();
    }
    fill.publish().unwrap()
}

/// Writes over a file of the cache, whatever its mode.
fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
