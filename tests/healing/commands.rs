//! `tofufs cache verify` and `tofufs cache prune` beside a mount.

use super::*;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

fn cache(mount: &Mount, words: &[&str]) -> Output {
    let mut command = mount.command("cache");
    command.args(words).arg("--cache-dir").arg(mount.cache());
    support::mount::finish(command)
}

#[test]
fn verify_tells_what_it_found_and_the_mount_heals_it() {
    let releases = Releases::new(4, &[1 << 20, 1000]);
    let Some(mount) = releases.mount(releases.options()) else { return };
    releases.all_right(&mount);
    let sound = cache(&mount, &["verify"]);
    let (out, err) =
        (String::from_utf8_lossy(&sound.stdout), String::from_utf8_lossy(&sound.stderr));
    assert!(sound.status.success() && out.ends_with(" objects checked, 0 damaged\n"), "{sound:?}");
    let lines: Vec<&str> = err.lines().collect();
    // Nobody watches: one line at the end, and none where that came soon.
    assert!(lines.len() <= 1 && lines.iter().all(|line| line.starts_with("checked ")), "{err}");

    let member = objects(&mount.cache())
        .into_iter()
        .find(|p| p.to_string_lossy().contains("/members/"))
        .unwrap();
    let mut bytes = fs::read(&member).unwrap();
    bytes[77] ^= 4;
    fs::remove_file(&member).unwrap();
    fs::write(&member, bytes).unwrap();
    let found = cache(&mount, &["verify", "--json"]);
    assert_eq!(found.status.code(), Some(1));
    let said = json(&found);
    assert_eq!(
        (said["bad"].as_array().unwrap().len(), &said["left"]),
        (1, &Value::from(0)),
        "{said}"
    );
    assert!(!member.exists(), "what is damaged is set aside");
    releases.all_right(&mount);
    assert!(cache(&mount, &["verify"]).status.success());
}

#[test]
fn prune_leaves_what_it_was_told_to_and_open_files_readable() {
    let releases = Releases::new(4, &[1 << 20, 1000]);
    let Some(mount) = releases.mount(releases.options()) else { return };
    releases.all_right(&mount);
    let (path, wanted) = &releases.files[0];
    let mut open = fs::File::open(mount.join(path)).unwrap();
    let before = json(&cache(&mount, &["info", "--json"]))["bytes"].as_u64().unwrap();
    let said = json(&cache(&mount, &["prune", "--to", "3MiB", "--json"]));
    let (removed, left) =
        (said["bytes"].as_u64().unwrap(), said["left"]["bytes"].as_u64().unwrap());
    assert!(removed > 0 && left <= 3 << 20 && removed + left == before, "{before} {said}");
    let text = cache(&mount, &["prune"]);
    let out = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.status.success() && out.contains("0 objects are left"), "{text:?}");
    assert!(objects(&mount.cache()).is_empty());
    fadvise(&open, 0, None, Advice::DontNeed).unwrap();
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert!(bytes == *wanted, "wrong bytes in a file that was open");
    releases.all_right(&mount);
}

#[test]
fn verify_stops_between_two_files_when_it_is_interrupted() {
    // Small enough to be made quickly, many enough to take a while.
    let releases = Releases::new(30, &[1 << 20, 300_000]);
    let Some(mount) = releases.mount(releases.options()) else { return };
    releases.all_right(&mount);
    let all = json(&cache(&mount, &["info", "--json"]))["objects"].as_u64().unwrap();
    let mut command = mount.command("cache");
    command.args(["verify", "--json", "--cache-dir"]).arg(mount.cache());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What it has read says that it has begun.
    let io = format!("/proc/{}/io", child.id());
    let has_read = || -> u64 {
        let io = std::fs::read_to_string(&io).unwrap_or_default();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap_or(0)
    };
    assert!(support::wait_until(Duration::from_secs(60), || has_read() > 2 << 20));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut rest = String::new();
    child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = json(&output);
    let (checked, left) = (said["checked"].as_u64().unwrap(), said["left"].as_u64().unwrap());
    assert!(checked > 0 && left > 0 && checked + left == all, "{said}");
    assert_eq!(output.status.code(), Some(130));
    assert!(rest.contains(&format!("it was stopped; {left} objects were not looked at")), "{rest}");
}
