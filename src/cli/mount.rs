//! `tofufs mount`: in the foreground, or by a process of its own in the background.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::access::{self, ClientConfiguration};
use super::args::{LogArgs, MountArgs};
use super::control::{private_dir, stem};
use super::log::{self, LogFile, LogWriter, Rotation};
use super::output::{self, CommandError};
use super::settings::{DirectoryEnvironment, MountSettings};
use super::{background, daemon, notify};

/// How long another process may take to mount at the same place.
const TURN: Duration = Duration::from_secs(5);

/// Mounts. `words` are those of the command line, so that the background process gets the same.
pub fn run(args: &MountArgs, words: &[OsString]) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let settings = MountSettings::new(args, &environment).map_err(CommandError::usage)?;
    access::check(&settings.network)?;
    if args.background || args.foreground {
        let file = log_file(&settings)?;
        let log = start_log(&args.log, file.as_deref(), settings.in_background)?;
        let served = serve(&settings, file.as_ref().map(|_| &log));
        log.flush();
        return served;
    }
    if settings.mapping.is_none() {
        // It says what is misplaced on this standard error; the process in the background has
        // another. What is wrong with it is told by that process.
        let _ = ClientConfiguration::new(settings.network.tofurc.clone()).tofurc();
    }
    let log = background_log(&settings)?;
    let ailing = background::start(words, open_log(&log)?)?;
    ailing.iter().for_each(|sentence| output::note(sentence));
    if args.log.verbose > 0 {
        output::text(format!("the log is {}\n", output::printable(&log.to_string_lossy())))?;
    }
    Ok(())
}

fn serve(settings: &MountSettings, log_file: Option<&LogWriter>) -> Result<(), CommandError> {
    if !settings.in_background {
        // Standard error is the log, if that is not a file, and has said it already.
        let is_said = settings.log_file.is_none();
        return daemon::serve(settings, log_file, |ailing| {
            ailing.iter().filter(|_| !is_said).for_each(|source| output::note(&source.to_string()));
            notify::ready();
            Ok(())
        });
    }
    let mut ready = false;
    let served = daemon::serve(settings, log_file, |ailing| {
        background::tell_ready(ailing)
            .map_err(|_| CommandError::failed("who asked for the mount is gone"))?;
        ready = true;
        Ok(())
    });
    if let Err(error) = &served {
        match ready {
            true => tracing::error!("{error}"),
            false => background::tell_failed(error),
        }
    }
    // The one line about a failure is printed by who started this process.
    served.or(Ok(()))
}

/// Where a mount logs to, if that is a file.
pub fn log_of(settings: &MountSettings) -> Result<Option<PathBuf>, CommandError> {
    if settings.in_background {
        background_log(settings).map(Some)
    } else {
        Ok(settings.log_file.clone())
    }
}

fn open_log(file: &Path) -> Result<File, CommandError> {
    log::open(file).map_err(|e| not_written(file, &e))
}

fn not_written(file: &Path, error: &io::Error) -> CommandError {
    CommandError::Failed(format!("cannot write to the log {}: {error}", file.display()))
}

/// Where this process logs to, where that is a file.
fn log_file(settings: &MountSettings) -> Result<Option<PathBuf>, CommandError> {
    match settings.in_background {
        true => background_log(settings).map(Some),
        false => Ok(settings.log_file.clone()),
    }
}

/// Starts the log: in `file`, else on standard error, which is the same file `in_background`.
fn start_log(
    args: &LogArgs,
    file: Option<&Path>,
    in_background: bool,
) -> Result<LogWriter, CommandError> {
    let rotation = Rotation { max_size: args.log_max_size.0, keep: args.log_keep };
    let log = match file {
        Some(path) => {
            let file =
                LogFile::open(path, rotation, in_background).map_err(|e| not_written(path, &e))?;
            LogWriter::to(file, args.log_format)
        }
        None => LogWriter::to(io::stderr(), args.log_format),
    };
    let log = log.map_err(|e| CommandError::failed(format!("cannot start the log: {e}")))?;
    log.install(args.verbose);
    Ok(log)
}

/// Where a mount in the background logs to: one file per mount point, that outlives the mount.
fn background_log(settings: &MountSettings) -> Result<PathBuf, CommandError> {
    match &settings.log_file {
        Some(file) => Ok(file.clone()),
        None => {
            let dir = state(settings, "log")?;
            Ok(dir.join(format!("{}.log", stem(&settings.mountpoint))))
        }
    }
}

/// A directory of the state, made if it is missing.
pub fn state(settings: &MountSettings, name: &str) -> Result<PathBuf, CommandError> {
    let dir = settings.state_dir.join(name);
    private_dir(&settings.state_dir).and_then(|()| private_dir(&dir)).map_err(no_state)?;
    Ok(dir)
}

/// The directory of the state that belongs to the mounts at this mount point: it outlives them.
pub fn own_state(settings: &MountSettings) -> Result<PathBuf, CommandError> {
    let dir = state(settings, "mounts")?.join(stem(&settings.mountpoint));
    private_dir(&dir).map_err(no_state)?;
    Ok(dir)
}

fn no_state(error: io::Error) -> CommandError {
    CommandError::Failed(format!(
        "the state directory cannot be used: {error}; give another --state-dir"
    ))
}

/// Keeps other processes from mounting at the same place until it is dropped. Afterwards the mount
/// table does.
pub fn turn(settings: &MountSettings) -> Result<File, CommandError> {
    let path = state(settings, "lock")?.join(format!("{}.lock", stem(&settings.mountpoint)));
    let failed =
        |e: io::Error| CommandError::Failed(format!("cannot lock {}: {e}", path.display()));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let mut left = TURN;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if left.is_zero() => {
                let point = settings.mountpoint.display();
                return Err(CommandError::Failed(format!(
                    "another tofufs is mounting at {point} right now"
                )));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pause = Duration::from_millis(50);
                thread::sleep(pause);
                left = left.saturating_sub(pause);
            }
            Err(e) => return Err(failed(e.into())),
        }
    }
}
