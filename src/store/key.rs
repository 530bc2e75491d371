//! What objects are known by, and how that is written as the name of a file.

use std::fmt;

use super::sums::CHUNK;
use crate::digest::Digest;
use crate::members::FileNo;

/// What an object is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Key {
    /// Bytes with that digest: a zip or a manifest.
    Blob(Digest),
    /// The inflated content of a file of a zip. Its fills are trusted to have checked it against
    /// the zip (CRC-32).
    Member {
        /// The zip.
        archive: Digest,
        /// The file in it.
        number: FileNo,
    },
}

impl Key {
    /// The digest that the content has to have, where it is known.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Key::Blob(digest) => Some(*digest),
            Key::Member { .. } => None,
        }
    }

    /// Whether `bytes` are the content, as far as the key alone tells.
    pub(super) fn matches(&self, bytes: &[u8]) -> bool {
        self.digest().is_none_or(|digest| Digest::of_with(digest.algorithm(), bytes) == digest)
    }

    /// Whether content of that length is checked whole at opening instead of in chunks.
    pub(super) fn is_small(&self, len: u64) -> bool {
        matches!(self, Key::Blob(_)) && len <= CHUNK as u64
    }

    pub(super) fn file_name(&self) -> String {
        let of = |digest: &Digest| format!("{}-{}", digest.algorithm().name(), digest.hex());
        match self {
            Key::Blob(digest) => of(digest),
            Key::Member { archive, number } => format!("{}-{}", of(archive), number.0),
        }
    }

    pub(super) fn shard(&self) -> String {
        let (Key::Blob(digest) | Key::Member { archive: digest, .. }) = self;
        digest.hex()[..2].to_owned()
    }

    pub(super) fn blob_from(file_name: &str) -> Option<Key> {
        file_name.replacen('-', ":", 1).parse().ok().map(Key::Blob)
    }

    pub(super) fn member_from(file_name: &str) -> Option<Key> {
        let (archive, number) = file_name.rsplit_once('-')?;
        let key = Key::Member {
            archive: archive.replacen('-', ":", 1).parse().ok()?,
            number: FileNo(number.parse().ok()?),
        };
        (key.file_name() == file_name).then_some(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Blob(digest) => write!(f, "{digest}"),
            Key::Member { archive, number } => write!(f, "file {} of {archive}", number.0),
        }
    }
}
