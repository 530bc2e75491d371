//! Releases: from a name to a manifest, from a manifest to a tree, from a tree to content.

mod assumed;
mod content;

use std::ffi::OsStr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::error::{Errno, FsError};
use super::failures::Failures;
use super::node::{Bound, InodeNode, ReleaseNode, TargetNode};
use super::reasons::NodeKey;
use super::speaking::ReferrerView;
use crate::artifact::{Release, Target};
use crate::digest::Digest;
use crate::facts::{Admitted, Facts, Unpacking, VerifiedPackage};
use crate::failure::Subject;
use crate::members::{Child, DirNo, TOP};
use crate::name::{Platform, Reference, Selector};
use crate::oci::Descriptor;
use crate::tree;

pub(super) use content::fill;

/// Files of a provider package that begin like this are plugins: always executable.
const PLUGIN: &[u8] = b"terraform-provider-";

/// What is in releases.
pub(super) struct Releases {
    pub(super) facts: Arc<Facts>,
    pub(super) failures: Arc<Failures>,
    /// What speaks about releases.
    pub(super) speaking: Arc<ReferrerView>,
    /// Whether files are read without being opened.
    pub(super) without_open: bool,
}

impl Releases {
    /// Binds a release's directory to a manifest and reads it.
    pub(super) async fn enter(&self, node: &ReleaseNode) -> Result<Arc<Bound>, FsError> {
        if let Some(bound) = node.bound() {
            return Ok(bound.clone());
        }
        let repo = &node.reference.repo;
        let digest = match (node.digest(), &node.reference.selector) {
            (Some(digest), _) => digest,
            (None, Selector::Digest(digest)) => *digest,
            (None, Selector::Tag(tag)) => self.facts.tags().bind(repo, tag, Instant::now()).await?,
        };
        let digest = node.bind(digest);
        match self.bound(&node.reference, digest).await {
            Ok(bound) => Ok(node.enter(bound)),
            Err(e) => {
                // What may not be opened is not told by what else is wrong with it.
                self.facts.gate().admit(&node.reference, digest).await?;
                Err(e)
            }
        }
    }

    /// The release whose document has `digest`, as it was spelled.
    pub(super) async fn bound(
        &self,
        reference: &Reference,
        digest: Digest,
    ) -> Result<Bound, FsError> {
        let repo = &reference.repo;
        let (document, release) = self.facts.manifests().release_of(reference, digest).await?;
        let reference = reference.clone();
        Ok(Bound { repo: repo.clone(), reference, document, release, package: OnceLock::new() })
    }

    /// Loads the tree of a module package.
    pub(super) async fn module(
        &self,
        bound: &Bound,
        archive: &Descriptor,
    ) -> Result<Arc<VerifiedPackage>, FsError> {
        let leave = self.facts.gate().admit(&bound.reference, bound.document.digest());
        if let Some(package) = bound.package.get() {
            leave.await?;
            return Ok(package.clone());
        }
        let content = self.facts.content();
        let package =
            content.package_by_leave(leave, &bound.repo, archive, Unpacking::Ahead).await?;
        Ok(bound.package.get_or_init(|| package).clone())
    }

    /// Loads the tree of one platform of a provider release.
    pub(super) async fn platform(
        &self,
        node: &TargetNode,
        package: &OnceLock<Arc<VerifiedPackage>>,
    ) -> Result<Arc<VerifiedPackage>, FsError> {
        let admitted = self.admitted_target(node).await?;
        if let Some(package) = package.get() {
            return Ok(package.clone());
        }
        let archive = self.zip_of(node).await?;
        let content = self.facts.content();
        let loaded = content.package(&admitted, node.repo(), archive, Unpacking::Ahead).await?;
        Ok(package.get_or_init(|| loaded).clone())
    }

    /// Leave to read one platform's package: an index's counts for all that it names, and what a
    /// vendor signed for this one alone.
    pub(super) async fn admitted_target(&self, node: &TargetNode) -> Result<Admitted, FsError> {
        let platform = &self.target_of(node).await?.platform;
        let release = node.release().ok_or(FsError::plain(Errno::ENOENT))?;
        let digest = release.document.digest();
        Ok(self.facts.gate().admit_platform(&release.reference, digest, platform).await?)
    }

    /// The zip of one platform of a provider release.
    pub(super) async fn zip_of<'a>(&self, node: &'a TargetNode) -> Result<&'a Descriptor, FsError> {
        let known = match node.known.get() {
            Some(known) => known,
            None => {
                let target = self.target_of(node).await?;
                let known = self.facts.manifests().target(node.repo(), target).await?;
                node.known.get_or_init(|| known)
            }
        };
        Ok(&known.archive)
    }

    /// The platform in its release, which is entered if the platform was only assumed to be there.
    async fn target_of<'a>(&self, node: &'a TargetNode) -> Result<&'a Target, FsError> {
        if let Some(target) = node.target() {
            return Ok(target);
        }
        const MISSING: FsError = FsError::plain(Errno::ENOENT);
        let (directory, _) = node.assumed.as_ref().ok_or(MISSING)?;
        let release = self.enter(directory.release().ok_or(MISSING)?).await?;
        if let Release::Module(_) = release.release {
            // What has the name of a platform there is a directory of the module: the kernel looks
            // it up once more.
            return Err(FsError::plain(Errno::ESTALE));
        }
        node.settle(release.clone()).ok_or_else(|| {
            if let Some((_, platform)) = &node.assumed {
                self.explain_absence(&release, platform);
            }
            MISSING
        })
    }

    /// Says why a platform that was taken to be in a release, as the views show it, is not there.
    fn explain_absence(&self, bound: &Bound, platform: &Platform) {
        if !self.facts.providers().assumes(platform)
            || !self.facts.providers().is_mapped(&bound.repo)
        {
            return;
        }
        let rule = match &bound.release {
            Release::Module(_) => {
                "it is a module and no release of a provider, to which its repository is mapped"
                    .into()
            }
            Release::Provider(targets) => {
                let platforms: Vec<_> =
                    targets.iter().map(|target| target.platform.to_string()).collect();
                format!(
                    "the release has no package for {platform}, only for {}",
                    platforms.join(", ")
                )
            }
        };
        let error = FsError::said(Errno::ENOENT, format!("{}: {rule}", bound.reference));
        if let Some(sentence) = error.sentence() {
            let place = Subject::Platform(bound.reference.clone(), platform.clone(), None);
            self.failures.log.add(NodeKey::Named(place), &error, &sentence);
        }
    }

    /// Finds `name` in the directory `dir` of a release, entering it first.
    pub(super) async fn find(
        &self,
        dir: &Arc<InodeNode>,
        name: &OsStr,
    ) -> Result<Option<InodeNode>, FsError> {
        match dir.as_ref() {
            InodeNode::Release(release) => {
                if let Some(node) = self.assumed(dir, release, name) {
                    return Ok(Some(node));
                }
                if let Some(node) = self.remembered_zip(dir, release, name).await? {
                    return Ok(Some(node));
                }
                self.find_in(self.enter(release).await?, name).await
            }
            InodeNode::Platform(target, package) => {
                Ok(find_member(&self.platform(target, package).await?, TOP, name, true))
            }
            InodeNode::Dir { package, number } => Ok(find_member(package, *number, name, false)),
            _ => Err(FsError::plain(Errno::ENOTDIR)),
        }
    }

    async fn find_in(&self, bound: Arc<Bound>, name: &OsStr) -> Result<Option<InodeNode>, FsError> {
        let found = match &bound.release {
            Release::Module(archive) => {
                find_member(&self.module(&bound, archive).await?, TOP, name, false)
            }
            Release::Provider(targets) => {
                match name.to_str().and_then(|name| tree::release::lookup(targets, name)) {
                    None => None,
                    Some(tree::release::ReleaseEntry::Unpacked(at)) => {
                        Some(InodeNode::platform(bound.clone(), at))
                    }
                    Some(tree::release::ReleaseEntry::Zip(at)) => {
                        let target = TargetNode::new(bound.clone(), at);
                        self.zip_of(&target).await?;
                        Some(InodeNode::Zip(target.into()))
                    }
                }
            }
        };
        let platform = name.to_str().map(|name| name.strip_suffix(".zip").unwrap_or(name));
        if found.is_none()
            && let Some(platform) = platform.and_then(|name| name.parse().ok())
        {
            self.explain_absence(&bound, &platform);
        }
        Ok(found)
    }
}

fn find_member(
    package: &Arc<VerifiedPackage>,
    dir: DirNo,
    name: &OsStr,
    plugins: bool,
) -> Option<InodeNode> {
    Some(member(package, package.members.lookup(dir, name)?, name, plugins))
}

/// Whether a file of that name in the top directory of a provider's package is a plugin.
pub(super) fn is_plugin(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PLUGIN)
}

/// The node of a package's member; `plugins` in the top directory of a provider's package.
pub(super) fn member(
    package: &Arc<VerifiedPackage>,
    child: Child,
    name: &OsStr,
    plugins: bool,
) -> InodeNode {
    match child {
        Child::Dir(number) => InodeNode::Dir { package: package.clone(), number },
        Child::File(number) => {
            let executable = plugins && is_plugin(name);
            InodeNode::File {
                package: package.clone(),
                number,
                executable,
                error: Default::default(),
            }
        }
    }
}
