//! What can be typed for `--metrics`.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where metrics are told: on this machine alone, since they name registries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetricsAddress {
    /// A socket with this path.
    Unix(PathBuf),
    /// A port of a loopback address.
    Loopback(SocketAddr),
}

/// Why a text is no place for metrics.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MetricsAddressError {
    /// Neither form.
    #[error("unix:PATH or 127.0.0.1:PORT is wanted")]
    Form,
    /// Others than this machine would reach it.
    #[error(
        "metrics name registries and are told on this machine only: give 127.0.0.1:PORT, \
         [::1]:PORT or unix:PATH"
    )]
    NotLoopback,
}

impl FromStr for MetricsAddress {
    type Err = MetricsAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(MetricsAddressError::Form),
                path => Ok(MetricsAddress::Unix(path.into())),
            };
        }
        let text = text.replace("localhost:", "127.0.0.1:");
        let address: SocketAddr = text.parse().map_err(|_| MetricsAddressError::Form)?;
        if !address.ip().is_loopback() {
            return Err(MetricsAddressError::NotLoopback);
        }
        Ok(MetricsAddress::Loopback(address))
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricsAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            MetricsAddress::Loopback(address) => write!(f, "{address}"),
        }
    }
}

impl MetricsAddress {
    /// The same, with a path that begins at the root.
    pub fn below(self, base: &Path) -> MetricsAddress {
        match self {
            MetricsAddress::Unix(path) => MetricsAddress::Unix(base.join(path)),
            loopback @ MetricsAddress::Loopback(_) => loopback,
        }
    }
}
