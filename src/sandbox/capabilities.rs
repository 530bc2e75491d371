//! Capabilities: the privileges of root, one by one (capabilities(7)).

use std::fmt;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// A set of capabilities. Prints as `CAP_CHOWN, CAP_SYS_ADMIN`, or `none`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities(CapabilitySet);

impl Capabilities {
    /// None.
    pub const NONE: Capabilities = Capabilities(CapabilitySet::empty());

    /// To hand the kernel a file that it reads by itself (FUSE_DEV_IOC_BACKING_OPEN).
    pub const PASSTHROUGH: Capabilities = Capabilities(CapabilitySet::SYS_ADMIN);

    /// To read what belongs to other users.
    pub const READ_OF_OTHERS: Capabilities = Capabilities(CapabilitySet::DAC_READ_SEARCH);

    /// To keep files for other users: give them away, and change them afterwards.
    pub const FILES_OF_OTHERS: Capabilities = Capabilities(
        CapabilitySet::CHOWN
            .union(CapabilitySet::DAC_OVERRIDE)
            .union(CapabilitySet::FOWNER)
            .union(CapabilitySet::FSETID),
    );

    /// Those of both.
    pub fn and(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0.union(other.0))
    }

    /// Those that are in a set of /proc/PID/status, in which they are bits of a hexadecimal number.
    pub fn of_status(set: &str) -> Option<Capabilities> {
        u64::from_str_radix(set.trim(), 16).ok().map(CapabilitySet::from_bits_retain).map(Self)
    }

    /// Their names, in the order of their numbers.
    pub fn names(self) -> Vec<String> {
        self.0.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
    }

    /// Has this thread keep these, of those that it has, and lose all others for good.
    pub(super) fn keep(self) -> Result<(), Errno> {
        let kept = capabilities(None)?.permitted.intersection(self.0);
        let inheritable = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names() {
            none if none.is_empty() => f.write_str("none"),
            names => f.write_str(&names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_told_by_the_names_of_its_capabilities() {
        let of_status = |set| Capabilities::of_status(set).unwrap();
        assert_eq!(of_status("\t0000000000000000"), Capabilities::NONE);
        assert_eq!(of_status("0000000000200000"), Capabilities::PASSTHROUGH);
        assert_eq!(Capabilities::NONE.to_string(), "none");
        assert_eq!(
            Capabilities::PASSTHROUGH.and(Capabilities::READ_OF_OTHERS).to_string(),
            "CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN"
        );
        assert!(Capabilities::of_status("none").is_none());
    }

    #[test]
    fn what_is_not_kept_is_gone_from_this_thread() {
        let of_thread = std::thread::spawn(|| {
            Capabilities::PASSTHROUGH.keep().unwrap();
            let kept = capabilities(None).unwrap();
            Capabilities::NONE.keep().unwrap();
            Capabilities::PASSTHROUGH.keep().unwrap();
            (kept, capabilities(None).unwrap())
        });
        let (kept, afterwards) = of_thread.join().unwrap();
        assert!(CapabilitySet::SYS_ADMIN.contains(kept.permitted));
        assert_eq!(kept.effective, kept.permitted);
        assert!(afterwards.permitted.is_empty() && afterwards.effective.is_empty());
    }
}
