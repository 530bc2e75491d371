//! Removing what was published, and nothing else.
//!
//! A staged tree goes in one rename, so after a crash it is there as it was, or not at all. It goes
//! only if it is what was sealed; what was written to it since stays where it is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, Mode, RenameFlags, fchmod, fsync, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::roots::{StagingRoots, subject};
use super::tree::{FileStamp, PLAIN_DIRECTORY, list};
use crate::failure::{Failure, Refusal};
use crate::local::{RelPath, as_owner};

/// Everything that lies in a directory, links not followed: paths, and stamps of what is no
/// directory.
#[derive(PartialEq, Eq)]
pub(super) struct Snapshot(Vec<(Vec<u8>, Option<FileStamp>)>);

impl Snapshot {
    pub(super) fn of(dir: BorrowedFd, subject: &str) -> Result<Snapshot, Refusal> {
        let mut entries = Vec::new();
        below(dir, b"", subject, &mut entries)?;
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Snapshot(entries))
    }
}

fn below(
    dir: BorrowedFd,
    prefix: &[u8],
    subject: &str,
    entries: &mut Vec<(Vec<u8>, Option<FileStamp>)>,
) -> Result<(), Refusal> {
    let failed = |e: Errno| Refusal::io(subject, e);
    for (name, kind) in list(dir, subject)? {
        let path = [prefix, b"/", &name].concat();
        if kind == FileType::Directory {
            let inner =
                openat(dir, name.as_slice(), PLAIN_DIRECTORY, Mode::empty()).map_err(failed)?;
            below(inner.as_fd(), &path, subject, entries)?;
            entries.push((path, None));
        } else {
            let stat = statat(dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            entries.push((path, Some(FileStamp::of(&stat))));
        }
    }
    Ok(())
}

/// A staged tree that was moved aside: its name there.
pub(super) struct MovedAside(String);

/// Moves the staged tree `root` into the directory `removed`, on the same disk, if it is what
/// `snapshot` says.
///
/// # Errors
/// `Busy` where something else lies there by now, and those of the disk. The tree is then as it
/// was.
pub(super) fn move_aside(
    staging: &StagingRoots,
    root: &RelPath,
    snapshot: &Snapshot,
    removed: &OwnedFd,
) -> Result<MovedAside, Refusal> {
    let failed = |e: Errno| Refusal::io(subject(root), e);
    let changed = || {
        let rule =
            "it was published, but something else was written to it meanwhile, which stays there";
        Refusal::new(Failure::Busy, subject(root), rule)
    };
    let staged = staging.open(root)?;
    let now = Snapshot::of(staged.as_fd(), &subject(root))?;
    if now != *snapshot {
        return Err(changed());
    }
    let (above, name) = root.split_last().ok_or_else(changed)?;
    let (above, name) = (staging.open(&above)?, name.as_os_str());
    let aside = format!("{:032x}", fastrand::u128(..));
    // The staged tree may have any modes: it is moved and removed with the owner's rights.
    let places = [above.as_fd(), staged.as_fd()];
    let away = || renameat_with(&above, name.as_bytes(), removed, &aside, RenameFlags::NOREPLACE);
    as_owner(&places, away).map_err(failed)?;
    let moved = openat(removed, &aside, PLAIN_DIRECTORY, Mode::empty()).map_err(failed)?;
    // Who had the directory open could still write.
    if Snapshot::of(moved.as_fd(), &subject(root))? != *snapshot {
        let back =
            || renameat_with(removed, &aside, &above, name.as_bytes(), RenameFlags::NOREPLACE);
        as_owner(&places, back).map_err(failed)?;
        return Err(changed());
    }
    fsync(&above).map_err(failed)?;
    Ok(MovedAside(aside))
}

/// Removes a tree that was moved aside into `removed`, as far as that goes: what stays goes when
/// the directory is [cleared](clear).
pub(super) fn clear_aside(removed: &OwnedFd, aside: &MovedAside) {
    clear_entry(removed.as_fd(), aside.0.as_bytes(), FileType::Directory);
}

/// Removes all that lies in the directory, as far as that goes. Nobody may be moving a tree there.
pub(super) fn clear(dir: &OwnedFd) {
    clear_below(dir.as_fd());
}

fn clear_below(dir: BorrowedFd) {
    let Ok(entries) = list(dir, "") else { return };
    for (name, kind) in entries {
        clear_entry(dir, &name, kind);
    }
}

fn clear_entry(dir: BorrowedFd, name: &[u8], kind: FileType) {
    if kind != FileType::Directory {
        let _ = unlinkat(dir, name, AtFlags::empty());
        return;
    }
    if let Ok(inner) = openat(dir, name, PLAIN_DIRECTORY, Mode::empty()) {
        // Where the mode stays as it is, what is in there stays as well, until this is tried again.
        let _ = fchmod(&inner, Mode::RWXU);
        clear_below(inner.as_fd());
    }
    let _ = unlinkat(dir, name, AtFlags::REMOVEDIR);
}
