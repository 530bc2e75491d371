//! From content to a plan: blobs, manifests, and the tags that are to stand for them.
//!
//! A plan depends on nothing but the content, the annotations and the names: never on a clock, a
//! path or the order in which a disk lists files. Making one sends nothing.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::fstat;

use super::blob::{BlobContent, BlobFile, PushBlob, Workshop};
use super::error::refused_archive;
use super::tree::{FileStamp, StagedTree, check_links};
use crate::archive::{self, Limits};
use crate::artifact::{self, Release};
use crate::digest::Digest;
use crate::disk::piece_at;
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, Repo, Selector, Tag};
use crate::oci::write::{EMPTY_CONTENT, empty, image, index};
use crate::oci::{Descriptor, Manifest};

/// Annotation of a layer: the name that `oras pull` gives the file.
pub const TITLE: &str = artifact::TITLE_ANNOTATION;
/// The title of a module's package. The same for all, so that a module's digest depends on its
/// content alone.
const MODULE_TITLE: &str = "module.zip";

/// Where a release goes, and what is said of it.
#[derive(Clone, Debug)]
pub struct Destined {
    /// The repository.
    pub repo: Repo,
    /// The tags, at least one.
    pub tags: Vec<Tag>,
    /// Annotations of the release; they win over those that the tree holds.
    pub annotations: BTreeMap<String, String>,
}

/// What the tags are to stand for.
#[derive(Clone, Debug)]
pub enum PlannedArtifact {
    /// A module package: its manifest.
    Module(Manifest),
    /// Platforms of a provider release. The index is made of what is there and of these.
    Provider {
        /// In the order of their names.
        targets: Vec<PlannedPlatform>,
        /// Of the index.
        annotations: BTreeMap<String, String>,
    },
}

/// One platform of a plan.
#[derive(Clone, Debug)]
pub struct PlannedPlatform {
    /// The platform.
    pub platform: Platform,
    /// Of the platform, with the package as its one zip layer.
    pub manifest: Manifest,
    /// What the index says of it.
    pub entry: Descriptor,
    /// The package.
    pub package: Digest,
    /// Whether the package was made here from a directory, so that its digest is not the origin's.
    pub packed_here: bool,
}

/// A release, ready to be pushed.
#[derive(Clone, Debug)]
pub struct ReleasePlan {
    /// The repository.
    pub repo: Repo,
    /// The tags, at least one.
    pub tags: Vec<Tag>,
    /// What is uploaded first, no digest twice.
    pub blobs: Vec<PushBlob>,
    /// What is tagged.
    pub artifact: PlannedArtifact,
    /// What whoever publishes it should know, one sentence each.
    pub warnings: Vec<String>,
}

impl ReleasePlan {
    /// The manifests that are pushed by digest in any case, in this order. The index of a provider
    /// release is not among them: it depends on what the tag stands for.
    pub fn manifests(&self) -> Vec<&Manifest> {
        match &self.artifact {
            PlannedArtifact::Module(manifest) => vec![manifest],
            PlannedArtifact::Provider { targets, .. } => {
                targets.iter().map(|target| &target.manifest).collect()
            }
        }
    }

    /// The manifest that the tags stand for, if nothing is there yet.
    ///
    /// # Errors
    /// It would be over a limit.
    pub fn release(&self) -> Result<Manifest, Refusal> {
        match &self.artifact {
            PlannedArtifact::Module(manifest) => Ok(manifest.clone()),
            PlannedArtifact::Provider { targets, annotations } => {
                let entries: Vec<Descriptor> =
                    targets.iter().map(|target| target.entry.clone()).collect();
                index(artifact::PROVIDER, &entries, annotations)
                    .map_err(|e| e.about(self.subject()))
            }
        }
    }

    /// Bytes of all blobs.
    pub fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.descriptor.size).sum()
    }

    /// What messages call it: the first tag's reference.
    pub fn subject(&self) -> String {
        match self.tags.first() {
            Some(tag) => self.repo.at(Selector::Tag(tag.clone())).to_string(),
            None => self.repo.to_string(),
        }
    }

    pub(super) fn new(
        destined: Destined,
        artifact: PlannedArtifact,
        blobs: Vec<PushBlob>,
        warnings: Vec<String>,
    ) -> ReleasePlan {
        let mut plan = ReleasePlan {
            repo: destined.repo,
            tags: destined.tags,
            blobs: Vec::new(),
            artifact,
            warnings,
        };
        let config = PushBlob {
            descriptor: empty(),
            content: BlobContent::Memory(Bytes::from_static(EMPTY_CONTENT)),
        };
        for blob in [config].into_iter().chain(blobs) {
            if !plan.blobs.iter().any(|known| known.descriptor.digest == blob.descriptor.digest) {
                plan.blobs.push(blob);
            }
        }
        plan
    }
}

/// The plan of a directory that is a module, whatever its files are called.
///
/// # Errors
/// As of [`directory::plan`](super::directory::plan).
pub fn module_directory(
    dir: OwnedFd,
    name: &str,
    destined: Destined,
    workshop: &Workshop,
) -> Result<ReleasePlan, Refusal> {
    let tree = StagedTree::read(dir, name, workshop.limits())?;
    if tree.files.is_empty() {
        return Err(Refusal::new(
            Failure::Invalid,
            name,
            "it holds no file that would be part of a release",
        ));
    }
    let mut warnings = Vec::new();
    for file in &tree.files {
        let base = file.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        if base.ends_with(b".tfstate") || base.ends_with(b".tfstate.backup") {
            let path = file.path.escape_ascii();
            warnings.push(format!(
                "{name}/{path} becomes part of the module: a state often holds secrets"
            ));
        }
    }
    let (layer, _) = pack(&tree, name, workshop)?;
    module_of(layer, destined, warnings)
}

/// Packs a tree: the blob, and the `h1:` hash of the package.
pub(super) fn pack(
    tree: &StagedTree,
    name: &str,
    workshop: &Workshop,
) -> Result<(PushBlob, crate::digest::H1), Refusal> {
    let sealing = workshop.file()?;
    let refused = |e: &archive::ArchiveError| refused_archive(name, e);
    let limits = workshop.limits();
    let written =
        archive::write(&tree.entries(), tree, &sealing, limits).map_err(|e| refused(&e))?;
    tree.check_unchanged()?;
    let file = BlobFile { file: sealing.0, len: written.size };
    // What is published is what a mount shows: the reader has the last word.
    archive::index(&file, limits).map_err(|e| refused(&e))?;
    let descriptor = layer(artifact::ZIP, written.digest, written.size, MODULE_TITLE);
    Ok((PushBlob { descriptor, content: BlobContent::File(Arc::new(file)) }, written.h1))
}

pub(super) fn layer(media_type: &str, digest: Digest, size: u64, title: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        artifact_type: None,
        platform: None,
        annotations: BTreeMap::from([(TITLE.to_owned(), title.to_owned())]),
    }
}

/// The plan of a module whose package is there already: it is pushed byte for byte.
///
/// # Errors
/// Those of [`archive::index`]: what a mount would refuse is not published.
pub fn module_zip(
    file: OwnedFd,
    name: &str,
    destined: Destined,
    limits: &Limits,
) -> Result<ReleasePlan, Refusal> {
    let is_zip = name.ends_with(".zip") || begins_as_zip(&file);
    let package = PlannedPackage::read(file, name, limits).map_err(|e| {
        if e.failure != Failure::Structure || is_zip {
            return e;
        }
        Refusal::new(Failure::Structure, name, "it is neither a directory nor a zip archive")
    })?;
    let mut warnings = Vec::new();
    if !package.hashes_agree {
        warnings.push(format!(
            "{name} has entries for directories, so the h1 hash of the archive is not that of the \
             directory it unpacks to"
        ));
    }
    module_of(package.blob(MODULE_TITLE), destined, warnings)
}

/// Whether a file begins as every zip with content does; where that cannot be read, as if it did.
fn begins_as_zip(file: &OwnedFd) -> bool {
    piece_at(file, 2, 0).map_or(true, |first| first == b"PK")
}

fn module_of(
    layer: PushBlob,
    destined: Destined,
    warnings: Vec<String>,
) -> Result<ReleasePlan, Refusal> {
    let refused = |e: &dyn std::fmt::Display| Refusal::new(Failure::Structure, &destined.repo, e);
    let manifest =
        image(artifact::MODULE, std::slice::from_ref(&layer.descriptor), &destined.annotations)
            .map_err(|e| refused(&e))?;
    Release::read(&manifest).map_err(|e| refused(&e))?;
    Ok(ReleasePlan::new(destined, PlannedArtifact::Module(manifest), vec![layer], warnings))
}

/// A zip that is pushed byte for byte.
pub(super) struct PlannedPackage {
    pub(super) file: Arc<BlobFile>,
    pub(super) digest: Digest,
    pub(super) h1: crate::digest::H1,
    /// Whether clients compute one hash for the archive and for what it unpacks to.
    pub(super) hashes_agree: bool,
    /// The names at its top.
    pub(super) top: Vec<Vec<u8>>,
}

impl PlannedPackage {
    pub(super) fn read(
        file: OwnedFd,
        name: &str,
        limits: &Limits,
    ) -> Result<PlannedPackage, Refusal> {
        use std::os::unix::ffi::OsStrExt;

        let failed = |e: rustix::io::Errno| Refusal::io(name, e);
        let before = fstat(&file).map_err(failed)?;
        check_links(&before, name)?;
        let file = BlobFile::of(file).map_err(failed)?;
        let refused = |e: archive::ArchiveError| refused_archive(name, &e);
        let members = archive::index(&file, limits).map_err(refused)?;
        let hashes = archive::hashes(&file, &members, limits).map_err(refused)?;
        let digest = file.digest().map_err(|e| Refusal::io(name, e))?;
        if FileStamp::of(&fstat(&file.file).map_err(failed)?) != FileStamp::of(&before) {
            let rule = "it changed while it was read; nothing was published";
            return Err(Refusal::new(Failure::Busy, name, rule));
        }
        Ok(PlannedPackage {
            file: Arc::new(file),
            digest,
            h1: hashes.directory,
            hashes_agree: hashes.directory == hashes.archive,
            top: members
                .children(crate::members::TOP)
                .map(|(name, _)| name.as_bytes().to_vec())
                .collect(),
        })
    }

    pub(super) fn blob(&self, title: &str) -> PushBlob {
        let descriptor = layer(artifact::ZIP, self.digest, self.file.len, title);
        PushBlob { descriptor, content: BlobContent::File(Arc::clone(&self.file)) }
    }
}
