//! Addresses as people type them: of a registry, of a part of one, of a release.
//!
//! Two spellings are understood: that of OCI tools, `HOST[:PORT][/NAME][:TAG|@DIGEST]`, and
//! OpenTofu's own, `oci://HOST[:PORT]/NAME[//DIR][?tag=TAG|?digest=DIGEST]`. What is spelled
//! otherwise and can be meant in one way only is read too, so that the error can say what to write
//! instead.

use std::fmt;
use std::str::FromStr;

use super::{Host, Reference, Repo, RepoName, Selector, Tag};

/// The scheme of OpenTofu's addresses.
const SCHEME: &str = "oci";
/// The tag that OpenTofu takes where an address names neither a tag nor a digest.
const LATEST: &str = "latest";

const FOREIGN: &str = "addresses have no scheme here, or OpenTofu's oci://";
const TAG_OF_URL: &str = "in an oci:// address a tag is ?tag=TAG and a digest ?digest=DIGEST";
const PLUS: &str = "a tag holds no +, for which OpenTofu writes _";
const TWICE: &str = "a tag and a digest are two names of one release";
const ARGUMENT: &str = "an oci:// address has the argument tag or digest, once";

/// Why an address cannot be used where it stands, and what can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.parts().0, self.parts().1)]
pub struct AddressError {
    text: String,
    rule: String,
    instead: Option<String>,
}

impl AddressError {
    /// That `text` breaks `rule`, and the argument as a whole that does not, where one is known.
    pub fn new(text: &str, rule: impl fmt::Display, instead: Option<String>) -> AddressError {
        AddressError { text: text.chars().take(300).collect(), rule: rule.to_string(), instead }
    }

    /// What was typed, and the sentence about it.
    pub fn parts(&self) -> (String, String) {
        let instead =
            self.instead.iter().map(|argument| format!("; write {argument}")).collect::<String>();
        (self.text.escape_debug().to_string(), format!("{}{instead}", self.rule))
    }

    /// The same with what is wanted, unless it says already what to write.
    pub fn wanted(mut self, wanted: &str) -> AddressError {
        if self.instead.is_none() {
            self.rule = format!("{}; {wanted}", self.rule);
        }
        self
    }

    /// The same about an address that stands behind `place`.
    pub fn below(self, place: &str) -> AddressError {
        let instead = self.instead.map(|argument| format!("{place}{argument}"));
        AddressError { text: format!("{place}{}", self.text), instead, ..self }
    }
}

/// How an address is spelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spelling {
    /// `HOST/NAME:TAG`
    Plain,
    /// `oci://HOST/NAME?tag=TAG`
    OpenTofu,
    /// In a way that is refused by this rule.
    Wrong(&'static str),
}

/// An address, read as far as its text tells. What it has to be is said by where it stands: see
/// [`Address::part`], [`Address::release`] and [`Address::target`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    text: String,
    spelling: Spelling,
    host: Host,
    name: Option<RepoName>,
    selector: Option<Selector>,
    dir: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (spelling, rest) = match text.split_once("://") {
            None => (Spelling::Plain, text),
            Some((SCHEME, rest)) => (Spelling::OpenTofu, rest),
            Some((_, rest)) => (Spelling::Wrong(FOREIGN), rest),
        };
        let (rest, query) = match spelling {
            Spelling::Plain => (rest, ""),
            _ => rest.split_once('?').unwrap_or((rest, "")),
        };
        let mut reader = AddressReader { text, spelling, selector: None };
        let (host, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.parse().map_err(|e| reader.error(e))?;
        let (name, dir) = rest.split_once("//").unwrap_or((rest, ""));
        let name = reader.name(name.trim_end_matches('/'))?;
        let dir = reader.dir(dir)?;
        if name.is_none() && !dir.is_empty() {
            return Err(reader.error("the name of a repository is missing before //"));
        }
        reader.query(query)?;
        let AddressReader { spelling, selector, .. } = reader;
        Ok(Address { text: text.to_owned(), spelling, host, name, selector, dir: dir.to_owned() })
    }
}

/// What is known of an address while it is read.
struct AddressReader<'a> {
    text: &'a str,
    spelling: Spelling,
    selector: Option<Selector>,
}

impl<'a> AddressReader<'a> {
    fn error(&self, rule: impl fmt::Display) -> AddressError {
        AddressError::new(self.text, rule, None)
    }

    /// The name, of which tag and digest are split.
    fn name(&mut self, text: &str) -> Result<Option<RepoName>, AddressError> {
        let name = self.selected(text)?;
        if self.selector.is_some() && self.spelling == Spelling::OpenTofu {
            self.spelling = Spelling::Wrong(TAG_OF_URL);
        }
        match name {
            "" if self.selector.is_none() => Ok(None),
            name => name.parse().map(Some).map_err(|e| self.error(e)),
        }
    }

    /// `dir` without a tag that may stand behind it.
    fn dir(&mut self, dir: &'a str) -> Result<&'a str, AddressError> {
        if self.selector.is_none() && self.spelling == Spelling::Plain {
            self.selected(dir)
        } else {
            Ok(dir)
        }
    }

    /// Takes `:TAG` or `@DIGEST` from the end; what stands before.
    fn selected<'t>(&mut self, text: &'t str) -> Result<&'t str, AddressError> {
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => (text, Some(digest)),
            None => (text, None),
        };
        let (text, tag) = match text.rsplit_once(':') {
            Some((text, tag)) => (text, Some(self.tag(tag)?)),
            None => (text, None),
        };
        if digest.is_some() && tag.is_some() {
            self.spelling = Spelling::Wrong(TWICE);
        }
        self.selector = match digest {
            Some(digest) => Some(Selector::Digest(digest.parse().map_err(|e| self.error(e))?)),
            None => tag.map(Selector::Tag),
        };
        Ok(text)
    }

    /// A tag, also one that holds the `+` of a version.
    fn tag(&mut self, text: &str) -> Result<Tag, AddressError> {
        match text.replace('+', "_").parse() {
            Ok(tag) if text.contains('+') => {
                self.spelling = Spelling::Wrong(PLUS);
                Ok(tag)
            }
            Ok(tag) => Ok(tag),
            Err(_) => text.parse().map_err(|e| self.error(e)),
        }
    }

    fn query(&mut self, query: &str) -> Result<(), AddressError> {
        for argument in query.split('&').filter(|argument| !argument.is_empty()) {
            let selector = match argument.split_once('=') {
                Some(("tag", tag)) => Selector::Tag(self.tag(tag)?),
                Some(("digest", digest)) => {
                    let digest = digest.replace("%3A", ":").replace("%3a", ":");
                    Selector::Digest(digest.parse().map_err(|e| self.error(e))?)
                }
                _ => return Err(self.error(ARGUMENT)),
            };
            if self.selector.replace(selector).is_some() {
                return Err(self.error(ARGUMENT));
            }
        }
        Ok(())
    }
}

impl Address {
    /// Whether it is a registry and nothing else.
    pub fn is_host(&self) -> bool {
        self.name.is_none() && self.spelling == Spelling::Plain
    }

    /// Whether it names one release: by a tag, by a digest, or in OpenTofu's spelling, where no tag
    /// is one.
    pub fn is_release(&self) -> bool {
        self.selector.is_some() || (self.spelling == Spelling::OpenTofu && self.name.is_some())
    }

    /// The same without the directory in the release (`//DIR`), and that directory.
    pub fn without_dir(mut self) -> (Address, String) {
        let dir = std::mem::take(&mut self.dir);
        (self, dir)
    }

    /// A registry, or the part of it that lies at or below a name.
    ///
    /// # Errors
    /// It says more than that, or is not spelled as an address.
    pub fn part(&self) -> Result<(Host, Option<RepoName>), AddressError> {
        let shown = self.part_shown();
        self.check(&shown)?;
        if self.selector.is_some() {
            return self.refuse(
                "a tag or digest is a part of the paths below the mount, not of a source",
                Some(shown),
            );
        }
        Ok((self.host.clone(), self.name.clone()))
    }

    /// One release. OpenTofu's spelling means `latest` where it names neither a tag nor a digest.
    ///
    /// # Errors
    /// It names none, or not a release as a whole, or is not spelled as an address.
    pub fn release(&self) -> Result<Reference, AddressError> {
        let Some(repo) = self.repo() else {
            return self.refuse("the name of a repository is missing", None);
        };
        let selector = match (&self.selector, self.spelling) {
            (Some(selector), _) => selector.clone(),
            (None, Spelling::OpenTofu) => Selector::Tag(LATEST.parse().map_err(|e| self.error(e))?),
            (None, _) => {
                let instead = format!("{repo}:TAG, or {repo}:* for all of its tags");
                return self.refuse("the tag or digest of a release is missing", Some(instead));
            }
        };
        let reference = repo.at(selector);
        self.check(&reference.to_string())?;
        Ok(reference)
    }

    /// Where a release is put: a repository, and the tag that it is to have, where one is named.
    ///
    /// # Errors
    /// It names a digest or a part of a release, or is not spelled as an address.
    pub fn target(&self) -> Result<(Repo, Option<Tag>), AddressError> {
        let Some(repo) = self.repo() else {
            return self.refuse("the name of a repository is missing", None);
        };
        let tag = match &self.selector {
            Some(Selector::Digest(_)) => {
                return self.refuse(
                    "a digest follows from the content and cannot be chosen",
                    Some(repo.to_string()),
                );
            }
            Some(Selector::Tag(tag)) => Some(tag.clone()),
            None => None,
        };
        self.check(&tag.as_ref().map_or(repo.to_string(), |tag| format!("{repo}:{tag}")))?;
        Ok((repo, tag))
    }

    /// A registry, a repository or a release, as far as it is named.
    ///
    /// # Errors
    /// It names a part of a release, or is not spelled as an address.
    pub fn subject(&self) -> Result<(Host, Option<RepoName>, Option<Selector>), AddressError> {
        self.check(&self.shown())?;
        Ok((self.host.clone(), self.name.clone(), self.selector.clone()))
    }

    fn repo(&self) -> Option<Repo> {
        Some(Repo { host: self.host.clone(), name: self.name.clone()? })
    }

    fn part_shown(&self) -> String {
        self.repo().map_or(self.host.to_string(), |repo| repo.to_string())
    }

    /// As it is to be spelled.
    fn shown(&self) -> String {
        match (self.repo(), &self.selector) {
            (Some(repo), Some(selector)) => repo.at(selector.clone()).to_string(),
            _ => self.part_shown(),
        }
    }

    /// Refuses what is spelled otherwise, and a directory in a release: `right` is what to write.
    fn check(&self, right: &str) -> Result<(), AddressError> {
        match self.spelling {
            Spelling::Wrong(rule) => self.refuse(rule, Some(right.to_owned())),
            _ if !self.dir.is_empty() => {
                let rule = format!(
                    "a release is taken as a whole, without the directory {:?} in it",
                    self.dir
                );
                self.refuse(&rule, Some(right.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn refuse<T>(&self, rule: &str, instead: Option<String>) -> Result<T, AddressError> {
        Err(AddressError::new(&self.text, rule, instead))
    }

    fn error(&self, rule: impl fmt::Display) -> AddressError {
        AddressError::new(&self.text, rule, None)
    }
}

impl FromStr for Reference {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        text.parse::<Address>()?.release()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn read(text: &str) -> Address {
        text.replace("DIGEST", DIGEST).parse().unwrap_or_else(|e| panic!("{e}"))
    }

    /// What an address is as a part of a registry, as a release and as a target; of an error what
    /// stands behind "write".
    fn readings(text: &str) -> [String; 3] {
        let address = read(text);
        let said = |e: AddressError| match e.to_string().split_once("; write ") {
            Some((_, instead)) => format!("!{}", instead.replace(DIGEST, "DIGEST")),
            None => "!".to_owned(),
        };
        let part = address.part().map(|(host, name)| match name {
            Some(name) => format!("{host}/{name}"),
            None => host.to_string(),
        });
        let target = address.target().map(|(repo, tag)| match tag {
            Some(tag) => format!("{repo}:{tag}"),
            None => repo.to_string(),
        });
        let release =
            address.release().map(|release| release.to_string().replace(DIGEST, "DIGEST"));
        [part.unwrap_or_else(said), release.unwrap_or_else(said), target.unwrap_or_else(said)]
    }

    #[test]
    fn an_address_is_read_as_it_is_meant_or_refused_with_what_to_write() {
        let missing = "!a.b/c/d:TAG, or a.b/c/d:* for all of its tags";
        for (text, wanted) in [
            ("a.b", ["a.b", "!", "!"]),
            ("a.b:5/", ["a.b:5", "!", "!"]),
            ("a.b/c/d", ["a.b/c/d", missing, "a.b/c/d"]),
            ("a.b/c:1.0", ["!a.b/c", "a.b/c:1.0", "a.b/c:1.0"]),
            ("a.b/c@DIGEST", ["!a.b/c", "a.b/c@DIGEST", "!a.b/c"]),
            // As OpenTofu writes it.
            ("oci://a.b", ["a.b", "!", "!"]),
            ("oci://a.b:5/c", ["a.b:5/c", "a.b:5/c:latest", "a.b:5/c"]),
            ("oci://a.b/c?tag=1.0", ["!a.b/c", "a.b/c:1.0", "a.b/c:1.0"]),
            ("oci://a.b/c?digest=DIGEST", ["!a.b/c", "a.b/c@DIGEST", "!a.b/c"]),
            ("oci://a.b/c//d?tag=1", ["!a.b/c", "!a.b/c:1", "!a.b/c:1"]),
            // As nobody does.
            ("oci://a.b/c:1", ["!a.b/c", "!a.b/c:1", "!a.b/c:1"]),
            ("oci://a.b/c@DIGEST", ["!a.b/c", "!a.b/c@DIGEST", "!a.b/c"]),
            ("https://a.b", ["!a.b", "!", "!"]),
            ("https://a.b:5/", ["!a.b:5", "!", "!"]),
            ("docker://a.b/c:1", ["!a.b/c", "!a.b/c:1", "!a.b/c:1"]),
            ("a.b/c:1.0.0+x", ["!a.b/c", "!a.b/c:1.0.0_x", "!a.b/c:1.0.0_x"]),
            ("oci://a.b/c?tag=1.0.0+x", ["!a.b/c", "!a.b/c:1.0.0_x", "!a.b/c:1.0.0_x"]),
            ("a.b/c:1@DIGEST", ["!a.b/c", "!a.b/c@DIGEST", "!a.b/c"]),
            ("a.b/c//d:1", ["!a.b/c", "!a.b/c:1", "!a.b/c:1"]),
        ] {
            assert_eq!(readings(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_can_be_meant_in_no_way_is_no_address() {
        for bad in [
            "",
            "acme",
            "acme/c:1",
            "a.b/C",
            "a.b//c",
            "a.b/c:",
            "a.b/c:.x",
            "a.b/c@sha256:0",
            "a.b/c:1:2",
            "./c",
            "oci://",
            "oci:///srv/store",
            "oci://acme/c",
            "oci://a.b/c?tag=1&tag=2",
            "oci://a.b/c?tag=1&digest=DIGEST",
            "oci://a.b/c?archive=zip",
            "oci://a.b/c:1?tag=1",
            "a.b/c?tag=1",
            "a.b/:1",
        ] {
            let bad = bad.replace("DIGEST", DIGEST);
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
