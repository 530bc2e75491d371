//! The mapping of providers to repositories: the rules that were given, by flags or by the CLI
//! configuration, and which of all rules count for a mount.

use super::access::{ClientConfiguration, RegistryAccess};
use super::carried;
use super::output::CommandError;
use super::settings::MountSettings;
use super::source::SourceSetting;
use super::tofurc::{InstallationLocation, Tofurc};
use crate::mapping::{Mapping, MappingError, MappingRule};
use crate::name::{Host, RepoName};
use crate::registry::HostStore;
use crate::registry::layout::{LayoutArchive, LayoutDirectory};

/// The mapping of the `oci_mirror` blocks of a CLI configuration; empty if there is none.
///
/// # Errors
/// A block is wrong; the subject says where it stands.
pub fn of_tofurc(tofurc: &Tofurc) -> Result<Mapping, MappingError> {
    let methods = tofurc.installation.iter().flatten();
    let rules = methods.filter_map(|method| match &method.location {
        InstallationLocation::OciMirror(template) => {
            let rule = MappingRule::new(template, &method.include, &method.exclude);
            Some(rule.map_err(|e| MappingError {
                subject: format!("{}: {}", method.origin, e.subject),
                rule: e.rule,
            }))
        }
        _ => None,
    });
    Ok(Mapping::new(rules.collect::<Result<_, _>>()?))
}

/// The mapping of a CLI configuration.
pub fn of_configuration(configuration: &ClientConfiguration) -> Result<Mapping, CommandError> {
    of_tofurc(configuration.tofurc()?).map_err(CommandError::failed)
}

/// The rules that were given, which then count alone: by flags, or by the CLI configuration that
/// was named.
pub fn given(
    flags: Option<&Mapping>,
    configuration: &ClientConfiguration,
) -> Result<Option<Mapping>, CommandError> {
    if let Some(mapping) = flags {
        return Ok(Some(mapping.clone()));
    }
    if !configuration.is_named() {
        return Ok(None);
    }
    let named = of_configuration(configuration)?;
    Ok((!named.rules().is_empty()).then_some(named))
}

/// The rules by which provider registries hold their own providers.
fn of_origins(sources: &[SourceSetting]) -> Result<Mapping, CommandError> {
    let rules = sources.iter().filter_map(|source| match source {
        SourceSetting::Providers { host, part } => Some(MappingRule::itself(host, part.as_ref())),
        _ => None,
    });
    Ok(Mapping::new(rules.collect::<Result<_, _>>().map_err(CommandError::usage)?))
}

/// The settings with what was not said in them: the mapping, the providers, and the registries to
/// which the mapping leads, which count as sources behind those that were declared. What a bundle
/// says leads to no registry.
pub fn resolved(
    settings: &MountSettings,
    access: &RegistryAccess,
) -> Result<MountSettings, CommandError> {
    let configuration = access.configuration();
    let mut settings = settings.clone();
    let (asked, mapping) = match given(settings.mapping.as_ref(), configuration)? {
        Some(given) => {
            settings.providers.carried =
                carried::of_sources(&settings.sources).unwrap_or_default().providers;
            (given.clone(), given)
        }
        None => {
            let carried = carried::of_sources(&settings.sources)?;
            let remembered = carried::remembered(&settings.cache_dir, &settings.sources)?;
            let asked = of_configuration(configuration)?.or(&remembered);
            settings.providers.carried = carried.providers;
            (asked.clone(), carried.mapping.or(&asked))
        }
    };
    let mapping = mapping.or(&of_origins(&settings.sources)?);
    settings.providers.declared.extend(settings.sources.iter().filter_map(SourceSetting::provider));
    settings.providers = settings.providers.resolved(&mapping)?;
    let of_providers =
        settings.providers.declared.iter().flat_map(|p| asked.repos(p).unwrap_or_default());
    let mut led_to = asked.prefixes();
    led_to.extend(of_providers.map(|repo| (repo.host, Some(repo.name))));
    for (host, prefix) in led_to {
        if !is_declared(&settings.sources, &host, prefix.as_ref())? {
            settings.sources.push(SourceSetting::Registry { host, prefix });
        }
    }
    settings.mapping = Some(mapping);
    Ok(settings)
}

/// Whether a source holds what lies below `prefix` of `host`. A store that has the registry has all
/// of it.
fn is_declared(
    sources: &[SourceSetting],
    host: &Host,
    prefix: Option<&RepoName>,
) -> Result<bool, CommandError> {
    for source in sources {
        let holds = match source {
            SourceSetting::Registry { host: declared, prefix: None } => declared == host,
            SourceSetting::Registry { host: declared, prefix: part } => {
                declared == host && prefix.is_some_and(|prefix| prefix.is_within(part.as_ref()))
            }
            // Nothing of an OCI registry.
            SourceSetting::Providers { .. } => false,
            SourceSetting::Layouts(dir) => {
                LayoutDirectory::open(dir).map_err(CommandError::failed)?.holds(host)
            }
            SourceSetting::Archive(file) => {
                LayoutArchive::open(file).map_err(CommandError::failed)?.holds(host)
            }
        };
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tofurc::ClientEnvironment;

    #[test]
    fn a_registry_that_a_rule_names_is_a_source_unless_it_is_one_already() {
        let source = |text: &str| SourceSetting::parse(text.as_ref(), "/".as_ref()).unwrap();
        let declared = |sources: &[&str], host: &str, prefix: Option<&str>| {
            let sources: Vec<_> = sources.iter().map(|text| source(text)).collect();
            let prefix = prefix.map(|p| p.parse().unwrap());
            is_declared(&sources, &host.parse().unwrap(), prefix.as_ref()).unwrap()
        };
        assert!(declared(&["a.b"], "a.b", None) && declared(&["c.d", "a.b"], "a.b", Some("x")));
        assert!(declared(&["a.b/x"], "a.b", Some("x/y")));
        assert!(!declared(&["a.b/x"], "a.b", Some("xy")) && !declared(&["a.b/x"], "a.b", None));
        assert!(!declared(&["c.d"], "a.b", None));
        let store = tempfile::tempdir().unwrap();
        std::fs::create_dir(store.path().join("a.b")).unwrap();
        let store = format!("oci:{}", store.path().display());
        assert!(declared(&[&store], "a.b", None) && !declared(&[&store], "c.d", None));
    }

    #[test]
    fn without_flags_the_cli_configuration_has_the_rules() {
        let dir = tempfile::tempdir().unwrap();
        let load = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            of_tofurc(&Tofurc::load_file(&file, &ClientEnvironment::new(dir.path())).unwrap())
        };
        let hcl = r#"provider_installation {
            oci_mirror {
              repository_template = "r.io/${namespace}/${type == "x" ? "y" : type}"
              include = ["a.b/*/*"]
              exclude = ["a.b/c/*"]
            }
            filesystem_mirror { path = "/x" }
            oci_mirror { repository_template = "s.io/${hostname}/${namespace}/${type}" }
            direct {}
        }"#;
        let json = r#"{"provider_installation": [{"oci_mirror": [
            {"repository_template": "r.io/${namespace}/${type == \"x\" ? \"y\" : type}", "include": ["a.b/*/*"],
             "exclude": ["a.b/c/*"]},
            {"repository_template": "s.io/${hostname}/${namespace}/${type}"}]}]}"#;
        let mapping = load("tofurc", hcl).unwrap();
        assert_eq!(mapping.rules().len(), 2);
        assert_eq!(load("tofurc.json", json).unwrap(), mapping);
        assert_eq!(load("none", "plugin_cache_dir = \"/x\"\n").unwrap(), Mapping::default());
        let wrong =
            "provider_installation {\n oci_mirror { repository_template = \"r.io/${type}\" }\n}";
        let error = load("wrong", wrong).unwrap_err().to_string();
        assert!(
            error.contains("wrong:2: the repository template") && error.contains("must refer to"),
            "{error}"
        );
    }
}
