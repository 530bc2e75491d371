//! What a reader can do to the log: however much fails, it stays small, and says what it leaves
//! out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::mount::{Mount, Options};
use crate::support::{layouts, pack, skip, wait_until};

const HOST: &str = "reg.example";
/// For how long a reader does its worst.
const FLOOD: Duration = Duration::from_secs(6);
/// The most bytes of the log after that, those of older ones included.
const MOST: u64 = 1 << 20;

/// How many repositories have more failing tags than sentences are remembered.
const MANY: usize = 100;
/// How many tags a repository has.
const TAGS: usize = 21;

/// A store of so many repositories, of which all tags stand for what is no archive.
fn store(repositories: usize) -> tempfile::TempDir {
    let store = tempfile::tempdir().unwrap();
    let artifact = pack::module_of(b"no archive".to_vec());
    let root = artifact.root();
    let entry = |tag: usize| {
        json!({"mediaType": root.media_type, "digest": root.digest().to_string(), "size": root.bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag.to_string()}})
    };
    let index = json!({"schemaVersion": 2, "manifests": (0..TAGS).map(entry).collect::<Vec<_>>()})
        .to_string();
    for number in 0..repositories {
        let dir = layouts::add(store.path(), HOST, &format!("net{number}"), "0", &artifact);
        fs::write(dir.join("index.json"), &index).unwrap();
    }
    store
}

/// A mount for everybody, where that can be had.
fn mounted(store: &Path, options: &[&str]) -> Option<Mount> {
    if !rustix::process::geteuid().is_root() {
        skip("only root lets others use a mount in any case");
        return None;
    }
    let options = Options::new().args(["--allow-other"]).args(options);
    Mount::start(&[format!("oci:{}", store.display())], options)
}

/// Another user, who looks at the tags of so many repositories in turn until it is stopped.
fn reader(mount: &Mount, repositories: usize) -> Child {
    const LOOP: &str = r#"
while :; do
    repository=0
    while [ $repository -lt "$2" ]; do
        tag=0
        while [ $tag -lt "$3" ]; do
            read x < "$1/net$repository:$tag/main.tf"
            tag=$((tag + 1))
        done
        repository=$((repository + 1))
    done
done"#;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", LOOP, "sh"]);
    command.arg(mount.join(HOST)).arg(repositories.to_string()).arg(TAGS.to_string());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv runs")
}

fn stopped(mut reader: Child) {
    assert!(reader.try_wait().unwrap().is_none(), "the reader ended early");
    reader.kill().unwrap();
    reader.wait().unwrap();
}

/// The log and the older ones beside it.
fn logs(mount: &Mount) -> Vec<PathBuf> {
    let dir = mount.path().parent().unwrap();
    let is_log = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("log");
    let mut logs: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(is_log).collect();
    logs.sort();
    logs
}

fn bytes(logs: &[PathBuf]) -> u64 {
    logs.iter().map(|log| fs::metadata(log).unwrap().len()).sum()
}

#[test]
fn a_few_failing_tags_in_turn_are_logged_once_in_a_while() {
    let store = store(1);
    let Some(mount) = mounted(store.path(), &[]) else { return };
    let reader = reader(&mount, 1);
    thread::sleep(FLOOD);
    stopped(reader);
    let log = mount.log();
    let lines = log.lines().filter(|line| line.contains("it is no zip archive")).count();
    assert!((21..=42).contains(&lines), "{lines} lines: {}", log.len());
}

#[test]
fn a_reader_cannot_fill_the_log_and_what_it_leaves_out_is_counted_and_said() {
    let store = store(MANY);
    let Some(mut mount) = mounted(store.path(), &[]) else { return };
    let readers = [(); 3].map(|()| reader(&mount, MANY));
    thread::sleep(FLOOD);
    readers.into_iter().for_each(stopped);
    let size = bytes(&logs(&mount));
    assert!(size <= MOST, "{size} bytes in {FLOOD:?}");
    assert!(size >= 32 << 10, "no flood: {size} bytes");
    assert!(mount.umount().status.success());
    let log = mount.log();
    let said: Vec<_> =
        log.lines().filter(|line| line.contains("lines were left out of the log")).collect();
    let count = |line: &&str| line.split("WARN ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    assert!(
        said.iter().map(|line| count(line).unwrap_or_else(|| panic!("{line}"))).sum::<u64>() > 0,
        "{log}"
    );
    assert!(said[0].contains("it is no zip archive"), "{}", said[0]);
    // What else is to be said had room.
    assert!(log.contains("the mount has ended"), "{:?}", log.lines().last());
}

#[test]
fn a_log_is_rotated_and_bounded_on_disk() {
    const LIMIT: u64 = 16 << 10;
    let store = store(MANY);
    let Some(mount) = mounted(store.path(), &["--log-max-size", "16KiB", "--log-keep", "2"]) else {
        return;
    };
    let reader = reader(&mount, MANY);
    let all = || logs(&mount).len() == 3;
    assert!(wait_until(Duration::from_secs(60), all), "{:?}", logs(&mount));
    thread::sleep(Duration::from_secs(2));
    stopped(reader);
    let logs = logs(&mount);
    assert_eq!(logs.len(), 3, "{logs:?}");
    for log in &logs {
        let length = fs::metadata(log).unwrap().len();
        assert!(length <= LIMIT, "{}: {length}", log.display());
    }
    // Panics and what else goes to standard error goes to the log that is there, too.
    let descriptor = format!("/proc/{}/fd/2", mount.pid().as_raw_nonzero());
    let current = mount.path().parent().unwrap().join("log");
    let is_current = || fs::read_link(&descriptor).unwrap() == current;
    assert!(wait_until(Duration::from_secs(10), is_current), "{:?}", fs::read_link(&descriptor));
}
