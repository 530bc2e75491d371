//! An air gap: a network namespace without a network, in which mounts and clients run, and a trace
//! of what they ask of a network all the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use super::mount::finish;
use super::{program, skip, wait_until, world};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether there can be one here; where not, the reason is printed.
pub fn can_be_made() -> bool {
    let (Some(_), Some(unshare)) = (program("strace"), program("unshare")) else { return false };
    let is_made = Command::new(unshare).args(["-n", "true"]).output();
    let is_made = is_made.is_ok_and(|output| output.status.success());
    if !is_made {
        skip("a network namespace cannot be made");
    }
    is_made
}

/// The same command in a namespace of its own without a network.
pub fn without_network(command: &Command) -> Command {
    wrapped(&["unshare", "-n"], command)
}

/// The same command, whose calls of connect(2), and those of all that it starts, are written to
/// `log`.
pub fn traced(command: &Command, log: &Path) -> Command {
    let log = log.to_str().expect("a path in UTF-8");
    wrapped(&["strace", "-f", "-qq", "-e", "trace=connect", "-o", log], command)
}

fn wrapped(words: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(words[0]);
    outer.args(&words[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.current_dir(command.get_current_dir().expect("a directory")).stdin(Stdio::null());
    outer
}

/// How many calls a trace holds, and those of them that are about a network.
pub fn network_calls(log: &Path) -> (usize, Vec<String>) {
    let text = fs::read_to_string(log).expect("a log");
    let calls: Vec<String> = text.lines().map(str::to_owned).collect();
    (calls.len(), calls.into_iter().filter(|line| line.contains("AF_INET")).collect())
}

/// A mount whose process is traced and has no network. Unmounted when dropped.
pub struct Gap {
    tracer: Child,
    path: PathBuf,
    log: PathBuf,
}

impl Gap {
    /// Mounts in `path` by `tofufs mount` with these words, all its own directories below `base`.
    /// The tracer sees every socket from the first call on.
    pub fn mount(path: &Path, base: &Path, words: &[&str]) -> Gap {
        fs::create_dir_all(base).expect("a writable directory");
        let log = base.join("sockets");
        let mut command = Command::new("unshare");
        command.args(["-n", "strace", "-f", "-qq", "-e", "trace=socket,connect", "-o"]).arg(&log);
        command.arg(world::program()).args(["mount", "--read-only", "--offline"]);
        command.arg("--cache-dir").arg(base.join("cache"));
        command.arg("--state-dir").arg(base.join("state")).args(words).arg(path);
        command.env("HOME", base).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let tracer = command.spawn().expect("unshare runs");
        let gap = Gap { tracer, path: path.to_owned(), log };
        let is_there = || fs::read_dir(&gap.path).is_ok_and(|mut entries| entries.next().is_some());
        let trace = || fs::read_to_string(&gap.log).unwrap_or_default();
        assert!(wait_until(PATIENCE, is_there), "{}", trace());
        gap
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the mount; how many calls made or used a socket, and those of them that were about a
    /// network.
    pub fn network_calls(mut self) -> (usize, Vec<String>) {
        let mut command = Command::new(world::program());
        command.arg("umount").arg(&self.path);
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
        assert!(self.has_ended(PATIENCE), "the daemon outlives its mount");
        network_calls(&self.log)
    }

    fn has_ended(&mut self, patience: Duration) -> bool {
        wait_until(patience, || self.tracer.try_wait().is_ok_and(|status| status.is_some()))
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        if self.has_ended(Duration::ZERO) {
            return;
        }
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        if !self.has_ended(Duration::from_secs(10)) {
            let _ = self.tracer.kill();
        }
    }
}
