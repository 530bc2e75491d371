//! Writing over a package that comes from a registry, in `plugin-cache/`.
//!
//! A client that finds no reason to trust a cached package unpacks it once more over the one that
//! is there, file by file and in place. What it writes is compared with what the release holds. The
//! same bytes change nothing, and a client that stops half-way leaves the package whole. With the
//! first other byte the package is copied beside the view, where it is the client's own: the copy
//! is shown instead of it, in `plugin-cache/` alone.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::area::{AreaFile, LocalNode, OpenedLocal};
use super::caller::Thread;
use super::enter::is_plugin;
use super::error::{Errno, FsError};
use super::inodes::DirectoryName;
use super::kernel_cache::Caching;
use super::node::InodeNode;
use super::providers::ProviderView;
use super::write::CallerIdentity;
use super::{FOREVER, FileKind, FoundEntry, Fs, area, plugin_cache};
use crate::facts::{MemberContent, VerifiedPackage};
use crate::local::{self, Access, Change, LocalTree, Name};
use crate::members::{Child, DirNo, TOP};
use crate::tree::providers::ProviderDirectory;

/// The mode of a file of a copied package, and that of one that can be executed, as of directories.
const FILE: u32 = 0o644;
const PROGRAM: u32 = 0o755;
const WRITING: Access = Access { read: true, write: true };
/// How much is compared at once.
const PIECE: usize = 64 << 10;

/// A file or directory of a package that can be written over.
#[derive(Clone)]
pub(super) struct Replaced {
    version: ProviderDirectory,
    /// The package's directory.
    package: Arc<InodeNode>,
    /// Its name, `OS_ARCH`.
    platform: Box<OsStr>,
    /// The names that lead from it to the file.
    within: Vec<Box<OsStr>>,
    /// Whether it was reached by the way for clients that install.
    pub(super) by_installer: bool,
}

impl Replaced {
    /// The path below `plugin-cache/`.
    fn path(&self) -> PathBuf {
        let mut path = PathBuf::from(self.version.to_string());
        path.push(&*self.platform);
        path.extend(self.within.iter().map(|name| &**name));
        path
    }
}

/// What is known of an open file that is written over.
pub(super) struct Over {
    pub(super) ino: u64,
    at: Replaced,
    who: CallerIdentity,
    /// Whether it was cut before anything was written.
    cut: AtomicBool,
    /// Where what was written so far ends.
    end: AtomicU64,
    /// The file in the copied package, once something else was written.
    pub(super) copy: OnceLock<AreaFile>,
}

impl Fs {
    /// What `ino` is, if it lies in a package that can be written over.
    pub(super) fn replaced(&self, ino: u64) -> Option<Replaced> {
        self.options.plugin_cache.as_ref()?;
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
        let InodeNode::Providers { view: ProviderView::PluginCache, dir, .. } = view.as_ref()
        else {
            return None;
        };
        let (package, platform) = way.get(release.checked_sub(1)?)?;
        let within = way[..release - 1].iter().rev().map(|(_, name)| name.clone()).collect();
        matches!(package.as_ref(), InodeNode::Platform(..)).then(|| Replaced {
            version: dir.as_ref().clone(),
            package: package.clone(),
            platform: platform.clone(),
            within,
            by_installer: *way[release].1 == *plugin_cache::INSTALLING,
        })
    }

    /// Whether who asks took `name` in the directory `parent` of a package away.
    pub(super) fn was_taken_away(&self, thread: Thread, parent: u64, name: &OsStr) -> bool {
        self.installers.have_taken()
            && self
                .replaced(parent)
                .is_some_and(|at| self.installers.is_gone(thread, &at.path().join(name)))
    }

    /// [`Fs::replaced`] for who may write there.
    fn replaced_by(&self, who: CallerIdentity, ino: u64) -> Result<Option<Replaced>, FsError> {
        match self.replaced(ino) {
            Some(_) if !self.is_owner(who) => Err(FsError::plain(Errno::EACCES)),
            found => Ok(found),
        }
    }

    /// Opens a file to be written over; `None` if `ino` is none.
    pub(super) async fn open_over(
        self: &Arc<Self>,
        who: CallerIdentity,
        ino: u64,
        node: &Arc<InodeNode>,
    ) -> Result<Option<OpenedLocal>, FsError> {
        let Some(at) = self.replaced_by(who, ino)? else { return Ok(None) };
        if !matches!(node.as_ref(), InodeNode::File { .. }) {
            return Ok(None);
        }
        if self.installers.note(who.thread) && !at.by_installer {
            // The kernel looks the name up once more, and finds the way for clients that install.
            return Err(FsError::plain(Errno::ESTALE));
        }
        self.put_back_at(who, &at.path());
        let content = self.content(node).await?;
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
        let entry = self.entry(ino, &node, FOREVER);
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
        self.installers.take_away(who.thread, at.path().join(name));
        self.inodes.vacate(&DirectoryName::new(parent, name));
        Ok(true)
    }

    fn put_back_at(&self, who: CallerIdentity, path: &std::path::Path) {
        self.installers.put_back(who.thread, path);
    }

    /// Makes and opens a file in a package that can be written over; `None` if `parent` is no
    /// directory of one. One of the package's own files is written over; for any other the package
    /// is copied, and the kernel finds the copy.
    pub(super) async fn create_over(
        self: &Arc<Self>,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<Option<(FoundEntry, OpenedLocal)>, FsError> {
        let Some(mut at) = self.replaced_by(who, parent)? else { return Ok(None) };
        let dir = self.inodes.node(parent)?;
        let Some(node) = self
            .find_in_release(&dir, name)
            .await?
            .filter(|node| matches!(node, InodeNode::File { .. }))
        else {
            return Err(self.copied_instead(who, &at).await);
        };
        at.within.push(name.into());
        self.put_back_at(who, &at.path());
        let node = Arc::new(node);
        let content = self.content(&node).await?;
        let send = |ino, node: &InodeNode| self.entry(ino, node, FOREVER);
        let entry = self.inodes.send(DirectoryName::new(parent, name), node.clone(), send);
        Ok(Some((entry, self.opened_over(who, entry.attr.ino, node, content, at))))
    }

    /// Makes a directory in a package that can be written over, as [`Fs::create_over`] makes files.
    pub(super) async fn make_dir_over(
        self: &Arc<Self>,
        who: CallerIdentity,
        parent: u64,
        name: &OsStr,
    ) -> Result<Option<FoundEntry>, FsError> {
        let Some(at) = self.replaced_by(who, parent)? else { return Ok(None) };
        let dir = self.inodes.node(parent)?;
        let Some(node) = self
            .find_in_release(&dir, name)
            .await?
            .filter(|node| matches!(node, InodeNode::Dir { .. }))
        else {
            return Err(self.copied_instead(who, &at).await);
        };
        self.put_back_at(who, &at.path().join(name));
        let send = |ino, node: &InodeNode| self.entry(ino, node, FOREVER);
        Ok(Some(self.inodes.send(DirectoryName::new(parent, name), Arc::new(node), send)))
    }

    /// Copies the package; the error has the kernel look for the copy.
    async fn copied_instead(self: &Arc<Self>, who: CallerIdentity, at: &Replaced) -> FsError {
        match self.copied(who, at).await {
            Ok(_) => FsError::plain(Errno::ESTALE),
            Err(e) => e,
        }
    }

    /// Compares what is written with the file that it is written over; `None` if `handle` is none
    /// that is written over, or if it is something else, and [`Fs::write_apart`] has to keep it.
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
            let filled = self.fill(&file.content(), at, &mut held[..piece.len()])?;
            if held[..filled] != *piece {
                return Ok(None);
            }
            at += filled as u64;
        }
        over.end.fetch_max(at, Ordering::AcqRel);
        Ok(Some(data.len()))
    }

    /// Writes what differs from the release, into a copy of its package.
    pub async fn write_apart(
        self: Arc<Self>,
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
    async fn copied(
        self: &Arc<Self>,
        who: CallerIdentity,
        at: &Replaced,
    ) -> Result<LocalNode, FsError> {
        let _one = self.copying.lock().await;
        let version = self.make_beside(who, &at.version)?;
        let platform = Name::new(&at.platform)?;
        let copy = version.below(platform.clone());
        if copy.stat().is_ok_and(|stat| area::kind(stat.st_mode) == FileKind::Directory) {
            return Ok(copy);
        }
        let InodeNode::Platform(target, package) = at.package.as_ref() else {
            return Err(FsError::plain(Errno::EROFS));
        };
        let package = self.platform(target, package).await?;
        let mut files = Vec::new();
        for (number, _) in package.members.files() {
            files.push(self.facts.content().open(&package, number).await?);
        }
        let (fs, unfinished) = (self.clone(), unfinished(&platform)?);
        let made = copy.clone();
        let write = move || {
            let tree = &version.area.tree;
            let _ = clear(tree, &version.node, &unfinished);
            let top = version.below(unfinished.clone());
            tree.make_dir(&version.node, &unfinished, PROGRAM, who.into())?;
            fs.write_copy(who, &package, &files, TOP, &top)?;
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

    fn write_copy(
        &self,
        who: CallerIdentity,
        package: &Arc<VerifiedPackage>,
        files: &[MemberContent],
        dir: DirNo,
        to: &LocalNode,
    ) -> Result<(), FsError> {
        let tree = &to.area.tree;
        for (name, child) in package.members.children(dir) {
            let name = Name::new(name)?;
            match child {
                Child::Dir(inner) => {
                    tree.make_dir(&to.node, &name, PROGRAM, who.into())?;
                    self.write_copy(who, package, files, inner, &to.below(name))?;
                }
                Child::File(number) => {
                    let is_program = package.members.file(number).executable
                        || dir == TOP && is_plugin(name.as_os_str());
                    let mode = if is_program { PROGRAM } else { FILE };
                    let (_, file, _) = tree.create(&to.node, &name, WRITING, mode, who.into())?;
                    self.write_content(&files[number.0 as usize], &file)?;
                }
            }
        }
        Ok(())
    }

    fn write_content(&self, content: &MemberContent, to: &local::LocalFile) -> Result<(), FsError> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            let filled = self.fill(content, at, &mut piece)?;
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
            tree.unlink(&here, &inner, || None)?;
        }
    }
    tree.remove_dir(dir, name, || None)
}
