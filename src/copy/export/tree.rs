//! The tree of one package on the disk: written, and compared with what was published.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::ExportError;
use crate::facts::{Facts, MemberContent, PackageTarget, VerifiedPackage, blocking};
use crate::failure::{Failure, Refusal};
use crate::members::{Child, FileNo, MemberFile, TOP};
use crate::store::Object;

/// Modes are those of a mount, whatever the umask.
const DIRECTORY: u32 = 0o755;
const FILE: u32 = 0o644;
const PROGRAM: u32 = 0o755;
/// Files of a provider's package that begin like this are executable whatever the archive says.
const PLUGIN: &str = "terraform-provider-";
/// Smaller files are written also where blocks can be shared: the cache holds them packed.
const SHARED_MIN: u64 = 256 << 10;
/// How much is copied at once.
const PIECE: usize = 1 << 20;

/// The mode of the file at `path`, in a package of `plugins` or of a module.
fn mode(path: &Path, file: &MemberFile, plugins: bool) -> u32 {
    let is_plugin = plugins && path.as_os_str().as_encoded_bytes().starts_with(PLUGIN.as_bytes());
    let at_top = path.components().count() == 1;
    if file.executable || (is_plugin && at_top) { PROGRAM } else { FILE }
}

fn told(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |e| io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

/// Writes a package to `at`, where nothing is.
pub(super) async fn write(
    facts: &Arc<Facts>,
    package: &Arc<VerifiedPackage>,
    at: &Path,
    plugins: bool,
) -> Result<(), ExportError> {
    let archive = facts.content().blob(&package.admitted, &package.repo, &package.archive).await?;
    let probe = at.with_extension("probe");
    let shares = blocking(move || shares_blocks(&archive, &probe)).await?;
    let target = Arc::new(NewTree { at: at.to_owned(), plugins, shares, later: Mutex::default() });
    facts.content().extract(package, target.clone()).await?;
    let later = std::mem::take(&mut *target.later.lock());
    for (path, number) in later {
        shared(facts, package, number, &at.join(path)).await?;
    }
    Ok(())
}

/// Whether a file here can share blocks with one of the cache.
fn shares_blocks(object: &Object, probe: &Path) -> bool {
    let Ok(file) = File::create(probe) else { return false };
    let shares = object.fd().is_some_and(|fd| rustix::fs::ioctl_ficlone(&file, fd).is_ok());
    let _ = fs::remove_file(probe);
    shares
}

/// A tree in the making.
struct NewTree {
    at: PathBuf,
    plugins: bool,
    /// Whether blocks can be shared with the cache: large files are then left for later.
    shares: bool,
    later: Mutex<BTreeMap<PathBuf, FileNo>>,
}

impl PackageTarget for NewTree {
    fn directory(&self, path: &Path) -> io::Result<()> {
        let at = self.at.join(path);
        match fs::create_dir(&at) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(told(&at)(e)),
            _ => fs::set_permissions(&at, Permissions::from_mode(DIRECTORY)).map_err(told(&at)),
        }
    }

    fn file(
        &self,
        path: &Path,
        number: FileNo,
        file: &MemberFile,
    ) -> io::Result<Option<Box<dyn Write>>> {
        let at = self.at.join(path);
        let made = File::create(&at).and_then(|made| {
            made.set_permissions(Permissions::from_mode(mode(path, file, self.plugins)))?;
            Ok(made)
        });
        let made = made.map_err(told(&at))?;
        if self.shares && file.size >= SHARED_MIN {
            let mut later = self.later.lock();
            later.insert(path.to_owned(), number);
            return Ok(None);
        }
        Ok(Some(Box::new(NewFile { file: made, at })))
    }
}

/// A file whose errors say which one it is.
struct NewFile {
    file: File,
    at: PathBuf,
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(told(&self.at))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Gives the file at `at`, which is empty, the blocks of an unpacked member in the cache; where
/// that cannot be done, its bytes.
async fn shared(
    facts: &Arc<Facts>,
    package: &Arc<VerifiedPackage>,
    number: FileNo,
    at: &Path,
) -> Result<(), ExportError> {
    let mut content = facts.content().open(package, number).await?;
    let size = package.members.file(number).size;
    let mut healed = false;
    loop {
        let (of, from, to) = (facts.clone(), content.clone(), at.to_owned());
        match blocking(move || given(&of, &from, size, &to)).await? {
            Err(e) if e.failure == Failure::Damaged && !healed => {
                healed = true;
                content = facts.content().heal(package, number).await?;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// Blocks on the disk.
fn given(facts: &Facts, content: &MemberContent, size: u64, to: &Path) -> Result<(), Refusal> {
    let io = |e: io::Error| Refusal::io(to, e);
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(to).map_err(io)?;
    if let MemberContent::Object(object) = content
        && object.make_sure_whole()?
        && let Some(fd) = object.fd()
        && rustix::fs::ioctl_ficlone(&file, fd).is_ok()
        // Nobody wrote to the cache's file between the check and the copy.
        && object.is_whole()
    {
        return Ok(());
    }
    file.set_len(0).map_err(io)?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        match facts.content().read(content, &mut piece, at)? {
            0 => return Err(io(ErrorKind::UnexpectedEof.into())),
            n => {
                file.write_all(&piece[..n]).map_err(io)?;
                at += n as u64;
            }
        }
    }
    Ok(())
}

/// Whether exactly the package is at `at`: its names, its modes, its bytes.
pub(super) async fn is_same(
    facts: &Arc<Facts>,
    package: &Arc<VerifiedPackage>,
    at: &Path,
    plugins: bool,
) -> Result<bool, ExportError> {
    let (of, top) = (package.clone(), at.to_owned());
    if !blocking(move || has_same_names(&of, &top, plugins).unwrap_or(false)).await? {
        return Ok(false);
    }
    let target = Arc::new(FoundTree { at: at.to_owned(), differs: Arc::default() });
    facts.content().extract(package, target.clone()).await?;
    Ok(!target.differs.load(Ordering::Relaxed))
}

fn has_same_names(package: &VerifiedPackage, top: &Path, plugins: bool) -> io::Result<bool> {
    let mut pending = vec![(TOP, PathBuf::new())];
    while let Some((dir, path)) = pending.pop() {
        let at = top.join(&path);
        let found = fs::symlink_metadata(&at)?;
        if !found.is_dir() || found.mode() & 0o7777 != DIRECTORY {
            return Ok(false);
        }
        let mut names = BTreeSet::<OsString>::new();
        for entry in fs::read_dir(&at)? {
            names.insert(entry?.file_name());
        }
        let children: Vec<_> = package.members.children(dir).collect();
        if names.len() != children.len() || children.iter().any(|(name, _)| !names.contains(*name))
        {
            return Ok(false);
        }
        for (name, child) in children {
            let below = path.join(name);
            match child {
                Child::Dir(number) => pending.push((number, below)),
                Child::File(number) => {
                    let file = package.members.file(number);
                    let found = fs::symlink_metadata(top.join(&below))?;
                    let is_same = found.is_file()
                        && found.size() == file.size
                        && found.mode() & 0o7777 == mode(&below, file, plugins);
                    if !is_same {
                        return Ok(false);
                    }
                }
            }
        }
    }
    Ok(true)
}

/// A tree that is there already.
struct FoundTree {
    at: PathBuf,
    differs: Arc<AtomicBool>,
}

impl PackageTarget for FoundTree {
    fn directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn file(&self, path: &Path, _: FileNo, _: &MemberFile) -> io::Result<Option<Box<dyn Write>>> {
        if self.differs.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let at = self.at.join(path);
        let file = File::open(&at).map_err(told(&at))?;
        Ok(Some(Box::new(FoundFile { file, differs: self.differs.clone(), held: Vec::new() })))
    }
}

/// A file that is compared with what is written to it.
struct FoundFile {
    file: File,
    differs: Arc<AtomicBool>,
    held: Vec<u8>,
}

impl Write for FoundFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.resize(bytes.len(), 0);
        let is_same = self.file.read_exact(&mut self.held).is_ok() && self.held == bytes;
        if !is_same {
            self.differs.store(true, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
