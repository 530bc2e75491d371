//! All vectors of sigstore-conformance through the library that checks keyless signatures, so that a
//! new version of it is held against them. Signatures of digests, which tofufs refuses, are checked
//! by `openssl` here.

#[path = "support/vectors.rs"]
mod vectors;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use sigstore_verify::crypto::{
    Error, HashContext, Result, SigningScheme, install_default_provider, provider::CryptoProvider,
};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Bundle, DerPublicKey, HashAlgorithm};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, Verifier};
use tofufs::trust::keyless::RingProvider;
use vectors::Vector;

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

fn verified(vector: &Vector) -> std::result::Result<(), String> {
    let words = |e: &dyn std::fmt::Display| e.to_string();
    let root = TrustedRoot::from_json(&vector.trusted_root()).map_err(|e| words(&e))?;
    let verifier = Verifier::new(&root).map_err(|e| words(&e))?;
    let bundle = String::from_utf8(vector.bundle()).map_err(|e| words(&e))?;
    let bundle = Bundle::from_json(&bundle).map_err(|e| words(&e))?;
    let artifact = vector.artifact();
    let outcome = match vector.key() {
        Some(key) => {
            let key = DerPublicKey::from_pem(&key).map_err(|e| words(&e))?;
            verifier.verify(&artifact, &bundle, &PublicKeyVerificationPolicy::new(key))
        }
        None => {
            let policy = VerificationPolicy::new(vector.identity(), vector.issuer());
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
    let (mut passed, mut refused, mut wrong) = (0, 0, Vec::new());
    for vector in vectors::all() {
        let outcome = verified(&vector);
        if outcome.is_ok() != vector.is_good() {
            wrong.push(format!("{}: {outcome:?}", vector.name));
        }
        *if outcome.is_ok() { &mut passed } else { &mut refused } += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((passed, refused), (21, 49));
}
