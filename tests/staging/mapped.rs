//! Files mapped into memory.

#![allow(unsafe_code, reason = "a mapping has no safe wrapper")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// A mapped file, of which `length` bytes are shared with it.
pub struct Mapped(*mut u8, usize);

impl Mapped {
    pub fn new(file: &File, length: usize) -> Mapped {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping that overlaps none.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapped(at.cast(), length)
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped for as long as self lives; the test reads no further than the file is
        // long.
        unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
    }

    pub fn sync(&self) {
        // SAFETY: the mapping as it was made.
        assert_eq!(unsafe { libc::msync(self.0.cast(), self.1, libc::MS_SYNC) }, 0);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping as it was made.
        unsafe { libc::munmap(self.0.cast(), self.1) };
    }
}
