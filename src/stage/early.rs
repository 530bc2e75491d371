//! Provider zips are sent as soon as they are closed, so that committing the release later is
//! short.
//!
//! Nothing is promised: a blob that no manifest names is nothing to anybody, and what fails here is
//! tried again by the commit, which tells why.

use std::sync::Arc;

use rustix::fs::{FileType, fstat};

use super::Stage;
use super::blob::{BlobContent, BlobFile, PushBlob};
use super::error::refused_archive;
use super::plan::layer;
use super::roots::{RootTarget, subject, target};
use super::tree::{FILE, check_links, open_plain};
use crate::archive;
use crate::artifact::ZIP;
use crate::failure::{Failure, Refusal};
use crate::local::RelPath;
use crate::name::{Repo, Version, ZipName};

impl Stage {
    /// Sends the file at `path` (below the staging directory) if it is a provider's zip in its
    /// place. To be called when a file that was written is closed or has got its name; waits for
    /// those before it.
    pub async fn closed(self: &Arc<Self>, path: &RelPath) {
        let Some((repo, name)) = self.zip_of(path) else { return };
        // Closed with the stage alone.
        let Ok(_turn) = self.early.acquire().await else { return };
        let Some(_under_way) = self.going.begin_now() else { return };
        if self.is_sealed(path) {
            return;
        }
        let (stage, own) = (Arc::clone(self), path.clone());
        let read = tokio::task::spawn_blocking(move || stage.read_zip(&own, &name));
        let sent = async {
            let blob = read.await.unwrap_or_else(|_| Err(Refusal::lost(subject(path))))?;
            self.upload(&repo)?.put_blob(&repo.name, &blob.descriptor, &blob).await
        };
        match sent.await {
            Ok(uploaded) => {
                tracing::debug!("{}: sent ahead of its commit: {uploaded:?}", subject(path))
            }
            Err(e) => tracing::debug!("{}: not sent ahead of its commit: {e}", subject(path)),
        }
    }

    /// Whether [`Stage::closed`] would send the file at `path`: by its name and place alone.
    pub fn sends_ahead(&self, path: &RelPath) -> bool {
        self.zip_of(path).is_some()
    }

    /// The repository of a provider's zip and its name, if it lies where its release would be.
    fn zip_of(&self, path: &RelPath) -> Option<(Repo, String)> {
        let (dir, name) = path.split_last()?;
        let name = name.to_str()?;
        let says: ZipName = name.parse().ok()?;
        let repo = match target(&dir).ok()? {
            RootTarget::Release(repo, tag) => {
                (Version::of_tag(&tag)? == says.version).then_some(repo)?
            }
            RootTarget::Mirror(address) => {
                (address.kind() == says.kind).then(|| self.mapped(&address))??
            }
        };
        Some((repo, name.to_owned()))
    }

    fn read_zip(&self, path: &RelPath, name: &str) -> Result<PushBlob, Refusal> {
        use std::os::fd::AsFd;
        use std::os::unix::ffi::OsStrExt;

        let failed = |e: rustix::io::Errno| Refusal::io(subject(path), e);
        let file = open_plain(self.staging.dir.as_fd(), path.to_os_string().as_bytes(), FILE)
            .map_err(failed)?;
        let stat = fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Refusal::new(Failure::Invalid, subject(path), "it is no file"));
        }
        check_links(&stat, &subject(path))?;
        let file = BlobFile::of(file).map_err(failed)?;
        // One that is not whole yet is no archive.
        archive::index(&file, self.workshop.limits())
            .map_err(|e| refused_archive(subject(path), &e))?;
        let digest = file.digest().map_err(|e| Refusal::io(subject(path), e))?;
        let descriptor = layer(ZIP, digest, file.len, name);
        Ok(PushBlob { descriptor, content: BlobContent::File(Arc::new(file)) })
    }
}
