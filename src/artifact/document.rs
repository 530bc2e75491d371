//! The one document by which a release is recognised.

use std::sync::Arc;

use super::{ArtifactRefusal, Release, ReleaseSums, SignatureOutcome};
use crate::digest::Digest;
use crate::oci::Manifest;

/// The document whose digest is a release's identity, and which names the packages of the release.
#[derive(Clone, Debug)]
pub enum ReleaseDocument {
    /// A manifest, as OCI registries and image layouts have it.
    Manifest(Arc<Manifest>),
    /// The `SHA256SUMS` of a provider registry.
    Sums {
        /// What it says.
        sums: Arc<ReleaseSums>,
        /// What was found of its signature when it was fetched.
        signature: SignatureOutcome,
    },
}

impl ReleaseDocument {
    /// The release's identity.
    pub fn digest(&self) -> Digest {
        match self {
            ReleaseDocument::Manifest(manifest) => manifest.digest,
            ReleaseDocument::Sums { sums, .. } => sums.identity(),
        }
    }

    /// The manifest that it is, if it is one.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        match self {
            ReleaseDocument::Manifest(manifest) => Some(manifest),
            ReleaseDocument::Sums { .. } => None,
        }
    }

    /// The release that it describes.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn release(&self) -> Result<Release, ArtifactRefusal> {
        match self {
            ReleaseDocument::Manifest(manifest) => Release::read(manifest),
            ReleaseDocument::Sums { sums, .. } => Ok(Release::Provider(sums.targets()?)),
        }
    }
}
