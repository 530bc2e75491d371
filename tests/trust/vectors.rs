//! The vectors of sigstore-conformance (`tests/data/sigstore-conformance`), through what a policy
//! decides by. What they sign by digest instead of as a statement is refused, whatever they expect.

use tofufs::moment::Moment;
use tofufs::trust::{Asked, Policies, Policy, ReleaseDates};

use crate::support::vectors::{self, Vector};
use crate::*;

/// Whether a policy that names what a vector names admits it; else why not.
fn verdict(vector: &Vector) -> Result<(), String> {
    let signed = SignedStatement::read_bundle(&vector.bundle())?;
    let attributes = match vector.key() {
        Some(_) => "keys = [\"key.pub\"]".to_owned(),
        None => {
            let (issuer, identity) = (vector.issuer(), vector.identity());
            format!("issuer = {issuer:?}\n  identity = {identity:?}")
        }
    };
    let text = format!(
        "default = \"refuse\"\nsigner \"it\" {{\n  trusted_root = \"trusted_root.json\"\n  \
         predicate = {:?}\n  {attributes}\n}}\n\
         scope \"r.example\" {{\n  signed_by = [\"it\"]\n}}\n",
        signed.statement.predicate_type,
    );
    let mut read = |name: &str| match name {
        "key.pub" => vector.key().ok_or_else(|| "no key".to_owned()),
        _ => Ok(vector.trusted_root()),
    };
    let policy = Policy::parse("policy.hcl", &text, Moment::now(), &mut read);
    let policies = Policies(vec![policy.map_err(|e| e.to_string())?.into()]);
    let repo = Repo { host: "r.example".parse().unwrap(), name: "x".parse().unwrap() };
    let digest = Digest::of(&vector.artifact());
    let asked = Asked { repo, tag: None, digest, platform: None };
    let mut judgement = policies.judge(&asked, ReleaseDates::UNKNOWN);
    judgement.add(Ok(signed));
    judgement.admission().map(drop).ok_or_else(|| judgement.refusal().rule)
}

/// S29, S30
#[test]
fn statements_of_the_conformance_suite_count_or_do_not_as_it_says() {
    let (mut statements, mut good) = (0, 0);
    let vectors = vectors::all();
    assert_eq!(vectors.len(), 70);
    for vector in &vectors {
        let is_statement = String::from_utf8_lossy(&vector.bundle()).contains("\"dsseEnvelope\"");
        let verdict = verdict(vector);
        assert_eq!(
            verdict.is_ok(),
            vector.is_good() && is_statement,
            "{}: {verdict:?}",
            vector.name
        );
        statements += usize::from(is_statement);
        good += usize::from(verdict.is_ok());
        eprintln!("{}: {}", vector.name, verdict.err().unwrap_or_default());
    }
    assert_eq!((statements, good), (14, 3));
}
