//! For how long answers count: those of the registry for a mount, and those of a mount for the
//! kernel.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tofufs::artifact::Release;
use tofufs::facts::{Facts, Unpacking};
use tofufs::failure::{Failure, Refusal};
use tofufs::fs::{FOREVER, FoundEntry, Fs, Lookup, ROOT, Thread};
use tofufs::name::{Reference, Repo, Selector};
use tofufs::oci::Descriptor;
use tofufs::tree::{Fact, KnownFacts, Need};

use crate::kernel::{mount, open_store};
use crate::memory::MemoryRegistry;
use crate::pack;
use crate::registry::registry_of;
use crate::truth::{HOST, REPOS, artifacts};

const TTL: Duration = Duration::from_secs(3600);

/// A registry whose tag `a:1` is the first artifact and `p:1` a provider.
fn registry(has_catalog: bool) -> Arc<MemoryRegistry> {
    let known = artifacts();
    let all: Vec<_> = known.iter().map(|known| known.artifact.clone()).collect();
    let fake = registry_of(&REPOS, &all, has_catalog);
    for (repo, at) in [("a", 0), ("p", 3)] {
        fake.set_tag(repo, "1", Some(all[at].digest()));
    }
    Arc::new(fake)
}

fn reference(text: &str) -> Reference {
    format!("{HOST}/{text}").parse().unwrap()
}

fn repo(name: &str) -> Repo {
    Repo { host: HOST.parse().unwrap(), name: name.parse().unwrap() }
}

/// A package, where no policy asks for anything.
async fn package(here: &Facts, archive: &Descriptor) -> Result<(), Refusal> {
    let named = repo("a").at(Selector::Digest(archive.digest));
    let admitted = here.gate().admit(&named, archive.digest).await?;
    let content = here.content();
    content.package(&admitted, &repo("a"), archive, Unpacking::WhenOpened).await.map(drop)
}

fn failure<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Failure {
    result.unwrap_err().failure
}

fn facts(fake: &Arc<MemoryRegistry>, cache: &tempfile::TempDir) -> Arc<Facts> {
    mount(fake, &open_store(cache), TTL, false).facts().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_is_asked_for_again_whatever_another_mount_was_told() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let (one, other) = (facts(&fake, &cache), facts(&fake, &cache));
    one.tags().list(&repo("a")).await.unwrap();
    assert_eq!(other.tags().list(&repo("a")).await.unwrap().len(), 1);
    assert_eq!(fake.state().requests(), 1, "what another mount was told just now counts");
    let third = facts(&fake, &cache);
    third.forget(|_| true);
    fake.state().repo("a").tags.clear();
    assert!(third.tags().list(&repo("a")).await.unwrap().is_empty());
    assert_eq!(fake.state().requests(), 2);
}

/// R47: the registry has spoken, and an outage does not take that back.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_took_back_does_not_return_with_an_outage() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let here = facts(&fake, &cache);
    here.tags().resolve(&reference("a:1")).await.unwrap();
    fake.state().repo("a").tags.clear();
    here.forget(|_| true);
    assert_eq!(failure(here.tags().resolve(&reference("a:1")).await), Failure::Absent);
    fake.state().failing = Some(Failure::Unreachable);
    here.forget(|_| true);
    assert_eq!(failure(here.tags().resolve(&reference("a:1")).await), Failure::Unreachable);
    let later = facts(&fake, &cache);
    assert_eq!(failure(later.tags().resolve(&reference("a:1")).await), Failure::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_did_not_move_is_confirmed_without_its_manifest() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let here = facts(&fake, &cache);
    let digest = here.tags().resolve(&reference("a:1")).await.unwrap();
    assert_eq!(fake.state().manifests_asked(), 1);
    here.forget(|_| true);
    assert_eq!(here.tags().resolve(&reference("a:1")).await.unwrap(), digest);
    assert_eq!(fake.state().manifests_asked(), 1);
    assert_eq!(fake.state().requests(), 2, "one HEAD");
}

/// What names stand for depends on the list, which must not vanish because the registry refuses it
/// for now.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_seen_is_not_taken_for_none_when_it_is_refused_later() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let here = facts(&fake, &cache);
    let host = repo("a").host;
    let catalog = async |mode| {
        fake.state().failing = mode;
        here.forget(|_| true);
        let since = Instant::now();
        here.tags().load(Need::Catalog(host.clone())).await.unwrap();
        here.view(since).catalog(&host)
    };
    assert!(matches!(catalog(None).await, Fact::Is(names) if names.len() == REPOS.len()));
    assert!(matches!(catalog(Some(Failure::Denied)).await, Fact::Denied(_)));
    assert!(
        matches!(catalog(Some(Failure::Unreachable)).await, Fact::Is(names) if names.len() == REPOS.len())
    );
    // Where none was ever seen, a refusal says that there is none.
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let fresh = facts(&fake, &cache);
    fake.state().failing = Some(Failure::Denied);
    fresh.tags().load(Need::Catalog(host.clone())).await.unwrap();
    fake.state().failing = Some(Failure::Unreachable);
    fresh.forget(|_| true);
    let since = Instant::now();
    fresh.tags().load(Need::Catalog(host.clone())).await.unwrap();
    assert!(matches!(fresh.view(since).catalog(&host), Fact::Absent));
}

/// What failed is not asked for again at once, but after a while, and at once when that is wished.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_counts_for_a_while_or_until_it_is_forgotten() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let here = facts(&fake, &cache);
    let cases = [
        (0, Some(Failure::Denied), Failure::Denied, true),
        (1, Some(Failure::Unreachable), Failure::Unreachable, false),
    ];
    for (artifact, mode, wanted, is_forgotten) in cases {
        let digest = artifacts()[artifact].artifact.digest();
        let (_, release) = here.manifests().release(&repo("a"), digest).await.unwrap();
        let Release::Module(archive) = release else { panic!("a module") };
        fake.state().failing = mode;
        assert_eq!(failure(package(&here, &archive).await), wanted);
        fake.state().failing = None;
        let requests = fake.state().requests();
        assert_eq!(failure(package(&here, &archive).await), wanted);
        assert_eq!(fake.state().requests(), requests);
        if is_forgotten {
            here.forget(|_| true);
            package(&here, &archive).await.unwrap();
            continue;
        }
        let begun = Instant::now();
        while package(&here, &archive).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is never asked for again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_was_seen_is_asked_for_no_more() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let digest = facts(&fake, &cache).tags().resolve(&reference("a:1")).await.unwrap();
    fake.state().failing = Some(Failure::Unreachable);
    facts(&fake, &cache).manifests().get(&repo("a"), digest).await.unwrap();
}

async fn find(fs: &Arc<Fs>, path: &str) -> Lookup {
    let (mut at, mut found) = (ROOT, None);
    for name in path.split('/') {
        let lookup = fs
            .clone()
            .lookup(Thread(0), at, OsStr::new(name).into())
            .await
            .unwrap_or_else(|e| panic!("{path}: {e:?}"));
        if let Lookup::Found(entry) = lookup {
            at = entry.attr.ino;
        }
        found = Some(lookup);
    }
    found.unwrap()
}

async fn entry(fs: &Arc<Fs>, path: &str) -> FoundEntry {
    match find(fs, path).await {
        Lookup::Found(entry) => entry,
        Lookup::Absent(_) => panic!("{path} is absent"),
    }
}

async fn listed(fs: &Arc<Fs>, path: &str) -> Vec<(String, FoundEntry)> {
    let handle = fs.clone().opendir(Thread(0), entry(fs, path).await.attr.ino).await.unwrap();
    let mut out = Vec::new();
    fs.readdir(handle, 2, |listed| {
        out.push((listed.name.to_str().unwrap().to_owned(), listed.entry));
        true
    })
    .unwrap();
    fs.releasedir(handle);
    out
}

/// How long the kernel may keep names: infinitely below a bound release, the time to live above it,
/// none for what is not known.
#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_may_keep_what_never_changes_for_ever_and_the_rest_for_the_time_to_live() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let fs = mount(&fake, &open_store(&cache), TTL, false);
    let within = |ttl: Duration| ttl <= TTL && ttl > TTL / 2;
    assert_eq!(entry(&fs, HOST).await.ttl, FOREVER, "the sources of a mount do not change");
    let (space, tag) = (format!("{HOST}/a"), format!("{HOST}/a/1"));
    for path in [&space, &tag] {
        let found = entry(&fs, path).await;
        assert!(
            within(found.ttl) && found.ttl == found.attr_ttl && found.attr.nlink == 1,
            "{path}: {:?}",
            found.ttl
        );
    }
    // Entered, and found again: as long as the binding counts.
    assert_eq!(listed(&fs, &tag).await.len(), 2);
    assert!(within(entry(&fs, &tag).await.ttl));
    for (name, below) in listed(&fs, &tag).await {
        assert_eq!((below.ttl, below.attr_ttl), (FOREVER, FOREVER), "{name}");
        let found = entry(&fs, &format!("{tag}/{name}")).await;
        assert_eq!(
            (found.ttl, found.attr_ttl, found.attr.ino),
            (FOREVER, FOREVER, below.attr.ino),
            "{name}"
        );
    }
    assert!(matches!(find(&fs, &format!("{tag}/none")).await, Lookup::Absent(FOREVER)));
    assert!(matches!(find(&fs, &format!("{tag}/d/none")).await, Lookup::Absent(FOREVER)));
    // A name that can come to be is asked for again soon; one that nothing can have never is.
    let soon = Duration::from_secs(1);
    assert!(matches!(find(&fs, &format!("{space}/9.9")).await, Lookup::Absent(ttl) if ttl == soon));
    assert!(matches!(find(&fs, &format!("{space}/.git")).await, Lookup::Absent(FOREVER)));
    assert!(matches!(find(&fs, ".git").await, Lookup::Absent(FOREVER)));
    let requests = fake.state().requests();
    assert!(matches!(find(&fs, &format!("{HOST}/Main.tf")).await, Lookup::Absent(_)));
    assert_eq!(
        fake.state().requests(),
        requests,
        "nobody is asked for what no repository can be called"
    );
}

/// Whoever is in a release stays there, but the next use of its name is looked up.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_release_whose_tag_is_known_to_have_moved_is_not_kept() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let fs = mount(&fake, &open_store(&cache), TTL, false);
    let (space, tag) = (format!("{HOST}/a"), format!("{HOST}/a/1"));
    listed(&fs, &tag).await;
    let before = listed(&fs, &space).await;
    assert!(before.iter().any(|(name, entry)| name == "1" && !entry.ttl.is_zero()));
    let moved = artifacts()[1].artifact.digest();
    fake.set_tag("a", "1", Some(moved));
    fs.facts().forget(|_| true);
    entry(&fs, &format!("{HOST}/a:1")).await;
    let after = listed(&fs, &space).await;
    assert!(after.iter().any(|(name, entry)| name == "1" && entry.ttl.is_zero()));
    let old = before.iter().find(|(name, _)| name == "1").unwrap().1.attr.ino;
    assert_ne!(entry(&fs, &tag).await.attr.ino, old);
}

/// What a tag moved to may be refused: then it is there, and whoever is in what it was stays in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moved_to_what_is_refused_is_still_there() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let fs = mount(&fake, &open_store(&cache), TTL, false);
    let tag = format!("{HOST}/a:1");
    let before = entry(&fs, &tag).await.attr.ino;
    listed(&fs, &tag).await;
    fake.set_tag("a", "1", Some(artifacts()[1].artifact.digest()));
    fake.state().failing = Some(Failure::TooLarge);
    fs.facts().forget(|_| true);
    assert_eq!(entry(&fs, &tag).await.attr.ino, before);
    assert_eq!(listed(&fs, &tag).await.len(), 2);
}

/// A wrong size with attributes that are kept makes OpenTofu record the hash of an empty file.
#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_is_not_known_is_not_kept_and_never_wrong_once_it_was_asked_for() {
    let (fake, cache) = (registry(true), tempfile::tempdir().unwrap());
    let fs = mount(&fake, &open_store(&cache), TTL, false);
    let release = format!("{HOST}/p/1");
    let zips = |list: Vec<(String, FoundEntry)>| -> Vec<_> {
        list.into_iter()
            .filter(|(name, _)| name.ends_with(".zip"))
            .map(|(_, entry)| entry)
            .collect()
    };
    let before = zips(listed(&fs, &release).await);
    assert!(
        before.len() == 2 && before.iter().all(|zip| zip.ttl.is_zero() && zip.attr_ttl.is_zero())
    );
    for zip in before {
        let asked = fs.clone().getattr(zip.attr.ino).await.unwrap();
        assert!(asked.attr.size > 100 && asked.attr_ttl == FOREVER);
    }
    assert!(
        zips(listed(&fs, &release).await)
            .iter()
            .all(|zip| zip.attr.size > 100 && zip.attr_ttl == FOREVER)
    );
}

/// OpenTofu executes them, whatever their archive says.
#[tokio::test(flavor = "multi_thread")]
async fn plugins_at_the_top_of_a_provider_are_executable_and_nothing_else_is() {
    let plugin = "terraform-provider-x_v1";
    let zip = pack::zip(&[
        (plugin, b"x"),
        ("README.md", b"x"),
        ("d/terraform-provider-y", b"x"),
        ("run!", b"x"),
    ]);
    let provider = pack::provider_of(&[("linux_amd64", zip)]);
    let module = pack::module(&[(plugin, b"x")]);
    let fake = registry_of(&REPOS, &[provider.clone(), module.clone()], true);
    fake.set_tag("p", "1", Some(provider.digest()));
    fake.set_tag("p", "2", Some(module.digest()));
    let cache = tempfile::tempdir().unwrap();
    let fs = mount(&Arc::new(fake), &open_store(&cache), TTL, false);
    for (path, mode) in [
        ("1/linux_amd64/terraform-provider-x_v1", 0o755),
        ("1/linux_amd64/README.md", 0o644),
        ("1/linux_amd64/d/terraform-provider-y", 0o644),
        ("1/linux_amd64/run", 0o755),
        ("2/terraform-provider-x_v1", 0o644),
    ] {
        assert_eq!(entry(&fs, &format!("{HOST}/p/{path}")).await.attr.mode, mode, "{path}");
    }
}
