//! What comes before a tag: the release is signed, and policies are asked whether they will let
//! anybody open it then.

use std::collections::HashSet;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::digest::Digest;
use crate::failure::Refusal;
use crate::name::{Reference, Selector, Tag};
use crate::oci::Manifest;
use crate::registry::Upload;
use crate::stage::plan::ReleasePlan;
use crate::stage::sign::ReleaseSigner;

/// Who says whether a release may be opened.
#[async_trait]
pub trait ReleaseCheck: Send + Sync {
    /// Whether anything is asked of releases.
    fn asks(&self) -> bool;

    /// Looks at what is in the registry by `digest`, with what speaks about it, as if `reference`
    /// stood for it. It need not answer for platforms that are not in the plan.
    ///
    /// # Errors
    /// It may not be opened, or that cannot be told.
    async fn check(
        &self,
        plan: &ReleasePlan,
        reference: &Reference,
        digest: Digest,
    ) -> Result<(), Refusal>;
}

/// Who approves releases before their tags make them visible, and what was approved.
pub(super) struct Approval<'a> {
    signer: Option<&'a dyn ReleaseSigner>,
    check: Option<&'a dyn ReleaseCheck>,
    approved: Mutex<HashSet<(Tag, Digest)>>,
}

impl<'a> Approval<'a> {
    pub(super) fn by(
        signer: Option<&'a dyn ReleaseSigner>,
        check: Option<&'a dyn ReleaseCheck>,
    ) -> Approval<'a> {
        let check = check.filter(|check| check.asks());
        Approval { signer, check, approved: Mutex::default() }
    }

    /// Whether there is anybody who approves.
    pub(super) fn is_wanted(&self) -> bool {
        self.signer.is_some() || self.check.is_some()
    }

    /// Has the release signed, and asks whether it may be opened then, once for each of its tags.
    ///
    /// # Errors
    /// It is not signed afterwards, or may not be opened.
    pub(super) async fn of(
        &self,
        plan: &ReleasePlan,
        upload: &dyn Upload,
        tag: &Tag,
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        let (digest, repo) = (manifest.digest, &plan.repo);
        if self.approved.lock().contains(&(tag.clone(), digest)) {
            return Ok(());
        }
        if let Some(signer) = self.signer {
            signer.sign(upload, repo, &manifest.descriptor(), Some(tag)).await?;
        }
        if let Some(check) = self.check {
            check.check(plan, &repo.at(Selector::Tag(tag.clone())), digest).await?;
        }
        self.approved.lock().insert((tag.clone(), digest));
        Ok(())
    }
}
