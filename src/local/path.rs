//! Names and relative paths of a tree, checked once.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use super::{Errno, TreeResult};

/// One component of a path: not empty, neither `.` nor `..`, without `/` and NUL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<OsStr>);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// `EINVAL` for what no directory can hold.
    pub fn new(name: &OsStr) -> TreeResult<Name> {
        match name.as_bytes() {
            b"" | b"." | b".." => Err(Errno::INVAL),
            bytes if bytes.contains(&b'/') || bytes.contains(&0) => Err(Errno::INVAL),
            _ => Ok(Name(name.into())),
        }
    }

    /// The text.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// The text, where it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        self.0.to_str()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A path below the top of a tree; the empty one is the top itself.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Vec<Name>);

impl RelPath {
    /// The names from the top down.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Reads a path whose components are all names.
    ///
    /// # Errors
    /// `EINVAL` for one that is absolute, or goes upwards.
    pub fn new(path: &Path) -> TreeResult<RelPath> {
        path.components()
            .map(|part| match part {
                Component::Normal(name) => Name::new(name),
                _ => Err(Errno::INVAL),
            })
            .collect()
    }

    /// The directory on the way to it that is `depth` names below the top; itself if there are no
    /// more.
    pub fn ancestor(&self, depth: usize) -> RelPath {
        self.0.iter().take(depth).cloned().collect()
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: Name) -> RelPath {
        let mut names = self.0.clone();
        names.push(name);
        RelPath(names)
    }

    /// The directory that holds it, and its name there; `None` for the top.
    pub fn split_last(&self) -> Option<(RelPath, &Name)> {
        let (last, above) = self.0.split_last()?;
        Some((RelPath(above.to_vec()), last))
    }

    /// Whether this is `above`, or lies below it.
    pub fn is_within(&self, above: &RelPath) -> bool {
        self.0.starts_with(&above.0)
    }

    /// The names joined by `/`.
    pub fn to_os_string(&self) -> OsString {
        let names: Vec<&[u8]> = self.0.iter().map(|name| name.0.as_bytes()).collect();
        OsString::from_vec(names.join(&b'/'))
    }
}

impl FromIterator<Name> for RelPath {
    fn from_iter<T: IntoIterator<Item = Name>>(names: T) -> Self {
        RelPath(names.into_iter().collect())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_os_string().fmt(f)
    }
}
