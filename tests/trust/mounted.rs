//! What an attacker can do with signatures, each tried on a mount: refused is EPERM with no byte of a
//! package, and what could not be found out is another errno.

use std::time::Duration;

use crate::support::hostile::{Behaviour, Reply, path};
use crate::support::mount::Options;
use crate::support::wait_until;
use crate::*;

const SPDX: &str = "https://spdx.dev/Document";

/// A registry of modules, each case one repository; and a policy that wants the key `acme`.
struct Bed {
    server: Hostile,
    trust: Trust,
    stranger: Trust,
}

impl Bed {
    fn new() -> Bed {
        let server = Hostile::start();
        server.list_referrers();
        Bed { server, trust: Trust::by_new_key(), stranger: Trust::by_new_key() }
    }

    fn host(&self) -> String {
        self.server.host()
    }

    /// Publishes the module of a case; its digest.
    fn publish(&self, case: &str) -> Digest {
        self.server.publish(case, "1.0.0", &module(&format!("# {case}")))
    }

    /// A statement of these subjects by a key of ours, beside a release.
    fn state(&self, case: &str, release: Digest, subjects: serde_json::Value, predicate: &str) {
        let payload = json!({"_type": "https://in-toto.io/Statement/v1", "subject": subjects,
            "predicateType": predicate, "predicate": {}})
        .to_string();
        let kind = "application/vnd.in-toto+json";
        let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
        let signature = self.trust.key.sign(message.as_bytes()).unwrap();
        let hint = self.trust.key.public().hint();
        let bundle = json!({"mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": {"payload": STANDARD.encode(payload), "payloadType": kind,
                "signatures": [{"sig": STANDARD.encode(signature)}]}});
        speak(&self.server, case, release, BUNDLE, bundle.to_string().as_bytes());
    }

    fn options(&self, policy: &Path) -> Options {
        let words = ["--plain-http", &self.host(), "--policy", policy.to_str().unwrap()];
        Options::new().args(words).args(["--deadline", "5s"])
    }

    fn list_at(&self, case: &str, digest: Digest) -> String {
        format!("/v2/{case}/referrers/{digest}")
    }

    /// Answers for the list of a case with these entries.
    fn list(&self, case: &str, digest: Digest, entries: &[Digest]) {
        let entry = |digest: &Digest| {
            json!({"mediaType": IMAGE, "digest": digest.to_string(), "size": 7,
                "artifactType": BUNDLE})
        };
        let text = json!({"schemaVersion": 2, "mediaType": tofufs::oci::INDEX,
            "manifests": entries.iter().map(entry).collect::<Vec<_>>()});
        let reply = Reply::new(200, tofufs::oci::INDEX, text.to_string());
        self.server.rule(path(self.list_at(case, digest)), Behaviour::Answer(reply));
    }
}

fn hex_of(text: &str) -> String {
    Digest::of(text.as_bytes()).hex().to_string()
}

/// Releases with what a mount is to make of each.
struct Cases<'a> {
    bed: &'a Bed,
    wanted: Vec<(&'static str, Result<(), Errno>)>,
}

impl<'a> Cases<'a> {
    fn of(bed: &'a Bed) -> Cases<'a> {
        Cases { bed, wanted: Vec::new() }
    }

    /// One more; its digest.
    fn publish(&mut self, name: &'static str, outcome: Result<(), Errno>) -> Digest {
        self.wanted.push((name, outcome));
        self.bed.publish(name)
    }

    /// Below `a` one key has to have signed, below `all` that of a stranger, too.
    fn hold(self) {
        let Cases { bed, wanted } = self;
        let (host, trust) = (bed.host(), &bed.trust);
        fs::write(trust.path("stranger.pub"), bed.stranger.key.public().to_pem()).unwrap();
        let policy = trust.write_policy(&format!(
            "default = \"refuse\"\nsigner \"acme\" {{\n  keys = [\"acme.pub\"]\n}}\n\
             signer \"other\" {{\n  keys = [\"stranger.pub\"]\n}}\n\
             scope \"{host}/a\" {{\n  signed_by = [\"acme\"]\n}}\n\
             scope \"{host}/all\" {{\n  all_of = [\"acme\", \"other\"]\n}}\n"
        ));
        let Some(mount) = Mount::start(&[&host], bed.options(&policy)) else { return };
        for (name, outcome) in wanted {
            let got = main_tf(&mount, format!("{host}/{name}/1.0.0"));
            let told = mount.xattr(format!("{host}/{name}/1.0.0"), "user.tofufs.error");
            assert_eq!(
                got.map(|text| assert_eq!(text, format!("# {name}"))),
                outcome,
                "{name}: {told:?}"
            );
            let zips = bed.server.requests_to(&format!("/v2/{name}/blobs/"));
            assert!(outcome.is_ok() || told.is_some(), "{name} says why");
            let zip = pack::module(&[("main.tf", format!("# {name}").as_bytes())]);
            let zip = Digest::of(&zip.blobs[1]).to_string();
            assert!(
                outcome.is_ok() || zips.iter().all(|seen| !seen.path.ends_with(&zip)),
                "{name}: no byte of what is refused is fetched"
            );
        }
    }
}

/// S07, S10: what counts as a signature.
#[test]
fn each_kind_of_wrong_signature_is_refused_by_a_mount() {
    let bed = Bed::new();
    let mut cases = Cases::of(&bed);
    let ours = |digest: Digest| json!({"digest": {"sha256": digest.hex()}});
    let other = json!({"digest": {"sha256": hex_of("other")}});
    let long = |digest: Digest| json!({"digest": {"sha512": digest.hex().repeat(2)}});
    let signed = "https://sigstore.dev/cosign/sign/v1";
    let d = cases.publish("a/other-digest", Err(Errno::PERM));
    bed.state("a/other-digest", d, json!([other]), signed);
    let d = cases.publish("a/sha512", Err(Errno::PERM));
    bed.state("a/sha512", d, json!([long(d)]), signed);
    let d = cases.publish("a/two-subjects", Ok(()));
    bed.state("a/two-subjects", d, json!([other, ours(d)]), signed);
    let d = cases.publish("a/sbom", Err(Errno::PERM));
    bed.state("a/sbom", d, json!([ours(d)]), SPDX);
    let d = cases.publish("a/wrong-key", Err(Errno::PERM));
    sign(&bed.server, &bed.stranger, "a/wrong-key", d, None);
    let d = cases.publish("a/one-good-one-bad", Ok(()));
    sign(&bed.server, &bed.stranger, "a/one-good-one-bad", d, None);
    sign(&bed.server, &bed.trust, "a/one-good-one-bad", d, None);
    let d = cases.publish("all/one-missing", Err(Errno::PERM));
    sign(&bed.server, &bed.trust, "all/one-missing", d, None);
    let d = cases.publish("all/both", Ok(()));
    sign(&bed.server, &bed.trust, "all/both", d, None);
    sign(&bed.server, &bed.stranger, "all/both", d, None);
    cases.hold();
}

/// S05, S06: lists that are too long, or have no end.
#[test]
fn so_much_is_looked_at_by_a_mount_and_no_more() {
    let bed = Bed::new();
    let mut cases = Cases::of(&bed);
    // 10,001 entries; pages without end; pages in a circle; 100 strangers before a good one.
    let d = cases.publish("a/too-many", Err(Errno::FBIG));
    let many: Vec<Digest> = (0..10_001_u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
    bed.list("a/too-many", d, &many);
    for (name, errno) in [("a/endless", Errno::FBIG), ("a/circle", Errno::PROTO)] {
        let d = cases.publish(name, Err(errno));
        let empty = json!({"schemaVersion": 2, "mediaType": tofufs::oci::INDEX, "manifests": []});
        let (at, is_circle) = (bed.list_at(name, d), name.ends_with("circle"));
        let begins = at.clone();
        let answer = Behaviour::edit(move |seen, _| {
            let page = seen.path.rsplit_once("page=").and_then(|(_, n)| n.parse::<u64>().ok());
            let next = if is_circle { 1 } else { page.unwrap_or_default() + 1 };
            let link = format!("<{begins}?page={next}>; rel=\"next\"");
            Reply::new(200, tofufs::oci::INDEX, empty.to_string()).with("Link", &link)
        });
        bed.server.rule(move |seen| seen.path.starts_with(&at), answer);
    }
    for (name, strangers, outcome) in
        [("a/the-64th", 63, Ok(())), ("a/the-65th", 64, Err(Errno::FBIG))]
    {
        let d = cases.publish(name, outcome);
        let repo = repo(&bed.server, name);
        let mut entries: Vec<Digest> = (0..strangers)
            .map(|n| {
                let bundle = bed.stranger.approves(d, &repo, Some(&n.to_string()));
                speak(&bed.server, name, d, BUNDLE, &bundle)
            })
            .collect();
        entries.push(speak(&bed.server, name, d, BUNDLE, &bed.trust.approves(d, &repo, None)));
        entries.extend((100..136).map(|n: u32| {
            let bundle = bed.stranger.approves(d, &repo, Some(&n.to_string()));
            speak(&bed.server, name, d, BUNDLE, &bundle)
        }));
        bed.list(name, d, &entries);
    }
    cases.hold();
}

/// S11: names that are signed.
#[test]
fn a_signed_release_under_another_name_is_refused_by_a_mount() {
    let bed = Bed::new();
    let (host, trust) = (bed.host(), &bed.trust);
    let modules = module("# 1.2.0");
    for place in ["tag/net", "repository/net", "digest/net"] {
        let digest = bed.server.publish(place, "1.2.0", &modules);
        bed.server.publish(place, "1.3.0", &modules);
        let bundle = trust.approves(digest, &repo(&bed.server, place), Some("1.2.0"));
        speak(&bed.server, place, digest, BUNDLE, &bundle);
        let copied = format!("{place}-copy");
        bed.server.publish(&copied, "1.2.0", &modules);
        speak(&bed.server, &copied, digest, BUNDLE, &bundle);
    }
    let scope = |place: &str| {
        format!("scope \"{host}/{place}\" {{\n  signed_by = [\"acme\"]\n  bind = \"{place}\"\n}}\n")
    };
    let scopes = ["tag", "repository", "digest"].map(scope).concat();
    let policy = trust.write_policy(&format!(
        "default = \"refuse\"\nsigner \"acme\" {{\n  keys = [\"acme.pub\"]\n}}\n{scopes}"
    ));
    let Some(mount) = Mount::start(&[&host], bed.options(&policy)) else { return };
    for (name, opens) in [
        ("tag/net/1.2.0", true),
        ("tag/net/1.3.0", false),
        ("tag/net-copy/1.2.0", false),
        ("repository/net/1.3.0", true),
        ("repository/net-copy/1.2.0", false),
        ("digest/net/1.3.0", true),
        ("digest/net-copy/1.2.0", true),
    ] {
        let wanted = if opens { Ok("# 1.2.0".to_owned()) } else { Err(Errno::PERM) };
        assert_eq!(main_tf(&mount, format!("{host}/{name}")), wanted, "{name}");
    }
}

/// S09: evidence that is damaged in the cache is fetched again, and one that comes damaged is EIO.
#[test]
fn evidence_that_is_damaged_is_fetched_again_or_is_an_error() {
    let bed = Bed::new();
    let host = bed.host();
    let digest = bed.publish("a/net");
    let bundle = bed.trust.approves(digest, &repo(&bed.server, "a/net"), None);
    speak(&bed.server, "a/net", digest, BUNDLE, &bundle);
    let policy = bed.trust.policy(&host, "");
    let Some(mut mount) = Mount::start(&[&host], bed.options(&policy)) else { return };
    let at = format!("{host}/a/net/1.0.0");
    assert!(main_tf(&mount, &at).is_ok(), "{}", mount.log());
    mount.umount();
    let blob = path(format!("/v2/a/net/blobs/{}", Digest::of(&bundle)));
    let flipped = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[10] ^= 1;
        bytes
    };
    let cached = flip_in(&mount.cache(), &bundle);
    assert!(cached > 0, "the bundle lies in the cache");
    assert!(mount.again().status.success());
    assert!(main_tf(&mount, &at).is_ok(), "{}", mount.log());
    mount.umount();
    flip_in(&mount.cache(), &bundle);
    let reply = Reply::new(200, "application/json", flipped(&bundle));
    bed.server.rule(blob, Behaviour::Answer(reply));
    assert!(mount.again().status.success());
    assert_eq!(main_tf(&mount, &at), Err(Errno::IO));
}

/// Changes a bit in each file below `dir` that holds `bytes`; how many there were.
fn flip_in(dir: &Path, bytes: &[u8]) -> usize {
    let (mut found, mut pending) = (0, vec![dir.to_owned()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
                continue;
            }
            let mut content = fs::read(&path).unwrap_or_default();
            let Some(at) = content.windows(bytes.len()).position(|part| part == bytes) else {
                continue;
            };
            content[at + 10] ^= 1;
            // Files of the cache may be written by nobody.
            fs::remove_file(&path).unwrap();
            fs::write(&path, &content).unwrap();
            found += 1;
        }
    }
    found
}

/// S15: what is no policy mounts nothing, whoever wrote it.
#[test]
fn what_is_no_policy_mounts_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::new();
    let (host, trust) = (bed.host(), &bed.trust);
    let good = fs::read_to_string(trust.policy(&host, "")).unwrap();
    let policy = trust.path("policy.hcl");
    let key = trust.path("acme.pub");
    let pem = fs::read_to_string(&key).unwrap();
    let place = trust.path("mnt");
    fs::create_dir(&place).unwrap();
    let mounts = || {
        let words = ["mount", "--cache-dir", "cache", "--state-dir", "state", "--policy"];
        let words = [&words[..], &["policy.hcl", &*host, place.to_str().unwrap()]].concat();
        let output = trust.run(&host, &words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!support::mount::mounted().contains(place.to_str().unwrap()), "{said}");
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    };
    for (text, says) in [
        ("", "default is missing"),
        ("default = \"refuse\"\nscope {", "line 2"),
        ("\u{0}\u{1}", "line 1"),
        ("default = \"refuse\"\nscope \"*\" {\n  signed_by = [\"a\"]\n}", "HOST"),
        ("{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}", "line 1"),
    ] {
        fs::write(&policy, text).unwrap();
        let said = mounts();
        assert!(said.contains(says) && said.contains("policy.hcl"), "{text:?}: {said}");
    }
    fs::write(&policy, [0xff, 0xfe, b'x']).unwrap();
    assert!(mounts().contains("UTF-8"));
    fs::write(&policy, format!("{good}{}", "#\n".repeat(1 << 19))).unwrap();
    assert!(mounts().contains("1048576"));
    fs::write(&policy, format!("{good}{}", "x = [".repeat(5_000))).unwrap();
    mounts();
    fs::write(&policy, &good).unwrap();
    for (file, mode, says) in [
        (&policy, 0o646, "everybody can write to it"),
        (&policy, 0o666, "everybody can write to it"),
        (&key, 0o666, "acme.pub"),
    ] {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        assert!(mounts().contains(says), "{mode:o}");
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    for (text, says) in [
        ("", "no PEM text"),
        (&*pem.replace("PUBLIC KEY", "PRIVATE KEY"), "private key"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "certificate"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "name it in openpgp"),
        (&*format!("{pem}{pem}"), "no PEM text"),
        (&*"x".repeat((1 << 20) + 1), "1048576"),
        (&*openssl_key(trust, &["rsa", "-pkeyopt", "rsa_keygen_bits:2048"]), "RSA"),
        (&*openssl_key(trust, &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]), "P-384"),
        (&*openssl_key(trust, &["ed448"]), "Ed448"),
    ] {
        fs::write(&key, text).unwrap();
        let said = mounts();
        assert!(said.contains(says) && said.contains("acme.pub"), "{says}: {said}");
    }
    // A pipe and a directory are no files, and nobody waits for them.
    fs::remove_file(&key).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &key,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    assert!(mounts().contains("acme.pub"));
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(mounts().contains("acme.pub"));
}

/// The public half of a new key of another kind.
fn openssl_key(trust: &Trust, kind: &[&str]) -> String {
    let run = |words: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(words).current_dir(trust.dir.path()).stdin(Stdio::null());
        let output = support::mount::finish(command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let words = [&["genpkey", "-out", "other.key", "-algorithm"], kind].concat();
    run(&words);
    run(&["pkey", "-in", "other.key", "-pubout"])
}

/// S17: who is killed between signature and tag leaves no tag, and the repeat one signature.
#[test]
fn a_push_that_is_killed_before_its_tag_signs_once() {
    let bed = Bed::new();
    let (host, trust) = (bed.host(), &bed.trust);
    trust.policy(&host, "");
    fs::create_dir(trust.path("net")).unwrap();
    fs::write(trust.path("net/main.tf"), "# killed\n").unwrap();
    let at = format!("{host}/a/net:1.0.0");
    let is_tag = |seen: &support::hostile::Seen| {
        seen.method == "PUT" && seen.path == "/v2/a/net/manifests/1.0.0"
    };
    bed.server.rule(is_tag, Behaviour::Silence);
    let words = ["push", "--sign-key", "acme.key", "net", &*at, "--plain-http", &*host];
    let mut child = Command::new(support::world::program())
        .args(words)
        .current_dir(trust.dir.path())
        .env_clear()
        .env("HOME", trust.path("home"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let reached = wait_until(Duration::from_secs(60), || bed.server.requests().iter().any(is_tag));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(reached, "the tag was to be put");
    assert!(bed.server.manifest("a/net", "1.0.0").is_none());
    bed.server.behave();
    // The claim of a writer that died is passed over after a while; another machine does not wait.
    trust.ran(&host, &["push", "--sign-key", "acme.key", "net", &at]);
    let digest = Digest::of(&bed.server.manifest("a/net", "1.0.0").unwrap());
    let verify = ["verify", "--json", "--policy", "policy.hcl", &*at];
    assert!(trust.ran(&host, &verify)[0].contains("admitted"));
    let repository = repo(&bed.server, "a/net");
    let Some(mount) = Mount::start(&[&host], bed.options(&trust.path("policy.hcl"))) else {
        return;
    };
    let beside = fs::read_dir(mount.join(format!("referrers/{repository}@{digest}"))).unwrap();
    assert_eq!(beside.count(), 1, "one signature");
}

/// A clock that is years off changes nothing about keys, and no age lasts for ever.
#[test]
fn a_clock_that_is_years_off_admits_nothing_else() {
    let Some(clock) = OtherClock::new() else { return };
    let bed = Bed::new();
    let (host, trust) = (bed.host(), &bed.trust);
    let digest = bed.publish("a/net");
    bed.publish("a/unsigned");
    sign(&bed.server, trust, "a/net", digest, Some("1.0.0"));
    trust.policy(&host, "");
    let verdict = |name: &str, years: i64| {
        let reference = format!("{host}/{name}:1.0.0");
        let mut command = Command::new(support::world::program());
        command.args(["verify", "--json", "--policy", "policy.hcl", "--plain-http", &host]);
        command.arg(&reference).current_dir(trust.dir.path()).env_clear().stdin(Stdio::null());
        command.env("HOME", trust.path("home"));
        clock.set(&mut command, years);
        let output = support::mount::finish(command);
        let said: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        said["verdict"].as_str().unwrap().to_owned()
    };
    for years in [-30, 0, 30] {
        assert_eq!(verdict("a/net", years), "admitted", "{years}");
        assert_eq!(verdict("a/unsigned", years), "refused", "{years}");
    }
    // First seen in thirty years: that is still to come, and counts from now on.
    trust.policy(&host, "min_age = \"1s\"");
    let seen = |years: i64| verdict("a/net", years);
    assert_eq!(seen(30), "refused");
    assert_eq!(seen(0), "refused");
    assert!(wait_until(Duration::from_secs(30), || seen(0) == "admitted"));
}

/// A library that tells programs another time.
struct OtherClock(tempfile::TempDir);

impl OtherClock {
    /// `None`, with the reason printed, without a C compiler.
    fn new() -> Option<OtherClock> {
        let compiler = support::program("cc")?;
        let dir = tempfile::tempdir().unwrap();
        let source = "#define _GNU_SOURCE\n#include <stdlib.h>\n#include <time.h>\n\
            #include <unistd.h>\n#include <sys/syscall.h>\n\
            int clock_gettime(clockid_t id, struct timespec *at) {\n\
              int failed = syscall(SYS_clock_gettime, id, at);\n\
              char *by = getenv(\"CLOCK_SECONDS\");\n\
              if (!failed && id == CLOCK_REALTIME && by) at->tv_sec += atoll(by);\n\
              return failed;\n}\n";
        fs::write(dir.path().join("clock.c"), source).unwrap();
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-o", "clock.so", "clock.c"]).current_dir(dir.path());
        let output = support::mount::finish(command);
        assert!(output.status.success(), "{output:?}");
        Some(OtherClock(dir))
    }

    fn set(&self, command: &mut Command, years: i64) {
        command.env("LD_PRELOAD", self.0.path().join("clock.so"));
        command.env("CLOCK_SECONDS", (years * 31_557_600).to_string());
    }
}
