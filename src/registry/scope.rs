//! What a registry is asked for leave to do.

use std::fmt;

use crate::name::RepoName;

/// What a token is good for. Computed from the request, never taken from a challenge.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum TokenScope {
    /// Reading one repository.
    Pull(RepoName),
    /// Reading one repository and writing into it.
    Push(RepoName),
    /// Removing something from one repository.
    Remove(RepoName),
    /// Reading the list of repositories.
    Catalog,
    /// Nothing but being let in.
    Registry,
}

impl TokenScope {
    /// The repository, where it is about one.
    pub fn repo(&self) -> Option<&RepoName> {
        match self {
            TokenScope::Pull(repo) | TokenScope::Push(repo) | TokenScope::Remove(repo) => {
                Some(repo)
            }
            TokenScope::Catalog | TokenScope::Registry => None,
        }
    }
}

impl fmt::Display for TokenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenScope::Pull(repo) => write!(f, "repository:{repo}:pull"),
            TokenScope::Push(repo) => write!(f, "repository:{repo}:pull,push"),
            TokenScope::Remove(repo) => write!(f, "repository:{repo}:pull,push,delete"),
            TokenScope::Catalog => f.write_str("registry:catalog:*"),
            TokenScope::Registry => Ok(()),
        }
    }
}
