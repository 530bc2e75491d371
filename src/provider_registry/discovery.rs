//! Service discovery: where a host has its provider registry.

use std::collections::HashMap;

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

impl ProviderRegistry {
    /// Asks once; a failure is not kept.
    pub(super) async fn service(&self) -> Result<&ProviderService, Refusal> {
        self.discovered.get_or_try_init(|| self.discover()).await
    }

    async fn discover(&self) -> Result<ProviderService, Refusal> {
        let refuse = |rule: String| Refusal::new(Failure::Protocol, &self.host, rule);
        let token = self.token().await?;
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
        let base = document.url.join(address).ok().filter(|url| {
            url.scheme() == "https" && url.username().is_empty() && url.password().is_none()
        });
        match base {
            Some(base) => Ok(ProviderService { base, token }),
            None => Err(refuse(format!(
                "{PATH} names an address for {SERVICE} that is no https address without a user name"
            ))),
        }
    }
}
