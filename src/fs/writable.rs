//! Operations that write. Only areas take them, on the thread that asked: everything else is
//! read-only.

use std::ffi::OsStr;
use std::sync::Arc;

use super::area::{AreaFile, LocalNode, OpenedLocal, is_shown, kind};
use super::attr::{FileKind, FoundEntry};
use super::caller::{CallerIdentity, Owner};
use super::clients::ClientPackages;
use super::entries::InodeEntries;
use super::error::{Errno, FsError};
use super::failures::{Attempt, Failures};
use super::handles::Handles;
use super::inodes::{DirectoryName, Inodes};
use super::kernel_cache::Caching;
use super::node::{InodeNode, ProviderView};
use super::overwrites::Overwrites;
use super::plugin_cache;
use super::publishing::{Publishing, RenameSource};
use super::releases::Releases;
use super::retired::Retired;
use crate::facts::{Facts, MemberContent};
use crate::local::{self, Access, Change, How, KnownNodes, LocalTree, Name, RelPath, Removal};

/// A name in a directory of an area, where something is made or removed.
struct WriteTarget {
    dir: LocalNode,
    parent: u64,
    name: Name,
}

impl WriteTarget {
    fn tree(&self) -> &LocalTree {
        &self.dir.area.tree
    }

    fn path(&self) -> Result<RelPath, FsError> {
        Ok(self.dir.node.path()?)
    }

    fn may_make(&self, kind: FileKind) -> Result<(), FsError> {
        self.dir.area.rules.may_make(&self.path()?, &self.name, kind).map_err(FsError::plain)
    }

    fn may_remove(&self) -> Result<(), FsError> {
        let path = self.path()?.join(self.name.clone());
        self.dir.area.rules.may_remove(&path).map_err(FsError::plain)
    }

    fn place(&self) -> DirectoryName {
        DirectoryName::new(self.parent, self.name.as_os_str())
    }
}

fn local_of(node: Arc<InodeNode>) -> Option<Arc<local::TreeNode>> {
    match node.as_ref() {
        InodeNode::Local(at) => Some(at.node.clone()),
        _ => None,
    }
}

/// See the module.
pub struct Writable {
    facts: Arc<Facts>,
    inodes: Arc<Inodes>,
    handles: Arc<Handles>,
    entries: Arc<InodeEntries>,
    failures: Arc<Failures>,
    owner: Owner,
    clients: Arc<ClientPackages>,
    pub(super) overwrites: Overwrites,
    pub(super) publishing: Arc<Publishing>,
    retired: Retired,
}

impl Writable {
    pub(super) fn new(
        handles: Arc<Handles>,
        releases: Arc<Releases>,
        clients: Arc<ClientPackages>,
        publishing: Arc<Publishing>,
        retired: Retired,
    ) -> Writable {
        let entries = clients.entries.clone();
        Writable {
            facts: entries.facts.clone(),
            inodes: entries.inodes.clone(),
            entries,
            failures: releases.failures.clone(),
            owner: clients.owner,
            overwrites: Overwrites::new(handles.clone(), releases, clients.clone()),
            handles,
            clients,
            publishing,
            retired,
        }
    }

    /// The place `ino` of an area, if `who` may change it now.
    fn writable(&self, who: CallerIdentity, ino: u64) -> Result<LocalNode, FsError> {
        let at = self.owned(who, ino)?;
        self.unsealed(&at)?;
        Ok(at)
    }

    fn unsealed(&self, at: &LocalNode) -> Result<(), FsError> {
        match at.node.path() {
            Ok(path) => at.area.rules.may_change(&path).map_err(FsError::plain),
            // What was removed is part of no release.
            Err(_) => Ok(()),
        }
    }

    /// The place `ino` of an area, if `who` may write there.
    pub(super) fn owned(&self, who: CallerIdentity, ino: u64) -> Result<LocalNode, FsError> {
        match self.inodes.node(ino)?.as_ref() {
            InodeNode::Local(at) if self.owner.is(who) => Ok(at.clone()),
            InodeNode::Local(_) => Err(FsError::plain(Errno::EACCES)),
            _ => Err(FsError::plain(Errno::EROFS)),
        }
    }

    /// Where something is to be made.
    fn target(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<WriteTarget, FsError> {
        let node = self.inodes.node(parent)?;
        let dir = match node.in_plugin_cache() {
            Some(dir) => self.clients.make_beside(who, dir)?,
            None => self.writable(who, parent)?,
        };
        Ok(WriteTarget { dir, parent, name: Name::new(name)? })
    }

    /// Where something stands that is to be removed.
    fn standing(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<WriteTarget, FsError> {
        let node = self.inodes.node(parent)?;
        let dir = match node.in_plugin_cache() {
            Some(dir) => self.clients.beside(who, dir, name)?,
            None => self.writable(who, parent)?,
        };
        Ok(WriteTarget { dir, parent, name: Name::new(name)? })
    }

    /// Makes the directory `name`.
    pub async fn mkdir(
        self: Arc<Self>,
        who: CallerIdentity,
        parent: u64,
        name: Box<OsStr>,
        mode: u32,
    ) -> Result<FoundEntry, FsError> {
        self.retired.may_begin()?;
        match self.overwrites.make_dir_over(who, parent, &name).await? {
            Some(entry) => Ok(entry),
            None => self.make_local_dir(who, parent, &name, mode),
        }
    }

    fn make_local_dir(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
        mode: u32,
    ) -> Result<FoundEntry, FsError> {
        let target = self.target(who, parent, name)?;
        target.may_make(FileKind::Directory)?;
        let stat = target.tree().make_dir(&target.dir.node, &target.name, mode, who.into())?;
        if let Some(name) = target.name.to_str()
            && let Some(both) = ClientPackages::made_dir(self.inodes.node(parent)?.as_ref(), name)
        {
            let ttl = self.facts.tags().ttl();
            return Ok(self.entries.send(target.place(), Arc::new(both), ttl));
        }
        Ok(self.inodes.send_made(target.place(), target.dir.below(target.name.clone()), &stat))
    }

    /// Makes the symbolic link `name` to `to`.
    pub fn symlink(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
        to: &OsStr,
    ) -> Result<FoundEntry, FsError> {
        self.retired.may_begin()?;
        if let Some(entry) = self.clients.put_back(who, parent, name, to)? {
            return Ok(entry);
        }
        let target = self.target(who, parent, name)?;
        target.may_make(FileKind::Symlink)?;
        let stat = target.tree().make_link(&target.dir.node, &target.name, to, who.into())?;
        Ok(self.inodes.send_made(target.place(), target.dir.below(target.name.clone()), &stat))
    }

    /// Makes a file of the kind that `mode` says, without opening it. Pipes, sockets and devices
    /// are names only, for who works here; nothing that holds one can be committed.
    pub fn mknod(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
        mode: u32,
        device: u32,
    ) -> Result<FoundEntry, FsError> {
        self.retired.may_begin()?;
        let target = self.target(who, parent, name)?;
        target.may_make(kind(mode))?;
        let stat =
            target.tree().make_special(&target.dir.node, &target.name, mode, device, who.into())?;
        Ok(self.inodes.send_made(target.place(), target.dir.below(target.name.clone()), &stat))
    }

    /// Makes and opens the regular file `name`; the entry and the handle.
    ///
    /// With `may_bypass`, what is opened for nothing but writing is written past the kernel's
    /// pages: there are none yet, and the kernel asks for the file's capabilities before it writes
    /// through them.
    pub async fn create(
        self: Arc<Self>,
        who: CallerIdentity,
        parent: u64,
        name: Box<OsStr>,
        mode: u32,
        access: Access,
        may_bypass: bool,
    ) -> Result<(FoundEntry, OpenedLocal), FsError> {
        self.retired.may_begin()?;
        if let Some((entry, lock)) = self.clients.make_lock(who, parent, &name)? {
            return Ok((entry, self.open_lock(lock)));
        }
        match self.overwrites.create_over(who, parent, &name).await? {
            Some(made) => Ok(made),
            None => self.create_local(who, parent, &name, mode, access, may_bypass),
        }
    }

    fn create_local(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
        mode: u32,
        access: Access,
        may_bypass: bool,
    ) -> Result<(FoundEntry, OpenedLocal), FsError> {
        let target = self.target(who, parent, name)?;
        target.may_make(FileKind::Regular)?;
        let WriteTarget { dir, name, .. } = &target;
        let (node, file, stat) = dir.area.tree.create(&dir.node, name, access, mode, who.into())?;
        let at = LocalNode::new(dir.area.clone(), node);
        let bypasses = may_bypass && access.write && !access.read;
        if bypasses {
            at.kept.bypass_pages();
        }
        let caching = at.kept.caching();
        let handle = self.opened(AreaFile { at: at.clone(), file, bypasses })?;
        Ok((self.inodes.send_made(target.place(), at, &stat), OpenedLocal { handle, caching }))
    }

    /// A hard link to `ino`: there are none.
    pub fn link(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<FoundEntry, FsError> {
        self.retired.may_begin()?;
        self.target(who, parent, name)?;
        Err(FsError::plain(Errno::EPERM))
    }

    /// Removes the file or link `name`.
    pub fn unlink(&self, who: CallerIdentity, parent: u64, name: &OsStr) -> Result<(), FsError> {
        self.retired.may_begin()?;
        if self.clients.remove_lock(who, parent, name)? {
            return Ok(());
        }
        self.remove(who, parent, name, Removal::Unlink)
    }

    /// Removes the empty directory `name`.
    pub fn rmdir(&self, who: CallerIdentity, parent: u64, name: &OsStr) -> Result<(), FsError> {
        self.remove(who, parent, name, Removal::RemoveDir)
    }

    /// Removes `name`: from what a view alone shows, from a package that is written over, or from
    /// the disk.
    fn remove(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
        what: Removal,
    ) -> Result<(), FsError> {
        self.retired.may_begin()?;
        if self.clients.take_away(who, parent, name)?
            || self.overwrites.take_from_package(who, parent, name)?
        {
            return Ok(());
        }
        let target = self.standing(who, parent, name)?;
        target.may_remove()?;
        let known = || self.inodes.vacate(&target.place()).and_then(local_of);
        Ok(target.tree().remove(&target.dir.node, &target.name, what, known)?)
    }

    /// Gives `name` in `parent` the name `as_name` in the directory `to`: inside of an area, or
    /// from staging to where it is published.
    pub async fn rename(
        self: Arc<Self>,
        who: CallerIdentity,
        (parent, name): (u64, Box<OsStr>),
        (to, as_name): (u64, Box<OsStr>),
        how: How,
    ) -> Result<(), FsError> {
        self.retired.may_begin()?;
        let into = self.inodes.node(to)?;
        let area = match into.as_ref() {
            InodeNode::Local(at) => at.area.name,
            InodeNode::Providers { view: ProviderView::PluginCache, .. } => plugin_cache::NAME,
            _ => {
                let dir = self.owned(who, parent)?;
                let source = RenameSource {
                    name: Name::new(&name)?,
                    place: DirectoryName::new(parent, &name),
                    dir,
                };
                let published = self
                    .publishing
                    .publish(source, &into, DirectoryName::new(to, &as_name), how)
                    .await;
                return self.failures.note(&into, Attempt::Look, published);
            }
        };
        let from = self.standing(who, parent, &name)?;
        if from.dir.area.name != area {
            // EXDEV would have `mv` copy, and EINVAL would have it say that the target lies in the
            // source.
            return Err(FsError::plain(Errno::EPERM));
        }
        let target = self.target(who, to, &as_name)?;
        if !matches!(into.as_ref(), InodeNode::Local(_)) {
            self.inodes.left(&from.place())?;
        }
        self.rename_local(from, target, how)
    }

    fn rename_local(&self, from: WriteTarget, to: WriteTarget, how: How) -> Result<(), FsError> {
        from.may_remove()?;
        to.may_make(self.kind_at(&from)?)?;
        match how {
            How::NoReplace => {}
            How::Replace => to.may_remove()?,
            How::Exchange => {
                to.may_remove()?;
                from.may_make(self.kind_at(&to)?)?;
            }
        }
        let known = || {
            let (moved, other) =
                self.inodes.renamed(from.place(), to.place(), how == How::Exchange);
            KnownNodes { moved: moved.and_then(local_of), other: other.and_then(local_of) }
        };
        let (old, new) = ((&from.dir.node, &from.name), (&to.dir.node, &to.name));
        from.tree().rename(old, new, how, known)?;
        self.publishing.finished(&to.dir.below(to.name.clone()));
        Ok(())
    }

    fn kind_at(&self, target: &WriteTarget) -> Result<FileKind, FsError> {
        let stat = target.tree().find(&target.dir.node, &target.name)?;
        Ok(kind(stat.st_mode))
    }

    /// Opens the file `ino` with `access`.
    pub async fn open_to_write(
        self: Arc<Self>,
        who: CallerIdentity,
        ino: u64,
        access: Access,
    ) -> Result<OpenedLocal, FsError> {
        self.retired.may_begin()?;
        let node = self.inodes.node(ino)?;
        if let InodeNode::Lock = node.as_ref()
            && self.owner.is(who)
        {
            return Ok(self.open_lock(node));
        }
        if let Some(opened) = self.overwrites.open_over(who, ino, &node).await? {
            return Ok(opened);
        }
        let at = self.writable(who, ino)?;
        let file = at.area.tree.open_file(&at.node, access)?;
        let handle = self.opened(AreaFile { at: at.clone(), file, bypasses: false })?;
        Ok(OpenedLocal { handle, caching: at.kept.caching() })
    }

    fn open_lock(&self, node: Arc<InodeNode>) -> OpenedLocal {
        let handle = self.handles.open_file(node, MemberContent::Bytes(Arc::new([])), false);
        OpenedLocal { handle, caching: Caching::Kept }
    }

    /// Takes a file into the table of handles, unless it was sealed since it was looked at: who
    /// seals looks into the table afterwards, so that one of both sees the other.
    fn opened(&self, file: AreaFile) -> Result<u64, FsError> {
        let at = file.at.clone();
        let handle = self.handles.open_local(file);
        if self.retired.is_retired()
            && let Some(open) = self.handles.local(handle)
        {
            self.claim(&open);
        }
        self.unsealed(&at).inspect_err(|_| self.handles.close(handle))?;
        Ok(handle)
    }

    /// Has the process that took over see that a file is open for writing.
    pub(super) fn claim(&self, open: &AreaFile) {
        if open.file.is_writable()
            && let Err(e) = open.file.claim()
        {
            tracing::warn!("{}: open for writing, which is not seen: {e}", open.at.describe());
        }
    }

    fn open_for_writing(&self, handle: u64) -> Result<Arc<AreaFile>, FsError> {
        self.handles.local(handle).ok_or(FsError::plain(Errno::EROFS))
    }

    /// Writes at `offset`; how many bytes were written, or `None` where [`Writable::write_apart`]
    /// has to. With `drops_set_id` the file loses its set-id bits before, as it does when who
    /// writes has no privilege; where the kernel writes through its pages it has seen to that
    /// itself.
    pub fn write(
        &self,
        handle: u64,
        offset: u64,
        data: &[u8],
        drops_set_id: bool,
    ) -> Result<Option<usize>, FsError> {
        let Some(open) = self.handles.local(handle) else {
            return self.overwrites.write_over(handle, offset, data);
        };
        if drops_set_id {
            open.file.drop_set_id()?;
        }
        Ok(Some(open.file.write_at(data, offset)?))
    }

    /// fallocate(2) with the bits of `mode`.
    pub fn fallocate(
        &self,
        handle: u64,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Result<(), FsError> {
        Ok(self.open_for_writing(handle)?.file.allocate(mode, offset, length)?)
    }

    /// Has the disk keep what was written to an open file.
    pub fn fsync(&self, handle: u64, data_only: bool) -> Result<(), FsError> {
        match self.handles.local(handle) {
            Some(open) => Ok(open.file.sync(data_only)?),
            // Nothing of a release was ever written.
            None => Ok(()),
        }
    }

    /// Has the disk keep the names of the directory `ino`.
    pub fn fsyncdir(&self, ino: u64) -> Result<(), FsError> {
        match self.inodes.node(ino)?.as_ref() {
            InodeNode::Local(at) => Ok(at.area.tree.sync_names(&at.node)?),
            _ => Ok(()),
        }
    }

    /// Changes attributes of `ino`, through the open file `handle` where there is one.
    pub fn setattr(
        &self,
        who: CallerIdentity,
        ino: u64,
        change: Change,
        handle: Option<u64>,
    ) -> Result<FoundEntry, FsError> {
        // What is open is written until it is closed.
        if handle.is_none() {
            self.retired.may_begin()?;
        }
        if let InodeNode::Lock = self.inodes.node(ino)?.as_ref() {
            return self.clients.change_lock(who, ino, &change);
        }
        if let Some(entry) = self.overwrites.change_over(who, ino, &change)? {
            return Ok(entry);
        }
        let at = self.writable(who, ino)?;
        let change = kept_owner(&at, change)?;
        let open = handle.and_then(|handle| self.handles.local(handle));
        let stat = at.area.tree.change(&at.node, &change, open.as_ref().map(|open| &*open.file))?;
        Ok(at.entry(ino, &stat))
    }

    /// Sets an extended attribute; `flags` are those of setxattr(2).
    pub fn setxattr(
        &self,
        who: CallerIdentity,
        ino: u64,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<(), FsError> {
        self.retired.may_begin()?;
        let at = self.writable(who, ino)?;
        storable(name)?;
        Ok(at.area.tree.set_xattr(&at.node, name, value, flags)?)
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, who: CallerIdentity, ino: u64, name: &OsStr) -> Result<(), FsError> {
        self.retired.may_begin()?;
        let at = self.writable(who, ino)?;
        storable(name)?;
        Ok(at.area.tree.remove_xattr(&at.node, name)?)
    }

    /// Whether the owner may write there, whatever the mode.
    pub(super) fn takes_writes(&self, ino: u64, node: &InodeNode) -> bool {
        match node {
            InodeNode::Local(_)
            | InodeNode::Lock
            | InodeNode::Providers { view: ProviderView::PluginCache, .. } => true,
            _ => self.overwrites.replaced(ino).is_some(),
        }
    }

    /// Writes what differs from a release, into a copy of its package; how many bytes were written.
    pub async fn write_apart(
        self: Arc<Self>,
        handle: u64,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<usize, FsError> {
        self.overwrites.write_apart(handle, offset, data).await
    }
}

/// Labels and capabilities are the system's business, not a registry's.
fn storable(name: &OsStr) -> Result<(), FsError> {
    if is_shown(name.as_encoded_bytes()) { Ok(()) } else { Err(FsError::plain(Errno::EOPNOTSUPP)) }
}

/// Where everything is shown to belong to one user, it can be given to nobody else.
fn kept_owner(at: &LocalNode, mut change: Change) -> Result<Change, FsError> {
    for (wanted, shown) in
        [(&mut change.uid, at.area.shown.uid), (&mut change.gid, at.area.shown.gid)]
    {
        if shown.is_some() {
            if wanted.is_some() && *wanted != shown {
                return Err(FsError::plain(Errno::EPERM));
            }
            *wanted = None;
        }
    }
    Ok(change)
}
