//! What is staged outlives the daemon, the mount and a full disk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{Bed, names, read};
use crate::support::mount::Options;
use crate::support::skip;

#[test]
fn staged_files_outlive_kill_and_umount() {
    let Some(mut bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("acme/net/1.0.0");
    fs::write(dir.join("main.tf"), "one").unwrap();
    let mut open = fs::File::create(dir.join("open.tf")).unwrap();
    open.write_all(b"two").unwrap();
    bed.mount.kill();
    drop(open);
    assert!(bed.mount.again().status.success());
    assert_eq!(
        (read(&dir.join("main.tf")), read(&dir.join("open.tf"))),
        ("one".into(), "two".into())
    );
    assert!(bed.mount.umount().status.success());
    assert!(bed.mount.again().status.success());
    assert_eq!(names(&dir), ["main.tf", "open.tf"]);
}

/// Each mount point has its own.
#[test]
fn two_mounts_of_one_state_directory_stage_apart() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    bed.dir("acme");
    let state = bed.mount.path().with_file_name("state");
    let places = names(&state.join("mounts"));
    assert_eq!(places.len(), 1);
    assert!(
        state
            .join("mounts")
            .join(&places[0])
            .join("staging")
            .join(super::HOST)
            .join("acme")
            .is_dir()
    );
}

/// A tmpfs that is gone when the value is.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// O06
#[test]
fn a_full_disk_is_told_to_who_writes_and_harms_nothing() {
    let Some(mut bed) = Bed::start(Options::new()) else { return };
    let state = bed.mount.path().with_file_name("state");
    assert!(bed.mount.umount().status.success());
    if mount("tmpfs", &state, "tmpfs", MountFlags::empty(), c"size=4m,mode=700").is_err() {
        return skip("mounting a small disk needs root");
    }
    let disk = SmallDisk(state);
    assert!(bed.mount.again().status.success());
    let dir = bed.dir("net/1.0.0");
    fs::write(dir.join("before"), "kept").unwrap();
    let mut file = fs::File::create(dir.join("big")).unwrap();
    let chunk = vec![7; 64 << 10];
    let full = (0..200).find_map(|_| file.write_all(&chunk).err()).expect("an end of the disk");
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    let length = file.metadata().unwrap().len();
    drop(file);
    assert_eq!(fs::metadata(dir.join("big")).unwrap().len(), length);
    assert!(fs::read(dir.join("big")).unwrap().iter().all(|byte| *byte == 7));
    assert_eq!(read(&dir.join("before")), "kept");
    fs::remove_file(dir.join("big")).unwrap();
    fs::write(dir.join("after"), vec![1; 1 << 20]).unwrap();
    assert!(bed.mount.umount().status.success());
    drop(disk);
}

/// The tree has no descriptor per file.
#[test]
fn many_files_need_few_descriptors() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = bed.dir("net/1.0.0");
    for n in 0..500 {
        fs::create_dir(dir.join(format!("d{n}"))).unwrap();
        fs::write(dir.join(format!("d{n}/main.tf")), "x").unwrap();
    }
    let seen: u64 =
        (0..500).map(|n| fs::metadata(dir.join(format!("d{n}/main.tf"))).unwrap().size()).sum();
    assert_eq!(seen, 500);
    let Ok(open) = fs::read_dir(format!("/proc/{}/fd", bed.mount.pid().as_raw_nonzero())) else {
        return skip("only root sees the daemon's descriptors");
    };
    assert!(open.count() < 200);
}
