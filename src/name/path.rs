//! Paths on a disk that lead to releases: below a mount, and in a store of image layouts.

use std::path::{self, Path, PathBuf};

use super::{Component, Host, Reference, Repo, RepoName, Selector, Tag, Version};

impl Reference {
    /// The releases that a path below a mount's root may name, as far as its text tells, each with
    /// the directory in it.
    ///
    /// `HOST/NAME:TAG/…` and `HOST/NAME@DIGEST/…` stand for one release. In `HOST/NAME/TAG/…` any
    /// component may be the tag; the readings come in the order of likelihood, and the registry
    /// says which is meant.
    pub fn below_mount(path: &Path) -> Vec<(Reference, PathBuf)> {
        let components = plain(path).unwrap_or_default();
        let Some((host, names)) = components.split_first() else { return Vec::new() };
        let Ok(host) = host.parse::<Host>() else { return Vec::new() };
        let release =
            |name, selector| Reference { repo: Repo { host: host.clone(), name }, selector };
        let mut readings = Vec::new();
        let mut repo: Option<RepoName> = None;
        for (at, text) in names.iter().enumerate() {
            let dir: PathBuf = names[at + 1..].iter().collect();
            match Component::parse(text) {
                Component::Manifest(name, selector) => {
                    let name = RepoName::below(repo.as_ref(), &name);
                    return name.map(|name| (release(name, selector), dir)).into_iter().collect();
                }
                Component::Plain(text) => {
                    if let (Some(repo), Ok(tag)) = (&repo, text.parse::<Tag>()) {
                        readings.push((release(repo.clone(), Selector::Tag(tag)), dir));
                    }
                    repo = RepoName::below(repo.as_ref(), &text);
                    if repo.is_none() {
                        break;
                    }
                }
                _ => break,
            }
        }
        readings.sort_by_key(|(release, _)| match &release.selector {
            Selector::Tag(tag) => Version::of_tag(tag).is_none(),
            Selector::Digest(_) => true,
        });
        readings
    }
}

/// The path from the first component on that can be a registry's name.
pub fn from_host(path: &Path) -> Option<PathBuf> {
    let is_host = |component: &path::Component<'_>| {
        component.as_os_str().to_str().is_some_and(|text| text.parse::<Host>().is_ok())
    };
    let rest: PathBuf = path.components().skip_while(|component| !is_host(component)).collect();
    (!rest.as_os_str().is_empty()).then_some(rest)
}

/// `DIR/HOST/NAME…` in two: HOST is the last component that can be one and has a name behind it.
/// Where several could be, the layout is the same directory in any case.
pub fn split_store(path: &Path) -> Option<(PathBuf, String)> {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    let is_host = |at: &usize| parts[*at].parse::<Host>().is_ok();
    let at = (1..parts.len().checked_sub(1)?).rev().find(is_host)?;
    Some((parts[..at].iter().collect(), parts[at..].join("/")))
}

/// The components of a path without `.` and `..`; `None` if it leads above its start or is not
/// text.
pub fn plain(path: &Path) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    for component in path.components() {
        match component {
            path::Component::Normal(name) => found.push(name.to_str()?),
            path::Component::ParentDir => {
                found.pop()?;
            }
            path::Component::CurDir | path::Component::RootDir | path::Component::Prefix(_) => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> Vec<String> {
        Reference::below_mount(Path::new(path))
            .iter()
            .map(|(r, dir)| format!("{r} {}", dir.display()))
            .collect()
    }

    #[test]
    fn a_path_below_a_mount_is_read_as_the_namespace_reads_it() {
        assert_eq!(shown("ghcr.io/acme/net:1.0/sub/x"), ["ghcr.io/acme/net:1.0 sub/x"]);
        assert_eq!(shown("ghcr.io/net/1.0.0"), ["ghcr.io/net:1.0.0 "]);
        assert_eq!(
            shown("ghcr.io/acme/net/1.0.0/sub"),
            [
                "ghcr.io/acme/net:1.0.0 sub",
                "ghcr.io/acme:net 1.0.0/sub",
                "ghcr.io/acme/net/1.0.0:sub "
            ]
        );
        assert!(
            shown("ghcr.io/.git/x").is_empty()
                && shown("nohost/a/1.0.0").is_empty()
                && shown("../a.b/c/1").is_empty()
        );
        assert_eq!(from_host(Path::new("/mnt/tofu/ghcr.io/a/1")), Some("ghcr.io/a/1".into()));
        assert_eq!(from_host(Path::new("/mnt/tofu/x")), None);
    }
}
