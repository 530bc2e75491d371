//! Detached OpenPGP signatures: whether a document was signed by a key that somebody names.
//!
//! This is the part of RFC 9580 that signatures of releases need, and no more: certificates and
//! signatures of version 4; RSA of 2048 bits and more, Ed25519, ECDSA over P-256 and P-384;
//! SHA-256, SHA-384 and SHA-512 (SHA-1 only where an RSA key speaks of itself). What lies outside
//! of it is refused, never passed over in favour of the signer. `tests/openpgp.rs` holds it against
//! GnuPG.

mod armor;
mod certificate;
mod packet;
mod signature;
#[cfg(test)]
mod tests;

use std::fmt;

pub use certificate::Certificate;
use packet::{Packet, PacketTag};
use signature::Signature;

/// How many signatures of one document are looked at.
const SIGNATURES_MAX: usize = 32;

/// Why something is no certificate or signature.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenPgpError(String);

fn refuse<T>(rule: impl fmt::Display) -> Result<T, OpenPgpError> {
    Err(OpenPgpError(rule.to_string()))
}

/// The last eight bytes of a key's fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// Reads 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<KeyId> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
        Some(KeyId(number.to_be_bytes()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// Who signed a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signer {
    /// The certificate, by its primary key.
    pub primary: KeyId,
    /// Whether the key, or the one that it belongs to, has expired by now.
    pub is_expired: bool,
    /// Whether it had when it signed.
    pub was_expired: bool,
}

impl Signer {
    /// Whether this counts for more than what else was found.
    fn is_better_than(&self, other: Option<Signer>) -> bool {
        let rank = |signer: &Signer| (signer.is_expired, signer.was_expired);
        other.is_none_or(|other| rank(self) < rank(&other))
    }
}

/// Why nobody counts as the signer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureRefusal {
    /// No certificate has a key that may have made it.
    #[error("it was made by a key that is not among those named (key ID {})", named(.0))]
    UnknownKey(Vec<KeyId>),
    /// The key was revoked.
    #[error("the key that made it, of {0}, was revoked")]
    Revoked(KeyId),
    /// The signature is not one of this document by this key.
    #[error("it is no signature of this document by the key of {0}")]
    Wrong(KeyId),
    /// The signature says that it counts no longer.
    #[error("it has expired")]
    Expired,
    /// It cannot be read, or is made in a way that is not accepted.
    #[error(transparent)]
    Unread(#[from] OpenPgpError),
}

fn named(keys: &[KeyId]) -> String {
    let all: Vec<String> = keys.iter().map(ToString::to_string).collect();
    if all.is_empty() { "not told".to_owned() } else { all.join(", ") }
}

/// Who of `certificates` signed `document`, at `now` in seconds since 1970. Of several signatures
/// one has to hold, and one by a key that has not expired is preferred.
///
/// # Errors
/// None of them holds: why the last one does not.
pub fn verify(
    document: &[u8],
    signatures: &[u8],
    certificates: &[Certificate],
    now: u64,
) -> Result<Signer, SignatureRefusal> {
    let mut refusal = SignatureRefusal::UnknownKey(Vec::new());
    let mut expired: Option<Signer> = None;
    let mut seen = 0;
    for packet in packet::read(signatures)? {
        let Packet { tag: PacketTag::Signature, body } = packet else {
            return Err(OpenPgpError("it holds something else than signatures".to_owned()).into());
        };
        seen += 1;
        if seen > SIGNATURES_MAX {
            return Err(OpenPgpError("it holds too many signatures".to_owned()).into());
        }
        match Signature::read(body)
            .and_then(|signature| signature.check_accepted().map(|()| signature))
            .map_err(SignatureRefusal::from)
            .and_then(|signature| certificate::signer_of(document, &signature, certificates, now))
        {
            Ok(signer) if !signer.is_expired => return Ok(signer),
            Ok(signer) if signer.is_better_than(expired) => expired = Some(signer),
            Ok(_) => {}
            Err(other) => refusal = other,
        }
    }
    if seen == 0 {
        return Err(OpenPgpError("it holds no signature".to_owned()).into());
    }
    expired.ok_or(refusal)
}
