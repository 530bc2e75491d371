//! Module registries: the protocol `modules.v1`, as `registry.opentofu.org` speaks it.
//!
//! A registry holds no modules: it says of each version where it lies, as an archive or in a
//! repository of git. What is fetched from there is fetched without a token.

mod place;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::failure::{Failure, Refusal};
use crate::name::{Host, ModuleAddr, RepoName, Version};
use crate::registry::Asker;
use crate::registry::credentials::HostTokens;
use crate::registry::discovery::{DiscoveredService, WantedService, discover};
use crate::registry::service_host::{ServiceHost, ServiceQuestion};
use crate::registry::transport::Transport;
use crate::registry::{BlobError, BlobSink};

pub use place::{ArchiveKind, GitPlace, ModulePlace, without_query};

const SERVICE: WantedService = WantedService { key: "modules.v1", what: "module registry" };
/// The most bytes of a list of versions, which some registries fill with all that modules hold.
const LIST_MAX: u64 = 16 << 20;
/// The most bytes of an answer that says where a module lies.
const PLACE_MAX: u64 = 64 << 10;

/// One module registry.
pub struct ModuleRegistry {
    host: Host,
    services: ServiceHost,
    tokens: Arc<HostTokens>,
    discovered: OnceCell<DiscoveredService>,
}

#[derive(Deserialize)]
struct ListDocument {
    #[serde(default)]
    modules: Vec<ListedModule>,
}

#[derive(Deserialize)]
struct ListedModule {
    #[serde(default)]
    versions: Vec<ListedVersion>,
}

#[derive(Deserialize)]
struct ListedVersion {
    version: String,
}

impl ModuleRegistry {
    /// The registry of that name. Connects to nothing.
    ///
    /// # Errors
    /// The name cannot stand in an address.
    pub fn new(
        transport: &Arc<Transport>,
        host: &Host,
        tokens: Arc<HostTokens>,
        asker: Asker,
    ) -> Result<ModuleRegistry, Refusal> {
        let services = ServiceHost::new(transport, host, asker).ok_or_else(|| {
            Refusal::new(Failure::Protocol, host, "it cannot stand in an address")
        })?;
        Ok(ModuleRegistry { host: host.clone(), services, tokens, discovered: OnceCell::new() })
    }

    async fn service(&self) -> Result<&DiscoveredService, Refusal> {
        let found = || discover(&self.services, &self.host, &self.tokens, SERVICE);
        self.discovered.get_or_try_init(found).await
    }

    /// The versions of a module. What is no version in canonical form is left out.
    ///
    /// # Errors
    /// `Absent` where the registry does not know it; `Protocol` for what is no list.
    pub async fn versions(&self, module: &ModuleAddr) -> Result<BTreeSet<Version>, Refusal> {
        let service = self.service().await?;
        let subject = module.to_string();
        let refuse = |failure, rule: String| Refusal::new(failure, subject.as_str(), rule);
        let url = service.base.join(&format!("{}/versions", module.path()));
        let url = url.map_err(|e| refuse(Failure::Protocol, e.to_string()))?;
        let part = part(module);
        let question = ServiceQuestion {
            url: &url,
            subject: &subject,
            what: "the list of versions",
            part: part.as_ref(),
            token: service.token.as_ref(),
            limit: LIST_MAX,
        };
        let document =
            self.services.document(question).await?.ok_or_else(|| {
                refuse(Failure::Absent, format!("{} has no such module", self.host))
            })?;
        let list: ListDocument = serde_json::from_slice(&document.bytes).map_err(|e| {
            refuse(Failure::Protocol, format!("the list of versions is malformed: {e}"))
        })?;
        let all = list.modules.into_iter().flat_map(|module| module.versions);
        Ok(all.filter_map(|listed| listed.version.parse().ok()).collect())
    }

    /// Where a version lies.
    ///
    /// # Errors
    /// `Absent` where the registry does not know it; `Unsupported` for a place of which nothing is
    /// taken.
    pub async fn place(
        &self,
        module: &ModuleAddr,
        version: &Version,
    ) -> Result<ModulePlace, Refusal> {
        let service = self.service().await?;
        let subject = format!("{module} {version}");
        let refuse = |failure, rule: String| Refusal::new(failure, subject.as_str(), rule);
        let url = service.base.join(&format!("{}/{version}/download", module.path()));
        let url = url.map_err(|e| refuse(Failure::Protocol, e.to_string()))?;
        let part = part(module);
        let question = ServiceQuestion {
            url: &url,
            subject: &subject,
            what: "where it lies",
            part: part.as_ref(),
            token: service.token.as_ref(),
            limit: PLACE_MAX,
        };
        let found = self.services.address(question).await?;
        let (text, from) = found
            .ok_or_else(|| refuse(Failure::Absent, format!("{} has no such version", self.host)))?;
        ModulePlace::parse(&text, &from).map_err(|rule| refuse(Failure::Unsupported, rule))
    }

    /// Fetches the archive at `place` into `sink`, at most `limit` bytes.
    ///
    /// # Errors
    /// As for all files.
    pub async fn archive(
        &self,
        module: &ModuleAddr,
        url: &url::Url,
        limit: u64,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError> {
        let (subject, part) = (module.to_string(), part(module));
        let question = ServiceQuestion {
            url,
            subject: &subject,
            what: "the archive",
            part: part.as_ref(),
            token: None,
            limit,
        };
        self.services.download(question, sink).await
    }
}

/// The part of a module registry that a module is.
fn part(module: &ModuleAddr) -> Option<RepoName> {
    module.path().parse().ok()
}
