//! What the process of a mount may reach of the file system: what was named and what it keeps, and
//! of all else what lies outside of homes, to read.

use std::fs;
use std::path::{Path, PathBuf};

use super::args::metrics::MetricsAddress;
use super::output::CommandError;
use super::settings::MountSettings;
use super::source::SourceSetting;
use super::state;
use crate::sandbox::Reach;

/// Where homes are, beside the user's own.
const HOMES: [&str; 2] = ["/home", "/root"];
/// Where each user has what lives as long as a login.
const RUNTIME: &str = "/run/user";
/// Where nothing is kept.
const NULL: &str = "/dev/null";

/// What a mount with these settings reads and writes. Directories that it writes to are made, so
/// that they can be named; that of the state is there.
pub fn of(settings: &MountSettings) -> Result<Reach, CommandError> {
    let homes = Homes::of(settings);
    let mut reach = Reach { readable: homes.outside(), ..Reach::default() };
    let named = settings.named_files();
    reach.readable.extend(named.iter().flat_map(|file| homes.around(file)));
    reach.writable.extend([settings.state_dir.clone(), NULL.into()]);
    // Somebody may remove the cache, which is made again then.
    if let Some(holder) = settings.cache_dir.parent() {
        // Whoever opens the cache says why it cannot be made.
        let _ = fs::create_dir_all(holder);
        if homes.leads_to(holder) {
            let _ = state::private_dir(&settings.cache_dir);
        }
    }
    reach.writable.push(homes.holder(&settings.cache_dir));
    let log = state::log_of(settings)?;
    reach.logs.extend(log.and_then(|log| log.parent().map(Path::to_owned)));
    if let Some(dir) = &settings.runtime_dir {
        let dir = dir.join("tofufs");
        // Where it cannot be used another place is taken.
        if state::private_dir(&dir).is_ok() {
            reach.writable.push(dir);
        }
    }
    for source in &settings.sources {
        if let (SourceSetting::Layouts(dir), false) = (source, settings.read_only) {
            reach.writable.push(dir.clone());
        }
    }
    if let Some(MetricsAddress::Unix(socket)) = &settings.metrics {
        reach.sockets.extend(socket.parent().map(Path::to_owned));
    }
    Ok(reach)
}

/// The directories that are kept out of reach, and where is mounted, which is left alone.
struct Homes {
    homes: Vec<PathBuf>,
    mountpoint: PathBuf,
}

impl Homes {
    fn of(settings: &MountSettings) -> Homes {
        let own = settings.home.iter().chain(&settings.runtime_dir);
        let all = own.map(PathBuf::as_path).chain(HOMES.map(Path::new)).chain([Path::new(RUNTIME)]);
        let resolved = all.filter_map(|home| home.canonicalize().ok());
        // Some services have no home but this.
        Homes {
            homes: resolved.filter(|home| home.parent().is_some()).collect(),
            mountpoint: settings.mountpoint.clone(),
        }
    }

    /// Whether a home is `dir` or lies below it.
    fn leads_to(&self, dir: &Path) -> bool {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        dir.parent().is_none() || self.homes.iter().any(|home| home.starts_with(&dir))
    }

    /// The directory that holds `path`, in which something else may take its place; the path itself
    /// where homes would come with it.
    fn holder(&self, path: &Path) -> PathBuf {
        match path.parent() {
            Some(holder) if !self.leads_to(holder) => holder.to_owned(),
            _ => path.to_owned(),
        }
    }

    /// A file that was named, and where it is found: by its name, and behind links.
    fn around(&self, file: &Path) -> Vec<PathBuf> {
        let mut found = vec![file.to_owned(), self.holder(file)];
        found.extend(file.canonicalize().ok().map(|target| self.holder(&target)));
        found
    }

    /// All directories and files that lie beside homes.
    fn outside(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.beside(Path::new("/"), &mut found);
        found
    }

    fn beside(&self, dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            // A link counts by what it leads to.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if is_link || path == self.mountpoint || self.homes.contains(&path) {
                continue;
            }
            if self.homes.iter().any(|home| home.starts_with(&path)) {
                self.beside(&path, found);
            } else {
                found.push(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_homes_is_reached_and_no_home_is() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for name in ["homes/own", "homes/another", "srv", "mnt"] {
            fs::create_dir_all(top.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(top.join("homes/own"), top.join("link")).unwrap();
        let homes = Homes { homes: vec![top.join("homes/own")], mountpoint: top.join("mnt") };
        let mut found = Vec::new();
        homes.beside(&top, &mut found);
        found.sort();
        assert_eq!(found, [top.join("homes/another"), top.join("srv")]);
        assert!(homes.leads_to(&top) && homes.leads_to(Path::new("/")));
        assert!(!homes.leads_to(&top.join("homes/own/dir")));
        let below = top.join("homes/own/dir/file");
        assert_eq!(homes.holder(&below), top.join("homes/own/dir"));
        let directly = top.join("homes/own/file");
        assert_eq!(homes.holder(&directly), directly);
    }
}
