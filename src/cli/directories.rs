//! The directories of this process and of its user: the working directory, the cache, the state.

use std::path::{Path, PathBuf};

use super::account;
use super::settings_error::{SettingsError, refuse};

/// What the environment says about directories.
#[derive(Clone, Default, Debug)]
pub struct DirectoryEnvironment {
    /// The working directory.
    pub base: PathBuf,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub cache_home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// Where this user's cache is, if not in the home.
    pub system_cache: Option<PathBuf>,
}

/// Root's cache: what root mounts serves others, at boot too, when no home need be there.
const SYSTEM_CACHE: &str = "/var/cache/tofufs";

/// Root's own cache, for a process with this home. One that an earlier version made in the home
/// stays in use, so that what is in it and pinned is not lost; and a home that is not root's own
/// keeps what was cached for it.
fn system_cache(home: Option<&Path>) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let own = account::home_of(0);
    let system = PathBuf::from(SYSTEM_CACHE);
    match home {
        Some(home) if own.as_deref() != Some(home) => None,
        Some(home) if !system.exists() && home.join(".cache/tofufs").exists() => None,
        _ => Some(system),
    }
}

impl DirectoryEnvironment {
    /// That of this process. The home comes from the user database where `HOME` is not set, as in
    /// system units.
    pub fn of_process() -> Result<DirectoryEnvironment, SettingsError> {
        // The XDG base directory specification has relative paths ignored.
        let dir =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = match std::env::current_dir() {
            Ok(base) => base,
            Err(e) => return refuse("the working directory", e),
        };
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        Ok(DirectoryEnvironment {
            base,
            system_cache: system_cache(home.as_deref()),
            home,
            cache_home: dir("XDG_CACHE_HOME"),
            state_home: dir("XDG_STATE_HOME"),
            runtime_dir: dir("XDG_RUNTIME_DIR"),
        })
    }

    /// The cache: as asked for, else the user's.
    pub fn cache_dir(&self, asked: Option<&Path>) -> Result<PathBuf, SettingsError> {
        match (asked, &self.cache_home, &self.system_cache) {
            (None, None, Some(system)) => Ok(system.clone()),
            _ => self.directory(asked, self.cache_home.as_deref(), ".cache", "--cache-dir"),
        }
    }

    /// The state of mounts: as asked for, else the user's.
    pub fn state_dir(&self, asked: Option<&Path>) -> Result<PathBuf, SettingsError> {
        self.directory(asked, self.state_home.as_deref(), ".local/state", "--state-dir")
    }

    fn directory(
        &self,
        asked: Option<&Path>,
        xdg: Option<&Path>,
        below_home: &str,
        option: &str,
    ) -> Result<PathBuf, SettingsError> {
        match (asked, xdg, &self.home) {
            (Some(asked), ..) => Ok(absolute(asked, &self.base)),
            (None, Some(xdg), _) => Ok(xdg.join("tofufs")),
            (None, None, Some(home)) => Ok(home.join(below_home).join("tofufs")),
            (None, None, None) => {
                refuse(option, "this user has no home directory; give the option")
            }
        }
    }
}

/// A path as one from the root.
pub fn absolute(path: &Path, base: &Path) -> PathBuf {
    // Components are taken as they are: `..` behind a symbolic link is the system's business.
    base.join(path).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> DirectoryEnvironment {
        DirectoryEnvironment {
            base: "/tmp".into(),
            home: Some("/home/u".into()),
            ..DirectoryEnvironment::default()
        }
    }

    #[test]
    fn directories_come_from_options_then_xdg_then_home() {
        let e = DirectoryEnvironment { cache_home: Some("/xdg".into()), ..environment() };
        assert_eq!(e.cache_dir(None).unwrap(), Path::new("/xdg/tofufs"));
        assert_eq!(e.cache_dir(Some(Path::new("c"))).unwrap(), Path::new("/tmp/c"));
        let root = |e: DirectoryEnvironment| DirectoryEnvironment {
            system_cache: Some("/var/cache/tofufs".into()),
            ..e
        };
        assert_eq!(root(environment()).cache_dir(None).unwrap(), Path::new("/var/cache/tofufs"));
        assert_eq!(
            root(environment()).state_dir(None).unwrap(),
            Path::new("/home/u/.local/state/tofufs")
        );
        assert_eq!(root(e).cache_dir(None).unwrap(), Path::new("/xdg/tofufs"));
        let nobody = DirectoryEnvironment { home: None, ..environment() };
        assert!(nobody.cache_dir(None).is_err() && nobody.cache_dir(Some(Path::new("/c"))).is_ok());
    }
}
