//! The mount table of this process's mount namespace (proc_pid_mountinfo(5)).
//!
//! Reading it never touches a mounted file system, so it cannot hang on a dead or stuck one.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The type that the kernel shows for a mount of tofufs.
pub const FS_TYPE: &str = "fuse.tofufs";

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountInfo {
    /// The mount's number. It stays when the mount is moved, and is used again soon after the
    /// mount's end.
    pub id: u64,
    /// The number of the mount on which it is mounted.
    pub parent: u64,
    /// The device `MAJOR:MINOR`; mounts that show the same file system (bind mounts) share it. Used
    /// again too.
    pub device: String,
    /// Which directory of the file system is shown: `/` unless this is a bind mount of a part.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The type, with subtype.
    pub fs_type: String,
    /// What was given as the source.
    pub source: String,
    /// Who mounted it (`user_id` of a FUSE mount): beside root the only one who may unmount it.
    pub owner: Option<u32>,
}

impl MountInfo {
    /// Whether this is a mount of tofufs, as a whole.
    pub fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE && self.root == Path::new("/")
    }

    /// Who mounted it, if it is neither this process's user nor root who asks.
    pub fn foreign_owner(&self) -> Option<u32> {
        let user = rustix::process::geteuid();
        self.owner.filter(|owner| !user.is_root() && *owner != user.as_raw())
    }
}

/// Reads the table, in the order of mounting.
pub fn read() -> io::Result<Vec<MountInfo>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Reads the text of a table. Lines of another shape are left out.
pub fn parse(text: &[u8]) -> Vec<MountInfo> {
    text.split(|&b| b == b'\n').filter_map(entry).collect()
}

fn entry(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|&b| b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let parent = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = String::from_utf8_lossy(fields.next()?).into_owned();
    let root = PathBuf::from(unescape(fields.next()?));
    let point = PathBuf::from(unescape(fields.next()?));
    // The number of optional fields varies; a lone hyphen ends them.
    fields.find(|&field| field == b"-")?;
    let fs_type = unescape(fields.next()?).to_string_lossy().into_owned();
    let source = unescape(fields.next()?).to_string_lossy().into_owned();
    let mut options = fields.next().unwrap_or_default().split(|&b| b == b',');
    let owner = options.find_map(|option| {
        std::str::from_utf8(option.strip_prefix(b"user_id=")?).ok()?.parse().ok()
    });
    Some(MountInfo { id, parent, device, root, point, fs_type, source, owner })
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| first == b'\\').and_then(octal);
        plain.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(plain)
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// The mount that is seen at exactly this (absolute, resolved) path: of several the one on which
/// none is mounted. It need not be the last one: mounts can be put beneath others.
pub fn top_at<'a>(table: &'a [MountInfo], point: &Path) -> Option<&'a MountInfo> {
    let there = || {
        let is_there =
            |entry: &&MountInfo| entry.point.as_os_str().as_bytes() == point.as_os_str().as_bytes();
        table.iter().filter(is_there)
    };
    let is_covered =
        |entry: &MountInfo| there().any(|on| on.parent == entry.id && on.id != entry.id);
    there().rev().find(|entry| !is_covered(entry))
}

/// The mount that holds this (absolute, resolved) path.
pub fn holding<'a>(table: &'a [MountInfo], path: &Path) -> Option<&'a MountInfo> {
    path.ancestors().find_map(|ancestor| top_at(table, ancestor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        40 22 0:50 / /mnt/a\\040b rw,nosuid,nodev - fuse.tofufs ghcr.io/acme rw,user_id=0\n\
        41 22 0:51 / /mnt/x rw shared:2 master:3 - fuse.other what\\134ever rw\n\
        42 22 0:52 / /mnt/x rw - fuse.tofufs oci:/srv\\012 rw\n\
        43 22 0:52 /sub /bind rw - fuse.tofufs oci:/srv rw\n\
        not a line\n";

    #[test]
    fn escaped_names_and_optional_fields_are_read() {
        let table = parse(TABLE);
        assert_eq!(table.len(), 5);
        assert_eq!(table[1].point, Path::new("/mnt/a b"));
        assert_eq!((table[1].id, table[1].device.as_str()), (40, "0:50"));
        assert!(table[1].is_ours());
        assert_eq!((table[0].owner, table[1].owner, table[2].owner), (None, Some(0), None));
        assert_eq!(table[2].source, "what\\ever");
        assert_eq!(table[3].source, "oci:/srv\n");
    }

    #[test]
    fn of_two_mounts_at_one_place_the_later_is_seen() {
        let table = parse(TABLE);
        assert_eq!(top_at(&table, Path::new("/mnt/x")).map(|e| e.id), Some(42));
        assert_eq!(top_at(&table, Path::new("/mnt")), None);
        assert_eq!(holding(&table, Path::new("/mnt/x/y/z")).map(|e| e.id), Some(42));
        assert_eq!(holding(&table, Path::new("/mnt/xy")).map(|e| e.id), Some(22));
    }

    #[test]
    fn a_mount_beneath_another_is_not_seen() {
        let table = parse(
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            40 41 0:50 / /mnt rw - fuse.tofufs a rw\n\
            41 22 0:51 / /mnt rw - fuse.tofufs b rw\n",
        );
        assert_eq!(top_at(&table, Path::new("/mnt")).map(|e| e.id), Some(40));
    }

    #[test]
    fn a_bind_mount_of_a_part_is_no_mount_of_its_own() {
        assert!(!parse(TABLE)[4].is_ours());
    }

    #[test]
    fn the_running_table_can_be_read() {
        let table = read().unwrap();
        // Not the root, which a chroot does not show.
        assert!(top_at(&table, Path::new("/proc")).is_some());
    }
}
