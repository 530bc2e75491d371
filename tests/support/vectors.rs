//! The vectors of sigstore-conformance, in `tests/data/sigstore-conformance`.

use std::fs;
use std::path::{Path, PathBuf};

const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
const ISSUER: &str = "https://token.actions.githubusercontent.com";

/// A signature, and what it is held against.
pub struct Vector {
    pub name: String,
    dir: PathBuf,
}

/// All of them.
pub fn all() -> Vec<Vector> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sigstore-conformance");
    let dirs = fs::read_dir(all).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let vector = |entry: fs::DirEntry| Vector {
        name: entry.file_name().into_string().unwrap(),
        dir: entry.path(),
    };
    dirs.map(vector).collect()
}

impl Vector {
    /// Whether it is to pass.
    pub fn is_good(&self) -> bool {
        !self.name.ends_with("_fail")
    }

    pub fn bundle(&self) -> Vec<u8> {
        fs::read(self.dir.join("bundle.sigstore.json")).unwrap()
    }

    /// What was signed.
    pub fn artifact(&self) -> Vec<u8> {
        let artifact = fs::read(self.dir.join("artifact"));
        artifact.or_else(|_| fs::read(self.dir.join("../a.txt"))).unwrap()
    }

    /// The key, where one signed.
    pub fn key(&self) -> Option<String> {
        self.text("key.pub")
    }

    pub fn trusted_root(&self) -> String {
        let public = sigstore_verify::trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;
        self.text("trusted_root.json").unwrap_or_else(|| public.to_owned())
    }

    pub fn identity(&self) -> String {
        self.text("identity").unwrap_or_else(|| IDENTITY.to_owned())
    }

    pub fn issuer(&self) -> String {
        self.text("issuer").unwrap_or_else(|| ISSUER.to_owned())
    }

    fn text(&self, name: &str) -> Option<String> {
        Some(fs::read_to_string(self.dir.join(name)).ok()?.trim().to_owned())
    }
}
