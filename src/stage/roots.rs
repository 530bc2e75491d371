//! Which staged directories are artifacts, and what their paths say.
//!
//! An artifact root is the topmost directory below `staging/HOST/` that has a `:` in its name,
//! holds a non-directory, or has only `OS_ARCH` children; or `staging/mirror/HOST/NAMESPACE/TYPE`.
//! A path that has no root above or below it is one itself.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::tree::{DIRECTORY, list, open_plain};
use crate::failure::{Failure, Refusal};
use crate::local::{Name, RelPath};
use crate::name::{Platform, ProviderAddr, Reference, Repo, Tag, is_passage};

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
    pub(super) fn roots(&self, path: &RelPath) -> Result<Vec<RelPath>, Refusal> {
        let depth = path.names().len();
        let fixed = if is_mirror(path) { 4 } else { 2 };
        for at in (fixed..=depth).map(|depth| path.ancestor(depth)) {
            // Also where its kind follows from its place, it has to be there.
            if self.is_root(&at)? || is_mirror(path) {
                return Ok(vec![at]);
            }
        }
        // Makes sure that it is there.
        self.entries(path)?;
        let found = self.below(path)?;
        if !found.is_empty() {
            Ok(found)
        } else if depth >= fixed {
            Ok(vec![path.clone()])
        } else {
            Err(absent(path))
        }
    }

    /// All artifact roots below `path`, topmost ones only; sorted.
    fn below(&self, path: &RelPath) -> Result<Vec<RelPath>, Refusal> {
        let mut roots = Vec::new();
        self.walk(path, &mut |path, is_root| {
            if is_root {
                roots.push(path.clone());
            }
        })?;
        roots.sort();
        Ok(roots)
    }

    /// Shows each directory below `path` down to the artifact roots, and whether it is one.
    pub(super) fn walk(
        &self,
        path: &RelPath,
        show: &mut dyn FnMut(&RelPath, bool),
    ) -> Result<(), Refusal> {
        let mut pending = VecDeque::from([path.clone()]);
        let mut seen = 0;
        while let Some(dir) = pending.pop_front() {
            let depth = dir.names().len();
            for (name, kind) in self.entries(&dir)? {
                if kind != FileType::Directory {
                    continue;
                }
                seen += 1;
                if seen > DIRECTORIES_MAX {
                    let rule = format!("there are more than {DIRECTORIES_MAX} directories");
                    return Err(Refusal::new(Failure::TooLarge, subject(path), rule));
                }
                let below = dir.join(name);
                let is_root = if is_mirror(&dir) {
                    depth == 3
                } else {
                    depth >= 1 && self.is_root(&below)?
                };
                show(&below, is_root);
                if !is_root {
                    pending.push_back(below);
                }
            }
        }
        Ok(())
    }

    /// Whether a directory below a host is a release by its name or by what it holds.
    fn is_root(&self, path: &RelPath) -> Result<bool, Refusal> {
        let entries = self.entries(path)?;
        let platform = |name: &Name| {
            name.to_str()
                .and_then(|name| name.parse::<Platform>().ok())
                .is_some_and(|p| is_known(&p))
        };
        let has_colon = |name: &Name| name.as_os_str().as_bytes().contains(&b':');
        Ok(path.names().last().is_some_and(has_colon)
            || entries.iter().any(|(_, kind)| *kind != FileType::Directory)
            || !entries.is_empty() && entries.iter().all(|(name, _)| platform(name)))
    }

    /// Whether `path` is a directory on the way to releases. An empty one counts if its name cannot
    /// be a version: the name of a repository that nothing is staged for yet.
    pub(super) fn is_way(&self, path: &RelPath) -> Result<bool, Refusal> {
        let depth = path.names().len();
        for at in (2..=depth).map(|depth| path.ancestor(depth)) {
            if self.is_root(&at)? {
                return Ok(false);
            }
        }
        let name = path.names().last().and_then(Name::to_str).unwrap_or_default();
        Ok(!self.entries(path)?.is_empty() || depth <= 1 || is_passage(name))
    }

    /// The names of the directories in `path` that are on the way to releases.
    pub(super) fn ways_in(&self, path: &RelPath) -> Result<Vec<Name>, Refusal> {
        let mut ways = Vec::new();
        for (name, kind) in self.entries(path)? {
            if kind == FileType::Directory && self.is_way(&path.join(name.clone()))? {
                ways.push(name);
            }
        }
        Ok(ways)
    }

    fn entries(&self, path: &RelPath) -> Result<Vec<(Name, FileType)>, Refusal> {
        let dir = self.open(path)?;
        let listed = list(dir.as_fd(), &subject(path))?.into_iter();
        Ok(listed
            .filter_map(|(name, kind)| Some((Name::new(OsStr::from_bytes(&name)).ok()?, kind)))
            .collect())
    }

    /// Opens a staged directory.
    pub(super) fn open(&self, path: &RelPath) -> Result<OwnedFd, Refusal> {
        let path_name = match path.names() {
            [] => OsString::from("."),
            _ => path.to_os_string(),
        };
        open_plain(self.dir.as_fd(), path_name.as_bytes(), DIRECTORY).map_err(|e| match e {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => absent(path),
            e => Refusal::io(subject(path), e),
        })
    }
}

/// What messages call a staged path.
pub(super) fn subject(path: &RelPath) -> String {
    format!("staging/{}", path.to_os_string().as_bytes().escape_ascii())
}

fn is_mirror(path: &RelPath) -> bool {
    path.names().first().is_some_and(|first| first.as_os_str() == MIRROR)
}

fn absent(path: &RelPath) -> Refusal {
    Refusal::new(Failure::Absent, subject(path), "nothing is staged there")
}

/// A path below the staging directory.
///
/// # Errors
/// `Invalid` for one that leads elsewhere.
pub fn staged_path(path: &Path) -> Result<RelPath, Refusal> {
    RelPath::new(path).map_err(|_| {
        let subject = Path::new("staging").join(path);
        let subject = subject.as_os_str().as_bytes().escape_ascii().to_string();
        Refusal::new(Failure::Invalid, subject, "it is no path below the staging directory")
    })
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
pub fn target(root: &RelPath) -> Result<RootTarget, Refusal> {
    let refuse = |rule: String| Err(Refusal::new(Failure::Invalid, subject(root), rule));
    let mut parts = Vec::new();
    for part in root.names() {
        match part.to_str() {
            Some(part) => parts.push(part),
            None => return refuse(format!("{part:?} is no name of a repository or tag")),
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
    match Reference::staged(&parts) {
        Ok((repo, tag)) => Ok(RootTarget::Release(repo, tag)),
        Err(e) => refuse(e.to_string()),
    }
}

/// The reference that a root's path stands for, where it is one.
pub(super) fn reference(root: &RelPath) -> Option<Reference> {
    match target(root) {
        Ok(RootTarget::Release(repo, tag)) => Some(repo.tagged(&tag)),
        _ => None,
    }
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

    fn at(path: &str) -> RelPath {
        staged_path(Path::new(path)).unwrap()
    }

    fn roots(staging: &StagingRoots, path: &str) -> Vec<String> {
        let roots = staging.roots(&at(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        roots.iter().map(|root| root.to_os_string().into_string().unwrap()).collect()
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
        assert_eq!(staging.roots(&at("ghcr.io/x")).unwrap_err().failure, Failure::Absent);
        assert_eq!(staged_path(Path::new("../x")).unwrap_err().failure, Failure::Invalid);
        assert_eq!(staged_path(Path::new("/etc")).unwrap_err().failure, Failure::Invalid);
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
            assert!(staging.is_way(&at(way)).unwrap(), "{way}");
        }
        for none in [
            "ghcr.io/acme/network/1.1.0",
            "ghcr.io/acme/net:2",
            "ghcr.io/acme/network/1.0.0/modules",
        ] {
            assert!(!staging.is_way(&at(none)).unwrap(), "{none}");
        }
        assert!(staging.is_way(&at("ghcr.io/nothing")).is_err());
        let mut ways = staging.ways_in(&at("ghcr.io/acme")).unwrap();
        ways.sort();
        assert_eq!(ways, ["network", "new"].map(|name| Name::new(name.as_ref()).unwrap()));
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_is_not_followed() {
        let (dir, staging) = staging(&["ghcr.io/acme/"]);
        std::os::unix::fs::symlink("/etc", dir.path().join("ghcr.io/acme/x")).unwrap();
        assert_eq!(staging.roots(&at("ghcr.io/acme/x/ssl")).unwrap(), [at("ghcr.io/acme")]);
        assert_eq!(staging.open(&at("ghcr.io/acme/x")).unwrap_err().failure, Failure::Absent);
    }

    #[test]
    fn a_path_says_repository_and_tag() {
        let says = |path: &str| {
            let target = reference(&at(path)).ok_or_else(|| target(&at(path)).unwrap_err());
            target.map_or_else(|e| e.to_string(), |reference| reference.to_string())
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
        let mirrored = target(&at("mirror/registry.opentofu.org/Hashicorp/aws")).unwrap();
        assert!(
            matches!(mirrored, RootTarget::Mirror(address) if address.namespace() == "hashicorp")
        );
        assert!(target(&at("mirror/a.b/-x/y")).is_err());
    }
}
