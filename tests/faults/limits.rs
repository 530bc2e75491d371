//! Little memory, few processes, little time on the processor: limits of a control group.

use std::process::{Command, Stdio};
use std::thread;

use super::*;

/// A control group of version 1, removed when it is dropped.
struct Group {
    dirs: Vec<PathBuf>,
}

impl Group {
    /// One with these limits: controller, file and value; `None`, with the reason printed, where
    /// there are none.
    fn new(limits: &[(&str, &str, &str)]) -> Option<Group> {
        let mut group = Group { dirs: Vec::new() };
        for (controller, file, value) in limits {
            let name = format!("tofufs-test-{}-{:?}", std::process::id(), thread::current().id());
            let dir = Path::new("/sys/fs/cgroup").join(controller).join(name);
            let set = if group.dirs.contains(&dir) { Ok(()) } else { fs::create_dir(&dir) };
            if let Err(e) = set.and_then(|()| fs::write(dir.join(file), value)) {
                let _ = fs::remove_dir(&dir);
                support::skip(&format!("no control group with a limit of {controller}: {e}"));
                return None;
            }
            group.dirs.push(dir);
        }
        Some(group)
    }

    /// Puts a process in.
    fn take(&self, pid: u32) {
        for dir in &self.dirs {
            fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // Who left it a moment ago may still be counted.
            wait_until(Duration::from_secs(10), || fs::remove_dir(dir).is_ok() || !dir.exists());
        }
    }
}

/// Reads all `files` with so many `cat`s at once; each has to give what is wanted.
fn read_by_many(files: &[(PathBuf, Vec<u8>)], readers: usize) {
    thread::scope(|scope| {
        for reader in 0..readers {
            scope.spawn(move || {
                let (file, wanted) = &files[reader % files.len()];
                let cat = Command::new("cat").arg(file).stdin(Stdio::null()).output().unwrap();
                assert!(cat.stdout == *wanted, "{}: {cat:?}", file.display());
            });
        }
    });
}

fn releases(server: &Hostile, count: u64, size: usize) -> Vec<Vec<u8>> {
    let publish = |number: u64| {
        let content = noise(300 + number, size);
        server.publish(&format!("net{number}"), "1.0.0", &module(&content));
        content
    };
    (0..count).map(publish).collect()
}

fn files(bed: &Bed, server: &Hostile, contents: Vec<Vec<u8>>) -> Vec<(PathBuf, Vec<u8>)> {
    let path = |n: usize| bed.path(&format!("{}/net{n}:1.0.0", server.host())).join("main.tf");
    contents.into_iter().enumerate().map(|(n, content)| (path(n), content)).collect()
}

/// O25: 128 MiB, page cache included, for packages of more than that.
#[test]
fn in_128_mib_sixty_four_readers_of_large_packages_get_all_bytes() {
    let Some(group) = Group::new(&[("memory", "memory.limit_in_bytes", "134217728")]) else {
        return;
    };
    let server = Hostile::start();
    let contents = releases(&server, 8, 20 << 20);
    let Some(bed) = Bed::over(&[&server], &["--deadline", "60s"]) else { return };
    group.take(bed.mount.pid().as_raw_nonzero().get() as u32);
    read_by_many(&files(&bed, &server, contents), 64);
    bed.cache_is_sound();
}

/// O26: as many threads as there are when it is mounted and two more, and a tenth of a processor.
#[test]
fn with_few_threads_and_little_time_readers_wait_longer_and_get_all_bytes() {
    let server = Hostile::start();
    let contents = releases(&server, 4, 1 << 20);
    let Some(bed) = Bed::over(&[&server], &["--deadline", "60s"]) else { return };
    let pid = bed.mount.pid().as_raw_nonzero();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    let most = (threads + 2).to_string();
    let limits = [("pids", "pids.max", &*most), ("cpu", "cpu.cfs_quota_us", "10000")];
    let Some(group) = Group::new(&limits) else { return };
    group.take(pid.get() as u32);
    read_by_many(&files(&bed, &server, contents), 16);
    bed.cache_is_sound();
}
