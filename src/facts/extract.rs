//! All files of a package at once, for who keeps them outside of the cache.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::Content;
use super::package::{StoredArchive, VerifiedPackage};
use super::prefetch::BesideFetch;
use crate::archive::{self, ArchiveError};
use crate::failure::Refusal;
use crate::members::{Child, FileNo, MemberFile, Members, TOP};
use crate::store::Object;

/// Where the files of a package go. All of them come again from the beginning if the cached archive
/// turns out to be damaged.
pub trait PackageTarget: Send + Sync + 'static {
    /// Takes a directory; that of the top is the empty path, and comes first.
    ///
    /// # Errors
    /// What the disk says.
    fn directory(&self, path: &Path) -> io::Result<()>;

    /// What takes the content of a file, from its beginning; `None` if nothing of it is wanted.
    ///
    /// # Errors
    /// What the disk says.
    fn file(
        &self,
        path: &Path,
        number: FileNo,
        file: &MemberFile,
    ) -> io::Result<Option<Box<dyn io::Write>>>;
}

impl Content {
    /// Hands all of a package to `target`, directories before what is in them, every file checked
    /// as when it is read.
    ///
    /// # Errors
    /// As for reading; that of a disk for what the target says.
    pub async fn extract(
        self: &Arc<Self>,
        package: &Arc<VerifiedPackage>,
        target: Arc<dyn PackageTarget>,
    ) -> Result<(), Refusal> {
        let of = package.clone();
        let work = move |zip: &Object| extracted(zip, &of.members, target.as_ref());
        self.with_archive(&package.repo, &package.archive, &BesideFetch::Nothing, work)
            .await?
            .map_err(|e| Refusal::io(package.reference(), e))
    }
}

/// The inner error is the target's own.
fn extracted(
    zip: &Object,
    members: &Members,
    target: &dyn PackageTarget,
) -> Result<io::Result<()>, ArchiveError> {
    let mut pending = vec![(TOP, PathBuf::new())];
    while let Some((dir, path)) = pending.pop() {
        if let Err(e) = target.directory(&path) {
            return Ok(Err(e));
        }
        for (name, child) in members.children(dir) {
            let at = path.join(name);
            match child {
                Child::Dir(below) => pending.push((below, at)),
                Child::File(number) => {
                    let file = members.file(number);
                    match target.file(&at, number, file) {
                        Err(e) => return Ok(Err(e)),
                        Ok(None) => {}
                        Ok(Some(mut out)) => archive::extract(&StoredArchive(zip), file, &mut out)?,
                    }
                }
            }
        }
    }
    Ok(Ok(()))
}
