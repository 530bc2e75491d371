//! What OpenTofu can install, and why it would not: module packages and provider releases.
//!
//! The rules are OpenTofu's own (1.12), in our words: what it would refuse is refused with the
//! reason, what it ignores is ignored. Nothing here does I/O.

mod document;
mod signature;
mod sums;

pub use document::ReleaseDocument;
pub use signature::{SignatureOutcome, SignaturePolicy};
pub use sums::ReleaseSums;

use crate::digest::Digest;
use crate::failure::{Failure, Refusal, Subject};
use crate::name::Platform;
use crate::oci::{Descriptor, IMAGE, INDEX, Manifest, ManifestBody};

/// artifactType of a module package (an image manifest).
pub const MODULE: &str = "application/vnd.opentofu.modulepkg";
/// artifactType of a provider release (an index).
pub const PROVIDER: &str = "application/vnd.opentofu.provider";
/// artifactType of one platform of a provider release (an image manifest).
pub const PROVIDER_TARGET: &str = "application/vnd.opentofu.provider-target";
/// mediaType of the one layer that holds a package.
pub const ZIP: &str = "archive/zip";
/// Annotation of a target descriptor or manifest: the package's `h1:` hash, as `tofufs` publishes
/// it.
pub const H1_ANNOTATION: &str = "org.opentofu.package.h1";
/// Annotation of a target descriptor: the digest of the package's zip, as `tofufs` publishes it.
/// With it and [`PACKAGE_SIZE_ANNOTATION`] one index lists a release without a manifest for each
/// platform.
pub const PACKAGE_DIGEST_ANNOTATION: &str = "org.opentofu.package.digest";
/// Annotation of a target descriptor: the size of the package's zip in bytes, as `tofufs` publishes
/// it.
pub const PACKAGE_SIZE_ANNOTATION: &str = "org.opentofu.package.size";

/// Annotation of a descriptor: the name of the file that it describes.
pub const TITLE_ANNOTATION: &str = "org.opencontainers.image.title";

/// Why an artifact cannot be read as a module or provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactRefusal {
    /// OpenTofu's rules refuse it.
    #[error("{0}")]
    Structure(String),
    /// A zip layer whose digest OpenTofu does not accept.
    #[error("{0}")]
    Unsupported(String),
}

impl ArtifactRefusal {
    /// The refusal of `subject`, which is that artifact.
    pub fn about(&self, subject: impl Into<Subject>) -> Refusal {
        let failure = match self {
            ArtifactRefusal::Structure(_) => Failure::Structure,
            ArtifactRefusal::Unsupported(_) => Failure::Unsupported,
        };
        Refusal::new(failure, subject, self)
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, ArtifactRefusal> {
    Err(ArtifactRefusal::Structure(reason.into()))
}

/// One platform of a provider release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub platform: Platform,
    /// What the release names for it.
    pub package: PackageEntry,
}

impl Target {
    /// The image manifest that holds the package, where the release names one.
    pub fn manifest(&self) -> Option<&Descriptor> {
        match &self.package {
            PackageEntry::Manifest(manifest) => Some(manifest),
            PackageEntry::Zip { .. } => None,
        }
    }

    /// The digest of what the release names.
    pub fn digest(&self) -> Digest {
        match &self.package {
            PackageEntry::Manifest(manifest) => manifest.digest,
            PackageEntry::Zip { digest, .. } => *digest,
        }
    }
}

/// What a release names for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageEntry {
    /// The image manifest that holds the package.
    Manifest(Descriptor),
    /// The package itself.
    Zip {
        /// `terraform-provider-TYPE_VERSION_OS_ARCH.zip`
        name: String,
        /// The digest of its bytes. Their number is not told.
        digest: Digest,
    },
}

/// A release: what a tag of a repository stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// A module package: the zip layer.
    Module(Descriptor),
    /// A provider release: its platforms in the order of their names.
    Provider(Vec<Target>),
}

impl Release {
    /// Reads a manifest as a release by OpenTofu's rules.
    ///
    /// # Errors
    /// The first rule that the manifest breaks, with wanted and got.
    pub fn read(manifest: &Manifest) -> Result<Release, ArtifactRefusal> {
        let artifact_type = manifest.artifact_type.as_deref();
        match (&manifest.body, artifact_type) {
            (ManifestBody::Image(layers), Some(MODULE)) => {
                Ok(Release::Module(only_zip(layers)?.clone()))
            }
            (ManifestBody::Index(entries), Some(PROVIDER)) => {
                Ok(Release::Provider(targets(entries)?))
            }
            (ManifestBody::Index(_), Some(MODULE)) => refuse(format!(
                "a module package must be an image manifest, not an index ({INDEX})"
            )),
            (ManifestBody::Image(_), Some(PROVIDER)) => refuse(format!(
                "a provider release must be an index, not an image manifest ({IMAGE})"
            )),
            (ManifestBody::Image(_), Some(PROVIDER_TARGET)) => refuse(
                "this is one platform of a provider release; use the tag of the release's index",
            ),
            (_, got) => refuse(format!(
                "this is no artifact of OpenTofu: its artifactType is {}; wanted {MODULE:?} or \
                 {PROVIDER:?}",
                got.map_or("missing".to_owned(), |g| format!("{g:?}"))
            )),
        }
    }
}

/// Reads the manifest of one platform: the zip layer that is its package.
///
/// # Errors
/// The first rule that the manifest breaks.
pub fn target_package(
    manifest: &Manifest,
    platform: &Platform,
) -> Result<Descriptor, ArtifactRefusal> {
    let ManifestBody::Image(layers) = &manifest.body else {
        return refuse(format!(
            "the manifest of {platform} is an index; wanted an image manifest ({IMAGE})"
        ));
    };
    match manifest.artifact_type.as_deref() {
        Some(PROVIDER_TARGET) => {}
        got => {
            return refuse(format!(
                "the artifactType of {platform} is {}; wanted {PROVIDER_TARGET:?}",
                got.map_or("missing".to_owned(), |g| format!("{g:?}"))
            ));
        }
    }
    let layer = only_zip(layers)?;
    if let Some(p) = &layer.platform
        && (p.os != platform.os() || p.architecture != platform.arch())
    {
        return refuse(format!(
            "the package of {platform} is marked as one for {}_{}",
            p.os, p.architecture
        ));
    }
    match layer.digest {
        Digest::Sha256(_) => Ok(layer.clone()),
        Digest::Sha512(_) => Err(ArtifactRefusal::Unsupported(format!(
            "OpenTofu accepts provider packages by sha256 only, not {}",
            layer.digest
        ))),
    }
}

/// The `h1:` hash that the publisher of a package annotated: on its manifest, on the zip's
/// descriptor, or on the entry of the release that names the manifest.
pub fn annotated_h1<'a>(
    entry: Option<&'a Descriptor>,
    manifest: &'a Manifest,
    archive: &'a Descriptor,
) -> Option<&'a str> {
    let places =
        [Some(&manifest.annotations), Some(&archive.annotations), entry.map(|e| &e.annotations)];
    places
        .into_iter()
        .flatten()
        .find_map(|annotations| annotations.get(H1_ANNOTATION))
        .map(String::as_str)
}

/// Exactly one `archive/zip` layer; layers of other types are ignored.
fn only_zip(layers: &[Descriptor]) -> Result<&Descriptor, ArtifactRefusal> {
    let mut zips = layers.iter().filter(|l| l.media_type == ZIP);
    match (zips.next(), zips.next()) {
        (Some(zip), None) => Ok(zip),
        (Some(_), Some(_)) => {
            refuse(format!("more than one layer is of mediaType {ZIP:?}; wanted exactly one"))
        }
        (None, _) => {
            let got: Vec<_> = layers.iter().map(|l| l.media_type.as_str()).collect();
            refuse(format!("no layer is of mediaType {ZIP:?}; got {got:?}"))
        }
    }
}

fn targets(entries: &[Descriptor]) -> Result<Vec<Target>, ArtifactRefusal> {
    let mut out: Vec<Target> = Vec::new();
    for entry in entries.iter().filter(|e| e.artifact_type.as_deref() == Some(PROVIDER_TARGET)) {
        if entry.media_type != IMAGE {
            return refuse(format!(
                "the entry {} of the release is of mediaType {:?}; wanted {IMAGE:?}",
                entry.digest, entry.media_type
            ));
        }
        let Some(p) = &entry.platform else {
            return refuse(format!("the entry {} of the release has no platform", entry.digest));
        };
        if !p.os_version.is_empty() {
            continue;
        }
        let Some(platform) = Platform::new(&p.os, &p.architecture) else {
            return refuse(format!(
                "the entry {} of the release is for {:?}_{:?}, which is no platform of OpenTofu",
                entry.digest, p.os, p.architecture
            ));
        };
        out.push(Target { platform, package: PackageEntry::Manifest(entry.clone()) });
    }
    out.sort_by(|a, b| a.platform.cmp(&b.platform));
    if let Some(pair) = out.windows(2).find(|w| w[0].platform == w[1].platform) {
        return refuse(format!(
            "the release is ambiguous: {} stands in it twice",
            pair[0].platform
        ));
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
