//! The cache's own key: what tells a file that this cache wrote from one that was put there.
//!
//! One random key per cache directory, readable by its owner only. Each use has a key of its own
//! derived from it, so that a seal made for one purpose means nothing for another.

/// Length of a seal, in bytes.
pub(super) const SEAL_LEN: usize = blake3::OUT_LEN;

/// Keys derived from the cache's key.
#[derive(Clone)]
pub(super) struct Seals {
    chunks: [u8; 32],
    sidecars: [u8; 32],
    edges: [u8; 32],
    names: [u8; 32],
}

impl Seals {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Seals {
            chunks: blake3::derive_key("tofufs cache v1 chunk checksums", key),
            sidecars: blake3::derive_key("tofufs cache v1 sidecars", key),
            edges: blake3::derive_key("tofufs cache v1 edges", key),
            names: blake3::derive_key("tofufs cache v1 names of edges", key),
        }
    }

    /// The key of chunk checksums.
    pub(super) fn chunks(&self) -> [u8; 32] {
        self.chunks
    }

    /// The seal of a sidecar's bytes.
    pub(super) fn sidecar(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.sidecars, bytes)
    }

    /// The seal of an edge's bytes.
    pub(super) fn edge(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.edges, bytes)
    }

    /// The file name of the edge `name`.
    pub(super) fn edge_file(&self, name: &str) -> String {
        blake3::keyed_hash(&self.names, name.as_bytes()).to_hex().to_string()
    }
}

impl std::fmt::Debug for Seals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seals")
    }
}
