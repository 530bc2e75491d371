//! Which versions and platforms are mirrored.

use std::collections::BTreeSet;
use std::fmt;

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
}

impl VersionSelection {
    /// Those of `versions` that are selected, the oldest first.
    pub fn of<'a>(&self, versions: &'a [OfferedVersion]) -> Vec<&'a OfferedVersion> {
        let mut allowed: Vec<&OfferedVersion> =
            versions.iter().filter(|offered| self.constraints.allow(&offered.version)).collect();
        allowed.sort_by(|a, b| a.version.cmp(&b.version));
        let skipped = self.newest.map_or(0, |newest| allowed.len().saturating_sub(newest));
        allowed.split_off(skipped)
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
    fn the_newest_of_those_that_match_are_selected_and_pre_releases_by_name() {
        let versions = ["1.10.0", "1.2.0", "1.9.0", "2.0.0-rc1", "2.0.0"].map(offered);
        for (constraints, newest, wanted) in [
            ("", None, "1.2.0 1.9.0 1.10.0 2.0.0"),
            ("~> 1.0", Some(2), "1.9.0 1.10.0"),
            ("", Some(9), "1.2.0 1.9.0 1.10.0 2.0.0"),
            ("2.0.0-rc1", Some(1), "2.0.0-rc1"),
            ("> 3", None, ""),
        ] {
            let constraints = constraints.parse().unwrap();
            let selection = VersionSelection { constraints, newest, ..Default::default() };
            let selected = selection.of(&versions);
            let selected: Vec<_> = selected.iter().map(|one| one.version.to_string()).collect();
            assert_eq!(selected.join(" "), wanted);
        }
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
