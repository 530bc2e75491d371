//! Source addresses of modules: which of them name something that can be carried.

use std::path::{Component, Path, PathBuf};

use crate::name::{
    Address, AddressError, Component as Name, Host, Reference, Repo, RepoName, Selector, Tag,
};

/// Where a module's source points.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ModuleSource {
    /// `./…` or `../…`: relative to the module that calls.
    Relative(PathBuf),
    /// An absolute path, `//` taken as `/`.
    Absolute(PathBuf),
    /// `oci://…`: the release, and the directory in it.
    Release(Reference, PathBuf),
    /// Something else; why it is not carried.
    Other(String),
}

impl ModuleSource {
    /// Reads an address by OpenTofu's rules.
    pub(super) fn parse(text: &str) -> ModuleSource {
        let text = text.trim();
        if text == "." || text == ".." || text.starts_with("./") || text.starts_with("../") {
            return ModuleSource::Relative(PathBuf::from(text));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return ModuleSource::Absolute(PathBuf::from(path));
        }
        if text.starts_with('/') {
            return ModuleSource::Absolute(PathBuf::from(text));
        }
        if !text.starts_with("oci://") {
            let why = "modules are carried from paths below a mount and from oci:// addresses";
            return ModuleSource::Other(why.to_owned());
        }
        match release(text) {
            Ok((release, dir)) => ModuleSource::Release(release, dir),
            Err(e) => ModuleSource::Other(e.to_string()),
        }
    }
}

/// The release that an `oci://` address names, and the directory in it.
fn release(address: &str) -> Result<(Reference, PathBuf), AddressError> {
    let (address, dir) = address.parse::<Address>()?.without_dir();
    Ok((address.release()?, PathBuf::from(dir)))
}

/// A path below a mount's root, as far as its text tells: a release and the directory in it.
///
/// `HOST/NAME:TAG/…` and `HOST/NAME@DIGEST/…` stand for one release. In `HOST/NAME/TAG/…` any
/// component may be the tag; the readings come in the order of likelihood, and the registry says
/// which is meant.
pub(super) fn below_mount(path: &Path) -> Vec<(Reference, PathBuf)> {
    let Some(components) = plain(path) else { return Vec::new() };
    let Some((host, names)) = components.split_first() else { return Vec::new() };
    let Ok(host) = host.parse::<Host>() else { return Vec::new() };
    let mut readings = Vec::new();
    let mut repo: Option<RepoName> = None;
    for (at, text) in names.iter().enumerate() {
        let dir: PathBuf = names[at + 1..].iter().collect();
        let release = |name: RepoName, selector| Repo { host: host.clone(), name }.at(selector);
        match Name::parse(text) {
            Name::Manifest(name, selector) => {
                let name = RepoName::below(repo.as_ref(), &name);
                return name.map(|name| (release(name, selector), dir)).into_iter().collect();
            }
            Name::Plain(text) => {
                if let (Some(repo), Ok(tag)) = (&repo, text.parse::<Tag>()) {
                    readings.push((release(repo.clone(), Selector::Tag(tag)), dir));
                }
                match RepoName::below(repo.as_ref(), &text) {
                    Some(name) => repo = Some(name),
                    None => break,
                }
            }
            _ => break,
        }
    }
    let is_version = |selector: &Selector| matches!(selector, Selector::Tag(tag) if crate::name::Version::of_tag(tag).is_some());
    readings.sort_by_key(|(release, _)| !is_version(&release.selector));
    readings
}

/// The path from the first component on that can be a registry's name.
pub(super) fn from_host(path: &Path) -> Option<PathBuf> {
    let components: Vec<_> = path.components().collect();
    let is_host =
        |c: &Component<'_>| c.as_os_str().to_str().is_some_and(|text| text.parse::<Host>().is_ok());
    let at = components.iter().position(is_host)?;
    Some(components[at..].iter().collect())
}

/// The components of a path without `.` and `..`; `None` if it leads above its start or is not
/// text.
pub(super) fn plain(path: &Path) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => found.push(name.to_str()?),
            Component::ParentDir => {
                found.pop()?;
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> Vec<String> {
        below_mount(Path::new(path))
            .iter()
            .map(|(r, dir)| format!("{r} {}", dir.display()))
            .collect()
    }

    #[test]
    fn sources_are_read_as_opentofu_reads_them() {
        let release = |text: &str| match ModuleSource::parse(text) {
            ModuleSource::Release(reference, dir) => format!("{reference} {}", dir.display()),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(release("oci://a.b/c/d?tag=1.0"), "a.b/c/d:1.0 ");
        assert_eq!(release("oci://a.b:5/c//sub/x"), "a.b:5/c:latest sub/x");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(
            release(&format!("oci://a.b/c//s?digest={digest}")),
            format!("a.b/c@{digest} s")
        );
        for bad in
            ["oci://a.b", "oci://a.b/c?tag=1&digest=x", "oci://a.b/c?archive=zip", "oci://a.b/c:1"]
        {
            assert!(matches!(ModuleSource::parse(bad), ModuleSource::Other(_)), "{bad}");
        }
        assert_eq!(ModuleSource::parse("../a//b"), ModuleSource::Relative("../a/b".into()));
        assert_eq!(ModuleSource::parse("/mnt/x//b"), ModuleSource::Absolute("/mnt/x/b".into()));
        assert_eq!(ModuleSource::parse("file:///mnt/x"), ModuleSource::Absolute("/mnt/x".into()));
        for other in ["hashicorp/consul/aws", "git::https://x.example/y.git", "github.com/a/b", "x"]
        {
            assert!(matches!(ModuleSource::parse(other), ModuleSource::Other(_)), "{other}");
        }
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
