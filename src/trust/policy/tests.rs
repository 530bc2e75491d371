use serde_json::{Value, json};
use sigstore_verify::trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;

use super::*;

const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse("policy.hcl", text, Moment::now(), &mut |name| match name {
        "a.pub" => Ok(KEY.to_owned()),
        "root.json" => Ok(SIGSTORE_PRODUCTION_TRUSTED_ROOT.to_owned()),
        "keys.json" => {
            let mut root: Value = serde_json::from_str(SIGSTORE_PRODUCTION_TRUSTED_ROOT).unwrap();
            root["certificateAuthorities"] = json!([]);
            Ok(root.to_string())
        }
        _ => Err("there is no such file".to_owned()),
    })
}

#[track_caller]
fn refused(text: &str, line: usize, says: &str) {
    let error = parse(text).expect_err(text);
    assert!(error.line == line && error.rule.contains(says), "{text}: {error}");
}

const SIGNER: &str = "default = \"refuse\"\nsigner \"a\" {\n  keys = [\"a.pub\"]\n}\n";

#[test]
fn a_policy_says_who_decides_by_the_most_specific_scope() {
    let policy = parse(&format!(
        "{SIGNER}scope \"r.example\" {{\n  insecure_accept_anything = true\n}}
scope \"r.example/acme\" {{\n  signed_by = [\"a\"]\n  bind = \"tag\"\n}}
scope \"r.example/acme/old\" {{ digests = [\"{}\"] }}\n",
        Digest::of(b"x")
    ))
    .unwrap();
    let says = |name: &str| {
        let (host, name) = name.split_once('/').unwrap();
        policy.says_of(&Repo { host: host.parse().unwrap(), name: name.parse().unwrap() })
    };
    assert_eq!(says("r.example/x"), "policy.hcl:5 (scope r.example): accepts anything");
    assert_eq!(says("r.example/acmes"), "policy.hcl:5 (scope r.example): accepts anything");
    assert_eq!(says("r.example/acme"), "policy.hcl:8 (scope r.example/acme): wants signer a");
    assert_eq!(says("r.example/acme/n"), "policy.hcl:8 (scope r.example/acme): wants signer a");
    assert!(says("r.example/acme/old/n").ends_with("wants one of its digests"));
    assert_eq!(says("other.example/n"), "policy.hcl: no scope; refused by default");
    assert_eq!(policy.counts(), (3, 1));
}

/// S15
#[test]
fn a_policy_that_is_not_understood_is_none() {
    refused("", 1, "default is missing");
    refused("default = \"accept\"", 1, "default is");
    refused("default = true", 1, "no text");
    refused("default = \"refuse\"\ndefault = \"insecure_accept_anything\"", 2, "redefined");
    refused("default = \"refuse\"\ndefualt = 1", 2, "defualt");
    refused("default = \"refuse\"\nscope \"a.b\" {\n", 2, "");
    refused("default = \"refuse\"\nsigners \"a\" {}", 2, "signers");
    refused(&SIGNER.replace("a.pub", "b.pub"), 3, "no such file");
    refused(SIGNER, 2, "no scope names");
    refused("default = \"refuse\"\nsigner \"a\" {}\n", 2, "has no keys");
    let scope = |body: &str| format!("{SIGNER}scope \"a.b\" {{\n  {body}\n}}\n");
    assert!(parse(&scope("signed_by = [\"a\"]")).is_ok());
    refused(&scope("signed_by = [\"b\"]"), 5, "no signer \"b\"");
    refused(&scope(""), 5, "wants nothing");
    refused(&scope("signed_by = []"), 6, "empty");
    refused(&scope("signed_by = \"a\""), 6, "no list");
    refused(&scope("signed_by = [\"a\"]\n  signed_by = [\"a\"]"), 7, "redefined");
    refused(&scope("signed_by = [\"a\"]\n  bind = \"x\""), 5, "bind is");
    refused(&scope("digests = [\"sha256:0\"]"), 5, "sha256:0");
    refused(&scope("insecure_accept_anything = true\n  signed_by = [\"a\"]"), 6, "alone");
    refused(&scope("insecure_accept_anything = false"), 6, "alone");
    refused(&scope("signed_by = [\"a\"]\n  inner {\n  }"), 7, "inner");
    refused(&scope("signed_by = [\"a\"]\n  min_age = \"7w\""), 7, "min_age");
    refused(&scope("signed_by = [\"a\"]\n  min_age = 7"), 7, "no text");
    refused(&scope("signed_by = [\"a\"]\n  versions = \"latest\""), 7, "latest");
    refused(&scope("signed_by = [\"a\"]\n  versions = \"\""), 7, "versions is empty");
    refused(&scope("min_age = \"7d\""), 5, "wants nothing");
    assert!(parse(&scope("signed_by = [\"a\"]\n  min_age = \"7d\"")).is_ok());
    refused(&scope("signed_by = [\"${a}\"]"), 6, "no list");
    refused(
        &format!("{0}scope \"a.b\" {{\n  signed_by = [\"a\"]\n}}", scope("signed_by = [\"a\"]")),
        8,
        "twice",
    );
    refused(&format!("{SIGNER}scope \"nothing here\" {{\n}}"), 5, "HOST");
}

/// S15, S31
#[test]
fn a_signer_has_keys_or_an_identity_with_all_that_it_takes() {
    let of = |attributes: &str| {
        format!(
            "default = \"refuse\"\nsigner \"a\" {{\n  {attributes}\n}}\n\
             scope \"a.b\" {{\n  signed_by = [\"a\"]\n}}\n"
        )
    };
    let (root, issuer) = ("trusted_root = \"root.json\"", "issuer = \"https://i\"");
    let identity = "identity = \"https://x/*\"";
    let all = format!("{root}\n  {issuer}\n  {identity}");
    for attributes in [
        all.clone(),
        format!("{all}\n  claims = {{ runner_environment = \"github-hosted\" }}"),
        format!("{all}\n  claims = {{ \"build_trigger\" = \"push\" }}\n  predicate = \"x\""),
        format!("{root}\n  keys = [\"a.pub\"]"),
        "keys = [\"a.pub\"]\n  trusted_root = \"keys.json\"".to_owned(),
    ] {
        assert!(parse(&of(&attributes)).is_ok(), "{attributes}: {:?}", parse(&of(&attributes)));
    }
    for (attributes, line, says) in [
        (root.to_owned(), 2, "needs keys, or issuer and identity"),
        (format!("{root}\n  {issuer}"), 2, "needs keys, or issuer and identity"),
        (format!("{root}\n  {identity}"), 2, "needs keys, or issuer and identity"),
        (format!("{issuer}\n  {identity}"), 2, "no trusted_root"),
        (format!("{all}\n  keys = [\"a.pub\"]"), 2, "not both"),
        (all.replace("root.json", "keys.json"), 2, "names no certificate authority"),
        (all.replace("root.json", "a.pub"), 3, "the trusted root a.pub"),
        (all.replace("root.json", "none.json"), 3, "no such file"),
        (format!("{all}\n  claims = {{}}"), 6, "claims is no"),
        (format!("{all}\n  claims = \"x\""), 6, "claims is no"),
        (format!("{all}\n  claims = {{ build_trigger = 1 }}"), 6, "claims is no"),
        (format!("{all}\n  claims = {{ runner = \"x\" }}"), 6, "no claim \"runner\""),
        (
            format!("{all}\n  claims = {{ build_trigger = \"a\", build_trigger = \"b\" }}"),
            6,
            "redefined",
        ),
        (
            format!("{all}\n  claims = {{ build_trigger = \"a\", \"build_trigger\" = \"b\" }}"),
            6,
            "claims is no",
        ),
    ] {
        refused(&of(&attributes), line, says);
    }
}
