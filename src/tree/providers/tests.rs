use std::cell::RefCell;

use super::*;
use crate::mapping::MappingRule;
use crate::name::RepoName;
use crate::tree::{Standing, mirror, plugins};

/// Facts as a table. What is not in it was not asked for yet.
struct Table {
    mapping: Mapping,
    declared: BTreeSet<ProviderAddr>,
    looked_up: BTreeSet<ProviderAddr>,
    wanted: Vec<Platform>,
    verify: bool,
    offline: bool,
    bound: Vec<&'static str>,
    held: Vec<&'static str>,
    tags: BTreeMap<&'static str, Fact<Vec<&'static str>, &'static str>>,
    catalog: Fact<Vec<&'static str>, &'static str>,
    platforms: BTreeMap<&'static str, Fact<Vec<&'static str>, &'static str>>,
    asked: RefCell<Vec<String>>,
}

const HOST: &str = "r.example";

impl Table {
    fn new(template: &str) -> Table {
        let include = ["p.example/*/*".to_owned()];
        Table {
            mapping: Mapping::new(vec![
                MappingRule::new(template, &include, &["p.example/secret/*".to_owned()]).unwrap(),
            ]),
            declared: BTreeSet::new(),
            looked_up: BTreeSet::new(),
            wanted: vec!["linux_amd64".parse().unwrap()],
            verify: false,
            offline: false,
            bound: Vec::new(),
            held: Vec::new(),
            tags: BTreeMap::new(),
            catalog: Fact::Unknown,
            platforms: BTreeMap::new(),
            asked: RefCell::default(),
        }
    }

    fn answer<T>(
        fact: Option<&Fact<Vec<&'static str>, &'static str>>,
        read: impl Fn(&str) -> T,
    ) -> Fact<Arc<Vec<T>>, &'static str> {
        match fact {
            None | Some(Fact::Unknown) => Fact::Unknown,
            Some(Fact::Is(texts)) => {
                Fact::Is(Arc::new(texts.iter().map(|text| read(text)).collect()))
            }
            Some(Fact::Absent) => Fact::Absent,
            Some(Fact::Denied(e)) => Fact::Denied(e),
            Some(Fact::Failed(e)) => Fact::Failed(e),
        }
    }
}

impl KnownFacts for Table {
    type Error = &'static str;

    fn tags(&self, repo: &Repo) -> Fact<Arc<Vec<Tag>>, &'static str> {
        Table::answer(self.tags.get(repo.name.as_str()), |t| t.parse().unwrap())
    }

    fn catalog(&self, host: &Host) -> Fact<Arc<Vec<RepoName>>, &'static str> {
        self.asked.borrow_mut().push(host.to_string());
        Table::answer(Some(&self.catalog), |t| t.parse().unwrap())
    }

    fn held(&self, _: &Host) -> Fact<Arc<Vec<RepoName>>, &'static str> {
        Table::answer(Some(&Fact::Is(self.held.clone())), |name| name.parse().unwrap())
    }

    fn binding(&self, repo: &Repo, tag: &Tag) -> Fact<(), &'static str> {
        let is_bound = self.bound.contains(&format!("{}:{tag}", repo.name).as_str());
        if is_bound { Fact::Is(()) } else { Fact::Failed("offline") }
    }

    fn is_confirmed(&self, _: &Need) -> bool {
        true
    }

    fn was_bound(&self, _: &Repo, _: &Tag) -> bool {
        false
    }

    fn standing(&self, _: &Host, _: &RepoName) -> Standing {
        Standing::Inside
    }

    fn given_below(&self, _: &Host, _: Option<&RepoName>) -> Vec<RepoName> {
        Vec::new()
    }
}

impl Offered for Table {
    fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn declared(&self) -> &BTreeSet<ProviderAddr> {
        &self.declared
    }

    fn looked_up(&self) -> Arc<BTreeSet<ProviderAddr>> {
        Arc::new(self.looked_up.clone())
    }

    fn wanted(&self) -> &[Platform] {
        &self.wanted
    }

    fn verifies_platforms(&self) -> bool {
        self.verify
    }

    fn is_offline(&self) -> bool {
        self.offline
    }

    fn platforms(&self, repo: &Repo, tag: &Tag) -> Fact<Arc<Vec<Platform>>, &'static str> {
        Table::answer(self.platforms.get(format!("{}:{tag}", repo.name).as_str()), |t| {
            t.parse().unwrap()
        })
    }

    fn repos(&self, provider: &ProviderAddr) -> Result<Vec<Repo>, &'static str> {
        self.mapping.repos(provider).map_err(|_| "unmappable")
    }
}

const TEMPLATE: &str = "r.example/m/${namespace}/${type}";

fn provider(text: &str) -> ProviderAddr {
    ProviderAddr::parse(&format!("p.example/{text}"), &HOST.parse().unwrap()).unwrap()
}

fn top() -> ProviderDirectory {
    ProviderDirectory::Top
}

fn acme() -> ProviderDirectory {
    ProviderDirectory::Namespace("p.example".parse().unwrap(), "acme".to_owned())
}

fn one() -> ProviderDirectory {
    ProviderDirectory::Provider(provider("acme/one"))
}

fn version(text: &str) -> ProviderDirectory {
    ProviderDirectory::Version(provider("acme/one"), text.parse().unwrap())
}

/// What was found, in a word.
fn say(step: Step<ProviderEntry, &'static str>) -> String {
    match step {
        Step::Edge(ProviderEntry::Dir(dir)) => format!("dir {dir}"),
        Step::Edge(ProviderEntry::Link(target)) => format!("-> {target}"),
        Step::Edge(ProviderEntry::Versions(_)) => "versions".to_owned(),
        Step::Edge(ProviderEntry::Archives(repo, tag, _)) => format!("archives of {repo}:{tag}"),
        Step::Need(need) => format!("need {need}"),
        Step::Absent => "absent".to_owned(),
        Step::Failed(e) => format!("failed {e}"),
    }
}

/// What is listed: names, and after them why there are not more.
fn names(step: Step<ProviderListing<&'static str>, &'static str>) -> String {
    match step {
        Step::Edge(listing) => {
            let names: Vec<_> = listing.entries.into_keys().collect();
            format!("{} {}", names.join(" "), listing.error.unwrap_or_default()).trim().to_owned()
        }
        Step::Need(need) => format!("need {need}"),
        Step::Absent => "absent".to_owned(),
        Step::Failed(e) => format!("failed {e}"),
    }
}

#[test]
fn what_may_be_above_a_provider_is_a_directory_without_a_request() {
    let known = Table::new(TEMPLATE);
    let host = ProviderDirectory::Host("p.example".parse().unwrap());
    for (dir, name, expected) in [
        (top(), "p.example", "dir p.example"),
        (top(), "P.example", "absent"),
        (top(), "p.example:443", "absent"),
        (top(), "q.example", "absent"),
        (top(), "package.json", "absent"),
        (top(), ".git", "absent"),
        (host.clone(), "acme", "dir p.example/acme"),
        (host.clone(), "secret", "absent"),
        (host.clone(), "Acme", "absent"),
        (host, "index.json", "absent"),
        (acme(), "one", "need the tag list of r.example/m/acme/one"),
        (acme(), "one.json", "absent"),
    ] {
        assert_eq!(say(plugins::lookup(&dir, name, &known)), expected, "{dir} {name}");
        assert_eq!(say(mirror::lookup(&dir, name, &known)), expected, "{dir} {name}");
    }
}

#[test]
fn providers_come_from_the_catalog_unless_some_were_declared() {
    let mut known = Table::new(TEMPLATE);
    known.looked_up.insert(provider("acme/before"));
    assert_eq!(names(plugins::list(&acme(), &known)), "need the catalog of r.example");
    known.catalog =
        Fact::Is(vec!["m/acme/one", "m/other/two", "m/secret/x", "else/acme/three", "m/acme/a.b"]);
    assert_eq!(names(plugins::list(&acme(), &known)), "before one");
    assert_eq!(names(plugins::list(&top(), &known)), "p.example");
    known.catalog = Fact::Denied("no");
    assert_eq!(names(plugins::list(&acme(), &known)), "before");
    known.catalog = Fact::Failed("away");
    assert_eq!(names(plugins::list(&acme(), &known)), "before away");
    known.asked.borrow_mut().clear();
    known.declared.insert(provider("acme/one"));
    assert_eq!(names(mirror::list(&acme(), &known)), "before one");
    assert!(known.asked.borrow().is_empty());
    // What no rule is for (any more) is not shown.
    known.looked_up.insert(provider("secret/x"));
    assert_eq!(
        names(plugins::list(&ProviderDirectory::Host("p.example".parse().unwrap()), &known)),
        "acme"
    );
}

/// Two origins of one provider, as those who come from one client to the other have them.
#[test]
fn a_repository_that_several_rules_lead_to_is_listed_under_each_of_their_addresses() {
    let mut known = Table::new(TEMPLATE);
    let rule = |include: &str| {
        MappingRule::new("r.example/m/acme/${type}", &[include.to_owned()], &[]).unwrap()
    };
    known.mapping = Mapping::new(vec![
        rule("p.example/acme/*"),
        rule("q.example/acme/*"),
        rule("p.example/emca/*"),
    ]);
    known.catalog = Fact::Is(vec!["m/acme/one"]);
    let host = ProviderDirectory::Host("p.example".parse().unwrap());
    for list in [plugins::list::<Table>, mirror::list::<Table>] {
        assert_eq!(names(list(&top(), &known)), "p.example q.example");
        assert_eq!(names(list(&host, &known)), "acme emca");
        assert_eq!(names(list(&acme(), &known)), "one");
    }
    // A rule for whose providers one was declared lists no others, and the rest go on as before.
    known.declared.insert(provider("acme/two"));
    assert_eq!(names(plugins::list(&acme(), &known)), "two");
    assert_eq!(names(plugins::list(&host, &known)), "acme emca");
}

#[test]
fn a_declared_provider_is_a_directory_whatever_its_registry_says() {
    let mut known = Table::new(TEMPLATE);
    known.declared.insert(provider("acme/one"));
    assert_eq!(say(plugins::lookup(&acme(), "one", &known)), "dir p.example/acme/one");
    for (fact, listed, found) in [
        (
            Fact::Unknown,
            "need the tag list of r.example/m/acme/one",
            "need the tag list of r.example/m/acme/one",
        ),
        (Fact::Absent, "", "absent"),
        (Fact::Denied("no"), "no", "failed no"),
        (Fact::Failed("away"), "away", "failed away"),
        (Fact::Is(vec!["latest"]), "", "absent"),
        (Fact::Is(vec!["1.0.0"]), "1.0.0", "dir p.example/acme/one/1.0.0"),
    ] {
        known.tags.insert("m/acme/one", fact);
        assert_eq!(names(plugins::list(&one(), &known)), listed);
        assert_eq!(say(plugins::lookup(&one(), "1.0.0", &known)), found);
    }
    // Who asks for one that nobody declared is told the same.
    known.tags.insert("m/acme/two", Fact::Failed("away"));
    assert_eq!(say(plugins::lookup(&acme(), "two", &known)), "failed away");
    known.tags.insert("m/acme/two", Fact::Absent);
    assert_eq!(say(plugins::lookup(&acme(), "two", &known)), "absent");
}

#[test]
fn versions_are_canonical_tags_alone() {
    let mut known = Table::new(TEMPLATE);
    known.tags.insert(
        "m/acme/one",
        Fact::Is(vec!["01.0.0", "1.0.0", "1.0.0-rc1_b2", "1.1", "latest", "v1.0.0"]),
    );
    assert_eq!(names(plugins::list(&one(), &known)), "1.0.0 1.0.0-rc1+b2");
    let link = "-> ../../../../../r.example/m/acme/one/1.0.0-rc1_b2/linux_amd64";
    assert_eq!(say(plugins::lookup(&version("1.0.0-rc1+b2"), "linux_amd64", &known)), link);
    let zip = "terraform-provider-one_1.0.0-rc1+b2_linux_amd64.zip";
    let listed = format!("index.json {zip} terraform-provider-one_1.0.0_linux_amd64.zip");
    assert_eq!(names(mirror::list(&one(), &known)), listed);
    let link = "-> ../../../../r.example/m/acme/one/1.0.0-rc1_b2/linux_amd64.zip";
    assert_eq!(say(mirror::lookup(&one(), zip, &known)), link);
    assert_eq!(say(mirror::lookup(&one(), "index.json", &known)), "versions");
    assert_eq!(
        say(mirror::lookup(&one(), "1.0.0.json", &known)),
        "archives of r.example/m/acme/one:1.0.0"
    );
    for absent in
        ["1.1.json", "2.0.0.json", "terraform-provider-two_1.0.0_linux_amd64.zip", "1.0.0", "x"]
    {
        assert_eq!(say(mirror::lookup(&one(), absent, &known)), "absent", "{absent}");
    }
    for absent in ["1.1", "v1.0.0", "1.0.0-rc1_b2", "2.0.0"] {
        assert_eq!(say(plugins::lookup(&one(), absent, &known)), "absent", "{absent}");
    }
}

/// The newest that a client sees is the one that it takes.
#[test]
fn without_a_network_versions_are_those_that_can_be_had() {
    let mut known = Table::new(TEMPLATE);
    known.tags.insert("m/acme/one", Fact::Is(vec!["1.0.0", "1.1.0", "2.0.0"]));
    known.bound = vec!["m/acme/one:1.1.0"];
    assert_eq!(names(plugins::list(&one(), &known)), "1.0.0 1.1.0 2.0.0");
    known.offline = true;
    assert_eq!(names(plugins::list(&one(), &known)), "1.1.0");
    assert_eq!(
        names(mirror::list(&one(), &known)),
        "index.json terraform-provider-one_1.1.0_linux_amd64.zip"
    );
    known.held = vec!["m/acme/one"];
    assert_eq!(names(plugins::list(&one(), &known)), "1.0.0 1.1.0 2.0.0");
}

#[test]
fn a_wanted_platform_is_there_until_it_is_known_not_to_be() {
    let mut known = Table::new(TEMPLATE);
    known.tags.insert("m/acme/one", Fact::Is(vec!["1.0.0"]));
    let dir = version("1.0.0");
    let look = |known: &Table, name: &str| say(plugins::lookup(&dir, name, known));
    assert_eq!(names(plugins::list(&dir, &known)), "linux_amd64");
    assert!(look(&known, "linux_amd64").starts_with("->"));
    assert_eq!(look(&known, "plan9_mips"), "need the platforms of r.example/m/acme/one:1.0.0");
    known.platforms.insert("m/acme/one:1.0.0", Fact::Is(vec!["plan9_mips"]));
    assert_eq!(names(plugins::list(&dir, &known)), "");
    assert_eq!(look(&known, "linux_amd64"), "absent");
    assert!(look(&known, "plan9_mips").starts_with("->"));
    assert_eq!(look(&known, "x"), "absent");

    known.verify = true;
    for (fact, listed, found) in [
        (
            Fact::Unknown,
            "need the platforms of r.example/m/acme/one:1.0.0",
            "need the platforms of r.example/m/acme/one:1.0.0",
        ),
        (Fact::Failed("away"), "away", "failed away"),
        (
            Fact::Is(vec!["linux_amd64", "plan9_mips"]),
            "linux_amd64",
            "-> ../../../../../r.example/m/acme/one/1.0.0/linux_amd64",
        ),
    ] {
        known.platforms.insert("m/acme/one:1.0.0", fact);
        assert_eq!(names(plugins::list(&dir, &known)), listed);
        assert_eq!(look(&known, "linux_amd64"), found);
    }
}
