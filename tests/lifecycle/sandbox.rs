//! What a mount's process has given up, as the kernel tells it, and its broker.

use std::fs;
use std::os::unix::fs::MetadataExt;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use rustix::process::{Pid, Signal, kill_process};

use super::{Place, done, eventually, gone, is_dead};

/// To hand files to the kernel.
const PASSTHROUGH: &str = "CAP_SYS_ADMIN";
/// To keep files for others, of whom root has many.
const STAGING: [&str; 4] = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID"];
/// To read theirs.
const READING: &str = "CAP_DAC_READ_SEARCH";

/// A field of each thread of a process.
fn of_threads(pid: Pid, name: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| field(&status, name))
        .collect()
}

fn field(status: &str, name: &str) -> String {
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap().trim().to_owned()
}

/// The bits of capabilities, by their numbers in linux/capability.h.
fn bits(names: &[&str]) -> u64 {
    let number = |name: &&str| match *name {
        "CAP_CHOWN" => 0,
        "CAP_DAC_OVERRIDE" => 1,
        "CAP_DAC_READ_SEARCH" => 2,
        "CAP_FOWNER" => 3,
        "CAP_FSETID" => 4,
        "CAP_SYS_ADMIN" => 21,
        other => panic!("{other}"),
    };
    names.iter().map(number).fold(0, |set, bit| set | 1 << bit)
}

/// What this process may, of which a mount's process cannot have more.
fn own() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    u64::from_str_radix(&field(&status, "CapPrm"), 16).unwrap()
}

/// The process that was split off from another one.
fn child_of(pid: Pid) -> Option<Pid> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent: i32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        (parent == pid.as_raw_nonzero().get()).then(|| Pid::from_raw(id))?
    })
}

#[test]
fn every_thread_keeps_what_its_mount_needs_and_status_tells_it() {
    for (words, kept) in [
        (&[][..], [&[PASSTHROUGH][..], &STAGING].concat()),
        (&["--no-passthrough"], STAGING.to_vec()),
        (&["--read-only"], vec![PASSTHROUGH, READING]),
        (&["--read-only", "--no-passthrough"], vec![READING]),
    ] {
        let Some(place) = Place::new() else { return };
        done(&place.mount(words));
        let status = place.status();
        let pid = place.pid();
        // An ordinary user has none of them.
        let kept: Vec<&str> = kept.into_iter().filter(|name| own() & bits(&[name]) != 0).collect();
        for set in ["CapPrm", "CapEff"] {
            let threads = of_threads(pid, set);
            assert!(threads.len() > 3, "{threads:?}");
            for found in threads {
                assert_eq!(u64::from_str_radix(&found, 16), Ok(bits(&kept)), "{words:?} {set}");
            }
        }
        assert!(of_threads(pid, "NoNewPrivs").iter().all(|value| value == "1"));
        assert!(of_threads(pid, "Seccomp").iter().all(|value| value == "2"));
        assert_eq!(status["sandbox"]["seccomp"], "filter");
        let landlock = if has_landlock() { "files" } else { "none" };
        assert_eq!(status["sandbox"]["landlock"], landlock);
        let mut told: Vec<_> = status["sandbox"]["capabilities"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        told.sort_unstable();
        let mut wanted = kept.clone();
        wanted.sort_unstable();
        assert_eq!((told, &status["sandbox"]["no_new_privs"]), (wanted, &true.into()), "{status}");
        let shown = place.run(&["status", "mnt"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let of_all = format!("no_new_privs, seccomp: filter, landlock: {landlock}");
        assert!(shown.contains("  sandbox ") && shown.contains(&of_all), "{shown}");
        let doctor = place.run(&["doctor"]);
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(said.contains(&of_all), "{said}");
        done(&place.run(&["umount", "mnt"]));
    }
}

#[test]
fn without_a_sandbox_everything_is_kept_and_that_is_told() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&["--no-sandbox"]));
    for found in of_threads(place.pid(), "CapPrm") {
        assert_eq!(u64::from_str_radix(&found, 16), Ok(own()));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let own = field(&status, "NoNewPrivs");
    assert!(of_threads(place.pid(), "NoNewPrivs").iter().all(|value| *value == own));
    assert_eq!(place.status()["sandbox"]["no_new_privs"], own == "1");
    assert_eq!(place.status()["sandbox"]["landlock"], "none");
    let doctor = place.run(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let point = place.point().canonicalize().unwrap();
    let told = said.lines().find(|line| line.contains(&*point.to_string_lossy()));
    assert!(told.is_some_and(|line| line.contains("keeps all its privileges")), "{said}");
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn the_broker_holds_nothing_of_the_mount_and_ends_with_it() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    let (pid, broker) = (place.pid(), child_of(place.pid()).unwrap());
    let of_broker = |name: &str| format!("/proc/{}/{name}", broker.as_raw_nonzero());
    assert_eq!(fs::read_to_string(of_broker("comm")).unwrap(), "tofufs-broker\n");
    // The kernel shows the descriptors of a process that cannot be dumped to root alone.
    if let Ok(descriptors) = fs::read_dir(of_broker("fd")) {
        for descriptor in descriptors {
            let held = fs::read_link(descriptor.unwrap().path()).unwrap();
            let held = held.to_string_lossy().into_owned();
            let of_its_own = ["/dev/null", "pipe:", "socket:", "anon_inode:"];
            assert!(of_its_own.iter().any(|own| held.starts_with(own)), "{held}");
        }
    }
    // Nothing that it holds keeps a directory busy.
    assert!(fs::read_link(of_broker("cwd")).is_ok_and(|dir| dir.as_os_str() == "/") || !is_root());
    kill_process(pid, Signal::KILL).unwrap();
    eventually("the broker is gone", || gone(broker));
    eventually("the mount is dead", || is_dead(&place.point()));
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn a_broker_that_is_killed_is_told_and_a_signal_still_ends_serving() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&["--log-file", "own.log"]));
    let (pid, broker) = (place.pid(), child_of(place.pid()).unwrap());
    assert!(place.status()["sandbox"]["broker_gone"].is_null());
    kill_process(broker, Signal::KILL).unwrap();
    let log = || fs::read_to_string(place.path("own.log")).unwrap();
    eventually("it is logged", || log().contains("the mount's broker is gone"));
    assert_eq!(place.status()["sandbox"]["broker_gone"], true);
    let shown = place.run(&["status", "mnt"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("its broker is gone"));
    kill_process(pid, Signal::TERM).unwrap();
    eventually("the process is gone", || gone(pid));
    eventually("the mount is dead", || is_dead(&place.point()));
    assert_eq!(log().matches("the mount's broker is gone: ").count(), 1, "{}", log());
    assert!(log().contains("`tofufs umount`"), "{}", log());
    done(&place.run(&["umount", "mnt"]));
    assert!(fs::metadata(place.point()).unwrap().ino() > 1);
}

#[test]
fn without_its_broker_a_mount_is_served_and_can_be_unmounted() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    let (pid, broker) = (place.pid(), child_of(place.pid()).unwrap());
    kill_process(broker, Signal::KILL).unwrap();
    eventually("the broker is gone", || gone(broker));
    assert!(fs::metadata(place.point().join("registry.example")).unwrap().is_dir());
    done(&place.run(&["umount", "mnt"]));
    eventually("the process is gone", || gone(pid));
    assert!(fs::metadata(place.point()).unwrap().ino() > 1);
}

/// Whether this kernel can keep a process within some files.
fn has_landlock() -> bool {
    let wanted = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    wanted.handle_access(AccessFs::from_all(ABI::V2)).is_ok()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
