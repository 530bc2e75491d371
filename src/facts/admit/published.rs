//! Whether anybody could open what is being published, asked before its tag makes it visible.

use std::sync::Arc;

use super::{Gate, WantedTargets, refused};
use crate::digest::Digest;
use crate::failure::Refusal;
use crate::name::Reference;

impl Gate {
    /// Whether a release that is there by digest may be opened once its tag stands for it: all of
    /// it, or those of its platforms that are `wanted`. What is being published is not old, so no
    /// policy is asked for an age; and what was found out before it was signed does not count.
    ///
    /// # Errors
    /// As of [`Gate::admit`].
    pub async fn admit_new(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
        wanted: WantedTargets<'_>,
    ) -> Result<(), Refusal> {
        let policies = self.policies.read().0.without_ages();
        if policies.is_empty() {
            return Ok(());
        }
        self.referrers.forget_lists_of(digest);
        for asked in self.asked_of(reference, digest, wanted).await? {
            self.look(&asked, &policies, false).await?.map_err(|why| refused(&asked, why))?;
        }
        Ok(())
    }
}
