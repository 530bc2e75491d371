//! What a registry means that refuses what is written, in a sentence that says what to do (registry
//! quirk Q14 to Q19).

use reqwest::StatusCode;

use super::super::answer::ResponseDocument;
use super::super::retry::Fault;
use crate::failure::Failure;
use crate::oci::{Descriptor, Manifest, ManifestBody};

/// What was to be written.
pub(super) enum WriteSubject<'a> {
    Blob(&'a Descriptor),
    Manifest(&'a Manifest),
}

impl WriteSubject<'_> {
    fn size(&self) -> u64 {
        match self {
            WriteSubject::Blob(blob) => blob.size,
            WriteSubject::Manifest(manifest) => manifest.raw.len() as u64,
        }
    }
}

/// The fault of an answer that is neither a success nor a matter of logging in.
pub(super) fn of_answer(answer: &ResponseDocument, written: &WriteSubject<'_>) -> Fault {
    let words = answer.words();
    let codes = answer.error_codes().unwrap_or_default();
    let says = |wanted: &[&str]| codes.iter().any(|code| wanted.contains(&code.as_str()));
    let fault = |failure, what: &str| Fault::new(failure, format!("{words}: {what}"));
    if answer.status == StatusCode::PAYLOAD_TOO_LARGE {
        let what = format!(
            "the registry, or a proxy before it, takes no body of {} bytes",
            written.size()
        );
        return fault(Failure::TooLarge, &what).remedy("raise the limit for request bodies there");
    }
    let told = of_fault(answer.unexpected(), written);
    if told.remedy.is_some() {
        return told;
    }
    if says(&["NAME_UNKNOWN"]) {
        return fault(
            Failure::Absent,
            "the registry has no such repository and makes none when something is pushed",
        )
        .remedy("create the repository there first (Amazon ECR wants that, or a template for it)");
    }
    if says(&["NAME_INVALID"]) {
        return fault(Failure::Absent, "the registry allows no repository of this name");
    }
    match written {
        WriteSubject::Blob(_) => of_blob(answer, says(&["DIGEST_INVALID"]), told),
        WriteSubject::Manifest(manifest) => of_manifest(answer, says, manifest, told),
    }
}

/// The same fault, explained by the words of the registry where they say why it denies something.
pub(super) fn of_fault(fault: Fault, written: &WriteSubject<'_>) -> Fault {
    let words = fault.rule.to_lowercase();
    let has = |any: &[&str]| any.iter().any(|part| words.contains(part));
    let denied = |what: &str| Fault::new(Failure::Denied, format!("{}: {what}", fault.rule));
    if matches!(fault.failure, Failure::TimedOut | Failure::Unreachable | Failure::Untrusted) {
        return fault;
    }
    if has(&["delete/overwrite", "needs delete permission", "permissions to overwrite"]) {
        // Q15
        return denied(
            "what an earlier upload left behind, or what stands there, may not be replaced by this \
             credential",
        )
        .remedy(
            "have an administrator remove the unfinished upload, or give the credential the \
             permission to delete (Artifactory)",
        );
    }
    if has(&["immutab"]) && matches!(written, WriteSubject::Manifest(_)) {
        // Q16
        return denied("the registry itself forbids to overwrite a tag")
            .remedy("publish under another tag, or have the tag's immutability turned off there");
    }
    fault
}

fn of_blob(answer: &ResponseDocument, other_digest: bool, told: Fault) -> Fault {
    let words = answer.words();
    match answer.status {
        // the session was lost, or its server; a new upload may be luckier
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::RANGE_NOT_SATISFIABLE => {
            Fault::passing(Failure::TimedOut, format!("{words}: the registry has lost the upload"))
        }
        _ if other_digest => Fault::passing(
            Failure::Integrity,
            format!("{words}: other bytes arrived than those that were sent"),
        ),
        _ => told,
    }
}

fn of_manifest(
    answer: &ResponseDocument,
    says: impl Fn(&[&str]) -> bool,
    manifest: &Manifest,
    told: Fault,
) -> Fault {
    let words = answer.words();
    if says(&["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"]) {
        // Q18
        let rule = format!("{words}: the manifest names content that the repository lacks");
        return Fault::new(Failure::Integrity, rule)
            .remedy("push the artifact again, which sends what is missing");
    }
    let kind = match (&manifest.body, &manifest.artifact_type) {
        (_, Some(artifact_type)) => format!("the artifactType {artifact_type}"),
        (ManifestBody::Index(_), None) => "image indexes".to_owned(),
        (ManifestBody::Image(_), None) => "manifests of this form".to_owned(),
    };
    if says(&["MANIFEST_INVALID"]) {
        // Q19
        let rule = format!("{words}: the registry does not take {kind}");
        return Fault::new(Failure::Unsupported, rule).remedy(
            "have the type added to the types that it allows (GitLab and Pulp keep such a list, \
             Quay has ALLOWED_OCI_ARTIFACT_TYPES), or use another registry: OpenTofu reads no \
             artifact without its type",
        );
    }
    let unknown =
        [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
    if unknown.contains(&answer.status) || answer.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let rule = format!("{words}: the registry does not take {kind}");
        return Fault::new(Failure::Unsupported, rule).remedy(
            "use a version of the registry that knows OCI 1.1 artifacts and indexes (old \
                 Gitea does not)",
        );
    }
    told
}
