//! Releases that are being written: from a staged tree to a plan, from a plan to a pushed artifact.
//!
//! [`plan`] makes a plan of content, [`push`] makes an artifact of a plan. [`Stage`] is the service
//! behind `staging/`: it knows the artifact roots of a directory that others write to, and commits
//! them. A commit goes on when who asked for it is gone, who asks for one that is under way joins
//! it, and it can be asked for again at any time.
//!
//! INVARIANT: a staged byte is removed only after the journal says durably that the tags stand for
//! the release, and only if it is what was sealed.

pub mod attach;
mod blob;
pub mod directory;
mod early;
mod error;
mod handover;
mod ignore;
pub mod journal;
pub mod plan;
pub mod provider;
pub mod push;
mod remove;
mod roots;
pub mod sign;
mod tree;
pub mod unpack;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
use rustix::io::Errno;
use tokio::sync::Semaphore;

pub use blob::{PushBlob, Workshop};
pub use handover::StageAtRest;
pub use journal::Stand;
pub use push::Pushed;
pub use roots::{RootTarget, staged_path, target};

use crate::archive::Limits;
use crate::failure::{Failure, Refusal};
use crate::flight::{Flights, TO_THE_END};
use crate::local::{Name, RelPath};
use crate::mapping::Mapping;
use crate::name::{Host, ProviderAddr, Repo, RepoName};
use crate::registry::Upload;
use journal::Journal;
use plan::{Destined, ReleasePlan};
use push::{Observer, PushStep, ReleaseCheck};
use remove::Snapshot;
use roots::StagingRoots;
use sign::ReleaseSigner;

/// The directory that users write to, inside the one of [`StageOptions::dir`].
pub const STAGING: &str = "staging";
const JOURNAL: &str = "journal";
const WORK: &str = "work";
const REMOVED: &str = "removed";

/// How the repositories of registries are written to.
pub trait OpenUpload: Send + Sync {
    /// The way to the repositories of `host`.
    ///
    /// # Errors
    /// It cannot be had.
    fn open(&self, host: &Host) -> Result<Arc<dyn Upload>, Refusal>;
}

/// What the file system knows of files in a stage. Paths are below the staging directory.
pub trait StagedFiles: Send + Sync {
    /// A file at or below the artifact root `root` that is open for writing; asked after the root
    /// was sealed.
    fn open_writer(&self, root: &RelPath) -> Option<RelPath>;
    /// The tree of an artifact root was taken from there, or put back. Told where nothing may wait
    /// for the network.
    fn taken(&self, root: &RelPath);
}

/// Who follows an upload.
pub trait UploadProgress: Send + Sync {
    /// `done` of `total` bytes are uploaded.
    fn uploaded(&self, done: u64, total: u64);
}

/// A place where releases can be published.
#[derive(Clone)]
pub struct PublishDestination {
    /// Its registry; any where it is a store that takes all.
    pub host: Option<Host>,
    /// Only repositories at or below this one.
    pub prefix: Option<RepoName>,
    /// The way in.
    pub open: Arc<dyn OpenUpload>,
}

impl PublishDestination {
    fn takes(&self, repo: &Repo) -> bool {
        self.host.as_ref().is_none_or(|host| *host == repo.host)
            && repo.name.is_within(self.prefix.as_ref())
    }
}

/// What a stage is made of.
pub struct StageOptions {
    /// Where `staging/` and what belongs to it lie; made if it is missing.
    pub dir: PathBuf,
    /// Where releases go: the first that takes a repository gets it.
    pub destinations: Vec<PublishDestination>,
    /// For what lies below `staging/mirror/`.
    pub mapping: Mapping,
    /// Tags that hold another digest are overwritten in all commits.
    pub allow_overwrite: bool,
    /// How large archives may be.
    pub limits: Limits,
    /// Who signs what is committed.
    pub signer: Option<Arc<dyn ReleaseSigner>>,
    /// Who is asked whether it may be opened, before a tag makes it visible.
    pub check: Option<Arc<dyn ReleaseCheck>>,
}

/// What a commit is asked to do.
#[derive(Clone, Default)]
pub struct CommitRequest {
    /// Annotations of the releases.
    pub annotations: BTreeMap<String, String>,
    /// Tags that hold another digest are overwritten.
    pub allow_overwrite: bool,
    /// Told how far the upload is.
    pub progress: Option<Arc<dyn UploadProgress>>,
    /// The files that are open; none where there is no file system.
    pub files: Option<Arc<dyn StagedFiles>>,
}

/// What is going on with a staged release.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StageState {
    /// It is written to.
    Open,
    /// It is being packed.
    Sealed,
    /// It is on its way.
    Uploading,
    /// A commit failed or was interrupted; it can be written to and committed again.
    Failed,
}

/// A staged release.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagedRelease {
    /// Below the staging directory.
    pub path: RelPath,
    /// What is going on with it.
    pub state: StageState,
    /// Why it failed.
    pub error: Option<String>,
}

/// The service behind `staging/`.
pub struct Stage {
    staging: StagingRoots,
    workshop: Workshop,
    journal: Journal,
    removed: OwnedFd,
    destinations: Vec<PublishDestination>,
    mapping: Mapping,
    allow_overwrite: bool,
    signer: Option<Arc<dyn ReleaseSigner>>,
    check: Option<Arc<dyn ReleaseCheck>>,
    /// Of two that commit one root at once, one does.
    commits: Flights<RelPath, Vec<Pushed>, Refusal>,
    /// Whether this process is the one that commits, and what it has under way.
    going: handover::Commits,
    /// For sending ahead of a commit, one at a time.
    early: Semaphore,
    /// The roots that are sealed, with what happens to them.
    sealed: Mutex<BTreeMap<RelPath, StageState>>,
}

impl Stage {
    /// Opens the stage in a directory of which no other process makes one. Blocks on the disk;
    /// sends nothing.
    ///
    /// # Errors
    /// The directory or a part of it cannot be made or read.
    pub fn open(options: StageOptions) -> Result<Arc<Stage>, Refusal> {
        let name = options.dir.display().to_string();
        let failed = |e: Errno| Refusal::io(&name, e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let made = |result| match result {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        };
        made(mkdirat(rustix::fs::CWD, &options.dir, Mode::RWXU)).map_err(failed)?;
        let dir = open(&options.dir, flags, Mode::empty()).map_err(failed)?;
        let part = |part: &str| {
            made(mkdirat(&dir, part, Mode::RWXU))?;
            openat(&dir, part, flags | OFlags::NOFOLLOW, Mode::empty())
        };
        let removed = part(REMOVED).map_err(failed)?;
        remove::clear(&removed);
        let staging = StagingRoots { dir: part(STAGING).map_err(failed)? };
        let journal = Journal::open(part(JOURNAL).map_err(failed)?, &format!("{name}/{JOURNAL}"))?;
        journal.forget(|path, record| record.stand != Stand::Done && staging.open(path).is_err());
        Ok(Arc::new(Stage {
            staging,
            workshop: Workshop::new(
                part(WORK).map_err(failed)?,
                &format!("{name}/{WORK}"),
                options.limits,
            ),
            journal,
            removed,
            destinations: options.destinations,
            mapping: options.mapping,
            allow_overwrite: options.allow_overwrite,
            signer: options.signer,
            check: options.check,
            commits: Flights::new(TO_THE_END, |root| Refusal::lost(roots::subject(root))),
            going: handover::Commits::default(),
            early: Semaphore::new(1),
            sealed: Mutex::new(BTreeMap::new()),
        }))
    }

    /// The artifact root at or above `path`, else those below it. Paths are relative to the staging
    /// directory. Blocks on the disk.
    ///
    /// # Errors
    /// `Absent` where nothing is staged there.
    pub fn artifact_roots(&self, path: &RelPath) -> Result<Vec<RelPath>, Refusal> {
        self.staging.roots(path)
    }

    /// Whether nothing may change at `path` (below the staging directory) now, since it is being
    /// committed.
    pub fn is_sealed(&self, path: &RelPath) -> bool {
        self.sealed.lock().keys().any(|root| path.is_within(root))
    }

    /// Whether something at or below `path` (below the staging directory) is being committed now.
    pub fn holds_sealed(&self, path: &RelPath) -> bool {
        self.sealed.lock().keys().any(|root| root.is_within(path))
    }

    /// Whether `path` (`HOST/NAME…`, relative to the staging directory) is a directory on the way
    /// to releases: neither inside one nor one itself, nor an empty one that may become one. Blocks
    /// on the disk.
    pub fn is_way(&self, path: &RelPath) -> bool {
        self.staging.is_way(path).unwrap_or(false)
    }

    /// The names in `path` that are [ways](Stage::is_way). Blocks on the disk.
    pub fn ways_in(&self, path: &RelPath) -> Vec<Name> {
        self.staging.ways_in(path).unwrap_or_default()
    }

    /// What is staged. Blocks on the disk.
    ///
    /// # Errors
    /// The staging directory cannot be read.
    pub fn staged(&self) -> Result<Vec<StagedRelease>, Refusal> {
        let mut staged = Vec::new();
        self.staging.walk(&RelPath::default(), &mut |path, is_root| {
            if is_root {
                staged.push(self.look_at(path));
            }
        })?;
        staged.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(staged)
    }

    fn look_at(&self, path: &RelPath) -> StagedRelease {
        let staged = |state, error| StagedRelease { path: path.clone(), state, error };
        if let Some(state) = self.sealed.lock().get(path) {
            return staged(*state, None);
        }
        match self.journal.get(path) {
            None => staged(StageState::Open, None),
            Some(record) if record.stand == Stand::Done => staged(StageState::Open, None),
            Some(record) if record.stand == Stand::Failed => {
                staged(StageState::Failed, record.error)
            }
            Some(_) => staged(
                StageState::Failed,
                Some("the commit was interrupted; commit it again".to_owned()),
            ),
        }
    }

    /// Publishes the artifact root at or above `path`, or all that are staged below it. Paths are
    /// relative to the staging directory. Needs a runtime; goes on when it is dropped.
    ///
    /// # Errors
    /// The first root that failed; those before it are published, those after it are as they were.
    pub async fn commit(
        self: &Arc<Self>,
        path: &RelPath,
        request: CommitRequest,
    ) -> Result<Vec<Pushed>, Refusal> {
        let (stage, asked) = (Arc::clone(self), path.clone());
        let roots = tokio::task::spawn_blocking(move || stage.staging.roots(&asked));
        let roots = match roots.await.unwrap_or_else(|_| Err(Refusal::lost(roots::subject(path)))) {
            Err(e) if e.failure == Failure::Absent => return self.done(path).ok_or(e),
            other => other?,
        };
        let mut committed = Vec::new();
        for root in roots {
            let (stage, own, request) = (Arc::clone(self), root.clone(), request.clone());
            let commit = move || async move { stage.commit_root(&own, &request).await };
            committed.extend(self.commits.join(root, commit).await?);
        }
        Ok(committed)
    }

    /// What earlier commits of `path` became.
    fn done(&self, path: &RelPath) -> Option<Vec<Pushed>> {
        let reference = roots::reference(path);
        let mut records = self.journal.all();
        records.retain(|(known, record)| {
            let same = reference.is_some() && roots::reference(known) == reference;
            record.stand == Stand::Done && (known == path || same)
        });
        let (_, record) = records.into_iter().max_by_key(|(_, record)| record.serial)?;
        Some(record.results.iter().map(Pushed::as_known).collect())
    }

    async fn commit_root(
        self: &Arc<Self>,
        root: &RelPath,
        request: &CommitRequest,
    ) -> Result<Vec<Pushed>, Refusal> {
        let Some(_under_way) = self.going.begin().await else {
            let rule = "another process of tofufs serves the mount now";
            return Err(Refusal::new(Failure::HandedOver, roots::subject(root), rule)
                .remedy("commit it again"));
        };
        let _seal = Seal::new(Arc::clone(self), root);
        let done = self.commit_sealed(root, request).await;
        if let Err(error) = &done {
            let told = error.to_string();
            let failed = self.write(root, move |record| {
                record.stand = Stand::Failed;
                record.error = Some(told);
            });
            if let Err(e) = failed.await {
                tracing::warn!("{e}");
            }
        }
        done
    }

    async fn commit_sealed(
        self: &Arc<Self>,
        root: &RelPath,
        request: &CommitRequest,
    ) -> Result<Vec<Pushed>, Refusal> {
        if let Some(open) = request.files.as_ref().and_then(|files| files.open_writer(root)) {
            let rule = format!("{} is open for writing", roots::subject(&open));
            return Err(
                Refusal::new(Failure::Busy, roots::subject(root), rule).remedy("close it first")
            );
        }
        let (stage, own, annotations) =
            (Arc::clone(self), root.clone(), request.annotations.clone());
        let sealing = tokio::task::spawn_blocking(move || stage.seal(&own, annotations));
        let (plans, snapshot) =
            sealing.await.unwrap_or_else(|_| Err(Refusal::lost(roots::subject(root))))?;
        for warning in plans.iter().flat_map(|plan| &plan.warnings) {
            tracing::warn!("{warning}");
        }
        let digests = plans.iter().flat_map(digests).collect();
        self.write(root, move |record| {
            record.stand = Stand::Intent;
            record.digests = digests;
            record.results.clear();
            record.error = None;
        })
        .await?;
        self.sealed.lock().insert(root.clone(), StageState::Uploading);
        let committed = self.push(root, &plans, request).await?;
        let results: Vec<Pushed> = committed.iter().map(Pushed::as_known).collect();
        self.write(root, move |record| {
            record.stand = Stand::Done;
            record.results = results;
        })
        .await?;
        let (stage, own, files) = (Arc::clone(self), root.clone(), request.files.clone());
        let removing = tokio::task::spawn_blocking(move || {
            let moved = remove::move_aside(&stage.staging, &own, &snapshot, &stage.removed);
            if let Some(files) = files {
                files.taken(&own);
            }
            moved.map(|aside| remove::clear_aside(&stage.removed, &aside))
        });
        if let Err(e) = removing.await.unwrap_or_else(|_| Err(Refusal::lost(roots::subject(root))))
        {
            tracing::warn!("{e}");
        }
        Ok(committed)
    }

    async fn push(
        self: &Arc<Self>,
        root: &RelPath,
        plans: &[ReleasePlan],
        request: &CommitRequest,
    ) -> Result<Vec<Pushed>, Refusal> {
        let allow_overwrite = self.allow_overwrite || request.allow_overwrite;
        let (signer, check) = (self.signer.as_deref(), self.check.as_deref());
        let options = push::PushOptions { allow_overwrite, signer, check };
        let progress = request.progress.clone();
        let watch = Watch { stage: Arc::clone(self), root: root.clone(), progress };
        let mut pushed = Vec::new();
        for plan in plans {
            let upload = self.upload(&plan.repo)?;
            pushed.extend(push::push(plan, upload.as_ref(), options, &watch).await?);
        }
        Ok(pushed)
    }

    /// Plans what is staged at a root, and notes what lies there.
    fn seal(
        &self,
        root: &RelPath,
        annotations: BTreeMap<String, String>,
    ) -> Result<(Vec<ReleasePlan>, Snapshot), Refusal> {
        let target = target(root)?;
        let subject = roots::subject(root);
        let dir = self.staging.open(root)?;
        if let Some(held) = self.held_before(dir.as_fd(), &subject)? {
            let rule = format!("{held} is open for writing since before the mount was upgraded");
            return Err(Refusal::new(Failure::Busy, subject, rule).remedy("close it first"));
        }
        let snapshot = Snapshot::of(dir.as_fd(), &subject)?;
        let plans = match target {
            RootTarget::Release(repo, tag) => {
                self.destination(&repo)?;
                let destined = Destined { repo, tags: vec![tag], annotations };
                vec![directory::plan(dir, &subject, destined, &self.workshop)?]
            }
            RootTarget::Mirror(address) => {
                let Some(repo) = self.mapped(&address) else {
                    let rule = format!("no repository is mapped to the provider {address}");
                    return Err(Refusal::new(Failure::ReadOnly, subject, rule).remedy(
                        "mount with --oci-mirror, or with --tofurc and an oci_mirror block",
                    ));
                };
                self.destination(&repo)?;
                provider::mirrored(
                    dir.as_fd(),
                    &subject,
                    &address,
                    &repo,
                    &annotations,
                    &self.workshop,
                )?
            }
        };
        Ok((plans, snapshot))
    }

    fn destination(&self, repo: &Repo) -> Result<&PublishDestination, Refusal> {
        self.destinations.iter().find(|destination| destination.takes(repo)).ok_or_else(|| {
            Refusal::new(
                Failure::ReadOnly,
                repo,
                "no source of this mount takes releases of this repository",
            )
            .remedy("mount its registry, or a store, without --read-only")
        })
    }

    /// The repository to which a provider is mapped.
    fn mapped(&self, provider: &ProviderAddr) -> Option<Repo> {
        self.mapping.repo(provider).ok().flatten()
    }

    fn upload(&self, repo: &Repo) -> Result<Arc<dyn Upload>, Refusal> {
        self.destination(repo)?.open.open(&repo.host)
    }

    /// Changes the record of a root, durably.
    async fn write(
        self: &Arc<Self>,
        root: &RelPath,
        change: impl FnOnce(&mut journal::JournalRecord) + Send + 'static,
    ) -> Result<(), Refusal> {
        let (stage, own) = (Arc::clone(self), root.clone());
        let written = tokio::task::spawn_blocking(move || stage.journal.write(&own, change));
        written.await.unwrap_or_else(|_| Err(Refusal::lost(roots::subject(root))))
    }
}

/// The digests of everything that a plan pushes.
fn digests(plan: &ReleasePlan) -> Vec<String> {
    let blobs = plan.blobs.iter().map(|blob| blob.descriptor.digest);
    blobs
        .chain(plan.manifests().into_iter().map(|manifest| manifest.digest))
        .map(|d| d.to_string())
        .collect()
}

/// Keeps a root sealed.
struct Seal {
    stage: Arc<Stage>,
    root: RelPath,
}

impl Seal {
    fn new(stage: Arc<Stage>, root: &RelPath) -> Seal {
        stage.sealed.lock().insert(root.clone(), StageState::Sealed);
        Seal { stage, root: root.clone() }
    }
}

impl Drop for Seal {
    fn drop(&mut self) {
        self.stage.sealed.lock().remove(&self.root);
    }
}

/// Writes a push's steps into the journal.
struct Watch {
    stage: Arc<Stage>,
    root: RelPath,
    progress: Option<Arc<dyn UploadProgress>>,
}

#[async_trait]
impl Observer for Watch {
    async fn reached(&self, step: PushStep) -> Result<(), Refusal> {
        let stand = match step {
            PushStep::Blobs => Stand::Blobs,
            PushStep::Manifests => Stand::Manifests,
            // `Done` says so, with what it became.
            PushStep::Tagged => return Ok(()),
        };
        self.stage.write(&self.root, move |record| record.stand = stand).await
    }

    fn progress(&self, done: u64, total: u64) {
        if let Some(progress) = &self.progress {
            progress.uploaded(done, total);
        }
    }

    fn waits(&self, what: &str) {
        tracing::warn!("{}: {what}", roots::subject(&self.root));
    }
}

#[cfg(test)]
mod tests;
