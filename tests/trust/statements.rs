//! What counts as a signature, and what does not (no mount, no registry).

use std::sync::Arc;

use serde_json::{Value, json};
use tofufs::moment::Moment;
use tofufs::trust::{Asked, Policies, Policy, ReleaseDates};

use crate::*;

const NAME: &str = "r.example/acme/net";

/// A policy for `r.example/acme`, whose signers are in `keys`.
fn policies(rules: &str, keys: &[(&str, &SigningKey)]) -> Policies {
    let mut text = "default = \"refuse\"\n".to_owned();
    for (name, _) in keys {
        text += &format!("signer \"{name}\" {{\n  keys = [\"{name}\"]\n}}\n");
    }
    text += &format!("scope \"r.example/acme\" {{\n  {rules}\n}}\n");
    let mut read = |file: &str| {
        let key = keys.iter().find(|(name, _)| *name == file).unwrap();
        Ok(key.1.public().to_pem())
    };
    Policies(vec![Arc::new(Policy::parse("policy.hcl", &text, Moment::now(), &mut read).unwrap())])
}

fn asked(tag: Option<&str>) -> Asked {
    let (host, name) = NAME.split_once('/').unwrap();
    let repo = Repo { host: host.parse().unwrap(), name: name.parse().unwrap() };
    Asked {
        repo,
        tag: tag.map(|tag| tag.parse().unwrap()),
        digest: Digest::of(b"release"),
        platform: None,
    }
}

fn key(private: &str) -> SigningKey {
    SigningKey::from_pem(private).unwrap()
}

/// A bundle of this payload, signed as a DSSE envelope of this type.
fn bundle(key: &SigningKey, payload: &[u8], payload_type: &str) -> Value {
    let mut message =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key.public().hint()}},
        "dsseEnvelope": {"payload": STANDARD.encode(payload), "payloadType": payload_type,
            "signatures": [{"sig": STANDARD.encode(key.sign(&message).unwrap())}]},
    })
}

const IN_TOTO: &str = "application/vnd.in-toto+json";
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

fn statement(subjects: Value, predicate: &str) -> Vec<u8> {
    json!({"_type": "https://in-toto.io/Statement/v1", "subject": subjects,
        "predicateType": predicate, "predicate": {}})
    .to_string()
    .into_bytes()
}

fn ours() -> Value {
    json!({"digest": {"sha256": Digest::of(b"release").hex()}})
}

/// Whether that is admitted, and the sentence if not.
fn judged(policies: &Policies, asked: &Asked, bundles: &[Vec<u8>]) -> Result<(), String> {
    let mut judgement = policies.judge(asked, ReleaseDates::UNKNOWN);
    for bundle in bundles {
        judgement.add(SignedStatement::read_bundle(bundle));
    }
    judgement.admission().map(drop).ok_or_else(|| judgement.refusal().rule)
}

#[track_caller]
fn refused(policies: &Policies, bundles: &[Vec<u8>], says: &str) {
    let rule = judged(policies, &asked(Some("1.0.0")), bundles).expect_err(says);
    assert!(rule.contains(says), "{rule:?} lacks {says:?}");
}

/// S07
#[test]
fn a_signature_says_the_right_thing_by_the_right_key_and_is_understood() {
    for private in [private_key(), p256_key()] {
        let (acme, other) = (key(&private), key(&p256_key()));
        let policies = policies("signed_by = [\"acme\"]", &[("acme", &acme)]);
        let of = |subjects: Value, predicate: &str| {
            bundle(&acme, &statement(subjects, predicate), IN_TOTO).to_string().into_bytes()
        };
        let good = of(json!([ours()]), SIGNED);
        let wrong = bundle(&other, &statement(json!([ours()]), SIGNED), IN_TOTO);
        let mut hinted = wrong.clone();
        hinted["verificationMaterial"]["publicKey"]["hint"] = json!(acme.public().hint());
        let (wrong, hinted) = (wrong.to_string().into_bytes(), hinted.to_string().into_bytes());
        let admitted = |bundles: &[Vec<u8>]| judged(&policies, &asked(Some("1.0.0")), bundles);
        assert_eq!(admitted(std::slice::from_ref(&good)), Ok(()));
        assert_eq!(admitted(&[wrong.clone(), good.clone()]), Ok(()), "one good, one bad");
        refused(&policies, &[], "wants signer acme; found no signature");
        refused(&policies, std::slice::from_ref(&wrong), "found 1 signature: 1 by another key");
        refused(&policies, &[hinted, wrong], "found 2 signatures: ");
        let elsewhere = json!({"digest": {"sha256": Digest::of(b"other").hex()}});
        refused(&policies, &[of(json!([elsewhere]), SIGNED)], "1 for another digest");
        let long = Digest::of_with(tofufs::digest::Algorithm::Sha512, b"release").hex();
        let longer = json!({"digest": {"sha512": long}});
        refused(&policies, &[of(json!([longer]), SIGNED)], "1 for another digest");
        assert_eq!(admitted(&[of(json!([elsewhere, ours()]), SIGNED)]), Ok(()), "two subjects");
        refused(&policies, &[of(json!([ours()]), "https://spdx.dev/Document")], "another kind");
        let other_type = bundle(&acme, &statement(json!([ours()]), SIGNED), "text/plain");
        refused(&policies, &[other_type.to_string().into_bytes()], "not understood");
        let mut two = bundle(&acme, &statement(json!([ours()]), SIGNED), IN_TOTO);
        let one = two["dsseEnvelope"]["signatures"][0].clone();
        two["dsseEnvelope"]["signatures"] = json!([one, one]);
        refused(&policies, &[two.to_string().into_bytes()], "exactly one signature");
        let mut bytes = bundle(&acme, &statement(json!([ours()]), SIGNED), IN_TOTO);
        bytes["messageSignature"] = json!({});
        refused(&policies, &[bytes.to_string().into_bytes()], "sign again with cosign 3");
    }
}

/// S08
#[test]
fn documents_that_two_readers_understand_differently_do_not_count() {
    let acme = key(&private_key());
    let policies = policies("signed_by = [\"acme\"]", &[("acme", &acme)]);
    let good = String::from_utf8(statement(json!([ours()]), SIGNED)).unwrap();
    let of =
        |payload: &str| vec![bundle(&acme, payload.as_bytes(), IN_TOTO).to_string().into_bytes()];
    assert_eq!(judged(&policies, &asked(None), &of(&good)), Ok(()));
    let twice = good.replacen('{', &format!("{{\"predicateType\":\"{SIGNED}\","), 1);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep = good.replacen("\"predicate\":{}", &format!("\"predicate\":{deep}"), 1);
    for payload in [&*twice, &*deep, &*format!("\u{feff}{good}"), &*format!("{good}x"), "", "[]"] {
        refused(&policies, &of(payload), "not understood");
    }
    let text = bundle(&acme, good.as_bytes(), IN_TOTO).to_string();
    for bad in [
        text.replacen('{', "{\"mediaType\":\"x\",", 1),
        format!("\u{feff}{text}"),
        format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
        text.replace(BUNDLE, "application/vnd.dev.sigstore.bundle.v9+json"),
        String::new(),
    ] {
        refused(&policies, &[bad.into_bytes()], "not understood");
    }
}

/// S09. Every byte of a bundle counts, or is not part of what is believed.
#[test]
fn a_bundle_with_a_changed_bit_says_nothing_else() {
    let acme = key(&private_key());
    let policies = policies("signed_by = [\"acme\"]\n  bind = \"tag\"", &[("acme", &acme)]);
    let asked = asked(Some("1.0.0"));
    let good =
        SignedStatement::sign(&acme, &asked.digest, &asked.repo, asked.tag.as_ref()).unwrap();
    assert_eq!(judged(&policies, &asked, std::slice::from_ref(&good)), Ok(()));
    let other = Asked { digest: Digest::of(b"other"), ..asked.clone() };
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(judged(&policies, &other, &[changed]).is_err(), "byte {at}");
    }
}

/// S10, rotation, and digests beside signers.
#[test]
fn all_of_several_signers_or_one_of_several_keys() {
    let (one, two) = (key(&private_key()), key(&p256_key()));
    let by = |key: &SigningKey| {
        bundle(key, &statement(json!([ours()]), SIGNED), IN_TOTO).to_string().into_bytes()
    };
    let both = policies("all_of = [\"a\", \"b\"]", &[("a", &one), ("b", &two)]);
    refused(&both, &[by(&one)], "wants signer a and b");
    assert_eq!(judged(&both, &asked(None), &[by(&one), by(&two)]), Ok(()));
    let any = policies("signed_by = [\"a\", \"b\"]", &[("a", &one), ("b", &two)]);
    assert_eq!(judged(&any, &asked(None), &[by(&two)]), Ok(()));
    let digest = Digest::of(b"release");
    let rules = format!("signed_by = [\"a\"]\n  digests = [\"{digest}\"]");
    assert_eq!(judged(&policies(&rules, &[("a", &one)]), &asked(None), &[]), Ok(()));
    // Of two policies both have to admit.
    let mut mixed = both.clone();
    mixed.0.extend(policies(&rules, &[("a", &one)]).0);
    assert!(judged(&mixed, &asked(None), &[by(&one)]).is_err());
    assert_eq!(judged(&mixed, &asked(None), &[by(&one), by(&two)]), Ok(()));
}

/// S11
#[test]
fn a_name_is_signed_where_that_is_asked_for() {
    let acme = key(&private_key());
    let signed = |repo: &str, tag: Option<&str>| {
        let (host, name) = repo.split_once('/').unwrap();
        let repo = Repo { host: host.parse().unwrap(), name: name.parse().unwrap() };
        let tag = tag.map(|tag| tag.parse::<Tag>().unwrap());
        SignedStatement::sign(&acme, &Digest::of(b"release"), &repo, tag.as_ref()).unwrap()
    };
    let of =
        |bind: &str| policies(&format!("signed_by = [\"acme\"]\n  {bind}"), &[("acme", &acme)]);
    let (digest, repository, tag) =
        (of("bind = \"digest\""), of("bind = \"repository\""), of("bind = \"tag\""));
    let by = |policies: &Policies, as_tag: Option<&str>, bundle: Vec<u8>| {
        judged(policies, &asked(as_tag), &[bundle]).is_ok()
    };
    let moved = || signed(NAME, Some("0.9.0"));
    assert!(by(&digest, Some("1.0.0"), moved()) && by(&repository, Some("1.0.0"), moved()));
    assert!(!by(&tag, Some("1.0.0"), moved()));
    assert!(by(&tag, Some("0.9.0"), moved()));
    assert!(by(&tag, None, moved()), "by digest only the repository has to match");
    assert!(!by(&tag, Some("1.0.0"), signed(NAME, None)));
    let copied = || signed("r.example/other/net", Some("1.0.0"));
    assert!(by(&digest, Some("1.0.0"), copied()));
    assert!(!by(&repository, Some("1.0.0"), copied()) && !by(&tag, Some("1.0.0"), copied()));
    assert!(!by(&tag, None, copied()));
    let mirrored = of("bind = \"tag\"\n  signed_prefix = \"ghcr.io/up\"");
    assert!(by(&mirrored, Some("1.0.0"), signed("ghcr.io/up/net", Some("1.0.0"))));
    assert!(!by(&mirrored, Some("1.0.0"), signed(NAME, Some("1.0.0"))));
}
