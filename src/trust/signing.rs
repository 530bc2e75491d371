//! Signing with a key on disk: plain keys over P-256 and plain Ed25519 keys, as PKCS#8.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::key::{KeyKind, PublicKey, pem};

/// Why a text is no key to sign with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error("it is no PEM text of a PKCS#8 private key (-----BEGIN PRIVATE KEY-----)")]
    NotPem,
    #[error(
        "it is a private key that is encrypted for cosign; sign with it by \
         --sign-command 'cosign sign --key FILE --yes -a org.tofufs.tag=%t %r'"
    )]
    Cosign,
    #[error("it is encrypted; decrypt it with openssl pkcs8, or use --sign-command")]
    Encrypted,
    #[error("it is no key over P-256 and no Ed25519 key")]
    Kind,
    #[error("signing failed: this machine gave no random numbers")]
    Failed,
}

enum Pair {
    P256(Box<EcdsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// A private key. It is never printed.
pub struct SigningKey {
    pair: Pair,
    random: SystemRandom,
}

impl SigningKey {
    /// Reads the PEM text of a PKCS#8 key.
    ///
    /// # Errors
    /// It is none, or of a kind that is not used.
    pub fn from_pem(text: &str) -> Result<SigningKey, SigningKeyError> {
        if text.contains("ENCRYPTED SIGSTORE PRIVATE KEY") || text.contains("ENCRYPTED COSIGN") {
            return Err(SigningKeyError::Cosign);
        }
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
            return Err(SigningKeyError::Encrypted);
        }
        let der = Zeroizing::new(pem(text, "PRIVATE KEY").ok_or(SigningKeyError::NotPem)?);
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &random);
        let pair = match p256 {
            Ok(pair) => Pair::P256(Box::new(pair)),
            Err(_) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
                .map(Pair::Ed25519)
                .map_err(|_| SigningKeyError::Kind)?,
        };
        Ok(SigningKey { pair, random })
    }

    /// The key by which its signatures are checked.
    pub fn public(&self) -> PublicKey {
        match &self.pair {
            Pair::P256(pair) => PublicKey::new(KeyKind::P256, pair.public_key().as_ref()),
            Pair::Ed25519(pair) => PublicKey::new(KeyKind::Ed25519, pair.public_key().as_ref()),
        }
    }

    /// # Errors
    /// There are no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningKeyError> {
        match &self.pair {
            Pair::P256(pair) => {
                let signature = pair.sign(&self.random, message);
                Ok(signature.map_err(|_| SigningKeyError::Failed)?.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}
