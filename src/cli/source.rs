//! A source of releases, as it is typed.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::typed::Typed;
use crate::name::{Address, AddressError, Host, ProviderAddr, RepoName};

/// What stands before the name of a provider registry.
const PROVIDERS: &str = "providers:";

/// Where releases come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceSetting {
    /// A registry, or the part of it below a prefix.
    Registry {
        /// Which one.
        host: Host,
        /// The repositories at or below this name alone.
        prefix: Option<RepoName>,
    },
    /// A provider registry, or the providers in it below a namespace, or one provider.
    Providers {
        /// Which one.
        host: Host,
        /// `NAMESPACE` or `NAMESPACE/TYPE`.
        part: Option<RepoName>,
    },
    /// A directory that holds image layouts as `HOST/REPO…`.
    Layouts(PathBuf),
    /// A tar that holds the same.
    Archive(PathBuf),
}

impl SourceSetting {
    /// Reads one source; a relative directory is one below `base`.
    ///
    /// # Errors
    /// It is none. Where it is plain what was meant, the error holds the argument to write instead.
    pub fn parse(text: &OsStr, base: &Path) -> Result<SourceSetting, AddressError> {
        if let Some(origin) = text.as_bytes().strip_prefix(PROVIDERS.as_bytes()) {
            return SourceSetting::origin(&String::from_utf8_lossy(origin));
        }
        let part = |address: Address| {
            address.part().map(|(host, prefix)| SourceSetting::Registry { host, prefix })
        };
        match Typed::parse(text, base) {
            Ok(Typed::Layouts(dir)) => Ok(SourceSetting::Layouts(dir)),
            Ok(Typed::Archive(file)) => Ok(SourceSetting::Archive(file)),
            Ok(Typed::Address(address)) => part(address),
            Err(e) => Err(e.wanted(
                "a source is HOST[:PORT][/PREFIX], providers:HOST, oci:DIR or oci-archive:FILE",
            )),
        }
    }

    /// Reads what follows `providers:`.
    fn origin(text: &str) -> Result<SourceSetting, AddressError> {
        let refuse =
            |rule: &dyn fmt::Display| AddressError::new(&format!("{PROVIDERS}{text}"), rule, None);
        let wanted = "a provider registry is providers:HOST[:PORT][/NAMESPACE[/TYPE]]";
        let (host, part) = text.trim_end_matches('/').split_once('/').unwrap_or((text, ""));
        let host: Host = host.trim_end_matches('/').parse().map_err(|e| refuse(&e))?;
        let mut parts = part.split('/').filter(|_| !part.is_empty());
        let (namespace, kind) = (parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(refuse(&wanted));
        }
        // Its parts are spelled as those of an address, by which it is found.
        let address = ProviderAddr::new(host, namespace.unwrap_or("x"), kind.unwrap_or("x"))
            .ok_or_else(|| refuse(&wanted))?;
        let part = match (namespace, kind) {
            (None, _) => None,
            (Some(_), None) => Some(address.namespace().parse()),
            (Some(_), Some(_)) => {
                Some(format!("{}/{}", address.namespace(), address.kind()).parse())
            }
        };
        let part = part.transpose().map_err(|e| refuse(&e))?;
        Ok(SourceSetting::Providers { host: address.host, part })
    }

    /// The one provider that the source names.
    pub fn provider(&self) -> Option<ProviderAddr> {
        match self {
            SourceSetting::Providers { host, part: Some(part) } => {
                ProviderAddr::parse(part.as_str(), host).ok()
            }
            _ => None,
        }
    }
}

impl fmt::Display for SourceSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceSetting::Registry { host, prefix: None } => write!(f, "{host}"),
            SourceSetting::Registry { host, prefix: Some(prefix) } => write!(f, "{host}/{prefix}"),
            SourceSetting::Providers { host, part: None } => write!(f, "{PROVIDERS}{host}"),
            SourceSetting::Providers { host, part: Some(part) } => {
                write!(f, "{PROVIDERS}{host}/{part}")
            }
            SourceSetting::Layouts(dir) => write!(f, "oci:{}", dir.display()),
            SourceSetting::Archive(file) => write!(f, "oci-archive:{}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_registry_a_part_of_one_a_store_or_an_archive() {
        let parse = |text: &str| SourceSetting::parse(OsStr::new(text), Path::new("/base"));
        for (text, shown) in [
            ("ghcr.io", "ghcr.io"),
            ("ghcr.io/", "ghcr.io"),
            ("localhost:5000/acme/net", "localhost:5000/acme/net"),
            ("oci:/srv/store", "oci:/srv/store"),
            ("oci:store", "oci:/base/store"),
            ("oci:./a/../b", "oci:/base/a/../b"),
            ("oci-archive:b.tar", "oci-archive:/base/b.tar"),
            ("oci-archive:/media/b.tar", "oci-archive:/media/b.tar"),
            ("oci://ghcr.io/acme", "ghcr.io/acme"),
            ("providers:registry.opentofu.org", "providers:registry.opentofu.org"),
            ("providers:Registry.Example:443/", "providers:registry.example"),
            ("providers:localhost:8443/Acme", "providers:localhost:8443/acme"),
            ("providers:a.b/acme/one", "providers:a.b/acme/one"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "ghcr",
            "mirror/x",
            "ghcr.io/UPPER",
            "ghcr.io//x",
            "oci:",
            "oci-archive:",
            "https://ghcr.io",
            "providers:",
            "providers:a.b/c/d/e",
            "providers:a.b//d",
            "providers:https://a.b",
            "providers:a.b/c d",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
