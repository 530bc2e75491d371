//! The upper levels of `plugins/` and `mirror/`: `HOST/NAMESPACE/TYPE`.
//!
//! A provider is shown if it was declared, stands in a given lock file, was looked up before, or if
//! its repository stands in the catalog of a registry to which the mapping leads. Others are found
//! by their names: what can be above a provider of the mapping is a directory without a request,
//! and only a TYPE asks for a tag list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{Fact, KnownFacts, Need, Step};
use crate::mapping::{Mapping, MappingRule};
use crate::name::{Host, Platform, ProviderAddr, Repo, Tag, Version};

/// What the views of providers are a function of, beside what is known of registries.
pub trait Offered: KnownFacts {
    /// From providers to repositories.
    fn mapping(&self) -> &Mapping;
    /// The providers that were declared.
    fn declared(&self) -> &BTreeSet<ProviderAddr>;
    /// The providers that were looked up before, here or by an earlier mount.
    fn looked_up(&self) -> Arc<BTreeSet<ProviderAddr>>;
    /// The platforms that are shown, sorted.
    fn wanted(&self) -> &[Platform];
    /// Whether a release is asked for its platforms before they are shown.
    fn verifies_platforms(&self) -> bool;
    /// Whether no registry can be asked.
    fn is_offline(&self) -> bool;
    /// The platforms of a release. `Unknown` also where it was never asked for.
    fn platforms(&self, repo: &Repo, tag: &Tag) -> Fact<Arc<Vec<Platform>>, Self::Error>;
    /// The repositories of `provider`, in order of preference.
    fn repos(&self, provider: &ProviderAddr) -> Result<Vec<Repo>, Self::Error>;
}

/// A directory of such a view.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ProviderDirectory {
    /// The view itself.
    Top,
    /// `HOST/`
    Host(Host),
    /// `HOST/NAMESPACE/`
    Namespace(Host, String),
    /// `HOST/NAMESPACE/TYPE/`
    Provider(ProviderAddr),
    /// `HOST/NAMESPACE/TYPE/VERSION/`, in `plugins/` alone.
    Version(ProviderAddr, Version),
}

impl ProviderDirectory {
    /// How many directories lie between it and the mount's root, the view's own included.
    fn depth(&self) -> usize {
        match self {
            ProviderDirectory::Top => 1,
            ProviderDirectory::Host(_) => 2,
            ProviderDirectory::Namespace(..) => 3,
            ProviderDirectory::Provider(_) => 4,
            ProviderDirectory::Version(..) => 5,
        }
    }

    /// The directory that `name` would be in it, whether there is one or not.
    pub fn child(&self, name: &str) -> Option<ProviderDirectory> {
        let provider =
            |host: &Host, namespace, kind| ProviderAddr::new(host.clone(), namespace, kind);
        match self {
            ProviderDirectory::Top => {
                let host: Host = name.parse().ok()?;
                let canonical = provider(&host, "x", "x").is_some_and(|p| p.host == host);
                canonical.then_some(ProviderDirectory::Host(host))
            }
            ProviderDirectory::Host(host) => {
                provider(host, name, "x").filter(|p| p.namespace() == name)?;
                Some(ProviderDirectory::Namespace(host.clone(), name.to_owned()))
            }
            ProviderDirectory::Namespace(host, namespace) => provider(host, namespace, name)
                .filter(|p| p.kind() == name)
                .map(ProviderDirectory::Provider),
            ProviderDirectory::Provider(provider) => {
                Some(ProviderDirectory::Version(provider.clone(), name.parse().ok()?))
            }
            ProviderDirectory::Version(..) => None,
        }
    }

    /// Whether `provider` lies at or below it.
    pub fn holds(&self, provider: &ProviderAddr) -> bool {
        match self {
            ProviderDirectory::Top => true,
            ProviderDirectory::Host(host) => *host == provider.host,
            ProviderDirectory::Namespace(host, namespace) => {
                *host == provider.host && namespace == provider.namespace()
            }
            ProviderDirectory::Provider(of) | ProviderDirectory::Version(of, _) => of == provider,
        }
    }
}

impl fmt::Display for ProviderDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProviderDirectory::Top => Ok(()),
            ProviderDirectory::Host(host) => host.fmt(f),
            ProviderDirectory::Namespace(host, namespace) => write!(f, "{host}/{namespace}"),
            ProviderDirectory::Provider(provider) => provider.fmt(f),
            ProviderDirectory::Version(provider, version) => write!(f, "{provider}/{version}"),
        }
    }
}

/// An entry of such a view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProviderEntry {
    Dir(ProviderDirectory),
    /// A symbolic link into the registry tree: its target.
    Link(String),
    /// `index.json` of a packed mirror: its bytes.
    Versions(Vec<u8>),
    /// `VERSION.json` of a packed mirror, to be rendered from this release.
    Archives(Repo, Tag, Version),
}

/// The entries of a directory: those that are known, and why there are not more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProviderListing<E> {
    /// In byte order of their names.
    pub entries: BTreeMap<String, ProviderEntry>,
    /// What could not be learnt. It fails nothing: a client that walks a mirror gives up all of it
    /// at the first error.
    pub error: Option<E>,
}

impl<E> ProviderListing<E> {
    pub(super) fn of(entries: BTreeMap<String, ProviderEntry>) -> Self {
        ProviderListing { entries, error: None }
    }
}

/// A failure as an empty listing that tells it: promise of the views, in which one provider never
/// fails another.
pub(super) fn or_empty<E>(step: Step<ProviderListing<E>, E>) -> Step<ProviderListing<E>, E> {
    match step {
        Step::Failed(error) => {
            Step::Edge(ProviderListing { entries: BTreeMap::new(), error: Some(error) })
        }
        step => step,
    }
}

/// Finds `name` in a directory above the providers.
pub(super) fn lookup<K: Offered>(
    dir: &ProviderDirectory,
    name: &str,
    known: &K,
) -> Step<ProviderEntry, K::Error> {
    match dir.child(name) {
        Some(ProviderDirectory::Provider(provider)) => lookup_provider(provider, known),
        Some(dir) if may_hold(&dir, known) => Step::Edge(ProviderEntry::Dir(dir)),
        Some(_) | None => Step::Absent,
    }
}

/// Whether the mapping can be about a provider below `dir`, which is above all of them.
fn may_hold<K: Offered>(dir: &ProviderDirectory, known: &K) -> bool {
    let matches = |provider: &ProviderAddr| dir.holds(provider);
    if known.declared().iter().any(matches) || known.looked_up().iter().any(matches) {
        return true;
    }
    match dir {
        ProviderDirectory::Top => true,
        ProviderDirectory::Host(host) => {
            known.mapping().rules().iter().any(|rule| rule.may_match(host, None))
        }
        ProviderDirectory::Namespace(host, name) => {
            known.mapping().rules().iter().any(|rule| rule.may_match(host, Some(name)))
        }
        ProviderDirectory::Provider(_) | ProviderDirectory::Version(..) => false,
    }
}

fn lookup_provider<K: Offered>(provider: ProviderAddr, known: &K) -> Step<ProviderEntry, K::Error> {
    if !known.mapping().matches(&provider) {
        return Step::Absent;
    }
    if known.declared().contains(&provider)
        || known.looked_up().contains(&provider)
        || is_listed(&provider, known)
    {
        return Step::Edge(ProviderEntry::Dir(ProviderDirectory::Provider(provider)));
    }
    sources(&provider, known).and_then(|sources| {
        if sources.is_empty() {
            Step::Absent
        } else {
            Step::Edge(ProviderEntry::Dir(ProviderDirectory::Provider(provider.clone())))
        }
    })
}

/// Whether a catalog has a repository of the provider. So a listing shows it, and what is listed is
/// there, whatever its repository answers: a name that fails would fail the whole walk of a client.
fn is_listed<K: Offered>(provider: &ProviderAddr, known: &K) -> bool {
    let repos = known.repos(provider).unwrap_or_default();
    let is_in = |repo: &Repo| match known.catalog(&repo.host) {
        Fact::Is(names) if names.binary_search(&repo.name).is_ok() => {
            known.mapping().providers_of(repo).contains(provider)
        }
        _ => false,
    };
    repos.iter().any(is_in)
}

/// The entries of a directory above the providers.
pub(super) fn list<K: Offered>(
    dir: &ProviderDirectory,
    known: &K,
) -> Step<ProviderListing<K::Error>, K::Error> {
    let mut providers: BTreeSet<ProviderAddr> = known.looked_up().iter().cloned().collect();
    providers.extend(known.declared().iter().cloned());
    let mut error = None;
    for (host, rules) in catalogs(known) {
        match known.catalog(&host) {
            Fact::Is(names) => {
                let repos =
                    names.iter().map(|name| Repo { host: host.clone(), name: name.clone() });
                let of = |repo| rules.iter().flat_map(move |rule| rule.providers_of(&repo));
                providers.extend(repos.flat_map(of));
            }
            Fact::Unknown => return Step::Need(Need::Catalog(host)),
            Fact::Failed(e) => error = Some(e),
            // A registry that does not tell has those that were declared or looked up.
            Fact::Absent | Fact::Denied(_) => {}
        }
    }
    let below = providers.iter().filter(|p| dir.holds(p) && known.mapping().matches(p));
    let entries = below
        .filter_map(|p| match dir {
            ProviderDirectory::Top => Some((
                p.host.to_string(),
                ProviderEntry::Dir(ProviderDirectory::Host(p.host.clone())),
            )),
            ProviderDirectory::Host(_) => {
                let namespace = p.namespace().to_owned();
                Some((
                    namespace.clone(),
                    ProviderEntry::Dir(ProviderDirectory::Namespace(p.host.clone(), namespace)),
                ))
            }
            ProviderDirectory::Namespace(..) => Some((
                p.kind().to_owned(),
                ProviderEntry::Dir(ProviderDirectory::Provider(p.clone())),
            )),
            ProviderDirectory::Provider(_) | ProviderDirectory::Version(..) => None,
        })
        .collect();
    Step::Edge(ProviderListing { entries, error })
}

/// The registries that are asked which repositories they have, each with the rules by which those
/// are read: rules for whose providers none was declared. Who declares providers has said which
/// ones to show, and a walk costs one request for each.
fn catalogs<K: Offered>(known: &K) -> BTreeMap<Host, Vec<&MappingRule>> {
    let mut by_host: BTreeMap<Host, Vec<&MappingRule>> = BTreeMap::new();
    for rule in known.mapping().rules() {
        let is_open = !known.declared().iter().any(|provider| rule.matches(provider));
        if let (true, Some((host, _))) = (is_open, rule.prefix()) {
            by_host.entry(host).or_default().push(rule);
        }
    }
    by_host
}

/// The releases of a provider: each version with the repository and tag that it comes from.
pub(super) type Versions = BTreeMap<Version, (Repo, Tag)>;

/// Repositories with their tags.
type ProviderSources = Vec<(Repo, Arc<Vec<Tag>>)>;

/// The repositories of a provider that exist.
fn sources<K: Offered>(provider: &ProviderAddr, known: &K) -> Step<ProviderSources, K::Error> {
    let repos = match known.repos(provider) {
        Ok(repos) => repos,
        Err(e) => return Step::Failed(e),
    };
    let mut found = Vec::new();
    for repo in repos {
        match known.tags(&repo) {
            Fact::Is(tags) => found.push((repo, tags)),
            Fact::Unknown => return Step::Need(Need::Tags(repo)),
            Fact::Absent => {}
            Fact::Denied(e) | Fact::Failed(e) => return Step::Failed(e),
        }
    }
    Step::Edge(found)
}

/// The versions of a provider: of canonical version tags alone, each from the first repository that
/// has it.
pub(super) fn versions<K: Offered>(provider: &ProviderAddr, known: &K) -> Step<Versions, K::Error> {
    sources(provider, known).and_then(|sources| {
        let mut versions = Versions::new();
        for (repo, tags) in sources {
            for tag in tags.iter() {
                if let Some(version) = Version::of_tag(tag) {
                    versions.entry(version).or_insert_with(|| (repo.clone(), tag.clone()));
                }
            }
        }
        if known.is_offline() { within_reach(versions, known) } else { Step::Edge(versions) }
    })
}

/// Those of `versions` that can be had without a network: stores hold the repository, or it is
/// known what the tag stands for. A client takes the newest that it sees.
fn within_reach<K: Offered>(versions: Versions, known: &K) -> Step<Versions, K::Error> {
    let mut within = Versions::new();
    for (version, (repo, tag)) in versions {
        let is_held = match known.held(&repo.host) {
            Fact::Unknown => return Step::Need(Need::Held(repo.host)),
            Fact::Is(names) => names.binary_search(&repo.name).is_ok(),
            Fact::Absent | Fact::Denied(_) | Fact::Failed(_) => false,
        };
        match known.binding(&repo, &tag) {
            _ if is_held => {}
            Fact::Is(()) => {}
            Fact::Unknown => return Step::Need(Need::Binding(repo, tag)),
            Fact::Absent | Fact::Denied(_) | Fact::Failed(_) => continue,
        }
        within.insert(version, (repo, tag));
    }
    Step::Edge(within)
}

/// Where one version of a provider comes from.
pub fn release<K: Offered>(
    provider: &ProviderAddr,
    version: &Version,
    known: &K,
) -> Step<(Repo, Tag), K::Error> {
    let Some(tag) = version.tag() else { return Step::Absent };
    sources(provider, known).and_then(|sources| {
        match sources.into_iter().find(|(_, tags)| tags.binary_search(&tag).is_ok()) {
            Some((repo, _)) => Step::Edge((repo, tag)),
            None => Step::Absent,
        }
    })
}

/// The platforms of a release that are shown.
pub(super) fn shown<K: Offered>(
    repo: &Repo,
    tag: &Tag,
    known: &K,
) -> Step<Vec<Platform>, K::Error> {
    match known.platforms(repo, tag) {
        Fact::Is(platforms) => {
            Step::Edge(known.wanted().iter().filter(|p| platforms.contains(p)).cloned().collect())
        }
        _ if !known.verifies_platforms() => Step::Edge(known.wanted().to_vec()),
        Fact::Unknown => Step::Need(Need::Platforms(repo.clone(), tag.clone())),
        Fact::Absent => Step::Edge(Vec::new()),
        Fact::Denied(e) | Fact::Failed(e) => Step::Failed(e),
    }
}

/// Whether a release has `platform`: assumed of a wanted one, asked for of any other.
pub(super) fn has<K: Offered>(
    repo: &Repo,
    tag: &Tag,
    platform: &Platform,
    known: &K,
) -> Step<(), K::Error> {
    match known.platforms(repo, tag) {
        Fact::Is(platforms) if platforms.contains(platform) => Step::Edge(()),
        Fact::Is(_) | Fact::Absent => Step::Absent,
        _ if !known.verifies_platforms() && known.wanted().contains(platform) => Step::Edge(()),
        Fact::Unknown => Step::Need(Need::Platforms(repo.clone(), tag.clone())),
        Fact::Denied(e) | Fact::Failed(e) => Step::Failed(e),
    }
}

/// A link from the directory `dir` to what a release has for `platform`.
pub(super) fn link(dir: &ProviderDirectory, repo: &Repo, tag: &Tag, name: &str) -> ProviderEntry {
    ProviderEntry::Link(format!("{}{repo}/{tag}/{name}", "../".repeat(dir.depth())))
}

#[cfg(test)]
mod tests;
