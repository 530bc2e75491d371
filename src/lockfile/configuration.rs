//! Configuration files of a module: which providers it requires, and which modules it calls.
//!
//! Only what decides about providers and modules is read; whether the rest makes sense is for the
//! client to say.

mod hcl;
mod json;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::name::{Host, NameError, ProviderAddr};

use super::{Client, SyntaxError};
use crate::name::Constraints;

/// The namespace of providers that a configuration uses without saying where they come from.
const DEFAULT_NAMESPACE: &str = "hashicorp";
/// The local name of what is built into the clients.
const BUILT_IN: &str = "terraform";
/// The host of addresses of what is built in.
const BUILT_IN_HOST: &str = "terraform.io";

/// A call of another module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its name in the configuration.
    pub name: String,
    /// The source address as written; `None` where it is computed, or missing.
    pub source: Option<String>,
    /// What it asks of the module's version, as written.
    pub version: Option<String>,
    /// The line of its source, from 1, in native syntax.
    pub line: Option<usize>,
}

/// An entry of `required_providers`.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Required {
    source: Option<String>,
    version: Option<String>,
}

/// What the files of one directory say together.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// By local name.
    required: BTreeMap<String, Required>,
    /// `version` of `provider` blocks, by local name.
    versions: Vec<(String, String)>,
    /// Local names that are used.
    used: BTreeSet<String>,
    calls: BTreeMap<String, Call>,
    files: usize,
}

/// A file's name without its kind, and the kind.
fn stem(name: &str) -> Option<(&str, &'static str)> {
    const KINDS: [&str; 4] = [".tofu", ".tofu.json", ".tf", ".tf.json"];
    let kind = KINDS.into_iter().find(|kind| name.ends_with(kind))?;
    Some((name.strip_suffix(kind)?, kind))
}

/// Which files of a directory a client reads, in its order: those that override come last.
pub fn files_of<'a>(names: impl IntoIterator<Item = &'a str>, client: Client) -> Vec<&'a str> {
    let hidden = |name: &str| {
        name.starts_with('.')
            || name.ends_with('~')
            || (name.starts_with('#') && name.ends_with('#'))
    };
    let all: BTreeSet<&str> = names.into_iter().filter(|name| !hidden(name)).collect();
    let wanted = |name: &&str| match (client, stem(name)) {
        (_, None) => false,
        (Client::Terraform, Some((_, kind))) => kind.starts_with(".tf"),
        (Client::OpenTofu, Some((stem, kind))) => {
            let own = kind.replace(".tf", ".tofu");
            kind == own || !all.contains(format!("{stem}{own}").as_str())
        }
    };
    let overrides = |name: &str| {
        stem(name).is_some_and(|(stem, _)| stem == "override" || stem.ends_with("_override"))
    };
    let mut files: Vec<&str> = all.iter().copied().filter(wanted).collect();
    files.sort_by_key(|name| overrides(name));
    files
}

impl Configuration {
    /// Adds what the file `name` says. Files come in the order of [`files_of`].
    ///
    /// # Errors
    /// The file is not of the syntax that its name says.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), SyntaxError> {
        let mut file = Configuration::default();
        if name.ends_with(".json") {
            json::read(&mut file, text)?
        } else {
            hcl::read(&mut file, text)?
        }
        // A later file takes the place of what an earlier one says about the same name.
        self.required.extend(file.required);
        self.versions.extend(file.versions);
        self.used.extend(file.used);
        self.calls.extend(file.calls);
        self.files += 1;
        Ok(())
    }

    /// How many files said so.
    pub fn files(&self) -> usize {
        self.files
    }

    /// The modules that are called, in the order of their names.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.values()
    }

    /// The providers that are required, each with what it has to fulfil. `default` is the registry
    /// of addresses that name none.
    ///
    /// # Errors
    /// An address or constraint that the clients refuse, with the provider's local name.
    pub fn providers(
        &self,
        default: &Host,
    ) -> Result<BTreeMap<ProviderAddr, Constraints>, SyntaxError> {
        let refuse = |local: &str, e: &dyn std::fmt::Display| SyntaxError {
            line: None,
            rule: format!("provider {local:?}: {e}"),
        };
        let mut found: BTreeMap<ProviderAddr, Constraints> = BTreeMap::new();
        let implied = self.used.iter().filter(|local| !self.required.contains_key(*local));
        let all = self.required.keys().chain(implied);
        for local in all {
            let required = self.required.get(local).cloned().unwrap_or_default();
            let Some(address) = address(local, required.source.as_deref(), default)
                .map_err(|e| refuse(local, &e))?
            else {
                continue;
            };
            let constraints = found.entry(address).or_default();
            let blocks =
                self.versions.iter().filter(|(of, _)| of == local).map(|(_, version)| version);
            for text in required.version.iter().chain(blocks) {
                constraints.add(text.parse().map_err(|e| refuse(local, &e))?);
            }
        }
        Ok(found)
    }

    fn require(&mut self, local: &str, source: Option<String>, version: Option<String>) {
        self.required.insert(local.to_owned(), Required { source, version });
    }

    /// A `provider` block.
    fn configure(&mut self, local: &str, version: Option<String>) {
        self.used.insert(local.to_owned());
        self.versions.extend(version.map(|version| (local.to_owned(), version)));
    }

    /// A resource of that type; `provider` is what it says about its provider: `LOCAL` or
    /// `LOCAL.ALIAS`.
    fn resource(&mut self, kind: &str, provider: Option<&str>) {
        let local = match provider {
            Some(provider) => provider.split('.').next(),
            None => kind.split('_').next(),
        };
        self.used.extend(local.map(str::to_owned));
    }

    fn call(&mut self, call: Call) {
        self.calls.insert(call.name.clone(), call);
    }
}

/// The blocks that use a provider by the type that is their first label.
const RESOURCES: [&str; 3] = ["resource", "data", "ephemeral"];

/// The address of a provider; `None` for what is built into the clients.
fn address(
    local: &str,
    source: Option<&str>,
    default: &Host,
) -> Result<Option<ProviderAddr>, NameError> {
    let source = match source {
        None if local == BUILT_IN => return Ok(None),
        None => format!("{DEFAULT_NAMESPACE}/{local}"),
        Some(kind) if !kind.contains('/') => format!("{DEFAULT_NAMESPACE}/{kind}"),
        Some(source) => source.to_owned(),
    };
    let address = ProviderAddr::parse(&source, default)?;
    Ok(Some(address).filter(|address| address.host.as_str() != BUILT_IN_HOST))
}
