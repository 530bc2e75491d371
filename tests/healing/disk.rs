//! A cache's disk that fails: system calls of the daemon that end with an error, by strace's
//! injection.

use super::*;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// While it lives, the daemon's calls fail.
struct Injection {
    tracer: Child,
    log: tempfile::TempDir,
}

impl Injection {
    /// `None`, with the reason printed, where nothing can be injected.
    fn start(mount: &Mount, calls: &str, errno: &str) -> Option<Injection> {
        let strace = support::program("strace")?;
        let log = tempfile::tempdir().unwrap();
        let mut tracer = Command::new(strace)
            .args([
                "-f",
                "-qq",
                "-e",
                &format!("trace={calls}"),
                "-e",
                &format!("inject={calls}:error={errno}"),
                "-o",
            ])
            .arg(log.path().join("trace"))
            .args(["-p", &mount.pid().as_raw_nonzero().to_string()])
            .stdin(Stdio::null())
            .stderr(fs::File::create(log.path().join("errors")).unwrap())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", mount.pid().as_raw_nonzero());
        let attached = support::wait_until(Duration::from_secs(10), || {
            let ended = tracer.try_wait().unwrap().is_some();
            ended
                || fs::read_to_string(&status)
                    .unwrap()
                    .lines()
                    .any(|line| is_traced_by(line, tracer.id()))
        });
        if !attached || tracer.try_wait().unwrap().is_some() {
            support::skip(&format!(
                "strace cannot attach: {}",
                fs::read_to_string(log.path().join("errors")).unwrap()
            ));
            return None;
        }
        // All threads are attached one after another; the last one soon after the first.
        let tasks = format!("/proc/{}/task", mount.pid().as_raw_nonzero());
        let all = support::wait_until(Duration::from_secs(10), || {
            fs::read_dir(&tasks).unwrap().flatten().all(|task| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                status.is_empty() || status.lines().any(|line| is_traced_by(line, tracer.id()))
            })
        });
        assert!(all, "strace does not attach to all threads");
        Some(Injection { tracer, log })
    }

    /// Ends it; how many calls failed because of it.
    fn end(mut self) -> usize {
        self.stop();
        let trace = fs::read_to_string(self.log.path().join("trace")).unwrap();
        trace.lines().filter(|line| line.contains("(INJECTED)")).count()
    }

    fn stop(&mut self) {
        if self.tracer.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill_process(Pid::from_child(&self.tracer), Signal::TERM);
            let _ = self.tracer.wait();
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_traced_by(line: &str, tracer: u32) -> bool {
    line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() == tracer.to_string())
}

// O05, O07: the reader is served while the disk is not; when it is well again, the cache holds
// nothing wrong.
#[test]
fn readers_are_served_while_the_caches_disk_fails() {
    for (calls, errno) in [
        ("fdatasync", "EIO"),
        ("fsync", "EIO"),
        ("fdatasync", "ENOSPC"),
        ("rename,renameat,renameat2", "EIO"),
        ("rename,renameat,renameat2", "ENOSPC"),
        ("mkdirat", "ENOSPC"),
        ("pwrite64", "EIO"),
        ("pwrite64", "ENOSPC"),
    ] {
        let releases = Releases::new(1, &[1 << 20, 300_000, 1000]);
        let Some(mut mount) = releases.mount(releases.options()) else { return };
        let Some(injection) = Injection::start(&mount, calls, errno) else { return };
        for (path, wanted) in &releases.files {
            match read_fresh(&mount.join(path)) {
                Ok(bytes) => assert!(bytes == *wanted, "{calls} {errno}: wrong bytes"),
                Err(e) => panic!("{calls} {errno}: {}: {e}", path.display()),
            }
        }
        let injected = injection.end();
        assert!(injected > 0, "{calls} {errno}: nothing was injected");
        let left = files_below(&mount.cache().join("v1/tmp"));
        assert!(left.is_empty(), "{calls} {errno}: {left:?} is left over");
        assert_eq!(damaged(&mount), 0, "{calls} {errno}");
        releases.all_right(&mount);
        // What went through memory is fetched again by the next process, at most once.
        assert!(mount.umount().status.success());
        assert!(mount.again().status.success());
        let before = releases.downloads();
        releases.all_right(&mount);
        assert!(releases.downloads() <= before + 1, "{calls} {errno}");
        assert_eq!(damaged(&mount), 0, "{calls} {errno}");
    }
}
