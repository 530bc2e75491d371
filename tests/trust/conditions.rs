//! What a scope asks of everything that it admits: how long it has been out, and which versions.

use std::time::Duration;

use crate::support::mount::Options;
use crate::support::wait_until;
use crate::*;

impl TrustBed {
    /// Publishes a module, signed, as made at that time.
    fn push(&self, tag: &str, created: Option<&str>) {
        fs::write(self.trust.path("net/main.tf"), format!("# {tag}\n")).unwrap();
        let annotation = created.map(|at| format!("org.opencontainers.image.created={at}"));
        let annotation = annotation.iter().flat_map(|text| ["--annotation", text.as_str()]);
        let reference = format!("{}/acme/net:{tag}", self.host);
        let words = ["push", "--sign-key", "acme.key"].into_iter().chain(annotation);
        let words: Vec<&str> = words.chain(["net", &*reference]).collect();
        self.trust.ran(&self.host, &words);
    }

    /// What `tofufs verify` says with this cache.
    fn said(&self, tag: &str, cache: &str) -> String {
        let reference = format!("{}/acme/net:{tag}", self.host);
        let words = ["verify", "--policy", "policy.hcl", "--cache-dir", cache, &*reference];
        let output = self.trust.run(&self.host, &words);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.success(), said.contains("signed by"), "{said}");
        said
    }

    #[track_caller]
    fn is(&self, tag: &str, says: &str) {
        let said = self.said(tag, "cache");
        assert!(said.contains(says), "{said} lacks {says:?}");
    }
}

/// S32
#[test]
fn a_release_has_to_be_out_for_a_while() {
    let bed = TrustBed::with_source();
    bed.trust.policy(&bed.host, "min_age = \"7d\"");
    bed.push("1.0.0", Some("2020-02-01T00:00:00+01:00"));
    bed.push("1.1.0", Some("2999-01-01T00:00:00Z"));
    bed.push("1.2.0", None);
    bed.push("1.3.0", Some("yesterday"));
    bed.is("1.0.0", "signed by acme");
    bed.is("1.1.0", "since 2999-01-01T00:00:00Z, as its signed manifest says");
    bed.is("1.2.0", "out for 7d; this has been since");
    bed.is("1.3.0", "when it was seen here first");
    // Who signed nothing does not say how old it is.
    let accepts = format!(
        "default = \"refuse\"\nscope \"{}\" {{\n  insecure_accept_anything = true\n  \
         min_age = \"1h\"\n}}\n",
        bed.host
    );
    bed.trust.write_policy(&accepts);
    bed.is("1.0.0", "out for 1h; this has been since");
    let digest = Digest::of(&bed.server.manifest("acme/net", "1.0.0").unwrap());
    let pinned =
        accepts.replace("insecure_accept_anything = true", &format!("digests = [\"{digest}\"]"));
    bed.trust.write_policy(&pinned);
    bed.is("1.0.0", "out for 1h; this has been since");
    let by_digest = format!("{}/acme/net@{digest}", bed.host);
    let words = ["verify", "--policy", "policy.hcl", "--cache-dir", "cache", &*by_digest];
    assert!(bed.trust.failed(&bed.host, &words, 1).contains("out for 1h"));
    // A mount refuses by the same rule, and one that begins later goes by the same first sight.
    let policy = bed.trust.policy(&bed.host, "min_age = \"3s\"");
    let options = || {
        let words = ["--plain-http", &bed.host, "--policy", policy.to_str().unwrap()];
        Options::new().args(words).args(["--tag-ttl", "1s"])
    };
    let Some(mut mount) = Mount::start(&[&bed.host], options()) else { return };
    let at = format!("{}/acme/net/1.2.0", bed.host);
    assert_eq!(main_tf(&mount, &at), Err(Errno::PERM));
    let told = mount.xattr(&at, "user.tofufs.error").unwrap();
    assert!(told.contains("wants what has been out for 3s"), "{told}");
    mount.umount();
    assert!(mount.again_with(&[&bed.host], options()).status.success());
    let opens = || fs::read(mount.join(&at).join("main.tf")).is_ok();
    assert!(wait_until(Duration::from_secs(30), opens), "{}", mount.log());
}

/// S33
#[test]
fn only_these_versions_open() {
    let bed = TrustBed::with_source();
    for tag in ["4.9.0", "5.1.0", "5.2.0-rc1", "latest"] {
        bed.push(tag, None);
    }
    let policy = bed.trust.policy(&bed.host, "versions = \"~> 5.0\"");
    let words = ["--plain-http", &bed.host, "--policy", policy.to_str().unwrap()];
    let Some(mount) = Mount::start(&[&bed.host], Options::new().args(words)) else { return };
    let at = |name: &str| format!("{}/acme/{name}", bed.host);
    assert_eq!(main_tf(&mount, at("net/5.1.0")), Ok("# 5.1.0\n".to_owned()));
    for (tag, says) in [
        ("4.9.0", "wants versions ~> 5.0, and this is 4.9.0"),
        ("5.2.0-rc1", "and this is 5.2.0-rc1"),
        ("latest", "and the tag latest is no version"),
    ] {
        assert_eq!(main_tf(&mount, at(&format!("net/{tag}"))), Err(Errno::PERM), "{tag}");
        let told = mount.xattr(at(&format!("net/{tag}")), "user.tofufs.error").unwrap();
        assert!(told.contains(says), "{told}");
    }
    let digest = Digest::of(&bed.server.manifest("acme/net", "4.9.0").unwrap());
    assert_eq!(main_tf(&mount, at(&format!("net@{digest}"))), Ok("# 4.9.0\n".to_owned()));
    let check = ["policy", "check", "--policy", "policy.hcl", &at("net:5.1.0")];
    let mut command = Command::new(support::world::program());
    command.args(check).current_dir(bed.trust.dir.path());
    let output = support::mount::finish(command);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("wants signer acme, of versions ~> 5.0"), "{said}");
}
