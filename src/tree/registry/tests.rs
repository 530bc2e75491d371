use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::digest::Digest;

/// Facts as a table. What is not in it was not asked for yet.
#[derive(Default)]
struct Table {
    tags: BTreeMap<&'static str, Fact<Vec<&'static str>, &'static str>>,
    catalog: Option<Fact<Vec<&'static str>, &'static str>>,
    bindings: BTreeMap<(&'static str, &'static str), Fact<(), &'static str>>,
    given: BTreeSet<&'static str>,
    held: BTreeSet<&'static str>,
    prefix: Option<&'static str>,
    /// Whether the registry confirms nothing now.
    is_away: bool,
}

const HOST: &str = "r.example";

fn of<T: Clone, U>(
    fact: Option<&Fact<T, &'static str>>,
    map: impl Fn(T) -> U,
) -> Fact<U, &'static str> {
    match fact {
        None | Some(Fact::Unknown) => Fact::Unknown,
        Some(Fact::Is(v)) => Fact::Is(map(v.clone())),
        Some(Fact::Absent) => Fact::Absent,
        Some(Fact::Denied(e)) => Fact::Denied(e),
        Some(Fact::Failed(e)) => Fact::Failed(e),
    }
}

impl KnownFacts for Table {
    type Error = &'static str;

    fn tags(&self, repo: &Repo) -> Fact<Arc<Vec<Tag>>, &'static str> {
        let parse = |t: Vec<&str>| Arc::new(t.iter().map(|t| t.parse().unwrap()).collect());
        of(self.tags.get(repo.name.as_str()), parse)
    }

    fn catalog(&self, _: &Host) -> Fact<Arc<Vec<RepoName>>, &'static str> {
        of(self.catalog.as_ref(), |names| {
            Arc::new(names.iter().map(|n| n.parse().unwrap()).collect())
        })
    }

    fn binding(&self, repo: &Repo, tag: &Tag) -> Fact<(), &'static str> {
        let found =
            self.bindings.iter().find(|((r, t), _)| *r == repo.name.as_str() && *t == tag.as_str());
        of(found.map(|(_, fact)| fact), |()| ())
    }

    fn is_confirmed(&self, _: &Need) -> bool {
        !self.is_away
    }

    fn was_bound(&self, repo: &Repo, tag: &Tag) -> bool {
        self.bindings.keys().any(|(r, t)| *r == repo.name.as_str() && *t == tag.as_str())
    }

    fn standing(&self, _: &Host, path: &RepoName) -> Standing {
        let prefix = self.prefix.map(|p| p.parse::<RepoName>().unwrap());
        let is_at_or_above = |g: &&str| g.parse::<RepoName>().unwrap().is_within(Some(path));
        let is_given = self.given.iter().any(is_at_or_above);
        let is_above = prefix.as_ref().is_some_and(|p| p.is_within(Some(path)));
        match (path.is_within(prefix.as_ref()), is_given || is_above) {
            (true, true) => Standing::Given,
            (true, false) => Standing::Inside,
            (false, _) if is_above => Standing::Above,
            (false, _) => Standing::Outside,
        }
    }

    fn held(&self, _: &Host) -> Fact<Arc<Vec<RepoName>>, &'static str> {
        Fact::Is(Arc::new(self.held.iter().map(|n| n.parse().unwrap()).collect()))
    }

    fn given_below(&self, _: &Host, path: Option<&RepoName>) -> Vec<RepoName> {
        let all = self.given.iter().copied().chain(self.prefix);
        all.map(|g| g.parse::<RepoName>().unwrap()).filter(|g| g.is_within(path)).collect()
    }
}

fn space(path: &str) -> RegistrySpace {
    RegistrySpace {
        host: HOST.parse().unwrap(),
        path: (!path.is_empty()).then(|| path.parse().unwrap()),
    }
}

/// The answer in one word or the reference that was found.
fn say(step: Step<RegistryEntry, LookupFailure<&'static str>>) -> String {
    match step {
        Step::Edge(RegistryEntry::Space(space)) => format!("dir {}", space.path.unwrap()),
        Step::Edge(RegistryEntry::Release(reference)) => reference.to_string(),
        Step::Edge(RegistryEntry::Link { target, .. }) => format!("-> {target}"),
        Step::Need(need) => format!("need {need}"),
        Step::Absent => "absent".to_owned(),
        Step::Failed(LookupFailure::Fact(e)) => format!("failed {e}"),
        Step::Failed(LookupFailure::Name(_)) => "unsupported".to_owned(),
    }
}

fn find(path: &str, name: &str, table: &Table) -> String {
    say(lookup(&space(path), &Component::parse(name), table))
}

const YES: fn(Vec<&'static str>) -> Fact<Vec<&'static str>, &'static str> = Fact::Is;

#[test]
fn a_range_is_a_link_to_the_newest_tag_that_matches() {
    let mut table = Table::default();
    for name in ["~>1.2", "1.2.x", "1.x"] {
        assert_eq!(find("acme/net", name, &table), "need the tag list of r.example/acme/net");
    }
    assert_eq!(find("acme", "net:~>1.2", &table), "need the tag list of r.example/acme/net");
    assert_eq!(find("acme", "net:1.2.x", &table), "need r.example/acme/net:1.2.x");
    table.tags.insert("acme/net", YES(vec!["1.2.0", "1.2.3", "1.4.0", "1.5.x", "2.0.0-rc1"]));
    table.tags.insert("acme/net/3.x", Fact::Absent);
    table.catalog = Some(YES(vec!["acme/net"]));
    for (name, wanted) in [
        ("~>1.2", "-> 1.4.0"),
        (">= 1.2, < 1.4", "-> 1.2.3"),
        ("1.2.x", "-> 1.2.3"),
        ("1.x", "-> 1.4.0"),
        ("=2.0.0-rc1", "-> 2.0.0-rc1"),
        ("~>2.0", "absent"),
        ("3.x", "absent"),
        ("1.5.x", "r.example/acme/net:1.5.x"),
        ("1.2", "absent"),
    ] {
        assert_eq!(find("acme/net", name, &table), wanted, "{name}");
    }
    assert_eq!(find("acme", "net:~>1.2", &table), "-> net:1.4.0");
    assert_eq!(find("acme", "net:1.2.x", &table), "-> net:1.2.3");
    assert_eq!(find("", "~>1.2", &table), "absent", "a registry has no versions");
    table.tags.insert("acme/net", Fact::Failed("away"));
    assert_eq!(find("acme/net", "~>1.2", &table), "failed away");
    table.tags.insert("acme/net", Fact::Absent);
    assert_eq!(find("acme/net", "~>1.2", &table), "absent");
}

#[test]
fn names_that_nothing_can_have_are_refused_without_a_request() {
    let table = Table::default();
    for name in [".git", "", "..", "-x", "package json", "a:b:c", "x@sha256:00"] {
        assert_eq!(find("acme/net", name, &table), "absent", "{name}");
    }
    assert_eq!(find("acme", "net@md5:00", &table), "unsupported");
    // a tag, but no repository, in a place where there are no tags
    assert_eq!(find("", "Main.tf", &table), "absent");
}

#[test]
fn the_rules_are_asked_in_their_order() {
    let mut t = Table::default();
    assert_eq!(find("acme", "net", &t), "need the tag list of r.example/acme");
    t.tags.insert("acme", Fact::Absent);
    assert_eq!(find("acme", "net", &t), "need the catalog of r.example");
    t.catalog = Some(YES(vec!["acme/net/deep"]));
    assert_eq!(find("acme", "net", &t), "dir acme/net", "a prefix of something in the catalog");
    t.catalog = Some(YES(vec!["acme/network"]));
    assert_eq!(
        find("acme", "net", &t),
        "need the tag list of r.example/acme/net",
        "a catalog may lag behind"
    );
    t.tags.insert("acme/net", Fact::Absent);
    assert_eq!(find("acme", "net", &t), "absent", "a prefix ends at a component");
    t.catalog = Some(Fact::Absent);
    assert_eq!(find("acme", "net", &t), "dir acme/net", "a passage where there is no catalog");
    t.tags.insert("acme/net", YES(vec![]));
    t.catalog = None;
    assert_eq!(find("acme", "net", &t), "dir acme/net", "a repository, known without the catalog");
    t.tags.insert("acme", YES(vec!["net"]));
    assert_eq!(find("acme", "net", &t), "r.example/acme:net", "a tag hides a nested repository");
}

#[test]
fn given_names_are_directories_without_a_request() {
    let mut t = Table { prefix: Some("acme/infra"), ..Table::default() };
    t.given.insert("acme/infra/net");
    for (path, name) in [("", "acme"), ("acme", "infra"), ("acme/infra", "net")] {
        assert!(find(path, name, &t).starts_with("dir "), "{path}/{name}");
    }
    assert_eq!(find("", "other", &t), "absent", "outside the prefix");
    assert_eq!(find("acme", "other", &t), "absent", "outside the prefix");
    assert_eq!(
        find("", "acme:1.0", &t),
        "absent",
        "above the prefix is no repository of the source"
    );
    assert_eq!(find("acme/infra", "x", &t), "need the tag list of r.example/acme/infra");
}

#[test]
fn a_passage_needs_its_pattern_and_no_repository_above() {
    let mut t = Table { catalog: Some(Fact::Denied("401")), ..Table::default() };
    t.tags.insert("acme", Fact::Absent);
    for name in ["a", "a-b", "a__b"] {
        t.tags.insert(Box::leak(format!("acme/{name}").into_boxed_str()), Fact::Absent);
        assert!(find("acme", name, &t).starts_with("dir"), "{name}");
    }
    t.tags.insert("acme/1.2.0", Fact::Absent);
    assert_eq!(find("acme", "1.2.0", &t), "absent");
    t.tags.insert("acme", YES(vec!["1.0"]));
    assert_eq!(find("acme", "a", &t), "absent", "not below an existing repository");
}

#[test]
fn a_name_that_may_be_a_passage_needs_no_tag_list_where_there_is_no_catalog() {
    let mut t = Table { catalog: Some(Fact::Absent), ..Table::default() };
    assert_eq!(find("", "acme", &t), "dir acme");
    t.tags.insert("acme", Fact::Absent);
    assert_eq!(find("acme", "net", &t), "dir acme/net", "a repository looks the same");
    assert_eq!(
        find("acme", "1.2.0", &t),
        "need the tag list of r.example/acme/1.2.0",
        "no pattern of a passage"
    );
    t.tags.insert("acme", YES(vec![]));
    assert_eq!(
        find("acme", "net", &t),
        "need the tag list of r.example/acme/net",
        "below a repository"
    );
}

#[test]
fn what_is_denied_is_a_passage_whose_tags_are_denied() {
    let mut t = Table { catalog: Some(Fact::Absent), ..Table::default() };
    t.tags.insert("acme", Fact::Denied("403"));
    assert_eq!(find("", "acme", &t), "dir acme");
    t.tags.insert("acme/1.0", Fact::Absent);
    assert_eq!(find("acme", "1.0", &t), "failed 403", "a tag that may exist");
    t.tags.insert("acme/net", YES(vec![]));
    assert_eq!(find("acme", "net", &t), "dir acme/net", "nested repositories are reached");
    assert!(matches!(list(&space("acme"), &t), Step::Failed(LookupFailure::Fact("403"))));
}

#[test]
fn an_outage_is_not_an_absence() {
    let mut t = Table::default();
    t.tags.insert("acme", Fact::Failed("down"));
    t.bindings.insert(("acme", "net"), Fact::Failed("down"));
    assert_eq!(find("acme", "net", &t), "failed down");
    t.bindings.clear();
    t.tags.insert("acme", Fact::Absent);
    t.catalog = Some(Fact::Absent);
    for name in ["acme/net", "acme/1.0"] {
        t.tags.insert(name, Fact::Failed("down"));
    }
    assert_eq!(find("acme", "net", &t), "dir acme/net", "a passage depends on no answer about it");
    assert_eq!(find("acme", "1.0", &t), "failed down");
    t.tags.insert("acme/net", Fact::Absent);
    t.catalog = Some(Fact::Failed("down"));
    assert_eq!(find("acme", "net", &t), "failed down");
    assert!(matches!(list(&space("acme"), &t), Step::Failed(_)));
}

#[test]
fn a_tag_without_its_list_is_asked_for_by_itself() {
    let mut t = Table::default();
    t.tags.insert("acme/net", Fact::Failed("away"));
    assert_eq!(find("acme/net", "1.0", &t), "need r.example/acme/net:1.0");
    t.bindings.insert(("acme/net", "1.0"), Fact::Is(()));
    assert_eq!(find("acme/net", "1.0", &t), "r.example/acme/net:1.0");
    t.bindings.insert(("acme/net", "1.0"), Fact::Failed("away"));
    assert_eq!(find("acme/net", "1.0", &t), "failed away");
}

#[test]
fn a_listing_shows_what_a_lookup_finds() {
    let mut t = Table { catalog: Some(YES(vec!["acme/net/x", "acme/net/y"])), ..Table::default() };
    t.given.insert("acme/net/y");
    t.tags.insert("acme/net", YES(vec!["1.0", "x", "y"]));
    let Step::Edge(entries) = list(&space("acme/net"), &t) else { panic!("a listing") };
    for (name, entry) in entries {
        assert_eq!(
            lookup(&space("acme/net"), &Component::parse(&name), &t),
            Step::Edge(entry),
            "{name}"
        );
    }
}

#[test]
fn references_need_no_tag_list() {
    let mut t = Table::default();
    assert_eq!(find("acme", "net:1.0", &t), "need r.example/acme/net:1.0");
    t.bindings.insert(("acme/net", "1.0"), Fact::Is(()));
    assert_eq!(find("acme", "net:1.0", &t), "r.example/acme/net:1.0");
    t.bindings.insert(("acme/net", "1.0"), Fact::Absent);
    assert_eq!(find("acme", "net:1.0", &t), "absent");
    let digest = Digest::of(b"");
    assert_eq!(find("acme", &format!("net@{digest}"), &t), format!("r.example/acme/net@{digest}"));
}

#[test]
fn a_tag_that_was_bound_is_confirmed_by_itself() {
    let mut t = Table::default();
    t.bindings.insert(("acme/net", "1.0"), Fact::Unknown);
    assert_eq!(find("acme/net", "1.0", &t), "need r.example/acme/net:1.0");
    t.bindings.insert(("acme/net", "1.0"), Fact::Is(()));
    assert_eq!(find("acme/net", "1.0", &t), "r.example/acme/net:1.0");
}

#[test]
fn a_repository_lists_its_tags_for_one_request() {
    let mut t = Table::default();
    let names = |t: &Table| match list(&space("acme/net"), t) {
        Step::Edge(entries) => entries.into_keys().collect::<Vec<_>>().join(" "),
        other => panic!("{other:?}"),
    };
    assert!(matches!(list(&space("acme/net"), &t), Step::Need(Need::Tags(_))));
    t.tags.insert("acme/net", YES(vec!["1.0", "2.0"]));
    assert_eq!(names(&t), "1.0 2.0");
    t.given.insert("acme/net/sub/x");
    t.catalog = Some(YES(vec!["acme/net", "acme/net/other", "acme/nets"]));
    assert_eq!(names(&t), "1.0 2.0 other sub");
}

#[test]
fn a_prefix_lists_what_is_catalogued() {
    let mut t = Table::default();
    t.tags.insert("acme", Fact::Absent);
    assert!(matches!(list(&space("acme"), &t), Step::Need(Need::Catalog(_))));
    assert!(matches!(list(&space(""), &t), Step::Need(Need::Catalog(_))));
    t.catalog = Some(YES(vec!["acme/a", "acme/b/c", "zeta"]));
    let Step::Edge(entries) = list(&space("acme"), &t) else { panic!("entries") };
    assert_eq!(entries.into_keys().collect::<Vec<_>>(), ["a", "b"]);
    let Step::Edge(entries) = list(&space(""), &t) else { panic!("entries") };
    assert_eq!(entries.into_keys().collect::<Vec<_>>(), ["acme", "zeta"]);
    let t = Table { prefix: Some("acme/infra"), ..Table::default() };
    let Step::Edge(entries) = list(&space("acme"), &t) else { panic!("entries without a request") };
    assert_eq!(entries.into_keys().collect::<Vec<_>>(), ["infra"]);
}

#[test]
fn a_used_repository_of_the_longest_name_can_be_asked_for() {
    let mut t = Table::default();
    let name: &'static str = Box::leak(vec!["a".repeat(50); 5].join("/").into_boxed_str());
    assert_eq!(name.len(), 254);
    let (parent, last) = name.rsplit_once('/').unwrap();
    t.given.insert(name);
    t.bindings.insert((name, "1.0"), Fact::Is(()));
    assert_eq!(find(parent, &format!("{last}:1.0"), &t), format!("{HOST}/{name}:1.0"));
    t.tags.insert(name, YES(vec!["1.0"]));
    assert_eq!(find(name, "1.0", &t), format!("{HOST}/{name}:1.0"));
}

#[test]
fn what_a_store_holds_is_there_while_other_sources_do_not_answer() {
    let mut t = Table { catalog: Some(Fact::Failed("down")), ..Table::default() };
    t.held.extend(["acme/net", "acme/net/inner"]);
    for (path, failed) in [("acme", "down"), ("acme/net", "down"), ("acme/other", "down")] {
        t.tags.insert(path, Fact::Failed(failed));
    }
    for tag in ["net", "other", "1.0", "2.0", "inner"] {
        t.bindings.insert(("acme", tag), Fact::Failed("down"));
        t.bindings.insert(("acme/net", tag), Fact::Failed("down"));
    }
    t.bindings.insert(("acme/net", "1.0"), Fact::Is(()));
    assert_eq!(find("", "acme", &t), "dir acme");
    assert_eq!(find("acme", "net", &t), "dir acme/net");
    assert_eq!(find("acme/net", "1.0", &t), "r.example/acme/net:1.0");
    assert_eq!(find("acme/net", "inner", &t), "dir acme/net/inner");
    assert_eq!(find("acme", "other", &t), "failed down", "no store holds it, which is no absence");
    assert_eq!(find("acme/net", "2.0", &t), "failed down");
    t.tags.insert("acme/net", Fact::Denied("401"));
    assert_eq!(find("acme/net", "1.0", &t), "r.example/acme/net:1.0", "denied elsewhere");
}

#[test]
fn present_lists_answer_for_what_they_lack() {
    let mut t = Table {
        catalog: Some(YES(vec!["acme/net", "acme/net/inner/x", "acme/net-2"])),
        ..Table::default()
    };
    t.tags.insert("acme/net", YES(vec!["1.0"]));
    assert_eq!(find("acme/net", "2.0", &t), "absent");
    assert_eq!(find("acme", "net:2.0", &t), "absent");
    assert_eq!(find("acme", "net:1.0", &t), "need r.example/acme/net:1.0");
    assert_eq!(
        find("acme/net", "inner", &t),
        "dir acme/net/inner",
        "a prefix of something in the catalog"
    );
    t.bindings.insert(("acme/net", "3.0"), Fact::Unknown);
    assert_eq!(
        find("acme", "net:3.0", &t),
        "need r.example/acme/net:3.0",
        "what was entered may be there all the same"
    );
    t.is_away = true;
    let asks = "need the tag list of r.example/acme/net/2.0";
    assert_eq!(
        find("acme/net", "2.0", &t),
        asks,
        "a list that nobody confirms answers for nothing"
    );
    assert_eq!(find("acme", "net:2.0", &t), "need r.example/acme/net:2.0");
    t.is_away = false;
    t.catalog = Some(YES(vec!["acme/other"]));
    assert_eq!(
        find("acme/net", "2.0", &t),
        asks,
        "a catalog that lacks the repository is not complete"
    );
    t.catalog = Some(Fact::Absent);
    assert_eq!(find("acme/net", "2.0", &t), asks, "without a catalog nobody else can say");
}
