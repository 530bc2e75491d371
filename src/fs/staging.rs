//! `staging/`: where releases are written. Below it stand the same paths as in the mount.
//!
//! What can be an artifact is decided when it is committed; so a file may have any name, and only
//! the names that lead to where something can be committed are held fast.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::area::{Area, Rules, ShownAs};
use super::attr::FileKind;
use super::error::Errno;
use crate::local::{self, LocalTree, Maker, Name, RelPath};
use crate::name::{Host, RepoName};
use crate::stage::{self, Stage};

/// The name of the area in the mount's root.
pub const NAME: &str = stage::STAGING;
/// The directory in it for what `providers mirror` writes.
const MIRROR: &str = "mirror";
/// The mode of the directories that are always there.
const MODE: u32 = 0o755;

/// What stands behind `staging/`.
#[derive(Clone)]
pub struct StagingArea {
    area: Arc<Area>,
    stage: Arc<Stage>,
    any_host: bool,
}

impl fmt::Debug for StagingArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.area.fmt(f)
    }
}

/// How it is shown and what may be made at its top.
#[derive(Clone, Debug, Default)]
pub struct StagingOptions {
    /// The parts of registries that are declared as sources.
    pub declared: Vec<(Host, Option<RepoName>)>,
    /// Whether any registry may be made at the top: a store takes them all.
    pub any_host: bool,
    /// As what it is shown.
    pub shown: ShownAs,
}

impl StagingArea {
    /// The staging area in `tree`, the directory of `stage`; makes the directories that are always
    /// there.
    ///
    /// # Errors
    /// The disk's, where they cannot be made.
    pub fn new(
        tree: Arc<LocalTree>,
        stage: Arc<Stage>,
        options: StagingOptions,
    ) -> local::TreeResult<StagingArea> {
        let mut fixed = BTreeSet::new();
        let mirror = Name::new(MIRROR.as_ref()).map(|name| RelPath::default().join(name));
        let declared = options.declared.iter().map(|(host, prefix)| path_of(host, prefix.as_ref()));
        for path in declared.chain([mirror]) {
            let path = path?;
            fixed.extend((1..=path.names().len()).map(|depth| path.ancestor(depth)));
        }
        let maker = Maker {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        for path in &fixed {
            let Some((dir, name)) = path.split_last() else { continue };
            match tree.make_dir(&tree.node_at(&dir), name, MODE, maker) {
                Ok(_) | Err(local::Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        let any_host = options.any_host;
        let rules = Box::new(StagingRules { fixed, any_host, stage: stage.clone() });
        let area = Arc::new(Area { name: NAME, tree, rules, shown: options.shown });
        Ok(StagingArea { area, stage, any_host })
    }

    /// The service that commits what is staged.
    pub fn stage(&self) -> &Arc<Stage> {
        &self.stage
    }

    /// Whether a stage shows this directory of the registry tree. Looks at the disk.
    pub(super) fn shows(&self, host: &Host, name: Option<&RepoName>) -> bool {
        let is_known = name.is_some() || self.any_host;
        is_known && path_of(host, name).is_ok_and(|path| self.stage.is_way(&path))
    }

    /// The registries at the top that only a stage shows: such as a store will take. Looks at the
    /// disk.
    pub(super) fn hosts(&self) -> Vec<Host> {
        let top = if self.any_host { self.stage.ways_in(&RelPath::default()) } else { Vec::new() };
        top.iter().filter_map(|name| name.to_str()?.parse().ok()).collect()
    }

    /// The repositories, and prefixes of such, that stages show directly in a directory. Looks at
    /// the disk.
    pub(super) fn shown_in(&self, host: &Host, name: Option<&RepoName>) -> Vec<RepoName> {
        let ways =
            path_of(host, name).map_or_else(|_| Vec::new(), |path| self.stage.ways_in(&path));
        ways.iter().filter_map(|way| RepoName::below(name, way.to_str()?)).collect()
    }

    pub(super) fn area(&self) -> &Arc<Area> {
        &self.area
    }
}

/// Where releases of a repository, or of what lies below a name, are staged.
pub(super) fn path_of(host: &Host, name: Option<&RepoName>) -> local::TreeResult<RelPath> {
    let components = name.into_iter().flat_map(RepoName::components);
    std::iter::once(host.as_str()).chain(components).map(|name| Name::new(name.as_ref())).collect()
}

struct StagingRules {
    /// Directories that are always there: the declared ones and those above them.
    fixed: BTreeSet<RelPath>,
    any_host: bool,
    stage: Arc<Stage>,
}

impl fmt::Debug for StagingRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fixed.fmt(f)
    }
}

impl Rules for StagingRules {
    fn may_make(&self, dir: &RelPath, name: &Name, kind: FileKind) -> Result<(), Errno> {
        let at_top = dir.names().is_empty();
        let is_host = || name.to_str().is_some_and(|name| name.parse::<Host>().is_ok());
        let is_free = !at_top || self.fixed.contains(&dir.join(name.clone()));
        if is_free || self.any_host && kind == FileKind::Directory && is_host() {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    fn may_remove(&self, path: &RelPath) -> Result<(), Errno> {
        let is_held = self.fixed.contains(path) || self.stage.holds_sealed(path);
        if is_held { Err(Errno::EBUSY) } else { Ok(()) }
    }

    fn may_change(&self, path: &RelPath) -> Result<(), Errno> {
        if self.stage.is_sealed(path) { Err(Errno::EBUSY) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        text.split('/').filter(|c| !c.is_empty()).map(|c| Name::new(c.as_ref()).unwrap()).collect()
    }

    fn rules(any_host: bool) -> (tempfile::TempDir, StagingArea) {
        let dir = tempfile::tempdir().unwrap();
        let declared = vec![
            ("a.example".parse().unwrap(), None),
            ("b.example:5000".parse().unwrap(), Some("acme/team".parse().unwrap())),
        ];
        let options = StagingOptions { declared, any_host, ..StagingOptions::default() };
        let stage = Stage::open(stage::StageOptions {
            dir: dir.path().join("state"),
            destinations: Vec::new(),
            mapping: crate::mapping::Mapping::default(),
            allow_overwrite: false,
            signer: None,
            check: None,
            limits: crate::archive::Limits::default(),
        });
        let tree = LocalTree::open(&dir.path().join("state/staging")).unwrap();
        let staging = StagingArea::new(tree, stage.unwrap(), options).unwrap();
        (dir, staging)
    }

    #[test]
    fn declared_roots_and_mirror_are_always_there() {
        let (dir, staging) = rules(false);
        for root in ["a.example", "b.example:5000/acme/team", "mirror"] {
            assert!(dir.path().join("state/staging").join(root).is_dir(), "{root}");
        }
        for fixed in [
            "a.example",
            "b.example:5000",
            "b.example:5000/acme",
            "b.example:5000/acme/team",
            "mirror",
        ] {
            assert_eq!(staging.area.rules.may_remove(&path(fixed)), Err(Errno::EBUSY), "{fixed}");
        }
        for free in
            ["a.example/net", "b.example:5000/other", "b.example:5000/acme/team/net", "mirror/x"]
        {
            assert_eq!(staging.area.rules.may_remove(&path(free)), Ok(()), "{free}");
        }
    }

    #[test]
    fn at_the_top_only_registries_of_a_store_can_be_made() {
        let name = |text: &str| Name::new(text.as_ref()).unwrap();
        for any_host in [false, true] {
            let (_dir, staging) = rules(any_host);
            let made = |at: &str, text: &str, kind| {
                staging.area.rules.may_make(&path(at), &name(text), kind)
            };
            let expected = if any_host { Ok(()) } else { Err(Errno::EPERM) };
            assert_eq!(made("", "c.example", FileKind::Directory), expected);
            for (bad, kind) in [
                ("c.example", FileKind::Regular),
                ("c.example", FileKind::Symlink),
                ("main.tf", FileKind::Regular),
                ("plain", FileKind::Directory),
                ("-.x", FileKind::Directory),
            ] {
                assert_eq!(made("", bad, kind), Err(Errno::EPERM), "{bad}");
            }
            assert_eq!(made("a.example", "Main.tf", FileKind::Regular), Ok(()));
        }
    }
}
