//! What becomes of a release when the registry changes it, takes it away, or is away itself.

use std::fs;

use crate::support::hostile::{Behaviour, Reply, path};
use crate::support::mount::{Mount, finish};
use crate::support::origin::{Published, json_reply};
use crate::{Bed, names, program_of};

fn refresh(mount: &Mount, words: &[&str], path: &str) {
    let mut command = mount.command("refresh");
    command.args(words).arg(mount.join(path));
    let output = finish(command);
    assert!(output.status.success(), "{output:?}");
}

/// The same version with other zips, properly signed.
fn replaced(bed: &mut Bed, kind: &str, version: &str) -> Published {
    let mut release = bed.origin.unsigned(kind, version);
    for (platform, zip) in &mut release.zips {
        let content = format!("another {platform}");
        *zip = crate::support::pack::provider_zip(kind, version, content.as_bytes());
    }
    release.sums.clear();
    for (platform, zip) in &release.zips {
        let sum = tofufs::digest::Digest::of(zip).hex();
        release.sums += &format!("{sum}  {}\n", release.file(&format!("{platform}.zip")));
    }
    release.signature = bed.origin.gpg.sign(&bed.origin.key, release.sums.as_bytes(), &[]);
    bed.origin.serve(&release, &[bed.origin.gpg.export(&bed.origin.key)]);
    release
}

#[test]
fn a_version_with_other_sums_is_refused_until_somebody_accepts_it() {
    let Some(mut bed) = Bed::new() else { return };
    let first = bed.origin.publish("one", "1.0.0");
    let cache = bed.path("cache");
    let Some(mut mount) = bed.mount("", bed.options().cache(&cache)) else { return };
    let release_path = format!("{}/1.0.0", bed.address("one"));
    let at = mount.join(&release_path);
    let before = mount.join(&release_path).join("linux_amd64").join(program_of(&first));
    fs::read(&before).unwrap();

    let second = replaced(&mut bed, "one", "1.0.0");
    refresh(&mount, &[], &release_path);
    let digest =
        |release: &Published| tofufs::digest::Digest::of(release.sums.as_bytes()).to_string();
    let is_refused = |mount: &Mount| {
        let at = mount.join(&release_path);
        let error = fs::read_dir(&at).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
        let said = mount.xattr(&at, "user.tofufs.error").unwrap();
        for wanted in [&digest(&first), &digest(&second), "tofufs refresh --accept"] {
            assert!(said.contains(wanted), "{said}");
        }
    };
    is_refused(&mount);
    refresh(&mount, &[], &release_path);
    is_refused(&mount);
    // Also in a later mount of the same cache.
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    refresh(&mount, &[], &release_path);
    is_refused(&mount);

    refresh(&mount, &["--accept"], &release_path);
    let now = fs::read(at.join("linux_amd64").join(program_of(&second))).unwrap();
    assert_eq!(now, b"another linux_amd64");
    assert_eq!(mount.xattr(&at, "user.oci.digest").unwrap(), digest(&second));
}

#[test]
fn a_version_that_vanished_opens_by_name_and_is_listed_no_more() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    bed.origin.publish("one", "2.0.0");
    let cache = bed.path("cache");
    let Some(mut mount) = bed.mount("", bed.options().cache(&cache)) else { return };
    let one = bed.address("one");
    let file = format!("{one}/1.0.0/linux_amd64/{}", program_of(&release));
    let content = fs::read(mount.join(&file)).unwrap();

    let list = serde_json::json!({ "versions": [
        { "version": "2.0.0", "platforms": [{ "os": "linux", "arch": "amd64" }] },
    ] });
    bed.origin.answer("/v1/providers/acme/one/versions", json_reply(&list));
    bed.origin.answer(&release.download_path("linux_amd64"), Reply::new(404, "text/plain", ""));
    refresh(&mount, &[], &one);
    assert_eq!(names(&mount.join(&one)), ["2.0.0"]);
    assert_eq!(fs::read(mount.join(&file)).unwrap(), content);
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    refresh(&mount, &[], &one);
    assert_eq!(names(&mount.join(&one)), ["2.0.0"]);
    assert_eq!(fs::read(mount.join(&file)).unwrap(), content);
    let plugins = mount.join(format!("plugins/{one}"));
    assert_eq!(names(&plugins), ["2.0.0"]);
    let other = fs::metadata(mount.join(format!("{one}/3.0.0"))).unwrap_err();
    assert_eq!(other.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn what_was_seen_before_opens_while_the_registry_is_away() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    let cache = bed.path("cache");
    let options =
        |bed: &Bed| bed.options().cache(&cache).args(["--deadline", "2s", "--tag-ttl", "0s"]);
    let Some(mut mount) = bed.mount("", options(&bed)) else { return };
    let one = bed.address("one");
    let file = format!("{one}/1.0.0/linux_amd64/{}", program_of(&release));
    let content = fs::read(mount.join(&file)).unwrap();
    bed.origin.server.stop();
    assert_eq!(names(&mount.join(&one)), ["1.0.0"]);
    assert_eq!(fs::read(mount.join(&file)).unwrap(), content);
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    assert_eq!(names(&mount.join(&one)), ["1.0.0"]);
    assert_eq!(fs::read(mount.join(&file)).unwrap(), content);
    let at = mount.join(format!("{one}/1.0.0"));
    assert!(mount.xattr(&at, "user.tofu.signature").unwrap().starts_with("signed, key ID "));
    assert!(mount.umount().status.success());
    let output = mount.again_with(&[bed.source("")], options(&bed).args(["--offline"]));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(mount.join(&file)).unwrap(), content);
    assert_eq!(names(&mount.join(format!("plugins/{one}"))), ["1.0.0"]);
}

#[test]
fn what_the_cache_has_lost_is_fetched_by_its_version_again() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    let cache = bed.path("cache");
    let Some(mut mount) = bed.mount("", bed.options().cache(&cache)) else { return };
    let file = format!("{}/1.0.0/linux_amd64/{}", bed.address("one"), program_of(&release));
    let content = fs::read(mount.join(&file)).unwrap();
    assert!(mount.umount().status.success());
    fs::remove_dir_all(cache.join("v1/blobs")).unwrap();
    assert!(mount.again().status.success());
    assert_eq!(fs::read(mount.join(&file)).unwrap(), content);
}

#[test]
fn an_expired_key_is_a_warning_unless_it_is_asked_for() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.key = bed.origin.gpg.expired_key("expired");
    let mut release = bed.origin.unsigned("one", "1.0.0");
    let then = ["--faked-system-time=20200201T000000"];
    release.signature = bed.origin.gpg.sign(&bed.origin.key, release.sums.as_bytes(), &then);
    let keys = [bed.origin.gpg.export(&bed.origin.key)];
    bed.origin.serve(&release, &keys);
    let cache = bed.path("cache");
    let Some(mut mount) = bed.mount("", bed.options().cache(&cache)) else { return };
    let at = mount.join(format!("{}/1.0.0", bed.address("one")));
    assert_eq!(names(&at).len(), 6);
    let said = mount.xattr(&at, "user.tofu.signature").unwrap();
    assert!(said.ends_with("(key expired)"), "{said}");
    assert!(mount.log().contains("(key expired)"), "{}", mount.log());
    assert!(mount.umount().status.success());
    // What was found by an earlier mount is not enough for one that asks for more.
    let strict = bed.options().cache(&cache).env("OPENTOFU_ENFORCE_GPG_EXPIRATION", "true");
    assert!(mount.again_with(&[bed.source("")], strict).status.success());
    let error = fs::read_dir(&at).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
}

#[test]
fn a_size_is_told_where_the_server_takes_no_question_about_it() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    let at = release.zip_path("linux_amd64");
    let of_zip = path(at.clone());
    let is_head = move |seen: &crate::support::hostile::Seen| seen.method == "HEAD" && of_zip(seen);
    let refused = Reply::new(403, "application/xml", "<Error>SignatureDoesNotMatch</Error>");
    bed.origin.server.rule(is_head, Behaviour::Answer(refused));
    let Some(mount) = bed.mount("", bed.options()) else { return };
    let zip = mount.join(format!("{}/1.0.0/linux_amd64.zip", bed.address("one")));
    assert_eq!(fs::metadata(&zip).unwrap().len(), release.zips["linux_amd64"].len() as u64);
    assert_eq!(fs::read(&zip).unwrap(), release.zips["linux_amd64"]);
}
