//! Tar archives compressed by gzip, read from the front: what module registries point to.

use std::io::{self, Read};

use flate2::read::GzDecoder;
use tar::EntryType;

use super::{ArchiveError, Limits, ReadAt};

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TarEntryKind {
    /// A file of that many bytes.
    File {
        /// Bytes of its content.
        size: u64,
        /// Whether its owner may run it.
        executable: bool,
    },
    /// A directory.
    Directory,
    /// A link to that path, relative to the directory in which it stands.
    Symlink(Vec<u8>),
}

/// Who is shown an entry: its path, its kind and its content.
pub type TarVisit<'a> = dyn FnMut(&[u8], &TarEntryKind, &mut dyn Read) -> io::Result<()> + 'a;

/// Shows every entry's path, kind and content to `visit`, in their order. Paths are as they are
/// written; who makes files of them checks them.
///
/// # Errors
/// [`super::Class::Structure`] for what is no such archive and for entries that a module cannot
/// have, [`super::Class::TooLarge`] over `limits`, and those of `visit`.
pub fn tarball(
    file: &dyn ReadAt,
    limits: &Limits,
    visit: &mut TarVisit<'_>,
) -> Result<(), ArchiveError> {
    let broken = |e: io::Error| ArchiveError::structure(format!("it is no tar.gz archive: {e}"));
    let most = limits.total.saturating_add(limits.entries.saturating_mul(1024));
    let plain = GzDecoder::new(FromStart { file, at: 0 }).take(most);
    let mut archive = tar::Archive::new(plain);
    let mut count = 0;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path_bytes().into_owned();
        count += 1;
        if count > limits.entries {
            return Err(ArchiveError::too_large(
                "the number of entries",
                count,
                "entries",
                limits.entries,
            ));
        }
        let size = entry.size();
        if size > limits.entry {
            return Err(ArchiveError::too_large("the size of a file", size, "entry", limits.entry)
                .of(&path));
        }
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let mode = entry.header().mode().unwrap_or(0);
                TarEntryKind::File { size, executable: mode & 0o100 != 0 }
            }
            EntryType::Directory => TarEntryKind::Directory,
            EntryType::Symlink => {
                TarEntryKind::Symlink(entry.link_name_bytes().unwrap_or_default().into_owned())
            }
            // What holds for all entries: of a commit its name.
            EntryType::XGlobalHeader => continue,
            _ => {
                return Err(ArchiveError::structure(
                    "it is neither a file, a directory nor a symbolic link",
                )
                .of(&path));
            }
        };
        let mut content = WatchedContent { inner: &mut entry, is_broken: false };
        if let Err(e) = visit(&path, &kind, &mut content) {
            let at_fault =
                if content.is_broken { broken(e) } else { ArchiveError::write(e).of(&path) };
            return Err(at_fault);
        }
    }
    Ok(())
}

/// The content of an entry, and whether it is the archive that cannot be read on.
struct WatchedContent<'a, R> {
    inner: &'a mut R,
    is_broken: bool,
}

impl<R: Read> Read for WatchedContent<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).inspect_err(|_| self.is_broken = true)
    }
}

/// Reads a file from its start.
struct FromStart<'a> {
    file: &'a dyn ReadAt,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len().saturating_sub(self.at);
        let length = buf.len().min(usize::try_from(left).unwrap_or(buf.len()));
        self.file.read_exact_at(&mut buf[..length], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::archive::Class;

    fn gzipped(tar: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(tar).unwrap();
        out.finish().unwrap()
    }

    fn made(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_size(content.len());
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        gzipped(&tar.into_inner().unwrap())
    }

    fn read(bytes: Vec<u8>, limits: &Limits) -> Result<Vec<String>, ArchiveError> {
        let mut seen = Vec::new();
        tarball(&bytes, limits, &mut |path, kind, content| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            seen.push(format!("{} {kind:?} {text}", path.escape_ascii()));
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn files_and_directories_are_shown_as_they_are_written() {
        let all = made(&[
            ("pax", EntryType::XGlobalHeader, b"52 comment=0000\n"),
            ("top/", EntryType::Directory, b""),
            ("top/main.tf", EntryType::Regular, b"x"),
            ("../out", EntryType::Regular, b"y"),
        ]);
        let seen = read(all.clone(), &Limits::default()).unwrap();
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen[1].starts_with("top/main.tf File { size: 1, executable: true } x"));
        assert!(seen[2].starts_with("../out "), "{seen:?}");
        for (limits, class) in [
            (Limits { entries: 2, ..Limits::default() }, "entries"),
            (Limits { entry: 0, ..Limits::default() }, "entry"),
        ] {
            let refused = read(all.clone(), &limits).unwrap_err();
            assert!(matches!(refused.class(), Class::TooLarge), "{class}: {refused}");
        }
    }

    #[test]
    fn what_no_module_has_is_refused() {
        let noise: Vec<u8> =
            (0..99_999_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let cut = made(&[("a", EntryType::Regular, &noise)]);
        for bytes in [
            b"no archive".to_vec(),
            cut[..cut.len() / 2].to_vec(),
            made(&[("fifo", EntryType::Fifo, b"")]),
            made(&[("hard", EntryType::Link, b"")]),
            made(&[("a", EntryType::Regular, b"x")])[..20].to_vec(),
        ] {
            let refused = read(bytes, &Limits::default()).unwrap_err();
            assert!(matches!(refused.class(), Class::Structure), "{refused}");
        }
    }
}
