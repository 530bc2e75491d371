//! The part of `plugin-cache/` on local disk, where clients put packages beside the view's.
//!
//! Down to the directory of a version, a directory is both: one of the view, and one of a tree on
//! local disk. Below it stand packages: links of the view, or directories of the tree.
//!
//! Where clients may write, a package of the view is a link to one of two ways to the same files:
//! through `INSTALLING` for clients that install, and through `RELEASE` for everybody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::area::{Area, LocalNode, Rules, ShownAs};
use super::attr::FileKind;
use super::error::{Errno, FsError};
use super::node::ProviderView;
use crate::local::{self, LocalTree, Maker, Name, RelPath};
use crate::name::Platform;
use crate::tree::providers::ProviderDirectory;

/// The name of the area in the mount's root.
pub const NAME: &str = ProviderView::PluginCache.name();
/// The name of the way to packages that are read and run. It is found in the directory of a
/// version, and not listed.
pub(super) const RELEASE: &str = ".release";
/// The name of the way to packages that are written over.
pub(super) const INSTALLING: &str = ".installing";
/// The mode of directories that are made on the way to a package.
const MODE: u32 = 0o755;

/// What stands behind `plugin-cache/` on a mount that is written to.
#[derive(Clone, Debug)]
pub struct PluginCache {
    pub(super) area: Arc<Area>,
}

impl PluginCache {
    /// The part on local disk, and as what it is shown.
    pub fn new(tree: Arc<LocalTree>, shown: ShownAs) -> PluginCache {
        PluginCache {
            area: Arc::new(Area { name: NAME, tree, rules: Box::new(PackageRules), shown }),
        }
    }

    /// What the tree holds at the place of `dir`.
    pub(super) fn local(&self, dir: &ProviderDirectory) -> Result<LocalNode, FsError> {
        Ok(LocalNode::new(self.area.clone(), self.area.tree.node_at(&path_of(dir)?)))
    }

    pub(super) fn is_dir(&self, dir: &ProviderDirectory) -> bool {
        self.local(dir).is_ok_and(|node| node.is_dir())
    }

    /// Makes the directory at the place of `dir`, and those above it.
    pub(super) fn made(&self, dir: &ProviderDirectory, maker: Maker) -> Result<LocalNode, FsError> {
        let path = path_of(dir)?;
        for depth in 1..=path.names().len() {
            let part = path.ancestor(depth);
            let Some((above, name)) = part.split_last() else { continue };
            match self.area.tree.make_dir(&self.area.tree.node_at(&above), name, MODE, maker) {
                Ok(_) | Err(local::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.local(dir)
    }
}

/// The path of `name` in `dir`, below the view.
pub(super) fn path_in(dir: &ProviderDirectory, name: &str) -> PathBuf {
    Path::new(&dir.to_string()).join(name)
}

fn path_of(dir: &ProviderDirectory) -> Result<RelPath, FsError> {
    let text = dir.to_string();
    let names =
        text.split('/').filter(|name| !name.is_empty()).map(|name| Name::new(name.as_ref()));
    Ok(names.collect::<local::TreeResult<_>>()?)
}

pub(super) fn dir_of(path: &RelPath) -> Option<ProviderDirectory> {
    path.names().iter().try_fold(ProviderDirectory::Top, |dir, name| dir.child(name.to_str()?))
}

/// Packages are made where packages stand; what is in them is the client's own.
#[derive(Debug)]
struct PackageRules;

impl Rules for PackageRules {
    fn may_make(&self, dir: &RelPath, name: &Name, kind: FileKind) -> Result<(), Errno> {
        const VERSION: usize = 4;
        let text = name.to_str().unwrap_or_default();
        let allowed = match dir.names().len() {
            above if above < VERSION => {
                kind == FileKind::Directory
                    && dir_of(dir).is_some_and(|dir| dir.child(text).is_some())
            }
            VERSION => {
                matches!(kind, FileKind::Directory | FileKind::Symlink)
                    && text.parse::<Platform>().is_ok()
            }
            _ => true,
        };
        if allowed { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn may_remove(&self, _: &RelPath) -> Result<(), Errno> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        text.split('/').filter(|c| !c.is_empty()).map(|c| Name::new(c.as_ref()).unwrap()).collect()
    }

    #[test]
    fn only_packages_and_what_is_above_them_can_be_made() {
        let may = |dir: &str, name: &str, kind| {
            PackageRules.may_make(&path(dir), &Name::new(name.as_ref()).unwrap(), kind).is_ok()
        };
        use FileKind::{Directory, Regular, Symlink};
        let version = "r.example/acme/one/1.0.0";
        for (dir, name, kind) in [
            ("", "r.example", Directory),
            ("r.example", "acme", Directory),
            ("r.example/acme", "one", Directory),
            ("r.example/acme/one", "1.0.0+b1", Directory),
            (version, "linux_amd64", Directory),
            (version, "linux_amd64", Symlink),
            ("r.example/acme/one/1.0.0/linux_amd64", "terraform-provider-one_v1.0.0", Regular),
            ("r.example/acme/one/1.0.0/linux_amd64/docs", ".x", Symlink),
        ] {
            assert!(may(dir, name, kind), "{dir} {name}");
        }
        for (dir, name, kind) in [
            ("", "main.tf.json", Regular),
            ("", "nohost", Directory),
            ("r.example", "acme", Symlink),
            ("r.example", "UPPER", Directory),
            ("r.example/acme/one", "v1", Directory),
            ("r.example/acme/one", "1.0.0", Symlink),
            (version, "linux_amd64", Regular),
            (version, "x", Directory),
        ] {
            assert!(!may(dir, name, kind), "{dir} {name}");
        }
    }

    #[test]
    fn a_directory_and_its_path_say_the_same() {
        for text in ["", "r.example", "r.example/acme/one", "r.example/acme/one/1.0.0+b1"] {
            assert_eq!(dir_of(&path(text)).unwrap().to_string(), text);
            assert_eq!(path_of(&dir_of(&path(text)).unwrap()).unwrap(), path(text));
        }
    }
}
