//! What is inflated while its package still arrives: it is there early, once, and never if the
//! package is refused.

use std::os::unix::fs::MetadataExt;
use std::thread;

use super::support::hostile::Behaviour;
use super::*;

const LARGE: usize = 2 << 20;
/// How much of a package is missing while the transfer stalls: more than the chunk in which its
/// first file ends.
const MISSING: usize = 200_000;

/// The module in the repository `net`, whose first file is large. Its content and its package.
fn put_large(server: &Hostile) -> (Vec<u8>, Vec<u8>) {
    let content = noise(11, LARGE);
    let artifact =
        pack::module(&[("main.tf", &content), ("rest.bin", &noise(12, 400_000)), ("a.tf", b"")]);
    server.publish("net", "1.0.0", &artifact);
    (content, package_of(&artifact).clone())
}

/// The files below a part of the cache whose names end so, with their lengths.
fn files(bed: &Bed, part: &str, end: &str) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut pending = vec![bed.mount.cache().join("v1").join(part)];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(m) if m.is_dir() => pending.push(entry.path()),
                Ok(m) if entry.path().to_string_lossy().ends_with(end) => {
                    found.push((entry.path(), m.len()))
                }
                _ => {}
            }
        }
    }
    found
}

fn members(bed: &Bed) -> Vec<(PathBuf, u64)> {
    files(bed, "members", "").into_iter().filter(|(path, _)| path.extension().is_none()).collect()
}

/// Enters the module while its package does not come to its end, and lets it go on as soon as the
/// large file is inflated, of which nothing is to be seen by then.
fn enter_while_it_stalls(bed: &Bed, server: &Hostile) -> io::Result<()> {
    let path = bed.path(&format!("{}/net:1.0.0", server.host()));
    thread::scope(|scope| {
        let entering = scope.spawn(|| fs::read_dir(&path).map(drop));
        let inflated =
            || files(bed, "tmp", ".scratch").iter().any(|(_, length)| *length == LARGE as u64);
        assert!(support::wait_until(PATIENCE, inflated), "{:?}", files(bed, "tmp", ""));
        assert!(!entering.is_finished() && members(bed).is_empty());
        server.drop_connections();
        entering.join().unwrap()
    })
}

/// O02
#[test]
fn a_large_file_is_inflated_once_while_its_package_arrives() {
    let server = Hostile::start();
    let (content, package) = put_large(&server);
    server.script(blobs_of("net"), [Behaviour::Stall { after: package.len() - MISSING }]);
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    enter_while_it_stalls(&bed, &server).unwrap();
    // Nobody has opened it.
    let is_there = || members(&bed).iter().any(|(_, length)| *length == LARGE as u64);
    assert!(support::wait_until(PATIENCE, is_there), "{:?}", members(&bed));
    let (path, _) = members(&bed).into_iter().find(|(_, length)| *length == LARGE as u64).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    assert!(bed.main_tf(&format!("{}/net:1.0.0", server.host())) == content);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "it was not inflated again");
    assert_eq!(blob_requests(&server, "net"), 2, "one, and one for what was missing");
    assert!(support::wait_until(PATIENCE, || files(&bed, "tmp", "").is_empty()));
    bed.cache_is_sound();
}

/// R01: no unverified byte.
#[test]
fn of_a_package_that_is_refused_nothing_that_was_inflated_is_left() {
    let server = Hostile::start();
    let (_, package) = put_large(&server);
    let whole = package.len();
    // The last byte belongs to the end record: what was inflated is what the publisher meant.
    server.rule(
        blobs_of("net"),
        Behaviour::edit(move |_, mut reply| {
            *reply.body.last_mut().unwrap() ^= 1;
            reply
        }),
    );
    server.script(blobs_of("net"), [Behaviour::Stall { after: whole - MISSING }]);
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    let refused = enter_while_it_stalls(&bed, &server);
    assert_eq!(errno_of(refused.err()), Some(Errno::IO), "{}", bed.mount.log());
    assert!(support::wait_until(PATIENCE, || files(&bed, "tmp", ".scratch").is_empty()));
    assert!(members(&bed).is_empty());
    assert_eq!(bed.cached(&Digest::of(&package)), None);
}

/// O12, O13
#[test]
fn what_a_killed_daemon_was_inflating_is_gone_with_the_next_mount() {
    let server = Hostile::start();
    let (content, package) = put_large(&server);
    server.script(blobs_of("net"), [Behaviour::Stall { after: package.len() - MISSING }]);
    let Some(mut bed) = Bed::over(&[&server], &[]) else { return };
    let path = bed.path(&format!("{}/net:1.0.0", server.host()));
    let entering = thread::spawn(move || fs::read_dir(path).map(drop));
    let inflated =
        || files(&bed, "tmp", ".scratch").iter().any(|(_, length)| *length == LARGE as u64);
    assert!(support::wait_until(PATIENCE, inflated));
    bed.mount.kill();
    assert!(entering.join().unwrap().is_err());
    assert!(!files(&bed, "tmp", ".scratch").is_empty());
    let mounted = bed.mount.again();
    assert!(mounted.status.success(), "{mounted:?}");
    assert!(support::wait_until(PATIENCE, || files(&bed, "tmp", ".scratch").is_empty()));
    assert!(bed.main_tf(&format!("{}/net:1.0.0", server.host())) == content);
    bed.cache_is_sound();
}
