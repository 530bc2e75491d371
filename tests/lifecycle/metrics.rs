//! What a mount tells Prometheus.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::sources::closed;
use super::*;

/// The answer to a request, head and body.
fn asked(mut stream: impl Read + Write, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn metrics(place: &Place) -> String {
    let answer = asked(UnixStream::connect(place.path("metrics")).unwrap(), "GET", "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{answer}");
    body.to_owned()
}

/// The value of a metric with these labels.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in:\n{text}")).parse().unwrap()
}

#[test]
fn requests_bytes_failures_and_times_are_told_by_a_socket() {
    let Some(place) = Place::new() else { return };
    fs::create_dir(place.path("module")).unwrap();
    fs::write(place.path("module/main.tf"), "# twelve bytes\n").unwrap();
    let to = "oci:store/registry.example/net:1.0.0";
    let pushed = place.run(&["push", "module", to]);
    assert!(pushed.status.success(), "{pushed:?}");
    let host = closed();
    let output = place.mount(&["--metrics", "unix:metrics", "--plain-http", &host, &host]);
    assert!(output.status.success(), "{output:?}");

    let file = place.point().join("registry.example/net/1.0.0/main.tf");
    assert_eq!(fs::read_to_string(&file).unwrap(), "# twelve bytes\n");
    let denied = fs::read_dir(place.point().join(&host).join("acme/net/1.0.0")).err().unwrap();
    assert_eq!(denied.raw_os_error(), Some(libc::EACCES));

    let text = metrics(&place);
    let refused = format!(r#"tofufs_requests_total{{host="{host}",kind="document",status="401"}}"#);
    assert!(value(&text, &refused) >= 1.0);
    assert!(value(&text, r#"tofufs_failures_total{errno="EACCES",reason="denied"}"#) >= 1.0);
    assert!(value(&text, r#"tofufs_operation_seconds_count{operation="lookup"}"#) >= 3.0);
    assert!(value(&text, r#"tofufs_operation_seconds_count{operation="open"}"#) >= 1.0);
    assert_eq!(value(&text, &format!(r#"tofufs_source_up{{source="{host}"}}"#)), 0.0);
    assert_eq!(value(&text, r#"tofufs_staged{state="open"}"#), 0.0);
    assert_eq!(value(&text, "tofufs_waiting_operations"), 0.0);
    assert!(value(&text, "tofufs_cache_limit_bytes") > value(&text, "tofufs_cache_bytes"));
    is_clean(&text);
    every_name_is_documented(&text);

    let connect = || UnixStream::connect(place.path("metrics")).unwrap();
    assert!(asked(connect(), "GET", "/").starts_with("HTTP/1.1 404 "));
    assert!(asked(connect(), "POST", "/metrics").starts_with("HTTP/1.1 405 "));
    done(&place.run(&["umount", "mnt"]));
    eventually("the socket is gone", || !place.path("metrics").exists());
}

/// What Prometheus' own program says about names and format.
fn is_clean(text: &str) {
    let Some(promtool) = support::program("promtool") else { return };
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut promtool = check.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    done(&promtool.wait_with_output().unwrap());
}

fn every_name_is_documented(text: &str) {
    let document = include_str!("../../docs/metrics.md");
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let unknown: Vec<&str> = names.filter(|name| !document.contains(&format!("`{name}"))).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in docs/metrics.md");
}

#[test]
fn a_port_of_loopback_is_taken_and_what_is_in_use_is_refused_before_mounting() {
    let Some(place) = Place::new() else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = failed(&place.mount(&["--metrics", &address]));
    assert!(said.contains(&format!("metrics cannot be told at {address}: ")), "{said}");
    assert!(!place.is_mounted());
    drop(taken);
    done(&place.mount(&["--metrics", &address]));
    let answer = asked(TcpStream::connect(&address).unwrap(), "GET", "/metrics");
    assert!(answer.contains("tofufs_build_info{version="), "{answer}");
    done(&place.run(&["umount", "mnt"]));

    let public = place.mount(&["--metrics", "0.0.0.0:9464"]);
    let said = String::from_utf8_lossy(&public.stderr).into_owned();
    assert_eq!(public.status.code(), Some(2), "{said}");
    assert!(said.contains("told on this machine only"), "{said}");
}
