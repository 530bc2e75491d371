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
