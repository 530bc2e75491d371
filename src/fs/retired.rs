//! Whether another process took the place of this mount. What is open here goes on until it is
//! closed; nothing that writes is begun any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{Errno, FsError};

/// See the module. Clones say the same.
#[derive(Clone, Default)]
pub(super) struct Retired(Arc<AtomicBool>);

impl Retired {
    pub(super) fn retire(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether something that writes may begin. The kernel answers ESTALE by looking the whole path
    /// up once more, and that leads to the new mount.
    pub(super) fn may_begin(&self) -> Result<(), FsError> {
        if self.is_retired() { Err(FsError::plain(Errno::ESTALE)) } else { Ok(()) }
    }
}
