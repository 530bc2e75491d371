//! Which release of a provider is meant: the version, and the repository that has it.

use std::collections::BTreeSet;

use super::RegistryFacts;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::Constraints;
use crate::name::{ProviderAddr, Reference, Repo, Selector, Version};

/// A release of a provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selected {
    /// The version.
    pub version: Version,
    /// The first of the provider's repositories that has it.
    pub reference: Reference,
    /// Its index.
    pub digest: Digest,
}

/// The version that is locked, if it is allowed; else the newest one that is in any of `repos`,
/// which come in order of preference.
///
/// # Errors
/// `Absent` if there is no such release, with those that there are.
pub async fn select(
    origins: &dyn RegistryFacts,
    repos: &[Repo],
    address: &ProviderAddr,
    constraints: &Constraints,
    locked: Option<&Version>,
) -> Result<Selected, Refusal> {
    let version = match locked.filter(|locked| constraints.allow(locked)) {
        Some(locked) => locked.clone(),
        None => newest(origins, repos, address, constraints).await?,
    };
    release(origins, repos, address, &version).await
}

/// The release of a certain version.
///
/// # Errors
/// `Absent` if no repository has it.
pub async fn release(
    origins: &dyn RegistryFacts,
    repos: &[Repo],
    address: &ProviderAddr,
    version: &Version,
) -> Result<Selected, Refusal> {
    let shown: Vec<_> = repos.iter().map(Repo::to_string).collect();
    let Some(tag) = version.tag() else {
        return Err(Refusal::new(
            Failure::Absent,
            address,
            format_args!("{version} is too long for a tag"),
        ));
    };
    for repo in repos {
        let reference = repo.at(Selector::Tag(tag.clone()));
        match origins.facts(&repo.host)?.resolve(&reference).await {
            Ok(digest) => return Ok(Selected { version: version.clone(), reference, digest }),
            Err(e) if e.failure == Failure::Absent => {}
            Err(e) => return Err(e),
        }
    }
    let rule = format!("there is no release {version} in {}", shown.join(" or "));
    Err(Refusal::new(Failure::Absent, address, rule))
}

async fn newest(
    origins: &dyn RegistryFacts,
    repos: &[Repo],
    address: &ProviderAddr,
    constraints: &Constraints,
) -> Result<Version, Refusal> {
    let mut versions = BTreeSet::new();
    for repo in repos {
        match origins.facts(&repo.host)?.tags(repo).await {
            Ok(tags) => versions.extend(tags.iter().filter_map(Version::of_tag)),
            Err(e) if e.failure == Failure::Absent => {}
            Err(e) => return Err(e),
        }
    }
    constraints.newest(&versions).cloned().ok_or_else(|| {
        let shown: Vec<_> = repos.iter().map(Repo::to_string).collect();
        let there = versions.last().map_or("no version".to_owned(), |last| {
            format!("{} versions, up to {last}", versions.len())
        });
        let wanted = if constraints.is_empty() {
            "any release".to_owned()
        } else {
            format!("{:?}", constraints.to_string())
        };
        let rule = format!("no version fulfils {wanted}; {} has {there}", shown.join(" with "));
        Refusal::new(Failure::Absent, address, rule)
    })
}
