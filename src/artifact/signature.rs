//! What was found of the signature of a release, and which findings count.

use std::fmt;
use std::str::FromStr;

use crate::openpgp::KeyId;

/// What is asked of signatures.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SignaturePolicy {
    /// A release without a key is refused wherever it comes from. Otherwise OpenTofu's own
    /// registry may have such, as with OpenTofu.
    pub require: bool,
    /// An expired key does not count. Otherwise it does, with a warning, as with OpenTofu.
    pub enforce_expiration: bool,
}

impl SignaturePolicy {
    /// Whether what was found at another time is enough by this policy, too.
    pub fn admits(self, outcome: SignatureOutcome) -> bool {
        match outcome {
            SignatureOutcome::Signed(_) => true,
            SignatureOutcome::SignedByExpiredKey(_) => !self.enforce_expiration,
            SignatureOutcome::Unsigned => !self.require,
        }
    }
}

/// What was found of a release's signature. Prints in OpenTofu's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignatureOutcome {
    /// It is signed by a key that the registry names.
    Signed(KeyId),
    /// By such a key that has expired by now.
    SignedByExpiredKey(KeyId),
    /// The registry names no key.
    Unsigned,
}

const SIGNED: &str = "signed, key ID ";
const EXPIRED: &str = " (key expired)";
const UNSIGNED: &str = "unsigned";

impl fmt::Display for SignatureOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignatureOutcome::Signed(id) => write!(f, "{SIGNED}{id}"),
            SignatureOutcome::SignedByExpiredKey(id) => write!(f, "{SIGNED}{id}{EXPIRED}"),
            SignatureOutcome::Unsigned => f.write_str(UNSIGNED),
        }
    }
}

/// A text that says nothing of a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this says nothing of a signature")]
pub struct NoOutcome;

impl FromStr for SignatureOutcome {
    type Err = NoOutcome;

    /// Reads what was printed.
    fn from_str(text: &str) -> Result<Self, NoOutcome> {
        if text == UNSIGNED {
            return Ok(SignatureOutcome::Unsigned);
        }
        let id = text.strip_prefix(SIGNED).ok_or(NoOutcome)?;
        match id.strip_suffix(EXPIRED) {
            Some(id) => KeyId::parse(id).map(SignatureOutcome::SignedByExpiredKey),
            None => KeyId::parse(id).map(SignatureOutcome::Signed),
        }
        .ok_or(NoOutcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_reads_as_it_was_printed() {
        for text in [
            "signed, key ID 34365D9472D7468F",
            "signed, key ID 34365D9472D7468F (key expired)",
            "unsigned",
        ] {
            assert_eq!(text.parse::<SignatureOutcome>().unwrap().to_string(), text);
        }
        for bad in ["", "signed", "signed, key ID 1", "signed, key ID 34365D9472D7468F (other)"] {
            assert_eq!(bad.parse::<SignatureOutcome>(), Err(NoOutcome), "{bad}");
        }
    }

    #[test]
    fn a_policy_admits_what_it_would_have_found_enough() {
        let [signed, expired, unsigned] = [
            "signed, key ID 34365D9472D7468F",
            "signed, key ID 34365D9472D7468F (key expired)",
            "unsigned",
        ]
        .map(|text| text.parse::<SignatureOutcome>().unwrap());
        let all = |policy: SignaturePolicy| [signed, expired, unsigned].map(|o| policy.admits(o));
        let policy = |require, enforce_expiration| SignaturePolicy { require, enforce_expiration };
        assert_eq!(all(policy(false, false)), [true, true, true]);
        assert_eq!(all(policy(true, false)), [true, true, false]);
        assert_eq!(all(policy(false, true)), [true, false, true]);
    }
}
