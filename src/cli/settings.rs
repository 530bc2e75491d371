//! From what was typed and what the environment says to ready parts: sources, directories, options
//! of each layer.
//!
//! All paths in here are absolute. Nothing is created or connected to; a [`SettingsError`] means
//! wrong usage.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::account::{self, Account};
use super::args::{AccessArgs, KernelFlag, MountArgs, NetworkArgs, ReachArgs};
use super::providers::ProviderSettings;
use super::typed::Typed;
use crate::archive::Limits;
use crate::fuse::session;
use crate::mapping::Mapping;
use crate::name::{Address, AddressError, Host, NameError, RepoName};
use crate::registry::mirror::MirrorAddress;

/// What was asked for makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{subject}: {reason}")]
pub struct SettingsError {
    subject: String,
    reason: String,
}

impl SettingsError {
    /// That `subject` makes no sense, and why.
    pub fn new(subject: impl fmt::Display, reason: impl fmt::Display) -> SettingsError {
        SettingsError { subject: subject.to_string(), reason: reason.to_string() }
    }
}

impl From<AddressError> for SettingsError {
    fn from(error: AddressError) -> SettingsError {
        let (subject, reason) = error.parts();
        SettingsError { subject, reason }
    }
}

fn refuse<T>(subject: impl fmt::Display, reason: impl fmt::Display) -> Result<T, SettingsError> {
    Err(SettingsError::new(subject, reason))
}

/// Where releases come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceSetting {
    /// A registry, or the part of it below a prefix.
    Registry {
        /// Which one.
        host: Host,
        /// The repositories at or below this name alone.
        prefix: Option<RepoName>,
    },
    /// A directory that holds image layouts as `HOST/REPO…`.
    Layouts(PathBuf),
    /// A tar that holds the same.
    Archive(PathBuf),
}

impl SourceSetting {
    /// Reads one source; a relative directory is one below `base`.
    ///
    /// # Errors
    /// It is none. Where it is plain what was meant, the error holds the argument to write instead.
    pub fn parse(text: &OsStr, base: &Path) -> Result<SourceSetting, AddressError> {
        let part = |address: Address| {
            address.part().map(|(host, prefix)| SourceSetting::Registry { host, prefix })
        };
        match Typed::parse(text, base) {
            Ok(Typed::Layouts(dir)) => Ok(SourceSetting::Layouts(dir)),
            Ok(Typed::Archive(file)) => Ok(SourceSetting::Archive(file)),
            Ok(Typed::Address(address)) => part(address),
            Err(e) => {
                Err(e.wanted("a source is HOST[:PORT][/PREFIX], oci:DIR or oci-archive:FILE"))
            }
        }
    }
}

impl fmt::Display for SourceSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceSetting::Registry { host, prefix: None } => write!(f, "{host}"),
            SourceSetting::Registry { host, prefix: Some(prefix) } => write!(f, "{host}/{prefix}"),
            SourceSetting::Layouts(dir) => write!(f, "oci:{}", dir.display()),
            SourceSetting::Archive(file) => write!(f, "oci-archive:{}", file.display()),
        }
    }
}

/// A token service outside its registry's own origin that may be shown the registry's credentials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRealm {
    /// The registry.
    pub host: Host,
    /// Scheme, host and port of the token service.
    pub origin: Url,
}

impl fmt::Display for TokenRealm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.host, self.origin)
    }
}

impl TokenRealm {
    fn parse(text: &str) -> Result<TokenRealm, SettingsError> {
        const WANTED: &str =
            "write HOST=ORIGIN, as in registry.example.com=https://auth.example.com";
        let subject = format!("--token-realm {}", text.escape_debug());
        let Some((host, origin)) = text.split_once('=') else { return refuse(subject, WANTED) };
        let host = host.parse().or_else(|e: NameError| match e.instead() {
            Some(host) => {
                refuse(&subject, format!("a registry has no scheme here; write {host}={origin}"))
            }
            None => refuse(&subject, WANTED),
        })?;
        let Ok(origin) = Url::parse(origin) else { return refuse(subject, WANTED) };
        let bare = matches!(origin.scheme(), "https" | "http")
            && origin.path() == "/"
            && origin.query().is_none()
            && origin.fragment().is_none()
            && origin.username().is_empty()
            && origin.password().is_none();
        if bare { Ok(TokenRealm { host, origin }) } else { refuse(subject, WANTED) }
    }
}

fn mirror(text: &str) -> Result<MirrorAddress, SettingsError> {
    let Some((host, url)) = text.split_once('=') else {
        return refuse("--mirror", "write HOST=URL, as in ghcr.io=https://cache.example.com");
    };
    let host = host.parse().or_else(|e: NameError| match e.instead() {
        Some(host) => {
            refuse("--mirror", format!("a registry has no scheme here; write {host}={url}"))
        }
        None => refuse("--mirror", e),
    })?;
    MirrorAddress::parse(host, url).or_else(|e| refuse("--mirror", e))
}

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

/// How registries are reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// No connection at all.
    pub offline: bool,
    /// How long a tag is believed.
    pub tag_ttl: Duration,
    /// How long to wait without progress.
    pub deadline: Duration,
    /// Registries without TLS.
    pub plain_http: Vec<Host>,
    /// More certificates to trust.
    pub ca_files: Vec<PathBuf>,
    /// Token services elsewhere.
    pub token_realms: Vec<TokenRealm>,
    /// Mirrors, those of one registry in their order.
    pub mirrors: Vec<MirrorAddress>,
    /// The CLI configuration to read instead of the user's own.
    pub tofurc: Option<PathBuf>,
}

impl Network {
    fn new(args: &NetworkArgs, base: &Path) -> Result<Network, SettingsError> {
        let reach = Network::reaching(&args.reach, base)?;
        Ok(Network { offline: args.offline, tag_ttl: args.tag_ttl.0, ..reach })
    }

    /// The network of a command that asks once, and so believes nothing for any time.
    pub fn reaching(args: &ReachArgs, base: &Path) -> Result<Network, SettingsError> {
        if args.deadline.0.is_zero() {
            return refuse("--deadline", "no operation ends in no time; give at least 1ms");
        }
        Ok(Network {
            offline: false,
            tag_ttl: Duration::ZERO,
            deadline: args.deadline.0,
            plain_http: args.plain_http.clone(),
            ca_files: args.ca_file.iter().map(|file| absolute(file, base)).collect(),
            token_realms: args
                .token_realm
                .iter()
                .map(|text| TokenRealm::parse(text))
                .collect::<Result<_, _>>()?,
            mirrors: args.mirror.iter().map(|text| mirror(text)).collect::<Result<_, _>>()?,
            tofurc: args.tofurc.as_ref().map(|file| absolute(file, base)),
        })
    }
}

/// A mount that was asked for.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// Where.
    pub mountpoint: PathBuf,
    /// What, in order of preference.
    pub sources: Vec<SourceSetting>,
    /// How registries are reached.
    pub network: Network,
    /// Where the releases of providers are, as flags say it; `None` where the CLI configuration is
    /// to say it.
    pub mapping: Option<Mapping>,
    /// Which providers are shown.
    pub providers: ProviderSettings,
    /// How large archives may be.
    pub limits: Limits,
    /// The cache's directory.
    pub cache_dir: PathBuf,
    /// The cache's limit in bytes.
    pub cache_size: u64,
    /// The directory for the state of mounts.
    pub state_dir: PathBuf,
    /// `XDG_RUNTIME_DIR`, where control sockets go if it can be used.
    pub runtime_dir: Option<PathBuf>,
    /// No staging.
    pub read_only: bool,
    /// Commits overwrite tags that hold something else.
    pub allow_overwrite: bool,
    /// Who owns everything.
    pub uid: Option<u32>,
    /// Which group does.
    pub gid: Option<u32>,
    /// Whether the kernel may read cached files by itself.
    pub passthrough: bool,
    /// How to mount.
    pub session: session::SessionOptions,
    /// Nothing is mounted if a source fails.
    pub strict: bool,
    /// This process leaves the terminal before it mounts.
    pub in_background: bool,
    /// Where to log to, if not where it goes without being asked.
    pub log_file: Option<PathBuf>,
}

impl MountSettings {
    /// Reads the arguments in an environment.
    pub fn new(
        args: &MountArgs,
        environment: &DirectoryEnvironment,
    ) -> Result<MountSettings, SettingsError> {
        let base = &environment.base;
        let (words, mountpoint) = match args.sources_and_mountpoint.split_last() {
            Some((mountpoint, sources)) if !sources.is_empty() => (sources, mountpoint),
            _ => {
                return refuse(
                    "mount",
                    "a SOURCE and a MOUNTPOINT are wanted; see `tofufs help mount`",
                );
            }
        };
        let sources = words
            .iter()
            .map(|text| SourceSetting::parse(text, base))
            .collect::<Result<Vec<_>, _>>();
        let sources = sources.map_err(SettingsError::from)?;
        // What cannot be resolved does not exist, which is found out when it is mounted on.
        let mountpoint = base.join(mountpoint);
        let mountpoint = session::resolved(&mountpoint).unwrap_or(mountpoint);
        Ok(MountSettings {
            mountpoint,
            network: Network::new(&args.network, base)?,
            mapping: match args.mapping.mapping() {
                Ok(mapping) => mapping,
                Err(e) => return refuse(e.subject, e.rule),
            },
            providers: ProviderSettings::new(&args.providers, base),
            limits: args.archives.limits(),
            cache_dir: environment.cache_dir(args.storage.cache_dir.as_deref())?,
            cache_size: args.storage.cache_size.0,
            state_dir: environment.state_dir(args.storage.state_dir.as_deref())?,
            runtime_dir: environment.runtime_dir.clone(),
            read_only: args.access.read_only,
            allow_overwrite: args.access.allow_overwrite,
            uid: known("--uid", args.access.uid.as_ref(), Account::user, "user")?,
            gid: known("--gid", args.access.gid.as_ref(), Account::group, "group")?,
            passthrough: !args.access.no_passthrough,
            session: session_options(&args.access, shown_source(words)),
            strict: args.strict,
            in_background: args.background,
            log_file: args.log.log_file.as_ref().map(|file| absolute(file, base)),
            sources,
        })
    }

    /// Directories and files that may not hold the mount point nor lie in the mount, with their
    /// names.
    pub fn apart(&self) -> Vec<(&'static str, &Path)> {
        let stores = self.sources.iter().filter_map(|source| match source {
            SourceSetting::Layouts(path) | SourceSetting::Archive(path) => {
                Some(("a source", path.as_path()))
            }
            SourceSetting::Registry { .. } => None,
        });
        [
            ("the cache directory", self.cache_dir.as_path()),
            ("the state directory", self.state_dir.as_path()),
        ]
        .into_iter()
        .chain(stores)
        .collect()
    }
}

fn session_options(access: &AccessArgs, name: String) -> session::SessionOptions {
    session::SessionOptions {
        name,
        read_only: access.kernel_flag.contains(&KernelFlag::Ro),
        no_exec: access.kernel_flag.contains(&KernelFlag::Noexec),
        allow_other: access.allow_other,
    }
}

/// The number of a user or group that was named.
fn known(
    option: &str,
    account: Option<&Account>,
    number: fn(&Account) -> Option<u32>,
    kind: &str,
) -> Result<Option<u32>, SettingsError> {
    let Some(account) = account else { return Ok(None) };
    match (number(account), account) {
        (None, Account::Name(name)) => {
            refuse(format!("{option} {name}"), format!("this machine knows no such {kind}"))
        }
        (found, _) => Ok(found),
    }
}

/// The first source as mount tables show it: as it stands in fstab, so that `mount -a` finds it
/// mounted.
fn shown_source(sources: &[OsString]) -> String {
    let joined = sources.iter().map(|s| s.as_bytes()).collect::<Vec<_>>().join(&b';');
    let text = OsString::from_vec(joined)
        .to_string_lossy()
        .replace(|c: char| c == ',' || c.is_control(), "_");
    text.chars().take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Command, CommandLine};
    use clap::Parser;

    fn environment() -> DirectoryEnvironment {
        DirectoryEnvironment {
            base: "/tmp".into(),
            home: Some("/home/u".into()),
            ..DirectoryEnvironment::default()
        }
    }

    fn settings(words: &str) -> Result<MountSettings, SettingsError> {
        let words = format!("tofufs mount {words}");
        match CommandLine::try_parse_from(words.split(' ')).unwrap().command {
            Command::Mount(args) => MountSettings::new(&args, &environment()),
            _ => panic!("not a mount"),
        }
    }

    #[test]
    fn a_source_is_a_registry_a_part_of_one_a_store_or_an_archive() {
        let parse = |text: &str| SourceSetting::parse(OsStr::new(text), Path::new("/base"));
        for (text, shown) in [
            ("ghcr.io", "ghcr.io"),
            ("ghcr.io/", "ghcr.io"),
            ("localhost:5000/acme/net", "localhost:5000/acme/net"),
            ("oci:/srv/store", "oci:/srv/store"),
            ("oci:store", "oci:/base/store"),
            ("oci:./a/../b", "oci:/base/a/../b"),
            ("oci-archive:b.tar", "oci-archive:/base/b.tar"),
            ("oci-archive:/media/b.tar", "oci-archive:/media/b.tar"),
            ("oci://ghcr.io/acme", "ghcr.io/acme"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "ghcr",
            "mirror/x",
            "ghcr.io/UPPER",
            "ghcr.io//x",
            "oci:",
            "oci-archive:",
            "https://ghcr.io",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_name_is_the_mount_point_and_defaults_are_those_of_the_contract() {
        let s = settings("ghcr.io/acme oci:/srv/s,t /tmp/m").unwrap();
        assert_eq!(s.mountpoint, Path::new("/tmp/m"));
        assert_eq!(s.sources.len(), 2);
        assert_eq!(s.cache_dir, Path::new("/home/u/.cache/tofufs"));
        assert_eq!(s.state_dir, Path::new("/home/u/.local/state/tofufs"));
        assert_eq!(s.cache_size, 20 << 30);
        assert_eq!(
            (s.network.tag_ttl, s.network.deadline),
            (Duration::from_secs(60), Duration::from_secs(60))
        );
        assert!(
            !s.read_only && !s.network.offline && !s.session.allow_other && !s.session.read_only
        );
        assert_eq!(s.session.name, "ghcr.io/acme;oci:/srv/s_t");
    }

    #[test]
    fn options_that_may_be_given_several_times_add_up() {
        let s = settings(
            "--plain-http a.b --plain-http c.d:1 --ca-file x.pem --ca-file /y.pem --token-realm \
             a.b=https://t.b a.b m",
        )
        .unwrap();
        assert_eq!(s.network.plain_http.len(), 2);
        assert_eq!(s.network.ca_files, [Path::new("/tmp/x.pem"), Path::new("/y.pem")]);
        assert_eq!(s.network.token_realms[0].origin.as_str(), "https://t.b/");
        assert_eq!(s.mountpoint, Path::new("/tmp/m"));
        let s = settings("--uid root --gid 5 a.b m").unwrap();
        assert_eq!((s.uid, s.gid), (Some(0), Some(5)));
    }

    #[test]
    fn read_only_alone_is_not_the_kernels_business() {
        let s = settings("--read-only a.b m").unwrap();
        assert!(s.read_only && !s.session.read_only);
        let s = settings("--read-only --kernel-flag=ro --kernel-flag=noexec a.b m").unwrap();
        assert!(s.read_only && s.session.read_only && s.session.no_exec);
    }

    #[test]
    fn a_mirror_is_a_host_and_an_address() {
        let s = settings("--mirror a.b=https://m.b/x --mirror a.b=http://n.b:5000 a.b m").unwrap();
        let shown: Vec<_> =
            s.network.mirrors.iter().map(|mirror| format!("{}={mirror}", mirror.of)).collect();
        assert_eq!(shown, ["a.b=https://m.b/x", "a.b=http://n.b:5000"]);
        for bad in
            ["a.b", "a.b=", "=https://m.b", "a=https://m.b", "a.b=m.b", "a.b=https://u:secret@m.b"]
        {
            let error = settings(&format!("--mirror {bad} a.b m")).unwrap_err().to_string();
            assert!(error.starts_with("--mirror: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_token_realm_is_a_host_and_a_bare_origin() {
        for bad in [
            "a.b",
            "a.b=",
            "=https://t.b",
            "a.b=t.b",
            "a.b=ftp://t.b",
            "a.b=https://t.b/x",
            "a.b=https://u:p@t.b",
        ] {
            assert!(TokenRealm::parse(bad).is_err(), "{bad}");
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

    #[test]
    fn a_mount_keeps_apart_from_what_it_reads_and_writes() {
        let s = settings("a.b oci:/srv/s oci-archive:/srv/b.tar m").unwrap();
        let apart: Vec<&Path> = s.apart().into_iter().map(|(_, dir)| dir).collect();
        assert_eq!(
            apart,
            [
                s.cache_dir.as_path(),
                s.state_dir.as_path(),
                Path::new("/srv/s"),
                Path::new("/srv/b.tar")
            ]
        );
    }
}
