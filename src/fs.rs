//! The file system: inodes, handles, attributes, errno. What it means that a path is opened.
//!
//! Every operation is one async function. What is cached is answered at its first poll, on the
//! thread that asked; what has to wait goes on elsewhere (see `fuse`). No decision is made above
//! this layer, and none about a registry below it.
//!
//! INVARIANT: what is beneath a bound release never changes: neither names nor attributes nor
//! bytes.

mod access;
mod area;
mod attr;
mod backing;
mod caller;
mod clients;
mod directories;
mod directory;
mod entries;
mod error;
mod failures;
mod handles;
mod inodes;
mod installers;
mod kernel_cache;
mod node;
mod numbered;
mod overwrites;
pub mod plugin_cache;
mod publishing;
mod reasons;
mod referrer;
mod refresh;
mod releases;
mod replaced;
mod report;
mod retired;
mod spaces;
mod speaking;
pub mod staging;
mod views;
mod writable;
mod xattr;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use access::Wish;
pub use area::{DiskSpace, OpenedLocal, ShownAs};
pub use attr::{Attr, FOREVER, FileKind, FoundEntry, Looked, Lookup};
pub use backing::{Backing, OpenedFile, ReadWay};
pub use caller::{CallerIdentity, Thread};
pub use directory::Listed;
pub use error::{Errno, FsError};
pub use handles::ReadTarget;
pub use inodes::{NamesInDirectories, ROOT};
pub use kernel_cache::Caching;
pub use publishing::{KernelNames, Publishing};
pub use report::{Failed, MountReport};
pub use writable::Writable;

use crate::facts::{Facts, RequestingUser};
use crate::failure::Failure;
use crate::local::Access;
use crate::name::COMPONENT_MAX;
use crate::tree::registry::RegistryEntry;
use area::AreaFile;
use caller::Owner;
use clients::ClientPackages;
use directories::Directories;
use directory::DirectoryListing;
use entries::InodeEntries;
use failures::{Attempt, Failures};
use handles::Handles;
use inodes::{DirectoryName, Inodes};
use node::{InodeNode, ProviderView};
use releases::{Releases, fill};
use retired::Retired;
use spaces::Spaces;
use speaking::ReferrerView;
use views::Views;
use xattr::ExtendedAttributes;

/// How a mount presents itself.
#[derive(Clone, Debug)]
pub struct FsOptions {
    /// Owner of everything.
    pub uid: u32,
    /// Group of everything.
    pub gid: u32,
    /// Whether nothing may be written.
    pub read_only: bool,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The user as whom this process runs, who may write as the owner may.
    pub daemon: u32,
    /// What stands behind `staging/`; `None` where nothing may be written.
    pub staging: Option<staging::StagingArea>,
    /// What stands behind `plugin-cache/` beside the view; `None` where nothing may be written.
    pub plugin_cache: Option<plugin_cache::PluginCache>,
    /// The control socket, shown as the root's `user.tofufs.control`.
    pub control: PathBuf,
}

/// See the module. What an operation means is decided by the services that it is made of; they
/// share the facts below, the inodes and the handles.
pub struct Fs {
    facts: Arc<Facts>,
    inodes: Arc<Inodes>,
    handles: Arc<Handles>,
    failures: Arc<Failures>,
    entries: Arc<InodeEntries>,
    releases: Arc<Releases>,
    spaces: Arc<Spaces>,
    clients: Arc<ClientPackages>,
    views: Arc<Views>,
    speaking: Arc<ReferrerView>,
    directories: Directories,
    xattrs: ExtendedAttributes,
    writable: Arc<Writable>,
    retired: Retired,
}

impl Fs {
    /// The file system over `facts`.
    pub fn new(facts: Arc<Facts>, options: FsOptions) -> Arc<Fs> {
        let owner = Owner { uid: options.uid, daemon: options.daemon };
        let (inodes, handles) = (Arc::new(Inodes::new()), Arc::new(Handles::new()));
        let failures = Arc::new(Failures::default());
        let entries = Arc::new(InodeEntries {
            facts: facts.clone(),
            inodes: inodes.clone(),
            uid: options.uid,
            gid: options.gid,
        });
        let spaces = Arc::new(Spaces {
            facts: facts.clone(),
            inodes: inodes.clone(),
            entries: entries.clone(),
            staging: options.staging.clone(),
        });
        let speaking = Arc::new(ReferrerView { facts: facts.clone(), spaces: spaces.clone() });
        let releases = Arc::new(Releases {
            facts: facts.clone(),
            failures: failures.clone(),
            speaking: speaking.clone(),
            without_open: options.read_only,
        });
        let plugins = options.mountpoint.join(ProviderView::Plugins.name());
        let clients =
            Arc::new(ClientPackages::new(entries.clone(), owner, options.plugin_cache, plugins));
        let views = Arc::new(Views::new(facts.clone(), inodes.clone(), clients.clone()));
        let publishing =
            Publishing::new(views.clone(), failures.clone(), handles.clone(), options.staging);
        let retired = Retired::default();
        let writable = Writable::new(
            handles.clone(),
            releases.clone(),
            clients.clone(),
            publishing,
            retired.clone(),
        );
        let xattrs = ExtendedAttributes {
            facts: facts.clone(),
            failures: failures.clone(),
            control: options.control,
            retired: retired.clone(),
        };
        let directories = Directories::new(
            handles.clone(),
            releases.clone(),
            spaces.clone(),
            views.clone(),
            speaking.clone(),
        );
        Arc::new(Fs {
            facts,
            inodes,
            handles,
            failures,
            entries,
            releases,
            spaces,
            clients,
            views,
            speaking,
            directories,
            xattrs,
            writable: Arc::new(writable),
            retired,
        })
    }

    /// Another process serves in the place of this one. What is open is served until it is closed;
    /// operations that would begin to write answer ESTALE, by which the kernel finds the other.
    pub fn retire(&self) {
        self.retired.retire();
        // Who opens something now sees by the flag that it is claimed.
        self.handles.find_local(|open| {
            self.writable.claim(open);
            false
        });
    }

    /// The facts below.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// The operations that write.
    pub fn writable(&self) -> &Arc<Writable> {
        &self.writable
    }

    /// The way from staging to a registry.
    pub fn publishing(&self) -> &Arc<Publishing> {
        &self.writable.publishing
    }

    /// For whom requests are sent when `who` asks for an operation.
    pub fn asker(&self, who: CallerIdentity) -> RequestingUser {
        self.clients.owner.asker(who)
    }

    /// Finds `name` in the directory `parent`, for who asks in `thread`.
    pub async fn lookup(
        self: Arc<Self>,
        thread: Thread,
        parent: u64,
        name: Box<OsStr>,
    ) -> Result<Lookup, FsError> {
        if name.len() > COMPONENT_MAX {
            return Err(FsError::plain(Errno::ENAMETOOLONG));
        }
        let dir = self.inodes.node(parent)?;
        let outcome = self.find(thread, parent, &dir, &name).await;
        self.failures.note(&dir, Attempt::Look, outcome)
    }

    async fn find(
        &self,
        thread: Thread,
        parent: u64,
        dir: &Arc<InodeNode>,
        name: &OsStr,
    ) -> Result<Lookup, FsError> {
        let place = DirectoryName::new(parent, name);
        let since = Instant::now();
        if let Some(release) = self.views.release_behind(dir, name, since).await? {
            let entry = RegistryEntry::Release(release);
            return self.spaces.found(place, entry, since).await.map(Looked::Found);
        }
        let looked = match dir.as_ref() {
            InodeNode::Local(dir) => return self.inodes.find_local(place, dir, name),
            InodeNode::Root => self.spaces.find_in_root(name),
            InodeNode::Providers { view, dir, .. } => {
                self.views.find(thread, *view, dir, name, since).await?
            }
            InodeNode::Space { space, .. } => {
                return match self.spaces.find(space, name, since).await? {
                    Looked::Found(entry) => {
                        self.spaces.found(place, entry, since).await.map(Looked::Found)
                    }
                    Looked::Absent(ttl) => Ok(Looked::Absent(ttl)),
                };
            }
            InodeNode::Referrers { place, .. } => self.speaking.find(place, name, since).await?,
            _ if self.writable.overwrites.was_taken_away(thread, parent, name) => {
                Looked::Absent(Duration::ZERO)
            }
            _ => match self.releases.find(dir, name).await? {
                Some(node) if node.is_assumed() => Looked::Found((node, self.facts.tags().ttl())),
                Some(node) => Looked::Found((node, FOREVER)),
                None => Looked::Absent(FOREVER),
            },
        };
        match looked {
            Looked::Found((InodeNode::Local(at), _)) => {
                let stat = at.stat()?;
                Ok(Looked::Found(self.inodes.send_local(place, at, &stat)))
            }
            Looked::Found((node, ttl)) => {
                Ok(Looked::Found(self.entries.send(place, Arc::new(node), ttl)))
            }
            Looked::Absent(ttl) => Ok(Looked::Absent(ttl)),
        }
    }

    /// Drops `count` of the kernel's references to `ino`.
    pub fn forget(&self, ino: u64, count: u64) {
        self.inodes.forget(ino, count);
    }

    /// The attributes of `ino` and how long they hold.
    pub async fn getattr(self: Arc<Self>, ino: u64) -> Result<FoundEntry, FsError> {
        let node = self.inodes.node(ino)?;
        if let InodeNode::Local(at) = node.as_ref() {
            return Ok(at.entry(ino, &at.stat()?));
        }
        if let InodeNode::Zip(target) = node.as_ref()
            && target.size(&self.facts).is_none()
        {
            // A listing shows zips before their size is known; the size is never guessed.
            let outcome = self.releases.zip_of(target).await;
            self.failures.note(&node, Attempt::Look, outcome)?;
        }
        Ok(self.entries.of(ino, &node, FOREVER))
    }

    /// Opens the file `ino` for reading. Afterwards reading it waits for no network. With
    /// `backing`, a large file comes with the file of the store that the kernel may read by itself.
    pub async fn open(self: Arc<Self>, ino: u64, backing: bool) -> Result<OpenedFile, FsError> {
        let node = self.inodes.node(ino)?;
        if let InodeNode::Local(at) = node.as_ref() {
            let file = at.area.tree.open_file(&at.node, Access::READ)?;
            let reading = ReadWay::Local(at.kept.caching());
            let file = AreaFile { at: at.clone(), file, bypasses: false };
            return Ok(OpenedFile { handle: self.handles.open_local(file), reading });
        }
        let outcome = self.releases.content(&node).await;
        if matches!(&outcome, Err(e) if e.errno == Errno::ESTALE) {
            self.inodes.supersede(ino);
        }
        let content = self.failures.note(&node, Attempt::Open, outcome)?;
        // The kernel does not mix reading by itself with writing through us, which is how such a
        // file is written over.
        let is_installed = self.writable.overwrites.replaced(ino).is_some_and(|at| at.by_installer);
        let (content, reading) = if backing && !is_installed {
            let outcome = self.releases.backed(&node, content).await;
            self.failures.note(&node, Attempt::Open, outcome)?
        } else {
            (content, ReadWay::Plain)
        };
        let is_backed = matches!(reading, ReadWay::Backed(_));
        Ok(OpenedFile { handle: self.handles.open_file(node, content, is_backed), reading })
    }

    /// Reads what is there, without waiting for a network: `None` if the content is not loaded (of
    /// an inode that is read without being opened) or turned out to be damaged, and
    /// [`Fs::read_again`] has to fetch it.
    pub fn read(
        &self,
        of: ReadTarget,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<Option<usize>, FsError> {
        if let ReadTarget::Handle(handle) = of
            && let Some(open) = self.handles.local(handle)
        {
            return Ok(Some(open.file.read_at(buf, offset)?));
        }
        let Some(file) = self.handles.file_of(of)? else { return Ok(None) };
        if let Some(copy) = file.copy() {
            return Ok(Some(copy.file.read_at(buf, offset)?));
        }
        match fill(&self.facts, &file.content(), offset, buf) {
            Ok(filled) => Ok(Some(filled)),
            Err(e) if e.failure == Failure::Damaged => Ok(None),
            Err(e) => self.failures.note(&file.node, Attempt::Open, Err(e.into())),
        }
    }

    /// Reads content that was not loaded or was damaged.
    pub async fn read_again(
        self: Arc<Self>,
        of: ReadTarget,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, FsError> {
        let damaged = self.handles.file_of(of)?;
        let node = match (&damaged, of) {
            (Some(file), _) => file.node.clone(),
            (None, ReadTarget::Inode(ino)) => self.inodes.node(ino)?,
            (None, ReadTarget::Handle(_)) => return Err(FsError::plain(Errno::EBADF)),
        };
        let outcome = match damaged {
            Some(_) => self.read_healed(of, &node, offset, size).await,
            None => self.read_loaded(of, &node, offset, size).await,
        };
        self.failures.note(&node, Attempt::Open, outcome)
    }

    async fn read_loaded(
        &self,
        of: ReadTarget,
        node: &Arc<InodeNode>,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, FsError> {
        let content = self.releases.content(node).await?;
        self.handles.keep(of, node, content.clone());
        match self.releases.read_blocking(content, offset, size).await {
            Err(e) if e.failure == Failure::Damaged => {
                self.read_healed(of, node, offset, size).await
            }
            outcome => Ok(outcome?),
        }
    }

    async fn read_healed(
        &self,
        of: ReadTarget,
        node: &Arc<InodeNode>,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, FsError> {
        let content = self.releases.healed(node).await?;
        self.handles.keep(of, node, content.clone());
        Ok(self.releases.read_blocking(content, offset, size).await?)
    }

    /// Closes an open file; whether it was opened as [`ReadWay::Backed`]. Needs a runtime.
    pub fn release(&self, handle: u64) -> bool {
        let is_backed = self.handles.file(handle).is_ok_and(|file| file.is_backed);
        let local = self.handles.local(handle);
        self.handles.close(handle);
        if let Some(written) = local.filter(|local| local.file.is_writable()) {
            self.writable.publishing.finished(&written.at);
        }
        is_backed
    }

    /// Opens the directory `ino`, for who asks in `thread`: takes the snapshot that is listed.
    /// Entering a release binds and loads it.
    pub async fn opendir(self: Arc<Self>, thread: Thread, ino: u64) -> Result<u64, FsError> {
        let node = self.inodes.node(ino)?;
        self.clients.note_installer(thread, &node);
        let outcome = self.directories.listing(thread, &node).await;
        let listing = self.failures.note(&node, Attempt::Open, outcome)?;
        if let DirectoryListing::Made { error: Some(error), .. } = &listing {
            // It costs entries, but fails nothing.
            drop(self.failures.note::<()>(&node, Attempt::Open, Err(error.clone())));
        }
        Ok(self.handles.open_directory(ino, node, listing))
    }

    /// Whether the listing of `ino` never changes.
    pub fn is_constant(&self, ino: u64) -> bool {
        self.inodes.node(ino).is_ok_and(|node| {
            !matches!(
                node.as_ref(),
                InodeNode::Root
                    | InodeNode::Space { .. }
                    | InodeNode::Providers { .. }
                    | InodeNode::Local(_)
            )
        })
    }

    /// Delivers the entries of an open directory from `offset` on, with their attributes, until
    /// `deliver` says that it did not take one. Each entry taken counts as a lookup, except `.` and
    /// `..`, which the kernel does not count.
    ///
    /// No request is sent for this: what would need one (the size of a provider zip that nobody
    /// asked for yet) is delivered with a time to live of zero, so that the kernel asks before it
    /// believes.
    pub fn readdir(
        &self,
        handle: u64,
        offset: u64,
        deliver: impl FnMut(Listed<'_>) -> bool,
    ) -> Result<(), FsError> {
        self.directories.read(handle, offset, deliver)
    }

    /// Closes an open directory.
    pub fn releasedir(&self, handle: u64) {
        self.handles.close(handle);
    }

    /// Bytes of the cache: limit and use.
    pub fn space(&self) -> (u64, u64) {
        let usage = self.facts.store().usage();
        (usage.limit, usage.bytes)
    }

    /// The disk on which `ino` lies, where it is one that can be written to.
    pub fn disk_space(&self, ino: u64) -> Option<DiskSpace> {
        match self.inodes.node(ino).ok()?.as_ref() {
            InodeNode::Local(at) => at.disk_space(),
            _ => None,
        }
    }

    /// The text of the symbolic link `ino`.
    pub fn readlink(&self, ino: u64) -> Result<OsString, FsError> {
        match self.inodes.node(ino)?.as_ref() {
            InodeNode::Local(at) => Ok(at.area.tree.read_link(&at.node)?),
            InodeNode::Link(target) => Ok(OsString::from(&**target)),
            _ => Err(FsError::plain(Errno::EINVAL)),
        }
    }

    /// The value of the attribute `name` of `ino`.
    pub fn getxattr(&self, ino: u64, name: &OsStr) -> Result<Vec<u8>, FsError> {
        self.xattrs.get(self.inodes.node(ino)?.as_ref(), name)
    }

    /// The names of all attributes of `ino`, each followed by NUL.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<u8>, FsError> {
        self.xattrs.names(self.inodes.node(ino)?.as_ref())
    }

    /// Whether `who` may do all of that with `ino`.
    ///
    /// # Errors
    /// EROFS for writing where nothing can be written, EACCES where modes forbid it.
    pub fn access(&self, who: CallerIdentity, ino: u64, wish: Wish) -> Result<(), FsError> {
        let node = self.inodes.node(ino)?;
        if wish.write && !self.writable.takes_writes(ino, &node) {
            return Err(FsError::plain(Errno::EROFS));
        }
        let (kind, mode) = match node.as_ref() {
            InodeNode::Local(at) => {
                let stat = at.stat()?;
                (area::kind(stat.st_mode), (stat.st_mode & 0o777) as u16)
            }
            other => {
                let (attr, _) = self.entries.attr(ino, other);
                (attr.kind, attr.mode)
            }
        };
        if self.clients.owner.is(who) && wish.is_granted(kind, mode, who.uid == 0) {
            Ok(())
        } else {
            Err(FsError::plain(Errno::EACCES))
        }
    }

    /// Makes the next lookup of `ino`'s name find another inode: what is open under this one has
    /// other bytes than its name has now.
    pub fn supersede(&self, ino: u64) {
        self.inodes.supersede(ino);
    }

    /// The state of the mount.
    pub fn report(&self) -> MountReport {
        let usage = self.facts.store().usage();
        MountReport {
            sources: self.facts.sources(),
            errors: self.failures.log.standing(|host| self.facts.is_well(host)),
            downloads: self.facts.content().downloads(),
            inodes: self.inodes.count(),
            cache_bytes: usage.bytes,
            cache_limit: usage.limit,
        }
    }

    /// How many inodes the kernel knows.
    pub fn inodes(&self) -> usize {
        self.inodes.count()
    }

    /// Forgets tags, lists and refusals at and below `path` (from the mount's root). Yields the
    /// directory entries that the kernel has to drop; they must not be dropped from inside an
    /// operation of this file system.
    pub fn refresh(&self, path: &Path) -> NamesInDirectories {
        self.publishing().refresh.below(path)
    }

    /// The same, after which releases that never change are taken as they are now. Blocks on the
    /// disk.
    pub fn accept(&self, path: &Path) -> NamesInDirectories {
        self.publishing().refresh.accept(path)
    }
}
