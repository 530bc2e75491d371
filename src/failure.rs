//! Why something failed: its class, and the sentence that says so.

mod subject;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
pub use subject::Subject;

/// The class of a failure: errno, retry, breaker, cache and exit code follow from it alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// Whoever knows says with authority that there is no such thing.
    Absent,
    /// What was to be made is there already, and is something else.
    Exists,
    /// It is in use: a file that is open for writing, or that changed while it was read.
    Busy,
    /// Another process of this program does it now, which is to be asked.
    HandedOver,
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
    /// The class as one word, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Absent => "absent",
            Failure::Exists => "exists",
            Failure::Busy => "busy",
            Failure::HandedOver => "handed_over",
            Failure::Crowded => "crowded",
            Failure::Denied => "denied",
            Failure::ReadOnly => "read_only",
            Failure::Invalid => "invalid",
            Failure::Unsigned => "unsigned",
            Failure::TimedOut => "timed_out",
            Failure::Unreachable => "unreachable",
            Failure::Untrusted => "untrusted",
            Failure::Offline => "offline",
            Failure::Protocol => "protocol",
            Failure::Integrity => "integrity",
            Failure::Damaged => "damaged",
            Failure::Structure => "structure",
            Failure::TooLarge => "too_large",
            Failure::Unsupported => "unsupported",
            Failure::NoSpace => "no_space",
            Failure::NoDescriptor => "no_descriptor",
            Failure::Io => "io",
        }
    }

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
            | Failure::HandedOver
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

    /// Whether there was no connection.
    pub fn is_out_of_reach(self) -> bool {
        matches!(self, Failure::Unreachable | Failure::Untrusted | Failure::Offline)
    }

    /// That of a call to the disk.
    pub fn of_disk(error: &io::Error) -> Failure {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Failure::NoSpace,
            Some(Errno::ACCESS | Errno::PERM) => Failure::Denied,
            Some(Errno::NOENT | Errno::NOTDIR) => Failure::Absent,
            _ => Failure::Io,
        }
    }

    /// Whether something exists and is refused, as opposed to being absent or unknown.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Failure::Integrity
                | Failure::Structure
                | Failure::TooLarge
                | Failure::Unsupported
                | Failure::Unsigned
        )
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

/// A failure as one sentence: what it is about, the rule or event, what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The class.
    pub failure: Failure,
    /// What was asked for, or what of it failed.
    pub subject: Arc<Subject>,
    /// The rule that was broken or the event that ended it; what others wrote is bounded and
    /// escaped in it.
    pub rule: String,
    /// What the user can do, where there is something.
    pub remedy: Option<String>,
}

impl Refusal {
    /// A refusal without a remedy.
    pub fn new(failure: Failure, subject: impl Into<Subject>, rule: impl fmt::Display) -> Self {
        let (subject, rule) = (Arc::new(subject.into()), rule.to_string());
        Refusal { failure, subject, rule, remedy: None }
    }

    /// A task ended without a result: it panicked, or the runtime ended.
    pub fn lost(subject: impl Into<Subject>) -> Self {
        let rule = "an internal task ended early; the log may say why";
        Refusal::new(Failure::Io, subject, rule)
    }

    /// A call to the disk that failed.
    pub fn io(subject: impl Into<Subject>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Refusal::new(Failure::of_disk(&error), subject, error)
    }

    /// The same refusal with what to do about it.
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    /// The same refusal, told of `subject`.
    pub fn about(mut self, subject: impl Into<Subject>) -> Self {
        self.subject = Arc::new(subject.into());
        self
    }

    /// The sentence without its subject, for a place that names it already.
    pub fn reason(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}; {remedy}", self.rule),
            None => self.rule.clone(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.reason())
    }
}

impl std::error::Error for Refusal {}

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
