//! Names: registry hosts, repositories, tags, references, platforms.
//!
//! Each type holds text that was checked against its grammar once; no other part of the program
//! joins or splits this text. Grammars: OCI distribution spec, "Pulling manifests" (name,
//! reference).

mod address;
mod claim;
mod constraints;
mod module;
mod newest;
pub mod path;
mod provider;
mod range;
mod staged;
pub mod text;

use std::fmt;
use std::str::FromStr;

pub use address::{Address, AddressError};
pub use claim::ClaimTag;
pub use constraints::{ConstraintError, Constraints};
pub use module::ModuleAddr;
pub use newest::no_such_tag;
pub use provider::{ProviderAddr, Version, ZipName};
pub use range::{VersionRange, version_of};
pub use staged::ReleasePathError;

use crate::digest::{Digest, DigestError};

/// The longest name of a repository, in bytes (common to all registries).
pub const REPO_MAX: usize = 255;
/// The longest tag, in bytes (OCI distribution spec).
pub const TAG_MAX: usize = 128;
/// The longest path component that any directory of a mount can hold, in bytes (NAME_MAX).
pub const COMPONENT_MAX: usize = 255;

/// Why a text is not the name that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not {wanted}{}",
    instead.as_ref().map(|name| format!("; write {name}")).unwrap_or_default()
)]
pub struct NameError {
    text: String,
    wanted: &'static str,
    /// The name that is meant, where it is plain.
    instead: Option<String>,
}

impl NameError {
    /// The name that is meant, where it is plain.
    pub fn instead(&self) -> Option<&str> {
        self.instead.as_deref()
    }
}

fn refuse<T>(text: &str, wanted: &'static str) -> Result<T, NameError> {
    refuse_for(text, wanted, None)
}

fn refuse_for<T>(
    text: &str,
    wanted: &'static str,
    instead: Option<String>,
) -> Result<T, NameError> {
    Err(NameError { text: text.chars().take(300).collect(), wanted, instead })
}

/// A registry: `HOST` or `HOST:PORT`, as it stands in references and as a directory at the root of
/// a mount.
///
/// INVARIANT: holds a `.` or a `:`, or is `localhost`, so that it never equals one of the mount's
/// fixed names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

impl Host {
    /// The text, `HOST[:PORT]`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host without its port.
    pub fn domain(&self) -> &str {
        match self.0.rsplit_once(':') {
            Some((domain, _))
                if !domain.is_empty() && (!domain.contains(':') || domain.ends_with(']')) =>
            {
                domain
            }
            _ => &self.0,
        }
    }
}

impl FromStr for Host {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const WANTED: &str =
            "a registry (HOST or HOST:PORT, with a dot, a port, or the name localhost)";
        let (domain, port) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((v6, "")) if is_v6(v6) => (None, None),
                Some((v6, rest)) if is_v6(v6) && rest.starts_with(':') => (None, Some(&rest[1..])),
                _ => return refuse(text, WANTED),
            },
            None => match text.split_once(':') {
                Some((domain, port)) => (Some(domain), Some(port)),
                None => (Some(text), None),
            },
        };
        let label = |l: &str| {
            !l.is_empty()
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let sound = domain.is_none_or(|d| d.split('.').all(label))
            && port.is_none_or(|p| {
                p.len() <= 5 && p.parse::<u16>().is_ok() && p.bytes().all(|b| b.is_ascii_digit())
            })
            && text.len() <= COMPONENT_MAX
            && (text.contains(['.', ':']) || text == "localhost");
        if sound {
            return Ok(Host(text.to_owned()));
        }
        // As a browser shows it.
        let bare = text
            .split_once("://")
            .and_then(|(_, rest)| rest.trim_end_matches('/').parse::<Host>().ok());
        refuse_for(text, WANTED, bare.map(|host| host.0))
    }
}

fn is_v6(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// Whether `text` can be one component of a repository's name.
pub fn is_repo_component(text: &str) -> bool {
    // [a-z0-9]+ joined by one dot, one or two underscores, or any number of hyphens
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if text.is_empty() || text.len() > REPO_MAX {
        return false;
    }
    let bytes = text.as_bytes();
    if !alnum(bytes[0]) || !alnum(bytes[bytes.len() - 1]) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|sep| matches!(sep, "" | "." | "_" | "__") || sep.bytes().all(|b| b == b'-'))
}

/// Whether `text` may be an unlisted directory on the way to nested repositories where no catalog
/// can be read: `[a-z0-9]+([_-]+[a-z0-9]+)*`. Dots are left out, so that no version number becomes
/// one.
pub fn is_passage(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    is_repo_component(text) && text.bytes().all(|b| alnum(b) || b == b'_' || b == b'-')
}

/// The name of a repository in a registry, or of a part of one: `acme/network`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoName(String);

impl RepoName {
    /// The text, components joined by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// `self/component`, if that is a valid name.
    pub fn join(&self, component: &str) -> Option<RepoName> {
        RepoName::below(Some(self), component)
    }

    /// `base/component` (or `component` alone), if that is a valid name.
    pub fn below(base: Option<&RepoName>, component: &str) -> Option<RepoName> {
        if !is_repo_component(component) {
            return None;
        }
        let text = match base {
            Some(base) => format!("{}/{component}", base.0),
            None => component.to_owned(),
        };
        (text.len() <= REPO_MAX).then_some(RepoName(text))
    }

    /// The name without its last component.
    pub fn parent(&self) -> Option<RepoName> {
        self.0.rsplit_once('/').map(|(parent, _)| RepoName(parent.to_owned()))
    }

    /// Whether `prefix` is this name or one of its ancestors, by whole components. `None` is above
    /// all names.
    pub fn is_within(&self, prefix: Option<&RepoName>) -> bool {
        match prefix {
            None => true,
            Some(p) => {
                self.0 == p.0
                    || self.0.strip_prefix(p.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }

    /// The component of this name that follows `prefix`, if this name lies below it.
    pub fn next_below<'a>(&'a self, prefix: Option<&RepoName>) -> Option<&'a str> {
        let rest = match prefix {
            None => self.as_str(),
            Some(p) => self.0.strip_prefix(p.as_str())?.strip_prefix('/')?,
        };
        rest.split('/').next()
    }
}

impl FromStr for RepoName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() <= REPO_MAX && !text.is_empty() && text.split('/').all(is_repo_component) {
            Ok(RepoName(text.to_owned()))
        } else {
            refuse(
                text,
                "a repository name (lower-case letters, digits and single separators, joined by /)",
            )
        }
    }
}

/// A tag. Grammar `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`, so it is always a sound file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if (1..=TAG_MAX).contains(&bytes.len())
            && word(bytes[0])
            && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
        {
            Ok(Tag(text.to_owned()))
        } else {
            // As a version is written; OpenTofu has the same rule for its tags.
            let version =
                text.contains('+').then(|| text.replace('+', "_").parse::<Tag>().ok()).flatten();
            let wanted = "a tag (up to 128 of letters, digits, . _ -, not starting with . or -)";
            refuse_for(text, wanted, version.map(|tag| tag.0))
        }
    }
}

/// What selects a manifest in a repository.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Selector {
    /// A name that may move.
    Tag(Tag),
    /// The manifest itself.
    Digest(Digest),
}

impl fmt::Display for Selector {
    /// As it stands in a request path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Tag(t) => t.fmt(f),
            Selector::Digest(d) => d.fmt(f),
        }
    }
}

/// A repository of a certain registry: `ghcr.io/acme/network`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repo {
    /// The registry.
    pub host: Host,
    /// The name there.
    pub name: RepoName,
}

impl Repo {
    /// The reference of a manifest in this repository.
    pub fn at(&self, selector: Selector) -> Reference {
        Reference { repo: self.clone(), selector }
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl FromStr for Repo {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((host, name)) => Ok(Repo { host: host.parse()?, name: name.parse()? }),
            None => refuse(text, "a repository (HOST/NAME)"),
        }
    }
}

/// A manifest's address: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub repo: Repo,
    /// Which manifest in it.
    pub selector: Selector,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            Selector::Tag(t) => write!(f, "{}:{t}", self.repo),
            Selector::Digest(d) => write!(f, "{}@{d}", self.repo),
        }
    }
}

/// An operating system and architecture in OpenTofu's spelling: `linux_amd64`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    os: String,
    arch: String,
}

impl Platform {
    /// From the two fields of an OCI platform object; `None` where they cannot be a directory's
    /// name.
    pub fn new(os: &str, arch: &str) -> Option<Platform> {
        let word = |s: &str| {
            (1..=64).contains(&s.len())
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        (word(os) && word(arch)).then(|| Platform { os: os.to_owned(), arch: arch.to_owned() })
    }

    /// The platform that this program was built for.
    pub fn host() -> Platform {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Platform { os: std::env::consts::OS.to_owned(), arch: arch.to_owned() }
    }

    /// The operating system, as Go names it.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture, as Go names it.
    pub fn arch(&self) -> &str {
        &self.arch
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.os, self.arch)
    }
}

impl FromStr for Platform {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('_').and_then(|(os, arch)| Platform::new(os, arch)) {
            Some(platform) => Ok(platform),
            None => refuse(text, "a platform (OS_ARCH, as in linux_amd64)"),
        }
    }
}

macro_rules! text_value {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
macro_rules! debug_as_display {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
text_value!(Host, RepoName, Tag);
debug_as_display!(Host, RepoName, Tag, Repo, Reference, Platform);

/// One path component below a registry's directory, read as far as its text alone allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Component {
    /// `NAME:TAG` or `NAME@DIGEST`: a manifest of the repository NAME below the directory, no tag
    /// list needed.
    Manifest(String, Selector),
    /// `NAME:RANGE`, or `RANGE` alone: the newest version in it, of the repository NAME below the
    /// directory, or of the directory itself.
    Range(Option<String>, VersionRange),
    /// A text that can be a tag, a part of a repository's name, or both, or a version of a provider
    /// as its registry spells it.
    Plain(String),
    /// `NAME@ALGORITHM:HEX` of an algorithm that is not implemented.
    Unsupported(DigestError),
    /// A text that nothing below a registry can have for a name; absent without a request.
    Impossible,
}

impl Component {
    /// The component that names `tag`: alone, or behind the name of its repository.
    pub fn of_tag(name: Option<&str>, tag: &Tag) -> String {
        name.map_or_else(|| tag.to_string(), |name| format!("{name}:{tag}"))
    }

    /// Reads one component.
    pub fn parse(text: &str) -> Component {
        if let Some(range) = VersionRange::with_operator(text) {
            return Component::Range(None, range);
        }
        if let Some((name, digest)) = text.split_once('@') {
            return match (is_repo_component(name), digest.parse()) {
                (true, Ok(digest)) => {
                    Component::Manifest(name.to_owned(), Selector::Digest(digest))
                }
                (true, Err(e @ DigestError::UnknownAlgorithm(_))) => Component::Unsupported(e),
                _ => Component::Impossible,
            };
        }
        if let Some((name, tag)) = text.split_once(':') {
            if !is_repo_component(name) {
                return Component::Impossible;
            }
            if let Some(range) = VersionRange::with_operator(tag) {
                return Component::Range(Some(name.to_owned()), range);
            }
            return match tag.parse() {
                Ok(tag) => Component::Manifest(name.to_owned(), Selector::Tag(tag)),
                Err(_) => Component::Impossible,
            };
        }
        let is_version = || text.parse::<Version>().is_ok();
        if text.parse::<Tag>().is_ok() || is_repo_component(text) || is_version() {
            Component::Plain(text.to_owned())
        } else {
            Component::Impossible
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_never_collides_with_a_fixed_name() {
        for good in [
            "ghcr.io",
            "localhost",
            "localhost:5000",
            "127.0.0.1:8443",
            "a:1",
            "[::1]:5000",
            "Reg.Example",
        ] {
            assert_eq!(good.parse::<Host>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "mirror",
            "plugins",
            "staging",
            "package.json:",
            ".git",
            "a..b",
            "-a.b",
            "a.b:x",
            "a.b:99999",
            "a.b/c",
            "[::1",
            "a b.c",
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
        assert_eq!("localhost:5000".parse::<Host>().unwrap().domain(), "localhost");
        assert_eq!("[::1]:5000".parse::<Host>().unwrap().domain(), "[::1]");
        assert_eq!("[::1]".parse::<Host>().unwrap().domain(), "[::1]");
    }

    #[test]
    fn repository_components_follow_the_distribution_spec() {
        for good in ["a", "network", "a.b", "a_b", "a__b", "a---b", "0", "1.2.3"] {
            assert!(is_repo_component(good), "{good}");
        }
        for bad in ["", ".git", "a..b", "a___b", "a._b", "A", "a-", "-a", "a/b", "Main.tf", "ä"] {
            assert!(!is_repo_component(bad), "{bad}");
        }
        assert!(
            is_passage("a-b") && is_passage("a__b") && !is_passage("1.2") && !is_passage("main.tf")
        );
    }

    #[test]
    fn a_component_is_read_by_its_text_alone() {
        let tag = |t: &str| Selector::Tag(t.parse().unwrap());
        assert_eq!(Component::parse("net:1.0"), Component::Manifest("net".into(), tag("1.0")));
        let digest = Digest::of(b"");
        assert_eq!(
            Component::parse(&format!("net@{digest}")),
            Component::Manifest("net".into(), Selector::Digest(digest))
        );
        assert_eq!(Component::parse("1.0.0-RC1"), Component::Plain("1.0.0-RC1".into()));
        assert!(matches!(Component::parse("net@md5:00"), Component::Unsupported(_)));
        for bad in [
            ".git",
            "",
            ".",
            "..",
            "-x",
            "net:",
            ":x",
            "net@sha256:00",
            "a b",
            "net:1:2",
            "NET:1",
            "x\ny",
        ] {
            assert_eq!(Component::parse(bad), Component::Impossible, "{bad}");
        }
    }

    #[test]
    fn references_print_as_they_were_read() {
        let d = Digest::of(b"x");
        for text in [
            "ghcr.io/acme/net:1.0".to_owned(),
            "localhost:5000/a:b".into(),
            format!("ghcr.io/a/b@{d}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        for bad in
            ["ghcr.io/a", "ghcr.io", "a/b:1", "ghcr.io/A:1", "ghcr.io/a:", "ghcr.io/a@sha256:1"]
        {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_that_is_written_as_elsewhere_is_refused_with_the_one_that_is_meant() {
        let host = "https://localhost:5000/".parse::<Host>().unwrap_err().to_string();
        assert!(host.ends_with("; write localhost:5000"), "{host}");
        let tag = "1.0.0+b.1".parse::<Tag>().unwrap_err().to_string();
        assert!(tag.ends_with("; write 1.0.0_b.1"), "{tag}");
        assert!(!"-x".parse::<Tag>().unwrap_err().to_string().contains("; write"));
    }

    #[test]
    fn prefixes_end_at_component_boundaries() {
        let repo: RepoName = "acme/net/work".parse().unwrap();
        let p = |s: &str| s.parse::<RepoName>().unwrap();
        assert!(repo.is_within(Some(&p("acme/net"))) && !repo.is_within(Some(&p("acme/ne"))));
        assert_eq!(repo.next_below(Some(&p("acme"))), Some("net"));
        assert_eq!(repo.next_below(None), Some("acme"));
        assert_eq!(repo.next_below(Some(&repo)), None);
    }
}
