//! The root of a mount: fixed names, and the registries. Nothing is looked up for any other name, so that the probes of
//! shells and editors never reach a network.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::area::LocalNode;
use super::node::Node;
use super::{ABSENT_TTL, FOREVER, Fs, staging};
use crate::name::Host;
use crate::tree::providers::Dir;

impl Fs {
    /// The names in the root.
    pub(super) fn root_names(&self) -> Vec<OsString> {
        let areas = self.options.staging.iter().map(|_| OsString::from(staging::NAME));
        let views = self.views().map(|view| OsString::from(view.name()));
        areas.chain(views).chain(self.facts.hosts().iter().map(|host| OsString::from(host.as_str()))).collect()
    }

    /// What `name` is in the root, and how long it may be kept. `Err` is an absence and how long that holds.
    pub(super) fn find_in_root(&self, name: &OsStr) -> Result<(Node, Duration), Duration> {
        if name == staging::NAME
            && let Some(staging) = &self.options.staging
        {
            return Ok((Node::Local(LocalNode::top(staging.area())), FOREVER));
        }
        if let Some(view) = self.views().find(|view| view.name() == name) {
            return Ok((view.node(Dir::Top), FOREVER));
        }
        let Some(host) = name.to_str().and_then(|name| name.parse::<Host>().ok()) else { return Err(FOREVER) };
        if self.facts.has_host(&host) {
            return Ok((Node::registry(host), self.hosts_ttl(self.facts.tag_ttl())));
        }
        Err(self.hosts_ttl(ABSENT_TTL))
    }

    /// How long the name of a registry holds, where a store may come to hold another one after `otherwise`.
    fn hosts_ttl(&self, otherwise: Duration) -> Duration {
        if self.facts.hosts_are_fixed() { FOREVER } else { otherwise }
    }
}
