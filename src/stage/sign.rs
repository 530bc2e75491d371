//! Signing what is published, before its tag makes it visible.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::attach::{Attachment, attach};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{Repo, Selector, Tag};
use crate::oci::referrer::is_bundle;
use crate::oci::{Descriptor, Manifest, ManifestBody};
use crate::registry::{Upload, small_blob};
use crate::trust::bundle::{BUNDLE, BUNDLE_MAX, HINT, SignedStatement, TAG_HINT};
use crate::trust::signing::SigningKey;
use crate::trust::statement::{SIGNED, Statement};

/// Who signs releases.
#[async_trait]
pub trait ReleaseSigner: Send + Sync {
    /// Has a signature of `subject`, by the name under which it is to be found, in the list of its
    /// referrers. What is signed already is not signed again.
    ///
    /// # Errors
    /// There is no signature afterwards.
    async fn sign(
        &self,
        upload: &dyn Upload,
        repo: &Repo,
        subject: &Descriptor,
        tag: Option<&Tag>,
    ) -> Result<(), Refusal>;
}

/// A key on this machine.
pub struct KeySigner {
    pub key: SigningKey,
    /// How long a registry may take until it lists the signature.
    pub deadline: Duration,
}

#[async_trait]
impl ReleaseSigner for KeySigner {
    async fn sign(
        &self,
        upload: &dyn Upload,
        repo: &Repo,
        subject: &Descriptor,
        tag: Option<&Tag>,
    ) -> Result<(), Refusal> {
        let wanted = Statement::approving(&subject.digest, repo, tag);
        let public = self.key.public();
        let is_ours = |signed: &SignedStatement| signed.payload == wanted && signed.is_by(&public);
        if signatures(upload, repo, subject.digest, tag).await?.iter().any(is_ours) {
            return Ok(());
        }
        let at = || repo.at(Selector::Digest(subject.digest));
        let bundle = SignedStatement::sign(&self.key, &subject.digest, repo, tag)
            .map_err(|e| Refusal::new(Failure::Io, at(), e))?;
        let mut annotations = BTreeMap::from([
            ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
            ("dev.sigstore.bundle.predicateType".to_owned(), SIGNED.to_owned()),
            (HINT.to_owned(), public.hint()),
        ]);
        annotations.extend(tag.map(|tag| (TAG_HINT.to_owned(), tag.to_string())));
        let attachment =
            Attachment { kind: BUNDLE.to_owned(), title: None, bytes: bundle.into(), annotations };
        let told = |what: &str| tracing::info!("{repo}@{}: {what}", subject.digest);
        attach(upload, repo, subject, &attachment, self.deadline, &told).await.map(drop)
    }
}

/// The signatures of a manifest that their own manifests carry, but for those that are listed as
/// being for another tag: a list that is wrong about that costs one signature more.
async fn signatures(
    upload: &dyn Upload,
    repo: &Repo,
    subject: Digest,
    tag: Option<&Tag>,
) -> Result<Vec<SignedStatement>, Refusal> {
    let of_another = |entry: &Descriptor| {
        let hint = entry.annotations.get(TAG_HINT);
        hint.is_some_and(|hint| tag.is_none_or(|tag| hint != tag.as_str()))
    };
    let mut found = Vec::new();
    let listed = upload.referrers(&repo.name, &subject).await.whole()?;
    for entry in listed.into_iter().filter(|entry| !of_another(entry)) {
        let Some(manifest) = bundle_manifest(upload, repo, &entry).await? else { continue };
        let ManifestBody::Image(layers) = &manifest.body else { continue };
        let carried = layers.iter().filter_map(|layer| manifest.inline(layer));
        found.extend(carried.filter_map(|bytes| SignedStatement::read_bundle(&bytes).ok()));
    }
    Ok(found)
}

/// Whether a referrer is a bundle with a statement about `subject`, by whomever.
///
/// # Errors
/// Those of [`Upload`].
pub async fn is_about(
    upload: &dyn Upload,
    repo: &Repo,
    referrer: &Descriptor,
    subject: Digest,
) -> Result<bool, Refusal> {
    let Some(manifest) = bundle_manifest(upload, repo, referrer).await? else { return Ok(false) };
    let ManifestBody::Image(layers) = &manifest.body else { return Ok(false) };
    for layer in layers {
        let bytes = match manifest.inline(layer) {
            Some(bytes) => bytes,
            None => small_blob(upload, repo, layer, BUNDLE_MAX).await?,
        };
        let read = SignedStatement::read_bundle(&bytes);
        let names = |signed: SignedStatement| {
            signed.statement.subjects.iter().any(|named| named.digest == subject)
        };
        if read.is_ok_and(names) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The manifest of what a list names, if it is a bundle. The list may say nothing of the type, or
/// something wrong.
async fn bundle_manifest(
    upload: &dyn Upload,
    repo: &Repo,
    entry: &Descriptor,
) -> Result<Option<Manifest>, Refusal> {
    let selector = Selector::Digest(entry.digest);
    let raw = upload.manifest(&repo.name, &selector).await?;
    if Digest::of_with(entry.digest.algorithm(), &raw.bytes) != entry.digest {
        return Ok(None);
    }
    let manifest = Manifest::parse(raw.bytes, entry.digest, None).ok();
    Ok(manifest.filter(|manifest| manifest.kind().is_some_and(|kind| is_bundle(&kind))))
}
