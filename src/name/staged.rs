//! Paths of releases that are written: `HOST/REPOSITORY/TAG` or `HOST/REPOSITORY:TAG`.

use super::{Host, NameError, Reference, Repo, Selector, Tag};

/// Why a path is not that of a release.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReleasePathError {
    /// There are too few names.
    #[error("a release lies at HOST/REPOSITORY/TAG")]
    Short,
    /// A name is not what it should be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It ends in a digest.
    #[error("a digest follows from the content and cannot be chosen: name the directory by a tag")]
    Digest,
    /// There is nothing between registry and tag.
    #[error(
        "between {host} and {tag} there is no repository: a release lies at HOST/REPOSITORY/TAG"
    )]
    NoRepository {
        /// The registry.
        host: Host,
        /// What would be the tag.
        tag: String,
    },
}

impl Reference {
    /// The release that is written at a path, and its tag.
    ///
    /// # Errors
    /// The path is that of no release.
    pub fn staged(path: &[&str]) -> Result<(Repo, Tag), ReleasePathError> {
        let [host, names @ .., last] = path else { return Err(ReleasePathError::Short) };
        let host: Host = host.parse()?;
        if last.contains('@') {
            return Err(ReleasePathError::Digest);
        }
        let (name, tag) = match last.split_once(':') {
            Some((name, tag)) => (Some(name), tag),
            None => (None, *last),
        };
        let name: Vec<&str> = names.iter().copied().chain(name).collect();
        if name.is_empty() {
            return Err(ReleasePathError::NoRepository { host, tag: tag.to_owned() });
        }
        let tag = tag.parse()?;
        Ok((Repo { host, name: name.join("/").parse()? }, tag))
    }
}

impl Repo {
    /// The reference of one of its tags.
    pub fn tagged(&self, tag: &Tag) -> Reference {
        self.at(Selector::Tag(tag.clone()))
    }
}
