//! Real GnuPG with a key ring of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::program;

/// A key ring. Its agent ends with it.
pub struct GnuPg {
    home: tempfile::TempDir,
    program: PathBuf,
}

impl GnuPg {
    /// An empty one; `None`, with the reason printed, without GnuPG.
    pub fn new() -> Option<GnuPg> {
        let program = program("gpg")?;
        // The path of an agent's socket must be short.
        let home = tempfile::Builder::new().prefix("k").tempdir().expect("a temporary directory");
        Some(GnuPg { home, program })
    }

    fn output(&self, program: &Path, words: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(words).env("GNUPGHOME", self.home.path()).stdin(Stdio::null());
        command.output().expect("GnuPG runs")
    }

    /// Runs what must succeed.
    pub fn run(&self, words: &[&str]) -> Vec<u8> {
        let batch =
            ["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""];
        let output = self.output(&self.program, &[&batch[..], words].concat());
        assert!(output.status.success(), "gpg {words:?}: {output:?}");
        output.stdout
    }

    /// Makes a key; its fingerprint.
    pub fn key(&self, name: &str, algorithm: &str, expires: &str) -> String {
        self.run(&["--quick-generate-key", name, algorithm, "sign", expires]);
        self.fingerprint(name)
    }

    /// Makes one in the year 2020 that has expired since.
    pub fn expired_key(&self, name: &str) -> String {
        let then = "--faked-system-time=20200101T000000";
        self.run(&[then, "--quick-generate-key", name, "rsa2048", "sign", "1y"]);
        self.fingerprint(name)
    }

    /// The fingerprint of a key by a part of its name.
    pub fn fingerprint(&self, name: &str) -> String {
        let listed = self.run(&["--with-colons", "--list-keys", name]);
        let listed = String::from_utf8(listed).expect("text");
        let line = listed.lines().find(|line| line.starts_with("fpr:")).expect("a key");
        line.split(':').nth(9).expect("a fingerprint").to_owned()
    }

    /// The armored public key.
    pub fn export(&self, key: &str) -> String {
        String::from_utf8(self.run(&["--armor", "--export", key])).expect("text")
    }

    /// Revokes a key by the certificate that was made with it.
    pub fn revoke(&self, key: &str) {
        let file = self.home.path().join(format!("openpgp-revocs.d/{key}.rev"));
        let text = std::fs::read_to_string(&file).expect("a certificate of revocation");
        // A colon keeps it from being imported by mistake.
        let armed = text.replace("\n:-----BEGIN", "\n-----BEGIN");
        std::fs::write(&file, armed).expect("a writable directory");
        self.run(&["--import", file.to_str().expect("text")]);
    }

    /// A detached signature of `document`; words go before the command, as of the time.
    pub fn sign(&self, key: &str, document: &[u8], words: &[&str]) -> Vec<u8> {
        let file = self.home.path().join("document");
        std::fs::write(&file, document).expect("a writable directory");
        let key = format!("{key}!");
        let sign = ["--local-user", &key, "--output", "-", "--detach-sign", file.to_str().unwrap()];
        self.run(&[words, &sign[..]].concat())
    }

    /// Whether the tool that checks signatures says that one is good by a key of `keys`, an
    /// exported key ring, or was by one that has expired.
    pub fn is_good(&self, keys: &[u8], document: &[u8], signature: &[u8]) -> bool {
        let path = |name: &str, bytes: &[u8]| {
            let path = self.home.path().join(name);
            std::fs::write(&path, bytes).expect("a writable directory");
            path.to_str().expect("text").to_owned()
        };
        let (ring, document, signature) =
            (path("ring.gpg", keys), path("checked", document), path("checked.sig", signature));
        let words = ["--keyring", &ring, "--status-fd", "1", &signature, &document];
        let said = self.output(Path::new("gpgv"), &words).stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        said.lines().any(|line| {
            ["[GNUPG:] GOODSIG", "[GNUPG:] EXPKEYSIG"].iter().any(|good| line.starts_with(good))
        })
    }
}

impl Drop for GnuPg {
    fn drop(&mut self) {
        // It would outlive its key ring.
        self.output(Path::new("gpgconf"), &["--kill", "all"]);
    }
}
