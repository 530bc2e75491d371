//! A rename that commits: `mv staging/X X`.
//!
//! The kernel holds both directories while a rename lasts, so it waits no longer than the deadline;
//! the commit goes on by itself, and who asks again joins it.
//!
//! The kernel keeps the names of what is staged, so it is told of the one that a commit takes away.
//! It can be told only when it holds no lock on the directory, after the rename; so before a rename
//! publishes, it has to have learnt that the name cannot be kept (see [`Inodes::left`]).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tracing::Instrument as _;

use super::area::LocalNode;
use super::error::{Errno, FsError};
use super::failures::Failures;
use super::handles::Handles;
use super::inodes::{DirectoryName, Inodes, NamesInDirectories};
use super::node::InodeNode;
use super::refresh::Refresh;
use super::staging::{self, StagingArea};
use super::views::Views;
use crate::facts::Facts;
use crate::failure::{Failure, Refusal};
use crate::local::{How, Name, RelPath};
use crate::name::Reference;
use crate::stage::{CommitRequest, Pushed, Stage, StagedFiles};

/// What is moved.
pub(super) struct RenameSource {
    pub(super) dir: LocalNode,
    pub(super) name: Name,
    pub(super) place: DirectoryName,
}

impl RenameSource {
    fn refused(&self, errno: Errno, why: &str) -> FsError {
        let (at, name) = (self.dir.describe(), self.name.as_os_str().display());
        FsError::said(errno, format_args!("{at}/{name}: {why}"))
    }
}

/// What the kernel keeps of names.
pub trait KernelNames: Send + Sync {
    /// Has the kernel drop directory entries. It is called while an operation may be under way, so
    /// they are handed to a thread of their own. The future ends when they are dropped.
    fn forget(&self, names: NamesInDirectories) -> BoxFuture<'static, ()>;
}

/// How long who commits waits for the kernel to drop names: an operation that takes long may hold
/// the directory.
const DROPPED_WITHIN: Duration = Duration::from_secs(2);

/// Who is told, once there is a kernel to tell, and how many tellings are under way.
#[derive(Default)]
struct Kernel {
    names: OnceLock<Box<dyn KernelNames>>,
    under_way: watch::Sender<usize>,
}

impl Kernel {
    fn tell(&self, forgotten: NamesInDirectories) {
        let Some(names) = self.names.get() else { return };
        let (dropped, under_way) = (names.forget(forgotten), self.under_way.clone());
        under_way.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            dropped.await;
            under_way.send_modify(|count| *count -= 1);
        });
    }
}

/// The way from staging to a registry.
pub struct Publishing {
    facts: Arc<Facts>,
    inodes: Arc<Inodes>,
    handles: Arc<Handles>,
    pub(super) refresh: Refresh,
    /// What is published; `None` where nothing can be.
    staging: Option<StagingArea>,
    kernel: Kernel,
}

impl Publishing {
    pub(super) fn new(
        views: Arc<Views>,
        failures: Arc<Failures>,
        handles: Arc<Handles>,
        staging: Option<StagingArea>,
    ) -> Arc<Publishing> {
        let (facts, inodes) = (views.facts.clone(), views.inodes.clone());
        let refresh = Refresh { facts: facts.clone(), inodes: inodes.clone(), failures, views };
        let kernel = Kernel::default();
        Arc::new(Publishing { facts, inodes, handles, refresh, staging, kernel })
    }

    /// Names who has the kernel drop directory entries. The first one stays.
    pub fn tell_kernel(&self, names: Box<dyn KernelNames>) {
        drop(self.kernel.names.set(names));
    }

    /// Waits until the kernel dropped what it was told to, though not for long. Never to be called
    /// by an operation of the kernel.
    pub async fn names_dropped(&self) {
        let mut under_way = self.kernel.under_way.subscribe();
        drop(tokio::time::timeout(DROPPED_WITHIN, under_way.wait_for(|count| *count == 0)).await);
    }

    /// The service that commits what is staged; `None` where nothing can be.
    pub fn stage(&self) -> Option<&Arc<Stage>> {
        self.staging.as_ref().map(StagingArea::stage)
    }

    /// Commits the artifact at `path` (below `staging/`), or all below it, and shows what became of
    /// it. It goes on when who asked is gone. Needs a runtime.
    ///
    /// # Errors
    /// See [`Stage::commit`].
    pub async fn commit(
        self: &Arc<Self>,
        path: &RelPath,
        request: CommitRequest,
    ) -> Result<Vec<Pushed>, Refusal> {
        let subject = format!("{}/{}", staging::NAME, path.to_os_string().display());
        let Some(staging) = &self.staging else {
            let rule = "nothing is staged in a mount that is read-only";
            return Err(Refusal::new(Failure::ReadOnly, subject, rule));
        };
        let (publishing, stage, path) = (self.clone(), staging.stage().clone(), path.clone());
        let committing = async move { publishing.committed(&stage, &path, request).await };
        let committing = tokio::spawn(committing.in_current_span());
        committing.await.unwrap_or_else(|_| Err(Refusal::lost(subject)))
    }

    async fn committed(
        self: &Arc<Self>,
        stage: &Arc<Stage>,
        path: &RelPath,
        mut request: CommitRequest,
    ) -> Result<Vec<Pushed>, Refusal> {
        request.files = Some(Arc::new(OpenFiles(self.clone())));
        let committed = stage.commit(path, request).await?;
        for release in &committed {
            self.show(&release.reference);
        }
        Ok(committed)
    }

    /// A file of an area was written and closed, or got its name. What of a release can be sent
    /// ahead of its commit is sent now, so that the commit, for whose end a rename waits, is short.
    /// Needs a runtime.
    pub(super) fn finished(&self, at: &LocalNode) {
        let Some(staging) = self.staging.as_ref().filter(|s| Arc::ptr_eq(s.area(), &at.area))
        else {
            return;
        };
        let Ok(path) = at.node.path() else { return };
        let stage = staging.stage().clone();
        if stage.sends_ahead(&path) {
            tokio::spawn(async move { stage.closed(&path).await });
        }
    }

    /// Forgets what was known of a reference that was just published, so that the next look finds
    /// it, in the views too: there the kernel may remember that a provider, a version or a zip was
    /// absent.
    fn show(&self, reference: &Reference) {
        self.facts.names().note_used(&reference.repo);
        let mut names = self.refresh.release(reference);
        names.extend(self.inodes.places(|node| matches!(node, InodeNode::Providers { .. })));
        self.kernel.tell(names);
    }

    pub(super) async fn publish(
        self: &Arc<Self>,
        source: RenameSource,
        into: &InodeNode,
        to: DirectoryName,
        how: How,
    ) -> Result<(), FsError> {
        let path = self.publishable(&source, into, &to, how)?;
        self.inodes.left(&source.place)?;
        let deadline = self.facts.deadline();
        match tokio::time::timeout(deadline, self.commit(&path, CommitRequest::default())).await {
            Ok(Ok(_)) => {
                // The kernel gives what it holds of the stage the new name now, whatever is at the
                // old one.
                if let Some(InodeNode::Local(gone)) = self.inodes.vacate(&source.place).as_deref() {
                    gone.node.lose();
                }
                self.kernel.tell(vec![to.into_parts()]);
                Ok(())
            }
            Ok(Err(e)) => {
                self.inodes.stayed(&source.place);
                Err(FsError::of_commit(e))
            }
            Err(_) => Err(source.refused(
                Errno::ETIMEDOUT,
                "the upload takes longer than --deadline and goes on; `mv` again waits for it",
            )),
        }
    }

    /// The path of the one release that a rename publishes.
    fn publishable(
        &self,
        source: &RenameSource,
        into: &InodeNode,
        to: &DirectoryName,
        how: How,
    ) -> Result<RelPath, FsError> {
        let refused = |errno, why: &str| Err(source.refused(errno, why));
        let is_source = |staging: &&StagingArea| Arc::ptr_eq(staging.area(), &source.dir.area);
        let Some(staging) = self.staging.as_ref().filter(is_source) else {
            return refused(Errno::EPERM, "only what is staged can be published");
        };
        let space = match into {
            InodeNode::Space { space, .. } => space,
            InodeNode::Root | InodeNode::Providers { .. } => {
                let why = "a release is published by moving it to its own path below a registry";
                return refused(Errno::EPERM, why);
            }
            // Inside a release, or onto something in it.
            _ => return refused(Errno::EEXIST, "releases are not changed; choose another tag"),
        };
        let path = source.dir.node.path()?.join(source.name.clone());
        let target =
            staging::path_of(&space.host, space.path.as_ref())?.join(Name::new(to.name())?);
        if path != target || how == How::Exchange {
            let due = path.to_os_string();
            let why = format!("it can be moved to {} only, which publishes it", due.display());
            return refused(Errno::EPERM, &why);
        }
        let why =
            match staging.stage().artifact_roots(&path).map_err(FsError::of_commit)?.as_slice() {
                [root] if *root == path => return Ok(path),
                [root] => format!("the release is staging/{}", root.to_os_string().display()),
                roots => format!("it holds {} releases; move each", roots.len()),
            };
        refused(Errno::EPERM, &why)
    }
}

/// The files of the staging area that are open.
struct OpenFiles(Arc<Publishing>);

impl StagedFiles for OpenFiles {
    fn open_writer(&self, root: &RelPath) -> Option<RelPath> {
        let staging = self.0.staging.as_ref()?;
        let is_below = |at: &LocalNode| at.node.path().is_ok_and(|path| path.is_within(root));
        let found = self.0.handles.find_local(|open| {
            open.file.is_writable()
                && Arc::ptr_eq(&open.at.area, staging.area())
                && is_below(&open.at)
        })?;
        found.at.node.path().ok()
    }

    fn taken(&self, root: &RelPath) {
        let Some(staging) = &self.0.staging else { return };
        if let Some(name) = self.0.inodes.vanished(staging.area(), root) {
            self.0.kernel.tell(vec![name]);
        }
    }
}
