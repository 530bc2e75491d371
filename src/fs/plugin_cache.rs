//! `plugin-cache/`: what `plugins/` shows, and beside it what clients write into a plugin cache.
//!
//! Down to the directory of a version, a directory is both: one of the view, and one of a tree on local disk. Below it
//! stand packages, links of the view or directories of the tree, and `*.lock` files, which are in memory: clients lock
//! them (by fcntl, which the kernel does by itself), and neither read nor write them.
//!
//! INVARIANT: what comes from a registry is never written, cut or removed (EROFS).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::area::{Area, LocalNode, Rules, kind};
use super::error::{Errno, FsError};
use super::inodes::Place;
use super::node::Node;
use super::providers::View;
use super::write::Requester;
use super::{Entry, FileKind, Fs};
use crate::facts::Content;
use crate::local::{self, Change, Maker, Name, RelPath, Tree};
use crate::name::Platform;
use crate::tree::providers::Dir;
use crate::tree::{Step, plugins};

/// The name of the area in the mount's root.
pub const NAME: &str = "plugin-cache";
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
    /// The part on local disk. Whom everything is shown to belong to, if not to whom the disk says, is `uid` and `gid`.
    pub fn new(tree: Arc<Tree>, uid: Option<u32>, gid: Option<u32>) -> PluginCache {
        PluginCache { area: Arc::new(Area { name: NAME, tree, rules: Box::new(PackageRules), uid, gid }) }
    }

    /// What the tree holds at the place of `dir`.
    fn local(&self, dir: &Dir) -> Result<LocalNode, FsError> {
        Ok(LocalNode::new(self.area.clone(), self.area.tree.node_at(&path_of(dir)?)))
    }

    fn is_dir(&self, dir: &Dir) -> bool {
        let stat = self.local(dir).and_then(|node| node.stat());
        stat.is_ok_and(|stat| kind(stat.st_mode) == FileKind::Directory)
    }

    /// Makes the directory at the place of `dir`, and those above it.
    fn made(&self, dir: &Dir, maker: Maker) -> Result<LocalNode, FsError> {
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

fn path_of(dir: &Dir) -> Result<RelPath, FsError> {
    let text = dir.to_string();
    let names = text.split('/').filter(|name| !name.is_empty()).map(|name| Name::new(name.as_ref()));
    Ok(names.collect::<local::Result<_>>()?)
}

fn dir_of(path: &RelPath) -> Option<Dir> {
    path.names().iter().try_fold(Dir::Top, |dir, name| dir.child(name.to_str()?))
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
                kind == FileKind::Directory && dir_of(dir).is_some_and(|dir| dir.child(text).is_some())
            }
            VERSION => matches!(kind, FileKind::Directory | FileKind::Symlink) && text.parse::<Platform>().is_ok(),
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
pub(super) struct Locks(Mutex<BTreeMap<Dir, BTreeSet<String>>>);

impl Locks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Dir, BTreeSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, dir: &Dir, name: &str) -> bool {
        self.lock().get(dir).is_some_and(|names| names.contains(name))
    }

    fn make(&self, dir: &Dir, name: &str) -> Result<(), Errno> {
        let mut locks = self.lock();
        if locks.values().map(BTreeSet::len).sum::<usize>() >= LOCKS_MAX {
            return Err(Errno::ENOSPC);
        }
        locks.entry(dir.clone()).or_default().insert(name.to_owned());
        Ok(())
    }

    fn remove(&self, dir: &Dir, name: &str) -> bool {
        self.lock().get_mut(dir).is_some_and(|names| names.remove(name))
    }

    fn names(&self, dir: &Dir) -> Vec<String> {
        self.lock().get(dir).into_iter().flatten().cloned().collect()
    }
}

/// Whether `name` in `dir` is one of a lock file.
fn is_lock(dir: &Dir, name: &str) -> bool {
    matches!(dir, Dir::Version(..)) && name.len() > LOCK.len() && name.ends_with(LOCK)
}

impl Fs {
    /// What is at `name` beside the view: a directory, a package or a lock file that a client made.
    pub(super) fn find_beside(&self, dir: &Dir, name: &str) -> Option<Node> {
        if is_lock(dir, name) {
            return self.locks.has(dir, name).then_some(Node::Lock);
        }
        let cache = self.options.plugin_cache.as_ref()?;
        match (dir, dir.child(name)) {
            (Dir::Version(..), _) => {
                let node = cache.local(dir).ok()?.below(Name::new(name.as_ref()).ok()?);
                node.stat().is_ok().then_some(Node::Local(node))
            }
            (_, Some(child)) => cache.is_dir(&child).then(|| View::PluginCache.node(child)),
            (_, None) => None,
        }
    }

    /// Whether `dir` was made by a client, if nothing is in it as well.
    pub(super) fn is_beside(&self, dir: &Dir) -> bool {
        self.options.plugin_cache.as_ref().is_some_and(|cache| cache.is_dir(dir))
    }

    /// All names in `dir` beside the view.
    pub(super) fn list_beside(&self, dir: &Dir) -> Vec<(String, Arc<Node>)> {
        let cache = self.options.plugin_cache.as_ref();
        let local = cache.and_then(|cache| cache.area.tree.list(&cache.local(dir).ok()?.node).ok());
        let local = local.into_iter().flatten().filter_map(|name| name.to_str().map(str::to_owned));
        let names = local.chain(self.locks.names(dir));
        names.filter_map(|name| Some((name.clone(), Arc::new(self.find_beside(dir, &name)?)))).collect()
    }

    fn written(&self, who: Requester) -> Result<&PluginCache, FsError> {
        match &self.options.plugin_cache {
            Some(_) if !self.is_owner(who) => Err(FsError::plain(Errno::EACCES)),
            Some(cache) => Ok(cache),
            None => Err(FsError::plain(Errno::EROFS)),
        }
    }

    /// The directory of the tree at the place of `dir`, made if it is missing.
    pub(super) fn make_beside(&self, who: Requester, dir: &Dir) -> Result<LocalNode, FsError> {
        self.written(who)?.made(dir, who.into())
    }

    /// The directory of the tree at the place of `dir`, in which `name` stands: what the view shows is not there.
    pub(super) fn beside(&self, who: Requester, dir: &Dir, name: &OsStr) -> Result<LocalNode, FsError> {
        let local = self.written(who)?.local(dir)?;
        let stat = local.area.tree.find(&local.node, &Name::new(name)?);
        let is_shown = || {
            let known = self.facts.view(Instant::now());
            name.to_str().is_some_and(|name| matches!(plugins::lookup(dir, name, &known), Step::Edge(_)))
        };
        match stat {
            // A directory of the view stays, whatever is removed from it.
            Ok(stat) if kind(stat.st_mode) == FileKind::Directory && !matches!(dir, Dir::Version(..)) && is_shown() => {
                Err(FsError::plain(Errno::EROFS))
            }
            Err(local::Errno::NOENT) => Err(FsError::plain(Errno::EROFS)),
            _ => Ok(local),
        }
    }

    /// What a directory that was made in `dir` is: one of both, above packages.
    pub(super) fn made_dir(dir: &Node, name: &str) -> Option<Node> {
        match dir {
            Node::Providers { view: View::PluginCache, dir, .. } if !matches!(**dir, Dir::Version(..)) => {
                Some(View::PluginCache.node(dir.child(name)?))
            }
            _ => None,
        }
    }

    /// Makes and opens a lock file; `None` if `name` is none. Also where nothing else may be written.
    pub(super) fn make_lock(&self, who: Requester, parent: u64, name: &OsStr) -> Result<Option<(Entry, u64)>, FsError> {
        let node = self.inodes.node(parent)?;
        let (Node::Providers { view: View::PluginCache, dir, .. }, Some(text)) = (node.as_ref(), name.to_str()) else {
            return Ok(None);
        };
        if !is_lock(dir, text) {
            return Ok(None);
        }
        if !self.is_owner(who) {
            return Err(FsError::plain(Errno::EACCES));
        }
        self.locks.make(dir, text).map_err(FsError::plain)?;
        let lock = Arc::new(Node::Lock);
        let entry = self
            .inodes
            .send(Place::new(parent, name), lock.clone(), |ino, node| self.entry(ino, node, self.facts.tag_ttl()));
        Ok(Some((entry, self.open_lock(lock))))
    }

    pub(super) fn open_lock(&self, node: Arc<Node>) -> u64 {
        self.handles.open_file(node, Content::Bytes(Arc::new([])), false)
    }

    /// Removes a lock file; whether `name` was one.
    pub(super) fn remove_lock(&self, who: Requester, parent: u64, name: &OsStr) -> Result<bool, FsError> {
        let node = self.inodes.node(parent)?;
        let (Node::Providers { view: View::PluginCache, dir, .. }, Some(text)) = (node.as_ref(), name.to_str()) else {
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
                self.inodes.vacate(&Place::new(parent, name));
                Ok(true)
            }
            false => Err(FsError::plain(Errno::ENOENT)),
        }
    }

    /// A lock file keeps nothing: its times and mode are taken, bytes are not.
    pub(super) fn change_lock(&self, who: Requester, ino: u64, change: &Change) -> Result<Entry, FsError> {
        match (self.is_owner(who), change.size) {
            (false, _) => Err(FsError::plain(Errno::EACCES)),
            (true, None | Some(0)) => Ok(self.entry(ino, &Node::Lock, self.facts.tag_ttl())),
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
        assert!(is_lock(&version, "linux_amd64.lock") && !is_lock(&version, ".lock") && !is_lock(&version, "x.json"));
        assert!(!is_lock(&Dir::Top, "r.example.lock"));
        let locks = Locks::default();
        locks.make(&version, "a.lock").unwrap();
        locks.make(&version, "a.lock").unwrap();
        assert!(
            locks.has(&version, "a.lock") && locks.names(&version) == ["a.lock"] && !locks.has(&Dir::Top, "a.lock")
        );
        assert!(locks.remove(&version, "a.lock") && !locks.remove(&version, "a.lock"));
    }
}
