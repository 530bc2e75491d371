//! What only the gate makes.

use std::sync::Arc;

use crate::trust::Asked;

/// Leave to read a package: the release to which it belongs was admitted.
///
/// Only the gate makes one, and no package is had without:
///
/// ```
/// use std::sync::Arc;
/// use tofufs::facts::{Admitted, Content, Unpacking};
/// use tofufs::name::Repo;
/// use tofufs::oci::Descriptor;
///
/// async fn open(content: Arc<Content>, admitted: &Admitted, repo: &Repo, archive: &Descriptor) {
///     drop(content.package(admitted, repo, archive, Unpacking::WhenOpened).await);
///     drop(content.blob(admitted, repo, archive).await);
/// }
/// ```
///
/// A package cannot be asked for without,
///
/// ```compile_fail,E0061
/// use std::sync::Arc;
/// use tofufs::facts::{Admitted, Content, Unpacking};
/// use tofufs::name::Repo;
/// use tofufs::oci::Descriptor;
///
/// async fn open(content: Arc<Content>, admitted: &Admitted, repo: &Repo, archive: &Descriptor) {
///     drop(content.package(repo, archive, Unpacking::WhenOpened).await);
///     drop(content.blob(admitted, repo, archive).await);
/// }
/// ```
///
/// nor can a blob,
///
/// ```compile_fail,E0061
/// use std::sync::Arc;
/// use tofufs::facts::{Admitted, Content, Unpacking};
/// use tofufs::name::Repo;
/// use tofufs::oci::Descriptor;
///
/// async fn open(content: Arc<Content>, admitted: &Admitted, repo: &Repo, archive: &Descriptor) {
///     drop(content.package(admitted, repo, archive, Unpacking::WhenOpened).await);
///     drop(content.blob(repo, archive).await);
/// }
/// ```
///
/// and nobody else can make one:
///
/// ```compile_fail,E0624
/// drop(tofufs::facts::Admitted::new(None));
/// ```
///
/// ```compile_fail,E0451
/// drop(tofufs::facts::Admitted { by: None });
/// ```
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
