//! Large files that the kernel may read by itself (passthrough), and contents that are read without
//! being opened.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::Fs;
use super::error::FsError;
use super::kernel_cache::Caching;
use super::node::InodeNode;
use crate::facts::MemberContent;
use crate::failure::Refusal;
use crate::store::Object;

/// Files of at least this many bytes are worth a backing file.
const LARGE: u64 = 1 << 20;

/// A file of the store that was checked as a whole and holds exactly the content of an inode.
#[derive(Clone, Debug)]
pub struct Backing(Object);

impl Backing {
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

impl Fs {
    /// The backing of `content`, where it has one: checked as a whole, and fetched anew if it is
    /// damaged.
    pub(super) async fn backed(
        self: &Arc<Self>,
        node: &InodeNode,
        content: MemberContent,
    ) -> Result<(MemberContent, ReadWay), FsError> {
        let Some(object) = large(&content) else { return Ok((content, ReadWay::Plain)) };
        if object.fd().is_none() {
            return Ok((content, ReadWay::Backed(None)));
        }
        if object.is_whole() {
            return Ok((content, ReadWay::Backed(Some(Backing(object)))));
        }
        if let Ok(sure) = checked(object.clone()).await {
            return Ok((content, ReadWay::Backed(sure.then_some(Backing(object)))));
        }
        let content = self.healed(node).await?;
        let Some(object) = large(&content) else { return Ok((content, ReadWay::Plain)) };
        let backing = checked(object.clone()).await?.then_some(Backing(object));
        Ok((content, ReadWay::Backed(backing)))
    }

    /// Makes the next lookup of `ino`'s name find another inode: what is open under this one has
    /// other bytes than its name has now.
    pub fn supersede(&self, ino: u64) {
        self.inodes.supersede(ino);
    }
}

fn large(content: &MemberContent) -> Option<Object> {
    match content {
        MemberContent::Object(object) if object.len() >= LARGE => Some(object.clone()),
        _ => None,
    }
}

/// Whether the kernel may read it, where it is not damaged.
async fn checked(object: Object) -> Result<bool, Refusal> {
    crate::facts::blocking(move || object.make_sure_whole()).await?.map_err(Refusal::from)
}
