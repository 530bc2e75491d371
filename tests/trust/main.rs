//! Signed or not opened: policies, signatures, and what a mount refuses by them.

mod conditions;
mod costs;
mod documents;
mod evidence;
mod gap;
mod gate;
mod keyless;
mod listed;
mod mounted;
mod namespace;
mod publishing;
mod signing;
mod sigstore;
mod statements;
mod vectors;
mod vendors;

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::io::Errno;
use serde_json::json;
use support::hostile::Hostile;
use support::mount::Mount;
use support::pack::{self, Artifact};
use tofufs::digest::Digest;
use tofufs::name::{Repo, Tag};
use tofufs::oci::IMAGE;
use tofufs::trust::bundle::{BUNDLE, SIMPLE_SIGNATURE, SIMPLE_SIGNING, SignedStatement};
use tofufs::trust::signing::SigningKey;

/// A private key as the text of its file.
pub fn private_key() -> String {
    let random = ring::rand::SystemRandom::new();
    let der = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    pem(der.as_ref())
}

/// The same over P-256.
pub fn p256_key() -> String {
    let random = ring::rand::SystemRandom::new();
    let kind = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    pem(ring::signature::EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap().as_ref())
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

/// A directory with a key, a policy that wants it, and homes for programs.
pub struct Trust {
    pub dir: tempfile::TempDir,
    pub key: SigningKey,
}

impl Trust {
    pub fn by_new_key() -> Trust {
        Trust::with(&p256_key())
    }

    pub fn with(private: &str) -> Trust {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::from_pem(private).unwrap();
        fs::write(dir.path().join("acme.pub"), key.public().to_pem()).unwrap();
        fs::write(dir.path().join("acme.key"), private).unwrap();
        let only_mine = fs::Permissions::from_mode(0o600);
        fs::set_permissions(dir.path().join("acme.key"), only_mine).unwrap();
        Trust { dir, key }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a policy by which `place` has to be signed by the key, with more rules for it.
    pub fn policy(&self, place: &str, more: &str) -> PathBuf {
        let text = format!(
            "default = \"refuse\"\nsigner \"acme\" {{\n  keys = [\"acme.pub\"]\n}}\n\
             scope \"{place}\" {{\n  signed_by = [\"acme\"]\n  {more}\n}}\n"
        );
        self.write_policy(&text)
    }

    pub fn write_policy(&self, text: &str) -> PathBuf {
        let path = self.path("policy.hcl");
        fs::write(&path, text).unwrap();
        path
    }

    /// A bundle by which the key approves.
    pub fn approves(&self, digest: Digest, repo: &Repo, tag: Option<&str>) -> Vec<u8> {
        let tag = tag.map(|tag| tag.parse::<Tag>().unwrap());
        SignedStatement::sign(&self.key, &digest, repo, tag.as_ref()).unwrap()
    }

    /// Runs `tofufs` with a registry that is spoken to without TLS.
    pub fn run(&self, host: &str, words: &[&str]) -> Output {
        let mut command = Command::new(support::world::program());
        command.args(words).args(["--plain-http", host]).current_dir(self.dir.path());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).stdin(Stdio::null());
        support::mount::finish(command)
    }

    /// The lines of one that succeeds.
    #[track_caller]
    pub fn ran(&self, host: &str, words: &[&str]) -> Vec<String> {
        let output = self.run(host, words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// What is said by one that fails so.
    #[track_caller]
    pub fn failed(&self, host: &str, words: &[&str], code: i32) -> String {
        let output = self.run(host, words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8(said).unwrap()
    }
}

/// A registry that makes lists of referrers, and a key that a policy may want.
pub struct TrustBed {
    pub server: Hostile,
    pub trust: Trust,
    pub host: String,
}

impl TrustBed {
    pub fn start() -> TrustBed {
        let (server, trust) = (Hostile::start(), Trust::by_new_key());
        server.list_referrers();
        let host = server.host();
        TrustBed { server, trust, host }
    }

    /// A directory of a module, to publish from.
    pub fn with_source() -> TrustBed {
        let bed = TrustBed::start();
        fs::create_dir(bed.trust.path("net")).unwrap();
        fs::write(bed.trust.path("net/main.tf"), "# net\n").unwrap();
        bed
    }
}

pub fn repo(server: &Hostile, name: &str) -> Repo {
    Repo { host: server.host().parse().unwrap(), name: name.parse().unwrap() }
}

pub fn module(text: &str) -> Artifact {
    pack::module(&[("main.tf", text.as_bytes())])
}

/// Has a document speak about `subject` in a registry; the digest of its manifest.
pub fn speak(server: &Hostile, repo: &str, subject: Digest, kind: &str, content: &[u8]) -> Digest {
    let text = json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json",
            "digest": server.put_blob(b"{}").to_string(), "size": 2},
        "layers": [{"mediaType": kind, "digest": server.put_blob(content).to_string(),
            "size": content.len()}],
        "subject": {"mediaType": IMAGE, "digest": subject.to_string(), "size": 7}});
    server.put_manifest(repo, None, IMAGE, text.to_string().as_bytes())
}

/// Puts a signature beside a release.
pub fn sign(server: &Hostile, trust: &Trust, name: &str, digest: Digest, tag: Option<&str>) {
    let bundle = trust.approves(digest, &repo(server, name), tag);
    speak(server, name, digest, BUNDLE, &bundle);
}

/// Puts a signature as cosign 2 kept it: under a tag, in an annotation of its layer.
pub fn sign_as_cosign_2(server: &Hostile, trust: &Trust, name: &str, digest: Digest) -> Digest {
    let payload = json!({"critical": {"identity": {"docker-reference": "r"},
        "image": {"docker-manifest-digest": digest.to_string()},
        "type": "cosign container image signature"}, "optional": null})
    .to_string();
    let signature = STANDARD.encode(trust.key.sign(payload.as_bytes()).unwrap());
    let text = json!({"schemaVersion": 2, "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": server.put_blob(b"{}").to_string(), "size": 2},
        "layers": [{"mediaType": SIMPLE_SIGNING, "size": payload.len(),
            "digest": server.put_blob(payload.as_bytes()).to_string(),
            "annotations": {SIMPLE_SIGNATURE: signature}}]});
    let tag = format!("sha256-{}.sig", digest.hex());
    server.put_manifest(name, Some(&tag), IMAGE, text.to_string().as_bytes())
}

pub fn errno<T>(outcome: std::io::Result<T>) -> Option<Errno> {
    outcome.err().and_then(|e| Errno::from_io_error(&e))
}

/// What entering a release gives: the text of its `main.tf`, or the error.
pub fn main_tf(mount: &Mount, release: impl AsRef<Path>) -> Result<String, Errno> {
    let dir = mount.join(release);
    let listed = fs::read_dir(&dir).map(Iterator::count);
    let text = fs::read_to_string(dir.join("main.tf"));
    let of = |e: std::io::Error| Errno::from_io_error(&e).unwrap();
    assert_eq!(listed.is_ok(), text.is_ok(), "{listed:?} {text:?}");
    text.map_err(of)
}

pub fn refresh(mount: &Mount, path: &str) -> Output {
    support::mount::finish({
        let mut command = mount.command("refresh");
        command.arg(mount.join(path));
        command
    })
}
