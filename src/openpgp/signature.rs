//! Signatures of version 4, and the keys that check them.

use ring::signature::{
    self as algorithms, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use ring::{digest, signature::VerificationAlgorithm};

use super::packet::{Cursor, new_length};
use super::{KeyId, OpenPgpError, refuse};

/// The curves, as keys name them: P-256, P-384, Ed25519.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

/// A hash function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HashFunction {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// What a signature is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A document, byte for byte.
    Document,
    /// That a user ID belongs to a key.
    Certification,
    /// That it does not.
    CertificationRevocation,
    /// That a subkey belongs to a key.
    SubkeyBinding,
    /// That a key is the one to which a subkey belongs.
    PrimaryKeyBinding,
    /// What a key says of itself.
    DirectKey,
    KeyRevocation,
    SubkeyRevocation,
    Other,
}

/// A signature, not yet checked.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub purpose: Purpose,
    pub created: u64,
    /// Seconds after its creation at which it counts no longer.
    pub expires_after: Option<u64>,
    /// Seconds after a key's creation at which that key expires.
    pub key_expires_after: Option<u64>,
    /// Whether the key may sign documents; `None` where that is not said.
    pub may_sign: Option<bool>,
    pub issuers: Vec<KeyId>,
    /// The signature of a subkey in that which binds it.
    pub embedded: Option<Box<Signature>>,
    algorithm: u8,
    hash: HashFunction,
    /// What is hashed behind what is signed.
    trailer: Vec<u8>,
    values: Vec<u8>,
}

/// The number of the Digital Signature Algorithm.
const DSA: u8 = 17;
/// What is said of keys of another kind.
pub(super) const ACCEPTED: &str = "only RSA, Ed25519 and ECDSA over P-256 and P-384 are accepted";

impl Signature {
    pub fn read(body: &[u8]) -> Result<Signature, OpenPgpError> {
        Signature::nested(body, true)
    }

    fn nested(body: &[u8], may_embed: bool) -> Result<Signature, OpenPgpError> {
        let mut rest = Cursor(body);
        let version = rest.byte()?;
        if version != 4 {
            return refuse(format_args!(
                "it is a signature of version {version}, and only version 4 is accepted"
            ));
        }
        let (kind, algorithm, hash) = (rest.byte()?, rest.byte()?, rest.byte()?);
        let length = rest.number(2)?;
        let hashed = rest.take(length)?;
        let length = rest.number(2)?;
        let unhashed = rest.take(length)?;
        rest.take(2)?;
        let mut trailer = body[..6 + hashed.len()].to_vec();
        let length = u32::try_from(trailer.len()).unwrap_or(u32::MAX);
        trailer.extend([4, 0xff]);
        trailer.extend(length.to_be_bytes());
        let mut signature = Signature {
            purpose: purpose(kind),
            created: 0,
            expires_after: None,
            key_expires_after: None,
            may_sign: None,
            issuers: Vec::new(),
            embedded: None,
            algorithm,
            hash: hash_function(hash)?,
            trailer,
            values: rest.0.to_vec(),
        };
        signature.subpackets(hashed, true, may_embed)?;
        signature.subpackets(unhashed, false, may_embed)?;
        Ok(signature)
    }

    /// Refuses what is made in a way that is not checked here, by its name.
    pub fn check_accepted(&self) -> Result<(), OpenPgpError> {
        match self.algorithm {
            DSA => refuse(format_args!("it is made by a DSA key, and {ACCEPTED}")),
            _ => Ok(()),
        }
    }

    /// What the signer adds. What is not hashed anybody can have added, so it only tells where to
    /// look.
    fn subpackets(
        &mut self,
        area: &[u8],
        is_hashed: bool,
        may_embed: bool,
    ) -> Result<(), OpenPgpError> {
        let mut rest = Cursor(area);
        while !rest.0.is_empty() {
            let length = new_length(&mut rest)?;
            let mut body = Cursor(rest.take(length)?);
            let kind = body.byte()?;
            let seconds = |mut body: Cursor<'_>| body.number(4).map(|number| number as u64);
            match kind & 0x7f {
                2 if is_hashed => self.created = seconds(body)?,
                3 if is_hashed => self.expires_after = Some(seconds(body)?).filter(|s| *s > 0),
                9 if is_hashed => self.key_expires_after = Some(seconds(body)?).filter(|s| *s > 0),
                27 if is_hashed => {
                    self.may_sign = Some(body.0.first().is_some_and(|flags| flags & 2 != 0));
                }
                16 => self.issuers.extend(key_id(body.0)),
                33 if body.0.first() == Some(&4) => self.issuers.extend(key_id(body.0)),
                // It is checked by itself, so that it counts wherever it stands.
                32 if may_embed => {
                    self.embedded = Signature::nested(body.0, false).ok().map(Box::new);
                }
                // Preferences and remarks, which change nothing of whether it holds.
                2..=7 | 9 | 11 | 12 | 21..=35 | 39 => {}
                _ if is_hashed && kind & 0x80 != 0 => {
                    return refuse(format_args!(
                        "it makes a condition that is not known here (subpacket {})",
                        kind & 0x7f
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub fn may_be_by(&self, key: KeyId) -> bool {
        self.issuers.is_empty() || self.issuers.contains(&key)
    }

    /// Whether it says that it counts no longer.
    pub fn is_over(&self, now: u64) -> bool {
        self.expires_after.is_some_and(|after| self.created.saturating_add(after) <= now)
    }

    /// Whether `key` made it over `signed`.
    pub fn is_by(&self, key: &PublicKey, signed: &[&[u8]]) -> bool {
        // A signature of version 4 has a time of creation, and what was made before its key was not
        // made by it.
        if self.created == 0 || self.created < key.created {
            return false;
        }
        let mut message = signed.concat();
        message.extend(&self.trailer);
        self.holds(key, &message).unwrap_or(false)
    }

    fn holds(&self, key: &PublicKey, message: &[u8]) -> Result<bool, OpenPgpError> {
        if self.hash == HashFunction::Sha1 && self.purpose == Purpose::Document {
            return Ok(false);
        }
        let mut values = Cursor(&self.values);
        let holds = match (&key.material, self.algorithm) {
            (KeyMaterial::Rsa { n, e }, 1 | 3) => {
                let value = padded(values.integer()?, n.len())?;
                RsaPublicKeyComponents { n, e }.verify(self.rsa(), message, &value).is_ok()
            }
            (KeyMaterial::Ed25519(point), 22) => {
                let (r, s) = (padded(values.integer()?, 32)?, padded(values.integer()?, 32)?);
                self.ed25519(point, message, &[r, s].concat())
            }
            (KeyMaterial::Ed25519(point), 27) => self.ed25519(point, message, values.take(64)?),
            (KeyMaterial::Ecdsa { p384, point }, 19) => {
                let Some(algorithm) = self.ecdsa(*p384) else { return Ok(false) };
                let value = der(values.integer()?, values.integer()?);
                UnparsedPublicKey::new(algorithm, point).verify(message, &value).is_ok()
            }
            _ => false,
        };
        Ok(holds)
    }

    fn rsa(&self) -> &'static RsaParameters {
        match self.hash {
            HashFunction::Sha1 => &algorithms::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            HashFunction::Sha256 => &algorithms::RSA_PKCS1_2048_8192_SHA256,
            HashFunction::Sha384 => &algorithms::RSA_PKCS1_2048_8192_SHA384,
            HashFunction::Sha512 => &algorithms::RSA_PKCS1_2048_8192_SHA512,
        }
    }

    /// OpenPGP signs the hash of the message.
    fn ed25519(&self, point: &[u8], message: &[u8], value: &[u8]) -> bool {
        let hash = match self.hash {
            HashFunction::Sha1 => return false,
            HashFunction::Sha256 => &digest::SHA256,
            HashFunction::Sha384 => &digest::SHA384,
            HashFunction::Sha512 => &digest::SHA512,
        };
        let hash = digest::digest(hash, message);
        UnparsedPublicKey::new(&algorithms::ED25519, point).verify(hash.as_ref(), value).is_ok()
    }

    fn ecdsa(&self, p384: bool) -> Option<&'static dyn VerificationAlgorithm> {
        match (p384, self.hash) {
            (false, HashFunction::Sha256) => Some(&algorithms::ECDSA_P256_SHA256_ASN1),
            (false, HashFunction::Sha384) => Some(&algorithms::ECDSA_P256_SHA384_ASN1),
            (true, HashFunction::Sha256) => Some(&algorithms::ECDSA_P384_SHA256_ASN1),
            (true, HashFunction::Sha384) => Some(&algorithms::ECDSA_P384_SHA384_ASN1),
            _ => None,
        }
    }
}

fn purpose(kind: u8) -> Purpose {
    match kind {
        0x00 => Purpose::Document,
        0x10..=0x13 => Purpose::Certification,
        0x18 => Purpose::SubkeyBinding,
        0x19 => Purpose::PrimaryKeyBinding,
        0x1f => Purpose::DirectKey,
        0x20 => Purpose::KeyRevocation,
        0x28 => Purpose::SubkeyRevocation,
        0x30 => Purpose::CertificationRevocation,
        _ => Purpose::Other,
    }
}

fn hash_function(number: u8) -> Result<HashFunction, OpenPgpError> {
    match number {
        2 => Ok(HashFunction::Sha1),
        8 => Ok(HashFunction::Sha256),
        9 => Ok(HashFunction::Sha384),
        10 => Ok(HashFunction::Sha512),
        other => refuse(format_args!(
            "it is made with the hash function {other}, and only SHA-256, SHA-384 and SHA-512 are \
             accepted"
        )),
    }
}

/// The key ID at the end of a fingerprint or of itself.
fn key_id(bytes: &[u8]) -> Option<KeyId> {
    bytes.last_chunk().copied().map(KeyId)
}

/// A number with the zeros before it that make up its length.
fn padded(value: &[u8], length: usize) -> Result<Vec<u8>, OpenPgpError> {
    let Some(zeros) = length.checked_sub(value.len()) else {
        return refuse("its value is too long");
    };
    Ok([&vec![0; zeros], value].concat())
}

/// Two numbers as ASN.1 has them; each of at most 48 bytes for the curves that are accepted.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |value: &[u8]| {
        let zero: &[u8] =
            if value.first().is_none_or(|first| first & 0x80 != 0) { &[0] } else { &[] };
        let length = u8::try_from(zero.len() + value.len()).unwrap_or(u8::MAX);
        [&[2, length][..], zero, value].concat()
    };
    let both = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(both.len()).unwrap_or(u8::MAX)][..], &both].concat()
}

/// What checks signatures.
#[derive(Clone, Debug)]
enum KeyMaterial {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    Ecdsa {
        p384: bool,
        point: Vec<u8>,
    },
    Dsa,
    /// A key that encrypts, or of an algorithm that is not accepted.
    Other,
}

/// A public key of version 4.
#[derive(Clone, Debug)]
pub(super) struct PublicKey {
    pub id: KeyId,
    pub created: u64,
    material: KeyMaterial,
    /// As it is hashed where something is said of it.
    pub hashed: Vec<u8>,
}

impl PublicKey {
    /// Whether it is of an algorithm that vendors have used, and that is not checked here.
    pub fn is_dsa(&self) -> bool {
        matches!(self.material, KeyMaterial::Dsa)
    }

    pub fn read(body: &[u8]) -> Result<PublicKey, OpenPgpError> {
        let mut rest = Cursor(body);
        let version = rest.byte()?;
        if version != 4 {
            return refuse(format_args!(
                "it is a key of version {version}, and only version 4 is accepted"
            ));
        }
        let created = rest.number(4)? as u64;
        let material = match rest.byte()? {
            DSA => KeyMaterial::Dsa,
            1 | 3 => KeyMaterial::Rsa { n: rest.integer()?.to_vec(), e: rest.integer()?.to_vec() },
            19 => {
                let curve = curve(&mut rest)?;
                let point = rest.integer()?.to_vec();
                match curve {
                    P256 => KeyMaterial::Ecdsa { p384: false, point },
                    P384 => KeyMaterial::Ecdsa { p384: true, point },
                    _ => KeyMaterial::Other,
                }
            }
            22 => match (curve(&mut rest)?, rest.integer()?) {
                (ED25519, [0x40, point @ ..]) => KeyMaterial::Ed25519(point.to_vec()),
                _ => KeyMaterial::Other,
            },
            27 => KeyMaterial::Ed25519(rest.take(32)?.to_vec()),
            _ => KeyMaterial::Other,
        };
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
        let hashed = [&[0x99][..], &length, body].concat();
        let fingerprint = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed);
        match key_id(fingerprint.as_ref()) {
            Some(id) => Ok(PublicKey { id, created, material, hashed }),
            None => refuse("it has no fingerprint"),
        }
    }
}

fn curve<'a>(rest: &mut Cursor<'a>) -> Result<&'a [u8], OpenPgpError> {
    let length = usize::from(rest.byte()?);
    rest.take(length)
}
