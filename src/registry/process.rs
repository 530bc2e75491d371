//! What tells one process from all others, on this machine and elsewhere.

use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, open, readlinkat};

use crate::digest::Digest;

/// A process, as it can be recognised by others of the same machine. Prints as `MACHINE PID START`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Process {
    /// Which boot of which machine, and which of its sets of process numbers; nothing else can be
    /// read from it.
    machine: String,
    pid: u32,
    /// When it was started, in ticks since the boot.
    start: u64,
}

impl Process {
    /// This one; `None` where `/proc` does not tell.
    pub(super) fn own() -> Option<Process> {
        let (pid, machine) = (std::process::id(), machine()?);
        Some(Process { machine, pid, start: started(pid)? })
    }

    /// Reads what another one has printed.
    pub(super) fn read(text: &str) -> Option<Process> {
        let mut words = text.split(' ');
        let (machine, pid, start) = (words.next()?.to_owned(), words.next()?, words.next()?);
        Some(Process { machine, pid: pid.parse().ok()?, start: start.parse().ok()? })
    }

    /// Whether it is certain that it has ended. Never said of processes elsewhere.
    pub(super) fn has_ended(&self) -> bool {
        machine().is_some_and(|machine| machine == self.machine)
            && started(self.pid) != Some(self.start)
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.machine, self.pid, self.start)
    }
}

fn machine() -> Option<String> {
    static MACHINE: OnceLock<Option<String>> = OnceLock::new();
    MACHINE.get_or_init(read_machine).clone()
}

fn read_machine() -> Option<String> {
    let boot = read("/proc/sys/kernel/random/boot_id")?;
    let numbers = readlinkat(CWD, "/proc/self/ns/pid", Vec::new()).ok()?;
    let digest = Digest::of(&[boot.as_bytes(), numbers.to_bytes()].concat());
    Some(digest.hex()[..24].to_owned())
}

/// When a process that runs was started.
fn started(pid: u32) -> Option<u64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The name before may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    (!matches!(fields[0], "Z" | "X")).then(|| fields.get(19)?.parse().ok())?
}

fn read(path: &str) -> Option<String> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = vec![0; 4096];
    let length = rustix::io::read(&file, &mut bytes).ok()?;
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_is_recognised_and_one_elsewhere_is_not() {
        let own = Process::own().unwrap();
        assert_eq!(Process::read(&own.to_string()), Some(own.clone()));
        assert!(!own.has_ended());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = Process { pid: child.id(), start: started(child.id()).unwrap(), ..own.clone() };
        assert!(!other.has_ended());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.has_ended());
        assert!(!Process { machine: "elsewhere".to_owned(), ..other }.has_ended());
        assert!(
            Process { start: own.start + 1, ..own }.has_ended(),
            "another one of the same number"
        );
    }
}
