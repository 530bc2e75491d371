//! How registries are reached: the values of the options that say it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::args::{NetworkArgs, ReachArgs};
use super::directories::absolute;
use super::settings_error::{SettingsError, refuse};
use crate::name::{Host, NameError};
use crate::registry::mirror::MirrorAddress;

/// A token service outside its registry's own origin that may be shown the registry's credentials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRealm {
    /// The registry.
    pub host: Host,
    /// Scheme, host and port of the token service.
    pub origin: Url,
}

impl fmt::Display for TokenRealm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.host, self.origin)
    }
}

impl TokenRealm {
    fn parse(text: &str) -> Result<TokenRealm, SettingsError> {
        const WANTED: &str =
            "write HOST=ORIGIN, as in registry.example.com=https://auth.example.com";
        let subject = format!("--token-realm {}", text.escape_debug());
        let Some((host, origin)) = text.split_once('=') else { return refuse(subject, WANTED) };
        let host = host.parse().or_else(|e: NameError| match e.instead() {
            Some(host) => {
                refuse(&subject, format!("a registry has no scheme here; write {host}={origin}"))
            }
            None => refuse(&subject, WANTED),
        })?;
        let Ok(origin) = Url::parse(origin) else { return refuse(subject, WANTED) };
        let bare = matches!(origin.scheme(), "https" | "http")
            && origin.path() == "/"
            && origin.query().is_none()
            && origin.fragment().is_none()
            && origin.username().is_empty()
            && origin.password().is_none();
        if bare { Ok(TokenRealm { host, origin }) } else { refuse(subject, WANTED) }
    }
}

fn mirror(text: &str) -> Result<MirrorAddress, SettingsError> {
    let Some((host, url)) = text.split_once('=') else {
        return refuse("--mirror", "write HOST=URL, as in ghcr.io=https://cache.example.com");
    };
    let host = host.parse().or_else(|e: NameError| match e.instead() {
        Some(host) => {
            refuse("--mirror", format!("a registry has no scheme here; write {host}={url}"))
        }
        None => refuse("--mirror", e),
    })?;
    MirrorAddress::parse(host, url).or_else(|e| refuse("--mirror", e))
}

/// How registries are reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// No connection at all.
    pub offline: bool,
    /// How long a tag is believed.
    pub tag_ttl: Duration,
    /// How long to wait without progress.
    pub deadline: Duration,
    /// Registries without TLS.
    pub plain_http: Vec<Host>,
    /// More certificates to trust.
    pub ca_files: Vec<PathBuf>,
    /// Token services elsewhere.
    pub token_realms: Vec<TokenRealm>,
    /// Mirrors, those of one registry in their order.
    pub mirrors: Vec<MirrorAddress>,
    /// The CLI configuration to read instead of the user's own.
    pub tofurc: Option<PathBuf>,
}

impl Network {
    /// The network of a mount.
    pub fn new(args: &NetworkArgs, base: &Path) -> Result<Network, SettingsError> {
        let reach = Network::reaching(&args.reach, base)?;
        Ok(Network { offline: args.offline, tag_ttl: args.tag_ttl.0, ..reach })
    }

    /// The network of a command that asks once, and so believes nothing for any time.
    pub fn reaching(args: &ReachArgs, base: &Path) -> Result<Network, SettingsError> {
        if args.deadline.0.is_zero() {
            return refuse("--deadline", "no operation ends in no time; give at least 1ms");
        }
        Ok(Network {
            offline: false,
            tag_ttl: Duration::ZERO,
            deadline: args.deadline.0,
            plain_http: args.plain_http.clone(),
            ca_files: args.ca_file.iter().map(|file| absolute(file, base)).collect(),
            token_realms: args
                .token_realm
                .iter()
                .map(|text| TokenRealm::parse(text))
                .collect::<Result<_, _>>()?,
            mirrors: args.mirror.iter().map(|text| mirror(text)).collect::<Result<_, _>>()?,
            tofurc: args.tofurc.as_ref().map(|file| absolute(file, base)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_realm_is_a_host_and_a_bare_origin() {
        for bad in [
            "a.b",
            "a.b=",
            "=https://t.b",
            "a.b=t.b",
            "a.b=ftp://t.b",
            "a.b=https://t.b/x",
            "a.b=https://u:p@t.b",
        ] {
            assert!(TokenRealm::parse(bad).is_err(), "{bad}");
        }
    }
}
