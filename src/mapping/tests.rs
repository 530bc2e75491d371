use super::*;

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|t| (*t).to_owned()).collect()
}

fn rule(template: &str, include: &[&str], exclude: &[&str]) -> Result<MappingRule, MappingError> {
    MappingRule::new(template, &texts(include), &texts(exclude))
}

fn provider(text: &str) -> ProviderAddr {
    ProviderAddr::parse(text, &DEFAULT_REGISTRY.parse().unwrap()).unwrap()
}

fn mapped(template: &str, include: &[&str], of: &str) -> String {
    let mapping = Mapping::new(vec![rule(template, include, &[]).unwrap()]);
    match mapping.repo(&provider(of)) {
        Ok(Some(repo)) => repo.to_string(),
        Ok(None) => "none".into(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn a_template_is_an_hcl_template_over_the_parts_of_an_address() {
    let all = "ghcr.io/${hostname}/${namespace}/${type}";
    assert_eq!(mapped(all, &[], "Acme/AWS"), "ghcr.io/registry.opentofu.org/acme/aws");
    let fixed = &["registry.example/acme/*"];
    assert_eq!(
        mapped("r.io:5000/p/${type}", fixed, "registry.example/acme/aws"),
        "r.io:5000/p/aws"
    );
    assert_eq!(mapped("r.io/p/${type}", fixed, "registry.example/other/aws"), "none");
    let conditional = r#"r.io/${hostname == "a.b" ? "mine/${namespace}" : "other/${hostname}/${namespace}"}/${type}"#;
    assert_eq!(mapped(conditional, &[], "a.b/n/t"), "r.io/mine/n/t");
    assert_eq!(mapped(conditional, &[], "c.d/n/t"), "r.io/other/c.d/n/t");
    let directive =
        r#"%{ if namespace == "x" }a.io%{ else }b.io%{ endif }/${hostname}/${namespace}/${type}"#;
    assert_eq!(mapped(directive, &[], "h.h/x/t"), "a.io/h.h/x/t");
    let joined = r#"r.io/%{ for part in [hostname, namespace, type] }x${part}%{ endfor }"#;
    assert_eq!(mapped(joined, &[], "h.h/n/t"), "r.io/xh.hxnxt");
    assert_eq!(mapped("r.io/one", &["h.h/n/t"], "h.h/n/t"), "r.io/one");
    assert_eq!(
        mapped("${hostname}/${namespace}/${type}", &[], "localhost:8443/n/t"),
        "localhost:8443/n/t"
    );
}

#[test]
fn what_no_provider_can_be_mapped_by_is_refused_at_once() {
    for (template, part) in [
        ("", "1 to 2048 bytes"),
        ("r.io/${namespace}/${type}", "must refer to ${hostname}"),
        ("r.io/${hostname}/${type}", "must refer to ${namespace}"),
        ("r.io/${hostname}/${namespace}", "must refer to ${type}"),
        (
            "r.io/${hostname}/${namespace}/{type}",
            "`{type}` is plain text in it; did you mean `${type}`?",
        ),
        ("r.io/{hostname}/${namespace}/${type}", "did you mean `${hostname}`?"),
        (
            "r.io/${hostname}/$namespace/${type}",
            "`$namespace` is plain text in it; did you mean `${namespace}`?",
        ),
        ("r.io/${hostname}/${namespace}/${type}/${version}", "it refers to version"),
        ("r.io/${hostname}/${namespace}/${lower(type)}", "it calls lower"),
        (r#"r.io/${hostname}/${namespace}/${type == "x" ? upper(type) : type}"#, "it calls upper"),
        ("r.io/${hostname}/${namespace}/${type", "no HCL template"),
        ("${hostname}-${namespace}-${type}", "is no repository"),
        ("r.io/${hostname}/${namespace}/${type}:1.0", "is no repository"),
        ("r.io/${hostname}/${namespace}/${type}@sha256:0", "is no repository"),
        ("r.io/Upper/${hostname}/${namespace}/${type}", "is no repository"),
        (
            "https://r.io/${hostname}/${namespace}/${type}",
            "; write 'r.io/${hostname}/${namespace}/${type}'",
        ),
        ("r.io/${[hostname, namespace, type]}", "is no text"),
        ("r.io/${null}/${hostname}/${namespace}/${type}", "is no text"),
        ("r.io/${hostname.x}/${namespace}/${type}", ""),
        ("r.io/${hostname + 1}/${namespace}/${type}", ""),
    ] {
        let error = rule(template, &[], &[]).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{template}: {error}");
    }
    let deep =
        format!("r.io/${{{}hostname{}}}/${{namespace}}/${{type}}", "(".repeat(40), ")".repeat(40));
    assert!(rule(&deep, &[], &[]).unwrap_err().to_string().contains("nest deeper"));
    // Thirty loops over ten numbers would take longer than the world.
    let round =
        |body: String| format!("%{{ for x in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] }}{body}%{{ endfor }}");
    let looping = format!(
        "r.io/${{hostname}}/${{namespace}}/${{type}}{}",
        (0..30).fold(String::new(), |b, _| round(b))
    );
    assert!(rule(&looping, &[], &[]).unwrap_err().to_string().contains("loops nest deeper than 2"));
    let listing = (0..30).fold("x".to_owned(), |body, _| format!("[for x in [0, 1] : {body}]"));
    let listing = format!("r.io/${{hostname}}/${{namespace}}/${{type}}${{{listing} == 1 ? 1 : 2}}");
    assert!(rule(&listing, &[], &[]).unwrap_err().to_string().contains("nest deeper"));
}

#[test]
fn a_part_that_include_fixes_need_not_be_referred_to() {
    assert!(rule("r.io/${type}", &["a.b/n/*"], &[]).is_ok());
    assert!(rule("r.io/${type}", &["a.b/n/x", "a.b/n/y"], &[]).is_ok());
    assert!(rule("r.io/${type}", &["a.b/n/*", "a.b/m/*"], &[]).is_err());
    assert!(rule("r.io/${type}", &["a.b/n/*", "c.d/n/*"], &[]).is_err());
    // Without a host a pattern means the default registry: one value.
    assert!(rule("r.io/${namespace}/${type}", &["n/*"], &[]).is_ok());
}

/// A host with a port cannot be part of a repository's name.
#[test]
fn an_address_that_a_template_cannot_map_is_an_error_and_no_absence() {
    let mapping =
        Mapping::new(vec![rule("r.io/${hostname}/${namespace}/${type}", &[], &[]).unwrap()]);
    let error = mapping.repo(&provider("localhost:8443/n/t")).unwrap_err().to_string();
    assert!(error.contains("localhost:8443/n/t") && error.contains("is no repository"), "{error}");
    assert!(mapping.repos(&provider("localhost:8443/n/t")).is_err());
}

#[test]
fn exclude_beats_include_and_an_empty_include_is_everything() {
    let rule = rule(
        "r.io/${hostname}/${namespace}/${type}",
        &["a.b/n/*", "a.b/m/x", "o/*"],
        &["a.b/n/secret", "A.B:443/m/*"],
    )
    .unwrap();
    for (text, is) in [
        ("a.b/n/t", true),
        ("A.b/N/T", true),
        ("a.b/n/secret", false),
        ("a.b/m/x", false),
        ("a.b/o/x", false),
        ("registry.opentofu.org/o/x", true),
        ("registry.terraform.io/o/x", false),
    ] {
        assert_eq!(rule.matches(&provider(text)), is, "{text}");
    }
}

#[test]
fn patterns_have_their_stars_on_the_right() {
    for (good, shown) in [
        ("a/b", "registry.opentofu.org/a/b"),
        ("a/*", "registry.opentofu.org/a/*"),
        ("*/*", "registry.opentofu.org/*/*"),
        ("A.b/N/*", "a.b/n/*"),
        ("a.b/*/*", "a.b/*/*"),
        ("*/*/*", "*/*/*"),
        ("localhost:8443/a/b", "localhost:8443/a/b"),
    ] {
        assert_eq!(good.parse::<ProviderPattern>().unwrap().to_string(), shown);
    }
    for bad in [
        "",
        "*",
        "a",
        "*/b",
        "*/a/*",
        "*/*/b",
        "a.b/*/t",
        "a.b/n/t/x",
        "nohost/a/b",
        "a/b*",
        "a//b",
        "a b/c",
    ] {
        assert!(bad.parse::<ProviderPattern>().is_err(), "{bad}");
    }
}

#[test]
fn all_rules_that_match_hold_versions_and_the_first_takes_new_ones() {
    let mapping = Mapping::new(vec![
        rule("one.io/${type}", &["a.b/n/*"], &["a.b/n/x"]).unwrap(),
        rule("two.io/${hostname}/${namespace}/${type}", &[], &[]).unwrap(),
        rule("one.io/${type}", &["a.b/n/*"], &[]).unwrap(),
    ]);
    let repos = |text| {
        mapping.repos(&provider(text)).unwrap().iter().map(Repo::to_string).collect::<Vec<_>>()
    };
    assert_eq!(repos("a.b/n/t"), ["one.io/t", "two.io/a.b/n/t"]);
    assert_eq!(repos("a.b/n/x"), ["two.io/a.b/n/x", "one.io/x"]);
    assert_eq!(repos("c.d/n/t"), ["two.io/c.d/n/t"]);
    assert_eq!(mapping.repo(&provider("a.b/n/x")).unwrap().unwrap().to_string(), "two.io/a.b/n/x");
    assert!(!Mapping::default().matches(&provider("a.b/n/t")));
}

#[test]
fn the_registries_that_rules_name_are_known_before_any_provider() {
    let prefixes = |template: &str, include: &[&str]| {
        let prefix = rule(template, include, &[]).unwrap().prefix();
        prefix.map(|(host, path)| (host.to_string(), path.map(|p| p.to_string())))
    };
    let found = |host: &str, path: Option<&str>| Some((host.to_owned(), path.map(str::to_owned)));
    assert_eq!(
        prefixes("r.io:5000/${hostname}/${namespace}/${type}", &[]),
        found("r.io:5000", None)
    );
    assert_eq!(
        prefixes("r.io/a/b/p-${hostname}/${namespace}/${type}", &[]),
        found("r.io", Some("a/b"))
    );
    assert_eq!(prefixes("r.io/a/one", &["a.b/n/t"]), found("r.io", Some("a/one")));
    assert_eq!(prefixes("${hostname}/${namespace}/${type}", &[]), None);
    assert_eq!(prefixes("r.${hostname}/${namespace}/${type}", &[]), None);
}

fn read_from(mapping: &Mapping, repo: &str) -> Vec<String> {
    let repo: Repo = repo.parse().unwrap();
    mapping.providers_of(&repo).iter().map(ProviderAddr::to_string).collect()
}

#[test]
fn a_repository_names_the_providers_that_it_can_be_of() {
    let mapping =
        |template, include| Mapping::new(vec![rule(template, include, &["a.b/n/secret"]).unwrap()]);
    let nobody: [&str; 0] = [];
    let all = mapping("r.io/m/${hostname}/${namespace}/${type}", &[]);
    assert_eq!(read_from(&all, "r.io/m/a.b/n/t"), ["a.b/n/t"]);
    for other in [
        "r.io/m/a.b/n/t/x",
        "r.io/m/a.b/n",
        "r.io/x/a.b/n/t",
        "s.io/m/a.b/n/t",
        "r.io/m/nohost/n/t",
    ] {
        assert_eq!(read_from(&all, other), nobody, "{other}");
    }
    let fixed = mapping("r.io/p/terraform-provider-${type}", &["a.b/n/*"]);
    assert_eq!(read_from(&fixed, "r.io/p/terraform-provider-aws"), ["a.b/n/aws"]);
    assert_eq!(read_from(&fixed, "r.io/p/terraform-provider-secret"), nobody);
    let joined = mapping("r.io/${namespace}-${type}", &["a.b/*/*"]);
    assert_eq!(read_from(&joined, "r.io/n-t"), ["a.b/n/t"]);
    assert_eq!(read_from(&joined, "r.io/n-t-u"), ["a.b/n/t-u", "a.b/n-t/u"]);
    let twice = mapping("r.io/${type}/${namespace}/${type}", &["a.b/*/*"]);
    assert_eq!(read_from(&twice, "r.io/t/n/t"), ["a.b/n/t"]);
    assert_eq!(read_from(&twice, "r.io/t/n/u"), nobody);
    // What is computed is not undone.
    let computed = mapping(r#"r.io/${type == "x" ? "y" : type}"#, &["a.b/n/*"]);
    assert_eq!(read_from(&computed, "r.io/t"), nobody);
}

#[test]
fn a_repository_serves_the_addresses_of_all_rules_that_lead_to_it() {
    let mapping = Mapping::new(vec![
        rule("r.io/h/${type}", &["registry.opentofu.org/h/*"], &["registry.opentofu.org/h/own"])
            .unwrap(),
        rule("r.io/h/${type}", &["registry.terraform.io/h/*"], &[]).unwrap(),
        rule("r.io/${namespace}/${type}", &["a.b/*/*"], &[]).unwrap(),
    ]);
    assert_eq!(
        read_from(&mapping, "r.io/h/aws"),
        ["a.b/h/aws", "registry.opentofu.org/h/aws", "registry.terraform.io/h/aws"]
    );
    assert_eq!(read_from(&mapping, "r.io/h/own"), ["a.b/h/own", "registry.terraform.io/h/own"]);
}

#[test]
fn rules_behind_others_are_for_what_those_do_not_match() {
    let first = Mapping::new(vec![rule("one.io/${type}", &["a.b/n/*"], &["a.b/n/x"]).unwrap()]);
    let all = rule("two.io/${hostname}/${namespace}/${type}", &[], &[]).unwrap();
    let same = rule("one.io/${type}", &["a.b/n/*"], &["a.b/n/x"]).unwrap();
    let mapping = first.clone().or(&Mapping::new(vec![same.clone(), all.clone()]));
    assert_eq!(mapping.rules().len(), 2);
    let repos = |mapping: &Mapping, text| {
        mapping.repos(&provider(text)).unwrap().iter().map(Repo::to_string).collect::<Vec<_>>()
    };
    assert_eq!(repos(&mapping, "a.b/n/t"), ["one.io/t"]);
    assert_eq!(repos(&mapping, "a.b/n/x"), ["two.io/a.b/n/x"]);
    assert_eq!(repos(&mapping, "c.d/n/t"), ["two.io/c.d/n/t"]);
    assert_eq!(read_from(&mapping, "two.io/a.b/n/t"), [] as [&str; 0]);
    let both = first.and(&Mapping::new(vec![same, all]));
    assert_eq!(repos(&both, "a.b/n/t"), ["one.io/t", "two.io/a.b/n/t"]);
}

#[test]
fn what_is_carried_is_read_as_it_was_written() {
    let template = r#"r.io/${namespace}/${type == "x" ? "y" : type}"#;
    let mapping = Mapping::new(vec![
        rule(template, &["n/*"], &["n/secret"]).unwrap(),
        rule("s.io/${hostname}/${namespace}/${type}", &[], &[]).unwrap(),
    ]);
    let carried = mapping.carried_with(&["n/t", "n/s"].into_iter().map(provider).collect());
    assert_eq!(carried.mapping, mapping);
    let one = mapping.carried_with(&[provider("a.b/n/t")].into());
    assert_eq!(one.mapping.rules(), &mapping.rules()[1..]);
    assert_eq!(Carried::parse(&carried.document(), "x"), Ok(carried.clone()));
    assert_eq!(carried.clone().and(&carried), carried);
    assert_eq!(one.and(&carried).providers.len(), 3);
    assert!(mapping.carried_with(&BTreeSet::new()).is_empty());
    // A later version may say more.
    assert!(Carried::parse(br#"{"more": 1}"#, "x").unwrap().is_empty());
    for wrong in [
        "",
        "1",
        r#"{"providers": ["n/t"]}"#,
        r#"{"providers": ["a.b/n/t/x"]}"#,
        r#"{"rules": [{}]}"#,
    ] {
        assert!(
            Carried::parse(wrong.as_bytes(), "the file")
                .unwrap_err()
                .to_string()
                .starts_with("the file: ")
        );
    }
    let wrong = r#"{"rules": [{"repository_template": "r.io/${type}"}]}"#;
    let said = Carried::parse(wrong.as_bytes(), "the file").unwrap_err().to_string();
    assert!(said.contains("must refer to ${hostname}"), "{said}");
}
