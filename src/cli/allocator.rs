//! The memory that this process holds without using it.
//!
//! glibc lets threads allocate from up to eight arenas per core, and each of them keeps what it
//! once needed at most: with short-lived threads that each inflate and hash a while, the memory
//! that a mount holds grows with the cores of the machine and with its age, and not with what is
//! open.

use std::sync::Arc;
use std::time::Duration;

use crate::fs::Fs;

/// How often it is looked whether memory can be given back.
const MEMORY_SEEN: Duration = Duration::from_secs(5);

/// How much a process may grow until what it freed is given back.
const GROWTH: u64 = 4 << 20;

/// How many arenas all threads share. A second one costs a few MiB and spares threads that allocate
/// at once the wait.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Buffers of at least that many bytes go back to the system when they are freed, as does what is
/// free at the end of an arena. Without a value glibc raises both to the size of the largest buffer
/// that was ever freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// Bounds what freed memory is kept for later. Has to come before the first thread: an arena that
/// is there stays.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
pub fn keep_few_arenas() {
    // SAFETY: mallopt(3) takes two integers and touches no memory of ours; no other thread runs
    // yet.
    let set = |what, value| unsafe { libc::mallopt(what, value) != 0 };
    if !(set(libc::M_ARENA_MAX, ARENAS)
        && set(libc::M_MMAP_THRESHOLD, LARGE)
        && set(libc::M_TRIM_THRESHOLD, LARGE))
    {
        tracing::debug!("what the allocator keeps stays as it is");
    }
}

/// Other C libraries have no arenas per thread.
#[cfg(not(target_env = "gnu"))]
pub fn keep_few_arenas() {}

/// Gives freed memory back to the system, which glibc keeps where something above it is still in
/// use.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "malloc_trim(3) has no safe wrapper")]
fn give_back() {
    // SAFETY: malloc_trim(3) takes an integer, locks what it works on, and touches no memory that
    // is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give it back by themselves.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

/// Gives memory back that was freed: after the process grew, and after the kernel forgot most of
/// what it knew.
pub async fn keep_giving_back(fs: Arc<Fs>) {
    let mut often = tokio::time::interval(MEMORY_SEEN);
    let (mut known, mut grown) = (0, 0);
    loop {
        often.tick().await;
        let inodes = fs.inodes();
        known = known.max(inodes);
        if 2 * inodes + 1000 < known || resident() > grown + GROWTH {
            let _ = tokio::task::spawn_blocking(give_back).await;
            (known, grown) = (inodes, resident());
        }
    }
}

/// How many bytes of this process are in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
