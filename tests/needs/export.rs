//! `tofufs export`: the paths of a mount in a plain directory, and the clients that use them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::support::mount::finish;
use crate::support::{layouts, pack, skip};
use crate::{Bench, clients, packages};

/// A root module that calls a module by its path in the export, which calls a neighbour, and that
/// requires a provider.
fn working_directory() -> Bench {
    let bench = Bench::new();
    let call =
        |name: &str, source: &str| format!("module \"{name}\" {{\n  source = \"{source}\"\n}}\n");
    let module = |repo: &str, tag: &str, text: &str| {
        let files: [(&str, &[u8]); 2] = [("main.tf", text.as_bytes()), ("docs/note.md", b"note")];
        layouts::add(&bench.store(), "reg.example", repo, tag, &pack::module(&files));
    };
    let far = format!("{}/reg.example/modules/far:2.0.0", bench.join("out").display());
    module("modules/network", "1.2.0", &call("far", &far));
    module("modules/far", "2.0.0", "");
    bench.publish(
        "one",
        "1.0.0",
        &packages("one", "1.0.0", &["linux_amd64", "darwin_arm64"]),
        true,
    );
    let network = format!("{}/reg.example/modules/network/1.2.0", bench.join("out").display());
    bench.write(
        "main.tf",
        &(call("network", &network)
            + "terraform {\n  required_providers {\n    one = { source = \"example.com/acme/one\" }\n  }\n}\n"),
    );
    bench
}

const EXPORT: [&str; 6] = ["export", "../out", "--root", ".", "--platform", "linux_amd64"];

/// Every path below `dir`, with what a reader sees there; links by what they lead to.
fn seen(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("an entry").path();
            let stat = fs::symlink_metadata(&path).expect("an entry");
            let what = if stat.is_symlink() {
                format!("to {}", fs::read_link(&path).expect("a link").display())
            } else if stat.is_dir() {
                pending.push(path.clone());
                format!("{:o}", stat.mode() & 0o7777)
            } else {
                format!("{:o} {:?}", stat.mode() & 0o7777, fs::read(&path).expect("a file"))
            };
            found.insert(path.strip_prefix(dir).expect("below").to_owned(), what);
        }
    }
    found.retain(|path, _| !path.starts_with(".tofufs"));
    found
}

fn artifacts(said: &Value) -> &Vec<Value> {
    said["artifacts"].as_array().expect("a list")
}

#[test]
fn a_directory_has_the_paths_of_a_mount() {
    let bench = working_directory();
    let said = bench.json(&EXPORT);
    assert_eq!(artifacts(&said).len(), 3, "{said}");
    let out = bench.join("out");
    for path in ["modules/network:1.2.0", "modules/network/1.2.0", "modules/far:2.0.0"] {
        let text = fs::read(out.join("reg.example").join(path).join("docs/note.md"));
        assert_eq!(text.expect("a module's file"), b"note", "{path}");
    }
    let package = out.join("plugins/example.com/acme/one/1.0.0/linux_amd64");
    assert!(fs::read_link(&package).is_ok_and(|to| to.starts_with("../../../../../reg.example")));
    let plugin = package.join("terraform-provider-one_v1.0.0");
    assert_eq!(fs::read(&plugin).expect("a plugin"), b"one 1.0.0 linux_amd64");
    assert_eq!(fs::metadata(&plugin).expect("a plugin").mode() & 0o777, 0o755);
    assert!(!out.join("plugins/example.com/acme/one/1.0.0/darwin_arm64").exists());
    for (path, what) in seen(&out) {
        let stat = fs::symlink_metadata(out.join(&path)).expect("an entry");
        let mode = what.split(' ').next().unwrap_or_default();
        assert!(["644", "755", "to"].contains(&mode), "{}: {what}", path.display());
        assert!(stat.is_dir() || stat.nlink() == 1, "{}: a link to the cache", path.display());
    }
}

#[test]
fn what_nobody_touched_is_not_read_again_and_what_somebody_did_is_put_right() {
    let bench = working_directory();
    bench.json(&EXPORT);
    let out = bench.join("out");
    let before = seen(&out);
    let plugin = out
        .join("plugins/example.com/acme/one/1.0.0/linux_amd64")
        .join("terraform-provider-one_v1.0.0");
    let inode = |path: &Path| fs::metadata(path).expect("a file").ino();
    let first = inode(&plugin);

    // Without the cache nothing can be read, and nothing has to be.
    fs::remove_dir_all(bench.join("home/.cache/tofufs")).expect("a cache");
    let said = bench.json(&EXPORT);
    for artifact in artifacts(&said) {
        assert_eq!(
            (&artifact["fetched_bytes"], &artifact["exported"]),
            (&Value::from(0), &Value::from(false)),
            "{artifact}"
        );
    }
    assert_eq!((inode(&plugin), seen(&out)), (first, before.clone()));

    // One other byte of the same length, a mode, a file too many, one too few.
    let module = out.join("reg.example/modules/far:2.0.0");
    let changes: [&dyn Fn(); 4] = [
        &|| fs::write(&plugin, b"one 1.0.0 linux_amd65").expect("a writable file"),
        &|| fs::set_permissions(&plugin, fs::Permissions::from_mode(0o700)).expect("its owner"),
        &|| fs::write(module.join("more"), "").expect("a writable directory"),
        &|| fs::remove_dir_all(module.join("docs")).expect("a writable directory"),
    ];
    for change in changes {
        change();
        let output = bench.tofufs(&EXPORT);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains("as it was published again"),
            "{output:?}"
        );
        assert_eq!(seen(&out), before);
    }
    // A copy has other inodes and times: its bytes are compared, and none is written.
    let copied = Command::new("cp").arg("-a").arg(&out).arg(bench.join("copy")).status();
    assert!(copied.expect("cp").success());
    let said = bench.json(&["export", "../copy", "reg.example/modules/far:2.0.0"]);
    assert_eq!(artifacts(&said)[0]["exported"], false, "{said}");
    assert_eq!(seen(&bench.join("copy")), before);
}

#[test]
fn what_was_not_exported_is_in_the_way_and_stays() {
    let bench = working_directory();
    bench.json(&EXPORT);
    let out = bench.join("out");
    let release = fs::read_link(out.join("reg.example/modules/far:2.0.0")).expect("a link");
    let other = bench.join("out2");
    let mine = other.join("reg.example/modules").join(release).join("mine");
    fs::create_dir_all(mine.parent().unwrap()).unwrap();
    fs::write(&mine, "mine").unwrap();
    let before = seen(&other);
    let said = bench.fails(&["export", "../out2", "reg.example/modules/far:2.0.0"]);
    assert!(said.contains("was not exported and stands where a release has to be"), "{said}");
    assert_eq!(seen(&other), before);
    let tofurc = finish(bench.command(["tofurc", "--for", "../out2"]));
    let said = String::from_utf8_lossy(&tofurc.stderr);
    assert!(said.contains("no provider was exported to it"), "{said}");
}

#[test]
fn a_tag_that_moved_leads_to_the_new_release() {
    let bench = working_directory();
    bench.json(&["export", "../out", "reg.example/modules/far:2.0.0"]);
    let link = bench.join("out/reg.example/modules/far:2.0.0");
    let old = fs::read_link(&link).unwrap();
    let files: [(&str, &[u8]); 1] = [("main.tf", b"# new")];
    layouts::add(&bench.store(), "reg.example", "modules/far", "2.0.0", &pack::module(&files));
    bench.json(&["export", "../out", "reg.example/modules/far:2.0.0"]);
    assert_ne!(fs::read_link(&link).unwrap(), old);
    assert_eq!(fs::read(link.join("main.tf")).unwrap(), b"# new");
    assert!(link.parent().unwrap().join(old).join("docs").is_dir(), "who uses it keeps it");
}

#[test]
fn an_export_that_is_killed_leaves_whole_packages_and_goes_on() {
    let bench = Bench::new();
    let content = pack::noise(7, 24 << 20);
    let big = [("linux_amd64", pack::provider_zip("big", "1.0.0", &content))];
    bench.publish("big", "1.0.0", &big, false);
    let out = bench.join("out");
    let words =
        ["export", "../out", "reg.example/providers/big:1.0.0", "--platform", "linux_amd64"];
    let from = format!("oci:{}", bench.store().display());
    let command = || {
        let mut command = bench.command(words);
        command.args(["--from", &from, "--oci-mirror", "reg.example/providers/${type}"]);
        command.args(["--include", "example.com/acme/*"]);
        command
    };
    let is_whole = |path: &Path| fs::read(path).is_ok_and(|bytes| bytes == content);
    let plugin = Path::new("linux_amd64/terraform-provider-big_v1.0.0");
    for wait in [10, 40, 80, 120, 160, 200, 300, 400] {
        let mut child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        let releases = fs::read_dir(out.join("reg.example/providers"));
        for entry in releases.into_iter().flatten() {
            let release = entry.unwrap().path();
            let listed = release.to_string_lossy().contains(['@', ':']);
            assert!(!listed || is_whole(&release.join(plugin)), "after {wait} ms");
        }
    }
    let output = finish(command());
    assert!(output.status.success(), "{output:?}");
    assert!(is_whole(&out.join("reg.example/providers/big:1.0.0").join(plugin)));
    assert!(!out.join(".tofufs/new").exists(), "nothing is left in the making");
}

#[test]
fn clients_work_with_an_export_and_without_any_network() {
    let bench = working_directory();
    bench.json(&EXPORT);
    let rc = finish(bench.command(["tofurc", "--for", "../out"]));
    assert!(rc.status.success(), "{rc:?}");
    let text = String::from_utf8(rc.stdout).expect("text");
    let mirror = format!("path = \"{}/plugins\"", bench.join("out").display());
    assert!(text.contains("include = [\"example.com/acme/one\"]"), "{text}");
    assert!(text.contains(&mirror) && !text.contains("--use"), "{text}");
    let file = bench.join("exported.tfrc");
    fs::write(&file, text).expect("a writable directory");
    for client in clients() {
        for _ in 0..2 {
            let mut command = Command::new(&client);
            command
                .args(["init", "-input=false", "-no-color"])
                .current_dir(bench.work())
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("HOME", bench.join("home"))
                .env("TF_CLI_CONFIG_FILE", &file)
                .env("CHECKPOINT_DISABLE", "1")
                .stdin(Stdio::null());
            let output = finish(command);
            assert!(output.status.success(), "{}: {output:?}", client.display());
            let installed = bench.work().join(".terraform/providers/example.com/acme/one/1.0.0");
            let plugin = installed.join("linux_amd64/terraform-provider-one_v1.0.0");
            assert_eq!(fs::read(plugin).expect("a plugin"), b"one 1.0.0 linux_amd64");
            bench.json(&EXPORT);
        }
        assert!(bench.lock_file().contains("h1:"), "{}", bench.lock_file());
        fs::remove_dir_all(bench.work().join(".terraform")).expect("an initialised directory");
        fs::remove_file(bench.work().join(".terraform.lock.hcl")).expect("a lock file");
    }
}

/// A disk of a file system that can share blocks; unmounted when it is dropped.
struct SharingDisk(PathBuf);

impl SharingDisk {
    fn new(bench: &Bench) -> Option<SharingDisk> {
        let (image, point) = (bench.join("image"), bench.join("disk"));
        fs::File::create(&image).and_then(|file| file.set_len(256 << 20)).expect("a sparse file");
        fs::create_dir(&point).expect("a writable directory");
        let run = |program: &str, words: &[&Path]| {
            let mut command = Command::new(program);
            let ended = command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
            ended.is_ok_and(|status| status.success())
        };
        let options = [Path::new("-o"), Path::new("loop")];
        if run("mkfs.btrfs", &[&image]) && run("mount", &[options[0], options[1], &image, &point]) {
            return Some(SharingDisk(point));
        }
        skip("no file system that shares blocks can be mounted here (root, mkfs.btrfs)");
        None
    }
}

impl Drop for SharingDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn blocks_are_shared_with_the_cache_and_the_cache_is_out_of_reach() {
    let bench = Bench::new();
    let Some(disk) = SharingDisk::new(&bench) else { return };
    let content = pack::noise(3, 8 << 20);
    let big = [("linux_amd64", pack::provider_zip("big", "1.0.0", &content))];
    bench.publish("big", "1.0.0", &big, false);
    let (out, cache) = (disk.0.join("out"), disk.0.join("cache"));
    let (out_word, cache_word) = (out.to_str().unwrap(), cache.to_str().unwrap());
    let reference = "reg.example/providers/big:1.0.0";
    let words = ["export", out_word, reference, "--cache-dir", cache_word];
    let words: Vec<&str> = words.into_iter().chain(["--platform", "linux_amd64"]).collect();
    bench.json(&words);
    let plugin = out.join(reference).join("linux_amd64").join("terraform-provider-big_v1.0.0");
    assert_eq!(fs::read(&plugin).unwrap(), content);
    let blocks = Command::new("filefrag").arg("-v").arg(&plugin).output();
    match blocks {
        Ok(blocks) if blocks.status.success() => {
            let said = String::from_utf8_lossy(&blocks.stdout);
            assert!(said.contains("shared"), "{said}");
        }
        _ => skip("filefrag is not installed"),
    }
    // Whoever writes to the export has a copy of his own from then on.
    fs::write(&plugin, b"changed").unwrap();
    bench.json(&words);
    assert_eq!(fs::read(&plugin).unwrap(), content);
}
