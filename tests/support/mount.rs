//! The built program's own mounts.
//!
//! A mount never outlives its value, and no test hangs on it: after [`LIMIT`] a watchdog aborts the
//! kernel's connection, so that whatever waits on the mount fails, then unmounts it and kills the
//! daemon.

use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{skip, wait_until};

/// How long a mount may live.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What a mount is started with.
#[derive(Default)]
pub struct Options {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    cache: Option<PathBuf>,
    longer: Duration,
}

impl Options {
    pub fn new() -> Options {
        Options::default()
    }

    /// More options of `tofufs mount`.
    pub fn args<S: ToString>(mut self, arguments: impl IntoIterator<Item = S>) -> Options {
        self.arguments.extend(arguments.into_iter().map(|a| a.to_string()));
        self
    }

    /// A cache directory that others use too, instead of one of the mount's own.
    pub fn cache(mut self, dir: impl Into<PathBuf>) -> Options {
        self.cache = Some(dir.into());
        self
    }

    /// The mount may live for that much longer than [`LIMIT`].
    pub fn longer(mut self, time: Duration) -> Options {
        self.longer = time;
        self
    }

    /// A variable of the daemon's environment, which is otherwise nearly empty.
    pub fn env(mut self, name: &str, value: impl ToString) -> Options {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }
}

/// A mount point with its daemon, cache, state, log and an empty home, all below one temporary
/// directory.
pub struct Mount {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    options: Options,
    sources: Vec<String>,
    said: String,
    pid: Option<Pid>,
    watchdog: Option<(mpsc::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Mount {
    /// Mounts `sources`; `None`, with the reason printed, on a machine without FUSE.
    pub fn start<S: ToString>(sources: &[S], options: Options) -> Option<Mount> {
        if fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
            skip("/dev/fuse cannot be opened");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["mnt", "home", "kept"] {
            fs::create_dir(dir.path().join(name)).expect("a writable directory");
        }
        let path = dir.path().canonicalize().expect("a directory").join("mnt");
        let sources = sources.iter().map(S::to_string).collect();
        let mut mount = Mount {
            dir: Some(dir),
            path,
            options,
            sources,
            said: String::new(),
            pid: None,
            watchdog: None,
        };
        let output = mount.run();
        assert!(output.status.success(), "mounting failed: {output:?}\n{}", mount.log());
        Some(mount)
    }

    /// Runs `tofufs mount` and returns what it said; where it succeeded, the mount is watched.
    fn run(&mut self) -> Output {
        let base = self.base();
        let mut command = self.command("mount");
        command
            .arg("--cache-dir")
            .arg(self.cache())
            .arg("--state-dir")
            .arg(base.join("state"))
            .arg("--log-file")
            .arg(base.join("log"))
            .args(&self.options.arguments)
            .args(&self.sources)
            .arg(&self.path);
        let output = finish(command);
        self.said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            let connection = connection(&self.path);
            self.pid = self.status()["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32));
            assert!(
                self.pid.is_some() && connection.is_some(),
                "mounted, but without a process: {}",
                self.log()
            );
            self.watch(connection);
        }
        output
    }

    fn watch(&mut self, connection: Option<PathBuf>) {
        let (stop, stopped) = mpsc::channel::<()>();
        let (path, pid, limit) = (self.path.clone(), self.pid, LIMIT + self.options.longer);
        let thread = std::thread::spawn(move || {
            if stopped.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("the mount at {} is taken down after {limit:?}", path.display());
                if let Some(connection) = connection {
                    drop(fs::write(connection.join("abort"), "1"));
                }
                detach(&path);
                if let Some(pid) = pid {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        });
        self.watchdog = Some((stop, thread));
    }

    /// The program with a subcommand, in the environment of the mount.
    pub fn command(&self, subcommand: &str) -> Command {
        let base = self.base();
        let mut command = Command::new(super::world::program());
        command
            .arg(subcommand)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", base.join("home"))
            .env("RUST_BACKTRACE", "1")
            .envs(self.options.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null());
        command
    }

    fn base(&self) -> PathBuf {
        self.path.parent().expect("a directory").to_owned()
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below the mount point.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    /// The cache's directory.
    pub fn cache(&self) -> PathBuf {
        self.options.cache.clone().unwrap_or_else(|| self.base().join("kept/cache"))
    }

    /// The (otherwise empty) home of the daemon.
    pub fn home(&self) -> PathBuf {
        self.base().join("home")
    }

    /// The daemon's process.
    pub fn pid(&self) -> Pid {
        self.pid.expect("a mount that was started")
    }

    /// What mounting said last on standard error.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.base().join("log")).unwrap_or_default()
    }

    /// This mount in `tofufs status --json`.
    pub fn status(&self) -> Value {
        let mut command = self.command("status");
        command.arg("--json").arg(&self.path);
        let output = finish(command);
        assert!(output.status.success(), "status failed: {output:?}");
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["mounts"][0].clone()
    }

    /// `requests.total` and `requests.blob` of the status.
    pub fn requests(&self) -> (u64, u64) {
        let requests = &self.status()["requests"];
        let count = |key: &str| requests[key].as_u64().expect("a count");
        (count("total"), count("blob"))
    }

    /// An extended attribute of a path below the mount point; `None` where it has no such.
    pub fn xattr(&self, path: impl AsRef<Path>, name: &str) -> Option<String> {
        xattr(&self.join(path), name)
    }

    /// Kills the daemon as nothing else can, and waits until it is gone. The dead mount stays.
    pub fn kill(&mut self) {
        self.unwatch();
        if let Some(pid) = self.pid.take() {
            let _ = kill_process(pid, Signal::KILL);
            assert!(ended(pid), "the daemon outlives SIGKILL");
        }
    }

    /// Unmounts with `tofufs umount`, waits until the daemon has ended.
    pub fn umount(&mut self) -> Output {
        let mut command = self.command("umount");
        command.arg(&self.path);
        let output = finish(command);
        if output.status.success() {
            self.unwatch();
            if let Some(pid) = self.pid.take() {
                assert!(ended(pid), "the daemon outlives its mount");
            }
        }
        output
    }

    /// Mounts again at the same place with the same cache, over a dead mount too; what the program
    /// said.
    pub fn again(&mut self) -> Output {
        assert!(self.pid.is_none(), "still mounted");
        self.run()
    }

    /// [`Mount::again`] with other sources and options.
    pub fn again_with<S: ToString>(&mut self, sources: &[S], options: Options) -> Output {
        self.sources = sources.iter().map(S::to_string).collect();
        self.options = options;
        self.again()
    }

    fn unwatch(&mut self) {
        if let Some((stop, thread)) = self.watchdog.take() {
            let _ = stop.send(());
            drop(thread.join());
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the end of the mount's log:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        detach(&self.path);
        self.unwatch();
        if let Some(pid) = self.pid.take()
            && !ended(pid)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        if connection(&self.path).is_some() {
            eprintln!("{} is still mounted", self.path.display());
            // Removing the directory would walk into the mount.
            drop(self.dir.take().map(tempfile::TempDir::keep));
        }
    }
}

/// Runs a command to its end, of a minute at most. Its output goes to files: a pipe that a daemon
/// has inherited would never end.
pub fn finish(mut command: Command) -> Output {
    let mut files = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
    let [out, err] = files.each_ref().map(|file| file.try_clone().expect("a descriptor"));
    let mut child = command.stdout(out).stderr(err).spawn().expect("the program runs");
    let mut status = None;
    wait_until(Duration::from_secs(60), || {
        status = child.try_wait().expect("a child of ours");
        status.is_some()
    });
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let [stdout, stderr] = files.each_mut().map(|file| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a file of ours");
        bytes
    });
    match status {
        Some(status) => Output { status, stdout, stderr },
        None => panic!("{command:?} did not end: {}", String::from_utf8_lossy(&stderr)),
    }
}

/// An extended attribute of `path`; `None` where it has no such.
pub fn xattr(path: &Path, name: &str) -> Option<String> {
    let mut buffer = vec![0; 64 << 10];
    match rustix::fs::getxattr(path, name, &mut buffer) {
        Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).expect("text")),
        Err(rustix::io::Errno::NODATA) => None,
        Err(e) => panic!("{name} of {}: {e}", path.display()),
    }
}

/// Whether the process ends within seconds. It is no child of ours, and who has to collect it may
/// not do so.
fn ended(pid: Pid) -> bool {
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    wait_until(Duration::from_secs(10), || match fs::read_to_string(&stat) {
        Ok(text) => text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    })
}

fn detach(path: &Path) {
    if connection(path).is_some() && unmount(path, UnmountFlags::DETACH).is_err() {
        drop(Command::new("fusermount3").arg("-uz").arg(path).output());
    }
}

/// What is mounted where, on the whole machine: other people's paths need not be UTF-8.
pub fn mounted() -> String {
    String::from_utf8_lossy(&fs::read("/proc/self/mountinfo").expect("proc")).into_owned()
}

/// The kernel's control directory of the FUSE mount at `path`, found without touching the mount.
fn connection(path: &Path) -> Option<PathBuf> {
    let mounts = mounted();
    let device = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?;
        (Path::new(fields.nth(1)?) == path).then_some(device)
    })?;
    let minor = device.split_once(':')?.1;
    Some(Path::new("/sys/fs/fuse/connections").join(minor))
}
