//! Providers of one registry beside each other: what one does costs the others nothing, and nothing
//! is asked for twice.

use std::time::{Duration, Instant};

use crate::clients::{Client, configuration_for};
use crate::support::hostile::{Behaviour, Hostile, Login, Reply, Seen};
use crate::support::mount::{Mount, Options};
use crate::support::{pack, program};
use crate::tiny;
use crate::{ORIGIN, here, names};

/// Publishes `acme/tiny` 1.0.0 below `prefix`, and `others` that nobody installs.
fn publish(server: &Hostile, prefix: &str, others: &[String]) -> Option<()> {
    let packages = tiny::packages("1.0.0")?;
    let packages: Vec<_> =
        packages.iter().map(|(platform, zip)| (platform.as_str(), zip.clone())).collect();
    server.publish(&format!("{prefix}/tiny"), "1.0.0", &pack::provider_of(&packages));
    for other in others {
        let release = pack::provider(other, "1.0.0", &[&here()]);
        server.publish(&format!("{prefix}/{other}"), "1.0.0", &release);
    }
    Some(())
}

/// A mount in which all providers of `acme` come from repositories below `template`.
fn mount(server: &Hostile, source: &str, template: &str, options: &[String]) -> Option<Mount> {
    let host = server.host();
    let options = Options::new()
        .args(["--plain-http", &host])
        .args([
            "--oci-mirror",
            &format!("{host}/{template}"),
            "--include",
            &format!("{ORIGIN}/*/*"),
        ])
        .args(options);
    Mount::start(&[format!("{host}/{source}").trim_end_matches('/')], options)
}

/// What a repository does that is in trouble, by a name that the order of a walk puts before the
/// healthy one.
fn troubles() -> Vec<(&'static str, Behaviour)> {
    let answer = |status, code| Behaviour::Answer(Reply::error(status, code));
    vec![
        ("away", answer(503, "UNAVAILABLE")),
        ("busy", answer(429, "TOOMANYREQUESTS")),
        ("closed", answer(403, "DENIED")),
        ("hung", Behaviour::Silence),
    ]
}

/// Beside one that answers 503, one that answers 429, one 403 and one that hangs, with nothing in
/// the cache.
fn a_provider_beside_broken_ones_is_installed(name: &'static str, view: &str) {
    if program(name).is_none() {
        return;
    }
    let together = troubles();
    let alone = together.iter().map(|trouble| vec![trouble.clone()]);
    for troubles in alone.chain([together.clone()]) {
        let server = Hostile::start();
        let bad: Vec<String> = troubles.iter().map(|(bad, _)| (*bad).to_owned()).collect();
        let Some(()) = publish(&server, "mirror/acme", &bad) else { return };
        for (bad, behaviour) in &troubles {
            let path = format!("/v2/mirror/acme/{bad}/");
            server.rule(move |seen: &Seen| seen.path.starts_with(&path), behaviour.clone());
        }
        let Some(mount) = mount(&server, "", "mirror/${namespace}/${type}", &[]) else { return };
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        let client = Client::new(name, &base, "work", &configuration_for(&mount, view)).unwrap();
        let began = Instant::now();
        client.run(&["init", "-input=false", "-no-color"]);
        let (took, asked) = (began.elapsed(), server.requests().len());
        eprintln!(
            "{name} init through {view}/ beside {}: {took:.1?}, {asked} requests",
            bad.join(", ")
        );
        client.use_provider();
        for bad in &bad {
            let path = format!("{view}/{ORIGIN}/acme/{bad}");
            assert_eq!(names(&mount.join(&path)), Vec::<String>::new());
            let error = mount.xattr(&path, "user.tofufs.error").expect("a reason");
            assert!(error.contains(&format!("mirror/acme/{bad}")), "{error}");
        }
        // A person who looks at a healthy release is not held up either.
        let read = mount.join(format!("{}/mirror/acme/tiny/1.0.0", server.host()));
        assert!(names(&read).contains(&here()));
        server.drop_connections();
    }
}

#[test]
fn terraform_installs_from_plugins_beside_broken_providers() {
    a_provider_beside_broken_ones_is_installed("terraform", "plugins");
}

#[test]
fn terraform_installs_from_mirror_beside_broken_providers() {
    a_provider_beside_broken_ones_is_installed("terraform", "mirror");
}

#[test]
fn opentofu_installs_from_plugins_beside_broken_providers() {
    a_provider_beside_broken_ones_is_installed("tofu", "plugins");
}

#[test]
fn opentofu_installs_from_mirror_beside_broken_providers() {
    a_provider_beside_broken_ones_is_installed("tofu", "mirror");
}

/// What was left out while its repository hung is there when that answers, without a word from the
/// user.
#[test]
fn a_provider_that_hung_is_shown_when_it_answers() {
    let server = Hostile::start();
    let release = pack::provider("slow", "1.0.0", &[&here()]);
    server.publish("mirror/acme/slow", "1.0.0", &release);
    server.script(|seen| seen.path.contains("/slow/tags/list"), [Behaviour::Silence]);
    let Some(mount) = mount(&server, "", "mirror/${namespace}/${type}", &[]) else { return };
    let above = mount.join(format!("plugins/{ORIGIN}/acme"));
    assert_eq!(names(&above), ["slow"]);
    let path = above.join("slow");
    assert_eq!(names(&path), Vec::<String>::new());
    let shown = crate::support::wait_until(Duration::from_secs(60), || names(&path) == ["1.0.0"]);
    assert!(shown, "{}", mount.log());
}

/// A list that comes page by page is waited for, however long it takes in all.
#[test]
fn a_list_that_moves_is_no_list_that_hangs() {
    let server = Hostile::start();
    let release = pack::provider("long", "1.0.0", &[&here()]);
    for version in 0..12 {
        server.publish("mirror/acme/long", &format!("1.{version}.0"), &release);
    }
    // One tag a page, and a second for each.
    let one_by_one = |seen: &Seen, reply: Reply| {
        std::thread::sleep(Duration::from_secs(1));
        let path = seen.path.split('?').next().unwrap_or_default().to_owned();
        let at: usize = seen.path.rsplit_once("at=").map_or(0, |(_, at)| at.parse().unwrap());
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let tags = body["tags"].as_array().unwrap().clone();
        let page = serde_json::json!({ "name": "long", "tags": [tags[at]] }).to_string();
        let page = Reply::new(200, "application/json", page);
        if at + 1 < tags.len() {
            page.with("Link", format!("<{path}?at={}>; rel=\"next\"", at + 1))
        } else {
            page
        }
    };
    server.rule(|seen| seen.path.contains("/long/tags/list"), Behaviour::edit(one_by_one));
    let Some(mount) = mount(&server, "", "mirror/${namespace}/${type}", &[]) else { return };
    let began = Instant::now();
    assert_eq!(names(&mount.join(format!("plugins/{ORIGIN}/acme/long"))).len(), 12);
    assert!(
        began.elapsed() > Duration::from_secs(8),
        "it takes longer than what hangs is waited for"
    );
}

const PROVIDERS: usize = 20;
const VERSIONS: usize = 100;

/// A source beside a mapping whose fixed part lies outside of it: two parts of one registry.
fn a_first_init_asks_for_everything_once(name: &'static str) {
    if program(name).is_none() {
        return;
    }
    let server = Hostile::start();
    let others: Vec<String> = (1..PROVIDERS).map(|i| format!("p{i}")).collect();
    let Some(()) = publish(&server, "acme/providers", &others) else { return };
    let none = pack::provider("none", "0.0.0", &[&here()]);
    for provider in others.iter().map(String::as_str).chain(["tiny"]) {
        for minor in 1..VERSIONS {
            server.publish(&format!("acme/providers/{provider}"), &format!("0.{minor}.0"), &none);
        }
    }
    let realm = format!("http://{}/token", server.host());
    server.login(Some(Login::Bearer { realm, user: None }));
    let all = others.iter().map(String::as_str).chain(["tiny"]);
    let declared =
        all.flat_map(|name| ["--provider".to_owned(), format!("{ORIGIN}/acme/{name}")]).collect();
    for (label, options, catalogs) in
        [("listed by the registry", Vec::new(), 1), ("declared", declared, 0)]
    {
        let before = server.requests().len();
        let Some(mount) = mount(&server, "acme", "${namespace}/providers/${type}", &options) else {
            return;
        };
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        let client =
            Client::new(name, &base, "work", &configuration_for(&mount, "plugins")).unwrap();
        let began = Instant::now();
        client.run(&["init", "-input=false", "-no-color"]);
        let seen = server.requests().split_off(before);
        let tokens = seen.iter().filter(|seen| seen.path.starts_with("/token")).count();
        eprintln!(
            "{name} init among {PROVIDERS} providers of {VERSIONS} versions, {label}: {:.1?}, {:?} \
             requests, {tokens} tokens",
            began.elapsed(),
            mount.requests().0
        );
        let lists = PROVIDERS + catalogs;
        assert_eq!(mount.requests(), (lists as u64 + 3, 1), "{seen:#?}");
        assert_eq!(tokens, lists, "one for each repository, and for the catalog");
    }
}

#[test]
fn terraform_asks_for_everything_once() {
    a_first_init_asks_for_everything_once("terraform");
}

#[test]
fn opentofu_asks_for_everything_once() {
    a_first_init_asks_for_everything_once("tofu");
}
