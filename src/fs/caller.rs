//! Who asks: a thread as the kernel numbers it, and the process that it belongs to.

use rustix::fs::{CWD, Mode, OFlags};

use crate::facts::RequestingUser;
use crate::local::Maker;

/// A thread that makes a request; 0 where it cannot be seen from here, as in a foreign pid
/// namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thread(pub u32);

/// Who asks for an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallerIdentity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The thread.
    pub thread: Thread,
}

impl From<CallerIdentity> for Maker {
    fn from(who: CallerIdentity) -> Maker {
        Maker { uid: who.uid, gid: who.gid }
    }
}

/// Who may write in a mount.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// The user to whom everything belongs.
    pub(super) uid: u32,
    /// The user as whom this process runs, who may write as the owner may.
    pub(super) daemon: u32,
}

impl Owner {
    /// Whether `who` is the mount's owner or root.
    pub(super) fn is(self, who: CallerIdentity) -> bool {
        who.uid == 0 || who.uid == self.uid || who.uid == self.daemon
    }

    /// For whom requests are sent when `who` asks for an operation.
    pub(super) fn asker(self, who: CallerIdentity) -> RequestingUser {
        if self.is(who) { RequestingUser::Owner } else { RequestingUser::Other(who.uid) }
    }
}

/// The most that is read of a file that describes a process.
const DESCRIBED_MAX: usize = 4096;
/// The place of a process's start among what `stat` says of it behind its name.
const STARTED: usize = 19;

/// A process, told apart from a later one that got its number. All that cannot be seen count as
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct CallingProcess {
    number: u32,
    started: u64,
}

impl CallingProcess {
    /// The process of `thread`.
    pub(super) fn of(thread: Thread) -> CallingProcess {
        let number = described(thread.0, "status").as_deref().and_then(group_of).unwrap_or(0);
        CallingProcess { number, started: started(number).unwrap_or(0) }
    }

    /// Whether it runs.
    pub(super) fn is_alive(self) -> bool {
        self.number != 0 && started(self.number) == Some(self.started)
    }
}

fn described(number: u32, file: &str) -> Option<String> {
    let path = format!("/proc/{number}/{file}");
    let file =
        rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = vec![0; DESCRIBED_MAX];
    let read = rustix::io::read(&file, &mut text[..]).ok()?;
    Some(String::from_utf8_lossy(&text[..read]).into_owned())
}

/// The number of the process that a thread belongs to.
fn group_of(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

fn started(number: u32) -> Option<u64> {
    started_of(&described(number, "stat")?)
}

/// A process's name may hold anything, so what follows it is counted from its end.
fn started_of(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(STARTED)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_of_its_process() {
        let own = CallingProcess::of(Thread(std::process::id()));
        let thread = std::thread::spawn(|| {
            CallingProcess::of(Thread(rustix::thread::gettid().as_raw_nonzero().get() as u32))
        });
        assert_eq!(thread.join().unwrap(), own);
        assert!(own.is_alive() && own.number == std::process::id());
        assert!(
            !CallingProcess { started: own.started + 1, ..own }.is_alive(),
            "a later process of that number"
        );
    }

    #[test]
    fn what_cannot_be_seen_is_one_and_does_not_run() {
        assert_eq!(CallingProcess::of(Thread(0)), CallingProcess { number: 0, started: 0 });
        assert!(!CallingProcess::of(Thread(0)).is_alive());
    }

    #[test]
    fn a_process_may_have_any_name() {
        assert_eq!(
            started_of("7 (a) S 1 (x) ) S 1 7 7 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4711 1 1"),
            Some(4711)
        );
    }
}
