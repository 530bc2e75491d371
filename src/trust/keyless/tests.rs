use serde_json::json;
use sigstore_verify::trust_root::{SIGSTORE_GITHUB_TRUSTED_ROOT, SIGSTORE_PRODUCTION_TRUSTED_ROOT};

use super::*;

#[test]
fn a_pattern_is_like_the_whole_name() {
    let like = |pattern: &str, text: &str| SubjectPattern(pattern.to_owned()).matches_text(text);
    let release =
        "https://github.com/acme/terraform-provider-*/.github/workflows/r.yml@refs/tags/v*";
    let of = |repo: &str, tag: &str| {
        format!("https://github.com/acme/{repo}/.github/workflows/r.yml@refs/tags/{tag}")
    };
    for (repo, tag, expected) in [
        ("terraform-provider-x", "v1.0.0", true),
        ("terraform-provider-", "v", true),
        ("terraform-provider-x/y", "v1", false),
        ("x", "v1", false),
        ("terraform-provider-x", "v1/x", false),
        ("terraform-provider-x", "1.0.0", false),
    ] {
        assert_eq!(like(release, &of(repo, tag)), expected, "{repo} {tag}");
    }
    assert!(!like(release, &format!("x{}", of("terraform-provider-x", "v1"))));
    for (pattern, text, expected) in [
        ("", "", true),
        ("", "a", false),
        ("*", "", true),
        ("*", "a/b", false),
        ("**", "a/b", true),
        ("a**", "a", true),
        ("a***", "a/b", true),
        ("*/*", "a/b", true),
        ("*/*", "a/b/c", false),
        ("**/c", "a/b/c", true),
        ("*@acme.example", "somebody@acme.example", true),
        ("*@acme.example", "somebody@acme.example.evil", false),
        ("a.c", "abc", false),
        ("a?c", "abc", false),
        ("[ab]", "a", false),
        ("A", "a", false),
        ("ä*", "äö", true),
    ] {
        assert_eq!(like(pattern, text), expected, "{pattern:?} {text:?}");
    }
    // as long as the product of both, however many ways there are
    assert!(!like(&format!("{}b", "*a".repeat(500)), &"a".repeat(5_000)));
}

#[test]
fn a_uri_is_no_address_and_an_address_no_uri() {
    let matches =
        |pattern: &str, name: &SubjectAltName| SubjectPattern(pattern.into()).matches(name);
    let (uri, email) = ("https://acme.example/x".to_owned(), "a@acme.example".to_owned());
    assert!(matches("https://acme.example/*", &SubjectAltName::Uri(uri.clone())));
    assert!(!matches("https://acme.example/*", &SubjectAltName::Email(uri)));
    assert!(matches("*@acme.example", &SubjectAltName::Email(email.clone())));
    assert!(!matches("*@acme.example", &SubjectAltName::Uri(email)));
}

#[test]
fn trusted_roots_of_real_instances_are_read() {
    let public = TrustedRoots::read("root.json", SIGSTORE_PRODUCTION_TRUSTED_ROOT).unwrap();
    let github = TrustedRoots::read("root.json", SIGSTORE_GITHUB_TRUSTED_ROOT).unwrap();
    assert!(public.roots[0].has_logs && public.roots[0].has_certificate_logs);
    assert!(!github.roots[0].has_logs && !github.roots[0].has_certificate_logs);
    let newest = public.newest().unwrap();
    assert!(newest.since > Moment::at(1_700_000_000), "{newest:?}");
    let line = |text: &str| serde_json::from_str::<Value>(text).unwrap().to_string();
    let (one, two) = (line(SIGSTORE_PRODUCTION_TRUSTED_ROOT), line(SIGSTORE_GITHUB_TRUSTED_ROOT));
    let both = TrustedRoots::read("roots.jsonl", &format!("{one}\n\n{two}\n")).unwrap();
    assert_eq!(both.roots.len(), 2);
    assert!(both.newest() >= public.newest() && both.newest() >= github.newest());
}

/// S31
#[test]
fn a_trusted_root_that_is_not_understood_is_none() {
    let error = |value: &Value| TrustedRoots::read("root.json", &value.to_string()).unwrap_err();
    let public: Value = serde_json::from_str(SIGSTORE_PRODUCTION_TRUSTED_ROOT).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut root = public.clone();
        change(&mut root);
        root
    };
    for (root, says) in [
        (json!({"signed": {"_type": "root"}}), "no trusted root of Sigstore"),
        (with(&|root| root["mediaType"] = json!("application/json")), "no trusted root"),
        (
            with(&|root| {
                (root["tlogs"], root["certificateAuthorities"]) = (json!([]), json!([]));
            }),
            "no authority and no log",
        ),
        (
            with(&|root| {
                (root["tlogs"], root["timestampAuthorities"]) = (json!([]), json!([]));
            }),
            "no time of signing could be known",
        ),
        (with(&|root| root["tlogs"] = json!([root["tlogs"][0], root["tlogs"][0]])), "duplicate"),
        (
            with(&|root| {
                root["certificateAuthorities"][0]["certChain"]["certificates"] = json!([])
            }),
            "empty certificate chain",
        ),
        (with(&|root| root["tlogs"][0]["publicKey"]["rawBytes"] = json!("AAAA")), ""),
        (with(&|root| root["tlogs"] = json!("x")), ""),
    ] {
        assert!(error(&root).contains(says), "{}: {says}", error(&root));
    }
    let twice = SIGSTORE_PRODUCTION_TRUSTED_ROOT.replacen('{', "{\"tlogs\":[],", 1);
    for text in ["", "{", "{}\n{}", &*twice] {
        assert!(TrustedRoots::read("root.json", text).is_err(), "{text}");
    }
}
