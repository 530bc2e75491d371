//! From what was typed and what the environment says to the ready parts of a mount: sources,
//! directories, options of each layer.
//!
//! All paths in here are absolute. Nothing is created or connected to; a [`SettingsError`] means
//! wrong usage.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::account::Account;
use super::args::metrics::MetricsAddress;
use super::args::mount::{AccessArgs, KernelFlag, MountArgs};
use super::directories::{DirectoryEnvironment, absolute};
use super::network::Network;
use super::policy::PolicyFiles;
use super::providers::ProviderSettings;
use super::settings_error::{SettingsError, refuse};
use super::signing::SigningSetting;
use super::source::SourceSetting;
use crate::archive::Limits;
use crate::fuse::session;
use crate::mapping::Mapping;
use crate::registry::transport::Authorities;

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
    /// Which releases may be opened.
    pub policies: PolicyFiles,
    /// Whether only what they admit is listed.
    pub list_signed: bool,
    /// Who signs what is committed.
    pub signing: SigningSetting,
    /// Whether releases of provider registries need a signature wherever they come from.
    pub require_signature: bool,
    /// How large archives may be.
    pub limits: Limits,
    /// The cache's directory.
    pub cache_dir: PathBuf,
    /// The cache's limit in bytes.
    pub cache_size: u64,
    /// The directory for the state of mounts.
    pub state_dir: PathBuf,
    /// The user's home.
    pub home: Option<PathBuf>,
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
    /// Whether the mount's process gives up the privileges that it does not need.
    pub sandboxed: bool,
    /// How to mount.
    pub session: session::SessionOptions,
    /// Nothing is mounted if a source fails.
    pub strict: bool,
    /// This process leaves the terminal before it mounts.
    pub in_background: bool,
    /// Where metrics are told.
    pub metrics: Option<MetricsAddress>,
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
            policies: PolicyFiles::new(&args.policy, base),
            list_signed: args.list_signed,
            signing: SigningSetting::new(&args.signing, base),
            require_signature: args.providers.require_signature,
            limits: args.archives.limits(),
            cache_dir: environment.cache_dir(args.storage.cache_dir.as_deref())?,
            cache_size: args.storage.cache_size.0,
            state_dir: environment.state_dir(args.storage.state_dir.as_deref())?,
            home: environment.home.clone(),
            runtime_dir: environment.runtime_dir.clone(),
            read_only: args.access.read_only,
            allow_overwrite: args.access.allow_overwrite,
            uid: known("--uid", args.access.uid.as_ref(), Account::user, "user")?,
            gid: known("--gid", args.access.gid.as_ref(), Account::group, "group")?,
            passthrough: !args.access.no_passthrough,
            sandboxed: !args.no_sandbox,
            session: session_options(&args.access, shown_source(words)),
            strict: args.strict,
            in_background: args.background,
            metrics: args.metrics.clone().map(|address| address.below(base)),
            log_file: args.log.log_file.as_ref().map(|file| absolute(file, base)),
            sources,
        })
    }

    /// Files and directories that were named to be read, and what they name. A policy that cannot
    /// be read names nothing.
    pub fn named_files(&self) -> Vec<PathBuf> {
        let sources = self.sources.iter().filter_map(|source| match source {
            SourceSetting::Layouts(path) | SourceSetting::Archive(path) => Some(path.clone()),
            SourceSetting::Registry { .. } | SourceSetting::Providers { .. } => None,
        });
        let providers = self.providers.lock_files.iter().chain(&self.providers.roots).cloned();
        sources
            .chain(self.policies.files())
            .chain(providers)
            .chain(self.network.ca_files.iter().cloned())
            .chain(Authorities::of_environment())
            .chain(self.signing.key.clone())
            .collect()
    }

    /// Directories and files that may not hold the mount point nor lie in the mount, with their
    /// names.
    pub fn apart(&self) -> Vec<(&'static str, &Path)> {
        let stores = self.sources.iter().filter_map(|source| match source {
            SourceSetting::Layouts(path) | SourceSetting::Archive(path) => {
                Some(("a source", path.as_path()))
            }
            SourceSetting::Registry { .. } | SourceSetting::Providers { .. } => None,
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
    use std::time::Duration;

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
