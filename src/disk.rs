//! Files and directories held by descriptor: what every layer that keeps something on a disk does
//! alike.

pub mod draft;
pub mod lock;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, fstat, fsync, mkdirat, openat2, statat};
use rustix::io::Errno;

/// Writes all of `bytes` at `offset`.
pub fn write_all_at(file: impl AsFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    match write_at(file, bytes, offset) {
        (written, _) if written == bytes.len() => Ok(()),
        (_, errno) => Err(errno.unwrap_or(Errno::NOSPC)),
    }
}

/// Has the disk begin to write what was written at `offset`, without waiting for it: a sync that
/// comes later has less to do. Where that fails the sync does it all.
#[allow(unsafe_code, reason = "sync_file_range(2) has no safe wrapper")]
pub fn begin_writeback(file: impl AsFd, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    let file = file.as_fd().as_raw_fd();
    // SAFETY: sync_file_range(2) takes integers and touches no memory of ours; the descriptor is
    // open.
    let _ = unsafe { libc::sync_file_range(file, offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Writes as much of `bytes` at `offset` as the disk takes: how much that was, and why it was not
/// all.
pub fn write_at(file: impl AsFd, bytes: &[u8], offset: u64) -> (usize, Option<Errno>) {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(&file, &bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return (done, Some(errno)),
        }
    }
    (done, None)
}

/// Fills `buf` from `offset` on as far as the file goes; how many bytes that were.
pub fn read_at(file: impl AsFd, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buf.len() {
        match rustix::io::pread(&file, &mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// At most `want` bytes at `offset`: fewer where the file ends.
pub fn piece_at(file: impl AsFd, want: usize, offset: u64) -> Result<Vec<u8>, Errno> {
    let mut piece = vec![0; want];
    let got = read_at(file, &mut piece, offset)?;
    piece.truncate(got);
    Ok(piece)
}

/// Whether `name` in `dir` still stands for the open file.
pub fn is_named(dir: impl AsFd, name: &str, file: impl AsFd) -> bool {
    match (statat(dir, name, AtFlags::SYMLINK_NOFOLLOW), fstat(file)) {
        (Ok(by_name), Ok(open)) => (by_name.st_dev, by_name.st_ino) == (open.st_dev, open.st_ino),
        _ => false,
    }
}

/// Opens `path` below `dir`; fails with `ELOOP` if any part of it is a symbolic link.
pub fn open_below(dir: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(dir, path, flags | OFlags::RDONLY, Mode::empty())
}

/// Opens the file `name` below `dir`, made if it is missing.
pub fn open_or_make(dir: impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(dir, name, flags | OFlags::CREATE, Mode::from_raw_mode(0o666))
}

fn open_with(dir: impl AsFd, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat2(dir, path, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// The directory `name` in `dir`, made and made durable if it is missing.
pub fn make_directory(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    match open_below(&dir, name, OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {}
        outcome => return outcome,
    }
    match mkdirat(&dir, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    sync_directory(&dir)?;
    open_below(&dir, name, OFlags::DIRECTORY)
}

/// Makes the names in a directory durable, where its file system can do so.
pub fn sync_directory(dir: impl AsFd) -> Result<(), Errno> {
    match fsync(dir) {
        Err(Errno::INVAL) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_and_read_at_an_offset_as_far_as_the_file_goes() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, b"hello", 3).unwrap();
        let mut buf = [7; 4];
        assert_eq!((read_at(&file, &mut buf, 6), &buf), (Ok(2), b"lo\x07\x07"));
        assert_eq!(piece_at(&file, 4, 1).unwrap(), b"\0\0he");
        assert_eq!(piece_at(&file, 4, 8).unwrap(), b"");
        let to_read = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(write_all_at(&to_read, b"x", 0), Err(Errno::BADF));
        assert_eq!(
            write_at(std::fs::File::create("/dev/full").unwrap(), b"x", 0).1,
            Some(Errno::NOSPC)
        );
    }
}
