//! What the kernel says that a process may not do any more: read from it, never from what was
//! asked for.

use std::io;

use super::Capabilities;

/// SECCOMP_MODE_FILTER
const FILTERED: &str = "2";

/// What holds in every thread of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InForce {
    /// What some thread can still do.
    pub capabilities: Capabilities,
    /// No program that this process runs can have more privileges than it has.
    pub no_new_privs: bool,
    /// A filter says which system calls it may make.
    pub seccomp: bool,
}

/// This process.
pub fn of_process() -> io::Result<InForce> {
    let mut all: Option<InForce> = None;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = match std::fs::read_to_string(task?.path().join("status")) {
            Ok(text) => text,
            // It has ended.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => continue,
            Err(e) => return Err(e),
        };
        let thread = of_status(&text).ok_or(io::ErrorKind::InvalidData)?;
        all = Some(all.map_or(thread, |all| all.and(thread)));
    }
    all.ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl InForce {
    fn and(self, thread: InForce) -> InForce {
        InForce {
            capabilities: self.capabilities.and(thread.capabilities),
            no_new_privs: self.no_new_privs && thread.no_new_privs,
            seccomp: self.seccomp && thread.seccomp,
        }
    }
}

/// A thread, from its /proc/PID/status.
fn of_status(text: &str) -> Option<InForce> {
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(InForce {
        // What is permitted can be put into effect.
        capabilities: Capabilities::of_status(field("CapPrm:")?)?,
        no_new_privs: field("NoNewPrivs:")? == "1",
        // There is no such line where the kernel has no filters.
        seccomp: field("Seccomp:") == Some(FILTERED),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_what_one_of_its_threads_may() {
        let bound = "CapPrm:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let bound = of_status(bound).unwrap();
        let free = of_status("CapPrm:\t0000000000200000\nNoNewPrivs:\t0\n").unwrap();
        let capabilities = Capabilities::NONE;
        assert_eq!(bound, InForce { capabilities, no_new_privs: true, seccomp: true });
        assert!(!free.seccomp);
        assert_eq!(bound.and(free), free);
        assert_eq!(bound.and(bound), bound);
        assert!(of_status("CapPrm:\t0\n").is_none());
        assert!(!of_process().unwrap().no_new_privs);
    }
}
