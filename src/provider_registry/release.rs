//! A release whose `SHA256SUMS` was checked, and its packages.

use std::time::{SystemTime, UNIX_EPOCH};

use url::Url;

use super::download::DownloadDocument;
use super::signature;
use super::{ProviderRegistry, part, subject};
use crate::artifact::{ReleaseSums, SignatureOutcome, SignaturePolicy};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::moment::Moment;
use crate::name::{Platform, ProviderAddr, Version};
use crate::registry::service_host::{ServiceDocument, ServiceQuestion};
use crate::registry::{BlobError, BlobSink};

/// The most bytes of a document that is kept beside zips.
const KEPT_MAX: u64 = 1 << 20;

/// A release: platform → digest of the zip. Its identity is the digest of its `SHA256SUMS`.
#[derive(Clone, Debug)]
pub struct VerifiedRelease {
    /// Whose.
    pub provider: ProviderAddr,
    /// Which.
    pub version: Version,
    /// The checked sums.
    pub sums: ReleaseSums,
    /// When the document with the sums changed last, where its server tells.
    pub published: Option<Moment>,
    /// What was found of their signature.
    pub outcome: SignatureOutcome,
    /// The signature, as it came.
    pub signature: Option<Vec<u8>>,
    /// The armored key that made it, as the registry names it.
    pub key: Option<String>,
    sums_url: Url,
    /// The platform whose document was read for all this.
    first: (Platform, DownloadDocument),
}

impl VerifiedRelease {
    /// What the release is recognised by.
    pub fn identity(&self) -> Digest {
        self.sums.identity()
    }

    /// The digest of the zip for `platform`.
    ///
    /// # Errors
    /// `Structure` where the sums have no line for it.
    pub fn package(&self, platform: &Platform) -> Result<Digest, Refusal> {
        let name = self.provider.zip_name(&self.version, platform);
        self.sums.of(&name).ok_or_else(|| {
            let rule = format!("its SHA256SUMS has no line for {name}");
            Refusal::new(Failure::Structure, subject(&self.provider, &self.version), rule)
        })
    }
}

impl ProviderRegistry {
    /// A release, by the document of one of its platforms: three small requests.
    ///
    /// # Errors
    /// `Unsigned` where its signature does not suffice; `Structure` for sums that are not strict;
    /// else as for all documents.
    pub async fn release(
        &self,
        provider: &ProviderAddr,
        version: &Version,
        platform: &Platform,
        policy: SignaturePolicy,
    ) -> Result<VerifiedRelease, Refusal> {
        let document = self.download_document(provider, version, platform).await?;
        self.release_by(provider, version, platform, document, policy).await
    }

    /// A release, by a document of the platform that was read just now.
    pub(super) async fn release_by(
        &self,
        provider: &ProviderAddr,
        version: &Version,
        platform: &Platform,
        document: DownloadDocument,
        policy: SignaturePolicy,
    ) -> Result<VerifiedRelease, Refusal> {
        let subject = subject(provider, version);
        let lacking = |failure, what: &str| {
            let rule = format!("{what} is not where {} says", self.host);
            Refusal::new(failure, subject.as_str(), rule)
        };
        let kept = self.kept(provider, &subject, &document.sums, "SHA256SUMS").await?;
        let kept = kept.ok_or_else(|| lacking(Failure::Integrity, "SHA256SUMS"))?;
        let published = kept.modified;
        let sums = ReleaseSums::parse(kept.bytes)
            .map_err(|rule| Refusal::new(Failure::Structure, subject.as_str(), rule))?;
        let signature = match document.signature.as_ref().filter(|_| !document.keys.is_empty()) {
            Some(url) => self
                .kept(provider, &subject, url, "the signature of SHA256SUMS")
                .await?
                .map(|kept| kept.bytes),
            None => None,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (outcome, key) = signature::judge(
            policy,
            &self.host,
            &subject,
            sums.raw(),
            signature.as_deref(),
            &document.keys,
            now,
        )?;
        let release = VerifiedRelease {
            provider: provider.clone(),
            version: version.clone(),
            key: key.map(str::to_owned),
            sums,
            published,
            outcome,
            signature,
            sums_url: document.sums.clone(),
            first: (platform.clone(), document),
        };
        check(&release, platform, &release.first.1)?;
        Ok(release)
    }

    /// Fetches the zip for `platform` into `sink`, at most `limit` bytes. Who keeps them compares
    /// their digest with [`VerifiedRelease::package`].
    ///
    /// # Errors
    /// As for all files, and `Structure` where the registry names another zip than the sums.
    pub async fn package(
        &self,
        release: &VerifiedRelease,
        platform: &Platform,
        limit: u64,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let (provider, version) = (&release.provider, &release.version);
        let other;
        let document = if release.first.0 == *platform {
            &release.first.1
        } else {
            other = self.download_document(provider, version, platform).await?;
            check(release, platform, &other)?;
            &other
        };
        let (subject, part) = (subject(provider, version), part(provider));
        let what = format!("the zip for {platform}");
        let question = ServiceQuestion {
            url: &document.zip,
            subject: &subject,
            what: &what,
            part: part.as_ref(),
            token: None,
            limit,
        };
        self.services.download(question, sink).await
    }

    /// The release's `_manifest.json`, which lies beside its sums where there is one; no document
    /// names its address.
    ///
    /// # Errors
    /// An outage; `Integrity` where it is not what the sums say.
    pub async fn manifest(&self, release: &VerifiedRelease) -> Result<Option<Vec<u8>>, Refusal> {
        let (provider, version) = (&release.provider, &release.version);
        let name = provider.file_name(version, "manifest.json");
        let Some(digest) = release.sums.of(&name) else { return Ok(None) };
        let mut url = release.sums_url.clone();
        url.set_query(None);
        match url.path_segments_mut() {
            Ok(mut path) => path.pop().push(&name),
            Err(()) => return Ok(None),
        };
        let subject = subject(provider, version);
        let kept = match self.kept(provider, &subject, &url, &name).await {
            Ok(kept) => kept,
            Err(e) if matches!(e.failure, Failure::Denied | Failure::Protocol) => None,
            Err(e) => return Err(e),
        };
        match kept {
            Some(kept) if Digest::of(&kept.bytes) == digest => Ok(Some(kept.bytes)),
            Some(kept) => {
                let rule =
                    format!("{name} is {}, and SHA256SUMS says {digest}", Digest::of(&kept.bytes));
                Err(Refusal::new(Failure::Integrity, subject, rule))
            }
            None => Ok(None),
        }
    }

    /// A document that needs no token.
    async fn kept(
        &self,
        provider: &ProviderAddr,
        subject: &str,
        url: &Url,
        what: &str,
    ) -> Result<Option<ServiceDocument>, Refusal> {
        let part = part(provider);
        let question = ServiceQuestion {
            url,
            subject,
            what,
            part: part.as_ref(),
            token: None,
            limit: KEPT_MAX,
        };
        self.services.document(question).await
    }
}

/// Whether a document names the zip that the sums name.
fn check(
    release: &VerifiedRelease,
    platform: &Platform,
    document: &DownloadDocument,
) -> Result<(), Refusal> {
    let sum = release.package(platform)?;
    if document.shasum == sum {
        return Ok(());
    }
    let rule = format!(
        "its SHA256SUMS says {sum} of the zip for {platform}, and the download document {}",
        document.shasum
    );
    Err(Refusal::new(Failure::Structure, subject(&release.provider, &release.version), rule))
}
