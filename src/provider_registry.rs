//! Provider registries: the protocol `providers.v1`, as `registry.opentofu.org` speaks it.
//!
//! A release is platform → digest of the zip, and its identity is the digest of one document: its
//! `SHA256SUMS`, which names each zip by its digest. [`ProviderRegistry::release`] gives it only
//! with a signature that holds (or the reason for which none is needed), so that what
//! [`VerifiedRelease`] says of a zip is what its vendor says. Sizes are not told.
//!
//! Tokens go to the host and to the services address that its discovery names; whatever documents
//! name beside that (checksums, signatures, zips) is fetched without one, over https.

mod download;
mod release;
mod signature;
mod source;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::OnceCell;
use url::Url;

use crate::failure::{Failure, Refusal, Subject};
use crate::name::{Host, ProviderAddr, RepoName, Version};
use crate::registry::Asker;
use crate::registry::credentials::HostTokens;
use crate::registry::discovery::{self, DiscoveredService, WantedService, discover};
use crate::registry::service_host::ServiceHost;
use crate::registry::transport::Transport;

pub use crate::artifact::{ReleaseSums, SignatureOutcome, SignaturePolicy};
pub use release::VerifiedRelease;
pub use source::ProviderSource;
pub use versions::OfferedVersion;

const SERVICE: WantedService = WantedService { key: "providers.v1", what: "provider registry" };

/// One provider registry.
pub struct ProviderRegistry {
    host: Host,
    services: ServiceHost,
    tokens: Arc<HostTokens>,
    /// Where the provider registry lies, where somebody said it.
    stated: Option<Url>,
    discovered: OnceCell<DiscoveredService>,
}

impl ProviderRegistry {
    /// The registry of that name. Connects to nothing.
    ///
    /// # Errors
    /// The name cannot stand in an address.
    pub fn new(
        transport: &Arc<Transport>,
        host: &Host,
        tokens: Arc<HostTokens>,
        asker: Asker,
    ) -> Result<ProviderRegistry, Refusal> {
        let services = ServiceHost::new(transport, host, asker).ok_or_else(|| {
            Refusal::new(Failure::Protocol, host, "it cannot stand in an address")
        })?;
        Ok(ProviderRegistry {
            host: host.clone(),
            services,
            tokens,
            stated: None,
            discovered: OnceCell::new(),
        })
    }

    /// The same with the services that a `host` block of a CLI configuration names, so that the
    /// host is not asked where they are.
    ///
    /// # Errors
    /// They name no provider registry, or none by an https address.
    pub fn with_services(
        self,
        services: &BTreeMap<String, String>,
    ) -> Result<ProviderRegistry, Refusal> {
        let stated = discovery::stated(&self.services, &self.host, services, SERVICE)?;
        let services = self.services.stated_at(&stated);
        Ok(ProviderRegistry { stated: Some(stated), services, ..self })
    }

    /// Its name.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Asks once; a failure is not kept.
    async fn service(&self) -> Result<&DiscoveredService, Refusal> {
        let found = async || match self.stated.clone() {
            Some(base) => {
                let token = self.tokens.find(&self.host).await;
                let token = token.map_err(|e| Refusal::new(Failure::Denied, &self.host, e))?;
                Ok(DiscoveredService { base, token })
            }
            None => discover(&self.services, &self.host, &self.tokens, SERVICE).await,
        };
        self.discovered.get_or_try_init(found).await
    }
}

/// The part of a provider registry that a provider is.
fn part(provider: &ProviderAddr) -> Option<RepoName> {
    format!("{}/{}", provider.namespace(), provider.kind()).parse().ok()
}

/// What sentences call a release: `registry.opentofu.org/hashicorp/aws 5.92.0`.
fn subject(provider: &ProviderAddr, version: &Version) -> String {
    format!("{provider} {version}")
}

/// Reads a document that has to be JSON.
fn json<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    subject: impl Into<Subject>,
    what: &str,
) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|e| {
        Refusal::new(Failure::Protocol, subject, format_args!("{what} is malformed: {e}"))
    })
}
