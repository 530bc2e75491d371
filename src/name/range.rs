//! Version ranges as names: `~>1.2`, `>=1.2,<2`, `1.2.x`.

use super::{Constraints, Tag, Version};

/// The versions that a name asks for. The name is a symbolic link to the newest of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionRange(Constraints);

impl VersionRange {
    /// Reads constraints as a module's `version` has them, spaces optional. `None` for a text
    /// without an operator, since that can only be a tag.
    pub fn with_operator(text: &str) -> Option<VersionRange> {
        let has_operator = text.contains(['=', '!', '<', '>', '~']);
        if has_operator { text.parse().ok().map(VersionRange) } else { None }
    }

    /// Reads `1.x` and `1.2.x`. A repository can have a tag of that name, which comes first.
    pub fn with_wildcard(tag: &Tag) -> Option<VersionRange> {
        let fixed = tag.as_str().strip_suffix(".x")?;
        let numbers: Option<Vec<u64>> = fixed.split('.').map(|part| part.parse().ok()).collect();
        // The last number of a pessimistic constraint is the one that may rise.
        (numbers?.len() <= 2).then(|| format!("~> {fixed}.0").parse().ok().map(VersionRange))?
    }

    /// The tag of the newest version in this range. A tag may have a `v` before its version.
    pub fn newest<'a>(&self, tags: &'a [Tag]) -> Option<&'a Tag> {
        let allowed = tags.iter().filter_map(|tag| Some((version_of(tag)?, tag)));
        let allowed = allowed.filter(|(version, _)| self.0.allow(version));
        // Of 1.2.0 and v1.2.0 the former is taken, whichever was pushed last.
        allowed.max_by(|one, two| one.0.cmp(&two.0).then(two.1.cmp(one.1))).map(|(_, tag)| tag)
    }
}

/// The version for which a tag stands; a `v` may come before it.
pub fn version_of(tag: &Tag) -> Option<Version> {
    match tag.as_str().strip_prefix('v') {
        Some(rest) => Version::of_tag(&rest.parse().ok()?),
        None => Version::of_tag(tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: &[&str] = &[
        "0.9.0",
        "1.2.0",
        "1.2.9",
        "1.10.0",
        "2.0.0-rc1",
        "latest",
        "v1.2.10",
        "v1.2.9",
        "1.3.0_b",
    ];

    fn newest(range: Option<VersionRange>) -> Option<String> {
        let tags: Vec<Tag> = TAGS.iter().map(|tag| tag.parse().unwrap()).collect();
        range?.newest(&tags).map(Tag::to_string)
    }

    #[test]
    fn a_range_is_the_newest_version_in_it() {
        for (text, wanted) in [
            ("~>1.2", Some("1.10.0")),
            ("~> 1.2.0", Some("v1.2.10")),
            (">=1.2,<1.3", Some("v1.2.10")),
            (">= 1.2 , < 1.2.10", Some("1.2.9")),
            ("!=1.10.0", Some("1.3.0_b")),
            ("=2.0.0-rc1", Some("2.0.0-rc1")),
            (">=2.0.0-rc1", None),
            ("~>3.0", None),
        ] {
            assert_eq!(newest(VersionRange::with_operator(text)).as_deref(), wanted, "{text}");
        }
        for (text, wanted) in [
            ("1.x", Some("1.10.0")),
            ("1.2.x", Some("v1.2.10")),
            ("0.x", Some("0.9.0")),
            ("3.x", None),
        ] {
            let range = VersionRange::with_wildcard(&text.parse().unwrap());
            assert!(range.is_some(), "{text}");
            assert_eq!(newest(range).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn other_names_are_no_ranges() {
        for text in ["1.2", "latest", "", "main.tf~", "~1.2", "=>1", ">=", "~>1.2,latest", "a=b"] {
            assert_eq!(VersionRange::with_operator(text), None, "{text}");
        }
        for text in ["1.2.3", "x", "a.x", "1.2.3.x", "1..x", "1.x.x", "v1.x"] {
            assert_eq!(text.parse().ok().and_then(|tag| VersionRange::with_wildcard(&tag)), None);
        }
    }
}
