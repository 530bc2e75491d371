//! How a mount comes about other than by `tofufs mount` of root: mount(8), fstab, a user without
//! privileges.
//!
//! The scripts run in mount namespaces of their own, so that nothing of this machine is touched and
//! no mount is left.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{layouts, pack, skip};

/// A directory that everybody can enter, with the program, a store and a mount point `mnt`.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))
            .expect("a directory of ours");
        let place = Place { dir };
        layouts::add(
            &place.path("store"),
            "reg.example",
            "acme/net",
            "1.0.0",
            &pack::module(&[("main.tf", b"# 1\n")]),
        );
        fs::create_dir(place.path("mnt")).expect("a writable directory");
        // A hard link would be refused to somebody else, and a symbolic one may lead where only
        // root can go.
        fs::copy(env!("CARGO_BIN_EXE_tofufs"), place.path("tofufs")).expect("a writable directory");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a script in the place with a mount table of its own; `None`, with the reason printed,
    /// where this process may have none. What is mounted at `mnt` goes when the script ends.
    fn run(&self, script: &str) -> Option<String> {
        let may = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
        if !may.is_ok_and(|status| status.success()) || fs::File::open("/dev/fuse").is_err() {
            skip("this process may not make a mount namespace, or not open /dev/fuse");
            return None;
        }
        let whole = format!(
            "set -eu\ntrap 'umount -l mnt 2> /dev/null || true' EXIT\ntrap 'exit 1' TERM\n{script}"
        );
        let output = Command::new("timeout")
            .args(["-k", "5", "60", "unshare", "--mount", "sh", "-c", &whole])
            .current_dir(self.dir.path())
            .env("HOME", self.path("home"))
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::null())
            .output()
            .expect("timeout runs");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{out}{err}", output.status);
        Some(out.into_owned())
    }
}

/// `findmnt` for the mount point.
const SHOW: &str = "findmnt -n -o FSTYPE,SOURCE,OPTIONS -M \"$PWD/mnt\"";
const READ: &str = "cat mnt/reg.example/acme/net:1.0.0/main.tf";

fn shown<'a>(printed: &'a str, source: &str, options: &[&str]) -> Vec<&'a str> {
    let lines: Vec<_> = printed.lines().filter(|line| line.starts_with("fuse.tofufs")).collect();
    for line in &lines {
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!(fields[1], source, "{printed}");
        let has = |option: &&&str| fields[2].split(',').any(|o| o == **option);
        assert_eq!(options.iter().filter(has).count(), options.len(), "{printed}");
    }
    lines
}

#[test]
fn mount_by_type_finds_the_helper_of_that_type() {
    let place = Place::new();
    fs::create_dir(place.path("sbin")).unwrap();
    symlink(place.path("tofufs"), place.path("sbin/mount.fuse.tofufs")).unwrap();
    let source = format!("oci:{}", place.path("store").display());
    let script = format!(
        "mount --bind sbin \"$(realpath /sbin)\"\n\
         mount -t fuse.tofufs {source} \"$PWD/mnt\" -o ro,allow_other,tag_ttl=5m\n{SHOW}\n{READ}\numount mnt\n"
    );
    let Some(printed) = place.run(&script) else { return };
    assert_eq!(
        shown(&printed, &source, &["ro", "nosuid", "nodev", "allow_other"]).len(),
        1,
        "{printed}"
    );
    assert!(printed.ends_with("# 1\n"), "{printed}");
}

#[test]
fn a_line_of_fstab_is_mounted_once() {
    let place = Place::new();
    fs::create_dir(place.path("sbin")).unwrap();
    symlink(place.path("tofufs"), place.path("sbin/mount.fuse.tofufs")).unwrap();
    let source = format!("oci:{};registry.example", place.path("store").display());
    let line = format!(
        "{source}  {}  fuse.tofufs  ro,nofail,_netdev,x-systemd.automount,offline,cache_size=1GiB  \
         0 0\n",
        place.path("mnt").display()
    );
    fs::write(place.path("fstab"), line).unwrap();
    // The second `mount -a` sees by the name of the source that all is mounted.
    let script = format!(
        "mount --bind sbin \"$(realpath /sbin)\"\nmount -T fstab -a\n{SHOW}\nmount -T fstab -a\n\
         {SHOW}\n{READ}\numount mnt\n"
    );
    let Some(printed) = place.run(&script) else { return };
    assert_eq!(shown(&printed, &source, &["ro", "nosuid", "nodev"]).len(), 2, "{printed}");
    assert!(printed.ends_with("# 1\n"), "{printed}");
}

/// The helper of fuse3 runs the program by the name that follows `fuse.`.
#[test]
fn mount_by_type_works_through_the_helper_of_fuse_too() {
    if !Path::new("/sbin/mount.fuse").exists() || Path::new("/sbin/mount.fuse.tofufs").exists() {
        return skip("there is no /sbin/mount.fuse, or a helper that comes before it");
    }
    let place = Place::new();
    fs::create_dir(place.path("bin")).unwrap();
    symlink(place.path("tofufs"), place.path("bin/tofufs")).unwrap();
    let source = format!("oci:{}", place.path("store").display());
    let script = format!(
        "mount --bind bin /usr/local/bin\nmount -t fuse.tofufs {source} \"$PWD/mnt\" -o ro\n\
         {SHOW}\n{READ}\numount mnt\n"
    );
    let Some(printed) = place.run(&script) else { return };
    assert_eq!(shown(&printed, &source, &["ro", "nosuid", "nodev"]).len(), 1, "{printed}");
}

/// A user who may open /dev/fuse mounts through fusermount3, and nobody else sees into it.
#[test]
fn a_user_without_privileges_mounts_reads_and_unmounts() {
    let setuid =
        |path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o4000 != 0);
    if !setuid("/usr/bin/fusermount3") && !setuid("/bin/fusermount3") {
        return skip("fusermount3 is not installed with the rights that it needs");
    }
    let place = Place::new();
    let source = format!("oci:{}", place.path("store").display());
    fs::write(
        place.path("as_nobody"),
        format!(
            "set -eu\numask 077\nmkdir \"$HOME/mnt\"\n./tofufs mount {source} \"$HOME/mnt\"\n\
             cat \"$HOME/mnt/reg.example/acme/net/1.0.0/main.tf\"\nstat -c 'owner %u' \"$HOME/mnt/reg.example\"\n\
             ./tofufs status \"$HOME/mnt\" > /dev/null\n"
        ),
    )
    .unwrap();
    // Root is kept out as well: the mount is its owner's.
    let script = "mkdir devices home\nmount -t tmpfs none devices\nmknod -m 0666 devices/fuse c 10 229\n\
         mount --bind devices/fuse /dev/fuse\nchown 65534:65534 home\n\
         as='setpriv --reuid=65534 --regid=65534 --clear-groups'\n\
         $as sh as_nobody\nls home/mnt 2> /dev/null && echo 'root can look' || echo 'root cannot look'\n\
         grep -c \" $PWD/home/mnt fuse.tofufs \" /proc/self/mounts\n\
         $as ./tofufs umount home/mnt\ngrep -c \" $PWD/home/mnt fuse\" /proc/self/mounts || true\n";
    let Some(printed) = place.run(script) else { return };
    assert_eq!(printed, "# 1\nowner 65534\nroot cannot look\n1\n0\n");
}
