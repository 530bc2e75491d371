//! Service discovery: where a host has its services, such as its provider registry.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use url::Url;

use super::credentials::{HostToken, HostTokens};
use super::service_host::{ServiceHost, ServiceQuestion};
use crate::failure::{Failure, Refusal};
use crate::name::Host;

/// Where a host tells its services.
const PATH: &str = "/.well-known/terraform.json";
/// The most bytes of the document, as the clients take it.
const DOCUMENT_MAX: u64 = 1 << 20;
const WHAT: &str = "the list of the host's services";

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct WantedService {
    /// By which the document names it: `providers.v1`.
    pub key: &'static str,
    /// In words: `provider registry`.
    pub what: &'static str,
}

/// What discovery found.
pub struct DiscoveredService {
    /// Below which the service's paths lie.
    pub base: Url,
    /// What is shown there.
    pub token: Option<HostToken>,
}

/// A services address, which may be relative to that of the document that names it.
fn base(document: &Url, address: &str) -> Option<Url> {
    document.join(address).ok().filter(|url| {
        url.scheme() == "https" && url.username().is_empty() && url.password().is_none()
    })
}

/// The address of a service, where a `host` block of a CLI configuration says which ones a host
/// has.
///
/// # Errors
/// `Protocol` where it names none, or one that is not reached by https.
pub fn stated(
    services: &ServiceHost,
    host: &Host,
    said: &BTreeMap<String, String>,
    wanted: WantedService,
) -> Result<Url, Refusal> {
    let key = wanted.key;
    let refuse = |rule: String| {
        let rule = format!("a host block of the CLI configuration {rule}");
        Refusal::new(Failure::Protocol, host, rule)
    };
    let address = said
        .get(key)
        .ok_or_else(|| refuse(format!("says which services it has, and {key} is not one")))?;
    let url = services.url("/").and_then(|home| base(&home, address));
    url.ok_or_else(|| {
        refuse(format!("names an address for {key} that is no https address without a user name"))
    })
}

/// Asks `host` where it has a service.
///
/// # Errors
/// `Protocol` where it names none, or one that is not reached by https; `Denied` where its token
/// cannot be had.
pub async fn discover(
    services: &ServiceHost,
    host: &Host,
    tokens: &HostTokens,
    wanted: WantedService,
) -> Result<DiscoveredService, Refusal> {
    let WantedService { key, what } = wanted;
    let refuse = |rule: String| Refusal::new(Failure::Protocol, host, rule);
    let token = tokens.find(host).await.map_err(|e| Refusal::new(Failure::Denied, host, e))?;
    let url =
        services.url(PATH).ok_or_else(|| refuse("it cannot stand in an address".to_owned()))?;
    let question = ServiceQuestion {
        url: &url,
        subject: host.as_str(),
        what: WHAT,
        part: None,
        token: token.as_ref(),
        limit: DOCUMENT_MAX,
    };
    let document = services.document(question).await?;
    let none = || {
        refuse(format!("it has no {what}: {PATH} names no {key}"))
            .remedy("check the host's name in the address")
    };
    let document = document.ok_or_else(none)?;
    if !document.is_json {
        return Err(refuse(format!("{PATH} is no JSON by its Content-Type")));
    }
    let named: HashMap<String, Value> = serde_json::from_slice(&document.bytes)
        .map_err(|e| refuse(format!("{WHAT} is malformed: {e}")))?;
    let address = match named.get(key) {
        Some(Value::String(address)) => address,
        Some(_) => {
            return Err(refuse(format!("{PATH} names {key} by something else than a text")));
        }
        None => return Err(none()),
    };
    match base(&document.url, address) {
        Some(base) => Ok(DiscoveredService { base, token }),
        None => Err(refuse(format!(
            "{PATH} names an address for {key} that is no https address without a user name"
        ))),
    }
}
