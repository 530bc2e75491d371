//! Cache files that change after they were verified.

use super::*;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

/// How many files are damaged one after another: `HEALING_FLIPS`, or a quick 60.
fn flips() -> usize {
    std::env::var("HEALING_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// Changes one byte of a file, or cuts it short, or makes it longer; in place, as a writer does who
/// has it open.
fn damage(path: &Path, random: &mut fastrand::Rng) {
    let length = path.metadata().unwrap().len();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    // What is kept in memory is not read, so that its file may have been cut to nothing before.
    match random.u8(..6) {
        _ if length == 0 => file.set_len(1).unwrap(),
        0 => file.set_len(random.u64(..length)).unwrap(),
        1 => file.set_len(length + 1).unwrap(),
        _ => {
            let (at, mut byte) = (random.u64(..length), [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << random.u8(..8))], at).unwrap();
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
}

// L12
#[test]
fn files_of_the_cache_are_their_owners_alone_and_nobody_writes_them_again() {
    let releases = Releases::new(2, &[1 << 20, 1000]);
    let Some(mount) = releases.mount(releases.options()) else { return };
    releases.all_right(&mount);
    let files = objects(&mount.cache());
    assert!(files.len() >= 6, "{files:?}");
    for file in &files {
        let mode = file.metadata().unwrap().mode() & 0o7777;
        // A sidecar is replaced by a new one, never written to.
        assert!(
            mode == 0o400 || (mode == 0o600 && file.extension().is_some_and(|e| e == "sum")),
            "{file:?} {mode:o}"
        );
        for dir in file.ancestors().skip(1).take_while(|dir| *dir != mount.cache()) {
            assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o700, "{}", dir.display());
        }
    }
    assert_eq!(mount.cache().join("v1/key").metadata().unwrap().mode() & 0o7777, 0o600);
}

// L12, O08, O09
#[test]
fn what_a_writer_changes_after_verification_is_noticed_and_healed_online() {
    let releases = Releases::new(1, &[1 << 20, 300_000, 1000]);
    let Some(mount) = releases.mount(releases.options()) else { return };
    let mut random = fastrand::Rng::with_seed(8);
    releases.all_right(&mount);
    let downloads = releases.downloads();
    for _ in 0..flips() {
        let files = objects(&mount.cache());
        damage(&files[random.usize(..files.len())], &mut random);
        for (path, wanted) in &releases.files {
            let path = mount.join(path);
            // Who has it open already may be told EIO; who opens it anew is served.
            match read_fresh(&path) {
                Ok(bytes) => assert!(bytes == *wanted, "wrong bytes in {}", path.display()),
                Err(e) => {
                    assert_eq!(e.raw_os_error(), Some(libc::EIO), "{}: {e}", path.display());
                    right(&path, wanted);
                }
            }
        }
    }
    assert!(releases.downloads() > downloads, "no damage was ever noticed");
}

// O08, O09
#[test]
fn damage_is_eio_offline_and_healed_when_online_again() {
    let releases = Releases::new(3, &[1 << 20]);
    let Some(mut mount) = releases.mount(releases.options()) else { return };
    releases.all_right(&mount);
    for path in objects(&mount.cache()) {
        // Of a package that is there whole, a member is made again without a network.
        if path.metadata().unwrap().len() > 1 << 20 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&content(512, 99), 1 << 19).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        }
    }
    for path in objects(&mount.cache()).iter().filter(|p| p.to_string_lossy().contains("/members/"))
    {
        fs::remove_file(path).unwrap();
    }
    assert!(mount.umount().status.success());
    let offline =
        mount.again_with(&[releases.server.host()], releases.options().args(["--offline"]));
    assert!(offline.status.success(), "{offline:?}");
    let requests = releases.server.requests().len();
    for (path, wanted) in &releases.files {
        let error = match read_fresh(&mount.join(path)) {
            Ok(bytes) if bytes == *wanted => panic!("{} was never damaged", path.display()),
            Ok(_) => panic!("wrong bytes in {}", path.display()),
            Err(error) => error,
        };
        // EIO where the damage is found; what was removed because of it is then not there.
        let documented = [Some(libc::EIO), Some(libc::EHOSTUNREACH)];
        assert!(documented.contains(&error.raw_os_error()), "{}: {error}", path.display());
    }
    assert_eq!(releases.server.requests().len(), requests, "offline asks nobody");
    assert!(mount.umount().status.success());
    let online = mount.again_with(&[releases.server.host()], releases.options());
    assert!(online.status.success(), "{online:?}");
    releases.all_right(&mount);
    assert_eq!(damaged(&mount), 0);
}
