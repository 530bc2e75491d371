//! The members of a package: the tree that OpenTofu's extractor would write, as an immutable value.
//!
//! Members are numbered, and their names never become paths on disk. Paths are bytes, since zip
//! names need not be UTF-8. INVARIANT: every name is a sound file name (not empty, not `.` or `..`,
//! without `/` and NUL, at most 255 bytes), no directory has two children of one name, and files
//! have no children.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use hashbrown::HashTable;

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
pub struct MemberFile {
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
    Dir(DirNo),
}

/// A name in a directory, in as few bytes as it takes: trees of hundreds of thousands of members
/// stay in memory as long as the kernel knows a name in them.
#[derive(Clone, Copy, Debug)]
struct MemberEntry {
    /// Where the name begins among all names.
    name: u32,
    length: u8,
    is_directory: bool,
    /// Of the file or directory.
    number: u32,
}

impl MemberEntry {
    fn child(self) -> Child {
        if self.is_directory {
            Child::Dir(DirNo(self.number))
        } else {
            Child::File(FileNo(self.number))
        }
    }

    fn name(self, names: &[u8]) -> &[u8] {
        let start = self.name as usize;
        &names[start..start + usize::from(self.length)]
    }
}

/// The tree of a package.
#[derive(Clone, Debug)]
pub struct Members {
    files: Box<[MemberFile]>,
    /// All names, one behind the other.
    names: Box<[u8]>,
    /// The entries of all directories, by the directories' numbers; of one directory in byte order
    /// of the names.
    entries: Box<[MemberEntry]>,
    /// Where the entries of each directory end.
    ends: Box<[u32]>,
}

/// The top of every package.
pub const TOP: DirNo = DirNo(0);

impl Members {
    fn entries(&self, dir: DirNo) -> &[MemberEntry] {
        let at = dir.0 as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[start as usize..self.ends[at] as usize]
    }

    fn name(&self, entry: MemberEntry) -> &OsStr {
        OsStr::from_bytes(entry.name(&self.names))
    }

    /// The entry `name` of `dir`.
    pub fn lookup(&self, dir: DirNo, name: &OsStr) -> Option<Child> {
        let entries = self.entries(dir);
        let at =
            entries.binary_search_by(|entry| entry.name(&self.names).cmp(name.as_bytes())).ok()?;
        Some(entries[at].child())
    }

    /// The entries of `dir`, in byte order of their names.
    pub fn children(&self, dir: DirNo) -> impl ExactSizeIterator<Item = (&OsStr, Child)> {
        self.entries(dir).iter().map(|entry| (self.name(*entry), entry.child()))
    }

    /// The entry of `dir` at that place of the order of [`Members::children`].
    pub fn child(&self, dir: DirNo, at: usize) -> Option<(&OsStr, Child)> {
        let entry = *self.entries(dir).get(at)?;
        Some((self.name(entry), entry.child()))
    }

    /// The file of that number.
    pub fn file(&self, no: FileNo) -> &MemberFile {
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
    pub fn files(&self) -> impl Iterator<Item = (FileNo, &MemberFile)> {
        (0..).map(FileNo).zip(&self.files)
    }

    /// How many files there are.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// How many bytes of memory this value holds.
    pub fn weight(&self) -> usize {
        size_of_val(&*self.files)
            + self.names.len()
            + size_of_val(&*self.entries)
            + size_of_val(&*self.ends)
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
    /// More than 2^32 members, or bytes of their names.
    #[error("it has too many members")]
    Count,
}

/// A tree in the making.
pub struct Builder {
    files: Vec<MemberFile>,
    directories: u32,
    names: Vec<u8>,
    entries: Vec<(DirNo, MemberEntry)>,
    /// Places in `entries`, by directory and name.
    by_name: HashTable<u32>,
    hasher: RandomState,
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

impl Builder {
    /// A tree that holds only its top.
    pub fn new() -> Self {
        let (hasher, by_name) = (RandomState::new(), HashTable::new());
        Builder {
            files: Vec::new(),
            directories: 1,
            names: Vec::new(),
            entries: Vec::new(),
            by_name,
            hasher,
        }
    }

    fn find(&self, dir: DirNo, name: &[u8]) -> Option<Child> {
        let is_it = |at: &u32| {
            let (parent, entry) = self.entries[*at as usize];
            parent == dir && entry.name(&self.names) == name
        };
        let at = self.by_name.find(self.hasher.hash_one((dir, name)), is_it)?;
        Some(self.entries[*at as usize].1.child())
    }

    fn add(&mut self, dir: DirNo, name: &[u8], child: Child) -> Result<(), Conflict> {
        let count = |length: usize| u32::try_from(length).map_err(|_| Conflict::Count);
        let (at, start) = (count(self.entries.len())?, count(self.names.len())?);
        let length = u8::try_from(name.len()).map_err(|_| Conflict::Name)?;
        let (is_directory, number) = match child {
            Child::Dir(no) => (true, no.0),
            Child::File(no) => (false, no.0),
        };
        self.names.extend_from_slice(name);
        self.entries.push((dir, MemberEntry { name: start, length, is_directory, number }));
        let (entries, names, hasher) = (&self.entries, &self.names, &self.hasher);
        let hash = |at: &u32| {
            let (dir, entry) = entries[*at as usize];
            hasher.hash_one((dir, entry.name(names)))
        };
        self.by_name.insert_unique(hash(&at), at, hash);
        Ok(())
    }

    /// Adds a file at `path` (components from the top) and the directories above it.
    pub fn file<'a>(
        &mut self,
        path: impl IntoIterator<Item = &'a [u8]>,
        file: MemberFile,
    ) -> Result<FileNo, Conflict> {
        let mut path: Vec<&[u8]> = path.into_iter().collect();
        let name = path.pop().ok_or(Conflict::Name)?;
        check(name)?;
        let dir = self.directory(path)?;
        let no = FileNo(u32::try_from(self.files.len()).map_err(|_| Conflict::Count)?);
        match self.find(dir, name) {
            Some(Child::File(before)) => return Err(Conflict::Twice(before)),
            Some(Child::Dir(_)) => return Err(Conflict::Kind),
            None => {}
        }
        self.add(dir, name, Child::File(no))?;
        self.files.push(file);
        Ok(no)
    }

    /// Adds the directory at `path` (components from the top), which may exist.
    pub fn directory<'a>(
        &mut self,
        path: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<DirNo, Conflict> {
        let mut at = TOP;
        for name in path {
            check(name)?;
            at = match self.find(at, name) {
                Some(Child::Dir(no)) => no,
                Some(Child::File(_)) => return Err(Conflict::Kind),
                None => {
                    let no = DirNo(self.directories);
                    self.add(at, name, Child::Dir(no))?;
                    self.directories = no.0.checked_add(1).ok_or(Conflict::Count)?;
                    no
                }
            };
        }
        Ok(at)
    }

    /// A file that was added.
    pub fn added(&self, no: FileNo) -> &MemberFile {
        &self.files[no.0 as usize]
    }

    /// The finished tree.
    pub fn finish(mut self) -> Members {
        let names = self.names.into_boxed_slice();
        self.entries.sort_unstable_by_key(|(dir, entry)| (*dir, entry.name(&names)));
        let end = |no| self.entries.partition_point(|(dir, _)| dir.0 <= no) as u32;
        let ends = (0..self.directories).map(end).collect();
        let entries = self.entries.iter().map(|(_, entry)| *entry).collect();
        Members { files: self.files.into(), names, entries, ends }
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

    const FILE: MemberFile = MemberFile {
        size: 1,
        compressed: 1,
        offset: 0,
        crc32: 0,
        method: Method::Stored,
        executable: false,
        modified: 0,
    };

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
        assert_eq!((m.file_count(), m.ends.len()), (4, 4));
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
