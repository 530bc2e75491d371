//! The bytes of a plan: in memory, or in a file held by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

use crate::archive::{ArchiveOutput, Limits, ReadAt};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::failure::Refusal;
use crate::oci::Descriptor;
use crate::registry::BlobSource;

/// What is hashed at once.
const PIECE: usize = 256 << 10;

/// A blob to be pushed.
#[derive(Clone, Debug)]
pub struct PushBlob {
    /// By which it is pushed.
    pub descriptor: Descriptor,
    pub(super) content: BlobContent,
}

#[derive(Clone, Debug)]
pub(super) enum BlobContent {
    Memory(Bytes),
    File(Arc<BlobFile>),
}

#[async_trait]
impl BlobSource for PushBlob {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        match &self.content {
            BlobContent::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(start..bytes.len().min(start.saturating_add(len))))
            }
            BlobContent::File(file) => {
                let file = Arc::clone(file);
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; len];
                    let got = rustix::io::retry_on_intr(|| {
                        rustix::io::pread(&file.file, &mut piece, offset)
                    })?;
                    piece.truncate(got);
                    Ok(Bytes::from(piece))
                });
                read.await.unwrap_or_else(|_| Err(io::Error::other("reading ended early")))
            }
        }
    }
}

/// A file that is read, or written and then read, at any offset.
#[derive(Debug)]
pub(super) struct BlobFile {
    pub(super) file: OwnedFd,
    pub(super) len: u64,
}

impl BlobFile {
    /// The file as it is now.
    pub(super) fn of(file: OwnedFd) -> Result<BlobFile, Errno> {
        let len = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        Ok(BlobFile { file, len })
    }

    /// The SHA-256 digest of the content.
    pub(super) fn digest(&self) -> io::Result<Digest> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < self.len {
            let length = usize::try_from(self.len - at).unwrap_or(PIECE).min(PIECE);
            ReadAt::read_exact_at(self, &mut piece[..length], at)?;
            hasher.update(&piece[..length]);
            at += length as u64;
        }
        Ok(hasher.finish())
    }
}

impl ReadAt for BlobFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        read_exact_at(&self.file, buf, offset)
    }
}

fn read_exact_at(file: impl AsFd, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut *buf, offset))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => {
                buf = &mut buf[got..];
                offset += got as u64;
            }
        }
    }
    Ok(())
}

/// An archive while it is written.
pub(super) struct Sealing(pub(super) OwnedFd);

impl ArchiveOutput for Sealing {
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.0, bytes, offset))? {
                0 => return Err(Errno::NOSPC.into()),
                put => {
                    bytes = &bytes[put..];
                    offset += put as u64;
                }
            }
        }
        Ok(())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        read_exact_at(&self.0, buf, offset)
    }
}

/// The directory in which archives are made. What is made there has no name and is gone with its
/// descriptor, so nothing can be put in its place and nothing is left behind by a crash (hostile
/// input L09).
pub struct Workshop {
    dir: OwnedFd,
    name: String,
    limits: Limits,
}

impl Workshop {
    /// Makes archives in the directory `dir`, which messages call `name`.
    pub fn new(dir: OwnedFd, name: &str, limits: Limits) -> Workshop {
        Workshop { dir, name: name.to_owned(), limits }
    }

    /// How large archives may be.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A new file without a name, for reading and writing.
    pub(super) fn file(&self) -> Result<Sealing, Refusal> {
        let failed = |e: Errno| Refusal::io(format!("the directory {}", self.name), e);
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match openat(&self.dir, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => return Ok(Sealing(file)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {}
            Err(e) => return Err(failed(e)),
        }
        let name = format!("{:032x}.tmp", fastrand::u128(..));
        let file = openat(
            &self.dir,
            &name,
            flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW,
            mode,
        );
        let file = file.map_err(failed)?;
        unlinkat(&self.dir, &name, AtFlags::empty()).map_err(failed)?;
        Ok(Sealing(file))
    }
}
