//! Publishing under a policy: nothing gets a tag that nobody could open.

use crate::*;

struct Bed {
    server: Hostile,
    trust: Trust,
    host: String,
}

const PUSH: [&str; 3] = ["push", "--policy", "policy.hcl"];

impl Bed {
    fn new() -> Bed {
        let (server, trust) = (Hostile::start(), Trust::by_new_key());
        server.list_referrers();
        let host = server.host();
        trust.policy(&host, "bind = \"tag\"");
        fs::create_dir(trust.path("net")).unwrap();
        fs::write(trust.path("net/main.tf"), "# net\n").unwrap();
        for platform in ["linux_amd64", "linux_arm64"] {
            let name = format!("terraform-provider-hello_1.0.0_{platform}.zip");
            let zip = pack::provider_zip("hello", "1.0.0", platform.as_bytes());
            fs::write(trust.path(&name), zip).unwrap();
        }
        Bed { server, trust, host }
    }

    fn words<'a>(&self, more: &[&'a str], what: &'a str, to: &'a str) -> Vec<&'a str> {
        PUSH.iter().copied().chain(more.iter().copied()).chain([what, to]).collect()
    }
}

/// S34
#[test]
fn under_a_policy_nothing_gets_a_tag_that_nobody_could_open() {
    let bed = Bed::new();
    let at = format!("{}/acme/net:1.0.0", bed.host);
    let said = bed.trust.failed(&bed.host, &bed.words(&[], "net", &at), 1);
    for part in ["the tag is not written", "wants signer acme", "--sign-key"] {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
    assert!(bed.server.manifest("acme/net", "1.0.0").is_none());
    let other = Trust::by_new_key();
    let key = other.path("acme.key").display().to_string();
    let by_other = ["--sign-key", &*key];
    let said = bed.trust.failed(&bed.host, &bed.words(&by_other, "net", &at), 1);
    assert!(said.contains("by another key"), "{said}");
    assert!(bed.server.manifest("acme/net", "1.0.0").is_none());
    let signed = ["--sign-key", "acme.key"];
    bed.trust.ran(&bed.host, &bed.words(&signed, "net", &at));
    let verify = ["verify", "--policy", "policy.hcl", &*at];
    assert!(bed.trust.ran(&bed.host, &verify)[0].ends_with("signed by acme"));
    // The same again needs no signature: it is there.
    bed.trust.ran(&bed.host, &bed.words(&[], "net", &at));
    // What is only being published is not old, and its version is known.
    bed.trust.policy(&bed.host, "min_age = \"7d\"\n  versions = \"~> 1.0\"");
    let newer = format!("{}/acme/net:1.1.0", bed.host);
    bed.trust.ran(&bed.host, &bed.words(&signed, "net", &newer));
    let wrong = format!("{}/acme/net:2.0.0", bed.host);
    let said = bed.trust.failed(&bed.host, &bed.words(&signed, "net", &wrong), 1);
    assert!(said.contains("wants versions ~> 1.0"), "{said}");
    // What the registry cannot tell now is no leave either.
    bed.trust.policy(&bed.host, "");
    bed.server.rule(
        |seen| seen.path.contains("/referrers/"),
        support::hostile::Behaviour::Answer(support::hostile::Reply::error(403, "DENIED")),
    );
    // Of a digest that is signed already the cache would know.
    fs::write(bed.trust.path("net/main.tf"), "# another\n").unwrap();
    let next = format!("{}/acme/net:1.2.0", bed.host);
    bed.trust.failed(&bed.host, &bed.words(&["--deadline", "3s"], "net", &next), 1);
    assert!(bed.server.manifest("acme/net", "1.2.0").is_none());
}

/// S34. A platform changes the digest of its release.
#[test]
fn a_platform_that_is_added_unsigned_does_not_reach_the_tag() {
    let bed = Bed::new();
    let at = format!("{}/acme/hello:1.0.0", bed.host);
    let zips =
        ["amd64", "arm64"].map(|arch| format!("terraform-provider-hello_1.0.0_linux_{arch}.zip"));
    let signed = ["--sign-key", "acme.key"];
    bed.trust.ran(&bed.host, &bed.words(&signed, &zips[0], &at));
    let before = bed.server.manifest("acme/hello", "1.0.0");
    let said = bed.trust.failed(&bed.host, &bed.words(&[], &zips[1], &at), 1);
    assert!(said.contains("the tag is not written"), "{said}");
    assert_eq!(bed.server.manifest("acme/hello", "1.0.0"), before);
    // Two writers at once: each signs the index that it puts.
    let both = format!("{}/acme/two/hello:1.0.0", bed.host);
    std::thread::scope(|scope| {
        for zip in &zips {
            scope.spawn(|| bed.trust.ran(&bed.host, &bed.words(&signed, zip, &both)));
        }
    });
    for reference in [&at, &both] {
        let verify = ["verify", "--policy", "policy.hcl", reference];
        assert!(bed.trust.ran(&bed.host, &verify)[0].ends_with("signed by acme"));
    }
    let index = bed.server.manifest("acme/two/hello", "1.0.0").unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}
