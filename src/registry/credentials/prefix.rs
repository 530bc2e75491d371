//! The keys of credentials, `HOST[:PORT][/PATH]`, and how well one fits a repository.

use std::fmt;
use std::str::FromStr;

use crate::name::{Host, NameError, RepoName};

/// How closely a source of credentials is bound to a repository; the greater one wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Specificity(usize);

impl Specificity {
    /// Any registry.
    pub const GLOBAL: Specificity = Specificity(1);
    /// One registry.
    pub const DOMAIN: Specificity = Specificity(2);

    /// Part of one registry, by a path of `segments` components.
    fn path(segments: usize) -> Specificity {
        Specificity(Specificity::DOMAIN.0 + segments)
    }
}

/// The repositories a credential is for: a registry, or those at and below a path in it.
///
/// The domain is compared as it is written, without folding of case and without a default port. It
/// may be one that is no [`Host`]: such a key is valid for OpenTofu and fits nothing here.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    domain: String,
    path: Option<RepoName>,
}

impl Prefix {
    /// Whether only a part of the registry is meant.
    pub fn has_path(&self) -> bool {
        self.path.is_some()
    }

    /// Whether it is the registry `host` or a part of it.
    pub fn is_below(&self, host: &Host) -> bool {
        self.domain.eq_ignore_ascii_case(host.as_str())
    }

    /// How well this key fits; `None` if it is for something else. Paths fit by whole components.
    pub fn specificity(&self, host: &Host, repo: Option<&RepoName>) -> Option<Specificity> {
        if self.domain != host.as_str() {
            return None;
        }
        match (&self.path, repo) {
            (None, _) => Some(Specificity::DOMAIN),
            (Some(path), Some(repo)) if repo.is_within(Some(path)) => {
                Some(Specificity::path(path.components().count()))
            }
            _ => None,
        }
    }
}

/// Why a text is not a [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not the domain of a registry.
    #[error("it does not begin with the domain of a registry (HOST or HOST:PORT)")]
    Domain,
    /// Not the path of repositories; tags and digests end here too.
    #[error("after the domain, {0}")]
    Path(#[from] NameError),
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (domain, path) = match text.split_once('/') {
            Some((domain, path)) => (domain, Some(path.parse()?)),
            None => (text, None),
        };
        let sound = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]".contains(&b);
        if domain.is_empty() || !domain.bytes().all(sound) {
            return Err(PrefixError::Domain);
        }
        Ok(Prefix { domain: domain.to_owned(), path })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}/{path}", self.domain),
            None => f.write_str(&self.domain),
        }
    }
}
