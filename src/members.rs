//! The members of a package: the tree that OpenTofu's extractor would write, as an immutable value.
//!
//! Members are numbered, and their names never become paths on disk. Paths are bytes, since zip names need not be
//! UTF-8. INVARIANT: every name is a sound file name (not empty, not `.` or `..`, without `/` and NUL, at most 255
//! bytes), no directory has two children of one name, and files have no children.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// How a file's bytes are held in the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// As they are.
    Stored,
    /// Raw deflate.
    Deflate,
}

/// A file of a package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File {
    /// Length of the content, in bytes.
    pub size: u64,
    /// Length in the archive, in bytes.
    pub compressed: u64,
    /// Offset of the first byte of the data in the archive.
    pub offset: u64,
    /// CRC-32 of the content.
    pub crc32: u32,
    /// How the data is held.
    pub method: Method,
    /// Whether the archive marks it as executable by its owner.
    pub executable: bool,
    /// Modification time of the entry, in seconds since 1970 (UTC).
    pub modified: i64,
}

/// A file's number in its package.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileNo(pub u32);

/// A directory's number in its package.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DirNo(pub u32);

/// An entry of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Child {
    /// A regular file.
    File(FileNo),
    /// A directory.
    Dir(DirNo),
}

#[derive(Clone, Debug, Default)]
struct Directory {
    /// In byte order of the names.
    children: Vec<(Box<[u8]>, Child)>,
}

/// The tree of a package.
#[derive(Clone, Debug)]
pub struct Members {
    files: Vec<File>,
    directories: Vec<Directory>,
}

/// The top of every package.
pub const TOP: DirNo = DirNo(0);

impl Members {
    /// The entry `name` of `dir`.
    pub fn lookup(&self, dir: DirNo, name: &OsStr) -> Option<Child> {
        let children = &self.directories[dir.0 as usize].children;
        let at = children.binary_search_by(|(n, _)| n.as_ref().cmp(name.as_bytes())).ok()?;
        Some(children[at].1)
    }

    /// The entries of `dir`, in byte order of their names.
    pub fn children(&self, dir: DirNo) -> impl ExactSizeIterator<Item = (&OsStr, Child)> {
        self.directories[dir.0 as usize].children.iter().map(|(name, child)| (OsStr::from_bytes(name), *child))
    }

    /// The entry of `dir` at that place of the order of [`Members::children`].
    pub fn child(&self, dir: DirNo, at: usize) -> Option<(&OsStr, Child)> {
        let (name, child) = self.directories[dir.0 as usize].children.get(at)?;
        Some((OsStr::from_bytes(name), *child))
    }

    /// The file of that number.
    pub fn file(&self, no: FileNo) -> &File {
        &self.files[no.0 as usize]
    }

    /// The path of a file from the top. Searches the whole tree: for messages only.
    pub fn path(&self, no: FileNo) -> Option<PathBuf> {
        let mut pending = vec![(TOP, PathBuf::new())];
        while let Some((dir, path)) = pending.pop() {
            for (name, child) in self.children(dir) {
                match child {
                    Child::File(found) if found == no => return Some(path.join(name)),
                    Child::File(_) => {}
                    Child::Dir(below) => pending.push((below, path.join(name))),
                }
            }
        }
        None
    }

    /// All files, in the order of their numbers.
    pub fn files(&self) -> impl Iterator<Item = (FileNo, &File)> {
        (0..).map(FileNo).zip(&self.files)
    }

    /// How many files there are.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// How many directories there are, the top included.
    pub fn directory_count(&self) -> usize {
        self.directories.len()
    }

    /// About how many bytes of memory this value holds.
    pub fn weight(&self) -> usize {
        let names: usize = self
            .directories
            .iter()
            .map(|d| d.children.iter().map(|(n, _)| n.len() + size_of::<(Box<[u8]>, Child)>()).sum::<usize>())
            .sum();
        names + self.files.len() * size_of::<File>() + self.directories.len() * size_of::<Directory>()
    }
}

/// Why a path cannot be added to a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Conflict {
    /// A component is empty, `.`, `..`, over 255 bytes, or holds `/` or NUL.
    #[error("a component of the name is no file name")]
    Name,
    /// A file stands where a directory is needed, or a directory where a file is.
    #[error("it is a file and a directory at once")]
    Kind,
    /// A file of that path was added before.
    #[error("it stands in the archive twice")]
    Twice(FileNo),
    /// More than 2^32 members.
    #[error("it has too many members")]
    Count,
}

/// A tree in the making.
#[derive(Default)]
pub struct Builder {
    files: Vec<File>,
    directories: Vec<HashMap<Box<[u8]>, Child>>,
}

impl Builder {
    /// A tree that holds only its top.
    pub fn new() -> Self {
        Builder { files: Vec::new(), directories: vec![HashMap::new()] }
    }

    /// Adds a file at `path` (components from the top) and the directories above it.
    pub fn file<'a>(&mut self, path: impl IntoIterator<Item = &'a [u8]>, file: File) -> Result<FileNo, Conflict> {
        let mut path: Vec<&[u8]> = path.into_iter().collect();
        let name = path.pop().ok_or(Conflict::Name)?;
        check(name)?;
        let dir = self.directory(path)?;
        let no = FileNo(u32::try_from(self.files.len()).map_err(|_| Conflict::Count)?);
        match self.directories[dir.0 as usize].get(name) {
            Some(Child::File(before)) => return Err(Conflict::Twice(*before)),
            Some(Child::Dir(_)) => return Err(Conflict::Kind),
            None => {}
        }
        self.directories[dir.0 as usize].insert(name.into(), Child::File(no));
        self.files.push(file);
        Ok(no)
    }

    /// Adds the directory at `path` (components from the top), which may exist.
    pub fn directory<'a>(&mut self, path: impl IntoIterator<Item = &'a [u8]>) -> Result<DirNo, Conflict> {
        let mut at = TOP;
        for name in path {
            check(name)?;
            at = match self.directories[at.0 as usize].get(name) {
                Some(Child::Dir(no)) => *no,
                Some(Child::File(_)) => return Err(Conflict::Kind),
                None => {
                    let no = DirNo(u32::try_from(self.directories.len()).map_err(|_| Conflict::Count)?);
                    self.directories[at.0 as usize].insert(name.into(), Child::Dir(no));
                    self.directories.push(HashMap::new());
                    no
                }
            };
        }
        Ok(at)
    }

    /// A file that was added.
    pub fn added(&self, no: FileNo) -> &File {
        &self.files[no.0 as usize]
    }

    /// The finished tree.
    pub fn finish(self) -> Members {
        let directories = self
            .directories
            .into_iter()
            .map(|map| {
                let mut children: Vec<_> = map.into_iter().collect();
                children.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                Directory { children }
            })
            .collect();
        Members { files: self.files, directories }
    }
}

fn check(name: &[u8]) -> Result<(), Conflict> {
    if name.is_empty()
        || name == b"."
        || name == b".."
        || name.len() > 255
        || name.iter().any(|b| matches!(b, b'/' | 0))
    {
        return Err(Conflict::Name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: File =
        File { size: 1, compressed: 1, offset: 0, crc32: 0, method: Method::Stored, executable: false, modified: 0 };

    fn split(path: &str) -> impl Iterator<Item = &[u8]> {
        path.split('/').map(str::as_bytes)
    }

    #[test]
    fn a_tree_lists_in_byte_order_and_finds_by_name() {
        let mut b = Builder::new();
        for path in ["z", "a/b/c", "a/a", "B"] {
            b.file(split(path), FILE).unwrap();
        }
        b.directory(split("empty")).unwrap();
        let m = b.finish();
        let names: Vec<_> = m.children(TOP).map(|(n, _)| n.to_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["B", "a", "empty", "z"]);
        let Some(Child::Dir(a)) = m.lookup(TOP, OsStr::new("a")) else { panic!("a directory") };
        assert!(matches!(m.lookup(a, OsStr::new("a")), Some(Child::File(FileNo(2)))));
        assert_eq!(m.lookup(a, OsStr::new("c")), None);
        assert_eq!((m.file_count(), m.directory_count()), (4, 4));
        assert_eq!(m.path(FileNo(1)), Some("a/b/c".into()));
        assert_eq!(m.path(FileNo(4)), None);
    }

    #[test]
    fn conflicts_are_told_apart() {
        let mut b = Builder::new();
        b.file(split("a"), FILE).unwrap();
        assert_eq!(b.file(split("a"), FILE), Err(Conflict::Twice(FileNo(0))));
        assert_eq!(b.file(split("a/b"), FILE), Err(Conflict::Kind));
        b.directory(split("d")).unwrap();
        assert_eq!(b.file(split("d"), FILE), Err(Conflict::Kind));
        for bad in ["", ".", "..", "x/../y", "x//y", "a\0b"] {
            assert_eq!(b.file(split(bad), FILE), Err(Conflict::Name), "{bad}");
        }
        assert_eq!(b.file([&[b'x'; 256][..]], FILE), Err(Conflict::Name));
    }
}
