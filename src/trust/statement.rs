//! What was signed: a statement about a manifest, as in-toto statements and as cosign's older
//! "simple signing" documents have it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::name::{Repo, Tag};
use crate::oci::strict;

/// The kind of statement that says: this was approved.
pub const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
/// The annotation by which a statement names the repository, as `HOST[:PORT]/NAME`.
pub const REPOSITORY: &str = "org.tofufs.repository";
/// The annotation by which it names the tag.
pub const TAG: &str = "org.tofufs.tag";

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const OLD_STATEMENT: &str = "https://in-toto.io/Statement/v0.1";
const SIMPLE: [&str; 2] = ["cosign container image signature", "atomic container signature"];

/// One thing of which a statement speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatementSubject {
    pub digest: Digest,
    pub annotations: BTreeMap<String, String>,
}

/// What a signer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    pub subjects: Vec<StatementSubject>,
    /// Which kind of statement it is.
    pub predicate_type: String,
}

impl Statement {
    /// Reads an in-toto statement.
    ///
    /// # Errors
    /// It is none that is understood.
    pub fn read(payload: &[u8]) -> Result<Statement, String> {
        let value = strict::parse(payload)?;
        match value.get("_type").and_then(Value::as_str) {
            Some(STATEMENT | OLD_STATEMENT) => {}
            _ => return Err("it is no in-toto statement".to_owned()),
        }
        let predicate_type = value.get("predicateType").and_then(Value::as_str);
        let predicate_type = predicate_type.ok_or("the statement has no predicateType")?.to_owned();
        let subjects = value.get("subject").and_then(Value::as_array);
        let subjects = subjects.ok_or("the statement has no subject")?;
        let mut named = Vec::new();
        for subject in subjects {
            let digests = subject.get("digest").and_then(Value::as_object);
            for (algorithm, hex) in digests.ok_or("a subject of the statement has no digest")? {
                let Some(hex) = hex.as_str() else { return Err("a digest is no text".to_owned()) };
                // digests of algorithms that nobody here asks for say nothing
                if let Ok(digest) = format!("{algorithm}:{hex}").parse() {
                    let annotations = texts(subject.get("annotations"))?;
                    named.push(StatementSubject { digest, annotations });
                }
            }
        }
        Ok(Statement { subjects: named, predicate_type })
    }

    /// Reads a "simple signing" document: cosign's signatures before bundles.
    ///
    /// # Errors
    /// It is none that is understood.
    pub fn read_simple(payload: &[u8]) -> Result<Statement, String> {
        let value = strict::parse(payload)?;
        let critical = value.get("critical").ok_or("it is no simple signing document")?;
        if !critical.get("type").and_then(Value::as_str).is_some_and(|t| SIMPLE.contains(&t)) {
            return Err("it is a simple signing document of another type".to_owned());
        }
        let digest = critical.get("image").and_then(|image| image.get("docker-manifest-digest"));
        let digest = digest.and_then(Value::as_str).and_then(|digest| digest.parse().ok());
        let digest = digest.ok_or("the simple signing document names no digest")?;
        // what is optional may hold values of any type; those that are no texts say nothing
        let optional = value.get("optional").and_then(Value::as_object);
        let annotations = optional
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        let subject = StatementSubject { digest, annotations: annotations.collect() };
        Ok(Statement { subjects: vec![subject], predicate_type: SIGNED.to_owned() })
    }

    /// The text of the statement that a release was approved: the same on every day and machine.
    pub fn approving(digest: &Digest, repo: &Repo, tag: Option<&Tag>) -> Vec<u8> {
        let mut annotations = BTreeMap::from([(REPOSITORY, repo.to_string())]);
        annotations.extend(tag.map(|tag| (TAG, tag.to_string())));
        json!({
            "_type": STATEMENT,
            "predicate": {},
            "predicateType": SIGNED,
            "subject": [{
                "annotations": annotations,
                "digest": {digest.algorithm().name(): digest.hex()},
            }],
        })
        .to_string()
        .into_bytes()
    }
}

fn texts(value: Option<&Value>) -> Result<BTreeMap<String, String>, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(BTreeMap::new()) };
    let entries = value.as_object().ok_or("the annotations are no object")?;
    let text = |(key, value): (&String, &Value)| {
        value
            .as_str()
            .map(|value| (key.clone(), value.to_owned()))
            .ok_or("an annotation is no text")
    };
    Ok(entries.iter().map(text).collect::<Result<_, _>>()?)
}
