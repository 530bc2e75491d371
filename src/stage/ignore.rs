//! What of a tree is no part of a module: what version control and the clients keep in it, and what
//! its `.terraformignore` names.
//!
//! The syntax is that of the clients: one pattern a line, `#` comments, `!` takes back what was
//! left out before, a leading `/` holds the pattern to the top, a trailing `/` means directories;
//! `*`, `?`, `[…]` and `**`. The last pattern that matches a file, or a directory above it,
//! decides. Nothing takes back the first group: repositories of version control and `.terraform`.

/// The file with the patterns, at the top of a tree.
pub(super) const IGNORE_FILE: &str = ".terraformignore";
/// Its most bytes.
pub(super) const IGNORE_MAX: u64 = 1 << 20;

/// Never part of a module, wherever they stand.
const NEVER: &[&[u8]] =
    &[b".git", b".hg", b".svn", b".bzr", b".jj", b"CVS", b"_darcs", b".terraform"];

/// The rules of one tree.
#[derive(Default)]
pub(super) struct Ignore {
    rules: Vec<IgnoreRule>,
}

struct IgnoreRule {
    takes_back: bool,
    /// Only directories, with all that is below them.
    directory: bool,
    parts: Vec<PatternPart>,
}

enum PatternPart {
    /// `**`: any number of components.
    Any,
    /// One component.
    One(Vec<u8>),
}

impl Ignore {
    /// The rules of this text.
    pub(super) fn parse(text: &[u8]) -> Ignore {
        Ignore {
            rules: text.split(|b| *b == b'\n').filter_map(|line| rule(line.trim_ascii())).collect(),
        }
    }

    /// Whether the file at `path` (with slashes, from the top) is left out.
    pub(super) fn leaves_out(&self, path: &[u8]) -> bool {
        let path: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        path.iter().any(|name| NEVER.contains(name))
            || self
                .rules
                .iter()
                .rev()
                .find(|rule| rule.matches(&path))
                .is_some_and(|rule| !rule.takes_back)
    }

    /// Whether nothing below the directory at `path` can be part of the module.
    pub(super) fn prunes(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        NEVER.contains(&name)
            || !self.rules.iter().any(|rule| rule.takes_back)
                && self.rules.iter().any(|rule| rule.matches_directory(path))
    }
}

fn rule(line: &[u8]) -> Option<IgnoreRule> {
    if line.is_empty() || line.starts_with(b"#") {
        return None;
    }
    let (takes_back, pattern) = match line.strip_prefix(b"!") {
        Some(pattern) => (true, pattern),
        None => (false, line),
    };
    let anchored = pattern.starts_with(b"/");
    let mut parts: Vec<PatternPart> = if anchored { vec![] } else { vec![PatternPart::Any] };
    let mut directory = pattern.ends_with(b"/");
    for part in pattern.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        parts.push(if part == b"**" { PatternPart::Any } else { PatternPart::One(part.to_vec()) });
    }
    // `x/**` is all that is below x.
    while parts.len() > 1 && matches!(parts.last(), Some(PatternPart::Any)) {
        parts.pop();
        directory = true;
    }
    parts.iter().any(|part| matches!(part, PatternPart::One(_))).then_some(IgnoreRule {
        takes_back,
        directory,
        parts,
    })
}

impl IgnoreRule {
    /// Whether the pattern matches the file at `path` or a directory above it.
    fn matches(&self, path: &[&[u8]]) -> bool {
        let ends = self.ends(path);
        let file = ends[path.len()] && !self.directory;
        file || ends[..path.len()].contains(&true)
    }

    /// Whether the pattern matches the directory at `path` or one above it.
    fn matches_directory(&self, path: &[u8]) -> bool {
        let path: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        self.ends(&path).contains(&true)
    }

    /// For each number of components whether the pattern matches exactly that many.
    fn ends(&self, path: &[&[u8]]) -> Vec<bool> {
        let mut reached = vec![false; path.len() + 1];
        reached[0] = true;
        for part in &self.parts {
            match part {
                PatternPart::Any => {
                    let first = reached.iter().position(|r| *r).unwrap_or(reached.len());
                    reached[first..].fill(true);
                }
                PatternPart::One(pattern) => {
                    for at in (0..path.len()).rev() {
                        reached[at + 1] = reached[at] && glob(pattern, path[at]);
                    }
                    reached[0] = false;
                }
            }
        }
        reached
    }
}

/// Whether `text` matches the pattern of one component.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and up to where of the text it reaches.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        let step = text.get(t).and_then(|byte| one(&pattern[p..], *byte));
        match (step, &mut star) {
            (Some(length), _) => {
                p += length;
                t += 1;
            }
            (None, Some((after, reach))) if *reach < text.len() => {
                *reach += 1;
                (p, t) = (*after, *reach);
            }
            (None, _) => return false,
        }
    }
}

/// The length of the pattern's first element, if it matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', class @ ..] => {
            let (negated, start) = match class.first() {
                Some(b'!' | b'^') => (true, 1),
                _ => (false, 0),
            };
            let end = start + 1 + class.get(start + 1..)?.iter().position(|b| *b == b']')?;
            let members = &class[start..end];
            let mut at = 0;
            let mut found = false;
            while at < members.len() {
                match members[at..] {
                    [low, b'-', high, ..] => {
                        found |= (low..=high).contains(&byte);
                        at += 3;
                    }
                    _ => {
                        found |= members[at] == byte;
                        at += 1;
                    }
                }
            }
            (found != negated).then_some(end + 2)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &str, out: &[&str], kept: &[&str]) {
        let ignore = Ignore::parse(rules.as_bytes());
        for path in out {
            assert!(ignore.leaves_out(path.as_bytes()), "{path} is left out by {rules:?}");
        }
        for path in kept {
            assert!(!ignore.leaves_out(path.as_bytes()), "{path} is kept by {rules:?}");
            let directories = path.match_indices('/').map(|(at, _)| &path[..at]);
            for directory in directories {
                assert!(
                    !ignore.prunes(directory.as_bytes()),
                    "{directory} is not pruned by {rules:?}"
                );
            }
        }
    }

    #[test]
    fn version_control_and_terraform_are_never_part_of_a_module() {
        let out = [
            ".git",
            ".git/config",
            "a/.git/x",
            ".terraform/modules/m/main.tf",
            "x/.svn/y",
            "CVS/Root",
        ];
        let kept = [".gitignore", ".terraform.lock.hcl", "git/x", "terraform/x", "cvs"];
        check("", &out, &kept);
        check("!.git/\n!.terraform/modules/**", &out, &kept);
    }

    #[test]
    fn patterns_are_those_of_the_clients() {
        check(
            "# a comment\n\n*.tfvars\n!keep.tfvars\n",
            &["x.tfvars", "a/b.tfvars"],
            &["keep.tfvars", "a/keep.tfvars"],
        );
        check("/only.txt", &["only.txt"], &["a/only.txt"]);
        check("build/", &["build/x", "a/build/b/c"], &["build", "builder/x"]);
        check("docs", &["docs", "docs/a", "x/docs/a"], &["docs.md"]);
        check("a/b", &["a/b", "x/a/b/c"], &["a/c", "b"]);
        check("/x/**/y", &["x/y", "x/1/2/y", "x/1/y/z"], &["y", "a/x/y"]);
        check("x/**", &["x/a", "b/x/a/c"], &["x"]);
        check("?.t[a-c]", &["x.ta", "1.tc"], &["xx.ta", "x.td"]);
        check("[!a]*\n", &["b", "b/a"], &["a", "ax"]);
        check("\\!x\n\\#y", &["!x", "#y"], &["x"]);
        check("a*b*c", &["abc", "a1b2b3c"], &["a1b2b3"]);
        check("dir/\n!dir/keep/**\n", &["dir/a", "dir/other/keep"], &["dir/keep/x"]);
        check("**\n/\n!\n", &[], &["a", "b/c"]);
        check("  spaced  \r\nx\r", &["spaced", "x"], &["y"]);
    }

    #[test]
    fn what_is_left_out_whole_is_pruned() {
        assert!(Ignore::parse(b"node_modules/").prunes(b"a/node_modules"));
        assert!(Ignore::default().prunes(b"a/.git"));
        assert!(!Ignore::parse(b"*.md").prunes(b"docs"));
    }
}
