//! The headers of a tar, one after the other, without the contents between them.
//!
//! Strict where two readers could differ: what is neither a plain file nor a directory, a name that
//! is no plain relative path, and an archive that ends early are refused. Reads 512 bytes per
//! member, and what did not fit into them. POSIX pax, "ustar Interchange Format" and "pax Header
//! Block"; GNU tar's long names.

use std::os::fd::AsFd;

use rustix::io::Errno;
use tar::{EntryType, Header, PaxExtensions};

use super::directory::read_piece;
use crate::failure::Failure;

/// What sizes and positions in a tar are multiples of.
pub(super) const BLOCK: u64 = 512;
/// The longest name, or set of attributes, that stands in a member of its own, in bytes.
const EXTENSION_MAX: u64 = 64 << 10;

/// A regular file in a tar.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct TarMember {
    /// Components joined by `/`, none of which is empty, `.` or `..`.
    pub(super) name: String,
    /// Where its content begins.
    pub(super) offset: u64,
    /// The length of its content.
    pub(super) size: u64,
    /// The `comment` of its pax header, which other tools pass over.
    pub(super) comment: Option<String>,
}

/// Why a tar is refused: the class and the rest of a sentence.
pub(super) type TarRefusal = (Failure, String);

fn refuse<T>(rule: impl Into<String>) -> Result<T, TarRefusal> {
    Err((Failure::Structure, rule.into()))
}

/// The members of the tar in `file`, which has `length` bytes.
pub(super) struct TarMembers<F> {
    file: F,
    length: u64,
    at: u64,
}

/// What extended headers say about the member that follows them.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    comment: Option<String>,
}

impl<F: AsFd> TarMembers<F> {
    pub(super) fn new(file: F, length: u64) -> Self {
        TarMembers { file, length, at: 0 }
    }

    /// The next regular file; `None` at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<TarMember>, TarRefusal> {
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader => self.read_pax(&header, &mut extended)?,
                EntryType::XGlobalHeader => self.check_global(&header)?,
                EntryType::GNULongName => {
                    let name = self.extension(&header)?;
                    extended.name =
                        Some(name.split(|b| *b == 0).next().unwrap_or_default().to_vec());
                }
                // The link that follows is refused by its name.
                EntryType::GNULongLink => drop(self.extension(&header)?),
                _ => {
                    let extended = std::mem::take(&mut extended);
                    if let Some(member) = self.member(&header, extended)? {
                        return Ok(Some(member));
                    }
                }
            }
        }
    }

    /// The next header; `None` at the block of zeros that ends an archive.
    fn header(&mut self) -> Result<Option<Header>, TarRefusal> {
        let mut header = Header::new_old();
        let block = self.read(BLOCK, || "before its end is marked".to_owned())?;
        header.as_mut_bytes().copy_from_slice(&block);
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        // The sum counts its own field as blanks.
        let sum: u32 =
            block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return refuse(format!(
                "there is no header of a tar, or a damaged one, at byte {}",
                self.at - BLOCK
            ));
        }
        Ok(Some(header))
    }

    fn read(&mut self, want: u64, within: impl FnOnce() -> String) -> Result<Vec<u8>, TarRefusal> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < want {
            let at = self.at + bytes.len() as u64;
            let piece = read_piece(&self.file, at, (want - bytes.len() as u64) as usize)
                .map_err(|e: Errno| (Failure::Io, format!("reading it failed: {e}")))?;
            if piece.is_empty() {
                return Err(cut(self.length, &within()));
            }
            bytes.extend_from_slice(&piece);
        }
        self.at += want;
        Ok(bytes)
    }

    /// The content of a header that is a member of its own.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarRefusal> {
        let size = size_in(header)?;
        if size > EXTENSION_MAX {
            let rule = format!("an extended header has {size} bytes; the limit is {EXTENSION_MAX}");
            return Err((Failure::TooLarge, rule));
        }
        let mut bytes =
            self.read(size.next_multiple_of(BLOCK), || "within an extended header".to_owned())?;
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn read_pax(&mut self, header: &Header, into: &mut Extended) -> Result<(), TarRefusal> {
        let malformed = || (Failure::Structure, "an extended header is malformed".to_owned());
        for extension in PaxExtensions::new(&self.extension(header)?) {
            let extension = extension.map_err(|_| malformed())?;
            let value = extension.value_bytes();
            match extension.key_bytes() {
                b"path" => into.name = Some(value.to_vec()),
                b"size" => {
                    let size = extension.value().ok().and_then(|text| text.parse().ok());
                    into.size = Some(size.ok_or_else(malformed)?);
                }
                b"comment" => into.comment = extension.value().ok().map(str::to_owned),
                key if key.starts_with(b"GNU.sparse.") => {
                    return refuse("a member is sparse; pack it without holes");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What holds for all members must not change their names or sizes.
    fn check_global(&mut self, header: &Header) -> Result<(), TarRefusal> {
        let malformed =
            |_| (Failure::Structure, "a global extended header is malformed".to_owned());
        for extension in PaxExtensions::new(&self.extension(header)?) {
            let key = extension.map_err(malformed)?.key_bytes();
            if matches!(key, b"path" | b"size" | b"linkpath") || key.starts_with(b"GNU.sparse.") {
                return refuse("a global extended header gives names or sizes");
            }
        }
        Ok(())
    }

    /// The member of a plain header; `None` for a directory.
    fn member(
        &mut self,
        header: &Header,
        extended: Extended,
    ) -> Result<Option<TarMember>, TarRefusal> {
        let bytes = extended.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let shown = String::from_utf8_lossy(&bytes).chars().take(300).collect::<String>();
        let shown = shown.escape_debug();
        let size = match extended.size {
            Some(size) => size,
            None => size_in(header)?,
        };
        let Some(name) = plain(&bytes) else {
            return refuse(format!("the member \"{shown}\" has no plain relative path for a name"));
        };
        let is_directory = match header.entry_type() {
            EntryType::Directory => true,
            // Before ustar, a directory was told by its name.
            EntryType::Regular | EntryType::Continuous => bytes.ends_with(b"/"),
            EntryType::Link | EntryType::Symlink => {
                return refuse(format!(
                    "the member \"{shown}\" is a link; pack what it stands for"
                ));
            }
            _ => return refuse(format!("the member \"{shown}\" is no regular file")),
        };
        if is_directory || name.is_empty() {
            return match size {
                0 => Ok(None),
                _ => refuse(format!("the directory \"{shown}\" has content")),
            };
        }
        let offset = self.at;
        let end = offset.checked_add(size).filter(|end| *end <= self.length);
        let Some(end) = end else {
            let there = self.length.saturating_sub(offset);
            return Err(cut(
                self.length,
                &format!("within {name}, of whose {size} bytes {there} are there"),
            ));
        };
        self.at = end.next_multiple_of(BLOCK);
        Ok(Some(TarMember { name, offset, size, comment: extended.comment }))
    }
}

fn size_in(header: &Header) -> Result<u64, TarRefusal> {
    header.entry_size().map_err(|_| (Failure::Structure, "a member's size is no number".to_owned()))
}

fn cut(length: u64, within: &str) -> TarRefusal {
    (Failure::Integrity, format!("it was cut off: it ends after {length} bytes, {within}"))
}

/// A name whose components are plain, without a leading `./` and a trailing `/`; `None` for any
/// other name.
fn plain(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_prefix("./").or((name == ".").then_some("")).unwrap_or(name);
    let inner = name.strip_suffix('/').unwrap_or(name);
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\0', '\\']);
    (inner.is_empty() && name.is_empty() || inner.split('/').all(is_plain))
        .then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_relative_path() {
        for (name, plain_name) in
            [("a", "a"), ("./a/b", "a/b"), ("a/b/", "a/b"), ("./", ""), (".", ""), ("a..b", "a..b")]
        {
            assert_eq!(plain(name.as_bytes()).as_deref(), Some(plain_name), "{name}");
        }
        for bad in [
            "/", "/a", "..", "../a", "a/../b", "a//b", "a/./b", "././a", "a/..", "a//", "a\0b",
            "a\\b",
        ] {
            assert_eq!(plain(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(plain(b"a\xff"), None);
    }
}
