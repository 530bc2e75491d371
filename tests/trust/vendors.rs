//! Vendors' signatures: what OpenPGP keys have signed of a provider's release, beside its zips.

use std::collections::BTreeMap;

use serde_json::Value;
use tofufs::oci::INDEX;

use crate::support::gnupg::GnuPg;
use crate::support::hostile::{Behaviour, Reply, path};
use crate::support::mount::Options;
use crate::support::origin::Origin;
use crate::*;

const REPO: &str = "hashicorp/hello";
const ORIGIN: &str = "registry.opentofu.org/hashicorp/hello";

/// A vendor with a key, and a policy that wants it of all that is below `hashicorp`.
struct Vendor {
    gpg: GnuPg,
    key: String,
    trust: Trust,
    server: Hostile,
}

impl Vendor {
    fn new() -> Option<Vendor> {
        let gpg = GnuPg::new()?;
        let key = gpg.key("vendor", "rsa2048", "never");
        let server = Hostile::start();
        server.list_referrers();
        let vendor = Vendor { gpg, key, trust: Trust::by_new_key(), server };
        vendor.trusts(&vendor.key);
        Some(vendor)
    }

    /// From now on the policy wants this key.
    fn trusts(&self, key: &str) {
        fs::write(self.trust.path("hashicorp.asc"), self.gpg.export(key)).unwrap();
        self.policy("");
    }

    fn policy(&self, more: &str) -> PathBuf {
        self.trust.write_policy(&format!(
            "default = \"refuse\"\nsigner \"hashicorp\" {{\n  openpgp = [\"hashicorp.asc\"]\n}}\n\
             scope \"{}/hashicorp\" {{\n  signed_by = [\"hashicorp\"]\n  {more}\n}}\n",
            self.server.host()
        ))
    }

    /// Publishes a release of `platforms` by `tofufs push`, with sums of these lines and what signs
    /// them.
    fn push(
        &self,
        repo: &str,
        version: &str,
        zips: &[(&str, &str)],
        sums: &str,
        signature: Option<&[u8]>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        for (platform, text) in zips {
            fs::write(dir.path().join(zip_name(version, platform)), zip(version, text)).unwrap();
        }
        let name = format!("terraform-provider-hello_{version}_SHA256SUMS");
        fs::write(dir.path().join(&name), sums).unwrap();
        if let Some(signature) = signature {
            fs::write(dir.path().join(format!("{name}.sig")), signature).unwrap();
        }
        let host = self.server.host();
        let reference = format!("{host}/{repo}:{version}");
        let words = ["push", "--allow-overwrite", dir.path().to_str().unwrap(), &*reference];
        self.trust.ran(&host, &words);
    }

    /// Publishes a version that is signed and one that is not; the registry.
    fn publish_two(&self) -> String {
        let sums = lines("1.0.0", &BOTH);
        let signature = self.gpg.sign(&self.key, sums.as_bytes(), &[]);
        self.push(REPO, "1.0.0", &BOTH, &sums, Some(&signature));
        self.push(REPO, "1.1.0", &BOTH, &lines("1.1.0", &BOTH), None);
        self.server.host()
    }

    /// What `tofufs verify` says of a reference.
    fn verdict(&self, reference: &str) -> (String, String) {
        let reference = format!("{}/{reference}", self.server.host());
        let words = ["verify", "--json", "--policy", "policy.hcl", &*reference];
        let output = self.trust.run(&self.server.host(), &words);
        let said: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(output.status.success(), text("verdict") == "admitted", "{output:?}");
        (text("verdict"), text("why"))
    }

    #[track_caller]
    fn is(&self, reference: &str, verdict: &str, says: &str) {
        let (said, why) = self.verdict(reference);
        assert!(said == verdict && why.contains(says), "{said}: {why:?}; wanted {verdict}: {says}");
    }

    fn options(&self) -> Options {
        let policy = self.trust.path("policy.hcl");
        let mapping = format!("{}/${{namespace}}/${{type}}", self.server.host());
        Options::new().args([
            "--plain-http",
            &self.server.host(),
            "--policy",
            policy.to_str().unwrap(),
            "--platform",
            "linux_amd64",
            "--oci-mirror",
            &mapping,
            "--include",
            "registry.opentofu.org/hashicorp/*",
            "--provider",
            ORIGIN,
        ])
    }
}

fn zip_name(version: &str, platform: &str) -> String {
    format!("terraform-provider-hello_{version}_{platform}.zip")
}

fn zip(version: &str, text: &str) -> Vec<u8> {
    pack::provider_zip("hello", version, text.as_bytes())
}

/// A line of sums.
fn line(version: &str, platform: &str, text: &str) -> String {
    format!("{}  {}\n", Digest::of(&zip(version, text)).hex(), zip_name(version, platform))
}

const BOTH: [(&str, &str); 2] = [("linux_amd64", "amd"), ("linux_arm64", "arm")];

/// Lines for each of these.
fn lines(version: &str, zips: &[(&str, &str)]) -> String {
    zips.iter().map(|(platform, text)| line(version, platform, text)).collect()
}

/// S21, on a mount: each way to what a vendor signed, without a list; and to what it did not.
#[test]
fn what_a_vendor_signed_opens_and_nothing_else() {
    let Some(vendor) = Vendor::new() else { return };
    let host = vendor.publish_two();
    let Some(mut mount) = Mount::start(&[&host], vendor.options()) else { return };
    let ways = |version: &str| {
        let program = format!("terraform-provider-hello_v{version}");
        [
            format!("plugins/{ORIGIN}/{version}/linux_amd64/{program}"),
            format!("mirror/{ORIGIN}/{}", zip_name(version, "linux_amd64")),
            format!("mirror/{ORIGIN}/{version}.json"),
            format!("{host}/{REPO}/{version}/linux_arm64/{program}"),
            format!("{host}/{REPO}/{version}/linux_arm64.zip"),
        ]
    };
    for way in ways("1.0.0") {
        assert!(fs::read(mount.join(&way)).is_ok(), "{way}: {}", mount.log());
    }
    // What the index says of a package besides, nobody signed.
    let hashes = fs::read_to_string(mount.join(&ways("1.0.0")[2])).unwrap();
    assert!(hashes.contains("\"zh:") && !hashes.contains("\"h1:"), "{hashes}");
    for way in ways("1.1.0") {
        assert_eq!(errno(fs::read(mount.join(&way))), Some(Errno::PERM), "{way}");
    }
    let at = |version: &str| format!("{host}/{REPO}/{version}/linux_amd64");
    let xattr =
        |version: &str, name: &str| mount.xattr(at(version), &format!("user.tofufs.{name}"));
    assert_eq!(xattr("1.0.0", "policy").as_deref(), Some("signed"));
    assert_eq!(xattr("1.0.0", "signed_by").as_deref(), Some("hashicorp"));
    assert_eq!(errno(fs::read_dir(mount.join(at("1.1.0")))), Some(Errno::PERM));
    assert_eq!(xattr("1.1.0", "policy").as_deref(), Some("refused"));
    let told = xattr("1.1.0", "error").unwrap();
    assert!(told.contains("wants signer hashicorp; found no signature"), "{told}");
    assert!(told.contains("tofufs mirror"), "{told}");
    let lists =
        vendor.server.requests().into_iter().filter(|seen| seen.path.contains("/referrers/"));
    assert_eq!(lists.count(), 0, "the evidence is in the manifest");
    // Cached with its evidence, and without any network.
    mount.umount();
    let offline = vendor.options().args(["--offline"]);
    assert!(mount.again_with(&[&host], offline).status.success());
    for way in ways("1.0.0") {
        assert!(fs::read(mount.join(&way)).is_ok(), "{way}: {}", mount.log());
    }
    assert_eq!(errno(fs::read_dir(mount.join(at("1.1.0")))), Some(Errno::PERM));
    // What a policy that wants somebody else says of the same.
    let other = vendor.gpg.key("other", "ed25519", "never");
    vendor.trusts(&other);
    assert!(refresh(&mount, "").status.success());
    for way in ways("1.0.0") {
        assert_eq!(errno(fs::read(mount.join(&way))), Some(Errno::PERM), "{way}");
    }
}

/// Of the platforms of one release a vendor may have signed some: the others are named, and neither
/// open nor have hashes. What was told under other policies, or of another release, is told no more.
#[test]
fn a_platform_that_is_refused_costs_the_others_nothing() {
    let Some(vendor) = Vendor::new() else { return };
    let host = vendor.server.host();
    let sums = lines("1.0.0", &BOTH[..1]);
    let signature = vendor.gpg.sign(&vendor.key, sums.as_bytes(), &[]);
    vendor.push(REPO, "1.0.0", &BOTH, &sums, Some(&signature));
    let options = vendor.options().args(["--platform", "linux_arm64"]);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let dir = format!("mirror/{ORIGIN}");
    let document = mount.join(format!("{dir}/1.0.0.json"));
    let read: Value = serde_json::from_slice(&fs::read(&document).unwrap()).unwrap();
    let archive = |platform: &str| read["archives"][platform].clone();
    assert_eq!(archive("linux_arm64"), json!({"url": zip_name("1.0.0", "linux_arm64")}));
    let digest = Digest::of(&zip("1.0.0", "amd"));
    assert_eq!(archive("linux_amd64")["hashes"], json!([format!("zh:{}", digest.hex())]));
    let open =
        |platform: &str| fs::read(mount.join(format!("{dir}/{}", zip_name("1.0.0", platform))));
    assert!(open("linux_amd64").is_ok());
    assert_eq!(errno(open("linux_arm64")), Some(Errno::PERM));
    let listed = || {
        let names = fs::read_dir(mount.join(&dir)).unwrap();
        names.flatten().any(|entry| entry.file_name() == "1.0.0.json")
    };
    assert!(listed(), "it was read");
    let other = vendor.gpg.key("other", "ed25519", "never");
    vendor.trusts(&other);
    assert!(refresh(&mount, "").status.success());
    assert!(!listed(), "it was told under another policy");
    assert_eq!(errno(fs::read(&document)), Some(Errno::PERM));
}

/// S22
#[test]
fn sums_say_exactly_which_zip_of_which_release_it_is() {
    let Some(vendor) = Vendor::new() else { return };
    let sign = |text: &str| vendor.gpg.sign(&vendor.key, text.as_bytes(), &[]);
    let good = lines("1.0.0", &BOTH);
    let reference = format!("{REPO}:1.0.0");
    vendor.push(REPO, "1.0.0", &BOTH, &good, Some(&sign(&good)));
    vendor.is(&reference, "admitted", "signed");
    // The same by its digest, under another tag, and as another provider's release.
    let index = vendor.server.manifest(REPO, "1.0.0").unwrap();
    let digest = vendor.server.put_manifest(REPO, Some("1.2.0"), INDEX, &index);
    vendor.is(&format!("{REPO}@{digest}"), "admitted", "signed");
    vendor.is(&format!("{REPO}:1.2.0"), "refused", "of the version 1.0.0");
    vendor.server.put_manifest(REPO, Some("latest"), INDEX, &index);
    vendor.is(&format!("{REPO}:latest"), "refused", "of the version 1.0.0");
    vendor.push("hashicorp/world", "1.0.0", &BOTH, &good, Some(&sign(&good)));
    vendor.is("hashicorp/world:1.0.0", "refused", "of the provider hello");
    // Each in a repository of its own, since a push adds platforms to a release.
    let case = |at: u8, zips: &[(&str, &str)], sums: &str, signature: &[u8], says: &str| {
        let repo = format!("hashicorp/case-{at}/hello");
        vendor.push(&repo, "1.0.0", zips, sums, Some(signature));
        let verdict = if says == "signed" { "admitted" } else { "refused" };
        vendor.is(&format!("{repo}:1.0.0"), verdict, says);
    };
    let (amd, one_line) = (lines("1.0.0", &BOTH[..1]), "exactly one line for its zip");
    case(0, &BOTH, &amd, &sign(&amd), one_line);
    case(1, &BOTH[..1], &amd, &sign(&amd), "signed");
    let twice = format!("{amd}{amd}");
    case(2, &BOTH[..1], &twice, &sign(&twice), one_line);
    let shared = format!("{amd}{}", line("1.0.0", "linux_arm64", "amd"));
    case(3, &BOTH[..1], &shared, &sign(&shared), one_line);
    let renamed = amd.replace("linux_amd64", "linux_arm64");
    case(4, &BOTH[..1], &renamed, &sign(&renamed), "that calls its zip");
    case(5, &BOTH[..1], &amd, &sign(&good), "does not hold");
    case(6, &BOTH[..1], &amd, b"no signature", "does not hold");
}

/// S23
#[test]
fn a_vendors_key_counts_as_long_as_it_does() {
    let Some(vendor) = Vendor::new() else { return };
    let (sums, reference) = (lines("1.0.0", &BOTH), format!("{REPO}:1.0.0"));
    let by = |key: &str, words: &[&str]| {
        let signature = vendor.gpg.sign(key, sums.as_bytes(), words);
        vendor.push(REPO, "1.0.0", &BOTH, &sums, Some(&signature));
        vendor.trusts(key);
    };
    let other = vendor.gpg.key("other", "ed25519", "never");
    by(&vendor.key, &[]);
    vendor.is(&reference, "admitted", "signed");
    vendor.trusts(&other);
    vendor.is(&reference, "refused", "a key that is not among those named");
    // Two keys in one policy: a successor beside an old one.
    let both = [vendor.gpg.export(&other), vendor.gpg.export(&vendor.key)];
    fs::write(vendor.trust.path("hashicorp.asc"), &both[0]).unwrap();
    fs::write(vendor.trust.path("old.asc"), &both[1]).unwrap();
    let text = fs::read_to_string(vendor.trust.path("policy.hcl")).unwrap();
    vendor.trust.write_policy(&text.replace("asc\"]", "asc\", \"old.asc\"]"));
    vendor.is(&reference, "admitted", "signed");
    // Expired since it signed, and before.
    let expired = vendor.gpg.expired_key("expired");
    by(&expired, &["--faked-system-time=20200201T000000"]);
    vendor.is(&reference, "admitted", "signed");
    // GnuPG signs with no key that has expired: this one is shortened afterwards.
    let then = |time: &str, words: &[&str]| {
        let then = format!("--faked-system-time={time}T000000");
        vendor.gpg.run(&[&[&*then], words].concat());
    };
    then("20200101", &["--quick-generate-key", "late", "rsa2048", "sign", "never"]);
    let late = vendor.gpg.fingerprint("late");
    by(&late, &["--faked-system-time=20210601T000000"]);
    vendor.is(&reference, "admitted", "signed");
    then("20200601", &["--quick-set-expire", &late, "2020-07-01"]);
    vendor.trusts(&late);
    vendor.is(&reference, "refused", "after it expired");
    let revoked = vendor.gpg.key("revoked", "rsa2048", "never");
    by(&revoked, &[]);
    vendor.is(&reference, "admitted", "signed");
    vendor.gpg.revoke(&revoked);
    vendor.trusts(&revoked);
    vendor.is(&reference, "refused", "revoked");
    // Another kind of key is told at once, and so is one at the wrong place.
    let host = vendor.server.host();
    let check = ["policy", "check", "--policy", "policy.hcl"];
    let said = |text: &str, file: &str| {
        vendor.trust.write_policy(text);
        fs::write(vendor.trust.path("hashicorp.asc"), file).unwrap();
        let mut command = Command::new(support::world::program());
        command.args(check).current_dir(vendor.trust.dir.path());
        let output = support::mount::finish(command);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let scope = format!("scope \"{host}\" {{\n  signed_by = [\"h\"]\n}}\n");
    let signer =
        |rules: &str| format!("default = \"refuse\"\nsigner \"h\" {{\n  {rules}\n}}\n{scope}");
    let (pgp, pem) =
        (signer("openpgp = [\"hashicorp.asc\"]"), signer("keys = [\"hashicorp.asc\"]"));
    let armored = vendor.gpg.export(&vendor.key);
    assert!(said(&pem, &armored).contains("name it in openpgp"));
    assert!(said(&pgp, &vendor.trust.key.public().to_pem()).contains("name it in keys"));
    assert!(said(&pgp, "").contains("BEGIN PGP PUBLIC KEY BLOCK"));
    let private = "-----BEGIN PGP PRIVATE KEY BLOCK-----";
    assert!(said(&pgp, private).contains("name the public one"));
    let predicate = signer("openpgp = [\"hashicorp.asc\"]\n  predicate = \"p\"");
    assert!(said(&predicate, &armored).contains("has a predicate"));
}

/// S24. What could not be had is unknown, and says nothing of the release.
#[test]
fn sums_that_cannot_be_had_are_no_refusal() {
    let Some(vendor) = Vendor::new() else { return };
    let (sums, reference) = (lines("1.0.0", &BOTH), format!("{REPO}:1.0.0"));
    let signature = vendor.gpg.sign(&vendor.key, sums.as_bytes(), &[]);
    vendor.push(REPO, "1.0.0", &BOTH, &sums, Some(&signature));
    let blob = |bytes: &[u8]| path(format!("/v2/{REPO}/blobs/{}", Digest::of(bytes)));
    for bytes in [sums.as_bytes(), &signature[..]] {
        let mut flipped = bytes.to_vec();
        flipped[3] ^= 1;
        let reply = Reply::new(200, "application/octet-stream", flipped);
        vendor.server.rule(blob(bytes), Behaviour::Answer(reply));
        vendor.is(&reference, "unknown", "digest");
        vendor.server.behave();
        vendor.server.rule(blob(bytes), Behaviour::Answer(Reply::error(403, "DENIED")));
        vendor.is(&reference, "unknown", "403");
        vendor.server.behave();
    }
    vendor.is(&reference, "admitted", "signed");
}

/// Both kinds of signatures in one scope, as `all_of` and `signed_by` say.
#[test]
fn a_vendor_and_a_key_may_both_be_wanted() {
    let Some(vendor) = Vendor::new() else { return };
    let host = vendor.server.host();
    let (sums, reference) = (lines("1.0.0", &BOTH), format!("{REPO}:1.0.0"));
    let signature = vendor.gpg.sign(&vendor.key, sums.as_bytes(), &[]);
    let wants = |rule: &str| {
        vendor.trust.write_policy(&format!(
            "default = \"refuse\"\nsigner \"hashicorp\" {{\n  openpgp = [\"hashicorp.asc\"]\n}}\n\
             signer \"acme\" {{\n  keys = [\"acme.pub\"]\n}}\n\
             scope \"{host}/hashicorp\" {{\n  {rule} = [\"acme\", \"hashicorp\"]\n}}\n"
        ));
    };
    vendor.push(REPO, "1.0.0", &BOTH, &sums, None);
    wants("signed_by");
    vendor.is(&reference, "refused", "found no signature");
    let full = format!("{host}/{reference}");
    vendor.trust.ran(&host, &["sign", "--key", "acme.key", &full]);
    vendor.is(&reference, "admitted", "signed");
    wants("all_of");
    vendor.is(&reference, "refused", "wants signer acme and hashicorp");
    vendor.push(REPO, "1.0.0", &BOTH, &sums, Some(&signature));
    vendor.is(&reference, "refused", "wants signer acme and hashicorp");
    vendor.trust.ran(&host, &["sign", "--key", "acme.key", &full]);
    vendor.is(&reference, "admitted", "signed");
}

/// A bundle for one platform, and what a pull left in the cache, carry what vouches for it.
#[test]
fn what_a_vendor_signed_crosses_the_gap() {
    let Some(vendor) = Vendor::new() else { return };
    let host = vendor.publish_two();
    let (good, bad) = (format!("{host}/{REPO}:1.0.0"), format!("{host}/{REPO}:1.1.0"));
    let bundle = ["bundle", "--policy", "policy.hcl", "--platform", "linux_amd64", "-o"];
    vendor.trust.ran(&host, &[&bundle[..], &["oci-archive:one.tar", &*good]].concat());
    let said =
        vendor.trust.failed(&host, &[&bundle[..], &["oci-archive:no.tar", &*bad]].concat(), 1);
    assert!(said.contains("wants signer hashicorp"), "{said}");
    assert!(!vendor.trust.path("no.tar").exists());
    let cache = vendor.trust.path("cache");
    let pull = ["pull", "--platform", "linux_amd64", "--cache-dir", cache.to_str().unwrap()];
    vendor.trust.ran(&host, &[&pull[..], &[&*good]].concat());
    let copy = ["copy", "--policy", "policy.hcl", &*good, "oci:store"];
    vendor.trust.ran(&host, &copy);
    let options = vendor.options();
    let verify = ["verify", "--policy", "policy.hcl", "--cache-dir", "other"];
    vendor.server.rule(support::hostile::all(), Behaviour::Reset);
    for store in ["oci-archive:one.tar", "oci:store"] {
        let said = vendor.trust.ran(&host, &[&verify[..], &[store]].concat());
        assert!(said[0].ends_with("signed by hashicorp"), "{said:?}");
    }
    let Some(mount) = Mount::start(&[&host], options.args(["--offline"]).cache(&cache)) else {
        return;
    };
    let program = "linux_amd64/terraform-provider-hello_v1.0.0";
    let read = fs::read_to_string(mount.join(format!("{host}/{REPO}/1.0.0/{program}")));
    assert_eq!(read.unwrap(), "amd", "{}", mount.log());
}

/// Releases of a provider registry, by the documents of that registry.
#[test]
fn a_provider_registry_passes_the_same_gate() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut origin) = Origin::start(dir.path()) else { return };
    let release = origin.publish("hello", "1.0.0");
    let mut unsigned = origin.unsigned("hello", "1.1.0");
    let other = origin.gpg.key("other", "rsa2048", "never");
    unsigned.signature = origin.gpg.sign(&other, unsigned.sums.as_bytes(), &[]);
    origin.serve(&unsigned, &[origin.gpg.export(&other)]);
    let trust = Trust::by_new_key();
    fs::write(trust.path("vendor.asc"), origin.gpg.export(&origin.key)).unwrap();
    let policy = trust.write_policy(&format!(
        "default = \"refuse\"\nsigner \"vendor\" {{\n  openpgp = [\"vendor.asc\"]\n}}\n\
         scope \"{}\" {{\n  signed_by = [\"vendor\"]\n}}\n",
        origin.host
    ));
    let authority = origin.authority.display().to_string();
    let options = || {
        let words = ["--ca-file", &authority, "--platform", "linux_amd64", "--policy"];
        Options::new().args(words).args([policy.to_str().unwrap()])
    };
    let source = format!("providers:{}", origin.host);
    let Some(mut mount) = Mount::start(&[&source], options()) else { return };
    let ways = |version: &str| {
        let program = format!("terraform-provider-hello_v{version}");
        let host = &origin.host;
        [
            format!("{host}/acme/hello/{version}/linux_amd64/{program}"),
            format!("plugins/{host}/acme/hello/{version}/linux_amd64/{program}"),
            format!("mirror/{host}/acme/hello/{}", zip_name(version, "linux_amd64")),
            format!("mirror/{host}/acme/hello/{version}.json"),
        ]
    };
    let opens = |mount: &Mount| {
        for way in ways("1.0.0") {
            assert!(fs::read(mount.join(&way)).is_ok(), "{way}: {}", mount.log());
        }
        for way in ways("1.1.0") {
            assert_eq!(errno(fs::read(mount.join(&way))), Some(Errno::PERM), "{way}");
        }
    };
    opens(&mount);
    let asked = || {
        let seen = origin.server.requests();
        let paths: BTreeMap<String, usize> = seen.iter().fold(BTreeMap::new(), |mut all, seen| {
            *all.entry(seen.path.clone()).or_default() += 1;
            all
        });
        paths[&release.signature_path()]
    };
    assert_eq!(asked(), 1, "the signature that came with the sums counts");
    // After a remount it is checked again, without a request.
    mount.umount();
    origin.server.rule(support::hostile::all(), Behaviour::Reset);
    let offline = options().args(["--offline"]);
    assert!(mount.again_with(&[&source], offline).status.success());
    opens(&mount);
}
