//! A provider registry of plain files, as the clients' own `direct` source asks it: with a signed
//! list of checksums.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::ORIGIN;
use crate::support::program;
use crate::tiny;

const VERSION: &str = "1.0.0";

/// GnuPG with a key ring of its own.
struct Keys<'a> {
    home: &'a Path,
}

impl Keys<'_> {
    fn run(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(name);
        command.args(arguments).env("GNUPGHOME", self.home).stdin(Stdio::null());
        let output = command.output().expect("GnuPG runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Keys<'_> {
    fn drop(&mut self) {
        // It would outlive its key ring.
        self.run("gpgconf", &["--kill", "all"]);
    }
}

/// Writes the registry's files for `acme/tiny` below `top`; `None`, with the reason printed,
/// without GnuPG.
pub fn write(top: &Path) -> Option<()> {
    let gpg = program("gpg")?;
    let gpg = gpg.to_str().expect("text");
    // The path of an agent's socket must be short.
    let home = tempfile::Builder::new().prefix("k").tempdir().expect("a temporary directory");
    let keys = Keys { home: home.path() };
    let batch = ["--batch", "--quiet", "--passphrase", ""];
    keys.run(
        gpg,
        &[&batch[..], &["--quick-gen-key", "tests", "rsa2048", "sign", "never"]].concat(),
    );
    let key = keys.run(gpg, &["--batch", "--armor", "--export"]);

    let (files, about) = (top.join("files"), top.join("v1/providers/acme/tiny"));
    fs::create_dir_all(&files).expect("a writable directory");
    let (mut sums, mut platforms) = (String::new(), Vec::new());
    for (platform, zip) in tiny::packages(VERSION)? {
        let (os, arch) = platform.split_once('_').expect("OS_ARCH");
        let name = format!("terraform-provider-tiny_{VERSION}_{platform}.zip");
        let sum = tofufs::digest::Digest::of(&zip).hex().to_string();
        fs::write(files.join(&name), zip).expect("a writable directory");
        sums += &format!("{sum}  {name}\n");
        platforms.push(json!({ "os": os, "arch": arch }));
        let download = json!({
            "protocols": ["5.0"], "os": os, "arch": arch, "filename": name, "shasum": sum,
            "download_url": format!("/files/{name}"), "shasums_url": "/files/sums",
            "shasums_signature_url": "/files/sums.sig",
            "signing_keys": { "gpg_public_keys": [{ "key_id": "tests", "ascii_armor": key }] },
        });
        let dir = about.join(VERSION).join("download").join(os);
        fs::create_dir_all(&dir).expect("a writable directory");
        fs::write(dir.join(arch), download.to_string()).expect("a writable directory");
    }
    let versions = json!({ "versions": [{ "version": VERSION, "protocols": ["5.0"], "platforms": platforms }] });
    fs::write(about.join("versions"), versions.to_string()).expect("a writable directory");
    let list = files.join("sums");
    fs::write(&list, sums).expect("a writable directory");
    let list = list.to_str().expect("text");
    keys.run(
        gpg,
        &[&batch[..], &["--detach-sign", "--output", &format!("{list}.sig"), list]].concat(),
    );
    Some(())
}

/// What has the clients look for the providers of [`ORIGIN`] there.
pub fn configuration(port: u16) -> String {
    let url = format!("https://127.0.0.1:{port}/v1/providers/");
    format!("host \"{ORIGIN}\" {{\n  services = {{\n    \"providers.v1\" = \"{url}\"\n  }}\n}}\n")
}
