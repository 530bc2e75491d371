//! A source of releases, as it is typed.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use super::typed::Typed;
use crate::name::{Address, AddressError, Host, RepoName};

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
        let part = |address: Address| {
            address.part().map(|(host, prefix)| SourceSetting::Registry { host, prefix })
        };
        match Typed::parse(text, base) {
            Ok(Typed::Layouts(dir)) => Ok(SourceSetting::Layouts(dir)),
            Ok(Typed::Archive(file)) => Ok(SourceSetting::Archive(file)),
            Ok(Typed::Address(address)) => part(address),
            Err(e) => {
                Err(e.wanted("a source is HOST[:PORT][/PREFIX], oci:DIR or oci-archive:FILE"))
            }
        }
    }
}

impl fmt::Display for SourceSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceSetting::Registry { host, prefix: None } => write!(f, "{host}"),
            SourceSetting::Registry { host, prefix: Some(prefix) } => write!(f, "{host}/{prefix}"),
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
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
