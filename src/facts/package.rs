//! A package that was verified, and the bytes in it.

use std::io;
use std::sync::Arc;

use super::admit::admitted::Admitted;
use crate::archive;
use crate::members::{FileNo, Members};
use crate::name::{Reference, Repo, Selector};
use crate::oci::Descriptor;
use crate::store::Object;

/// Members of at most this many bytes are inflated when they are read; larger ones are kept in the
/// store, unpacked.
pub(super) const SMALL_MAX: u64 = 256 << 10;

/// A package whose archive was verified and whose index was read.
#[derive(Debug)]
pub struct VerifiedPackage {
    /// Leave to read it.
    pub admitted: Admitted,
    /// Where its archive can be fetched again.
    pub repo: Repo,
    /// The archive.
    pub archive: Descriptor,
    /// Its tree.
    pub members: Members,
}

impl VerifiedPackage {
    /// The reference of the archive.
    pub fn reference(&self) -> Reference {
        self.repo.at(Selector::Digest(self.archive.digest))
    }
}

/// A member's bytes, ready to be read without waiting.
#[derive(Clone, Debug)]
pub enum MemberContent {
    /// A file of the store: a blob as it is, or an unpacked member.
    Object(Object),
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// A small member, inflated from its archive when it is read.
    Small {
        /// The archive, kept from eviction while this value lives.
        archive: Object,
        /// The package.
        package: Arc<VerifiedPackage>,
        /// Which member.
        number: FileNo,
    },
}

/// An archive in the store as the archive reader reads it.
pub(super) struct StoredArchive<'a>(pub(super) &'a Object);

impl archive::ReadAt for StoredArchive<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.0.read_at(buf, offset).map_err(io::Error::other)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }
}
