//! How many requests of the kernel the programs cost with which people put files somewhere: counts,
//! whatever the time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Bed;
use crate::support::mount::{Options, finish};
use crate::support::{skip, wait_until};

const FILES: usize = 60;
const DIRECTORIES: usize = 4;
/// What a program asks once, whatever it copies.
const ONCE: usize = 12;

/// A mount whose log holds a line for each request.
struct Counted {
    bed: Bed,
    asked: usize,
}

impl Counted {
    fn start() -> Option<Counted> {
        Some(Counted { bed: Bed::start(Options::new().args(["-vv"]))?, asked: 0 })
    }

    /// What the kernel has asked so far. A name that is asked for at the end tells that nothing
    /// before it is missing; a file's release, which nobody waits for, and what the kernel forgets
    /// may come later.
    fn log(&mut self) -> String {
        self.asked += 1;
        let last = format!("end-of-count-{}", self.asked);
        assert!(!self.bed.mount.join(&last).exists());
        assert!(wait_until(Duration::from_secs(20), || self.bed.mount.log().contains(&last)));
        self.bed.mount.log()
    }

    /// The requests, by kind, for which `program` is the cause.
    fn of(&mut self, program: &str, arguments: &[&str], dir: &Path) -> BTreeMap<String, usize> {
        let before = self.log().len();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(dir).env("LC_ALL", "C");
        let output = finish(command);
        assert!(output.status.success(), "{program}: {output:?}");
        let log = self.log().split_off(before);
        assert!(!log.contains("lines of the log were lost"));
        let mut counts = BTreeMap::new();
        for line in log.lines().filter(|line| !line.contains("end-of-count")) {
            let mut words = line.split(" ino 0x").nth(1).unwrap_or_default().split(' ').skip(1);
            if let Some(kind) =
                words.next().filter(|kind| !["RELEASE", "FORGET", "BATCHFORGET"].contains(kind))
            {
                *counts.entry(kind.to_owned()).or_default() += 1;
            }
        }
        counts
    }
}

/// A module of small files.
fn source() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..FILES {
        let inner = dir.path().join(format!("d{}", n % DIRECTORIES));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join(format!("f{n}.tf")), "x".repeat(300)).unwrap();
    }
    dir
}

fn count(counts: &BTreeMap<String, usize>, kind: &str) -> usize {
    counts.get(kind).copied().unwrap_or(0)
}

/// Of a copied file: its name is looked up, it is made, written and closed; and the kernel checks
/// the directory in which something was made once more. The directories above are not looked up
/// again, however long the path is.
#[test]
fn a_copied_file_costs_a_lookup_a_create_and_a_write() {
    let Some(mut counted) = Counted::start() else { return };
    let (source, dir) = (source(), counted.bed.dir("acme/team/network"));
    let (from, to) = (source.path().to_str().unwrap(), dir.join("1.0.0"));
    let cp = counted.of("cp", &["-r", from, to.to_str().unwrap()], Path::new("/"));
    assert_eq!(
        (count(&cp, "CREATE"), count(&cp, "WRITE"), count(&cp, "MKDIR")),
        (FILES, FILES, DIRECTORIES + 1)
    );
    for (kind, most) in
        [("LOOKUP", FILES + DIRECTORIES + ONCE), ("GETATTR", FILES + DIRECTORIES + ONCE)]
    {
        assert!(count(&cp, kind) <= most, "{kind}: {cp:?}");
    }
    let bypasses = counted.log().contains("capability FUSE_DIRECT_IO_ALLOW_MMAP enabled");
    if bypasses {
        assert_eq!(count(&cp, "GETXATTR"), 0, "{cp:?}")
    } else {
        skip("this kernel asks for capabilities before it writes")
    }
    let total: usize = cp.values().sum();
    assert!(total <= 5 * FILES + 2 * ONCE + 3 * DIRECTORIES, "{total}: {cp:?}");

    // What is there is found without a question.
    let path = to.to_str().unwrap();
    let find = counted.of("find", &[path, "-size", "+0"], Path::new("/"));
    let listed: usize = find.values().sum();
    assert!(count(&find, "LOOKUP") == 0 && listed <= 6 * (DIRECTORIES + 1) + ONCE, "{find:?}");
    let cat = counted.of("sh", &["-c", &format!("cat {path}/*/*")], Path::new("/"));
    assert_eq!((count(&cat, "LOOKUP"), count(&cat, "OPEN")), (0, FILES), "{cat:?}");
    let rm = counted.of("rm", &["-r", path], Path::new("/"));
    assert_eq!((count(&rm, "UNLINK"), count(&rm, "RMDIR")), (FILES, DIRECTORIES + 1));
    assert!(count(&rm, "LOOKUP") <= ONCE, "{rm:?}");
}

/// A large file costs a request for each piece that is written, and no other.
#[test]
fn a_large_file_costs_its_writes_alone() {
    let Some(mut counted) = Counted::start() else { return };
    let dir = counted.bed.dir("acme/network/1.0.0");
    let dd =
        counted.of("dd", &["if=/dev/zero", "of=big", "bs=128k", "count=40", "status=none"], &dir);
    assert_eq!((count(&dd, "CREATE"), count(&dd, "WRITE")), (1, 40), "{dd:?}");
    if counted.log().contains("capability FUSE_DIRECT_IO_ALLOW_MMAP enabled") {
        assert!(dd.values().sum::<usize>() <= 41 + ONCE, "{dd:?}");
    }
}

/// As long as the handle that made a file is open, nobody reads what the kernel holds of it; then
/// everybody does.
#[test]
fn a_file_is_read_from_memory_when_its_maker_has_closed_it() {
    let Some(mut counted) = Counted::start() else { return };
    let path = counted.bed.dir("acme/network/1.0.0").join("file");
    if !counted.log().contains("capability FUSE_DIRECT_IO_ALLOW_MMAP enabled") {
        return skip("this kernel maps no file that is written past its pages");
    }
    let maker = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut &maker, &[b'x'; 4096]).unwrap();
    let mut reads = || {
        let cat = counted.of("cat", &[path.to_str().unwrap()], Path::new("/"));
        count(&cat, "READ")
    };
    for _ in 0..3 {
        assert!(reads() > 0);
    }
    drop(maker);
    // Nobody waits for the handle's release.
    assert!(wait_until(Duration::from_secs(20), || reads() == 0));
}
