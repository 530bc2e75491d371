//! Logs that others rotate: SIGHUP has a log file opened again, and ends a mount only where there
//! is none.

use super::*;

/// How a rotation is written for logrotate; `MOUNT` stands for the mount's process.
const MOVED: &str = "nocopytruncate\ncreate\npostrotate\nkill -HUP MOUNT\nendscript\n";
const EMPTIED: &str = "copytruncate\n";

/// A mount with a log file, in which every request of the kernel is a line.
fn logging(place: &Place) {
    done(&place.mount(&["-vv", "--log-file", "tofufs.log", "--log-max-size", "0KiB"]));
}

/// Whether the file gets lines when the mount is looked at.
fn is_written(place: &Place, file: &str) -> bool {
    let before = fs::metadata(place.path(file)).map_or(0, |stat| stat.len());
    let _ = fs::read_dir(place.point()).map(Iterator::count);
    fs::metadata(place.path(file)).is_ok_and(|stat| stat.len() > before)
}

/// Has logrotate rotate the log; false, with the reason printed, where it is not installed.
fn logrotate(place: &Place, how: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let program =
        std::env::split_paths(&paths).chain(["/usr/sbin".into()]).map(|dir| dir.join("logrotate"));
    let Some(program) = { program }.find(|program| program.is_file()) else {
        skip("logrotate is not installed");
        return false;
    };
    let mount = place.pid().as_raw_nonzero().to_string();
    let log = place.path("tofufs.log");
    let rotation =
        format!("{} {{\nrotate 2\nnomail\n{}}}\n", log.display(), how.replace("MOUNT", &mount));
    fs::write(place.path("rotation"), rotation).unwrap();
    fs::set_permissions(place.path("rotation"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = Command::new(program);
    command.arg("--force").arg("--state").arg(place.path("rotated")).arg(place.path("rotation"));
    done(&command.output().unwrap());
    true
}

#[test]
fn logrotate_rotates_the_log_by_moving_and_by_emptying_it() {
    for how in [MOVED, EMPTIED] {
        let Some(place) = Place::new() else { return };
        logging(&place);
        eventually("it is logged", || is_written(&place, "tofufs.log"));
        for round in 1..=3 {
            if !logrotate(&place, how) {
                break;
            }
            eventually("it is logged to the new file", || is_written(&place, "tofufs.log"));
            assert_eq!(place.path("tofufs.log.2").exists(), round >= 2, "{how}");
            eventually("nothing is logged to the old file", || !is_written(&place, "tofufs.log.1"));
            // Emptying leaves no hole where the old lines were.
            let text = fs::read(place.path("tofufs.log")).unwrap();
            assert!(!text.contains(&0), "{how}");
        }
        done(&place.run(&["umount", "mnt"]));
    }
}

#[test]
fn sighup_has_a_log_file_opened_again_also_in_the_foreground() {
    let Some(place) = Place::new() else { return };
    let mut command = place.command();
    command
        .args(["mount", "-f", "-vv", "--log-file", "tofufs.log"])
        .arg(place.source())
        .arg(place.point());
    let child = command.stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    eventually("the mount is ready", || place.is_mounted());
    for _ in 0..3 {
        fs::rename(place.path("tofufs.log"), place.path("old.log")).unwrap();
        kill_process(pid_of(&child), Signal::HUP).unwrap();
        eventually("there is a new log", || is_written(&place, "tofufs.log"));
        assert!(place.is_mounted());
    }
    kill_process(pid_of(&child), Signal::TERM).unwrap();
    assert_eq!(ended(child), (Some(0), String::new()));
}

#[test]
fn without_a_log_option_a_mount_in_the_background_has_a_log_file_too() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    let dir = fs::read_dir(place.path("home/.local/state/tofufs/log")).unwrap();
    let logs: Vec<_> = dir.map(|entry| entry.unwrap().path()).collect();
    let [log] = &logs[..] else { panic!("{logs:?}") };
    fs::remove_file(log).unwrap();
    kill_process(place.pid(), Signal::HUP).unwrap();
    eventually("there is a new log", || log.exists());
    assert!(place.is_mounted());
    done(&place.run(&["umount", "mnt"]));
    assert!(fs::read_to_string(log).unwrap().contains("the mount has ended"));
}

#[test]
fn what_one_operation_asks_of_registries_has_one_trace_id_in_the_log() {
    let Some(place) = Place::new() else { return };
    let hosts = [super::sources::closed(), super::sources::closed()];
    let [first, second] = hosts.each_ref().map(String::as_str);
    let options = ["-v", "--log-format", "json", "--log-file", "tofufs.log", "--tag-ttl", "1s"];
    let sources = ["--plain-http", first, "--plain-http", second, first, second];
    assert!(place.mount(&[&options[..], &sources[..]].concat()).status.success());
    let of_operations = |host: &str| -> Vec<String> {
        let log = fs::read_to_string(place.path("tofufs.log")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        // The sources were looked at once before, when the mount began.
        let asked = lines.filter(|line| {
            line["span"]["name"] == "operation"
                && line["url"].as_str().is_some_and(|url| url.contains(host))
        });
        asked.filter_map(|line| Some(line["span"]["trace_id"].as_str()?.to_owned())).collect()
    };
    for host in [first, second] {
        let _ = fs::read_dir(place.point().join(host).join("acme/net/1.0.0"));
        eventually("its requests are logged", || !of_operations(host).is_empty());
    }
    let [first, second] = [first, second].map(of_operations);
    assert!(first.iter().all(|id| id.len() == 32 && !second.contains(id)), "{first:?} {second:?}");
    done(&place.run(&["umount", "mnt"]));
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn what_a_command_does_has_the_trace_id_of_traceparent_in_the_log() {
    let Some(place) = Place::new() else { return };
    let host = super::sources::closed();
    let ask = |traceparent: &str| {
        let mut command = place.command();
        command.args(["lock", "--check", "-v", "--deadline", "1s", "--plain-http", &host]);
        let template = format!("{host}/${{namespace}}/${{type}}");
        command.args(["--oci-mirror", &template, "."]).env("TRACEPARENT", traceparent);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    fs::write(
        place.path("main.tf"),
        "terraform {\n  required_providers {\n    tiny = { source = \"acme/tiny\" }\n  }\n}\n",
    )
    .unwrap();
    let requests = |log: &str| -> Vec<String> {
        log.lines().filter(|line| line.contains(" request ")).map(str::to_owned).collect()
    };
    let own = format!("trace_id={TRACE}");
    let log = ask(&format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let asked = requests(&log);
    assert!(!asked.is_empty() && asked.iter().all(|line| line.contains(&own)), "{log}");
    assert!(!log.contains("TRACEPARENT"), "{log}");
    let log = ask(&format!("00-{TRACE}-0000000000000000-01"));
    let asked = requests(&log);
    let is_other = |line: &String| line.contains("trace_id=") && !line.contains(&own);
    assert!(!asked.is_empty() && asked.iter().all(is_other), "{log}");
    assert_eq!(log.matches("TRACEPARENT is passed over").count(), 1, "{log}");
}

#[test]
fn a_mount_takes_the_trace_of_its_start_and_of_the_commands_that_ask_it() {
    let Some(place) = Place::new() else { return };
    let host = super::sources::closed();
    let mut mount = place.command();
    mount.args(["mount", "-v", "--log-format", "json", "--log-file", "tofufs.log"]);
    mount.args(["--plain-http", &host, &host]).arg(place.source()).arg(place.point());
    let parent = |trace: &str| format!("00-{trace}-00f067aa0ba902b7-01");
    assert!(mount.env("TRACEPARENT", parent(TRACE)).output().unwrap().status.success());
    let lines = |trace: &str| -> Vec<Value> {
        let log = fs::read_to_string(place.path("tofufs.log")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["span"]["trace_id"] == trace).collect()
    };
    let looked = lines(TRACE).iter().any(|line| line["url"].as_str().is_some());
    assert!(looked, "the look at the source is logged: {:?}", lines(TRACE));

    let other = TRACE.replace('4', "5");
    let staged = place.point().join("staging").join(&host).join("acme/net/1.0.0");
    fs::create_dir_all(&staged).unwrap();
    fs::write(staged.join("main.tf"), "# a module").unwrap();
    let mut commit = place.command();
    commit.arg("commit").arg(&staged).env("TRACEPARENT", parent(&other));
    failed(&commit.output().unwrap());
    eventually("the commit's requests are logged", || {
        lines(&other).iter().any(|line| line["url"].as_str().is_some_and(|url| url.contains("net")))
    });
    done(&place.run(&["umount", "mnt"]));
}
