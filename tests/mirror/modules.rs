//! `tofufs mirror --modules`: from archives and repositories of git, with the modules that they
//! call.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tofufs::digest::Digest;

use crate::support::hostile::{Hostile, Reply};
use crate::support::mount::{Mount, Options};
use crate::support::origin::json_reply;
use crate::support::{pack, program};
use crate::{Bed, into};

/// `acme/NAME/aws`: its versions, and where each of them lies.
fn publish(bed: &Bed, name: &str, versions: &[(&str, &str)]) {
    let list: Vec<Value> =
        versions.iter().map(|(version, _)| json!({ "version": version })).collect();
    let list = json!({ "modules": [{ "versions": list }] });
    bed.origin.answer(&format!("/v1/modules/acme/{name}/aws/versions"), json_reply(&list));
    for (version, place) in versions {
        let at = format!("/v1/modules/acme/{name}/aws/{version}/download");
        bed.origin.answer(&at, Reply::new(204, "text/plain", "").with("X-Terraform-Get", *place));
    }
}

fn serve(bed: &Bed, at: &str, bytes: &[u8]) {
    bed.origin.answer(at, Reply::new(200, "application/octet-stream", bytes));
}

fn tar_gz(files: &[(&str, &str)]) -> Vec<u8> {
    let compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(compressed);
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_size(text.len() as u64);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn manifest(registry: &Hostile, repo: &str, tag: &str) -> Value {
    serde_json::from_slice(&registry.manifest(repo, tag).expect("a module")).unwrap()
}

fn package(manifest: &Value) -> Digest {
    manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap()
}

/// The words for a module of the origin.
fn words(bed: &Bed, name: &str, constraint: &str) -> Vec<String> {
    let module = format!("{}/acme/{name}/aws", bed.origin.host);
    ["--modules", &module, constraint].map(str::to_owned).to_vec()
}

fn mirrored(bed: &Bed, registry: &Hostile, name: &str, constraint: &str) -> Vec<String> {
    let words = words(bed, name, constraint);
    bed.lines(&into(registry, &words.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// A module that calls another one of the same registry.
fn calling(bed: &Bed) -> String {
    format!(
        "# calls\nmodule \"inner\" {{\n  source  = \"{}/acme/inner/aws//sub\"\n  version = \
         \"~> 1.0\"\n}}\nmodule \"far\" {{ source = \"github.com/acme/far\" }}\n",
        bed.origin.host
    )
}

#[test]
fn an_archive_is_packed_whole_and_what_it_calls_comes_along() {
    let Some(bed) = Bed::new() else { return };
    let registry = Hostile::start();
    let inner: [(&str, &[u8]); 2] =
        [("sub/main.tf", b"output \"said\" { value = \"inner\" }\n"), ("README.md", b"read me\n")];
    serve(&bed, "/files/inner.zip", &pack::zip(&inner));
    publish(
        &bed,
        "inner",
        &[
            ("1.0.0", "/files/inner.zip"),
            ("1.2.0", &format!("{}/files/inner.zip", bed.origin.files)),
            ("2.0.0", "/files/none.zip"),
        ],
    );
    let text = calling(&bed);
    let files = [("outer-5/main.tf", text.as_str()), ("outer-5/docs/x.md", "x")];
    serve(&bed, "/files/outer", &tar_gz(&files));
    publish(&bed, "outer", &[("5.0.0", "/files/outer//*?archive=tar.gz"), ("6.0.0", "/none.zip")]);

    let lines = mirrored(&bed, &registry, "outer", "~> 5.0");
    let below = format!("{}/mirror/acme", registry.host());
    assert!(lines[0].starts_with(&format!("{below}/inner/aws:1.2.0@sha256:")), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{below}/outer/aws:5.0.0@sha256:")), "{lines:?}");
    assert!(lines[1].ends_with(" (the module is in //outer-5)"), "{lines:?}");
    let calls = [
        format!(
            "  outer-5/main.tf:3: {}/acme/inner/aws//sub -> {below}/inner/aws/1.2.0//sub below a mount",
            bed.origin.host
        ),
        "  outer-5/main.tf:6: github.com/acme/far is fetched from there".to_owned(),
    ];
    assert_eq!(lines[2..], calls);

    let outer = manifest(&registry, "mirror/acme/outer/aws", "5.0.0");
    let source = format!("{}/files/outer", bed.origin.files);
    assert_eq!(
        outer["annotations"],
        json!({
            "org.opencontainers.image.source": source,
            "org.opentofu.module.subdirectory": "outer-5",
        })
    );
    let mut zip =
        zip::ZipArchive::new(std::io::Cursor::new(registry.blob(&package(&outer)).unwrap()))
            .unwrap();
    let names: Vec<String> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
    assert_eq!(names, ["outer-5/docs/x.md", "outer-5/main.tf"]);
    let mut packed = String::new();
    std::io::Read::read_to_string(&mut zip.by_name("outer-5/main.tf").unwrap(), &mut packed)
        .unwrap();
    assert_eq!(packed, text, "no byte is edited");

    // Again: nothing is fetched, and the same digests elsewhere.
    let asked = bed.origin.server.requests().len();
    let again = mirrored(&bed, &registry, "outer", "~> 5.0");
    assert_eq!(again[0], lines[1].replace(" (the module is in //outer-5)", ""));
    assert_eq!(bed.origin.server.requests().len(), asked + 2, "discovery and a list");
    let other = Hostile::start();
    mirrored(&bed, &other, "outer", "~> 5.0");
    assert_eq!(manifest(&other, "mirror/acme/outer/aws", "5.0.0"), outer);
    assert_eq!(fs::read_dir(bed.path("home/.local/state/tofufs/push")).unwrap().count(), 0);
}

#[test]
fn a_plan_and_a_check_fetch_nothing() {
    let Some(bed) = Bed::new() else { return };
    let registry = Hostile::start();
    publish(&bed, "one", &[("1.0.0", "/none.zip"), ("1.1.0", "/none.zip")]);
    let mut words = words(&bed, "one", "1.1.0");
    let reference = format!("{}/mirror/acme/one/aws:1.1.0", registry.host());
    words.push("--dry-run".to_owned());
    let words_of =
        |words: &[String]| into(&registry, &words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(bed.lines(&words_of(&words)), [format!("{reference} would be made")]);
    words[3] = "--check".to_owned();
    let output = bed.mirror(&words_of(&words));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{reference} is missing\n"));
    assert!(!bed.origin.server.requests().iter().any(|seen| seen.path.ends_with("/download")));
}

#[test]
fn what_is_no_archive_or_leads_elsewhere_is_refused() {
    let Some(bed) = Bed::new() else { return };
    let registry = Hostile::start();
    serve(&bed, "/files/out.tar.gz", &tar_gz(&[("../out.tf", "x")]));
    serve(&bed, "/files/not.zip", b"not a zip");
    serve(&bed, "/files/two.tar.gz", &tar_gz(&[("a/main.tf", "x"), ("b/main.tf", "x")]));
    for (place, wanted) in [
        ("file:///etc", "modules are taken from zip and tar.gz archives"),
        ("git::/srv/module", "read over https and ssh alone"),
        ("git::file:///srv/module", "read over https and ssh alone"),
        ("http://example.com/m.zip", "modules are taken from zip and tar.gz archives"),
        ("/files/out.tar.gz", "leads outside of the archive"),
        ("/files/not.zip", "/files/not.zip: "),
        ("/files/two.tar.gz//*", "has 2 directories at its top"),
        ("/files/two.tar.gz//c", "has no directory \"c\""),
        ("/files/none.zip", "is not where the registry says"),
    ] {
        publish(&bed, "bad", &[("1.0.0", place)]);
        let words = words(&bed, "bad", "1.0.0");
        let words = into(&registry, &words.iter().map(String::as_str).collect::<Vec<_>>());
        let said = bed.refused(&words);
        assert!(said.contains(wanted), "{place}: {said}");
    }
    assert!(registry.manifest("mirror/acme/bad/aws", "1.0.0").is_none());
    assert!(!bed.path("out.tf").exists());
    let module = format!("{}/acme/bad/aws", bed.origin.host);
    let said = bed.refused(&into(&registry, &["--modules", &module, "> 3"]));
    assert!(said.contains("none of its 1 versions matches"), "{said}");
    let output = bed.mirror(&into(&registry, &["--modules", "acme/bad", "1.0.0"]));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

fn git(dir: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=x", "-c", "user.email=x@example.com"]).args(words);
    command.current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_repository_of_git_is_packed_without_its_history() {
    if program("git").is_none() {
        return;
    }
    let Some(mut bed) = Bed::new() else { return };
    let repository = bed.path("repository");
    fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "--quiet"]);
    fs::write(repository.join("main.tf"), "output \"said\" { value = \"from git\" }\n").unwrap();
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "--quiet", "-m", "one"]);
    git(&repository, &["tag", "v1"]);
    let commit = git(&repository, &["rev-parse", "HEAD"]);
    fs::write(repository.join("main.tf"), "# later\n").unwrap();
    git(&repository, &["commit", "--quiet", "-a", "-m", "two"]);
    // What would be asked of the other machine is asked of this one.
    let ssh = bed.path("ssh");
    fs::write(&ssh, "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n").unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    bed.environment.push(("GIT_SSH".to_owned(), ssh.display().to_string()));
    let url = format!("ssh://git.example.com{}", repository.display());
    publish(
        &bed,
        "one",
        &[
            ("1.0.0", &format!("git::{url}?ref=v1")),
            ("1.1.0", &format!("git::{url}?ref={commit}")),
            ("2.0.0", &format!("git::{url}?ref=none")),
        ],
    );
    let registry = Hostile::start();
    let lines = mirrored(&bed, &registry, "one", "~> 1.0");
    assert_eq!(lines.len(), 2, "{lines:?}");
    let repo = "mirror/acme/one/aws";
    let (one, two) = (manifest(&registry, repo, "1.0.0"), manifest(&registry, repo, "1.1.0"));
    assert_eq!(one, two, "the same commit is the same release");
    assert_eq!(
        one["annotations"],
        json!({
            "org.opencontainers.image.source": url,
            "org.opencontainers.image.revision": commit,
        })
    );
    let zip = registry.blob(&package(&one)).unwrap();
    let zip = zip::ZipArchive::new(std::io::Cursor::new(zip)).unwrap();
    assert_eq!(
        zip.file_names().map(|name| name.unwrap().into_owned()).collect::<Vec<_>>(),
        ["main.tf"]
    );
    let missing = words(&bed, "one", "2.0.0");
    let missing = into(&registry, &missing.iter().map(String::as_str).collect::<Vec<_>>());
    let said = bed.refused(&missing);
    assert!(said.contains("has no branch, tag or commit \"none\""), "{said}");

    // A client takes it from a mount of a store.
    let mut to_store = words(&bed, "one", "1.0.0");
    to_store.extend(["--to", "oci:store"].map(str::to_owned));
    bed.lines(&to_store);
    let Some(client) = program("tofu") else { return };
    let store = format!("oci:{}", bed.path("store").display());
    let Some(mount) = Mount::start(&[&store], Options::new()) else { return };
    let source = mount.join(&bed.origin.host).join("acme/one/aws/1.0.0");
    let dir = bed.path("work");
    fs::create_dir(&dir).unwrap();
    let text = format!(
        "module \"one\" {{ source = \"{}\" }}\noutput \"said\" {{ value = module.one.said }}\n",
        source.display()
    );
    fs::write(dir.join("main.tf"), text).unwrap();
    for words in [&["init", "-input=false"][..], &["apply", "-auto-approve", "-no-color"]] {
        let mut command = Command::new(&client);
        command.args(words).current_dir(&dir).env_clear().env("HOME", bed.path("home"));
        command.env("PATH", std::env::var_os("PATH").unwrap());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(words[0] == "init" || said.contains("said = \"from git\""), "{said}");
    }
}
