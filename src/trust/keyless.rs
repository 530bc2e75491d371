//! Signatures by certificates: whoever logged in as somebody got one for some minutes, signed, and
//! had it written into a log or stamped with the time ("keyless", as Sigstore calls it).
//!
//! What a trusted root demands follows from what it names: with logs a proof of inclusion, without
//! any a timestamp; with logs of certificates the promise of one.
//!
//! Nothing here asks anybody. The clock of this machine is read for one thing: a time of signing
//! that lies in the future is refused.

use std::collections::BTreeMap;
use std::fmt;

use ring::digest::{Context as Hashing, SHA256, SHA384, SHA512};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;
use sigstore_verify::crypto::{
    self, CertificateInfo, CryptoProvider, FulcioCiClaims, HashContext, SigningScheme,
    SubjectAltName, install_default_provider,
};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::artifact::ArtifactDigest;
use sigstore_verify::types::{
    Bundle, DerPublicKey, HashAlgorithm, SignatureContent, TimeRange, TransparencyLogEntry,
};
use sigstore_verify::{
    CertificateError, Error, PublicKeyVerificationPolicy, TimestampError, TransparencyLogError,
    VerificationPolicy, VerificationResult, Verifier,
};

use super::bundle::SignedStatement;
use super::key::PublicKey;
use crate::digest::Algorithm;
use crate::moment::Moment;
use crate::oci::strict;

/// How the media types of trusted roots begin.
const TRUSTED_ROOT: &str = "application/vnd.dev.sigstore.trustedroot";

/// The trusted roots of one file: which authorities, logs and timestamps count.
pub struct TrustedRoots {
    /// The file, as it is named.
    pub file: String,
    roots: Vec<Instance>,
    newest: Option<RootKey>,
}

/// One instance of Sigstore.
struct Instance {
    verifier: Verifier,
    has_logs: bool,
    has_certificate_logs: bool,
    has_authorities: bool,
}

/// A key or certificate of a trusted root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RootKey {
    /// From when on it counts.
    pub since: Moment,
    /// Whose it is: a log's, an authority's.
    pub of: String,
}

impl TrustedRoots {
    /// Reads a trusted root, or one on each line (`.jsonl`).
    ///
    /// # Errors
    /// What about it cannot be used.
    pub fn read(file: &str, text: &str) -> Result<TrustedRoots, String> {
        // Whoever came first was asked to be the provider; there is one per process.
        let _ = install_default_provider(&RingProvider);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let is_lines = lines.first().is_some_and(|line| strict::parse(line.as_bytes()).is_ok());
        let documents = if is_lines { lines } else { vec![text] };
        let mut read = TrustedRoots { file: file.to_owned(), roots: Vec::new(), newest: None };
        for document in documents {
            let (instance, newest) = Instance::read(document)?;
            read.roots.push(instance);
            read.newest = read.newest.max(newest);
        }
        Ok(read)
    }

    /// Whether each of them says who gives certificates.
    pub(super) fn name_authorities(&self) -> bool {
        self.roots.iter().all(|root| root.has_authorities)
    }

    /// The key or certificate that began to count last: about how old the file is.
    pub fn newest(&self) -> Option<&RootKey> {
        self.newest.as_ref()
    }

    /// Checks a signature that has a certificate, and all that vouches for it.
    pub(super) fn check(
        &self,
        signed: &SignedStatement,
        wanted: &WantedIdentity,
    ) -> Result<Option<Moment>, String> {
        let bundle = bundle_of(signed)?;
        if bundle.signing_certificate().is_none() {
            return Err("by a key, without a certificate".to_owned());
        }
        let result = self.first(&bundle, |root| root.check(signed, &bundle))?;
        let certificate = result.certificate().filter(|_| result.certificate_verified());
        wanted.is_met_by(certificate.ok_or("without a certificate that was checked")?)?;
        Ok(earliest(&result))
    }

    /// Checks what vouches for a signature by a key, beside the signature itself.
    pub(super) fn check_key(
        &self,
        signed: &SignedStatement,
        key: &PublicKey,
    ) -> Result<Option<Moment>, String> {
        let bundle = bundle_of(signed)?;
        let result = self.first(&bundle, |root| root.check_key(signed, &bundle, key))?;
        Ok(earliest(&result))
    }

    /// The first root by which it counts; else why it does not count by any.
    fn first(
        &self,
        bundle: &Bundle,
        check: impl Fn(&Instance) -> Result<VerificationResult, String>,
    ) -> Result<VerificationResult, String> {
        let mut faults: Vec<String> = Vec::new();
        for root in &self.roots {
            let fault = match root.is_complete(bundle).and_then(|()| check(root)) {
                Ok(result) => return Ok(result),
                Err(fault) => fault,
            };
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        Err(faults.join("; by another of the trusted roots "))
    }
}

impl fmt::Debug for TrustedRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedRoots({}, {:?})", self.roots.len(), self.newest)
    }
}

impl Instance {
    fn read(text: &str) -> Result<(Instance, Option<RootKey>), String> {
        let value = strict::parse(text.as_bytes())?;
        let media_type = value.get("mediaType").and_then(Value::as_str).unwrap_or_default();
        if !media_type.starts_with(TRUSTED_ROOT) {
            return Err("it is no trusted root of Sigstore (trusted_root.json)".to_owned());
        }
        let root = TrustedRoot::from_json(text).map_err(|e| e.to_string())?;
        if root.certificate_authorities.is_empty() && root.tlogs.is_empty() {
            return Err("it names no authority and no log".to_owned());
        }
        if root.tlogs.is_empty() && root.timestamp_authorities.is_empty() {
            return Err("it names no log and no timestamp authority, \
                        so that no time of signing could be known"
                .to_owned());
        }
        let verifier = Verifier::new(&root).map_err(|e| e.to_string())?;
        let instance = Instance {
            verifier,
            has_logs: !root.tlogs.is_empty(),
            has_certificate_logs: !root.ctlogs.is_empty(),
            has_authorities: !root.certificate_authorities.is_empty(),
        };
        Ok((instance, newest(&root)))
    }

    /// Whether a bundle has what this root demands, whatever it is worth.
    fn is_complete(&self, bundle: &Bundle) -> Result<(), String> {
        let material = &bundle.verification_material;
        let is_proven = |entry: &TransparencyLogEntry| entry.inclusion_proof.is_some();
        if self.has_logs
            && (material.tlog_entries.is_empty() || !material.tlog_entries.iter().all(is_proven))
        {
            return Err("without a proof that it is in a log".to_owned());
        }
        if !self.has_logs && material.timestamp_verification_data.rfc3161_timestamps.is_empty() {
            return Err("without a timestamp".to_owned());
        }
        Ok(())
    }

    fn check(
        &self,
        signed: &SignedStatement,
        bundle: &Bundle,
    ) -> Result<VerificationResult, String> {
        let mut policy = VerificationPolicy::any_identity();
        if !self.has_logs {
            policy = policy.skip_tlog_unsafe();
        }
        if !self.has_certificate_logs {
            policy = policy.skip_sct();
        }
        let result = self.verifier.verify(subject_of(signed)?, bundle, &policy);
        result.map_err(|e| in_words(&e))
    }

    fn check_key(
        &self,
        signed: &SignedStatement,
        bundle: &Bundle,
        key: &PublicKey,
    ) -> Result<VerificationResult, String> {
        let mut policy = PublicKeyVerificationPolicy::new(DerPublicKey::new(key.der()));
        if !self.has_logs {
            policy = policy.skip_tlog_unsafe();
        }
        let result = self.verifier.verify(subject_of(signed)?, bundle, &policy);
        result.map_err(|e| in_words(&e))
    }
}

/// The bundle as the library reads it, which has to be what was read here.
fn bundle_of(signed: &SignedStatement) -> Result<Bundle, String> {
    let Some(text) = &signed.bundle else {
        return Err("as cosign 2 signs, which keys alone may; sign again with cosign 3".to_owned());
    };
    let bundle = Bundle::from_json(text).map_err(|e| format!("not understood ({e})"))?;
    let is_same = matches!(&bundle.content, SignatureContent::DsseEnvelope(envelope)
        if envelope.pae() == signed.message
            && envelope.signature.sig.as_bytes() == signed.signature);
    if is_same { Ok(bundle) } else { Err("not understood by all readers alike".to_owned()) }
}

/// A digest that the statement names. Whether it is the one that was asked for is another question.
fn subject_of(signed: &SignedStatement) -> Result<ArtifactDigest, String> {
    let subject = signed.statement.subjects.first().ok_or("for no digest")?;
    let algorithm = match subject.digest.algorithm() {
        Algorithm::Sha256 => HashAlgorithm::Sha2256,
        Algorithm::Sha512 => HashAlgorithm::Sha2512,
    };
    ArtifactDigest::new(algorithm, subject.digest.bytes().to_vec()).map_err(|e| e.to_string())
}

fn earliest(result: &VerificationResult) -> Option<Moment> {
    let seconds = result.verified_timestamps().iter().map(|time| time.as_second()).min()?;
    u64::try_from(seconds).ok().map(Moment::at)
}

fn newest(root: &TrustedRoot) -> Option<RootKey> {
    let key = |window: Option<TimeRange>, of: &str| {
        let since = window.map_or(0, |window| window.start.as_second());
        RootKey { since: Moment::at(since.try_into().unwrap_or(0)), of: of.to_owned() }
    };
    let logs = root.tlogs.iter().map(|log| key(log.public_key.valid_for, &log.base_url));
    let certificates = root.ctlogs.iter().map(|log| key(log.public_key.valid_for, &log.base_url));
    let authorities = root.certificate_authorities.iter().map(|ca| key(ca.valid_for, &ca.uri));
    let timestamps = root.timestamp_authorities.iter();
    let timestamps = timestamps
        .map(|tsa| key(tsa.valid_for, tsa.uri.as_deref().unwrap_or("a timestamp authority")));
    logs.chain(certificates).chain(authorities).chain(timestamps).max()
}

/// What a library's error says of a signature, as it follows a number of signatures.
fn in_words(error: &Error) -> String {
    match error {
        Error::Certificate(e) => match e {
            // The library looks for a way to an authority first, and a certificate that was not
            // valid then ends none.
            CertificateError::ChainInvalid(detail)
                if detail.contains("CertExpired") || detail.contains("CertNotValidYet") =>
            {
                "by a certificate that was not valid when it was signed".to_owned()
            }
            CertificateError::ChainInvalid(_) => {
                "by a certificate of an authority that is not trusted for signing".to_owned()
            }
            CertificateError::NoValidAuthority { time } => {
                format!("made at {time}, when no authority of the trusted root was valid")
            }
            CertificateError::NotYetValid { time, .. } | CertificateError::Expired { time, .. } => {
                format!("by a certificate that was not valid at {time}")
            }
            CertificateError::Sct(_) => {
                "by a certificate that is in no log of certificates (SCT)".to_owned()
            }
            other => format!("not understood ({other})"),
        },
        Error::TransparencyLog(e) => match e {
            TransparencyLogError::UnknownLog { .. } => {
                "in a log that the trusted root does not name".to_owned()
            }
            TransparencyLogError::InclusionProof(_) => {
                "with a wrong proof that it is in the log".to_owned()
            }
            TransparencyLogError::Checkpoint(_) => {
                "with a checkpoint that no log of the trusted root signed".to_owned()
            }
            TransparencyLogError::InclusionPromise(_) => {
                "with a log's promise (SET) that no log of the trusted root made".to_owned()
            }
            TransparencyLogError::EntryMismatch(_) => another_entry(),
            TransparencyLogError::IntegratedTime(detail) if detail.contains("in the future") => {
                format!("that was logged in the future; is this machine's clock right? ({detail})")
            }
            TransparencyLogError::IntegratedTime(_) => {
                "that was logged when its certificate was not valid".to_owned()
            }
            other => format!("not understood ({other})"),
        },
        Error::ArtifactMismatch(_) => another_entry(),
        Error::Timestamp(e) => match e {
            TimestampError::OutsideAuthorityValidity { time } => {
                format!("with a timestamp of {time}, when its authority was not valid")
            }
            TimestampError::NoVerifiedTimestamp(_) => {
                "without a time of signing that can be checked".to_owned()
            }
            _ => "with a timestamp that no authority of the trusted root gave".to_owned(),
        },
        Error::SignatureInvalid(_) => "that its certificate's key did not make".to_owned(),
        other => format!("not understood ({other})"),
    }
}

fn another_entry() -> String {
    "with the log entry of another signature".to_owned()
}

/// Whom a certificate has to name.
#[derive(Clone, Debug)]
pub(super) struct WantedIdentity {
    /// Who has to have vouched for the identity: the address of an OpenID Connect issuer.
    pub issuer: String,
    pub subject: SubjectPattern,
    /// What else the certificate has to say.
    pub claims: BTreeMap<&'static str, String>,
}

impl WantedIdentity {
    fn is_met_by(&self, certificate: &CertificateInfo) -> Result<(), String> {
        let issuer = certificate.issuer.as_deref().unwrap_or("nobody");
        if issuer != self.issuer {
            return Err(format!("by somebody for whom {issuer} vouches"));
        }
        match &certificate.identity {
            Some(identity) if self.subject.matches(identity) => {}
            Some(identity) => return Err(format!("by {identity}")),
            None => return Err("by a certificate that names nobody".to_owned()),
        }
        for (name, wanted) in &self.claims {
            let read = CLAIMS.iter().find(|(known, _)| known == name).map(|(_, read)| read);
            match read.and_then(|read| read(&certificate.ci_claims)) {
                Some(said) if said == wanted => {}
                Some(said) => return Err(format!("whose certificate says {name} = {said:?}")),
                None => return Err(format!("whose certificate says nothing of {name}")),
            }
        }
        Ok(())
    }
}

type ReadClaim = fn(&FulcioCiClaims) -> Option<&String>;

/// What a certificate may say of a workload, by the names that Fulcio's documentation has.
const CLAIMS: [(&str, ReadClaim); 16] = [
    ("build_signer_uri", |claims| claims.build_signer_uri.as_ref()),
    ("build_signer_digest", |claims| claims.build_signer_digest.as_ref()),
    ("runner_environment", |claims| claims.runner_environment.as_ref()),
    ("source_repository_uri", |claims| claims.source_repository_uri.as_ref()),
    ("source_repository_digest", |claims| claims.source_repository_digest.as_ref()),
    ("source_repository_ref", |claims| claims.source_repository_ref.as_ref()),
    ("source_repository_identifier", |claims| claims.source_repository_identifier.as_ref()),
    ("source_repository_owner_uri", |claims| claims.source_repository_owner_uri.as_ref()),
    ("source_repository_owner_identifier", |claims| {
        claims.source_repository_owner_identifier.as_ref()
    }),
    ("build_config_uri", |claims| claims.build_config_uri.as_ref()),
    ("build_config_digest", |claims| claims.build_config_digest.as_ref()),
    ("build_trigger", |claims| claims.build_trigger.as_ref()),
    ("run_invocation_uri", |claims| claims.run_invocation_uri.as_ref()),
    ("source_repository_visibility_at_signing", |claims| {
        claims.source_repository_visibility_at_signing.as_ref()
    }),
    ("deployment_environment", |claims| claims.deployment_environment.as_ref()),
    ("token_subject", |claims| claims.token_subject.as_ref()),
];

/// The name of a claim, if certificates have such.
pub(super) fn claim(name: &str) -> Result<&'static str, String> {
    let known = CLAIMS.iter().map(|(known, _)| *known);
    let found = known.clone().find(|known| *known == name);
    found.ok_or_else(|| {
        let known: Vec<_> = known.collect();
        format!("certificates have no claim {name:?}; they may have {}", known.join(", "))
    })
}

/// What the name of a signer has to look like: `*` stands for any run of characters but `/`, `**`
/// for any run. With `://` it is a URI, else an e-mail address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SubjectPattern(pub String);

impl SubjectPattern {
    fn matches(&self, subject: &SubjectAltName) -> bool {
        let is_uri = matches!(subject, SubjectAltName::Uri(_));
        is_uri == self.0.contains("://") && self.matches_text(subject.as_str())
    }

    /// Whether all of `text` is like this. Keeps all ways on which it may go on, so that the time is
    /// the product of the two lengths at most.
    fn matches_text(&self, text: &str) -> bool {
        let parts = PatternPart::all(&self.0);
        let mut open = vec![false; parts.len() + 1];
        open[0] = true;
        PatternPart::skip_runs(&parts, &mut open);
        for c in text.chars() {
            let mut next = vec![false; parts.len() + 1];
            for (at, part) in parts.iter().enumerate().filter(|(at, _)| open[*at]) {
                match part {
                    PatternPart::One(wanted) => next[at + 1] |= *wanted == c,
                    PatternPart::Run => next[at] |= c != '/',
                    PatternPart::LongRun => next[at] = true,
                }
            }
            PatternPart::skip_runs(&parts, &mut next);
            open = next;
        }
        open[parts.len()]
    }
}

enum PatternPart {
    One(char),
    /// Any number of characters but `/`.
    Run,
    /// Any number of characters.
    LongRun,
}

impl PatternPart {
    fn all(pattern: &str) -> Vec<PatternPart> {
        let mut parts = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' if chars.next_if_eq(&'*').is_some() => PatternPart::LongRun,
                '*' => PatternPart::Run,
                c => PatternPart::One(c),
            });
        }
        parts
    }

    /// A run may be empty.
    fn skip_runs(parts: &[PatternPart], open: &mut [bool]) {
        for (at, part) in parts.iter().enumerate() {
            if open[at] && !matches!(part, PatternPart::One(_)) {
                open[at + 1] = true;
            }
        }
    }
}

/// The cryptography by which the library checks: ring's, as for all else. It checks whole messages;
/// signatures of digests do not count.
#[derive(Debug)]
pub struct RingProvider;

struct RingHash(Hashing);

impl HashContext for RingHash {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

impl CryptoProvider for RingProvider {
    fn hash(&self, algorithm: HashAlgorithm) -> crypto::Result<Box<dyn HashContext>> {
        let algorithm = match algorithm {
            HashAlgorithm::Sha2256 => &SHA256,
            HashAlgorithm::Sha2384 => &SHA384,
            HashAlgorithm::Sha2512 => &SHA512,
            other => return Err(unsupported(other)),
        };
        Ok(Box::new(RingHash(Hashing::new(algorithm))))
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> crypto::Result<()> {
        let algorithm = verification(scheme).ok_or_else(|| unsupported(scheme.name()))?;
        UnparsedPublicKey::new(algorithm, key)
            .verify(data, signature)
            .map_err(|_| crypto::Error::Verification(format!("{} does not hold", scheme.name())))
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        _key: &[u8],
        _digest: &[u8],
        _signature: &[u8],
    ) -> crypto::Result<()> {
        Err(unsupported(format_args!("{} of a digest", scheme.name())))
    }
}

fn verification(scheme: SigningScheme) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match scheme {
        SigningScheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        SigningScheme::EcdsaP256Sha384 => &signature::ECDSA_P256_SHA384_ASN1,
        SigningScheme::EcdsaP384Sha256 => &signature::ECDSA_P384_SHA256_ASN1,
        SigningScheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        SigningScheme::Ed25519 => &signature::ED25519,
        SigningScheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        SigningScheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
        SigningScheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        SigningScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SigningScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        SigningScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

fn unsupported(what: impl fmt::Display) -> crypto::Error {
    crypto::Error::UnsupportedAlgorithm(what.to_string())
}

#[cfg(test)]
mod tests;
