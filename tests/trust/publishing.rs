//! Publishing under a policy: nothing gets a tag that nobody could open.

use crate::support::mount::Options;
use crate::*;

const PUSH: [&str; 3] = ["push", "--policy", "policy.hcl"];

impl TrustBed {
    /// A module and a provider to publish, and a policy that wants their names signed.
    fn for_publishing() -> TrustBed {
        let bed = TrustBed::with_source();
        bed.trust.policy(&bed.host, "bind = \"tag\"");
        for platform in ["linux_amd64", "linux_arm64"] {
            let name = format!("terraform-provider-hello_1.0.0_{platform}.zip");
            let zip = pack::provider_zip("hello", "1.0.0", platform.as_bytes());
            fs::write(bed.trust.path(&name), zip).unwrap();
        }
        bed
    }

    fn words<'a>(&self, more: &[&'a str], what: &'a str, to: &'a str) -> Vec<&'a str> {
        PUSH.iter().copied().chain(more.iter().copied()).chain([what, to]).collect()
    }
}

/// S34
#[test]
fn under_a_policy_nothing_gets_a_tag_that_nobody_could_open() {
    let bed = TrustBed::for_publishing();
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
    let bed = TrustBed::for_publishing();
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

/// S34. A mount that has a policy commits by the same rules, and keeps what is staged where they
/// refuse it.
#[test]
fn a_commit_gives_no_tag_to_what_the_mount_could_not_open() {
    let bed = TrustBed::for_publishing();
    let policy = bed.trust.policy(&bed.host, "bind = \"tag\"\n  min_age = \"7d\"");
    let key = bed.trust.path("acme.key").display().to_string();
    let stranger = Trust::by_new_key();
    let by_stranger = stranger.path("acme.key").display().to_string();
    let options = |signing: &[&str]| {
        let words = ["--plain-http", &bed.host, "--policy", policy.to_str().unwrap()];
        Options::new().args(words).args(["--deadline", "5s"]).args(signing.iter().copied())
    };
    let Some(mut mount) = Mount::start(&[&bed.host], options(&[])) else { return };
    let staged = format!("staging/{}/acme/net/1.0.0", bed.host);
    let file = format!("{staged}/main.tf");
    fs::create_dir_all(mount.join(&staged)).unwrap();
    fs::write(mount.join(&file), "# staged\n").unwrap();
    let commit = |mount: &Mount| {
        let mut command = mount.command("commit");
        command.arg(mount.join(&staged));
        let output = support::mount::finish(command);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let refused = |mount: &Mount, says: &str| {
        let (is_done, said) = commit(mount);
        assert!(!is_done && said.contains(says), "{said}");
        assert!(said.contains("the tag is not written"), "{said}");
        assert!(bed.server.manifest("acme/net", "1.0.0").is_none());
        assert_eq!(fs::read_to_string(mount.join(&file)).unwrap(), "# staged\n");
    };
    refused(&mount, "wants signer acme");
    let to = mount.join(format!("{}/acme/net", bed.host));
    let renamed = fs::rename(mount.join(&staged), to.join("1.0.0"));
    assert_eq!(errno(renamed), Some(Errno::PERM), "{}", mount.log());
    refused(&mount, "wants signer acme");
    let sign = |digest: &str, trust: &Trust| {
        let bundle =
            trust.approves(digest.parse().unwrap(), &repo(&bed.server, "acme/net"), Some("1.0.0"));
        speak(&bed.server, "acme/net", digest.parse().unwrap(), BUNDLE, &bundle);
    };
    mount.umount();
    assert!(
        mount.again_with(&[&bed.host], options(&["--sign-key", &by_stranger])).status.success()
    );
    refused(&mount, "1 by another key");
    // What somebody signs meanwhile counts at once, whatever was found out before.
    let puts = bed.server.requests().into_iter().filter(|seen| seen.method == "PUT");
    let puts = puts.filter_map(|seen| Some(seen.path.split_once("/manifests/")?.1.to_owned()));
    let ours = puts.filter(|at| at.starts_with("sha256:")).find(|digest| {
        let raw = bed.server.manifest("acme/net", digest).unwrap();
        !String::from_utf8(raw).unwrap().contains("\"subject\"")
    });
    sign(&ours.expect("the release was put by its digest"), &bed.trust);
    let (is_done, said) = commit(&mount);
    assert!(is_done, "{said}");
    assert!(bed.server.manifest("acme/net", "1.0.0").is_some());
    mount.umount();
    // The mount's own key, and a platform that is added.
    assert!(mount.again_with(&[&bed.host], options(&["--sign-key", &key])).status.success());
    fs::create_dir_all(mount.join(staged.replace("1.0.0", "1.1.0"))).unwrap();
    fs::write(mount.join(file.replace("1.0.0", "1.1.0")), "# another\n").unwrap();
    let mut command = mount.command("commit");
    command.arg(mount.join(staged.replace("1.0.0", "1.1.0")));
    let output = support::mount::finish(command);
    assert!(output.status.success(), "{output:?}");
    assert!(bed.server.manifest("acme/net", "1.1.0").is_some());
}
