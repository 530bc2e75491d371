//! What earlier runs found out about one repository, so that it is not asked for again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::moment::Moment;
use crate::name::{Tag, Version};
use crate::oci::Manifest;

/// See the module. It is a JSON document between runs.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MirrorMemory {
    /// What tags stand for: the documents.
    #[serde(default)]
    releases: BTreeMap<String, String>,
    /// When versions were published, in seconds since 1970, or else were seen first.
    #[serde(default)]
    seen: BTreeMap<String, u64>,
}

impl MirrorMemory {
    /// Reads the document; what is none is no memory.
    pub fn parse(document: &[u8]) -> MirrorMemory {
        serde_json::from_slice(document).unwrap_or_default()
    }

    /// The document.
    pub fn document(&self) -> Vec<u8> {
        // Maps of texts and numbers: nothing in it can be refused.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Forgets what tags stand for, so that the repository is asked.
    pub fn forget_releases(&mut self) {
        self.releases.clear();
    }

    /// The index for which `tag` stands.
    pub(super) fn release(&self, tag: &Tag) -> Option<Manifest> {
        let raw = self.releases.get(tag.as_str())?.as_bytes();
        Manifest::parse(raw.into(), Digest::of(raw), None).ok()
    }

    pub(super) fn note_release(&mut self, tag: &Tag, index: &Manifest) {
        let document = String::from_utf8_lossy(&index.raw).into_owned();
        self.releases.insert(tag.to_string(), document);
    }

    /// Forgets what is not among `tags` any more.
    pub(super) fn keep_releases(&mut self, tags: &std::collections::BTreeSet<Tag>) {
        self.releases.retain(|tag, _| tag.parse().is_ok_and(|tag: Tag| tags.contains(&tag)));
    }

    pub(super) fn published(&self, version: &Version) -> Option<Moment> {
        self.seen.get(&version.to_string()).copied().map(Moment::at)
    }

    pub(super) fn note_published(&mut self, version: &Version, at: Moment) {
        self.seen.insert(version.to_string(), at.seconds());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::PROVIDER;
    use crate::oci::write::index;

    #[test]
    fn a_document_is_read_as_it_was_written_and_another_is_no_memory() {
        let mut memory = MirrorMemory::default();
        let index = index(PROVIDER, &[], &BTreeMap::new()).unwrap();
        let tag: Tag = "1.0.0".parse().unwrap();
        let version: Version = "1.0.0+b".parse().unwrap();
        memory.note_release(&tag, &index);
        memory.note_published(&version, Moment::at(7));
        let mut read = MirrorMemory::parse(&memory.document());
        assert_eq!(read, memory);
        assert_eq!(read.release(&tag).unwrap().digest, index.digest);
        assert_eq!(read.published(&version), Some(Moment::at(7)));
        read.forget_releases();
        assert!(read.release(&tag).is_none());
        assert_eq!(MirrorMemory::parse(b"{"), MirrorMemory::default());
    }
}
