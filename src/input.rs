//! Files on local disk that somebody named or that lie at a usual place: configurations, lock
//! files, certificates, zips.
//!
//! Whatever stands at such a path is opened without waiting and read up to a limit. Only a regular
//! file is taken: a pipe may never end or never begin, and a device may have no end.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The number of the device `/dev/null` on every Linux.
const NULL: (u32, u32) = (1, 3);

/// Why a file is not read. The path stands in the caller's sentence.
#[derive(Debug)]
pub enum InputError {
    /// The system's reason.
    System(io::Error),
    /// It is something else than a regular file.
    Kind(&'static str),
    /// It has more bytes than this.
    TooLarge(u64),
    /// It is no text in UTF-8.
    NotText,
}

impl InputError {
    /// Whether there is nothing of that name.
    pub fn is_absence(&self) -> bool {
        matches!(self, InputError::System(e) if e.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InputError::System(e) => e.fmt(f),
            InputError::Kind(kind) => write!(f, "it is {kind}, and a regular file is wanted"),
            InputError::TooLarge(limit) => {
                write!(f, "it is larger than {limit} bytes, the limit for such files")
            }
            InputError::NotText => f.write_str("it is no text in UTF-8"),
        }
    }
}

impl std::error::Error for InputError {}

impl From<io::Error> for InputError {
    fn from(error: io::Error) -> InputError {
        InputError::System(error)
    }
}

/// Opens a regular file for reading. Does not wait, whatever stands there. `/dev/null`, by which
/// people say that there is to be no file, is an empty one.
pub fn open(path: &Path) -> Result<File, InputError> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if kind.is_file()
        || (kind.is_char_device() && rustix::fs::makedev(NULL.0, NULL.1) == metadata.rdev())
    {
        return Ok(file);
    }
    Err(InputError::Kind(if kind.is_fifo() {
        "a pipe (as a shell makes one of <(…) too: write its text into a file first)"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "no file"
    }))
}

/// The bytes of a regular file, of at most `limit`, behind what `bytes` holds.
pub fn append(path: &Path, limit: u64, bytes: &mut Vec<u8>) -> Result<(), InputError> {
    append_from(open(path)?, limit, bytes)
}

/// As [`append`], of an open file.
pub fn append_from(file: File, limit: u64, bytes: &mut Vec<u8>) -> Result<(), InputError> {
    // A sparse file costs nothing to make: its length is looked at before anything is read.
    let length = file.metadata()?.len();
    if length > limit {
        return Err(InputError::TooLarge(limit));
    }
    let before = bytes.len();
    // All at once, so that no copy of a secret stays behind where it grew.
    bytes.reserve_exact(usize::try_from(length).unwrap_or(0).saturating_add(1));
    file.take(limit.saturating_add(1)).read_to_end(bytes)?;
    if (bytes.len() - before) as u64 > limit { Err(InputError::TooLarge(limit)) } else { Ok(()) }
}

/// The bytes of a regular file, of at most `limit`.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, InputError> {
    let mut bytes = Vec::new();
    append(path, limit, &mut bytes)?;
    Ok(bytes)
}

/// The text of a regular file of at most `limit` bytes.
pub fn text(path: &Path, limit: u64) -> Result<String, InputError> {
    String::from_utf8(read(path, limit)?).map_err(|_| InputError::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::fs;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "12345").unwrap();
        assert_eq!(text(&file, 5).unwrap(), "12345");
        assert!(text(&file, 4).unwrap_err().to_string().contains("larger than 4 bytes, the limit"));
        fs::write(&file, b"\xff").unwrap();
        assert!(matches!(text(&file, 5), Err(InputError::NotText)));
        File::create(&file).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read(&file, 1 << 20), Err(InputError::TooLarge(_))));
        assert!(read(&dir.path().join("none"), 1).unwrap_err().is_absence());
        assert_eq!(read(Path::new("/dev/null"), 1).unwrap(), b"");
    }

    #[test]
    fn what_is_no_file_is_neither_read_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for (path, kind) in [
            (pipe.as_path(), "a pipe"),
            (&link, "a pipe"),
            (dir.path(), "a directory"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = open(path).unwrap_err();
            assert!(
                matches!(&error, InputError::Kind(found) if found.starts_with(kind)),
                "{path:?}: {error}"
            );
        }
    }
}
