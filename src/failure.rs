//! What class of failure something ended with. Errno, retry, breaker, cache and exit code follow
//! from the class alone.

use std::time::Duration;

/// The class of a failure.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// Whoever knows says with authority that there is no such thing.
    Absent,
    /// What was to be made is there already, and is something else.
    Exists,
    /// It is in use: a file that is open for writing, or that changed while it was read.
    Busy,
    /// Not asked for, since who asks has used up the requests that are sent for him.
    Crowded,
    /// 401 or 403: the credential, or the lack of one, does not suffice. Or a local file that may
    /// not be read.
    Denied,
    /// No destination takes it.
    ReadOnly,
    /// A name or content of which nothing can be made that may be published.
    Invalid,
    /// A signature that has to be there is not, or does not hold.
    Unsigned,
    /// No progress within the deadline, or retries were used up.
    TimedOut,
    /// No connection: name resolution, connect, TLS, or the breaker is open.
    Unreachable,
    /// No connection: what answers has a certificate that does not hold.
    Untrusted,
    /// Offline was asked for and the answer is not cached.
    Offline,
    /// What answers does not speak the protocol.
    Protocol,
    /// Bytes that are not what their digest, size or checksum says.
    Integrity,
    /// Cached bytes are no longer what was stored: they were set aside, and can be fetched anew.
    Damaged,
    /// A document or archive of a structure that is refused.
    Structure,
    /// Over a limit.
    TooLarge,
    /// An algorithm, method or feature that is not implemented.
    Unsupported,
    /// A disk is full.
    NoSpace,
    /// The process or the system has no file descriptor left.
    NoDescriptor,
    /// A disk, a local file or the program itself failed.
    Io,
}

impl Failure {
    /// Whether it says nothing about the thing itself, so that an earlier answer still counts.
    pub fn is_outage(self) -> bool {
        match self {
            Failure::Absent
            | Failure::Exists
            | Failure::Denied
            | Failure::ReadOnly
            | Failure::Invalid
            | Failure::Unsigned
            | Failure::Integrity
            | Failure::Structure
            | Failure::TooLarge
            | Failure::Unsupported => false,
            Failure::Busy
            | Failure::Crowded
            | Failure::TimedOut
            | Failure::Unreachable
            | Failure::Untrusted
            | Failure::Offline
            | Failure::Protocol
            | Failure::Damaged
            | Failure::NoSpace
            | Failure::NoDescriptor
            | Failure::Io => true,
        }
    }

    /// How long it is kept before whoever said so is asked again.
    pub fn kept_for(self) -> Duration {
        Duration::from_secs(match self {
            Failure::Absent => 30,
            Failure::Denied => 10,
            said if !said.is_outage() => 300,
            _ => 2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of the negative cache, and which failures leave an earlier answer standing.
    #[test]
    fn a_failure_counts_as_long_as_it_says_something() {
        use Failure::*;
        let said = [
            (Absent, 30),
            (Denied, 10),
            (Exists, 300),
            (ReadOnly, 300),
            (Invalid, 300),
            (Unsigned, 300),
            (Integrity, 300),
            (Structure, 300),
            (TooLarge, 300),
            (Unsupported, 300),
        ];
        let nothing_said = [
            TimedOut,
            Unreachable,
            Untrusted,
            Offline,
            Protocol,
            Damaged,
            NoSpace,
            NoDescriptor,
            Io,
            Crowded,
            Busy,
        ];
        let all = (said.map(|(failure, seconds)| (failure, seconds, false)).into_iter())
            .chain(nothing_said.map(|failure| (failure, 2, true)));
        for (failure, seconds, is_outage) in all {
            let known = (failure.kept_for().as_secs(), failure.is_outage());
            assert_eq!(known, (seconds, is_outage), "{failure:?}");
        }
    }
}
