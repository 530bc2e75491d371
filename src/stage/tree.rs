//! A directory held by descriptor, and the files in it that become part of a module.
//!
//! INVARIANT: nothing outside of the directory is ever read. Every file is opened beneath its
//! descriptor, links that lead inside are followed, links that lead out are refused; and what is
//! read is what was listed, or an error.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, statat,
};
use rustix::io::Errno;

use super::ignore::{IGNORE_FILE, IGNORE_MAX, Ignore};
use crate::archive::{EntryContents, Limits, ZipEntry};
use crate::disk::piece_at;
use crate::failure::{Failure, Refusal};

/// Names that hold no content of a release.
pub(super) const ANNOTATIONS_FILE: &str = ".oci-annotations.json";
/// How often a name is resolved again when the kernel saw a rename on the way.
const RESOLVES: u32 = 16;

/// What tells whether a file is still the same, with the same content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileStamp {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of a file.
    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
    pub(super) fn of(stat: &Stat) -> FileStamp {
        FileStamp {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

/// A file of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TreeFile {
    /// From the top, with slashes.
    pub(super) path: Vec<u8>,
    pub(super) size: u64,
    pub(super) executable: bool,
    stamp: FileStamp,
}

/// The files of a directory, in byte order of their paths.
pub(super) struct StagedTree {
    root: OwnedFd,
    /// By what messages call the directory.
    name: String,
    limits: Limits,
    pub(super) files: Vec<TreeFile>,
}

impl StagedTree {
    /// Lists what is part of a module. `name` is what messages call the directory.
    ///
    /// # Errors
    /// `Invalid` for links that lead out, loops, and what is no file; `Denied` for hard links to
    /// what belongs to somebody else (hostile input L08); `TooLarge` over `limits`.
    pub(super) fn read(root: OwnedFd, name: &str, limits: &Limits) -> Result<StagedTree, Refusal> {
        let mut tree =
            StagedTree { root, name: name.to_owned(), limits: *limits, files: Vec::new() };
        tree.files = tree.list()?;
        Ok(tree)
    }

    /// Makes sure that the tree is still what was listed.
    ///
    /// # Errors
    /// `Busy`, with a name that changed.
    pub(super) fn check_unchanged(&self) -> Result<(), Refusal> {
        let now = self.list()?;
        let differs = self
            .files
            .iter()
            .zip(&now)
            .find(|(a, b)| a != b)
            .map(|(a, b)| a.path.clone().min(b.path.clone()));
        let surplus = || {
            self.files.get(now.len()).or_else(|| now.get(self.files.len())).map(|f| f.path.clone())
        };
        match differs.or_else(surplus) {
            None => Ok(()),
            Some(path) => Err(changed(&self.subject(&path))),
        }
    }

    /// What an archive of the tree holds.
    pub(super) fn entries(&self) -> Vec<ZipEntry<'_>> {
        self.files
            .iter()
            .map(|f| ZipEntry { name: &f.path, size: f.size, executable: f.executable })
            .collect()
    }

    fn subject(&self, path: &[u8]) -> String {
        format!("{}/{}", self.name, path.escape_ascii())
    }

    fn list(&self) -> Result<Vec<TreeFile>, Refusal> {
        let ignore = match read_small(self.root.as_fd(), &self.name, IGNORE_FILE, IGNORE_MAX)? {
            Some(text) => Ignore::parse(&text),
            None => Ignore::default(),
        };
        let top = fstat(&self.root).map_err(|e| Refusal::io(&self.name, e))?;
        let mut walk =
            TreeWalk { tree: self, ignore, above: vec![identity(&top)], found: Vec::new() };
        let again = open_beneath(self.root.as_fd(), b".", DIRECTORY)
            .map_err(|e| Refusal::io(&self.name, e))?;
        walk.directory(&again, b"")?;
        walk.found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(walk.found)
    }
}

fn changed(subject: &str) -> Refusal {
    Refusal::new(Failure::Busy, subject, "it changed while it was read; nothing was published")
        .remedy("try again when nobody writes there")
}

fn identity(stat: &Stat) -> (u64, u64) {
    let stamp = FileStamp::of(stat);
    (stamp.device, stamp.inode)
}

/// One pass over a tree.
struct TreeWalk<'a> {
    tree: &'a StagedTree,
    ignore: Ignore,
    /// The directories in which the walk is: a link to one of them is a loop.
    above: Vec<(u64, u64)>,
    found: Vec<TreeFile>,
}

impl TreeWalk<'_> {
    fn directory(&mut self, dir: &OwnedFd, prefix: &[u8]) -> Result<(), Refusal> {
        for (name, _) in list(dir.as_fd(), &self.tree.subject(prefix))? {
            let path =
                if prefix.is_empty() { name.clone() } else { [prefix, b"/", &name].concat() };
            if path == ANNOTATIONS_FILE.as_bytes() {
                continue;
            }
            // A name that is gone by now is noticed when the tree is listed again.
            let Ok(stat) = statat(dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            self.entry(&path, stat)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], stat: Stat) -> Result<(), Refusal> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let directory = kind == FileType::Directory;
        let out = if directory { self.ignore.prunes(path) } else { self.ignore.leaves_out(path) };
        if out {
            return Ok(());
        }
        match kind {
            FileType::Symlink => self.take(path, &self.follow(path)?, true),
            _ => self.take(path, &stat, false),
        }
    }

    fn take(&mut self, path: &[u8], stat: &Stat, link: bool) -> Result<(), Refusal> {
        let subject = || self.tree.subject(path);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return self.below(path, stat, link),
            _ => {
                return Err(Refusal::new(
                    Failure::Invalid,
                    subject(),
                    "it is neither a file nor a directory",
                )
                .remedy("take it out of the tree, or name it in .terraformignore"));
            }
        }
        check_links(stat, &subject())?;
        if self.found.len() as u64 >= self.tree.limits.entries {
            let rule = format!(
                "there are more files than the limit of {} (entries)",
                self.tree.limits.entries
            );
            return Err(Refusal::new(Failure::TooLarge, &self.tree.name, rule));
        }
        self.found.push(TreeFile {
            path: path.to_vec(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            executable: stat.st_mode & 0o100 != 0,
            stamp: FileStamp::of(stat),
        });
        Ok(())
    }

    /// Where a link leads to.
    fn follow(&self, path: &[u8]) -> Result<Stat, Refusal> {
        let refuse = |rule: &str| {
            Err(Refusal::new(Failure::Invalid, self.tree.subject(path), rule)
                .remedy("replace it by what it stands for, or name it in .terraformignore"))
        };
        match open_beneath(self.tree.root.as_fd(), path, OFlags::PATH) {
            Ok(target) => fstat(&target).map_err(|e| Refusal::io(self.tree.subject(path), e)),
            Err(Errno::XDEV) => refuse("it is a link that leads out of the tree"),
            Err(Errno::NOENT) => refuse("it is a link to nothing"),
            Err(Errno::LOOP) => refuse("it is a link that leads back to itself"),
            Err(e) => Err(Refusal::io(self.tree.subject(path), e)),
        }
    }

    fn below(&mut self, path: &[u8], stat: &Stat, link: bool) -> Result<(), Refusal> {
        if self.ignore.prunes(path) {
            return Ok(());
        }
        let id = identity(stat);
        let invalid =
            |rule: &str| Err(Refusal::new(Failure::Invalid, self.tree.subject(path), rule));
        if link && self.above.contains(&id) {
            return invalid("it is a link to a directory above it, so the tree has no end");
        }
        if self.above.len() > self.tree.limits.depth {
            return invalid("the tree is too deep");
        }
        let dir = open_beneath(self.tree.root.as_fd(), path, DIRECTORY)
            .map_err(|e| Refusal::io(self.tree.subject(path), e))?;
        self.above.push(id);
        let done = self.directory(&dir, path);
        self.above.pop();
        done
    }
}

/// Refuses a hard link to a file of somebody else, which the user could perhaps not read without
/// this program.
pub(super) fn check_links(stat: &Stat, subject: &str) -> Result<(), Refusal> {
    if stat.st_nlink > 1 && stat.st_uid != rustix::process::geteuid().as_raw() {
        let rule = "it has another name elsewhere and belongs to another user, who need not have \
                    meant to publish it";
        return Err(Refusal::new(Failure::Denied, subject, rule).remedy("put a copy in its place"));
    }
    Ok(())
}

impl EntryContents for StagedTree {
    fn open(&self, number: usize) -> io::Result<Box<dyn Read + '_>> {
        let found = &self.files[number];
        let told = |error: Refusal| io::Error::other(error);
        let file = open_beneath(self.root.as_fd(), &found.path, FILE)
            .map_err(|e| told(Refusal::io(self.subject(&found.path), e)))?;
        let content = FileContent { file, found, tree: self };
        content.check().map_err(told)?;
        Ok(Box::new(content))
    }
}

/// The content of a file of a tree, as long as the file is what was listed.
struct FileContent<'a> {
    file: OwnedFd,
    found: &'a TreeFile,
    tree: &'a StagedTree,
}

impl FileContent<'_> {
    fn check(&self) -> Result<(), Refusal> {
        let subject = || self.tree.subject(&self.found.path);
        let stat = fstat(&self.file).map_err(|e| Refusal::io(subject(), e))?;
        if FileStamp::of(&stat) == self.found.stamp { Ok(()) } else { Err(changed(&subject())) }
    }
}

impl Read for FileContent<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = rustix::io::retry_on_intr(|| rustix::io::read(&self.file, &mut *buf))?;
        if got == 0 && !buf.is_empty() {
            self.check().map_err(io::Error::other)?;
        }
        Ok(got)
    }
}

/// For listing a directory.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
/// For reading a file; one that is a pipe or a device does not hold up who opens it.
pub(super) const PLAIN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
pub(super) const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens `path` beneath `dir`; links on the way are followed as long as they stay beneath it.
pub(super) fn open_beneath(dir: BorrowedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    open(dir, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` beneath `dir`, without following any link.
pub(super) fn open_plain(dir: BorrowedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    open(dir, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn open(
    dir: BorrowedFd,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    for _ in 1..RESOLVES {
        match openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The names in a directory, with their types, in byte order.
pub(super) fn list(dir: BorrowedFd, subject: &str) -> Result<Vec<(Vec<u8>, FileType)>, Refusal> {
    let failed = |e: Errno| Refusal::io(subject, e);
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown
            && let Ok(stat) = statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
        {
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        names.push((name.to_vec(), kind));
    }
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

/// The content of a small file of a directory, where it has one of that name.
pub(super) fn read_small(
    dir: BorrowedFd,
    directory: &str,
    name: &str,
    most: u64,
) -> Result<Option<Vec<u8>>, Refusal> {
    let subject = format!("{directory}/{name}");
    let file = match open_beneath(dir, name.as_bytes(), FILE) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::XDEV) => {
            return Err(Refusal::new(
                Failure::Invalid,
                subject,
                "it is a link that leads out of the tree",
            ));
        }
        Err(e) => return Err(Refusal::io(subject, e)),
    };
    read_file(&file, &subject, most).map(Some)
}

/// The content of a file that may have `most` bytes.
pub(super) fn read_file(file: &OwnedFd, subject: &str, most: u64) -> Result<Vec<u8>, Refusal> {
    let stat = fstat(file).map_err(|e| Refusal::io(subject, e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refusal::new(Failure::Invalid, subject, "it is no file"));
    }
    check_links(&stat, subject)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > most {
        let rule = format!("it has {size} bytes, over the limit of {most}");
        return Err(Refusal::new(Failure::TooLarge, subject, rule));
    }
    let size = usize::try_from(size).unwrap_or(0);
    let content = piece_at(file, size, 0).map_err(|e| Refusal::io(subject, e))?;
    if content.len() < size {
        return Err(changed(subject));
    }
    Ok(content)
}
