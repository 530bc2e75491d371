//! Readers that are killed while they wait for a registry that never answers.

use std::process::Child;
use std::time::{Duration, Instant};

use super::support::hostile::{Behaviour, Hostile};
use super::support::mount::{Mount, Options};
use super::support::{pack, wait_until};
use super::*;

const READERS: u64 = 200;
/// Within this time a killed reader is gone.
const LIMIT: Duration = Duration::from_secs(1);

/// How long killed readers take to be gone that read what `file` names for each; all are killed at
/// once. `None` for one that did not wait.
fn gone(mount: &Mount, file: impl Fn(u64) -> String) -> Vec<Option<Duration>> {
    let cat = |number| {
        let mut cat = Command::new("cat");
        cat.arg(mount.join(file(number)));
        cat.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut readers: Vec<Child> = (0..READERS / 2).map(cat).collect();
    std::thread::sleep(Duration::from_secs(2));
    let waits: Vec<bool> = readers.iter_mut().map(|r| r.try_wait().unwrap().is_none()).collect();
    let killed = Instant::now();
    readers.iter_mut().for_each(|reader| reader.kill().unwrap());
    let mut took = vec![None; readers.len()];
    wait_until(Duration::from_secs(60), || {
        for (reader, took) in readers.iter_mut().zip(&mut took) {
            if took.is_none() && reader.try_wait().unwrap().is_some() {
                *took = Some(killed.elapsed());
            }
        }
        took.iter().all(Option::is_some)
    });
    let late = killed.elapsed();
    let took = took.into_iter().map(|took| took.unwrap_or(late));
    took.zip(waits).map(|(took, waits)| waits.then_some(took)).collect()
}

/// O30: readers of one file, whose lookups the kernel makes one of, and readers of files of their
/// own.
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn readers_that_are_killed_while_they_wait_are_gone() {
    let server = Hostile::start();
    for number in 0..READERS / 2 {
        let package = pack::module(&[("main.tf", format!("# {number}").as_bytes())]);
        server.publish(&format!("net{number}"), "1.0.0", &package);
    }
    server.rule(|seen| seen.path.contains("/blobs/"), Behaviour::Silence);
    let options = Options::new().args(["--plain-http", &server.host(), "--deadline", "100s"]);
    let Some(mount) = Mount::start(&[server.host()], options) else { return };
    let host = server.host();
    let one = gone(&mount, |_| format!("{host}/net0:1.0.0/main.tf"));
    let own = gone(&mount, |number| format!("{host}/net{number}:1.0.0/main.tf"));
    let (mut tries, mut slowest) = (Tries::default(), Duration::ZERO);
    for took in one.into_iter().chain(own) {
        slowest = slowest.max(took.unwrap_or_default());
        tries.count(match took {
            None => Err("a reader did not wait".to_owned()),
            Some(took) if took < LIMIT => Ok(()),
            Some(took) => Err(format!("a reader was gone after {took:?}")),
        });
    }
    let figures = format!("the slowest was gone after {} ms", slowest.as_millis());
    tries.score("killed readers, gone within 1 s", READERS, figures).tell();
}
