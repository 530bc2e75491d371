//! What was read before is read again without a connection, as `strace` sees it.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::Mount;
use crate::support::{pack, program, skip, wait_until};
use crate::{logged_in, module_package, sh, tree, trusting};
use rustix::process::{Pid, Signal, kill_process};

/// `strace` on the daemon of a mount.
struct Tracer {
    child: Child,
    log: PathBuf,
}

impl Tracer {
    /// Traces every call of connect(2) into a file in `dir`; `None`, with the reason printed, where
    /// that cannot be had.
    fn attach(mount: &Mount, dir: &std::path::Path) -> Option<Tracer> {
        let strace = program("strace")?;
        let log = dir.join("strace");
        let pid = mount.pid().as_raw_nonzero().to_string();
        let mut command = Command::new(strace);
        command.args(["-f", "-e", "trace=connect", "-p", &pid, "-o"]).arg(&log);
        let child =
            command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace runs");
        let mut tracer = Tracer { child, log };
        // All threads that the daemon has; those that it starts later are traced from their start.
        let traced = || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a living process");
            tasks.filter_map(Result::ok).all(|task| {
                let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
            })
        };
        let mut ended = false;
        wait_until(Duration::from_secs(20), || {
            ended = tracer.child.try_wait().expect("a child of ours").is_some();
            ended || traced()
        });
        if ended || !traced() {
            skip("strace may not trace the daemon");
            return None;
        }
        Some(tracer)
    }

    /// The calls so far that go to a network.
    fn connections(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter(|line| line.contains("AF_INET")).map(str::to_owned).collect()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // On SIGINT strace lets go of the daemon, which a killed one might leave stopped.
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child of ours");
        drop((kill_process(pid, Signal::INT), self.child.wait()));
    }
}

#[test]
fn nothing_that_was_read_before_needs_a_connection() {
    let Some(mut registry) = DockerRegistry::start(Access::Token, true) else { return };
    registry.push("acme/network").artifact("1.0.0", &pack::module_of(module_package()));
    registry.push("acme/network").artifact("2.0.0", &pack::module(&[("main.tf", b"# 2\n")]));
    registry
        .push("acme/providers/hello")
        .artifact("0.1.0", &pack::provider("hello", "0.1.0", &["linux_amd64"]));
    let host = registry.host();
    let options = logged_in(&registry).args(["--tag-ttl", "1h"]);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let top = mount.join(&host);
    let read_all = || {
        for release in ["acme/network/1.0.0", "acme/network:1.0.0", "acme/providers/hello/0.1.0"] {
            tree(&top.join(release));
            sh("ls", ["-lR".as_ref(), top.join(release).as_os_str()]);
        }
        sh("ls", ["-l".as_ref(), top.join("acme/network").as_os_str()]);
    };
    read_all();
    let before = mount.requests();
    let digest = mount.xattr(top.join("acme/network/1.0.0"), "user.oci.digest").expect("a digest");
    // A connection of the first reading would hide a request of the second.
    registry.start_again();
    let Some(tracer) = Tracer::attach(&mount, registry.dir()) else { return };
    read_all();
    // A name that the kernel has never asked for, so that the program itself has to know.
    tree(&top.join(format!("acme/network@{digest}")));
    assert_eq!(tracer.connections(), Vec::<String>::new());
    assert_eq!(mount.requests(), before);
    // What was not read before needs one, which shows that connections are seen.
    fs::read(top.join("acme/network/2.0.0/main.tf")).unwrap();
    assert!(
        wait_until(Duration::from_secs(10), || !tracer.connections().is_empty()),
        "a cold read connects"
    );
}

#[test]
fn an_offline_mount_never_connects() {
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    registry.push("acme/network").artifact("1.0.0", &pack::module(&[("main.tf", b"# 1\n")]));
    registry.push("acme/other").artifact("1.0.0", &pack::module(&[("main.tf", b"# 2\n")]));
    let host = registry.host();
    let Some(mut mount) = Mount::start(&[&host], trusting(&registry)) else { return };
    let top = mount.join(&host);
    fs::read(top.join("acme/network/1.0.0/main.tf")).unwrap();
    assert!(mount.umount().status.success());
    assert!(mount.again_with(&[&host], trusting(&registry).args(["--offline"])).status.success());
    let Some(tracer) = Tracer::attach(&mount, registry.dir()) else { return };
    assert_eq!(fs::read(top.join("acme/network/1.0.0/main.tf")).unwrap(), b"# 1\n");
    assert_eq!(
        fs::read(top.join("acme/other:1.0.0/main.tf")).unwrap_err().kind(),
        ErrorKind::HostUnreachable
    );
    assert_eq!(tracer.connections(), Vec::<String>::new());
    assert_eq!(mount.requests(), (0, 0));
}
