//! Large files that the kernel may read by itself (passthrough).

use std::os::fd::{AsFd, BorrowedFd};

use super::kernel_cache::Caching;
use crate::facts::MemberContent;
use crate::failure::Refusal;
use crate::store::Object;

/// Files of at least this many bytes are worth a backing file.
const LARGE: u64 = 1 << 20;

/// A file of the store that was checked as a whole and holds exactly the content of an inode.
#[derive(Clone, Debug)]
pub struct Backing(Object);

impl Backing {
    /// That of a file of the store that was checked as a whole.
    pub(super) fn whole(object: Object) -> Backing {
        Backing(object)
    }

    /// Whether both are the same file, so that the kernel sees one content under one inode.
    pub fn is_same(&self, other: &Backing) -> bool {
        match (rustix::fs::fstat(self), rustix::fs::fstat(other)) {
            (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
            _ => false,
        }
    }
}

impl AsFd for Backing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Only objects with a descriptor become a backing.
        self.0.fd().unwrap_or(rustix::fs::CWD)
    }
}

/// How an open file can be read.
#[derive(Debug)]
pub enum ReadWay {
    /// By asking for its bytes.
    Plain,
    /// By asking for its bytes, which are those of a file on local disk that may be written
    /// meanwhile.
    Local(Caching),
    /// By the kernel, if it is not open plainly; `None` for content that is in memory only (the
    /// disk is full), and for a file to which somebody can write: that is checked at every read.
    Backed(Option<Backing>),
}

/// An open file.
#[derive(Debug)]
pub struct OpenedFile {
    /// Its handle.
    pub handle: u64,
    /// How it can be read.
    pub reading: ReadWay,
}

/// The file of the store that holds `content`, where the content is large.
pub(super) fn large(content: &MemberContent) -> Option<Object> {
    match content {
        MemberContent::Object(object) if object.len() >= LARGE => Some(object.clone()),
        _ => None,
    }
}

/// The backing that `object` is, where it is not damaged; `None` where the kernel may not read it.
pub(super) async fn checked(object: Object) -> Result<Option<Backing>, Refusal> {
    let whole = object.clone();
    let is_sure = crate::facts::blocking(move || whole.make_sure_whole()).await??;
    Ok(is_sure.then_some(Backing(object)))
}
