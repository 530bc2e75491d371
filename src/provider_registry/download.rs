//! The download document of one platform of a release.

use serde::Deserialize;
use url::Url;

use super::{ProviderRegistry, part, subject};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, ProviderAddr, Version};
use crate::registry::service_host::{ServiceDocument, ServiceQuestion};

/// The most bytes of the document; keys are in it.
const DOCUMENT_MAX: u64 = 4 << 20;
/// The most keys that are looked at.
const KEYS_MAX: usize = 32;
const WHAT: &str = "the download document";

/// Where a package and what vouches for it are.
#[derive(Clone, Debug)]
pub(super) struct DownloadDocument {
    pub zip: Url,
    /// What the document itself says of the zip.
    pub shasum: Digest,
    pub sums: Url,
    pub signature: Option<Url>,
    /// The armored keys of the registry for this provider.
    pub keys: Vec<String>,
}

#[derive(Deserialize)]
struct WrittenDocument {
    filename: String,
    download_url: String,
    shasum: String,
    #[serde(default)]
    shasums_url: String,
    #[serde(default)]
    shasums_signature_url: String,
    #[serde(default)]
    signing_keys: Option<SigningKeys>,
}

#[derive(Default, Deserialize)]
struct SigningKeys {
    #[serde(default)]
    gpg_public_keys: Option<Vec<PublicKeyEntry>>,
}

#[derive(Deserialize)]
struct PublicKeyEntry {
    #[serde(default)]
    ascii_armor: String,
}

impl ProviderRegistry {
    /// What the registry says of one platform that it lists.
    pub(super) async fn download_document(
        &self,
        provider: &ProviderAddr,
        version: &Version,
        platform: &Platform,
    ) -> Result<DownloadDocument, Refusal> {
        let document = self.asked_document(provider, version, platform).await?;
        document.ok_or_else(|| self.lacking(provider, version, platform))
    }

    /// That the registry has no package, although it lists the platform.
    pub(super) fn lacking(
        &self,
        provider: &ProviderAddr,
        version: &Version,
        platform: &Platform,
    ) -> Refusal {
        let rule = format!("{} lists {platform}, and has no package for it", self.host);
        Refusal::new(Failure::Integrity, subject(provider, version), rule)
    }

    /// What the registry says of one platform; `None` where it has nothing for it.
    pub(super) async fn asked_document(
        &self,
        provider: &ProviderAddr,
        version: &Version,
        platform: &Platform,
    ) -> Result<Option<DownloadDocument>, Refusal> {
        let service = self.service().await?;
        let subject = subject(provider, version);
        let refuse = |rule: String| Refusal::new(Failure::Protocol, subject.as_str(), rule);
        let path = format!(
            "{}/{}/{version}/download/{}/{}",
            provider.namespace(),
            provider.kind(),
            platform.os(),
            platform.arch()
        );
        let url = service.base.join(&path).map_err(|e| refuse(e.to_string()))?;
        let part = part(provider);
        let question = ServiceQuestion {
            url: &url,
            subject: &subject,
            what: WHAT,
            part: part.as_ref(),
            token: service.token.as_ref(),
            limit: DOCUMENT_MAX,
        };
        let Some(document) = self.services.document(question).await? else { return Ok(None) };
        read(&document, &subject, &provider.zip_name(version, platform)).map(Some)
    }
}

/// Reads a document of the package that has the file name `name`.
fn read(
    document: &ServiceDocument,
    subject: &str,
    name: &str,
) -> Result<DownloadDocument, Refusal> {
    let refuse = |rule: String| Refusal::new(Failure::Protocol, subject, rule);
    let written: WrittenDocument = super::json(&document.bytes, subject, WHAT)?;
    if written.filename != name {
        return Err(refuse(format!(
            "{WHAT} names the file {:?}, where {name} is due",
            written.filename
        )));
    }
    let address = |what: &str, text: &str| match document.url.join(text) {
        Ok(url) if url.scheme() == "https" && url.username().is_empty() => Ok(url),
        _ => Err(refuse(format!("{WHAT} names an address for {what} that is no https address"))),
    };
    let shasum = Digest::sha256_of_hex(&written.shasum)
        .ok_or_else(|| refuse(format!("{WHAT} names no SHA-256 sum")))?;
    let signature = match written.shasums_signature_url.as_str() {
        "" => None,
        text => Some(address("the signature", text)?),
    };
    if written.shasums_url.is_empty() {
        return Err(refuse(format!("{WHAT} names no address for SHA256SUMS")));
    }
    let keys = written.signing_keys.and_then(|keys| keys.gpg_public_keys).unwrap_or_default();
    if keys.len() > KEYS_MAX {
        return Err(refuse(format!("{WHAT} names more than {KEYS_MAX} keys, the limit")));
    }
    Ok(DownloadDocument {
        zip: address("the zip", &written.download_url)?,
        shasum,
        sums: address("SHA256SUMS", &written.shasums_url)?,
        signature,
        keys: keys.into_iter().map(|key| key.ascii_armor).collect(),
    })
}
