//! A provider at the registry where it is published: its releases, as they are put elsewhere.

mod draft;
mod store;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::digest::Digest;
use crate::facts::blocking;
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, ProviderAddr, Repo, Tag, Version};
use crate::provider_registry::{ProviderRegistry, SignaturePolicy, VerifiedRelease};
use crate::registry::BlobError;
use crate::stage::Workshop;
use crate::stage::plan::{Destined, ReleasePlan};
use crate::stage::provider::{ProviderContents, Zip};
use crate::store::{Key, Store};

pub use draft::PackageDraft;
pub use store::{OriginOptions, OriginStore};

/// Packages that are fetched at once.
const AT_ONCE: usize = 3;
/// Annotation of a release: where it comes from.
pub const SOURCE: &str = "org.opencontainers.image.source";

/// One provider, and how its releases are got.
#[derive(Clone)]
pub struct ProviderOrigin<'a> {
    /// Whose releases.
    pub provider: ProviderAddr,
    /// Where they are published.
    pub registry: &'a ProviderRegistry,
    /// What is asked of their signatures.
    pub policy: SignaturePolicy,
    /// Where packages lie meanwhile.
    pub workshop: Arc<Workshop>,
    /// Where packages may lie already.
    pub cache: Option<Arc<Store>>,
}

impl ProviderOrigin<'_> {
    /// What releases say of where they come from.
    pub fn source(&self) -> String {
        format!("https://{}", self.provider)
    }

    /// A release whose signature holds, by the document of one of its platforms.
    ///
    /// # Errors
    /// Those of [`ProviderRegistry::release`].
    pub async fn release(
        &self,
        version: &Version,
        platform: &Platform,
    ) -> Result<VerifiedRelease, Refusal> {
        self.registry.release(&self.provider, version, platform, self.policy).await
    }

    /// Fetches the packages of `platforms`; the plan by which they are put to `tag`, with what
    /// vouches for them.
    ///
    /// # Errors
    /// `Integrity` for a zip that is not what its sums say; those of [`ProviderContents::plan`].
    pub async fn plan(
        &self,
        release: &VerifiedRelease,
        platforms: &[Platform],
        repo: &Repo,
        tag: &Tag,
    ) -> Result<ReleasePlan, Refusal> {
        let fetches = platforms.iter().map(|platform| self.package(release, platform).boxed());
        let zips: Vec<Zip> =
            stream::iter(fetches.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await?;
        let (provider, version) = (&self.provider, &release.version);
        let mut contents = ProviderContents::new(&format!("{provider} {version}"));
        contents.zips = zips;
        contents.keep(&provider.file_name(version, "SHA256SUMS"), release.sums.raw().to_vec());
        // What was not looked at is not passed on.
        if let (Some(signature), Some(key)) = (&release.signature, &release.key) {
            contents.keep(&provider.file_name(version, "SHA256SUMS.sig"), signature.clone());
            contents.keep(&provider.file_name(version, "signing-key.asc"), key.clone().into());
        }
        if let Some(manifest) = self.registry.manifest(release).await? {
            contents.keep(&provider.file_name(version, "manifest.json"), manifest);
        }
        let destined = Destined {
            repo: repo.clone(),
            tags: vec![tag.clone()],
            annotations: BTreeMap::from([(SOURCE.to_owned(), self.source())]),
        };
        let workshop = Arc::clone(&self.workshop);
        let planned = blocking(move || contents.plan(destined, &workshop)).await;
        planned.map_err(|_| Refusal::lost(provider))?
    }

    /// The zip for a platform, checked against the release's sums.
    async fn package(
        &self,
        release: &VerifiedRelease,
        platform: &Platform,
    ) -> Result<Zip, Refusal> {
        let (version, wanted) = (&release.version, release.package(platform)?);
        let name = self.provider.zip_name(version, platform);
        let subject = format!("{} {version}", self.provider);
        let says = name.parse().map_err(|e| Refusal::new(Failure::Invalid, subject.as_str(), e))?;
        let zip = |file| Zip { path: name.clone(), name: name.clone(), says, file };
        if let Some(file) = self.cached(wanted).await {
            return Ok(zip(file));
        }
        let workshop = Arc::clone(&self.workshop);
        let file = blocking(move || workshop.draft()).await;
        let file = file.map_err(|_| Refusal::lost(subject.as_str()))??;
        let mut draft = PackageDraft::new(file);
        let limit = self.workshop.limits().archive;
        match self.registry.package(release, platform, limit, &mut draft).await {
            Ok(()) => {}
            Err(BlobError::Registry(e)) => return Err(e),
            Err(BlobError::Sink(_)) => return Err(draft.failure(self.workshop.name())),
        }
        let (file, got): (OwnedFd, Digest) = draft.finish(self.workshop.name()).await?;
        if got != wanted {
            let rule = format!(
                "{name} came as {got}, and its SHA256SUMS says {wanted}: it was cut or changed"
            );
            return Err(Refusal::new(Failure::Integrity, subject, rule));
        }
        Ok(zip(file))
    }

    /// A package that lies in the cache. The plan hashes it again.
    async fn cached(&self, wanted: Digest) -> Option<OwnedFd> {
        let cache = self.cache.clone()?;
        let open = move || {
            let object = cache.get(&Key::Blob(wanted)).ok().flatten()?;
            object.fd()?.try_clone_to_owned().ok()
        };
        blocking(open).await.ok().flatten()
    }
}
