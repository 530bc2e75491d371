//! What this host offers. Everything that is looked at comes in as [`Surroundings`], so that the
//! findings are a function of it and of the files that it names.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::Access;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use url::Url;

use super::DoctorFinding;
use crate::cli::access::RegistryAccess;
use crate::cli::args::StorageArgs;
use crate::cli::directories::DirectoryEnvironment;
use crate::cli::mapping;
use crate::cli::mounts;
use crate::cli::output::CommandError;
use crate::cli::quantity::Size;
use crate::cli::status;
use crate::cli::tofurc::{InstallationLocation, Tofurc};
use crate::cli::users;
use crate::fuse::session::{STUCK, mountinfo, within};
use crate::registry::transport::Authorities;
use crate::store::{Store, StoreOptions};

/// Since this kernel FUSE can pass reads through to a file of the cache.
const PASSTHROUGH_SINCE: (u32, u32) = (6, 9);
/// Free space below which a cache is of little use, in bytes.
const SPACE_MIN: u64 = 1 << 30;
/// How far this program's own file may lie in the future.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(24 * 60 * 60);
const PROXIES: [&str; 8] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];
/// Where OpenTofu takes the plugin cache from before its configuration.
const PLUGIN_CACHE: &str = "TF_PLUGIN_CACHE_DIR";
const AUTHORITIES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What is looked at.
pub(super) struct Surroundings {
    pub device: PathBuf,
    pub fuse_conf: PathBuf,
    /// As in `PATH`.
    pub search_path: OsString,
    /// As in /proc/sys/kernel/osrelease.
    pub kernel: String,
    /// The directory with the kernels' configurations, `config-RELEASE`.
    pub boot: PathBuf,
    pub uid: u32,
    pub can_mount: bool,
    pub mounts: Vec<mountinfo::MountInfo>,
    /// Those of tofufs.
    pub own_mounts: Vec<mountinfo::MountInfo>,
    pub cache_dir: PathBuf,
    /// In bytes.
    pub cache_size: u64,
    pub state_dir: PathBuf,
    pub now: SystemTime,
    /// When this program was made.
    pub made: Option<SystemTime>,
    pub authorities: Authorities,
    /// Variables that say where authorities and proxies are.
    pub variables: Vec<(&'static str, OsString)>,
    pub configuration: Result<Tofurc, String>,
}

impl Surroundings {
    pub fn of_process(
        storage: &StorageArgs,
        environment: &DirectoryEnvironment,
        access: &RegistryAccess,
    ) -> Result<Surroundings, CommandError> {
        let made = std::env::current_exe().and_then(fs::metadata).and_then(|file| file.modified());
        let set = |name: &&'static str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(|v| (*name, v))
        };
        Ok(Surroundings {
            device: "/dev/fuse".into(),
            fuse_conf: "/etc/fuse.conf".into(),
            search_path: std::env::var_os("PATH").unwrap_or_default(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            boot: "/boot".into(),
            uid: rustix::process::geteuid().as_raw(),
            can_mount: rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN)),
            mounts: mountinfo::read().unwrap_or_default(),
            own_mounts: mounts::all()?,
            cache_dir: environment
                .cache_dir(storage.cache_dir.as_deref())
                .map_err(CommandError::usage)?,
            cache_size: storage.cache_size.0,
            state_dir: environment
                .state_dir(storage.state_dir.as_deref())
                .map_err(CommandError::usage)?,
            now: SystemTime::now(),
            made: made.ok(),
            authorities: Authorities::of_system(),
            variables: AUTHORITIES
                .iter()
                .chain(&PROXIES)
                .chain(&[PLUGIN_CACHE])
                .filter_map(set)
                .collect(),
            configuration: access.configuration().tofurc().cloned().map_err(|e| e.to_string()),
        })
    }

    pub fn findings(&self) -> Vec<DoctorFinding> {
        let mut findings = vec![self.device(), self.mounting()];
        findings.extend(self.allow_other());
        findings.extend([self.passthrough(), self.cache_directory()]);
        findings.extend([self.cache_disk(), self.space()].into_iter().flatten());
        findings.push(self.state_directory());
        findings.push(self.clock());
        findings.push(self.authorities());
        findings
            .extend(self.variables.iter().filter(|(name, _)| PROXIES.contains(name)).map(proxy));
        findings.extend(self.configuration());
        findings.extend(self.own_mounts.iter().map(|entry| self.own_mount(entry)));
        findings
    }

    fn device(&self) -> DoctorFinding {
        let device = self.device.display();
        match fs::File::options().read(true).write(true).open(&self.device) {
            Ok(_) => DoctorFinding::ok("FUSE", format!("{device} can be opened")),
            Err(e) => {
                let remedy = match e.kind() {
                    std::io::ErrorKind::PermissionDenied => {
                        "let this user open it for reading and writing"
                    }
                    _ => {
                        "load the kernel module (modprobe fuse) or, in a container, pass the \
                         device in"
                    }
                };
                DoctorFinding::problem("FUSE", format!("{device} cannot be opened: {e}"))
                    .remedy(remedy)
            }
        }
    }

    /// By mount(2) or by `fusermount3`, which has to be set-uid root.
    fn mounting(&self) -> DoctorFinding {
        if self.can_mount {
            return DoctorFinding::ok("mounting", "by mount(2), as this process has CAP_SYS_ADMIN");
        }
        let found = std::env::split_paths(&self.search_path)
            .map(|dir| dir.join("fusermount3"))
            .find(|f| f.is_file());
        let Some(program) = found else {
            return DoctorFinding::problem(
                "mounting",
                "fusermount3, by which users mount, is not on PATH",
            )
            .remedy("install the package fuse3");
        };
        let shown = program.display();
        match fs::metadata(&program) {
            Ok(file) if file.mode() & 0o4000 != 0 && file.uid() == 0 => {
                DoctorFinding::ok("mounting", format!("by {shown}, which is set-uid root"))
            }
            Ok(_) => DoctorFinding::problem(
                "mounting",
                format!("{shown} is not set-uid root, so that it cannot mount"),
            )
            .remedy(format!(
                "chown root {shown} && chmod u+s {shown}, or install the package fuse3 again"
            )),
            Err(e) => {
                DoctorFinding::problem("mounting", format!("{shown} cannot be looked at: {e}"))
            }
        }
    }

    fn allow_other(&self) -> Option<DoctorFinding> {
        if self.can_mount {
            return None;
        }
        let text = fs::read_to_string(&self.fuse_conf).unwrap_or_default();
        let allowed = text.lines().any(|line| line.trim() == "user_allow_other");
        let file = self.fuse_conf.display();
        Some(if allowed {
            DoctorFinding::ok("allow_other", format!("{file} has user_allow_other"))
        } else {
            DoctorFinding::note(
                "allow_other",
                "other users cannot be let into a mount (--allow-other)",
            )
            .remedy(format!("if they have to be: add the line user_allow_other to {file}"))
        })
    }

    fn passthrough(&self) -> DoctorFinding {
        let kernel = &self.kernel;
        let without = |why: String| {
            DoctorFinding::note(
                "passthrough",
                format!("{why}: large files are read through this program"),
            )
        };
        let version = version(kernel);
        if version.is_some_and(|version| version < PASSTHROUGH_SINCE) {
            return without(format!("Linux {kernel} has no passthrough"))
                .remedy("Linux 6.9 or newer has it");
        }
        if self.configured("CONFIG_FUSE_PASSTHROUGH") == Some(false) {
            return without(format!("Linux {kernel} was built without passthrough"))
                .remedy("a kernel with CONFIG_FUSE_PASSTHROUGH=y has it");
        }
        if !self.can_mount {
            return without("passthrough needs CAP_SYS_ADMIN".to_owned())
                .remedy("mount as root to have it");
        }
        match version {
            Some(_) => DoctorFinding::ok(
                "passthrough",
                format!("Linux {kernel} and the privileges of this process allow it"),
            ),
            None => DoctorFinding::note("passthrough", format!("unknown for the kernel {kernel}")),
        }
    }

    /// Whether the kernel's configuration has an option; `None` where there is no configuration to
    /// be read.
    fn configured(&self, option: &str) -> Option<bool> {
        let text = fs::read_to_string(self.boot.join(format!("config-{}", self.kernel))).ok()?;
        Some(
            text.lines()
                .any(|line| line.strip_prefix(option).is_some_and(|rest| rest.starts_with("=y"))),
        )
    }

    fn cache_directory(&self) -> DoctorFinding {
        directory("cache", "--cache-dir", &self.cache_dir, self.uid)
    }

    fn state_directory(&self) -> DoctorFinding {
        directory("state", "--state-dir", &self.state_dir, self.uid)
    }

    fn cache_disk(&self) -> Option<DoctorFinding> {
        let there = existing(&self.cache_dir)?.canonicalize().ok()?;
        let kind = mountinfo::holding(&self.mounts, &there)?.fs_type.as_str();
        Some(match kind {
            mountinfo::FS_TYPE => {
                DoctorFinding::problem("cache's disk", "the cache lies inside a mount of tofufs")
                    .remedy("choose another --cache-dir")
            }
            "overlay" => DoctorFinding::note(
                "cache's disk",
                "overlay: no passthrough on it, since it does not tell who can write to a file",
            )
            .remedy("choose a --cache-dir on a volume"),
            "tmpfs" | "ramfs" => DoctorFinding::note(
                "cache's disk",
                format!("{kind}: the cache takes memory and is lost at a reboot"),
            )
            .remedy("choose a --cache-dir on a disk to keep it"),
            network if is_network(network) => DoctorFinding::note(
                "cache's disk",
                format!(
                    "{network}: over a network, every read is slower, and locks may hold on this \
                     host only"
                ),
            )
            .remedy("choose a --cache-dir on a local disk"),
            local => DoctorFinding::ok("cache's disk", local),
        })
    }

    fn space(&self) -> Option<DoctorFinding> {
        let there = existing(&self.cache_dir)?;
        let stat = match rustix::fs::statvfs(there) {
            Ok(stat) => stat,
            Err(e) => {
                return Some(DoctorFinding::problem(
                    "space",
                    format!("the cache's disk cannot be looked at: {e}"),
                ));
            }
        };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let held = self.held();
        let may_grow = self.cache_size.saturating_sub(held);
        let shown = format!(
            "{} free, the cache holds {} of at most {}",
            Size(free),
            Size(held),
            Size(self.cache_size)
        );
        Some(if free < SPACE_MIN.min(may_grow) {
            DoctorFinding::problem("space", shown)
                .remedy("free space on the cache's disk, or choose another --cache-dir")
        } else if free < may_grow {
            DoctorFinding::note("space", shown)
                .remedy("a smaller --cache-size leaves the disk to others")
        } else {
            DoctorFinding::ok("space", shown)
        })
    }

    /// What a cache that was used before holds, in bytes.
    fn held(&self) -> u64 {
        if !self.cache_dir.join("v1").is_dir() {
            return 0;
        }
        let options = StoreOptions { dir: self.cache_dir.clone(), limit: u64::MAX };
        Store::open(options).map_or(0, |store| store.usage().bytes)
    }

    fn clock(&self) -> DoctorFinding {
        let today =
            self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
        match self.made {
            Some(made)
                if made.duration_since(self.now).is_ok_and(|ahead| ahead > CLOCK_TOLERANCE) =>
            {
                DoctorFinding::problem(
                    "clock",
                    "this program was made in what the clock says is the future",
                )
                .remedy(
                    "set this machine's clock: certificates and tokens are refused by a wrong one",
                )
            }
            // The first of January 1980: where clocks begin that were never set.
            _ if today < 3_652 => DoctorFinding::problem("clock", "it was never set").remedy(
                "set this machine's clock: certificates and tokens are refused by a wrong one",
            ),
            _ => DoctorFinding::ok(
                "clock",
                "plausible; give a REFERENCE to compare it with a registry's",
            ),
        }
    }

    fn authorities(&self) -> DoctorFinding {
        let from: Vec<String> = self
            .variables
            .iter()
            .filter(|(name, _)| AUTHORITIES.contains(name))
            .map(|(name, value)| format!("{name}={}", value.display()))
            .collect();
        let from = if from.is_empty() { "the system".to_owned() } else { from.join(", ") };
        let Authorities { usable, errors } = &self.authorities;
        match (usable, errors.first()) {
            (0, error) => {
                let why = error.map(|e| format!(": {e}")).unwrap_or_default();
                DoctorFinding::problem(
                    "authorities",
                    format!("no certificate authority comes from {from}{why}"),
                )
                .remedy(
                    "install the package ca-certificates, or set SSL_CERT_FILE, or give --ca-file",
                )
            }
            (_, Some(error)) => DoctorFinding::note(
                "authorities",
                format!("{usable} from {from}, but some cannot be read: {error}"),
            ),
            (_, None) => DoctorFinding::ok("authorities", format!("{usable} from {from}")),
        }
    }

    fn configuration(&self) -> Vec<DoctorFinding> {
        let tofurc = match &self.configuration {
            Ok(tofurc) => tofurc,
            Err(error) => return vec![DoctorFinding::problem("configuration", error)],
        };
        let files: Vec<String> =
            tofurc.files.iter().map(|file| file.display().to_string()).collect();
        let found = if files.is_empty() {
            "there is no CLI configuration".to_owned()
        } else {
            files.join(", ")
        };
        let warnings =
            tofurc.warnings.iter().map(|warning| DoctorFinding::note("configuration", warning));
        let misplaced =
            tofurc.misplaced.iter().map(|warning| DoctorFinding::problem("configuration", warning));
        let warnings = warnings.chain(misplaced);
        [DoctorFinding::ok("configuration", found)]
            .into_iter()
            .chain(warnings)
            .chain(mapping::of_tofurc(tofurc).err().map(|e| DoctorFinding::problem("mapping", e)))
            .chain(self.cache_conflict(tofurc))
            .collect()
    }

    fn own_mount(&self, entry: &mountinfo::MountInfo) -> DoctorFinding {
        let shown = entry.point.display();
        if let Some(owner) = entry.owner.filter(|owner| *owner != self.uid) {
            let owner = users::shown(owner);
            return DoctorFinding::ok(
                "mount",
                format!("{shown}, which the user {owner} mounted: not looked into"),
            );
        }
        match mounts::is_dead(&entry.point) {
            Some(false) => living(&shown.to_string(), status::of(entry).as_ref()),
            Some(true) => {
                DoctorFinding::problem("mount", format!("{shown} is dead: its process is gone"))
                    .remedy(format!("tofufs umount {shown}"))
            }
            None => DoctorFinding::problem("mount", format!("{shown} does not answer"))
                .remedy(format!("tofufs umount --lazy {shown}")),
        }
    }

    /// OpenTofu's own rule: a plugin cache must not be a mirror too. The clients would install a
    /// package over itself.
    fn cache_conflict(&self, tofurc: &Tofurc) -> Option<DoctorFinding> {
        let named = self.variables.iter().find(|(name, _)| *name == PLUGIN_CACHE);
        let cache = named
            .map(|(_, value)| PathBuf::from(value))
            .or_else(|| tofurc.plugin_cache_dir.clone())?;
        let problem = |found: String| DoctorFinding::problem("plugin cache", found);
        let remedy = "use a mount's plugin-cache/ for the one and its mirror/ or plugins/ for the \
             other (`tofufs tofurc`)";
        let is_cache = |path: &Path| {
            path == cache || resolved(path).is_some_and(|path| Some(path) == resolved(&cache))
        };
        for method in tofurc.installation.iter().flatten() {
            if let InstallationLocation::FilesystemMirror(path) = &method.location
                && is_cache(path)
            {
                let found = format!(
                    "{} is the plugin cache and a mirror too ({})",
                    cache.display(),
                    method.origin
                );
                return Some(problem(found).remedy(remedy));
            }
        }
        let views = self
            .own_mounts
            .iter()
            .flat_map(|entry| ["mirror", "plugins"].map(|view| entry.point.join(view)));
        let view = views.into_iter().find(|view| cache.starts_with(view))?;
        Some(
            problem(format!(
                "the plugin cache is {}, in which nothing can be kept",
                view.display()
            ))
            .remedy(remedy),
        )
    }
}

/// A mount that answers, with what its process tells.
fn living(shown: &str, mount: Option<&status::Mount>) -> DoctorFinding {
    let log = mount.and_then(|mount| mount.log.as_ref());
    let log = log.map(|log| format!(", whose log is {log}")).unwrap_or_default();
    match mount.and_then(|mount| mount.sandbox.as_ref()) {
        None => DoctorFinding::ok("mount", format!("{shown}{log}")),
        Some(sandbox) if sandbox.is_missing() => DoctorFinding::note(
            "mount",
            format!("{shown}{log}, and whose process keeps all its privileges"),
        )
        .remedy("mount without --no-sandbox"),
        Some(sandbox) => {
            DoctorFinding::ok("mount", format!("{shown}{log}; sandbox: {}", sandbox.described()))
        }
    }
}

/// The path with links followed, where it is there. Mounts of tofufs that do not answer are found
/// out elsewhere.
fn resolved(path: &Path) -> Option<PathBuf> {
    let path = path.to_owned();
    within(STUCK, move || path.canonicalize())?.ok()
}

/// The first two numbers of a release, as in `6.9.0-1-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The directory itself, or the nearest one above it that is there.
fn existing(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|ancestor| ancestor.exists())
}

fn directory(subject: &str, option: &str, dir: &Path, uid: u32) -> DoctorFinding {
    let shown = dir.display();
    let elsewhere = format!("choose another {option}");
    let problem = |found: String| DoctorFinding::problem(subject, found).remedy(&elsewhere);
    let Some(there) = existing(dir) else { return problem(format!("{shown} cannot be made")) };
    let metadata = match fs::metadata(there) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return problem(format!("{} is not a directory", there.display())),
        Err(e) => return problem(format!("{} cannot be looked at: {e}", there.display())),
    };
    match rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => {}
        Err(Errno::ROFS) => {
            return problem(format!("{} is on a read-only file system", there.display()));
        }
        Err(e) => return problem(format!("{} cannot be written to: {e}", there.display())),
    }
    if there != dir {
        return DoctorFinding::ok(subject, format!("{shown} will be made"));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.uid() != uid {
        return problem(format!("{shown} belongs to the user {}, not to {uid}", metadata.uid()));
    }
    if mode & 0o022 != 0 {
        return DoctorFinding::problem(
            subject,
            format!("others can write to {shown} (mode {mode:04o})"),
        )
        .remedy(format!("chmod go-w {shown}"));
    }
    DoctorFinding::ok(subject, format!("{shown} (mode {mode:04o})"))
}

fn is_network(kind: &str) -> bool {
    ["nfs", "cifs", "smb", "9p", "ceph", "afs", "fuse.sshfs", "lustre"]
        .iter()
        .any(|name| kind.starts_with(name))
}

fn proxy((name, value): &(&'static str, OsString)) -> DoctorFinding {
    DoctorFinding::ok(name, without_user(name, value))
}

/// A proxy's address without user and password; what is no address is not shown, as it may hold
/// them.
fn without_user(name: &str, value: &OsStr) -> String {
    let text = value.to_string_lossy();
    if name.eq_ignore_ascii_case("NO_PROXY") {
        return text.into_owned();
    }
    let has_scheme = text.contains("://");
    let parsed = if has_scheme { Url::parse(&text) } else { Url::parse(&format!("http://{text}")) };
    match parsed {
        Ok(url) if url.has_host() => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let user = if url.username().is_empty() && url.password().is_none() {
                ""
            } else {
                " (with a user name)"
            };
            format!("{}://{}{port}{user}", url.scheme(), url.host_str().unwrap_or_default())
        }
        _ => "(set, but not an address)".to_owned(),
    }
}
