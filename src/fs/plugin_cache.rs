//! `plugin-cache/`: what `plugins/` shows, and beside it what clients write into a plugin cache.
//!
//! Down to the directory of a version, a directory is both: one of the view, and one of a tree on
//! local disk. Below it stand packages, links of the view or directories of the tree, and `*.lock`
//! files, which are in memory: clients lock them (by fcntl, which the kernel does by itself), and
//! neither read nor write them.
//!
//! Where clients may write, a package of the view is a link to one of two ways to the same files:
//! through `INSTALLING` for clients that install, and through `RELEASE` for everybody else.
//!
//! INVARIANT: what comes from a registry stays for everybody else, whatever a client takes away or
//! writes over; see `super::installers` and `super::replaced`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::area::{Area, LocalNode, Rules, ShownAs, kind};
use super::caller::Thread;
use super::error::{Errno, FsError};
use super::inodes::DirectoryName;
use super::node::InodeNode;
use super::providers::ProviderView;
use super::write::CallerIdentity;
use super::{FileKind, FoundEntry, Fs};
use crate::facts::MemberContent;
use crate::local::{self, Change, LocalTree, Maker, Name, RelPath};
use crate::name::{Platform, Reference, Selector};
use crate::tree::providers::ProviderDirectory;
use crate::tree::{Step, plugins};

/// The name of the area in the mount's root.
pub const NAME: &str = "plugin-cache";
/// The name of the way to packages that are read and run. It is found in the directory of a
/// version, and not listed.
pub(super) const RELEASE: &str = ".release";
/// The name of the way to packages that are written over.
pub(super) const INSTALLING: &str = ".installing";
/// How the names of lock files end.
const LOCK: &str = ".lock";
/// How many lock files there can be.
const LOCKS_MAX: usize = 10_000;
/// The mode of directories that are made on the way to a package.
const MODE: u32 = 0o755;

/// What stands behind `plugin-cache/` on a mount that is written to.
#[derive(Clone, Debug)]
pub struct PluginCache {
    area: Arc<Area>,
}

impl PluginCache {
    /// The part on local disk, and as what it is shown.
    pub fn new(tree: Arc<LocalTree>, shown: ShownAs) -> PluginCache {
        PluginCache {
            area: Arc::new(Area { name: NAME, tree, rules: Box::new(PackageRules), shown }),
        }
    }

    /// What the tree holds at the place of `dir`.
    fn local(&self, dir: &ProviderDirectory) -> Result<LocalNode, FsError> {
        Ok(LocalNode::new(self.area.clone(), self.area.tree.node_at(&path_of(dir)?)))
    }

    fn is_dir(&self, dir: &ProviderDirectory) -> bool {
        let stat = self.local(dir).and_then(|node| node.stat());
        stat.is_ok_and(|stat| kind(stat.st_mode) == FileKind::Directory)
    }

    /// Makes the directory at the place of `dir`, and those above it.
    fn made(&self, dir: &ProviderDirectory, maker: Maker) -> Result<LocalNode, FsError> {
        let path = path_of(dir)?;
        for depth in 1..=path.names().len() {
            let part: RelPath = path.names()[..depth].iter().cloned().collect();
            let Some((above, name)) = part.split_last() else { continue };
            match self.area.tree.make_dir(&self.area.tree.node_at(&above), name, MODE, maker) {
                Ok(_) | Err(local::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.local(dir)
    }
}

/// The path of `name` in `dir`, below the view.
pub(super) fn path_in(dir: &ProviderDirectory, name: &str) -> PathBuf {
    Path::new(&dir.to_string()).join(name)
}

fn path_of(dir: &ProviderDirectory) -> Result<RelPath, FsError> {
    let text = dir.to_string();
    let names =
        text.split('/').filter(|name| !name.is_empty()).map(|name| Name::new(name.as_ref()));
    Ok(names.collect::<local::TreeResult<_>>()?)
}

fn dir_of(path: &RelPath) -> Option<ProviderDirectory> {
    path.names().iter().try_fold(ProviderDirectory::Top, |dir, name| dir.child(name.to_str()?))
}

/// Packages are made where packages stand; what is in them is the client's own.
#[derive(Debug)]
struct PackageRules;

impl Rules for PackageRules {
    fn may_make(&self, dir: &RelPath, name: &Name, kind: FileKind) -> Result<(), Errno> {
        const VERSION: usize = 4;
        let text = name.to_str().unwrap_or_default();
        let allowed = match dir.names().len() {
            above if above < VERSION => {
                kind == FileKind::Directory
                    && dir_of(dir).is_some_and(|dir| dir.child(text).is_some())
            }
            VERSION => {
                matches!(kind, FileKind::Directory | FileKind::Symlink)
                    && text.parse::<Platform>().is_ok()
            }
            _ => true,
        };
        if allowed { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn may_remove(&self, _: &RelPath) -> Result<(), Errno> {
        Ok(())
    }
}

/// The `*.lock` files, by the directory in which they are.
#[derive(Default)]
pub(super) struct Locks(Mutex<BTreeMap<ProviderDirectory, BTreeSet<String>>>);

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

impl Fs {
    /// What is at `name` beside the view: a directory, a package or a lock file that a client made.
    pub(super) fn find_beside(&self, dir: &ProviderDirectory, name: &str) -> Option<InodeNode> {
        if is_lock(dir, name) {
            return self.locks.has(dir, name).then_some(InodeNode::Lock);
        }
        let cache = self.options.plugin_cache.as_ref()?;
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
        self.options.plugin_cache.as_ref().is_some_and(|cache| cache.is_dir(dir))
    }

    /// All names in `dir` beside the view.
    pub(super) fn list_beside(&self, dir: &ProviderDirectory) -> Vec<(String, Arc<InodeNode>)> {
        let cache = self.options.plugin_cache.as_ref();
        let local = cache.and_then(|cache| cache.area.tree.list(&cache.local(dir).ok()?.node).ok());
        let local = local.into_iter().flatten().filter_map(|name| name.to_str().map(str::to_owned));
        let names = local.chain(self.locks.names(dir));
        names
            .filter_map(|name| Some((name.clone(), Arc::new(self.find_beside(dir, &name)?))))
            .collect()
    }

    fn written(&self, who: CallerIdentity) -> Result<&PluginCache, FsError> {
        match &self.options.plugin_cache {
            Some(_) if !self.is_owner(who) => Err(FsError::plain(Errno::EACCES)),
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
            && self.options.plugin_cache.is_some()
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

    /// The release that `name` in `dir` leads to, if it is a way to packages that can be replaced.
    pub(super) async fn release_behind(
        self: &Arc<Self>,
        dir: &InodeNode,
        name: &OsStr,
        since: Instant,
    ) -> Result<Option<Reference>, FsError> {
        let InodeNode::Providers { view, dir, .. } = dir else { return Ok(None) };
        let ProviderDirectory::Version(provider, version) = dir.as_ref() else { return Ok(None) };
        if !(self.has_replaceable(*view, dir) && (name == RELEASE || name == INSTALLING)) {
            return Ok(None);
        }
        loop {
            let step = plugins::release(provider, version, &self.facts.view(since));
            match step {
                Step::Edge((repo, tag)) => return Ok(Some(repo.at(Selector::Tag(tag)))),
                Step::Need(need) => self.facts.tags().load(need).await?,
                Step::Failed(e) => return Err(e.into()),
                Step::Absent => return Ok(None),
            }
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
        let (InodeNode::Providers { view: ProviderView::PluginCache, dir, .. }, Some(text)) =
            (node.as_ref(), name.to_str())
        else {
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
                local.area.tree.remove_dir(&local.node, &Name::new(name)?, || None)?
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
        let is_same =
            Path::new(to) == self.options.mountpoint.join(ProviderView::Plugins.name()).join(&path);
        if !is_same
            || self.written(who).is_err()
            || self.find_beside(dir, text).is_some()
            || !self.is_shown(dir, text)
        {
            return Ok(None);
        }
        let Some(link) = self.replaceable(who.thread, *view, dir, text) else { return Ok(None) };
        self.installers.put_back(who.thread, &path);
        let send = |ino, node: &InodeNode| self.entry(ino, node, std::time::Duration::ZERO);
        Ok(Some(self.inodes.send(DirectoryName::new(parent, name), Arc::new(link), send)))
    }

    /// What a directory that was made in `dir` is: one of both, above packages.
    pub(super) fn made_dir(dir: &InodeNode, name: &str) -> Option<InodeNode> {
        match dir {
            InodeNode::Providers { view: ProviderView::PluginCache, dir, .. }
                if !matches!(**dir, ProviderDirectory::Version(..)) =>
            {
                Some(ProviderView::PluginCache.node(dir.child(name)?))
            }
            _ => None,
        }
    }

    /// Makes and opens a lock file; `None` if `name` is none. Also where nothing else may be
    /// written.
    pub(super) fn make_lock(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<Option<(FoundEntry, u64)>, FsError> {
        let node = self.inodes.node(parent)?;
        let (InodeNode::Providers { view: ProviderView::PluginCache, dir, .. }, Some(text)) =
            (node.as_ref(), name.to_str())
        else {
            return Ok(None);
        };
        if !is_lock(dir, text) {
            return Ok(None);
        }
        if !self.is_owner(who) {
            return Err(FsError::plain(Errno::EACCES));
        }
        self.locks.make(dir, text).map_err(FsError::plain)?;
        let lock = Arc::new(InodeNode::Lock);
        let entry =
            self.inodes.send(DirectoryName::new(parent, name), lock.clone(), |ino, node| {
                self.entry(ino, node, self.facts.tags().ttl())
            });
        Ok(Some((entry, self.open_lock(lock))))
    }

    pub(super) fn open_lock(&self, node: Arc<InodeNode>) -> u64 {
        self.handles.open_file(node, MemberContent::Bytes(Arc::new([])), false)
    }

    /// Removes a lock file; whether `name` was one.
    pub(super) fn remove_lock(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<bool, FsError> {
        let node = self.inodes.node(parent)?;
        let (InodeNode::Providers { view: ProviderView::PluginCache, dir, .. }, Some(text)) =
            (node.as_ref(), name.to_str())
        else {
            return Ok(false);
        };
        if !is_lock(dir, text) {
            return Ok(false);
        }
        if !self.is_owner(who) {
            return Err(FsError::plain(Errno::EACCES));
        }
        match self.locks.remove(dir, text) {
            true => {
                self.inodes.vacate(&DirectoryName::new(parent, name));
                Ok(true)
            }
            false => Err(FsError::plain(Errno::ENOENT)),
        }
    }

    /// A lock file keeps nothing: its times and mode are taken, bytes are not.
    pub(super) fn change_lock(
        &self,
        who: CallerIdentity,
        ino: u64,
        change: &Change,
    ) -> Result<FoundEntry, FsError> {
        match (self.is_owner(who), change.size) {
            (false, _) => Err(FsError::plain(Errno::EACCES)),
            (true, None | Some(0)) => {
                Ok(self.entry(ino, &InodeNode::Lock, self.facts.tags().ttl()))
            }
            (true, Some(_)) => Err(FsError::plain(Errno::EROFS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        text.split('/').filter(|c| !c.is_empty()).map(|c| Name::new(c.as_ref()).unwrap()).collect()
    }

    #[test]
    fn only_packages_and_what_is_above_them_can_be_made() {
        let may = |dir: &str, name: &str, kind| {
            PackageRules.may_make(&path(dir), &Name::new(name.as_ref()).unwrap(), kind).is_ok()
        };
        use FileKind::{Directory, Regular, Symlink};
        let version = "r.example/acme/one/1.0.0";
        for (dir, name, kind) in [
            ("", "r.example", Directory),
            ("r.example", "acme", Directory),
            ("r.example/acme", "one", Directory),
            ("r.example/acme/one", "1.0.0+b1", Directory),
            (version, "linux_amd64", Directory),
            (version, "linux_amd64", Symlink),
            ("r.example/acme/one/1.0.0/linux_amd64", "terraform-provider-one_v1.0.0", Regular),
            ("r.example/acme/one/1.0.0/linux_amd64/docs", ".x", Symlink),
        ] {
            assert!(may(dir, name, kind), "{dir} {name}");
        }
        for (dir, name, kind) in [
            ("", "main.tf.json", Regular),
            ("", "nohost", Directory),
            ("r.example", "acme", Symlink),
            ("r.example", "UPPER", Directory),
            ("r.example/acme/one", "v1", Directory),
            ("r.example/acme/one", "1.0.0", Symlink),
            (version, "linux_amd64", Regular),
            (version, "x", Directory),
        ] {
            assert!(!may(dir, name, kind), "{dir} {name}");
        }
    }

    #[test]
    fn a_directory_and_its_path_say_the_same() {
        for text in ["", "r.example", "r.example/acme/one", "r.example/acme/one/1.0.0+b1"] {
            assert_eq!(dir_of(&path(text)).unwrap().to_string(), text);
            assert_eq!(path_of(&dir_of(&path(text)).unwrap()).unwrap(), path(text));
        }
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
