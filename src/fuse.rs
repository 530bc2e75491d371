//! The kernel's side: decode, ask [`Fs`], reply. No decision is made here.
//!
//! An operation is polled once on the thread that read the request; what is cached is answered
//! there. What has to wait goes on in the runtime with its reply, so that these threads never wait
//! for a network.

mod caller;
pub mod passthrough;
pub mod session;
mod write;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode,
    OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use crate::facts::on_behalf_of;
use crate::fs::{Attr, DiskSpace, Errno, FileKind, Fs, FsError, Lookup, ReadTarget, Thread};
use caller::Caller;
use passthrough::{OpenOutcome, Passthrough};

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

/// `fuser`'s view of a file system.
pub struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    passthrough: Arc<Passthrough>,
    options: AdapterOptions,
    /// Whether the kernel maps files whose pages are bypassed.
    may_bypass: bool,
}

/// How the kernel is served.
#[derive(Clone, Copy, Debug)]
pub struct AdapterOptions {
    /// Whether files are read without being opened where the kernel does not read by itself. That
    /// saves a round trip per open, but what is read is not kept from eviction; so it is for mounts
    /// that nobody writes.
    pub without_open: bool,
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Adapter {
    /// Serves `fs`; what has to wait runs in `runtime`.
    pub fn new(fs: Arc<Fs>, runtime: Handle, options: AdapterOptions) -> Self {
        Adapter { fs, runtime, passthrough: Arc::default(), options, may_bypass: false }
    }

    /// Which inodes the kernel reads by itself; off until it was probed.
    pub fn passthrough(&self) -> Arc<Passthrough> {
        self.passthrough.clone()
    }

    /// Whether files are read without being opened. Never beside passthrough: the kernel has one
    /// answer for all files.
    fn is_without_open(&self) -> bool {
        self.options.without_open && !self.passthrough.is_on()
    }

    /// Polls an operation once, and lets it go on in the runtime if it has to wait. There it also
    /// ends, with EINTR, when who asked was killed.
    fn answer<T: Send + 'static>(
        &self,
        request: &Request,
        operation: impl Future<Output = Result<T, FsError>> + Send + 'static,
        reply: impl FnOnce(Result<T, fuser::Errno>) + Send + 'static,
    ) {
        let asker = self.fs.asker(write::who(request));
        let mut operation = Box::pin(on_behalf_of(request.pid(), asker.run(operation)));
        let _entered = self.runtime.enter();
        match operation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => reply(outcome.map_err(|e| errno(e.errno))),
            Poll::Pending => {
                let caller = Caller::new(request.pid());
                self.runtime.spawn(async move {
                    let outcome = tokio::select! {
                        outcome = operation => outcome,
                        () = caller.killed() => Err(FsError::plain(Errno::EINTR)),
                    };
                    reply(outcome.map_err(|e| errno(e.errno)));
                });
            }
        }
    }
}

fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.0)
}

fn file_attr(attr: &Attr) -> FileAttr {
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
fn absent() -> FileAttr {
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
const GENERATION: Generation = Generation(0);

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
            |outcome| match outcome {
                Ok(Lookup::Found(entry)) => write::send_entry(&entry, reply),
                Ok(Lookup::Absent(ttl)) => reply.entry(&ttl, &absent(), GENERATION),
                Err(e) => reply.error(e),
            },
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.fs.forget(ino.0, count);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(request, self.fs.clone().getattr(ino.0), |outcome| match outcome {
            Ok(entry) => reply.attr(&entry.attr_ttl, &file_attr(&entry.attr)),
            Err(e) => reply.error(e),
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0 {
            let opening =
                self.fs.clone().open_to_write(write::who(request), ino.0, write::access(flags));
            return self.answer(request, opening, |opened| write::reply_opened(opened, reply));
        }
        if self.is_without_open() {
            // The kernel takes this as "open needs no request", once and for all.
            return reply.error(fuser::Errno::ENOSYS);
        }
        let (fs, passthrough) = (self.fs.clone(), self.passthrough.clone());
        self.answer(request, self.fs.clone().open(ino.0, passthrough.is_on()), move |outcome| {
            match outcome {
                Ok(opened) => {
                    if let OpenOutcome::Superseded(reply) = passthrough.open(ino.0, &opened, reply)
                    {
                        // The kernel looks the name up once more and opens what it finds then.
                        fs.release(opened.handle);
                        fs.supersede(ino.0);
                        reply.error(fuser::Errno::ESTALE);
                    }
                }
                Err(e) => reply.error(e),
            }
        });
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
            match self.fs.read(of, offset, &mut buffer[..size]) {
                Ok(Some(read)) => {
                    reply.data(&buffer[..read]);
                    None
                }
                Ok(None) => Some(reply),
                Err(e) => {
                    reply.error(errno(e.errno));
                    None
                }
            }
        });
        if let Some(reply) = again {
            self.answer(request, self.fs.clone().read_again(of, offset, size), |outcome| {
                match outcome {
                    Ok(bytes) => reply.data(&bytes),
                    Err(e) => reply.error(e),
                }
            });
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
            move |outcome| match outcome {
                Ok(handle) => reply.opened(FileHandle(handle), flags),
                Err(e) => reply.error(e),
            },
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
            Err(e) => reply.error(errno(e.errno)),
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
        reply_xattr(self.fs.getxattr(ino.0, name), size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(self.fs.listxattr(ino.0), size, reply);
    }

    fn access(&self, request: &Request, ino: INodeNo, wish: AccessFlags, reply: ReplyEmpty) {
        write::reply_empty(self.fs.access(write::who(request), ino.0, write::wish(wish)), reply);
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
        match self.fs.readlink(ino.0) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(e) => reply.error(errno(e.errno)),
        }
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
        let change = write::change(mode, (uid, gid), size, accessed, modified);
        write::reply_attr(
            self.fs.setattr(write::who(request), ino.0, change, handle.map(|h| h.0)),
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
        write::reply_entry(self.fs.mknod(write::who(request), parent.0, name, mode, device), reply);
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
        let making = self.fs.clone().mkdir(write::who(request), parent.0, name.into(), mode);
        self.answer(request, making, |made| write::reply_made(made, reply));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        write::reply_entry(
            self.fs.symlink(write::who(request), parent.0, name, target.as_os_str()),
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
        write::reply_entry(self.fs.link(write::who(request), parent.0, name), reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        write::reply_empty(self.fs.unlink(write::who(request), parent.0, name), reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        write::reply_empty(self.fs.rmdir(write::who(request), parent.0, name), reply);
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
        let Some(how) = write::how(flags) else { return reply.error(fuser::Errno::EINVAL) };
        let (from, to) = ((parent.0, name.into()), (to.0, as_name.into()));
        let renaming = self.fs.clone().rename(write::who(request), from, to, how);
        self.answer(request, renaming, |outcome| match outcome {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        });
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
        let access = write::access(OpenFlags(flags));
        let making = self.fs.clone().create(
            write::who(request),
            parent.0,
            name.into(),
            mode,
            access,
            self.may_bypass,
        );
        self.answer(request, making, |made| write::reply_created(made, reply));
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
        match self.fs.write(handle.0, offset, data, drops_set_id) {
            Ok(Some(written)) => write::reply_written(Ok(written), reply),
            Ok(None) => {
                let writing = self.fs.clone().write_apart(handle.0, offset, data.to_vec());
                self.answer(request, writing, |written| write::reply_written(written, reply));
            }
            Err(e) => write::reply_written(Err(errno(e.errno)), reply),
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
        write::reply_empty(self.fs.fallocate(handle.0, mode, offset, length), reply);
    }

    fn fsync(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        write::reply_empty(self.fs.fsync(handle.0, data_only), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        write::reply_empty(self.fs.fsyncdir(ino.0), reply);
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
        write::reply_empty(self.fs.setxattr(write::who(request), ino.0, name, value, flags), reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        write::reply_empty(self.fs.removexattr(write::who(request), ino.0, name), reply);
    }
}

fn reply_xattr(value: Result<Vec<u8>, FsError>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(fuser::Errno::ERANGE),
        Err(e) => reply.error(errno(e.errno)),
    }
}
