//! What a process may still do. One that talks to strangers and reads what they send gives up, for
//! good and before it hears from the first of them, whatever it does not need.
//!
//! The kernel keeps all of this per thread, and new threads are as the one that starts them. So a
//! process enters its sandbox while it has one thread.

pub mod capabilities;
pub mod in_force;
mod reach;
mod system_calls;

use std::io;

pub use capabilities::Capabilities;
pub use reach::{Reach, ReachInForce};
use system_calls::SystemCalls;

/// What a process keeps; the rest is given up.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The privileges of root that it needs.
    pub capabilities: Capabilities,
    /// The files that it reads and writes.
    pub reach: Reach,
}

/// Why a process is not in its sandbox. What it has given up until then stays given up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A thread that was started before would keep everything.
    #[error("there are {0} threads already, and each thread has privileges of its own")]
    Threads(usize),
    /// The kernel did not do it.
    #[error("{step}: {source}")]
    System {
        /// What was given up, or which file told of it.
        step: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

impl SandboxError {
    fn at(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> SandboxError {
        move |e| SandboxError::System { step, source: e.into() }
    }
}

impl Sandbox {
    /// Gives up for good what is not kept; whether the kernel keeps the process within its reach,
    /// which [`in_force`] cannot tell.
    pub fn enter(&self) -> Result<ReachInForce, SandboxError> {
        match threads()? {
            1 => {}
            more => return Err(SandboxError::Threads(more)),
        }
        rustix::thread::set_no_new_privs(true).map_err(SandboxError::at("no_new_privs"))?;
        let within = self
            .reach
            .enforce()
            .map_err(|e| SandboxError::System { step: "landlock", source: io::Error::other(e) })?;
        self.capabilities.keep().map_err(SandboxError::at("capabilities"))?;
        let of_filter = |source| SandboxError::System { step: "seccomp", source };
        let calls = SystemCalls::new().map_err(io::Error::other).map_err(of_filter)?;
        calls.enforce().map_err(of_filter)?;
        Ok(within)
    }
}

/// How many threads this process has.
pub fn threads() -> Result<usize, SandboxError> {
    let step = "/proc/self/task";
    match std::fs::read_dir(step) {
        Ok(tasks) => Ok(tasks.count()),
        Err(source) => Err(SandboxError::System { step, source }),
    }
}
