//! What is known of files of packages that can be written over.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use super::area::AreaFile;
use super::caller::CallerIdentity;
use super::node::InodeNode;
use crate::tree::providers::ProviderDirectory;

/// A file or directory of a package that can be written over.
#[derive(Clone)]
pub(super) struct Replaced {
    pub(super) version: ProviderDirectory,
    /// The package's directory.
    pub(super) package: Arc<InodeNode>,
    /// Its name, `OS_ARCH`.
    pub(super) platform: Box<OsStr>,
    /// The names that lead from it to the file.
    pub(super) within: Vec<Box<OsStr>>,
    /// Whether it was reached by the way for clients that install.
    pub(super) by_installer: bool,
}

impl Replaced {
    /// The path below `plugin-cache/`.
    pub(super) fn path(&self) -> PathBuf {
        let mut path = PathBuf::from(self.version.to_string());
        path.push(&*self.platform);
        path.extend(self.within.iter().map(|name| &**name));
        path
    }
}

/// What is known of an open file that is written over.
pub(super) struct Over {
    pub(super) ino: u64,
    pub(super) at: Replaced,
    pub(super) who: CallerIdentity,
    /// Whether it was cut before anything was written.
    pub(super) cut: AtomicBool,
    /// Where what was written so far ends.
    pub(super) end: AtomicU64,
    /// The file in the copied package, once something else was written.
    pub(super) copy: OnceLock<AreaFile>,
}
