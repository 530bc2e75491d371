//! Each way in which a provider registry can be wrong: the class of the failure by its sentence,
//! exit code 1, and no tag at the target.

use std::sync::Arc;

use serde_json::json;

use crate::support::hostile::{Behaviour, Hostile, Reply, path};
use crate::support::origin::{Published, json_reply};
use crate::support::tls::Tls;
use crate::{Bed, into};

/// One way to be wrong, and the words of the refusal.
type Case = (&'static str, fn(&mut Bed, &Published), &'static str);

/// Mirrors a release of a registry that is wrong in each of these ways.
fn each_is_refused(cases: &[Case]) {
    for (what, make, wanted) in cases {
        let Some(mut bed) = Bed::new() else { return };
        let release = bed.origin.publish("one", "1.0.0");
        make(&mut bed, &release);
        let registry = Hostile::start();
        let words = into(&registry, &[&bed.address("one"), "1.0.0", "--platform", "linux_amd64"]);
        let said = bed.refused(&words);
        assert!(said.contains(wanted), "{what}: {said}");
        assert_eq!(said.lines().count(), 1, "{what}: one sentence: {said}");
        assert!(said.contains("acme/one") || said.contains(&bed.origin.host), "{what}: {said}");
        assert!(registry.manifest("mirror/acme/one", "1.0.0").is_none(), "{what}");
    }
}

fn answer(bed: &Bed, at: &str, reply: Reply) {
    bed.origin.server.rule(path(at), Behaviour::Answer(reply));
}

/// Serves the release with other sums, signed as they are.
fn other_sums(bed: &mut Bed, release: &Published, sums: String) {
    let signature = bed.origin.gpg.sign(&bed.origin.key, sums.as_bytes(), &[]);
    answer(bed, &release.sums_path(), Reply::new(200, "text/plain", sums));
    answer(bed, &release.signature_path(), Reply::new(200, "text/plain", signature));
}

/// Serves it with another download document.
fn other_document(bed: &Bed, release: &Published, key: &str, value: serde_json::Value) {
    let keys = [bed.origin.gpg.export(&bed.origin.key)];
    let mut document = bed.origin.download(release, "linux_amd64", &keys);
    document[key] = value;
    answer(bed, &release.download_path("linux_amd64"), json_reply(&document));
}

/// An answer that ends after this many bytes of a zip, and says that there are more.
fn cut(release: &Published, after: usize) -> Vec<u8> {
    let zip = &release.zips["linux_amd64"];
    let head = format!("HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {}\r\n\r\n", zip.len());
    [head.as_bytes(), &zip[..after]].concat()
}

const VERSIONS: &str = "/v1/providers/acme/one/versions";
const DISCOVERY: &str = "/.well-known/terraform.json";

#[test]
fn a_registry_that_denies_is_overloaded_or_gone() {
    each_is_refused(&[
        ("401", |bed, _| answer(bed, VERSIONS, Reply::new(401, "text/plain", "")), "answered 401"),
        ("403", |bed, _| answer(bed, VERSIONS, Reply::new(403, "text/plain", "")), "TF_TOKEN_HOST"),
        (
            "429 for a day",
            |bed, _| {
                answer(
                    bed,
                    VERSIONS,
                    Reply::new(429, "text/plain", "").with("Retry-After", "86400"),
                )
            },
            "it asks to be left alone for 86400 s (until ",
        ),
        ("500", |bed, _| answer(bed, VERSIONS, Reply::new(500, "text/plain", "")), "answered 500"),
        ("down", |bed, _| bed.origin.server.stop(), "cannot be reached"),
    ]);
}

#[test]
fn a_registry_that_hangs_is_waited_for_until_the_deadline() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    bed.origin.server.rule(path(VERSIONS), Behaviour::Silence);
    let registry = Hostile::start();
    let words = into(&registry, &[&bed.address("one"), "1.0.0", "--deadline", "2s"]);
    let mut command = std::process::Command::new(crate::support::world::program());
    command.arg("mirror").arg("--ca-file").arg(&bed.origin.authority).args(&words);
    command.env("HOME", bed.path("home")).env_remove("XDG_STATE_HOME");
    let output = crate::support::mount::finish(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("no progress for 2 s"), "{said}");
}

#[test]
fn a_passing_overload_is_waited_out() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    let later = Reply::new(429, "text/plain", "").with("Retry-After", "1");
    bed.origin.server.script(path(VERSIONS), [Behaviour::Answer(later)]);
    let registry = Hostile::start();
    assert_eq!(bed.lines(&into(&registry, &[&bed.address("one"), "1.0.0"])).len(), 1);
}

#[test]
fn what_does_not_speak_the_protocol_is_told_as_such() {
    each_is_refused(&[
        ("HTML", |bed, _| answer(bed, DISCOVERY, Reply::new(200, "text/html", "<p>")), "HTML page"),
        (
            "no JSON",
            |bed, _| answer(bed, DISCOVERY, Reply::new(200, "text/plain", "{}")),
            "is no JSON",
        ),
        (
            "no services",
            |bed, _| answer(bed, DISCOVERY, Reply::new(404, "text/plain", "")),
            "names no providers.v1",
        ),
        (
            "no providers.v1",
            |bed, _| answer(bed, DISCOVERY, json_reply(&json!({ "modules.v1": "/m/" }))),
            "names no providers.v1",
        ),
        ("http", |bed, _| bed.origin.discovery("http://localhost/v1/"), "no https address"),
        (
            "a loop",
            |bed, _| answer(bed, VERSIONS, Reply::redirect(302, VERSIONS)),
            "redirects more than 5 times",
        ),
        (
            "to http",
            |bed, _| answer(bed, VERSIONS, Reply::redirect(302, "http://localhost/x")),
            "from https to http",
        ),
        (
            "a special address",
            |bed, release| {
                other_document(bed, release, "shasums_url", json!("https://169.254.169.254/x"))
            },
            "forbidden address",
        ),
        (
            "a zip over http",
            |bed, release| {
                other_document(bed, release, "download_url", json!("http://localhost/x.zip"))
            },
            "no https address",
        ),
        (
            "the list of versions is none",
            |bed, _| answer(bed, VERSIONS, json_reply(&json!({ "versions": 1 }))),
            "the list of versions is malformed",
        ),
        (
            "another file's name",
            |bed, release| other_document(bed, release, "filename", json!("x.zip")),
            "names the file \"x.zip\"",
        ),
        (
            "a document over the limit",
            |bed, _| answer(bed, DISCOVERY, json_reply(&json!({ "x": "x".repeat(2 << 20) }))),
            "has more than 1048576 bytes",
        ),
    ]);
}

#[test]
fn a_zip_that_is_not_what_was_signed_is_refused() {
    each_is_refused(&[
        (
            "absent",
            |bed, release| {
                answer(bed, &release.zip_path("linux_amd64"), Reply::new(404, "text/plain", ""))
            },
            "is not where the registry says",
        ),
        (
            "changed",
            |bed, release| {
                let mut zip = release.zips["linux_amd64"].clone();
                zip[40] ^= 1;
                answer(
                    bed,
                    &release.zip_path("linux_amd64"),
                    Reply::new(200, "application/zip", zip),
                );
            },
            "it was cut or changed",
        ),
        (
            "shorter by its own words",
            |bed, release| {
                let zip = &release.zips["linux_amd64"];
                answer(
                    bed,
                    &release.zip_path("linux_amd64"),
                    Reply::new(200, "application/zip", &zip[..50]),
                );
            },
            "it was cut or changed",
        ),
        (
            "longer",
            |bed, release| {
                let zip = [&release.zips["linux_amd64"][..], b"x"].concat();
                answer(
                    bed,
                    &release.zip_path("linux_amd64"),
                    Reply::new(200, "application/zip", zip),
                );
            },
            "it was cut or changed",
        ),
        (
            "cut each time",
            |bed, release| {
                let cut = Behaviour::Raw(cut(release, 50));
                bed.origin.server.rule(path(release.zip_path("linux_amd64")), cut);
            },
            "the zip for linux_amd64 breaks off after 50 bytes",
        ),
        (
            "listed and not there",
            |bed, release| {
                answer(
                    bed,
                    &release.download_path("linux_amd64"),
                    Reply::new(404, "text/plain", ""),
                )
            },
            "has no package for it",
        ),
    ]);
}

#[test]
fn a_zip_that_breaks_off_goes_on_from_there() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    let zip = release.zips["linux_amd64"].clone();
    let rest = Behaviour::edit(move |seen, honest| {
        let Some(first) = seen.header("Range").and_then(|range| range.strip_prefix("bytes="))
        else {
            return honest;
        };
        assert_eq!(seen.header("If-Range"), Some("\"one\""));
        let first: usize = first.trim_end_matches('-').parse().unwrap();
        let range = format!("bytes {first}-{}/{}", zip.len() - 1, zip.len());
        Reply::new(206, "application/zip", &zip[first..])
            .with("Content-Range", range)
            .with("ETag", "\"one\"")
    });
    let at = release.zip_path("linux_amd64");
    bed.origin.server.script(path(at.clone()), [Behaviour::Raw(cut(&release, 50)), rest]);
    let registry = Hostile::start();
    let lines =
        bed.lines(&into(&registry, &[&bed.address("one"), "1.0.0", "--platform", "linux_amd64"]));
    assert_eq!(lines.len(), 1);
    let asked = bed.origin.server.requests_to(&at);
    assert!(asked.iter().any(|seen| seen.header("Range") == Some("bytes=50-")), "{asked:?}");
}

#[test]
fn sums_are_read_strictly() {
    each_is_refused(&[
        (
            "no line for the zip",
            |bed, release| {
                let sums = release.sums.lines().filter(|line| !line.contains("linux_amd64"));
                let sums = sums.map(|line| format!("{line}\n")).collect();
                other_sums(bed, release, sums);
            },
            "has no line for terraform-provider-one_1.0.0_linux_amd64.zip",
        ),
        (
            "two lines",
            |bed, release| {
                let other = format!("{}  {}\n", "0".repeat(64), release.file("linux_amd64.zip"));
                other_sums(bed, release, release.sums.clone() + &other);
            },
            "has two different sums for terraform-provider-one_1.0.0_linux_amd64.zip",
        ),
        (
            "another form",
            |bed, release| other_sums(bed, release, format!("{}garbage\n", release.sums)),
            "line 5 of SHA256SUMS is not",
        ),
        (
            "not what the document says",
            |bed, release| other_document(bed, release, "shasum", json!("0".repeat(64))),
            "and the download document sha256:0000",
        ),
        (
            "absent",
            |bed, release| answer(bed, &release.sums_path(), Reply::new(404, "text/plain", "")),
            "SHA256SUMS is not where",
        ),
    ]);
}

#[test]
fn a_signature_that_does_not_hold_is_refused() {
    each_is_refused(&[
        (
            "of another document",
            |bed, release| {
                let other = bed.origin.gpg.sign(&bed.origin.key, b"another", &[]);
                answer(bed, &release.signature_path(), Reply::new(200, "text/plain", other));
            },
            "it is no signature of this document by the key of",
        ),
        (
            "no signature",
            |bed, release| {
                answer(bed, &release.signature_path(), Reply::new(200, "text/plain", "x"))
            },
            "it is no OpenPGP packet",
        ),
        (
            "absent",
            |bed, release| {
                answer(bed, &release.signature_path(), Reply::new(404, "text/plain", ""))
            },
            "no signature of SHA256SUMS is there",
        ),
        (
            "by a key that is not named",
            |bed, release| {
                let other = bed.origin.gpg.key("stranger", "rsa2048", "never");
                let keys = [bed.origin.gpg.export(&other)];
                bed.origin.serve(release, &keys);
            },
            "made by a key that is not among those named",
        ),
        (
            "by a revoked key",
            |bed, release| {
                bed.origin.gpg.revoke(&bed.origin.key);
                let keys = [bed.origin.gpg.export(&bed.origin.key)];
                bed.origin.serve(release, &keys);
            },
            "was revoked",
        ),
        (
            "by a DSA key",
            |bed, release| {
                let dsa = bed.origin.gpg.key("old", "dsa2048", "never");
                let other = bed.origin.gpg.sign(&dsa, release.sums.as_bytes(), &[]);
                let keys = [bed.origin.gpg.export(&dsa)];
                bed.origin.serve(release, &keys);
                answer(bed, &release.signature_path(), Reply::new(200, "text/plain", other));
            },
            "is a DSA key, and only RSA, Ed25519 and ECDSA",
        ),
        ("no key", |bed, release| bed.origin.serve(release, &[]), "names no key by which"),
        (
            "no key that can be read",
            |bed, release| bed.origin.serve(release, &["nothing".to_owned()]),
            "a key that localhost:",
        ),
    ]);
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
    let registry = Hostile::start();
    let words = into(&registry, &[&bed.address("one"), "1.0.0", "--json"]);
    bed.environment = vec![("OPENTOFU_ENFORCE_GPG_EXPIRATION".to_owned(), "true".to_owned())];
    let said = bed.refused(&words);
    assert!(said.contains("which has expired"), "{said}");
    bed.environment.clear();
    let output = bed.mirror(&words);
    let (out, err) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let id = &bed.origin.key[bed.origin.key.len() - 16..];
    assert!(out.contains(&format!("\"signature\":\"signed, key ID {id} (key expired)\"")), "{out}");
    assert!(err.contains("warning: ") && err.contains("(key expired)"), "{err}");
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let Some(mut bed) = Bed::new() else { return };
    let other = Tls::with(&["localhost"], 2101);
    let server = Hostile::start_tls(Arc::new(other.server()));
    bed.origin.discovery(&format!("https://localhost:{}/v1/", server.addr().port()));
    bed.origin.with_manifest = false;
    let registry = Hostile::start();
    let said = bed.refused(&into(&registry, &[&bed.address("one"), "1.0.0"]));
    assert!(said.contains("signed by an unknown authority"), "{said}");
}

#[test]
fn one_host_s_zips_never_appear_under_another_s_address() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    let registry = Hostile::start();
    bed.lines(&into(&registry, &[&bed.address("one"), "1.0.0"]));
    let address = format!("127.0.0.1:{}/acme/one", bed.origin.server.addr().port());
    let said = bed.refused(&into(&registry, &[&address, "1.0.0"]));
    assert!(said.contains("zips of one never appear under the address of another"), "{said}");
}
