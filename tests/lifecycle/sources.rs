//! Sources that fail when a mount begins, and where a mount logs to; for every user.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::thread;

use super::{Place, done, ended, failed, in_foreground};
use rustix::process::{Signal, kill_process};

/// An address at which nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A registry that asks everybody for a password.
pub fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut head) = (client.unwrap(), [0; 4096]);
            let _ = client.read(&mut head);
            let _ = client.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\
                  Connection: close\r\n\r\n",
            );
        }
    });
    host
}

fn mount(place: &Place, options: &[&str], hosts: &[&str]) -> Output {
    let plain = hosts.iter().flat_map(|host| ["--plain-http", host]);
    let mut command = place.command();
    command.args(["mount", "--deadline", "5s"]).args(options).args(plain).args(hosts);
    command.arg(place.source()).arg(place.point()).output().unwrap()
}

#[test]
fn what_fails_is_said_by_who_mounts_in_the_background_and_in_the_status() {
    let Some(place) = Place::new() else { return };
    let (away, denied) = (nobody(), closed());
    let output = mount(&place, &[], &[&away, &denied]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && output.stdout.is_empty() && place.is_mounted(),
        "{output:?}"
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    for (host, state) in [(&away, "unreachable"), (&denied, "denied")] {
        assert!(
            lines.iter().any(|line| line.starts_with(&format!("tofufs: {host} is {state}: "))),
            "{said}"
        );
    }
    let status = place.status();
    let states: Vec<_> =
        (0..3).map(|at| status["sources"][at]["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["unreachable", "denied", "ok"], "{status}");
    let text = String::from_utf8(place.run(&["status", "mnt"]).stdout).unwrap();
    let second = text.lines().nth(1).unwrap_or_default();
    assert!(
        second.contains("problem") && second.contains(&format!("{away} is unreachable: ")),
        "{text}"
    );
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn with_strict_nothing_is_mounted_and_the_sentence_is_the_error() {
    let Some(place) = Place::new() else { return };
    let away = nobody();
    let said = failed(&mount(&place, &["--strict"], &[&away]));
    assert!(
        said.contains(&format!("{away} is unreachable: ")) && said.contains("--strict"),
        "{said}"
    );
    assert!(!place.is_mounted());
    done(&mount(&place, &["--strict"], &[]));
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn the_log_is_named_by_mount_by_status_and_by_doctor() {
    let Some(place) = Place::new() else { return };
    let output = place.mount(&["-v"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let log = said.trim_end().strip_prefix("the log is ").unwrap_or_else(|| panic!("{said}"));
    assert!(fs::read_to_string(log).unwrap().contains("mounted"), "{log}");
    assert_eq!(place.status()["log"], log);
    assert!(
        String::from_utf8(place.run(&["status"]).stdout).unwrap().contains(&format!(" {log}\n"))
    );
    let doctor = String::from_utf8(place.run(&["doctor"]).stdout).unwrap();
    assert!(
        doctor.contains(&format!("{}, whose log is {log}", place.point().display())),
        "{doctor}"
    );
    done(&place.run(&["umount", "mnt"]));
    done(&place.mount(&["--log-file", "own.log"]));
    assert_eq!(place.status()["log"].as_str(), place.path("own.log").to_str());
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn a_mount_in_the_foreground_logs_where_it_says() {
    let Some(place) = Place::new() else { return };
    let child = in_foreground(&place);
    assert_eq!(place.status()["log"], serde_json::Value::Null);
    kill_process(place.pid(), Signal::TERM).unwrap();
    assert_eq!(ended(child).0, Some(0));
}

#[test]
fn an_owner_is_a_number_or_a_name() {
    let Some(place) = Place::new() else { return };
    let output = place.mount(&["--uid", "nosuchuser"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(2) && said.contains("this machine knows no such user"),
        "{said}"
    );
    done(&place.mount(&["--uid", "root", "--gid", "root"]));
    use std::os::unix::fs::MetadataExt;
    let owner = fs::metadata(place.point()).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (0, 0));
    done(&place.run(&["umount", "mnt"]));
}
