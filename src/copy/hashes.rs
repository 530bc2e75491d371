//! The hashes that a lock file holds of a provider release: from its manifests alone, as far as its
//! publisher annotated them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::artifact::{H1_ANNOTATION, Release, Target};
use crate::digest::Digest;
use crate::facts::{Admitted, Facts, TargetPackage, Unpacking};
use crate::failure::{Failure, Refusal};
use crate::lockfile::PackageHash;
use crate::name::{Platform, Repo, Selector};
use crate::oci::Descriptor;

/// One platform of a release.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashedPlatform {
    pub platform: Platform,
    pub zip: Descriptor,
    /// `zh:`, the digest of the zip.
    pub zh: PackageHash,
    /// `h1:` of the unpacked package, where it is annotated by who is asked to vouch for it.
    pub h1: Option<PackageHash>,
}

/// What the manifests of a release say: of `platforms`, or of all if none is named. Downloads no
/// package.
///
/// # Errors
/// The manifest is no provider release, or it lacks a platform that was named.
pub async fn of_release(
    facts: &Arc<Facts>,
    repo: &Repo,
    digest: Digest,
    platforms: &[Platform],
) -> Result<Vec<HashedPlatform>, Refusal> {
    let targets = targets(facts, repo, digest, platforms).await?;
    let is_vouched_for = !facts.gate().admits_zips_alone(repo);
    let hashed = targets.iter().map(|target| async move {
        let TargetPackage { manifest, archive: zip } =
            facts.manifests().target(repo, target).await?;
        let of_entry = target.manifest().map(|entry| &entry.annotations);
        let of_manifest = manifest.as_ref().map(|manifest| &manifest.annotations);
        let places = [of_entry, of_manifest, Some(&zip.annotations)];
        let h1 = places.into_iter().flatten().find_map(annotated).filter(|_| is_vouched_for);
        Ok(HashedPlatform {
            platform: target.platform.clone(),
            zh: PackageHash::of_zip(&zip.digest.hex()),
            h1,
            zip,
        })
    });
    join_all(hashed).await.into_iter().collect()
}

/// The platforms of a release: those that are named, or all.
///
/// # Errors
/// As of [`of_release`].
pub async fn targets(
    facts: &Arc<Facts>,
    repo: &Repo,
    digest: Digest,
    platforms: &[Platform],
) -> Result<Vec<Target>, Refusal> {
    let subject = || repo.at(Selector::Digest(digest));
    let (_, release) = facts.manifests().release(repo, digest).await?;
    let Release::Provider(targets) = release else {
        return Err(Refusal::new(
            Failure::Structure,
            subject(),
            "this is a module, no provider release",
        ));
    };
    if platforms.is_empty() {
        return Ok(targets);
    }
    let wanted = platforms.iter().map(|platform| {
        targets.iter().find(|target| target.platform == *platform).cloned().ok_or_else(|| {
            let there: Vec<_> = targets.iter().map(|target| target.platform.to_string()).collect();
            let rule =
                format!("the release has no package for {platform}; it has {}", there.join(", "));
            Refusal::new(Failure::Absent, subject(), rule)
        })
    });
    wanted.collect()
}

/// The `h1:` hash of a package that is not annotated, as clients compute it of the unpacked
/// package; and whether they compute another one of the zip, which has entries for directories.
/// Fetches and reads all of it.
pub async fn computed(
    facts: &Arc<Facts>,
    admitted: &Admitted,
    repo: &Repo,
    zip: &Descriptor,
) -> Result<(PackageHash, bool), Refusal> {
    let package = facts.content().package(admitted, repo, zip, Unpacking::WhenOpened).await?;
    let hashes = facts.content().hashes(&package).await?;
    Ok((PackageHash::of_files(&hashes.directory), hashes.directory != hashes.archive))
}

fn annotated(annotations: &BTreeMap<String, String>) -> Option<PackageHash> {
    annotations.get(H1_ANNOTATION)?.parse::<PackageHash>().ok().filter(|hash| hash.is("h1"))
}
