//! Where credentials come from: OpenTofu's sources and precedence (a host where `tofu init` can log in needs no
//! further set-up), and what tofufs adds to them.

use std::fmt;

use zeroize::Zeroizing;

use crate::name::{Host, RepoName};

/// A text that is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Secret(Zeroizing::new(text))
    }

    /// The text itself. Callers put it into a request header or body and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a registry or its token service is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential {
    /// A user name and password, for Basic or for a token request by GET.
    Basic {
        /// The user's name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// OAuth2 tokens: `access` is used as it is, `refresh` is exchanged at the token service.
    Tokens {
        /// A bearer token.
        access: Option<Secret>,
        /// A refresh token (`refresh_token`, or an `identitytoken` of a Docker configuration).
        refresh: Option<Secret>,
    },
}

/// A credential and where it was found, in words for the user.
#[derive(Clone, Debug)]
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// Its source, without any secret: `auths["ghcr.io"] of /home/u/.docker/config.json`.
    pub source: String,
}

/// Why a source of credentials could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the credentials of {host} cannot be read from {source_name}: {reason}")]
pub struct CredentialError {
    /// The registry.
    pub host: Host,
    /// Which source.
    pub source_name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// All configured sources, in order.
#[derive(Debug, Default)]
pub struct Credentials {}

impl Credentials {
    /// The most specific credential for a repository (`None`: for the registry as a whole). `again` is true after
    /// the registry refused what was found before, so that a helper runs once more.
    pub async fn find(
        &self,
        host: &Host,
        repo: Option<&RepoName>,
        again: bool,
    ) -> Result<Option<Found>, CredentialError> {
        let _ = (host, repo, again);
        Ok(None)
    }
}
