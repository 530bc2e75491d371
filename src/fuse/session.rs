//! A mount from mount(2) to its end: checks of the mount point, mounting as root or through
//! `fusermount3`, serving, unmounting.
//!
//! The library that speaks the protocol is only ever given the device's descriptor. It never mounts
//! and never unmounts: its own unmounting can hit a later mount at the same path and cannot be
//! repeated after EBUSY.

pub mod holders;
pub mod mountinfo;
pub mod over;

use std::ffi::{CString, OsStr};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::descriptor;
use holders::Holder;
use over::Condition;

/// How long a call on a mount point may take before the mount counts as stuck.
pub const STUCK: Duration = Duration::from_secs(2);
/// How long `fusermount3` may take.
const FUSERMOUNT_LIMIT: Duration = Duration::from_secs(10);

/// How to mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionOptions {
    /// What mount tables show as the source.
    pub name: String,
    /// The kernel itself refuses all writing (`ro`).
    pub read_only: bool,
    /// The kernel refuses to run programs (`noexec`).
    pub no_exec: bool,
    /// Other users may use the mount, as far as modes allow.
    pub allow_other: bool,
}

impl SessionOptions {
    /// The options for sharing. Modes are for the other users: a mount that is its owner's alone
    /// takes what the owner does, whatever modes are shown, and answers EROFS itself where nothing
    /// can be written.
    fn sharing(&self) -> &'static [&'static str] {
        if self.allow_other { &["allow_other", "default_permissions"] } else { &[] }
    }
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is not one.
    #[error("cannot mount at {}: {rule}", .point.display())]
    Refused {
        /// The mount point.
        point: PathBuf,
        /// The reason, and what to do.
        rule: String,
    },
    /// The operating system did not do it.
    #[error("cannot mount at {}: {what}: {source}", .point.display())]
    System {
        /// The mount point.
        point: PathBuf,
        /// Which step failed.
        what: &'static str,
        /// How.
        source: io::Error,
    },
}

/// Why a mount is still there.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// EBUSY.
    #[error("{} is in use{}", .point.display(), by(.holders))]
    Busy {
        /// The mount point.
        point: PathBuf,
        /// Who uses it, as far as can be seen.
        holders: Vec<Holder>,
    },
    /// Something else is mounted over it.
    #[error("{} is covered by another mount; unmount that first", .point.display())]
    Covered {
        /// The mount point.
        point: PathBuf,
    },
    /// EPERM: it is somebody else's.
    #[error(
        "cannot unmount {}: the user {owner} mounted it; that user and root can unmount it",
        .point.display()
    )]
    Foreign {
        /// The mount point.
        point: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The operating system did not do it.
    #[error("cannot unmount {}: {reason}", .point.display())]
    System {
        /// The mount point.
        point: PathBuf,
        /// What it said.
        reason: String,
    },
}

fn by(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return String::new();
    }
    let names: Vec<String> = holders.iter().map(Holder::to_string).collect();
    format!(" by {}", names.join(", "))
}

/// How to unmount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Manner {
    /// Only if nothing uses it.
    Unused,
    /// Out of sight at once; who has something open keeps it (MNT_DETACH).
    Lazily,
}

/// Who mounts and unmounts for a session.
pub trait Mounting: fmt::Debug + Send + Sync {
    /// Mounts at `point`; the kernel's connection.
    fn mount(&self, point: &Path, options: &SessionOptions) -> Result<OwnedFd, MountError>;

    /// Unmounts a mount of tofufs that the mount table shows.
    fn unmount(&self, entry: &mountinfo::MountInfo, manner: Manner) -> Result<(), UnmountError>;
}

/// This process mounts and unmounts by itself.
#[derive(Debug)]
pub struct OwnRights;

impl Mounting for OwnRights {
    fn mount(&self, point: &Path, options: &SessionOptions) -> Result<OwnedFd, MountError> {
        mount(point, options)
    }

    fn unmount(&self, entry: &mountinfo::MountInfo, manner: Manner) -> Result<(), UnmountError> {
        unmount(&entry.point, manner)
    }
}

/// Runs a call that may hang on a stuck mount. `None` when the limit has passed; the call's thread
/// is then left behind.
pub fn within<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("bounded".into());
    let thread = thread.spawn(move || done.send(call())).ok()?;
    let result = result.recv_timeout(limit).ok()?;
    // It has nothing left to do; who comes back has no more threads than before.
    let _ = thread.join();
    Some(result)
}

/// A path as mount tables spell it: absolute, with the links of its parents followed, and the last
/// component as it is.
pub fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => path.canonicalize(),
    }
}

/// Checks that `point` (as [`resolved`] gives it) can be mounted on, and removes a dead mount of
/// tofufs there.
///
/// `apart` are directories, with names for the user, that may neither hold the mount point nor lie
/// below it: the daemon would wait for itself.
pub fn prepare(point: &Path, apart: &[(&str, &Path)]) -> Result<(), MountError> {
    let refused = |rule: String| MountError::Refused { point: point.to_owned(), rule };
    let system = |what| move |source| MountError::System { point: point.to_owned(), what, source };
    let read = || mountinfo::read().map_err(system("the mount table cannot be read"));
    let mut table = read()?;
    let mut top = mountinfo::top_at(&table, point).cloned();
    while let Some(seen) = top {
        let is_cleared = cleared(point, &seen)?;
        table = read()?;
        top = mountinfo::top_at(&table, point).filter(|_| is_cleared).cloned();
    }
    if mountinfo::top_at(&table, point).is_none()
        && mountinfo::holding(&table, point)
            .is_some_and(|outer| outer.fs_type == mountinfo::FS_TYPE)
    {
        return Err(refused(
            "it lies inside another mount of tofufs; choose a directory outside of it".into(),
        ));
    }
    let metadata = match std::fs::symlink_metadata(point) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(refused("there is no such directory; create it first".into()));
        }
        Err(e) => return Err(system("it cannot be read")(e)),
    };
    if metadata.is_symlink() {
        return Err(refused("it is a symbolic link; name the directory that it points to".into()));
    }
    if !metadata.is_dir() {
        return Err(refused("it is not a directory".into()));
    }
    for (name, dir) in apart {
        // A directory that does not exist yet has no links to follow.
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        if point.starts_with(&dir) || dir.starts_with(point) {
            return Err(refused(format!(
                "it and {name} ({}) lie inside each other; keep them apart",
                dir.display()
            )));
        }
    }
    if std::fs::read_dir(point).map_err(system("it cannot be read"))?.next().is_some() {
        return Err(refused("it is not empty; choose an empty directory".into()));
    }
    Ok(())
}

/// Takes a mount of tofufs away that serves nobody new; whether it did.
fn cleared(point: &Path, top: &mountinfo::MountInfo) -> Result<bool, MountError> {
    let refused =
        |rule: &str| Err(MountError::Refused { point: point.to_owned(), rule: rule.to_owned() });
    if let Some(owner) = top.foreign_owner().filter(|_| top.is_ours()) {
        return refused(&format!(
            "the user {owner} has mounted tofufs there; choose another directory"
        ));
    }
    match (Condition::at(point), top.is_ours()) {
        (Condition::Silent, _) => {
            refused("what is mounted there does not answer; unmount it first")
        }
        (Condition::Dead | Condition::Replaced, true) => {
            unmount(point, Manner::Lazily).map_err(|e| MountError::Refused {
                point: point.to_owned(),
                rule: e.to_string(),
            })?;
            tracing::warn!("{}: removed the mount of a tofufs that is gone", point.display());
            Ok(true)
        }
        (Condition::Dead, false) => {
            refused("there is a dead mount of another program; unmount it first")
        }
        (Condition::Serving, true) => {
            refused("tofufs is mounted there already; `tofufs umount` it first")
        }
        (Condition::Serving | Condition::Replaced, false) => Ok(false),
    }
}

/// A file system that is mounted and served by threads of this process.
#[derive(Debug)]
pub struct Session {
    /// The mount as the table showed it; `None` if it did not. Its number and its device are used
    /// again for later mounts, but the device not before serving has ended.
    entry: Option<mountinfo::MountInfo>,
    point: PathBuf,
    notifier: fuser::Notifier,
    mounting: Arc<dyn Mounting>,
    /// Whether another process serves in its place.
    replaced: AtomicBool,
}

/// How serving ended: once, when the kernel's last reference to the mount is gone.
pub type SessionEnd = oneshot::Receiver<io::Result<()>>;

/// Has `mounting` mount at `point` (see [`prepare`]) and serves with `threads` threads. `connected`
/// is called with the kernel's connection before the first request is served.
pub fn start<F: fuser::Filesystem>(
    mounting: Arc<dyn Mounting>,
    point: &Path,
    options: &SessionOptions,
    threads: usize,
    filesystem: F,
    connected: impl FnOnce(BorrowedFd<'_>),
) -> Result<(Session, SessionEnd), MountError> {
    let system = |what| move |source| MountError::System { point: point.to_owned(), what, source };
    let device = mounting.mount(point, options)?;
    let table = mountinfo::read().unwrap_or_default();
    let entry = mountinfo::top_at(&table, point).filter(|entry| entry.is_ours()).cloned();
    let mounted = entry.clone();
    let unmounting = Arc::clone(&mounting);
    let serving = served(device, options, threads, filesystem, connected);
    let serving =
        serving.map(|(notifier, end)| (Session::new(entry, point, notifier, mounting), end));
    serving.map_err(|e| {
        let left = mounted.map(|entry| unmounting.unmount(&entry, Manner::Lazily));
        if let Some(Err(left)) = left {
            tracing::warn!("{left}");
        }
        system("the kernel and tofufs could not agree")(e)
    })
}

/// Serves the kernel's requests on a device by threads of this process.
fn served<F: fuser::Filesystem>(
    device: OwnedFd,
    options: &SessionOptions,
    threads: usize,
    filesystem: F,
    connected: impl FnOnce(BorrowedFd<'_>),
) -> io::Result<(fuser::Notifier, SessionEnd)> {
    let mut config = fuser::Config::default();
    config.acl =
        if options.allow_other { fuser::SessionACL::All } else { fuser::SessionACL::Owner };
    config.n_threads = Some(threads);
    let served = fuser::Session::from_fd(filesystem, device, config.acl, config)?;
    connected(served.as_fd());
    let notifier = served.notifier();
    let (ended, end) = oneshot::channel();
    let run = move || drop(ended.send(served.run()));
    thread::Builder::new().name("fuse-session".into()).spawn(run)?;
    Ok((notifier, end))
}

impl Session {
    fn new(
        entry: Option<mountinfo::MountInfo>,
        point: &Path,
        notifier: fuser::Notifier,
        mounting: Arc<dyn Mounting>,
    ) -> Session {
        let replaced = AtomicBool::new(false);
        Session { entry, point: point.to_owned(), notifier, mounting, replaced }
    }

    /// Where it was mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Whether the mount is still there after serving has ended, as it is when its connection was
    /// aborted. A living mount of somebody else that got its number is not taken for it.
    pub fn is_dead(&self) -> bool {
        let Ok(table) = mountinfo::read() else { return false };
        let Some(entry) = self.find(&table) else { return false };
        let point = entry.point.clone();
        within(STUCK, move || rustix::fs::statfs(&point))
            .is_some_and(|answer| answer.is_err_and(|e| e == Errno::NOTCONN))
    }

    fn find<'a>(&self, table: &'a [mountinfo::MountInfo]) -> Option<&'a mountinfo::MountInfo> {
        let own = self.entry.as_ref()?;
        table
            .iter()
            .find(|entry| (entry.id, &entry.device) == (own.id, &own.device) && entry.is_ours())
    }

    /// Has the kernel forget names in directories, given as inode numbers. Never to be called while
    /// a request is being answered: the kernel may hold a lock that this waits for.
    pub fn forget(&self, names: &[(u64, Box<OsStr>)]) {
        for (directory, name) in names {
            if let Err(e) = self.notifier.inval_entry(fuser::INodeNo(*directory), name) {
                tracing::debug!("the kernel keeps {name:?}: {e}");
            }
        }
    }

    /// Unmounts this mount and no other that may have taken its place; to be called while it is
    /// served, or after [`Session::is_dead`]. Nothing happens if it is gone already, or was replaced. Blocks for
    /// seconds at worst.
    pub fn unmount(&self, manner: Manner) -> Result<(), UnmountError> {
        let system = |e: io::Error| UnmountError::System {
            point: self.point.clone(),
            reason: e.to_string(),
        };
        if self.is_replaced() {
            return Ok(());
        }
        let table = mountinfo::read().map_err(system)?;
        let Some(entry) = self.find(&table) else { return Ok(()) };
        match mountinfo::top_at(&table, &entry.point) {
            Some(top) if top.id == entry.id => self.mounting.unmount(entry, manner),
            _ => Err(UnmountError::Covered { point: entry.point.clone() }),
        }
    }
}

/// Mounts at `point`, as root or through `fusermount3`; the kernel's connection.
pub fn mount(point: &Path, options: &SessionOptions) -> Result<OwnedFd, MountError> {
    match by_mount(point, options) {
        Err(Errno::PERM | Errno::ACCESS) => by_fusermount(point, options),
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Err(MountError::Refused {
            point: point.to_owned(),
            rule: "this system has no /dev/fuse; load the kernel module (modprobe fuse) or, in a \
                   container, pass the device in; where neither can be done, `tofufs export` lays \
                   the same paths out in a plain directory"
                .into(),
        }),
        Err(e) => {
            let point = point.to_owned();
            Err(MountError::System { point, what: "mount(2) failed", source: e.into() })
        }
        Ok(device) => Ok(device),
    }
}

fn by_mount(point: &Path, options: &SessionOptions) -> Result<OwnedFd, Errno> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut data = format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", device.as_raw_fd());
    for word in options.sharing() {
        data.push(',');
        data.push_str(word);
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOEXEC, options.no_exec);
    rustix::mount::mount(options.name.as_str(), point, mountinfo::FS_TYPE, flags, data.as_c_str())?;
    Ok(device)
}

/// `fusermount3` is set-uid root: it opens the device with the caller's rights, mounts, and sends
/// the descriptor over a socket whose number stands in `_FUSE_COMMFD`.
fn by_fusermount(point: &Path, options: &SessionOptions) -> Result<OwnedFd, MountError> {
    let system = |what| move |source| MountError::System { point: point.to_owned(), what, source };
    let mut words = vec![
        "nosuid".to_owned(),
        "nodev".to_owned(),
        "subtype=tofufs".to_owned(),
        format!("fsname={}", options.name.replace([',', '\\'], "_")),
    ];
    let wanted = [(options.read_only, "ro"), (options.no_exec, "noexec")];
    words.extend(wanted.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned()));
    words.extend(options.sharing().iter().map(|word| (*word).to_owned()));

    let (ours, theirs) = UnixStream::pair().map_err(system("no socket"))?;
    let mut command = fusermount(&[
        OsStr::new("-o"),
        OsStr::new(&words.join(",")),
        OsStr::new("--"),
        point.as_os_str(),
    ]);
    command.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(theirs));
    let refused = |rule| MountError::Refused { point: point.to_owned(), rule };
    let (status, said) = run_bounded(command).map_err(|e| refused(no_fusermount(&e)))?;
    if !status.success() {
        return Err(refused(fusermount_rule(&said, status)));
    }
    ours.set_read_timeout(Some(FUSERMOUNT_LIMIT)).map_err(system("no socket"))?;
    let received = descriptor::receive(&ours, &mut [0], RecvFlags::empty());
    received
        .and_then(|(_, device)| device.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        .map_err(system("fusermount3 sent no descriptor"))
}

/// Why `fusermount3` did not mount, and what to do where that is known.
fn fusermount_rule(said: &str, status: ExitStatus) -> String {
    if said.contains("user_allow_other") {
        "--allow-other needs the line `user_allow_other` in /etc/fuse.conf; add it there, or \
         mount as root"
            .into()
    } else if said.contains("no write access") {
        "this user cannot write to it, as who mounts without being root has to; choose a \
         directory of your own"
            .into()
    } else if said.contains("/dev/fuse: Permission denied") {
        "this user may not open /dev/fuse; let it be opened for reading and writing (chmod a+rw \
         /dev/fuse), or mount as root"
            .into()
    } else if said.contains("mount failed: Operation not permitted") {
        may_not_mount()
    } else if said.is_empty() {
        format!("fusermount3 failed with {status}")
    } else {
        said.to_owned()
    }
}

/// Root without the right to mount is nearly always root of a container.
fn may_not_mount() -> String {
    "neither this process nor fusermount3 may mount here (no CAP_SYS_ADMIN); start the container \
     with `--cap-add SYS_ADMIN --device /dev/fuse`, where AppArmor is in use also with \
     `--security-opt apparmor=unconfined`, or mount on the host and bind the mount into the \
     container"
        .into()
}

fn no_fusermount(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if rustix::process::geteuid().is_root() => may_not_mount(),
        io::ErrorKind::NotFound => {
            "fusermount3, with which users mount and unmount, is not on PATH; install the package \
             fuse3, or be root"
                .into()
        }
        _ => format!("fusermount3 cannot be run: {error}"),
    }
}

/// Unmounts what is seen at `point` (resolved), as root or through `fusermount3`.
pub fn unmount(point: &Path, manner: Manner) -> Result<(), UnmountError> {
    let flags = match manner {
        Manner::Unused => UnmountFlags::NOFOLLOW,
        Manner::Lazily => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(point, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(busy(point)),
        Err(Errno::PERM) => unmount_by_fusermount(point, manner),
        Err(e) => Err(UnmountError::System {
            point: point.to_owned(),
            reason: io::Error::from(e).to_string(),
        }),
    }
}

fn unmount_by_fusermount(point: &Path, manner: Manner) -> Result<(), UnmountError> {
    let system = |reason: String| UnmountError::System { point: point.to_owned(), reason };
    let table = mountinfo::read().unwrap_or_default();
    if let Some(owner) =
        mountinfo::top_at(&table, point).and_then(mountinfo::MountInfo::foreign_owner)
    {
        return Err(UnmountError::Foreign { point: point.to_owned(), owner });
    }
    let mut arguments = vec![OsStr::new("-u")];
    if manner == Manner::Lazily {
        arguments.push(OsStr::new("-z"));
    }
    arguments.extend([OsStr::new("--"), point.as_os_str()]);
    let (status, said) =
        run_bounded(fusermount(&arguments)).map_err(|e| system(no_fusermount(&e)))?;
    if status.success() {
        Ok(())
    } else if said.contains("busy") {
        Err(busy(point))
    } else {
        Err(system(said))
    }
}

fn busy(point: &Path) -> UnmountError {
    UnmountError::Busy { point: point.to_owned(), holders: holders::of(point) }
}

fn fusermount(arguments: &[&OsStr]) -> Command {
    let mut command = Command::new("fusermount3");
    // It makes a path of the source's name if a file of that name is in the working directory:
    // nobody can put one here.
    command.args(arguments).env("LC_ALL", "C").current_dir("/proc");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs a program that says at most a few lines, and returns its first line without the program's
/// name.
fn run_bounded(mut command: Command) -> io::Result<(ExitStatus, String)> {
    let mut child = command.spawn()?;
    // Closes the ends of pipes and sockets that belong to the child, so that their closing can be
    // seen.
    drop(command);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > FUSERMOUNT_LIMIT {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(5));
    };
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(4096).read_to_end(&mut said)?;
    }
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().next().unwrap_or_default().trim();
    let line = line.split_once(": ").map_or(line, |(_, rest)| rest);
    Ok((status, line.escape_debug().to_string()))
}

#[cfg(test)]
mod tests;
