//! What a failure is about.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::name::{Host, Platform, ProviderAddr, Reference, Repo, Selector};

/// What a failure is about; printed, it is the beginning of a sentence.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// A registry.
    Registry(Host),
    /// A repository.
    Repo(Repo),
    /// What a tag or a digest names in a repository.
    Reference(Reference),
    /// A reference, and the digest of the manifest that it stands for.
    Manifest(Reference, Digest),
    /// What a release holds for one platform, and the digest of its manifest where it is known.
    Platform(Reference, Platform, Option<Digest>),
    /// A file of a package.
    File(Reference, PathBuf),
    /// A name that was looked up in a repository: of a tag, or of a repository below it.
    Entry(Repo, String),
    /// A blob or manifest, where its repository is named beside it.
    Digest(Digest),
    /// A provider.
    Provider(ProviderAddr),
    /// A local file or directory.
    Path(PathBuf),
    /// What is said of something as a whole, such as its list: `the tag list of`.
    Of(&'static str, Box<Subject>),
    /// What was asked for, and what of it failed.
    Part(Box<Subject>, Box<Subject>),
    /// Anything else, in words.
    Named(String),
}

impl Subject {
    /// The registry that holds it.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Subject::Registry(host) => Some(host),
            Subject::Of(_, whole) => whole.host(),
            Subject::Part(whole, part) => part.host().or_else(|| whole.host()),
            _ => self.repo().map(|repo| &repo.host),
        }
    }

    fn repo(&self) -> Option<&Repo> {
        match self {
            Subject::Repo(repo) | Subject::Entry(repo, _) => Some(repo),
            _ => self.reference().map(|reference| &reference.repo),
        }
    }

    fn reference(&self) -> Option<&Reference> {
        match self {
            Subject::Reference(reference)
            | Subject::Manifest(reference, _)
            | Subject::Platform(reference, ..)
            | Subject::File(reference, _) => Some(reference),
            _ => None,
        }
    }

    /// The digest that a reference is known to stand for.
    fn digest(&self) -> Option<Digest> {
        match self {
            Subject::Manifest(_, digest) | Subject::Platform(_, _, Some(digest)) => Some(*digest),
            _ => match self.reference()?.selector {
                Selector::Digest(digest) => Some(digest),
                Selector::Tag(_) => None,
            },
        }
    }

    /// Whether it is `whole`, or lies in it, so that a sentence about it names `whole` first.
    fn is_within(&self, whole: &Subject) -> bool {
        match (self, whole) {
            (Subject::Part(begins, _), _) => begins.is_within(whole),
            (Subject::Of(..), _) => self == whole,
            (_, Subject::Registry(host)) => self.host() == Some(host),
            (_, Subject::Repo(outer)) => self.repo().is_some_and(|repo| {
                repo.host == outer.host && repo.name.is_within(Some(&outer.name))
            }),
            (_, Subject::Reference(outer)) => self.reference() == Some(outer),
            _ => self == whole,
        }
    }

    /// What was asked for, and what of it `failed`: nothing where that is the same thing, the
    /// digest alone where it is of the same repository, and `failed` alone where it says itself
    /// what was asked for.
    pub fn led_to(self, failed: &Subject) -> Subject {
        if failed.is_within(&self) {
            return failed.clone();
        }
        let part = match (self.reference(), failed) {
            (Some(asked), Subject::Reference(failed)) if failed == asked => return self,
            (
                Some(asked),
                Subject::Reference(Reference { repo, selector: Selector::Digest(digest) }),
            ) if *repo == asked.repo => {
                if self.digest() == Some(*digest) {
                    return self;
                }
                Subject::Digest(*digest)
            }
            _ => failed.clone(),
        };
        Subject::Part(Box::new(self), Box::new(part))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Registry(host) => host.fmt(f),
            Subject::Repo(repo) => repo.fmt(f),
            Subject::Reference(reference) => reference.fmt(f),
            Subject::Manifest(reference, digest) => write!(f, "{reference} ({digest})"),
            Subject::Platform(release, platform, None) => write!(f, "{release} {platform}"),
            Subject::Platform(release, platform, Some(digest)) => {
                write!(f, "{release} {platform} ({digest})")
            }
            Subject::File(package, path) => write!(f, "{package} file {path:?}"),
            Subject::Entry(repo, name) => write!(f, "{repo}/{name}"),
            Subject::Digest(digest) => digest.fmt(f),
            Subject::Provider(provider) => provider.fmt(f),
            Subject::Path(path) => path.display().fmt(f),
            Subject::Of(what, whole) => write!(f, "{what} {whole}"),
            Subject::Part(whole, part) => write!(f, "{whole}: {part}"),
            Subject::Named(words) => f.write_str(words),
        }
    }
}

macro_rules! from {
    ($($of:ty => $to:path,)*) => {
        $(
            impl From<$of> for Subject {
                fn from(of: $of) -> Subject {
                    $to(of)
                }
            }

            impl From<&$of> for Subject {
                fn from(of: &$of) -> Subject {
                    $to(of.clone())
                }
            }
        )*
    };
}

from! {
    Host => Subject::Registry,
    Repo => Subject::Repo,
    Reference => Subject::Reference,
    Digest => Subject::Digest,
    ProviderAddr => Subject::Provider,
    PathBuf => Subject::Path,
    String => Subject::Named,
}

impl From<&Path> for Subject {
    fn from(path: &Path) -> Subject {
        Subject::Path(path.to_owned())
    }
}

impl From<&str> for Subject {
    fn from(words: &str) -> Subject {
        Subject::Named(words.to_owned())
    }
}

impl From<&Subject> for Subject {
    fn from(subject: &Subject) -> Subject {
        subject.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    const OTHER: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

    fn reference(text: &str) -> Subject {
        Subject::Reference(text.parse().unwrap())
    }

    fn manifest(text: &str) -> Subject {
        Subject::Manifest(text.parse().unwrap(), DIGEST.parse().unwrap())
    }

    #[test]
    fn what_was_asked_for_is_named_once_and_then_what_of_it_failed() {
        let of_list =
            |repo: &str| Subject::Of("the tag list of", Box::new(Subject::Named(repo.to_owned())));
        let registry = || Subject::Registry("r.example".parse().unwrap());
        let repo = |name: &str| {
            let name = name.parse().unwrap();
            Subject::Repo(Repo { host: "r.example".parse().unwrap(), name })
        };
        let tag = "r.example/a:1.0";
        let at = |digest: &str| reference(&format!("r.example/a@{digest}"));
        let cases = [
            (reference(tag), reference(tag), tag.to_owned()),
            (reference(tag), manifest(tag), format!("{tag} ({DIGEST})")),
            (manifest(tag), reference(tag), format!("{tag} ({DIGEST})")),
            (manifest(tag), at(DIGEST), format!("{tag} ({DIGEST})")),
            (manifest(tag), at(OTHER), format!("{tag} ({DIGEST}): {OTHER}")),
            (manifest(tag), reference("r.example/b:1"), format!("{tag} ({DIGEST}): r.example/b:1")),
            (registry(), reference(tag), tag.to_owned()),
            (registry(), of_list("x"), "r.example: the tag list of x".to_owned()),
            (repo("a"), reference(tag), tag.to_owned()),
            (repo("a"), repo("ab"), "r.example/a: r.example/ab".to_owned()),
            ("the mount's root".into(), registry(), "the mount's root: r.example".to_owned()),
        ];
        for (asked, failed, wanted) in cases {
            let led = asked.clone().led_to(&failed);
            assert_eq!(led.to_string(), wanted);
            assert_eq!(asked.led_to(&led), led, "{wanted}: told again");
        }
    }

    #[test]
    fn a_subject_knows_the_registry_that_holds_it() {
        let part = |whole: Subject, part: Subject| Subject::Part(Box::new(whole), Box::new(part));
        let of = |whole| Subject::Of("the catalog of", Box::new(whole));
        let (of_a, of_b) = (reference("a.example/x:1"), reference("b.example/x:1"));
        for (subject, host) in [
            (of_a.clone(), Some("a.example")),
            (of(Subject::Registry("a.example".parse().unwrap())), Some("a.example")),
            (part(of_a.clone(), Subject::Digest(DIGEST.parse().unwrap())), Some("a.example")),
            (part(of_a, of_b.clone()), Some("b.example")),
            (part("plugins/c.example/x/y".into(), of_b), Some("b.example")),
            ("plugins/c.example/x/y".into(), None),
        ] {
            assert_eq!(subject.host().map(Host::as_str), host, "{subject}");
        }
    }
}
