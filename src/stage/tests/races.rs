//! Other writers (O35): the tag is looked at before it is put and afterwards, and what others put
//! is kept.

use super::providers::stage as stage_zips;
use super::*;
use crate::artifact::{PROVIDER, PROVIDER_TARGET, Release};
use crate::failure::Failure;
use crate::oci::{Manifest, PlatformObject, write};

const MODULE: &str = "registry.example/acme/network/1";
const PROVIDER_ROOT: &str = "registry.example/acme/aws/5.1.0";

/// A release of one platform, by another writer.
fn other(platform: &str) -> (Manifest, Manifest) {
    let child = write::image(
        PROVIDER_TARGET,
        &[],
        &BTreeMap::from([("for".to_owned(), platform.to_owned())]),
    )
    .unwrap();
    let mut entry = child.descriptor();
    let (os, architecture) = platform.split_once('_').unwrap();
    entry.platform = Some(PlatformObject {
        os: os.into(),
        architecture: architecture.into(),
        os_version: String::new(),
    });
    (child, write::index(PROVIDER, &[entry], &BTreeMap::new()).unwrap())
}

fn platforms(bed: &Bed) -> Vec<String> {
    let index = bed.registry.document("acme/aws", bed.registry.tag("acme/aws", "5.1.0").unwrap());
    let Release::Provider(targets) = Release::read(&index).unwrap() else { panic!("a provider") };
    targets.iter().map(|target| target.platform.to_string()).collect()
}

#[tokio::test]
async fn of_two_modules_one_wins_and_the_other_is_told_both_digests() {
    // The other writer comes while the blobs go up, or right after the tag was put.
    for at in ["blob", "present after tag"] {
        let bed = Bed::new();
        bed.module("acme/network/1");
        let theirs = write::image(crate::artifact::MODULE, &[], &BTreeMap::new()).unwrap();
        let (put, mut tagged) = (theirs.clone(), false);
        bed.registry.before(move |registry, call| {
            if call == at || tagged && call == "present" {
                registry.set("acme/network", "1", &put);
            }
            tagged |= call == "tag";
            Ok(())
        });
        let error = bed.refused(MODULE).await;
        assert_eq!(error.failure, Failure::Exists, "{error}");
        assert!(error.to_string().contains(&theirs.digest.to_string()), "{error}");
        assert_eq!(error.to_string().matches("sha256:").count(), 2, "{error}");
        assert_eq!(bed.registry.tag("acme/network", "1"), Some(theirs.digest));
    }
}

#[tokio::test]
async fn a_platform_that_another_writer_adds_meanwhile_is_kept() {
    for after_tag in [false, true] {
        let bed = Bed::new();
        stage_zips(&bed, &["linux_amd64"]);
        let (child, index) = other("darwin_arm64");
        let (mut tagged, mut done) = (false, false);
        bed.registry.before(move |registry, call| {
            let now = if after_tag { tagged && call == "present" } else { call == "manifest" };
            if now && !done {
                done = true;
                registry.set("acme/aws", "child", &child);
                registry.set("acme/aws", "5.1.0", &index);
            }
            tagged |= call == "tag";
            Ok(())
        });
        bed.committed(PROVIDER_ROOT).await;
        assert_eq!(platforms(&bed), ["darwin_arm64", "linux_amd64"], "after the tag: {after_tag}");
    }
}

#[tokio::test]
async fn a_release_that_never_rests_ends_in_an_error() {
    let bed = Bed::new();
    stage_zips(&bed, &["linux_amd64"]);
    let mut count = 0;
    bed.registry.before(move |registry, call| {
        if call == "present" {
            count += 1;
            let (child, index) = other(&format!("darwin_a{count}"));
            registry.set("acme/aws", "child", &child);
            registry.set("acme/aws", "5.1.0", &index);
        }
        Ok(())
    });
    let error = bed.refused(PROVIDER_ROOT).await;
    assert_eq!(error.failure, Failure::Exists);
    assert_eq!(error.to_string().matches("sha256:").count(), 2, "{error}");
}

#[tokio::test]
async fn something_else_under_the_tag_is_no_release_to_extend() {
    let bed = Bed::new();
    stage_zips(&bed, &["linux_amd64"]);
    let module = write::image(crate::artifact::MODULE, &[], &BTreeMap::new()).unwrap();
    bed.registry.set("acme/aws", "5.1.0", &module);
    let error = bed.refused(PROVIDER_ROOT).await;
    assert_eq!(error.failure, Failure::Exists);
    let request = CommitRequest { allow_overwrite: true, ..CommitRequest::default() };
    bed.stage.commit(&staged(PROVIDER_ROOT), request).await.unwrap();
    assert_eq!(platforms(&bed), ["linux_amd64"]);
}
