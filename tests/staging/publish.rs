//! Publishing what is staged: `mv staging/X X` and `tofufs commit`.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;

use super::{Bed, HOST, errno, names, read};
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::hostile::{Behaviour, Hostile, Seen, all};
use crate::support::mount::{Mount, Options, finish};
use crate::support::{pack, wait_until};

/// Stages a module of one file.
fn stage(mount: &Mount, path: &str, text: &str) -> std::path::PathBuf {
    let dir = mount.join("staging").join(path);
    fs::create_dir_all(dir.join("modules/inner")).unwrap();
    fs::write(dir.join("main.tf"), text).unwrap();
    fs::write(dir.join("modules/inner/main.tf"), "# inner\n").unwrap();
    dir
}

fn commit(mount: &Mount, arguments: &[&str], path: &Path) -> Output {
    let mut command = mount.command("commit");
    command.args(arguments).arg(path);
    finish(command)
}

fn line(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn mv(from: &Path, to: &Path) -> Output {
    let mut command = Command::new("mv");
    command.arg(from).arg(to).env("LC_ALL", "C");
    finish(command)
}

fn staged(mount: &Mount) -> Vec<(String, String)> {
    let status = mount.status();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let staged = status["staged"].as_array().unwrap().iter();
    staged.map(|staged| (text(&staged["path"]), text(&staged["state"]))).collect()
}

/// A mount of a registry server that takes everything from anybody, or of a store; and the name of
/// the registry.
fn beds() -> Vec<(Mount, String, Box<dyn std::any::Any>)> {
    let mut beds: Vec<(Mount, String, Box<dyn std::any::Any>)> = Vec::new();
    if let Some(bed) = Bed::start(Options::new()) {
        beds.push((bed.mount, HOST.to_owned(), Box::new(bed._store)));
    }
    if let Some(registry) = DockerRegistry::start(Access::Anybody, false) {
        let host = registry.host();
        if let Some(mount) = Mount::start(&[&host], Options::new().args(["--plain-http", &host])) {
            beds.push((mount, host, Box::new(registry)));
        }
    }
    beds
}

#[test]
fn a_copy_and_a_move_publish() {
    for (mount, host, _registry) in beds() {
        let source = tempfile::tempdir().unwrap();
        fs::create_dir(source.path().join("network")).unwrap();
        fs::write(source.path().join("network/main.tf"), "variable \"a\" {}\n").unwrap();
        let repo = mount.join("staging").join(&host).join("acme/network");
        fs::create_dir_all(&repo).unwrap();
        // By the directory to move into, by the release's own path, and by the reference in one
        // component.
        for (tag, name, target) in [
            ("1.3.0", "1.3.0", "acme/network/"),
            ("1.4.0", "1.4.0", "acme/network/1.4.0"),
            ("1.5.0", "network:1.5.0", "acme/"),
        ] {
            let staged = if name == tag { repo.join(tag) } else { repo.with_file_name(name) };
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(source.path().join("network")).arg(&staged);
            assert!(finish(copy).status.success());
            let moved = mv(&staged, &mount.join(&host).join(target));
            assert!(
                moved.status.success() && moved.stderr.is_empty(),
                "{moved:?}\n{}",
                mount.log()
            );
            assert!(!staged.exists());
            for path in
                [format!("acme/network/{tag}/main.tf"), format!("acme/network:{tag}/main.tf")]
            {
                assert_eq!(read(&mount.join(&host).join(path)), "variable \"a\" {}\n");
            }
            assert!(names(&mount.join(&host).join("acme/network")).contains(&tag.to_owned()));
        }
        // Equal content has one digest.
        let digest =
            |tag: &str| mount.xattr(format!("{host}/acme/network/{tag}"), "user.oci.digest");
        assert!(digest("1.3.0").is_some() && digest("1.3.0") == digest("1.5.0"));
        assert!(staged(&mount).is_empty());
    }
}

#[test]
fn a_commit_says_what_it_published_and_says_it_again() {
    for (mount, host, _registry) in beds() {
        let dir = stage(&mount, &format!("{host}/acme/net/1.0.0"), "# one\n");
        assert_eq!(staged(&mount), [(format!("staging/{host}/acme/net/1.0.0"), "open".to_owned())]);
        let first =
            line(&commit(&mount, &["--annotation", "org.opencontainers.image.licenses=MIT"], &dir));
        assert!(first.starts_with(&format!("{host}/acme/net:1.0.0@sha256:")), "{first}");
        let annotation = "user.oci.annotation.org.opencontainers.image.licenses";
        let tag = format!("{host}/acme/net/1.0.0");
        drop(names(&mount.join(&tag)));
        assert_eq!(mount.xattr(&tag, annotation).as_deref(), Some("MIT"));
        assert_eq!(line(&commit(&mount, &[], &dir)), first);
        let again: Value = serde_json::from_str(&line(&commit(&mount, &["--json"], &dir))).unwrap();
        assert_eq!(again["reference"], format!("{host}/acme/net:1.0.0"));
        assert!(first.ends_with(again["digest"].as_str().unwrap()) && again["uploaded_bytes"] == 0);
        // All that is staged below a path, a line for each.
        stage(&mount, &format!("{host}/acme/net/2.0.0"), "# two\n");
        stage(&mount, &format!("{host}/acme/other:1"), "# other\n");
        let lines = line(&commit(&mount, &[], &mount.join("staging").join(&host)));
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert_eq!(read(&mount.join(&host).join("acme/other/1/main.tf")), "# other\n");
        let nothing =
            said(&commit(&mount, &[], &mount.join("staging").join(&host).join("acme/nothing/1")));
        assert!(nothing.contains("nothing is staged there"), "{nothing}");
        let elsewhere = said(&commit(&mount, &[], &mount.join(&host)));
        assert!(elsewhere.contains("staging"), "{elsewhere}");
    }
}

#[test]
fn a_tag_keeps_what_it_holds() {
    for (mount, host, _registry) in beds() {
        let path = format!("{host}/acme/net/1.0.0");
        let (staged_dir, released) = (mount.join("staging").join(&path), mount.join(&path));
        let first = line(&commit(&mount, &[], &stage(&mount, &path, "# one\n")));
        // The same content again: nothing to do, by either way.
        stage(&mount, &path, "# one\n");
        let moved = mv(&staged_dir, released.parent().unwrap());
        assert!(moved.status.success(), "{moved:?}");
        // Other content is refused with both digests, and stays.
        stage(&mount, &path, "# other\n");
        assert_eq!(errno(fs::rename(&staged_dir, &released)), libc::EEXIST);
        let moved = mv(&staged_dir, released.parent().unwrap());
        assert!(String::from_utf8_lossy(&moved.stderr).contains("File exists"), "{moved:?}");
        let refused = said(&commit(&mount, &[], &staged_dir));
        let before = first.split_once('@').unwrap().1;
        assert!(refused.contains(before) && refused.matches("sha256:").count() == 2, "{refused}");
        assert_eq!(
            (read(&staged_dir.join("main.tf")), read(&released.join("main.tf"))),
            ("# other\n".into(), "# one\n".into())
        );
        assert_eq!(staged(&mount), [(format!("staging/{path}"), "failed".to_owned())]);
        // Inside a release nothing is published.
        assert_eq!(errno(fs::rename(&staged_dir, released.join("modules/new"))), libc::EEXIST);
        // Unless it was asked for; and who looks sees it at once.
        let second = line(&commit(&mount, &["--allow-overwrite"], &staged_dir));
        assert_ne!(second, first);
        assert_eq!(read(&released.join("main.tf")), "# other\n");
    }
}

#[test]
fn a_release_is_moved_to_its_own_path_only() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let (mount, host) = (&bed.mount, HOST);
    let dir = stage(mount, &format!("{host}/acme/net/1.0.0"), "# one\n");
    fs::create_dir_all(mount.join(format!("staging/{host}/acme/other"))).unwrap();
    let root = mount.path();
    let cases = [
        (dir.clone(), format!("{host}/acme/net/1.0.1")),
        (dir.clone(), format!("{host}/acme/other/1.0.0")),
        (dir.clone(), format!("{host}/acme/net:1.0.0")),
        (dir.join("modules"), format!("{host}/acme/net/modules")),
        (dir.join("main.tf"), format!("{host}/acme/net/main.tf")),
        (root.join(format!("staging/{host}/acme/net")), format!("{host}/acme/net")),
        (dir.clone(), "1.0.0".to_owned()),
    ];
    for (from, to) in cases {
        let said = fs::rename(&from, root.join(&to)).unwrap_err();
        assert_eq!(said.raw_os_error(), Some(libc::EPERM), "{} to {to}", from.display());
    }
    assert_eq!(read(&dir.join("main.tf")), "# one\n");
    // `mv` asks for this first.
    let target = root.join(format!("{host}/acme/net/1.0.0"));
    renameat_with(CWD, &dir, CWD, &target, RenameFlags::NOREPLACE).unwrap();
    assert_eq!(read(&target.join("main.tf")), "# one\n");
}

/// R60 of names: what cannot be a tag, a repository or a release says so, and stays.
#[test]
fn what_makes_no_release_is_refused_and_kept() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let empty = bed.dir("acme/net/1.0.0");
    assert_eq!(errno(fs::rename(&empty, bed.mount.join(HOST).join("acme/net/1.0.0"))), libc::EPERM);
    for (path, rule) in
        [("acme/net/.git", "not a tag"), ("Acme/net/1.0.0", "not a repository name")]
    {
        let dir = stage(&bed.mount, &format!("{HOST}/{path}"), "# one\n");
        let refused = said(&commit(&bed.mount, &[], &dir));
        assert!(refused.contains(rule), "{refused}");
        assert_eq!(read(&dir.join("main.tf")), "# one\n");
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn an_open_writer_keeps_a_release_from_being_sealed() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let dir = stage(&bed.mount, &format!("{HOST}/acme/net/1.0.0"), "# one\n");
    let target = bed.mount.join(HOST).join("acme/net/1.0.0");
    let writer = OpenOptions::new().append(true).open(dir.join("main.tf")).unwrap();
    assert_eq!(errno(fs::rename(&dir, &target)), libc::EBUSY);
    let refused = said(&commit(&bed.mount, &[], &dir));
    assert!(refused.contains("main.tf is open for writing"), "{refused}");
    drop(writer);
    // The file's last release comes without anybody waiting for it.
    let _reader = fs::File::open(dir.join("main.tf")).unwrap();
    assert!(
        wait_until(Duration::from_secs(10), || fs::rename(&dir, &target).is_ok()),
        "{}",
        bed.mount.log()
    );
}

#[test]
fn what_is_staged_again_under_a_name_is_new() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let path = format!("{HOST}/acme/net/1.0.0");
    let dir = stage(&bed.mount, &path, "# one\n");
    let (reader, inode) =
        (fs::File::open(dir.join("main.tf")).unwrap(), fs::metadata(&dir).unwrap().ino());
    assert_eq!(read(&dir.join("main.tf")), "# one\n");
    line(&commit(&bed.mount, &[], &dir));
    assert_eq!(errno(fs::metadata(&dir)), libc::ENOENT);
    stage(&bed.mount, &path, "# a second one\n");
    assert_eq!(read(&dir.join("main.tf")), "# a second one\n");
    assert_ne!(fs::metadata(&dir).unwrap().ino(), inode);
    let mut held = reader;
    assert_eq!(std::io::read_to_string(&mut held).unwrap(), "# one\n");
}

#[test]
fn a_stage_shows_its_repository_without_a_request() {
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    let host = registry.host();
    let Some(mount) = Mount::start(&[&host], Options::new().args(["--plain-http", &host])) else {
        return;
    };
    let before = mount.requests();
    // The kernel remembers no absence of it.
    assert!(!mount.join(&host).join("acme.team/net").exists());
    let asked = mount.requests();
    assert!(asked.0 > before.0);
    fs::create_dir_all(mount.join("staging").join(&host).join("acme.team/net/1.0.0")).unwrap();
    for shown in ["acme.team", "acme.team/net"] {
        assert!(mount.join(&host).join(shown).is_dir(), "{shown}");
    }
    assert_eq!(mount.requests(), asked);
    assert!(names(&mount.join(&host)).contains(&"acme.team".to_owned()));
    fs::remove_dir_all(mount.join("staging").join(&host).join("acme.team")).unwrap();
    assert!(!mount.join(&host).join("acme.team").exists());
}

#[test]
fn a_store_takes_registries_that_it_does_not_hold_yet() {
    let Some(bed) = Bed::start(Options::new()) else { return };
    let path = "new.example:5000/acme/net/1.0.0";
    let dir = stage(&bed.mount, path, "# one\n");
    assert!(names(bed.mount.path()).contains(&"new.example:5000".to_owned()));
    let moved = mv(&dir, bed.mount.join(path).parent().unwrap());
    assert!(moved.status.success(), "{moved:?}\n{}", bed.mount.log());
    assert_eq!(read(&bed.mount.join(path).join("main.tf")), "# one\n");
    assert!(bed._store.path().join("new.example:5000/acme/net/oci-layout").is_file());
}

#[test]
fn a_read_only_mount_publishes_nothing() {
    let Some(bed) = Bed::start(Options::new().args(["--read-only"])) else { return };
    let refused = said(&commit(&bed.mount, &[], &bed.mount.join("staging").join(HOST)));
    assert!(refused.contains("read-only"), "{refused}");
}

/// O35
#[test]
fn of_two_commits_to_one_tag_one_wins() {
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    let host = registry.host();
    let start = || Mount::start(&[&host], Options::new().args(["--plain-http", &host]));
    let (Some(a), Some(b)) = (start(), start()) else { return };
    let path = format!("{host}/acme/net/1.0.0");
    let mounts = [(&a, "# one\n"), (&b, "# another\n")];
    let outputs = std::thread::scope(|scope| {
        let threads = mounts.map(|(mount, text)| {
            let dir = stage(mount, &path, text);
            scope.spawn(move || commit(mount, &[], &dir))
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let won = outputs.iter().filter(|output| output.status.success()).count();
    assert!(won >= 1, "{outputs:?}");
    // What was told to have been published without a word of another is what the tag holds, or the
    // loser was told.
    for ((mount, text), output) in mounts.iter().zip(&outputs) {
        if !output.status.success() {
            assert_eq!(said(output).matches("sha256:").count(), 2, "{output:?}");
            assert_eq!(read(&mount.join("staging").join(&path).join("main.tf")), *text);
        }
    }
}

/// A registry that takes a while for each answer.
fn slow_registry(pause: Duration) -> Hostile {
    let server = Hostile::start();
    let wait = Behaviour::edit(move |_, reply| {
        std::thread::sleep(pause);
        reply
    });
    server.rule(|seen: &Seen| seen.path != "/v2/" && all()(seen), wait);
    server
}

#[test]
fn a_rename_waits_for_the_deadline_and_a_repeat_joins_the_upload() {
    let server = slow_registry(Duration::from_millis(500));
    let host = server.host();
    let options = Options::new().args(["--plain-http", &host, "--deadline", "1500ms"]);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let path = format!("{host}/acme/net/1.0.0");
    let (dir, target) = (stage(&mount, &path, "# one\n"), mount.join(&path));
    assert!(target.parent().unwrap().is_dir());
    assert_eq!(errno(fs::rename(&dir, &target)), libc::ETIMEDOUT, "{}", mount.log());
    // What is on its way is sealed: it is read, and changed by nobody.
    if staged(&mount) == [(format!("staging/{path}"), "uploading".to_owned())] {
        let changed = fs::write(dir.join("main.tf"), "");
        assert!(
            changed.is_err_and(|e| matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOENT)))
        );
    }
    // Who asks after it has ended finds nothing to move.
    let ended = || {
        fs::rename(&dir, &target).map_or_else(|e| e.raw_os_error() == Some(libc::ENOENT), |()| true)
    };
    assert!(wait_until(Duration::from_secs(40), ended), "{}", mount.log());
    let sent = |method: &str, part: &str| {
        server
            .requests()
            .iter()
            .filter(|seen| seen.method == method && seen.path.contains(part))
            .count()
    };
    assert_eq!(sent("PUT", "/manifests/1.0.0"), 1);
    server.behave();
    assert_eq!(read(&target.join("main.tf")), "# one\n");
}

/// O14, O15
#[test]
fn a_commit_that_was_killed_is_finished_by_the_next_one() {
    let server = slow_registry(Duration::from_millis(300));
    let host = server.host();
    let Some(mut mount) = Mount::start(&[&host], Options::new().args(["--plain-http", &host]))
    else {
        return;
    };
    let path = format!("{host}/acme/net/1.0.0");
    let dir = stage(&mount, &path, "# one\n");
    let mut command = mount.command("commit");
    let mut committing = command
        .arg(&dir)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let began = || server.requests().iter().any(|seen| seen.method == "POST");
    assert!(wait_until(Duration::from_secs(30), began), "{}", mount.log());
    mount.kill();
    assert!(!committing.wait().unwrap().success());
    server.behave();
    assert!(mount.again().status.success());
    assert_eq!(staged(&mount), [(format!("staging/{path}"), "failed".to_owned())]);
    assert_eq!(read(&dir.join("modules/inner/main.tf")), "# inner\n");
    let done = line(&commit(&mount, &[], &dir));
    assert!(done.starts_with(&format!("{host}/acme/net:1.0.0@sha256:")));
    assert_eq!(read(&mount.join(&path).join("main.tf")), "# one\n");
}

#[test]
fn a_providers_zips_are_sent_when_they_are_closed_and_published_as_they_are() {
    for (mount, host, _registry) in beds() {
        let zips = ["linux_amd64", "darwin_arm64"].map(|platform| {
            let zip = pack::provider_zip("demo", "1.0.0", platform.as_bytes());
            (platform, format!("terraform-provider-demo_1.0.0_{platform}.zip"), zip)
        });
        let dir = mount.join("staging").join(&host).join("acme/demo/1.0.0");
        fs::create_dir_all(&dir).unwrap();
        for (_, name, zip) in &zips {
            // As clients write it: under another name first.
            fs::write(dir.join(format!(".{name}")), zip).unwrap();
            fs::rename(dir.join(format!(".{name}")), dir.join(name)).unwrap();
        }
        // A store counts no requests.
        if host != HOST {
            let sent =
                || mount.status()["requests"]["blob"].as_u64().is_some_and(|blobs| blobs >= 4);
            assert!(wait_until(Duration::from_secs(30), sent), "{}", mount.log());
        }
        let moved = mv(&dir, &mount.join(&host).join("acme/demo/"));
        assert!(moved.status.success(), "{moved:?}\n{}", mount.log());
        let release = mount.join(&host).join("acme/demo/1.0.0");
        for (platform, _, zip) in &zips {
            assert_eq!(fs::read(release.join(format!("{platform}.zip"))).unwrap(), *zip);
            assert_eq!(
                read(&release.join(platform).join("terraform-provider-demo_v1.0.0")),
                *platform
            );
            let h1 = mount.xattr(format!("{host}/acme/demo/1.0.0/{platform}.zip"), "user.tofu.h1");
            assert_eq!(h1.as_deref(), Some(pack::h1(zip).as_str()));
        }
    }
}
