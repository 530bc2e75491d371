//! Writing over a package that comes from a registry, in `plugin-cache/`.
//!
//! A client that finds no reason to trust a cached package unpacks it once more over the one that
//! is there, file by file and in place. What it writes is compared with what the release holds. The
//! same bytes change nothing, and a client that stops half-way leaves the package whole. With the
//! first other byte the package is copied beside the view, where it is the client's own: the copy
//! is shown instead of it, in `plugin-cache/` alone.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::area::{AreaFile, LocalNode, OpenedLocal};
use super::attr::{FOREVER, FoundEntry};
use super::caller::{CallerIdentity, Thread};
use super::clients::ClientPackages;
use super::entries::InodeEntries;
use super::error::{Errno, FsError};
use super::handles::Handles;
use super::inodes::{DirectoryName, Inodes};
use super::kernel_cache::Caching;
use super::node::InodeNode;
use super::plugin_cache;
use super::releases::{Releases, fill, is_plugin};
use super::replaced::{Over, Replaced};
use crate::facts::{Facts, MemberContent, VerifiedPackage};
use crate::local::{self, Access, Change, LocalTree, Maker, Name, Removal};
use crate::members::{Child, DirNo, TOP};

/// The mode of a file of a copied package, and that of one that can be executed, as of directories.
const FILE: u32 = 0o644;
const PROGRAM: u32 = 0o755;
const WRITING: Access = Access { read: true, write: true };
/// How much is compared at once.
const PIECE: usize = 64 << 10;

/// See the module.
pub(super) struct Overwrites {
    facts: Arc<Facts>,
    inodes: Arc<Inodes>,
    handles: Arc<Handles>,
    entries: Arc<InodeEntries>,
    releases: Arc<Releases>,
    clients: Arc<ClientPackages>,
    /// Packages are copied one at a time.
    copying: tokio::sync::Mutex<()>,
}

impl Overwrites {
    pub(super) fn new(
        handles: Arc<Handles>,
        releases: Arc<Releases>,
        clients: Arc<ClientPackages>,
    ) -> Overwrites {
        let entries = clients.entries.clone();
        Overwrites {
            facts: entries.facts.clone(),
            inodes: entries.inodes.clone(),
            handles,
            entries,
            releases,
            clients,
            copying: Default::default(),
        }
    }

    /// What `ino` is, if it lies in a package that can be written over.
    pub(super) fn replaced(&self, ino: u64) -> Option<Replaced> {
        self.clients.cache.as_ref()?;
        let node = self.inodes.node(ino).ok()?;
        if !matches!(
            node.as_ref(),
            InodeNode::Platform(..) | InodeNode::Dir { .. } | InodeNode::File { .. }
        ) {
            return None;
        }
        let way = self.inodes.way_up(ino);
        let release =
            way.iter().position(|(node, _)| matches!(node.as_ref(), InodeNode::Release(_)))?;
        let (view, _) = way.get(release + 1)?;
        let dir = view.in_plugin_cache()?;
        let (package, platform) = way.get(release.checked_sub(1)?)?;
        let within = way[..release - 1].iter().rev().map(|(_, name)| name.clone()).collect();
        matches!(package.as_ref(), InodeNode::Platform(..)).then(|| Replaced {
            version: dir.clone(),
            package: package.clone(),
            platform: platform.clone(),
            within,
            by_installer: *way[release].1 == *plugin_cache::INSTALLING,
        })
    }

    /// Whether who asks took `name` in the directory `parent` of a package away.
    pub(super) fn was_taken_away(&self, thread: Thread, parent: u64, name: &OsStr) -> bool {
        self.clients.installers.have_taken()
            && self
                .replaced(parent)
                .is_some_and(|at| self.clients.installers.is_gone(thread, &at.path().join(name)))
    }

    /// [`Overwrites::replaced`] for who may write there.
    fn replaced_by(&self, who: CallerIdentity, ino: u64) -> Result<Option<Replaced>, FsError> {
        match self.replaced(ino) {
            Some(_) if !self.clients.owner.is(who) => Err(FsError::plain(Errno::EACCES)),
            found => Ok(found),
        }
    }

    /// Opens a file to be written over; `None` if `ino` is none.
    pub(super) async fn open_over(
        &self,
        who: CallerIdentity,
        ino: u64,
        node: &Arc<InodeNode>,
    ) -> Result<Option<OpenedLocal>, FsError> {
        let Some(at) = self.replaced_by(who, ino)? else { return Ok(None) };
        if !matches!(node.as_ref(), InodeNode::File { .. }) {
            return Ok(None);
        }
        if self.clients.installers.note(who.thread) && !at.by_installer {
            // The kernel looks the name up once more, and finds the way for clients that install.
            return Err(FsError::plain(Errno::ESTALE));
        }
        self.clients.installers.put_back(who.thread, &at.path());
        let content = self.releases.content(node).await?;
        Ok(Some(self.opened_over(who, ino, node.clone(), content, at)))
    }

    fn opened_over(
        &self,
        who: CallerIdentity,
        ino: u64,
        node: Arc<InodeNode>,
        content: MemberContent,
        at: Replaced,
    ) -> OpenedLocal {
        let (cut, end, copy) = (AtomicBool::new(false), AtomicU64::new(0), OnceLock::new());
        let handle = self.handles.open_over(node, content, Over { ino, at, who, cut, end, copy });
        // Past the kernel's pages: those of others stay what they are.
        OpenedLocal { handle, caching: Caching::Bypassed }
    }

    /// Changes attributes of something in a package that can be written over: they are what they
    /// are. `None` if `ino` is no such thing.
    pub(super) fn change_over(
        &self,
        who: CallerIdentity,
        ino: u64,
        change: &Change,
    ) -> Result<Option<FoundEntry>, FsError> {
        if self.replaced_by(who, ino)?.is_none() {
            return Ok(None);
        }
        let node = self.inodes.node(ino)?;
        let entry = self.entries.of(ino, &node, FOREVER);
        match change.size {
            Some(size) if size > entry.attr.size => return Err(FsError::plain(Errno::EROFS)),
            Some(size) => self.cut(ino, size),
            None => {}
        }
        Ok(Some(entry))
    }

    /// Notes that the files that are written over under `ino` were cut.
    fn cut(&self, ino: u64, size: u64) {
        for file in self.handles.all_over(ino) {
            let Some(over) = &file.over else { continue };
            over.cut.store(true, Ordering::Release);
            over.end.fetch_min(size, Ordering::AcqRel);
        }
    }

    /// Removes something in a package that can be written over, for who asks alone; whether it is
    /// such a thing.
    pub(super) fn take_from_package(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<bool, FsError> {
        let Some(at) = self.replaced_by(who, parent)? else { return Ok(false) };
        self.clients.installers.take_away(who.thread, at.path().join(name));
        self.inodes.vacate(&DirectoryName::new(parent, name));
        Ok(true)
    }

    /// Makes and opens a file in a package that can be written over; `None` if `parent` is no
    /// directory of one. One of the package's own files is written over; for any other the package
    /// is copied, and the kernel finds the copy.
    pub(super) async fn create_over(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<Option<(FoundEntry, OpenedLocal)>, FsError> {
        let Some(mut at) = self.replaced_by(who, parent)? else { return Ok(None) };
        let dir = self.inodes.node(parent)?;
        let Some(node) = self
            .releases
            .find(&dir, name)
            .await?
            .filter(|node| matches!(node, InodeNode::File { .. }))
        else {
            return Err(self.copied_instead(who, &at).await);
        };
        at.within.push(name.into());
        self.clients.installers.put_back(who.thread, &at.path());
        let node = Arc::new(node);
        let content = self.releases.content(&node).await?;
        let entry = self.entries.send(DirectoryName::new(parent, name), node.clone(), FOREVER);
        Ok(Some((entry, self.opened_over(who, entry.attr.ino, node, content, at))))
    }

    /// Makes a directory in a package that can be written over, as [`Overwrites::create_over`]
    /// makes files.
    pub(super) async fn make_dir_over(
        &self,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<Option<FoundEntry>, FsError> {
        let Some(at) = self.replaced_by(who, parent)? else { return Ok(None) };
        let dir = self.inodes.node(parent)?;
        let Some(node) = self
            .releases
            .find(&dir, name)
            .await?
            .filter(|node| matches!(node, InodeNode::Dir { .. }))
        else {
            return Err(self.copied_instead(who, &at).await);
        };
        self.clients.installers.put_back(who.thread, &at.path().join(name));
        Ok(Some(self.entries.send(DirectoryName::new(parent, name), Arc::new(node), FOREVER)))
    }

    /// Copies the package; the error has the kernel look for the copy.
    async fn copied_instead(&self, who: CallerIdentity, at: &Replaced) -> FsError {
        match self.copied(who, at).await {
            Ok(_) => FsError::plain(Errno::ESTALE),
            Err(e) => e,
        }
    }

    /// Compares what is written with the file that it is written over; `None` if `handle` is none
    /// that is written over, or if it is something else, and [`Overwrites::write_apart`] has to
    /// keep it.
    pub(super) fn write_over(
        &self,
        handle: u64,
        offset: u64,
        data: &[u8],
    ) -> Result<Option<usize>, FsError> {
        // Where files are read without being opened, the kernel names no handle.
        let file = self.handles.file(handle).map_err(|_| FsError::plain(Errno::EROFS))?;
        let over = file.over.as_ref().ok_or(FsError::plain(Errno::EROFS))?;
        if let Some(copy) = over.copy.get() {
            return Ok(Some(copy.file.write_at(data, offset)?));
        }
        let mut held = vec![0; PIECE.min(data.len())];
        let mut at = offset;
        for piece in data.chunks(PIECE) {
            let filled = fill(&self.facts, &file.content(), at, &mut held[..piece.len()])?;
            if held[..filled] != *piece {
                return Ok(None);
            }
            at += filled as u64;
        }
        over.end.fetch_max(at, Ordering::AcqRel);
        Ok(Some(data.len()))
    }

    /// Writes what differs from the release, into a copy of its package.
    pub(super) async fn write_apart(
        &self,
        handle: u64,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<usize, FsError> {
        let file = self.handles.file(handle)?;
        let over = file.over.as_ref().ok_or(FsError::plain(Errno::EROFS))?;
        if over.copy.get().is_none() {
            let dir = self.copied(over.who, &over.at).await?;
            let mut at = dir;
            for name in &over.at.within {
                at = at.below(Name::new(name)?);
            }
            let file = at.area.tree.open_file(&at.node, WRITING)?;
            if over.cut.load(Ordering::Acquire) {
                let cut =
                    Change { size: Some(over.end.load(Ordering::Acquire)), ..Change::default() };
                at.area.tree.change(&at.node, &cut, Some(&file))?;
            }
            over.copy.get_or_init(|| AreaFile { at, file, bypasses: false });
        }
        let copy = over.copy.get().ok_or(FsError::plain(Errno::EIO))?;
        Ok(copy.file.write_at(&data, offset)?)
    }

    /// The copy of a package, made if there is none yet.
    async fn copied(&self, who: CallerIdentity, at: &Replaced) -> Result<LocalNode, FsError> {
        let _one = self.copying.lock().await;
        let version = self.clients.make_beside(who, &at.version)?;
        let platform = Name::new(&at.platform)?;
        let copy = version.below(platform.clone());
        if copy.is_dir() {
            return Ok(copy);
        }
        let InodeNode::Platform(target, package) = at.package.as_ref() else {
            return Err(FsError::plain(Errno::EROFS));
        };
        let package = self.releases.platform(target, package).await?;
        let mut files = Vec::new();
        for (number, _) in package.members.files() {
            files.push(self.facts.content().open(&package, number).await?);
        }
        let (facts, unfinished) = (self.facts.clone(), unfinished(&platform)?);
        let made = copy.clone();
        let write = move || {
            let tree = &version.area.tree;
            let _ = clear(tree, &version.node, &unfinished);
            let top = version.below(unfinished.clone());
            tree.make_dir(&version.node, &unfinished, PROGRAM, who.into())?;
            PackageCopy { facts: &facts, package: &package, files: &files, maker: who.into() }
                .write(TOP, &top)?;
            let (from, to) = ((&version.node, &unfinished), (&version.node, &platform));
            tree.rename(from, to, local::How::NoReplace, local::KnownNodes::default)?;
            Ok::<(), FsError>(())
        };
        crate::facts::blocking(write).await??;
        tracing::info!(
            "{}: something else was written over it, so it is kept here",
            made.describe()
        );
        Ok(made)
    }
}

/// A package that is copied.
struct PackageCopy<'a> {
    facts: &'a Facts,
    package: &'a VerifiedPackage,
    files: &'a [MemberContent],
    maker: Maker,
}

impl PackageCopy<'_> {
    /// Writes what the directory `dir` of the package holds into `to`.
    fn write(&self, dir: DirNo, to: &LocalNode) -> Result<(), FsError> {
        let (tree, members) = (&to.area.tree, &self.package.members);
        for (name, child) in members.children(dir) {
            let name = Name::new(name)?;
            match child {
                Child::Dir(inner) => {
                    tree.make_dir(&to.node, &name, PROGRAM, self.maker)?;
                    self.write(inner, &to.below(name))?;
                }
                Child::File(number) => {
                    let is_program = members.file(number).executable
                        || dir == TOP && is_plugin(name.as_os_str());
                    let mode = if is_program { PROGRAM } else { FILE };
                    let (_, file, _) = tree.create(&to.node, &name, WRITING, mode, self.maker)?;
                    self.write_content(&self.files[number.0 as usize], &file)?;
                }
            }
        }
        Ok(())
    }

    fn write_content(&self, content: &MemberContent, to: &local::LocalFile) -> Result<(), FsError> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            let filled = fill(self.facts, content, at, &mut piece)?;
            if filled == 0 {
                return Ok(());
            }
            to.write_at(&piece[..filled], at)?;
            at += filled as u64;
        }
    }
}

/// The name of a copy that is not complete: none that a package can have.
fn unfinished(platform: &Name) -> Result<Name, FsError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(platform.as_os_str());
    Ok(Name::new(&name)?)
}

/// Removes what an earlier attempt has left.
fn clear(tree: &LocalTree, dir: &Arc<local::TreeNode>, name: &Name) -> local::TreeResult<()> {
    let here = local::TreeNode::below(dir, name.clone());
    for inner in tree.list(&here)? {
        if clear(tree, &here, &inner).is_err() {
            tree.remove(&here, &inner, Removal::Unlink, || None)?;
        }
    }
    tree.remove(dir, name, Removal::RemoveDir, || None)
}
