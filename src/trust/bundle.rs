//! Signatures as they are stored: Sigstore bundles with a DSSE envelope, and layers with a "simple
//! signing" document.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::key::PublicKey;
use super::signing::{SigningKey, SigningKeyError};
use super::statement::{Statement, TAG};
use crate::digest::Digest;
use crate::name::{Repo, Tag};
use crate::oci::strict;

/// Media type of the bundles that are written.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The largest bundle that is read, in bytes.
pub const BUNDLE_MAX: u64 = 1 << 20;
/// The annotation of a signature's manifest that hints at the key, so that lists tell it.
pub const HINT: &str = "org.tofufs.key";
/// The annotation of a signature's manifest that hints at the tag for which it is.
pub const TAG_HINT: &str = TAG;
/// Media type of a layer with a "simple signing" document.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of such a layer that holds the signature.
pub const SIMPLE_SIGNATURE: &str = "dev.cosignproject.cosign/signature";

const IN_TOTO: &str = "application/vnd.in-toto+json";
const MEDIA_TYPES: [&str; 5] = [
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json",
];
/// Under which keys a bundle has a certificate.
const CERTIFICATES: [&str; 2] = ["certificate", "x509CertificateChain"];

/// A statement with its signature, which nobody has checked yet.
#[derive(Clone, Debug)]
pub struct SignedStatement {
    pub statement: Statement,
    /// The bytes that were signed.
    pub(super) message: Vec<u8>,
    pub(super) signature: Vec<u8>,
    /// The bundle that it was read from, if it was one.
    pub(super) bundle: Option<String>,
    /// Whether a certificate says who signed.
    pub(super) has_certificate: bool,
    /// What the bundle says of the key; never more than a hint.
    pub hint: Option<String>,
    /// The statement as it was written.
    pub payload: Vec<u8>,
}

impl SignedStatement {
    /// Reads a Sigstore bundle.
    ///
    /// # Errors
    /// It is none that is understood.
    pub fn read_bundle(bytes: &[u8]) -> Result<SignedStatement, String> {
        let value = strict::parse(bytes)?;
        match value.get("mediaType").and_then(Value::as_str) {
            Some(media_type) if MEDIA_TYPES.contains(&media_type) => {}
            _ => return Err("it is no Sigstore bundle of a known version".to_owned()),
        }
        if value.get("messageSignature").is_some() {
            return Err(
                "it signs bytes and no statement; sign again with cosign 3 or tofufs".to_owned()
            );
        }
        let envelope = value.get("dsseEnvelope").ok_or("the bundle has no DSSE envelope")?;
        let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
        let payload_type = text(envelope, "payloadType").unwrap_or_default();
        if payload_type != IN_TOTO {
            return Err("its payload is no in-toto statement".to_owned());
        }
        let decode = |text: Option<String>| {
            STANDARD.decode(text.unwrap_or_default()).map_err(|_| "it is no base64".to_owned())
        };
        let payload = decode(text(envelope, "payload"))?;
        let signature =
            match envelope.get("signatures").and_then(Value::as_array).map(Vec::as_slice) {
                Some([one]) => decode(text(one, "sig"))?,
                _ => return Err("it has not exactly one signature".to_owned()),
            };
        let material = value.get("verificationMaterial");
        let key = material.and_then(|material| material.get("publicKey"));
        let hint = key.and_then(|key| text(key, "hint"));
        let has_certificate = material.is_some_and(|material| {
            CERTIFICATES.iter().any(|certificate| material.get(certificate).is_some())
        });
        let message = pre_authentication(&payload_type, &payload);
        let statement = Statement::read(&payload)?;
        let bundle = String::from_utf8(bytes.to_vec()).ok();
        Ok(SignedStatement {
            statement,
            message,
            signature,
            bundle,
            has_certificate,
            hint,
            payload,
        })
    }

    /// Reads a "simple signing" document and its signature.
    ///
    /// # Errors
    /// It is none that is understood.
    pub fn read_simple(payload: Vec<u8>, signature: &str) -> Result<SignedStatement, String> {
        let statement = Statement::read_simple(&payload)?;
        let signature = STANDARD.decode(signature).map_err(|_| "the signature is no base64")?;
        Ok(SignedStatement {
            statement,
            message: payload.clone(),
            signature,
            bundle: None,
            has_certificate: false,
            hint: None,
            payload,
        })
    }

    /// Whether `key` made the signature.
    pub fn is_by(&self, key: &PublicKey) -> bool {
        key.verifies(&self.message, &self.signature)
    }

    /// A bundle by which `key` approves a release. The same release by the same name is the same
    /// statement.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn sign(
        key: &SigningKey,
        digest: &Digest,
        repo: &Repo,
        tag: Option<&Tag>,
    ) -> Result<Vec<u8>, SigningKeyError> {
        let payload = Statement::approving(digest, repo, tag);
        let signature = key.sign(&pre_authentication(IN_TOTO, &payload))?;
        let bundle = json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": key.public().hint()}},
            "dsseEnvelope": {
                "payload": STANDARD.encode(&payload),
                "payloadType": IN_TOTO,
                "signatures": [{"sig": STANDARD.encode(signature)}],
            },
        });
        Ok(bundle.to_string().into_bytes())
    }
}

/// What a DSSE signature is made over (DSSE v1, "PAE").
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}
