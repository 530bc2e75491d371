//! Everything at once for minutes: readers, tags that move, a cache that is pruned, refreshes and
//! outages. No read gives a wrong byte, and no error comes but while the registry is away.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::support::hostile::Hostile;
use super::support::mount::{Mount, Options};
use super::support::pack::{self, noise};
use super::*;

const RELEASES: u64 = 12;
const READERS: u64 = 6;
/// The most that the mount may take meanwhile, in MiB.
const MOST: u64 = 256;

/// What happened.
#[derive(Default)]
struct Tally {
    reads: AtomicU64,
    wrong: AtomicU64,
    failed: AtomicU64,
    away: AtomicU64,
    first: Mutex<Option<String>>,
}

impl Tally {
    fn wrong(&self, of: &AtomicU64, what: String) {
        of.fetch_add(1, Ordering::Relaxed);
        self.first.lock().unwrap().get_or_insert(what);
    }
}

fn content(release: u64, version: u64) -> Vec<u8> {
    noise(release * 100 + version, 20_000 + 9_000 * release as usize)
}

fn publish(server: &Hostile, release: u64, version: u64) {
    let files = content(release, version);
    server.publish("net", &format!("1.0.{release}"), &pack::module(&[("main.tf", &files)]));
}

/// Commands against the mount and its registry, until `end`.
fn disturb(mount: &Mount, server: &Hostile, is_away: &AtomicBool, end: Instant) {
    let mut random = fastrand::Rng::with_seed(77);
    while Instant::now() < end {
        match random.u8(..10) {
            0..=3 => publish(server, random.u64(..RELEASES), random.u64(..2)),
            4..=5 => {
                let mut command = mount.command("refresh");
                command.arg(mount.path());
                run(command).unwrap();
            }
            6..=7 => {
                let mut command = mount.command("cache");
                command.args(["prune", "--cache-size", "200KiB", "--cache-dir"]);
                command.arg(mount.cache());
                // Content in use stays, which is more than that perhaps.
                let _ = finish(command);
            }
            8 => server.drop_connections(),
            _ => {
                is_away.store(true, Ordering::SeqCst);
                server.black_hole(true);
                thread::sleep(Duration::from_millis(1500));
                server.black_hole(false);
                // What waited ends, and what is remembered of the outage is forgotten.
                thread::sleep(Duration::from_millis(6000));
                is_away.store(false, Ordering::SeqCst);
            }
        }
        thread::sleep(Duration::from_millis(120));
    }
}

fn read(mount: &Mount, host: &str, seed: u64, is_away: &AtomicBool, end: Instant, tally: &Tally) {
    let mut random = fastrand::Rng::with_seed(seed);
    while Instant::now() < end {
        let release = random.u64(..RELEASES);
        let path = mount.join(format!("{host}/net/1.0.{release}/main.tf"));
        let away = is_away.load(Ordering::SeqCst);
        let outcome = fs::read(&path);
        let away = away || is_away.load(Ordering::SeqCst);
        tally.reads.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(bytes) if (0..2).any(|version| bytes == content(release, version)) => {}
            Ok(_) => tally.wrong(&tally.wrong, format!("wrong bytes of release {release}")),
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::TIMEDOUT | Errno::HOSTUNREACH) if away => {
                    tally.away.fetch_add(1, Ordering::Relaxed);
                }
                // A path may be looked up in one release and opened after it was refreshed.
                Some(Errno::STALE) => {}
                _ => tally.wrong(&tally.failed, format!("release {release}: {e}")),
            },
        }
    }
}

#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn under_everything_at_once_no_read_is_wrong() {
    let server = Hostile::start();
    (0..RELEASES).for_each(|release| publish(&server, release, 0));
    let time = Duration::from_secs(amount(600, 45));
    let options = Options::new()
        .args(["--plain-http", &server.host(), "--tag-ttl", "1s", "--deadline", "5s"])
        .args(["--cache-size", "1MiB"])
        .longer(2 * time);
    let Some(mount) = Mount::start(&[server.host()], options) else { return };
    let (tally, is_away, end) = (Tally::default(), AtomicBool::new(false), Instant::now() + time);
    let host = server.host();
    thread::scope(|scope| {
        for seed in 0..READERS {
            let (mount, host, is_away, tally) = (&mount, &host, &is_away, &tally);
            scope.spawn(move || read(mount, host, seed, is_away, end, tally));
        }
        disturb(&mount, &server, &is_away, end);
    });
    let status =
        fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10;
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (reads, wrong, failed) = (count(&tally.reads), count(&tally.wrong), count(&tally.failed));
    let first =
        tally.first.into_inner().unwrap().map_or(String::new(), |first| format!("; {first}"));
    let why = format!(
        "{} s, {} while the registry was away, {peak} MiB at most of {MOST}{first}",
        time.as_secs(),
        count(&tally.away),
    );
    let over = u64::from(peak > MOST);
    let held = reads - (wrong + failed + over).min(reads);
    Score { name: "reads under stress", tried: reads, held, goal: 20_000, why }.tell();
}
