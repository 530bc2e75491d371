//! Which system calls a process may still make (seccomp(2)). All others answer EPERM, those that
//! libraries try and do without ENOSYS.
//!
//! The kernel remembers the answer for calls that are allowed whatever their arguments are, so these
//! cost nothing.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// Allowed whatever their arguments are.
const ALLOWED: &[c_long] = &[
    // Files.
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lseek,
    libc::SYS_lsetxattr,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_removexattr,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_setxattr,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_syncfs,
    libc::SYS_truncate,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
    // The directory that a process in the background leaves.
    libc::SYS_chdir,
    // Connections.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // Waiting.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munmap,
    // Threads and signals.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    // Signals to the processes that took over, and waiting for them.
    libc::SYS_kill,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // What this process is.
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_setsid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// The older forms of these, which newer processors do not have. musl and glibc use some of them.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OF_OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_futimesat,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_sync_file_range,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utime,
    libc::SYS_utimes,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OF_OLD: &[c_long] = &[SYS_RENAMEAT, SYS_SYNC_FILE_RANGE];

/// renameat(2) and sync_file_range(2) of newer processors, for which not every C library has names.
#[cfg(not(target_arch = "x86_64"))]
const SYS_RENAMEAT: c_long = 38;
#[cfg(not(target_arch = "x86_64"))]
const SYS_SYNC_FILE_RANGE: c_long = 84;

/// fchmodat2(2), which has the same number everywhere.
const SYS_FCHMODAT2: c_long = 452;

/// Answered as by a kernel that does not have them: who tries them has another way. The C library
/// takes clone(2) for clone3(2), whose arguments a filter cannot see.
const UNKNOWN: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_memfd_create,
    libc::SYS_pidfd_open,
    libc::SYS_close_range,
];

/// Families of sockets: those on this machine, those that reach registries.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// What ioctl(2) may be asked: of the kernel's connection (linux/fuse.h), of sockets and pipes, of
/// files (clones, linux/fs.h), and whether something is a terminal. Typing into a terminal is none
/// of it.
const CONTROLS: &[u64] = &[
    0x8004_e500, // FUSE_DEV_IOC_CLONE
    0x4010_e501, // FUSE_DEV_IOC_BACKING_OPEN
    0x4004_e502, // FUSE_DEV_IOC_BACKING_CLOSE
    0x4004_9409, // FICLONE
    0x4020_940d, // FICLONERANGE
    0x5401,      // TCGETS
    0x802c_542a, // TCGETS2
    0x5413,      // TIOCGWINSZ
    0x541b,      // FIONREAD
    0x5421,      // FIONBIO
    0x5450,      // FIONCLEX
    0x5451,      // FIOCLEX
    0x8933,      // SIOCGIFINDEX
];

/// What prctl(2) may be asked: names of threads and of memory, what the kernel told at the start,
/// and whose children orphans become.
const PROCESS_CONTROLS: &[u64] = &[
    libc::PR_GET_NAME as u64,
    libc::PR_SET_NAME as u64,
    libc::PR_SET_CHILD_SUBREAPER as u64,
    libc::PR_SET_VMA as u64,
    0x4155_5856, // PR_GET_AUXV
];

/// The filters, ready for the kernel. A call has to pass all of them.
pub(super) struct SystemCalls([BpfProgram; 2]);

impl SystemCalls {
    /// The filters for this processor.
    pub(super) fn new() -> Result<SystemCalls, seccompiler::BackendError> {
        let plainly =
            ALLOWED.iter().chain(ALLOWED_OF_OLD).chain(UNKNOWN).map(|call| (*call, vec![]));
        let mut allowed: BTreeMap<c_long, Vec<SeccompRule>> = plainly.collect();
        let families = FAMILIES.iter().map(|family| rule([is(0, *family as u64)]));
        let routes = [is(0, libc::AF_NETLINK as u64), is(2, libc::NETLINK_ROUTE as u64)];
        let sockets = families.chain([rule(routes)]).collect::<Result<_, _>>()?;
        allowed.insert(libc::SYS_socket, sockets);
        allowed.insert(libc::SYS_ioctl, one_of(1, CONTROLS)?);
        allowed.insert(libc::SYS_prctl, one_of(0, PROCESS_CONTROLS)?);
        // Threads of this process, and no other process.
        let thread = libc::CLONE_THREAD as u64;
        let masked = SeccompCmpOp::MaskedEq(thread);
        let thread = SeccompCondition::new(0, SeccompCmpArgLen::Dword, masked, thread);
        allowed.insert(libc::SYS_clone, vec![rule([thread])?]);
        // Its own limits.
        allowed.insert(libc::SYS_prlimit64, one_of(0, &[0])?);
        let unknown = UNKNOWN.iter().map(|call| (*call, vec![])).collect();
        let errno = |errno: libc::c_int| SeccompAction::Errno(errno.unsigned_abs());
        // In this order: what the second one refuses, the first could not be put into force by.
        Ok(SystemCalls([
            compiled(unknown, SeccompAction::Allow, errno(libc::ENOSYS))?,
            compiled(allowed, errno(libc::EPERM), SeccompAction::Allow)?,
        ]))
    }

    /// Has these filters hold in all threads of this process, for good. A kernel that has no filters
    /// leaves it as it is.
    pub(super) fn enforce(&self) -> io::Result<()> {
        self.enforced(seccompiler::apply_filter_all_threads)
    }

    fn enforced(
        &self,
        apply: impl Fn(&[sock_filter]) -> Result<(), seccompiler::Error>,
    ) -> io::Result<()> {
        match self.0.iter().try_for_each(|program| apply(program)) {
            Err(seccompiler::Error::Seccomp(e))
                if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) =>
            {
                Ok(())
            }
            applied => applied.map_err(io::Error::other),
        }
    }
}

fn compiled(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let processor = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, matching, processor)?.try_into()
}

fn is(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn rule<const N: usize>(
    conditions: [Result<SeccompCondition, seccompiler::BackendError>; N],
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.iter().map(|value| rule([is(argument, *value)])).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, socket};
    use rustix::process::DumpableBehavior;

    use super::*;

    /// Does `work` in a thread for which the filters hold.
    fn filtered<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            SystemCalls::new().unwrap().enforced(seccompiler::apply_filter).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    fn errno<T>(result: io::Result<T>) -> Option<i32> {
        result.err().and_then(|e| e.raw_os_error())
    }

    #[test]
    fn no_program_and_no_process_can_be_started() {
        let (executed, started) = filtered(|| {
            (Command::new("true").exec().raw_os_error(), errno(Command::new("true").status()))
        });
        assert_eq!((executed, started), (Some(libc::EPERM), Some(libc::EPERM)));
    }

    #[test]
    fn what_would_widen_what_it_may_is_refused() {
        let refused = filtered(|| {
            [
                rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).err(),
                rustix::thread::set_thread_res_uid(
                    rustix::process::getuid(),
                    rustix::process::getuid(),
                    rustix::process::getuid(),
                )
                .err(),
                rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty()).err(),
                rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::empty()).err(),
                rustix::process::chroot("/").err(),
                socket(AddressFamily::PACKET, SocketType::RAW, None).err(),
                rustix::thread::move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&std::fs::File::open("/proc/self/ns/mnt").unwrap()),
                    Some(rustix::thread::LinkNameSpaceType::Mount),
                )
                .err(),
            ]
        });
        assert!(refused.iter().all(|e| *e == Some(Errno::PERM)), "{refused:?}");
    }

    #[test]
    fn threads_names_sockets_and_files_go_on() {
        filtered(|| {
            let named = std::thread::Builder::new().name("another".into());
            let id = named.spawn(std::process::id).unwrap().join().unwrap();
            assert_eq!(id, std::process::id());
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let connected = std::thread::spawn(move || std::net::TcpStream::connect(address));
            listener.accept().unwrap();
            connected.join().unwrap().unwrap();
            let found = std::net::ToSocketAddrs::to_socket_addrs("localhost:80");
            assert!(found.unwrap().next().is_some());
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("a"), b"a").unwrap();
            std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
            std::fs::copy(dir.path().join("b"), dir.path().join("c")).unwrap();
            assert_eq!(rustix::param::page_size() % 4096, 0);
        });
    }
}
