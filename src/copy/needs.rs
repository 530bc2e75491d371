//! What has to be carried for lock files, root modules and references: releases by digest, and the
//! packages in them.
//!
//! [`Needs::find`] reads directories and asks registries for manifests; packages of providers are
//! not downloaded, those of modules are, since they may call other modules.

mod local;
mod modules;
mod nested;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use futures_util::future::join_all;

use super::select::{Selected, release, select};
use super::{RegistryFacts, hashes};
use crate::artifact::{Release, Target};
use crate::digest::Digest;
use crate::facts::{Admitted, Facts, blocking};
use crate::failure::{Failure, Refusal};
use crate::lockfile::{self, Client, LockFile};
use crate::mapping::{Mapping, MappingError};
use crate::name::{AddressError, Platform, ProviderAddr, Reference, Repo, Selector, Tag};
use crate::oci::Descriptor;

pub use local::providers_of;
pub use modules::{Mounts, Requirements, requirements};
pub use nested::{NestedCall, RegistryCall, nested};

/// For what something is needed.
#[derive(Clone, Default, Debug)]
pub struct Inputs {
    /// Lock files: the versions that they hold of every mapped provider.
    pub lock_files: Vec<PathBuf>,
    /// Root modules: the modules that they call, and the providers that they and those require, in
    /// the versions of `lock_files`, else of the root's own lock file, else in the newest one that
    /// is allowed.
    pub roots: Vec<PathBuf>,
    /// Releases by name.
    pub references: Vec<ReferencePattern>,
    /// Of provider releases these platforms; all if there is none.
    pub platforms: Vec<Platform>,
    /// Where file systems of tofufs are mounted now. A path below one is a release.
    pub mount_points: Vec<PathBuf>,
}

/// A reference whose tag may hold `*` for any text: `ghcr.io/acme/network:1.*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReferencePattern {
    /// One release.
    One(Reference),
    /// All tags of that form.
    Tags(Repo, String),
}

impl FromStr for ReferencePattern {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.contains('*') {
            return text.parse().map(ReferencePattern::One);
        }
        // A star is no part of a tag; what else stands there has to be. The tag is what an address
        // ends with.
        let one = text.replace('*', "_").parse::<Reference>();
        if let Ok(Reference { repo, selector: Selector::Tag(tag) }) = &one
            && let Some((before, form)) = text.split_at_checked(text.len() - tag.as_str().len())
            && !before.contains('*')
        {
            return Ok(ReferencePattern::Tags(repo.clone(), form.to_owned()));
        }
        Err(AddressError::new(
            text,
            "a * stands for any text in a tag, as in ghcr.io/acme/network:1.*",
            None,
        ))
    }
}

impl ReferencePattern {
    /// Whether a release, by its digest or one of its tags, is meant.
    pub fn matches(&self, repo: &Repo, digest: &Digest, tags: &BTreeSet<Tag>) -> bool {
        match self {
            ReferencePattern::One(reference) => {
                reference.repo == *repo
                    && match &reference.selector {
                        Selector::Digest(wanted) => wanted == digest,
                        Selector::Tag(tag) => tags.contains(tag),
                    }
            }
            ReferencePattern::Tags(wanted, form) => {
                wanted == repo && tags.iter().any(|tag| is_of_form(tag.as_str(), form))
            }
        }
    }
}

/// Whether `text` is of `form`, in which `*` stands for any text.
fn is_of_form(text: &str, form: &str) -> bool {
    match form.split_once('*') {
        None => text == form,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|left| {
            (0..=left.len())
                .filter(|at| left.is_char_boundary(*at))
                .any(|at| is_of_form(&left[at..], rest))
        }),
    }
}

/// One platform of a provider release.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeededPackage {
    pub platform: Platform,
    /// Its image manifest, where the release names one.
    pub manifest: Option<Descriptor>,
    /// Its zip.
    pub zip: Descriptor,
}

/// What a release consists of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReleaseContents {
    /// A module package: its zip.
    Module(Descriptor),
    /// A provider release: the platforms that are wanted, in the order of their names.
    Provider(Vec<NeededPackage>),
}

/// A release that is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeededArtifact {
    /// Where it is.
    pub repo: Repo,
    /// The manifest, or the index.
    pub digest: Digest,
    /// By which tags it is needed.
    pub tags: BTreeSet<Tag>,
    /// The parts that are needed.
    pub contents: ReleaseContents,
}

impl NeededArtifact {
    /// Its reference: by the first of its tags, else by digest.
    pub fn reference(&self) -> Reference {
        let selector =
            self.tags.first().cloned().map_or(Selector::Digest(self.digest), Selector::Tag);
        self.repo.at(selector)
    }

    /// Leave to read its packages, by each of the names by which it is needed.
    ///
    /// # Errors
    /// As of [`Gate::admit`](crate::facts::Gate::admit).
    pub async fn admitted(&self, facts: &Facts) -> Result<Admitted, Refusal> {
        let is_needed = |target: &Target| match &self.contents {
            ReleaseContents::Module(_) => false,
            ReleaseContents::Provider(packages) => {
                packages.iter().any(|package| package.platform == target.platform)
            }
        };
        let gate = facts.gate();
        let (mut admitted, _) = gate.admit_all(&self.reference(), self.digest, &is_needed).await?;
        for tag in self.tags.iter().skip(1) {
            let reference = self.repo.at(Selector::Tag(tag.clone()));
            (admitted, _) = gate.admit_all(&reference, self.digest, &is_needed).await?;
        }
        Ok(admitted)
    }

    /// All manifests: the release's own, and those of its platforms.
    pub fn manifests(&self) -> Vec<Digest> {
        let children = match &self.contents {
            ReleaseContents::Module(_) => &[][..],
            ReleaseContents::Provider(packages) => packages,
        };
        [self.digest]
            .into_iter()
            .chain(children.iter().filter_map(|package| Some(package.manifest.as_ref()?.digest)))
            .collect()
    }

    pub fn zips(&self) -> Vec<&Descriptor> {
        match &self.contents {
            ReleaseContents::Module(zip) => vec![zip],
            ReleaseContents::Provider(packages) => {
                packages.iter().map(|package| &package.zip).collect()
            }
        }
    }
}

/// Something that is used and not carried.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LeftOut {
    /// What: a provider, a module's source, a reference.
    pub what: String,
    /// The reason, and who needs it.
    pub why: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// Why needs cannot be told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NeedsError {
    /// A file or directory cannot be read, or breaks a rule.
    #[error("{}: {rule}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The rule or the system's reason.
        rule: String,
    },
    /// A registry's answer, or none.
    #[error(transparent)]
    Fact(#[from] Refusal),
    /// A provider that a rule matches and cannot map.
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

impl NeedsError {
    fn file(path: &Path, rule: impl fmt::Display) -> NeedsError {
        NeedsError::File { path: path.to_owned(), rule: rule.to_string() }
    }
}

/// What is needed, and what is used but not carried.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Needs {
    /// Sorted by repository and digest; each once.
    pub artifacts: Vec<NeededArtifact>,
    /// Sorted; each once.
    pub left_out: Vec<LeftOut>,
    /// The addresses of the providers whose releases are needed, all that the mapping gives their
    /// repositories.
    pub providers: BTreeSet<ProviderAddr>,
}

impl Needs {
    /// Finds out what is needed.
    ///
    /// # Errors
    /// A file that cannot be read, a registry that does not answer, a release or platform that does
    /// not exist. What merely cannot be carried is in [`Needs::left_out`].
    pub async fn find(
        inputs: &Inputs,
        mapping: &Mapping,
        origins: &dyn RegistryFacts,
    ) -> Result<Needs, NeedsError> {
        let mut finding = NeedsFinding::new(inputs, mapping, origins);
        let mut locks = Vec::new();
        for path in &inputs.lock_files {
            let lock_file = read_lock_file(path).await?;
            finding.locked(path, &lock_file).await?;
            locks.push(lock_file);
        }
        for root in &inputs.roots {
            finding.root(root, &locks).await?;
        }
        for pattern in &inputs.references {
            finding.reference(pattern).await?;
        }
        Ok(finding.needs())
    }

    /// The digests of all manifests and packages.
    pub fn digests(&self) -> BTreeSet<Digest> {
        let zips = self.artifacts.iter().flat_map(NeededArtifact::zips).map(|zip| zip.digest);
        self.artifacts.iter().flat_map(NeededArtifact::manifests).chain(zips).collect()
    }
}

struct NeedsFinding<'a> {
    inputs: &'a Inputs,
    mapping: &'a Mapping,
    origins: &'a dyn RegistryFacts,
    found: BTreeMap<(Repo, Digest), NeededArtifact>,
    left_out: BTreeSet<LeftOut>,
    providers: BTreeSet<ProviderAddr>,
}

impl<'a> NeedsFinding<'a> {
    fn new(
        inputs: &'a Inputs,
        mapping: &'a Mapping,
        origins: &'a dyn RegistryFacts,
    ) -> NeedsFinding<'a> {
        let (found, left_out, providers) = Default::default();
        NeedsFinding { inputs, mapping, origins, found, left_out, providers }
    }

    fn needs(mut self) -> Needs {
        let releases = self
            .found
            .values()
            .filter(|found| matches!(found.contents, ReleaseContents::Provider(_)));
        self.providers.extend(releases.flat_map(|found| self.mapping.providers_of(&found.repo)));
        Needs {
            artifacts: self.found.into_values().collect(),
            left_out: self.left_out.into_iter().collect(),
            providers: self.providers,
        }
    }

    async fn locked(&mut self, path: &Path, lock_file: &LockFile) -> Result<(), NeedsError> {
        let by = format!("which {} locks", path.display());
        let mut wanted = Vec::new();
        for (address, lock) in lock_file.locks() {
            wanted.extend(
                self.repos(address, &by)?
                    .map(|repos| (address.clone(), repos, lock.version.clone())),
            );
        }
        let origins = self.origins;
        let selected = wanted
            .iter()
            .map(|(address, repos, version)| release(origins, repos, address, version));
        self.releases(join_all(selected).await).await
    }

    async fn root(&mut self, root: &Path, locks: &[LockFile]) -> Result<(), NeedsError> {
        let own = lock_file_of(root).await?;
        let client =
            locks.iter().chain(&own).find_map(LockFile::client).unwrap_or(Client::OpenTofu);
        let mounts = Mounts::Releases(&self.inputs.mount_points);
        let required = modules::requirements(root, client, mounts, self.origins).await?;
        self.left_out.extend(required.left_out);
        for (reference, digest, zip) in required.releases {
            self.keep(reference, digest, ReleaseContents::Module(zip));
        }
        let by = format!("which {} requires", root.display());
        let mut wanted = Vec::new();
        for (address, constraints) in &required.providers {
            let locked = locks
                .iter()
                .chain(&own)
                .find_map(|file| file.lock(address))
                .map(|lock| &lock.version);
            wanted.extend(
                self.repos(address, &by)?.map(|repos| (address, repos, constraints, locked)),
            );
        }
        let origins = self.origins;
        let selected = wanted.iter().map(|(address, repos, constraints, locked)| {
            select(origins, repos, address, constraints, *locked)
        });
        self.releases(join_all(selected).await).await
    }

    /// The repositories of a provider; none if no rule maps it, which is noted.
    fn repos(
        &mut self,
        address: &ProviderAddr,
        by: &str,
    ) -> Result<Option<Vec<Repo>>, MappingError> {
        let repos = self.mapping.repos(address)?;
        if repos.is_empty() {
            let why = format!("no rule maps this provider, {by}, to a repository");
            self.left_out.insert(LeftOut { what: address.to_string(), why });
            return Ok(None);
        }
        self.providers.insert(address.clone());
        Ok(Some(repos))
    }

    async fn releases(
        &mut self,
        selected: Vec<Result<Selected, Refusal>>,
    ) -> Result<(), NeedsError> {
        let selected = selected.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (origins, platforms) = (self.origins, &self.inputs.platforms);
        let read = selected.iter().map(|Selected { reference, digest, .. }| async move {
            let facts = origins.facts(&reference.repo.host)?;
            packages(&facts, &reference.repo, *digest, platforms).await
        });
        let read = join_all(read).await;
        for (Selected { reference, digest, .. }, contents) in selected.into_iter().zip(read) {
            self.keep(reference, digest, contents?);
        }
        Ok(())
    }

    async fn reference(&mut self, pattern: &ReferencePattern) -> Result<(), NeedsError> {
        let (repo, form) = match pattern {
            ReferencePattern::One(reference) => return Ok(self.release(reference.clone()).await?),
            ReferencePattern::Tags(repo, form) => (repo, form),
        };
        let facts = self.origins.facts(&repo.host)?;
        let tags = facts.tags().list(repo).await?;
        let of_form: Vec<&Tag> = tags.iter().filter(|tag| is_of_form(tag.as_str(), form)).collect();
        if of_form.is_empty() {
            let rule = format!("none of its {} tags is of the form {form:?}", tags.len());
            return Err(Refusal::new(Failure::Absent, repo, rule).into());
        }
        for tag in of_form {
            let reference = repo.at(Selector::Tag(tag.clone()));
            match self.release(reference.clone()).await {
                // Signatures and other tools' artifacts have tags in the same repositories.
                Err(e) if e.failure == Failure::Structure => {
                    self.left_out
                        .insert(LeftOut { what: reference.to_string(), why: e.to_string() });
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    async fn release(&mut self, reference: Reference) -> Result<(), Refusal> {
        let facts = self.origins.facts(&reference.repo.host)?;
        let digest = facts.tags().resolve(&reference).await?;
        let contents = match facts.manifests().release(&reference.repo, digest).await?.1 {
            Release::Module(zip) => ReleaseContents::Module(zip),
            Release::Provider(_) => {
                packages(&facts, &reference.repo, digest, &self.inputs.platforms).await?
            }
        };
        self.keep(reference, digest, contents);
        Ok(())
    }

    fn keep(&mut self, reference: Reference, digest: Digest, contents: ReleaseContents) {
        let Reference { repo, selector } = reference;
        let key = (repo.clone(), digest);
        let new = || NeededArtifact { repo, digest, tags: BTreeSet::new(), contents };
        let artifact = self.found.entry(key).or_insert_with(new);
        if let Selector::Tag(tag) = selector {
            artifact.tags.insert(tag);
        }
    }
}

/// Reads a lock file.
pub async fn read_lock_file(path: &Path) -> Result<LockFile, NeedsError> {
    let file = path.to_owned();
    let text = blocking(move || modules::read_text(&file, lockfile::FILE_MAX)).await??;
    LockFile::parse(&text).map_err(|e| NeedsError::file(path, e))
}

/// The lock file of a working directory, if it has one.
pub async fn lock_file_of(dir: &Path) -> Result<Option<LockFile>, NeedsError> {
    let path = dir.join(lockfile::FILE_NAME);
    let at = path.clone();
    if blocking(move || at.exists()).await? {
        read_lock_file(&path).await.map(Some)
    } else {
        Ok(None)
    }
}

/// The platforms that are wanted of a provider release, with their manifests read.
async fn packages(
    facts: &Arc<Facts>,
    repo: &Repo,
    digest: Digest,
    platforms: &[Platform],
) -> Result<ReleaseContents, Refusal> {
    let targets = hashes::targets(facts, repo, digest, platforms).await?;
    let read = targets.iter().map(|target| async move {
        Ok(NeededPackage {
            platform: target.platform.clone(),
            manifest: target.manifest().cloned(),
            zip: facts.manifests().target(repo, target).await?.archive,
        })
    });
    join_all(read).await.into_iter().collect::<Result<_, _>>().map(ReleaseContents::Provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_reference_whose_tag_may_hold_stars() {
        let pattern = |text: &str| text.parse::<ReferencePattern>();
        assert!(matches!(pattern("a.b/c:1.0"), Ok(ReferencePattern::One(_))));
        assert!(
            matches!(pattern("a.b:5/c:1.*"), Ok(ReferencePattern::Tags(repo, form)) if form == "1.*" && repo.to_string() == "a.b:5/c")
        );
        assert!(
            matches!(pattern("oci://a.b/c?tag=1.*"), Ok(ReferencePattern::Tags(repo, form)) if form == "1.*" && repo.to_string() == "a.b/c")
        );
        assert!(
            matches!(pattern("oci://a.b/c"), Ok(ReferencePattern::One(one)) if one.to_string() == "a.b/c:latest")
        );
        for bad in [
            "a.b/c",
            "a.b/*:1",
            "c:1.*",
            "a.b/c:.*",
            "a.b/c:1/*",
            "a.b/c*d:1",
            "oci://a.b/c*",
            "oci://a.b/c:1.*",
        ] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
        for (text, form, wanted) in [
            ("1.2.0", "1.*", true),
            ("10.2.0", "1.*", false),
            ("1.2.0", "*", true),
            ("1.2.0-rc1", "1.*.0", false),
            ("1.2.0", "1.*.0", true),
            ("1.0", "1.*0*", true),
        ] {
            assert_eq!(is_of_form(text, form), wanted, "{text} {form}");
        }
    }
}
