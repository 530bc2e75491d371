//! A rename that commits: `mv staging/X X`.
//!
//! The kernel holds both directories while a rename lasts, so it waits no longer than the deadline;
//! the commit goes on by itself, and who asks again joins it.
//!
//! The kernel keeps the names of what is staged, so it is told of the one that a commit takes away.
//! It can be told only when it holds no lock on the directory, after the rename; so before a rename
//! publishes, it has to have learnt that the name cannot be kept (see [`Fs::left`]).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::Fs;
use super::area::LocalNode;
use super::error::{Errno, FsError};
use super::inodes::DirectoryName;
use super::node::InodeNode;
use super::staging::{self, StagingArea};
use crate::failure::{Failure, Refusal};
use crate::local::{How, Name, RelPath};
use crate::name::Reference;
use crate::stage::{CommitRequest, Committed, Stage};

/// What is moved.
pub(super) struct RenameSource {
    pub(super) dir: LocalNode,
    pub(super) name: Name,
    pub(super) place: DirectoryName,
}

/// Told which directory entries (number of the directory, and name) the kernel has to drop; called
/// while an operation may be under way, so it hands them to a thread of its own. The future ends
/// when they are dropped.
pub type Drops = Box<dyn Fn(Vec<(u64, Box<OsStr>)>) -> BoxFuture<'static, ()> + Send + Sync>;

/// How long who commits waits for the kernel to drop names: an operation that takes long may hold
/// the directory.
const DROPPED_WITHIN: Duration = Duration::from_secs(2);

/// Who is told, once there is a kernel to tell, and how many tellings are under way.
#[derive(Default)]
pub(super) struct Kernel {
    drops: OnceLock<Drops>,
    under_way: watch::Sender<usize>,
}

impl Kernel {
    fn tell(&self, names: Vec<(u64, Box<OsStr>)>) {
        let Some(drops) = self.drops.get() else { return };
        let (dropped, under_way) = (drops(names), self.under_way.clone());
        under_way.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            dropped.await;
            under_way.send_modify(|count| *count -= 1);
        });
    }
}

impl Fs {
    /// Names who has the kernel drop directory entries. The first one named stays.
    pub fn tell_kernel(&self, drops: Drops) {
        drop(self.kernel.drops.set(drops));
    }

    /// Waits until the kernel dropped what it was told to, though not for long. Never to be called
    /// by an operation of the kernel.
    pub async fn names_dropped(&self) {
        let mut under_way = self.kernel.under_way.subscribe();
        drop(tokio::time::timeout(DROPPED_WITHIN, under_way.wait_for(|count| *count == 0)).await);
    }

    /// The service that commits what is staged; `None` where nothing can be.
    pub fn stage(&self) -> Option<&Arc<Stage>> {
        self.options.staging.as_ref().map(StagingArea::stage)
    }

    /// Commits the artifact at `path` (below `staging/`), or all below it, and shows what became of
    /// it. It goes on when who asked is gone. Needs a runtime.
    ///
    /// # Errors
    /// See [`Stage::commit`].
    pub async fn commit(
        self: &Arc<Self>,
        path: &Path,
        request: CommitRequest,
    ) -> Result<Vec<Committed>, Refusal> {
        let subject = Path::new(staging::NAME).join(path);
        let Some(staging) = &self.options.staging else {
            let rule = "nothing is staged in a mount that is read-only";
            return Err(Refusal::new(Failure::ReadOnly, &subject, rule));
        };
        let (fs, stage, path) = (self.clone(), staging.stage().clone(), path.to_owned());
        let committing = tokio::spawn(async move { fs.committed(&stage, &path, request).await });
        committing.await.unwrap_or_else(|_| Err(Refusal::lost(&subject)))
    }

    async fn committed(
        self: &Arc<Self>,
        stage: &Arc<Stage>,
        path: &Path,
        mut request: CommitRequest,
    ) -> Result<Vec<Committed>, Refusal> {
        let fs = self.clone();
        request.writers = Some(Arc::new(move |root: &Path| fs.open_writer(root)));
        let fs = self.clone();
        request.taken = Some(Arc::new(move |root: &Path| fs.taken(root)));
        let committed = stage.commit(path, request).await?;
        for release in &committed {
            self.show(&release.reference);
        }
        Ok(committed)
    }

    /// A commit took `root` (below `staging/`) from the disk, or tried to. Needs a runtime.
    fn taken(&self, root: &Path) {
        let Some(staging) = &self.options.staging else { return };
        let path = root.iter().map(Name::new).collect::<Result<RelPath, _>>();
        if let Some(name) = path.ok().and_then(|path| self.vanished(staging.area(), &path)) {
            self.kernel.tell(vec![name]);
        }
    }

    /// A file at or below `root` (below `staging/`) that is open for writing.
    fn open_writer(&self, root: &Path) -> Option<PathBuf> {
        let staging = self.options.staging.as_ref()?;
        let path =
            |at: &LocalNode| at.node.path().ok().map(|path| PathBuf::from(path.to_os_string()));
        let found = self.handles.find_local(|open| {
            open.file.is_writable()
                && Arc::ptr_eq(&open.at.area, staging.area())
                && path(&open.at).is_some_and(|path| path.starts_with(root))
        })?;
        path(&found.at)
    }

    /// A file of an area was written and closed, or got its name. What of a release can be sent
    /// ahead of its commit is sent now, so that the commit, for whose end a rename waits, is short.
    /// Needs a runtime.
    pub(super) fn finished(&self, at: &LocalNode) {
        let Some(staging) =
            self.options.staging.as_ref().filter(|s| Arc::ptr_eq(s.area(), &at.area))
        else {
            return;
        };
        let Ok(path) = at.node.path() else { return };
        let (stage, path) = (staging.stage().clone(), PathBuf::from(path.to_os_string()));
        if stage.sends_ahead(&path) {
            tokio::spawn(async move { stage.closed(&path).await });
        }
    }

    /// Forgets what was known of a reference that was just published, so that the next look finds
    /// it, in the views too: there the kernel may remember that a provider, a version or a zip was
    /// absent.
    fn show(&self, reference: &str) {
        if let Ok(reference) = reference.parse::<Reference>() {
            self.facts.names().note_used(&reference.repo);
        }
        let mut names = self.refresh(Path::new(reference));
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
        let refused = |errno, why: &dyn std::fmt::Display| {
            let at = source.dir.describe();
            Err(FsError::said(
                errno,
                format_args!("{at}/{}: {why}", source.name.as_os_str().display()),
            ))
        };
        let Some(staging) =
            self.options.staging.as_ref().filter(|s| Arc::ptr_eq(s.area(), &source.dir.area))
        else {
            return refused(Errno::EPERM, &"only what is staged can be published");
        };
        let space = match into {
            InodeNode::Space { space, .. } => space,
            InodeNode::Root | InodeNode::Providers { .. } => {
                return refused(
                    Errno::EPERM,
                    &"a release is published by moving it to its own path below a registry",
                );
            }
            // Inside a release, or onto something in it.
            _ => return refused(Errno::EEXIST, &"releases are not changed; choose another tag"),
        };
        let path = PathBuf::from(source.dir.node.path()?.join(source.name.clone()).to_os_string());
        let target = staging::path_of(&space.host, space.path.as_ref()).join(to.name());
        if path != target || how == How::Exchange {
            let why = format!("it can be moved to {} only, which publishes it", path.display());
            return refused(Errno::EPERM, &why);
        }
        match staging.stage().artifact_roots(&path).map_err(FsError::of_commit)?.as_slice() {
            [root] if *root == path => {}
            [root] => {
                return refused(
                    Errno::EPERM,
                    &format_args!("the release is staging/{}", root.display()),
                );
            }
            roots => {
                return refused(
                    Errno::EPERM,
                    &format_args!("it holds {} releases; move each", roots.len()),
                );
            }
        }
        self.left(&source.place)?;
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
                self.stayed(&source.place);
                Err(FsError::of_commit(e))
            }
            Err(_) => refused(
                Errno::ETIMEDOUT,
                &"the upload takes longer than --deadline and goes on; `mv` again waits for it",
            ),
        }
    }
}
