//! Signing what is published, before anybody can see it; and cosign in both directions.

use std::io::Write as _;

use tofufs::name::Selector;

use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::hostile::Seen;
use crate::support::zot::Zot;
use crate::*;

pub fn source(trust: &Trust) -> PathBuf {
    let dir = trust.path("network");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("main.tf"), "# signed\n").unwrap();
    dir
}

/// The tag is the last that is written, and by then the signature is listed; also for a provider.
#[test]
fn a_signature_is_listed_before_the_tag_is_written() {
    for lists in [true, false] {
        let (server, trust) = (Hostile::start(), Trust::by_new_key());
        if lists {
            server.list_referrers();
        }
        let host = server.host();
        let dir = source(&trust);
        let reference = format!("{host}/acme/net:1.0.0");
        let push = ["push", "--sign-key", "acme.key", dir.to_str().unwrap(), &reference];
        trust.ran(&host, &push);
        let puts: Vec<String> = server
            .requests()
            .into_iter()
            .filter(|seen| seen.method == "PUT" && seen.path.contains("/manifests/"))
            .map(|seen: Seen| seen.path.rsplit_once('/').unwrap().1.to_owned())
            .filter(|at| !at.starts_with("_tofufs."))
            .collect();
        assert_eq!(puts.last().map(String::as_str), Some("1.0.0"), "{puts:?}");
        trust.policy(&host, "bind = \"tag\"");
        let verify = ["verify", "--policy", "policy.hcl", &*reference];
        assert!(trust.ran(&host, &verify)[0].ends_with("signed by acme"));
        // S17. The same again is the same signature.
        let count = server.requests().len();
        trust.ran(&host, &push);
        trust.ran(&host, &["sign", "--key", "acme.key", &reference]);
        let again = server.requests().split_off(count);
        assert!(again.iter().all(|seen| !matches!(&*seen.method, "PUT" | "POST")), "{again:?}");
    }
}

/// S17
#[test]
fn a_program_that_does_not_sign_leaves_no_tag() {
    let (server, trust) = (Hostile::start(), Trust::by_new_key());
    server.list_referrers();
    let (host, dir) = (server.host(), source(&trust));
    let reference = format!("{host}/acme/net:1.0.0");
    for (command, says) in [
        ("sh -c 'echo no key here >&2; exit 3'", "no key here"),
        ("true", "no new signature"),
        ("sleep 60", "had not ended"),
        ("/no/such/program %r", "cannot be run"),
    ] {
        let words = ["push", "--deadline", "1s", "--sign-command", command];
        let words = [&words[..], &[dir.to_str().unwrap(), &*reference]].concat();
        let said = trust.failed(&host, &words, 1);
        assert!(said.contains(says), "{said}");
        assert!(server.manifest("acme/net", "1.0.0").is_none(), "{command}");
    }
    let usage = ["push", "--sign-command", "'open", dir.to_str().unwrap(), &reference];
    trust.failed(&host, &usage, 2);
    // Programs that sign, but another release, or have what signs another one speak about this.
    let program = support::world::program();
    let other = server.publish("acme/net", "0.9.0", &module("# other"));
    let bundle = trust.approves(other, &repo(&server, "acme/net"), None);
    let file = trust.path("other.sigstore.json");
    fs::write(&file, bundle).unwrap();
    let own = |words: String| format!("{} {words} --plain-http {host}", program.display());
    let key = trust.path("acme.key").display().to_string();
    for (command, says) in [
        (own(format!("sign --key {key} {host}/acme/net@{other}")), "no new signature"),
        (own(format!("attach %r {}", file.display())), "does not sign this digest"),
    ] {
        let words = ["push", "--deadline", "1s", "--sign-command", &*command];
        let words = [&words[..], &[dir.to_str().unwrap(), &*reference]].concat();
        let said = trust.failed(&host, &words, 1);
        assert!(said.contains(says) && said.contains("the tag was not written"), "{said}");
        assert!(server.manifest("acme/net", "1.0.0").is_none(), "{command}");
    }
    trust.policy(&host, "");
    let ours =
        trust.ran(&host, &["push", "--json", "--dry-run", dir.to_str().unwrap(), &reference]);
    let ours: serde_json::Value = serde_json::from_str(&ours.concat()).unwrap();
    let ours = ours["references"][0].as_str().unwrap().rsplit_once('@').unwrap().1.to_owned();
    let by_digest = |digest: &str| format!("{host}/acme/net@{digest}");
    let verify = |digest: &str| {
        let words = ["verify", "--policy", "policy.hcl", "--cache-dir", digest];
        trust.run(&host, &[&words[..], &[&*by_digest(digest)]].concat()).status.code()
    };
    assert_eq!(verify(&ours), Some(1), "nobody has signed it");
    assert_eq!(verify(&other.to_string()), Some(0), "the program has signed that");
    // One that signs: this program itself.
    let command = own(format!("sign --key {key} %r"));
    let words = ["push", "--sign-command", &*command, dir.to_str().unwrap(), &reference];
    trust.ran(&host, &words);
    assert!(server.manifest("acme/net", "1.0.0").is_some());
}

#[test]
fn a_key_that_others_can_read_or_of_another_kind_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let trust = Trust::by_new_key();
    let key = trust.path("acme.key");
    let sign = || trust.failed("a.b", &["sign", "--key", "acme.key", "a.b/c:1"], 1);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(sign().contains("others can read it"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let canary = "Y2FuYXJ5LTVmMmItY2FuYXJ5LTVmMmI=";
    for (text, says) in [
        ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "--sign-command"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "encrypted"),
        ("-----BEGIN PUBLIC KEY-----\n", "no PEM text"),
        ("-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n", "no key over P-256"),
    ] {
        let mut file = fs::File::create(&key).unwrap();
        file.write_all(text.replace("CANARY", canary).as_bytes()).unwrap();
        let said = sign();
        assert!(said.contains(says) && !said.contains(canary), "{said}");
    }
}

/// Whoever commits from a mount signs by the mount's key.
#[test]
fn a_commit_is_signed() {
    let (server, trust) = (Hostile::start(), Trust::by_new_key());
    let key = trust.path("acme.key");
    is_signed(&server, &trust, ["--sign-key", key.to_str().unwrap()], "bind = \"tag\"");
}

/// Or by the mount's program, which is handed nothing that the mount's process has open.
#[test]
fn a_commit_is_signed_by_a_program_with_the_standard_streams_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (server, trust) = (Hostile::start(), Trust::by_new_key());
    let (script, program) = (trust.path("signer"), support::world::program());
    let text = format!(
        "#!/bin/sh\nfor fd in /proc/$$/fd/*; do\n  case $(readlink \"$fd\") in \
         pipe:*|/dev/null|\"$0\"|'') ;; *) echo \"$fd is open\" >&2; exit 3;; esac\ndone\n\
         exec {} sign --plain-http {} --key {} \"$1\"\n",
        program.display(),
        server.host(),
        trust.path("acme.key").display(),
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let command = format!("{} %r", script.display());
    is_signed(&server, &trust, ["--sign-command", &command], "");
}

fn is_signed(server: &Hostile, trust: &Trust, signing: [&str; 2], bind: &str) {
    server.list_referrers();
    let host = server.host();
    let options = support::mount::Options::new().args(["--plain-http", &host]).args(signing);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let staged = mount.join(format!("staging/{host}/acme/net/1.0.0"));
    fs::create_dir_all(&staged).unwrap();
    fs::write(staged.join("main.tf"), "# committed\n").unwrap();
    let mut commit = mount.command("commit");
    commit.arg(&staged);
    assert!(support::mount::finish(commit).status.success(), "{}", mount.log());
    trust.policy(&host, bind);
    let reference = format!("{host}/acme/net:1.0.0");
    trust.ran(&host, &["verify", "--policy", "policy.hcl", &reference]);
    assert!(!mount.log().contains("PRIVATE KEY"));
}

/// Runs cosign, which has to be on PATH.
pub fn cosign(program: &Path, trust: &Trust, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(words).current_dir(trust.dir.path()).env_clear().stdin(Stdio::null());
    command.env("HOME", trust.path("home")).env("COSIGN_PASSWORD", "");
    support::mount::finish(command)
}

/// A registry that makes no lists of referrers.
#[test]
fn cosign_verifies_ours_and_we_verify_its_own() {
    let Some(program) = support::program("cosign") else { return };
    let Some(docker) = DockerRegistry::start(Access::Anybody, false) else { return };
    both_ways(&program, &docker.host());
}

/// A registry that makes such lists.
#[test]
fn cosign_verifies_ours_and_we_verify_its_own_in_zot() {
    let Some(program) = support::program("cosign") else { return };
    let Some(zot) = Zot::start(None) else { return };
    both_ways(&program, &zot.host());
}

/// Ours are verified by cosign, and cosign's by us, with and without names.
fn both_ways(program: &Path, host: &str) {
    for (name, private) in [("one", p256_key()), ("two", private_key())] {
        let trust = Trust::with(&private);
        let dir = source(&trust);
        let reference = format!("{host}/acme/{name}:1.0.0");
        let words = ["push", "--allow-overwrite", "--sign-key", "acme.key"];
        let words = [&words[..], &[dir.to_str().unwrap(), &*reference]].concat();
        let pushed = trust.ran(host, &words).remove(0);
        let by_digest = format!("{host}/acme/{name}@{}", pushed.rsplit_once('@').unwrap().1);
        let flags = [
            "verify",
            "--key",
            "acme.pub",
            "--insecure-ignore-tlog",
            "--allow-http-registry",
            "-a",
        ];
        let tag = "org.tofufs.tag=1.0.0";
        let said = cosign(program, &trust, &[&flags[..], &[tag, &*by_digest]].concat());
        assert!(said.status.success(), "{host}: {said:?}");
    }
    let trust = Trust::by_new_key();
    let dir = source(&trust);
    let reference = format!("{host}/acme/theirs:1.0.0");
    let words = ["push", "--allow-overwrite", dir.to_str().unwrap(), &*reference];
    let pushed = trust.ran(host, &words).remove(0);
    let digest: Digest = pushed.rsplit_once('@').unwrap().1.parse().unwrap();
    let made = cosign(program, &trust, &["generate-key-pair"]);
    assert!(made.status.success(), "{made:?}");
    fs::copy(trust.path("cosign.pub"), trust.path("acme.pub")).unwrap();
    trust.policy(host, "");
    let verify = ["verify", "--policy", "policy.hcl", &*reference];
    trust.failed(host, &verify, 1);
    let by_digest = format!("{host}/acme/theirs@{}", Selector::Digest(digest));
    let flags = [
        "sign",
        "--yes",
        "--key",
        "cosign.key",
        "--use-signing-config=false",
        "--tlog-upload=false",
        "--allow-http-registry",
    ];
    let said = cosign(program, &trust, &[&flags[..], &[&*by_digest]].concat());
    assert!(said.status.success(), "{host}: {said:?}");
    assert!(trust.ran(host, &verify)[0].ends_with("signed by acme"));
    // With the names that cosign can be told to sign.
    trust.policy(host, "bind = \"tag\"");
    trust.failed(host, &verify, 1);
    let (repository, tag) =
        (format!("org.tofufs.repository={host}/acme/theirs"), "org.tofufs.tag=1.0.0");
    let named = [&flags[..], &["-a", &*repository, "-a", tag, &*by_digest]].concat();
    let said = cosign(program, &trust, &named);
    assert!(said.status.success(), "{host}: {said:?}");
    trust.ran(host, &verify);
}
