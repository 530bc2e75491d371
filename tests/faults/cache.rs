//! The cache is full, damaged, replaced or deleted.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, prlimit};

use super::*;

/// A package that has chunk checksums and one that is too small for any, as `(repo, content,
/// package)`.
fn two_packages(server: &Hostile) -> [(&'static str, Vec<u8>, Digest); 2] {
    [("large", 400_000), ("small", 700)].map(|(repo, size)| {
        let content = noise(size as u64, size);
        let artifact = module(&content);
        server.publish(repo, "1.0.0", &artifact);
        (repo, content, Digest::of(package_of(&artifact)))
    })
}

type Damage = (&'static str, Box<dyn Fn(&Path, &Path)>);

/// What is done to a cached file; the second path is a victim outside the cache.
fn damages() -> Vec<Damage> {
    let gone = |file: &Path| fs::remove_file(file).unwrap();
    let open = |file: &Path| {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::File::options().read(true).write(true).open(file).unwrap()
    };
    vec![
        ("O09 truncated to nothing", Box::new(move |file, _| open(file).set_len(0).unwrap())),
        (
            "O09 truncated to half",
            Box::new(move |file, _| {
                open(file).set_len(fs::metadata(file).unwrap().len() / 2).unwrap()
            }),
        ),
        (
            "O09 a byte longer",
            Box::new(move |file, _| {
                open(file).set_len(fs::metadata(file).unwrap().len() + 1).unwrap()
            }),
        ),
        (
            "O09 flipped bits of equal length",
            Box::new(move |file, _| {
                use std::os::unix::fs::FileExt as _;
                let file = open(file);
                // In the end of the archive, which every opening reads.
                let (mut byte, at) = ([0], file.metadata().unwrap().len() - 10);
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            }),
        ),
        ("O10 removed", Box::new(move |file, _| gone(file))),
        (
            "L06 symlink",
            Box::new(move |file, victim| {
                gone(file);
                std::os::unix::fs::symlink(victim, file).unwrap();
            }),
        ),
        (
            "L06 hard link",
            Box::new(move |file, victim| {
                gone(file);
                fs::hard_link(victim, file).unwrap();
            }),
        ),
        (
            "L06 directory",
            Box::new(move |file, _| {
                gone(file);
                fs::create_dir(file).unwrap();
                fs::write(file.join("x"), "x").unwrap();
            }),
        ),
        (
            "L06 FIFO",
            Box::new(move |file, _| {
                gone(file);
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    file,
                    rustix::fs::FileType::Fifo,
                    0o600.into(),
                    0,
                )
                .unwrap();
            }),
        ),
        (
            "L06 device",
            Box::new(move |file, _| {
                gone(file);
                let zero = rustix::fs::makedev(1, 5);
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    file,
                    rustix::fs::FileType::CharacterDevice,
                    0o600.into(),
                    zero,
                )
                .unwrap();
            }),
        ),
    ]
}

/// O09, O10, L06
#[test]
fn a_cached_file_that_is_not_what_it_was_is_fetched_again_and_nothing_else_is_touched() {
    let server = Hostile::start();
    let packages = two_packages(&server);
    let Some(mut bed) = Bed::over(&[&server], &[]) else { return };
    let victim = bed.mount.home().join("victim");
    for (name, damage) in damages() {
        if name == "L06 device" && !rustix::process::geteuid().is_root() {
            support::skip("only root can make a device");
            continue;
        }
        for (repo, content, package) in &packages {
            let reference = format!("{}/{repo}:1.0.0", server.host());
            assert!(bed.main_tf(&reference) == *content);
            assert!(bed.mount.umount().status.success());
            // Of the right size, so that only what it is tells it from the blob.
            let blob = bed.cached(package).unwrap();
            fs::write(&victim, vec![b'v'; fs::metadata(&blob).unwrap().len() as usize]).unwrap();
            damage(&blob, &victim);
            assert!(bed.mount.again().status.success());
            let before = blob_requests(&server, repo);
            assert!(bed.main_tf(&reference) == *content, "{name} of {repo}: {}", bed.mount.log());
            assert_eq!(blob_requests(&server, repo), before + 1, "{name} of {repo}");
            assert!(
                fs::read(&victim).unwrap().iter().all(|byte| *byte == b'v'),
                "{name} of {repo}"
            );
            fs::remove_file(&victim).unwrap();
            assert!(
                bed.cached(package).unwrap().symlink_metadata().unwrap().is_file(),
                "{name} of {repo}"
            );
        }
    }
    bed.cache_is_sound();
}

/// O09: damage that comes while the file is open and in use.
#[test]
fn damage_under_an_open_file_is_healed_and_not_read() {
    let server = Hostile::start();
    let [(repo, content, package), _] = two_packages(&server);
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    let reference = format!("{}/{repo}:1.0.0", server.host());
    let path = bed.path(&reference).join("main.tf");
    let mut file = fs::File::open(&path).unwrap();
    let shelves = ["blobs", "members"].map(|shelf| bed.mount.cache().join("v1").join(shelf));
    assert!(bed.cached(&package).is_some());
    for shelf in shelves.iter().flat_map(|s| fs::read_dir(s).unwrap()) {
        for entry in fs::read_dir(shelf.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            if fs::metadata(&path).unwrap().len() > 100_000 {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                let mut bytes = fs::read(&path).unwrap();
                bytes.iter_mut().skip(50_000).for_each(|byte| *byte ^= 1);
                fs::File::options()
                    .write(true)
                    .open(&path)
                    .and_then(|f| {
                        use std::os::unix::fs::FileExt as _;
                        f.write_all_at(&bytes, 0)
                    })
                    .unwrap();
            }
        }
    }
    let mut read = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut read).unwrap();
    assert!(read == content, "{}", bed.mount.log());
    assert!(bed.mount.log().contains("quarantined"), "the damage was met: {}", bed.mount.log());
    assert_eq!(blob_requests(&server, repo), 2);
}

/// O10: all of it, while mounted.
#[test]
fn a_cache_that_is_deleted_underneath_hurts_no_reader() {
    let server = Hostile::start();
    let packages = two_packages(&server);
    let (fresh, _) = put_small(&server, "fresh");
    let Some(mut bed) = Bed::over(&[&server], &[]) else { return };
    let references = ["large", "small"].map(|repo| format!("{}/{repo}:1.0.0", server.host()));
    let open = fs::File::open(bed.path(&references[0]).join("main.tf")).unwrap();
    assert!(bed.main_tf(&references[1]) == packages[1].1);
    fs::remove_dir_all(bed.mount.cache()).unwrap();
    let mut read = Vec::new();
    (&open).read_to_end(&mut read).unwrap();
    assert!(read == packages[0].1, "an open file goes on");
    assert_eq!(bed.main_tf(&format!("{}/fresh:1.0.0", server.host())), fresh);
    for (reference, (_, content, _)) in references.iter().zip(&packages) {
        assert!(bed.main_tf(reference) == *content);
    }
    drop(open);
    assert!(bed.mount.umount().status.success());
    assert!(bed.mount.again().status.success());
    for (reference, (_, content, _)) in references.iter().zip(&packages) {
        assert!(bed.main_tf(reference) == *content);
    }
    bed.cache_is_sound();
}

/// A small file system in place of the cache, for as long as the value lives.
struct Small(PathBuf);

impl Small {
    /// `None`, with the reason printed, where this process may not mount.
    fn at(path: &Path, options: &str) -> Option<Small> {
        let options = std::ffi::CString::new(options).unwrap();
        match mount("none", path, "tmpfs", MountFlags::empty(), options.as_c_str()) {
            Ok(()) => Some(Small(path.to_owned())),
            Err(e) => {
                support::skip(&format!("a tmpfs cannot be mounted: {e}"));
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// O05: no space for the bytes (write), or for another file (create).
#[test]
fn a_full_disk_is_no_reason_not_to_serve_what_fits_into_memory() {
    let server = Hostile::start();
    let content = noise(11, 3 << 20);
    server.publish("net", "1.0.0", &module(&content));
    let (small, _) = put_small(&server, "small");
    for (full, options) in
        [("write", "mode=0700,size=1m"), ("create", "mode=0700,size=64m,nr_inodes=9")]
    {
        let Some(mut bed) = Bed::over(&[&server], &[]) else { return };
        assert!(bed.mount.umount().status.success());
        fs::remove_dir_all(bed.mount.cache()).unwrap();
        fs::create_dir(bed.mount.cache()).unwrap();
        let Some(_disk) = Small::at(&bed.mount.cache(), options) else { return };
        let mounted = bed.mount.again();
        assert!(mounted.status.success(), "{full}: {mounted:?}");
        for _ in 0..2 {
            assert!(bed.main_tf(&format!("{}/net:1.0.0", server.host())) == content, "{full}");
            assert_eq!(bed.main_tf(&format!("{}/small:1.0.0", server.host())), small, "{full}");
        }
        let log = bed.mount.log();
        assert!(log.contains("space"), "{full}: the disk was full, and it is said: {log}");
        bed.cache_is_sound();
        drop(bed);
    }
}

/// O05: neither on disk nor in memory.
#[test]
fn what_fits_neither_on_disk_nor_into_memory_is_no_space() {
    let server = Hostile::start();
    let artifact = pack::module_of(pack::zip(&[("main.tf", &noise(12, 65 << 20))]));
    server.publish("net", "1.0.0", &artifact);
    let (small, _) = put_small(&server, "small");
    let Some(mut bed) = Bed::over(&[&server], &[]) else { return };
    assert!(bed.mount.umount().status.success());
    let Some(_disk) = Small::at(&bed.mount.cache(), "mode=0700,size=1m") else { return };
    assert!(bed.mount.again().status.success());
    let reference = format!("{}/net:1.0.0", server.host());
    let path = bed.path(&reference);
    bed.failed(&path, &reference, Errno::NOSPC, &["space"]);
    assert_eq!(
        bed.main_tf(&format!("{}/small:1.0.0", server.host())),
        small,
        "what fits is served"
    );
    bed.cache_is_sound();
}

/// O05: what is kept open for the next reader is no reason to refuse this one, neither on the disk
/// nor in memory.
#[test]
fn on_a_full_disk_what_nobody_reads_any_more_gives_way() {
    let server = Hostile::start();
    let Some(mut bed) = Bed::over(&[&server], &[]) else { return };
    assert!(bed.mount.umount().status.success());
    let Some(_disk) = Small::at(&bed.mount.cache(), "mode=0700,size=8m") else { return };
    assert!(bed.mount.again().status.success());
    // Archive and member of each fill the disk, or more than half of the memory that stands in for
    // it.
    for (seed, mebibytes) in [(20, 3), (21, 20), (22, 20), (23, 3), (24, 3)] {
        let content = noise(seed, mebibytes << 20);
        let repo = format!("net{seed}");
        server.publish(&repo, "1.0.0", &module(&content));
        assert!(bed.main_tf(&format!("{}/{repo}:1.0.0", server.host())) == content, "{repo}");
    }
    bed.cache_is_sound();
}

/// O05: `ulimit -f` is a disk that takes no larger files. Past it the kernel ends whoever is not
/// prepared.
#[test]
fn a_limit_of_file_sizes_is_like_a_full_disk() {
    let server = Hostile::start();
    let content = noise(13, 2 << 20);
    server.publish("net", "1.0.0", &module(&content));
    let (small, _) = put_small(&server, "small");
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    let limit = Rlimit { current: Some(1 << 20), maximum: None };
    prlimit(Some(bed.mount.pid()), Resource::Fsize, limit).unwrap();
    assert!(bed.main_tf(&format!("{}/net:1.0.0", server.host())) == content);
    assert_eq!(bed.main_tf(&format!("{}/small:1.0.0", server.host())), small);
    bed.cache_is_sound();
}

/// `df` of a mount is about the cache, and never fails.
#[test]
fn the_file_system_reports_its_cache() {
    let server = Hostile::start();
    let Some(bed) = Bed::over(&[&server], &["--cache-size", "1GiB"]) else { return };
    let mut command = Command::new("stat");
    command.args(["-f", "-c", "%b %S"]).arg(bed.mount.path());
    let text = String::from_utf8(finish(command).stdout).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers[0] * numbers[1], 1 << 30);
}
