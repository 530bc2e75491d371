//! What the clients say, and what this program says of it, where something is wrong: registries,
//! locks, releases, packages and configurations.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tofufs::digest::Digest;
use zip::write::SimpleFileOptions;

use crate::clients::{Client, configuration_for, file_system_mirror};
use crate::support::docker_registry::DockerRegistry;
use crate::support::hostile::{Behaviour, Hostile, Reply};
use crate::support::mount::{Mount, Options, finish};
use crate::support::{pack, program, wait_until};
use crate::tiny::{self, OTHER};
use crate::{ORIGIN, declared, here, mapped, registry};

/// No test waits longer for something that has to come.
const PATIENCE: Duration = Duration::from_secs(30);
const INIT: [&str; 3] = ["init", "-input=false", "-no-color"];

/// What an `init` that fails prints, on one line.
#[track_caller]
fn refused(client: &Client) -> String {
    let output = client.output(&INIT);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!output.status.success(), "{said}");
    // Terraform draws a frame around it.
    said.replace(['│', '╷', '╵'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A registry, a mount of it, and a place to work.
struct Bed {
    registry: DockerRegistry,
    mount: Mount,
    base: tempfile::TempDir,
    name: &'static str,
}

impl Bed {
    fn new(name: &'static str, options: impl FnOnce(Options) -> Options) -> Option<Bed> {
        program(name)?;
        tiny::built()?;
        let registry = registry()?;
        let mount = Mount::start(
            &[registry.host()],
            options(mapped(&registry).args(declared(&["acme/tiny"]))),
        )?;
        Some(Bed {
            registry,
            mount,
            base: tempfile::tempdir().expect("a temporary directory"),
            name,
        })
    }

    fn base(&self) -> PathBuf {
        self.base.path().canonicalize().expect("a directory")
    }

    fn client(&self, label: &str, view: &str) -> Client {
        Client::new(self.name, &self.base(), label, &configuration_for(&self.mount, view))
            .expect("it is installed")
    }

    /// Runs `tofufs lock` where `client` works; what it says.
    fn lock(&self, client: &Client) -> String {
        let mut command = self.mount.command("lock");
        command
            .args(crate::mirror_flags(&self.registry.host()))
            .args(["--plain-http", &self.registry.host()]);
        command.arg(&client.dir);
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn refresh(&self) {
        let mut command = self.mount.command("refresh");
        command.arg(self.mount.path());
        assert!(finish(command).status.success());
    }
}

fn write_lock(client: &Client, hashes: &[String]) {
    let hashes: String = hashes.iter().map(|hash| format!("    \"{hash}\",\n")).collect();
    let text = format!(
        "provider \"{ORIGIN}/acme/tiny\" {{\n  version     = \"1.0.0\"\n  \
         constraints = \"~> 1.0\"\n  hashes = [\n{hashes}  ]\n}}\n"
    );
    fs::write(client.dir.join(".terraform.lock.hcl"), text).unwrap();
}

fn zh(package: &[u8]) -> String {
    format!("zh:{}", Digest::of(package).hex())
}

/// Other registries that are down, silent or broken in the middle of an answer cost a client time
/// at most.
fn a_client_walks_past_registries_that_do_not_answer(name: &'static str) {
    let bad = Hostile::start();
    let about =
        |kind: &'static str| move |seen: &crate::support::hostile::Seen| seen.path.contains(kind);
    for (kind, behaviour) in [
        ("silent", Behaviour::Silence),
        ("failing", Behaviour::Answer(Reply::error(500, "UNKNOWN"))),
        (
            "cut",
            Behaviour::Raw(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"tags".to_vec(),
            ),
        ),
        ("html", Behaviour::Answer(Reply::new(200, "text/html", "<html>log in</html>"))),
    ] {
        bad.rule(about(kind), behaviour);
    }
    let (host, gone) = (bad.host(), "127.0.0.1:9");
    let template = |host: &str| format!("{host}/${{namespace}}/${{type}}");
    let kinds = ["silent", "failing", "cut", "html"];
    let Some(bed) =
        Bed::new(name, |options| {
            options
                .args([
                    "--oci-mirror",
                    &template(&host),
                    "--include",
                    "bad.example.com/*/*",
                    "--plain-http",
                    &host,
                ])
                .args([
                    "--oci-mirror",
                    &template(gone),
                    "--include",
                    "gone.example.com/*/*",
                    "--plain-http",
                    gone,
                ])
                .args(kinds.iter().flat_map(|kind| {
                    ["--provider".to_owned(), format!("bad.example.com/acme/{kind}")]
                }))
                .args(["--provider", "gone.example.com/acme/away", "--deadline", "2s"])
        })
    else {
        return;
    };
    tiny::publish(&bed.registry, &["1.0.0"]).unwrap();
    bed.client("work", "plugins").use_provider();
    let (log, status) = (bed.mount.log(), bed.mount.status()["errors"].to_string());
    let away = kinds.map(|kind| (host.as_str(), format!("plugins/bad.example.com/acme/{kind}")));
    for (host, path) in
        away.iter().chain(&[(gone, "plugins/gone.example.com/acme/away".to_owned())])
    {
        let error =
            bed.mount.xattr(path, "user.tofufs.error").unwrap_or_else(|| panic!("{path}: {log}"));
        assert!(error.contains(host), "{path}: {error}");
        assert!(log.contains(&error), "{error}: {log}");
        assert!(
            status.contains(path.rsplit('/').next().unwrap()) || status.contains(host),
            "{path}: {status}"
        );
    }
}

#[test]
fn terraform_walks_past_registries_that_do_not_answer() {
    a_client_walks_past_registries_that_do_not_answer("terraform");
}

#[test]
fn opentofu_walks_past_registries_that_do_not_answer() {
    a_client_walks_past_registries_that_do_not_answer("tofu");
}

/// The one registry that has it is away before anything of it was seen.
fn a_provider_that_is_out_of_reach(name: &'static str) {
    let Some(mut bed) = Bed::new(name, |options| options.args(["--deadline", "2s"])) else {
        return;
    };
    tiny::publish(&bed.registry, &["1.0.0"]).unwrap();
    bed.registry.stop();
    let client = bed.client("work", "plugins");
    let said = refused(&client);
    assert!(said.contains(&format!("{ORIGIN}/acme/tiny")) && said.contains("not found"), "{said}");
    let error = bed
        .mount
        .xattr(format!("plugins/{ORIGIN}/acme/tiny"), "user.tofufs.error")
        .expect("a reason");
    assert!(error.contains(&bed.registry.host()), "{error}");
    assert!(
        bed.mount.log().contains(&error)
            && bed.mount.status()["errors"].to_string().contains(&bed.registry.host())
    );
    assert!(client.lock().is_empty());
}

#[test]
fn terraform_is_told_of_a_provider_that_is_out_of_reach() {
    a_provider_that_is_out_of_reach("terraform");
}

#[test]
fn opentofu_is_told_of_a_provider_that_is_out_of_reach() {
    a_provider_that_is_out_of_reach("tofu");
}

/// Lock files from elsewhere, in both kinds of mirror: as with plain directories.
fn locks_from_elsewhere(name: &'static str) {
    let Some(bed) =
        Bed::new(name, |options| options.args(["--platform", &here(), "--platform", OTHER]))
    else {
        return;
    };
    tiny::publish(&bed.registry, &["1.0.0"]).unwrap();
    let packages = tiny::packages("1.0.0").unwrap();
    let [ours, other] = [&packages[0].1, &packages[1].1];
    let unmatched = "doesn't match any of the checksums";
    for (label, hashes, in_plugins, in_mirror) in [
        ("foreign-h1", vec![pack::h1(other)], Err(unmatched), Err(unmatched)),
        // Of an unpacked package no zh: can be computed: taken, and its h1: recorded.
        ("foreign-zh", vec![zh(other)], Ok(()), Err(unmatched)),
        ("our-zh", vec![zh(ours)], Ok(()), Ok(())),
        ("both", vec![pack::h1(other), zh(ours), zh(other)], Err(unmatched), Ok(())),
    ] {
        for (view, wanted) in [("plugins", in_plugins), ("mirror", in_mirror)] {
            let local = bed.base().join(format!("local-{view}"));
            if !local.exists() {
                tiny::write_mirror(&local, &["1.0.0"], view == "mirror").unwrap();
            }
            let plain = Client::new(
                name,
                &bed.base(),
                &format!("{label}-{view}-plain"),
                &file_system_mirror(&local),
            )
            .unwrap();
            let mounted = bed.client(&format!("{label}-{view}"), view);
            for client in [&plain, &mounted] {
                write_lock(client, &hashes);
                match wanted {
                    Ok(()) => client.use_provider(),
                    Err(part) => assert!(refused(client).contains(part), "{label} {view}"),
                }
            }
            assert_eq!(mounted.lock(), plain.lock(), "{label} {view}");
            if wanted.is_ok() {
                continue;
            }
            // The way out: the hashes of all platforms.
            bed.lock(&mounted);
            assert!(
                hashes.iter().all(|hash| mounted.lock().contains(hash.as_str())),
                "what was there stays"
            );
            mounted.use_provider();
        }
    }
}

#[test]
fn terraform_takes_locks_from_elsewhere_as_with_plain_directories() {
    locks_from_elsewhere("terraform");
}

#[test]
fn opentofu_takes_locks_from_elsewhere_as_with_plain_directories() {
    locks_from_elsewhere("tofu");
}

/// The tag holds something else than what was locked: never used, and what was locked is used again
/// when it is back.
fn a_tag_that_moved_under_a_lock(name: &'static str) {
    let Some(bed) = Bed::new(name, |options| options) else { return };
    tiny::publish(&bed.registry, &["1.0.0"]).unwrap();
    for view in ["plugins", "mirror"] {
        let client = bed.client(view, view);
        client.use_provider();
        let lock = client.lock();
        let another = pack::provider_zip("tiny", "1.0.0", b"#!/bin/sh\nexit 1\n");
        bed.registry
            .push("mirror/acme/tiny")
            .artifact("1.0.0", &pack::provider_of(&[(&here(), another)]));
        bed.refresh();
        client.forget(false);
        assert!(refused(&client).contains("doesn't match any of the checksums"));
        assert_eq!(client.lock(), lock);
        tiny::publish(&bed.registry, &["1.0.0"]).unwrap();
        bed.refresh();
        client.use_provider();
        assert_eq!(client.lock(), lock);
    }
}

#[test]
fn terraform_refuses_a_tag_that_moved_under_a_lock() {
    a_tag_that_moved_under_a_lock("terraform");
}

#[test]
fn opentofu_refuses_a_tag_that_moved_under_a_lock() {
    a_tag_that_moved_under_a_lock("tofu");
}

/// Releases that lack the platform, are something else, or hold no zip: a message that names the
/// provider, a reason in the log, and another version is installed all the same.
fn releases_that_cannot_be_used(name: &'static str) {
    let Some(bed) = Bed::new(name, |options| options) else { return };
    tiny::publish(&bed.registry, &["1.0.0"]).unwrap();
    let push = bed.registry.push("mirror/acme/tiny");
    push.artifact("1.1.0", &pack::provider("tiny", "1.1.0", &[OTHER]));
    push.artifact("1.2.0", &pack::module(&[("main.tf", b"")]));
    push.artifact("1.3.0", &pack::provider_of(&[(&here(), b"this is no zip".to_vec())]));
    bed.refresh();
    for view in ["plugins", "mirror"] {
        for (version, reason) in
            [("1.1.0", "no package for"), ("1.2.0", "is a module"), ("1.3.0", "no zip archive")]
        {
            let client = bed.client(&format!("{view}-{version}"), view);
            let root = fs::read_to_string(client.dir.join("main.tf")).unwrap();
            fs::write(client.dir.join("main.tf"), root.replace("~> 1.0", version)).unwrap();
            let said = refused(&client);
            assert!(said.contains(&format!("{ORIGIN}/acme/tiny")), "{view} {version}: {said}");
            assert!(client.lock().is_empty(), "{view} {version}: {}", client.lock());
            let tag = format!("tiny:{version}");
            let is_told =
                || bed.mount.log().lines().any(|line| line.contains(&tag) && line.contains(reason));
            // The log has a writer of its own.
            assert!(wait_until(PATIENCE, is_told), "{version}: {}", bed.mount.log());
        }
        let client = bed.client(&format!("{view}-good"), view);
        let root = fs::read_to_string(client.dir.join("main.tf")).unwrap();
        fs::write(client.dir.join("main.tf"), root.replace("~> 1.0", "1.0.0")).unwrap();
        client.use_provider();
    }
}

#[test]
fn terraform_is_told_of_releases_that_cannot_be_used() {
    releases_that_cannot_be_used("terraform");
}

#[test]
fn opentofu_is_told_of_releases_that_cannot_be_used() {
    releases_that_cannot_be_used("tofu");
}

/// The hash of such a zip is not that of the directory it unpacks to: in `plugins/` that does not
/// matter, in `mirror/` it fails the second time, as it does in a plain directory; a complete lock
/// file helps.
fn a_zip_with_entries_for_directories(name: &'static str) {
    let Some(bed) = Bed::new(name, |options| options) else { return };
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().unix_permissions(0o755);
    writer.add_directory("doc", options).unwrap();
    writer.start_file("terraform-provider-tiny_v1.0.0", options).unwrap();
    writer.write_all(tiny::built().unwrap()).unwrap();
    let package = writer.finish().unwrap().into_inner();
    bed.registry
        .push("mirror/acme/tiny")
        .artifact("1.0.0", &pack::provider_of(&[(&here(), package.clone())]));
    let packed = bed.base().join("packed");
    fs::create_dir_all(packed.join(ORIGIN).join("acme/tiny")).unwrap();
    let file = format!("terraform-provider-tiny_1.0.0_{}.zip", here());
    fs::write(packed.join(ORIGIN).join("acme/tiny").join(file), &package).unwrap();

    let unpacked = bed.client("unpacked", "plugins");
    let mounted = bed.client("mounted", "mirror");
    let plain = Client::new(name, &bed.base(), "plain", &file_system_mirror(&packed)).unwrap();
    for client in [&unpacked, &mounted, &plain] {
        client.use_provider();
        assert_eq!(client.lock(), unpacked.lock());
        client.forget(false);
    }
    unpacked.use_provider();
    for client in [&mounted, &plain] {
        assert!(refused(client).contains("doesn't match any of the checksums"));
    }
    let said = bed.lock(&mounted);
    assert!(said.contains("entries for directories"), "{said}\n{}", mounted.lock());
    mounted.use_provider();
}

#[test]
fn terraform_and_a_zip_with_entries_for_directories() {
    a_zip_with_entries_for_directories("terraform");
}

#[test]
fn opentofu_and_a_zip_with_entries_for_directories() {
    a_zip_with_entries_for_directories("tofu");
}

/// What OpenTofu refuses as `oci_mirror` this program refuses, and the other way round.
#[test]
fn templates_are_refused_where_opentofu_refuses_them() {
    if program("tofu").is_none() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    let all = "r.io/${hostname}/${namespace}/${type}";
    let cases: [(&str, &[&str]); 17] = [
        (all, &[]),
        (all, &["*/*/*"]),
        (all, &["a.b/*/*", "c.d/n/t"]),
        (all, &["a.b/*/t"]),
        (all, &["*/n/*"]),
        ("r.io/${type}", &["a.b/n/*"]),
        ("r.io/${type}", &["n/*"]),
        ("r.io/${type}", &["a.b/n/*", "a.b/m/*"]),
        ("r.io/${namespace}/${type}", &[]),
        ("r.io/${hostname}/${namespace}/${lower(type)}", &[]),
        ("r.io/${hostname}/${namespace}/${version}/${type}", &[]),
        ("r.io/${hostname}/${namespace}/${type}:1.0", &[]),
        ("r.io/Upper/${hostname}/${namespace}/${type}", &[]),
        ("https://r.io/${hostname}/${namespace}/${type}", &[]),
        ("r.io/${hostname}/${namespace}/${type", &[]),
        ("r.io/%{ if type == \"x\" }y%{ else }${hostname}/${namespace}/${type}%{ endif }", &[]),
        ("localhost:5000/${hostname}/${namespace}/${type}", &[]),
    ];
    for (at, (template, include)) in cases.iter().enumerate() {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\\\""));
        // A quote inside ${…} or %{…} is no string's end.
        let template_text = format!("\"{template}\"");
        let include_text = include.iter().map(|p| quoted(p)).collect::<Vec<_>>().join(", ");
        let include_text = if include.is_empty() {
            String::new()
        } else {
            format!("    include = [{include_text}]\n")
        };
        let text = format!(
            "provider_installation {{\n  oci_mirror {{\n    \
             repository_template = {template_text}\n{include_text}  }}\n}}\n"
        );
        let client = Client::new("tofu", &base, &format!("work{at}"), &text).unwrap();
        fs::write(client.dir.join("main.tf"), "").unwrap();
        let theirs = client.output(&INIT);
        let ours = ours_of(&base, &base.join(format!("work{at}.tfrc")));
        let said = String::from_utf8_lossy(&ours.stderr).into_owned();
        // It goes on after that.
        let refused =
            String::from_utf8_lossy(&theirs.stderr).contains("There are some problems with the");
        assert_eq!(ours.status.success(), !refused, "{template} {include:?}: {said} {theirs:?}");
        assert!(ours.status.success() || said.lines().count() == 1, "{template}: {said}");
    }
}

/// A command of this program that needs the mapping of `tofurc`, for a directory that requires
/// nothing.
fn ours_of(base: &Path, tofurc: &Path) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tofufs"));
    command
        .args(["lock", "--client", "tofu", "--offline", "--tofurc"])
        .arg(tofurc)
        .arg("--cache-dir");
    command.arg(base.join("cache")).arg(base.join("work0")).env_clear().env("HOME", base);
    command.stdin(std::process::Stdio::null());
    finish(command)
}
