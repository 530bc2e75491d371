//! `tofufs mount`: in the foreground, or by a process of its own in the background.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;

use super::access::{self, ClientConfiguration};
use super::args::LogArgs;
use super::args::mount::MountArgs;
use super::directories::DirectoryEnvironment;
use super::handover::MountStart;
use super::log::{self, LogFile, LogWriter, Rotation};
use super::output::{self, CommandError};
use super::settings::MountSettings;
use super::takeover::Takeover;
use super::{background, daemon, notify, state};

/// Mounts. `words` are those of the command line, so that the background process gets the same.
pub fn run(args: &MountArgs, words: &[OsString]) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let settings = MountSettings::new(args, &environment).map_err(CommandError::usage)?;
    access::check(&settings.network)?;
    if args.background || args.foreground {
        let takeover = args.take_over.then(Takeover::of_stdin).transpose()?;
        let file = state::log_of(&settings)?;
        let log = log(args, file.as_deref(), settings.in_background)?;
        let start = MountStart {
            program: env::current_exe().map_err(|e| {
                CommandError::Failed(format!("the path of this program cannot be found: {e}"))
            })?,
            words: words.to_vec(),
            base: environment.base,
        };
        let served = serve(&settings, start, takeover, &log);
        log.flush();
        return served;
    }
    if settings.mapping.is_none() {
        // It says what is misplaced on this standard error; the process in the background has
        // another. What is wrong with it is told by that process.
        let _ = ClientConfiguration::new(settings.network.tofurc.clone()).tofurc();
    }
    let log = state::background_log(&settings)?;
    let ailing = background::start(words, open_log(&log)?)?;
    ailing.iter().for_each(|sentence| output::note(sentence));
    if args.network.reach.verbose > 0 {
        output::text(format!("the log is {}\n", output::printable(&log.to_string_lossy())))?;
    }
    Ok(())
}

fn serve(
    settings: &MountSettings,
    start: MountStart,
    takeover: Option<Takeover>,
    log: &LogWriter,
) -> Result<(), CommandError> {
    let is_told = settings.in_background || takeover.is_some();
    let daemon = daemon::Daemon { settings, start, takeover, log };
    if !is_told {
        // Standard error is the log, if that is not a file, and has said it already.
        let is_said = settings.log_file.is_none();
        return daemon.serve(|ailing| {
            ailing.iter().filter(|_| !is_said).for_each(|source| output::note(&source.to_string()));
            notify::ready();
            Ok(())
        });
    }
    let mut ready = false;
    let served = daemon.serve(|ailing| {
        background::tell_ready(ailing)
            .map_err(|_| CommandError::failed("who asked for the mount is gone"))?;
        ready = true;
        Ok(())
    });
    if let Err(error) = &served {
        if ready { tracing::error!("{error}") } else { background::tell_failed(error) }
    }
    if ready && !settings.in_background {
        return served;
    }
    // The one line about a failure is printed by who started this process.
    served.or(Ok(()))
}

fn open_log(file: &Path) -> Result<File, CommandError> {
    log::open(file).map_err(|e| not_written(file, &e))
}

fn not_written(file: &Path, error: &io::Error) -> CommandError {
    CommandError::Failed(format!("cannot write to the log {}: {error}", file.display()))
}

/// The log: in `file`, else on standard error, which is the same file `in_background`.
fn log(
    args: &MountArgs,
    file: Option<&Path>,
    in_background: bool,
) -> Result<LogWriter, CommandError> {
    let LogArgs { log_max_size, log_keep, log_format, .. } = args.log;
    let rotation = Rotation { max_size: log_max_size.0, keep: log_keep };
    let log = match file {
        Some(path) => {
            let file =
                LogFile::open(path, rotation, in_background).map_err(|e| not_written(path, &e))?;
            LogWriter::to(file, log_format)
        }
        None => LogWriter::to(io::stderr(), log_format),
    };
    log.install(args.network.reach.verbose);
    Ok(log)
}
