//! When releases came out, as far as manifests and this cache tell.

use super::Gate;
use crate::digest::Digest;
use crate::facts::blocking::blocking;
use crate::failure::{Failure, Refusal};
use crate::moment::Moment;
use crate::trust::{Asked, Policies, ReleaseDates};

/// Annotation of a manifest: when it was made.
const CREATED: &str = "org.opencontainers.image.created";

impl Gate {
    /// The dates of a release, where a policy asks for its age.
    ///
    /// # Errors
    /// Its manifest cannot be had.
    pub(super) async fn dates(
        &self,
        asked: &Asked,
        policies: &Policies,
    ) -> Result<ReleaseDates, Refusal> {
        let now = Moment::now();
        let nothing = ReleaseDates { now, created: None, first_seen: None };
        if !policies.ask_age(&asked.repo) {
            return Ok(nothing);
        }
        let first_seen = Some(self.first_seen(asked.digest, now).await?);
        let created = match self.manifests.document(&asked.repo, asked.digest).await {
            Ok(document) => document.manifest().and_then(|manifest| {
                manifest.annotations.get(CREATED).and_then(|text| Moment::parse(text))
            }),
            Err(e) if e.failure == Failure::Structure => None,
            // A provider registry has documents by versions alone.
            Err(e) if e.failure == Failure::Absent => None,
            Err(e) => return Err(e),
        };
        Ok(ReleaseDates { now, created, first_seen })
    }

    /// When something with this digest was seen first by a mount or command that uses this cache. A
    /// time that is still to come was told by a clock that was wrong, and begins anew.
    async fn first_seen(&self, digest: Digest, now: Moment) -> Result<Moment, Refusal> {
        let (store, name) = (self.store.clone(), format!("seen {digest}"));
        let look = move || {
            let kept = store.edge(&name).and_then(|text| String::from_utf8(text).ok());
            let kept = kept.and_then(|text| Moment::parse(&text)).filter(|at| *at <= now);
            if kept.is_none()
                && let Err(e) = store.put_lasting_edge(&name, now.to_string().as_bytes())
            {
                tracing::warn!("{digest}: when it was seen first cannot be kept: {e}");
            }
            kept.unwrap_or(now)
        };
        blocking(look).await
    }
}
