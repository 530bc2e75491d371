//! What vendors say of the package of one platform: the sums and signatures that its manifest keeps
//! beside the zip, or those of the provider registry from which the release comes.

use super::Gate;
use crate::artifact::{Release, ReleaseDocument, TITLE_ANNOTATION, Target};
use crate::facts::manifests::TargetPackage;
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, Repo};
use crate::oci::{Descriptor, Manifest, ManifestBody};
use crate::trust::Asked;
use crate::trust::vendor::{SUMS_MAX, VendorPackage, VendorSums, is_signature, is_sums};

/// How many pairs of sums and signatures of one package are looked at.
const PAIRS_MAX: usize = 16;

/// What there is of one package.
#[derive(Default)]
pub(super) struct VendorEvidence {
    pub found: Vec<(VendorPackage, VendorSums)>,
    /// Why there may be more.
    pub lacking: Option<Refusal>,
}

impl Gate {
    /// Looks for it. What a release or a manifest breaks of the rules says nothing for it.
    pub(super) async fn vendor_evidence(&self, asked: &Asked) -> VendorEvidence {
        let Some(platform) = &asked.platform else { return VendorEvidence::default() };
        match self.of_vendor(asked, platform).await {
            Ok(found) => VendorEvidence { found, lacking: None },
            Err(e) if e.failure == Failure::Structure => VendorEvidence::default(),
            Err(e) => VendorEvidence { found: Vec::new(), lacking: Some(e) },
        }
    }

    async fn of_vendor(
        &self,
        asked: &Asked,
        platform: &Platform,
    ) -> Result<Vec<(VendorPackage, VendorSums)>, Refusal> {
        let reference = asked.reference();
        let (document, release) = self.manifests.release_of(&reference, asked.digest).await?;
        let Release::Provider(targets) = release else { return Ok(Vec::new()) };
        let Some(target) = targets.iter().find(|target| target.platform == *platform) else {
            return Ok(Vec::new());
        };
        let package = |zip| VendorPackage { platform: platform.clone(), zip };
        if let ReleaseDocument::Sums { sums, .. } = document {
            let signature = self.manifests.signature_of(&reference, asked.digest, &sums).await?;
            let of = |signature| VendorSums { sums: sums.raw().to_vec(), signature };
            let found = signature.map(|signature| (package(target.digest()), of(signature)));
            return Ok(found.into_iter().collect());
        }
        let TargetPackage { manifest, archive } =
            self.manifests.target(&asked.repo, target).await?;
        let Some(manifest) = manifest else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (sums, signature) in signed_sums(&manifest) {
            let read = VendorSums {
                sums: self.beside(&asked.repo, &manifest, sums).await?,
                signature: self.beside(&asked.repo, &manifest, signature).await?,
            };
            found.push((package(archive.digest), read));
        }
        Ok(found)
    }

    async fn beside(
        &self,
        repo: &Repo,
        manifest: &Manifest,
        layer: &Descriptor,
    ) -> Result<Vec<u8>, Refusal> {
        self.referrers.layer(repo, manifest, layer, SUMS_MAX).await
    }
}

/// Layers with sums, each with one with a signature of them. They go by their titles: media types
/// differ between registries.
pub fn signed_sums(manifest: &Manifest) -> Vec<(&Descriptor, &Descriptor)> {
    let ManifestBody::Image(layers) = &manifest.body else { return Vec::new() };
    let titled = || layers.iter().filter_map(|l| Some((l, l.annotations.get(TITLE_ANNOTATION)?)));
    let mut pairs = Vec::new();
    for (sums, title) in titled().filter(|(_, title)| is_sums(title)) {
        let of_them = titled().filter(|(_, other)| is_signature(other, title));
        pairs.extend(of_them.map(|(signature, _)| (sums, signature)));
    }
    pairs.truncate(PAIRS_MAX);
    pairs
}

/// The platforms of a release for which leave is asked.
pub type WantedTargets<'a> = &'a (dyn Fn(&Target) -> bool + Sync);
