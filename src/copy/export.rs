//! Releases in a plain directory, at the paths that a mount shows, for hosts that cannot mount.
//!
//! ```text
//! DIR/HOST/NAME@DIGEST/        a module's files; of a provider release OS_ARCH/ with a package each
//!     HOST/NAME:TAG            a link to that
//!     HOST/NAME/TAG            the same, unless a nested repository needs a directory there
//!     plugins/HOST/NAMESPACE/TYPE/VERSION/OS_ARCH    a link to a package
//!     .tofufs/lock             held by who writes
//!             record.json      which packages were found whole, and what their files were then
//!             new/             packages in the making
//! ```
//!
//! INVARIANT: a package appears whole, by one rename, when all packages of the export are on the
//! disk; a link changes in one rename, when what it leads to is there. So an export that was killed
//! leaves what was there before, or more of what was asked for, and never a part of a package.
//!
//! No file is a hard link to one of the cache. Its owner could change the cache through it, and one
//! inode has one mode: files of the cache are 0400, and a plugin has to be executable. Where the
//! file system can share blocks (FICLONE), large files share them with the cache; else they are
//! written.

mod plan;
mod record;
mod tree;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use futures_util::stream::{self, StreamExt};
use rustix::fs::{CWD, FlockOperation, RenameFlags};

pub use plan::{ExportPlan, ExportedPackage};

use self::record::{ExportRecord, stamp};
use super::RegistryFacts;
use crate::facts::Unpacking;
use crate::failure::{Failure, Refusal};
use crate::mapping::MappingError;
use crate::name::ProviderAddr;

/// How many packages are laid out at a time.
const AT_ONCE: usize = 2;

/// Why an export is not complete.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExportError {
    /// Something in the directory, or what a registry or the cache says.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A provider that a rule matches and cannot map.
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

impl ExportError {
    fn of(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
        let path = path.to_owned();
        move |e| Refusal::io(path, e).into()
    }

    fn in_the_way(path: &Path) -> ExportError {
        let rule = "this was not exported and stands where a release has to be";
        Refusal::new(Failure::Exists, path, rule)
            .remedy("move it away, or export to another directory")
            .into()
    }
}

/// How laying out ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExportEnding {
    /// Everything is in its place.
    Complete {
        /// The numbers of the artifacts of which something was written.
        written: BTreeSet<usize>,
        /// What is worth a sentence, though nothing failed.
        notes: Vec<String>,
    },
    /// The caller broke it off: nothing that was there has changed.
    Stopped,
}

/// A directory into which this process alone exports.
pub struct ExportDirectory {
    dir: PathBuf,
    record: ExportRecord,
    /// Locked while this value lives.
    _lock: File,
}

/// A package that was laid out apart, or was found in its place.
enum LaidOut {
    New(PathBuf),
    Same,
}

impl ExportDirectory {
    /// Makes the directory if it is missing, waits for others that export into it, and removes what
    /// dead ones left in the making. Blocks on the disk.
    ///
    /// # Errors
    /// What the disk says.
    pub fn open(dir: &Path) -> Result<ExportDirectory, ExportError> {
        let own = dir.join(".tofufs");
        fs::create_dir_all(dir).map_err(ExportError::of(dir))?;
        match fs::DirBuilder::new().mode(0o700).create(&own) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(ExportError::of(&own)(e)),
            _ if !fs::symlink_metadata(&own).is_ok_and(|found| found.is_dir()) => {
                return Err(ExportError::in_the_way(&own));
            }
            _ => {}
        }
        let path = own.join("lock");
        let lock = File::create(&path).map_err(ExportError::of(&path))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|e| ExportError::of(&path)(e.into()))?;
        let making = own.join("new");
        match fs::remove_dir_all(&making) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(ExportError::of(&making)(e)),
            _ => fs::create_dir(&making).map_err(ExportError::of(&making))?,
        }
        let record = ExportRecord::read(&own.join("record.json"));
        Ok(ExportDirectory { dir: dir.to_owned(), record, _lock: lock })
    }

    fn making(&self) -> PathBuf {
        self.dir.join(".tofufs/new")
    }

    /// Whether the package was found whole in its place, and nobody has touched it since. Reads no
    /// content. Blocks on the disk.
    pub fn has(&self, package: &ExportedPackage) -> bool {
        let now = || stamp(&self.dir.join(&package.path)).ok();
        self.record.of(package).is_some_and(|recorded| now().as_ref() == Some(recorded))
    }

    /// Puts `packages` in their places, and then all links of the plan. `progress` is told how many
    /// of all packages are laid out, and may break off.
    ///
    /// # Errors
    /// The first package that cannot be read, or path that cannot be written. Nothing that was
    /// there has changed then, unless the disk failed at the last moment.
    pub async fn lay_out(
        &mut self,
        packages: &[&ExportedPackage],
        plan: &ExportPlan,
        origins: &dyn RegistryFacts,
        progress: &mut (dyn FnMut(u64, u64) -> ControlFlow<()> + Send),
    ) -> Result<ExportEnding, ExportError> {
        let (from, total) = (&*self, packages.len() as u64);
        let mut laid_out = stream::iter(packages.iter().enumerate())
            .map(|(n, package)| async move {
                let apart = from.making().join(n.to_string());
                from.package(package, &apart, origins).await.map(|made| (*package, made))
            })
            .buffer_unordered(AT_ONCE);
        let mut ready = Vec::new();
        while let Some(made) = laid_out.next().await {
            ready.push(made?);
            if progress(ready.len() as u64, total).is_break() {
                return Ok(ExportEnding::Stopped);
            }
        }
        drop(laid_out);
        let new = ready.iter().filter(|(_, made)| matches!(made, LaidOut::New(_)));
        let written = new.map(|(package, _)| package.artifact).collect();
        Ok(ExportEnding::Complete { written, notes: self.put(&ready, plan)? })
    }

    /// Lays a package out at `apart`, unless it is in its place.
    async fn package(
        &self,
        planned: &ExportedPackage,
        apart: &Path,
        origins: &dyn RegistryFacts,
    ) -> Result<LaidOut, ExportError> {
        let facts = origins.facts(&planned.repo.host)?;
        let (gate, plugins) = (facts.gate(), planned.platform.is_some());
        let admitted = match &planned.platform {
            None => gate.admit(&planned.reference, planned.release).await?,
            Some(platform) => {
                gate.admit_platform(&planned.reference, planned.release, platform).await?
            }
        };
        let (content, ExportedPackage { repo, archive, .. }) = (facts.content(), planned);
        let package = content.package(&admitted, repo, archive, Unpacking::WhenOpened).await?;
        let place = self.dir.join(&planned.path);
        if fs::symlink_metadata(&place).is_ok() {
            if tree::is_same(&facts, &package, &place, plugins).await? {
                return Ok(LaidOut::Same);
            }
            if !self.record.names(planned) {
                return Err(ExportError::in_the_way(&place));
            }
        }
        tree::write(&facts, &package, apart, plugins).await?;
        Ok(LaidOut::New(apart.to_owned()))
    }

    /// Renames everything into its place. Blocks on the disk.
    fn put(
        &mut self,
        ready: &[(&ExportedPackage, LaidOut)],
        plan: &ExportPlan,
    ) -> Result<Vec<String>, ExportError> {
        let mut notes = Vec::new();
        if ready.iter().any(|(_, made)| matches!(made, LaidOut::New(_))) {
            let dir = File::open(&self.dir).map_err(ExportError::of(&self.dir))?;
            rustix::fs::syncfs(&dir).map_err(|e| ExportError::of(&self.dir)(e.into()))?;
        }
        for (package, made) in ready {
            let place = self.dir.join(&package.path);
            if let LaidOut::New(apart) = made {
                self.make_parents(&package.path)?;
                if put_in_place(apart, &place).map_err(ExportError::of(&place))? {
                    notes.push(format!(
                        "{} was changed since it was exported; it is as it was published again",
                        place.display()
                    ));
                }
            }
            let stamp = stamp(&place).map_err(ExportError::of(&place))?;
            self.record.note(package, stamp);
        }
        for (path, target) in &plan.links {
            notes.extend(self.link(path, target)?);
        }
        let path = self.dir.join(".tofufs/record.json");
        let apart = self.making().join("record");
        self.record.write(&apart, &path).map_err(ExportError::of(&path))?;
        let making = self.making();
        fs::remove_dir_all(&making).map_err(ExportError::of(&making))?;
        Ok(notes)
    }

    /// Makes the directories above `path`, which lies below the directory. Where a tag's link
    /// stands, a nested repository takes its place.
    fn make_parents(&self, path: &Path) -> Result<(), ExportError> {
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for part in above.into_iter().rev().filter(|part| !part.as_os_str().is_empty()) {
            let place = self.dir.join(part);
            match fs::symlink_metadata(&place) {
                Ok(found) if found.is_dir() => continue,
                Ok(found) if found.is_symlink() && is_own_link(&place) => {
                    fs::remove_file(&place).map_err(ExportError::of(&place))?;
                }
                Ok(_) => return Err(ExportError::in_the_way(&place)),
                Err(_) => {}
            }
            fs::create_dir(&place).map_err(ExportError::of(&place))?;
        }
        Ok(())
    }

    /// Has the link at `path` lead to `target`; a sentence if a directory has its place.
    fn link(&self, path: &Path, target: &Path) -> Result<Option<String>, ExportError> {
        let place = self.dir.join(path);
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_symlink() => {
                if fs::read_link(&place).is_ok_and(|there| there == target) {
                    return Ok(None);
                }
            }
            Ok(found) if found.is_dir() => {
                return Ok(Some(format!(
                    "{} holds a nested repository, so that it cannot be the release {}",
                    place.display(),
                    target.file_name().unwrap_or_default().display()
                )));
            }
            Ok(_) => return Err(ExportError::in_the_way(&place)),
            Err(_) => self.make_parents(path)?,
        }
        let apart = self.making().join("link");
        let linked = symlink(target, &apart).and_then(|()| fs::rename(&apart, &place));
        linked.map_err(ExportError::of(&place))?;
        Ok(None)
    }
}

/// Whether a link leads where those of an export do.
fn is_own_link(place: &Path) -> bool {
    let target = fs::read_link(place).unwrap_or_default();
    target.is_relative() && target.to_string_lossy().contains('@')
}

/// Renames `apart` to `place`; whether something was there, which is then at `apart`.
fn put_in_place(apart: &Path, place: &Path) -> io::Result<bool> {
    if fs::symlink_metadata(place).is_err() {
        fs::rename(apart, place)?;
        return Ok(false);
    }
    // A file system that cannot exchange two names shows none of them for a moment.
    if rustix::fs::renameat_with(CWD, apart, CWD, place, RenameFlags::EXCHANGE).is_err() {
        let old = apart.with_extension("old");
        fs::rename(place, old)?;
        fs::rename(apart, place)?;
    }
    Ok(true)
}

/// The providers of an exported `plugins/`, sorted; none if there is no such directory. Blocks on
/// the disk.
///
/// # Errors
/// What the disk says.
pub fn providers(plugins: &Path) -> io::Result<BTreeSet<ProviderAddr>> {
    let mut found = vec![String::new()];
    for _ in 0..3 {
        let mut below = Vec::new();
        for address in found {
            let entries = match fs::read_dir(plugins.join(&address)) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let name = entry?.file_name();
                below.push(Path::new(&address).join(name).to_string_lossy().into_owned());
            }
        }
        found = below;
    }
    Ok(found.iter().filter_map(|address| address.parse().ok()).collect())
}
