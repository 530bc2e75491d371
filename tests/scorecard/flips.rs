//! Single bits of cache files that flip, one in each file at a time: each is found, no wrong byte
//! is read, and all of it is there again afterwards.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use rustix::fs::{Advice, fadvise};
use tofufs::digest::Digest;

use super::support::hostile::Hostile;
use super::support::mount::{Mount, Options};
use super::support::pack::{self, noise};
use super::*;

const FLIPS: u64 = 10_000;
const RELEASES: u64 = 40;

/// Flips a random bit of the file; its digest then.
fn flip(file: &Path, random: &mut fastrand::Rng) -> Digest {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    let open = fs::File::options().read(true).write(true).open(file).unwrap();
    let (at, mut byte) = (random.u64(..open.metadata().unwrap().len()), [0]);
    open.read_exact_at(&mut byte, at).unwrap();
    open.write_all_at(&[byte[0] ^ (1 << random.u8(..8))], at).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o400)).unwrap();
    Digest::of(&fs::read(file).unwrap())
}

/// The cache's files with content or checksums.
fn files(cache: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![cache.join("v1/blobs"), cache.join("v1/members")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path())
            } else {
                found.push(entry.path())
            }
        }
    }
    found.retain(|file| file.metadata().is_ok_and(|m| m.len() > 0));
    found.sort();
    found
}

/// Reads past the page cache, which would hide what lies on the disk.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let open = fs::File::open(file)?;
    fadvise(&open, 0, None, Advice::DontNeed)?;
    fs::read(file)
}

/// O08
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn every_flip_in_the_cache_is_found_and_healed() {
    let server = Hostile::start();
    let mut wanted = Vec::new();
    for release in 0..RELEASES {
        let (small, large) = (noise(release, 900), noise(1000 + release, 180_000));
        let package = pack::module(&[("small.tf", &small), ("large.bin", &large)]);
        server.publish("acme/net", &format!("1.0.{release}"), &package);
        let dir = PathBuf::from(server.host()).join("acme/net").join(format!("1.0.{release}"));
        wanted.push((dir.join("small.tf"), small));
        wanted.push((dir.join("large.bin"), large));
    }
    let options = Options::new()
        .args(["--plain-http", &server.host()])
        .longer(std::time::Duration::from_secs(1800));
    let Some(mut mount) = Mount::start(&[server.host()], options) else { return };
    let all_right = |mount: &Mount, wrong: &mut Vec<String>| {
        for (path, content) in &wanted {
            let path = mount.join(path);
            // Who opens it the moment before may be told EIO; who opens it anew is served.
            match read(&path).or_else(|_| read(&path)) {
                Ok(bytes) if bytes == *content => {}
                Ok(_) => wrong.push(format!("wrong bytes in {}", path.display())),
                Err(e) => wrong.push(format!("{}: {e}", path.display())),
            }
        }
    };
    let mut wrong = Vec::new();
    let mut random = fastrand::Rng::with_seed(8);
    let (goal, mut tries, mut by_reading) = (amount(FLIPS, 1_000), Tries::default(), 0);
    while tries.tried < goal {
        assert!(mount.umount().status.success());
        let mut pull = tofufs(&mount.home());
        pull.args(["pull", "--plain-http", &server.host(), "--cache-dir"]).arg(mount.cache());
        pull.arg(format!("{}/acme/net:1.0.*", server.host()));
        run(pull).unwrap();
        let flipped: Vec<_> = files(&mount.cache())
            .into_iter()
            .map(|file| (flip(&file, &mut random), file))
            .collect();
        assert!(!flipped.is_empty(), "an empty cache");
        // A new one, which has read nothing yet.
        assert!(mount.again().status.success());
        let is_there = |digest: &Digest, file: &Path| {
            fs::read(file).is_ok_and(|bytes| Digest::of(&bytes) == *digest)
        };
        all_right(&mount, &mut wrong);
        by_reading += flipped.iter().filter(|(d, f)| !is_there(d, f)).count();
        // What nobody had to read, because its content is there in another form as well.
        damaged(&mount.home(), &mount.cache()).unwrap();
        all_right(&mount, &mut wrong);
        for (digest, file) in &flipped {
            let outcome = match (is_there(digest, file), wrong.first()) {
                (_, Some(wrong)) => Err(wrong.clone()),
                (true, None) => Err(format!("{} stays damaged", file.display())),
                (false, None) => Ok(()),
            };
            tries.count(outcome);
        }
    }
    let figures = format!(
        "{by_reading} found by who read the file, {} by `cache verify`",
        tries.tried - by_reading as u64
    );
    tries.score("bit flips in the cache", FLIPS, figures).tell();
}
