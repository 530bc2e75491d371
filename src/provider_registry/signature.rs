//! Which signatures of `SHA256SUMS` count.

use crate::artifact::{SignatureOutcome, SignaturePolicy};
use crate::failure::{Failure, Refusal};
use crate::mapping::DEFAULT_REGISTRY;
use crate::name::Host;
use crate::openpgp::{self, Certificate};

/// Judges a signature of `document`; gives the armored key that made it, too. `now` is in seconds
/// since 1970.
pub(super) fn judge<'a>(
    policy: SignaturePolicy,
    host: &Host,
    subject: &str,
    document: &[u8],
    signature: Option<&[u8]>,
    keys: &'a [String],
    now: u64,
) -> Result<(SignatureOutcome, Option<&'a str>), Refusal> {
    let refuse = |rule: String| Err(Refusal::new(Failure::Unsigned, subject, rule));
    if keys.is_empty() {
        return match host.as_str() {
            DEFAULT_REGISTRY if !policy.require => Ok((SignatureOutcome::Unsigned, None)),
            DEFAULT_REGISTRY => refuse(format!(
                "{host} names no key for this provider, and a signature is required"
            )),
            _ => refuse(format!("{host} names no key by which its SHA256SUMS could be checked")),
        };
    }
    let Some(signature) = signature else {
        return refuse(format!("{host} names a key, and no signature of SHA256SUMS is there"));
    };
    let mut certificates: Vec<(Certificate, &str)> = Vec::new();
    let mut unread = None;
    for armor in keys {
        match Certificate::read(armor, now) {
            Ok(all) => certificates.extend(all.into_iter().map(|one| (one, armor.as_str()))),
            Err(e) => unread = Some(e),
        }
    }
    if let (true, Some(e)) = (certificates.is_empty(), unread) {
        return refuse(format!("a key that {host} names cannot be read: {e}"));
    }
    let all: Vec<Certificate> = certificates.iter().map(|(one, _)| one.clone()).collect();
    let signer = match openpgp::verify(document, signature, &all, now) {
        Ok(signer) => signer,
        Err(e) => {
            return refuse(format!(
                "the signature of SHA256SUMS does not hold by a key that {host} names: {e}"
            ));
        }
    };
    let key = certificates.iter().find(|(one, _)| one.id() == signer.primary).map(|(_, key)| *key);
    match (signer.is_expired, policy.enforce_expiration) {
        (false, _) => Ok((SignatureOutcome::Signed(signer.primary), key)),
        (true, false) => Ok((SignatureOutcome::SignedByExpiredKey(signer.primary), key)),
        (true, true) => refuse(format!(
            "its SHA256SUMS is signed by the key {}, which has expired",
            signer.primary
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_a_key(host: &str, require: bool) -> Result<SignatureOutcome, Failure> {
        let policy = SignaturePolicy { require, ..SignaturePolicy::default() };
        judge(policy, &host.parse().unwrap(), "x", b"", None, &[], 0)
            .map(|(outcome, _)| outcome)
            .map_err(|e| e.failure)
    }

    #[test]
    fn only_opentofu_s_own_registry_may_name_no_key_and_only_where_none_is_required() {
        assert_eq!(without_a_key(DEFAULT_REGISTRY, false), Ok(SignatureOutcome::Unsigned));
        for (host, require) in [
            (DEFAULT_REGISTRY, true),
            ("registry.terraform.io", false),
            ("registry.opentofu.org.example", false),
        ] {
            assert_eq!(without_a_key(host, require), Err(Failure::Unsigned), "{host}");
        }
        assert_eq!(SignatureOutcome::Unsigned.to_string(), "unsigned");
    }
}
