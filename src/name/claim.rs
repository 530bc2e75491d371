//! Tags by which writers keep out of each other's way: `_tofufs.TAG.<12 hex>`.

use super::{TAG_MAX, Tag};
use crate::digest::Digest;

const MARK: &str = "_tofufs.";
/// Hexadecimal digits at the end.
const DIGITS: usize = 12;
/// Digits of a digest that stand for a tag that is too long.
const LONG_DIGITS: usize = 32;

/// The tag under which a writer says that it is about to change what another tag stands for.
/// OpenTofu reads it as no version, since it is none. Claims of one tag are ordered by their names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClaimTag(Tag);

impl ClaimTag {
    /// A claim of `tag`, one of many by the last 48 bits of `number`.
    pub fn new(tag: &Tag, number: u64) -> ClaimTag {
        let number = number & ((1 << (4 * DIGITS)) - 1);
        ClaimTag(Tag(format!("{}{number:0DIGITS$x}", ClaimTag::prefix(tag))))
    }

    /// Reads a tag as a claim of `of`.
    pub fn read(tag: &Tag, of: &Tag) -> Option<ClaimTag> {
        let digits = tag.0.strip_prefix(&ClaimTag::prefix(of))?;
        is_number(digits).then(|| ClaimTag(tag.clone()))
    }

    /// What the names of all claims of `tag` begin with. A tag that leaves no room for the rest is
    /// named by its digest.
    pub fn prefix(tag: &Tag) -> String {
        if MARK.len() + tag.0.len() + 1 + DIGITS <= TAG_MAX {
            format!("{MARK}{tag}.")
        } else {
            format!("{MARK}sha256-{}.", &Digest::of(tag.0.as_bytes()).hex()[..LONG_DIGITS])
        }
    }

    /// The tag that it is.
    pub fn tag(&self) -> &Tag {
        &self.0
    }
}

impl Tag {
    /// Whether it is a claim of some other tag, which is nothing that anybody published.
    pub fn is_claim(&self) -> bool {
        let rest = self.0.strip_prefix(MARK).and_then(|rest| rest.rsplit_once('.'));
        rest.is_some_and(|(of, digits)| !of.is_empty() && is_number(digits))
    }
}

fn is_number(digits: &str) -> bool {
    digits.len() == DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    #[test]
    fn a_claim_is_read_as_one_of_its_tag_alone() {
        let (short, long) = (tag("1.0"), tag("1.0.0"));
        let claim = ClaimTag::new(&short, 0xabc);
        assert_eq!(claim.tag().as_str(), "_tofufs.1.0.000000000abc");
        assert_eq!(ClaimTag::read(claim.tag(), &short), Some(claim.clone()));
        assert_eq!(ClaimTag::read(claim.tag(), &long), None);
        assert_eq!(ClaimTag::read(ClaimTag::new(&long, 1).tag(), &short), None);
        // A tag that looks like a claim's end has claims of its own.
        let odd = tag("1.0.000000000001");
        assert_eq!(ClaimTag::read(ClaimTag::new(&odd, 1).tag(), &short), None);
        assert!(claim.tag().is_claim() && !short.is_claim() && !tag("_tofufs.1.0").is_claim());
        assert!(!tag("_tofufs.1.0.000000000ABC").is_claim());
    }

    #[test]
    fn the_claim_of_the_longest_tag_is_a_tag_too() {
        for length in [1, 107, 108, 128] {
            let (one, other) = (tag(&"a".repeat(length)), tag(&"b".repeat(length)));
            let claim = ClaimTag::new(&one, u64::MAX);
            assert!(
                claim.tag().as_str().parse::<Tag>().is_ok_and(|tag| tag.is_claim()),
                "{length}"
            );
            assert_eq!(ClaimTag::read(claim.tag(), &one).as_ref(), Some(&claim));
            assert_eq!(ClaimTag::read(claim.tag(), &other), None);
        }
    }
}
