//! Settings that nobody types: variables, configuration files and mounts that have a name.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Place, done, failed};
use serde_json::Value;

/// Writes the user's configuration file.
fn configure(place: &Place, text: &str) -> PathBuf {
    let dir = place.path("home/.config/tofufs");
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("config.toml");
    fs::write(&file, text).unwrap();
    file
}

/// The tests of an ordinary user are told by a variable where they run.
fn without_variables_of_the_test(place: &Place) -> Command {
    let mut command = place.command();
    let ours = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("TOFUFS_"));
    ours.for_each(|name| {
        command.env_remove(name);
    });
    command
}

#[test]
fn a_mount_that_has_a_name_is_mounted_by_it() {
    let Some(place) = Place::new() else { return };
    let named = format!(
        "cache_size = \"3GiB\"\n[mount.work]\nsources = [\"{}\"]\nmountpoint = \"{}\"\n\
         read_only = true\ncache_dir = \"~/kept\"\n",
        place.source(),
        place.point().display()
    );
    let file = configure(&place, &named);
    let said = String::from_utf8(place.run(&["config", "show", "mount", "work"]).stdout).unwrap();
    assert!(said.contains(&format!("read_only = true  # {}:5\n", file.display())), "{said}");
    assert!(said.contains("# tag_ttl = \"60s\"  # default\n"), "{said}");
    // The process in the background reads the same words in the same environment.
    done(&place.run(&["mount", "work"]));
    let status = place.status();
    assert_eq!(
        (&status["read_only"], &status["cache"]["limit"]),
        (&Value::from(true), &Value::from(3u64 << 30))
    );
    assert_eq!(status["cache"]["dir"], place.path("home/kept").to_str().unwrap());
    done(&place.run(&["umount", "mnt"]));
    done(
        &place
            .command()
            .args(["mount", "--read-only=false", "work"])
            .env("TOFUFS_CACHE_SIZE", "4GiB")
            .output()
            .unwrap(),
    );
    let status = place.status();
    assert_eq!(
        (&status["read_only"], &status["cache"]["limit"]),
        (&Value::from(false), &Value::from(4u64 << 30))
    );
    done(&place.run(&["umount", "mnt"]));
    let other = place.run(&["mount", "home"]);
    let text = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(other.status.code() == Some(2) && text.contains("has a mount of this name"), "{text}");
}

#[test]
fn variables_hold_for_the_process_in_the_background_and_for_a_mount_helper() {
    let Some(place) = Place::new() else { return };
    let mut command = place.command();
    command.arg("mount").arg(place.source()).arg(place.point()).env("TOFUFS_READ_ONLY", "1");
    done(&command.env("TOFUFS_CACHE_SIZE", "3GiB").output().unwrap());
    let status = place.status();
    assert_eq!(
        (&status["read_only"], &status["cache"]["limit"]),
        (&Value::from(true), &Value::from(3u64 << 30))
    );
    done(&place.run(&["umount", "mnt"]));
    // As mount(8) calls it: its -o options are typed.
    let mut command = place.command();
    command
        .arg(place.source())
        .arg(place.point())
        .args(["-o", "cache_size=5GiB"])
        .env("TOFUFS_CACHE_SIZE", "3GiB");
    done(&command.env("TOFUFS_READ_ONLY", "1").output().unwrap());
    let status = place.status();
    assert_eq!(
        (&status["read_only"], &status["cache"]["limit"]),
        (&Value::from(true), &Value::from(5u64 << 30))
    );
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn a_value_is_shown_with_its_place() {
    let Some(place) = Place::new() else { return };
    let file = configure(&place, "\nplain_http = [\"a.b\"]\noffline = true\n");
    let shown = |words: &[&str]| {
        let mut command = without_variables_of_the_test(&place);
        let output = command
            .args(["config", "show"])
            .args(words)
            .env("TOFUFS_DEADLINE", "9s")
            .output()
            .unwrap();
        done(&output);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["options"].clone()
    };
    let options = shown(&["--json", "mount", "--log-keep", "5", "--offline=false", "a.b", "/mnt"]);
    for (key, value, origin, of) in [
        (
            "plain_http",
            Value::from(vec!["a.b"]),
            "file",
            Value::from(format!("{}:2", file.display())),
        ),
        ("offline", false.into(), "flag", Value::Null),
        ("log_keep", "5".into(), "flag", Value::Null),
        ("deadline", "9s".into(), "variable", "TOFUFS_DEADLINE".into()),
        ("tag_ttl", "60s".into(), "default", Value::Null),
    ] {
        let expected = serde_json::json!({"value": value, "origin": origin, "place": of});
        assert_eq!(options[key], expected, "{key}");
    }
    let all = shown(&["--json"]);
    assert!(
        all["offline"]["value"] == true && all["lazy"]["value"] == false && all["to"].is_object(),
        "{all}"
    );
    assert_eq!(
        shown(&["umount", "--json"]).as_object().unwrap().keys().collect::<Vec<_>>(),
        ["lazy"]
    );
    let typo = without_variables_of_the_test(&place)
        .args(["config", "show", "umount"])
        .env("TOFUFS_LAZI", "1")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&typo.stderr),
        "tofufs: TOFUFS_LAZI: there is no such option\n"
    );
}

#[test]
fn a_file_that_cannot_be_taken_stops_every_command_with_its_line() {
    let Some(place) = Place::new() else { return };
    for (text, part) in [
        ("x = 1\n", ":1: x: there is no such option here"),
        ("offline = true\noffline = true\n", ":2: duplicate"),
    ] {
        let file = configure(&place, text);
        for words in [&["status"][..], &["lock"], &["config", "show"], &["mount", "work"]] {
            let output = place.run(words);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let expected = format!("tofufs: {}{part}", file.display());
            assert!(
                output.status.code() == Some(2) && said.starts_with(&expected),
                "{words:?}: {said}"
            );
        }
        done(&place.run(&["help"]));
    }
    // A value that makes no sense later is told with its place, too.
    let file = configure(&place, "\nmirror = [\"x\"]\n");
    let output = place.mount(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("(--mirror is from {}:2)", file.display())), "{said}");
    configure(&place, "ca_file = \"/nowhere.pem\"");
    let said = failed(&place.mount(&[]));
    assert!(said.contains("/nowhere.pem"), "{said}");
}
