//! The registry tree: `HOST/NAME…/TAG`, `HOST/NAME…:TAG`, `HOST/NAME…@DIGEST`.
//!
//! A directory of it is a [`RegistrySpace`]: a registry, a repository, a prefix of one, or a
//! passage. What a space is can change with the facts; its identity is its path.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fact, KnownFacts, Need, Standing, Step};
use crate::name::{
    Component, Host, Reference, Repo, RepoName, Selector, Tag, Version, VersionRange, is_passage,
};

/// A directory between a registry and its releases.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RegistrySpace {
    /// The registry.
    pub host: Host,
    /// The path in it; `None` is the registry itself.
    pub path: Option<RepoName>,
}

impl RegistrySpace {
    /// The repository that this space is, or would be.
    pub fn repo(&self) -> Option<Repo> {
        self.path.as_ref().map(|name| Repo { host: self.host.clone(), name: name.clone() })
    }

    /// The reference that `name` spells by itself in this space, or, as a tag, in the repository
    /// that the space is.
    pub fn spelled(&self, name: &Component) -> Option<Reference> {
        match name {
            Component::Manifest(name, selector) => Some(self.below(name)?.at(selector.clone())),
            Component::Plain(text) => {
                let tag = text.parse().ok().or_else(|| text.parse::<Version>().ok()?.tag());
                Some(self.repo()?.at(Selector::Tag(tag?)))
            }
            Component::Range(..) | Component::Unsupported(_) | Component::Impossible => None,
        }
    }

    fn below(&self, component: &str) -> Option<Repo> {
        let name = RepoName::below(self.path.as_ref(), component)?;
        Some(Repo { host: self.host.clone(), name })
    }
}

impl From<Repo> for RegistrySpace {
    fn from(repo: Repo) -> Self {
        RegistrySpace { host: repo.host, path: Some(repo.name) }
    }
}

/// An entry of a space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegistryEntry {
    /// A nested directory.
    Space(RegistrySpace),
    /// A release, by the reference that its name spells.
    Release(Reference),
    /// A symbolic link to an entry of the same directory.
    Link {
        /// The entry's name.
        target: String,
        /// Whose tag list decides where the link leads.
        repo: Repo,
    },
}

/// Finds `name` in `space`.
pub fn lookup<K: KnownFacts>(
    space: &RegistrySpace,
    name: &Component,
    known: &K,
) -> Step<RegistryEntry, LookupFailure<K::Error>> {
    match name {
        Component::Impossible => Step::Absent,
        Component::Unsupported(e) => Step::Failed(LookupFailure::Name(e.clone())),
        Component::Manifest(name, selector) => spelled(space, name, selector.clone(), known),
        Component::Range(None, range) => match space.repo() {
            Some(repo) => newest(&repo, None, range, known),
            None => Step::Absent,
        },
        Component::Range(Some(name), range) => match space.below(name) {
            Some(repo) => newest(&repo, Some(name), range, known),
            None => Step::Absent,
        },
        Component::Plain(name) => match plain(space, name, known) {
            Step::Failed(e) => held(space, name, known).unwrap_or(Step::Failed(e)),
            step => step,
        },
    }
}

/// What `name` is in a store, where some source of the registry does not answer: what one source
/// holds is there, whatever the others hold.
fn held<K: KnownFacts>(
    space: &RegistrySpace,
    name: &str,
    known: &K,
) -> Option<LookupAnswer<K::Error>> {
    let names = match known.held(&space.host) {
        Fact::Unknown => return Some(Step::Need(Need::Held(space.host.clone()))),
        Fact::Is(names) => names,
        Fact::Absent | Fact::Denied(_) | Fact::Failed(_) => return None,
    };
    if let (Some(repo), Some(tag)) = (space.repo(), tag_named(&space.host, name, known))
        && names.binary_search(&repo.name).is_ok()
    {
        match known.binding(&repo, &tag) {
            Fact::Is(()) => {
                return Some(Step::Edge(RegistryEntry::Release(repo.at(Selector::Tag(tag)))));
            }
            Fact::Unknown => return Some(Step::Need(Need::Binding(repo, tag))),
            Fact::Absent | Fact::Denied(_) | Fact::Failed(_) => {}
        }
    }
    let nested = space.below(name)?;
    let is_held = names.iter().any(|held| held.is_within(Some(&nested.name)));
    is_held.then(|| Step::Edge(RegistryEntry::Space(nested.into())))
}

/// Why a name could not be looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LookupFailure<E> {
    /// A fact about the registry is not to be had.
    Fact(E),
    /// The name asks for something that is not implemented.
    Name(crate::digest::DigestError),
}

/// The name of a release's directory: its tag, or, of a provider registry, its version.
fn shown<K: KnownFacts>(host: &Host, tag: &Tag, known: &K) -> String {
    let version = known.is_of_providers(host).then(|| Version::of_tag(tag)).flatten();
    version.map_or_else(|| tag.to_string(), |version| version.to_string())
}

/// The tag for which `name` stands as the name of a release's directory.
fn tag_named<K: KnownFacts>(host: &Host, name: &str, known: &K) -> Option<Tag> {
    let of_version = || known.is_of_providers(host).then(|| name.parse::<Version>().ok()?.tag());
    name.parse().ok().or_else(|| of_version().flatten())
}

/// The link to the newest tag of `repo` in `range`. `name` stands before it in the link's own name.
fn newest<K: KnownFacts>(
    repo: &Repo,
    name: Option<&str>,
    range: &VersionRange,
    known: &K,
) -> LookupAnswer<K::Error> {
    if !inside(repo, known) {
        return Step::Absent;
    }
    let tags = match known.tags(repo) {
        Fact::Unknown => return Step::Need(Need::Tags(repo.clone())),
        Fact::Absent => return Step::Absent,
        Fact::Denied(e) | Fact::Failed(e) => return Step::Failed(LookupFailure::Fact(e)),
        Fact::Is(tags) => tags,
    };
    match range.newest(&tags) {
        Some(tag) => Step::Edge(RegistryEntry::Link {
            target: match name {
                None => shown(&repo.host, tag, known),
                name => Component::of_tag(name, tag),
            },
            repo: repo.clone(),
        }),
        None => Step::Absent,
    }
}

/// `NAME:TAG` and `NAME@DIGEST` need no tag list and are never ambiguous.
fn spelled<K: KnownFacts>(
    space: &RegistrySpace,
    name: &str,
    selector: Selector,
    known: &K,
) -> Step<RegistryEntry, LookupFailure<K::Error>> {
    let Some(repo) = space.below(name) else { return Step::Absent };
    if !inside(&repo, known) {
        return Step::Absent;
    }
    if let Selector::Tag(tag) = &selector {
        let no_such_tag = || match VersionRange::with_wildcard(tag) {
            Some(range) => newest(&repo, Some(name), &range, known),
            None => Step::Absent,
        };
        if is_unlisted(&repo, tag, known) {
            return no_such_tag();
        }
        match known.binding(&repo, tag) {
            Fact::Unknown => return Step::Need(Need::Binding(repo, tag.clone())),
            Fact::Absent => return no_such_tag(),
            Fact::Denied(e) | Fact::Failed(e) => return Step::Failed(LookupFailure::Fact(e)),
            Fact::Is(()) => {}
        }
    }
    Step::Edge(RegistryEntry::Release(repo.at(selector)))
}

/// Whether the registry's present list of the repository's tags lacks `tag`. One that was entered
/// is asked for by itself.
fn is_unlisted<K: KnownFacts>(repo: &Repo, tag: &Tag, known: &K) -> bool {
    let is_lacking = matches!(known.tags(repo), Fact::Is(tags) if tags.binary_search(tag).is_err());
    !known.is_of_providers(&repo.host)
        && is_lacking
        && known.is_confirmed(&Need::Tags(repo.clone()))
        && !known.was_bound(repo, tag)
}

/// Whether the registry's present lists answer for all that is below `repo`, a repository: its
/// tags, and the catalog. One that lacks the repository itself is no list of all that is there.
fn lists_answer<K: KnownFacts>(repo: &Repo, catalog: &[RepoName], known: &K) -> bool {
    let needs = [Need::Tags(repo.clone()), Need::Catalog(repo.host.clone())];
    catalog.binary_search(&repo.name).is_ok() && needs.iter().all(|need| known.is_confirmed(need))
}

/// Whether `path` or something below it is among `names`, which are sorted.
fn holds(names: &[RepoName], path: &RepoName) -> bool {
    let below = format!("{path}/");
    let at = names.partition_point(|name| name.as_str() < below.as_str());
    names.binary_search(path).is_ok()
        || names.get(at).is_some_and(|name| name.as_str().starts_with(&below))
}

/// What the tag list of a space says about a name in it.
enum OfParent<E> {
    /// What the name is, or what has to be known before.
    Answer(LookupAnswer<E>),
    NoRepository,
    NoSuchTag,
    Denied(E),
}

fn plain<K: KnownFacts>(
    space: &RegistrySpace,
    name: &str,
    known: &K,
) -> Step<RegistryEntry, LookupFailure<K::Error>> {
    let nested = space.below(name);
    if let Some(nested) = &nested
        && matches!(known.standing(&nested.host, &nested.name), Standing::Given | Standing::Above)
    {
        return Step::Edge(RegistryEntry::Space(nested.clone().into()));
    }
    let parent = tag_of_parent(space, name, known);
    if let OfParent::Answer(step) = parent {
        return step;
    }
    if let (OfParent::NoSuchTag, Some(repo), Ok(tag)) = (&parent, space.repo(), name.parse())
        && let Some(range) = VersionRange::with_wildcard(&tag)
        && let Step::Edge(link) = newest(&repo, None, &range, known)
    {
        return Step::Edge(link);
    }
    let step = match nested {
        Some(nested) if known.standing(&nested.host, &nested.name) == Standing::Inside => {
            let above = space.repo().filter(|_| matches!(parent, OfParent::NoSuchTag));
            nested_space(nested, name, above.as_ref(), known)
        }
        _ => Step::Absent,
    };
    match (step, parent) {
        // Whether the name is a tag is what the registry refuses to say, and that is no absence.
        (Step::Absent, OfParent::Denied(e)) => Step::Failed(LookupFailure::Fact(e)),
        (step, _) => step,
    }
}

type LookupAnswer<E> = Step<RegistryEntry, LookupFailure<E>>;

/// The first rule: a tag of the parent.
fn tag_of_parent<K: KnownFacts>(
    space: &RegistrySpace,
    name: &str,
    known: &K,
) -> OfParent<K::Error> {
    let (Some(repo), Some(tag)) = (space.repo(), tag_named(&space.host, name, known)) else {
        return OfParent::NoRepository;
    };
    if !inside(&repo, known) {
        return OfParent::NoRepository;
    }
    let listed = known.tags(&repo);
    if matches!(&listed, Fact::Is(tags) if tags.binary_search(&tag).is_ok()) {
        return OfParent::Answer(Step::Edge(RegistryEntry::Release(repo.at(Selector::Tag(tag)))));
    }
    // A version that a provider registry lists no longer may have been entered by an earlier mount.
    let was_listed = || {
        matches!(listed, Fact::Is(_))
            && known.is_of_providers(&repo.host)
            && Version::of_tag(&tag).is_some()
    };
    let tags = if known.was_bound(&repo, &tag) || was_listed() { None } else { Some(listed) };
    // A tag that was entered is asked for by itself; so is one whose list is not to be had, since
    // an earlier mount may have entered it.
    if let None | Some(Fact::Failed(_)) = tags {
        match known.binding(&repo, &tag) {
            Fact::Is(()) => {
                return OfParent::Answer(Step::Edge(RegistryEntry::Release(
                    repo.at(Selector::Tag(tag)),
                )));
            }
            Fact::Unknown => return OfParent::Answer(Step::Need(Need::Binding(repo, tag))),
            Fact::Denied(e) | Fact::Failed(e) => {
                return OfParent::Answer(Step::Failed(LookupFailure::Fact(e)));
            }
            Fact::Absent => {}
        }
    }
    match tags.unwrap_or_else(|| known.tags(&repo)) {
        Fact::Unknown => OfParent::Answer(Step::Need(Need::Tags(repo))),
        Fact::Is(_) => OfParent::NoSuchTag,
        Fact::Absent => OfParent::NoRepository,
        Fact::Denied(e) => OfParent::Denied(e),
        Fact::Failed(e) => OfParent::Answer(Step::Failed(LookupFailure::Fact(e))),
    }
}

/// Whether a name can be asked for: what is only above the declared prefixes cannot be a repository
/// of a source.
fn inside<K: KnownFacts>(repo: &Repo, known: &K) -> bool {
    matches!(known.standing(&repo.host, &repo.name), Standing::Given | Standing::Inside)
}

/// The other rules: a repository, a prefix of something in the catalog, a passage.
///
/// Repository, prefix and passage are directories alike, so the catalog is asked first: one request
/// answers for all names, and where there is none, a name that may be a passage needs no request of
/// its own. `above` is the repository below which it is, if it is below one.
fn nested_space<K: KnownFacts>(
    nested: Repo,
    name: &str,
    above: Option<&Repo>,
    known: &K,
) -> LookupAnswer<K::Error> {
    let tags = known.tags(&nested);
    if let Fact::Is(_) = tags {
        return Step::Edge(RegistryEntry::Space(nested.into()));
    }
    let catalog = known.catalog(&nested.host);
    // The repositories of a provider registry have two parts.
    let may_lead = !known.is_of_providers(&nested.host) || nested.name.components().count() < 2;
    let may_pass = is_passage(name) && above.is_none() && may_lead;
    match &catalog {
        Fact::Unknown => return Step::Need(Need::Catalog(nested.host)),
        Fact::Is(names) if holds(names, &nested.name) => {
            return Step::Edge(RegistryEntry::Space(nested.into()));
        }
        Fact::Is(names) if above.is_some_and(|above| lists_answer(above, names, known)) => {
            return Step::Absent;
        }
        _ => {}
    }
    match (tags, catalog) {
        // Also where its tag list is not to be had for now: that a name may be a passage depends on
        // no answer about it.
        (Fact::Unknown | Fact::Absent | Fact::Failed(_), Fact::Absent | Fact::Denied(_))
            if may_pass =>
        {
            Step::Edge(RegistryEntry::Space(nested.into()))
        }
        (Fact::Unknown, _) => Step::Need(Need::Tags(nested)),
        (Fact::Denied(_), _) if may_pass => Step::Edge(RegistryEntry::Space(nested.into())),
        (Fact::Denied(e) | Fact::Failed(e), _) => Step::Failed(LookupFailure::Fact(e)),
        (_, Fact::Failed(e)) => Step::Failed(LookupFailure::Fact(e)),
        _ => Step::Absent,
    }
}

/// The entries of `space`: its tags, and the repositories below it that are declared, catalogued or
/// formerly used.
///
/// A repository's listing costs its tag list alone: the catalog is asked for only where there are
/// no tags to list.
pub fn list<K: KnownFacts>(
    space: &RegistrySpace,
    known: &K,
) -> Step<BTreeMap<String, RegistryEntry>, LookupFailure<K::Error>> {
    let mut entries = BTreeMap::new();
    let given = known.given_below(&space.host, space.path.as_ref());
    let mut add = |name: &RepoName| {
        if let Some(component) = name.next_below(space.path.as_ref())
            && let Some(repo) = space.below(component)
        {
            entries.insert(component.to_owned(), RegistryEntry::Space(repo.into()));
        }
    };
    given.iter().for_each(&mut add);
    let repo = space.repo();
    let askable = match &repo {
        Some(repo) => inside(repo, known),
        // The registry as a whole is a source if any name in it may be asked for.
        None => space.below("0").is_some_and(|any| inside(&any, known)),
    };
    if !askable {
        return Step::Edge(entries);
    }
    let tags = match &repo {
        None => Fact::Absent,
        Some(repo) => known.tags(repo),
    };
    if let (Fact::Unknown, Some(repo)) = (&tags, &repo) {
        return Step::Need(Need::Tags(repo.clone()));
    }
    if let Fact::Failed(e) = tags {
        return Step::Failed(LookupFailure::Fact(e));
    }
    match (known.catalog(&space.host), &tags) {
        (Fact::Is(names), _) => names.iter().for_each(&mut add),
        (Fact::Unknown, Fact::Absent) => return Step::Need(Need::Catalog(space.host.clone())),
        (Fact::Failed(e), Fact::Absent) => return Step::Failed(LookupFailure::Fact(e)),
        _ => {}
    }
    match tags {
        Fact::Denied(e) if entries.is_empty() => return Step::Failed(LookupFailure::Fact(e)),
        Fact::Is(tags) => {
            if let Some(repo) = &repo {
                // As in a lookup: a tag hides what is nested, except what is given.
                let given: BTreeSet<&str> =
                    given.iter().filter_map(|n| n.next_below(space.path.as_ref())).collect();
                let tags = tags.iter().filter(|tag| !given.contains(tag.as_str()));
                entries.extend(tags.map(|t| {
                    let name = shown(&space.host, t, known);
                    (name, RegistryEntry::Release(repo.at(Selector::Tag(t.clone()))))
                }));
            }
        }
        _ => {}
    }
    Step::Edge(entries)
}

#[cfg(test)]
mod tests;
