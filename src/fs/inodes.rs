//! The inode table: what the kernel holds references to.
//!
//! Numbers come from a counter and are never used again. An entry lives as long as the kernel holds a reference; the
//! count of them rises in [`Inodes::send`] and [`Inodes::send_listed`] only, where an entry is sent. Open handles
//! hold their node themselves, so an entry need not outlive its references.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{Errno, FsError};
use super::node::Node;
use super::{Entry, ROOT};

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place {
    parent: u64,
    name: Box<[u8]>,
}

impl Place {
    pub(super) fn new(parent: u64, name: &OsStr) -> Self {
        Place { parent, name: name.as_bytes().into() }
    }

    pub(super) fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// The number of the directory, and the name in it.
    pub(super) fn into_parts(self) -> (u64, Box<OsStr>) {
        (self.parent, self.name().into())
    }
}

struct Held {
    node: Arc<Node>,
    place: Option<Place>,
    references: u64,
}

struct Table {
    by_number: HashMap<u64, Held>,
    by_place: HashMap<Place, u64>,
    next: u64,
}

pub(super) struct Inodes(Mutex<Table>);

impl Inodes {
    pub(super) fn new() -> Self {
        let root = Held { node: Arc::new(Node::Root), place: None, references: 1 };
        Inodes(Mutex::new(Table { by_number: HashMap::from([(ROOT, root)]), by_place: HashMap::new(), next: ROOT + 1 }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `ino` stands for.
    pub(super) fn node(&self, ino: u64) -> Result<Arc<Node>, FsError> {
        self.lock().by_number.get(&ino).map(|held| held.node.clone()).ok_or(FsError::plain(Errno::ESTALE))
    }

    /// The number of the directory in which `ino` has its name; its own where it has none, as the root.
    pub(super) fn parent(&self, ino: u64) -> u64 {
        let table = self.lock();
        let place = table.by_number.get(&ino).and_then(|held| held.place.as_ref());
        place.map_or(ino, |place| place.parent)
    }

    /// What `ino` stands for and its name, likewise of the directory in which it has that name, and so on upwards.
    pub(super) fn way_up(&self, ino: u64) -> Vec<(Arc<Node>, Box<OsStr>)> {
        let table = self.lock();
        let mut way = Vec::new();
        let mut at = ino;
        while let Some(held) = table.by_number.get(&at)
            && let Some(place) = &held.place
        {
            way.push((held.node.clone(), place.name().into()));
            at = place.parent;
        }
        way
    }

    /// What stands at `place` now.
    pub(super) fn at(&self, place: &Place) -> Option<Arc<Node>> {
        let table = self.lock();
        let ino = table.by_place.get(place)?;
        Some(table.by_number.get(ino)?.node.clone())
    }

    /// The place at the end of a path from the root, as far as the kernel may know it: where it holds no inode of what
    /// is above, it keeps no name either.
    pub(super) fn place_of<'a>(&self, names: impl IntoIterator<Item = &'a OsStr>) -> Option<Place> {
        let table = self.lock();
        let mut names = names.into_iter();
        let mut place = Place::new(ROOT, names.next()?);
        for name in names {
            place = Place::new(*table.by_place.get(&place)?, name);
        }
        Some(place)
    }

    /// Makes `node` what stands at `place`, counts a reference and makes the entry that is sent.
    ///
    /// A node that is immutable by its place (everything but a release, a link and a document) keeps the inode that is there.
    pub(super) fn send(&self, place: Place, node: Arc<Node>, entry: impl FnOnce(u64, &Node) -> Entry) -> Entry {
        let mut table = self.lock();
        let (ino, node) = table.intern(place, node);
        table.count(ino);
        drop(table);
        entry(ino, &node)
    }

    /// Like [`Inodes::send`] for an entry of a listing: it counts only if `deliver` says that it was taken.
    pub(super) fn send_listed(&self, place: Place, node: Arc<Node>, deliver: impl FnOnce(u64, &Node) -> bool) -> bool {
        let mut table = self.lock();
        let (ino, node) = table.intern(place, node);
        let taken = deliver(ino, &node);
        if taken {
            table.count(ino);
        }
        table.drop_unreferenced(ino);
        taken
    }

    /// Drops `count` references.
    pub(super) fn forget(&self, ino: u64, count: u64) {
        let mut table = self.lock();
        if let Some(held) = table.by_number.get_mut(&ino) {
            held.references = held.references.saturating_sub(count);
            table.drop_unreferenced(ino);
        }
    }

    /// Takes what stands at `place` from there, since its name was removed; what it was.
    pub(super) fn vacate(&self, place: &Place) -> Option<Arc<Node>> {
        let mut table = self.lock();
        let ino = table.by_place.remove(place)?;
        let held = table.by_number.get_mut(&ino)?;
        held.place = None;
        Some(held.node.clone())
    }

    /// Puts what stands at `from` to `to`, and with `exchange` the other way round; what moved, and what was at `to`.
    pub(super) fn renamed(&self, from: Place, to: Place, exchange: bool) -> (Option<Arc<Node>>, Option<Arc<Node>>) {
        let mut table = self.lock();
        let (moved, other) = (table.by_place.remove(&from), table.by_place.remove(&to));
        let moved = moved.and_then(|ino| table.put(ino, Some(to)));
        let other = other.and_then(|ino| table.put(ino, exchange.then_some(from)));
        (moved, other)
    }

    /// Makes the next lookup of the name at which `ino` stands find another inode.
    pub(super) fn supersede(&self, ino: u64) {
        let mut table = self.lock();
        if let Some(place) = table.by_number.get_mut(&ino).and_then(|held| held.place.take())
            && table.by_place.get(&place) == Some(&ino)
        {
            table.by_place.remove(&place);
        }
    }

    /// The places at which something stands for which `wanted` holds: number of the directory and name in it.
    pub(super) fn places(&self, wanted: impl Fn(&Node) -> bool) -> Vec<(u64, Box<OsStr>)> {
        let table = self.lock();
        table
            .by_place
            .iter()
            .filter(|(_, ino)| table.by_number.get(ino).is_some_and(|held| wanted(&held.node)))
            .map(|(place, _)| place.clone().into_parts())
            .collect()
    }

    /// How many inodes there are, the root included.
    pub(super) fn count(&self) -> usize {
        self.lock().by_number.len()
    }
}

impl Table {
    /// Makes `place` where `ino` stands.
    fn put(&mut self, ino: u64, place: Option<Place>) -> Option<Arc<Node>> {
        let held = self.by_number.get_mut(&ino)?;
        held.place = place.clone();
        let node = held.node.clone();
        if let Some(place) = place {
            self.by_place.insert(place, ino);
        }
        Some(node)
    }

    fn count(&mut self, ino: u64) {
        if let Some(held) = self.by_number.get_mut(&ino) {
            held.references += 1;
        }
    }

    fn intern(&mut self, place: Place, node: Arc<Node>) -> (u64, Arc<Node>) {
        if let Some(&ino) = self.by_place.get(&place)
            && let Some(held) = self.by_number.get(&ino)
        {
            let same = match (held.node.as_ref(), node.as_ref()) {
                (Node::Release(_), Node::Release(_)) => Arc::ptr_eq(&held.node, &node),
                // What is made of facts changes with them, and the kernel keeps what it read of an inode.
                (Node::Link(before), Node::Link(now)) => before == now,
                (Node::Document(before), Node::Document(now)) => before == now,
                (Node::Zip(before), Node::Zip(now)) => before.is_same(now),
                (before, now) => std::mem::discriminant(before) == std::mem::discriminant(now),
            };
            if same {
                return (ino, held.node.clone());
            }
        }
        let ino = self.next;
        self.next += 1;
        self.by_place.insert(place.clone(), ino);
        self.by_number.insert(ino, Held { node: node.clone(), place: Some(place), references: 0 });
        (ino, node)
    }

    fn drop_unreferenced(&mut self, ino: u64) {
        let Some(held) = self.by_number.get(&ino) else { return };
        if held.references > 0 || ino == ROOT {
            return;
        }
        if let Some(held) = self.by_number.remove(&ino)
            && let Some(place) = held.place
            && self.by_place.get(&place) == Some(&ino)
        {
            self.by_place.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attr::{Attr, FileKind};
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn entry(ino: u64, _: &Node) -> Entry {
        let attr = Attr {
            ino,
            kind: FileKind::Directory,
            size: 0,
            blocks: 0,
            mode: 0,
            device: 0,
            nlink: 2,
            uid: 0,
            gid: 0,
            accessed: UNIX_EPOCH,
            modified: UNIX_EPOCH,
            changed: UNIX_EPOCH,
        };
        Entry { attr, ttl: Duration::ZERO, attr_ttl: Duration::ZERO }
    }

    fn space(name: &str) -> Arc<Node> {
        Arc::new(Node::registry(name.parse().unwrap()))
    }

    fn place(name: &str) -> Place {
        Place::new(ROOT, OsStr::new(name))
    }

    #[test]
    fn after_everything_is_forgotten_the_root_alone_is_left() {
        let inodes = Inodes::new();
        let a = inodes.send(place("a.b"), space("a.b"), entry).attr.ino;
        assert_eq!(inodes.send(place("a.b"), space("a.b"), entry).attr.ino, a);
        let mut listed = 0;
        assert!(inodes.send_listed(place("a.b"), space("a.b"), |ino, _| {
            listed = ino;
            true
        }));
        assert_eq!(listed, a);
        inodes.forget(a, 2);
        assert_eq!(inodes.count(), 2);
        inodes.forget(a, 1);
        assert_eq!(inodes.count(), 1);
        inodes.forget(ROOT, 1);
        assert!(inodes.node(ROOT).is_ok());
    }

    #[test]
    fn an_entry_that_was_not_taken_leaves_nothing() {
        let inodes = Inodes::new();
        assert!(!inodes.send_listed(place("a.b"), space("a.b"), |_, _| false));
        assert_eq!(inodes.count(), 1);
        assert!(inodes.at(&place("a.b")).is_none());
    }

    #[test]
    fn an_inode_follows_its_name_and_loses_it_when_that_goes() {
        let inodes = Inodes::new();
        let a = inodes.send(place("a.b"), space("a.b"), entry).attr.ino;
        let c = inodes.send(place("c.d"), space("c.d"), entry).attr.ino;
        inodes.renamed(place("a.b"), place("c.d"), true);
        assert_eq!(inodes.send(place("a.b"), space("c.d"), entry).attr.ino, c);
        inodes.renamed(place("c.d"), place("a.b"), false);
        assert_eq!(inodes.send(place("a.b"), space("a.b"), entry).attr.ino, a);
        assert!(inodes.at(&place("c.d")).is_none() && inodes.node(c).is_ok());
        assert!(inodes.vacate(&place("a.b")).is_some() && inodes.at(&place("a.b")).is_none());
        inodes.forget(a, 2);
        inodes.forget(c, 2);
        assert_eq!(inodes.count(), 1);
    }

    #[test]
    fn a_number_is_never_used_again() {
        let inodes = Inodes::new();
        let a = inodes.send(place("a.b"), space("a.b"), entry).attr.ino;
        inodes.forget(a, 1);
        assert_ne!(inodes.send(place("a.b"), space("a.b"), entry).attr.ino, a);
        assert!(inodes.node(a).is_err());
    }
}
