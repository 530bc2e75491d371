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
mod directory;
mod enter;
mod error;
mod handles;
mod inodes;
mod installers;
mod kernel_cache;
mod node;
mod numbered;
pub mod plugin_cache;
mod providers;
mod publish;
mod reasons;
mod replaced;
mod report;
mod root;
pub mod staging;
mod write;
mod xattr;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use access::Wish;
pub use area::{DiskSpace, OpenedLocal, ShownAs};
pub use attr::{Attr, FileKind};
pub use backing::{Backing, OpenedFile, ReadWay};
pub use caller::Thread;
pub use directory::Listed;
pub use error::{Errno, FsError};
pub use kernel_cache::Caching;
pub use publish::Drops;
pub use report::{Failed, MountReport};
pub use write::CallerIdentity;

use crate::facts::{FactError, Facts, MemberContent};
use crate::failure::Failure;
use crate::local::Access;
use crate::name::{COMPONENT_MAX, Reference, Selector};
use crate::tree::registry::{LookupFailure, RegistryEntry as Named};
use crate::tree::{self, Fact, Need, Step};
use directory::DirectoryListing;
use handles::Handles;
pub use handles::ReadTarget;
use inodes::{DirectoryName, Inodes};
use node::{InodeNode, ReleaseNode};
use reasons::Attempt;

/// How long the kernel may keep what never changes.
pub const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the kernel may keep the absence of a name that can come to be.
const ABSENT_TTL: Duration = Duration::from_secs(1);

/// How a mount presents itself.
#[derive(Clone, Debug)]
pub struct FsOptions {
    /// Owner of everything.
    pub uid: u32,
    /// Group of everything.
    pub gid: u32,
    /// Whether nothing may be written.
    pub read_only: bool,
    /// Whether the kernel refuses by modes, as it does where other users are let in.
    pub modes_count: bool,
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

/// The inode of a mount's root.
pub const ROOT: u64 = 1;

/// What is told of a found entry.
#[derive(Clone, Copy, Debug)]
pub struct FoundEntry {
    /// Its attributes; `attr.ino` is its number.
    pub attr: Attr,
    /// How long the name stands for it.
    pub ttl: Duration,
    /// How long its attributes hold.
    pub attr_ttl: Duration,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// Found. The kernel now holds one more reference to it.
    Found(FoundEntry),
    /// Not there, which holds for that long.
    Absent(Duration),
}

/// See the module.
pub struct Fs {
    facts: Arc<Facts>,
    options: FsOptions,
    inodes: Inodes,
    handles: Handles,
    report: report::FailureLog,
    reasons: reasons::Reasons,
    documents: providers::Documents,
    kernel: publish::Kernel,
    locks: plugin_cache::Locks,
    installers: installers::Installers,
    copying: tokio::sync::Mutex<()>,
}

impl Fs {
    /// The file system over `facts`.
    pub fn new(facts: Arc<Facts>, options: FsOptions) -> Arc<Fs> {
        Arc::new(Fs {
            facts,
            options,
            inodes: Inodes::new(),
            handles: Handles::new(),
            report: report::FailureLog::default(),
            reasons: reasons::Reasons::default(),
            documents: providers::Documents::default(),
            kernel: publish::Kernel::default(),
            locks: plugin_cache::Locks::default(),
            installers: installers::Installers::default(),
            copying: tokio::sync::Mutex::default(),
        })
    }

    /// The facts below.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
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
        self.note(&dir, Attempt::Look, outcome)
    }

    async fn find(
        self: &Arc<Self>,
        thread: Thread,
        parent: u64,
        dir: &Arc<InodeNode>,
        name: &OsStr,
    ) -> Result<Lookup, FsError> {
        let place = DirectoryName::new(parent, name);
        let since = Instant::now();
        if let Some(release) = self.release_behind(dir, name, since).await? {
            return self
                .found_in_space(place, Named::Release(release), since)
                .await
                .map(Lookup::Found);
        }
        let (node, ttl) = match dir.as_ref() {
            InodeNode::Local(dir) => return self.find_local(place, dir, name),
            InodeNode::Root => match self.find_in_root(name) {
                Ok((InodeNode::Local(top), _)) => {
                    let stat = top.stat()?;
                    return Ok(Lookup::Found(self.send_local(place, top, &stat)));
                }
                Ok(found) => found,
                Err(ttl) => return Ok(Lookup::Absent(ttl)),
            },
            InodeNode::Providers { view, dir, .. } => {
                match self.find_in_view(thread, *view, dir, name, since).await? {
                    Ok((InodeNode::Local(package), _)) => {
                        let stat = package.stat()?;
                        return Ok(Lookup::Found(self.send_local(place, package, &stat)));
                    }
                    Ok(found) => found,
                    Err(ttl) => return Ok(Lookup::Absent(ttl)),
                }
            }
            InodeNode::Space { space, .. } => match self.find_in_space(space, name, since).await? {
                Ok(entry) => {
                    return self.found_in_space(place, entry, since).await.map(Lookup::Found);
                }
                Err(ttl) => return Ok(Lookup::Absent(ttl)),
            },
            _ if self.was_taken_away(thread, parent, name) => {
                return Ok(Lookup::Absent(Duration::ZERO));
            }
            _ => match self.find_in_release(dir, name).await? {
                Some(node) if node.is_assumed() => (node, self.facts.tag_ttl()),
                Some(node) => (node, FOREVER),
                None => return Ok(Lookup::Absent(FOREVER)),
            },
        };
        Ok(Lookup::Found(
            self.inodes.send(place, Arc::new(node), |ino, node| self.entry(ino, node, ttl)),
        ))
    }

    /// Asks the tree until it knows. `Err` is an absence and how long it holds.
    async fn find_in_space(
        self: &Arc<Self>,
        space: &tree::registry::RegistrySpace,
        name: &OsStr,
        since: Instant,
    ) -> Result<Result<Named, Duration>, FsError> {
        let Some(name) = name.to_str() else { return Ok(Err(FOREVER)) };
        if crate::name::Component::parse(name) == crate::name::Component::Impossible {
            return Ok(Err(FOREVER));
        }
        if let Some(nested) = self.staged_space(space, name) {
            return Ok(Ok(Named::Space(nested)));
        }
        loop {
            let step = tree::registry::lookup(space, name, &self.facts.view(since));
            match step {
                Step::Edge(entry) => return Ok(Ok(entry)),
                Step::Absent => return Ok(Err(self.absent_ttl())),
                Step::Need(need) => self.facts.load(need).await?,
                Step::Failed(LookupFailure::Fact(e)) => {
                    return match node::spelled_release(space, name) {
                        Some(release) if self.is_refused(&release, since) => {
                            Ok(Ok(Named::Release(release)))
                        }
                        _ => Err(as_looked_up(space, name, e).into()),
                    };
                }
                Step::Failed(LookupFailure::Name(e)) => {
                    return Err(FactError::new(Failure::Unsupported, name, e).into());
                }
            }
        }
    }

    /// Whether a tag's manifest is refused. Then it exists: it can be stat'ed, and entering it
    /// gives the reason.
    fn is_refused(&self, release: &Reference, since: Instant) -> bool {
        match &release.selector {
            Selector::Tag(tag) => {
                matches!(self.facts.view(since).bound(&release.repo, tag), Fact::Failed(e) if is_refusal(&e))
            }
            Selector::Digest(_) => false,
        }
    }

    async fn found_in_space(
        self: &Arc<Self>,
        place: DirectoryName,
        entry: Named,
        since: Instant,
    ) -> Result<FoundEntry, FsError> {
        let (node, ttl) = match entry {
            Named::Space(space) => {
                let ttl = self.space_ttl(&space);
                (Arc::new(InodeNode::space(space)), ttl)
            }
            Named::Link { target, repo } => {
                let ttl = self.facts.view(since).fresh_for(&Need::Tags(repo));
                (Arc::new(InodeNode::Link(target.into())), ttl)
            }
            Named::Release(reference) => {
                // What stands there may be the space that the name was before it became a tag.
                let before = self.inodes.at(&place).filter(|node| node.release().is_some());
                let bound = before.as_ref().and_then(|n| n.release()).and_then(ReleaseNode::digest);
                let (digest, ttl) = self.binding_of(&reference, bound, since).await?;
                match before {
                    // The same manifest, or none yet: the same directory.
                    Some(before) if bound.is_none() || bound == digest => (before, ttl),
                    _ => (
                        Arc::new(InodeNode::Release(ReleaseNode::new(reference, digest).into())),
                        ttl,
                    ),
                }
            }
        };
        Ok(self.inodes.send(place, node, |ino, node| self.entry(ino, node, ttl)))
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
        if let InodeNode::Zip(target) = node.as_ref() {
            // A listing shows zips before their size is known; the size is never guessed.
            let outcome = self.zip_of(target).await;
            self.note(&node, Attempt::Look, outcome)?;
        }
        Ok(self.entry(ino, &node, FOREVER))
    }

    fn entry(&self, ino: u64, node: &InodeNode, ttl: Duration) -> FoundEntry {
        let (attr, is_true) = attr::of(ino, node, &self.options, &self.facts);
        let ttl = if is_true { ttl } else { Duration::ZERO };
        FoundEntry { attr, ttl, attr_ttl: ttl }
    }

    /// Opens the file `ino` for reading. Afterwards reading it waits for no network. With
    /// `backing`, a large file comes with the file of the store that the kernel may read by itself.
    pub async fn open(self: Arc<Self>, ino: u64, backing: bool) -> Result<OpenedFile, FsError> {
        let node = self.inodes.node(ino)?;
        if let InodeNode::Local(at) = node.as_ref() {
            let OpenedLocal { handle, caching } = self.open_local(at, Access::READ)?;
            return Ok(OpenedFile { handle, reading: ReadWay::Local(caching) });
        }
        let outcome = self.content(&node).await;
        if matches!(&outcome, Err(e) if e.errno == Errno::ESTALE) {
            self.supersede(ino);
        }
        let content = self.note(&node, Attempt::Open, outcome)?;
        // The kernel does not mix reading by itself with writing through us, which is how such a
        // file is written over.
        let is_installed = self.replaced(ino).is_some_and(|at| at.by_installer);
        let (content, reading) = if backing && !is_installed {
            let outcome = self.backed(&node, content).await;
            self.note(&node, Attempt::Open, outcome)?
        } else {
            (content, ReadWay::Plain)
        };
        let is_backed = matches!(reading, ReadWay::Backed(_));
        Ok(OpenedFile { handle: self.handles.open_file(node, content, is_backed), reading })
    }

    async fn content(self: &Arc<Self>, node: &InodeNode) -> Result<MemberContent, FsError> {
        match node {
            InodeNode::File { package, number, .. } => {
                Ok(self.facts.content(package, *number).await?)
            }
            InodeNode::Zip(target) => {
                self.confirm(target).await?;
                let layer = self.zip_of(target).await?;
                Ok(MemberContent::Object(self.facts.blob(target.repo(), layer).await?))
            }
            InodeNode::Document(bytes) => Ok(MemberContent::Bytes(bytes.clone())),
            InodeNode::Lock => Ok(MemberContent::Bytes(Arc::new([]))),
            InodeNode::Link(_) => Err(FsError::plain(Errno::ELOOP)),
            _ => Err(FsError::plain(Errno::EISDIR)),
        }
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
        if let Some(read) = self.read_local(of, offset, buf)? {
            return Ok(Some(read));
        }
        let Some(file) = self.handles.file_of(of)? else { return Ok(None) };
        if let Some(copy) = file.copy() {
            return Ok(Some(copy.file.read_at(buf, offset)?));
        }
        match self.fill(&file.content(), offset, buf) {
            Ok(filled) => Ok(Some(filled)),
            Err(e) if e.failure == Failure::Damaged => Ok(None),
            Err(e) => self.note(&file.node, Attempt::Open, Err(e.into())),
        }
    }

    fn fill(
        &self,
        content: &MemberContent,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, FactError> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.facts.read(content, &mut buf[filled..], offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
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
        self.note(&node, Attempt::Open, outcome)
    }

    async fn read_loaded(
        self: &Arc<Self>,
        of: ReadTarget,
        node: &Arc<InodeNode>,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, FsError> {
        let content = self.content(node).await?;
        self.handles.keep(of, node, content.clone());
        match self.read_blocking(content, offset, size).await {
            Err(e) if e.failure == Failure::Damaged => {
                self.read_healed(of, node, offset, size).await
            }
            outcome => Ok(outcome?),
        }
    }

    async fn read_healed(
        self: &Arc<Self>,
        of: ReadTarget,
        node: &Arc<InodeNode>,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, FsError> {
        let content = self.healed(node).await?;
        self.handles.keep(of, node, content.clone());
        Ok(self.read_blocking(content, offset, size).await?)
    }

    async fn read_blocking(
        self: &Arc<Self>,
        content: MemberContent,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, FactError> {
        let fs = self.clone();
        let read = move || {
            let mut buf = vec![0; size];
            let filled = fs.fill(&content, offset, &mut buf)?;
            buf.truncate(filled);
            Ok(buf)
        };
        crate::facts::blocking(read).await?
    }

    async fn healed(self: &Arc<Self>, node: &InodeNode) -> Result<MemberContent, FsError> {
        match node {
            InodeNode::File { package, number, .. } => {
                Ok(self.facts.heal(package, *number).await?)
            }
            InodeNode::Zip(target) => {
                self.facts.drop_object(&crate::store::Key::Blob(self.zip_of(target).await?.digest));
                self.content(node).await
            }
            _ => Err(FsError::plain(Errno::EISDIR)),
        }
    }

    /// Closes an open file; whether it was opened as [`ReadWay::Backed`]. Needs a runtime.
    pub fn release(&self, handle: u64) -> bool {
        let is_backed = self.handles.file(handle).is_ok_and(|file| file.is_backed);
        let local = self.handles.local(handle);
        self.handles.close(handle);
        if let Some(written) = local.filter(|local| local.file.is_writable()) {
            self.finished(&written.at);
        }
        is_backed
    }

    /// Opens the directory `ino`, for who asks in `thread`: takes the snapshot that is listed.
    /// Entering a release binds and loads it.
    pub async fn opendir(self: Arc<Self>, thread: Thread, ino: u64) -> Result<u64, FsError> {
        let node = self.inodes.node(ino)?;
        self.note_installer(thread, &node);
        let outcome = self.listing(thread, &node).await;
        let listing = self.note(&node, Attempt::Open, outcome)?;
        if let DirectoryListing::Made { error: Some(error), .. } = &listing {
            // It costs entries, but fails nothing.
            drop(self.note::<()>(&node, Attempt::Open, Err(error.clone())));
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

    /// Bytes of the cache: limit and use.
    pub fn space(&self) -> (u64, u64) {
        let usage = self.facts.store().usage();
        (usage.limit, usage.bytes)
    }
}

/// Whether something exists and is refused, as opposed to being absent or unknown.
fn is_refusal(error: &FactError) -> bool {
    matches!(
        error.failure,
        Failure::Integrity | Failure::Structure | Failure::TooLarge | Failure::Unsupported
    )
}

/// A failure told of the path that was looked up, which may have been asked for as a tag of what is
/// above it.
fn as_looked_up(space: &tree::registry::RegistrySpace, name: &str, error: FactError) -> FactError {
    let Some(above) = space.repo() else { return error };
    let is_tag = error.subject() == Some(&*format!("{above}:{name}"));
    if is_tag { error.about(&format!("{above}/{name}")) } else { error }
}
