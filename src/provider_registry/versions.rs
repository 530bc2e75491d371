//! The versions of a provider, with their platforms.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{ProviderRegistry, part};
use crate::failure::{Failure, Refusal};
use crate::name::{Platform, ProviderAddr, Version};
use crate::registry::service_host::ServiceQuestion;

/// The most bytes of a list: enough for 10,000 versions of 20 platforms each.
const LIST_MAX: u64 = 16 << 20;
const WHAT: &str = "the list of versions";

/// A version that a registry offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferedVersion {
    /// The version.
    pub version: Version,
    /// Those that have a package.
    pub platforms: BTreeSet<Platform>,
}

#[derive(Deserialize)]
struct ListDocument {
    #[serde(default)]
    versions: Vec<ListedVersion>,
}

#[derive(Deserialize)]
struct ListedVersion {
    version: String,
    #[serde(default)]
    platforms: Vec<ListedPlatform>,
}

#[derive(Deserialize)]
struct ListedPlatform {
    os: String,
    arch: String,
}

impl ProviderRegistry {
    /// The versions of `provider`, the oldest first. What is no version in canonical form is left
    /// out, as by the clients; of one that is listed twice the platforms are those of both.
    ///
    /// # Errors
    /// `Absent` where the registry does not know it; `Protocol` for what is no list.
    pub async fn versions(&self, provider: &ProviderAddr) -> Result<Vec<OfferedVersion>, Refusal> {
        let service = self.service().await?;
        let subject = provider.to_string();
        let path = format!("{}/{}/versions", provider.namespace(), provider.kind());
        let url = service.base.join(&path);
        let url = url.map_err(|e| Refusal::new(Failure::Protocol, provider, e))?;
        let part = part(provider);
        let question = ServiceQuestion {
            url: &url,
            subject: &subject,
            what: WHAT,
            part: part.as_ref(),
            token: service.token.as_ref(),
            limit: LIST_MAX,
        };
        match self.services.document(question).await? {
            Some(document) => Ok(read(super::json(&document.bytes, provider, WHAT)?)),
            None => Err(Refusal::new(
                Failure::Absent,
                provider,
                format_args!("{} has no such provider", self.host),
            )),
        }
    }
}

fn read(document: ListDocument) -> Vec<OfferedVersion> {
    let mut all: BTreeMap<Version, BTreeSet<Platform>> = BTreeMap::new();
    for listed in document.versions {
        let Ok(version) = listed.version.parse::<Version>() else { continue };
        let platforms =
            listed.platforms.iter().filter_map(|listed| Platform::new(&listed.os, &listed.arch));
        all.entry(version).or_default().extend(platforms);
    }
    all.into_iter().map(|(version, platforms)| OfferedVersion { version, platforms }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_version_or_platform_is_left_out() {
        let text = r#"{"versions": [
            {"version": "2.0.0", "platforms": [{"os": "linux", "arch": "amd64"}, {"os": "../x", "arch": ""}]},
            {"version": "1.0.0+b", "protocols": ["5.0"]},
            {"version": "v1"}, {"version": "1.2"},
            {"version": "2.0.0", "platforms": [{"os": "darwin", "arch": "arm64"}]}
        ], "warnings": null}"#;
        let list = read(serde_json::from_str(text).unwrap());
        let shown: Vec<String> = list
            .iter()
            .map(|offered| format!("{} {}", offered.version, offered.platforms.len()))
            .collect();
        assert_eq!(shown, ["1.0.0+b 0", "2.0.0 2"]);
    }

    #[test]
    fn ten_thousand_versions_are_within_the_limit() {
        let platform = r#"{"os":"linux","arch":"amd64"}"#;
        let one = format!(r#"{{"version":"1.2.3","platforms":[{}]}},"#, [platform; 20].join(","));
        assert!(10_000 * one.len() as u64 <= LIST_MAX);
    }
}
