//! What is asked of the signatures of provider registries.

use crate::artifact::SignaturePolicy;

/// The policy that flags and OpenTofu's own variables describe.
pub fn policy(require: bool) -> SignaturePolicy {
    SignaturePolicy {
        require: require || is_set("OPENTOFU_ENFORCE_GPG_VALIDATION"),
        enforce_expiration: is_set("OPENTOFU_ENFORCE_GPG_EXPIRATION"),
    }
}

/// As OpenTofu reads its own variables.
fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "true")
}
