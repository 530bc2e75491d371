//! From failure to errno, log level and sentence: the one place where each is decided.

use std::fmt;
use std::sync::Arc;

use crate::facts::{FactError, Failure};
use crate::name::Reference;

/// An error number of the system.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errno {
    ($($name:ident)*) => {
        impl Errno {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                pub const $name: Errno = Errno(libc::$name);
            )*

            fn name(self) -> Option<&'static str> {
                $(if self == Errno::$name { return Some(stringify!($name)); })*
                None
            }
        }
    };
}

errno!(
    EACCES EBADF EBADMSG EFBIG EHOSTUNREACH EINTR EIO EISDIR ENAMETOOLONG ENFILE ENODATA ENOENT ENOSPC ENOTDIR EOPNOTSUPP EPERM
    EPROTO ERANGE EROFS ESTALE ETIMEDOUT
);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// A failed operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FsError {
    /// What the caller is told.
    pub errno: Errno,
    sentence: Option<Arc<str>>,
}

impl FsError {
    /// An ordinary answer that needs no explanation.
    pub const fn plain(errno: Errno) -> Self {
        FsError { errno, sentence: None }
    }

    /// Bytes that stay wrong after they were fetched anew.
    pub(super) fn integrity(error: &FactError) -> Self {
        FsError { errno: Errno::EIO, sentence: Some(error.to_string().into()) }
    }

    /// Why, for the log and for `user.tofufs.error`.
    pub fn sentence(&self) -> Option<&Arc<str>> {
        self.sentence.as_ref()
    }

    /// The same error, whose sentence begins with what was opened; `by_digest` is its other name, if it has one, which
    /// the sentence then need not repeat.
    pub(super) fn about(self, subject: &str, by_digest: Option<&Reference>) -> Self {
        let sentence = self.sentence.map(|s| {
            if s.starts_with(subject) {
                return s;
            }
            let other = by_digest.map(|reference| format!("{reference}: "));
            let rest = other.and_then(|other| s.strip_prefix(&other)).unwrap_or(&s);
            format!("{subject}: {rest}").into()
        });
        FsError { errno: self.errno, sentence }
    }
}

/// The errno contract.
fn errno(failure: Failure) -> Errno {
    match failure {
        Failure::Absent => Errno::ENOENT,
        Failure::Denied => Errno::EACCES,
        Failure::TimedOut => Errno::ETIMEDOUT,
        Failure::Unreachable | Failure::Offline => Errno::EHOSTUNREACH,
        Failure::Protocol => Errno::EPROTO,
        Failure::Integrity | Failure::Io => Errno::EIO,
        Failure::Structure => Errno::EBADMSG,
        Failure::TooLarge => Errno::EFBIG,
        Failure::Unsupported => Errno::EOPNOTSUPP,
        Failure::NoSpace => Errno::ENOSPC,
        Failure::NoDescriptor => Errno::ENFILE,
    }
}

impl From<FactError> for FsError {
    fn from(error: FactError) -> Self {
        // An absence is an answer, not a fault.
        let sentence = (error.failure != Failure::Absent).then(|| error.to_string().into());
        FsError { errno: errno(error.failure), sentence }
    }
}
