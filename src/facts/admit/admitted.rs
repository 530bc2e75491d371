//! What only the gate makes.

use std::sync::Arc;

use crate::trust::Asked;

/// Leave to read a package: the release to which it belongs was admitted.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// As what it was admitted, and by which state of the policies; `None` where there are none.
    by: Option<(Arc<Asked>, u64)>,
}

impl Admitted {
    pub(super) fn new(by: Option<(Arc<Asked>, u64)>) -> Admitted {
        Admitted { by }
    }

    pub(super) fn by(&self) -> Option<&(Arc<Asked>, u64)> {
        self.by.as_ref()
    }

    /// As what it was admitted.
    pub(in crate::facts) fn asked(&self) -> Option<&Asked> {
        self.by.as_ref().map(|(asked, _)| &**asked)
    }
}

#[cfg(test)]
impl Admitted {
    /// As where there is no policy.
    pub(in crate::facts) fn unasked() -> Admitted {
        Admitted { by: None }
    }
}
