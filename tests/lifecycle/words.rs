//! What is typed and printed: exit codes, the one line about an error, streams that are closed or
//! full, odd names.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

use super::world;
use super::{Place, done, failed};
use serde_json::Value;

/// Outside of any mount, with a store `store` and an empty directory `mnt` in the working
/// directory.
fn outside() -> impl Fn(&[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("store/registry.example")).unwrap();
    fs::create_dir_all(dir.path().join("module")).unwrap();
    fs::write(dir.path().join("module/main.tf"), "locals {}\n").unwrap();
    fs::create_dir(dir.path().join("mnt")).unwrap();
    move |words| {
        let mut command = Command::new(world::program());
        command
            .args(words)
            .current_dir(dir.path())
            .env("HOME", dir.path().join("home"))
            .env("LC_ALL", "C");
        command.env_remove("XDG_CACHE_HOME").env_remove("XDG_STATE_HOME").output().unwrap()
    }
}

#[test]
fn a_file_that_is_no_zip_and_a_template_without_a_dollar_are_told_as_what_they_are() {
    let run = outside();
    let said = failed(&run(&["push", "module/main.tf", "oci:store/registry.example/m:1"]));
    assert!(said.contains("module/main.tf: it is neither a directory nor a zip archive"), "{said}");
    let output =
        run(&["mount", "--oci-mirror", "ghcr.example/acme/{type}", "registry.example", "mnt"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("did you mean `${type}`?"), "{said}");
    let output = run(&[
        "mount",
        "--mirror",
        "a.example=https://ann:secret@cache",
        "registry.example",
        "mnt",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("https://ann:***@cache") && !said.contains("secret"), "{said}");
}

// 0 done, 1 failed, 2 wrong usage; results on standard output alone, an error is one line.
#[test]
fn exit_codes_tell_wrong_use_from_failure_for_every_command() {
    let run = outside();
    let refused: &[(&str, i32)] = &[
        ("", 2),
        ("nonsense", 2),
        ("mount", 2),
        ("mount registry.example", 2),
        ("mount --nonsense registry.example mnt", 2),
        ("mount --cache-size 5GB registry.example mnt", 2),
        ("mount --tag-ttl 1y registry.example mnt", 2),
        ("mount --deadline soon registry.example mnt", 2),
        ("mount --include a/b registry.example mnt", 2),
        ("mount oci:nowhere mnt", 1),
        ("mount oci-archive:nowhere mnt", 1),
        ("mount oci:store nowhere", 1),
        ("mount -f oci:store nowhere", 1),
        ("umount", 2),
        ("umount mnt", 1),
        ("refresh", 2),
        ("refresh mnt", 1),
        ("tofurc", 2),
        ("tofurc --use nonsense mnt", 2),
        ("tofurc mnt", 1),
        ("status mnt", 1),
        ("status --json mnt", 1),
        ("commit", 2),
        ("commit mnt/staging", 1),
        ("push", 2),
        ("push module", 2),
        ("push module registry.example/m", 2),
        ("push --annotation x module oci:store/registry.example/m:1", 2),
        ("push nowhere oci:store/registry.example/m:1", 1),
        ("mirror", 2),
        ("mirror acme/x 1.0.0", 2),
        ("mirror acme/x --to oci:store", 2),
        ("mirror acme/x 1.0.0 --to nonsense", 2),
        ("mirror --lock-file nowhere --to oci:store", 1),
        ("copy", 2),
        ("copy oci:store nonsense", 2),
        ("copy oci:nowhere oci:other", 1),
        ("bundle", 2),
        ("bundle -o oci:bundle", 2),
        ("bundle --root module -o registry.example", 2),
        ("bundle --root nowhere -o oci:bundle", 1),
        ("bundle verify", 2),
        ("bundle verify oci:nowhere", 1),
        ("pull", 2),
        ("pull --lock-file nowhere", 1),
        ("lock --platform linux", 2),
        ("lock nowhere", 1),
        ("cache", 2),
        ("cache info --cache-dir nowhere", 1),
        ("cache prune --to 5", 2),
        ("doctor nonsense", 2),
        ("completions nonsense", 2),
        ("help nonsense", 2),
    ];
    for (words, code) in refused {
        let output = run(&words.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(*code), "{words}: {said}");
        assert!(output.stdout.is_empty(), "{words}: {output:?}");
        assert!(said.starts_with("tofufs: ") && said.lines().count() == 1, "{words}: {said}");
    }
    for words in
        ["--version", "--help", "help mount", "completions zsh", "cache --help", "mount -h"]
    {
        let output = run(&words.split(' ').collect::<Vec<_>>());
        assert!(output.status.success() && output.stderr.is_empty(), "{words}: {output:?}");
    }
}

/// The keys of an object, sorted.
fn keys(object: &Value) -> String {
    let mut keys: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys.join(" ")
}

#[test]
fn short_work_says_nothing_beside_the_results_that_scripts_read() {
    let run = outside();
    let output = run(&["push", "--json", "module", "oci:store/registry.example/m:1"]);
    assert!(output.status.success(), "{output:?}");
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(keys(&line), "digest reference skipped_blobs tag uploaded_bytes");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_keys_of_status_are_those_that_scripts_know() {
    let Some(place) = Place::new() else { return };
    done(&place.mount(&[]));
    let staged = place.path("mnt/staging/registry.example/acme/net/1.0.0");
    fs::create_dir_all(&staged).unwrap();
    fs::write(staged.join("main.tf"), "").unwrap();
    let status = place.status();
    assert_eq!(
        keys(&status),
        "cache downloads errors failures log mountpoint offline pid read_only requests sandbox \
         sources staged"
    );
    assert_eq!(keys(&status["cache"]), "bytes dir limit");
    assert_eq!(keys(&status["requests"]), "blob total");
    assert_eq!(keys(&status["sources"][0]), "name state");
    assert_eq!(keys(&status["staged"][0]), "error path state");
    assert_eq!(status["staged"][0]["path"], "staging/registry.example/acme/net/1.0.0");
    assert_eq!(status["staged"][0]["state"], "open");
    fs::remove_dir_all(place.path("mnt/staging/registry.example/acme")).unwrap();
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn streams_that_are_closed_or_full_do_no_harm() {
    let Some(place) = Place::new() else { return };
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script])
            .arg(world::program())
            .arg(place.source())
            .current_dir(place.dir.path());
        shell
            .env("HOME", place.path("home"))
            .env("XDG_RUNTIME_DIR", place.path("run"))
            .output()
            .unwrap()
    };
    done(&shell("\"$0\" mount \"$1\" mnt <&- >&- 2>&-"));
    // No descriptor of the mount's process is taken for one that was closed.
    fs::create_dir_all(place.path("mnt/staging/registry.example/acme")).unwrap();
    done(&shell("\"$0\" status mnt >&-"));
    done(&shell("\"$0\" status --json mnt 2>&- | head -c 0"));
    let full = shell("\"$0\" status mnt >/dev/full");
    assert!(failed(&full).contains("cannot write to standard output"));
    assert_eq!(shell("\"$0\" umount nowhere 2>/dev/full").status.code(), Some(1));
    done(&shell("\"$0\" umount mnt <&- >&- 2>&-"));
    assert!(!place.is_mounted());
}

#[test]
fn a_narrow_terminal_and_a_poor_locale_show_all_of_the_help() {
    for columns in ["1", "20", "100000"] {
        let mut command = Command::new(world::program());
        command.args(["help", "mount"]).env("COLUMNS", columns).env("LC_ALL", "C");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(
            String::from_utf8(output.stdout).unwrap().contains("--verify-platforms"),
            "{columns}"
        );
    }
}

#[test]
fn any_name_is_a_mount_point() {
    let Some(place) = Place::new() else { return };
    for name in [
        &b"a b"[..],
        b"new\nline",
        b"x\xff\xfey",
        b"q'uo\"te",
        b"com,ma",
        b"back\\slash",
        b"\x1b[31m",
        b"-f",
    ] {
        let name = OsStr::from_bytes(name);
        fs::create_dir(place.path("mnt").with_file_name(name)).unwrap();
        let run = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            place.command().args(words).arg("--").arg(name).output().unwrap()
        };
        done(
            &place.command().arg("mount").arg(place.source()).arg("--").arg(name).output().unwrap(),
        );
        let text = run(&["status"]);
        done(&text);
        let text = String::from_utf8(text.stdout).unwrap();
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let json: Value = serde_json::from_slice(&run(&["status", "--json"]).stdout).unwrap();
        let shown = place.path("mnt").canonicalize().unwrap().with_file_name(name);
        assert_eq!(json["mounts"][0]["mountpoint"], *shown.to_string_lossy());
        assert!(failed(&run(&["tofurc"])).contains("no mapping"));
        done(&run(&["umount"]));
    }
}
