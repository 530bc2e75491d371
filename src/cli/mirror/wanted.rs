//! Which versions of which providers are wanted.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::cli::args::mirror::MirrorArgs;
use crate::cli::daemon;
use crate::cli::directories::DirectoryEnvironment;
use crate::cli::output::{self, CommandError};
use crate::cli::reading::Registries;
use crate::copy::mirror::VersionSelection;
use crate::copy::needs::{self, Mounts, NeedsError};
use crate::input;
use crate::lockfile::{self, Client, LockFile, PackageHash, ProviderLock};
use crate::mapping::DEFAULT_REGISTRY;
use crate::name::{Constraints, Host, ProviderAddr};

/// The most bytes of a list of providers.
const LIST_MAX: u64 = 16 << 20;

/// Versions of one provider that are wanted.
#[derive(Clone, Debug)]
pub struct WantedVersions {
    /// The provider.
    pub provider: ProviderAddr,
    /// Which of its versions.
    pub selection: VersionSelection,
    /// What the lock file holds of them; nothing where there is none.
    pub lock: BTreeSet<PackageHash>,
}

/// What the command names: by its address, in lock files, lists and root modules.
///
/// # Errors
/// A file that cannot be read; nothing is named.
pub fn wanted(
    args: &MirrorArgs,
    environment: &DirectoryEnvironment,
) -> Result<Vec<WantedVersions>, CommandError> {
    let naming = Naming { args, base: &environment.base };
    let mut all = Vec::new();
    if let Some(address) = &args.address {
        let provider = ProviderAddr::parse(address, &default()?).map_err(CommandError::usage)?;
        let selection = naming.selection(args.constraint.clone().unwrap_or_default());
        all.push(WantedVersions { provider, selection, lock: BTreeSet::new() });
    }
    for file in &args.lock_file {
        all.extend(naming.locked(&environment.base.join(file))?);
    }
    for file in &args.list {
        all.extend(naming.listed(&environment.base.join(file))?);
    }
    all.extend(naming.required(environment)?);
    if all.is_empty() {
        return Err(CommandError::failed("no provider is named, so nothing can be mirrored"));
    }
    Ok(all)
}

fn default() -> Result<Host, CommandError> {
    DEFAULT_REGISTRY.parse().map_err(CommandError::usage)
}

struct Naming<'a> {
    args: &'a MirrorArgs,
    base: &'a Path,
}

impl Naming<'_> {
    fn selection(&self, constraints: Constraints) -> VersionSelection {
        VersionSelection {
            constraints,
            newest: self.args.newest,
            platforms: self.args.platform.iter().cloned().collect(),
            min_age: self.args.min_age.map_or(Duration::ZERO, |age| age.0),
        }
    }

    fn locked(&self, path: &Path) -> Result<Vec<WantedVersions>, CommandError> {
        let refuse =
            |e: &dyn std::fmt::Display| CommandError::Failed(format!("{}: {e}", path.display()));
        let text = input::text(path, lockfile::FILE_MAX).map_err(|e| refuse(&e))?;
        let read = LockFile::parse(&text).map_err(|e| refuse(&e))?;
        read.locks().map(|(provider, lock)| self.of_lock(provider, lock)).collect()
    }

    /// The version that is locked, and no zip that the lock does not hold.
    fn of_lock(
        &self,
        provider: &ProviderAddr,
        lock: &ProviderLock,
    ) -> Result<WantedVersions, CommandError> {
        let exactly = lock.version.to_string().parse().map_err(CommandError::failed)?;
        let (selection, lock) = (self.selection(exactly), lock.hashes.clone());
        Ok(WantedVersions { provider: provider.clone(), selection, lock })
    }

    fn listed(&self, path: &Path) -> Result<Vec<WantedVersions>, CommandError> {
        let text = input::text(path, LIST_MAX)
            .map_err(|e| CommandError::Failed(format!("{}: {e}", path.display())))?;
        let mut all = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refuse = |e: &dyn std::fmt::Display| {
                CommandError::Failed(format!("{}: line {}: {e}", path.display(), at + 1))
            };
            let (address, constraints) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            if constraints.is_empty() && self.args.newest.is_none() {
                return Err(refuse(
                    &"a constraint is missing; write ADDRESS CONSTRAINT, or give --newest",
                ));
            }
            let provider = ProviderAddr::parse(address, &default()?).map_err(|e| refuse(&e))?;
            let selection = self.selection(constraints.parse().map_err(|e| refuse(&e))?);
            all.push(WantedVersions { provider, selection, lock: BTreeSet::new() });
        }
        Ok(all)
    }

    /// What root modules and the modules that they call require: the version that is locked there,
    /// else the newest one that is allowed.
    fn required(
        &self,
        environment: &DirectoryEnvironment,
    ) -> Result<Vec<WantedVersions>, CommandError> {
        if self.args.root.is_empty() {
            return Ok(Vec::new());
        }
        let reading = self.args.reading();
        let registries = Registries::open(&reading, None, environment)?;
        let runtime = daemon::runtime()?;
        let mut all = Vec::new();
        for root in &self.args.root {
            let root = self.base.join(root);
            let found = runtime.block_on(async {
                let own = needs::lock_file_of(&root).await?;
                let client = own.as_ref().and_then(LockFile::client).unwrap_or(Client::OpenTofu);
                let required =
                    needs::requirements(&root, client, Mounts::Directories, &registries).await?;
                Ok::<_, NeedsError>((own, required))
            });
            let (own, required) = found.map_err(CommandError::failed)?;
            for left in &required.left_out {
                output::note(&format!("left out: {left}"));
            }
            for (provider, constraints) in required.providers {
                let lock = own.as_ref().and_then(|own| own.lock(&provider));
                all.push(match lock.filter(|lock| constraints.allow(&lock.version)) {
                    Some(lock) => self.of_lock(&provider, lock)?,
                    None => {
                        let mut selection = self.selection(constraints);
                        selection.newest.get_or_insert(1);
                        WantedVersions { provider, selection, lock: BTreeSet::new() }
                    }
                });
            }
        }
        Ok(all)
    }
}
