//! What is told of a provider's release before anybody enters it, so that following the links of
//! the views costs few requests.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Instant;

use super::Releases;
use crate::fs::error::{Errno, FsError};
use crate::fs::node::{InodeNode, ReleaseNode, TargetNode};
use crate::name::{Platform, Reference, Selector, Tag, Version, ZipName};
use crate::tree::Fact;
use crate::tree::providers::Offered;

impl Releases {
    /// The tag of a provider's release that nobody entered yet, and the platform in it that is
    /// shown.
    fn shown_in<'a>(
        &self,
        release: &'a ReleaseNode,
        platform: &str,
    ) -> Option<(&'a Tag, Platform)> {
        let Selector::Tag(tag) = &release.reference.selector else { return None };
        let platform: Platform = platform.parse().ok()?;
        Version::of_tag(tag)?;
        let is_shown = self.facts.providers().assumes(&platform)
            && self.facts.providers().is_mapped(&release.reference.repo);
        (is_shown && release.bound().is_none()).then_some((tag, platform))
    }

    /// What `name` is in the release of a provider that nobody entered yet: a platform that is
    /// shown is assumed to be there. So following the links of `plugins/` binds no tag and costs no
    /// request.
    pub(super) fn assumed(
        &self,
        dir: &Arc<InodeNode>,
        release: &ReleaseNode,
        name: &OsStr,
    ) -> Option<InodeNode> {
        let (tag, platform) = self.shown_in(release, name.to_str()?)?;
        let reference = &release.reference;
        if let Fact::Is(platforms) = self.facts.view(Instant::now()).platforms(&reference.repo, tag)
            && !platforms.contains(&platform)
        {
            return None;
        }
        let target = TargetNode::assumed(dir.clone(), reference.clone(), platform);
        Some(InodeNode::Platform(target.into(), Default::default()))
    }

    /// What the zip `name` is in such a release: that of the manifest for which the tag stood last.
    /// So following the links of `mirror/` costs two small requests per version, ever; whether the
    /// tag has moved is asked when it is opened.
    pub(super) async fn remembered_zip(
        &self,
        dir: &Arc<InodeNode>,
        release: &ReleaseNode,
        name: &OsStr,
    ) -> Result<Option<InodeNode>, FsError> {
        let stem = name.to_str().and_then(|name| name.strip_suffix(".zip"));
        let Some((tag, platform)) = stem.and_then(|stem| self.shown_in(release, stem)) else {
            return Ok(None);
        };
        // There files are read without being opened.
        if self.without_open {
            return Ok(None);
        }
        let reference = &release.reference;
        let repo = &reference.repo;
        let digest = match self.facts.tags().remembered_binding(repo, tag).await {
            Some(digest) => digest,
            None if self.facts.manifests().are_of_providers(&repo.host) => {
                return self.offered_zip(dir, reference, tag, platform).await.map(Some);
            }
            None => self.facts.tags().bind(repo, tag, Instant::now()).await?,
        };
        let Ok(bound) = self.bound(reference, digest).await else { return Ok(None) };
        let Some(target) = TargetNode::remembered(dir.clone(), Arc::new(bound), platform) else {
            return Ok(None);
        };
        self.zip_of(&target).await?;
        Ok(Some(InodeNode::Zip(target.into())))
    }

    /// A zip of a release that no mount has resolved: what its registry says of it. Opening it
    /// resolves the release and checks it.
    async fn offered_zip(
        &self,
        dir: &Arc<InodeNode>,
        reference: &Reference,
        tag: &Tag,
        platform: Platform,
    ) -> Result<InodeNode, FsError> {
        const MISSING: FsError = FsError::plain(Errno::ENOENT);
        let kind = reference.repo.name.components().last().ok_or(MISSING)?.to_owned();
        let version = Version::of_tag(tag).ok_or(MISSING)?;
        let zip = ZipName { kind, version, platform: platform.clone() };
        let offered = self.facts.manifests().offered(&reference.repo, &zip).await?;
        let target = TargetNode::offered(dir.clone(), reference.clone(), platform, offered);
        Ok(InodeNode::Zip(target.into()))
    }

    /// Whether a zip that was remembered is still what its tag stands for.
    ///
    /// # Errors
    /// ESTALE if it is not: the kernel looks the name up once more.
    pub(super) async fn confirm(&self, target: &TargetNode) -> Result<(), FsError> {
        if let Some((digest, reference)) = target.unconfirmed()
            && let Selector::Tag(tag) = &reference.selector
            && self.facts.tags().bind(&reference.repo, tag, Instant::now()).await? != digest
        {
            return Err(FsError::plain(Errno::ESTALE));
        }
        Ok(())
    }
}
