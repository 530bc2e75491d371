//! Which tags are likely to be meant by who named one that is not there.

use super::{Tag, Version};

/// The newest of `tags`, at most `most` of them and the newest first: versions by their precedence,
/// then other names from the end of their order.
pub fn newest(tags: &[Tag], most: usize) -> Vec<&Tag> {
    let mut tags: Vec<(Option<Version>, &Tag)> =
        tags.iter().map(|tag| (Version::of_tag(tag), tag)).collect();
    tags.sort_by(|one, other| other.cmp(one));
    tags.into_iter().take(most).map(|(_, tag)| tag).collect()
}

/// Why `wanted` is not to be had in a repository that has `tags`.
pub fn no_such_tag(wanted: &Tag, tags: &[Tag]) -> String {
    let newest: Vec<&str> = newest(tags, 3).into_iter().map(Tag::as_str).collect();
    match newest[..] {
        [] => format!("there is no tag {wanted}, and no other in this repository"),
        [only] => format!("there is no tag {wanted}; the only one is {only}"),
        _ if newest.len() == tags.len() => {
            format!("there is no tag {wanted}; there are {}", newest.join(", "))
        }
        _ => format!("there is no tag {wanted}; the newest are {}", newest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn an_unknown_tag_is_told_with_the_newest_ones() {
        let nine: Tag = "9".parse().unwrap();
        let said = |names: &[&str]| no_such_tag(&nine, &tags(names));
        assert_eq!(said(&[]), "there is no tag 9, and no other in this repository");
        assert_eq!(said(&["1.0.0"]), "there is no tag 9; the only one is 1.0.0");
        assert_eq!(said(&["1.0.0", "latest"]), "there is no tag 9; there are 1.0.0, latest");
        assert_eq!(
            said(&["1.0.0", "1.10.0", "1.2.0", "1.9.0-rc1", "latest", "main"]),
            "there is no tag 9; the newest are 1.10.0, 1.9.0-rc1, 1.2.0"
        );
    }
}
