//! How much memory a mount takes for the names that the kernel knows, and that it gives it back.
//!
//! Releases of many small files are walked and read. TOFUFS_MEMBERS says how many files there are
//! in all (300,000 are what a whole registry of modules has), and TOFUFS_ARCHIVES names a directory
//! of zips that are taken instead.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{MountFlags, mount_remount};
use rustix::process::geteuid;
use support::hostile::Hostile;
use support::mount::{Mount, Options};
use support::{pack, skip, wait_until};

/// Files of one release.
const OF_RELEASE: usize = 2000;
/// The most that one more name may cost.
const BYTES_A_NODE: u64 = 500;
/// The most above what a mount takes at rest, once the kernel has forgotten all names: caches of
/// bounded size.
const ABOVE_REST: u64 = 128 << 20;

/// Memory of the daemon, in bytes: `VmRSS` is what it takes now, `VmHWM` the most that it took.
fn memory(mount: &Mount, of: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_nonzero()))
        .expect("its status");
    let line =
        status.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(':')).expect("a line");
    let kib: u64 =
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

/// [`memory`] that is still taken after what was freed has been given back.
fn settled(mount: &Mount) -> u64 {
    let mut least = u64::MAX;
    wait_until(Duration::from_secs(7), || {
        least = least.min(memory(mount, "VmRSS"));
        false
    });
    least
}

/// A module of many small files in directories of twenty.
fn module(release: usize) -> pack::Artifact {
    let files: Vec<(String, String)> = (0..OF_RELEASE)
        .map(|n| {
            (
                format!("modules/part-{:03}/file_{n:05}.tf", n / 20),
                format!("# {release} {n}\n").repeat(1 + n % 320),
            )
        })
        .collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    pack::module(&files)
}

/// The packages that are walked.
fn packages() -> Box<dyn Iterator<Item = pack::Artifact>> {
    if let Some(dir) = std::env::var_os("TOFUFS_ARCHIVES") {
        let zips = fs::read_dir(dir)
            .expect("a directory")
            .map(|zip| fs::read(zip.expect("a zip").path()).expect("a zip"));
        return Box::new(zips.map(pack::module_of));
    }
    let members =
        std::env::var("TOFUFS_MEMBERS").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000);
    Box::new((0..members / OF_RELEASE).map(module))
}

/// Lists everything below `dir` and reads each file; how many names there are.
fn walk(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            if entry.file_type().expect("a type").is_dir() {
                1 + walk(&entry.path())
            } else {
                fs::read(entry.path()).expect("a file");
                1
            }
        })
        .sum()
}

#[test]
fn a_name_costs_little_memory_and_what_the_kernel_forgot_is_given_back() {
    let server = Hostile::start();
    let mut releases = 0;
    for package in packages() {
        server.publish("acme/net", &format!("1.0.{releases}"), &package);
        releases += 1;
    }
    let host = server.host();
    let options = Options::new().args(["--plain-http", &host]).longer(Duration::from_secs(1800));
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let release = |n: usize| mount.join(format!("{host}/acme/net/1.0.{n}"));
    let rest = memory(&mount, "VmRSS");
    // What is kept in caches of bounded size is full before it is measured how much the names take.
    let warm: u64 = (0..releases / 2).map(|n| walk(&release(n))).sum();
    let before = settled(&mount);
    let names: u64 = (releases / 2..releases).map(|n| walk(&release(n))).sum();
    let after = settled(&mount);
    let each = after.saturating_sub(before) / names;
    let all = after.saturating_sub(rest) / (warm + names);
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "{} names: {} MiB at rest, {} MiB after all, {} MiB at most; {each} bytes for each of the last {names} names, {all} \
         for each in all",
        warm + names,
        mib(rest),
        mib(after),
        mib(memory(&mount, "VmHWM")),
    );
    assert!(each <= BYTES_A_NODE, "one more name takes {each} bytes");

    if !geteuid().is_root() {
        return skip("the kernel forgets names of one mount alone when root remounts it");
    }
    mount_remount(mount.path(), MountFlags::NOSUID | MountFlags::NODEV, "").expect("a mount");
    let mut now = after;
    let given_back = wait_until(Duration::from_secs(60), || {
        now = memory(&mount, "VmRSS");
        now <= rest + ABOVE_REST && now <= after - names * BYTES_A_NODE / 4
    });
    println!("{} MiB after the kernel has forgotten them", mib(now));
    assert!(given_back, "{} MiB stay above rest, of {} MiB", mib(now - rest), mib(after - rest));
    assert!(walk(&release(0)) > 0, "what was forgotten is found again");
}
