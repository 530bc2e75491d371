//! The owner's right to write, which no mode takes away: a copied tree may bring directories of
//! mode 0555 and files of mode 0444, and has to be filled, moved and removed all the same. Where
//! the disk refuses something to an ordinary user, the mode is wider for as long as that one call
//! takes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{FileType, Mode};

use super::{Errno, TreeResult};

/// Held while a mode is wider than it is shown, and while one is changed for good.
static MODES: Mutex<()> = Mutex::new(());

pub(super) fn modes() -> MutexGuard<'static, ()> {
    MODES.lock()
}

/// The name under which the system finds what a descriptor holds, links included: a way to calls
/// that take no descriptor of the kind that only marks a place.
pub(super) fn by_descriptor(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Makes a call that needs the owner's rights to `places`, which may be descriptors that only mark
/// a place. It is made a second time where the disk refused it.
///
/// # Errors
/// Those of the call.
pub fn as_owner<T>(
    places: &[BorrowedFd<'_>],
    mut call: impl FnMut() -> TreeResult<T>,
) -> TreeResult<T> {
    let first = call();
    if !matches!(first, Err(Errno::ACCESS)) {
        return first;
    }
    let _modes = modes();
    let granted: Vec<Granted> = places.iter().filter_map(|place| Granted::new(*place)).collect();
    if granted.is_empty() { first } else { call() }
}

/// A mode that is wider until this is dropped.
struct Granted {
    path: String,
    before: Mode,
}

impl Granted {
    /// `None` where the owner has all rights already, or where this process cannot give them.
    fn new(place: BorrowedFd<'_>) -> Option<Granted> {
        let stat = rustix::fs::fstat(place).ok()?;
        let before = Mode::from_raw_mode(stat.st_mode);
        let wanted = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Mode::RWXU,
            FileType::RegularFile => Mode::RUSR | Mode::WUSR,
            _ => return None,
        };
        if before.contains(wanted) {
            return None;
        }
        let path = by_descriptor(place.as_fd());
        rustix::fs::chmod(&path, before | wanted).ok()?;
        Some(Granted { path, before })
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        // The descriptor in the path outlives this, and who could widen the mode can narrow it.
        if let Err(e) = rustix::fs::chmod(&self.path, self.before) {
            tracing::warn!("a mode stays wider than it was: {e}");
        }
    }
}
