//! The daemon is killed at any moment.

use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::process::{Signal, kill_process};

use super::support::hostile::Behaviour;
use super::*;

const KILLS: u64 = 100;
const PACKAGES: u64 = 10;
const SIZE: usize = 2 << 20;

/// What of a file could be read before reading failed.
fn read_what_comes(path: &Path, into: &mut Vec<u8>) -> std::io::Result<()> {
    let mut file = fs::File::open(path)?;
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            n => into.extend_from_slice(&piece[..n]),
        }
    }
}

/// Whether the mount says that its daemon is gone. While the kernel tears the connection down it
/// says ECONNABORTED.
fn is_dead(path: &Path) -> bool {
    support::wait_until(PATIENCE, || errno_of(fs::metadata(path).err()) == Some(Errno::NOTCONN))
}

/// O12, O18: a hundred times, at random moments of cold reads.
#[test]
fn a_daemon_killed_at_any_moment_leaves_no_wrong_byte_and_a_place_to_mount_again() {
    let server = Hostile::start();
    let contents: Vec<_> = (0..PACKAGES).map(|n| noise(100 + n, SIZE)).collect();
    for (n, content) in contents.iter().enumerate() {
        server.publish(&format!("net{n}"), "1.0.0", &module(content));
    }
    server.rule(
        |seen| seen.path.contains("/blobs/"),
        Behaviour::Slow { piece: 1 << 17, pause: Duration::from_millis(4) },
    );
    let Some(mut bed) = Bed::over(&[&server], &["--deadline", "10s"]) else { return };
    let seed = 0x5eed_0012;
    let random = noise(seed, 8 * KILLS as usize);
    let (mut at, mut cut_short) = (0, 0);
    for round in 0..KILLS as usize {
        let content = &contents[at];
        let file = bed.path(&format!("{}/net{at}:1.0.0", server.host())).join("main.tf");
        let pid = bed.mount.pid();
        let pause = u64::from(u16::from_le_bytes([random[8 * round], random[8 * round + 1]])) % 90;
        let received = AtomicU64::new(0);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut bytes = Vec::new();
                let outcome = read_what_comes(&file, &mut bytes);
                received.store(bytes.len() as u64, Ordering::Relaxed);
                assert!(
                    content.starts_with(&bytes),
                    "round {round} (seed {seed:#x}): a wrong byte"
                );
                outcome
            });
            thread::sleep(Duration::from_millis(pause));
            kill_process(pid, Signal::KILL).unwrap();
            match reader.join().unwrap() {
                Ok(()) => {
                    assert_eq!(
                        received.load(Ordering::Relaxed),
                        content.len() as u64,
                        "round {round}: a short file"
                    );
                    at = (at + 1) % contents.len();
                }
                Err(_) => cut_short += 1,
            }
        });
        bed.mount.kill();
        assert!(is_dead(bed.mount.path()), "round {round}");
        if at == 0 && cut_short > 0 {
            // All is warm: the next rounds shall be cold again.
            let _ = fs::remove_dir_all(bed.mount.cache().join("v1/blobs"));
        }
        let mounted = bed.mount.again();
        assert!(mounted.status.success(), "round {round}: {mounted:?}");
    }
    for (n, content) in contents.iter().enumerate() {
        assert!(bed.main_tf(&format!("{}/net{n}:1.0.0", server.host())) == *content, "package {n}");
    }
    let resumed = server.requests().iter().filter(|s| s.header("range").is_some()).count();
    println!("{KILLS} kills: {cut_short} while a reader waited, {resumed} downloads gone on with");
    assert!(cut_short > 20, "{cut_short} kills met a reader that waited");
    assert!(resumed > 0, "what had arrived was found");
    bed.cache_is_sound();
    let left = fs::read_dir(bed.mount.cache().join("v1/tmp")).unwrap().count();
    assert!(left <= contents.len(), "{left} files in tmp");
}

/// O18
#[test]
fn users_of_a_dead_mount_are_told_and_the_next_mount_goes_over_it() {
    let server = Hostile::start();
    let content = noise(1, 600_000);
    server.publish("net", "1.0.0", &module(&content));
    let Some(mut bed) = Bed::over(&[&server], &[]) else { return };
    let reference = format!("{}/net:1.0.0", server.host());
    let file = bed.path(&reference).join("main.tf");
    let held = fs::File::open(&file).unwrap();
    let inside = fs::File::open(bed.path(&reference)).unwrap();
    bed.mount.kill();
    assert!(is_dead(&file) && is_dead(bed.mount.path()));
    let mut bytes = Vec::new();
    let outcome = (&held).read_to_end(&mut bytes);
    assert!(
        content.starts_with(&bytes) && (outcome.is_err() || bytes == content),
        "the page cache at most"
    );
    let mounted = bed.mount.again();
    assert!(mounted.status.success(), "{mounted:?}");
    assert_eq!(fs::read(&file).unwrap(), content);
    assert_eq!(bed.mount.requests().1, 0, "what was verified is still there");
    drop((held, inside));
}
