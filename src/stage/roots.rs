//! Which staged directories are artifacts, and what their paths say.
//!
//! An artifact root is the topmost directory below `staging/HOST/` that has a `:` in its name,
//! holds a non-directory, or has only `OS_ARCH` children; or `staging/mirror/HOST/NAMESPACE/TYPE`.
//! A path that has no root above or below it is one itself.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::tree::{DIRECTORY, list, open_plain};
use crate::failure::{Failure, Refusal};
use crate::name::{Host, Platform, ProviderAddr, Repo, RepoName, Selector, Tag, is_passage};

/// The directory of packed mirrors, which no host can have for a name.
const MIRROR: &str = "mirror";
/// The most directories that are looked into at once.
const DIRECTORIES_MAX: usize = 100_000;

/// What a staged directory becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RootTarget {
    /// A release of this repository.
    Release(Repo, Tag),
    /// Releases of the repository to which this provider is mapped, by the versions of its zips.
    Mirror(ProviderAddr),
}

/// What lies in the staging directory, which is held by descriptor.
pub(super) struct StagingRoots {
    pub(super) dir: OwnedFd,
}

impl StagingRoots {
    /// The artifact roots at, above or below `path`, which is relative to the staging directory;
    /// sorted.
    ///
    /// # Errors
    /// `Absent` where there is no such directory, or nothing is staged below it.
    pub(super) fn roots(&self, path: &Path) -> Result<Vec<PathBuf>, Refusal> {
        let parts = components(path)?;
        let fixed = parts.first().map_or(1, |first| if *first == MIRROR { 4 } else { 2 });
        let mut at = PathBuf::new();
        for (depth, part) in parts.iter().enumerate() {
            at.push(part);
            if depth + 1 < fixed {
                continue;
            }
            let mirror = fixed == 4;
            // Also where its kind follows from its place, it has to be there.
            let is_root = self.is_root(&at)? || mirror;
            if is_root {
                return Ok(vec![at]);
            }
        }
        // Makes sure that it is there.
        self.entries(path)?;
        let found = self.below(path)?;
        match found.is_empty() {
            false => Ok(found),
            true if parts.len() >= fixed => Ok(vec![path.to_path_buf()]),
            true => Err(absent(path)),
        }
    }

    /// All artifact roots below `path`, topmost ones only; sorted.
    fn below(&self, path: &Path) -> Result<Vec<PathBuf>, Refusal> {
        let mut roots = Vec::new();
        self.walk(path, &mut |path, is_root| {
            if is_root {
                roots.push(path.to_path_buf());
            }
        })?;
        roots.sort();
        Ok(roots)
    }

    /// Shows each directory below `path` down to the artifact roots, and whether it is one.
    pub(super) fn walk(
        &self,
        path: &Path,
        show: &mut dyn FnMut(&Path, bool),
    ) -> Result<(), Refusal> {
        let mut pending = VecDeque::from([path.to_path_buf()]);
        let mut seen = 0;
        while let Some(dir) = pending.pop_front() {
            let depth = dir.components().count();
            let mirror = dir.starts_with(MIRROR);
            for (name, kind) in self.entries(&dir)? {
                if kind != FileType::Directory {
                    continue;
                }
                seen += 1;
                if seen > DIRECTORIES_MAX {
                    let rule = format!("there are more than {DIRECTORIES_MAX} directories");
                    return Err(Refusal::new(Failure::TooLarge, subject(path), rule));
                }
                let below = dir.join(OsStr::from_bytes(&name));
                let is_root =
                    if mirror { depth == 3 } else { depth >= 1 && self.is_root(&below)? };
                show(&below, is_root);
                if !is_root {
                    pending.push_back(below);
                }
            }
        }
        Ok(())
    }

    /// Whether a directory below a host is a release by its name or by what it holds.
    fn is_root(&self, path: &Path) -> Result<bool, Refusal> {
        let entries = self.entries(path)?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        let platform = |name: &[u8]| {
            std::str::from_utf8(name)
                .ok()
                .and_then(|name| name.parse::<Platform>().ok())
                .is_some_and(|p| is_known(&p))
        };
        Ok(name.contains(&b':')
            || entries.iter().any(|(_, kind)| *kind != FileType::Directory)
            || !entries.is_empty() && entries.iter().all(|(name, _)| platform(name)))
    }

    /// Whether `path` is a directory on the way to releases. An empty one counts if its name cannot
    /// be a version: the name of a repository that nothing is staged for yet.
    pub(super) fn is_way(&self, path: &Path) -> Result<bool, Refusal> {
        let mut at = PathBuf::new();
        for (depth, part) in components(path)?.into_iter().enumerate() {
            at.push(part);
            if depth > 0 && self.is_root(&at)? {
                return Ok(false);
            }
        }
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let may_be_empty =
            at.parent().is_none_or(|above| above.as_os_str().is_empty()) || is_passage(name);
        Ok(!self.entries(path)?.is_empty() || may_be_empty)
    }

    /// The names of the directories in `path` that are on the way to releases.
    pub(super) fn ways_in(&self, path: &Path) -> Result<Vec<OsString>, Refusal> {
        let mut ways = Vec::new();
        for (name, kind) in self.entries(path)? {
            let name = OsString::from_vec(name);
            if kind == FileType::Directory && self.is_way(&path.join(&name))? {
                ways.push(name);
            }
        }
        Ok(ways)
    }

    fn entries(&self, path: &Path) -> Result<Vec<(Vec<u8>, FileType)>, Refusal> {
        let dir = self.open(path)?;
        list(dir.as_fd(), &subject(path))
    }

    /// Opens a staged directory.
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd, Refusal> {
        let name = if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
        open_plain(self.dir.as_fd(), name.as_bytes(), DIRECTORY).map_err(|e| match e {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => absent(path),
            e => Refusal::io(subject(path), e),
        })
    }
}

/// What messages call a staged path.
pub(super) fn subject(path: &Path) -> String {
    Path::new("staging").join(path).as_os_str().as_bytes().escape_ascii().to_string()
}

fn absent(path: &Path) -> Refusal {
    Refusal::new(Failure::Absent, subject(path), "nothing is staged there")
}

fn components(path: &Path) -> Result<Vec<&OsStr>, Refusal> {
    path.components()
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(Refusal::new(
                Failure::Invalid,
                subject(path),
                "it is no path below the staging directory",
            )),
        })
        .collect()
}

/// Operating systems and architectures as Go names them, so that a repository called `my_app` is no
/// platform.
fn is_known(platform: &Platform) -> bool {
    const SYSTEMS: &[&str] = &[
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "illumos",
        "ios",
        "js",
        "linux",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "wasip1",
        "windows",
    ];
    const ARCHITECTURES: &[&str] = &[
        "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
        "ppc64le", "riscv64", "s390x", "wasm",
    ];
    SYSTEMS.contains(&platform.os()) && ARCHITECTURES.contains(&platform.arch())
}

/// What an artifact root's path says.
///
/// # Errors
/// `Invalid`, with the name that cannot be what it should be.
pub fn target(root: &Path) -> Result<RootTarget, Refusal> {
    let refuse = |rule: String| Err(Refusal::new(Failure::Invalid, subject(root), rule));
    let mut parts = Vec::new();
    for part in components(root)? {
        match part.to_str() {
            Some(part) => parts.push(part),
            None => return refuse(format!("{:?} is no name of a repository or tag", part)),
        }
    }
    if let [MIRROR, host, namespace, kind] = parts[..] {
        let address = host.parse().ok().and_then(|host| ProviderAddr::new(host, namespace, kind));
        return match address {
            Some(address) => Ok(RootTarget::Mirror(address)),
            None => {
                refuse(format!("{host}/{namespace}/{kind} is no provider (HOST/NAMESPACE/TYPE)"))
            }
        };
    }
    let [host, names @ .., last] = &parts[..] else {
        return refuse("a release lies at HOST/REPOSITORY/TAG".to_owned());
    };
    let host: Host = match host.parse() {
        Ok(host) => host,
        Err(e) => return refuse(format!("{e}")),
    };
    let (name, tag) = match last.split_once(':') {
        Some((name, tag)) => (names.iter().copied().chain([name]).collect::<Vec<_>>(), tag),
        None => (names.to_vec(), *last),
    };
    if last.contains('@') {
        return refuse(
            "a digest follows from the content and cannot be chosen: name the directory by a tag"
                .to_owned(),
        );
    }
    if name.is_empty() {
        return refuse(format!(
            "between {host} and {tag} there is no repository: a release lies at HOST/REPOSITORY/TAG"
        ));
    }
    let tag: Tag = match tag.parse() {
        Ok(tag) => tag,
        Err(e) => return refuse(format!("{e}")),
    };
    match name.join("/").parse::<RepoName>() {
        Ok(name) => Ok(RootTarget::Release(Repo { host, name }, tag)),
        Err(e) => refuse(format!("{e}")),
    }
}

/// The reference that a root's path stands for, where it is one.
pub(super) fn reference(root: &Path) -> Option<String> {
    match target(root) {
        Ok(RootTarget::Release(repo, tag)) => Some(repo.at(Selector::Tag(tag)).to_string()),
        _ => None,
    }
}

/// A path from its bytes, as records keep them.
pub(super) fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn staging(paths: &[&str]) -> (tempfile::TempDir, StagingRoots) {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            let full = dir.path().join(path);
            if path.ends_with('/') {
                fs::create_dir_all(full).unwrap();
            } else {
                fs::create_dir_all(full.parent().unwrap()).unwrap();
                fs::write(full, b"x").unwrap();
            }
        }
        let fd = rustix::fs::open(dir.path(), DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        (dir, StagingRoots { dir: fd })
    }

    fn roots(staging: &StagingRoots, path: &str) -> Vec<String> {
        let roots = staging.roots(Path::new(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        roots.iter().map(|root| root.display().to_string()).collect()
    }

    #[test]
    fn a_root_is_the_topmost_directory_that_holds_a_release() {
        let (_dir, staging) = staging(&[
            "ghcr.io/acme/network/1.0.0/main.tf",
            "ghcr.io/acme/network/1.0.0/sub/x.tf",
            "ghcr.io/acme/net:2/",
            "ghcr.io/acme/aws/5.0.0/linux_amd64/terraform-provider-aws",
            "ghcr.io/acme/my_app/1/a.tf",
            "ghcr.io/acme/empty/",
            "mirror/registry.opentofu.org/hashicorp/aws/x.zip",
            "mirror/registry.opentofu.org/hashicorp/null/",
        ]);
        for path in
            ["ghcr.io/acme/network/1.0.0", "ghcr.io/acme/network/1.0.0/sub", "ghcr.io/acme/network"]
        {
            assert_eq!(roots(&staging, path), ["ghcr.io/acme/network/1.0.0"], "{path}");
        }
        assert_eq!(
            roots(&staging, "ghcr.io/acme/aws/5.0.0/linux_amd64"),
            ["ghcr.io/acme/aws/5.0.0"]
        );
        assert_eq!(
            roots(&staging, ""),
            [
                "ghcr.io/acme/aws/5.0.0",
                "ghcr.io/acme/my_app/1",
                "ghcr.io/acme/net:2",
                "ghcr.io/acme/network/1.0.0",
                "mirror/registry.opentofu.org/hashicorp/aws",
                "mirror/registry.opentofu.org/hashicorp/null",
            ]
        );
        assert_eq!(roots(&staging, "ghcr.io/acme/empty"), ["ghcr.io/acme/empty"]);
        assert_eq!(roots(&staging, "mirror/registry.opentofu.org/hashicorp").len(), 2);
        assert_eq!(staging.roots(Path::new("ghcr.io/x")).unwrap_err().failure, Failure::Absent);
        assert_eq!(staging.roots(Path::new("../x")).unwrap_err().failure, Failure::Invalid);
        assert_eq!(staging.roots(Path::new("/etc")).unwrap_err().failure, Failure::Invalid);
    }

    #[test]
    fn a_way_leads_to_releases_and_is_none() {
        let (_dir, staging) = staging(&[
            "ghcr.io/acme/network/1.0.0/modules/x.tf",
            "ghcr.io/acme/network/1.1.0/",
            "ghcr.io/acme/new/",
            "ghcr.io/acme/net:2/",
            "other.example/",
        ]);
        for way in
            ["ghcr.io", "other.example", "ghcr.io/acme", "ghcr.io/acme/network", "ghcr.io/acme/new"]
        {
            assert!(staging.is_way(Path::new(way)).unwrap(), "{way}");
        }
        for none in [
            "ghcr.io/acme/network/1.1.0",
            "ghcr.io/acme/net:2",
            "ghcr.io/acme/network/1.0.0/modules",
        ] {
            assert!(!staging.is_way(Path::new(none)).unwrap(), "{none}");
        }
        assert!(staging.is_way(Path::new("ghcr.io/nothing")).is_err());
        let mut ways = staging.ways_in(Path::new("ghcr.io/acme")).unwrap();
        ways.sort();
        assert_eq!(ways, ["network", "new"]);
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_is_not_followed() {
        let (dir, staging) = staging(&["ghcr.io/acme/"]);
        std::os::unix::fs::symlink("/etc", dir.path().join("ghcr.io/acme/x")).unwrap();
        assert_eq!(
            staging.roots(Path::new("ghcr.io/acme/x/ssl")).unwrap(),
            [Path::new("ghcr.io/acme")]
        );
        assert_eq!(staging.open(Path::new("ghcr.io/acme/x")).unwrap_err().failure, Failure::Absent);
    }

    #[test]
    fn a_path_says_repository_and_tag() {
        let says = |path: &str| {
            reference(Path::new(path))
                .unwrap_or_else(|| target(Path::new(path)).unwrap_err().to_string())
        };
        assert_eq!(says("ghcr.io/acme/network/1.3.0"), "ghcr.io/acme/network:1.3.0");
        assert_eq!(says("ghcr.io/acme/network:1.3.0"), "ghcr.io/acme/network:1.3.0");
        assert_eq!(says("localhost:5000/n:1"), "localhost:5000/n:1");
        for (path, part) in [
            ("ghcr.io/1.3.0", "no repository"),
            ("ghcr.io/:1", "not a repository name"),
            ("ghcr.io/acme/.git", "not a tag"),
            ("ghcr.io/Acme/1", "not a repository name"),
            ("ghcr.io/acme/x@sha256:00", "digest"),
            ("nohost/acme/x", "not a registry"),
            ("ghcr.io", "HOST/REPOSITORY/TAG"),
        ] {
            assert!(says(path).contains(part), "{}", says(path));
        }
        let mirrored = target(Path::new("mirror/registry.opentofu.org/Hashicorp/aws")).unwrap();
        assert!(
            matches!(mirrored, RootTarget::Mirror(address) if address.namespace() == "hashicorp")
        );
        assert!(target(Path::new("mirror/a.b/-x/y")).is_err());
    }
}
