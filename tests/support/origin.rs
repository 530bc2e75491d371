//! A scripted provider registry behind TLS, whose releases are signed by real GnuPG.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tofufs::digest::Digest;

use super::gnupg::GnuPg;
use super::hostile::{Behaviour, Hostile, Reply, path};
use super::pack;
use super::tls::Tls;

/// The platforms of every release.
pub const PLATFORMS: [&str; 3] = ["darwin_arm64", "linux_amd64", "linux_arm64"];

/// The registry, and what it publishes.
pub struct Origin {
    pub server: Hostile,
    pub gpg: GnuPg,
    pub key: String,
    /// `localhost:PORT`
    pub host: String,
    pub authority: PathBuf,
    /// Where services are: its own address, unless another one serves them.
    pub services: String,
    /// Where files are.
    pub files: String,
    /// Whether a `_manifest.json` belongs to each release.
    pub with_manifest: bool,
    versions: BTreeMap<String, BTreeMap<String, Value>>,
}

/// One release, as it was published.
pub struct Published {
    pub kind: String,
    pub version: String,
    pub zips: BTreeMap<String, Vec<u8>>,
    pub sums: String,
    pub signature: Vec<u8>,
    pub manifest: Option<Vec<u8>>,
}

impl Published {
    pub fn file(&self, what: &str) -> String {
        format!("terraform-provider-{}_{}_{what}", self.kind, self.version)
    }

    /// Where the zip for a platform is.
    pub fn zip_path(&self, platform: &str) -> String {
        format!("/files/{}", self.file(&format!("{platform}.zip")))
    }

    /// Where its download document is.
    pub fn download_path(&self, platform: &str) -> String {
        let platform = platform.replace('_', "/");
        format!("/v1/providers/acme/{}/{}/download/{platform}", self.kind, self.version)
    }

    pub fn sums_path(&self) -> String {
        format!("/files/{}", self.file("SHA256SUMS"))
    }

    pub fn signature_path(&self) -> String {
        format!("{}.sig", self.sums_path())
    }
}

impl Origin {
    /// One without releases; `None`, with the reason printed, without GnuPG.
    pub fn start(base: &Path) -> Option<Origin> {
        let tls = Tls::new();
        let [authority, ..] = tls.write(base);
        Origin::start_with(&tls, authority)
    }

    /// One whose certificate is of an authority that others use, too.
    pub fn start_with(tls: &Tls, authority: PathBuf) -> Option<Origin> {
        let gpg = GnuPg::new()?;
        let key = gpg.key("vendor", "rsa2048", "never");
        let server = Hostile::start_tls(Arc::new(tls.server()));
        let host = format!("localhost:{}", server.addr().port());
        let origin = Origin {
            services: "/v1/providers/".to_owned(),
            files: format!("https://{host}"),
            server,
            gpg,
            key,
            host,
            authority,
            with_manifest: true,
            versions: BTreeMap::new(),
        };
        // It is no OCI registry.
        origin.server.rule(|_| true, Behaviour::Answer(Reply::new(404, "text/plain", "not found")));
        origin.discovery(&origin.services.clone());
        Some(origin)
    }

    pub fn discovery(&self, services: &str) {
        let document = json!({ "modules.v1": "/v1/modules/", "providers.v1": services });
        self.answer("/.well-known/terraform.json", json_reply(&document));
    }

    pub fn answer(&self, at: &str, reply: Reply) {
        self.server.rule(path(at), Behaviour::Answer(reply));
    }

    /// Publishes `acme/KIND VERSION` for all platforms, signed by the vendor's key.
    pub fn publish(&mut self, kind: &str, version: &str) -> Published {
        let mut release = self.unsigned(kind, version);
        release.signature = self.gpg.sign(&self.key, release.sums.as_bytes(), &[]);
        self.serve(&release, &[self.gpg.export(&self.key)]);
        release
    }

    /// Such a release, which nobody has signed and for which nothing answers yet.
    pub fn unsigned(&self, kind: &str, version: &str) -> Published {
        let zips = PLATFORMS
            .iter()
            .map(|platform| {
                let content = format!("{kind} {version} for {platform}");
                ((*platform).to_owned(), pack::provider_zip(kind, version, content.as_bytes()))
            })
            .collect();
        let mut release = Published {
            kind: kind.to_owned(),
            version: version.to_owned(),
            zips,
            sums: String::new(),
            signature: Vec::new(),
            manifest: None,
        };
        if self.with_manifest {
            let text = r#"{"version": 1, "metadata": {"protocol_versions": ["5.0"]}}"#;
            release.manifest = Some(text.into());
        }
        let line = |bytes: &[u8], name: &str| format!("{}  {name}\n", Digest::of(bytes).hex());
        for (platform, zip) in &release.zips {
            release.sums += &line(zip, &release.file(&format!("{platform}.zip")));
        }
        if let Some(manifest) = &release.manifest {
            release.sums += &line(manifest, &release.file("manifest.json"));
        }
        release
    }

    /// Answers for a release, with these keys.
    pub fn serve(&mut self, release: &Published, keys: &[String]) {
        let files = |bytes: &[u8]| Reply::new(200, "application/octet-stream", bytes);
        for (platform, zip) in &release.zips {
            self.answer(&release.zip_path(platform), files(zip).with("ETag", "\"one\""));
            let download = self.download(release, platform, keys);
            self.answer(&release.download_path(platform), json_reply(&download));
        }
        self.answer(&release.sums_path(), files(release.sums.as_bytes()));
        self.answer(&release.signature_path(), files(&release.signature));
        if let Some(manifest) = &release.manifest {
            let at = format!("/files/{}", release.file("manifest.json"));
            self.answer(&at, Reply::new(200, "application/json", manifest.clone()));
        }
        let platforms: Vec<Value> = release
            .zips
            .keys()
            .filter_map(|platform| platform.split_once('_'))
            .map(|(os, arch)| json!({ "os": os, "arch": arch }))
            .collect();
        let about =
            json!({ "version": release.version, "protocols": ["5.0"], "platforms": platforms });
        let versions = self.versions.entry(release.kind.clone()).or_default();
        versions.insert(release.version.clone(), about);
        let list = json!({ "versions": versions.values().collect::<Vec<_>>() });
        self.answer(&format!("/v1/providers/acme/{}/versions", release.kind), json_reply(&list));
    }

    /// The download document of a platform.
    pub fn download(&self, release: &Published, platform: &str, keys: &[String]) -> Value {
        let (os, arch) = platform.split_once('_').expect("OS_ARCH");
        let keys: Vec<Value> =
            keys.iter().map(|key| json!({ "key_id": "x", "ascii_armor": key })).collect();
        let at = |path: String| format!("{}{path}", self.files);
        json!({
            "protocols": ["5.0"], "os": os, "arch": arch,
            "filename": release.file(&format!("{platform}.zip")),
            "shasum": Digest::of(&release.zips[platform]).hex(),
            "download_url": at(release.zip_path(platform)),
            "shasums_url": at(release.sums_path()),
            "shasums_signature_url": at(release.signature_path()),
            "signing_keys": { "gpg_public_keys": keys },
        })
    }

    /// How many requests for zips came.
    pub fn zips_sent(&self) -> usize {
        self.server.requests().iter().filter(|seen| seen.path.ends_with(".zip")).count()
    }
}

pub fn json_reply(value: &Value) -> Reply {
    Reply::new(200, "application/json", value.to_string())
}
