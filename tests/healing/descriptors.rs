//! A daemon that runs out of file descriptors.

use super::*;
use rustix::process::{Resource, Rlimit, prlimit};

/// Lets the daemon have at most `limit` descriptors; the former limit.
fn limit(mount: &Mount, limit: u64) -> Rlimit {
    let now = rustix::process::getrlimit(Resource::Nofile);
    prlimit(
        Some(mount.pid()),
        Resource::Nofile,
        Rlimit { current: Some(limit), maximum: now.maximum },
    )
    .unwrap()
}

fn used(mount: &Mount) -> usize {
    fs::read_dir(format!("/proc/{}/fd", mount.pid().as_raw_nonzero())).map_or(0, Iterator::count)
}

// O24
#[test]
fn without_descriptors_opening_fails_as_documented_and_works_again_afterwards() {
    let releases = Releases::new(4, &[300_000; 30]);
    let Some(mount) = releases.mount(releases.options()) else { return };
    // One after another they need few descriptors, however many the mount would like to keep.
    let before = limit(&mount, 64);
    releases.all_right(&mount);
    releases.all_right(&mount);
    limit(&mount, before.current.unwrap_or(1 << 20));
    for at_most in [64, 1024] {
        let before = limit(&mount, at_most);
        let mut open = Vec::new();
        let mut refused = 0;
        // Each of them stays open, so that the daemon has to hold a descriptor.
        for (path, wanted) in &releases.files {
            let path = mount.join(path);
            let tried = fs::File::open(&path).and_then(|mut file| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map(|_| (file, bytes))
            });
            match tried {
                Ok((file, bytes)) => {
                    assert!(bytes == *wanted, "wrong bytes in {}", path.display());
                    open.push(file);
                }
                Err(e) => {
                    refused += 1;
                    let errno = e.raw_os_error();
                    // New connections need a descriptor as well.
                    let documented =
                        [libc::EMFILE, libc::ENFILE, libc::EHOSTUNREACH, libc::ETIMEDOUT];
                    assert!(
                        errno.is_some_and(|errno| documented.contains(&errno)),
                        "{}: {e}",
                        path.display()
                    );
                }
            }
        }
        eprintln!("limit {at_most}: {} open, {refused} refused, {} used", open.len(), used(&mount));
        if at_most == 64 {
            assert!(refused > 0, "the limit was never met");
        } else {
            assert_eq!(refused, 0);
        }
        drop(open);
        limit(&mount, before.current.unwrap_or(1 << 20));
        // What was refused is remembered for two seconds.
        let recovered = support::wait_until(std::time::Duration::from_secs(20), || {
            releases.files.iter().all(|(path, wanted)| {
                read_fresh(&mount.join(path)).is_ok_and(|bytes| bytes == *wanted)
            })
        });
        assert!(recovered, "the mount does not recover: {}", mount.log());
    }
    assert_eq!(damaged(&mount), 0);
    // What could not be opened for want of descriptors is not taken for damaged.
    let aside = files_below(&mount.cache().join("v1/tmp"));
    assert!(aside.is_empty() && !mount.log().contains("quarantined"), "{aside:?} {}", mount.log());
}
