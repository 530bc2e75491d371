//! Which providers a mount shows: what flags say, and the lock files that they name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::args::providers::ProviderArgs;
use super::output::CommandError;
use crate::copy::needs;
use crate::facts::ProviderOptions;
use crate::input;
use crate::lockfile::{self, LockFile};
use crate::mapping::Mapping;
use crate::name::{Platform, ProviderAddr};

/// Which providers were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProviderSettings {
    /// Those named.
    pub declared: BTreeSet<ProviderAddr>,
    /// Those that bundles among the sources carry.
    pub carried: BTreeSet<ProviderAddr>,
    /// The lock files whose providers are declared too.
    pub lock_files: Vec<PathBuf>,
    /// The root modules whose providers are declared too.
    pub roots: Vec<PathBuf>,
    /// The platforms to show.
    pub platforms: BTreeSet<Platform>,
    /// Whether releases are asked for their platforms.
    pub verify_platforms: bool,
}

impl ProviderSettings {
    /// What the flags ask for; relative files are ones below `base`.
    pub fn new(args: &ProviderArgs, base: &Path) -> ProviderSettings {
        let mut platforms: BTreeSet<Platform> = args.platform.iter().cloned().collect();
        if platforms.is_empty() {
            platforms.insert(Platform::host());
        }
        ProviderSettings {
            declared: args.provider.iter().cloned().collect(),
            carried: BTreeSet::new(),
            lock_files: args.lock_file.iter().map(|file| base.join(file)).collect(),
            roots: args.root.iter().map(|dir| base.join(dir)).collect(),
            platforms,
            verify_platforms: args.verify_platforms,
        }
    }

    /// The same with the providers of the lock files and root modules for which `mapping` has a rule.
    ///
    /// # Errors
    /// A lock file cannot be read, or no rule is for a provider that was named.
    pub fn resolved(mut self, mapping: &Mapping) -> Result<ProviderSettings, CommandError> {
        if let Some(unmapped) = self.declared.iter().find(|provider| !mapping.matches(provider)) {
            return Err(CommandError::Failed(format!(
                "--provider {unmapped}: no mapping rule is for it; give an --oci-mirror that says \
                 where its releases are, or its registry as the source providers:{}",
                unmapped.host
            )));
        }
        for file in &self.lock_files {
            let failed = |e: &dyn std::fmt::Display| {
                CommandError::Failed(format!("the lock file {}: {e}", file.display()))
            };
            let text = input::text(file, lockfile::FILE_MAX).map_err(|e| failed(&e))?;
            let lock = LockFile::parse(&text).map_err(|e| failed(&e))?;
            self.declared.extend(
                lock.locks().map(|(provider, _)| provider.clone()).filter(|p| mapping.matches(p)),
            );
        }
        for root in &self.roots {
            let required = needs::providers_of(root)
                .map_err(|e| CommandError::Failed(format!("--root {}: {e}", root.display())))?;
            self.declared.extend(required.into_iter().filter(|p| mapping.matches(p)));
        }
        Ok(self)
    }

    /// What the layers below are told; `offline`: no registry can be asked.
    pub fn options(&self, mapping: &Mapping, offline: bool) -> ProviderOptions {
        ProviderOptions {
            mapping: mapping.clone(),
            declared: self.declared.clone(),
            carried: self.carried.clone(),
            platforms: self.platforms.clone(),
            verify_platforms: self.verify_platforms,
            offline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::providers::provider;
    use crate::mapping::MappingRule;
    use std::fs;

    fn settings(declared: &[&str], lock_files: &[&Path]) -> ProviderSettings {
        ProviderSettings {
            declared: declared.iter().map(|text| provider(text).unwrap()).collect(),
            carried: BTreeSet::new(),
            lock_files: lock_files.iter().map(|file| file.to_path_buf()).collect(),
            roots: Vec::new(),
            platforms: BTreeSet::new(),
            verify_platforms: false,
        }
    }

    #[test]
    fn the_providers_of_lock_files_are_declared_as_far_as_a_rule_is_for_them() {
        let mapping = Mapping::new(vec![
            MappingRule::new("r.io/${type}", &["a.b/n/*".to_owned()], &[]).unwrap(),
        ]);
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join(".terraform.lock.hcl");
        let block = |name: &str| {
            format!("provider \"{name}\" {{\n  version = \"1.0.0\"\n  hashes = []\n}}\n")
        };
        fs::write(&lock, block("a.b/n/t") + &block("c.d/n/t")).unwrap();
        let resolved = settings(&["a.b/n/s"], &[&lock]).resolved(&mapping).unwrap();
        let names: Vec<_> = resolved.declared.iter().map(ProviderAddr::to_string).collect();
        assert_eq!(names, ["a.b/n/s", "a.b/n/t"]);

        let missing =
            settings(&[], &[&dir.path().join("none")]).resolved(&mapping).unwrap_err().to_string();
        assert!(missing.contains("the lock file") && missing.contains("none"), "{missing}");
        fs::write(&lock, "provider {").unwrap();
        assert!(settings(&[], &[&lock]).resolved(&mapping).is_err());
        let unmapped = settings(&["n/t"], &[]).resolved(&mapping).unwrap_err().to_string();
        assert!(
            unmapped.contains("--provider registry.opentofu.org/n/t: no mapping rule is for it"),
            "{unmapped}"
        );
    }
}
