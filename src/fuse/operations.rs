//! The requests of the kernel, each handed to the operation that it asks for.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::passthrough::OpenOutcome;
use super::reply::{GENERATION, absent, errno, file_attr};
use super::{Adapter, decode, reply, timed};
use crate::fs::{DiskSpace, Lookup, ReadTarget, Thread};
use crate::metrics::TimedOperation;

/// How many requests the kernel may have under way in the background (readahead and the like).
const MAX_BACKGROUND: u16 = 64;
/// How deep file systems are stacked for passthrough: files below this one are of a disk.
const STACK_DEPTH: u32 = 1;
/// What this file system asks the kernel for, where the kernel has it.
const WANTED: [InitFlags; 5] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_PASSTHROUGH,
];

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for flag in WANTED {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!("the kernel does not offer {flag:?}");
            }
        }
        self.may_bypass = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP).is_ok();
        if let Err(most) = config.set_max_stack_depth(STACK_DEPTH) {
            tracing::debug!("the kernel stacks at most {most} file systems");
        }
        if let Err(most) = config.set_max_background(MAX_BACKGROUND) {
            tracing::debug!("the kernel takes at most {most} background requests");
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.answer(
            request,
            self.fs.clone().lookup(Thread(request.pid()), parent.0, name.into()),
            timed(TimedOperation::Lookup, |outcome| match outcome {
                Ok(Lookup::Found(entry)) => reply::send_entry(&entry, reply),
                Ok(Lookup::Absent(ttl)) => reply.entry(&ttl, &absent(), GENERATION),
                Err(e) => reply.error(errno(&e)),
            }),
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.fs.forget(ino.0, count);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(request, self.fs.clone().getattr(ino.0), |found| reply::attr(found, reply));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0 {
            let opening =
                self.writable().open_to_write(decode::who(request), ino.0, decode::access(flags));
            return self.answer(request, opening, |opened| reply::opened(opened, reply));
        }
        if self.is_without_open() {
            // The kernel takes this as "open needs no request", once and for all.
            return reply.error(fuser::Errno::ENOSYS);
        }
        let (fs, passthrough) = (self.fs.clone(), self.passthrough.clone());
        let opening = self.fs.clone().open(ino.0, passthrough.is_on());
        let answer = timed(TimedOperation::Open, move |outcome| match outcome {
            Ok(opened) => {
                if let OpenOutcome::Superseded(reply) = passthrough.open(ino.0, &opened, reply) {
                    // The kernel looks the name up once more and opens what it finds then.
                    fs.release(opened.handle);
                    fs.supersede(ino.0);
                    reply.error(fuser::Errno::ESTALE);
                }
            }
            Err(e) => reply.error(errno(&e)),
        });
        self.answer(request, opening, answer);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let of = if self.is_without_open() {
            ReadTarget::Inode(ino.0)
        } else {
            ReadTarget::Handle(handle.0)
        };
        let size = size as usize;
        let again = BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let read = match self.fs.read(of, offset, &mut buffer[..size]) {
                Ok(None) => return Some(reply),
                Ok(Some(read)) => Ok(&buffer[..read]),
                Err(e) => Err(e),
            };
            reply::content(read, reply);
            None
        });
        if let Some(reply) = again {
            let reading = self.fs.clone().read_again(of, offset, size);
            self.answer(request, reading, |read| reply::content(read, reply));
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _entered = self.runtime.enter();
        if self.fs.release(handle.0) {
            self.passthrough.release(ino.0);
        }
        reply.ok();
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = if self.fs.is_constant(ino.0) {
            FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
        } else {
            FopenFlags::empty()
        };
        self.answer(
            request,
            self.fs.clone().opendir(Thread(request.pid()), ino.0),
            timed(TimedOperation::Opendir, move |outcome| match outcome {
                Ok(handle) => reply.opened(FileHandle(handle), flags),
                Err(e) => reply.error(errno(&e)),
            }),
        );
    }

    // Without attributes no directory is read: the kernel was asked for readdirplus always.

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let outcome = self.fs.readdir(handle.0, offset, |listed| {
            let attr = file_attr(&listed.entry.attr);
            !reply.add(attr.ino, listed.next, listed.name, &listed.entry.ttl, &attr, GENERATION)
        });
        match outcome {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.releasedir(handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        if let Some(disk) = self.fs.disk_space(ino.0) {
            let block = u32::try_from(disk.block).unwrap_or(u32::MAX);
            let DiskSpace { blocks, free, available, files, files_free, .. } = disk;
            return reply.statfs(blocks, free, available, files, files_free, block, 255, block);
        }
        const BLOCK: u64 = 4096;
        let (limit, used) = self.fs.space();
        let free = limit.saturating_sub(used) / BLOCK;
        reply.statfs(limit / BLOCK, free, free, 0, 0, BLOCK as u32, 255, BLOCK as u32);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply::xattr(self.fs.getxattr(ino.0, name), size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply::xattr(self.fs.listxattr(ino.0), size, reply);
    }

    fn access(&self, request: &Request, ino: INodeNo, wish: AccessFlags, reply: ReplyEmpty) {
        reply::empty(self.fs.access(decode::who(request), ino.0, decode::wish(wish)), reply);
    }

    // ENOSYS once, and the kernel answers these by itself from then on.

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        reply::data(self.fs.readlink(ino.0).map(OsString::into_vec), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = decode::change(mode, (uid, gid), size, accessed, modified);
        reply::attr(
            self.fs.writable().setattr(decode::who(request), ino.0, change, handle.map(|h| h.0)),
            reply,
        );
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        reply::entry(
            self.fs.writable().mknod(decode::who(request), parent.0, name, mode, device),
            reply,
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let making = self.writable().mkdir(decode::who(request), parent.0, name.into(), mode);
        self.answer(request, making, |made| reply::entry(made, reply));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        reply::entry(
            self.fs.writable().symlink(decode::who(request), parent.0, name, target.as_os_str()),
            reply,
        );
    }

    fn link(
        &self,
        request: &Request,
        _: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply::entry(self.fs.writable().link(decode::who(request), parent.0, name), reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply::empty(self.fs.writable().unlink(decode::who(request), parent.0, name), reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply::empty(self.fs.writable().rmdir(decode::who(request), parent.0, name), reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        as_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(how) = decode::how(flags) else { return reply.error(fuser::Errno::EINVAL) };
        let (from, to) = ((parent.0, name.into()), (to.0, as_name.into()));
        let renaming = self.writable().rename(decode::who(request), from, to, how);
        self.answer(request, renaming, |renamed| reply::empty(renamed, reply));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let access = decode::access(OpenFlags(flags));
        let making = self.writable().create(
            decode::who(request),
            parent.0,
            name.into(),
            mode,
            access,
            self.may_bypass,
        );
        self.answer(request, making, |made| reply::created(made, reply));
    }

    fn write(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let drops_set_id = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        match self.fs.writable().write(handle.0, offset, data, drops_set_id) {
            Ok(Some(written)) => reply::written(Ok(written), reply),
            Ok(None) => {
                let writing = self.writable().write_apart(handle.0, offset, data.to_vec());
                self.answer(request, writing, |written| reply::written(written, reply));
            }
            Err(e) => reply::written(Err(e), reply),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        reply::empty(self.fs.writable().fallocate(handle.0, mode, offset, length), reply);
    }

    fn fsync(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        reply::empty(self.fs.writable().fsync(handle.0, data_only), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply::empty(self.fs.writable().fsyncdir(ino.0), reply);
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply::empty(
            self.fs.writable().setxattr(decode::who(request), ino.0, name, value, flags),
            reply,
        );
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply::empty(self.fs.writable().removexattr(decode::who(request), ino.0, name), reply);
    }
}
