//! Mounts from the outside: the program, the kernel, and processes that use, leave, kill and abort
//! them.
//!
//! Each test has a store without repositories as its source, and a watchdog that takes the mount
//! out of sight. All of them hold for root and for an ordinary user, who mounts through
//! `fusermount3`: see [`users`].

mod carried;
mod copies;
mod logs;
mod metrics;
mod sandbox;
mod service;
mod settings;
mod sources;
#[path = "../support/mod.rs"]
mod support;
mod upgrade;
mod users;
mod ways;
mod words;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit, test_kill_process,
};
use serde_json::Value;
use support::{skip, world};
use tofufs::fuse::session::{Manner, mountinfo, unmount};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory for one test with a store, a cache, a state directory and a mount point.
struct Place {
    dir: tempfile::TempDir,
    _watchdog: mpsc::Sender<()>,
}

impl Place {
    /// `None`, with the reason printed, where this process may not mount.
    fn new() -> Option<Place> {
        if let Err(e) = fs::File::options().read(true).write(true).open("/dev/fuse") {
            skip(&format!("/dev/fuse cannot be opened: {e}"));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("mnt");
        fs::create_dir_all(&point).unwrap();
        fs::create_dir_all(dir.path().join("store/registry.example")).unwrap();
        let (watchdog, watched) = mpsc::channel::<()>();
        thread::spawn(move || {
            if watched.recv_timeout(4 * PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = unmount(&point, Manner::Lazily);
            }
        });
        Some(Place { dir, _watchdog: watchdog })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn point(&self) -> PathBuf {
        self.path("mnt")
    }

    fn source(&self) -> String {
        format!("oci:{}", self.path("store").display())
    }

    /// The program in an environment of its own.
    fn command(&self) -> Command {
        self.command_of(world::program())
    }

    /// Another program in that environment.
    fn command_of(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"));
        command
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_STATE_HOME")
            .env_remove("TF_CLI_CONFIG_FILE");
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command().args(words).output().unwrap()
    }

    fn mount(&self, words: &[&str]) -> Output {
        self.command()
            .arg("mount")
            .args(words)
            .arg(self.source())
            .arg(self.point())
            .output()
            .unwrap()
    }

    fn is_mounted(&self) -> bool {
        mountinfo::top_at(&mountinfo::read().unwrap(), &self.point())
            .is_some_and(mountinfo::MountInfo::is_ours)
    }

    fn status(&self) -> Value {
        let output = self.run(&["status", "--json", "mnt"]);
        let status: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        status["mounts"][0].clone()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.status()["pid"].as_i64().unwrap() as i32).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while self.is_mounted() && unmount(&self.point(), Manner::Lazily).is_ok() {}
    }
}

fn done(output: &Output) {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Exit code 1, nothing on standard output, and one line `tofufs: …` on standard error.
fn failed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        output.stdout.is_empty() && text.starts_with("tofufs: ") && text.lines().count() == 1,
        "{output:?}"
    );
    text
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn gone(pid: Pid) -> bool {
    // A process that nobody waited for is a zombie and still has its number.
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(pid).is_err() || state.is_ok_and(|stat| stat.contains(") Z "))
}

/// Whether a mount has lost its process.
fn is_dead(point: &Path) -> bool {
    fs::metadata(point).is_err_and(|e| e.kind() == std::io::ErrorKind::NotConnected)
}

/// A mount in the foreground, once it can be used.
fn in_foreground(place: &Place) -> Child {
    let mut command = place.command();
    command
        .args(["mount", "-f"])
        .arg(place.source())
        .arg(place.point())
        .stderr(Stdio::piped())
        .process_group(0);
    let child = command.spawn().unwrap();
    eventually("the mount is ready", || place.is_mounted());
    child
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32).unwrap()
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "the process ends");
        thread::sleep(Duration::from_millis(10));
    }
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    (child.wait().unwrap().code(), log)
}

#[test]
fn mount_returns_when_the_mount_is_ready_and_umount_when_its_process_is_gone() {
    let Some(place) = Place::new() else { return };
    let mounted = place.mount(&[]);
    done(&mounted);
    assert!(mounted.stdout.is_empty());
    assert!(place.is_mounted());
    let names: Vec<_> =
        fs::read_dir(place.point()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.contains(&"registry.example".into()), "{names:?}");
    let pid = place.pid();
    done(&place.run(&["umount", "mnt"]));
    assert!(!place.is_mounted());
    eventually("the process is gone", || gone(pid));
    assert_eq!(fs::read_dir(place.path("run/tofufs")).unwrap().count(), 0);
}

#[test]
fn status_shows_the_documented_fields() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&["--read-only", "--cache-size", "3GiB"]));
    let status = place.status();
    assert_eq!(status["mountpoint"], place.point().to_str().unwrap());
    assert_eq!(
        (&status["read_only"], &status["offline"]),
        (&Value::from(true), &Value::from(false))
    );
    assert_eq!(status["sources"][0]["name"], place.source());
    assert_eq!(status["cache"]["limit"], 3u64 << 30);
    assert_eq!(status["cache"]["dir"], place.path("home/.cache/tofufs").to_str().unwrap());
    assert_eq!(
        (&status["requests"]["total"], &status["requests"]["blob"]),
        (&Value::from(0), &Value::from(0))
    );
    assert_eq!(status["staged"], Value::from(Vec::<Value>::new()));
    assert_eq!(status["errors"], Value::from(Vec::<Value>::new()));
    let text = String::from_utf8(place.run(&["status"]).stdout).unwrap();
    assert!(text.contains(place.point().to_str().unwrap()), "{text}");
    done(&place.run(&["refresh", "mnt/registry.example"]));
    done(&place.run(&["umount", "mnt"]));
}

// L13, L17
#[test]
fn the_process_keeps_its_memory_and_its_socket_to_its_owner() {
    let Some(place) = Place::new() else { return };
    // It has to forbid core dumps by itself, not because this machine makes none.
    let most = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: most, maximum: most }).unwrap();
    done(&place.mount(&[]));
    let pid = place.pid();
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let sockets: Vec<_> =
        fs::read_dir(place.path("run/tofufs")).unwrap().map(Result::unwrap).collect();
    assert_eq!(sockets.len(), 1);
    assert_eq!(sockets[0].metadata().unwrap().mode() & 0o777, 0o600);
    done(&place.run(&["umount", "mnt"]));
}

// L13: proc(5): the files of a process that may be dumped are its own group's, those of another are
// root's.
#[test]
fn other_processes_of_the_user_cannot_look_into_the_process() {
    const OWN_GROUP: u32 = 12_345;
    let Some(place) = Place::new() else { return };
    let mut command = place.command();
    command
        .args(["mount", "-f"])
        .arg(place.source())
        .arg(place.point())
        .stderr(Stdio::piped())
        .process_group(0);
    if rustix::process::getegid().is_root() {
        command.gid(OWN_GROUP);
    }
    let child = command.spawn().unwrap();
    eventually("the mount is ready", || place.is_mounted());
    let group = |file: &str| fs::metadata(format!("/proc/{}/{file}", child.id())).unwrap().gid();
    assert_eq!([group("environ"), group("maps"), group("mem")], [0; 3]);
    kill_process(pid_of(&child), Signal::TERM).unwrap();
    assert_eq!(ended(child).0, Some(0));
}

// L20, L04
#[test]
fn a_mount_that_cannot_be_made_is_one_line_and_exit_code_1() {
    let Some(place) = Place::new() else { return };
    fs::write(place.path("mnt/x"), "").unwrap();
    assert!(failed(&place.mount(&[])).contains("not empty"));
    fs::remove_file(place.path("mnt/x")).unwrap();
    assert!(failed(&place.mount(&["--cache-dir", "mnt/cache"])).contains("the cache directory"));
    fs::create_dir(place.path("open")).unwrap();
    fs::set_permissions(place.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(failed(&place.mount(&["--state-dir", "open"])).contains("only this user"));
    let nowhere = place.command().args(["mount", "a.example", "no/such/mnt"]).output().unwrap();
    assert!(failed(&nowhere).contains("there is no such directory"));
    assert!(!place.is_mounted());
    done(&place.mount(&[]));
    assert!(failed(&place.mount(&[])).contains("mounted there already"));
    done(&place.run(&["umount", "mnt"]));
    assert!(failed(&place.run(&["umount", "mnt"])).contains("not a mount point of tofufs"));
}

// O17
#[test]
fn a_signal_unmounts_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let Some(place) = Place::new() else { return };
        let child = in_foreground(&place);
        kill_process(pid_of(&child), signal).unwrap();
        let (code, log) = ended(child);
        assert_eq!(code, Some(0), "{signal:?}: {log}");
        assert!(!place.is_mounted(), "{signal:?}");
    }
}

// O17, O23
#[test]
fn a_signal_while_in_use_takes_the_mount_out_of_sight_and_serves_until_it_is_left() {
    let Some(place) = Place::new() else { return };
    let child = in_foreground(&place);
    let held = fs::File::open(place.point()).unwrap();
    kill_process(pid_of(&child), Signal::TERM).unwrap();
    eventually("out of sight", || !place.is_mounted());
    held.metadata().unwrap();
    assert!(!gone(pid_of(&child)));
    drop(held);
    let (code, log) = ended(child);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("is in use"), "{log}");
}

// O17
#[test]
fn a_second_signal_ends_a_process_that_still_serves() {
    let Some(place) = Place::new() else { return };
    let child = in_foreground(&place);
    let _held = fs::File::open(place.point()).unwrap();
    kill_process(pid_of(&child), Signal::TERM).unwrap();
    eventually("out of sight", || !place.is_mounted());
    kill_process(pid_of(&child), Signal::TERM).unwrap();
    assert_eq!(ended(child).0, Some(0));
}

// O23
#[test]
fn umount_of_a_busy_mount_names_who_uses_it_and_lazy_works() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    let held = fs::File::open(place.point()).unwrap();
    let busy = failed(&place.run(&["umount", "mnt"]));
    assert!(
        busy.contains(&format!("pid {}", std::process::id())) && busy.contains("--lazy"),
        "{busy}"
    );
    let pid = place.pid();
    done(&place.run(&["umount", "--lazy", "mnt"]));
    assert!(!place.is_mounted() && !gone(pid));
    // The place is free again while the earlier mount is still in use.
    done(&place.mount(&[]));
    assert_ne!(place.pid(), pid);
    drop(held);
    eventually("the earlier process is gone", || gone(pid));
    done(&place.run(&["umount", "mnt"]));
}

// O23
#[test]
fn who_unmounts_from_inside_is_told_of_itself_alone() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "cd mnt && \"$0\" umount . || exit 1"])
        .arg(world::program())
        .current_dir(place.dir.path());
    shell.env("HOME", place.path("home")).env("XDG_RUNTIME_DIR", place.path("run"));
    let busy = failed(&shell.output().unwrap());
    assert!(busy.contains("in use by sh (pid ") && !busy.contains("tofufs (pid "), "{busy}");
    done(&place.run(&["umount", "mnt"]));
}

// O18
#[test]
fn a_dead_mount_is_told_unmounted_and_mounted_over() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    let pid = place.pid();
    kill_process(pid, Signal::KILL).unwrap();
    // The process is a zombie before its last thread has let go of the mount.
    eventually("the mount is dead", || gone(pid) && is_dead(&place.point()));
    let status = place.run(&["status", "--json", "mnt"]);
    assert_eq!(status.status.code(), Some(1));
    let shown: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(shown["mounts"][0]["pid"], Value::Null);
    let told = String::from_utf8_lossy(&status.stderr);
    assert!(told.contains("its process is gone"), "{told}");
    done(&place.mount(&[]));
    fs::read_dir(place.point()).unwrap();
    let pid = place.pid();
    kill_process(pid, Signal::KILL).unwrap();
    eventually("the mount is dead", || gone(pid) && is_dead(&place.point()));
    done(&place.run(&["umount", "mnt"]));
    assert!(!place.is_mounted());
}

// O17: a mount whose process is stopped hangs; asking for it does not.
#[test]
fn status_does_not_wait_for_a_mount_that_hangs() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    let pid = place.pid();
    kill_process(pid, Signal::STOP).unwrap();
    let status = place.run(&["status", "mnt"]);
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stderr).contains("does not answer"), "{status:?}");
    // Another test that shows all mounts may have waited for this one, too.
    eventually("unmounted", || place.run(&["umount", "mnt"]).status.success());
}

/// The file system by which connections are aborted; mounted by the test itself where nobody has
/// done so.
struct FuseControl(tempfile::TempDir);

impl FuseControl {
    fn new() -> rustix::io::Result<FuseControl> {
        let dir = tempfile::tempdir().unwrap();
        rustix::mount::mount(
            "tofufs-test",
            dir.path(),
            "fusectl",
            MountFlags::NOSUID | MountFlags::NODEV,
            None,
        )?;
        Ok(FuseControl(dir))
    }
}

impl Drop for FuseControl {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

// O37
#[test]
fn an_aborted_connection_ends_the_process_and_leaves_no_mount() {
    let Some(place) = Place::new() else { return };
    let connections = match FuseControl::new() {
        Ok(control) => control,
        Err(e) => return skip(&format!("the fuse control file system cannot be mounted: {e}")),
    };
    let child = in_foreground(&place);
    // Answered when the kernel and the process have agreed.
    assert!(fs::metadata(place.point()).unwrap().is_dir());
    let table = mountinfo::read().unwrap();
    let device = mountinfo::top_at(&table, &place.point()).unwrap().device.clone();
    let minor = device.split(':').nth(1).unwrap();
    fs::write(connections.0.path().join(minor).join("abort"), "1").unwrap();
    let (code, log) = ended(child);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("aborted"), "{log}");
    assert!(!place.is_mounted());
}

// O38
#[test]
fn a_closed_standard_error_does_not_hurt_a_mount() {
    let Some(place) = Place::new() else { return };
    let mut child = in_foreground(&place);
    drop(child.stderr.take());
    assert!(fs::metadata(place.path("mnt/absent.example")).is_err());
    done(&place.run(&["refresh", "mnt"]));
    done(&place.run(&["umount", "mnt"]));
    eventually("the process ends", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_log_of_a_background_mount_is_a_file_in_the_state_directory() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    done(&place.run(&["umount", "mnt"]));
    let logs: Vec<_> = fs::read_dir(place.path("home/.local/state/tofufs/log"))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].metadata().unwrap().mode() & 0o777, 0o600);
    eventually("logged", || {
        fs::read_to_string(logs[0].path()).unwrap().contains("the mount has ended")
    });
    done(&place.mount(&["--log-file", "own.log", "--log-format", "json"]));
    let file = BufReader::new(fs::File::open(place.path("own.log")).unwrap());
    eventually("logged", || fs::metadata(place.path("own.log")).unwrap().len() > 0);
    for line in file.lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert!(line["level"].is_string() && line["message"].is_string());
    }
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn as_a_mount_helper_it_takes_sources_and_options_of_fstab() {
    let Some(place) = Place::new() else { return };
    let mut helper = place.command();
    helper.arg0("/sbin/mount.fuse.tofufs").arg(place.source()).arg(place.point());
    done(
        &helper
            .args(["-o", "rw,ro,noexec,_netdev,x-systemd.automount,cache_size=1GiB"])
            .output()
            .unwrap(),
    );
    let text = fs::read("/proc/self/mountinfo").unwrap();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(place.point().to_str().unwrap())).unwrap();
    assert!(
        line.contains(" ro,nosuid,nodev,noexec") && line.contains("- fuse.tofufs oci:"),
        "{line}"
    );
    assert_eq!(place.status()["cache"]["limit"], 1u64 << 30);
    assert_eq!(place.status()["read_only"], true);
    done(&place.run(&["umount", "mnt"]));
    // As /sbin/mount.fuse3 calls it: by its own name, without a command.
    let direct =
        place.run(&[&place.source(), place.point().to_str().unwrap(), "-o", "rw,dev,suid"]);
    done(&direct);
    assert_eq!(place.status()["read_only"], false);
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let Some(place) = Place::new() else { return };
    let mut child =
        place.command().args(["completions", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Root can always go back to a file; an ordinary user has what is open and nothing else.
#[test]
fn an_open_file_in_staging_outlives_the_way_to_it() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    let dir = place.path("mnt/staging/registry.example/acme");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "text").unwrap();
    let file = fs::File::options().write(true).open(dir.join("file")).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o600)).unwrap();
    file.set_len(2).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    rustix::fs::fsetxattr(&file, "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    // What cannot be looked at is no empty directory.
    let listed = fs::read_dir(&dir)
        .and_then(|entries| entries.map(|entry| entry.map(drop)).collect::<Result<Vec<_>, _>>());
    if rustix::process::geteuid().is_root() {
        assert_eq!(listed.unwrap().len(), 1)
    } else {
        assert_eq!(listed.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied)
    }
    assert_eq!(
        (file.metadata().unwrap().len(), file.metadata().unwrap().mode() & 0o777),
        (2, 0o640)
    );
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::read(dir.join("file")).unwrap(), b"te");
    drop(file);
    fs::remove_dir_all(&dir).unwrap();
    done(&place.run(&["umount", "mnt"]));
}
