//! The views of providers, `plugins/` and `mirror/`: directories, links and documents that are made
//! of what is known.
//!
//! INVARIANT: opening a directory of a view fails for no registry's sake. What could not be learnt
//! is missing in it and told by `user.tofufs.error`; looking such a name up gives the errno.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::caller::Thread;
use super::directory::DirectoryListing;
use super::error::{Errno, FsError};
use super::node::{InodeNode, ReleaseNode, TargetNode};
use super::reasons::LastError;
use super::{ABSENT_TTL, FOREVER, Fs, plugin_cache};
use crate::artifact::{Release, annotated_h1};
use crate::facts::{Awaited, Left};
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, ProviderAddr, Repo, Selector, Tag, Version};
use crate::tree::providers::{self, Offered, ProviderDirectory, ProviderEntry};
use crate::tree::{Fact, Need, Step, mirror, plugins};

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

    /// Its name in the root.
    pub(super) fn name(self) -> &'static str {
        match self {
            ProviderView::Plugins => "plugins",
            ProviderView::Mirror => "mirror",
            ProviderView::PluginCache => plugin_cache::NAME,
        }
    }

    pub(super) fn node(self, dir: ProviderDirectory) -> InodeNode {
        InodeNode::Providers { view: self, dir: dir.into(), error: LastError::default() }
    }
}

/// How many documents of single versions are kept, so that they are listed.
const DOCUMENTS_MAX: usize = 4096;

/// The `VERSION.json` documents that were rendered.
#[derive(Default)]
pub(super) struct Documents(Mutex<Rendered>);

type Rendered = BTreeMap<(ProviderAddr, Version), Arc<[u8]>>;

impl Documents {
    fn keep(&self, provider: &ProviderAddr, version: &Version, bytes: &Arc<[u8]>) {
        let mut kept = self.0.lock();
        if kept.len() >= DOCUMENTS_MAX {
            kept.clear();
        }
        kept.insert((provider.clone(), version.clone()), bytes.clone());
    }

    fn of(&self, provider: &ProviderAddr) -> Vec<(Version, Arc<[u8]>)> {
        let kept = self.0.lock();
        kept.iter()
            .filter(|((p, _), _)| p == provider)
            .map(|((_, v), bytes)| (v.clone(), bytes.clone()))
            .collect()
    }
}

impl Fs {
    /// The views that the root holds: none without a mapping.
    pub(super) fn views(&self) -> impl Iterator<Item = ProviderView> {
        let mapped = !self.facts.providers().mapping().rules().is_empty();
        ProviderView::ALL.into_iter().filter(move |_| mapped)
    }

    /// Finds `name` in a directory of a view, for who asks in `thread`. `Err` is an absence and how
    /// long it holds.
    pub(super) async fn find_in_view(
        self: &Arc<Self>,
        thread: Thread,
        view: ProviderView,
        dir: &ProviderDirectory,
        name: &OsStr,
        since: Instant,
    ) -> Result<Result<(InodeNode, Duration), Duration>, FsError> {
        let Some(name) = name.to_str() else { return Ok(Err(FOREVER)) };
        if view == ProviderView::PluginCache {
            if let Some(node) = self.find_beside(dir, name) {
                return Ok(Ok((node, self.facts.tags().ttl())));
            }
            if self.installers.is_gone(thread, &plugin_cache::path_in(dir, name)) {
                return Ok(Err(Duration::ZERO));
            }
        }
        loop {
            let known = self.facts.view(since);
            let step = match view {
                ProviderView::Plugins | ProviderView::PluginCache => {
                    plugins::lookup(dir, name, &known)
                }
                ProviderView::Mirror => mirror::lookup(dir, name, &known),
            };
            match step {
                Step::Edge(entry) => {
                    // Of one that a catalog lists the tags may be known only further down.
                    if let ProviderEntry::Dir(
                        ProviderDirectory::Provider(provider)
                        | ProviderDirectory::Version(provider, _),
                    ) = &entry
                    {
                        self.facts.providers().note(provider, &known);
                    }
                    if let Some(link) = self.replaceable(thread, view, dir, name) {
                        return Ok(Ok((link, Duration::ZERO)));
                    }
                    let node = self.made(view, dir, entry, since).await?;
                    return Ok(Ok((node, self.holds_for(dir))));
                }
                Step::Absent => return Ok(Err(ABSENT_TTL)),
                Step::Failed(e) => return Err(e.into()),
                Step::Need(need) => {
                    self.facts.tags().load(need).await?;
                }
            }
        }
    }

    async fn made(
        self: &Arc<Self>,
        view: ProviderView,
        dir: &ProviderDirectory,
        entry: ProviderEntry,
        since: Instant,
    ) -> Result<InodeNode, FsError> {
        Ok(match (entry, dir) {
            (ProviderEntry::Dir(dir), _) => view.node(dir),
            (ProviderEntry::Link(target), _) => InodeNode::Link(target.into()),
            (ProviderEntry::Versions(bytes), _) => InodeNode::Document(bytes.into()),
            (
                ProviderEntry::Archives(repo, tag, version),
                ProviderDirectory::Provider(provider),
            ) => {
                let bytes = self.archives(provider, &version, &repo, &tag, since).await?;
                self.documents.keep(provider, &version, &bytes);
                InodeNode::Document(bytes)
            }
            (ProviderEntry::Archives(..), _) => return Err(FsError::plain(Errno::ENOENT)),
        })
    }

    /// `VERSION.json`: of each platform that is shown the hashes of its zip, from manifests alone.
    async fn archives(
        self: &Arc<Self>,
        provider: &ProviderAddr,
        version: &Version,
        repo: &Repo,
        tag: &Tag,
        since: Instant,
    ) -> Result<Arc<[u8]>, FsError> {
        let digest = self.facts.tags().bind(repo, tag, since).await?;
        let Release::Provider(targets) = self.facts.manifests().release(repo, digest).await?.1
        else {
            let subject = repo.at(Selector::Digest(digest));
            return Err(Refusal::new(
                Failure::Structure,
                subject,
                "this is a module package, no provider",
            )
            .into());
        };
        let mut packages = Vec::new();
        for target in
            targets.iter().filter(|target| self.facts.providers().assumes(&target.platform))
        {
            let (manifest, archive) = self.facts.manifests().target(repo, target).await?;
            let h1 = annotated_h1(Some(&target.manifest), &manifest, &archive).map(str::to_owned);
            let hashes = h1.into_iter().chain([format!("zh:{}", archive.digest.hex())]).collect();
            packages.push((target.platform.clone(), hashes));
        }
        Ok(mirror::archives(provider, version, &packages).into())
    }

    /// How long what is found in `dir` holds: as long as the lists of tags that it is made of.
    fn holds_for(&self, dir: &ProviderDirectory) -> Duration {
        let known = self.facts.view(Instant::now());
        let of_tags = match dir {
            ProviderDirectory::Provider(provider) | ProviderDirectory::Version(provider, _) => {
                known.repos(provider).ok()
            }
            ProviderDirectory::Top
            | ProviderDirectory::Host(_)
            | ProviderDirectory::Namespace(..) => None,
        };
        let lists = of_tags.into_iter().flatten().map(|repo| known.fresh_for(&Need::Tags(repo)));
        lists.min().unwrap_or(self.facts.tags().ttl())
    }

    /// The entries of a directory of a view.
    pub(super) async fn list_view(
        self: &Arc<Self>,
        thread: Thread,
        view: ProviderView,
        dir: &ProviderDirectory,
    ) -> Result<DirectoryListing, FsError> {
        let since = Instant::now();
        let beside =
            if view == ProviderView::PluginCache { self.list_beside(dir) } else { Vec::new() };
        let mut left: Vec<Left> = Vec::new();
        loop {
            let known = self.facts.view(since).without(&left);
            let step = match view {
                ProviderView::Plugins | ProviderView::PluginCache => plugins::list(dir, &known),
                ProviderView::Mirror => mirror::list(dir, &known),
            };
            let listing = match step {
                Step::Edge(listing) => listing,
                Step::Need(need) => {
                    // A client searches all providers for one: what hangs must not hold it up.
                    if let Awaited::Left(this) = self.facts.tags().load_for_walk(need).await? {
                        left.push(this);
                    }
                    continue;
                }
                Step::Absent
                    if beside.is_empty()
                        && !(view == ProviderView::PluginCache && self.is_beside(dir)) =>
                {
                    return Err(FsError::plain(Errno::ENOENT));
                }
                Step::Absent => {
                    providers::ProviderListing { entries: BTreeMap::new(), error: None }
                }
                Step::Failed(e) => return Err(e.into()),
            };
            let mut entries = beside;
            let taken: BTreeSet<String> = entries.iter().map(|(name, _)| name.clone()).collect();
            for (name, entry) in
                listing.entries.into_iter().filter(|(name, _)| !taken.contains(name))
            {
                let node = match entry {
                    ProviderEntry::Dir(dir) => view.node(dir),
                    ProviderEntry::Link(target) => {
                        let link = self.replaceable(thread, view, dir, &name);
                        link.unwrap_or_else(|| InodeNode::Link(target.into()))
                    }
                    ProviderEntry::Versions(bytes) => InodeNode::Document(bytes.into()),
                    ProviderEntry::Archives(..) => continue,
                };
                entries.push((name, Arc::new(node)));
            }
            if let ProviderDirectory::Provider(provider) = dir {
                self.facts.providers().note(provider, &known);
                if view == ProviderView::Mirror {
                    entries.extend(self.rendered(dir, provider, &known));
                }
            }
            let ttl =
                if self.has_replaceable(view, dir) { Duration::ZERO } else { self.holds_for(dir) };
            return Ok(DirectoryListing::Made {
                entries,
                ttl,
                error: listing.error.map(FsError::from),
            });
        }
    }

    /// The documents of single versions that were rendered and whose version is still there.
    fn rendered(
        &self,
        dir: &ProviderDirectory,
        provider: &ProviderAddr,
        known: &crate::facts::FactsView<'_>,
    ) -> impl Iterator<Item = (String, Arc<InodeNode>)> {
        let documents = self.documents.of(provider).into_iter();
        let named = documents.map(|(version, bytes)| {
            (format!("{version}.json"), Arc::new(InodeNode::Document(bytes)))
        });
        named.filter(|(name, _)| matches!(mirror::lookup(dir, name, known), Step::Edge(_)))
    }

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
        self: &Arc<Self>,
        dir: &Arc<InodeNode>,
        release: &ReleaseNode,
        name: &OsStr,
    ) -> Result<Option<InodeNode>, FsError> {
        let stem = name.to_str().and_then(|name| name.strip_suffix(".zip"));
        let Some((tag, platform)) = stem.and_then(|stem| self.shown_in(release, stem)) else {
            return Ok(None);
        };
        // There files are read without being opened.
        if self.options.read_only {
            return Ok(None);
        }
        let reference = &release.reference;
        let digest = match self.facts.tags().remembered_binding(&reference.repo, tag).await {
            Some(digest) => digest,
            None => self.facts.tags().bind(&reference.repo, tag, Instant::now()).await?,
        };
        let Ok(bound) = self.bound(reference, digest).await else { return Ok(None) };
        let Some(target) = TargetNode::remembered(dir.clone(), Arc::new(bound), platform) else {
            return Ok(None);
        };
        self.zip_of(&target).await?;
        Ok(Some(InodeNode::Zip(target.into())))
    }

    /// Whether a zip that was remembered is still what its tag stands for.
    ///
    /// # Errors
    /// ESTALE if it is not: the kernel looks the name up once more.
    pub(super) async fn confirm(self: &Arc<Self>, target: &TargetNode) -> Result<(), FsError> {
        if let Some((digest, reference)) = target.unconfirmed()
            && let Selector::Tag(tag) = &reference.selector
            && self.facts.tags().bind(&reference.repo, tag, Instant::now()).await? != digest
        {
            return Err(FsError::plain(Errno::ESTALE));
        }
        Ok(())
    }

    /// Forgets what is known of the providers at and below `path` (in a view). Yields what the
    /// kernel has to drop.
    pub(super) fn refresh_view(&self, path: &[&str]) -> Vec<(u64, Box<OsStr>)> {
        let Some(dir) = at(path) else { return Vec::new() };
        let known = self.facts.view(Instant::now());
        let looked_up = known.looked_up();
        let providers = known.declared().iter().chain(looked_up.iter()).filter(|p| dir.holds(p));
        let repos: BTreeSet<Repo> =
            providers.flat_map(|p| known.repos(p).unwrap_or_default()).collect();
        let holds = |repo: &Repo| {
            repos.contains(repo)
                || self.facts.providers().mapping().providers_of(repo).iter().any(|p| dir.holds(p))
        };
        self.facts.forget(|need| match need {
            Need::Tags(repo) | Need::Binding(repo, _) | Need::Platforms(repo, _) => holds(repo),
            Need::Catalog(_) | Need::Held(_) => !matches!(dir, ProviderDirectory::Provider(_)),
        });
        self.inodes.places(|node| match node {
            InodeNode::Providers { dir: shown, .. } => match &**shown {
                ProviderDirectory::Provider(p) | ProviderDirectory::Version(p, _) => dir.holds(p),
                _ => !matches!(dir, ProviderDirectory::Provider(_)),
            },
            InodeNode::Space { space, .. } => space.repo().is_some_and(|repo| holds(&repo)),
            InodeNode::Release(release) => holds(&release.reference.repo),
            _ => false,
        })
    }
}

/// The directory of a view at `path`, or the provider in which it lies.
fn at(path: &[&str]) -> Option<ProviderDirectory> {
    Some(match path {
        [] => ProviderDirectory::Top,
        [host] => ProviderDirectory::Host(host.parse().ok()?),
        [host, namespace] => {
            ProviderDirectory::Namespace(host.parse().ok()?, (*namespace).to_owned())
        }
        [host, namespace, kind, ..] => {
            ProviderDirectory::Provider(ProviderAddr::new(host.parse().ok()?, namespace, kind)?)
        }
    })
}
