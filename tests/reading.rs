//! How the bytes of a file come to who reads it: by the kernel (passthrough), plainly, and without
//! opens; and what happens when the cache below is damaged.

mod support;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::hostile::Hostile;
use support::mount::{Mount, Options};
use support::pack::{self, Artifact};
use support::skip;

/// Bytes that do not repeat, so that a wrong offset shows.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

const BIG: usize = 3 << 20;

/// A registry with one module: a big file, a small one, and a script.
fn registry() -> (Hostile, Vec<u8>) {
    let server = Hostile::start();
    let big = noise(BIG, 1);
    let files: [(&str, &[u8]); 3] =
        [("big.bin", &big), ("small.tf", b"locals {}\n"), ("run.sh!", b"#!/bin/sh\necho ran\n")];
    push(&server, "acme/net", "1.0", &pack::module(&files));
    (server, big)
}

fn push(server: &Hostile, repo: &str, tag: &str, artifact: &Artifact) {
    for blob in &artifact.blobs {
        server.put_blob(blob);
    }
    for document in &artifact.manifests {
        server.put_manifest(repo, Some(tag), document.media_type, &document.bytes);
    }
}

fn mount(server: &Hostile, options: &[&str]) -> Option<Mount> {
    let host = server.host();
    let options = Options::new().args(["--plain-http", &host]).args(options);
    Mount::start(&[host], options)
}

fn is_passthrough(mount: &Mount) -> bool {
    let on = mount.log().contains("(passthrough)");
    if !on {
        skip("the kernel or the user has no passthrough");
    }
    on
}

/// The files of a part of the cache that are at least `at_least` bytes long, without their
/// checksums.
fn cached(mount: &Mount, part: &str, at_least: u64) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
                _ => found.push(entry.path()),
            }
        }
    }
    let mut found = Vec::new();
    walk(&mount.cache().join("v1").join(part), &mut found);
    found.retain(|p| p.extension().is_none_or(|e| e != "sum"));
    found.retain(|p| p.metadata().is_ok_and(|m| m.len() >= at_least));
    found
}

/// Changes one byte in place, as a failing disk would.
fn damage(file: &Path, offset: u64) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("our file");
    let open = fs::File::options().read(true).write(true).open(file).expect("our file");
    let mut byte = [0];
    open.read_exact_at(&mut byte, offset).expect("a byte");
    open.write_all_at(&[byte[0] ^ 0x40], offset).expect("our file");
    fs::set_permissions(file, fs::Permissions::from_mode(0o400)).expect("our file");
}

/// Makes the kernel forget what it keeps of the mount's files.
fn drop_pages(file: &Path) {
    let file = fs::File::open(file).expect("a file of the mount");
    let all = None;
    rustix::fs::fadvise(&file, 0, all, rustix::fs::Advice::DontNeed).expect("a file of the mount");
}

#[test]
fn every_way_of_reading_gives_the_same_bytes() {
    let (server, big) = registry();
    for options in [&[][..], &["--no-passthrough"], &["--read-only", "--no-passthrough"]] {
        let Some(mount) = mount(&server, options) else { return };
        let dir = mount.join(server.host()).join("acme/net/1.0");
        assert!(fs::read(dir.join("big.bin")).expect("the big file") == big, "{options:?}");
        let mut file = fs::File::open(dir.join("big.bin")).expect("the big file");
        let mut part = [0; 1000];
        for offset in [BIG - 1000, 0, 65_000, 1 << 20] {
            file.seek(SeekFrom::Start(offset as u64)).expect("a file");
            file.read_exact(&mut part).expect("bytes");
            assert!(part == big[offset..offset + 1000], "{options:?} at {offset}");
        }
        assert_eq!(fs::read(dir.join("small.tf")).expect("the small file"), b"locals {}\n");
        let ran = Command::new(dir.join("run.sh")).output().expect("the script runs");
        assert_eq!(ran.stdout, b"ran\n");
        let map = "import mmap,sys; f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ); \
                   sys.stdout.buffer.write(m[70000:70016])";
        let mapped = Command::new("python3")
            .args(["-c", map])
            .arg(dir.join("big.bin"))
            .output()
            .expect("python3");
        assert!(mapped.stdout == big[70_000..70_016], "{options:?}: {mapped:?}");
        // Not even opened: what is written to a mapping is seen by all, until the kernel learns
        // that it cannot be kept.
        let opened = fs::File::options().read(true).write(true).open(dir.join("small.tf"));
        assert_eq!(opened.expect_err("read-only").raw_os_error(), Some(libc::EROFS), "{options:?}");
        assert_eq!(mount.requests().1, 1, "one download: {options:?}");
    }
}

#[test]
fn a_warm_file_costs_no_request_and_no_check_by_its_name_again() {
    let (server, _) = registry();
    let Some(mount) = mount(&server, &[]) else { return };
    let dir = mount.join(server.host()).join("acme/net/1.0");
    for name in ["big.bin", "small.tf"] {
        fs::read(dir.join(name)).expect("a file");
    }
    let before = server.requests().len();
    for _ in 0..20 {
        fs::read(dir.join("big.bin")).expect("a file");
        fs::read(dir.join("small.tf")).expect("a file");
        fs::metadata(dir.join("none")).expect_err("absent");
    }
    assert_eq!(server.requests().len(), before);
}

/// O08, O09: damage of a file that is not open. TOFUFS_FLIPS says how often.
#[test]
fn damage_under_passthrough_is_found_before_the_next_use_and_healed() {
    let (server, big) = registry();
    let Some(mount) = mount(&server, &[]) else { return };
    if !is_passthrough(&mount) {
        return;
    }
    let file = mount.join(server.host()).join("acme/net/1.0/big.bin");
    assert!(fs::read(&file).expect("the big file") == big);
    let mut rng = fastrand::Rng::with_seed(7);
    let inode = file.metadata().expect("the big file").ino();
    let times = std::env::var("TOFUFS_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    for round in 0..times {
        let files = cached(&mount, "members", BIG as u64);
        let [cached] = files.as_slice() else { panic!("one unpacked file: {files:?}") };
        if rng.u8(..8) == 0 {
            fs::set_permissions(cached, fs::Permissions::from_mode(0o600)).expect("our file");
            let open = fs::File::options().write(true).open(cached).expect("our file");
            open.set_len(rng.u64(..BIG as u64)).expect("our file");
        } else {
            damage(cached, rng.u64(..BIG as u64));
        }
        assert!(fs::read(&file).expect("the big file") == big, "round {round}: a wrong byte");
    }
    // The log is written by a thread of its own.
    let found = || mount.log().matches("is quarantined").count();
    support::wait_until(Duration::from_secs(20), || found() >= times);
    assert_eq!(found(), times, "each damage is found, and nothing else is taken for one");
    assert_eq!(mount.requests().1, 1, "unpacked anew from the archive, which was whole");
    assert_eq!(
        file.metadata().expect("the big file").ino(),
        inode,
        "what nobody has open changes under its inode"
    );
}

/// Pages of a file that is opened again are not read again.
#[test]
fn what_the_kernel_has_read_it_keeps_over_a_close() {
    let (server, big) = registry();
    let Some(mount) = mount(&server, &["--no-passthrough"]) else { return };
    let file = mount.join(server.host()).join("acme/net/1.0/big.bin");
    assert!(fs::read(&file).expect("the big file") == big);
    let files = cached(&mount, "members", BIG as u64);
    let [cached] = files.as_slice() else { panic!("one unpacked file: {files:?}") };
    damage(cached, 1_000_000);
    assert!(fs::read(&file).expect("the big file") == big);
    assert!(fs::read(cached).expect("the damaged file") != big, "nobody had to look at the cache");
    drop_pages(&file);
    assert!(
        fs::read(&file).expect("the big file") == big,
        "and whoever does is served all the same"
    );
}

#[test]
fn damage_of_archive_and_member_is_fetched_anew_and_an_error_offline() {
    let (mut server, big) = registry();
    let Some(mut mount) = mount(&server, &[]) else { return };
    let file = mount.join(server.host()).join("acme/net/1.0/big.bin");
    assert!(fs::read(&file).expect("the big file") == big);
    let damage_all = |mount: &Mount| {
        for part in ["members", "blobs"] {
            for cached in cached(mount, part, 1 << 20) {
                damage(&cached, 1_000_000);
            }
        }
    };
    damage_all(&mount);
    drop_pages(&file);
    assert!(fs::read(&file).expect("the big file") == big);
    assert_eq!(mount.requests().1, 2, "both were damaged");
    assert!(mount.umount().status.success());
    damage_all(&mount);
    server.stop();
    assert!(mount.again().status.success());
    let errno = fs::read(&file).expect_err("nothing whole is left").raw_os_error();
    assert!(matches!(errno, Some(libc::EIO | libc::EHOSTUNREACH | libc::ETIMEDOUT)), "{errno:?}");
}

/// Passthrough opens of one inode must have one backing file: the damaged one stays with who has it
/// open.
#[test]
fn damage_of_an_open_file_gives_the_next_reader_a_whole_one() {
    let (server, big) = registry();
    let Some(mount) = mount(&server, &[]) else { return };
    if !is_passthrough(&mount) {
        return;
    }
    let file = mount.join(server.host()).join("acme/net/1.0/big.bin");
    let held = fs::File::open(&file).expect("the big file");
    let files = cached(&mount, "members", BIG as u64);
    damage(&files[0], 4242);
    assert!(fs::read(&file).expect("the kernel looks the name up again") == big);
    assert!(fs::read(&file).expect("and again") == big);
    drop(held);
    assert!(fs::read(&file).expect("and after the first is closed") == big);
}

#[test]
fn damage_below_plain_reads_is_found_and_healed() {
    for options in [&["--no-passthrough"][..], &["--read-only", "--no-passthrough"]] {
        let (server, big) = registry();
        let Some(mount) = mount(&server, options) else { return };
        let dir = mount.join(server.host()).join("acme/net/1.0");
        let (file, small) = (dir.join("big.bin"), dir.join("small.tf"));
        assert!(fs::read(&file).expect("the big file") == big);
        assert_eq!(fs::read(&small).expect("the small file"), b"locals {}\n");
        for cached in cached(&mount, "members", BIG as u64) {
            damage(&cached, 2_000_000);
        }
        drop_pages(&file);
        assert!(fs::read(&file).expect("the big file") == big, "{options:?}");
        assert_eq!(mount.requests().1, 1, "{options:?}");
    }
}

/// A program that maps a file writable, touches a page of it, and flips a byte each time it is told
/// to.
struct Mapper {
    process: std::process::Child,
    said: std::io::BufReader<std::process::ChildStdout>,
}

impl Mapper {
    fn start(file: &Path) -> Mapper {
        let program = "import mmap, sys\n\
                       file = open(sys.argv[1], 'r+b')\n\
                       bytes = mmap.mmap(file.fileno(), 0)\n\
                       file.close()\n\
                       for at in range(0, len(bytes), 4096): bytes[at] = bytes[at]\n\
                       print('dirty', flush=True)\n\
                       for line in sys.stdin:\n\
                       \x20   bytes[int(line)] ^= 0x40\n\
                       \x20   print('flipped', flush=True)\n";
        let mut process = Command::new("python3")
            .args(["-c", program])
            .arg(file)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3");
        let said = std::io::BufReader::new(process.stdout.take().expect("a pipe"));
        let mut mapper = Mapper { process, said };
        mapper.wait_for("dirty\n");
        mapper
    }

    fn wait_for(&mut self, wanted: &str) {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.said, &mut line).expect("a line");
        assert_eq!(line, wanted);
    }

    fn flip(&mut self, offset: u64) {
        use std::io::Write;
        writeln!(self.process.stdin.as_ref().expect("a pipe"), "{offset}").expect("it listens");
        self.wait_for("flipped\n");
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Pages that were written before the check change after it without a trace in the file's times.
#[test]
fn a_file_that_somebody_has_mapped_writable_gives_no_wrong_byte() {
    let (server, big) = registry();
    for options in [&[][..], &["--no-passthrough"], &["--read-only", "--no-passthrough"]] {
        let Some(mount) = mount(&server, options) else { return };
        let file = mount.join(server.host()).join("acme/net/1.0/big.bin");
        assert!(fs::read(&file).expect("the big file") == big);
        let mut rng = fastrand::Rng::with_seed(11);
        for round in 0..6 {
            let files = cached(&mount, "members", BIG as u64);
            let [cached] = files.as_slice() else { panic!("one unpacked file: {files:?}") };
            fs::set_permissions(cached, fs::Permissions::from_mode(0o600)).expect("our file");
            let mut mapper = Mapper::start(cached);
            fs::set_permissions(cached, fs::Permissions::from_mode(0o400)).expect("our file");
            let held = (round % 2 == 0).then(|| fs::File::open(&file).expect("the big file"));
            assert!(fs::read(&file).expect("the big file") == big, "it is checked now");
            mapper.flip(rng.u64(..BIG as u64));
            drop_pages(&file);
            assert!(
                fs::read(&file).expect("the big file") == big,
                "{options:?}, round {round}: a wrong byte"
            );
            drop(held);
            // What was set aside is another file; the one in its place may be the same as before.
            mapper.flip(rng.u64(..BIG as u64));
            drop(mapper);
            drop_pages(&file);
            assert!(
                fs::read(&file).expect("the big file") == big,
                "{options:?}, round {round}: after it was unmapped"
            );
        }
        assert_eq!(mount.requests().1, 1, "the archive was whole");
    }
}
