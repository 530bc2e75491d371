//! `user.tofufs.error` stands where opening fails, and nowhere else.

use std::fs;

use rustix::io::Errno;

use crate::support::hostile::{Behaviour, Hostile, Reply, path};
use crate::support::mount::{Mount, Options};
use crate::support::pack;
use crate::{errno, main_tf, module, refresh};

const ERROR: &str = "user.tofufs.error";

pub fn refuse(server: &Hostile, at: &str, status: u16) {
    server.rule(path(at), Behaviour::Answer(Reply::error(status, "DENIED")));
}

#[test]
fn a_name_that_is_found_is_no_proof_that_its_directory_opens() {
    let server = Hostile::start();
    let host = server.host();
    server.publish("acme/locked", "1.0.0", &module("locked"));
    refuse(&server, "/v2/_catalog", 404);
    refuse(&server, "/v2/acme/locked/tags/list", 403);
    let Some(mount) = Mount::start(&[&host], Options::new().args(["--plain-http", &host])) else {
        return;
    };
    let locked = format!("{host}/acme/locked");
    assert_eq!(mount.xattr(&locked, ERROR), None);
    for _ in 0..2 {
        assert_eq!(errno(fs::read_dir(mount.join(&locked))), Some(Errno::ACCESS));
        let told = mount.xattr(&locked, ERROR).expect("a reason");
        assert!(told.starts_with(&locked) && told.contains("403"), "{told}");
        // A passage, without a request.
        assert!(mount.join(&locked).join("nested").is_dir(), "{}", mount.log());
        assert_eq!(mount.xattr(&locked, ERROR), Some(told), "it still cannot be opened");
    }
    server.behave();
    refresh(&mount, &locked);
    assert_eq!(fs::read_dir(mount.join(&locked)).expect("it opens").count(), 1);
    assert_eq!(mount.xattr(&locked, ERROR), None);
}

#[test]
fn a_release_that_was_repaired_has_no_reason() {
    let server = Hostile::start();
    let host = server.host();
    let artifact = module("whole");
    server.publish("acme/net", "1.0.0", &artifact);
    let blob = tofufs::digest::Digest::of(artifact.blobs.last().expect("a package"));
    refuse(&server, &format!("/v2/acme/net/blobs/{blob}"), 404);
    let Some(mount) = Mount::start(&[&host], Options::new().args(["--plain-http", &host])) else {
        return;
    };
    let release = format!("{host}/acme/net/1.0.0");
    assert_eq!(errno(fs::read_dir(mount.join(&release))), Some(Errno::IO));
    assert!(mount.xattr(&release, ERROR).is_some_and(|told| told.contains(&blob.to_string())));
    server.behave();
    refresh(&mount, &release);
    assert_eq!(main_tf(&mount, &release), "whole");
    assert_eq!(mount.xattr(&release, ERROR), None);
}

/// What a refused artifact is can be read, so that its publisher sees what went wrong.
#[test]
fn an_artifact_of_another_type_tells_its_type() {
    let server = Hostile::start();
    let host = server.host();
    let mut artifact = pack::module(&[("main.tf", b"#")]);
    let document = &mut artifact.manifests[0];
    let text = String::from_utf8(document.bytes.clone()).expect("JSON");
    document.bytes =
        text.replace(tofufs::artifact::MODULE, "application/vnd.example.chart").into_bytes();
    server.publish("acme/chart", "1.0.0", &artifact);
    let Some(mount) = Mount::start(&[&host], Options::new().args(["--plain-http", &host])) else {
        return;
    };
    let release = format!("{host}/acme/chart/1.0.0");
    assert_eq!(errno(fs::read_dir(mount.join(&release))), Some(Errno::BADMSG));
    assert!(mount.join(&release).is_dir(), "it can be stat'ed");
    let of = |name: &str| mount.xattr(&release, name).unwrap_or_default();
    assert_eq!(of("user.oci.artifact_type"), "application/vnd.example.chart");
    assert_eq!(of("user.oci.media_type"), tofufs::oci::IMAGE);
    assert_eq!(of("user.oci.digest"), artifact.digest().to_string());
    assert!(of(ERROR).contains("application/vnd.example.chart"), "{}", of(ERROR));
}
