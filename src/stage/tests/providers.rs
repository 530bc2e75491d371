//! Provider releases: what makes one, and how one that exists is extended.

use super::*;
use crate::artifact::{
    H1_ANNOTATION, PACKAGE_DIGEST_ANNOTATION, PACKAGE_SIZE_ANNOTATION, Release, target_package,
};
use crate::digest::Digest;
use crate::failure::Failure;
use crate::oci::{Manifest, ManifestBody};

const ROOT: &str = "registry.example/acme/aws/5.1.0";

pub(super) fn package(platform: &str) -> Vec<u8> {
    zip(&[("README.md", b"a provider"), ("terraform-provider-aws_v5.1.0", platform.as_bytes())])
}

fn name(platform: &str) -> String {
    format!("terraform-provider-aws_5.1.0_{platform}.zip")
}

pub(super) fn stage(bed: &Bed, platforms: &[&str]) {
    for platform in platforms {
        bed.write(&format!("{ROOT}/{}", name(platform)), package(platform));
    }
}

fn sums(platforms: &[&str]) -> String {
    platforms.iter().map(|p| format!("{}  {}\n", Digest::of(&package(p)).hex(), name(p))).collect()
}

fn index(bed: &Bed) -> Manifest {
    bed.registry.document("acme/aws", bed.registry.tag("acme/aws", "5.1.0").unwrap())
}

fn platforms(manifest: &Manifest) -> Vec<String> {
    let Release::Provider(targets) = Release::read(manifest).unwrap() else { panic!("a provider") };
    targets.iter().map(|target| target.platform.to_string()).collect()
}

async fn refusal(bed: &Bed, failure: Failure, part: &str) {
    let error = bed.refused(ROOT).await;
    assert_eq!(error.failure, failure, "{error}");
    assert!(error.to_string().contains(part), "{error}");
    assert!(!bed.registry.log().iter().any(|call| call != "present"), "{error}");
}

#[tokio::test]
async fn zips_become_a_release_byte_for_byte() {
    let bed = Bed::new();
    stage(&bed, &["linux_amd64", "darwin_arm64"]);
    bed.write(
        &format!("{ROOT}/terraform-provider-aws_5.1.0_SHA256SUMS"),
        sums(&["linux_amd64", "darwin_arm64"]),
    );
    bed.write(&format!("{ROOT}/terraform-provider-aws_5.1.0_SHA256SUMS.sig"), "signed");
    let done = bed.committed(ROOT).await;
    assert_eq!(done.reference.to_string(), "registry.example/acme/aws:5.1.0");
    let index = index(&bed);
    assert_eq!(platforms(&index), ["darwin_arm64", "linux_amd64"]);
    let Release::Provider(targets) = Release::read(&index).unwrap() else { panic!("a provider") };
    for target in targets {
        let manifest = bed.registry.document("acme/aws", target.digest());
        let layer = target_package(&manifest, &target.platform).unwrap();
        let zip = package(&target.platform.to_string());
        assert_eq!(bed.registry.stored("acme/aws", layer.digest), zip);
        // What listing and locking need stands in the index.
        let told = &target.manifest().unwrap().annotations;
        assert_eq!(told[PACKAGE_DIGEST_ANNOTATION], layer.digest.to_string());
        assert_eq!(told[PACKAGE_SIZE_ANNOTATION], zip.len().to_string());
        let members = crate::archive::index(&zip, &crate::archive::Limits::default()).unwrap();
        let hashes =
            crate::archive::hashes(&zip, &members, &crate::archive::Limits::default()).unwrap();
        assert_eq!(told[H1_ANNOTATION], hashes.directory.to_string());
        let ManifestBody::Image(layers) = &manifest.body else { panic!("an image manifest") };
        let kept: Vec<_> = layers
            .iter()
            .map(|l| l.annotations["org.opencontainers.image.title"].clone())
            .collect();
        assert_eq!(
            kept[1..],
            [
                "terraform-provider-aws_5.1.0_SHA256SUMS",
                "terraform-provider-aws_5.1.0_SHA256SUMS.sig"
            ]
        );
    }
}

#[tokio::test]
async fn a_sum_that_does_not_hold_is_told_with_both_sums() {
    let bed = Bed::new();
    stage(&bed, &["linux_amd64"]);
    let wrong = sums(&["darwin_arm64"]).replace("darwin_arm64", "linux_amd64");
    bed.write(&format!("{ROOT}/terraform-provider-aws_5.1.0_SHA256SUMS"), &wrong);
    refusal(&bed, Failure::Integrity, &Digest::of(&package("linux_amd64")).hex()).await;
    refusal(&bed, Failure::Integrity, &wrong[..64]).await;
    bed.write(&format!("{ROOT}/terraform-provider-aws_5.1.0_SHA256SUMS"), "not a sum\n");
    refusal(&bed, Failure::Invalid, "not a SHA-256 sum").await;
}

#[tokio::test]
async fn what_does_not_go_together_is_refused() {
    type Files = &'static [(&'static str, &'static [u8])];
    let cases: [(Files, &str); 6] = [
        (&[("main.tf", b"x")], "one or the other"),
        (&[("terraform-provider-aws_5.2.0_darwin_arm64.zip", b"")], "is of version 5.2.0"),
        (&[("terraform-provider-gcp_5.1.0_darwin_arm64.zip", b"")], "of another provider"),
        (&[("terraform-provider-aws_5.1_darwin_arm64.zip", b"")], "is not a provider's zip"),
        (&[("linux_amd64/terraform-provider-aws", b"x")], "for the same platform"),
        (&[("terraform-provider-aws_5.1.0_windows_386.zip", b"no zip")], "no zip archive"),
    ];
    for (files, part) in cases {
        let bed = Bed::new();
        stage(&bed, &["linux_amd64"]);
        for (file, content) in files {
            bed.write(&format!("{ROOT}/{file}"), content);
        }
        let error = bed.refused(ROOT).await;
        assert!(error.to_string().contains(part), "{error}");
    }
    let bed = Bed::new();
    bed.write(
        "registry.example/acme/aws/latest/terraform-provider-aws_5.1.0_linux_amd64.zip",
        package("x"),
    );
    let error = bed.refused("registry.example").await;
    assert!(error.to_string().contains("latest is no version"), "{error}");
}

#[tokio::test]
async fn a_platform_is_added_and_what_is_there_stays() {
    let both = Bed::new();
    stage(&both, &["linux_amd64", "darwin_arm64"]);
    let together = both.committed(ROOT).await.digest;

    let bed = Bed::new();
    stage(&bed, &["linux_amd64"]);
    let first = bed.committed(ROOT).await.digest;
    stage(&bed, &["darwin_arm64"]);
    let second = bed.committed(ROOT).await.digest;
    assert_eq!((second, second != first), (together, true));
    assert_eq!(platforms(&index(&bed)), ["darwin_arm64", "linux_amd64"]);
    // What is there already changes nothing.
    stage(&bed, &["linux_amd64"]);
    bed.registry.log();
    assert_eq!(bed.committed(ROOT).await.digest, together);
    assert_eq!(bed.registry.log(), ["present", "read"]);
}

#[tokio::test]
async fn a_platform_with_another_package_is_kept_unless_told_otherwise() {
    let bed = Bed::new();
    stage(&bed, &["linux_amd64"]);
    bed.committed(ROOT).await;
    bed.write(&format!("{ROOT}/{}", name("linux_amd64")), package("other"));
    let error = bed.refused(ROOT).await;
    assert_eq!(error.failure, Failure::Exists);
    assert!(
        error.to_string().contains("linux_amd64")
            && error.to_string().matches("sha256:").count() == 2,
        "{error}"
    );
    let request = CommitRequest { allow_overwrite: true, ..CommitRequest::default() };
    bed.stage.commit(&staged(ROOT), request).await.unwrap();
    assert_eq!(platforms(&index(&bed)), ["linux_amd64"]);
}

/// A release that other tools made counts by its packages: its manifests are theirs.
#[tokio::test]
async fn a_package_that_is_there_in_another_manifest_is_kept() {
    use crate::oci::write;

    let bed = Bed::new();
    stage(&bed, &["linux_amd64"]);
    let plan = {
        let dir = bed.stage.staging.open(&staged(ROOT)).unwrap();
        let repo = Repo { host: HOST.parse().unwrap(), name: "acme/aws".parse().unwrap() };
        let destined =
            Destined { repo, tags: vec!["5.1.0".parse().unwrap()], annotations: BTreeMap::new() };
        directory::plan(dir, "x", destined, &bed.stage.workshop).unwrap()
    };
    let plan::PlannedArtifact::Provider { targets, .. } = &plan.artifact else {
        panic!("a provider")
    };
    let ManifestBody::Image(layers) = &targets[0].manifest.body else { panic!("an image") };
    let annotations = BTreeMap::from([("made".to_owned(), "elsewhere".to_owned())]);
    let theirs = write::image(crate::artifact::PROVIDER_TARGET, layers, &annotations).unwrap();
    let mut entry = theirs.descriptor();
    entry.platform = targets[0].entry.platform.clone();
    let release = write::index(crate::artifact::PROVIDER, &[entry], &BTreeMap::new()).unwrap();
    bed.registry.set("acme/aws", "child", &theirs);
    bed.registry.set("acme/aws", "5.1.0", &release);
    assert_eq!(bed.committed(ROOT).await.digest, release.digest);
    assert!(bed.registry.log().iter().all(|call| call == "present" || call == "read"));
}

#[tokio::test]
async fn directories_of_platforms_are_packed_for_a_new_version_only() {
    let bed = Bed::new();
    let program = |platform: &str| format!("{ROOT}/{platform}/terraform-provider-aws_v5.1.0");
    bed.write(&program("linux_amd64"), "program");
    let first = bed.committed(ROOT).await;
    assert_eq!(platforms(&index(&bed)), ["linux_amd64"]);
    bed.write(&program("linux_amd64"), "program");
    assert_eq!(bed.committed(ROOT).await.digest, first.digest);
    bed.write(&program("darwin_arm64"), "program");
    let error = bed.refused(ROOT).await;
    assert_eq!(error.failure, Failure::Exists);
    assert!(error.to_string().contains("does not exist yet"), "{error}");
}

/// Such a zip has two `h1:` hashes: one as an archive, another unpacked.
#[tokio::test]
async fn a_zip_with_entries_for_directories_has_no_h1() {
    let bed = Bed::new();
    let package = zip(&[("docs/", b""), ("docs/x", b"x"), ("terraform-provider-aws_v5.1.0", b"x")]);
    bed.write(&format!("{ROOT}/{}", name("linux_amd64")), package);
    bed.committed(ROOT).await;
    let ManifestBody::Index(entries) = index(&bed).body else { panic!("an index") };
    assert!(!entries[0].annotations.contains_key(H1_ANNOTATION));
}

#[tokio::test]
async fn annotations_are_kept_and_not_contradicted() {
    let bed = Bed::new();
    let request = |value: &str| CommitRequest {
        annotations: BTreeMap::from([("k".to_owned(), value.to_owned())]),
        ..CommitRequest::default()
    };
    stage(&bed, &["linux_amd64"]);
    bed.stage.commit(&staged(ROOT), request("1")).await.unwrap();
    stage(&bed, &["darwin_arm64"]);
    let error = bed.stage.commit(&staged(ROOT), request("2")).await.unwrap_err();
    assert_eq!(error.failure, Failure::Exists);
    bed.committed(ROOT).await;
    assert_eq!(index(&bed).annotations["k"], "1");
}

#[tokio::test]
async fn a_mirror_becomes_releases_of_the_mapped_repository() {
    let bed = Bed::new();
    let at = "mirror/registry.opentofu.org/hashicorp/aws";
    for (version, platform) in
        [("5.1.0", "linux_amd64"), ("5.1.0", "darwin_arm64"), ("6.0.0+b1", "linux_amd64")]
    {
        bed.write(
            &format!("{at}/terraform-provider-aws_{version}_{platform}.zip"),
            package(platform),
        );
    }
    bed.write(&format!("{at}/index.json"), "{}");
    bed.write(&format!("{at}/5.1.0.json"), "wrong");
    let done = bed.commit("mirror").await.unwrap();
    let references: Vec<_> = done.iter().map(|c| c.reference.to_string()).collect();
    assert_eq!(
        references,
        ["registry.example/mirror/aws:5.1.0", "registry.example/mirror/aws:6.0.0_b1"]
    );
    assert!(bed.staged_bytes().is_empty());
    assert_eq!(bed.commit(at).await.unwrap().len(), 2);

    bed.write(&format!("{at}/stranger"), "x");
    assert!(bed.refused(at).await.to_string().contains("stranger"));
    bed.write(
        "mirror/registry.opentofu.org/other/aws/terraform-provider-aws_1.0.0_linux_amd64.zip",
        package("x"),
    );
    let error = bed.refused("mirror/registry.opentofu.org/other").await;
    assert_eq!(error.failure, Failure::ReadOnly);
    assert!(error.to_string().contains("no repository is mapped"), "{error}");
}

#[tokio::test]
async fn a_zip_that_is_closed_is_sent_ahead_of_its_commit() {
    let bed = Bed::new();
    stage(&bed, &["linux_amd64"]);
    let zip = format!("{ROOT}/{}", name("linux_amd64"));
    bed.stage.closed(&staged(&zip)).await;
    assert_eq!(bed.registry.log(), ["blob sent"]);
    bed.stage.closed(&staged(&zip)).await;
    assert_eq!(bed.registry.log(), ["blob there"]);
    let at = "mirror/registry.opentofu.org/hashicorp/aws";
    for (path, content) in [
        (format!("{ROOT}/{}", name("darwin_arm64")), b"not whole".to_vec()),
        (format!("{ROOT}/README.md"), b"x".to_vec()),
        (format!("registry.example/acme/aws/5.2.0/{}", name("linux_amd64")), package("x")),
        (format!("other.example/acme/aws/5.1.0/{}", name("linux_amd64")), package("x")),
        (format!("{at}/.{}", name("linux_amd64")), package("x")),
    ] {
        bed.write(&path, content);
        bed.stage.closed(&staged(&path)).await;
        assert!(bed.registry.log().is_empty(), "{path}");
    }
    fs::remove_file(bed.path(&format!("{ROOT}/README.md"))).unwrap();
    fs::remove_file(bed.path(&format!("{ROOT}/{}", name("darwin_arm64")))).unwrap();
    // What is left to send is the empty config.
    assert_eq!(bed.committed(ROOT).await.uploaded_bytes, 2);
    let path = format!("{at}/{}", name("linux_amd64"));
    bed.write(&path, package("x"));
    bed.registry.log();
    bed.stage.closed(&staged(&path)).await;
    assert_eq!(bed.registry.log(), ["blob sent"]);
}
