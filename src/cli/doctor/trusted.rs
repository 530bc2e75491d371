//! What the policies that count are like, and how old the trusted roots are that they name.

use std::sync::Arc;

use super::DoctorFinding;
use crate::cli::output::{self, CommandError};
use crate::moment::Moment;
use crate::trust::Policies;
use crate::trust::keyless::TrustedRoots;

/// Instances of Sigstore change a key about once a year; signatures by the next one are refused
/// until somebody brings the new root. In days.
const OLD: u64 = 365;

pub(super) fn findings(
    policies: Result<Arc<Policies>, CommandError>,
    now: Moment,
) -> Vec<DoctorFinding> {
    let policies = match policies {
        Ok(policies) => policies,
        Err(e) => return vec![DoctorFinding::problem("policy", e)],
    };
    let mut findings = Vec::new();
    for policy in &policies.0 {
        let (scopes, signers) = policy.counts();
        let (scopes, signers) = (output::count(scopes, "scope"), output::count(signers, "signer"));
        findings.push(DoctorFinding::ok("policy", format!("{}: {scopes}, {signers}", policy.name)));
        findings.extend(policy.roots().map(|roots| root(roots, now)));
    }
    findings
}

fn root(roots: &TrustedRoots, now: Moment) -> DoctorFinding {
    let file = &roots.file;
    let Some(newest) = roots.newest() else {
        return DoctorFinding::note("trusted root", format!("{file}: it names no key"));
    };
    let found = format!("{file}: its newest key is of {} ({})", newest.since.day(), newest.of);
    if newest.since.days_to(now) < OLD {
        return DoctorFinding::ok("trusted root", found);
    }
    DoctorFinding::note("trusted root", found).remedy(
        "what is signed by newer keys is refused; if there are such, make the file anew where there \
         is a network (cosign trusted-root create, gh attestation trusted-root)",
    )
}
