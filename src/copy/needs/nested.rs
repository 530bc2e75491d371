//! Modules that a module calls from elsewhere: where it says so, and what it asks for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::NeedsError;
use super::modules::{FILE_MAX, read_text};
use crate::lockfile::Client;
use crate::lockfile::configuration::{Configuration, files_of};
use crate::name::path::plain;
use crate::name::{Constraints, Host, ModuleAddr};

/// Where modules have the ones that they offer beside themselves.
const SUBMODULES: &str = "modules";

/// A call of a module that is not part of the package.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NestedCall {
    /// The file, from the top of the package.
    pub file: PathBuf,
    /// The line of its source, where that is known.
    pub line: Option<usize>,
    /// The source as written.
    pub source: String,
    /// What it means, where it is an address of a module registry.
    pub registry: Option<RegistryCall>,
}

/// A module of a registry that is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryCall {
    /// The module.
    pub module: ModuleAddr,
    /// The directory in it.
    pub subdirectory: String,
    /// Which of its versions.
    pub constraints: Constraints,
}

/// The calls that lead out of the package in `top`: from the module in `start`, from those beside
/// it in `modules/`, and from all that they call by relative paths. Addresses without a host are of
/// `default`. Blocks on the disk.
///
/// # Errors
/// A file that cannot be read.
pub fn nested(top: &Path, start: &Path, default: &Host) -> Result<Vec<NestedCall>, NeedsError> {
    let mut pending = vec![start.to_owned()];
    let beside = start.join(SUBMODULES);
    if let Ok(entries) = fs::read_dir(top.join(&beside)) {
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
        pending.extend(names.map(|name| beside.join(name)));
    }
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    while let Some(dir) = pending.pop() {
        if !seen.insert(dir.clone()) || !top.join(&dir).is_dir() {
            continue;
        }
        for call in calls(top, &dir, default)? {
            match relative(&dir, &call.source) {
                Some(below) => pending.push(below),
                None => found.push(call),
            }
        }
    }
    found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(found)
}

/// The directory in the package that a relative source names. One that leads outside names none.
fn relative(dir: &Path, source: &str) -> Option<PathBuf> {
    let is_relative = source == "." || source == ".." || source.starts_with("./");
    if !is_relative && !source.starts_with("../") {
        return None;
    }
    plain(&dir.join(source)).map(|names| names.into_iter().collect())
}

fn calls(top: &Path, dir: &Path, default: &Host) -> Result<Vec<NestedCall>, NeedsError> {
    let at = top.join(dir);
    let entries = fs::read_dir(&at).map_err(|e| NeedsError::file(&at, e))?;
    let names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let mut found = Vec::new();
    for name in files_of(names.iter().map(String::as_str), Client::OpenTofu) {
        let path = at.join(name);
        if path.is_dir() {
            continue;
        }
        let mut configuration = Configuration::default();
        let text = read_text(&path, FILE_MAX)?;
        configuration.add(name, &text).map_err(|e| NeedsError::file(&path, e))?;
        for call in configuration.calls() {
            let Some(source) = &call.source else { continue };
            let registry = of_registry(source, call.version.as_deref(), default)
                .map_err(|e| NeedsError::file(&path, e))?;
            let (file, source) = (dir.join(name), source.clone());
            found.push(NestedCall { file, line: call.line, source, registry });
        }
    }
    Ok(found)
}

fn of_registry(
    source: &str,
    version: Option<&str>,
    default: &Host,
) -> Result<Option<RegistryCall>, String> {
    let (address, subdirectory) = source.split_once("//").unwrap_or((source, ""));
    let Ok(module) = ModuleAddr::parse(address, default) else { return Ok(None) };
    let constraints = version.unwrap_or_default().parse();
    let constraints = constraints.map_err(|e| format!("module {source:?}: {e}"))?;
    Ok(Some(RegistryCall { module, subdirectory: subdirectory.to_owned(), constraints }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_lead_out_are_told_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "main.tf",
            "# one\nmodule \"inner\" { source = \"./inner\" }\nmodule \"vpc\" {\n  \
             version = \"~> 5.0\"\n  source  = \"acme/vpc/aws//sub\"\n}\n",
        );
        write("inner/main.tf", "module \"up\" { source = \"../modules/a\" }\n");
        write("modules/a/main.tf", "module \"git\" { source = \"git::https://x.example/m\" }\n");
        write("modules/b/x.tf.json", r#"{"module": {"m": {"source": "r.example/a/b/c"}}}"#);
        write("examples/all/main.tf", "module \"no\" { source = \"acme/no/aws\" }\n");
        let default: Host = "registry.opentofu.org".parse().unwrap();
        let found = nested(dir.path(), Path::new(""), &default).unwrap();
        let shown: Vec<String> = found
            .iter()
            .map(|call| {
                let module = call.registry.as_ref().map(|registry| registry.module.to_string());
                format!("{}:{:?} {} {module:?}", call.file.display(), call.line, call.source)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "main.tf:Some(5) acme/vpc/aws//sub Some(\"registry.opentofu.org/acme/vpc/aws\")",
                "modules/a/main.tf:Some(1) git::https://x.example/m None",
                "modules/b/x.tf.json:None r.example/a/b/c Some(\"r.example/a/b/c\")",
            ]
        );
        let registry = found[0].registry.as_ref().unwrap();
        assert_eq!(registry.subdirectory, "sub");
        assert!(registry.constraints.allow(&"5.1.0".parse().unwrap()));
    }
}
