//! Directories: what is listed, and how it is delivered.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use super::area::LocalNode;
use super::attr::{FOREVER, Looked};
use super::caller::Thread;
use super::directory::{DirectoryListing, Listed, LocalListing, OpenDirectory};
use super::entries::InodeEntries;
use super::error::{Errno, FsError};
use super::handles::Handles;
use super::inodes::{DirectoryName, Inodes};
use super::node::{InodeNode, TargetNode};
use super::releases::{Releases, member};
use super::spaces::Spaces;
use super::speaking::ReferrerView;
use super::views::Views;
use crate::artifact::Release;
use crate::facts::Facts;
use crate::members::TOP;
use crate::tree;
use crate::tree::release::ReleaseEntry;

/// `.` and `..` come before the listing.
const DOTS: u64 = 2;

/// See the module.
pub(super) struct Directories {
    facts: Arc<Facts>,
    inodes: Arc<Inodes>,
    handles: Arc<Handles>,
    entries: Arc<InodeEntries>,
    releases: Arc<Releases>,
    spaces: Arc<Spaces>,
    views: Arc<Views>,
    speaking: Arc<ReferrerView>,
}

impl Directories {
    pub(super) fn new(
        handles: Arc<Handles>,
        releases: Arc<Releases>,
        spaces: Arc<Spaces>,
        views: Arc<Views>,
        speaking: Arc<ReferrerView>,
    ) -> Directories {
        Directories {
            facts: views.facts.clone(),
            inodes: views.inodes.clone(),
            handles,
            entries: spaces.entries.clone(),
            releases,
            spaces,
            views,
            speaking,
        }
    }

    /// What there is in the directory `node`, for who asks in `thread`.
    pub(super) async fn listing(
        &self,
        thread: Thread,
        node: &Arc<InodeNode>,
    ) -> Result<DirectoryListing, FsError> {
        match node.as_ref() {
            InodeNode::Root => Ok(DirectoryListing::Root(self.spaces.root_names())),
            InodeNode::Providers { view, dir, .. } => self.views.list(thread, *view, dir).await,
            InodeNode::Referrers { place, .. } => self.speaking.list(place).await,
            InodeNode::Local(at) => {
                at.stat()?;
                Ok(DirectoryListing::Local(LocalListing::new(at.clone())))
            }
            InodeNode::Space { space, .. } => self.spaces.list(space).await,
            InodeNode::Release(release) => {
                let bound = self.releases.enter(release).await?;
                match &bound.release {
                    Release::Provider(targets) => {
                        let lacking = self.facts.manifests().lacking(&bound.repo, targets).await;
                        let is_held = |at: usize| !lacking.contains(&targets[at].digest());
                        let mut listed = tree::release::list(targets);
                        listed.retain(|(_, entry)| match entry {
                            ReleaseEntry::Unpacked(at) | ReleaseEntry::Zip(at) => is_held(*at),
                        });
                        Ok(DirectoryListing::Targets(listed))
                    }
                    Release::Module(archive) => {
                        let package = self.releases.module(&bound, archive).await?;
                        Ok(DirectoryListing::Members { package, dir: TOP, plugins: false })
                    }
                }
            }
            InodeNode::Platform(target, package) => Ok(DirectoryListing::Members {
                package: self.releases.platform(target, package).await?,
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

    /// Delivers the entries of an open directory from `offset` on, with their attributes, until
    /// `deliver` says that it did not take one. Each entry taken counts as a lookup, except `.` and
    /// `..`, which the kernel does not count.
    ///
    /// No request is sent for this: what would need one (the size of a provider zip that nobody
    /// asked for yet) is delivered with a time to live of zero, so that the kernel asks before it
    /// believes.
    pub(super) fn read(
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
                    let entry = self.entries.of(ino, node, Duration::ZERO);
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
                deliver(Listed { name, entry: self.entries.of(ino, node, ttl), next: at + 1 })
            })
        };
        match &directory.listing {
            DirectoryListing::Root(names) => {
                let name = names.get(index)?;
                match self.spaces.find_in_root(name) {
                    Looked::Found((InodeNode::Local(top), _)) => {
                        Some(self.deliver_local(directory, name, top, at, deliver))
                    }
                    Looked::Found((node, ttl)) => Some(send(name, Arc::new(node), ttl)),
                    Looked::Absent(_) => None,
                }
            }
            DirectoryListing::Names(names) => {
                let (name, entry) = names.get(index)?;
                let name = OsStr::new(name);
                let (node, ttl) = self.spaces.named(DirectoryName::new(directory.ino, name), entry);
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
                    ReleaseEntry::Unpacked(target) => InodeNode::platform(release, *target),
                    ReleaseEntry::Zip(target) => {
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
}
