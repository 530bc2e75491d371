//! Answers to the kernel.

use std::time::SystemTime;

use fuser::{
    FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate,
    ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr,
};

use crate::fs::{Attr, Caching, FileKind, FoundEntry, FsError, OpenedLocal};
use crate::metrics::metrics;

/// How files that can be written are opened. Closing such a file has to tell what became of its
/// pages.
pub(super) fn local_flags(caching: Caching) -> FopenFlags {
    match caching {
        Caching::Kept => FopenFlags::FOPEN_KEEP_CACHE,
        Caching::Anew => FopenFlags::empty(),
        Caching::Bypassed => FopenFlags::FOPEN_DIRECT_IO,
    }
}

pub(super) fn errno(error: &FsError) -> fuser::Errno {
    fuser::Errno::from_i32(error.errno.0)
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.accessed,
        mtime: attr.modified,
        ctime: attr.changed,
        crtime: attr.changed,
        kind: match attr.kind {
            FileKind::Directory => FileType::Directory,
            FileKind::Regular => FileType::RegularFile,
            FileKind::Symlink => FileType::Symlink,
            FileKind::Fifo => FileType::NamedPipe,
            FileKind::Socket => FileType::Socket,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::CharDevice => FileType::CharDevice,
        },
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.device,
        blksize: 4096,
        flags: 0,
    }
}

/// Inode 0 tells the kernel that the name is absent, and for how long it may remember that.
pub(super) fn absent() -> FileAttr {
    file_attr(&Attr {
        ino: 0,
        kind: FileKind::Regular,
        size: 0,
        blocks: 0,
        mode: 0,
        device: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        accessed: SystemTime::UNIX_EPOCH,
        modified: SystemTime::UNIX_EPOCH,
        changed: SystemTime::UNIX_EPOCH,
    })
}

/// Numbers are never used again, so there is one generation.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn send_entry(entry: &FoundEntry, reply: ReplyEntry) {
    reply.entry_with_ttls(&entry.attr_ttl, &entry.ttl, &file_attr(&entry.attr), GENERATION);
}

pub(super) fn entry(outcome: Result<FoundEntry, FsError>, reply: ReplyEntry) {
    match outcome {
        Ok(entry) => send_entry(&entry, reply),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(super) fn attr(outcome: Result<FoundEntry, FsError>, reply: ReplyAttr) {
    match outcome {
        Ok(entry) => reply.attr(&entry.attr_ttl, &file_attr(&entry.attr)),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(super) fn empty(outcome: Result<(), FsError>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(super) fn written(outcome: Result<usize, FsError>, reply: ReplyWrite) {
    match outcome {
        // No request is longer than 16 MiB.
        Ok(written) => reply.written(written as u32),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(super) fn opened(outcome: Result<OpenedLocal, FsError>, reply: ReplyOpen) {
    match outcome {
        Ok(opened) => reply.opened(FileHandle(opened.handle), local_flags(opened.caching)),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(super) fn created(outcome: Result<(FoundEntry, OpenedLocal), FsError>, reply: ReplyCreate) {
    match outcome {
        // One time holds for name and attributes here.
        Ok((entry, OpenedLocal { handle, caching })) => {
            let flags = local_flags(caching);
            reply.created(
                &entry.ttl.min(entry.attr_ttl),
                &file_attr(&entry.attr),
                GENERATION,
                FileHandle(handle),
                flags,
            );
        }
        Err(e) => reply.error(errno(&e)),
    }
}

pub(super) fn data(outcome: Result<impl AsRef<[u8]>, FsError>, reply: ReplyData) {
    match outcome {
        Ok(bytes) => reply.data(bytes.as_ref()),
        Err(e) => reply.error(errno(&e)),
    }
}

/// A part of a file.
pub(super) fn content(outcome: Result<impl AsRef<[u8]>, FsError>, reply: ReplyData) {
    if let Ok(bytes) = &outcome {
        metrics().served.inc_by(bytes.as_ref().len() as u64);
    }
    data(outcome, reply);
}

pub(super) fn xattr(value: Result<Vec<u8>, FsError>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(fuser::Errno::ERANGE),
        Err(e) => reply.error(errno(&e)),
    }
}
