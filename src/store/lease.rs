//! Whether somebody can write to a file through what he has open already.
//!
//! Who has mapped a page of a file and written to it changes it again without a trace in the file's
//! times. The kernel gives a read lease on a file only while nobody has it open for writing, and a
//! mapping holds the file open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::fstatfs;

/// A mapping of a file on overlayfs holds the file below it open, and the lease on the one above is
/// given all the same.
const OVERLAYFS: i64 = 0x794c_7630;

/// Whether nobody has `file` open for writing, or mapped so. False also where the file system
/// cannot tell: one without leases, and overlayfs.
pub fn has_no_writer(file: impl AsFd) -> bool {
    let file = file.as_fd();
    let tells = fstatfs(file).is_ok_and(|stat| stat.f_type != OVERLAYFS);
    tells && lease(file, libc::F_RDLCK) && lease(file, libc::F_UNLCK)
}

#[allow(unsafe_code, reason = "leases have no safe wrapper")]
fn lease(file: BorrowedFd<'_>, kind: libc::c_int) -> bool {
    // SAFETY: fcntl(2) with F_SETLEASE takes an integer and touches no memory of ours; the
    // descriptor is open.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_file_that_is_open_for_writing_has_a_writer_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(!has_no_writer(&reader));
        drop(writer);
        if fstatfs(&reader).unwrap().f_type != OVERLAYFS {
            assert!(
                has_no_writer(&reader) && has_no_writer(&reader),
                "a lease is given back at once"
            );
        }
    }
}
