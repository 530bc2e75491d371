//! Signatures by certificates on a mount: who counts, and what has to vouch for them.

use rcgen::ExtendedKeyUsagePurpose::TimeStamping;
use serde_json::Value;
use tofufs::moment::Moment;

use crate::sigstore::{IDENTITY, ISSUER, Instance, Signing, email, now, uri};
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::Options;
use crate::*;

const ALL: &[&str] = &["logs", "certificates", "stamps"];

/// Makes a bundle of a signing that is as it should be so far.
type Make<'a> = &'a dyn Fn(Signing) -> Value;

/// A release, how it is signed, and what is said of that; `Ok` where it counts.
type Case<'a> = (&'a str, Make<'a>, Result<(), &'a str>);

/// The signer that a policy names, with more of its attributes.
fn signer(more: &str) -> String {
    format!(
        "signer \"ci\" {{\n  trusted_root = \"root.json\"\n  issuer = \"{ISSUER}\"\n  \
         identity = \"{}\"\n  {more}\n}}\n",
        IDENTITY.replace("/v1", "/v*"),
    )
}

/// Publishes one release per case, and enters each in a mount with a policy.
fn each_is_held(root: &Value, more: &str, cases: &[Case<'_>]) {
    let server = Hostile::start();
    server.list_referrers();
    let (trust, host) = (Trust::by_new_key(), server.host());
    for (tag, make, _) in cases {
        let digest = server.publish("acme/net", tag, &module(&format!("# {tag}")));
        let bundle = make(Signing::of(digest, &repo(&server, "acme/net"), Some(tag)));
        speak(&server, "acme/net", digest, BUNDLE, bundle.to_string().as_bytes());
    }
    fs::write(trust.path("root.json"), root.to_string()).unwrap();
    let policy = trust.write_policy(&format!(
        "default = \"refuse\"\n{}scope \"{host}/acme\" {{\n  signed_by = [\"ci\"]\n}}\n",
        signer(more)
    ));
    let options =
        Options::new().args(["--plain-http", &host, "--policy", policy.to_str().unwrap()]);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    for (tag, _, expected) in cases {
        let at = format!("{host}/acme/net/{tag}");
        let text = main_tf(&mount, &at);
        let told = mount.xattr(&at, "user.tofufs.error").unwrap_or_default();
        match expected {
            Ok(()) => {
                assert_eq!(text, Ok(format!("# {tag}")), "{tag}: {told}");
                let by = mount.xattr(&at, "user.tofufs.signed_by");
                assert_eq!(by.as_deref(), Some("ci"), "{tag}");
            }
            Err(says) => {
                assert_eq!(text, Err(Errno::PERM), "{tag}: {told}");
                assert!(told.contains(&format!("found 1 signature: 1 {says}")), "{tag}: {told}");
                assert!(told.contains("policy.hcl:8"), "{tag}: {told}");
                assert!(told.contains("sign it with cosign 3"), "{tag}: {told}");
            }
        }
    }
}

/// As Rekor v1 vouches for it.
fn logged(instance: &Instance, signing: Signing) -> Value {
    let signed = instance.sign(signing);
    signed.bundle(&[instance.entry(&signed)], &[])
}

/// The same, of another signing.
fn changed(instance: &Instance, change: impl Fn(&mut Signing)) -> impl Fn(Signing) -> Value {
    move |mut signing| {
        change(&mut signing);
        logged(instance, signing)
    }
}

/// The same, with other things that vouch for it.
fn altered(instance: &Instance, change: impl Fn(&mut Value)) -> impl Fn(Signing) -> Value {
    move |signing| {
        let mut bundle = logged(instance, signing);
        change(&mut bundle["verificationMaterial"]);
        bundle
    }
}

/// S25
#[test]
fn a_mount_admits_whom_the_policy_names_and_nobody_else() {
    let instance = Instance::new();
    let by = |change: fn(&mut Signing)| changed(&instance, change);
    let as_uri = |text: &'static str| move |signing: &mut Signing| signing.identity = uri(text);
    let of_acme = "https://github.com/acme/net/.github/workflows";
    assert!(IDENTITY.starts_with(of_acme));
    each_is_held(
        &instance.root(ALL),
        "claims = { runner_environment = \"github-hosted\" }",
        &[
            ("1.0.0", &by(|_| ()), Ok(())),
            (
                "1.1.0",
                &changed(
                    &instance,
                    as_uri(
                        "https://github.com/acme/evil/.github/workflows/release.yml@refs/tags/v1",
                    ),
                ),
                Err("by https://github.com/acme/evil/"),
            ),
            (
                "1.2.0",
                &changed(
                    &instance,
                    as_uri(
                        "https://github.com/acme/net/.github/workflows/evil.yml@release.yml@refs/tags/v1",
                    ),
                ),
                Err("by https://github.com/acme/net/.github/workflows/evil.yml@"),
            ),
            (
                "1.3.0",
                &changed(
                    &instance,
                    as_uri(
                        "https://github.com/acme/net/.github/workflows/release.yml@refs/tags/v1/x",
                    ),
                ),
                Err("by https://github.com/acme/net/"),
            ),
            ("1.4.0", &by(|signing| signing.identity = email(IDENTITY)), Err("by https://git")),
            (
                "1.5.0",
                &by(|signing| signing.issuer = "https://accounts.evil".to_owned()),
                Err("by somebody for whom https://accounts.evil vouches"),
            ),
            (
                "1.6.0",
                &by(|signing| signing.claims = vec![(11, "self-hosted")]),
                Err("whose certificate says runner_environment = \"self-hosted\""),
            ),
            (
                "1.7.0",
                &by(|signing| signing.claims.clear()),
                Err("whose certificate says nothing of runner_environment"),
            ),
            (
                "1.8.0",
                &by(|signing| {
                    let text = String::from_utf8(signing.statement.clone()).unwrap();
                    let sbom = "https://spdx.dev/Document";
                    signing.statement =
                        text.replace("https://sigstore.dev/cosign/sign/v1", sbom).into_bytes();
                }),
                Err("a statement of another kind (https://spdx.dev/Document)"),
            ),
        ],
    );
}

/// S26, S29: who is certified to sign.
#[test]
fn a_certificate_is_of_the_authority_and_in_its_log_or_the_signature_does_not_count() {
    let (instance, other) = (Instance::new(), Instance::new());
    let when = |certified: u64, logged_at: u64| {
        let instance = &instance;
        move |mut signing: Signing| {
            (signing.certified, signing.logged) = (certified, logged_at);
            logged(instance, signing)
        }
    };
    each_is_held(
        &instance.root(ALL),
        "",
        &[
            ("1.0.0", &|signing| logged(&instance, signing), Ok(())),
            (
                "1.1.0",
                &|signing| {
                    // The same log, another authority.
                    let signed = other.sign(signing);
                    signed.bundle(&[instance.entry(&signed)], &[])
                },
                Err("by a certificate of an authority that is not trusted for signing"),
            ),
            (
                "1.2.0",
                &|mut signing| {
                    signing.usage = TimeStamping;
                    logged(&instance, signing)
                },
                Err("by a certificate of an authority that is not trusted for signing"),
            ),
            ("1.3.0", &when(now() - 7200, now() - 60), Err("by a certificate that was not valid")),
            ("1.4.0", &when(now() - 60, now() - 7200), Err("by a certificate that was not valid")),
            (
                "1.5.0",
                &|signing| {
                    let certificate_log = Instance::with_certificate_log_of(&instance, &other);
                    logged(&certificate_log, signing)
                },
                Err("by a certificate that is in no log of certificates"),
            ),
        ],
    );
}

/// S26, S29, S30: when it was signed, and that this is known.
#[test]
fn without_a_time_that_can_be_checked_a_signature_does_not_count() {
    let instance = Instance::new();
    let with = |change: fn(&mut Value)| altered(&instance, change);
    let when = |certified: u64, logged_at: u64| {
        let instance = &instance;
        move |mut signing: Signing| {
            (signing.certified, signing.logged) = (certified, logged_at);
            logged(instance, signing)
        }
    };
    let without_proof = Err("without a proof that it is in a log");
    each_is_held(
        &instance.root(ALL),
        "",
        &[
            ("1.0.0", &|signing| logged(&instance, signing), Ok(())),
            (
                "1.6.0",
                &with(|material| {
                    material["tlogEntries"][0].as_object_mut().unwrap().remove("inclusionPromise");
                }),
                Err("without a time of signing that can be checked"),
            ),
            ("1.7.0", &with(|material| material["tlogEntries"] = json!([])), without_proof),
            (
                "1.8.0",
                &with(|material| {
                    material["tlogEntries"][0].as_object_mut().unwrap().remove("inclusionProof");
                }),
                without_proof,
            ),
            (
                "3.0.0",
                &when(now() - 60, now() + 300),
                Err("that was logged in the future; is this machine's clock right?"),
            ),
        ],
    );
}

/// S28, S29: what a log says.
#[test]
fn a_log_entry_is_of_the_signature_and_of_a_trusted_log_or_the_signature_does_not_count() {
    let (instance, other) = (Instance::new(), Instance::new());
    let with = |change: fn(&mut Value)| altered(&instance, change);
    each_is_held(
        &instance.root(ALL),
        "",
        &[
            ("1.0.0", &|signing| logged(&instance, signing), Ok(())),
            (
                "2.0.0",
                &|signing| {
                    let (signed, unrelated) =
                        (instance.sign(signing.clone()), instance.sign(signing));
                    signed.bundle(&[instance.entry(&unrelated)], &[])
                },
                Err("with the log entry of another signature"),
            ),
            (
                "2.1.0",
                &|signing| {
                    let signed = instance.sign(signing);
                    signed.bundle(&[other.entry(&signed)], &[])
                },
                Err("with a log's promise (SET) that no log of the trusted root made"),
            ),
            (
                "2.2.0",
                &with(|material| {
                    let proof = &mut material["tlogEntries"][0]["inclusionProof"];
                    (proof["treeSize"], proof["hashes"]) =
                        (json!("2"), json!(["A".repeat(43) + "="]));
                }),
                Err("with a wrong proof that it is in the log"),
            ),
            (
                "2.3.0",
                &|signing| {
                    let signed = instance.sign(signing);
                    let mut entry = instance.entry(&signed);
                    entry["inclusionProof"] = other.entry(&signed)["inclusionProof"].clone();
                    signed.bundle(&[entry], &[])
                },
                Err("with a checkpoint that no log of the trusted root signed"),
            ),
            (
                "2.4.0",
                &with(|material| {
                    let time = (now() - 30).to_string();
                    material["tlogEntries"][0]["integratedTime"] = json!(time);
                }),
                Err("with a log's promise (SET) that no log of the trusted root made"),
            ),
        ],
    );
}

/// S27, S28, and Rekor v2, whose entries know no time.
#[test]
fn a_timestamp_says_when_where_the_log_does_not() {
    let (instance, other) = (Instance::new(), Instance::new());
    if instance.stamp(b"x").is_none() {
        return;
    }
    let stamped = |by: &Instance, signing: Signing| {
        let signed = instance.sign(signing);
        let stamp = by.stamp(&signed.signature).unwrap();
        signed.bundle(&[instance.entry_2(&signed)], &[stamp])
    };
    let at = |certified: u64| {
        let stamped = &stamped;
        let instance = &instance;
        move |mut signing: Signing| {
            signing.certified = certified;
            stamped(instance, signing)
        }
    };
    let cases: &[Case<'_>] = &[
        ("1.0.0", &|signing| stamped(&instance, signing), Ok(())),
        (
            "1.1.0",
            &|signing| stamped(&other, signing),
            Err("with a timestamp that no authority of the trusted root gave"),
        ),
        ("1.2.0", &at(now() - 7200), Err("by a certificate that was not valid")),
        ("1.3.0", &at(now() + 7200), Err("by a certificate that was not valid")),
        (
            "1.4.0",
            &|signing| {
                let signed = instance.sign(signing);
                let stamp = instance.stamp(b"another signature").unwrap();
                signed.bundle(&[instance.entry_2(&signed)], &[stamp])
            },
            Err("with a timestamp that no authority of the trusted root gave"),
        ),
        (
            "1.5.0",
            &|signing| {
                let signed = instance.sign(signing);
                signed.bundle(&[instance.entry_2(&signed)], &[])
            },
            Err("without a time of signing that can be checked"),
        ),
        (
            "1.6.0",
            &|signing| {
                let (signed, unrelated) = (instance.sign(signing.clone()), instance.sign(signing));
                let stamp = instance.stamp(&signed.signature).unwrap();
                signed.bundle(&[instance.entry_2(&unrelated)], &[stamp])
            },
            Err("with the log entry of another signature"),
        ),
    ];
    each_is_held(&instance.root(ALL), "", cases);
    // An instance without logs: a timestamp is all that vouches, and it has to be there.
    let cases: &[Case<'_>] = &[
        (
            "1.0.0",
            &|signing| {
                let signed = instance.sign(signing);
                signed.bundle(&[], &[instance.stamp(&signed.signature).unwrap()])
            },
            Ok(()),
        ),
        ("1.1.0", &|signing| instance.sign(signing).bundle(&[], &[]), Err("without a timestamp")),
        ("1.2.0", &|signing| logged(&instance, signing), Err("without a timestamp")),
    ];
    each_is_held(&instance.root(&["stamps"]), "", cases);
}

/// Commands ask for the same without a policy, and tell how old a root is.
#[test]
fn commands_take_an_identity_and_doctor_tells_how_old_a_root_is() {
    let (server, trust, instance) = (Hostile::start(), Trust::by_new_key(), Instance::new());
    server.list_referrers();
    let host = server.host();
    let digest = server.publish("acme/net", "1.0.0", &module("# 1"));
    let signing = Signing::of(digest, &repo(&server, "acme/net"), Some("1.0.0"));
    let bundle = logged(&instance, signing).to_string();
    speak(&server, "acme/net", digest, BUNDLE, bundle.as_bytes());
    let (root, other) = (instance.root(ALL), Instance::new().root(ALL));
    fs::write(trust.path("root.json"), root.to_string()).unwrap();
    fs::write(trust.path("roots.jsonl"), format!("{other}\n{root}\n")).unwrap();
    fs::write(trust.path("other.json"), other.to_string()).unwrap();
    let reference = format!("{host}/acme/net:1.0.0");
    let asking = |root: &str, issuer: &str, identity: &str| -> Vec<String> {
        let words = ["verify", "--trusted-root", root, "--issuer", issuer, "--identity", identity];
        words.into_iter().chain([&*reference]).map(str::to_owned).collect()
    };
    let ran =
        |words: Vec<String>| trust.ran(&host, &words.iter().map(|w| &**w).collect::<Vec<_>>());
    let failed = |words: Vec<String>, code: i32| {
        trust.failed(&host, &words.iter().map(|w| &**w).collect::<Vec<_>>(), code)
    };
    for root in ["root.json", "roots.jsonl"] {
        let said = ran(asking(root, ISSUER, "https://github.com/acme/**"));
        assert_eq!(said, [format!("{reference}@{digest}: signed by identity")]);
    }
    let said = failed(asking("other.json", ISSUER, IDENTITY), 1);
    assert!(said.contains("refused") && said.contains("(SET)"), "{said}");
    let said = failed(asking("root.json", "https://github.com", IDENTITY), 1);
    assert!(said.contains(&format!("by somebody for whom {ISSUER} vouches")), "{said}");
    let odd = "https://x/${y}\"%{z}\\";
    assert!(failed(asking("root.json", ISSUER, odd), 1).contains(&format!("by {IDENTITY}")));
    assert!(failed(asking("none.json", ISSUER, IDENTITY), 1).contains("none.json"));
    let alone = ["verify", "--trusted-root", "root.json", &*reference].map(str::to_owned);
    assert!(failed(alone.to_vec(), 2).contains("--trusted-root needs"));
    // By a key, which has to be in a log too where a root is named.
    speak(
        &server,
        "acme/net",
        digest,
        BUNDLE,
        &trust.approves(digest, &repo(&server, "acme/net"), None),
    );
    let by_key = ["verify", "--key", "acme.pub", &*reference].map(str::to_owned);
    assert_eq!(ran(by_key.to_vec()), [format!("{reference}@{digest}: signed by key")]);
    let both = [&by_key[..], &["--trusted-root", "root.json"].map(str::to_owned)].concat();
    let said = failed(both, 1);
    assert!(said.contains("without a proof that it is in a log"), "{said}");

    let policy = format!(
        "default = \"refuse\"\n{}scope \"{host}\" {{\n  signed_by = [\"ci\"]\n}}\n",
        signer("")
    );
    trust.write_policy(&policy);
    let output = trust.run(&host, &["doctor", "--json", "--policy", "policy.hcl"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = said["parts"][0]["findings"].as_array().unwrap();
    let found = findings.iter().find(|found| found["subject"] == "trusted root").unwrap();
    assert_eq!(found["mark"], "note", "{found}");
    let told = found["found"].as_str().unwrap();
    assert!(told.contains("root.json: its newest key is of 2020-01-01"), "{told}");
}

/// A bundle by which a private instance vouches for a release with all that it has; its root.
fn vouched(signing: Signing) -> (Vec<u8>, Value) {
    let instance = Instance::new();
    let signed = instance.sign(signing);
    let stamps: Vec<_> = instance.stamp(&signed.signature).into_iter().collect();
    let bundle = signed.bundle(&[instance.entry(&signed)], &stamps);
    (bundle.to_string().into_bytes(), instance.root(ALL))
}

/// What counts here counts for cosign, by the same root.
#[test]
fn cosign_agrees_about_a_private_instance() {
    let Some(program) = support::program("cosign") else { return };
    let Some(docker) = DockerRegistry::start(Access::Anybody, false) else { return };
    let (host, trust) = (docker.host(), Trust::by_new_key());
    let dir = signing::source(&trust);
    let reference = format!("{host}/acme/net:1.0.0");
    let pushed = trust.ran(&host, &["push", dir.to_str().unwrap(), &*reference]).remove(0);
    let digest: Digest = pushed.rsplit_once('@').unwrap().1.parse().unwrap();
    let repo = Repo { host: host.parse().unwrap(), name: "acme/net".parse().unwrap() };
    let (bundle, root) = vouched(Signing::of(digest, &repo, Some("1.0.0")));
    fs::write(trust.path("bundle.json"), &bundle).unwrap();
    fs::write(trust.path("root.json"), root.to_string()).unwrap();
    trust.ran(&host, &["attach", "--type", BUNDLE, &*reference, "bundle.json"]);
    let by_digest = format!("{host}/acme/net@{digest}");
    for (identity, agrees) in [(IDENTITY, true), ("https://github.com/evil", false)] {
        let theirs = [
            "verify",
            "--allow-http-registry",
            "--trusted-root",
            "root.json",
            "--certificate-oidc-issuer",
            ISSUER,
            "--certificate-identity",
            identity,
            &*by_digest,
        ];
        let said = signing::cosign(&program, &trust, &theirs);
        assert_eq!(said.status.success(), agrees, "{said:?}");
        let words = ["verify", "--trusted-root", "root.json", "--issuer", ISSUER, "--identity"];
        let ours = trust.run(&host, &[&words[..], &[identity, &*by_digest]].concat());
        assert_eq!(ours.status.success(), agrees, "{ours:?}");
    }
}

/// S09, of what vouches for a signature: no byte of it makes the signature one of something else.
#[test]
fn a_keyless_bundle_with_a_changed_bit_says_nothing_else() {
    let digest = Digest::of(b"release");
    let repo = || Repo { host: "r.example".parse().unwrap(), name: "x".parse().unwrap() };
    let (bundle, root) = vouched(Signing::of(digest, &repo(), None));
    let scope = "scope \"r.example\" {\n  signed_by = [\"ci\"]\n}\n";
    let text = format!("default = \"refuse\"\n{}{scope}", signer(""));
    let mut read = |_: &str| Ok(root.to_string());
    let policy = tofufs::trust::Policy::parse("p", &text, Moment::now(), &mut read).unwrap();
    let policies = tofufs::trust::Policies(vec![policy.into()]);
    let admits = |digest: Digest, bundle: &[u8]| {
        let asked = tofufs::trust::Asked { repo: repo(), tag: None, digest, platform: None };
        let mut judgement = policies.judge(&asked, tofufs::trust::ReleaseDates::UNKNOWN);
        judgement.add(SignedStatement::read_bundle(bundle));
        judgement.admission().is_some()
    };
    assert!(admits(digest, &bundle) && !admits(Digest::of(b"other"), &bundle));
    for at in (0..bundle.len()).step_by(3) {
        let mut changed = bundle.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(!admits(Digest::of(b"other"), &changed), "byte {at}");
        changed.truncate(at);
        assert!(!admits(digest, &changed), "{at} bytes");
    }
}
