//! Long outages, and outages of the registry and the cache at once: what is left, and how it comes
//! back.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tofufs::store::{self, Store};

use super::*;

fn put_all(server: &Hostile, repos: &[&str]) -> Vec<Vec<u8>> {
    repos.iter().map(|repo| put_small(server, repo).0).collect()
}

/// O01, O03: a day without the registry, from the mount's point of view.
#[test]
fn after_a_day_without_its_registry_a_mount_serves_what_it_saw_and_tells_its_age() {
    let mut server = Hostile::start();
    let contents = put_all(&server, &["net", "unseen"]);
    let Some(mut bed) = Bed::over(&[&server], &["--deadline", "5s"]) else { return };
    let host = server.host();
    let (seen, unseen) = (format!("{host}/net:1.0.0"), format!("{host}/unseen:1.0.0"));
    assert_eq!(bed.main_tf(&seen), contents[0]);
    assert!(bed.mount.umount().status.success());
    server.stop();
    // What the registry confirmed today it confirmed yesterday.
    let options = store::StoreOptions { dir: bed.mount.cache(), limit: u64::MAX };
    let cache = Store::open(options).unwrap();
    let mut edges = Vec::new();
    cache.each_edge(&mut |name, value| edges.push((name.to_owned(), value.to_owned())));
    let yesterday = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 26 * 3600;
    for (name, value) in edges {
        if let Ok(Value::Object(mut record)) = serde_json::from_slice(&value)
            && record.contains_key("at")
        {
            record.insert("at".into(), yesterday.into());
            cache.put_edge(&name, Value::Object(record).to_string().as_bytes()).unwrap();
        }
    }
    drop(cache);

    let mounted = bed.mount.again();
    assert!(mounted.status.success(), "{mounted:?}");
    assert_eq!(bed.main_tf(&seen), contents[0]);
    let stale = || bed.mount.xattr(format!("{host}/net/1.0.0"), "user.tofufs.stale");
    assert!(support::wait_until(PATIENCE, || stale().is_some()), "{}", bed.mount.log());
    let age: u64 = stale().unwrap().trim_end_matches('s').parse().unwrap();
    assert!(age >= 26 * 3600, "{age} s");
    assert!(support::wait_until(PATIENCE, || bed
        .mount
        .log()
        .contains("the last answer is served")));
    // The release is listed and stat'ed, too; what was never seen is not called absent.
    assert!(fs::read_dir(bed.mount.join(format!("{host}/net"))).is_ok());
    let spelled = bed.mount.join(&unseen);
    assert_eq!(errno_of(fs::metadata(&spelled).err()), Some(Errno::HOSTUNREACH));

    // And back, without a remount: new releases, and a tag that moved meanwhile.
    server.restart();
    let moved = module(b"moved meanwhile");
    server.publish("net", "1.0.0", &moved);
    assert!(
        support::wait_until(PATIENCE, || fs::metadata(&spelled).is_ok()),
        "{}",
        bed.mount.log()
    );
    assert_eq!(bed.main_tf(&unseen), contents[1]);
    bed.refresh(&host);
    assert!(
        support::wait_until(PATIENCE, || bed.main_tf(&seen) == b"moved meanwhile"),
        "{}",
        bed.mount.log()
    );
    assert_eq!(stale(), None);
}

/// O10, O01: the cache is removed while the registry is away.
#[test]
fn without_registry_and_cache_open_files_go_on_and_all_is_there_again_afterwards() {
    let mut server = Hostile::start();
    let large = noise(21, 2 << 20);
    server.publish("large", "1.0.0", &module(&large));
    let contents = put_all(&server, &["small", "other"]);
    let Some(bed) = Bed::over(&[&server], &["--deadline", "3s", "--tag-ttl", "1h"]) else { return };
    let reference = |repo: &str| format!("{}/{repo}:1.0.0", server.host());
    let (in_large, in_other) = (reference("large"), reference("other"));
    for repo in ["large", "small"] {
        bed.main_tf(&reference(repo));
    }
    // Known, but not fetched.
    assert!(bed.path(&in_other).is_dir());
    let mut open = fs::File::open(bed.path(&in_large).join("main.tf")).unwrap();
    let paths = [bed.path(&in_other), bed.path(&in_large)];
    server.stop();
    fs::remove_dir_all(bed.mount.cache()).unwrap();
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert!(read == large, "an open file goes on");
    let failed = errno_of(fs::read_dir(&paths[0]).err());
    assert!(
        matches!(failed, Some(Errno::HOSTUNREACH | Errno::TIMEDOUT)),
        "an outage is no absence: {failed:?}"
    );
    server.restart();
    for (repo, content) in [("large", &large), ("small", &contents[0]), ("other", &contents[1])] {
        let path = bed.path(&format!("{}/{repo}:1.0.0", server.host())).join("main.tf");
        let there =
            support::wait_until(PATIENCE, || fs::read(&path).is_ok_and(|read| read == *content));
        assert!(there, "{repo}: {}", bed.mount.log());
    }
    bed.cache_is_sound();
}

/// A file system of its own for a cache; detached when the value goes.
struct Disk(PathBuf);

impl Disk {
    fn at(path: &Path) -> Option<Disk> {
        match mount("none", path, "tmpfs", MountFlags::empty(), c"mode=0700,size=64m") {
            Ok(()) => Some(Disk(path.to_owned())),
            Err(e) => {
                support::skip(&format!("a tmpfs cannot be mounted: {e}"));
                None
            }
        }
    }

    fn read_only(&self, on: bool) {
        let flags = if on { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_remount(&self.0, flags, c"").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// O11: while mounted, and from the start; with and without the registry.
#[test]
fn a_cache_that_became_read_only_is_read_and_the_rest_is_served_without_it() {
    let mut server = Hostile::start();
    let contents = put_all(&server, &["before", "after", "restarted"]);
    let large = noise(22, 3 << 20);
    server.publish("large", "1.0.0", &module(&large));
    let Some(mut bed) = Bed::over(&[&server], &["--deadline", "3s", "--tag-ttl", "1h"]) else {
        return;
    };
    assert!(bed.mount.umount().status.success());
    let Some(disk) = Disk::at(&bed.mount.cache()) else { return };
    assert!(bed.mount.again().status.success());
    let reference = |repo: &str| format!("{}/{repo}:1.0.0", server.host());
    assert_eq!(bed.main_tf(&reference("before")), contents[0]);
    disk.read_only(true);
    let read = |bed: &Bed, more: &[(&str, &[u8])]| {
        for (repo, content) in
            [("before", contents[0].as_slice()), ("large", &large)].iter().chain(more)
        {
            assert!(bed.main_tf(&reference(repo)) == *content, "{repo}: {}", bed.mount.log());
        }
    };
    read(&bed, &[("after", &contents[1])]);
    assert!(bed.mount.umount().status.success());
    let mounted = bed.mount.again();
    assert!(mounted.status.success(), "{mounted:?}");
    read(&bed, &[("restarted", &contents[2])]);
    let paths = ["before", "after"].map(|repo| bed.path(&reference(repo)).join("main.tf"));
    server.stop();
    assert_eq!(fs::read(&paths[0]).unwrap(), contents[0], "what is cached needs no registry");
    // In memory for as long as it is wanted, but not on the disk.
    assert_eq!(bed.cached(&Digest::of(package_of(&module(&large)))), None);
    disk.read_only(false);
    server.restart();
    let back =
        support::wait_until(PATIENCE, || fs::read(&paths[1]).is_ok_and(|read| read == contents[1]));
    assert!(back, "{}", bed.mount.log());
    bed.cache_is_sound();
}

/// O04: a name that nobody knows is an outage of that registry alone.
#[test]
fn a_registry_whose_name_is_not_known_is_unreachable_and_holds_up_no_other() {
    let server = Hostile::start();
    let contents = put_all(&server, &["net"]);
    let unknown = "registry.invalid";
    let options = Options::new().args(["--plain-http", &server.host(), "--deadline", "3s"]);
    let Some(mount) = Mount::start(&[unknown.to_owned(), server.host()], options) else { return };
    let bed = Bed { mount };
    std::thread::scope(|scope| {
        let asked =
            scope.spawn(|| fs::metadata(bed.mount.join(format!("{unknown}/net:1.0.0"))).err());
        assert_eq!(bed.main_tf(&format!("{}/net:1.0.0", server.host())), contents[0]);
        let failed = errno_of(asked.join().unwrap());
        assert!(matches!(failed, Some(Errno::HOSTUNREACH | Errno::TIMEDOUT)), "{failed:?}");
    });
    bed.reported(unknown, &[]);
    let listed: Vec<_> =
        fs::read_dir(bed.mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(listed.contains(&unknown.into()), "{listed:?}");
}

/// Passages, which depend on no answer but that there is no catalog, after an offline remount.
#[test]
fn a_passage_stays_one_when_the_registry_is_away_from_the_start() {
    let mut server = Hostile::start();
    put_all(&server, &["deep/down/net"]);
    let not_listed = support::hostile::Reply::error(404, "NAME_UNKNOWN");
    server.rule(
        support::hostile::path("/v2/_catalog"),
        support::hostile::Behaviour::Answer(not_listed),
    );
    let Some(mut bed) = Bed::over(&[&server], &["--deadline", "3s"]) else { return };
    let passage = bed.mount.join(format!("{}/elsewhere", server.host()));
    assert!(passage.is_dir(), "{}", bed.mount.log());
    assert!(bed.mount.umount().status.success());
    server.stop();
    assert!(bed.mount.again().status.success());
    for _ in 0..2 {
        assert!(passage.is_dir(), "{}", bed.mount.log());
        let inside = errno_of(fs::metadata(passage.join("net:1.0.0")).err());
        assert!(matches!(inside, Some(Errno::HOSTUNREACH | Errno::TIMEDOUT)), "{inside:?}");
    }
}
