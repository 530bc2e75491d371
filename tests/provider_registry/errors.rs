//! Each way in which a provider registry can be wrong: the errno, the sentence, and that it is one
//! provider's own trouble.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;

use crate::support::hostile::{Behaviour, Reply, path};
use crate::support::mount::Mount;
use crate::support::origin::{Published, json_reply};
use crate::{Bed, names};

/// One way to be wrong, the errno, and words of the sentence.
type Case = (&'static str, fn(&mut Bed, &Published), i32, &'static str);

/// Opens a release as far as it can be opened: its versions, its platforms, a package, a zip.
fn opened(mount: &Mount, at: &Path) -> io::Result<()> {
    let provider = at.parent().expect("a provider");
    for dir in [provider, at, &at.join("linux_amd64")] {
        for entry in fs::read_dir(mount.join(dir))? {
            entry?;
        }
    }
    fs::read(mount.join(at).join("linux_amd64.zip")).map(drop)
}

/// The sentences of the mount that are about a provider.
fn said_of(mount: &Mount, kind: &str) -> String {
    let status = mount.status();
    let errors = status["errors"].as_array().expect("a list").iter();
    let texts = errors.filter_map(|error| error.as_str());
    texts.filter(|text| text.contains(kind)).collect::<Vec<_>>().join("\n")
}

/// Every case is a provider of its own in one mount, beside one that is well.
fn each_fails(cases: &[Case]) {
    let Some(mut bed) = Bed::new() else { return };
    let well = bed.origin.publish("well", "1.0.0");
    let options = bed.options().args(["--deadline", "3s"]);
    let Some(mount) = bed.mount("", options) else { return };
    for (at, (what, make, errno, wanted)) in cases.iter().enumerate() {
        let kind = format!("case{at}");
        let release = bed.origin.publish(&kind, "1.0.0");
        make(&mut bed, &release);
        let release_at = Path::new(&bed.address(&kind)).join("1.0.0");
        let error = opened(&mount, &release_at).expect_err(what);
        let said = said_of(&mount, &kind);
        assert_eq!(error.raw_os_error(), Some(*errno), "{what}: {error}: {said}");
        assert!(said.contains(wanted), "{what}: {said}");
        // A walk shows what is well, whatever this one is.
        names(&mount.join(format!("plugins/{}", bed.origin.host)));
        opened(&mount, &Path::new(&bed.address("well")).join("1.0.0")).unwrap();
    }
    drop(well);
}

fn answer(bed: &Bed, at: &str, reply: Reply) {
    bed.origin.server.rule(path(at), Behaviour::Answer(reply));
}

fn text(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply::new(status, "text/plain", body.into())
}

fn versions(release: &Published) -> String {
    format!("/v1/providers/acme/{}/versions", release.kind)
}

/// Serves the release with other sums, signed as they are.
fn other_sums(bed: &mut Bed, release: &Published, sums: String) {
    let signature = bed.origin.gpg.sign(&bed.origin.key, sums.as_bytes(), &[]);
    answer(bed, &release.sums_path(), text(200, sums));
    answer(bed, &release.signature_path(), text(200, signature));
}

/// Serves it with another download document.
fn other_document(bed: &Bed, release: &Published, key: &str, value: serde_json::Value) {
    let keys = [bed.origin.gpg.export(&bed.origin.key)];
    let mut document = bed.origin.download(release, "linux_amd64", &keys);
    document[key] = value;
    answer(bed, &release.download_path("linux_amd64"), json_reply(&document));
}

#[test]
fn a_registry_that_denies_or_is_in_trouble() {
    each_fails(&[
        (
            "401 for the list",
            |bed, release| answer(bed, &versions(release), text(401, "no")),
            libc::EACCES,
            "the list of versions was asked for",
        ),
        (
            "403 for the document",
            |bed, release| answer(bed, &release.download_path("linux_amd64"), text(403, "no")),
            libc::EACCES,
            "if it wants a token",
        ),
        (
            "429 for longer than the deadline",
            |bed, release| {
                answer(bed, &versions(release), text(429, "").with("Retry-After", "3600"));
            },
            libc::ETIMEDOUT,
            "3600",
        ),
        (
            "503",
            |bed, release| answer(bed, &versions(release), text(503, "busy")),
            libc::ETIMEDOUT,
            "503",
        ),
        (
            "silence",
            |bed, release| bed.origin.server.rule(path(release.sums_path()), Behaviour::Silence),
            libc::ETIMEDOUT,
            "case4",
        ),
    ]);
}

#[test]
fn a_zip_that_is_not_what_was_signed() {
    each_fails(&[
        (
            "changed",
            |bed, release| {
                let mut zip = release.zips["linux_amd64"].clone();
                zip[40] ^= 1;
                answer(bed, &release.zip_path("linux_amd64"), text(200, zip));
            },
            libc::EIO,
            "sha256:",
        ),
        (
            "shorter",
            |bed, release| {
                let zip = release.zips["linux_amd64"][..50].to_vec();
                answer(bed, &release.zip_path("linux_amd64"), text(200, zip));
            },
            libc::EIO,
            "sha256:",
        ),
        (
            "of another length than was told",
            |bed, release| {
                let zip = release.zips["linux_amd64"].clone();
                let longer = Behaviour::edit(move |seen, honest| match seen.method.as_str() {
                    "HEAD" => honest,
                    _ => Reply::new(200, "application/zip", [&zip[..], b"more"].concat()),
                });
                bed.origin.server.rule(path(release.zip_path("linux_amd64")), longer);
                let told = Reply::new(200, "application/zip", release.zips["linux_amd64"].clone());
                let at = release.zip_path("linux_amd64");
                let head = move |seen: &crate::support::hostile::Seen| {
                    seen.method == "HEAD" && seen.path == at
                };
                bed.origin.server.rule(head, Behaviour::Answer(told));
            },
            libc::EIO,
            "that it was said to have",
        ),
        (
            "cut each time",
            |bed, release| {
                let zip = &release.zips["linux_amd64"];
                let head = format!(
                    "HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {}\r\n\r\n",
                    zip.len()
                );
                let cut = Behaviour::Raw([head.as_bytes(), &zip[..50]].concat());
                bed.origin.server.rule(path(release.zip_path("linux_amd64")), cut);
            },
            libc::EIO,
            "breaks off after 50 bytes",
        ),
        (
            "absent",
            |bed, release| answer(bed, &release.zip_path("linux_amd64"), text(404, "")),
            libc::EIO,
            "is not where the registry says",
        ),
        (
            "no document for a platform that is listed",
            |bed, release| answer(bed, &release.download_path("linux_amd64"), text(404, "")),
            libc::EIO,
            "has no package for it",
        ),
    ]);
}

#[test]
fn sums_that_do_not_name_the_zip_once() {
    each_fails(&[
        (
            "no line",
            |bed, release| {
                let sums = release.sums.lines().filter(|line| !line.contains("linux_amd64"));
                let sums = sums.map(|line| format!("{line}\n")).collect();
                other_sums(bed, release, sums);
            },
            libc::EBADMSG,
            "has no line for terraform-provider-case0_1.0.0_linux_amd64.zip",
        ),
        (
            "two lines",
            |bed, release| {
                let other = format!("{}  {}\n", "0".repeat(64), release.file("linux_amd64.zip"));
                other_sums(bed, release, release.sums.clone() + &other);
            },
            libc::EBADMSG,
            "has two different sums",
        ),
        (
            "other lines",
            |bed, release| other_sums(bed, release, format!("{}garbage\n", release.sums)),
            libc::EBADMSG,
            "line 5 of SHA256SUMS is not",
        ),
        (
            "another sum in the document",
            |bed, release| other_document(bed, release, "shasum", json!("0".repeat(64))),
            libc::EBADMSG,
            "and the download document sha256:0000",
        ),
        (
            "absent",
            |bed, release| answer(bed, &release.sums_path(), text(404, "")),
            libc::EIO,
            "SHA256SUMS is not where",
        ),
    ]);
}

#[test]
fn a_signature_that_does_not_hold() {
    each_fails(&[
        (
            "of another document",
            |bed, release| {
                let other = bed.origin.gpg.sign(&bed.origin.key, b"another", &[]);
                answer(bed, &release.signature_path(), text(200, other));
            },
            libc::EPERM,
            "it is no signature of this document by the key of",
        ),
        (
            "absent",
            |bed, release| answer(bed, &release.signature_path(), text(404, "")),
            libc::EPERM,
            "no signature of SHA256SUMS is there",
        ),
        (
            "by a key that is not named",
            |bed, release| {
                let other = bed.origin.gpg.key("stranger", "rsa2048", "never");
                let keys = [bed.origin.gpg.export(&other)];
                bed.origin.serve(release, &keys);
            },
            libc::EPERM,
            "made by a key that is not among those named",
        ),
        (
            "by no key",
            |bed, release| bed.origin.serve(release, &[]),
            libc::EPERM,
            "names no key by which",
        ),
        (
            "by a revoked key",
            |bed, release| {
                let revoked = bed.origin.gpg.key("revoked", "rsa2048", "never");
                let sums = release.sums.as_bytes();
                let signature = bed.origin.gpg.sign(&revoked, sums, &[]);
                bed.origin.gpg.revoke(&revoked);
                bed.origin.serve(release, &[bed.origin.gpg.export(&revoked)]);
                answer(bed, &release.signature_path(), text(200, signature));
            },
            libc::EPERM,
            "was revoked",
        ),
    ]);
}

#[test]
fn what_is_no_provider_registry() {
    each_fails(&[
        (
            "HTML",
            |bed, release| {
                let page = Reply::new(200, "text/html", "<html>log in</html>");
                answer(bed, &versions(release), page);
            },
            libc::EPROTO,
            "case0",
        ),
        (
            "a redirect loop",
            |bed, release| {
                let there = text(302, "").with("Location", versions(release));
                answer(bed, &versions(release), there);
            },
            libc::EPROTO,
            "redirect",
        ),
        (
            "plain HTTP for the zip",
            |bed, release| {
                let there = text(302, "").with("Location", "http://files.example/x.zip");
                answer(bed, &release.zip_path("linux_amd64"), there);
            },
            libc::EPROTO,
            "https",
        ),
        (
            "a special address",
            |bed, release| {
                other_document(bed, release, "download_url", json!("https://169.254.169.254/x"));
            },
            libc::EPROTO,
            "169.254.169.254",
        ),
        (
            "no JSON",
            |bed, release| answer(bed, &release.download_path("linux_amd64"), text(200, "{")),
            libc::EPROTO,
            "is malformed",
        ),
    ]);
}

#[test]
fn a_host_without_a_provider_registry_and_one_that_is_down() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    answer(&bed, "/.well-known/terraform.json", json_reply(&json!({ "modules.v1": "/v1/" })));
    let options = bed.options().args(["--deadline", "3s", "--provider", &bed.address("one")]);
    let Some(mut mount) = bed.mount("", options) else { return };
    assert!(mount.said().contains("no provider registry"), "{}", mount.said());
    let one = Path::new(&bed.address("one")).join("1.0.0");
    let error = opened(&mount, &one).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPROTO), "{error}");
    // As a client walks: the one that cannot be learnt is missing, and nothing fails.
    let plugins = mount.join(format!("plugins/{}", bed.address("one")));
    assert_eq!(names(&plugins), [""; 0]);
    assert!(mount.xattr(&plugins, "user.tofufs.error").unwrap().contains("providers.v1"));

    bed.origin.server.stop();
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    let error = opened(&mount, &one).unwrap_err();
    let down = [libc::EHOSTUNREACH, libc::ETIMEDOUT].map(Some);
    assert!(down.contains(&error.raw_os_error()), "{error}");
}

#[test]
fn a_token_goes_to_the_registry_and_never_to_where_zips_are() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    let at = versions(&release);
    let document = release.download_path("linux_amd64");
    for closed in [at, document] {
        let wanting = move |seen: &crate::support::hostile::Seen| {
            seen.path == closed && seen.header("Authorization") != Some("Bearer s3cret")
        };
        bed.origin.server.rule(wanting, Behaviour::Answer(text(401, "who are you?")));
    }
    let port = bed.origin.server.addr().port();
    let rc = bed.path("rc");
    let block = format!("credentials \"localhost:{port}\" {{\n  token = \"s3cret\"\n}}\n");
    fs::write(&rc, block).unwrap();
    let options = bed.options().env("TF_CLI_CONFIG_FILE", rc.display());
    let Some(mount) = bed.mount("", options) else { return };
    opened(&mount, &Path::new(&bed.address("one")).join("1.0.0")).unwrap();
    for seen in bed.origin.server.requests_to("/files/") {
        assert_eq!(seen.header("Authorization"), None, "{seen:?}");
    }
}
