//! Where a mirror of a registry is: an address that the user gave.
//!
//! ```text
//! https://cache.example              /v2/NAME                              a registry of its own
//! https://cache.example/v2/          the same
//! https://harbor.example/proxy-ghcr  /v2/proxy-ghcr/NAME                   a part of a registry
//! https://a.example/api/docker/r/v2  /api/docker/r/v2/NAME                 an API at another place
//! https://a.example/v2/proxy-ghcr    /v2/proxy-ghcr/NAME                   both, as other programs spell it
//! ```
//!
//! To every request `?ns=HOST` is added, the registry that is asked for, which pull-through caches
//! and peer-to-peer proxies of several registries go by; others do not heed it.

use std::fmt;

use reqwest::Url;

use super::origin::Origin;
use crate::name::{Host, RepoName};

/// A mirror of one registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorAddress {
    /// The registry that it mirrors.
    pub of: Host,
    /// Its own name: whose credentials it gets.
    pub host: Host,
    /// Its API, up to `/v2/`.
    pub(super) base: Url,
    /// The part of it that mirrors the registry.
    pub(super) prefix: Option<RepoName>,
    /// As the user wrote it.
    text: String,
}

/// Why a text is no address of a mirror.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is no address of a mirror: {rule}")]
pub struct MirrorError {
    text: String,
    rule: String,
}

impl MirrorAddress {
    /// Reads the address of a mirror of `of`.
    ///
    /// # Errors
    /// Neither http nor https, with a user, query or fragment, or of a path that no repository can
    /// have.
    pub fn parse(of: Host, text: &str) -> Result<MirrorAddress, MirrorError> {
        let refused = |rule: &str| MirrorError { text: masked(text), rule: rule.to_owned() };
        let url = Url::parse(text).map_err(|_| refused("write https://HOST[:PORT][/PATH]"))?;
        let Some(origin) = Origin::of(&url) else {
            return Err(refused("write https://HOST[:PORT][/PATH] or http://…"));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(
                "a user and password do not belong there; log in to the mirror as to a registry",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused("nothing may follow the path"));
        }
        let components: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
        let (api, prefix) = match components.iter().position(|part| *part == "v2") {
            Some(at) => (&components[..at], &components[at + 1..]),
            None => (&components[..0], &components[..]),
        };
        let prefix = match prefix {
            [] => None,
            parts => {
                Some(parts.join("/").parse::<RepoName>().map_err(|e| refused(&e.to_string()))?)
            }
        };
        let place: String = api.iter().map(|part| format!("/{part}")).collect();
        let base =
            Url::parse(&format!("{origin}{place}/v2/")).map_err(|e| refused(&e.to_string()))?;
        let host = host_of(&url).ok_or_else(|| refused("its host is no registry's name"))?;
        Ok(MirrorAddress { of, host, base, prefix, text: text.to_owned() })
    }

    /// Where its requests go.
    pub(super) fn origin(&self) -> Option<Origin> {
        Origin::of(&self.base)
    }

    /// The name that a repository of the registry has there; `None` if it would be too long.
    pub fn name_of(&self, repo: &RepoName) -> Option<RepoName> {
        match &self.prefix {
            None => Some(repo.clone()),
            Some(prefix) => format!("{prefix}/{repo}").parse().ok(),
        }
    }
}

/// An address as it may be shown: with a mask where a password stands, or may stand in what is no
/// address, and without what follows its path.
fn masked(text: &str) -> String {
    let (text, behind) = match text.find(['?', '#']) {
        Some(at) => (&text[..at], &text[at..=at]),
        None => (text, ""),
    };
    let (scheme, rest) = text.split_at(text.find("://").map_or(0, |at| at + 3));
    let shown = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{scheme}{user}:***@{host}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    };
    if behind.is_empty() { shown } else { format!("{shown}{behind}***") }
}

/// The name by which credentials are found. One without a dot needs its port, to be a registry's.
fn host_of(url: &Url) -> Option<Host> {
    let host = url.host_str()?;
    let text = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    text.parse().ok().or_else(|| format!("{host}:{}", url.port_or_known_default()?).parse().ok())
}

impl fmt::Display for MirrorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_part_of_a_registry_or_the_place_of_its_api() {
        let repo: RepoName = "acme/net".parse().unwrap();
        let parse = |text: &str| MirrorAddress::parse("ghcr.io".parse().unwrap(), text);
        for (text, host, url) in [
            ("https://cache.example", "cache.example", "https://cache.example/v2/acme/net"),
            ("https://cache.example/v2/", "cache.example", "https://cache.example/v2/acme/net"),
            (
                "http://cache.example:5000/",
                "cache.example:5000",
                "http://cache.example:5000/v2/acme/net",
            ),
            ("http://cache/", "cache:80", "http://cache/v2/acme/net"),
            (
                "https://h.example/proxy-ghcr",
                "h.example",
                "https://h.example/v2/proxy-ghcr/acme/net",
            ),
            (
                "https://h.example/v2/proxy-ghcr/",
                "h.example",
                "https://h.example/v2/proxy-ghcr/acme/net",
            ),
            (
                "https://a.example/api/docker/r/v2",
                "a.example",
                "https://a.example/api/docker/r/v2/acme/net",
            ),
            ("http://[::1]:30020", "[::1]:30020", "http://[::1]:30020/v2/acme/net"),
        ] {
            let mirror = parse(text).unwrap();
            let name = mirror.name_of(&repo).unwrap();
            assert_eq!(mirror.base.join(name.as_str()).unwrap().as_str(), url, "{text}");
            assert_eq!((mirror.host.as_str(), mirror.to_string().as_str()), (host, text));
        }
        for bad in [
            "",
            "cache.example",
            "ftp://cache.example",
            "https://u:secret@cache.example",
            "https://cache.example/?x",
            "https://cache.example/#x",
            "https://cache.example/UPPER",
            "https://cache.example/v2/a..b",
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!(
            parse("https://h.example/p").unwrap().name_of(&"a".repeat(255).parse().unwrap()),
            None
        );
    }
    #[test]
    fn what_is_no_address_is_shown_but_for_its_password() {
        for (text, shown) in [
            ("cache.example", "cache.example"),
            ("ftp://cache.example/x", "ftp://cache.example/x"),
            ("https://ann:secret@cache.example", "https://ann:***@cache.example"),
            ("https://ann:sec/ret@cache.example", "https://ann:***@cache.example"),
            ("https://ann:se@cret@cache.example", "https://ann:***@cache.example"),
            ("ann:secret@cache.example", "ann:***@cache.example"),
            ("https://cache.example?token=secret", "https://cache.example?***"),
            ("https://ann@cache.example", "https://ann@cache.example"),
        ] {
            let error =
                MirrorAddress::parse("ghcr.io".parse().unwrap(), text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{shown:?} is no address of a mirror: ")),
                "{error}"
            );
        }
    }
}
