//! What lies above the releases: the root of a mount, its registries, and the directories that lead
//! to repositories.
//!
//! In the root nothing is looked up for any name but the fixed ones and those of registries, so
//! that the probes of shells and editors never reach a network.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::area::LocalNode;
use super::attr::{ABSENT_TTL, FOREVER, FoundEntry, Looked};
use super::directory::DirectoryListing;
use super::entries::InodeEntries;
use super::error::{Errno, FsError};
use super::inodes::{DirectoryName, Inodes};
use super::node::{InodeNode, ProviderView, ReleaseNode};
use super::referrer::{self, ReferrerPlace};
use super::staging::{self, StagingArea};
use crate::digest::Digest;
use crate::facts::{Facts, HiddenTags};
use crate::failure::{Failure, Refusal, Subject};
use crate::name::{Component, Host, Reference, RepoName, Selector, Tag};
use crate::tree::providers::ProviderDirectory;
use crate::tree::registry::{self, LookupFailure, RegistryEntry, RegistrySpace};
use crate::tree::{Fact, Need, Step};

/// The directories above the releases.
pub(super) struct Spaces {
    pub(super) facts: Arc<Facts>,
    pub(super) inodes: Arc<Inodes>,
    pub(super) entries: Arc<InodeEntries>,
    /// Shows the directories that are staged; `None` where nothing may be written.
    pub(super) staging: Option<StagingArea>,
}

impl Spaces {
    /// The names in the root.
    pub(super) fn root_names(&self) -> Vec<OsString> {
        let areas = self.staging.iter().map(|_| OsString::from(staging::NAME));
        let mut hosts = self.facts.names().hosts();
        hosts.extend(self.staging.iter().flat_map(staging::StagingArea::hosts));
        hosts.sort();
        hosts.dedup();
        let views = ProviderView::shown(self.facts.providers().mapping())
            .map(|view| OsString::from(view.name()));
        areas.chain(views).chain(hosts.iter().map(|host| OsString::from(host.as_str()))).collect()
    }

    /// What `name` is in the root, and how long it may be kept.
    pub(super) fn find_in_root(&self, name: &OsStr) -> Looked<(InodeNode, Duration)> {
        if name == staging::NAME
            && let Some(staging) = &self.staging
        {
            return Looked::Found((InodeNode::Local(LocalNode::top(staging.area())), FOREVER));
        }
        if name == referrer::NAME {
            return Looked::Found((ReferrerPlace::Top.node(), FOREVER));
        }
        let mut views = ProviderView::shown(self.facts.providers().mapping());
        if let Some(view) = views.find(|view| view.name() == name) {
            return Looked::Found((view.node(ProviderDirectory::Top), FOREVER));
        }
        let Some(host) = name.to_str().and_then(|name| name.parse::<Host>().ok()) else {
            return Looked::Absent(FOREVER);
        };
        let ttl = if self.facts.names().has_host(&host) {
            self.hosts_ttl(self.facts.tags().ttl())
        } else if self.staging.as_ref().is_some_and(|staging| staging.shows(&host, None)) {
            Duration::ZERO
        } else {
            return Looked::Absent(self.hosts_ttl(self.absent_ttl()));
        };
        Looked::Found((InodeNode::registry(host), ttl))
    }

    /// How long the kernel may keep the absence of a name above the releases. Where names can be
    /// staged not at all: a directory that is made in staging is shown here at once.
    fn absent_ttl(&self) -> Duration {
        if self.staging.is_some() { Duration::ZERO } else { ABSENT_TTL }
    }

    /// The directory `name` of `space`, if a stage shows it.
    fn staged_space(&self, space: &RegistrySpace, name: &str) -> Option<RegistrySpace> {
        let staging = self.staging.as_ref()?;
        let nested = RepoName::below(space.path.as_ref(), name)?;
        staging
            .shows(&space.host, Some(&nested))
            .then(|| RegistrySpace { host: space.host.clone(), path: Some(nested) })
    }

    /// How long a directory above the releases may be kept. What a stage shows is gone when the
    /// stage is.
    fn space_ttl(&self, space: &RegistrySpace) -> Duration {
        let shown = |staging: &StagingArea| staging.shows(&space.host, space.path.as_ref());
        if self.staging.as_ref().is_some_and(shown) {
            Duration::ZERO
        } else {
            self.facts.tags().ttl()
        }
    }

    /// The directories that stages show in `space`.
    fn staged_in(&self, space: &RegistrySpace) -> Vec<(String, RegistrySpace)> {
        let Some(staging) = &self.staging else { return Vec::new() };
        let shown = staging.shown_in(&space.host, space.path.as_ref()).into_iter();
        shown
            .filter_map(|name| {
                let component = name.next_below(space.path.as_ref())?.to_owned();
                Some((component, RegistrySpace { host: space.host.clone(), path: Some(name) }))
            })
            .collect()
    }

    /// How long the name of a registry holds, where a store may come to hold another one after
    /// `otherwise`.
    fn hosts_ttl(&self, otherwise: Duration) -> Duration {
        if self.facts.names().hosts_are_fixed() { FOREVER } else { otherwise }
    }

    /// Finds `name` in `space`: asks the tree until it knows.
    pub(super) async fn find(
        &self,
        space: &RegistrySpace,
        name: &OsStr,
        since: Instant,
    ) -> Result<Looked<RegistryEntry>, FsError> {
        let Some(text) = name.to_str() else { return Ok(Looked::Absent(FOREVER)) };
        let component = Component::parse(text);
        if component == Component::Impossible {
            return Ok(Looked::Absent(FOREVER));
        }
        if let Some(nested) = self.staged_space(space, text) {
            return Ok(Looked::Found(RegistryEntry::Space(nested)));
        }
        let mut hidden: Arc<HiddenTags> = Arc::default();
        loop {
            match registry::lookup(space, &component, &self.facts.view(since).hiding(&hidden)) {
                Step::Edge(RegistryEntry::Link { target, repo }) => {
                    match self.hidden_target(space, &target).await {
                        Some(tag) => drop(Arc::make_mut(&mut hidden).insert((repo, tag))),
                        None => return Ok(Looked::Found(RegistryEntry::Link { target, repo })),
                    }
                }
                Step::Edge(entry) => return Ok(Looked::Found(entry)),
                Step::Absent => return Ok(Looked::Absent(self.absent_ttl())),
                Step::Need(need) => self.facts.tags().load(need).await?,
                Step::Failed(LookupFailure::Fact(e)) => {
                    return match space.spelled(&component) {
                        Some(release) if self.is_refused(&release, since) => {
                            Ok(Looked::Found(RegistryEntry::Release(release)))
                        }
                        _ => Err(as_looked_up(space, text, e).into()),
                    };
                }
                Step::Failed(LookupFailure::Name(e)) => {
                    return Err(Refusal::new(Failure::Unsupported, text, e).into());
                }
            }
        }
    }

    /// The tag to which a link of `space` leads, if it is one that is not listed.
    async fn hidden_target(&self, space: &RegistrySpace, target: &str) -> Option<Tag> {
        let reference = space.spelled(&Component::parse(target))?;
        let Selector::Tag(tag) = reference.selector else { return None };
        let tags = std::slice::from_ref(&tag);
        let hidden = self.facts.gate().hidden(&reference.repo, tags, &|_| true).await;
        (!hidden.is_empty()).then_some(tag)
    }

    /// Whether a tag's manifest is refused. Then it exists: it can be stat'ed, and entering it
    /// gives the reason.
    fn is_refused(&self, release: &Reference, since: Instant) -> bool {
        match &release.selector {
            Selector::Tag(tag) => {
                let bound = self.facts.view(since).bound(&release.repo, tag);
                matches!(bound, Fact::Failed(e) if e.failure.is_refusal())
            }
            Selector::Digest(_) => false,
        }
    }

    /// The digest that a release's directory has to have now, given the one to which it is bound,
    /// and how long that holds. A tag that nobody entered yet has none, and asking for it costs
    /// nothing. `since`: when the operation began.
    async fn binding_of(
        &self,
        reference: &Reference,
        bound: Option<Digest>,
        since: Instant,
    ) -> Result<(Option<Digest>, Duration), FsError> {
        let repo = &reference.repo;
        let tag = match &reference.selector {
            Selector::Digest(digest) => {
                if bound.is_none()
                    && let Err(e) = self.facts.manifests().document(repo, *digest).await
                    && !e.failure.is_refusal()
                {
                    return Err(e.into());
                }
                return Ok((Some(*digest), FOREVER));
            }
            Selector::Tag(tag) => tag,
        };
        if bound.is_none() {
            let view = self.facts.view(since);
            return Ok(match view.bound(repo, tag) {
                Fact::Is(digest) => {
                    (Some(digest), view.fresh_for(&Need::Binding(repo.clone(), tag.clone())))
                }
                _ => (None, view.fresh_for(&Need::Tags(repo.clone()))),
            });
        }
        let digest = match self.facts.tags().bind(repo, tag, since).await {
            // A release of a provider that its registry has changed opens no more.
            Err(e) if e.failure.is_refusal() => {
                bound.filter(|_| !self.facts.manifests().are_of_providers(&repo.host))
            }
            Err(e) => return Err(e.into()),
            Ok(digest) => Some(digest),
        };
        Ok((digest, self.facts.view(since).fresh_for(&Need::Binding(repo.clone(), tag.clone()))))
    }

    /// Sends what was found in a space.
    pub(super) async fn found(
        &self,
        place: DirectoryName,
        entry: RegistryEntry,
        since: Instant,
    ) -> Result<FoundEntry, FsError> {
        let (node, ttl) = match entry {
            RegistryEntry::Space(space) => {
                let ttl = self.space_ttl(&space);
                (Arc::new(InodeNode::space(space)), ttl)
            }
            RegistryEntry::Link { target, repo } => {
                let ttl = self.facts.view(since).fresh_for(&Need::Tags(repo));
                (Arc::new(InodeNode::Link(target.into())), ttl)
            }
            RegistryEntry::Release(reference) => {
                // What stands there may be the space that the name was before it became a tag.
                let before = self.inodes.at(&place).filter(|node| node.release().is_some());
                let bound = before.as_ref().and_then(|n| n.release()).and_then(ReleaseNode::digest);
                let (digest, ttl) = self.binding_of(&reference, bound, since).await?;
                match before {
                    // The same manifest, or none yet: the same directory.
                    Some(before) if bound.is_none() || bound == digest => (before, ttl),
                    _ => (
                        Arc::new(InodeNode::Release(ReleaseNode::new(reference, digest).into())),
                        ttl,
                    ),
                }
            }
        };
        Ok(self.entries.send(place, node, ttl))
    }

    pub(super) async fn list(&self, space: &RegistrySpace) -> Result<DirectoryListing, FsError> {
        let since = Instant::now();
        loop {
            let step = registry::list(space, &self.facts.view(since));
            match step {
                Step::Edge(mut entries) => {
                    if let Some(repo) = space.repo().filter(|_| self.facts.gate().hides()) {
                        let tags: Vec<Tag> = entries.values().filter_map(tag_of).cloned().collect();
                        let hidden = self.facts.gate().hidden(&repo, &tags, &|_| true).await;
                        let is_shown = |tag: &Tag| !hidden.contains(&(repo.clone(), tag.clone()));
                        entries.retain(|_, entry| tag_of(entry).is_none_or(is_shown));
                    }
                    // As in a lookup: what is staged stands before a tag.
                    let staged = self.staged_in(space).into_iter();
                    entries.extend(staged.map(|(name, space)| (name, RegistryEntry::Space(space))));
                    return Ok(DirectoryListing::Names(entries.into_iter().collect()));
                }
                Step::Need(need) => self.facts.tags().load(need).await?,
                Step::Failed(LookupFailure::Fact(e)) => return Err(e.into()),
                Step::Failed(LookupFailure::Name(_)) | Step::Absent => {
                    return Err(FsError::plain(Errno::ENOENT));
                }
            }
        }
    }

    /// The node of a listed name, and how long it may be kept.
    pub(super) fn named(
        &self,
        place: DirectoryName,
        entry: &RegistryEntry,
    ) -> (Arc<InodeNode>, Duration) {
        let reference = match entry {
            RegistryEntry::Space(space) => {
                return (Arc::new(InodeNode::space(space.clone())), self.space_ttl(space));
            }
            RegistryEntry::Link { target, repo } => {
                let of_list = self.facts.view(Instant::now()).fresh_for(&Need::Tags(repo.clone()));
                return (Arc::new(InodeNode::Link(target.as_str().into())), of_list);
            }
            RegistryEntry::Release(reference) => reference,
        };
        let view = self.facts.view(Instant::now());
        let of_list = view.fresh_for(&Need::Tags(reference.repo.clone()));
        let Some(before) = self.inodes.at(&place).filter(|node| node.release().is_some()) else {
            return (
                Arc::new(InodeNode::Release(ReleaseNode::new(reference.clone(), None).into())),
                of_list,
            );
        };
        // A directory that is bound to another manifest than the tag's present one is looked up
        // before it is used.
        let ttl = match (before.release().and_then(ReleaseNode::digest), &reference.selector) {
            (Some(bound), Selector::Tag(tag)) => match view.bound(&reference.repo, tag) {
                Fact::Is(digest) if digest == bound => {
                    view.fresh_for(&Need::Binding(reference.repo.clone(), tag.clone()))
                }
                _ => Duration::ZERO,
            },
            _ => of_list,
        };
        (before, ttl)
    }
}

/// The tag that an entry of its repository is.
fn tag_of(entry: &RegistryEntry) -> Option<&Tag> {
    match entry {
        RegistryEntry::Release(Reference { selector: Selector::Tag(tag), .. }) => Some(tag),
        _ => None,
    }
}

/// A failure told of the path that was looked up, which may have been asked for as a tag of what is
/// above it.
fn as_looked_up(space: &RegistrySpace, name: &str, error: Refusal) -> Refusal {
    let Some(above) = space.repo() else { return error };
    let as_tag = name.parse().map(|tag: Tag| above.at(Selector::Tag(tag)).into());
    if as_tag == Ok(Subject::clone(&error.subject)) {
        error.about(Subject::Entry(above, name.to_owned()))
    } else {
        error
    }
}
