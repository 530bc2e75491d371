//! The power goes: a writable mount works on a disk that keeps a record, and every state that the
//! disk can be in at a random moment is mounted again.
//!
//! What was staged and synced is there; the cache may have lost anything, and shows no wrong byte;
//! the next mount and the next fetch work.

use std::path::PathBuf;

use super::disk::{Disk, Recorded, Replayed};
use super::support::hostile::Hostile;
use super::support::mount::{Mount, Options};
use super::support::pack::{self, noise};
use super::*;

const POINTS: u64 = 100;
const BYTES: usize = 48 << 20;

/// A file that was synced, when that was answered and when its commit began.
struct Synced {
    path: PathBuf,
    content: Vec<u8>,
    answered: usize,
    committed: Option<usize>,
}

struct Bed {
    mount: Mount,
    server: Hostile,
    state: PathBuf,
    releases: Vec<(String, Vec<u8>)>,
}

impl Bed {
    fn start() -> Option<Bed> {
        let server = Hostile::start();
        let mut releases = Vec::new();
        for number in 0..4 {
            let content = noise(number, 250_000);
            let package = pack::module(&[("main.tf", b"# sound\n"), ("large.bin", &content)]);
            server.publish("acme/net", &format!("1.0.{number}"), &package);
            releases.push((format!("1.0.{number}"), content));
        }
        let mut mount = Mount::start(&[server.host()], Options::new())?;
        assert!(mount.umount().status.success());
        let state = mount.path().with_file_name("state");
        Some(Bed { mount, server, state, releases })
    }

    fn options(&self) -> Options {
        Options::new()
            .args(["--plain-http", &self.server.host()])
            .cache(self.state.join("cache"))
            .longer(std::time::Duration::from_secs(600))
    }

    fn mounted(&mut self) -> Result<(), String> {
        let output = self.mount.again_with(&[self.server.host()], self.options());
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("mounting: {}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn umounted(&mut self) -> Result<(), String> {
        let output = self.mount.umount();
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("unmounting: {}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn large(&self, tag: &str) -> PathBuf {
        self.mount.join(format!("{}/acme/net/{tag}/large.bin", self.server.host()))
    }

    /// Reads releases, stages others, syncs their files and commits one.
    fn work(&mut self, disk: &Disk) -> Vec<Synced> {
        self.mounted().unwrap();
        let mut synced = Vec::new();
        for (number, (tag, content)) in self.releases.iter().enumerate() {
            right(&self.large(tag), content).unwrap();
            let release = format!("{}/acme/new/2.0.{number}", self.server.host());
            let dir = self.mount.join("staging").join(&release);
            fs::create_dir_all(&dir).unwrap();
            for file in 0..3 {
                let path = dir.join(format!("file{file}.tf"));
                let content = noise(100 + number as u64 * 10 + file, 30_000);
                fs::write(&path, &content).unwrap();
                let open = fs::File::open(&path).unwrap();
                open.sync_all().unwrap();
                for above in dir.ancestors().take(5) {
                    fs::File::open(above).unwrap().sync_all().unwrap();
                }
                synced.push(Synced { path, content, answered: disk.now(), committed: None });
            }
            if number % 2 == 1 {
                let begun = disk.now();
                fs::rename(&dir, self.mount.join(&release)).unwrap();
                for file in synced.iter_mut().filter(|f| f.path.starts_with(&dir)) {
                    file.committed = Some(begun);
                }
            }
        }
        self.umounted().unwrap();
        synced
    }

    /// What holds after the power went after `count` events.
    fn check(&mut self, count: usize, synced: &[Synced]) -> Result<(), String> {
        self.mounted()?;
        let outcome = self.looks_right(count, synced);
        self.umounted().and(outcome)?;
        let cache = self.state.join("cache");
        match damaged(&self.mount.home(), &cache)? {
            0 => Ok(()),
            number => Err(format!("{number} files of the cache are damaged")),
        }
    }

    fn looks_right(&self, count: usize, synced: &[Synced]) -> Result<(), String> {
        for file in synced.iter().filter(|f| f.answered <= count) {
            let may_be_gone = file.committed.is_some_and(|begun| begun <= count);
            if !may_be_gone || file.path.exists() {
                right(&file.path, &file.content)?;
            }
        }
        self.releases.iter().try_for_each(|(tag, content)| right(&self.large(tag), content))
    }
}

fn at(bed: &mut Bed, recorded: &Recorded, count: usize, seed: u64, synced: &[Synced]) -> Tried {
    let image = recorded.after(count, &mut fastrand::Rng::with_seed(seed));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, image).unwrap();
    let _disk = Replayed::mounted(file.path(), &bed.state.clone())?;
    bed.check(count, synced)
}

type Tried = Result<(), String>;

/// O16
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn after_a_power_loss_what_was_synced_is_there_and_the_cache_shows_no_wrong_byte() {
    let Some(mut bed) = Bed::start() else { return };
    let Some(disk) = Disk::mounted(BYTES, &bed.state.clone()) else { return };
    let synced = bed.work(&disk);
    let recorded = disk.end();
    let mut random = fastrand::Rng::with_seed(16);
    let mut tries = Tries::default();
    for _ in 0..amount(POINTS, 30) {
        let (count, seed) = (random.usize(1..=recorded.len()), random.u64(..));
        let outcome = at(&mut bed, &recorded, count, seed, &synced);
        tries.count(outcome.map_err(|e| format!("after {count} events, seed {seed}: {e}")));
    }
    let figures = format!("of {} writes and syncs of one disk", recorded.len());
    tries.score("power losses", POINTS, figures).tell();
}
