//! Carrying what speaks about an artifact: it comes into the list of the artifact's referrers where it
//! goes.

use super::{CarriedArtifact, Copy, CopyError};
use crate::failure::Failure;
use crate::name::{Repo, Selector, Tag};
use crate::oci::Manifest;
use crate::registry::Upload;
use crate::registry::referrers::attach;

impl Copy<'_> {
    /// Makes sure that what speaks about the artifact is there, and listed as such.
    pub(super) async fn referrers(
        &self,
        artifact: &CarriedArtifact,
        to: &dyn Upload,
    ) -> Result<(u64, u64), CopyError> {
        let (named, speaking) = (&artifact.graph.blobs, &artifact.graph.referrers);
        let blobs = speaking.blobs.iter().filter(|(digest, _)| !named.contains_key(digest));
        let sent = self.blobs(artifact, blobs.map(|(_, blob)| blob), to).await?;
        for manifest in &speaking.manifests {
            self.attach(&artifact.to, manifest, to).await?;
            let tags = speaking.tags.iter().filter(|(_, digest)| **digest == manifest.digest);
            for (tag, _) in tags {
                self.tagged(&artifact.to, manifest, tag, to).await?;
            }
        }
        Ok(sent)
    }

    /// Has what speaks about a release stand under the tag by which it is found. Other signatures
    /// that stand there are not lost.
    async fn tagged(
        &self,
        repo: &Repo,
        manifest: &Manifest,
        tag: &Tag,
        to: &dyn Upload,
    ) -> Result<(), CopyError> {
        let selector = Selector::Tag(tag.clone());
        let there = match to.present(&repo.name, &selector).await {
            Err(e) if e.failure == Failure::Absent => None,
            there => there?,
        };
        match there {
            Some(there) if there == manifest.digest => {}
            Some(there) if !self.allow_overwrite => {
                tracing::warn!("{}: other signatures ({there}) stay there", repo.at(selector));
            }
            _ => to.put_manifest(&repo.name, &selector, manifest).await?,
        }
        Ok(())
    }

    /// Has a manifest that speaks about another one listed as doing so.
    pub(super) async fn attach(
        &self,
        repo: &Repo,
        manifest: &Manifest,
        to: &dyn Upload,
    ) -> Result<(), CopyError> {
        let at = || repo.at(Selector::Digest(manifest.digest));
        let Some(subject) = manifest.subject().map_err(|e| e.about(at()))? else { return Ok(()) };
        let told = |what: &str| tracing::warn!("{repo}@{}: {what}", subject.digest);
        Ok(attach(to, repo, manifest, &subject.digest, &told).await?)
    }
}
