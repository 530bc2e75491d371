//! What a root module requires as far as the disk tells: the module itself, the modules that it
//! calls by paths, and its lock file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::NeedsError;
use super::modules::{MODULES_MAX, read_directory, read_text};
use super::source::ModuleSource;
use crate::lockfile::{self, Client, LockFile};
use crate::name::ProviderAddr;

/// The providers that a root module requires for either client. Modules from elsewhere are not
/// fetched: what their authors require stands in the lock file. Blocks on the disk.
///
/// # Errors
/// A file cannot be read, or is not of the syntax that its name says.
pub fn providers_of(root: &Path) -> Result<BTreeSet<ProviderAddr>, NeedsError> {
    let mut found = BTreeSet::new();
    let lock = root.join(lockfile::FILE_NAME);
    if lock.exists() {
        let text = read_text(&lock, lockfile::FILE_MAX)?;
        let locked = LockFile::parse(&text).map_err(|e| NeedsError::file(&lock, e))?;
        found.extend(locked.locks().map(|(provider, _)| provider.clone()));
    }
    for client in [Client::OpenTofu, Client::Terraform] {
        let default = client.default_registry().map_err(|e| NeedsError::file(root, e))?;
        let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
        let mut pending = vec![root.to_owned()];
        while let Some(dir) = pending.pop() {
            let dir = dir.canonicalize().map_err(|e| NeedsError::file(&dir, e))?;
            if seen.len() >= MODULES_MAX || !seen.insert(dir.clone()) {
                continue;
            }
            let configuration = read_directory(&dir, client)?;
            let required = configuration.providers(&default);
            found.extend(required.map_err(|e| NeedsError::file(&dir, e))?.into_keys());
            let sources = configuration.calls().filter_map(|call| call.source.as_deref());
            pending.extend(sources.filter_map(|source| match ModuleSource::parse(source) {
                ModuleSource::Relative(path) | ModuleSource::Absolute(path) => Some(dir.join(path)),
                ModuleSource::Release(..) | ModuleSource::Other(_) => None,
            }));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_root_module_requires_what_it_and_its_local_modules_and_its_lock_file_name() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let required = |local: &str, source: &str| {
            format!(
                "terraform {{\n required_providers {{\n {local} = {{ source = {source:?} }}\n }}\n}}\n"
            )
        };
        write("root/main.tf", &required("one", "a.b/acme/one"));
        write(
            "root/call.tf",
            "module \"m\" {\n source = \"../m\"\n}\nmodule \"far\" {\n source = \"acme/far/x\"\n}\n",
        );
        write(
            "m/main.tf",
            &(required("two", "acme/two") + "module \"back\" {\n source = \"../root\"\n}\n"),
        );
        write(
            "root/.terraform.lock.hcl",
            "provider \"c.d/acme/three\" {\n  version = \"1.0.0\"\n  hashes = []\n}\n",
        );
        let found = providers_of(&dir.path().join("root")).unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "a.b/acme/one",
                "c.d/acme/three",
                "registry.opentofu.org/acme/two",
                "registry.terraform.io/acme/two"
            ]
        );
        assert!(providers_of(&dir.path().join("none")).is_err());
        write("root/main.tf", "terraform {");
        assert!(providers_of(&dir.path().join("root")).is_err());
    }
}
