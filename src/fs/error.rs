//! From failure to errno, log level and sentence: the one place where each is decided.

use std::fmt;
use std::sync::Arc;

use crate::failure::{Failure, Refusal, Subject};
use crate::name::Host;

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
    EACCES EBADF EBADMSG EBUSY EEXIST EFBIG EHOSTUNREACH EINTR EINVAL EIO EISDIR ELOOP
    ENAMETOOLONG ENFILE ENODATA ENOENT ENOSPC ENOTDIR ENOTEMPTY EOPNOTSUPP EPERM EPROTO ERANGE
    EROFS ESTALE ETIMEDOUT
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
    cause: Option<Cause>,
}

/// Why an operation failed, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Cause {
    Refused(Refusal),
    /// A whole sentence.
    Said(Arc<str>),
}

impl FsError {
    /// An ordinary answer that needs no explanation.
    pub const fn plain(errno: Errno) -> Self {
        FsError { errno, cause: None }
    }

    /// An answer with the sentence that explains it.
    pub fn said(errno: Errno, sentence: impl fmt::Display) -> Self {
        FsError { errno, cause: Some(Cause::Said(sentence.to_string().into())) }
    }

    /// Why something was not published: absent things too, since they were to be there.
    pub(super) fn of_commit(refusal: Refusal) -> Self {
        FsError::said(errno(refusal.failure), refusal)
    }

    /// The class of the failure, as one word for programs.
    pub(super) fn reason(&self) -> &'static str {
        match &self.cause {
            Some(Cause::Refused(refusal)) => refusal.failure.name(),
            Some(Cause::Said(_)) | None => "refused",
        }
    }

    /// Why, for the log and for `user.tofufs.error`.
    pub fn sentence(&self) -> Option<Arc<str>> {
        self.cause.as_ref().map(|cause| match cause {
            Cause::Refused(refusal) => refusal.to_string().into(),
            Cause::Said(sentence) => sentence.clone(),
        })
    }

    /// The same error, whose sentence begins with what was asked for.
    pub(super) fn about(mut self, asked: impl FnOnce() -> Subject) -> Self {
        if let Some(Cause::Refused(refusal)) = &mut self.cause {
            refusal.subject = Arc::new(asked().led_to(&refusal.subject));
        }
        self
    }

    /// The registry whose being out of reach was the reason.
    pub(super) fn out_of_reach(&self) -> Option<&Host> {
        match &self.cause {
            Some(Cause::Refused(refusal)) if refusal.failure.is_out_of_reach() => {
                refusal.subject.host()
            }
            _ => None,
        }
    }
}

/// The errno contract. No failure is told as EXDEV or EINVAL: `mv` would copy, or mislead.
fn errno(failure: Failure) -> Errno {
    match failure {
        Failure::Absent => Errno::ENOENT,
        Failure::Exists => Errno::EEXIST,
        Failure::Busy | Failure::Crowded => Errno::EBUSY,
        Failure::HandedOver => Errno::ESTALE,
        Failure::Denied => Errno::EACCES,
        Failure::ReadOnly => Errno::EROFS,
        Failure::Invalid | Failure::Unsigned => Errno::EPERM,
        Failure::TimedOut => Errno::ETIMEDOUT,
        Failure::Unreachable | Failure::Untrusted | Failure::Offline => Errno::EHOSTUNREACH,
        Failure::Protocol => Errno::EPROTO,
        Failure::Integrity | Failure::Damaged | Failure::Io => Errno::EIO,
        Failure::Structure => Errno::EBADMSG,
        Failure::TooLarge => Errno::EFBIG,
        Failure::Unsupported => Errno::EOPNOTSUPP,
        Failure::NoSpace => Errno::ENOSPC,
        Failure::NoDescriptor => Errno::ENFILE,
    }
}

impl From<Refusal> for FsError {
    fn from(refusal: Refusal) -> Self {
        // An absence is an answer, not a fault.
        let is_fault = refusal.failure != Failure::Absent;
        let errno = errno(refusal.failure);
        FsError { errno, cause: is_fault.then_some(Cause::Refused(refusal)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_the_errno_of_the_contract() {
        use Failure::*;
        for (failure, wanted) in [
            (Absent, libc::ENOENT),
            (Denied, libc::EACCES),
            (TimedOut, libc::ETIMEDOUT),
            (Unreachable, libc::EHOSTUNREACH),
            (Untrusted, libc::EHOSTUNREACH),
            (Offline, libc::EHOSTUNREACH),
            (Protocol, libc::EPROTO),
            (Integrity, libc::EIO),
            (Damaged, libc::EIO),
            (Io, libc::EIO),
            (Structure, libc::EBADMSG),
            (TooLarge, libc::EFBIG),
            (Unsupported, libc::EOPNOTSUPP),
            (NoSpace, libc::ENOSPC),
            (NoDescriptor, libc::ENFILE),
            (Crowded, libc::EBUSY),
            (Exists, libc::EEXIST),
            (Busy, libc::EBUSY),
            (ReadOnly, libc::EROFS),
            (Invalid, libc::EPERM),
        ] {
            let error = FsError::from(Refusal::new(failure, "what was asked for", "the rule"));
            assert_eq!(error.errno.0, wanted, "{failure:?}");
            assert_eq!(
                error.sentence().is_none(),
                failure == Absent,
                "an absence is an answer and no fault"
            );
        }
    }
}
