//! Where releases are mirrored to.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::wanted::WantedVersions;
use crate::cli::output::CommandError;
use crate::cli::source::SourceSetting;
use crate::mapping::MappingRule;
use crate::name::{Host, ModuleAddr, ProviderAddr, Repo};

/// What stands behind a registry, or a part of one, in the template for providers.
const OF_PROVIDERS: &str = "/${namespace}/${type}";

/// Where releases go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MirrorDestination {
    /// A store, with the names that the providers have.
    Store(PathBuf),
    /// Repositories by a template.
    Template(String),
}

impl MirrorDestination {
    /// Reads what `--to` says; a relative directory is one below `base`.
    ///
    /// # Errors
    /// It is no place for releases.
    pub fn parse(text: &OsStr, base: &Path) -> Result<MirrorDestination, CommandError> {
        if let Some(template) = text.to_str().filter(|text| text.contains("${")) {
            return Ok(MirrorDestination::Template(template.to_owned()));
        }
        let behind = |part: String| MirrorDestination::Template(part + OF_PROVIDERS);
        match SourceSetting::parse(text, base).map_err(CommandError::usage)? {
            SourceSetting::Layouts(dir) => Ok(MirrorDestination::Store(dir)),
            registry @ SourceSetting::Registry { .. } => Ok(behind(registry.to_string())),
            origin @ SourceSetting::Providers { .. } => Err(CommandError::usage(format_args!(
                "--to {origin}: nothing can be written to a provider registry"
            ))),
            archive @ SourceSetting::Archive(_) => Err(CommandError::usage(format_args!(
                "--to {archive}: an archive is written as a whole; mirror to oci:DIR and copy that"
            ))),
        }
    }

    /// The rule by which providers of `host` find their repositories.
    ///
    /// # Errors
    /// The template is wrong.
    pub fn rule(&self, host: &Host) -> Result<MappingRule, CommandError> {
        let store;
        let template = match self {
            MirrorDestination::Template(template) => template,
            MirrorDestination::Store(_) => {
                store = format!("{host}/${{namespace}}/${{type}}");
                &store
            }
        };
        MappingRule::new(template, &[format!("{host}/*/*")], &[]).map_err(CommandError::usage)
    }

    /// The repository of a module.
    ///
    /// # Errors
    /// It would have no name; or a template for providers was typed.
    pub fn module_repo(&self, module: &ModuleAddr) -> Result<Repo, CommandError> {
        let path = module.path().to_ascii_lowercase();
        let repo = match self {
            MirrorDestination::Store(_) => format!("{}/{path}", module.host),
            MirrorDestination::Template(template) => match template.strip_suffix(OF_PROVIDERS) {
                Some(part) if !part.contains("${") => format!("{part}/{path}"),
                _ => {
                    return Err(CommandError::usage(format_args!(
                        "--to {template}: with --modules write HOST[:PORT][/PREFIX] or oci:DIR"
                    )));
                }
            },
        };
        repo.parse().map_err(CommandError::usage)
    }

    /// The repository of each provider. No two share one: a version is one release.
    ///
    /// # Errors
    /// Two would.
    pub fn repos(
        &self,
        wanted: &[WantedVersions],
    ) -> Result<BTreeMap<ProviderAddr, Repo>, CommandError> {
        let mut repos = BTreeMap::new();
        let mut owners: BTreeMap<Repo, &ProviderAddr> = BTreeMap::new();
        for WantedVersions { provider, .. } in wanted {
            let repo = self.rule(&provider.host)?.repo(provider).map_err(CommandError::usage)?;
            match owners.insert(repo.clone(), provider) {
                Some(other) if other != provider => {
                    return Err(CommandError::usage(format_args!(
                        "{other} and {provider} would both become {repo}; give --to a template \
                         with ${{hostname}}"
                    )));
                }
                _ => {}
            }
            repos.insert(provider.clone(), repo);
        }
        Ok(repos)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::copy::mirror::VersionSelection;

    fn destination(text: &str) -> Result<MirrorDestination, CommandError> {
        MirrorDestination::parse(OsStr::new(text), Path::new("/base"))
    }

    fn wanted(provider: &str) -> WantedVersions {
        let provider = provider.parse().unwrap();
        WantedVersions { provider, selection: VersionSelection::default(), lock: BTreeSet::new() }
    }

    #[test]
    fn a_provider_has_its_own_repository() {
        let aws = "registry.opentofu.org/hashicorp/aws";
        for (to, repo) in [
            ("ghcr.io/acme/providers", "ghcr.io/acme/providers/hashicorp/aws"),
            ("localhost:5000", "localhost:5000/hashicorp/aws"),
            ("ghcr.io/acme/${namespace}-${type}", "ghcr.io/acme/hashicorp-aws"),
            (
                "ghcr.io/${hostname}/${namespace}/${type}",
                "ghcr.io/registry.opentofu.org/hashicorp/aws",
            ),
            ("oci:store", aws),
        ] {
            let repos = destination(to).unwrap().repos(&[wanted(aws)]).unwrap();
            assert_eq!(repos.values().map(Repo::to_string).collect::<Vec<_>>(), [repo], "{to}");
        }
        let both = [wanted(aws), wanted("registry.terraform.io/hashicorp/aws")];
        let refused = destination("ghcr.io/acme").unwrap().repos(&both).unwrap_err();
        assert!(refused.to_string().contains("${hostname}"), "{refused}");
        assert!(destination("oci:store").unwrap().repos(&both).is_ok());
        for bad in ["oci-archive:x.tar", "ghcr.io/acme/${type}", "./store", ""] {
            let refused = destination(bad).and_then(|to| to.repos(&[wanted(aws)]));
            assert!(matches!(refused, Err(CommandError::Usage(_))), "{bad}");
        }
    }
}
