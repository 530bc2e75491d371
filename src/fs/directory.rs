//! Directories: the snapshot that an open directory lists.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::area::LocalNode;
use super::caller::Thread;
use super::enter::member;
use super::error::{Errno, FsError};
use super::handles::OpenDirectory;
use super::inodes::DirectoryName;
use super::node::{InodeNode, ReleaseNode, TargetNode};
use super::{FOREVER, FoundEntry, Fs, attr};
use crate::artifact::Release;
use crate::facts::VerifiedPackage;
use crate::local::Name;
use crate::members::{DirNo, TOP};
use crate::name::Selector;
use crate::tree::registry::{LookupFailure, RegistryEntry as Named, RegistrySpace};
use crate::tree::{self, Fact, Need, Step};

/// What an open directory lists, in the order in which it does.
pub(super) enum DirectoryListing {
    /// The areas, the views and the registries.
    Root(Vec<OsString>),
    /// A space.
    Names(Vec<(String, Named)>),
    /// A directory of a view of providers, and what could not be learnt of it.
    Made { entries: Vec<(String, Arc<InodeNode>)>, ttl: Duration, error: Option<FsError> },
    /// A provider release.
    Targets(Vec<(String, tree::release::ReleaseEntry)>),
    /// A directory of a package.
    Members { package: Arc<VerifiedPackage>, dir: DirNo, plugins: bool },
    /// A directory of an area.
    Local(LocalListing),
}

/// The names in a directory of an area, as they were when it was listed from its beginning last:
/// who goes back there sees what came and went since.
pub(super) struct LocalListing {
    dir: LocalNode,
    names: Mutex<Option<Arc<Vec<Name>>>>,
}

impl LocalListing {
    fn names(&self, offset: u64) -> Result<Arc<Vec<Name>>, FsError> {
        let mut names = self.names.lock();
        match &*names {
            Some(names) if offset > 0 => Ok(names.clone()),
            _ => {
                let now = Arc::new(self.dir.area.tree.list(&self.dir.node)?);
                // What is behind the names cannot be told where an ordinary user may list a
                // directory and not go in: that is an error, since an empty listing would be a lie.
                if let Some(name) = now.first()
                    && let Err(e) = self.dir.below(name.clone()).stat()
                    && e.errno == Errno::EACCES
                {
                    return Err(e);
                }
                Ok(names.insert(now).clone())
            }
        }
    }
}

/// An entry of a listing as it is delivered.
pub struct Listed<'a> {
    /// The name.
    pub name: &'a OsStr,
    /// The entry.
    pub entry: FoundEntry,
    /// The offset at which the next entry begins.
    pub next: u64,
}

/// `.` and `..` come before the listing.
const DOTS: u64 = 2;

impl Fs {
    pub(super) async fn listing(
        self: &Arc<Self>,
        thread: Thread,
        node: &Arc<InodeNode>,
    ) -> Result<DirectoryListing, FsError> {
        match node.as_ref() {
            InodeNode::Root => Ok(DirectoryListing::Root(self.root_names())),
            InodeNode::Providers { view, dir, .. } => self.list_view(thread, *view, dir).await,
            InodeNode::Local(at) => {
                at.stat()?;
                Ok(DirectoryListing::Local(LocalListing {
                    dir: at.clone(),
                    names: Mutex::default(),
                }))
            }
            InodeNode::Space { space, .. } => self.names(space).await,
            InodeNode::Release(release) => {
                let bound = self.enter(release).await?;
                match &bound.release {
                    Release::Provider(targets) => {
                        let lacking = self.facts.lacking(&bound.repo, targets).await;
                        let is_held = |at: usize| !lacking.contains(&targets[at].manifest.digest);
                        let mut listed = tree::release::list(targets);
                        listed.retain(|(_, entry)| match entry {
                            tree::release::ReleaseEntry::Unpacked(at)
                            | tree::release::ReleaseEntry::Zip(at) => is_held(*at),
                        });
                        Ok(DirectoryListing::Targets(listed))
                    }
                    Release::Module(archive) => {
                        let package = self.module(&bound, archive).await?;
                        Ok(DirectoryListing::Members { package, dir: TOP, plugins: false })
                    }
                }
            }
            InodeNode::Platform(target, package) => Ok(DirectoryListing::Members {
                package: self.platform(target, package).await?,
                dir: TOP,
                plugins: true,
            }),
            InodeNode::Dir { package, number } => Ok(DirectoryListing::Members {
                package: package.clone(),
                dir: *number,
                plugins: false,
            }),
            InodeNode::Zip(_)
            | InodeNode::File { .. }
            | InodeNode::Link(_)
            | InodeNode::Document(_)
            | InodeNode::Lock => Err(FsError::plain(Errno::ENOTDIR)),
        }
    }

    async fn names(self: &Arc<Self>, space: &RegistrySpace) -> Result<DirectoryListing, FsError> {
        let since = Instant::now();
        loop {
            let step = tree::registry::list(space, &self.facts.view(since));
            match step {
                Step::Edge(mut entries) => {
                    // As in a lookup: what is staged stands before a tag.
                    let staged = self.staged_in(space).into_iter();
                    entries.extend(staged.map(|(name, space)| (name, Named::Space(space))));
                    return Ok(DirectoryListing::Names(entries.into_iter().collect()));
                }
                Step::Need(need) => self.facts.load(need).await?,
                Step::Failed(LookupFailure::Fact(e)) => return Err(e.into()),
                Step::Failed(LookupFailure::Name(_)) | Step::Absent => {
                    return Err(FsError::plain(Errno::ENOENT));
                }
            }
        }
    }

    /// Delivers the entries of an open directory from `offset` on, with their attributes, until
    /// `deliver` says that it did not take one. Each entry taken counts as a lookup, except `.` and
    /// `..`, which the kernel does not count.
    ///
    /// No request is sent for this: what would need one (the size of a provider zip that nobody
    /// asked for yet) is delivered with a time to live of zero, so that the kernel asks before it
    /// believes.
    pub fn readdir(
        &self,
        handle: u64,
        offset: u64,
        mut deliver: impl FnMut(Listed<'_>) -> bool,
    ) -> Result<(), FsError> {
        let directory = self.handles.directory(handle)?;
        if let DirectoryListing::Local(listing) = &directory.listing {
            listing.names(offset)?;
        }
        let here = self.inodes.node(directory.ino).ok();
        for at in offset.. {
            let taken = match at {
                0 | 1 => {
                    let (name, ino) = match at {
                        0 => (".", directory.ino),
                        _ => ("..", self.inodes.parent(directory.ino)),
                    };
                    let Some(node) = &here else { continue };
                    let entry = self.entry(ino, node, Duration::ZERO);
                    deliver(Listed { name: OsStr::new(name), entry, next: at + 1 })
                }
                _ => match self.deliver_listed(&directory, at, &mut deliver) {
                    Some(taken) => taken,
                    None => break,
                },
            };
            if !taken {
                break;
            }
        }
        Ok(())
    }

    /// Delivers the entry at `at`; `None` behind the last one.
    fn deliver_listed(
        &self,
        directory: &OpenDirectory,
        at: u64,
        deliver: &mut impl FnMut(Listed<'_>) -> bool,
    ) -> Option<bool> {
        let index = usize::try_from(at - DOTS).ok()?;
        let mut send = |name: &OsStr, node: Arc<InodeNode>, ttl: Duration| {
            self.inodes.send_listed(DirectoryName::new(directory.ino, name), node, |ino, node| {
                let (attr, is_true) = attr::of(ino, node, &self.options, &self.facts);
                let ttl = if is_true { ttl } else { Duration::ZERO };
                deliver(Listed {
                    name,
                    entry: FoundEntry { attr, ttl, attr_ttl: ttl },
                    next: at + 1,
                })
            })
        };
        match &directory.listing {
            DirectoryListing::Root(names) => {
                let name = names.get(index)?;
                match self.find_in_root(name).ok()? {
                    (InodeNode::Local(top), _) => {
                        Some(self.deliver_local(directory, name, top, at, deliver))
                    }
                    (node, ttl) => Some(send(name, Arc::new(node), ttl)),
                }
            }
            DirectoryListing::Names(names) => {
                let (name, entry) = names.get(index)?;
                let name = OsStr::new(name);
                let (node, ttl) = self.named(DirectoryName::new(directory.ino, name), entry);
                Some(send(name, node, ttl))
            }
            DirectoryListing::Made { entries, ttl, .. } => {
                let (name, node) = entries.get(index)?;
                let name = OsStr::new(name);
                match node.as_ref() {
                    InodeNode::Local(package) => {
                        Some(self.deliver_local(directory, name, package.clone(), at, deliver))
                    }
                    _ => Some(send(name, node.clone(), *ttl)),
                }
            }
            DirectoryListing::Targets(targets) => {
                let (name, entry) = targets.get(index)?;
                let release = directory.node.release()?.bound()?.clone();
                let node = match entry {
                    tree::release::ReleaseEntry::Unpacked(target) => {
                        InodeNode::platform(release, *target)
                    }
                    tree::release::ReleaseEntry::Zip(target) => {
                        InodeNode::Zip(TargetNode::new(release, *target).into())
                    }
                };
                Some(send(OsStr::new(name), Arc::new(node), FOREVER))
            }
            DirectoryListing::Local(listing) => {
                let names = listing.names(at).ok()?;
                let name = names.get(index)?;
                let node = listing.dir.below(name.clone());
                Some(self.deliver_local(directory, name.as_os_str(), node, at, deliver))
            }
            DirectoryListing::Members { package, dir, plugins } => {
                let (name, child) = package.members.child(*dir, index)?;
                Some(send(name, Arc::new(member(package, child, name, *plugins)), FOREVER))
            }
        }
    }

    /// Delivers an entry of an area; one that went meanwhile is passed over.
    fn deliver_local(
        &self,
        directory: &OpenDirectory,
        name: &OsStr,
        node: LocalNode,
        at: u64,
        deliver: &mut impl FnMut(Listed<'_>) -> bool,
    ) -> bool {
        let Ok(stat) = node.stat() else { return true };
        let place = DirectoryName::new(directory.ino, name);
        self.inodes.send_listed(place, Arc::new(InodeNode::Local(node.clone())), |ino, kept| {
            deliver(Listed { name, entry: kept.told(&node, ino, &stat), next: at + 1 })
        })
    }

    /// The node of a listed name, and how long it may be kept.
    fn named(&self, place: DirectoryName, entry: &Named) -> (Arc<InodeNode>, Duration) {
        let reference = match entry {
            Named::Space(space) => {
                return (Arc::new(InodeNode::space(space.clone())), self.space_ttl(space));
            }
            Named::Link { target, repo } => {
                let of_list = self.facts.view(Instant::now()).fresh_for(&Need::Tags(repo.clone()));
                return (Arc::new(InodeNode::Link(target.as_str().into())), of_list);
            }
            Named::Release(reference) => reference,
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

    /// Closes an open directory.
    pub fn releasedir(&self, handle: u64) {
        self.handles.close(handle);
    }
}
