//! All vectors of sigstore-conformance through the library that checks keyless signatures, so that a
//! new version of it is held against them. Signatures of digests, which tofufs refuses, are checked
//! by `openssl` here.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sigstore_verify::crypto::{
    Error, HashContext, Result, SigningScheme, install_default_provider, provider::CryptoProvider,
};
use sigstore_verify::trust_root::{SIGSTORE_PRODUCTION_TRUSTED_ROOT, TrustedRoot};
use sigstore_verify::types::{Bundle, DerPublicKey, HashAlgorithm};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, Verifier};
use tofufs::trust::keyless::RingProvider;

const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
const ISSUER: &str = "https://token.actions.githubusercontent.com";
/// What keys over P-256 begin with as SubjectPublicKeyInfo.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// As tofufs checks, and signatures of digests beside.
#[derive(Debug)]
struct WithDigests;

impl CryptoProvider for WithDigests {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        RingProvider.hash(algorithm)
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        RingProvider.verify_raw(scheme, key, data, signature)
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        assert_eq!(scheme, SigningScheme::EcdsaP256Sha256, "no vector has another");
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        write("key", &[P256, key].concat());
        write("digest", digest);
        write("signature", signature);
        let words = "pkeyutl -verify -pubin -keyform DER -inkey key -in digest -sigfile signature";
        let status = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("openssl");
        if status.success() { Ok(()) } else { Err(Error::Verification("openssl".to_owned())) }
    }
}

fn verified(dir: &Path) -> std::result::Result<(), String> {
    let words = |e: &dyn std::fmt::Display| e.to_string();
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let root = read("trusted_root.json").unwrap_or(SIGSTORE_PRODUCTION_TRUSTED_ROOT.to_owned());
    let root = TrustedRoot::from_json(&root).map_err(|e| words(&e))?;
    let verifier = Verifier::new(&root).map_err(|e| words(&e))?;
    let bundle = read("bundle.sigstore.json").ok_or("it is no text")?;
    let bundle = Bundle::from_json(&bundle).map_err(|e| words(&e))?;
    let artifact = fs::read(dir.join("artifact")).or_else(|_| fs::read(dir.join("../a.txt")));
    let artifact = artifact.unwrap();
    let outcome = match read("key.pub") {
        Some(key) => {
            let key = DerPublicKey::from_pem(&key).map_err(|e| words(&e))?;
            verifier.verify(&artifact, &bundle, &PublicKeyVerificationPolicy::new(key))
        }
        None => {
            let named = |name: &str, default: &str| {
                read(name).map_or(default.to_owned(), |text| text.trim().to_owned())
            };
            let policy =
                VerificationPolicy::new(named("identity", IDENTITY), named("issuer", ISSUER));
            verifier.verify(&artifact, &bundle, &policy)
        }
    };
    outcome.map(drop).map_err(|e| words(&e))
}

#[test]
fn the_library_passes_all_vectors() {
    if Command::new("openssl").arg("version").output().is_err() {
        let _ = writeln!(std::io::stderr(), "skipped: no openssl");
        return;
    }
    install_default_provider(&WithDigests).expect("the first in this process");
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sigstore-conformance");
    let (mut passed, mut refused, mut wrong) = (0, 0, Vec::new());
    for entry in fs::read_dir(all).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        let outcome = verified(&entry.path());
        if outcome.is_ok() == name.ends_with("_fail") {
            wrong.push(format!("{name}: {outcome:?}"));
        }
        *if outcome.is_ok() { &mut passed } else { &mut refused } += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((passed, refused), (21, 49));
}
