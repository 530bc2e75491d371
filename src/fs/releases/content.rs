//! The content of files in releases.

use std::sync::Arc;

use super::Releases;
use crate::facts::{Facts, MemberContent};
use crate::failure::Refusal;
use crate::fs::backing::{Backing, ReadWay, checked, large};
use crate::fs::error::{Errno, FsError};
use crate::fs::node::InodeNode;
use crate::fs::referrer::ReferrerPlace;
use crate::store::Key;

/// Reads `content` from `offset` on, until `buf` is full or the content ends.
pub(in crate::fs) fn fill(
    facts: &Facts,
    content: &MemberContent,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize, Refusal> {
    let mut filled = 0;
    while filled < buf.len() {
        match facts.content().read(content, &mut buf[filled..], offset + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

impl Releases {
    /// The whole content of a file, without waiting for a network afterwards.
    pub(in crate::fs) async fn content(&self, node: &InodeNode) -> Result<MemberContent, FsError> {
        match node {
            InodeNode::File { package, number, .. } => {
                self.facts.gate().again(&package.admitted).await?;
                Ok(self.facts.content().open(package, *number).await?)
            }
            InodeNode::Zip(target) => {
                self.confirm(target).await?;
                let admitted = self.admitted_target(target).await?;
                let (content, layer) = (self.facts.content(), self.zip_of(target).await?);
                Ok(MemberContent::Object(content.blob(&admitted, target.repo(), layer).await?))
            }
            InodeNode::Referrers { place, .. } => self.speaking.content(place).await,
            InodeNode::Document(bytes) => Ok(MemberContent::Bytes(bytes.clone())),
            InodeNode::Lock => Ok(MemberContent::Bytes(Arc::new([]))),
            InodeNode::Link(_) => Err(FsError::plain(Errno::ELOOP)),
            _ => Err(FsError::plain(Errno::EISDIR)),
        }
    }

    /// The content of a file that turned out to be damaged, fetched anew.
    pub(in crate::fs) async fn healed(&self, node: &InodeNode) -> Result<MemberContent, FsError> {
        match node {
            InodeNode::File { package, number, .. } => {
                Ok(self.facts.content().heal(package, *number).await?)
            }
            InodeNode::Zip(target) => {
                self.facts.content().drop_object(&Key::Blob(self.zip_of(target).await?.digest));
                self.content(node).await
            }
            InodeNode::Referrers { place, .. } => {
                if let ReferrerPlace::Layer(_, layer) = place.as_ref() {
                    self.facts.content().drop_object(&Key::Blob(layer.digest));
                }
                self.content(node).await
            }
            _ => Err(FsError::plain(Errno::EISDIR)),
        }
    }

    /// The backing of `content`, where it has one: checked as a whole, and fetched anew if it is
    /// damaged.
    pub(in crate::fs) async fn backed(
        &self,
        node: &InodeNode,
        content: MemberContent,
    ) -> Result<(MemberContent, ReadWay), FsError> {
        let Some(object) = large(&content) else { return Ok((content, ReadWay::Plain)) };
        if object.fd().is_none() {
            return Ok((content, ReadWay::Backed(None)));
        }
        if object.is_whole() {
            return Ok((content, ReadWay::Backed(Some(Backing::whole(object)))));
        }
        if let Ok(backing) = checked(object).await {
            return Ok((content, ReadWay::Backed(backing)));
        }
        let content = self.healed(node).await?;
        let Some(object) = large(&content) else { return Ok((content, ReadWay::Plain)) };
        let backing = checked(object).await?;
        Ok((content, ReadWay::Backed(backing)))
    }

    /// Content that is read on a thread that may wait for the disk.
    pub(in crate::fs) async fn read_blocking(
        &self,
        content: MemberContent,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, Refusal> {
        let facts = self.facts.clone();
        let read = move || {
            let mut buf = vec![0; size];
            let filled = fill(&facts, &content, offset, &mut buf)?;
            buf.truncate(filled);
            Ok(buf)
        };
        crate::facts::blocking(read).await?
    }
}
