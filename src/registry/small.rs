//! Blobs that are small enough to be held in memory.

use async_trait::async_trait;
use bytes::Bytes;

use super::{BlobError, BlobSink, Registry, SinkError};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{Repo, Selector};
use crate::oci::Descriptor;

/// The bytes of a blob, which have its digest.
///
/// # Errors
/// `TooLarge` over `limit`; `Integrity` where it is something else; those of [`Registry::blob`].
pub async fn small_blob(
    registry: &dyn Registry,
    repo: &Repo,
    blob: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>, Refusal> {
    let at = || repo.at(Selector::Digest(blob.digest));
    if blob.size > limit {
        let rule = format!("it has {} bytes; the limit is {limit}", blob.size);
        return Err(Refusal::new(Failure::TooLarge, at(), rule));
    }
    let mut held = HeldBytes(Vec::new());
    registry.blob(&repo.name, blob, &mut held).await.map_err(|e| match e {
        BlobError::Registry(e) => e,
        BlobError::Sink(e) => Refusal::new(Failure::Io, at(), e),
    })?;
    let got = Digest::of_with(blob.digest.algorithm(), &held.0);
    if got == blob.digest {
        return Ok(held.0);
    }
    Err(Refusal::new(Failure::Integrity, at(), format_args!("the blob's digest is {got}")))
}

/// A back end gives no more than the size that was asked for.
struct HeldBytes(Vec<u8>);

#[async_trait]
impl BlobSink for HeldBytes {
    fn position(&self) -> u64 {
        self.0.len() as u64
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        self.0.extend_from_slice(&chunk);
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.0.clear();
        Ok(())
    }
}
