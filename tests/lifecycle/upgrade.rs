//! Another process takes a mount over, while it is read, run from and written to, and while either
//! process is killed.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use support::{layouts, pack};
use tofufs::fuse::session::over::Gap;

/// How often a mount in use is upgraded where nobody asks for more.
const UPGRADES: &str = "TOFUFS_TEST_UPGRADES";
const READERS: usize = 64;
const BIG: usize = 3 << 20;

/// A store with a module of a small file and a large one, and with a provider whose program is a
/// shell.
pub(super) fn filled(place: &Place) -> Option<()> {
    let store = place.path("store");
    let big = pack::noise(7, BIG);
    let files = [("main.tf", &b"# a module\n"[..]), ("big.bin", &big)];
    layouts::add(&store, "registry.example", "acme/net", "1.0.0", &pack::module(&files));
    let shell = fs::read("/bin/sh").ok()?;
    let package = pack::provider_zip("sh", "1.0.0", &shell);
    let provider = pack::provider_of(&[("linux_amd64", package)]);
    layouts::add(&store, "registry.example", "acme/sh", "1.0.0", &provider);
    Some(())
}

/// A place where a mount can be mounted in the place of another.
fn of_root() -> Option<Place> {
    if is_root() { Place::new() } else { None }
}

pub(super) fn module(place: &Place) -> PathBuf {
    place.point().join("registry.example/acme/net/1.0.0")
}

fn upgraded(place: &Place) {
    done(&place.run(&["upgrade", "mnt"]));
}

/// The mounts of tofufs at the mount point, those below others too.
pub(super) fn stacked(place: &Place) -> usize {
    let table = mountinfo::read().unwrap();
    table.iter().filter(|entry| entry.is_ours() && entry.point == place.point()).count()
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn another_process_serves_and_what_is_open_stays_until_it_is_closed() {
    let Some(place) = of_root() else { return };
    let Some(()) = filled(&place) else { return };
    done(&place.mount(&[]));
    let first = place.pid();
    let mut open = fs::File::open(module(&place).join("big.bin")).unwrap();
    upgraded(&place);
    let second = place.pid();
    assert_ne!(first, second);
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert!(read == pack::noise(7, BIG));
    assert!(!gone(first));
    assert_eq!(fs::read(module(&place).join("main.tf")).unwrap(), b"# a module\n");
    assert_eq!(stacked(&place), 1);
    drop(open);
    eventually("the first process has nothing open", || gone(first));
    upgraded(&place);
    eventually("of the control sockets of each process one is left", || {
        fs::read_dir(place.path("run/tofufs")).unwrap().count() == 1
    });
    let third = place.pid();
    done(&place.run(&["umount", "mnt"]));
    assert_eq!(stacked(&place), 0);
    for pid in [first, second, third] {
        eventually("no process is left", || gone(pid));
    }
}

#[test]
fn what_unmounts_without_tofufs_leaves_nothing_below() {
    let Some(place) = of_root() else { return };
    done(&place.mount(&[]));
    let first = place.pid();
    upgraded(&place);
    let second = place.pid();
    unmount(&place.point(), Manner::Unused).unwrap();
    for pid in [first, second] {
        eventually("no process is left", || gone(pid));
    }
    assert_eq!(stacked(&place), 0);
}

/// What a path leads to; where it may lead to nothing for a moment, as soon as it does.
fn found<T>(
    what: &str,
    gap: Gap,
    mut look: impl FnMut() -> std::io::Result<T>,
) -> Result<T, String> {
    let start = Instant::now();
    loop {
        match look() {
            Err(e)
                if gap == Gap::Allowed
                    && e.kind() == std::io::ErrorKind::NotFound
                    && start.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            looked => return looked.map_err(|e| format!("{what}: {e}")),
        }
    }
}

/// Reads files by path and through descriptors that stay open over upgrades; says what is wrong.
fn read_on(
    place: &Place,
    number: usize,
    gap: Gap,
    (stop, reads): (&AtomicBool, &AtomicU64),
) -> Result<(), String> {
    let big = pack::noise(7, BIG);
    let (small, large) = (module(place).join("main.tf"), module(place).join("big.bin"));
    let mut kept = found("open", gap, || fs::File::open(&large))?;
    let mut buffer = vec![0; 64 << 10];
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if found("by path", gap, || fs::read(&small))? != b"# a module\n" {
            return Err("a wrong byte by path".into());
        }
        let at = (number * 7919 + round * 104_729) % (BIG - buffer.len());
        let read = kept.seek(SeekFrom::Start(at as u64)).and_then(|_| kept.read_exact(&mut buffer));
        read.map_err(|e| format!("through a descriptor: {e}"))?;
        if buffer != big[at..at + buffer.len()] {
            return Err("a wrong byte through a descriptor".into());
        }
        if round % 64 == number % 64 {
            kept = found("open again", gap, || fs::File::open(&large))?;
        }
        let names = found("list", gap, || fs::read_dir(module(place)))?.count();
        if names != 2 {
            return Err(format!("{names} names instead of 2"));
        }
        reads.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Readers of a mount, and a provider that runs from it.
pub(super) struct Crowd {
    place: Arc<Place>,
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    readers: Vec<thread::JoinHandle<Result<(), String>>>,
    provider: Child,
}

impl Crowd {
    pub(super) fn at(place: &Arc<Place>, gap: Gap) -> Crowd {
        let provider = place
            .point()
            .join("registry.example/acme/sh/1.0.0/linux_amd64/terraform-provider-sh_v1.0.0");
        // It reads by the path where that leads to something.
        let script = "while [ ! -e \"$2\" ]; do [ -e \"$1\" ] || continue; \
                      read -r line <\"$1\" || { [ \"$3\" = Allowed ] && continue; exit 3; }; \
                      [ \"$line\" = '# a module' ] || exit 4; done";
        let mut command = Command::new(&provider);
        command.args(["-c", script, "sh"]).arg(module(place).join("main.tf"));
        command.arg(place.path("stop")).arg(format!("{gap:?}"));
        let provider = command.spawn().unwrap();
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let readers = (0..READERS)
            .map(|number| {
                let (place, stop, reads) = (place.clone(), stop.clone(), reads.clone());
                thread::spawn(move || read_on(&place, number, gap, (&stop, &reads)))
            })
            .collect();
        Crowd { place: place.clone(), stop, reads, readers, provider }
    }

    /// Has another process serve the mount, while all of them go on; that process.
    pub(super) fn upgrade(&mut self, words: &[&str]) -> Pid {
        let before = self.reads.load(Ordering::Relaxed);
        done(&self.place.run(&[&["upgrade"], words, &["mnt"]].concat()));
        eventually("everybody reads on", || {
            self.reads.load(Ordering::Relaxed) > before + READERS as u64
                || self.readers.iter().any(thread::JoinHandle::is_finished)
        });
        assert_eq!(self.provider.try_wait().unwrap(), None, "the provider runs on");
        self.place.pid()
    }

    /// Ends them. Nothing was wrong.
    pub(super) fn leave(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let wrong: Vec<_> =
            self.readers.into_iter().filter_map(|reader| reader.join().unwrap().err()).collect();
        assert_eq!(wrong, Vec::<String>::new());
        fs::write(self.place.path("stop"), "").unwrap();
        assert_eq!(self.provider.wait().unwrap().code(), Some(0));
        println!("{} rounds of reading", self.reads.load(Ordering::Relaxed));
    }
}

/// A crowd notices nothing of so many upgrades of its mount, which `left` mounts each leave below;
/// the mount is gone in the end, with all its processes.
pub(super) fn upgraded_in_use(place: &Arc<Place>, upgrades: usize, words: &[&str], left: usize) {
    let gap = if words.is_empty() { Gap::Refused } else { Gap::Allowed };
    let mut crowd = Crowd::at(place, gap);
    let mut pids = vec![place.pid()];
    for number in 1..=upgrades {
        pids.push(crowd.upgrade(words));
        assert_eq!(stacked(place), 1 + number * left);
    }
    crowd.leave();
    pids.dedup();
    assert_eq!(pids.len(), upgrades + 1);
    done(&place.run(&["umount", "mnt"]));
    assert_eq!(stacked(place), 0);
    for pid in pids {
        eventually("no process is left", || gone(pid));
    }
}

#[test]
fn readers_and_a_running_provider_notice_nothing_of_upgrades() {
    let asked = std::env::var(UPGRADES).ok();
    let upgrades = asked.map_or(10, |count| count.parse().unwrap());
    let Some(place) = of_root() else { return };
    let Some(()) = filled(&place) else { return };
    done(&place.mount(&[]));
    upgraded_in_use(&Arc::new(place), upgrades, &[], 0);
}

#[test]
fn where_the_new_process_does_not_come_up_the_old_one_goes_on() {
    let Some(place) = of_root() else { return };
    let Some(()) = filled(&place) else { return };
    done(&place.mount(&[]));
    let first = place.pid();
    let config = place.path("home/.config/tofufs");
    fs::create_dir_all(&config).unwrap();
    let goes_on = |said: &str| {
        let output = place.run(&["upgrade", "mnt"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && told.contains(said), "{told}");
        assert_eq!(place.pid(), first);
        assert_eq!(fs::read(module(&place).join("main.tf")).unwrap(), b"# a module\n");
        assert_eq!(stacked(&place), 1);
    };
    // The environment of the mount says where its state is; the configuration says more since.
    fs::write(config.join("config.toml"), format!("state_dir = {:?}\n", place.path("other")))
        .unwrap();
    goes_on("the state directory is");
    fs::write(config.join("config.toml"), format!("cache_dir = {:?}\n", place.path("mnt")))
        .unwrap();
    goes_on("the old process goes on");
    fs::remove_file(config.join("config.toml")).unwrap();
    let staged = place.point().join("staging/registry.example/acme/new/1.0.0");
    fs::create_dir_all(&staged).unwrap();
    fs::write(staged.join("main.tf"), "# new\n").unwrap();
    assert!(place.run(&["commit", "mnt"]).status.success(), "commits go on");
    upgraded(&place);
    assert_ne!(place.pid(), first);
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn what_is_staged_changes_hands_and_is_written_to_by_one_process_at_a_time() {
    let Some(place) = of_root() else { return };
    done(&place.mount(&[]));
    let staged = place.point().join("staging/registry.example/acme/new/1.0.0");
    fs::create_dir_all(&staged).unwrap();
    let mut open = fs::File::create(staged.join("main.tf")).unwrap();
    open.write_all(b"# before\n").unwrap();
    upgraded(&place);
    // What was open is written on; new files are made by the new process, in the same place.
    open.write_all(b"# after\n").unwrap();
    fs::write(staged.join("outputs.tf"), "# new\n").unwrap();
    assert_eq!(fs::read_to_string(staged.join("main.tf")).unwrap(), "# before\n# after\n");
    let busy = failed(&place.run(&["commit", "mnt"]));
    assert!(busy.contains("is open for writing"), "{busy}");
    drop(open);
    eventually("the file is closed", || place.run(&["commit", "mnt"]).status.success());
    let released = place.point().join("registry.example/acme/new/1.0.0/main.tf");
    assert_eq!(fs::read_to_string(released).unwrap(), "# before\n# after\n");
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn who_stands_in_the_old_mount_reads_on_and_begins_no_writing_there() {
    let Some(place) = of_root() else { return };
    let Some(()) = filled(&place) else { return };
    done(&place.mount(&[]));
    let staging = place.point().join("staging/registry.example");
    let mut shell = Command::new("sh");
    shell.args(["-c", "read _ && cat main.tf && echo x >../../../../staging/registry.example/x"]);
    shell.current_dir(module(&place)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = shell.stderr(Stdio::piped()).spawn().unwrap();
    upgraded(&place);
    shell.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"# a module\n", "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success() && said.contains("stale"), "{said}");
    assert!(!staging.join("x").exists());
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn metrics_are_told_at_the_same_socket_by_the_process_that_serves() {
    let Some(place) = of_root() else { return };
    done(&place.mount(&["--metrics", "unix:metrics"]));
    let ask = || {
        let mut stream = UnixStream::connect(place.path("metrics")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        answer
    };
    let _ = fs::read_dir(place.point()).map(Iterator::count);
    let none = "tofufs_operation_seconds_count{operation=\"opendir\"} 0\n";
    assert!(!ask().contains(none));
    upgraded(&place);
    let anew = ask();
    assert!(anew.contains(none), "another process counts from 0: {anew}");
    upgraded(&place);
    ask();
    done(&place.run(&["umount", "mnt"]));
    eventually("the socket is gone", || !place.path("metrics").exists());
}

#[test]
fn in_the_foreground_the_first_process_stays_until_the_last_one_has_ended() {
    let Some(place) = of_root() else { return };
    let first = in_foreground(&place);
    let pids = [(); 3].map(|()| {
        upgraded(&place);
        place.pid()
    });
    kill_process(pid_of(&first), Signal::TERM).unwrap();
    let (code, log) = ended(first);
    assert_eq!(code, Some(0), "{log}");
    assert!(!place.is_mounted(), "{log}");
    for pid in pids {
        assert!(gone(pid), "{log}");
    }
    assert_eq!(stacked(&place), 0);
}

/// Processes of the mount: the one that serves, and a successor on its way.
fn processes(place: &Place) -> Vec<Pid> {
    let point = place.point();
    let is_its = |pid: &Pid| {
        fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|line| {
            let mut words = line.split(|&b| b == 0);
            words.clone().any(|word| word == b"mount")
                && words.any(|word| word == point.as_os_str().as_encoded_bytes())
        })
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<Pid> = pids.filter_map(Pid::from_raw).filter(is_its).collect();
    pids.sort_by_key(|pid| pid.as_raw_nonzero());
    pids
}

/// Kills one of the two processes of an upgrade after so many milliseconds.
fn killed_in_the_middle(place: &Place, old: bool, after: u64) {
    let first = place.pid();
    let mut upgrade = place.command();
    upgrade.args(["upgrade", "mnt"]).stderr(Stdio::null());
    let mut upgrade = upgrade.spawn().unwrap();
    thread::sleep(Duration::from_millis(after));
    let successor = processes(place).into_iter().rfind(|pid| *pid != first);
    if let Some(victim) = if old { Some(first) } else { successor } {
        let _ = kill_process(victim, Signal::KILL);
        eventually("the killed process is gone", || gone(victim));
    }
    let start = Instant::now();
    while upgrade.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "the command ends");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn whoever_is_killed_in_the_middle_the_next_mount_heals_it() {
    let Some(place) = of_root() else { return };
    let Some(()) = filled(&place) else { return };
    let file = module(&place).join("main.tf");
    for step in 0..16 {
        let _ = place.mount(&[]);
        assert_eq!(fs::read(&file).unwrap(), b"# a module\n", "before step {step}");
        killed_in_the_middle(&place, step % 2 == 0, step * 20);
        // A successor that goes on without its killed predecessor takes a moment.
        eventually("the mount is served, or dead and mounted anew", || {
            let is_served = || fs::read(&file).is_ok_and(|text| text == b"# a module\n");
            is_served() || {
                let _ = place.mount(&[]);
                is_served()
            }
        });
        assert!(place.run(&["status", "mnt"]).status.success(), "step {step}");
    }
    eventually("it can be unmounted", || place.run(&["umount", "mnt"]).status.success());
    assert_eq!(stacked(&place), 0);
    eventually("no process is left", || processes(&place).is_empty());
}
