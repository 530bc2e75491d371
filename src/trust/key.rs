//! Public keys, and signatures that were made by them: ECDSA over P-256 with SHA-256, and Ed25519.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};

use crate::digest::Digest;

/// What a P-256 key begins with as SubjectPublicKeyInfo; its point follows, uncompressed.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same of an Ed25519 key.
const ED: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Object identifiers by which keys of other kinds are named in a sentence.
const OTHERS: [(&[u8], &str); 5] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01], "an RSA key"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x22], "an ECDSA key over P-384"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "an ECDSA key over P-521"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], "an ECDSA key over secp256k1"),
    (&[0x2b, 0x65, 0x71], "an Ed448 key"),
];

/// How a key signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    P256,
    Ed25519,
}

/// A key by which signatures are checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey {
    kind: KeyKind,
    /// The point or the bytes of the key.
    bytes: Vec<u8>,
}

/// Why a text is no key that can be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    #[error("it is no PEM text of a public key (-----BEGIN PUBLIC KEY-----)")]
    NotPem,
    #[error("it is a private key; name the public one")]
    Private,
    #[error("it is an OpenPGP key; name it in openpgp")]
    OpenPgp,
    #[error("it is a certificate; name the public key that is in it")]
    Certificate,
    #[error("it is {0}; a key over P-256 or an Ed25519 key is wanted")]
    Kind(&'static str),
}

impl PublicKey {
    /// Reads the PEM text of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// It is none, or of a kind that is not used.
    pub fn from_pem(text: &str) -> Result<PublicKey, KeyError> {
        let der = match pem(text, "PUBLIC KEY") {
            Some(der) => der,
            None if text.contains("BEGIN PGP PUBLIC KEY BLOCK-----") => {
                return Err(KeyError::OpenPgp);
            }
            None if text.contains("PRIVATE KEY-----") => return Err(KeyError::Private),
            None if text.contains("BEGIN CERTIFICATE-----") => return Err(KeyError::Certificate),
            None => return Err(KeyError::NotPem),
        };
        for (kind, prefix, length) in [(KeyKind::P256, P256, 65), (KeyKind::Ed25519, ED, 32)] {
            if let Some(bytes) = der.strip_prefix(prefix).filter(|bytes| bytes.len() == length) {
                return Ok(PublicKey { kind, bytes: bytes.to_vec() });
            }
        }
        let named = OTHERS.iter().find(|(id, _)| der.windows(id.len()).any(|part| part == *id));
        Err(KeyError::Kind(named.map_or("a key of another kind", |(_, name)| name)))
    }

    pub(super) fn new(kind: KeyKind, bytes: &[u8]) -> PublicKey {
        PublicKey { kind, bytes: bytes.to_vec() }
    }

    /// Whether `signature` of `message` was made by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.kind {
            KeyKind::P256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.bytes)
                .verify(message, signature),
            KeyKind::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, &self.bytes).verify(message, signature)
            }
        }
        .is_ok()
    }

    /// As SubjectPublicKeyInfo.
    pub(super) fn der(&self) -> Vec<u8> {
        let prefix = match self.kind {
            KeyKind::P256 => P256,
            KeyKind::Ed25519 => ED,
        };
        [prefix, &self.bytes].concat()
    }

    /// By what bundles hint at the key: the SHA-256 of its SubjectPublicKeyInfo in base64.
    pub fn hint(&self) -> String {
        STANDARD.encode(self.digest().bytes())
    }

    /// The SHA-256 of its SubjectPublicKeyInfo.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.der())
    }

    /// As a PEM text.
    pub fn to_pem(&self) -> String {
        let encoded = STANDARD.encode(self.der());
        let lines: Vec<&str> = encoded
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap_or_default())
            .collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}

/// The one block of that label in a PEM text, decoded.
pub(super) fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, after) = rest.split_once(&format!("-----END {label}-----"))?;
    if after.contains("-----BEGIN") {
        return None;
    }
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_kinds_are_called_by_their_names() {
        let of = |der: &[u8]| {
            let text = format!(
                "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                STANDARD.encode(der)
            );
            PublicKey::from_pem(&text).unwrap_err().to_string()
        };
        let rsa = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
        assert!(of(&rsa).contains("an RSA key"), "{}", of(&rsa));
        let p384 = [0x30, 0x76, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03];
        assert!(of(&p384).contains("P-384"));
        assert!(of(&P256[..20]).contains("another kind"));
        let error = |text: &str| PublicKey::from_pem(text).unwrap_err();
        assert_eq!(error("-----BEGIN PRIVATE KEY-----"), KeyError::Private);
        assert_eq!(error("-----BEGIN CERTIFICATE-----"), KeyError::Certificate);
        assert_eq!(error(""), KeyError::NotPem);
        assert_eq!(
            error("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----"),
            KeyError::NotPem
        );
    }
}
