//! A file that is replaced at once: who reads it meanwhile sees the old one or the new one.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::disk::draft::{Draft, clean};

/// Puts `bytes` in the place of a file, whose mode stays; a new one gets `mode`. Where the name is
/// a link, in the place of what it leads to. What a process that was killed left beside it is
/// cleared.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let dir =
        rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let hidden = format!("{}{name}.", if name.starts_with('.') { "" } else { "." });
    clean(&dir, &hidden);
    let mut draft = Draft::new(dir.try_clone()?, &hidden)?;
    let mode = fs::metadata(&path).map_or(mode, |before| before.permissions().mode() & 0o7777);
    draft.set_mode(Mode::from_raw_mode(mode))?;
    draft.write(bytes)?;
    Ok(draft.publish(&dir, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_what_was_left_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let left = dir.path().join(format!(".file.{:032x}.part", 7));
        fs::write(&left, "half").unwrap();
        replace(&file, b"one", 0o600).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        replace(&dir.path().join("link"), b"two", 0o600).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
