//! Who mirrors is killed at every request that he sends, to either side: the next run ends with the
//! same digest, and no tag ever stands for half a release.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::hostile::{Hostile, Seen};
use crate::{Bed, into};

/// Kills a process at the n-th request that any of two servers sees.
#[derive(Clone, Default)]
struct Death {
    process: Arc<AtomicI32>,
    left: Arc<AtomicUsize>,
}

impl Death {
    /// A matcher that matches nothing, and counts.
    fn watch(&self) -> impl Fn(&Seen) -> bool + Send + 'static {
        let death = self.clone();
        move |_| {
            if death.left.fetch_sub(1, Ordering::SeqCst) == 1 {
                // The process is started before its number is known.
                while death.process.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                let process = Pid::from_raw(death.process.load(Ordering::SeqCst)).unwrap();
                kill_process(process, Signal::KILL).unwrap();
            }
            false
        }
    }
}

#[test]
fn whoever_is_killed_at_any_request_leaves_what_the_next_run_completes() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    let address = bed.address("one");
    let words = [&*address, "1.0.0"];
    let whole = Hostile::start();
    let before = bed.origin.server.requests().len();
    let line = bed.lines(&into(&whole, &words));
    let digest = line[0].rsplit_once('@').unwrap().1.to_owned();
    let requests = whole.requests().len() + bed.origin.server.requests().len() - before;
    assert!(requests > 20, "{requests}");
    let death = Death::default();
    bed.origin.server.rule(death.watch(), crate::support::hostile::Behaviour::Honest);
    for at in 1..=requests {
        let registry = Hostile::start();
        registry.rule(death.watch(), crate::support::hostile::Behaviour::Honest);
        death.process.store(0, Ordering::SeqCst);
        death.left.store(at, Ordering::SeqCst);
        let mut command = bed.command(&into(&registry, &words));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        death.process.store(i32::try_from(child.id()).unwrap(), Ordering::SeqCst);
        let status = child.wait().unwrap();
        death.left.store(usize::MAX, Ordering::SeqCst);
        if let Some(bytes) = registry.manifest("mirror/acme/one", "1.0.0") {
            assert_eq!(
                tofufs::digest::Digest::of(&bytes).to_string(),
                digest,
                "{at}: half a release"
            );
        } else {
            assert!(!status.success(), "{at}");
        }
        let line = bed.lines(&into(&registry, &words));
        assert_eq!(line[0].rsplit_once('@').unwrap().1, digest, "{at} of {requests}");
    }
}
