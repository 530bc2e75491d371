//! Which processes keep a mount busy. Best effort: processes of other users and of other mount
//! namespaces are not seen, nor are memory maps without an open file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// How many are searched for; a message names no more.
const MOST: usize = 5;

/// A process and how it uses the mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// The path in the mount that it holds.
    pub path: PathBuf,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, {:?})", self.command, self.pid, self.path)
    }
}

/// Looks at working directories, roots, executables and open files of all processes that may be
/// looked at.
pub fn of(point: &Path) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let path = held_path(&process.path(), point)?;
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            Some(Holder { pid, command: command.trim_end().escape_debug().to_string(), path })
        })
        .take(MOST)
        .collect()
}

fn held_path(process: &Path, point: &Path) -> Option<PathBuf> {
    // Only the links' texts are read: following them would enter the mount.
    let held = |link: PathBuf| fs::read_link(link).ok().filter(|target| target.starts_with(point));
    ["cwd", "root", "exe"].iter().find_map(|name| held(process.join(name))).or_else(|| {
        let descriptors = fs::read_dir(process.join("fd")).ok()?;
        descriptors.flatten().find_map(|descriptor| held(descriptor.path()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_names_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().canonicalize().unwrap();
        assert_eq!(of(&point), []);
        let _file = fs::File::create(point.join("held")).unwrap();
        let holders = of(&point);
        assert_eq!(holders.len(), 1);
        assert_eq!(holders[0].pid, std::process::id());
        assert_eq!(holders[0].path, point.join("held"));
    }
}
