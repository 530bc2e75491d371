//! The tree: making, finding, listing, moving and removing.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, StatVfs, Uid,
};

use super::grant::as_owner;
use super::node::NodePlace;
use super::{Access, Errno, LocalFile, Name, RelPath, Stat, TreeNode, TreeResult};

/// The longest path, in bytes, that is resolved in one call; the system takes 4,095.
const RESOLVED_AT_ONCE: usize = 4000;
/// The bits of a mode that are set by whoever makes or changes a file.
const MODE_BITS: u32 = 0o7777;

/// See the module [`super`].
#[derive(Debug)]
pub struct LocalTree {
    top_fd: OwnedFd,
    top: Arc<TreeNode>,
    /// Held for writing while names move or go, and for reading while a path is made and used.
    names: RwLock<()>,
}

/// Who makes something, and so owns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Maker {
    /// The user.
    pub uid: u32,
    /// The group, where the directory does not hand its own down.
    pub gid: u32,
}

/// How a rename treats what has the new name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// It is replaced, as rename(2) says.
    Replace,
    /// It is an error (RENAME_NOREPLACE).
    NoReplace,
    /// It gets the old name (RENAME_EXCHANGE).
    Exchange,
}

/// Which of the two system calls removes something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removal {
    /// unlink(2): what is no directory.
    Unlink,
    /// rmdir(2): an empty directory.
    RemoveDir,
}

/// The nodes, as far as anybody holds them, of what a rename moved and of what had the new name.
#[derive(Default, Debug)]
pub struct KnownNodes {
    /// What had the old name.
    pub moved: Option<Arc<TreeNode>>,
    /// What had the new name.
    pub other: Option<Arc<TreeNode>>,
}

/// A name in an open directory.
pub(super) struct At {
    dir: OwnedFd,
    name: Box<OsStr>,
}

impl At {
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(super) fn stat(&self) -> TreeResult<Stat> {
        rustix::fs::statat(&self.dir, self.name(), AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn open(&self, flags: OFlags) -> TreeResult<OwnedFd> {
        rustix::fs::openat(
            &self.dir,
            self.name(),
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }
}

impl At {
    /// Like [`At::open`], with the owner's rights to what is there.
    pub(super) fn open_as_owner(&self, flags: OFlags) -> TreeResult<OwnedFd> {
        match self.open(flags) {
            Err(Errno::ACCESS) => {
                let place = self.open(OFlags::PATH)?;
                as_owner(&[place.as_fd()], || self.open(flags))
            }
            opened => opened,
        }
    }

    /// The directory that is there, if it is one.
    fn directory(&self) -> Option<OwnedFd> {
        self.open(OFlags::PATH | OFlags::DIRECTORY).ok()
    }
}

impl LocalTree {
    /// The tree in the directory `dir`, which has to exist. What `dir` names later does not matter.
    pub fn open(dir: &Path) -> TreeResult<Arc<LocalTree>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top_fd = rustix::fs::open(dir, flags, Mode::empty())?;
        Ok(Arc::new(LocalTree { top_fd, top: TreeNode::top(), names: RwLock::default() }))
    }

    pub fn top(&self) -> &Arc<TreeNode> {
        &self.top
    }

    /// A node for what stands at `path` now; whether anything does is not looked at.
    pub fn node_at(&self, path: &RelPath) -> Arc<TreeNode> {
        path.names().iter().fold(self.top.clone(), |dir, name| TreeNode::below(&dir, name.clone()))
    }

    pub(super) fn read_names(&self) -> RwLockReadGuard<'_, ()> {
        self.names.read()
    }

    /// Opens what stands at `path` as a place; `kind` says whether that may be something else than
    /// a directory.
    fn resolve(&self, path: &RelPath, kind: OFlags) -> TreeResult<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        let mut text: Vec<u8> = Vec::new();
        for name in path.names() {
            let name = name.as_os_str().as_bytes();
            if text.len() + name.len() > RESOLVED_AT_ONCE {
                at = Some(self.step(at.as_ref(), &text, OFlags::DIRECTORY)?);
                text.clear();
            }
            if !text.is_empty() {
                text.push(b'/');
            }
            text.extend_from_slice(name);
        }
        match (at, text.is_empty()) {
            (Some(at), true) => Ok(at),
            (at, false) => self.step(at.as_ref(), &text, kind),
            (None, true) => self.step(None, b".", OFlags::DIRECTORY),
        }
    }

    fn step(&self, from: Option<&OwnedFd>, path: &[u8], kind: OFlags) -> TreeResult<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | kind;
        let how = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_XDEV
            | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(from.unwrap_or(&self.top_fd), path, flags, Mode::empty(), how)
    }

    /// Where `node` stands: its directory, open, and its name in it.
    pub(super) fn locate(&self, node: &TreeNode) -> TreeResult<At> {
        match node.place() {
            NodePlace::Top => Ok(At {
                dir: self.step(None, b".", OFlags::DIRECTORY)?,
                name: OsStr::new(".").into(),
            }),
            NodePlace::In(dir, name) => self.at(&dir, &name),
            NodePlace::Gone => Err(Errno::NOENT),
        }
    }

    fn at(&self, dir: &TreeNode, name: &Name) -> TreeResult<At> {
        Ok(At {
            dir: self.resolve(&dir.path()?, OFlags::DIRECTORY)?,
            name: name.as_os_str().into(),
        })
    }

    /// The attributes of `name` in `dir`.
    pub fn find(&self, dir: &TreeNode, name: &Name) -> TreeResult<Stat> {
        let _names = self.read_names();
        // In one step: an absent name is the most common answer, since every name is looked up
        // before it is made.
        rustix::fs::fstat(self.resolve(&dir.path()?.join(name.clone()), OFlags::NOFOLLOW)?)
    }

    /// Makes a directory.
    pub fn make_dir(
        &self,
        dir: &TreeNode,
        name: &Name,
        mode: u32,
        maker: Maker,
    ) -> TreeResult<Stat> {
        let _names = self.read_names();
        let at = self.at(dir, name)?;
        let mode = Mode::from_raw_mode(mode & MODE_BITS);
        // It has to be opened once, whatever its owner may do with it later.
        as_owner(&[at.dir()], || rustix::fs::mkdirat(at.dir(), at.name(), mode | Mode::RWXU))?;
        let made = at.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        settled(at.dir(), &made, mode, maker)
    }

    /// Makes a symbolic link.
    pub fn make_link(
        &self,
        dir: &TreeNode,
        name: &Name,
        target: &OsStr,
        maker: Maker,
    ) -> TreeResult<Stat> {
        let _names = self.read_names();
        let at = self.at(dir, name)?;
        as_owner(&[at.dir()], || rustix::fs::symlinkat(target, at.dir(), at.name()))?;
        let stat = at.stat()?;
        let (uid, gid) = owner(at.dir(), &stat, maker)?;
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(at.dir(), at.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            return at.stat();
        }
        Ok(stat)
    }

    /// Makes a file of the kind that `mode` says, without opening it; `device` is the number of a
    /// device, as the kernel hands it to a file system.
    pub fn make_special(
        &self,
        dir: &TreeNode,
        name: &Name,
        mode: u32,
        device: u32,
        maker: Maker,
    ) -> TreeResult<Stat> {
        let _names = self.read_names();
        let at = self.at(dir, name)?;
        let bits = Mode::from_raw_mode(mode & MODE_BITS);
        let device = rustix::fs::makedev(
            (device >> 8) & 0xfff,
            (device & 0xff) | ((device >> 12) & 0xf_ff00),
        );
        let kind = FileType::from_raw_mode(mode);
        as_owner(&[at.dir()], || rustix::fs::mknodat(at.dir(), at.name(), kind, bits, device))?;
        let stat = at.stat()?;
        let (uid, gid) = owner(at.dir(), &stat, maker)?;
        let given = uid.is_some() || gid.is_some();
        if given {
            rustix::fs::chownat(at.dir(), at.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if given || Mode::from_raw_mode(stat.st_mode & MODE_BITS) != bits {
            self.set_mode(&at, bits)?;
            return at.stat();
        }
        Ok(stat)
    }

    /// Makes a regular file that does not exist yet, and opens it. `node` is the node that it gets.
    pub fn create(
        &self,
        dir: &Arc<TreeNode>,
        name: &Name,
        access: Access,
        mode: u32,
        maker: Maker,
    ) -> TreeResult<(Arc<TreeNode>, Arc<LocalFile>, Stat)> {
        let _names = self.read_names();
        let at = self.at(dir, name)?;
        let flags =
            access.flags() | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & MODE_BITS);
        let fd = as_owner(&[at.dir()], || rustix::fs::openat(at.dir(), at.name(), flags, mode))?;
        let stat = settled(at.dir(), &fd, mode, maker)?;
        let (node, file) =
            (TreeNode::below(dir, name.clone()), Arc::new(LocalFile::new(fd, access)));
        node.opened(&file);
        Ok((node, file, stat))
    }

    /// Opens a regular file.
    pub fn open_file(&self, node: &TreeNode, access: Access) -> TreeResult<Arc<LocalFile>> {
        let _names = self.read_names();
        let file = match self.locate(node) {
            // Where something else took its place on the disk, opening it shall not wait.
            Ok(at) => LocalFile::new(at.open_as_owner(access.flags() | OFlags::NONBLOCK)?, access),
            Err(_) => self.open_again(node, access)?,
        };
        let file = Arc::new(file);
        node.opened(&file);
        Ok(file)
    }

    /// The text of a symbolic link.
    pub fn read_link(&self, node: &TreeNode) -> TreeResult<OsString> {
        let _names = self.read_names();
        let at = self.locate(node)?;
        Ok(OsString::from_vec(
            rustix::fs::readlinkat(at.dir(), at.name(), Vec::new())?.into_bytes(),
        ))
    }

    /// The names in a directory, sorted.
    pub fn list(&self, dir: &TreeNode) -> TreeResult<Vec<Name>> {
        let _names = self.read_names();
        let fd = self.locate(dir)?.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut space = [MaybeUninit::uninit(); 32 * 1024];
        let mut entries = RawDir::new(fd, &mut space);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            if let Ok(name) = Name::new(OsStr::from_bytes(entry?.file_name().to_bytes())) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes `name`. `known` gives its node, if anybody holds it.
    pub fn remove(
        &self,
        dir: &TreeNode,
        name: &Name,
        what: Removal,
        known: impl FnOnce() -> Option<Arc<TreeNode>>,
    ) -> TreeResult<()> {
        let _names = self.names.write();
        let at = self.at(dir, name)?;
        let how = match what {
            Removal::Unlink => AtFlags::empty(),
            Removal::RemoveDir => AtFlags::REMOVEDIR,
        };
        as_owner(&[at.dir()], || rustix::fs::unlinkat(at.dir(), at.name(), how))?;
        if let Some(node) = known() {
            node.put(NodePlace::Gone);
        }
        Ok(())
    }

    /// Notes that the node that `known` gives was removed by somebody else than who uses the tree,
    /// if nothing has its name `name` in `dir`.
    pub fn lose(
        &self,
        dir: &TreeNode,
        name: &Name,
        known: impl FnOnce() -> Option<Arc<TreeNode>>,
    ) -> TreeResult<()> {
        let _names = self.names.write();
        if matches!(self.at(dir, name).and_then(|at| at.stat()), Err(Errno::NOENT))
            && let Some(node) = known()
        {
            node.put(NodePlace::Gone);
        }
        Ok(())
    }

    /// Gives what has the name `from` the name `to`, and moves the nodes that `known` gives along.
    pub fn rename(
        &self,
        from: (&Arc<TreeNode>, &Name),
        to: (&Arc<TreeNode>, &Name),
        how: How,
        known: impl FnOnce() -> KnownNodes,
    ) -> TreeResult<()> {
        let _names = self.names.write();
        let (old, new) = (self.at(from.0, from.1)?, self.at(to.0, to.1)?);
        let flags = match how {
            How::Replace => RenameFlags::empty(),
            How::NoReplace => RenameFlags::NOREPLACE,
            How::Exchange => RenameFlags::EXCHANGE,
        };
        let rename =
            || rustix::fs::renameat_with(old.dir(), old.name(), new.dir(), new.name(), flags);
        match rename() {
            Err(Errno::ACCESS) => {
                // A directory that goes into another one is itself written to.
                let moved = [old.directory(), new.directory()];
                let places = [old.dir(), new.dir()]
                    .into_iter()
                    .chain(moved.iter().flatten().map(AsFd::as_fd));
                as_owner(&places.collect::<Vec<_>>(), rename)?;
            }
            done => done?,
        }
        let known = known();
        if let Some(other) = known.other {
            other.put(match how {
                How::Exchange => NodePlace::In(from.0.clone(), from.1.clone()),
                How::Replace | How::NoReplace => NodePlace::Gone,
            });
        }
        if let Some(moved) = known.moved {
            moved.put(NodePlace::In(to.0.clone(), to.1.clone()));
        }
        Ok(())
    }

    /// The space of the disk.
    pub fn space(&self) -> TreeResult<StatVfs> {
        rustix::fs::fstatvfs(&self.top_fd)
    }
}

/// Gives what was just made in `dir` the mode that was asked for (this process's own mask does not
/// count) and its owner.
fn settled(dir: BorrowedFd<'_>, made: &OwnedFd, mode: Mode, maker: Maker) -> TreeResult<Stat> {
    let stat = rustix::fs::fstat(made)?;
    let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
    // A directory that hands its group down has handed this one the bit that does so.
    let handed = if is_dir { stat.st_mode & Mode::SGID.as_raw_mode() } else { 0 };
    let mode = mode.union(Mode::from_raw_mode(handed));
    let (uid, gid) = owner(dir, &stat, maker)?;
    let given = uid.is_some() || gid.is_some();
    if given {
        rustix::fs::fchown(made, uid, gid)?;
    }
    if given || Mode::from_raw_mode(stat.st_mode & MODE_BITS) != mode {
        rustix::fs::fchmod(made, mode)?;
        return rustix::fs::fstat(made);
    }
    Ok(stat)
}

/// The owner and group that have to be changed for what `maker` made in `dir`; only root can give
/// things away.
fn owner(dir: BorrowedFd<'_>, made: &Stat, maker: Maker) -> TreeResult<(Option<Uid>, Option<Gid>)> {
    let is_same = (made.st_uid, made.st_gid) == (maker.uid, maker.gid);
    if is_same || !rustix::process::geteuid().is_root() {
        return Ok((None, None));
    }
    let hands_group_down = rustix::fs::fstat(dir)?.st_mode & Mode::SGID.as_raw_mode() != 0;
    let uid = (made.st_uid != maker.uid).then(|| Uid::from_raw(maker.uid));
    let gid = (made.st_gid != maker.gid && !hands_group_down).then(|| Gid::from_raw(maker.gid));
    Ok((uid, gid))
}
