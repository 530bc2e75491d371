//! Forgetting what was learnt of a registry, so that it is asked again.

use std::path::{Component as PathComponent, Path};
use std::sync::Arc;

use super::failures::Failures;
use super::inodes::{Inodes, NamesInDirectories};
use super::node::{InodeNode, ProviderView};
use super::views::Views;
use crate::facts::Facts;
use crate::name::{Component, Reference, Repo, RepoName, Selector};
use crate::tree::Need;

/// See the module.
pub(super) struct Refresh {
    pub(super) facts: Arc<Facts>,
    pub(super) inodes: Arc<Inodes>,
    pub(super) failures: Arc<Failures>,
    pub(super) views: Arc<Views>,
}

impl Refresh {
    /// Forgets tags, lists and refusals at and below `path` (from the mount's root). Yields the
    /// directory entries that the kernel has to drop, as number of the directory and name; they
    /// must not be dropped from inside an operation of this file system.
    pub(super) fn below(&self, path: &Path) -> NamesInDirectories {
        self.failures.reasons.clear();
        let components = components(path);
        match self.in_view(&components) {
            Some(rest) => self.views.refresh(rest),
            None => {
                let mut places = self.forget(&Below::parse(&components));
                // Below the root lie the views, too, with documents that stand in no registry.
                if components.is_empty() {
                    places.extend(self.views.refresh(&[]));
                }
                places
            }
        }
    }

    /// The same, and lets versions stand for the documents for which they stand now.
    pub(super) fn accept(&self, path: &Path) -> NamesInDirectories {
        let components = components(path);
        match self.in_view(&components) {
            Some(rest) => self.views.accept(rest),
            None => {
                let below = Below::parse(&components);
                self.facts.accept(|need| below.holds_edge(need), below.binding());
            }
        }
        self.below(path)
    }

    /// The rest of a path in a view.
    fn in_view<'a, 'b>(&self, components: &'a [&'b str]) -> Option<&'a [&'b str]> {
        let (first, rest) = components.split_first()?;
        let mut views = ProviderView::shown(self.facts.providers().mapping());
        views.any(|view| view.name() == *first).then_some(rest)
    }

    /// The same of a release, whose tag was just put.
    pub(super) fn release(&self, reference: &Reference) -> NamesInDirectories {
        self.failures.reasons.clear();
        self.forget(&Below::release(reference))
    }

    fn forget(&self, below: &Below<'_>) -> NamesInDirectories {
        self.facts.forget(|need| below.holds_edge(need));
        self.inodes.places(|node| match node {
            InodeNode::Space { space, .. } => {
                below.holds(space.host.as_str(), space.path.as_ref(), None)
            }
            InodeNode::Release(release) => {
                let reference = &release.reference;
                let tag = match &reference.selector {
                    Selector::Tag(tag) => Some(tag.as_str()),
                    Selector::Digest(_) => None,
                };
                below.holds(reference.repo.host.as_str(), Some(&reference.repo.name), tag)
            }
            _ => false,
        })
    }
}

fn components(path: &Path) -> Vec<&str> {
    let names = path.components().filter_map(|component| match component {
        PathComponent::Normal(name) => name.to_str(),
        _ => None,
    });
    names.collect()
}

/// What lies at or below a path, read both ways: as a repository (or a prefix of one), and as a tag
/// in one.
struct Below<'a> {
    host: Option<&'a str>,
    names: Vec<RepoName>,
    /// A tag and its repository.
    tag: Option<(RepoName, String)>,
}

impl<'a> Below<'a> {
    fn release(reference: &'a Reference) -> Self {
        let tag = match &reference.selector {
            Selector::Tag(tag) => Some((reference.repo.name.clone(), tag.to_string())),
            Selector::Digest(_) => None,
        };
        Below { host: Some(reference.repo.host.as_str()), names: Vec::new(), tag }
    }

    fn parse(components: &[&'a str]) -> Self {
        let Some((host, rest)) = components.split_first() else {
            return Below { host: None, names: Vec::new(), tag: None };
        };
        let mut at: Option<RepoName> = None;
        let mut below = Below { host: Some(host), names: Vec::new(), tag: None };
        for (i, component) in rest.iter().enumerate() {
            let last = i + 1 == rest.len();
            if let Component::Manifest(name, selector) = Component::parse(component) {
                if let (Some(repo), Selector::Tag(tag)) =
                    (RepoName::below(at.as_ref(), &name), selector)
                {
                    below.tag = Some((repo, tag.to_string()));
                }
                return below;
            }
            if last && let Some(repo) = &at {
                // A provider registry spells a version with the + that no tag can hold.
                below.tag = Some((repo.clone(), component.replace('+', "_")));
            }
            match RepoName::below(at.as_ref(), component) {
                Some(next) => at = Some(next),
                None => return below,
            }
        }
        below.names.extend(at);
        below
    }

    /// The tag that the path may be.
    fn binding(&self) -> Option<Need> {
        let (name, tag) = self.tag.clone()?;
        let repo = Repo { host: self.host?.parse().ok()?, name };
        Some(Need::Binding(repo, tag.parse().ok()?))
    }

    fn holds(&self, host: &str, name: Option<&RepoName>, tag: Option<&str>) -> bool {
        let Some(wanted) = self.host else { return true };
        if wanted != host {
            return false;
        }
        if self.names.is_empty() && self.tag.is_none() {
            return true;
        }
        let by_name = name.is_some_and(|name| self.names.iter().any(|n| name.is_within(Some(n))));
        let by_tag = match (&self.tag, name, tag) {
            (Some((repo, wanted)), Some(name), Some(tag)) => repo == name && wanted == tag,
            _ => false,
        };
        by_name || by_tag
    }

    fn holds_edge(&self, need: &Need) -> bool {
        let host = need.host().as_str();
        match need {
            Need::Tags(repo) => {
                let of_tag = self.tag.as_ref().is_some_and(|(wanted, _)| *wanted == repo.name);
                self.holds(host, Some(&repo.name), None) || of_tag && self.host == Some(host)
            }
            Need::Binding(repo, tag) | Need::Platforms(repo, tag) => {
                self.holds(host, Some(&repo.name), Some(tag.as_str()))
            }
            Need::Catalog(_) | Need::Held(_) => self.host.is_none_or(|h| h == host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(path: &str, need: &Need) -> bool {
        let components: Vec<_> = path.split('/').filter(|c| !c.is_empty()).collect();
        Below::parse(&components).holds_edge(need)
    }

    #[test]
    fn a_path_covers_what_lies_at_and_below_it() {
        let repo = |name: &str| Repo { host: "a.b".parse().unwrap(), name: name.parse().unwrap() };
        let tags = Need::Tags(repo("acme/net"));
        let tag = Need::Binding(repo("acme/net"), "1.0".parse().unwrap());
        let other = Need::Binding(repo("acme/net"), "2.0".parse().unwrap());
        for path in ["", "a.b", "a.b/acme", "a.b/acme/net"] {
            assert!(holds(path, &tags) && holds(path, &tag) && holds(path, &other), "{path}");
        }
        for path in ["a.b/acme/net/1.0", "a.b/acme/net:1.0"] {
            assert!(holds(path, &tags) && holds(path, &tag) && !holds(path, &other), "{path}");
        }
        for path in ["c.d", "a.b/ac", "a.b/acme/network"] {
            assert!(!holds(path, &tags) && !holds(path, &tag), "{path}");
        }
    }
}
