//! Origins: who a credential belongs to, and which token service a registry may send us to.
//!
//! A credential is bound to scheme, host and port. The one exception is the token service, whose
//! address the registry itself names: [`may_serve_tokens`] decides whether the registry's
//! credential may be shown there.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

use crate::name::Host;

/// `http` or `https`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// Scheme, host and port, the unit that credentials, connections and the breaker belong to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Origin {
    scheme: Scheme,
    /// As in a URL: lower case, an IPv6 address in brackets.
    host: String,
    port: u16,
}

/// Why a text is no origin.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not an origin (https://HOST[:PORT] or http://HOST[:PORT], nothing after it)")]
pub struct OriginError(String);

impl Origin {
    /// The origin of a URL; `None` unless it is http or https.
    pub fn of(url: &Url) -> Option<Origin> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        Some(Origin {
            scheme,
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    /// Where the requests for a registry go. Docker Hub's API has another name than its references.
    pub fn registry(host: &Host, plain_http: bool) -> Option<Origin> {
        let scheme = if plain_http { "http" } else { "https" };
        let host =
            if host.as_str() == "docker.io" { "registry-1.docker.io" } else { host.as_str() };
        Origin::of(&Url::parse(&format!("{scheme}://{host}/")).ok()?)
    }

    /// Whether TLS is spoken.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether the host is this machine by its name or address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }

    /// `HOST[:PORT]`, the port where it is not the scheme's own.
    pub(super) fn authority(&self) -> String {
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// The host's address, where the host is one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let refused = || OriginError(text.chars().take(300).collect());
        let url = Url::parse(text).map_err(|_| refused())?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        Origin::of(&url).filter(|_| bare).ok_or_else(refused)
    }
}

/// Registries whose token service has a name that the rule by domains does not cover: registry,
/// token service.
const KNOWN_PAIRS: [(&str, &str); 2] =
    [("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// Whether the token service at `realm` may be shown the credential of `registry` (hostile input
/// R17, R18).
///
/// The realm must be https, or http where the registry itself is. Its host must be the registry's
/// (at any port), lie below it, be a known pair, or share with it a parent domain of at least three
/// labels; two shared labels may be a public suffix (`co.uk`) or a provider's domain under which
/// strangers hold registries. All loopback hosts are one.
pub fn may_serve_tokens(registry: &Origin, realm: &Origin) -> bool {
    if realm.scheme == Scheme::Http && registry.scheme == Scheme::Https {
        return false;
    }
    let (ours, theirs) = (registry.host.as_str(), realm.host.as_str());
    if ours == theirs || (registry.is_loopback() && realm.is_loopback()) {
        return true;
    }
    if registry.address().is_some() || realm.address().is_some() {
        return false;
    }
    is_below(theirs, ours)
        || KNOWN_PAIRS.contains(&(ours, theirs))
        || ours.split_once('.').is_some_and(|(_, parent)| {
            parent.split('.').filter(|label| !label.is_empty()).count() >= 3
                && (theirs == parent || is_below(theirs, parent))
        })
}

fn is_below(host: &str, parent: &str) -> bool {
    host.strip_suffix(parent).is_some_and(|front| front.ends_with('.') && front.len() > 1)
}

/// A URL as it may be logged and shown: without user, password, query and fragment.
pub fn shown(url: &Url) -> String {
    match Origin::of(url) {
        Some(origin) => format!("{origin}{}", url.path()),
        None => format!("{}:", url.scheme()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(registry: &str, realm: &str) -> bool {
        may_serve_tokens(&registry.parse().unwrap(), &realm.parse().unwrap())
    }

    /// R17, R18
    #[test]
    fn a_realm_is_trusted_by_its_host_alone() {
        for (registry, realm) in [
            ("https://ghcr.io", "https://ghcr.io"),
            ("https://gitlab.example.com:5050", "https://gitlab.example.com"),
            ("https://reg.example.com", "https://auth.reg.example.com"),
            ("https://reg.eu.example.com", "https://auth.eu.example.com"),
            ("https://registry-1.docker.io", "https://auth.docker.io"),
            ("https://registry.gitlab.com", "https://gitlab.com"),
            ("https://127.0.0.1:5000", "https://localhost:5001"),
            ("http://localhost:5000", "http://127.0.0.1:5001"),
            ("http://localhost:5000", "https://[::1]:5001"),
        ] {
            assert!(allowed(registry, realm), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("https://ghcr.io", "http://ghcr.io"),
            ("https://127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("https://ghcr.io", "https://evil.io"),
            ("https://ghcr.io", "https://ghcr.io.evil.io"),
            ("https://ghcr.io", "https://evilghcr.io"),
            ("https://victim.azurecr.io", "https://evil.azurecr.io"),
            ("https://a.co.uk", "https://b.co.uk"),
            ("https://reg.example.com", "https://10.0.0.1"),
            ("https://10.0.0.1", "https://10.0.0.2"),
            ("https://10.1.2.3", "https://99.1.2.3"),
            ("https://reg.example.com", "https://127.0.0.1"),
            ("https://auth.docker.io", "https://registry-1.docker.io"),
        ] {
            assert!(!allowed(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn origins_are_equal_when_scheme_host_and_port_are() {
        let origin = |t: &str| t.parse::<Origin>().unwrap();
        assert_eq!(origin("https://A.example"), origin("https://a.example:443/"));
        assert_ne!(origin("https://a.example"), origin("http://a.example"));
        assert_ne!(origin("https://a.example"), origin("https://a.example:8443"));
        assert_eq!(origin("https://[::1]:8443").to_string(), "https://[::1]:8443");
        for bad in [
            "a.example",
            "https://u@a.example",
            "https://a.example/x",
            "ftp://a.example",
            "https://a.b?x",
            "",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
        let hub = Origin::registry(&"docker.io".parse().unwrap(), false).unwrap();
        assert_eq!(hub.to_string(), "https://registry-1.docker.io");
    }

    #[test]
    fn a_shown_url_holds_no_secret() {
        let url = Url::parse("https://user:pw@store.example/b/x?X-Signature=s#f").unwrap();
        assert_eq!(shown(&url), "https://store.example/b/x");
    }
}
