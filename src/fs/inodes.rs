//! The inode table: what the kernel holds references to.
//!
//! Numbers come from a counter and are never used again. An entry lives as long as the kernel holds
//! a reference; the count of them rises in [`Inodes::send`] and [`Inodes::send_listed`] only, where
//! an entry is sent. Open handles hold their node themselves, so an entry need not outlive its
//! references.

mod local;

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use hashbrown::HashTable;

use parking_lot::Mutex;

use super::attr::FoundEntry;
use super::error::{Errno, FsError};
use super::node::InodeNode;
use super::numbered::Numbered;

/// The inode of a mount's root.
pub const ROOT: u64 = 1;
/// Names in directories, by the numbers of these.
pub type NamesInDirectories = Vec<(u64, Box<OsStr>)>;

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct DirectoryName {
    parent: u64,
    name: Box<[u8]>,
}

impl DirectoryName {
    pub(super) fn new(parent: u64, name: &OsStr) -> Self {
        DirectoryName { parent, name: name.as_bytes().into() }
    }

    pub(super) fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// The number of the directory, and the name in it.
    pub(super) fn into_parts(self) -> (u64, Box<OsStr>) {
        (self.parent, self.name().into())
    }
}

struct HeldInode {
    node: Arc<InodeNode>,
    place: Option<DirectoryName>,
    references: u64,
}

type ByNumber = Numbered<HeldInode>;

/// There is one entry for each name that the kernel knows, which may be hundreds of thousands: a
/// name stands in it once.
struct InodeTable {
    by_number: ByNumber,
    places: InodePlaces,
    next: u64,
}

/// Which inode stands at a place. Holds numbers alone: what is held under a number knows its place.
///
/// INVARIANT: the place of what is held under a number that is in here is the one under which the
/// number is found.
#[derive(Default)]
struct InodePlaces {
    numbers: HashTable<u64>,
    hasher: RandomState,
}

fn place_of(held: &ByNumber, ino: u64) -> Option<&DirectoryName> {
    held.get(ino)?.place.as_ref()
}

impl InodePlaces {
    fn get(&self, place: &DirectoryName, held: &ByNumber) -> Option<u64> {
        let is_there = |ino: &u64| place_of(held, *ino) == Some(place);
        self.numbers.find(self.hasher.hash_one(place), is_there).copied()
    }

    /// Takes out the number that stands at `place`.
    fn remove(&mut self, place: &DirectoryName, held: &ByNumber) -> Option<u64> {
        let is_there = |ino: &u64| place_of(held, *ino) == Some(place);
        let found = self.numbers.find_entry(self.hasher.hash_one(place), is_there).ok()?;
        Some(found.remove().0)
    }

    /// Adds `ino`, which is held at its place, in place of what stands there.
    fn put(&mut self, ino: u64, held: &ByNumber) {
        let Some(place) = place_of(held, ino) else { return };
        self.remove(place, held);
        let hash = hash_of(&self.hasher, held);
        self.numbers.insert_unique(hash(&ino), ino, hash);
    }

    fn shrink_to(&mut self, count: usize, held: &ByNumber) {
        self.numbers.shrink_to(count, hash_of(&self.hasher, held));
    }
}

fn hash_of(hasher: &RandomState, held: &ByNumber) -> impl Fn(&u64) -> u64 {
    |ino| place_of(held, *ino).map_or(0, |place| hasher.hash_one(place))
}

pub(super) struct Inodes(Mutex<InodeTable>);

impl Inodes {
    pub(super) fn new() -> Self {
        let root = HeldInode { node: Arc::new(InodeNode::Root), place: None, references: 1 };
        let mut by_number = ByNumber::default();
        by_number.insert(ROOT, root);
        Inodes(Mutex::new(InodeTable { by_number, places: InodePlaces::default(), next: ROOT + 1 }))
    }

    /// What `ino` stands for.
    pub(super) fn node(&self, ino: u64) -> Result<Arc<InodeNode>, FsError> {
        self.0
            .lock()
            .by_number
            .get(ino)
            .map(|held| held.node.clone())
            .ok_or(FsError::plain(Errno::ESTALE))
    }

    /// The number of the directory in which `ino` has its name; its own where it has none, as the
    /// root.
    pub(super) fn parent(&self, ino: u64) -> u64 {
        let table = self.0.lock();
        let place = table.by_number.get(ino).and_then(|held| held.place.as_ref());
        place.map_or(ino, |place| place.parent)
    }

    /// What `ino` stands for and its name, likewise of the directory in which it has that name, and
    /// so on upwards.
    pub(super) fn way_up(&self, ino: u64) -> Vec<(Arc<InodeNode>, Box<OsStr>)> {
        let table = self.0.lock();
        let mut way = Vec::new();
        let mut at = ino;
        while let Some(held) = table.by_number.get(at)
            && let Some(place) = &held.place
        {
            way.push((held.node.clone(), place.name().into()));
            at = place.parent;
        }
        way
    }

    /// What stands at `place` now.
    pub(super) fn at(&self, place: &DirectoryName) -> Option<Arc<InodeNode>> {
        let table = self.0.lock();
        let ino = table.at(place)?;
        Some(table.by_number.get(ino)?.node.clone())
    }

    /// The place at the end of a path from the root, as far as the kernel may know it: where it
    /// holds no inode of what is above, it keeps no name either.
    pub(super) fn place_of<'a>(
        &self,
        names: impl IntoIterator<Item = &'a OsStr>,
    ) -> Option<DirectoryName> {
        let table = self.0.lock();
        let mut names = names.into_iter();
        let mut place = DirectoryName::new(ROOT, names.next()?);
        for name in names {
            place = DirectoryName::new(table.at(&place)?, name);
        }
        Some(place)
    }

    /// Makes `node` what stands at `place`, counts a reference and makes the entry that is sent.
    ///
    /// A node that is immutable by its place (everything but a release, a link and a document)
    /// keeps the inode that is there.
    pub(super) fn send(
        &self,
        place: DirectoryName,
        node: Arc<InodeNode>,
        entry: impl FnOnce(u64, &InodeNode) -> FoundEntry,
    ) -> FoundEntry {
        let mut table = self.0.lock();
        let (ino, node) = table.intern(place, node);
        table.count(ino);
        drop(table);
        entry(ino, &node)
    }

    /// Like [`Inodes::send`] for an entry of a listing: it counts only if `deliver` says that it
    /// was taken.
    pub(super) fn send_listed(
        &self,
        place: DirectoryName,
        node: Arc<InodeNode>,
        deliver: impl FnOnce(u64, &InodeNode) -> bool,
    ) -> bool {
        let mut table = self.0.lock();
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
        let mut table = self.0.lock();
        if let Some(held) = table.by_number.get_mut(ino) {
            held.references = held.references.saturating_sub(count);
            table.drop_unreferenced(ino);
        }
    }

    /// Takes what stands at `place` from there, since its name was removed; what it was.
    pub(super) fn vacate(&self, place: &DirectoryName) -> Option<Arc<InodeNode>> {
        let mut table = self.0.lock();
        let ino = table.take(place)?;
        let held = table.by_number.get_mut(ino)?;
        held.place = None;
        Some(held.node.clone())
    }

    /// Puts what stands at `from` to `to`, and with `exchange` the other way round; what moved, and
    /// what was at `to`.
    pub(super) fn renamed(
        &self,
        from: DirectoryName,
        to: DirectoryName,
        exchange: bool,
    ) -> (Option<Arc<InodeNode>>, Option<Arc<InodeNode>>) {
        let mut table = self.0.lock();
        let (moved, other) = (table.take(&from), table.take(&to));
        let moved = moved.and_then(|ino| table.put(ino, Some(to)));
        let other = other.and_then(|ino| table.put(ino, exchange.then_some(from)));
        (moved, other)
    }

    /// Makes the next lookup of the name at which `ino` stands find another inode.
    pub(super) fn supersede(&self, ino: u64) {
        let mut table = self.0.lock();
        table.leave_place(ino);
        if let Some(held) = table.by_number.get_mut(ino) {
            held.place = None;
        }
    }

    /// The places at which something stands for which `wanted` holds: number of the directory and
    /// name in it.
    pub(super) fn places(&self, wanted: impl Fn(&InodeNode) -> bool) -> NamesInDirectories {
        let table = self.0.lock();
        let held = table.places.numbers.iter().filter_map(|ino| table.by_number.get(*ino));
        held.filter(|held| wanted(&held.node))
            .filter_map(|held| Some(held.place.clone()?.into_parts()))
            .collect()
    }

    /// How many inodes there are, the root included.
    pub(super) fn count(&self) -> usize {
        self.0.lock().by_number.count()
    }
}

/// How many inodes there may be room for although there are few.
const ROOM: usize = 4096;

impl InodeTable {
    /// The number of what stands at `place`.
    fn at(&self, place: &DirectoryName) -> Option<u64> {
        self.places.get(place, &self.by_number)
    }

    /// Takes away what stands at `place`, which the caller has to give another place, or none.
    fn take(&mut self, place: &DirectoryName) -> Option<u64> {
        self.places.remove(place, &self.by_number)
    }

    /// Takes `ino` from its place, if it still stands there.
    fn leave_place(&mut self, ino: u64) {
        let Some(place) = place_of(&self.by_number, ino) else { return };
        if self.places.get(place, &self.by_number) == Some(ino) {
            self.places.remove(place, &self.by_number);
        }
    }

    /// Makes `place` where `ino` stands.
    fn put(&mut self, ino: u64, place: Option<DirectoryName>) -> Option<Arc<InodeNode>> {
        let held = self.by_number.get_mut(ino)?;
        held.place = place;
        let node = held.node.clone();
        self.places.put(ino, &self.by_number);
        Some(node)
    }

    fn count(&mut self, ino: u64) {
        if let Some(held) = self.by_number.get_mut(ino) {
            held.references += 1;
        }
    }

    fn intern(&mut self, place: DirectoryName, node: Arc<InodeNode>) -> (u64, Arc<InodeNode>) {
        if let Some(ino) = self.at(&place)
            && let Some(held) = self.by_number.get(ino)
        {
            let same = match (held.node.as_ref(), node.as_ref()) {
                (InodeNode::Release(_), InodeNode::Release(_)) => Arc::ptr_eq(&held.node, &node),
                // What is made of facts changes with them, and the kernel keeps what it read of an
                // inode.
                (InodeNode::Link(before), InodeNode::Link(now)) => before == now,
                (InodeNode::Document(before), InodeNode::Document(now)) => before == now,
                (InodeNode::Zip(before), InodeNode::Zip(now)) => before.is_same(now),
                (before, now) => std::mem::discriminant(before) == std::mem::discriminant(now),
            };
            if same {
                return (ino, held.node.clone());
            }
        }
        let ino = self.next;
        self.next += 1;
        self.by_number
            .insert(ino, HeldInode { node: node.clone(), place: Some(place), references: 0 });
        self.places.put(ino, &self.by_number);
        (ino, node)
    }

    fn drop_unreferenced(&mut self, ino: u64) {
        let Some(held) = self.by_number.get(ino) else { return };
        if held.references > 0 || ino == ROOT {
            return;
        }
        self.leave_place(ino);
        self.by_number.remove(ino);
        self.give_room_back();
    }

    /// A walk over everything is over once, and the room that it took is not needed again.
    fn give_room_back(&mut self) {
        let count = self.by_number.count();
        if self.places.numbers.capacity() > ROOM.max(8 * count) {
            self.places.shrink_to(2 * count, &self.by_number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attr::{Attr, FileKind};
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn entry(ino: u64, _: &InodeNode) -> FoundEntry {
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
        FoundEntry { attr, ttl: Duration::ZERO, attr_ttl: Duration::ZERO }
    }

    fn space(name: &str) -> Arc<InodeNode> {
        Arc::new(InodeNode::registry(name.parse().unwrap()))
    }

    fn place(name: &str) -> DirectoryName {
        DirectoryName::new(ROOT, OsStr::new(name))
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

    /// Each name that the kernel knows costs memory, and there may be hundreds of thousands.
    #[test]
    fn an_inode_takes_few_bytes_and_gives_its_room_back() {
        println!(
            "a node takes {} bytes, its entry {}",
            size_of::<InodeNode>(),
            size_of::<HeldInode>()
        );
        assert!(size_of::<InodeNode>() <= 32 && size_of::<HeldInode>() <= 40);
        let inodes = Inodes::new();
        let many: Vec<String> = (0..3 * ROOM).map(|n| n.to_string()).collect();
        let numbers: Vec<u64> = many
            .iter()
            .map(|name| inodes.send(place(name), space("a.b"), entry).attr.ino)
            .collect();
        assert!(
            many.iter()
                .zip(&numbers)
                .all(|(name, ino)| inodes.0.lock().at(&place(name)) == Some(*ino))
        );
        numbers.iter().skip(1).for_each(|ino| inodes.forget(*ino, 1));
        let table = inodes.0.lock();
        assert_eq!((table.by_number.count(), table.places.numbers.len()), (2, 1));
        assert!(table.places.numbers.capacity() <= ROOM);
        assert_eq!(table.at(&place("0")), Some(numbers[0]));
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
