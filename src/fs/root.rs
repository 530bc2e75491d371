//! The root of a mount: fixed names, and the registries. Nothing is looked up for any other name,
//! so that the probes of shells and editors never reach a network.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::area::LocalNode;
use super::node::InodeNode;
use super::{ABSENT_TTL, FOREVER, Fs, staging};
use crate::name::{Host, RepoName};
use crate::tree::providers::ProviderDirectory;
use crate::tree::registry::RegistrySpace;

impl Fs {
    /// The names in the root.
    pub(super) fn root_names(&self) -> Vec<OsString> {
        let areas = self.options.staging.iter().map(|_| OsString::from(staging::NAME));
        let mut hosts = self.facts.names().hosts();
        hosts.extend(self.options.staging.iter().flat_map(staging::StagingArea::hosts));
        hosts.sort();
        hosts.dedup();
        let views = self.views().map(|view| OsString::from(view.name()));
        areas.chain(views).chain(hosts.iter().map(|host| OsString::from(host.as_str()))).collect()
    }

    /// What `name` is in the root, and how long it may be kept. `Err` is an absence and how long
    /// that holds.
    pub(super) fn find_in_root(&self, name: &OsStr) -> Result<(InodeNode, Duration), Duration> {
        if name == staging::NAME
            && let Some(staging) = &self.options.staging
        {
            return Ok((InodeNode::Local(LocalNode::top(staging.area())), FOREVER));
        }
        if let Some(view) = self.views().find(|view| view.name() == name) {
            return Ok((view.node(ProviderDirectory::Top), FOREVER));
        }
        let Some(host) = name.to_str().and_then(|name| name.parse::<Host>().ok()) else {
            return Err(FOREVER);
        };
        if self.facts.names().has_host(&host) {
            return Ok((InodeNode::registry(host), self.hosts_ttl(self.facts.tags().ttl())));
        }
        if self.options.staging.as_ref().is_some_and(|staging| staging.shows(&host, None)) {
            return Ok((InodeNode::registry(host), Duration::ZERO));
        }
        Err(self.hosts_ttl(self.absent_ttl()))
    }

    /// How long the kernel may keep the absence of a name above the releases. Where names can be
    /// staged not at all: a directory that is made in staging is shown here at once.
    pub(super) fn absent_ttl(&self) -> Duration {
        if self.options.staging.is_some() { Duration::ZERO } else { ABSENT_TTL }
    }

    /// The directory `name` of `space`, if a stage shows it.
    pub(super) fn staged_space(&self, space: &RegistrySpace, name: &str) -> Option<RegistrySpace> {
        let staging = self.options.staging.as_ref()?;
        let nested = RepoName::below(space.path.as_ref(), name)?;
        staging
            .shows(&space.host, Some(&nested))
            .then(|| RegistrySpace { host: space.host.clone(), path: Some(nested) })
    }

    /// How long a directory above the releases may be kept. What a stage shows is gone when the
    /// stage is.
    pub(super) fn space_ttl(&self, space: &RegistrySpace) -> Duration {
        let staged = self
            .options
            .staging
            .as_ref()
            .is_some_and(|s| s.shows(&space.host, space.path.as_ref()));
        if staged { Duration::ZERO } else { self.facts.tags().ttl() }
    }

    /// The directories that stages show in `space`.
    pub(super) fn staged_in(&self, space: &RegistrySpace) -> Vec<(String, RegistrySpace)> {
        let Some(staging) = &self.options.staging else { return Vec::new() };
        let shown = staging.shown_in(&space.host, space.path.as_ref()).into_iter();
        shown
            .filter_map(|name| {
                let component = name.next_below(space.path.as_ref())?.to_owned();
                Some((component, RegistrySpace { host: space.host.clone(), path: Some(name) }))
            })
            .collect()
    }

    /// How long the name of a registry holds, where a store may come to hold another one after
    /// `otherwise`.
    fn hosts_ttl(&self, otherwise: Duration) -> Duration {
        if self.facts.names().hosts_are_fixed() { FOREVER } else { otherwise }
    }
}
