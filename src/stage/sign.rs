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
use crate::registry::Upload;
use crate::trust::bundle::{BUNDLE, HINT, SignedStatement};
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

/// Who says whether a release may be opened.
#[async_trait]
pub trait ReleaseCheck: Send + Sync {
    /// Looks at what is in the registry by digest, with what speaks about it.
    ///
    /// # Errors
    /// It may not, or that cannot be told.
    async fn check(&self, repo: &Repo, tag: &Tag, digest: Digest) -> Result<(), Refusal>;
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
        if signatures(upload, repo, subject.digest).await?.iter().any(is_ours) {
            return Ok(());
        }
        let at = || repo.at(Selector::Digest(subject.digest));
        let bundle = SignedStatement::sign(&self.key, &subject.digest, repo, tag)
            .map_err(|e| Refusal::new(Failure::Io, at(), e))?;
        let annotations = BTreeMap::from([
            ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
            ("dev.sigstore.bundle.predicateType".to_owned(), SIGNED.to_owned()),
            (HINT.to_owned(), public.hint()),
        ]);
        let attachment =
            Attachment { kind: BUNDLE.to_owned(), title: None, bytes: bundle.into(), annotations };
        let told = |what: &str| tracing::info!("{repo}@{}: {what}", subject.digest);
        attach(upload, repo, subject, &attachment, self.deadline, &told).await.map(drop)
    }
}

/// The signatures of a manifest that their own manifests carry.
///
/// # Errors
/// Those of [`Upload`].
pub async fn signatures(
    upload: &dyn Upload,
    repo: &Repo,
    subject: Digest,
) -> Result<Vec<SignedStatement>, Refusal> {
    let mut found = Vec::new();
    for entry in upload.referrers(&repo.name, &subject).await.whole()? {
        // a list may say nothing of the type, or something wrong
        let selector = Selector::Digest(entry.digest);
        let raw = upload.manifest(&repo.name, &selector).await?;
        if Digest::of_with(entry.digest.algorithm(), &raw.bytes) != entry.digest {
            continue;
        }
        let Ok(manifest) = Manifest::parse(raw.bytes, entry.digest, None) else { continue };
        let ManifestBody::Image(layers) = &manifest.body else { continue };
        if !manifest.kind().is_some_and(|kind| is_bundle(&kind)) {
            continue;
        }
        let carried = layers.iter().filter_map(|layer| manifest.inline(layer));
        found.extend(carried.filter_map(|bytes| SignedStatement::read_bundle(&bytes).ok()));
    }
    Ok(found)
}
