//! A mount with a policy: what opens, what does not, and what the reader is told.

use crate::support::mount::Options;
use crate::*;

fn options(host: &str, policy: &Path) -> Options {
    Options::new().args(["--plain-http", host, "--policy", policy.to_str().unwrap()])
}

fn registry() -> Hostile {
    let server = Hostile::start();
    server.list_referrers();
    server
}

/// S01
#[test]
fn what_is_not_signed_is_seen_and_does_not_open() {
    let (server, trust) = (registry(), Trust::by_new_key());
    let host = server.host();
    let signed = server.publish("acme/net", "1.0.0", &module("# 1"));
    server.publish("acme/net", "1.1.0", &module("# 2"));
    sign(&server, &trust, "acme/net", signed, None);
    let policy = trust.policy(&format!("{host}/acme"), "");
    let Some(mount) = Mount::start(&[&host], options(&host, &policy)) else { return };
    let at = |tag: &str| format!("{host}/acme/net/{tag}");
    let mut names: Vec<_> =
        fs::read_dir(mount.join(format!("{host}/acme/net"))).unwrap().flatten().collect();
    names.sort_by_key(|entry| entry.file_name());
    assert_eq!(names.len(), 2, "listing is free");
    assert!(names.iter().all(|entry| entry.metadata().unwrap().is_dir()));
    assert_eq!(mount.xattr(at("1.1.0"), "user.tofufs.policy"), None, "nobody has asked yet");
    assert_eq!(main_tf(&mount, at("1.0.0")), Ok("# 1".to_owned()));
    assert_eq!(mount.xattr(at("1.0.0"), "user.tofufs.policy").as_deref(), Some("signed"));
    assert_eq!(mount.xattr(at("1.0.0"), "user.tofufs.signed_by").as_deref(), Some("acme"));
    for spelled in [at("1.1.0"), format!("{host}/acme/net:1.1.0")] {
        assert_eq!(main_tf(&mount, &spelled), Err(Errno::PERM), "{spelled}");
        assert_eq!(mount.xattr(&spelled, "user.tofufs.policy").as_deref(), Some("refused"));
        let told = mount.xattr(&spelled, "user.tofufs.error").expect("a reason");
        for part in [
            "acme/net:1.1.0",
            "policy.hcl:5",
            "wants signer acme",
            "found no signature",
            "tofufs sign",
        ] {
            assert!(told.contains(part), "{told:?} lacks {part:?}");
        }
    }
    // A tag that moves to what nobody signed: what is open stays, the next look does not.
    let open = fs::File::open(mount.join(at("1.0.0")).join("main.tf")).unwrap();
    server.publish("acme/net", "1.0.0", &module("# 3"));
    assert!(refresh(&mount, &at("1.0.0")).status.success());
    assert_eq!(main_tf(&mount, at("1.0.0")), Err(Errno::PERM));
    assert_eq!(std::io::read_to_string(open).unwrap(), "# 1");
    assert_eq!(main_tf(&mount, format!("{host}/acme/net@{signed}")), Ok("# 1".to_owned()));
}

/// S14
#[test]
fn every_way_to_a_provider_is_the_same_gate() {
    let (server, trust) = (registry(), Trust::by_new_key());
    let host = server.host();
    let artifact = pack::provider("hello", "1.0.0", &["linux_amd64"]);
    let digest = server.publish("acme/hello", "1.0.0", &artifact);
    let child = artifact.manifests[0].digest();
    let policy = trust.policy(&host, "");
    let mapping = format!("{host}/acme/${{type}}");
    let options = options(&host, &policy).args([
        "--oci-mirror",
        &mapping,
        "--include",
        "registry.opentofu.org/acme/*",
        "--provider",
        "registry.opentofu.org/acme/hello",
    ]);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let provider = "registry.opentofu.org/acme/hello";
    let plugin = format!("plugins/{provider}/1.0.0/linux_amd64");
    let program = format!("{plugin}/terraform-provider-hello_v1.0.0");
    let zip = format!("mirror/{provider}/terraform-provider-hello_1.0.0_linux_amd64.zip");
    let document = format!("mirror/{provider}/1.0.0.json");
    let by_child = format!("{host}/acme/hello@{child}");
    let files =
        [program.clone(), zip, document, format!("{host}/acme/hello/1.0.0/linux_amd64.zip")];
    let dirs = [plugin, format!("{host}/acme/hello/1.0.0/linux_amd64"), by_child.clone()];
    for _ in 0..2 {
        for file in &files {
            assert_eq!(errno(fs::read(mount.join(file))), Some(Errno::PERM), "{file}");
        }
        for dir in &dirs {
            assert_eq!(errno(fs::read_dir(mount.join(dir))), Some(Errno::PERM), "{dir}");
        }
        assert_eq!(errno(Command::new(mount.join(&program)).output()), Some(Errno::PERM));
    }
    assert!(fs::read_dir(mount.join(format!("plugins/{provider}"))).unwrap().count() > 0);
    sign(&server, &trust, "acme/hello", digest, Some("1.0.0"));
    assert!(refresh(&mount, "").status.success());
    for file in &files {
        assert!(fs::read(mount.join(file)).is_ok(), "{file}: {}", mount.log());
    }
    assert_eq!(
        errno(fs::read_dir(mount.join(by_child))),
        Some(Errno::PERM),
        "a platform by its digest wants its own"
    );
}

/// S15
#[test]
fn a_policy_is_read_again_and_one_that_is_wrong_changes_nothing() {
    let (server, trust) = (registry(), Trust::by_new_key());
    let host = server.host();
    let digest = server.publish("acme/net", "1.0.0", &module("# 1"));
    sign(&server, &trust, "acme/net", digest, None);
    let policy = trust.policy(&host, "");
    let Some(mut mount) = Mount::start(&[&host], options(&host, &policy)) else { return };
    let at = format!("{host}/acme/net/1.0.0");
    assert!(main_tf(&mount, &at).is_ok());
    fs::write(&policy, "default = \"refuse").unwrap();
    let said = refresh(&mount, &at);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("stay in force"), "{said:?}");
    assert!(main_tf(&mount, &at).is_ok());
    let other = SigningKey::from_pem(&private_key()).unwrap();
    fs::write(trust.path("acme.pub"), other.public().to_pem()).unwrap();
    trust.policy(&host, "");
    assert!(refresh(&mount, &at).status.success());
    assert_eq!(main_tf(&mount, &at), Err(Errno::PERM));
    fs::write(trust.path("acme.pub"), trust.key.public().to_pem()).unwrap();
    assert!(refresh(&mount, &at).status.success());
    assert!(main_tf(&mount, &at).is_ok());
    fs::write(&policy, "nothing").unwrap();
    mount.umount();
    let said = mount.again();
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("policy.hcl: line 1"), "{said:?}");
}

/// S12, S13, and that a warm mount asks for nothing.
#[test]
fn the_cache_keeps_evidence_and_no_verdicts() {
    let (server, trust) = (registry(), Trust::by_new_key());
    let host = server.host();
    let digest = server.publish("acme/net", "1.0.0", &module("# 1"));
    server.publish("acme/net", "2.0.0", &module("# 2"));
    let policy = trust.policy(&host, "");
    let plain = Options::new().args(["--plain-http", &host]);
    let Some(mut mount) = Mount::start(&[&host], plain) else { return };
    let (at, unsigned) = (format!("{host}/acme/net/1.0.0"), format!("{host}/acme/net/2.0.0"));
    assert!(main_tf(&mount, &at).is_ok() && main_tf(&mount, &unsigned).is_ok());
    mount.umount();
    sign(&server, &trust, "acme/net", digest, None);
    let said = mount.again_with(&[&host], options(&host, &policy));
    assert!(said.status.success(), "{said:?}");
    assert_eq!(main_tf(&mount, &unsigned), Err(Errno::PERM), "what was cached without a policy");
    assert!(main_tf(&mount, &at).is_ok());
    let asked = server.requests_to("/v2/acme/net/referrers/").len();
    assert!(main_tf(&mount, &at).is_ok());
    assert_eq!(server.requests_to("/v2/acme/net/referrers/").len(), asked, "warm");
    mount.umount();
    // The signature is gone from the registry, and the registry from the network.
    server.rule(support::hostile::all(), support::hostile::Behaviour::Reset);
    let offline = options(&host, &policy).args(["--offline"]);
    assert!(mount.again_with(&[&host], offline).status.success());
    assert!(main_tf(&mount, &at).is_ok(), "{}", mount.log());
    assert_eq!(main_tf(&mount, &unsigned), Err(Errno::HOSTUNREACH), "that is no refusal");
}

/// S15. Nobody else writes the rules.
#[test]
fn a_policy_that_others_can_write_is_none() {
    use std::os::unix::fs::PermissionsExt;
    let trust = Trust::by_new_key();
    let policy = trust.policy("r.example", "");
    let check = |mode: u32| {
        fs::set_permissions(&policy, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(support::world::program());
        command.args(["policy", "check", "--policy"]).arg(&policy);
        let output = support::mount::finish(command);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(0o644).0, Some(0));
    assert!(matches!(check(0o646), (Some(1), said) if said.contains("write to it")));
    fs::set_permissions(trust.path("acme.pub"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(check(0o644), (Some(1), said) if said.contains("acme.pub")));
    fs::set_permissions(trust.path("acme.pub"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&policy, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(matches!(check(0o644), (Some(1), said) if said.contains("1048576")));
}

/// What speaks about a release are files, whatever a policy says; their names are made safe.
#[test]
fn referrers_are_files() {
    let (server, trust) = (registry(), Trust::by_new_key());
    let host = server.host();
    let digest = server.publish("acme/net", "1.0.0", &module("# 1"));
    let stranger = Trust::by_new_key();
    sign(&server, &stranger, "acme/net", digest, None);
    let titled = |title: &str, content: &[u8]| {
        json!({"mediaType": "application/spdx+json", "size": content.len(),
            "digest": server.put_blob(content).to_string(),
            "annotations": {"org.opencontainers.image.title": title}})
    };
    let text = json!({"schemaVersion": 2, "mediaType": IMAGE,
        "artifactType": "application/spdx+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json",
            "digest": server.put_blob(b"{}").to_string(), "size": 2},
        "layers": [titled("net.spdx.json", b"one"), titled("../x", b"two"), titled("a/b", b"three"),
            titled("same", b"four"), titled("same", b"five")],
        "subject": {"mediaType": IMAGE, "digest": digest.to_string(), "size": 7}});
    let sbom = server.put_manifest("acme/net", None, IMAGE, text.to_string().as_bytes());
    let policy = trust.policy(&host, "");
    let Some(mount) = Mount::start(&[&host], options(&host, &policy)) else { return };
    let dir = format!("referrers/{host}/acme/net/1.0.0");
    let names = |dir: &str| {
        let mut names: Vec<_> = fs::read_dir(mount.join(dir))
            .unwrap_or_else(|e| panic!("{dir}: {e}: {}", mount.log()))
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&format!("referrers/{host}/acme/net")), ["1.0.0"]);
    let listed = names(&dir);
    assert_eq!(listed.len(), 2, "{listed:?}");
    let sbom_dir = format!("{dir}/sbom-{}", &sbom.hex()[..12]);
    let by_digest = |content: &[u8]| format!("{}.spdx.json", &Digest::of(content).hex()[..12]);
    let mut wanted = vec!["manifest.json".to_owned(), "net.spdx.json".to_owned()];
    wanted.extend([&b"two"[..], b"three", b"four", b"five"].map(by_digest));
    wanted.sort();
    assert_eq!(names(&sbom_dir), wanted);
    let read = |path: String| fs::read_to_string(mount.join(path)).unwrap();
    assert_eq!(read(format!("{sbom_dir}/net.spdx.json")), "one");
    assert_eq!(read(format!("{sbom_dir}/{}", by_digest(b"two"))), "two");
    assert_eq!(Digest::of(read(format!("{sbom_dir}/manifest.json")).as_bytes()), sbom);
    let counts = |name: &str| mount.xattr(format!("{dir}/{name}"), "user.tofufs.counts").unwrap();
    let signature = listed.iter().find(|name| name.starts_with("signature-")).unwrap();
    assert!(counts(signature).starts_with("no: by another key"), "{}", counts(signature));
    assert!(counts(&format!("sbom-{}", &sbom.hex()[..12])).starts_with("no: it is no signature"));
    assert_eq!(main_tf(&mount, format!("{host}/acme/net/1.0.0")), Err(Errno::PERM));
}
