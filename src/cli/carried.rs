//! Where providers are, as far as nobody says it now: what bundles say of themselves, and what a
//! `pull` was told.

use std::path::Path;
use std::sync::Arc;

use super::output::CommandError;
use super::source::SourceSetting;
use crate::facts;
use crate::mapping::{Carried, Mapping};
use crate::name::Host;
use crate::registry::HostStore;
use crate::registry::layout::{LayoutArchive, LayoutDirectory};

/// A store that a source is; `None` of a registry.
pub fn store(source: &SourceSetting) -> Result<Option<Arc<dyn HostStore>>, CommandError> {
    Ok(match source {
        SourceSetting::Registry { .. } | SourceSetting::Providers { .. } => None,
        SourceSetting::Layouts(dir) => {
            Some(Arc::new(LayoutDirectory::open(dir).map_err(CommandError::failed)?))
        }
        SourceSetting::Archive(file) => {
            Some(Arc::new(LayoutArchive::open(file).map_err(CommandError::failed)?))
        }
    })
}

/// What the stores among `sources` say of the providers in them.
pub fn of_sources(sources: &[SourceSetting]) -> Result<Carried, CommandError> {
    let mut all = Carried::default();
    for source in sources {
        if let Some(store) = store(source)? {
            all = all.and(&store.carried().map_err(CommandError::failed)?);
        }
    }
    Ok(all)
}

/// The rules that commands with the cache `dir` were given, as far as they lead to registries of
/// `sources`.
pub fn remembered(dir: &Path, sources: &[SourceSetting]) -> Result<Mapping, CommandError> {
    let Carried { providers, mapping } = facts::remembered_in(dir);
    if mapping.rules().is_empty() {
        return Ok(mapping);
    }
    let mut hosts: Vec<Host> = Vec::new();
    for source in sources {
        match (source, store(source)?) {
            (_, Some(store)) => hosts.extend(store.hosts().map_err(CommandError::failed)?),
            (SourceSetting::Registry { host, .. }, None) => hosts.push(host.clone()),
            _ => {}
        }
    }
    Ok(mapping.only(|rule| match rule.prefix() {
        Some((host, _)) => hosts.contains(&host),
        None => providers
            .iter()
            .filter(|p| rule.matches(p))
            .any(|p| rule.repo(p).is_ok_and(|r| hosts.contains(&r.host))),
    }))
}
