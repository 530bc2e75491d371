//! Random operations on staging and on a plain directory, which is the model: every answer is the
//! same, and so is every tree. The sequence is the same at each run; `TOFUFS_EXERCISE` is how many
//! operations it has.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use rustix::fs::{FallocateFlags, RenameFlags};

use super::mapped::Mapped;
use super::{Bed, names};
use crate::support::mount::Options;

/// Where writes begin at the latest, and how long a file that is cut or made longer is at most.
const FAR: u64 = 300_000;
/// How much is written at once at most.
const LONG: usize = 20_000;
/// How many files are open at once at most.
const OPEN: usize = 12;
/// After so many operations the trees are compared as a whole.
const ROUND: usize = 1000;

struct Exerciser {
    rng: Rng,
    /// Staging and the model.
    roots: [PathBuf; 2],
    open: Vec<[File; 2]>,
    /// What is done at this moment, for who reads of a difference.
    doing: String,
}

/// What can be compared of an outcome: the value, or the system's error number.
fn outcome<T>(result: io::Result<T>) -> Result<T, Option<i32>> {
    result.map_err(|e| e.raw_os_error())
}

impl Exerciser {
    fn chance(&mut self, of: u32) -> bool {
        self.rng.u32(..of) == 0
    }

    /// A path of few possible ones, so that operations meet.
    fn path(&mut self) -> PathBuf {
        let depth = self.rng.usize(1..=3);
        (0..depth).map(|_| ["a", "b", "c", "d", "e"][self.rng.usize(..5)]).collect()
    }

    fn data(&mut self) -> Vec<u8> {
        let length = self.rng.usize(1..LONG);
        let byte = self.rng.u8(1..);
        (0..length).map(|at| byte.wrapping_add(at as u8)).collect()
    }

    fn same<T: PartialEq + Debug>(&self, outcomes: [io::Result<T>; 2]) {
        let [real, model] = outcomes.map(outcome);
        assert!(real == model, "{}: staging says {real:?}, the model {model:?}", self.doing);
    }

    /// Does the same to a path in both.
    fn at<T: PartialEq + Debug>(
        &mut self,
        what: &str,
        path: &Path,
        call: impl Fn(&Path) -> io::Result<T>,
    ) {
        self.doing = format!("{what} {}", path.display());
        let outcomes = self.roots.each_ref().map(|root| call(&root.join(path)));
        self.same(outcomes);
    }

    /// Does the same to an open file in both.
    fn on<T: PartialEq + Debug>(&mut self, what: &str, call: impl Fn(&File) -> io::Result<T>) {
        if self.open.is_empty() {
            return;
        }
        let number = self.rng.usize(..self.open.len());
        self.doing = format!("{what} of open file {number}");
        let outcomes = self.open[number].each_ref().map(call);
        self.same(outcomes);
    }

    fn open(&mut self) {
        let path = self.path();
        let (create, new, cut) = (self.chance(2), self.chance(8), self.chance(8));
        let append = !cut && self.chance(6);
        self.doing = format!(
            "opening {} create {create} new {new} cut {cut} append {append}",
            path.display()
        );
        let files = self.roots.each_ref().map(|root| {
            let mut how = OpenOptions::new();
            how.read(true).write(true).create(create).create_new(new).truncate(cut).append(append);
            how.open(root.join(&path))
        });
        match files {
            [Ok(real), Ok(model)] => self.open.push([real, model]),
            others => self.same(others.map(|file| file.map(drop))),
        }
        if self.open.len() > OPEN {
            let closed = self.rng.usize(..self.open.len());
            self.open.swap_remove(closed);
        }
    }

    fn rename(&mut self) {
        let (from, to) = (self.path(), self.path());
        let flags = match self.rng.u32(..6) {
            0 => RenameFlags::NOREPLACE,
            1 => RenameFlags::EXCHANGE,
            _ => RenameFlags::empty(),
        };
        self.doing = format!("renaming {} to {} with {flags:?}", from.display(), to.display());
        let outcomes = self.roots.each_ref().map(|root| {
            let cwd = rustix::fs::CWD;
            Ok(rustix::fs::renameat_with(cwd, root.join(&from), cwd, root.join(&to), flags)?)
        });
        self.same(outcomes);
    }

    fn step(&mut self) {
        let (path, data, at) = (self.path(), self.data(), self.rng.u64(..FAR));
        match self.rng.u32(..24) {
            0..=3 => self.open(),
            4..=7 => self.on("writing", |file| file.write_at(&data, at)),
            8 | 9 => self.on("reading", |file| {
                let mut buf = vec![0; data.len()];
                let length = file.read_at(&mut buf, at)?;
                buf.truncate(length);
                Ok(buf)
            }),
            10 => self.on("cutting", |file| file.set_len(at)),
            11 | 12 => self.on("mapping", |file| map(file, at, &data)),
            13 => self
                .on("syncing", |file| if at % 2 == 0 { file.sync_all() } else { file.sync_data() }),
            14 => self.on("punching", |file| {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(rustix::fs::fallocate(file, mode, at, data.len() as u64)?)
            }),
            15 => self
                .on("attributes", |file| file.metadata().map(|m| (m.len(), m.mode(), m.nlink()))),
            16 | 17 => self.rename(),
            18 => self.at("removing", &path, |path| fs::remove_file(path)),
            19 => self.at("making directory", &path, |path| fs::create_dir(path)),
            20 => self.at("removing directory", &path, |path| fs::remove_dir(path)),
            21 => self.at("linking", &path, |path| symlink("a/b", path)),
            22 => self.at("setting the mode of", &path, |path| {
                // Root passes through every directory; for others one that is closed is an error.
                let (least, range) = if rustix::process::geteuid().is_root() {
                    (0o600, 0o200)
                } else {
                    (0o700, 0o100)
                };
                fs::set_permissions(path, Permissions::from_mode(least + (at % range) as u32))
            }),
            _ => self.at("writing all of", &path, |path| fs::write(path, &data)),
        }
    }

    fn compare(&mut self, below: &Path) {
        let dirs = self.roots.each_ref().map(|root| root.join(below));
        let [real, model] = dirs.each_ref().map(|dir| names(dir));
        assert_eq!(real, model, "names in {}", below.display());
        for name in real {
            let path = below.join(name);
            self.doing = format!("comparing {}", path.display());
            let seen = self.roots.each_ref().map(|root| {
                let at = root.join(&path);
                let metadata = fs::symlink_metadata(&at)?;
                let content = match metadata.file_type() {
                    kind if kind.is_file() => fs::read(&at)?,
                    kind if kind.is_symlink() => {
                        fs::read_link(&at)?.into_os_string().into_encoded_bytes()
                    }
                    _ => Vec::new(),
                };
                let size = if metadata.is_dir() { 0 } else { metadata.len() };
                Ok((metadata.mode(), size, blake(&content)))
            });
            self.same(seen);
            let path_here = self.roots[0].join(&path);
            if fs::symlink_metadata(path_here).unwrap().is_dir() {
                self.compare(&path);
            }
        }
    }
}

/// A name for content that is short in a message.
fn blake(content: &[u8]) -> String {
    tofufs::digest::Digest::of(content).to_string()
}

/// Changes bytes of a file through a mapping, as far as the file goes.
fn map(file: &File, at: u64, data: &[u8]) -> io::Result<()> {
    let length = file.metadata()?.len();
    if at >= length {
        return Ok(());
    }
    let mut mapped = Mapped::new(file, length as usize);
    let at = at as usize;
    let end = mapped.bytes().len().min(at + data.len());
    mapped.bytes()[at..end].copy_from_slice(&data[..end - at]);
    if at.is_multiple_of(3) {
        mapped.sync();
    }
    Ok(())
}

/// O36
#[test]
fn staging_and_a_plain_directory_do_not_differ() {
    let operations: usize =
        std::env::var("TOFUFS_EXERCISE").map_or(4000, |n| n.parse().expect("a number"));
    let longer = Duration::from_secs(operations as u64 / 100);
    let Some(bed) = Bed::start(Options::new().longer(longer)) else { return };
    let model = tempfile::tempdir().unwrap();
    let roots = [bed.dir("x"), model.path().to_owned()];
    let mut exerciser =
        Exerciser { rng: Rng::with_seed(36), roots, open: Vec::new(), doing: String::new() };
    for n in 1..=operations {
        exerciser.step();
        if n % ROUND == 0 {
            exerciser.compare(Path::new(""));
        }
    }
    exerciser.compare(Path::new(""));
    eprintln!("{operations} operations, no difference");
}
