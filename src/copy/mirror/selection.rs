//! Which versions and platforms are mirrored.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::name::{Constraints, Platform};
use crate::provider_registry::OfferedVersion;

/// What is selected of a provider.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct VersionSelection {
    /// What versions have to satisfy; pre-releases only where one is named.
    pub constraints: Constraints,
    /// The newest of them alone, so many.
    pub newest: Option<usize>,
    /// These platforms; all if there is none.
    pub platforms: BTreeSet<Platform>,
    /// Those that have been out for that long.
    pub min_age: Duration,
}

impl VersionSelection {
    /// Those of `versions` that match, the newest first.
    pub fn matching<'a>(&self, versions: &'a [OfferedVersion]) -> Vec<&'a OfferedVersion> {
        let mut allowed: Vec<&OfferedVersion> =
            versions.iter().filter(|offered| self.constraints.allow(&offered.version)).collect();
        allowed.sort_by(|a, b| b.version.cmp(&a.version));
        allowed
    }

    /// Whether `selected` are as many as are wanted.
    pub fn is_full(&self, selected: usize) -> bool {
        self.newest.is_some_and(|newest| selected >= newest)
    }

    /// The platforms of a version that are wanted, and those that are wanted by name and not
    /// offered.
    pub fn platforms_of(&self, offered: &OfferedVersion) -> (BTreeSet<Platform>, Vec<Platform>) {
        if self.platforms.is_empty() {
            return (offered.platforms.clone(), Vec::new());
        }
        (
            self.platforms.intersection(&offered.platforms).cloned().collect(),
            self.platforms.difference(&offered.platforms).cloned().collect(),
        )
    }
}

impl fmt::Display for VersionSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.constraints.is_empty() {
            f.write_str("(any release)")
        } else {
            write!(f, "{:?}", self.constraints.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(version: &str) -> OfferedVersion {
        let platforms = ["linux_amd64", "darwin_arm64"].map(|p| p.parse().unwrap());
        OfferedVersion { version: version.parse().unwrap(), platforms: platforms.into() }
    }

    #[test]
    fn those_that_match_come_newest_first_and_pre_releases_by_name() {
        let versions = ["1.10.0", "1.2.0", "1.9.0", "2.0.0-rc1", "2.0.0"].map(offered);
        for (constraints, wanted) in [
            ("", "2.0.0 1.10.0 1.9.0 1.2.0"),
            ("~> 1.0", "1.10.0 1.9.0 1.2.0"),
            ("2.0.0-rc1", "2.0.0-rc1"),
            ("> 3", ""),
        ] {
            let constraints = constraints.parse().unwrap();
            let selection = VersionSelection { constraints, ..Default::default() };
            let matching = selection.matching(&versions);
            let matching: Vec<_> = matching.iter().map(|one| one.version.to_string()).collect();
            assert_eq!(matching.join(" "), wanted);
        }
        let selection = VersionSelection { newest: Some(2), ..Default::default() };
        assert!(!selection.is_full(1) && selection.is_full(2));
        assert!(!VersionSelection::default().is_full(10_000));
    }

    #[test]
    fn a_platform_that_is_named_and_not_offered_is_told() {
        let named = ["linux_amd64", "plan9_386"].map(|p| p.parse().unwrap());
        let selection = VersionSelection { platforms: named.into(), ..Default::default() };
        let (platforms, not_offered) = selection.platforms_of(&offered("1.0.0"));
        assert_eq!((platforms.len(), not_offered.len()), (1, 1));
        assert_eq!(VersionSelection::default().platforms_of(&offered("1.0.0")).0.len(), 2);
    }
}
