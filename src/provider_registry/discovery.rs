//! Service discovery: where a host has its provider registry.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use url::Url;

use super::ProviderRegistry;
use crate::failure::{Failure, Refusal};
use crate::registry::credentials::HostToken;
use crate::registry::service_host::ServiceQuestion;

/// Where a host tells its services.
const PATH: &str = "/.well-known/terraform.json";
const SERVICE: &str = "providers.v1";
/// The most bytes of the document, as the clients take it.
const DOCUMENT_MAX: u64 = 1 << 20;
const WHAT: &str = "the list of the host's services";

/// What discovery found.
pub(super) struct ProviderService {
    /// Below which the provider registry's paths lie.
    pub base: Url,
    pub token: Option<HostToken>,
}

/// A services address, which may be relative to that of the document that names it.
fn base(document: &Url, address: &str) -> Option<Url> {
    document.join(address).ok().filter(|url| {
        url.scheme() == "https" && url.username().is_empty() && url.password().is_none()
    })
}

/// The services address of `registry` that somebody wrote down.
pub(super) fn forced(
    registry: &ProviderRegistry,
    services: &BTreeMap<String, String>,
) -> Result<Url, Refusal> {
    let refuse = |rule: &str| {
        let rule = format!("a host block of the CLI configuration {rule}");
        Refusal::new(Failure::Protocol, &registry.host, rule)
    };
    let address = services
        .get(SERVICE)
        .ok_or_else(|| refuse(&format!("says which services it has, and {SERVICE} is not one")))?;
    let url = registry.services.url("/").and_then(|home| base(&home, address));
    url.ok_or_else(|| {
        refuse(&format!(
            "names an address for {SERVICE} that is no https address without a user name"
        ))
    })
}

impl ProviderRegistry {
    /// Asks once; a failure is not kept.
    pub(super) async fn service(&self) -> Result<&ProviderService, Refusal> {
        self.discovered.get_or_try_init(|| self.discover()).await
    }

    async fn discover(&self) -> Result<ProviderService, Refusal> {
        let refuse = |rule: String| Refusal::new(Failure::Protocol, &self.host, rule);
        let token = self.token().await?;
        if let Some(base) = self.forced.clone() {
            return Ok(ProviderService { base, token });
        }
        let url = self
            .services
            .url(PATH)
            .ok_or_else(|| refuse("it cannot stand in an address".to_owned()))?;
        let question = ServiceQuestion {
            url: &url,
            subject: self.host.as_str(),
            what: WHAT,
            part: None,
            token: token.as_ref(),
            limit: DOCUMENT_MAX,
        };
        let document = self.services.document(question).await?;
        let none = || {
            refuse(format!("it has no provider registry: {PATH} names no {SERVICE}"))
                .remedy("check the host's name in the provider's address")
        };
        let document = document.ok_or_else(none)?;
        if !document.is_json {
            return Err(refuse(format!("{PATH} is no JSON by its Content-Type")));
        }
        let services: HashMap<String, Value> = super::json(&document.bytes, &self.host, WHAT)?;
        let address = match services.get(SERVICE) {
            Some(Value::String(address)) => address,
            Some(_) => {
                return Err(refuse(format!(
                    "{PATH} names {SERVICE} by something else than a text"
                )));
            }
            None => return Err(none()),
        };
        match base(&document.url, address) {
            Some(base) => Ok(ProviderService { base, token }),
            None => Err(refuse(format!(
                "{PATH} names an address for {SERVICE} that is no https address without a user name"
            ))),
        }
    }
}
