//! Packages that clients put into `plugin-cache/`, beside those of the view, and those of the view
//! that they take away.
//!
//! Beside packages stand `*.lock` files, which are in memory: clients lock them (by fcntl, which
//! the kernel does by itself), and neither read nor write them.
//!
//! INVARIANT: what comes from a registry stays for everybody else, whatever a client takes away or
//! writes over; see `super::installers` and `super::overwrites`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::area::{LocalNode, kind};
use super::attr::{FileKind, FoundEntry};
use super::caller::{CallerIdentity, Owner, Thread};
use super::entries::InodeEntries;
use super::error::{Errno, FsError};
use super::inodes::{DirectoryName, Inodes};
use super::installers::Installers;
use super::node::{InodeNode, ProviderView};
use super::plugin_cache::{INSTALLING, PluginCache, RELEASE, path_in};
use crate::facts::Facts;
use crate::local::{self, Change, Name, Removal};
use crate::name::Platform;
use crate::tree::providers::ProviderDirectory;
use crate::tree::{Step, plugins};

/// How the names of lock files end.
const LOCK: &str = ".lock";
/// How many lock files there can be.
const LOCKS_MAX: usize = 10_000;

/// The `*.lock` files, by the directory in which they are.
#[derive(Default)]
struct Locks(Mutex<BTreeMap<ProviderDirectory, BTreeSet<String>>>);

impl Locks {
    fn has(&self, dir: &ProviderDirectory, name: &str) -> bool {
        self.0.lock().get(dir).is_some_and(|names| names.contains(name))
    }

    fn make(&self, dir: &ProviderDirectory, name: &str) -> Result<(), Errno> {
        let mut locks = self.0.lock();
        if locks.values().map(BTreeSet::len).sum::<usize>() >= LOCKS_MAX {
            return Err(Errno::ENOSPC);
        }
        locks.entry(dir.clone()).or_default().insert(name.to_owned());
        Ok(())
    }

    fn remove(&self, dir: &ProviderDirectory, name: &str) -> bool {
        self.0.lock().get_mut(dir).is_some_and(|names| names.remove(name))
    }

    fn names(&self, dir: &ProviderDirectory) -> Vec<String> {
        self.0.lock().get(dir).into_iter().flatten().cloned().collect()
    }
}

/// Whether `name` in `dir` is one of a lock file.
fn is_lock(dir: &ProviderDirectory, name: &str) -> bool {
    matches!(dir, ProviderDirectory::Version(..)) && name.len() > LOCK.len() && name.ends_with(LOCK)
}

/// The lock file that `name` can be in the directory `node`.
fn lock_at<'a>(node: &'a InodeNode, name: &'a OsStr) -> Option<(&'a ProviderDirectory, &'a str)> {
    let (dir, text) = (node.in_plugin_cache()?, name.to_str()?);
    is_lock(dir, text).then_some((dir, text))
}

/// See the module.
pub(super) struct ClientPackages {
    facts: Arc<Facts>,
    inodes: Arc<Inodes>,
    pub(super) entries: Arc<InodeEntries>,
    pub(super) owner: Owner,
    /// Where they lie; `None` where nothing may be written.
    pub(super) cache: Option<PluginCache>,
    /// The path of `plugins/`, to which clients link.
    plugins: PathBuf,
    pub(super) installers: Installers,
    locks: Locks,
}

impl ClientPackages {
    pub(super) fn new(
        entries: Arc<InodeEntries>,
        owner: Owner,
        cache: Option<PluginCache>,
        plugins: PathBuf,
    ) -> ClientPackages {
        ClientPackages {
            facts: entries.facts.clone(),
            inodes: entries.inodes.clone(),
            entries,
            owner,
            cache,
            plugins,
            installers: Installers::default(),
            locks: Locks::default(),
        }
    }

    /// What is at `name` beside the view: a directory, a package or a lock file that a client made.
    pub(super) fn find_beside(&self, dir: &ProviderDirectory, name: &str) -> Option<InodeNode> {
        if is_lock(dir, name) {
            return self.locks.has(dir, name).then_some(InodeNode::Lock);
        }
        let cache = self.cache.as_ref()?;
        match (dir, dir.child(name)) {
            (ProviderDirectory::Version(..), _) => {
                name.parse::<Platform>().ok()?;
                let node = cache.local(dir).ok()?.below(Name::new(name.as_ref()).ok()?);
                node.stat().is_ok().then_some(InodeNode::Local(node))
            }
            (_, Some(child)) => cache.is_dir(&child).then(|| ProviderView::PluginCache.node(child)),
            (_, None) => None,
        }
    }

    /// Whether `dir` was made by a client, if nothing is in it as well.
    pub(super) fn is_beside(&self, dir: &ProviderDirectory) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.is_dir(dir))
    }

    /// All names in `dir` beside the view.
    pub(super) fn list_beside(&self, dir: &ProviderDirectory) -> Vec<(String, Arc<InodeNode>)> {
        let cache = self.cache.as_ref();
        let local = cache.and_then(|cache| cache.area.tree.list(&cache.local(dir).ok()?.node).ok());
        let local = local.into_iter().flatten().filter_map(|name| name.to_str().map(str::to_owned));
        let names = local.chain(self.locks.names(dir));
        names
            .filter_map(|name| Some((name.clone(), Arc::new(self.find_beside(dir, &name)?))))
            .collect()
    }

    /// Whether the process of `thread` took away what the view shows at `name` in `dir`.
    pub(super) fn is_gone(&self, thread: Thread, dir: &ProviderDirectory, name: &str) -> bool {
        self.installers.is_gone(thread, &path_in(dir, name))
    }

    fn written(&self, who: CallerIdentity) -> Result<&PluginCache, FsError> {
        match &self.cache {
            Some(_) if !self.owner.is(who) => Err(FsError::plain(Errno::EACCES)),
            Some(cache) => Ok(cache),
            None => Err(FsError::plain(Errno::EROFS)),
        }
    }

    /// The directory of the tree at the place of `dir`, made if it is missing.
    pub(super) fn make_beside(
        &self,
        who: CallerIdentity,
        dir: &ProviderDirectory,
    ) -> Result<LocalNode, FsError> {
        self.written(who)?.made(dir, who.into())
    }

    fn is_shown(&self, dir: &ProviderDirectory, name: &str) -> bool {
        matches!(plugins::lookup(dir, name, &self.facts.view(Instant::now())), Step::Edge(_))
    }

    /// The directory of the tree at the place of `dir`, in which `name` stands: what the view shows
    /// is not there.
    pub(super) fn beside(
        &self,
        who: CallerIdentity,
        dir: &ProviderDirectory,
        name: &OsStr,
    ) -> Result<LocalNode, FsError> {
        let local = self.written(who)?.local(dir)?;
        let stat = local.area.tree.find(&local.node, &Name::new(name)?);
        let is_shown = || name.to_str().is_some_and(|name| self.is_shown(dir, name));
        match stat {
            // A directory that is both has no other name.
            Ok(stat)
                if kind(stat.st_mode) == FileKind::Directory
                    && !matches!(dir, ProviderDirectory::Version(..))
                    && is_shown() =>
            {
                Err(FsError::plain(Errno::EROFS))
            }
            Err(local::Errno::NOENT) => Err(FsError::plain(Errno::EROFS)),
            _ => Ok(local),
        }
    }

    /// Whether the packages in `dir` can be replaced.
    pub(super) fn has_replaceable(&self, view: ProviderView, dir: &ProviderDirectory) -> bool {
        view == ProviderView::PluginCache
            && self.cache.is_some()
            && matches!(dir, ProviderDirectory::Version(..))
    }

    /// The link to a package that can be replaced.
    pub(super) fn replaceable(
        &self,
        thread: Thread,
        view: ProviderView,
        dir: &ProviderDirectory,
        name: &str,
    ) -> Option<InodeNode> {
        self.has_replaceable(view, dir).then(|| {
            let way = if self.installers.is_one(thread) { INSTALLING } else { RELEASE };
            InodeNode::Link(format!("{way}/{name}").into())
        })
    }

    /// Notes that who lists the packages of a version may come to install one.
    pub(super) fn note_installer(&self, thread: Thread, node: &InodeNode) {
        if let InodeNode::Providers { view, dir, .. } = node
            && self.has_replaceable(*view, dir)
        {
            self.installers.note(thread);
        }
    }

    /// Takes what the view shows at `name` in `parent` away from who asks; whether it is something
    /// that only the view shows.
    ///
    /// # Errors
    /// `ENOTEMPTY` for a directory in which there is something left.
    pub(super) fn take_away(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<bool, FsError> {
        let node = self.inodes.node(parent)?;
        let (Some(dir), Some(text)) = (node.in_plugin_cache(), name.to_str()) else {
            return Ok(false);
        };
        if !self.is_shown(dir, text) {
            return Ok(false);
        }
        let local = self.written(who)?.local(dir)?;
        let beside = local.below(Name::new(name)?);
        let is_local = beside.stat().is_ok();
        match dir.child(text) {
            None if is_local => return Ok(false),
            None => {}
            Some(child) if !self.is_emptied(who, &child) => {
                return Err(FsError::plain(Errno::ENOTEMPTY));
            }
            Some(_) if is_local => {
                let name = Name::new(name)?;
                local.area.tree.remove(&local.node, &name, Removal::RemoveDir, || None)?
            }
            Some(_) => {}
        }
        self.inodes.vacate(&DirectoryName::new(parent, name));
        self.installers.take_away(who.thread, path_in(dir, text));
        Ok(true)
    }

    /// Whether who asks took everything away that the view shows in `dir`.
    fn is_emptied(&self, who: CallerIdentity, dir: &ProviderDirectory) -> bool {
        let gone = |name: &String| self.installers.is_gone(who.thread, &path_in(dir, name));
        let list = plugins::list(dir, &self.facts.view(Instant::now()));
        matches!(list, Step::Edge(listing) if listing.entries.keys().all(gone))
            && self.locks.names(dir).is_empty()
    }

    /// A link to `to` that a client puts where the view shows a package: if it leads to that
    /// package, the view's own is there, and nothing has to be kept.
    pub(super) fn put_back(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
        to: &OsStr,
    ) -> Result<Option<FoundEntry>, FsError> {
        let node = self.inodes.node(parent)?;
        let (InodeNode::Providers { view, dir, .. }, Some(text)) = (node.as_ref(), name.to_str())
        else {
            return Ok(None);
        };
        let path = path_in(dir, text);
        let is_same = Path::new(to) == self.plugins.join(&path);
        if !is_same
            || self.written(who).is_err()
            || self.find_beside(dir, text).is_some()
            || !self.is_shown(dir, text)
        {
            return Ok(None);
        }
        let Some(link) = self.replaceable(who.thread, *view, dir, text) else { return Ok(None) };
        self.installers.put_back(who.thread, &path);
        let place = DirectoryName::new(parent, name);
        Ok(Some(self.entries.send(place, Arc::new(link), Duration::ZERO)))
    }

    /// What a directory that was made in `dir` is: one of both, above packages.
    pub(super) fn made_dir(dir: &InodeNode, name: &str) -> Option<InodeNode> {
        let dir = dir.in_plugin_cache()?;
        let is_above = !matches!(dir, ProviderDirectory::Version(..));
        is_above.then_some(ProviderView::PluginCache.node(dir.child(name)?))
    }

    /// Makes a lock file; `None` if `name` is none. Also where nothing else may be
    /// written.
    pub(super) fn make_lock(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<Option<(FoundEntry, Arc<InodeNode>)>, FsError> {
        let node = self.inodes.node(parent)?;
        let Some((dir, text)) = lock_at(&node, name) else { return Ok(None) };
        if !self.owner.is(who) {
            return Err(FsError::plain(Errno::EACCES));
        }
        self.locks.make(dir, text).map_err(FsError::plain)?;
        let lock = Arc::new(InodeNode::Lock);
        let place = DirectoryName::new(parent, name);
        let entry = self.entries.send(place, lock.clone(), self.facts.tags().ttl());
        Ok(Some((entry, lock)))
    }

    /// Removes a lock file; whether `name` was one.
    pub(super) fn remove_lock(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<bool, FsError> {
        let node = self.inodes.node(parent)?;
        let Some((dir, text)) = lock_at(&node, name) else { return Ok(false) };
        if !self.owner.is(who) {
            return Err(FsError::plain(Errno::EACCES));
        }
        if !self.locks.remove(dir, text) {
            return Err(FsError::plain(Errno::ENOENT));
        }
        self.inodes.vacate(&DirectoryName::new(parent, name));
        Ok(true)
    }

    /// A lock file keeps nothing: its times and mode are taken, bytes are not.
    pub(super) fn change_lock(
        &self,
        who: CallerIdentity,
        ino: u64,
        change: &Change,
    ) -> Result<FoundEntry, FsError> {
        if !self.owner.is(who) {
            return Err(FsError::plain(Errno::EACCES));
        }
        match change.size {
            None | Some(0) => Ok(self.entries.of(ino, &InodeNode::Lock, self.facts.tags().ttl())),
            Some(_) => Err(FsError::plain(Errno::EROFS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plugin_cache::dir_of;
    use super::*;
    use crate::local::RelPath;

    fn path(text: &str) -> RelPath {
        text.split('/').filter(|c| !c.is_empty()).map(|c| Name::new(c.as_ref()).unwrap()).collect()
    }

    #[test]
    fn lock_files_stand_beside_packages_alone() {
        let version = dir_of(&path("r.example/acme/one/1.0.0")).unwrap();
        assert!(
            is_lock(&version, "linux_amd64.lock")
                && !is_lock(&version, ".lock")
                && !is_lock(&version, "x.json")
        );
        assert!(!is_lock(&ProviderDirectory::Top, "r.example.lock"));
        let locks = Locks::default();
        locks.make(&version, "a.lock").unwrap();
        locks.make(&version, "a.lock").unwrap();
        assert!(
            locks.has(&version, "a.lock")
                && locks.names(&version) == ["a.lock"]
                && !locks.has(&ProviderDirectory::Top, "a.lock")
        );
        assert!(locks.remove(&version, "a.lock") && !locks.remove(&version, "a.lock"));
    }
}
