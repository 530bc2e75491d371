//! Names of entries: the path that OpenTofu's extractor would write to, or a refusal.
//!
//! Names are bytes: they are never recoded, whatever the entry says about their character set,
//! because OpenTofu does not recode them.

use super::{ArchiveError, Limits};

/// The components of an entry's path, from the top; none for the top itself.
///
/// As `filepath.Join` would clean it: empty components and `.` vanish, `\` is a byte like any
/// other. Refused are names with a `..` (between any of `/` and `\`, as go-getter does), absolute
/// names (which OpenTofu would move below the top), and what no file system holds.
pub(super) fn components<'a>(
    name: &'a [u8],
    limits: &Limits,
) -> Result<Vec<&'a [u8]>, ArchiveError> {
    if name.contains(&0) {
        return Err(ArchiveError::structure("its name holds a NUL byte"));
    }
    if name.split(|b| matches!(b, b'/' | b'\\')).any(|part| part == b"..") {
        return Err(ArchiveError::structure(
            "its name holds a \"..\" component, which OpenTofu refuses",
        ));
    }
    if is_absolute(name) {
        return Err(ArchiveError::structure("its name is an absolute path"));
    }
    let path: Vec<&[u8]> =
        name.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    let over = |what: &str, value: usize, limit: &str, most: usize| {
        ArchiveError::structure(format!(
            "its name has {what} of {value}, over the limit of {most} ({limit})"
        ))
    };
    if let Some(long) = path.iter().find(|part| part.len() > limits.component) {
        return Err(over("a component length", long.len(), "component", limits.component));
    }
    if path.len() > limits.depth {
        return Err(over("a depth", path.len(), "depth", limits.depth));
    }
    let length = path.iter().map(|part| part.len() + 1).sum::<usize>().saturating_sub(1);
    if length > limits.path {
        return Err(over("a length", length, "path", limits.path));
    }
    Ok(path)
}

/// Whether a name is absolute on Unix or on Windows. `c:x` is not: it is relative to a drive's
/// current directory, and a plain file name here.
fn is_absolute(name: &[u8]) -> bool {
    match name {
        [b'/' | b'\\', ..] => true,
        [drive, b':', b'/' | b'\\', ..] => drive.is_ascii_alphabetic(),
        _ => false,
    }
}
