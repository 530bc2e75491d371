//! What an export lays out: packages by digest, and the links that lead to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::copy::needs::{NeededArtifact, Needs, ReleaseContents};
use crate::digest::Digest;
use crate::mapping::{Mapping, MappingError};
use crate::name::{Platform, ProviderAddr, Reference, Repo, Selector, Version};
use crate::oci::Descriptor;

/// A package and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportedPackage {
    /// Which of [`Needs::artifacts`] it is a part of.
    pub artifact: usize,
    /// Relative to the directory.
    pub path: PathBuf,
    /// The release, as it is needed.
    pub reference: Reference,
    /// Its manifest.
    pub release: Digest,
    /// Where its archive is.
    pub repo: Repo,
    /// The archive.
    pub archive: Descriptor,
    /// The platform, of a provider: its plugins are executable whatever the archive says.
    pub platform: Option<Platform>,
}

/// What an export consists of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportPlan {
    /// The packages.
    pub packages: Vec<ExportedPackage>,
    /// Links, relative to the directory, and what they lead to.
    pub links: BTreeMap<PathBuf, PathBuf>,
}

impl ExportPlan {
    /// The plan for what is needed.
    ///
    /// # Errors
    /// A provider that a rule matches and cannot map.
    pub fn of(needs: &Needs, mapping: &Mapping) -> Result<ExportPlan, MappingError> {
        let mut plan = ExportPlan { packages: Vec::new(), links: BTreeMap::new() };
        let mut listed = BTreeMap::new();
        for (number, artifact) in needs.artifacts.iter().enumerate() {
            plan.add(number, artifact);
            let name = place(artifact);
            let release = Path::new(name.file_name().unwrap_or_default());
            for tag in &artifact.tags {
                let tagged = artifact.repo.at(Selector::Tag(tag.clone()));
                plan.links.insert(tagged.to_string().into(), release.to_owned());
                let below = Path::new(&artifact.repo.to_string()).join(tag.as_str());
                listed.insert(below, Path::new("..").join(release));
            }
        }
        plan.plugins(needs, mapping)?;
        // Directories of nested repositories come before tags of the same name.
        let places = plan.packages.iter().map(|package| &package.path);
        let taken: BTreeSet<PathBuf> =
            places.chain(plan.links.keys()).chain(listed.keys()).flat_map(|p| above(p)).collect();
        plan.links.extend(listed.into_iter().filter(|(path, _)| !taken.contains(path)));
        Ok(plan)
    }

    fn add(&mut self, number: usize, artifact: &NeededArtifact) {
        let at = place(artifact);
        let planned = |path: PathBuf, archive: &Descriptor, platform| ExportedPackage {
            artifact: number,
            path,
            reference: artifact.reference(),
            release: artifact.digest,
            repo: artifact.repo.clone(),
            archive: archive.clone(),
            platform,
        };
        match &artifact.contents {
            ReleaseContents::Module(zip) => self.packages.push(planned(at, zip, None)),
            ReleaseContents::Provider(packages) => {
                self.packages.extend(packages.iter().map(|package| {
                    let (zip, platform) = (&package.zip, &package.platform);
                    planned(at.join(platform.to_string()), zip, Some(platform.clone()))
                }));
            }
        }
    }

    /// The links of `plugins/`: of several repositories that have a version of a provider the first
    /// by the rules counts.
    fn plugins(&mut self, needs: &Needs, mapping: &Mapping) -> Result<(), MappingError> {
        for provider in &needs.providers {
            for repo in mapping.repos(provider)?.iter().rev() {
                for artifact in needs.artifacts.iter().filter(|artifact| artifact.repo == *repo) {
                    self.links.extend(plugin_links(provider, artifact));
                }
            }
        }
        Ok(())
    }
}

fn plugin_links(provider: &ProviderAddr, artifact: &NeededArtifact) -> Vec<(PathBuf, PathBuf)> {
    let ReleaseContents::Provider(packages) = &artifact.contents else { return Vec::new() };
    let mut links = Vec::new();
    for version in artifact.tags.iter().filter_map(Version::of_tag) {
        let dir = Path::new("plugins").join(provider.to_string()).join(version.to_string());
        let up: PathBuf = dir.components().map(|_| "..").collect();
        for package in packages {
            let platform = package.platform.to_string();
            links.push((dir.join(&platform), up.join(place(artifact)).join(platform)));
        }
    }
    links
}

/// Where a release is: its digest names one content for ever.
fn place(artifact: &NeededArtifact) -> PathBuf {
    artifact.repo.at(Selector::Digest(artifact.digest)).to_string().into()
}

fn above(path: &Path) -> impl Iterator<Item = PathBuf> {
    path.ancestors().skip(1).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::needs::NeededPackage;
    use crate::digest::Digest;
    use crate::mapping::MappingRule;

    fn blob(text: &str) -> Descriptor {
        Descriptor::bare(Digest::of(text.as_bytes()), 1)
    }

    fn artifact(repo: &str, tags: &[&str], contents: ReleaseContents) -> NeededArtifact {
        NeededArtifact {
            repo: repo.parse().unwrap(),
            digest: Digest::of(repo.as_bytes()),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            contents,
        }
    }

    fn links(plan: &ExportPlan) -> Vec<String> {
        let line =
            |(path, to): (&PathBuf, &PathBuf)| format!("{} {}", path.display(), to.display());
        plan.links.iter().map(line).collect()
    }

    #[test]
    fn a_release_has_its_place_by_digest_and_links_by_tag() {
        let module = ReleaseContents::Module(blob("zip"));
        let needs = Needs {
            artifacts: vec![artifact("r.io/a/net", &["1.0", "v1"], module)],
            ..Needs::default()
        };
        let plan = ExportPlan::of(&needs, &Mapping::new(Vec::new())).unwrap();
        let release = format!("net@{}", Digest::of(b"r.io/a/net"));
        assert_eq!(plan.packages[0].path, Path::new("r.io/a").join(&release));
        assert_eq!(
            links(&plan),
            [
                format!("r.io/a/net/1.0 ../{release}"),
                format!("r.io/a/net/v1 ../{release}"),
                format!("r.io/a/net:1.0 {release}"),
                format!("r.io/a/net:v1 {release}"),
            ]
        );
    }

    #[test]
    fn a_nested_repository_has_the_directory_that_a_tag_is_called_like() {
        let module = || ReleaseContents::Module(blob("zip"));
        let artifacts =
            vec![artifact("r.io/a", &["b"], module()), artifact("r.io/a/b", &["1"], module())];
        let plan =
            ExportPlan::of(&Needs { artifacts, ..Needs::default() }, &Mapping::new(Vec::new()));
        let paths: Vec<_> = plan.unwrap().links.into_keys().collect();
        let expected = ["r.io/a/b/1", "r.io/a/b:1", "r.io/a:b"];
        assert_eq!(paths, expected.map(PathBuf::from));
    }

    #[test]
    fn every_address_of_a_provider_leads_to_its_package() {
        let package = |platform: &str| NeededPackage {
            platform: platform.parse().unwrap(),
            manifest: Some(blob("manifest")),
            zip: blob(platform),
        };
        let provider = ReleaseContents::Provider(vec![package("linux_amd64")]);
        let needs = Needs {
            artifacts: vec![artifact("r.io/p/aws", &["1.0.0_b", "latest"], provider)],
            providers: ["x.org/acme/aws", "y.org/acme/aws"].map(|p| p.parse().unwrap()).into(),
            ..Needs::default()
        };
        let rule = |of: &str| MappingRule::new("r.io/p/${type}", &[of.to_owned()], &[]).unwrap();
        let mapping = Mapping::new(vec![rule("x.org/acme/*"), rule("y.org/acme/*")]);
        let plan = ExportPlan::of(&needs, &mapping).unwrap();
        assert!(
            plan.packages[0].platform.is_some() && plan.packages[0].path.ends_with("linux_amd64")
        );
        for host in ["x.org", "y.org"] {
            let path = format!("plugins/{host}/acme/aws/1.0.0+b/linux_amd64");
            let target = &plan.links[Path::new(&path)];
            let release = format!("r.io/p/aws@{}", Digest::of(b"r.io/p/aws"));
            assert_eq!(*target, Path::new("../../../../..").join(release).join("linux_amd64"));
        }
        let versions = plan.links.keys().filter(|path| path.starts_with("plugins"));
        assert_eq!(versions.count(), 2, "a tag that is no version names none");
    }
}
