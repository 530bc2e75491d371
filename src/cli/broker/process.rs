//! A process that is split off from this one.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::PipeFlags;

use crate::sandbox;

/// Behind the standard streams.
const FIRST: RawFd = 3;

/// Splits a process off that does `work` and ends. It holds no descriptor of this one's but one end
/// of a socket of whole messages, the other end of which is returned; its standard streams are
/// `/dev/null`.
///
/// # Errors
/// This process has several threads: the other one would have one of them, and locks that the
/// others hold would never be released in it.
pub(super) fn split_off(work: impl FnOnce(OwnedFd)) -> io::Result<OwnedFd> {
    match sandbox::threads().map_err(io::Error::other)? {
        1 => {}
        more => return Err(io::Error::other(format!("there are {more} threads already"))),
    }
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    if is_the_new_one()? {
        // What follows belongs to this process alone: nothing of the other one's may be unwound.
        let worked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            leave_descriptors(&theirs).map(|()| work(theirs))
        }));
        end(if matches!(worked, Ok(Ok(()))) { 0 } else { 1 });
    }
    Ok(ours)
}

/// Makes a copy of this process; whether this is the copy.
#[allow(unsafe_code)]
fn is_the_new_one() -> io::Result<bool> {
    // SAFETY: fork(2) takes no arguments. This process has one thread, so that the copy is one in
    // every respect, and may do what this one may.
    match unsafe { libc::fork() } {
        0 => Ok(true),
        id if id > 0 => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process, without anything that is to be done at the end of the one it is a copy of.
#[allow(unsafe_code)]
fn end(status: i32) -> ! {
    // SAFETY: _exit(2) does not return.
    unsafe { libc::_exit(status) }
}

/// Closes all descriptors but `kept`.
fn leave_descriptors(kept: &OwnedFd) -> io::Result<()> {
    let null = match File::options().read(true).write(true).open("/dev/null") {
        Ok(null) => OwnedFd::from(null),
        // There are systems without it. Nothing comes out of a pipe that nobody writes to, and
        // nothing goes in at this end.
        Err(_) => rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?.0,
    };
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open {
        if descriptor >= FIRST && descriptor != kept.as_raw_fd() {
            close(descriptor);
        }
    }
    Ok(())
}

#[allow(unsafe_code)]
fn close(descriptor: RawFd) {
    // SAFETY: the values that own descriptors of the process of which this is a copy are never used
    // nor dropped here, `kept` aside, which is not given to this.
    unsafe { libc::close(descriptor) };
}
