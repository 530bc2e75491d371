//! Which versions are mirrored, what is shown without mirroring, and lists and lock files.

use std::fs;

use serde_json::Value;
use tofufs::digest::Digest;

use crate::support::hostile::{Behaviour, Hostile, Reply, path};
use crate::{Bed, into};

#[test]
fn the_newest_are_selected_and_pre_releases_only_by_name() {
    let Some(mut bed) = Bed::new() else { return };
    for version in ["1.9.0", "1.10.0", "2.0.0-rc1", "1.2.0"] {
        bed.origin.publish("one", version);
    }
    let registry = Hostile::start();
    let address = bed.address("one");
    let tags = |words: &[&str]| -> Vec<String> {
        let lines = bed.lines(&into(&registry, &[words, &["--platform", "linux_amd64"]].concat()));
        lines
            .iter()
            .map(|line| line.split(['@']).next().unwrap().rsplit(':').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(tags(&[&address, "--newest", "2"]), ["1.9.0", "1.10.0"]);
    assert_eq!(tags(&[&address, "2.0.0-rc1"]), ["2.0.0-rc1"]);
    assert_eq!(bed.origin.zips_sent(), 3, "one platform of each");
    let said = bed.refused(&into(&registry, &[&address, ">= 3.0"]));
    assert!(said.contains("none of its 4 versions") && said.contains("\">= 3.0.0\""), "{said}");
    let usage = bed.mirror(&into(&registry, &[&address]));
    assert_eq!(
        usage.status.code(),
        Some(2),
        "all versions of a provider are no default: {usage:?}"
    );
    // What a platform was named for and has not.
    let output = bed.mirror(&into(&registry, &[&address, "1.2.0", "--platform", "plan9_386"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1.2.0 has no package for plan9_386"),
        "{said}"
    );
}

#[test]
fn a_plan_and_a_check_change_nothing() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    bed.origin.publish("one", "1.1.0");
    let registry = Hostile::start();
    let address = bed.address("one");
    bed.lines(&into(&registry, &[&address, "1.0.0", "--platform", "linux_amd64"]));
    let (sent, zips) = (registry.requests().len(), bed.origin.zips_sent());

    let plan = bed.lines(&into(&registry, &[&address, "~> 1.0", "--dry-run"]));
    let reference = |tag: &str| format!("{}/mirror/acme/one:{tag}", registry.host());
    assert_eq!(
        plan,
        [
            format!("{} would get darwin_arm64, linux_arm64", reference("1.0.0")),
            format!("{} would get darwin_arm64, linux_amd64, linux_arm64", reference("1.1.0")),
        ]
    );
    let json = bed.lines(&into(&registry, &[&address, "1.0.0", "--dry-run", "--json"]));
    let json: Value = serde_json::from_str(&json[0]).unwrap();
    assert_eq!(json["missing"], serde_json::json!(["darwin_arm64", "linux_arm64"]), "{json}");

    let check = bed.mirror(&into(&registry, &[&address, "~> 1.0", "--check"]));
    assert_eq!(check.status.code(), Some(1));
    let lines = String::from_utf8(check.stdout).unwrap();
    assert_eq!(
        lines.lines().next(),
        Some(&*format!("{} lacks darwin_arm64, linux_arm64", reference("1.0.0")))
    );
    assert_eq!(lines.lines().count(), 2, "one line each: {lines}");
    let said = String::from_utf8(check.stderr).unwrap();
    assert!(said.contains("2 releases are missing or incomplete"), "{said}");
    let done = ["--platform", "linux_amd64", "--check"];
    assert!(bed.lines(&into(&registry, &[&[&*address, "1.0.0"][..], &done].concat())).is_empty());

    assert!(registry.requests()[sent..].iter().all(|seen| seen.method == "GET"));
    assert_eq!(bed.origin.zips_sent(), zips);
    let check = bed.mirror(&[&address, "1.0.0", "--check", "--to", "oci:nothing"]);
    assert!(!check.status.success() && !bed.path("nothing").exists(), "{check:?}");
}

#[test]
fn a_lock_file_says_what_is_mirrored_and_what_may_be() {
    let Some(mut bed) = Bed::new() else { return };
    let one = bed.origin.publish("one", "1.0.0");
    bed.origin.publish("one", "1.1.0");
    let two = bed.origin.publish("two", "3.0.0");
    let registry = Hostile::start();
    let block = |kind: &str, version: &str, hashes: &[String]| {
        let hashes: String = hashes.iter().map(|hash| format!("    \"{hash}\",\n")).collect();
        format!(
            "provider \"{}\" {{\n  version = \"{version}\"\n  hashes = [\n{hashes}  ]\n}}\n",
            bed.address(kind)
        )
    };
    let zh = |zip: &Vec<u8>| format!("zh:{}", Digest::of(zip).hex());
    let all = |release: &crate::support::origin::Published| {
        release.zips.values().map(zh).collect::<Vec<_>>()
    };
    let lock = block("one", "1.0.0", &all(&one)) + &block("two", "3.0.0", &all(&two));
    fs::write(bed.path("lock.hcl"), lock).unwrap();
    let words = into(&registry, &["--lock-file", "lock.hcl"]);
    assert_eq!(bed.lines(&words).len(), 2);
    assert!(registry.manifest("mirror/acme/one", "1.1.0").is_none());

    // One that holds another zip, before anything was mirrored and after.
    let strange = block("two", "3.0.0", &[zh(&b"another".to_vec())]);
    fs::write(bed.path("lock.hcl"), strange).unwrap();
    for to in ["oci:empty", "oci:empty"] {
        let said = bed.refused(&["--lock-file", "lock.hcl", "--to", to]);
        assert!(said.contains("the lock file holds no hash of its zip for darwin_arm64"), "{said}");
    }
    let said = bed.refused(&words);
    assert!(said.contains("the lock file holds no hash"), "{said}");
}

/// A release whose sums say when they changed last.
fn published_at(bed: &mut Bed, version: &str, modified: Option<&str>) {
    let release = bed.origin.publish("one", version);
    let reply = Reply::new(200, "text/plain", release.sums.as_bytes());
    let reply = match modified {
        Some(modified) => reply.with("Last-Modified", modified),
        None => reply,
    };
    bed.origin.answer(&release.sums_path(), reply);
}

#[test]
fn what_has_not_been_out_for_long_enough_is_left_out() {
    let Some(mut bed) = Bed::new() else { return };
    let old = "Wed, 01 Jan 2020 00:00:00 GMT";
    published_at(&mut bed, "1.0.0", Some(old));
    published_at(&mut bed, "1.1.0", Some(old));
    published_at(&mut bed, "1.2.0", Some("Fri, 31 Dec 9999 00:00:00 GMT"));
    published_at(&mut bed, "1.3.0", None);
    let registry = Hostile::start();
    let address = bed.address("one");
    let words = |age: &str| {
        let words = [&*address, "--newest", "1", "--platform", "linux_amd64", "--min-age", age];
        into(&registry, &words)
    };
    let output = bed.mirror(&words("7d"));
    let said = String::from_utf8(output.stderr).unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && lines.contains(":1.1.0@"), "{lines}{said}");
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(said.contains("1.2.0 is left out: it is out since 9999-12-31T00:00:00Z"), "{said}");
    assert!(said.contains("1.3.0 is left out: it is out since 20"), "{said}");
    // The day on which a version was seen first is remembered, and no sums are asked for again.
    let asked = bed.origin.server.requests().len();
    assert!(bed.lines(&words("7d"))[0].contains(":1.1.0@"));
    assert_eq!(bed.origin.server.requests().len(), asked + 2, "discovery and a list");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(bed.lines(&words("1s"))[0].contains(":1.3.0@"));
}

#[test]
fn what_could_go_is_listed_and_stays() {
    let Some(mut bed) = Bed::new() else { return };
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.10.0"] {
        bed.origin.publish("one", version);
    }
    let registry = Hostile::start();
    let address = bed.address("one");
    let run = |words: &[&str]| {
        let words = [&[&*address, "--platform", "linux_amd64"][..], words].concat();
        bed.lines(&into(&registry, &words))
    };
    run(&["~> 1.0"]);
    let could_go = |lines: Vec<String>| -> Vec<String> {
        let lines =
            lines.into_iter().filter_map(|line| Some(line.strip_suffix(" could go")?.to_owned()));
        lines.map(|line| line.rsplit_once(':').unwrap().1.to_owned()).collect()
    };
    assert_eq!(could_go(run(&["--newest", "1", "--keep", "2"])), ["1.0.0", "1.1.0"]);
    assert_eq!(could_go(run(&["1.0.0", "--keep", "2"])), ["1.1.0"], "what is selected stays");
    assert!(could_go(run(&["~> 1.0", "--keep", "0"])).is_empty());
    let json = run(&["--newest", "1", "--keep", "3", "--json"]);
    let json: Value = serde_json::from_str(json.last().unwrap()).unwrap();
    assert_eq!(json["could_go"], format!("{}/mirror/acme/one:1.0.0", registry.host()));
    assert!(registry.manifest("mirror/acme/one", "1.0.0").is_some());
}

#[test]
fn a_root_module_says_what_is_mirrored() {
    let Some(mut bed) = Bed::new() else { return };
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        bed.origin.publish("one", version);
    }
    bed.origin.publish("two", "3.0.0");
    let root = bed.path("root");
    fs::create_dir_all(root.join("below")).unwrap();
    let required = |kind: &str, version: &str| {
        format!(
            "terraform {{\n  required_providers {{\n    {kind} = {{ source = \"{}\", version =              \"{version}\" }}\n  }}\n}}\n",
            bed.address(kind)
        )
    };
    let main = required("one", "~> 1.0") + "module \"below\" { source = \"./below\" }\n";
    fs::write(root.join("main.tf"), main).unwrap();
    fs::write(root.join("below/main.tf"), required("two", ">= 2.0")).unwrap();
    let registry = Hostile::start();
    let words = into(&registry, &["--root", "root", "--platform", "linux_amd64"]);
    let tags = |lines: Vec<String>| -> Vec<String> {
        lines
            .iter()
            .map(|line| line.split('@').next().unwrap().rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(tags(bed.lines(&words)), ["one:1.1.0", "two:3.0.0"]);
    // What is locked there counts.
    let lock = format!(
        "provider \"{}\" {{\n  version = \"1.0.0\"\n  hashes = []\n}}\n",
        bed.address("one")
    );
    fs::write(root.join(".terraform.lock.hcl"), lock).unwrap();
    assert_eq!(tags(bed.lines(&words)), ["one:1.0.0", "two:3.0.0"]);
}

/// B1: one that is sick fails alone.
#[test]
fn in_a_list_of_many_one_that_fails_keeps_no_other_back() {
    let Some(mut bed) = Bed::new() else { return };
    for kind in ["one", "sick", "two"] {
        bed.origin.publish(kind, "1.0.0");
    }
    let sick = "/v1/providers/acme/sick/versions";
    bed.origin.server.rule(path(sick), Behaviour::Answer(Reply::new(404, "text/plain", "")));
    let registry = Hostile::start();
    let mut list = "# what we use\n\n".to_owned();
    for kind in ["one", "sick", "two"] {
        list += &format!("{}  ~> 1.0\n", bed.address(kind));
    }
    fs::write(bed.path("list"), list).unwrap();
    let output = bed.mirror(&into(&registry, &["--list", "list"]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("acme/sick: ") && said.contains("has no such provider"), "{said}");
    assert!(said.contains("1 provider or release failed"), "{said}");
    fs::write(bed.path("list"), "acme/one\n").unwrap();
    let said = bed.refused(&into(&registry, &["--list", "list"]));
    assert!(said.contains("line 1: a constraint is missing"), "{said}");
}

#[test]
fn a_list_of_a_thousand_providers_is_checked_with_three_requests_each() {
    let Some(bed) = Bed::new() else { return };
    let versions = serde_json::json!({ "versions": [
        { "version": "1.0.0", "platforms": [{ "os": "linux", "arch": "amd64" }] }
    ] });
    let reply = crate::support::origin::json_reply(&versions);
    bed.origin.server.rule(|seen| seen.path.ends_with("/versions"), Behaviour::Answer(reply));
    let list: String =
        (0..1000).map(|n| format!("{} 1.0.0\n", bed.address(&format!("p{n}")))).collect();
    fs::write(bed.path("list"), list).unwrap();
    let registry = Hostile::start();
    let output = bed.mirror(&into(&registry, &["--list", "list", "--check"]));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1000);
    assert_eq!(bed.origin.server.requests().len(), 1001, "discovery is asked for once");
    assert_eq!(registry.requests().len(), 1000);
}

#[test]
fn ten_thousand_versions_are_a_list_like_any_other() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    let platforms: Vec<Value> =
        (0..14).map(|n| serde_json::json!({ "os": "linux", "arch": format!("a{n}") })).collect();
    let many: Vec<Value> = (0..10_000)
        .map(|n| serde_json::json!({ "version": format!("0.{n}.0"), "platforms": platforms }))
        .chain([serde_json::json!({ "version": "not one" })])
        .chain([serde_json::json!({ "version": "1.0.0", "platforms": [
            { "os": "linux", "arch": "amd64" }, { "os": "../..", "arch": "/" }
        ] })])
        .collect();
    let list = crate::support::origin::json_reply(&serde_json::json!({ "versions": many }));
    bed.origin.answer("/v1/providers/acme/one/versions", list);
    let registry = Hostile::start();
    let lines = bed.lines(&into(&registry, &[&bed.address("one"), "--newest", "1"]));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(":1.0.0@"), "{lines:?}");
}

#[test]
fn what_is_there_is_compared_with_what_the_vendor_signed() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    let registry = Hostile::start();
    let words = into(&registry, &[&bed.address("one"), "1.0.0", "--verify"]);
    let first = bed.lines(&words);
    assert_eq!(bed.lines(&words), first);
    // The vendor's release becomes another one.
    let mut replaced = release;
    let zip = replaced.zips.get_mut("linux_amd64").unwrap();
    let old = Digest::of(zip).hex();
    *zip = crate::support::pack::provider_zip("one", "1.0.0", b"replaced");
    replaced.sums = replaced.sums.replace(&old, &Digest::of(zip).hex());
    replaced.signature = bed.origin.gpg.sign(&bed.origin.key, replaced.sums.as_bytes(), &[]);
    let key = bed.origin.gpg.export(&bed.origin.key);
    bed.origin.serve(&replaced, &[key]);
    let said = bed.refused(&words);
    assert!(
        said.contains("the zip for linux_amd64 is sha256:") && said.contains("1 package is not"),
        "{said}"
    );
    // And is not mixed with the one that is there.
    let registry = Hostile::start();
    bed.lines(&into(&registry, &[&bed.address("one"), "1.0.0", "--platform", "linux_amd64"]));
    let mut third = replaced;
    third.sums += &format!("{}  other\n", "0".repeat(64));
    third.signature = bed.origin.gpg.sign(&bed.origin.key, third.sums.as_bytes(), &[]);
    let key = bed.origin.gpg.export(&bed.origin.key);
    bed.origin.serve(&third, &[key]);
    let said = bed.refused(&into(&registry, &[&bed.address("one"), "1.0.0"]));
    assert!(said.contains("has another SHA256SUMS for it (sha256:"), "{said}");
}
