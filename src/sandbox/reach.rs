//! What a process may reach of the file system (landlock(7)), beside what it has open.
//!
//! The kernel holds on to the files and directories that are named, not to their names: what takes
//! the place of one of them later counts only if it lies below another. Looking at metadata and
//! following links is always allowed.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
};

/// The oldest kernel interface that can be used: before it nothing can be moved between directories.
const OLDEST: ABI = ABI::V2;
/// What newer kernels can refuse beside that.
const NEWEST: ABI = ABI::V5;

/// The files and directories that a process may reach; directories with all that lies below them.
/// What is not there is passed over.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Reach {
    /// What it reads.
    pub readable: Vec<PathBuf>,
    /// What it reads and changes.
    pub writable: Vec<PathBuf>,
    /// Directories in which it makes, writes, moves and removes files, and reads none.
    pub logs: Vec<PathBuf>,
    /// Directories in which it makes and removes sockets.
    pub sockets: Vec<PathBuf>,
}

/// What of a [`Reach`] the kernel refuses to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReachInForce {
    /// Nothing: it cannot, or was not asked to.
    None,
    /// All of it that is asked for here.
    Files,
}

impl Reach {
    /// Keeps this thread, and those that it starts, within these files for good, where the kernel
    /// can.
    pub(super) fn enforce(&self) -> Result<ReachInForce, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write = rights(NEWEST);
        let sockets = AccessFs::MakeSock | AccessFs::RemoveFile;
        let oldest = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(rights(OLDEST));
        let Ok(handled) = oldest else { return Ok(ReachInForce::None) };
        let mut rules = handled
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(rights(NEWEST))?
            .create()?;
        let logs =
            AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
        let rules_of = [
            (&self.readable, read),
            (&self.writable, write),
            (&self.logs, logs),
            (&self.sockets, sockets),
        ];
        for (paths, rights) in rules_of {
            for path in paths {
                rules = rules.add_rules(beneath(path, rights))?;
            }
        }
        Ok(match rules.restrict_self()?.ruleset {
            RulesetStatus::NotEnforced => ReachInForce::None,
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => ReachInForce::Files,
        })
    }
}

/// What is refused where no rule gives it. Running programs is none of it: where the kernel reads a
/// file by itself (passthrough), it asks for that too in the name of the process that serves, and
/// that starts none anyway. Nor are devices, which lie outside of all that is changed.
fn rights(abi: ABI) -> BitFlags<AccessFs> {
    AccessFs::from_all(abi) & !(AccessFs::Execute | AccessFs::IoctlDev)
}

/// The rule for a path, if there is something.
fn beneath(
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Option<Result<PathBeneath<PathFd>, RulesetError>> {
    let is_dir = path.metadata().ok()?.is_dir();
    let rights = if is_dir { rights } else { rights & AccessFs::from_file(NEWEST) };
    let place = PathFd::new(path).ok()?;
    (!rights.is_empty()).then(|| Ok(PathBeneath::new(place, rights)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn what_is_not_named_is_neither_read_nor_changed() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        for name in ["read", "write/a", "write/b", "logs", "else"] {
            fs::create_dir_all(place(name)).unwrap();
            fs::write(place(name).join("file"), b"x").unwrap();
        }
        let reach = Reach {
            readable: vec![place("read"), place("nothing")],
            writable: vec![place("write")],
            logs: vec![place("logs")],
            sockets: vec![place("else")],
        };
        let all = dir.path().to_owned();
        let confined = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            let in_force = reach.enforce().unwrap();
            let place = |name: &str| all.join(name);
            (in_force == ReachInForce::Files).then(|| {
                let refused = |kind: std::io::Result<()>| {
                    kind.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
                };
                assert_eq!(fs::read(place("read/file")).unwrap(), b"x");
                assert!(refused(fs::write(place("read/file"), b"y")));
                assert!(refused(fs::read(place("else/file")).map(drop)));
                assert!(refused(fs::read_dir(place("else")).map(drop)));
                fs::rename(place("write/a/file"), place("write/b/moved")).unwrap();
                assert!(refused(fs::write(place("else/new"), b"y")));
                fs::rename(place("logs/file"), place("logs/file.1")).unwrap();
                fs::write(place("logs/file"), b"y").unwrap();
                assert!(refused(fs::read(place("logs/file")).map(drop)));
                assert!(fs::metadata(place("else/file")).is_ok());
                std::os::unix::net::UnixListener::bind(place("else/socket")).unwrap();
                fs::remove_file(place("else/socket")).unwrap();
            })
        });
        if confined.join().unwrap().is_none() {
            eprintln!("skipped: this kernel has no Landlock");
        }
    }
}
