//! Who waits for an answer.
//!
//! fuser 0.18 answers FUSE_INTERRUPT with ENOSYS, after which the kernel waits for our answer even
//! if the caller was killed. So a waiting operation looks whether its caller has a SIGKILL pending
//! (any fatal signal becomes one) or is gone, and answers then.

use std::time::Duration;

use rustix::process::Pid;

/// How often a caller is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// A thread that made a request.
pub(super) struct Caller {
    /// `None` where the thread cannot be seen: in a foreign pid namespace, or hidden by the mount
    /// options of `/proc`. Such a caller waits until the deadline.
    status: Option<String>,
}

impl Caller {
    pub(super) fn new(thread: u32) -> Self {
        let thread = i32::try_from(thread).ok().and_then(Pid::from_raw);
        let status = thread.map(|t| format!("/proc/{}/status", t.as_raw_nonzero()));
        Caller { status: status.filter(|path| read(path).is_some()) }
    }

    /// Ends when the caller was killed.
    pub(super) async fn killed(&self) {
        let Some(path) = &self.status else { return std::future::pending().await };
        loop {
            tokio::time::sleep(INTERVAL).await;
            match read(path) {
                None => return,
                Some(status) if has_kill_pending(&status) => return,
                Some(_) => {}
            }
        }
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Whether SIGKILL (9) is in the thread's or its process's pending set.
fn has_kill_pending(status: &str) -> bool {
    status
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")))
        .filter_map(|set| u64::from_str_radix(set.trim(), 16).ok())
        .any(|set| set & 1 << 8 != 0)
}

#[cfg(test)]
mod tests {
    use super::has_kill_pending;

    #[test]
    fn a_pending_kill_is_seen_in_either_set() {
        assert!(has_kill_pending(
            "Name:\tcat\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"
        ));
        assert!(has_kill_pending("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000102\n"));
        assert!(!has_kill_pending(
            "SigPnd:\t0000000000000002\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000100\n"
        ));
    }
}
