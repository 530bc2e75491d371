//! Who may write, and to whom things are shown to belong.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{Bed, errno};
use crate::support::mount::Options;
use crate::support::skip;

const NOBODY: u32 = 65534;

fn as_nobody(script: &str, dir: &Path) -> String {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .current_dir("/")
        .env("DIR", dir)
        .env("LC_ALL", "C")
        .uid(NOBODY)
        .gid(NOBODY);
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root can ask as another user");
    }
    root
}

/// Only the mount's owner writes, whatever the modes say.
#[test]
fn others_read_and_do_not_write() {
    if !is_root() {
        return;
    }
    let Some(bed) = Bed::start(Options::new().args(["--allow-other"])) else { return };
    // The test's own directory is private.
    fs::set_permissions(bed.mount.path().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let dir = bed.dir("net/1.0.0");
    fs::write(dir.join("main.tf"), "text\n").unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(dir.join("main.tf"), Permissions::from_mode(0o666)).unwrap();
    assert_eq!(as_nobody("cat $DIR/main.tf", &dir), "text\n");
    for script in [
        "touch $DIR/new",
        "echo x >> $DIR/main.tf",
        "mkdir $DIR/d",
        "rm -f $DIR/main.tf",
        "mv $DIR/main.tf $DIR/x",
    ] {
        let said = as_nobody(script, &dir);
        assert!(said.contains("Permission denied"), "{script}: {said}");
    }
    assert_eq!(super::read(&dir.join("main.tf")), "text\n");
}

#[test]
fn the_disk_says_whose_a_file_is() {
    let Some(bed) = Bed::start(Options::new()).filter(|_| is_root()) else { return };
    let dir = bed.dir("net");
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    chown(dir.join("file"), None, Some(NOBODY)).unwrap();
    let of = |path: &Path| fs::metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
    assert_eq!((of(&dir), of(&dir.join("file"))), ((NOBODY, NOBODY), (0, NOBODY)));
    fs::set_permissions(&dir, Permissions::from_mode(0o2755)).unwrap();
    fs::create_dir(dir.join("inner")).unwrap();
    assert_eq!(
        (of(&dir.join("inner")), fs::metadata(dir.join("inner")).unwrap().mode() & 0o7777),
        ((0, NOBODY), 0o2755)
    );
}

#[test]
fn an_owner_that_was_asked_for_is_shown_and_is_the_only_one() {
    let Some(bed) =
        Bed::start(Options::new().args(["--uid", "65534", "--gid", "65534"])).filter(|_| is_root())
    else {
        return;
    };
    let dir = bed.dir("net");
    assert_eq!(fs::metadata(&dir).map(|m| (m.uid(), m.gid())).unwrap(), (NOBODY, NOBODY));
    assert!(chown(&dir, Some(NOBODY), None).is_ok());
    assert_eq!(errno(chown(&dir, Some(1), None)), libc::EPERM);
}

/// L25: as POSIX has it, of who writes without privilege; by the handle that made the file, and by
/// another.
#[test]
fn writing_takes_the_set_id_bits_away() {
    let owner = ["--allow-other", "--uid", "65534", "--gid", "65534"];
    let Some(bed) = Bed::start(Options::new().args(owner)).filter(|_| is_root()) else { return };
    fs::set_permissions(bed.mount.path().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let dir = bed.dir("net");
    let script = "cd $DIR && for n in 1 2; do exec 3> f; chmod 6777 f; echo x >&3; stat -c %a f; exec 3>&-; done; \
                  chmod 6755 f; echo y >> f; stat -c %a f; chmod 2644 f; echo z >> f; stat -c %a f";
    assert_eq!(as_nobody(script, &dir), "777\n777\n755\n2644\n");
    fs::write(dir.join("g"), "").unwrap();
    fs::set_permissions(dir.join("g"), Permissions::from_mode(0o6755)).unwrap();
    fs::File::options()
        .append(true)
        .open(dir.join("g"))
        .and_then(|mut g| std::io::Write::write_all(&mut g, b"x"))
        .unwrap();
    assert_eq!(fs::metadata(dir.join("g")).unwrap().mode() & 0o7777, 0o6755, "root keeps them");
}
