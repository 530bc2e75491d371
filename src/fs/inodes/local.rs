//! Inodes of what lies in areas, whose names the kernel keeps.

use std::ffi::OsStr;
use std::sync::Arc;

use super::{DirectoryName, Inodes};
use crate::fs::area::{Area, LocalNode};
use crate::fs::attr::{FOREVER, FoundEntry, Lookup};
use crate::fs::error::{Errno, FsError};
use crate::fs::node::InodeNode;
use crate::local::{self, Name, RelPath, Stat};

impl Inodes {
    pub(in crate::fs) fn find_local(
        &self,
        place: DirectoryName,
        dir: &LocalNode,
        name: &OsStr,
    ) -> Result<Lookup, FsError> {
        let name = Name::new(name)?;
        match dir.area.tree.find(&dir.node, &name) {
            Ok(stat) => Ok(Lookup::Found(self.send_local(place, dir.below(name), &stat))),
            // Nobody but the kernel makes names here, so it knows when this one comes to be.
            Err(local::Errno::NOENT) => {
                // What was there was removed without the kernel: it was committed.
                self.lose(dir, &name, &place)?;
                Ok(Lookup::Absent(FOREVER))
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(in crate::fs) fn send_local(
        &self,
        place: DirectoryName,
        node: LocalNode,
        stat: &Stat,
    ) -> FoundEntry {
        self.send(place, Arc::new(InodeNode::Local(node.clone())), |ino, kept| {
            kept.told(&node, ino, stat)
        })
    }

    /// Like [`Inodes::send_local`] for what was just made: what the kernel still holds of that name
    /// is something else.
    pub(in crate::fs) fn send_made(
        &self,
        place: DirectoryName,
        node: LocalNode,
        stat: &Stat,
    ) -> FoundEntry {
        if let Some(InodeNode::Local(lost)) = self.vacate(&place).as_deref() {
            lost.node.lose();
        }
        self.send_local(place, node, stat)
    }

    /// Notes that what the kernel holds at `place` is gone, if nothing has the name `name` in
    /// `dir`.
    fn lose(&self, dir: &LocalNode, name: &Name, place: &DirectoryName) -> Result<(), FsError> {
        if self.at(place).is_none() {
            return Ok(());
        }
        let known = || match self.vacate(place).as_deref() {
            Some(InodeNode::Local(lost)) => Some(lost.node.clone()),
            _ => None,
        };
        Ok(dir.area.tree.lose(&dir.node, name, known)?)
    }

    /// To be asked before what stands at `place` gets a name outside of its area: the kernel would
    /// go on showing it under the new name for as long as it keeps the name, and so would not see
    /// what stands there.
    ///
    /// # Errors
    /// ESTALE if the kernel keeps the name: it looks the name up once more, learns that it cannot
    /// be kept, and asks again.
    pub(in crate::fs) fn left(&self, place: &DirectoryName) -> Result<(), FsError> {
        match self.at(place).as_deref() {
            Some(InodeNode::Local(at)) if !at.kept.ask_for_name() => {
                Err(FsError::plain(Errno::ESTALE))
            }
            _ => Ok(()),
        }
    }

    /// It did not leave after all.
    pub(in crate::fs) fn stayed(&self, place: &DirectoryName) {
        if let Some(InodeNode::Local(at)) = self.at(place).as_deref() {
            at.kept.keep_name();
        }
    }

    /// What had the path `path` in `area` was taken from the disk by somebody else than the kernel,
    /// or was put back after that. Yields the name that the kernel has to drop.
    pub(in crate::fs) fn vanished(
        &self,
        area: &Arc<Area>,
        path: &RelPath,
    ) -> Option<(u64, Box<OsStr>)> {
        let (above, name) = path.split_last()?;
        let names =
            [OsStr::new(area.name)].into_iter().chain(path.names().iter().map(Name::as_os_str));
        let place = self.place_of(names)?;
        let dir = LocalNode::new(area.clone(), area.tree.node_at(&above));
        if let Err(e) = self.lose(&dir, name, &place) {
            tracing::debug!("{}: {e:?}", path.to_os_string().display());
        }
        Some(place.into_parts())
    }
}
