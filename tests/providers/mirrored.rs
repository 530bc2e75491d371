//! `providers mirror` into `staging/mirror`, and what a commit of it makes: releases that the
//! mount, both kinds of file system mirror and OpenTofu's own `oci_mirror` read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;
use tofufs::digest::Digest;

use crate::clients::{Client, file_system_mirror, one_line};
use crate::network::Server;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::{Mount, Options, finish};
use crate::support::tls::Tls;
use crate::support::{pack, program, wait_until};
use crate::tiny::{self, OTHER};
use crate::{here, names};

const VERSION: &str = "1.0.0";
const KINDS: [&str; 3] = ["one", "tiny", "two"];

/// A provider registry (the protocol `providers.v1`): signed releases of [`KINDS`], as a static
/// tree behind TLS.
struct Origin {
    _server: Server,
    /// `localhost:PORT`.
    host: String,
    authority: PathBuf,
    /// Platform, and the package of each kind.
    packages: Vec<(String, [Vec<u8>; 3])>,
}

impl Origin {
    /// Starts one below `base`; `None`, with the reason printed, where something is not installed.
    fn start(base: &Path) -> Option<Origin> {
        let (gpg, _) = (program("gpg")?, program("python3")?);
        let key = SigningKey::make(gpg, base);
        let tiny = tiny::packages(VERSION)?;
        let mut packages: Vec<_> =
            tiny.into_iter().map(|(platform, zip)| (platform, ["one", "two"], zip)).collect();
        packages.push((
            "darwin_arm64".into(),
            ["one", "two"],
            pack::provider_zip("tiny", VERSION, b"runs elsewhere"),
        ));
        let packages: Vec<(String, [Vec<u8>; 3])> = packages
            .into_iter()
            .map(|(platform, [one, two], tiny)| {
                let zip = |kind| {
                    pack::provider_zip(kind, VERSION, format!("{kind} for {platform}").as_bytes())
                };
                (platform.clone(), [zip(one), tiny, zip(two)])
            })
            .collect();
        let site = base.join("site");
        for (at, kind) in KINDS.iter().enumerate() {
            let files: Vec<_> = packages
                .iter()
                .map(|(platform, zips)| (platform.as_str(), zips[at].as_slice()))
                .collect();
            release(&site, kind, &files, &key);
        }
        fs::create_dir(site.join(".well-known")).unwrap();
        fs::write(site.join(".well-known/terraform.json"), r#"{"providers.v1": "/v1/providers/"}"#)
            .unwrap();
        let [authority, certificate, private] = Tls::new().write(base);
        let server = Server::start(&site, &certificate, &private, &base.join("port"))?;
        let host = format!("localhost:{}", server.port);
        Some(Origin { _server: server, host, authority, packages })
    }

    /// All zips by their names in a mirror.
    fn zips(&self, kind: &str) -> Vec<(String, &[u8])> {
        let at = KINDS.iter().position(|k| *k == kind).unwrap();
        let mut zips: Vec<_> = self
            .packages
            .iter()
            .map(|(platform, zips)| (zip_name(kind, platform), zips[at].as_slice()))
            .collect();
        zips.sort();
        zips
    }
}

fn zip_name(kind: &str, platform: &str) -> String {
    format!("terraform-provider-{kind}_{VERSION}_{platform}.zip")
}

/// A key that signs releases.
struct SigningKey {
    gpg: PathBuf,
    home: PathBuf,
    id: String,
    public: String,
}

impl SigningKey {
    fn make(gpg: PathBuf, base: &Path) -> SigningKey {
        let home = base.join("gnupg");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut key = SigningKey { gpg, home, id: String::new(), public: String::new() };
        key.run(&["--quick-generate-key", "test <test@example.com>", "rsa2048", "sign", "never"]);
        let listed = key.run(&["--with-colons", "--list-keys"]);
        let id = listed
            .lines()
            .find(|line| line.starts_with("pub:"))
            .and_then(|line| line.split(':').nth(4));
        key.id = id.expect("a key").to_owned();
        key.public = key.run(&["--armor", "--export"]);
        key
    }

    fn run(&self, words: &[&str]) -> String {
        let mut command = Command::new(&self.gpg);
        command
            .args(["--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--homedir"])
            .arg(&self.home);
        let output = command.args(words).stdin(Stdio::null()).output().expect("gpg runs");
        assert!(output.status.success(), "gpg {words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn sign(&self, file: &Path) {
        self.run(&["--detach-sign", file.to_str().expect("text")]);
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        // The agent that gpg has started for this directory.
        let mut command = Command::new("gpgconf");
        drop(command.arg("--homedir").arg(&self.home).args(["--kill", "gpg-agent"]).output());
    }
}

/// Writes what a provider registry says of one release.
fn release(site: &Path, kind: &str, packages: &[(&str, &[u8])], key: &SigningKey) {
    let files = site.join("files").join(kind);
    fs::create_dir_all(&files).unwrap();
    let name = format!("terraform-provider-{kind}_{VERSION}_SHA256SUMS");
    let sum = |zip: &[u8]| Digest::of(zip).hex().to_string();
    let sums: String =
        packages.iter().map(|(p, zip)| format!("{}  {}\n", sum(zip), zip_name(kind, p))).collect();
    fs::write(files.join(&name), sums).unwrap();
    key.sign(&files.join(&name));
    let mut platforms = Vec::new();
    for (platform, zip) in packages {
        let (os, arch) = platform.split_once('_').unwrap();
        platforms.push(json!({"os": os, "arch": arch}));
        fs::write(files.join(zip_name(kind, platform)), zip).unwrap();
        let dir = site.join("v1/providers/acme").join(kind).join(VERSION).join("download").join(os);
        fs::create_dir_all(&dir).unwrap();
        let at = |file: &str| format!("/files/{kind}/{file}");
        let download = json!({
            "protocols": ["5.0"], "os": os, "arch": arch, "filename": zip_name(kind, platform),
            "download_url": at(&zip_name(kind, platform)), "shasum": sum(zip),
            "shasums_url": at(&name), "shasums_signature_url": at(&format!("{name}.sig")),
            "signing_keys": {"gpg_public_keys": [{"key_id": key.id, "ascii_armor": key.public}]},
        });
        fs::write(dir.join(arch), download.to_string()).unwrap();
    }
    let versions =
        json!({"versions": [{"version": VERSION, "protocols": ["5.0"], "platforms": platforms}]});
    fs::write(site.join("v1/providers/acme").join(kind).join("versions"), versions.to_string())
        .unwrap();
}

/// A root module that requires `kinds`, and uses the one that runs.
fn root_module(origin: &str, kinds: &[&str]) -> String {
    let lines: String = kinds
        .iter()
        .map(|kind| format!("    {kind} = {{ source = \"{origin}/acme/{kind}\" }}\n"))
        .collect();
    format!(
        "terraform {{\n  required_providers {{\n{lines}  }}\n}}\n\
         data \"tiny_greeting\" \"g\" {{}}\noutput \"said\" {{ value = data.tiny_greeting.g.text }}\n"
    )
}

fn commit(mount: &Mount, path: &str) -> Output {
    let mut command = mount.command("commit");
    command.arg(mount.join(path));
    finish(command)
}

/// Mirrors all providers into staging: two runs, as who adds a platform later does.
fn mirror_in_two_runs(mirroring: &Client, mount: &Mount, origin: &Origin) {
    let staged = mount.join("staging/mirror");
    let platforms: Vec<String> =
        origin.packages.iter().map(|(platform, _)| format!("-platform={platform}")).collect();
    for platforms in [&platforms[..1], &platforms[1..]] {
        let mut words = vec!["providers", "mirror"];
        words.extend(platforms.iter().map(String::as_str));
        words.push(staged.to_str().unwrap());
        mirroring.run(&words);
    }
    for kind in KINDS {
        let dir = staged.join(&origin.host).join("acme").join(kind);
        let mut wanted: Vec<String> = origin.zips(kind).into_iter().map(|(name, _)| name).collect();
        wanted.extend([format!("{VERSION}.json"), "index.json".into()]);
        wanted.sort();
        assert_eq!(names(&dir), wanted, "what the client wrote");
    }

    // Where mirrors are only read, each package and document is refused, and nothing is changed.
    let output = mirroring.output(&[
        "providers",
        "mirror",
        "-no-color",
        mount.join("mirror").to_str().unwrap(),
    ]);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        !output.status.success() && one_line(&said).contains("read-only file system"),
        "{said}"
    );
}

/// The registry tree and `mirror/` hold the zips as the origin has them.
fn are_shown_byte_for_byte(mount: &Mount, host: &str, origin: &Origin) {
    let mirror = mount.join("mirror").join(&origin.host).join("acme");
    for kind in KINDS {
        // The kernel is told from another thread that what was absent is there.
        assert!(wait_until(Duration::from_secs(20), || mirror.join(kind).exists()), "{kind}");
        for (name, zip) in origin.zips(kind) {
            let (_, platform) =
                name.trim_end_matches(".zip").split_once(&format!("_{VERSION}_")).unwrap();
            let there = mount.join(host).join("mirror").join(kind).join(VERSION).join(platform);
            assert!(
                fs::read(there.with_file_name(format!("{platform}.zip"))).unwrap() == *zip,
                "{name}"
            );
            assert_eq!(names(&there).len(), 2);
            assert!(fs::read(mirror.join(kind).join(&name)).unwrap() == *zip, "{name}");
        }
    }
}

fn what_is_mirrored_becomes_releases(name: &str) {
    if program(name).is_none() {
        return;
    }
    let Some(registry) = DockerRegistry::start(Access::Anybody, true) else { return };
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    let Some(origin) = Origin::start(&base) else { return };
    let host = registry.host();
    let authority = registry.ca_file().expect("it speaks TLS");
    let template = format!("{host}/mirror/${{type}}");
    let include = format!("{}/acme/*", origin.host);
    let options = Options::new()
        .args([
            "--ca-file",
            authority.to_str().unwrap(),
            "--oci-mirror",
            &template,
            "--include",
            &include,
        ])
        .args(["--platform", &here(), "--platform", OTHER, "--platform", "darwin_arm64"]);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let client = |label: &str, name: &str, configuration: &str, authority: &Path| {
        let client = Client::new(name, &base, label, configuration).expect("it is installed");
        fs::write(client.dir.join("main.tf"), root_module(&origin.host, &KINDS)).unwrap();
        client.with("SSL_CERT_FILE", authority)
    };

    mirror_in_two_runs(&client("mirroring", name, "", &origin.authority), &mount, &origin);
    let output = commit(&mount, "staging/mirror");
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let repos: Vec<_> =
        lines.lines().map(|line| line.split('@').next().unwrap().to_owned()).collect();
    assert_eq!(repos, KINDS.map(|kind| format!("{host}/mirror/{kind}:{VERSION}")), "{lines}");
    for kind in KINDS {
        assert!(
            !mount.join("staging/mirror").join(&origin.host).join("acme").join(kind).exists(),
            "what is published is staged no longer"
        );
    }

    are_shown_byte_for_byte(&mount, &host, &origin);
    // The clients get them where they are, and OpenTofu without the mount as well.
    let used = |label: &str, name: &str, configuration: &str| {
        let client = client(label, name, configuration, &authority);
        client.run(&["init", "-input=false", "-no-color"]);
        let all = client.lock();
        assert_eq!(all.matches("provider \"").count(), KINDS.len(), "{all}");
        // Those that are required are started, and only one of them runs.
        fs::write(client.dir.join("main.tf"), root_module(&origin.host, &["tiny"])).unwrap();
        client.use_provider();
        client
    };
    let plugins = used("plugins", name, &file_system_mirror(&mount.join("plugins")));
    let installed =
        plugins.dir.join(".terraform/providers").join(&origin.host).join("acme/tiny").join(VERSION);
    assert!(fs::symlink_metadata(installed.join(here())).unwrap().is_symlink());
    if program("tofu").is_some() {
        let configuration = format!(
            "provider_installation {{\n  oci_mirror {{\n    \
             repository_template = \"{template}\"\n    include = [\"{include}\"]\n  }}\n}}\n"
        );
        let direct = used("direct", "tofu", &configuration);
        for hash in plugins.lock().lines().filter(|line| line.contains("\"h1:")) {
            assert!(direct.lock().contains(hash), "{hash}: {}", direct.lock());
        }
    }
}

#[test]
fn what_terraform_mirrors_becomes_releases() {
    what_is_mirrored_becomes_releases("terraform");
}

#[test]
fn what_opentofu_mirrors_becomes_releases() {
    what_is_mirrored_becomes_releases("tofu");
}

/// `oci://` takes what `tofufs push` has published, and unpacks the tree that the mount shows.
#[test]
fn opentofu_takes_a_published_module_from_the_registry_itself() {
    let Some(tofu) = program("tofu") else { return };
    let Some(registry) = DockerRegistry::start(Access::Anybody, true) else { return };
    let (host, authority) = (registry.host(), registry.ca_file().expect("it speaks TLS"));
    let Some(mount) =
        Mount::start(&[&host], Options::new().args(["--ca-file", authority.to_str().unwrap()]))
    else {
        return;
    };
    let base = tempfile::tempdir().unwrap();
    let source = base.path().join("network");
    fs::create_dir_all(source.join("inner")).unwrap();
    fs::write(
        source.join("main.tf"),
        "module \"inner\" { source = \"./inner\" }\noutput \"o\" { value = module.inner.o }\n",
    )
    .unwrap();
    fs::write(source.join("inner/main.tf"), "output \"o\" { value = \"from inside\" }\n").unwrap();
    let mut push = mount.command("push");
    push.arg("--ca-file").arg(&authority).arg(&source).arg(format!("{host}/acme/network:1.3.0"));
    let output = finish(push);
    assert!(output.status.success(), "{output:?}");
    let line = String::from_utf8(output.stdout).unwrap();
    let digest = line.trim_end().rsplit_once('@').expect("a digest").1;

    for (label, source) in [
        ("tag", format!("oci://{host}/acme/network?tag=1.3.0")),
        ("digest", format!("oci://{host}/acme/network?digest={digest}")),
        ("path", mount.join(&host).join("acme/network/1.3.0").display().to_string()),
    ] {
        let work = base.path().join(label);
        fs::create_dir(&work).unwrap();
        let root = format!(
            "module \"m\" {{ source = \"{source}\" }}\noutput \"o\" {{ value = module.m.o }}\n"
        );
        fs::write(work.join("main.tf"), root).unwrap();
        let run = |words: &[&str]| {
            let mut command = Command::new(&tofu);
            command
                .args(words)
                .current_dir(&work)
                .env_clear()
                .env("HOME", base.path())
                .env("SSL_CERT_FILE", &authority);
            let output = command.stdin(Stdio::null()).output().expect("tofu runs");
            assert!(output.status.success(), "{label} {words:?}: {output:?}");
        };
        run(&["init", "-no-color"]);
        run(&["apply", "-no-color", "-auto-approve"]);
        assert!(
            fs::read_to_string(work.join("terraform.tfstate")).unwrap().contains("from inside"),
            "{label}"
        );
        let module = work.join(".terraform/modules/m");
        let listed = names(&module);
        assert_eq!(listed, ["inner", "main.tf"], "{label}");
        for file in ["main.tf", "inner/main.tf"] {
            assert_eq!(
                fs::read(module.join(file)).unwrap(),
                fs::read(base.path().join("network").join(file)).unwrap()
            );
        }
    }
}
