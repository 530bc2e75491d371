//! What crosses an air gap: evidence beside what it speaks about.

use crate::support::mount::Options;
use crate::*;

/// S16, and `--policy` of the commands that carry.
#[test]
fn evidence_crosses_the_gap_and_its_lack_is_seen() {
    let (server, trust) = (Hostile::start(), Trust::by_new_key());
    server.list_referrers();
    let host = server.host();
    let digest = server.publish("acme/net", "1.0.0", &module("# 1"));
    server.publish("acme/net", "2.0.0", &module("# 2"));
    sign(&server, &trust, "acme/net", digest, Some("1.0.0"));
    let policy = trust.policy(&host, "");
    let (signed, unsigned) = (format!("{host}/acme/net:1.0.0"), format!("{host}/acme/net:2.0.0"));
    let bundle = |what: &[&str], to: &str| {
        let words = [&["bundle", "-o", to, "--policy", "policy.hcl"], what].concat();
        trust.run(&host, &words)
    };
    assert!(bundle(&[&signed], "oci-archive:whole.tar").status.success());
    let refused = bundle(&[&unsigned], "oci-archive:none.tar");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!trust.path("none.tar").exists(), "nothing is written");
    for words in [
        vec!["pull", "--policy", "policy.hcl", &*unsigned],
        vec!["copy", "--policy", "policy.hcl", &*unsigned, "oci:store"],
    ] {
        let said = trust.failed(&host, &words, 1);
        assert!(said.contains("wants signer acme"), "{said}");
    }
    let stripped = bundle(&["--referrers", "none", &signed], "oci-archive:stripped.tar");
    assert!(stripped.status.success(), "{stripped:?}");
    drop(server);
    // What the bundle brings, and not what was cached before.
    let verify = |file: &str| {
        let (cache, source) = (format!("cache-{file}"), format!("oci-archive:{file}"));
        trust.run(&host, &["verify", "--policy", "policy.hcl", "--cache-dir", &cache, &source])
    };
    assert!(verify("whole.tar").status.success());
    assert_eq!(verify("stripped.tar").status.code(), Some(1));
    for (file, wanted) in [("whole.tar", Ok("# 1".to_owned())), ("stripped.tar", Err(Errno::PERM))]
    {
        let source = format!("oci-archive:{}", trust.path(file).display());
        let options =
            Options::new().args(["--offline", "--read-only", "--policy", policy.to_str().unwrap()]);
        let Some(mount) = Mount::start(&[source], options) else { return };
        assert_eq!(main_tf(&mount, format!("{host}/acme/net/1.0.0")), wanted, "{file}");
        assert_eq!(mount.requests(), (0, 0));
    }
}

/// What a pull fetched is enough for a mount without a network.
#[test]
fn a_pull_brings_the_evidence_along() {
    let (server, trust) = (Hostile::start(), Trust::by_new_key());
    server.list_referrers();
    let host = server.host();
    let digest = server.publish("acme/net", "1.0.0", &module("# 1"));
    sign(&server, &trust, "acme/net", digest, Some("1.0.0"));
    let policy = trust.policy(&host, "bind = \"tag\"");
    let reference = format!("{host}/acme/net:1.0.0");
    let cache = trust.path("cache");
    trust.ran(&host, &["pull", "--cache-dir", cache.to_str().unwrap(), &reference]);
    drop(server);
    let options =
        Options::new().args(["--offline", "--policy", policy.to_str().unwrap()]).cache(&cache);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    assert_eq!(main_tf(&mount, format!("{host}/acme/net/1.0.0")), Ok("# 1".to_owned()));
}

/// S36. What speaks about a signature or a bill of materials comes along, too, and so does what
/// cosign 2 left.
#[test]
fn what_speaks_about_what_speaks_is_carried_and_so_are_older_signatures() {
    let (server, trust) = (Hostile::start(), Trust::by_new_key());
    server.list_referrers();
    let host = server.host();
    let spoken = server.publish("acme/net", "1.0.0", &module("# 1"));
    let sbom = speak(&server, "acme/net", spoken, "application/spdx+json", b"{\"sbom\": 1}");
    let bundle = trust.approves(sbom, &repo(&server, "acme/net"), None);
    let of_sbom = speak(&server, "acme/net", sbom, BUNDLE, &bundle);
    let old = server.publish("acme/net", "2.0.0", &module("# 2"));
    let legacy = sign_as_cosign_2(&server, &trust, "acme/net", old);
    let policy = trust.policy(&host, "");
    let reference = |tag: &str| format!("{host}/acme/net:{tag}");
    let other = Hostile::start();
    other.list_referrers();
    let there = format!("{}/acme/net", other.host());
    let plain = ["--plain-http", &*other.host()].map(str::to_owned);
    for tag in ["1.0.0", "2.0.0"] {
        let (from, to) = (reference(tag), format!("{there}:{tag}"));
        let words = ["copy", &*plain[0], &*plain[1], &*from, &*to];
        trust.ran(&host, &words);
    }
    for digest in [sbom, of_sbom] {
        assert!(other.manifest("acme/net", &digest.to_string()).is_some(), "{digest}");
    }
    let tag = format!("sha256-{}.sig", old.hex());
    assert_eq!(Digest::of(&other.manifest("acme/net", &tag).unwrap()), legacy);
    let (one, two) = (reference("1.0.0"), reference("2.0.0"));
    trust.ran(&host, &["bundle", "-o", "oci-archive:all.tar", &one, &two]);
    let first = fs::read(trust.path("all.tar")).unwrap();
    trust.ran(&host, &["bundle", "-o", "oci-archive:again.tar", &one, &two]);
    assert_eq!(fs::read(trust.path("again.tar")).unwrap(), first, "the same bytes");
    trust.ran(&host, &["bundle", "-o", "oci:store", &one, &two]);
    let cache = trust.path("cache");
    trust.ran(&host, &["pull", "--cache-dir", cache.to_str().unwrap(), &two]);
    drop(server);
    for (at, source) in ["oci-archive:all.tar", "oci:store"].into_iter().enumerate() {
        let words = ["verify", "--policy", "policy.hcl", "--cache-dir", &format!("c{at}"), source];
        let output = trust.run(&host, &words);
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find(|line| line.contains("2.0.0")).unwrap();
        assert!(line.ends_with("signed by acme"), "{said}");
        let referrers = ["copy", "--from", source, "--cache-dir", &format!("d{at}")];
        let to = format!("oci:out{at}");
        trust.ran(&host, &[&referrers[..], &[&*one, &*to]].concat());
        let blob = format!("out{at}/{host}/acme/net/blobs/sha256/{}", of_sbom.hex());
        assert!(trust.path(&blob).exists(), "{source}");
    }
    let options =
        Options::new().args(["--offline", "--policy", policy.to_str().unwrap()]).cache(&cache);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    assert_eq!(main_tf(&mount, format!("{host}/acme/net/2.0.0")), Ok("# 2".to_owned()));
}
