//! Provider releases by their zips.

use serde_json::Value;

use super::*;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::Mount;
use crate::support::pack::provider_zip;
use tofufs::digest::Digest;

pub(super) fn zip_name(platform: &str) -> String {
    format!("terraform-provider-hello_0.1.0_{platform}.zip")
}

pub(super) fn package(platform: &str) -> Vec<u8> {
    provider_zip("hello", "0.1.0", format!("#!/bin/sh\necho {platform}\n").as_bytes())
}

#[test]
fn zips_become_a_release_and_more_of_them_are_added_to_it() {
    let bed = Bed::new();
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    let host = registry.host();
    let mut sums = String::new();
    for platform in ["linux_amd64", "darwin_arm64"] {
        bed.write(&zip_name(platform), package(platform));
        sums += &format!("{}  {}\n", Digest::of(&package(platform)).hex(), zip_name(platform));
    }
    bed.write("terraform-provider-hello_0.1.0_SHA256SUMS", sums);
    bed.write("terraform-provider-hello_0.1.0_SHA256SUMS.sig", "signed");
    let beside = [
        "terraform-provider-hello_0.1.0_SHA256SUMS",
        "terraform-provider-hello_0.1.0_SHA256SUMS.sig",
    ];
    let repo = format!("{host}/acme/hello");
    let push = |platforms: &[&str]| {
        let zips: Vec<String> = platforms.iter().map(|p| zip_name(p)).collect();
        let mut words = vec!["--plain-http", &host];
        words.extend(zips.iter().map(String::as_str));
        words.extend(beside);
        words.push(&repo);
        // The tag is the version that the names say.
        bed.pushed(&words)
    };
    let first = push(&["linux_amd64"]);
    assert!(first.starts_with(&format!("{repo}:0.1.0@sha256:")), "{first}");
    let second = push(&["darwin_arm64"]);
    assert_ne!(first, second);
    for platforms in [&["linux_amd64"][..], &["darwin_arm64"], &["linux_amd64", "darwin_arm64"]] {
        assert_eq!(push(platforms), second, "{platforms:?} are there");
    }
    let Some(mount) = Mount::start(&[&host], plain(&host)) else { return };
    let release = mount.join(format!("{host}/acme/hello/0.1.0"));
    for platform in ["linux_amd64", "darwin_arm64"] {
        let zip = release.join(format!("{platform}.zip"));
        assert!(fs::read(&zip).unwrap() == package(platform));
        assert_eq!(
            mount.xattr(&zip, "user.tofu.zh").unwrap(),
            format!("zh:{}", Digest::of(&package(platform)).hex())
        );
        assert!(mount.xattr(&zip, "user.tofu.h1").unwrap().starts_with("h1:"));
        let program =
            fs::read(release.join(platform).join("terraform-provider-hello_v0.1.0")).unwrap();
        assert_eq!(program, format!("#!/bin/sh\necho {platform}\n").as_bytes());
    }
}

#[test]
fn a_dry_run_shows_the_plan_and_sends_nothing() {
    let bed = Bed::new();
    bed.write(&zip_name("linux_amd64"), package("linux_amd64"));
    // Nobody listens there.
    let words = ["--dry-run", &zip_name("linux_amd64"), "127.0.0.1:1/acme/hello"];
    let text = bed.pushed(&words);
    assert!(text.starts_with("127.0.0.1:1/acme/hello:0.1.0@sha256:"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("blob ")).count(), 2);
    let shown: Value =
        serde_json::from_str(&bed.pushed(&[&["--json"], &words[..]].concat())).unwrap();
    let manifests = shown["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2);
    assert_eq!(manifests[1]["document"]["manifests"][0]["digest"], manifests[0]["digest"]);
    assert!(
        shown["references"][0]
            .as_str()
            .unwrap()
            .ends_with(manifests[1]["digest"].as_str().unwrap())
    );
    let zip = Digest::of(&package("linux_amd64")).to_string();
    assert!(shown["blobs"].as_array().unwrap().iter().any(|blob| blob["digest"] == zip), "{shown}");
}
