//! Archives of modules, unpacked into an empty directory, so that the same content makes the same
//! release however it came.
//!
//! INVARIANT: nothing is written outside of the directory, and nothing through a link: every
//! directory on the way is opened without following one, and every name is new.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;

use super::blob::BlobFile;
use super::error::refused_archive;
use super::tree::{DIRECTORY, open_plain};
use crate::archive::{self, Limits, TarEntryKind};
use crate::failure::{Failure, Refusal};
use crate::members::{Child, DirNo, Members, TOP};

/// The formats of archives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArchiveFormat {
    /// A zip.
    Zip,
    /// A tar, compressed by gzip.
    TarGz,
}

/// Unpacks `file` into `dir`. `name` is what messages call the archive.
///
/// # Errors
/// `Structure` for what is no such archive, and for names that no directory has or that lead
/// outside; `TooLarge` over `limits`.
pub fn unpack(
    file: OwnedFd,
    format: ArchiveFormat,
    name: &str,
    dir: BorrowedFd<'_>,
    limits: &Limits,
) -> Result<(), Refusal> {
    let file = BlobFile::of(file).map_err(|e| Refusal::io(name, e))?;
    let refused = |e: archive::ArchiveError| refused_archive(name, &e);
    match format {
        ArchiveFormat::Zip => {
            let members = archive::index(&file, limits).map_err(refused)?;
            let unpacking = ZipUnpacking { file: &file, members: &members, name };
            unpacking.directory(TOP, dir)
        }
        ArchiveFormat::TarGz => archive::tarball(&file, limits, &mut |path, kind, content| {
            entry(dir, path, kind, content).map_err(|e| told(e, name, path))
        })
        .map_err(refused),
    }
}

fn told(error: io::Error, name: &str, path: &[u8]) -> io::Error {
    let rule = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::EXIST) => "another entry has the same name",
        Some(Errno::LOOP | Errno::NOTDIR) => "it lies below what is no directory",
        _ if error.kind() == io::ErrorKind::InvalidInput => {
            "its name leads outside of the archive, or is none that a file can have"
        }
        _ => return error,
    };
    let subject = format!("{name}: {}", path.escape_ascii());
    io::Error::other(Refusal::new(Failure::Structure, subject, rule))
}

/// Makes one entry, and the directories above it.
fn entry(
    top: BorrowedFd<'_>,
    path: &[u8],
    kind: &TarEntryKind,
    content: &mut dyn Read,
) -> io::Result<()> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        if name == b".." || name.contains(&0) || path.starts_with(b"/") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        names.push(name);
    }
    let Some((last, above)) = names.split_last() else { return Ok(()) };
    let mut dir = open_plain(top, b".", DIRECTORY)?;
    for name in above {
        dir = below(dir.as_fd(), name)?;
    }
    match kind {
        TarEntryKind::Directory => below(dir.as_fd(), last).map(drop),
        TarEntryKind::Symlink(target) => Ok(symlinkat(target.as_slice(), &dir, *last)?),
        TarEntryKind::File { executable, .. } => {
            let mut file = created(dir.as_fd(), last, *executable)?;
            io::copy(content, &mut file).map(drop)
        }
    }
}

/// The directory `name` in `dir`, made if it is missing.
fn below(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    match mkdirat(dir, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(open_plain(dir, name, DIRECTORY)?),
        Err(e) => Err(e.into()),
    }
}

/// A file that is new.
struct NewFile(OwnedFd);

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::write(&self.0, bytes))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn created(dir: BorrowedFd<'_>, name: &[u8], executable: bool) -> io::Result<NewFile> {
    let mode = if executable { Mode::RWXU } else { Mode::RUSR | Mode::WUSR };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(NewFile(openat(dir, name, flags, mode)?))
}

struct ZipUnpacking<'a> {
    file: &'a BlobFile,
    members: &'a Members,
    name: &'a str,
}

impl ZipUnpacking<'_> {
    fn directory(&self, number: DirNo, dir: BorrowedFd<'_>) -> Result<(), Refusal> {
        use std::os::unix::ffi::OsStrExt as _;

        for (name, child) in self.members.children(number) {
            let name = name.as_bytes();
            let failed = |e: io::Error| Refusal::io(self.name, e);
            match child {
                Child::Dir(number) => {
                    let dir = below(dir, name).map_err(failed)?;
                    self.directory(number, dir.as_fd())?;
                }
                Child::File(number) => {
                    let member = self.members.file(number);
                    let mut file = created(dir, name, member.executable).map_err(failed)?;
                    archive::extract(self.file, member, &mut file)
                        .map_err(|e| refused_archive(self.name, &e))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, EntryType, Header};

    use super::*;

    fn tar(entries: &[(&str, EntryType, &str)]) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut tar = Builder::new(GzEncoder::new(file, Compression::fast()));
        for (path, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            let is_link = *kind == EntryType::Symlink;
            if is_link {
                header.set_link_name(content).unwrap();
            }
            header.set_size(if is_link { 0 } else { content.len() as u64 });
            header.set_cksum();
            tar.append(&header, if is_link { &b""[..] } else { content.as_bytes() }).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn unpacked(file: File, format: ArchiveFormat) -> Result<tempfile::TempDir, Refusal> {
        let dir = tempfile::tempdir().unwrap();
        let open = File::open(dir.path()).unwrap();
        unpack(file.into(), format, "module", open.as_fd(), &Limits::default())?;
        Ok(dir)
    }

    #[test]
    fn a_tar_becomes_files_directories_and_links() {
        let dir = unpacked(
            tar(&[
                ("top/", EntryType::Directory, ""),
                ("top/main.tf", EntryType::Regular, "text"),
                ("top/deep/run.sh", EntryType::Regular, "run"),
                ("top/link.tf", EntryType::Symlink, "main.tf"),
            ]),
            ArchiveFormat::TarGz,
        )
        .unwrap();
        let top = dir.path().join("top");
        assert_eq!(fs::read_to_string(top.join("link.tf")).unwrap(), "text");
        let mode = fs::metadata(top.join("deep/run.sh")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn nothing_is_written_outside_or_through_a_link() {
        let outside = tempfile::tempdir().unwrap();
        let out = outside.path().to_str().unwrap();
        for entries in [
            &[("../x", EntryType::Regular, "x")][..],
            &[("/x", EntryType::Regular, "x")],
            &[("a/../../x", EntryType::Regular, "x")],
            &[("a", EntryType::Symlink, out), ("a/x", EntryType::Regular, "x")],
            &[("a", EntryType::Symlink, out), ("a", EntryType::Directory, "")],
            &[("a", EntryType::Regular, "x"), ("a", EntryType::Regular, "y")],
            &[("a", EntryType::Regular, "x"), ("a/b", EntryType::Regular, "y")],
        ] {
            let refused = unpacked(tar(entries), ArchiveFormat::TarGz).unwrap_err();
            assert_eq!(refused.failure, Failure::Structure, "{entries:?}: {refused}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let refused = unpacked(tar(&[]), ArchiveFormat::Zip).unwrap_err();
        assert_eq!(refused.failure, Failure::Structure);
    }
}
