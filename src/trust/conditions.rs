//! What a scope asks of everything that it admits, signed or not: how long it has been out, and
//! which versions.

use std::fmt;
use std::time::Duration;

use super::verdict::Asked;
use crate::moment::Moment;
use crate::name::{Constraints, version_of};

/// The conditions of a scope.
#[derive(Clone, Default, Debug)]
pub(super) struct Conditions {
    pub min_age: Option<MinAge>,
    pub versions: Option<AllowedVersions>,
}

/// How long something has to have been out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MinAge {
    text: String,
    age: Duration,
}

/// The versions of a scope, as they are written there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AllowedVersions {
    text: String,
    constraints: Constraints,
}

/// What is known of when a release came out, beside what signatures say.
#[derive(Clone, Copy, Debug)]
pub struct ReleaseDates {
    /// The clock of this machine.
    pub now: Moment,
    /// As its manifest says.
    pub created: Option<Moment>,
    /// When a release with its digest was seen first.
    pub first_seen: Option<Moment>,
}

impl ReleaseDates {
    /// Nothing is known, nor asked for.
    pub const UNKNOWN: ReleaseDates =
        ReleaseDates { now: Moment::BEGINNING, created: None, first_seen: None };
}

/// Since when something has been out, and who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OutSince {
    /// A log, or a timestamp authority.
    Witnessed(Moment),
    /// Who signed it.
    Created(Moment),
    /// It was seen here first.
    Seen(Moment),
    Unknown,
}

const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];

impl fmt::Display for Conditions {
    /// As the end of a sentence about a scope.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(versions) = &self.versions {
            write!(f, ", of versions {}", versions.text)?;
        }
        match &self.min_age {
            Some(age) => write!(f, ", out for {}", age.text),
            None => Ok(()),
        }
    }
}

impl MinAge {
    /// Reads a whole number with its unit.
    pub fn parse(text: &str) -> Option<MinAge> {
        let unit = text.chars().next_back()?;
        let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let digits = text.strip_suffix(unit)?;
        let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>());
        let age = Duration::from_secs(number?.ok()?.checked_mul(seconds)?);
        Some(MinAge { text: text.to_owned(), age })
    }

    /// What is wrong with something that has been out since then. What lies in the future has been
    /// out for no time.
    pub fn fault(&self, since: OutSince, now: Moment) -> Option<String> {
        let is_old = since.moment().is_some_and(|moment| now.since(moment) >= self.age);
        let age = &self.text;
        (!is_old).then(|| format!("wants what has been out for {age}; this has been {since}"))
    }
}

impl OutSince {
    fn moment(self) -> Option<Moment> {
        match self {
            OutSince::Witnessed(at) | OutSince::Created(at) | OutSince::Seen(at) => Some(at),
            OutSince::Unknown => None,
        }
    }
}

impl fmt::Display for OutSince {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutSince::Witnessed(at) => write!(f, "since {at}, when its signature was witnessed"),
            OutSince::Created(at) => write!(f, "since {at}, as its signed manifest says"),
            OutSince::Seen(at) => write!(f, "since {at}, when it was seen here first"),
            OutSince::Unknown => f.write_str("nobody knows how long"),
        }
    }
}

impl AllowedVersions {
    pub fn parse(text: &str) -> Result<AllowedVersions, String> {
        let constraints: Constraints = text.parse().map_err(|e| format!("{e}"))?;
        if constraints.is_empty() {
            return Err("versions is empty".to_owned());
        }
        Ok(AllowedVersions { text: text.to_owned(), constraints })
    }

    /// What is wrong with the tag by which something was named.
    pub fn fault(&self, asked: &Asked) -> Option<String> {
        let (tag, wanted) = (asked.tag.as_ref()?, &self.text);
        match version_of(tag) {
            None => Some(format!("wants versions {wanted}, and the tag {tag} is no version")),
            Some(version) if self.constraints.allow(&version) => None,
            Some(version) => Some(format!("wants versions {wanted}, and this is {version}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn an_age_is_a_number_with_its_unit() {
        let seconds = |text: &str| MinAge::parse(text).map(|age| age.age.as_secs());
        for (text, wanted) in [("7d", 604_800), ("36h", 129_600), ("5m", 300), ("0s", 0)] {
            assert_eq!(seconds(text), Some(wanted), "{text}");
        }
        for bad in ["", "7", "d", "7w", "-1d", "+1d", "1.5d", "7 d", "99999999999999999999d", "7D"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_lies_in_the_future_has_been_out_for_no_time() {
        let (age, now) = (MinAge::parse("1d").unwrap(), Moment::at(1_000_000));
        let fault = |since: OutSince| age.fault(since, now);
        assert_eq!(fault(OutSince::Seen(Moment::at(1_000_000 - 86_400))), None);
        for young in [1_000_000 - 86_399, 1_000_000, 9_000_000_000] {
            let said = fault(OutSince::Created(Moment::at(young))).unwrap();
            assert!(said.contains("out for 1d") && said.contains("since "), "{said}");
        }
        assert!(fault(OutSince::Unknown).is_some());
    }

    #[test]
    fn a_tag_is_a_version_that_is_allowed() {
        let versions = AllowedVersions::parse("~> 5.0, != 5.1.0").unwrap();
        let fault = |tag: Option<&str>| {
            let repo = "r.example/a".parse::<crate::name::Address>().unwrap().target().unwrap().0;
            let tag = tag.map(|tag| tag.parse().unwrap());
            versions.fault(&Asked { repo, tag, digest: Digest::of(b""), platform: None })
        };
        assert_eq!((fault(Some("5.2.0")), fault(Some("v5.2.0"))), (None, None));
        assert_eq!(fault(None), None, "a digest has no version");
        for bad in ["4.9.0", "6.0.0", "5.1.0", "5.3.0-rc1", "latest", "v6.2.0"] {
            assert!(fault(Some(bad)).is_some(), "{bad}");
        }
        assert!(AllowedVersions::parse("").is_err() && AllowedVersions::parse("latest").is_err());
    }
}
