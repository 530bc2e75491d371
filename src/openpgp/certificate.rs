//! Certificates: a primary key, who it says it belongs to, and its subkeys.

use super::packet::{self, Packet, PacketTag};
use super::signature::{ACCEPTED, PublicKey, Purpose, Signature};
use super::{KeyId, OpenPgpError, SignatureRefusal, Signer, armor, refuse};

/// How many keys and user IDs one block may hold. A signature that names no key is tried with each.
const PARTS_MAX: usize = 256;

/// A certificate, with what its primary key has said of itself and of its subkeys. Signatures of
/// others are left out.
#[derive(Clone, Debug)]
pub struct Certificate {
    primary: OwnKey,
    subkeys: Vec<OwnKey>,
}

/// A key, as its owner describes it.
#[derive(Clone, Debug)]
struct OwnKey {
    key: PublicKey,
    is_revoked: bool,
    may_sign: bool,
    /// The second since 1970 at which it expires.
    expires: Option<u64>,
}

/// A part of a certificate, and the signatures that follow it.
struct Part<'a> {
    tag: PacketTag,
    body: &'a [u8],
    signatures: Vec<Signature>,
}

impl Certificate {
    /// Reads the certificates of an armored block at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// It is none, one of its certificates cannot be read, or one says nothing valid of itself.
    pub fn read(text: &str, now: u64) -> Result<Vec<Certificate>, OpenPgpError> {
        let bytes = armor::decode(text)?;
        let mut parts: Vec<Part<'_>> = Vec::new();
        for Packet { tag, body } in packet::read(&bytes)? {
            match (tag, parts.last_mut()) {
                (PacketTag::Ignored, _) => {}
                (PacketTag::Signature, Some(part)) => match Signature::read(body) {
                    Ok(signature) => part.signatures.push(signature),
                    // One that cannot be read does not count, unless it may take something back.
                    Err(e) if may_revoke(body) => return Err(e),
                    Err(_) => {}
                },
                (PacketTag::PublicKey, _) => parts.push(Part { tag, body, signatures: Vec::new() }),
                (_, None) => return refuse("it does not begin with a public key"),
                (_, Some(_)) => parts.push(Part { tag, body, signatures: Vec::new() }),
            }
        }
        if parts.len() > PARTS_MAX {
            return refuse(format_args!("it holds more than {PARTS_MAX} keys and user IDs"));
        }
        let is_primary = |part: &Part<'_>| part.tag == PacketTag::PublicKey;
        let starts: Vec<usize> = (0..parts.len()).filter(|at| is_primary(&parts[*at])).collect();
        let ends = starts.iter().skip(1).copied().chain([parts.len()]);
        let all = starts.iter().zip(ends).map(|(start, end)| assemble(&parts[*start..end], now));
        let all: Vec<Certificate> = all.collect::<Result<_, _>>()?;
        if all.is_empty() { refuse("it holds no public key") } else { Ok(all) }
    }

    /// By which people know it.
    pub fn id(&self) -> KeyId {
        self.primary.key.id
    }

    fn keys(&self) -> impl Iterator<Item = &OwnKey> {
        [&self.primary].into_iter().chain(&self.subkeys)
    }
}

/// Whether a signature of any version says that it is a revocation.
fn may_revoke(body: &[u8]) -> bool {
    let at = if body.first().is_some_and(|version| *version <= 3) { 2 } else { 1 };
    body.get(at).is_none_or(|kind| matches!(kind, 0x20 | 0x28 | 0x30))
}

fn assemble(parts: &[Part<'_>], now: u64) -> Result<Certificate, OpenPgpError> {
    let Some((first, others)) = parts.split_first() else { return refuse("it holds no key") };
    let key = PublicKey::read(first.body)?;
    let own = |signature: &&Signature| signature.may_be_by(key.id) && !signature.is_over(now);
    let of_key = |purpose: Purpose| {
        let key = &key;
        let made = move |s: &&Signature| s.purpose == purpose && s.is_by(key, &[&key.hashed]);
        first.signatures.iter().filter(own).filter(made)
    };
    let is_revoked = of_key(Purpose::KeyRevocation).next().is_some();
    let mut said: Vec<&Signature> = of_key(Purpose::DirectKey).collect();
    let mut subkeys = Vec::new();
    for part in others {
        match part.tag {
            PacketTag::UserId | PacketTag::UserAttribute => said.extend(certified(&key, part, now)),
            _ => subkeys.extend(subkey(&key, part, now)),
        }
    }
    if key.is_dsa() {
        return refuse(format_args!("the key {} is a DSA key, and {ACCEPTED}", key.id));
    }
    let Some(newest) = said.into_iter().max_by_key(|signature| signature.created) else {
        return refuse(format_args!("the key {} has no valid signature of its own", key.id));
    };
    let primary = OwnKey {
        is_revoked,
        may_sign: newest.may_sign.unwrap_or(true),
        expires: newest.key_expires_after.map(|after| key.created.saturating_add(after)),
        key,
    };
    Ok(Certificate { primary, subkeys })
}

/// The newest signature by which a key certifies that a user ID is its own.
fn certified<'a>(key: &PublicKey, part: &'a Part<'_>, now: u64) -> Option<&'a Signature> {
    let first = if part.tag == PacketTag::UserId { 0xb4 } else { 0xd1 };
    let length = u32::try_from(part.body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let signed = [&key.hashed[..], &[first], &length, part.body];
    let newest = |purpose| {
        let made = part.signatures.iter().filter(|signature| {
            signature.purpose == purpose
                && signature.may_be_by(key.id)
                && !signature.is_over(now)
                && signature.is_by(key, &signed)
        });
        made.max_by_key(|signature| signature.created)
    };
    let certification = newest(Purpose::Certification)?;
    let revoked = newest(Purpose::CertificationRevocation)
        .is_some_and(|revocation| revocation.created >= certification.created);
    (!revoked).then_some(certification)
}

/// A subkey that signs, if the primary key says that it is its own, and it says so too.
fn subkey(primary: &PublicKey, part: &Part<'_>, now: u64) -> Option<OwnKey> {
    let key = PublicKey::read(part.body).ok()?;
    let signed = [&primary.hashed[..], &key.hashed];
    let newest = |purpose| {
        let made = part.signatures.iter().filter(|signature| {
            signature.purpose == purpose
                && signature.may_be_by(primary.id)
                && !signature.is_over(now)
                && signature.is_by(primary, &signed)
        });
        made.max_by_key(|signature| signature.created)
    };
    let binding = newest(Purpose::SubkeyBinding)?;
    let agrees = binding.embedded.as_ref().is_some_and(|embedded| {
        embedded.purpose == Purpose::PrimaryKeyBinding && embedded.is_by(&key, &signed)
    });
    Some(OwnKey {
        is_revoked: newest(Purpose::SubkeyRevocation).is_some(),
        may_sign: binding.may_sign == Some(true) && agrees,
        expires: binding.key_expires_after.map(|after| key.created.saturating_add(after)),
        key,
    })
}

/// The owner of the key that made `signature` over `document`.
pub(super) fn signer_of(
    document: &[u8],
    signature: &Signature,
    certificates: &[Certificate],
    now: u64,
) -> Result<Signer, SignatureRefusal> {
    if signature.purpose != Purpose::Document {
        let rule = "it is no signature of a document as it is";
        return Err(OpenPgpError(rule.to_owned()).into());
    }
    let mut refusal = SignatureRefusal::UnknownKey(signature.issuers.clone());
    let mut signer: Option<Signer> = None;
    for certificate in certificates {
        let (id, primary) = (certificate.id(), &certificate.primary);
        for own in certificate.keys().filter(|own| own.may_sign) {
            if !signature.may_be_by(own.key.id) {
                continue;
            }
            if !signature.is_by(&own.key, &[document]) {
                refusal = SignatureRefusal::Wrong(id);
                continue;
            }
            // One copy of a certificate that says so is enough.
            if own.is_revoked || primary.is_revoked {
                return Err(SignatureRefusal::Revoked(id));
            }
            let over = |at| [own, primary].iter().any(|key| key.expires.is_some_and(|e| e <= at));
            let (is_expired, was_expired) = (over(now), over(signature.created));
            let found = Signer { primary: id, is_expired, was_expired };
            if found.is_better_than(signer) {
                signer = Some(found);
            }
        }
    }
    match signer {
        Some(_) if signature.is_over(now) => Err(SignatureRefusal::Expired),
        Some(signer) => Ok(signer),
        None => Err(refusal),
    }
}
