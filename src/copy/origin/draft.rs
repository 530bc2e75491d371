//! A package while it arrives: in a file without a name, hashed as it is written.

use std::io;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use bytes::Bytes;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::facts::blocking;
use crate::failure::Refusal;
use crate::registry::{BlobSink, SinkError};

/// How much is written at once.
const PIECE: usize = 1 << 20;

/// A package that arrives.
pub struct PackageDraft {
    /// None after the disk has failed.
    written: Option<Written>,
    /// What came and is not written yet.
    pending: Vec<u8>,
    failure: Option<io::Error>,
}

struct Written {
    file: OwnedFd,
    hasher: Hasher,
    length: u64,
}

impl Written {
    fn add(mut self, mut bytes: &[u8]) -> io::Result<Written> {
        self.hasher.update(bytes);
        while !bytes.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.file, bytes, self.length))?
            {
                0 => return Err(rustix::io::Errno::NOSPC.into()),
                put => {
                    bytes = &bytes[put..];
                    self.length += put as u64;
                }
            }
        }
        Ok(self)
    }

    fn emptied(self) -> io::Result<Written> {
        rustix::fs::ftruncate(&self.file, 0)?;
        Ok(Written::new(self.file))
    }

    fn new(file: OwnedFd) -> Written {
        Written { file, hasher: Hasher::new(Algorithm::Sha256), length: 0 }
    }
}

impl PackageDraft {
    /// One in an empty file.
    pub fn new(file: OwnedFd) -> PackageDraft {
        PackageDraft {
            written: Some(Written::new(file)),
            pending: Vec::with_capacity(PIECE),
            failure: None,
        }
    }

    /// The file, and the digest of all that is in it.
    ///
    /// # Errors
    /// The disk has failed; `place` is what messages call it.
    pub async fn finish(mut self, place: &str) -> Result<(OwnedFd, Digest), Refusal> {
        if self.flush().await.is_err() {
            return Err(self.failure(place));
        }
        match self.written {
            Some(written) => Ok((written.file, written.hasher.finish())),
            None => Err(Refusal::lost(place)),
        }
    }

    /// Why nothing more was taken.
    pub fn failure(self, place: &str) -> Refusal {
        match self.failure {
            Some(error) => Refusal::io(format!("the directory {place}"), error),
            None => Refusal::lost(place),
        }
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        let bytes = std::mem::take(&mut self.pending);
        self.change(move |written| written.add(&bytes)).await
    }

    /// Does something to what is written, where waiting for the disk holds nobody up.
    async fn change(
        &mut self,
        change: impl FnOnce(Written) -> io::Result<Written> + Send + 'static,
    ) -> Result<(), SinkError> {
        let written = self.written.take().ok_or(SinkError)?;
        match blocking(move || change(written)).await {
            Ok(Ok(written)) => {
                self.written = Some(written);
                Ok(())
            }
            Ok(Err(error)) => {
                self.failure = Some(error);
                Err(SinkError)
            }
            Err(_) => Err(SinkError),
        }
    }
}

#[async_trait]
impl BlobSink for PackageDraft {
    fn position(&self) -> u64 {
        self.written.as_ref().map_or(0, |written| written.length) + self.pending.len() as u64
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        self.pending.extend_from_slice(&chunk);
        if self.pending.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.pending.clear();
        self.change(Written::emptied).await
    }
}
