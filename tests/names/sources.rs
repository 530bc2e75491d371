//! Several sources: of those that hold a name the first wins, and what one was told is not believed
//! of another.

use std::fs;

use rustix::io::Errno;
use serde_json::Value;

use crate::support::hostile::{Behaviour, Hostile, Reply, all};
use crate::support::layouts;
use crate::support::mount::{Mount, Options};
use crate::{errno, main_tf, module, names};

/// A directory with stores in it.
struct Stores(tempfile::TempDir);

impl Stores {
    fn new() -> Stores {
        Stores(tempfile::tempdir().expect("a temporary directory"))
    }

    /// Puts a module that says `content` into the store `name`.
    fn add(&self, name: &str, host: &str, repo: &str, tag: &str, content: &str) {
        layouts::add(&self.0.path().join(name), host, repo, tag, &module(content));
    }

    fn source(&self, name: &str) -> String {
        format!("oci:{}", self.0.path().join(name).display())
    }
}

fn plain(host: &str, arguments: &[&str]) -> Options {
    Options::new().args(["--plain-http", host]).args(arguments)
}

/// The state of every source in the status.
fn states(mount: &Mount) -> Vec<String> {
    let status = mount.status();
    let sources = status["sources"].as_array().expect("a list").iter();
    sources
        .map(|source| source["state"].as_str().map(str::to_owned))
        .map(Option::unwrap_or_default)
        .collect()
}

#[test]
fn what_one_store_was_asked_is_not_told_of_another() {
    let stores = Stores::new();
    for (store, other) in [("one", "first"), ("two", "second")] {
        stores.add(store, "reg.example", "acme/net", "1.0.0", store);
        stores.add(store, "reg.example", &format!("acme/{other}"), "1.0.0", store);
    }
    let Some(mut mount) = Mount::start(&[stores.source("one")], Options::new()) else { return };
    assert_eq!(main_tf(&mount, "reg.example/acme/net/1.0.0"), "one");
    assert_eq!(names(&mount.join("reg.example/acme")), ["first", "net"]);
    assert!(mount.umount().status.success());
    assert!(mount.again_with(&[stores.source("two")], Options::new()).status.success());
    assert_eq!(main_tf(&mount, "reg.example/acme/net/1.0.0"), "two");
    assert_eq!(names(&mount.join("reg.example/acme")), ["net", "second"]);
    assert_eq!(errno(fs::metadata(mount.join("reg.example/acme/first"))), Some(Errno::NOENT));
}

#[test]
fn a_store_before_a_registry_wins_whatever_the_registry_was_asked_before() {
    let server = Hostile::start();
    let host = server.host();
    server.publish("acme/net", "1.0.0", &module("registry"));
    let stores = Stores::new();
    stores.add("store", &host, "acme/net", "1.0.0", "store");
    stores.add("store", &host, "acme/net", "2.0.0", "store 2");
    let path = format!("{host}/acme/net/1.0.0");
    let both = [stores.source("store"), host.clone()];
    let Some(mut mount) = Mount::start(std::slice::from_ref(&host), plain(&host, &[])) else {
        return;
    };
    assert_eq!(main_tf(&mount, &path), "registry");
    assert!(mount.umount().status.success());
    assert!(mount.again_with(&both, plain(&host, &[])).status.success());
    assert_eq!(main_tf(&mount, &path), "store");
    assert_eq!(names(&mount.join(format!("{host}/acme/net"))), ["1.0.0", "2.0.0"]);
    assert!(mount.umount().status.success());
    assert!(mount.again_with(std::slice::from_ref(&host), plain(&host, &[])).status.success());
    assert_eq!(main_tf(&mount, &path), "registry");
    assert_eq!(names(&mount.join(format!("{host}/acme/net"))), ["1.0.0"]);
}

#[test]
fn what_a_registry_was_asked_serves_beside_a_store_while_it_is_away() {
    let mut server = Hostile::start();
    let host = server.host();
    server.publish("acme/net", "1.0.0", &module("registry"));
    let stores = Stores::new();
    stores.add("store", &host, "acme/other", "1.0.0", "store");
    let Some(mut mount) = Mount::start(std::slice::from_ref(&host), plain(&host, &[])) else {
        return;
    };
    assert_eq!(main_tf(&mount, &format!("{host}/acme/net:1.0.0")), "registry");
    assert!(mount.umount().status.success());
    server.stop();
    for arguments in [&["--offline"][..], &["--deadline", "2s"]] {
        let both = [stores.source("store"), host.clone()];
        assert!(mount.again_with(&both, plain(&host, arguments)).status.success());
        assert_eq!(main_tf(&mount, &format!("{host}/acme/net:1.0.0")), "registry");
        assert_eq!(main_tf(&mount, &format!("{host}/acme/other/1.0.0")), "store");
        assert!(mount.umount().status.success());
    }
}

#[test]
fn the_list_of_a_part_is_not_taken_for_that_of_the_whole() {
    let server = Hostile::start();
    let host = server.host();
    for repo in ["acme/net", "other/net"] {
        server.publish(repo, "1.0.0", &module(repo));
    }
    let part = format!("{host}/acme");
    let Some(mut mount) = Mount::start(std::slice::from_ref(&part), plain(&host, &[])) else {
        return;
    };
    assert_eq!(names(&mount.join(&part)), ["net"]);
    assert_eq!(names(&mount.join(&host)), ["acme"]);
    for (source, listed) in [(&host, &["acme", "other"][..]), (&part, &["acme"])] {
        assert!(mount.umount().status.success());
        assert!(mount.again_with(std::slice::from_ref(source), plain(&host, &[])).status.success());
        assert_eq!(names(&mount.join(&host)), listed, "{source}");
    }
}

// Cold: no earlier mount has told anything.
#[test]
fn a_store_is_read_while_the_registry_beside_it_does_not_answer() {
    let mut server = Hostile::start();
    let host = server.host();
    let stores = Stores::new();
    stores.add("store", &host, "acme/net", "1.0.0", "net");
    stores.add("store", &host, "acme/net/inner", "2.0.0", "inner");
    let denied = || Behaviour::Answer(Reply::error(401, "DENIED"));
    for first in [true, false] {
        let mut sources = vec![stores.source("store"), host.clone()];
        if !first {
            sources.reverse();
        }
        let ways: [(&[&str], Errno); 3] = [
            (&["--deadline", "2s"], Errno::HOSTUNREACH),
            (&["--offline"], Errno::HOSTUNREACH),
            (&[], Errno::ACCESS),
        ];
        for (arguments, elsewhere) in ways {
            if elsewhere == Errno::ACCESS {
                server.restart();
                server.rule(all(), denied());
            } else {
                server.stop();
            }
            // Who comes first and may hold another answer decides.
            if !first && arguments != ["--offline"] {
                continue;
            }
            let Some(mount) = Mount::start(&sources, plain(&host, arguments)) else { return };
            assert_eq!(main_tf(&mount, &format!("{host}/acme/net/1.0.0")), "net", "{arguments:?}");
            assert_eq!(
                main_tf(&mount, &format!("{host}/acme/net/inner/2.0.0")),
                "inner",
                "{arguments:?}"
            );
            assert_eq!(main_tf(&mount, &format!("{host}/acme/net:1.0.0")), "net", "{arguments:?}");
            let other = fs::metadata(mount.join(format!("{host}/acme/other:1.0.0")));
            assert_eq!(
                errno(other),
                Some(elsewhere),
                "what no store holds is not absent: {arguments:?}"
            );
            if arguments == ["--offline"] {
                assert_eq!(names(&mount.join(format!("{host}/acme"))), ["net"], "{arguments:?}");
                assert_eq!(
                    names(&mount.join(format!("{host}/acme/net"))),
                    ["1.0.0", "inner"],
                    "{arguments:?}"
                );
            }
        }
    }
}

#[test]
fn each_source_is_told_by_itself() {
    let mut server = Hostile::start();
    let host = server.host();
    server.stop();
    let stores = Stores::new();
    stores.add("store", &host, "acme/net", "1.0.0", "net");
    let sources = [stores.source("store"), host.clone()];
    let Some(mount) = Mount::start(&sources, plain(&host, &["--deadline", "2s"])) else { return };
    assert_eq!(states(&mount), ["ok", "unreachable"], "each was looked at");
    assert_eq!(main_tf(&mount, &format!("{host}/acme/net/1.0.0")), "net");
    assert_eq!(
        errno(fs::metadata(mount.join(format!("{host}/acme/other:1.0.0")))),
        Some(Errno::HOSTUNREACH)
    );
    assert_eq!(states(&mount), ["ok", "unreachable"], "{:?}", Value::from(mount.log()));
}
