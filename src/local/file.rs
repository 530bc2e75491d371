//! Open files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};

use super::{Stat, TreeResult};
use crate::disk;

/// What an open file may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
}

impl Access {
    /// Reading alone.
    pub const READ: Access = Access { read: true, write: false };

    pub(super) fn flags(self) -> OFlags {
        match (self.read, self.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        }
    }
}

/// An open regular file of a tree. It stays what it is when its name is renamed or removed.
#[derive(Debug)]
pub struct LocalFile {
    fd: OwnedFd,
    access: Access,
}

impl AsFd for LocalFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl LocalFile {
    pub(super) fn new(fd: OwnedFd, access: Access) -> LocalFile {
        LocalFile { fd, access }
    }

    /// Whether it may be written.
    pub fn is_writable(&self) -> bool {
        self.access.write
    }

    /// Has other processes see that it is open, until it is closed: by a shared lock of the file on
    /// disk. Locks that users take lie in the kernel's own file.
    pub fn claim(&self) -> TreeResult<()> {
        rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockShared)
    }

    /// Its attributes.
    pub fn stat(&self) -> TreeResult<Stat> {
        rustix::fs::fstat(&self.fd)
    }

    /// Takes the set-user-id bit away, and the set-group-id bit where the group may execute the
    /// file.
    pub fn drop_set_id(&self) -> TreeResult<()> {
        let mode = Mode::from_raw_mode(self.stat()?.st_mode);
        let mut dropped = mode & Mode::SUID;
        if mode.contains(Mode::XGRP) {
            dropped |= mode & Mode::SGID;
        }
        if dropped.is_empty() { Ok(()) } else { rustix::fs::fchmod(&self.fd, mode - dropped) }
    }

    /// Reads at `offset` until `buf` is full or the file ends; how many bytes were read.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> TreeResult<usize> {
        disk::read_at(&self.fd, buf, offset)
    }

    /// Writes at `offset`; how many bytes were written: fewer than all only where the next one
    /// failed.
    pub fn write_at(&self, data: &[u8], offset: u64) -> TreeResult<usize> {
        match disk::write_at(&self.fd, data, offset) {
            (0, Some(errno)) => Err(errno),
            (written, _) => Ok(written),
        }
    }

    /// fallocate(2) with the mode's own bits.
    pub fn allocate(&self, mode: i32, offset: u64, length: u64) -> TreeResult<()> {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        rustix::fs::fallocate(&self.fd, mode, offset, length)
    }

    /// Has the disk keep what was written; with `data_only` without attributes that no reader
    /// needs.
    pub fn sync(&self, data_only: bool) -> TreeResult<()> {
        if data_only { rustix::fs::fdatasync(&self.fd) } else { rustix::fs::fsync(&self.fd) }
    }
}
