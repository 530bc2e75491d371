//! Artifacts written as image layouts: a store `DIR/HOST/REPO`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tofufs::digest::Digest;

use super::pack::Artifact;

/// The path of a blob in the layout `dir`.
pub fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// Puts `artifact` under `tag` into `store/host/repo`, which is made where it does not exist;
/// returns the layout.
pub fn add(store: &Path, host: &str, repo: &str, tag: &str, artifact: &Artifact) -> PathBuf {
    let dir = store.join(host).join(repo);
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a writable store");
    fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("a writable store");
    let documents = artifact.manifests.iter().map(|m| &m.bytes);
    for bytes in artifact.blobs.iter().chain(documents) {
        fs::write(blob_path(&dir, &Digest::of(bytes)), bytes).expect("a writable store");
    }
    let path = dir.join("index.json");
    let mut index: Value = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).expect("an index of ours"),
        Err(_) => json!({"schemaVersion": 2, "manifests": []}),
    };
    let entries = index["manifests"].as_array_mut().expect("a list");
    entries.retain(|e| e["annotations"]["org.opencontainers.image.ref.name"] != tag);
    let root = artifact.root();
    entries.push(json!({"mediaType": root.media_type, "digest": root.digest().to_string(), "size": root.bytes.len(),
        "annotations": {"org.opencontainers.image.ref.name": tag}}));
    let temporary = dir.join("index.json.new");
    fs::write(&temporary, index.to_string()).expect("a writable store");
    fs::rename(&temporary, &path).expect("a writable store");
    dir
}
