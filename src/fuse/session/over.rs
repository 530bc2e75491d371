//! Mounting in the place of a mount that is in use, and what such mounts leave.
//!
//! The new mount is made out of sight, serves, is moved beneath the old one (`MOVE_MOUNT_BENEATH`,
//! Linux 6.5), and that is detached: there is no moment without a mount. An older kernel mounts over
//! the old one, which lies below then, reached by what is open in it, until what lies over it is
//! unmounted.
//!
//! An ordinary user has not the right to do so, and `fusermount3` mounts over the old one. It is
//! set-uid root, and the kernel lets no other user into a mount that is its user's alone, root
//! included: then the old one has to be unmounted before, which leaves a gap (see [`Gap`]).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use serde::{Deserialize, Serialize};

use super::mountinfo::{self, MountInfo};
use super::{
    Manner, MountError, Mounting, STUCK, Session, SessionEnd, SessionOptions, UnmountError,
    by_fusermount, by_mount, served, unmount, within,
};

/// The attribute of a mount's root that holds the control socket's path. A mount that another one
/// replaced has none.
pub const CONTROL: &str = "user.tofufs.control";

/// How a mount of tofufs answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It is served.
    Serving,
    /// It is served for what is open in it; another process took its place.
    Replaced,
    /// Its process is gone.
    Dead,
    /// It does not answer.
    Silent,
}

impl Condition {
    /// That of what is seen at a mount point.
    pub fn at(point: &Path) -> Condition {
        let root = point.to_owned();
        // Attributes may be answered by the kernel from what it remembers; statfs(2) never is.
        let look = move || match rustix::fs::statfs(&root) {
            Err(Errno::NOTCONN) => Condition::Dead,
            _ => match rustix::fs::getxattr(&root, CONTROL, &mut [0_u8; 256]) {
                Err(Errno::NODATA) => Condition::Replaced,
                Err(Errno::NOTCONN) => Condition::Dead,
                _ => Condition::Serving,
            },
        };
        within(STUCK, look).unwrap_or(Condition::Silent)
    }

    /// Whether nothing is lost where it is taken out of sight.
    pub fn is_left(self) -> bool {
        matches!(self, Condition::Replaced | Condition::Dead)
    }
}

/// Takes mounts of tofufs at `point` out of sight that a mount over them has left: dead ones, and
/// those that were replaced.
pub fn clear_left(point: &Path, mounting: &dyn Mounting) -> Result<(), UnmountError> {
    loop {
        let table = mountinfo::read().unwrap_or_default();
        let left = mountinfo::top_at(&table, point).filter(|top| {
            top.is_ours() && top.foreign_owner().is_none() && Condition::at(point).is_left()
        });
        match left {
            None => return Ok(()),
            Some(left) => mounting.unmount(left, Manner::Lazily)?,
        }
    }
}

/// Whether a path may lead to no mount for a moment, where it cannot be replaced otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub enum Gap {
    /// Never.
    #[default]
    Refused,
    /// For as long as it takes to unmount, and to mount again.
    Allowed,
}

/// Who mounts for a session in the place of another mount.
pub trait Replacing: Mounting {
    /// Makes a mount for the place of `old`; the kernel's connection.
    fn mount_over(
        &self,
        old: &MountInfo,
        options: &SessionOptions,
        gap: Gap,
    ) -> Result<OwnedFd, MountError>;

    /// Gives the mount that was made last the place of `old`, if it has no place yet.
    fn take_place(&self, old: &MountInfo) -> Result<(), MountError>;
}

/// Has `mounting` mount in the place of `old`, and serves as [`super::start`] does.
pub fn start_over<F: fuser::Filesystem>(
    mounting: Arc<impl Replacing + 'static>,
    (old, gap): (&MountInfo, Gap),
    options: &SessionOptions,
    threads: usize,
    filesystem: F,
    connected: impl FnOnce(BorrowedFd<'_>),
) -> Result<(Session, SessionEnd), MountError> {
    let point = old.point.as_path();
    let disagreed = |source| MountError::System {
        point: point.to_owned(),
        what: "the kernel and tofufs could not agree",
        source,
    };
    let device = mounting.mount_over(old, options, gap)?;
    let (notifier, end) =
        served(device, options, threads, filesystem, connected).map_err(disagreed)?;
    mounting.take_place(old)?;
    let table = mountinfo::read().unwrap_or_default();
    let entry = mountinfo::top_at(&table, point).filter(|entry| entry.is_ours()).cloned();
    Ok((Session::new(entry, point, notifier, mounting), end))
}

/// Makes a mount for the place of `old`: the kernel's connection, and the mount, if it has no place
/// yet.
pub fn made(
    old: &MountInfo,
    options: &SessionOptions,
    gap: Gap,
) -> Result<(OwnedFd, Option<OwnedFd>), MountError> {
    let point = old.point.as_path();
    let system =
        |what, e: Errno| MountError::System { point: point.to_owned(), what, source: e.into() };
    match out_of_sight(options) {
        Ok((device, mount)) => Ok((device, Some(mount))),
        Err(Errno::PERM | Errno::ACCESS) => Ok((by_ordinary_user(point, options, gap)?, None)),
        // The calls that are used above came with Linux 5.2.
        Err(Errno::NOSYS) => {
            let device = by_mount(point, options).map_err(|e| system("mount(2) failed", e))?;
            Ok((device, None))
        }
        Err(e) => Err(system("it cannot be made", e)),
    }
}

/// Has `fusermount3` mount over what is mounted at `point`, or in its place where a gap is allowed.
fn by_ordinary_user(
    point: &Path,
    options: &SessionOptions,
    gap: Gap,
) -> Result<OwnedFd, MountError> {
    let refused = |rule: String| MountError::Refused { point: point.to_owned(), rule };
    match by_fusermount(point, options) {
        Err(MountError::Refused { rule, .. }) if rule.ends_with("Permission denied") => match gap {
            Gap::Refused => Err(refused(
                "fusermount3, with which an ordinary user mounts, may not look into a mount that \
                 is the user's alone; `tofufs upgrade --allow-gap` unmounts it and mounts it again \
                 at once, and a mount with --allow-other, or by root, is replaced without a gap"
                    .to_owned(),
            )),
            Gap::Allowed => {
                unmount(point, Manner::Lazily).map_err(|e| refused(e.to_string()))?;
                by_fusermount(point, options)
            }
        },
        made => made,
    }
}

/// A mount that has no place yet, and its device.
fn out_of_sight(options: &SessionOptions) -> Result<(OwnedFd, OwnedFd), Errno> {
    let made = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    fsconfig_set_string(&made, "source", options.name.as_str())?;
    fsconfig_set_string(&made, "subtype", "tofufs")?;
    fsconfig_set_string(&made, "fd", device.as_raw_fd().to_string())?;
    fsconfig_set_string(&made, "rootmode", "40000")?;
    fsconfig_set_string(&made, "user_id", uid.to_string())?;
    fsconfig_set_string(&made, "group_id", gid.to_string())?;
    for word in options.sharing() {
        fsconfig_set_flag(&made, *word)?;
    }
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if options.read_only {
        fsconfig_set_flag(&made, "ro")?;
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, options.no_exec);
    fsconfig_create(&made)?;
    let mount = fsmount(&made, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok((device, mount))
}

/// Gives a mount the place of `old`. Where the kernel does not mount beneath, it is mounted over the
/// old one.
pub fn put_in_place(mount: &OwnedFd, old: &MountInfo) -> Result<(), Errno> {
    let point = old.point.as_path();
    let moved = |flags: MoveMountFlags| {
        let flags = flags | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(mount, "", CWD, point, flags)
    };
    match moved(MoveMountFlags::MOVE_MOUNT_BENEATH) {
        Ok(()) => {
            let table = mountinfo::read().unwrap_or_default();
            // Somebody may have unmounted the old one meanwhile: then the new one is seen.
            if mountinfo::top_at(&table, point).is_some_and(|top| top.id == old.id) {
                rustix::mount::unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
            }
            Ok(())
        }
        // Before Linux 6.5, and where what is mounted elsewhere forbids it.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => moved(MoveMountFlags::empty()),
        Err(e) => Err(e),
    }
}

impl Session {
    /// Another process serves in the place of this mount from now on: it is not unmounted any more,
    /// and served until nothing of it is open.
    pub fn replace(&self) {
        self.replaced.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Whether another process took its place.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Takes dead mounts away that lie over this one; whether it is seen then.
    pub fn uncover(&self) -> io::Result<bool> {
        loop {
            let table = mountinfo::read()?;
            let Some(own) = self.find(&table) else { return Ok(false) };
            match mountinfo::top_at(&table, &own.point) {
                Some(top) if top.id == own.id => return Ok(true),
                Some(top) if top.is_ours() && Condition::at(&own.point) == Condition::Dead => {
                    self.mounting.unmount(top, Manner::Lazily).map_err(io::Error::other)?;
                }
                _ => return Ok(false),
            }
        }
    }
}
