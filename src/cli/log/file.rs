//! A log in a file. It is rotated where it gets too long: the file becomes `FILE.1`, that `FILE.2`,
//! and so on. Others may rotate it too: who moves it has it opened again, and who empties it finds
//! the next line at its beginning.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// When a log is rotated, and what stays of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// The most bytes of a file; 0 if it is rotated by others alone.
    pub max_size: u64,
    /// How many older files stay.
    pub keep: u32,
}

/// Opens a log file for appending; only its owner may read a new one.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// A log file that is open.
pub struct LogFile {
    path: PathBuf,
    file: File,
    rotation: Rotation,
    /// Whether the process's standard error goes to the file.
    is_stderr: bool,
    /// Where rotating failed, it is tried again when the file has this length.
    again_at: u64,
}

impl LogFile {
    /// Opens the log at `path`.
    pub fn open(path: &Path, rotation: Rotation, is_stderr: bool) -> io::Result<LogFile> {
        let file = open(path)?;
        Ok(LogFile { path: path.to_owned(), file, rotation, is_stderr, again_at: 0 })
    }

    /// Goes on in the file that has the log's name now; one is made where it is missing.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let file = open(&self.path)?;
        if self.is_stderr {
            rustix::stdio::dup2_stderr(&file)?;
        }
        self.file = file;
        self.again_at = 0;
        Ok(())
    }

    /// Rotates where `bytes` more would make the file too long.
    pub(super) fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        if self.fits(bytes)? {
            return Ok(());
        }
        if !self.is_in_place()? {
            self.reopen()?;
            if self.fits(bytes)? {
                return Ok(());
            }
        }
        self.again_at = self.file.metadata()?.len().saturating_add(self.rotation.max_size);
        self.shift()?;
        self.reopen()
    }

    /// Whether `bytes` more are let into the file as it is.
    fn fits(&self, bytes: usize) -> io::Result<bool> {
        let stat = self.file.metadata()?;
        let most = self.rotation.max_size.max(self.again_at);
        let fits = stat.len() == 0 || stat.len().saturating_add(bytes as u64) <= most;
        Ok(fits || self.rotation.max_size == 0 || !stat.is_file())
    }

    /// Whether the file still has the log's name: another process that logs to it may have rotated
    /// it.
    fn is_in_place(&self) -> io::Result<bool> {
        let stat = self.file.metadata()?;
        Ok(fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (stat.dev(), stat.ino())))
    }

    /// Gives each file the name of the next older one. What is too old is gone.
    fn shift(&self) -> io::Result<()> {
        let Some(last) = self.rotation.keep.checked_sub(1) else {
            return fs::remove_file(&self.path);
        };
        for number in (0..=last).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        match number {
            0 => self.path.clone(),
            _ => {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{number}"));
                name.into()
            }
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bed {
        dir: tempfile::TempDir,
    }

    impl Bed {
        fn new() -> Bed {
            Bed { dir: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn log(&self, max_size: u64, keep: u32) -> LogFile {
            LogFile::open(&self.path("log"), Rotation { max_size, keep }, false).unwrap()
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap_or_else(|e| format!("{e:?}"))
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.dir.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn say(log: &mut LogFile, line: &str) {
        log.make_room(line.len()).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn a_log_that_is_too_long_is_rotated_and_so_many_older_ones_stay() {
        let bed = Bed::new();
        let mut log = bed.log(10, 2);
        for line in ["one 456789", "two 45678\n", "three 678\n", "four 5678\n", "five\n", "six\n"] {
            say(&mut log, line);
        }
        assert_eq!(bed.names(), ["log", "log.1", "log.2"]);
        assert_eq!(
            (bed.text("log"), bed.text("log.1")),
            ("five\nsix\n".into(), "four 5678\n".into())
        );
        assert_eq!(bed.text("log.2"), "three 678\n");
    }

    #[test]
    fn without_older_logs_it_begins_anew_and_without_a_limit_it_grows() {
        let bed = Bed::new();
        let mut log = bed.log(10, 0);
        say(&mut log, "one 456789");
        say(&mut log, "two");
        assert_eq!((bed.names(), bed.text("log")), (vec!["log".to_owned()], "two".to_owned()));
        let mut log = bed.log(0, 3);
        say(&mut log, &"x".repeat(100));
        say(&mut log, "y");
        assert_eq!((bed.names().len(), bed.text("log").len()), (1, 104));
    }

    #[test]
    fn a_line_that_is_longer_than_a_log_is_written_whole() {
        let bed = Bed::new();
        let mut log = bed.log(10, 1);
        say(&mut log, &"x".repeat(100));
        say(&mut log, "y");
        assert_eq!((bed.text("log.1").len(), bed.text("log").len()), (100, 1));
    }

    /// As logrotate does it, with and without `copytruncate`.
    #[test]
    fn a_log_that_others_move_or_empty_goes_on() {
        let bed = Bed::new();
        let mut log = bed.log(1 << 20, 3);
        say(&mut log, "one\n");
        fs::rename(bed.path("log"), bed.path("old")).unwrap();
        say(&mut log, "two\n");
        log.reopen().unwrap();
        say(&mut log, "three\n");
        assert_eq!((bed.text("old"), bed.text("log")), ("one\ntwo\n".into(), "three\n".into()));
        File::options().write(true).open(bed.path("log")).unwrap().set_len(0).unwrap();
        say(&mut log, "four\n");
        assert_eq!(bed.text("log"), "four\n");
    }

    #[test]
    fn two_that_log_to_one_file_rotate_it_once() {
        let bed = Bed::new();
        let (mut one, mut other) = (bed.log(10, 3), bed.log(10, 3));
        say(&mut one, "one 456789");
        say(&mut other, "other\n");
        say(&mut one, "two\n");
        assert_eq!(
            (bed.names(), bed.text("log")),
            (vec!["log".into(), "log.1".into()], "other\ntwo\n".into())
        );
        say(&mut other, "three\n");
        // The file that has the name now is too long as well.
        say(&mut one, "four 6789\n");
        assert_eq!(bed.text("log.1"), "three\n");
        assert_eq!((bed.names().len(), bed.text("log")), (4, "four 6789\n".into()));
    }

    #[test]
    fn a_log_that_cannot_be_rotated_goes_on_and_is_tried_again_later() {
        let bed = Bed::new();
        let mut log = bed.log(10, 1);
        say(&mut log, "one 456789");
        // A directory that holds something is not replaced.
        fs::create_dir_all(bed.path("log.1/x")).unwrap();
        assert!(log.make_room(5).is_err());
        log.write_all(b"two\n").unwrap();
        say(&mut log, "three\n");
        assert_eq!(bed.text("log"), "one 456789two\nthree\n");
        assert!(log.make_room(5).is_err());
    }
}
