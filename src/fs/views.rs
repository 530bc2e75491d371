//! The views of providers, `plugins/`, `mirror/` and `plugin-cache/`: directories, links and
//! documents that are made of what is known.
//!
//! INVARIANT: opening a directory of a view fails for no registry's sake. What could not be learnt
//! is missing in it and told by `user.tofufs.error`; looking such a name up gives the errno.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::attr::{ABSENT_TTL, FOREVER, Looked};
use super::caller::Thread;
use super::clients::ClientPackages;
use super::directory::DirectoryListing;
use super::error::{Errno, FsError};
use super::inodes::{Inodes, NamesInDirectories};
use super::node::{InodeNode, ProviderView};
use super::plugin_cache;
use crate::artifact::{Release, Target, annotated_h1};
use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::facts::{Awaited, Facts, FactsView, HiddenTags, Left, TargetPackage};
use crate::failure::{Failure, Refusal};
use crate::name::{ProviderAddr, Reference, Repo, Selector, Tag, Version};
use crate::tree::providers::{self, Offered, ProviderDirectory, ProviderEntry, ProviderListing};
use crate::tree::{Fact, KnownFacts as _, Need, Step, mirror, plugins};

/// How many documents of single versions are kept, so that they are listed.
const DOCUMENTS_MAX: usize = 4096;

type ProviderVersion = (ProviderAddr, Version);

/// A `VERSION.json` that was rendered.
#[derive(Clone)]
struct RenderedDocument {
    bytes: Arc<[u8]>,
    /// The release of which it speaks.
    digest: Digest,
    /// Under which state of the policies.
    generation: u64,
}

/// The documents that were rendered.
struct Documents(Mutex<Bounded<ProviderVersion, RenderedDocument>>);

impl Default for Documents {
    fn default() -> Self {
        Documents(Mutex::new(Bounded::counted(DOCUMENTS_MAX)))
    }
}

impl Documents {
    fn keep(&self, provider: &ProviderAddr, version: &Version, document: RenderedDocument) {
        self.0.lock().put((provider.clone(), version.clone()), document);
    }

    fn of(&self, provider: &ProviderAddr) -> BTreeMap<Version, RenderedDocument> {
        let kept = self.0.lock();
        kept.iter()
            .filter(|((p, _), _)| p == provider)
            .map(|((_, v), document)| (v.clone(), document.clone()))
            .collect()
    }
}

/// The views of a mount.
pub(super) struct Views {
    pub(super) facts: Arc<Facts>,
    pub(super) inodes: Arc<Inodes>,
    /// What clients put beside them, in `plugin-cache/`.
    clients: Arc<ClientPackages>,
    documents: Documents,
}

impl Views {
    pub(super) fn new(
        facts: Arc<Facts>,
        inodes: Arc<Inodes>,
        clients: Arc<ClientPackages>,
    ) -> Views {
        Views { facts, inodes, clients, documents: Documents::default() }
    }

    /// Finds `name` in a directory of a view, for who asks in `thread`.
    pub(super) async fn find(
        &self,
        thread: Thread,
        view: ProviderView,
        dir: &ProviderDirectory,
        name: &OsStr,
        since: Instant,
    ) -> Result<Looked<(InodeNode, Duration)>, FsError> {
        let Some(name) = name.to_str() else { return Ok(Looked::Absent(FOREVER)) };
        if view == ProviderView::PluginCache {
            if let Some(node) = self.clients.find_beside(dir, name) {
                return Ok(Looked::Found((node, self.facts.tags().ttl())));
            }
            if self.clients.is_gone(thread, dir, name) {
                return Ok(Looked::Absent(Duration::ZERO));
            }
        }
        let mut hidden: Option<Arc<HiddenTags>> = None;
        loop {
            let known = self.facts.view(since).hiding(&hidden.clone().unwrap_or_default());
            let step = match view {
                ProviderView::Plugins | ProviderView::PluginCache => {
                    plugins::lookup(dir, name, &known)
                }
                ProviderView::Mirror => mirror::lookup(dir, name, &known),
            };
            match step {
                // The list of versions.
                Step::Edge(ProviderEntry::Versions(_)) if hidden.is_none() => {
                    hidden = Some(Arc::new(self.hidden(dir, since).await));
                }
                Step::Edge(entry) => {
                    // Of one that a catalog lists the tags may be known only further down.
                    if let ProviderEntry::Dir(
                        ProviderDirectory::Provider(provider)
                        | ProviderDirectory::Version(provider, _),
                    ) = &entry
                    {
                        self.facts.providers().note(provider, &known);
                    }
                    if let Some(link) = self.clients.replaceable(thread, view, dir, name) {
                        return Ok(Looked::Found((link, Duration::ZERO)));
                    }
                    let node = self.made(view, dir, entry, since).await?;
                    return Ok(Looked::Found((node, self.holds_for(dir))));
                }
                Step::Absent => return Ok(Looked::Absent(ABSENT_TTL)),
                Step::Failed(e) => return Err(e.into()),
                Step::Need(need) => self.facts.tags().load(need).await?,
            }
        }
    }

    async fn made(
        &self,
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
                let document = self.archives(provider, &version, &repo, &tag, since).await?;
                self.documents.keep(provider, &version, document.clone());
                InodeNode::Document(document.bytes)
            }
            (ProviderEntry::Archives(..), _) => return Err(FsError::plain(Errno::ENOENT)),
        })
    }

    /// `VERSION.json`: of each platform that is shown the hashes of its zip, from manifests alone.
    /// Of one that policies refuse beside others it has the name: its zip is listed, too, and does
    /// not open.
    async fn archives(
        &self,
        provider: &ProviderAddr,
        version: &Version,
        repo: &Repo,
        tag: &Tag,
        since: Instant,
    ) -> Result<RenderedDocument, FsError> {
        let (gate, generation) = (self.facts.gate(), self.facts.gate().generation());
        let digest = self.facts.tags().bind(repo, tag, since).await?;
        let reference = repo.at(Selector::Tag(tag.clone()));
        let targets = match self.facts.manifests().release_of(&reference, digest).await {
            Ok((_, Release::Provider(targets))) => targets,
            // What may not be opened is not told by what else is wrong with it.
            other => {
                gate.admit(&reference, digest).await?;
                other?;
                let subject = repo.at(Selector::Digest(digest));
                let rule = "this is a module package, no provider";
                return Err(Refusal::new(Failure::Structure, subject, rule).into());
            }
        };
        let is_shown = |target: &&Target| self.facts.providers().assumes(&target.platform);
        let (mut packages, mut refused) = (Vec::new(), None);
        for target in targets.iter().filter(is_shown) {
            let platform = target.platform.clone();
            match gate.admit_platform(&reference, digest, &platform).await {
                Ok(_) => packages.push((platform, Some(self.hashes(repo, target).await?))),
                Err(e) if e.failure == Failure::Unsigned => {
                    packages.push((platform, None));
                    refused = Some(e);
                }
                Err(e) => return Err(e.into()),
            }
        }
        if packages.iter().all(|(_, hashes)| hashes.is_none()) {
            refused.map_or(Ok(()), Err)?;
            gate.admit(&reference, digest).await?;
        }
        let bytes = mirror::archives(provider, version, &packages).into();
        Ok(RenderedDocument { bytes, digest, generation })
    }

    /// The hashes of a package, as far as documents tell them.
    async fn hashes(&self, repo: &Repo, target: &Target) -> Result<Vec<String>, FsError> {
        let zh = |digest: Digest| format!("zh:{}", digest.hex());
        let Some(entry) = target.manifest() else { return Ok(vec![zh(target.digest())]) };
        let TargetPackage { manifest, archive } =
            self.facts.manifests().target(repo, target).await?;
        let h1 = manifest
            .filter(|_| !self.facts.gate().admits_zips_alone(repo))
            .and_then(|manifest| annotated_h1(Some(entry), &manifest, &archive).map(str::to_owned));
        Ok(h1.into_iter().chain([zh(archive.digest)]).collect())
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
    pub(super) async fn list(
        &self,
        thread: Thread,
        view: ProviderView,
        dir: &ProviderDirectory,
    ) -> Result<DirectoryListing, FsError> {
        let since = Instant::now();
        let (mut entries, mut is_there) = (Vec::new(), false);
        if view == ProviderView::PluginCache {
            entries = self.clients.list_beside(dir);
            is_there = !entries.is_empty() || self.clients.is_beside(dir);
        }
        let taken: BTreeSet<String> = entries.iter().map(|(name, _)| name.clone()).collect();
        let mut left: Vec<Left> = Vec::new();
        let shown = Arc::default();
        let mut listing = self.listed(view, dir, since, &mut left, &shown).await?;
        let hidden = Arc::new(self.hidden(dir, since).await);
        if !hidden.is_empty() {
            listing = self.listed(view, dir, since, &mut left, &hidden).await?;
        }
        let listing = match listing {
            None if !is_there => return Err(FsError::plain(Errno::ENOENT)),
            None => ProviderListing { entries: BTreeMap::new(), error: None },
            Some(listing) => listing,
        };
        for (name, entry) in listing.entries.into_iter().filter(|(name, _)| !taken.contains(name)) {
            let node = match entry {
                ProviderEntry::Dir(dir) => view.node(dir),
                ProviderEntry::Link(target) => {
                    let link = self.clients.replaceable(thread, view, dir, &name);
                    link.unwrap_or_else(|| InodeNode::Link(target.into()))
                }
                ProviderEntry::Versions(bytes) => InodeNode::Document(bytes.into()),
                ProviderEntry::Archives(..) => continue,
            };
            entries.push((name, Arc::new(node)));
        }
        if let ProviderDirectory::Provider(provider) = dir {
            let known = self.facts.view(since).without(&left).hiding(&hidden);
            self.facts.providers().note(provider, &known);
            if view == ProviderView::Mirror {
                entries.extend(self.rendered(dir, provider, &known));
            }
        }
        let has_own = self.clients.has_replaceable(view, dir);
        let ttl = if has_own { Duration::ZERO } else { self.holds_for(dir) };
        Ok(DirectoryListing::Made { entries, ttl, error: listing.error.map(FsError::from) })
    }

    /// What `dir` of a view lists by what is known, once nothing more is waited for than what is
    /// `left`. `None` if there is no such directory.
    async fn listed(
        &self,
        view: ProviderView,
        dir: &ProviderDirectory,
        since: Instant,
        left: &mut Vec<Left>,
        hidden: &Arc<HiddenTags>,
    ) -> Result<Option<ProviderListing<Refusal>>, FsError> {
        loop {
            let known = self.facts.view(since).without(left).hiding(hidden);
            let step = match view {
                ProviderView::Plugins | ProviderView::PluginCache => plugins::list(dir, &known),
                ProviderView::Mirror => mirror::list(dir, &known),
            };
            match step {
                Step::Edge(listing) => return Ok(Some(listing)),
                Step::Absent => return Ok(None),
                Step::Failed(e) => return Err(e.into()),
                Step::Need(need) => {
                    // A client searches all providers for one: what hangs must not hold it up.
                    if let Awaited::Left(this) = self.facts.tags().load_for_walk(need).await? {
                        left.push(this);
                    }
                }
            }
        }
    }

    /// The versions of a provider that are not listed: what policies refuse, where only what is
    /// signed is.
    async fn hidden(&self, dir: &ProviderDirectory, since: Instant) -> HiddenTags {
        let mut hidden = HiddenTags::default();
        let ProviderDirectory::Provider(provider) = dir else { return hidden };
        if !self.facts.gate().hides() {
            return hidden;
        }
        let repos = self.facts.view(since).repos(provider).unwrap_or_default();
        let is_shown = |target: &Target| self.facts.providers().assumes(&target.platform);
        for repo in repos {
            let Fact::Is(tags) = self.facts.view(since).tags(&repo) else { continue };
            let versions: Vec<Tag> =
                tags.iter().filter(|tag| Version::of_tag(tag).is_some()).cloned().collect();
            hidden.extend(self.facts.gate().hidden(&repo, &versions, &is_shown).await);
        }
        hidden
    }

    /// The documents of single versions that were rendered, as far as the version is still there,
    /// stands for the same release, and the same policies are in force.
    fn rendered(
        &self,
        dir: &ProviderDirectory,
        provider: &ProviderAddr,
        known: &FactsView<'_>,
    ) -> impl Iterator<Item = (String, Arc<InodeNode>)> {
        let generation = self.facts.gate().generation();
        let documents = self.documents.of(provider).into_iter();
        documents.filter_map(move |(version, document)| {
            let name = format!("{version}.json");
            let Step::Edge(ProviderEntry::Archives(repo, tag, _)) =
                mirror::lookup(dir, &name, known)
            else {
                return None;
            };
            let has_moved =
                matches!(known.bound(&repo, &tag), Fact::Is(now) if now != document.digest);
            let is_true = document.generation == generation && !has_moved;
            is_true.then(|| (name, Arc::new(InodeNode::Document(document.bytes))))
        })
    }

    /// The release that `name` in `dir` leads to, if it is a way to packages that can be replaced.
    pub(super) async fn release_behind(
        &self,
        dir: &InodeNode,
        name: &OsStr,
        since: Instant,
    ) -> Result<Option<Reference>, FsError> {
        let InodeNode::Providers { view, dir, .. } = dir else { return Ok(None) };
        let ProviderDirectory::Version(provider, version) = dir.as_ref() else { return Ok(None) };
        if !(self.clients.has_replaceable(*view, dir)
            && (name == plugin_cache::RELEASE || name == plugin_cache::INSTALLING))
        {
            return Ok(None);
        }
        loop {
            let step = providers::release(provider, version, &self.facts.view(since));
            match step {
                Step::Edge((repo, tag)) => return Ok(Some(repo.at(Selector::Tag(tag)))),
                Step::Need(need) => self.facts.tags().load(need).await?,
                Step::Failed(e) => return Err(e.into()),
                Step::Absent => return Ok(None),
            }
        }
    }

    /// Lets the versions of the providers at and below `path` (in a view) stand for the documents
    /// for which they stand now.
    pub(super) fn accept(&self, path: &[&str]) {
        if let Some(dir) = at(path) {
            let repos = self.repos_below(&dir);
            self.facts.accept(|need| self.concerns(&dir, &repos, need), None);
        }
    }

    /// The repositories of the providers that are known below `dir`.
    fn repos_below(&self, dir: &ProviderDirectory) -> BTreeSet<Repo> {
        let known = self.facts.view(Instant::now());
        let looked_up = known.looked_up();
        let providers = known.declared().iter().chain(looked_up.iter()).filter(|p| dir.holds(p));
        providers.flat_map(|p| known.repos(p).unwrap_or_default()).collect()
    }

    /// Whether `repo` is one of a provider below `dir`, given those that are known.
    fn holds(&self, dir: &ProviderDirectory, repos: &BTreeSet<Repo>, repo: &Repo) -> bool {
        repos.contains(repo)
            || self.facts.providers().mapping().providers_of(repo).iter().any(|p| dir.holds(p))
    }

    /// Whether the fact is about a provider below `dir`.
    fn concerns(&self, dir: &ProviderDirectory, repos: &BTreeSet<Repo>, need: &Need) -> bool {
        match need {
            Need::Tags(repo) | Need::Binding(repo, _) | Need::Platforms(repo, _) => {
                self.holds(dir, repos, repo)
            }
            Need::Catalog(_) | Need::Held(_) => !matches!(dir, ProviderDirectory::Provider(_)),
        }
    }

    /// Forgets what is known of the providers at and below `path` (in a view). Yields what the
    /// kernel has to drop.
    pub(super) fn refresh(&self, path: &[&str]) -> NamesInDirectories {
        let Some(dir) = at(path) else { return Vec::new() };
        let repos = self.repos_below(&dir);
        let holds = |repo: &Repo| self.holds(&dir, &repos, repo);
        self.facts.forget(|need| self.concerns(&dir, &repos, need));
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
