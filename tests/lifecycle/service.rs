//! Mounts under a service manager, and hosts that have no FUSE.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::support::{program, world};
use crate::{PATIENCE, Place, ended, failed, pid_of};

#[test]
fn a_service_manager_is_told_when_the_mount_answers() {
    let Some(place) = Place::new() else { return };
    let socket = place.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = place.command();
    command
        .args(["mount", "--foreground"])
        .arg(place.source())
        .arg(place.point())
        .env("NOTIFY_SOCKET", &socket)
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let mut told = [0; 64];
    let length = manager.recv(&mut told).expect("the manager is told");
    assert!(told[..length].starts_with(b"READY=1\n"), "{told:?}");
    assert!(place.is_mounted());
    let names = fs::read_dir(place.point()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().any(|name| name == "registry.example"));
    kill_process(pid_of(&child), Signal::TERM).unwrap();
    let (code, log) = ended(child);
    assert_eq!(code, Some(0), "{log}");
    assert!(!place.is_mounted());
}

#[test]
fn a_manager_that_is_gone_stops_no_mount() {
    let Some(place) = Place::new() else { return };
    let mut command = place.command();
    command
        .args(["mount", "--foreground"])
        .arg(place.source())
        .arg(place.point())
        .env("NOTIFY_SOCKET", place.path("nobody"))
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    crate::eventually("the mount is ready", || place.is_mounted());
    kill_process(pid_of(&child), Signal::TERM).unwrap();
    let (code, log) = ended(child);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("cannot be told"), "{log}");
}

#[test]
fn where_there_is_no_device_the_export_is_named() {
    let Some(place) = Place::new() else { return };
    let hide = "mount -t tmpfs none /dev && mknod -m 666 /dev/urandom c 1 9";
    let script = format!("{hide} && exec \"$0\" mount --foreground \"$1\" \"$2\"");
    let command = |program: &Path, script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(program);
        command.arg(place.source()).arg(place.point()).env("HOME", place.path("home"));
        command.output()
    };
    let can = command(Path::new("true"), hide);
    if !can.is_ok_and(|output| output.status.success()) {
        crate::support::skip("no mount namespace can be made here");
        return;
    }
    let said = failed(&command(&world::program(), &script).unwrap());
    assert!(said.contains("no /dev/fuse") && said.contains("tofufs export"), "{said}");
}

#[test]
fn unit_files_are_sound() {
    let Some(analyze) = program("systemd-analyze") else { return };
    let dir = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let own = world::program();
    for (from, to) in [
        ("tofufs@.service", "tofufs@work.service"),
        ("user/tofufs@.service", "tofufs-user@work.service"),
        ("srv-tofu.mount", "srv-tofu.mount"),
        ("srv-tofu.automount", "srv-tofu.automount"),
    ] {
        let text = fs::read_to_string(units.join(from)).unwrap();
        let text = text.replace("/usr/bin/tofufs", own.to_str().unwrap());
        fs::write(dir.path().join(to), text).unwrap();
    }
    let mut command = Command::new(analyze);
    command.args(["verify", "--man=no"]);
    for entry in fs::read_dir(dir.path()).unwrap() {
        command.arg(entry.unwrap().path());
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
