//! What an inode stands for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::area::LocalNode;
use super::attr::FoundEntry;
use super::referrer::ReferrerPlace;
use crate::artifact::{Release, ReleaseDocument, Target};
use crate::digest::Digest;
use crate::facts::{Facts, TargetPackage, VerifiedPackage};
use crate::failure::Subject;
use crate::local::Stat;
use crate::mapping::Mapping;
use crate::members::{DirNo, FileNo};
use crate::name::{Host, Platform, Reference, Repo, Selector};
use crate::oci::Descriptor;
use crate::tree::providers::ProviderDirectory;
use crate::tree::registry::RegistrySpace;

/// A view of providers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProviderView {
    /// Unpacked packages.
    Plugins,
    /// Packed ones.
    Mirror,
    /// Unpacked packages, and what clients put beside them.
    PluginCache,
}

impl ProviderView {
    const ALL: [ProviderView; 3] =
        [ProviderView::Mirror, ProviderView::PluginCache, ProviderView::Plugins];

    /// The views that the root holds: none without a mapping.
    pub(super) fn shown(mapping: &Mapping) -> impl Iterator<Item = ProviderView> {
        let is_mapped = !mapping.rules().is_empty();
        ProviderView::ALL.into_iter().filter(move |_| is_mapped)
    }

    /// Its name in the root.
    pub(super) const fn name(self) -> &'static str {
        match self {
            ProviderView::Plugins => "plugins",
            ProviderView::Mirror => "mirror",
            ProviderView::PluginCache => "plugin-cache",
        }
    }

    pub(super) fn node(self, dir: ProviderDirectory) -> InodeNode {
        InodeNode::Providers { view: self, dir: dir.into(), error: LastError::default() }
    }
}

/// What a node knows of its own reason: one byte, since there may be hundreds of thousands of
/// nodes.
#[derive(Debug, Default)]
pub(super) struct LastError(AtomicBool);

impl LastError {
    /// Whether nothing is kept of the node. Of one that is new something may be.
    pub(super) fn is_fine(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set_fine(&self, is_fine: bool) {
        self.0.store(is_fine, Ordering::Relaxed);
    }
}

/// A release that was entered.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) repo: Repo,
    /// As it was spelled when it was entered.
    pub(super) reference: Reference,
    pub(super) document: ReleaseDocument,
    pub(super) release: Release,
    /// The tree of a module package, once it was loaded.
    pub(super) package: OnceLock<Arc<VerifiedPackage>>,
}

impl Bound {
    /// The platforms of a provider release.
    pub(super) fn targets(&self) -> &[Target] {
        match &self.release {
            Release::Provider(targets) => targets,
            Release::Module(_) => &[],
        }
    }
}

/// The directory of a release. It is bound to a digest at most once; a tag that moved is another
/// directory.
#[derive(Debug)]
pub(super) struct ReleaseNode {
    pub(super) reference: Reference,
    digest: OnceLock<Digest>,
    bound: OnceLock<Arc<Bound>>,
    error: LastError,
}

impl ReleaseNode {
    pub(super) fn new(reference: Reference, digest: Option<Digest>) -> Self {
        let node = ReleaseNode {
            reference,
            digest: OnceLock::new(),
            bound: OnceLock::new(),
            error: LastError::default(),
        };
        if let Some(digest) = digest {
            node.bind(digest);
        }
        node
    }

    /// The digest to which the directory is bound.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest.get().copied()
    }

    /// Binds the directory, if it is not bound yet; the digest to which it is bound.
    pub(super) fn bind(&self, digest: Digest) -> Digest {
        *self.digest.get_or_init(|| digest)
    }

    pub(super) fn bound(&self) -> Option<&Arc<Bound>> {
        self.bound.get()
    }

    pub(super) fn enter(&self, bound: Bound) -> Arc<Bound> {
        self.bound.get_or_init(|| Arc::new(bound)).clone()
    }
}

/// One platform of a provider release.
#[derive(Debug)]
pub(super) struct TargetNode {
    /// The release as it was spelled.
    reference: Reference,
    /// The release and the platform's place in it; later for one that is assumed to be in a
    /// release.
    place: OnceLock<(Arc<Bound>, usize)>,
    /// The directory of the release and the platform that it is assumed to have.
    pub(super) assumed: Option<(Arc<InodeNode>, Platform)>,
    /// Its manifest and zip, once they were needed: from then on the size of the zip stays known.
    pub(super) known: OnceLock<TargetPackage>,
    /// What a provider registry said of the zip, where its release was not looked into.
    offered: OnceLock<Descriptor>,
    error: LastError,
}

impl TargetNode {
    pub(super) fn new(release: Arc<Bound>, at: usize) -> Self {
        let reference = release.reference.clone();
        let place = OnceLock::from((release, at));
        TargetNode {
            reference,
            place,
            assumed: None,
            known: OnceLock::new(),
            offered: OnceLock::new(),
            error: LastError::default(),
        }
    }

    /// A platform that the release in the directory `node` is assumed to have, until it is entered.
    pub(super) fn assumed(node: Arc<InodeNode>, reference: Reference, platform: Platform) -> Self {
        TargetNode {
            reference,
            place: OnceLock::new(),
            assumed: Some((node, platform)),
            known: OnceLock::new(),
            offered: OnceLock::new(),
            error: LastError::default(),
        }
    }

    /// A platform of the release that the tag in the directory `node` stood for when it was asked
    /// for last.
    pub(super) fn remembered(
        node: Arc<InodeNode>,
        release: Arc<Bound>,
        platform: Platform,
    ) -> Option<Self> {
        let target = TargetNode::assumed(node, release.reference.clone(), platform);
        target.settle(release)?;
        Some(target)
    }

    /// A platform of which a provider registry says that this is its zip.
    pub(super) fn offered(
        node: Arc<InodeNode>,
        reference: Reference,
        platform: Platform,
        zip: Descriptor,
    ) -> Self {
        let target = TargetNode::assumed(node, reference, platform);
        target.offered.get_or_init(|| zip);
        target
    }

    /// The document of the release, and the release as it was spelled, if the tag may stand for
    /// another one by now.
    pub(super) fn unconfirmed(&self) -> Option<(Digest, &Reference)> {
        let (release, _) = self.place.get()?;
        self.assumed.as_ref().map(|_| (release.document.digest(), &self.reference))
    }

    /// Whether both are the same package.
    pub(super) fn is_same(&self, other: &TargetNode) -> bool {
        let named = |node: &TargetNode| node.target().map(Target::digest);
        named(self) == named(other)
    }

    /// Where the release is.
    pub(super) fn repo(&self) -> &Repo {
        &self.reference.repo
    }

    /// Its place in the release, if the release has it.
    pub(super) fn settle(&self, release: Arc<Bound>) -> Option<&Target> {
        if self.place.get().is_none() {
            let (_, platform) = self.assumed.as_ref()?;
            let at = release.targets().binary_search_by(|t| t.platform.cmp(platform)).ok()?;
            self.place.get_or_init(|| (release, at));
        }
        self.target()
    }

    /// The release in which it is, once that is known.
    pub(super) fn release(&self) -> Option<&Arc<Bound>> {
        self.place.get().map(|(release, _)| release)
    }

    pub(super) fn target(&self) -> Option<&Target> {
        let (release, at) = self.place.get()?;
        release.targets().get(*at)
    }

    /// Its manifest and zip, if that needs no request.
    pub(super) fn known(&self, facts: &Facts) -> Option<&TargetPackage> {
        if self.known.get().is_none() {
            let known = facts.manifests().known_target(self.repo(), self.target()?)?;
            return Some(self.known.get_or_init(|| known));
        }
        self.known.get()
    }

    /// The size of its zip, if that needs no request.
    pub(super) fn size(&self, facts: &Facts) -> Option<u64> {
        let archive = self.known(facts).map(|package| &package.archive);
        archive.or(self.offered.get()).map(|archive| archive.size)
    }

    fn subject(&self) -> Subject {
        let reference = self.reference.clone();
        match (self.target(), &self.assumed) {
            (Some(target), _) => {
                let digest = target.digest();
                Subject::Platform(reference, target.platform.clone(), Some(digest))
            }
            (None, Some((_, platform))) => Subject::Platform(reference, platform.clone(), None),
            (None, None) => reference.into(),
        }
    }
}

/// What an inode stands for. Files and directories of packages are many, so the other kinds are
/// kept apart.
#[derive(Debug)]
pub(super) enum InodeNode {
    /// The mount's root.
    Root,
    /// A registry, repository, prefix or passage.
    Space { space: Box<RegistrySpace>, error: LastError },
    /// A directory of `plugins/` or `mirror/`.
    Providers { view: ProviderView, dir: Box<ProviderDirectory>, error: LastError },
    /// A place in `referrers/`.
    Referrers { place: Box<ReferrerPlace>, error: LastError },
    /// A symbolic link.
    Link(Box<str>),
    /// A document that was made of facts.
    Document(Arc<[u8]>),
    /// A `*.lock` file of `plugin-cache/`.
    Lock,
    /// A release by tag or digest.
    Release(Box<ReleaseNode>),
    /// `OS_ARCH/` of a provider release, and its tree, once entered.
    Platform(Box<TargetNode>, OnceLock<Arc<VerifiedPackage>>),
    /// `OS_ARCH.zip` of a provider release.
    Zip(Box<TargetNode>),
    /// A directory below the top of a package.
    Dir { package: Arc<VerifiedPackage>, number: DirNo },
    /// A file of a package.
    File {
        package: Arc<VerifiedPackage>,
        number: FileNo,
        /// Provider plugins are executable whatever their archive says.
        executable: bool,
        error: LastError,
    },
    /// A file, link or directory of an area.
    Local(LocalNode),
}

impl InodeNode {
    pub(super) fn registry(host: Host) -> InodeNode {
        InodeNode::space(RegistrySpace { host, path: None })
    }

    pub(super) fn space(space: RegistrySpace) -> InodeNode {
        InodeNode::Space { space: space.into(), error: LastError::default() }
    }

    pub(super) fn platform(release: Arc<Bound>, target: usize) -> InodeNode {
        InodeNode::Platform(TargetNode::new(release, target).into(), OnceLock::new())
    }

    /// Whether it was found without looking into its release.
    pub(super) fn is_assumed(&self) -> bool {
        match self {
            InodeNode::Platform(target, _) | InodeNode::Zip(target) => target.assumed.is_some(),
            _ => false,
        }
    }

    /// The directory of `plugin-cache/` that it is.
    pub(super) fn in_plugin_cache(&self) -> Option<&ProviderDirectory> {
        match self {
            InodeNode::Providers { view: ProviderView::PluginCache, dir, .. } => Some(dir),
            _ => None,
        }
    }

    pub(super) fn release(&self) -> Option<&ReleaseNode> {
        match self {
            InodeNode::Release(release) => Some(release),
            _ => None,
        }
    }

    /// What the kernel is told of `found`, where this is what it holds at its place.
    pub(super) fn told(&self, found: &LocalNode, ino: u64, stat: &Stat) -> FoundEntry {
        let held = match self {
            InodeNode::Local(held) => held,
            _ => found,
        };
        held.told(ino, stat)
    }

    /// What a sentence about the node begins with: the reference, and the digest where it is known.
    pub(super) fn subject(&self) -> Subject {
        match self {
            InodeNode::Root => "the mount's root".into(),
            InodeNode::Providers { view, dir, .. } => {
                format!("{}/{dir}", view.name()).trim_end_matches('/').into()
            }
            InodeNode::Referrers { place, .. } => place.in_words().into(),
            InodeNode::Link(target) => format!("the link to {target}").into(),
            InodeNode::Document(_) => "a document of mirror/".into(),
            InodeNode::Lock => "a lock file of plugin-cache/".into(),
            InodeNode::Space { space, .. } => match space.repo() {
                Some(repo) => repo.into(),
                None => (&space.host).into(),
            },
            InodeNode::Release(release) => match (&release.reference.selector, release.digest()) {
                (Selector::Tag(_), Some(digest)) => {
                    Subject::Manifest(release.reference.clone(), digest)
                }
                _ => (&release.reference).into(),
            },
            InodeNode::Platform(target, _) | InodeNode::Zip(target) => target.subject(),
            InodeNode::Dir { package, .. } => package.reference().into(),
            InodeNode::Local(at) => at.describe().into(),
            InodeNode::File { package, number, .. } => {
                let path = package.members.path(*number).unwrap_or_default();
                Subject::File(package.reference(), path)
            }
        }
    }

    /// Where the reason of its last failure stands; `None` for what fails for its registry's sake
    /// never.
    pub(super) fn last_error(&self) -> Option<&LastError> {
        match self {
            InodeNode::Release(release) => Some(&release.error),
            InodeNode::Platform(target, _) | InodeNode::Zip(target) => Some(&target.error),
            InodeNode::Space { error, .. }
            | InodeNode::Providers { error, .. }
            | InodeNode::Referrers { error, .. }
            | InodeNode::File { error, .. } => Some(error),
            _ => None,
        }
    }
}
