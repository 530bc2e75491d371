//! Names and directory entries: what is found, what is absent without a request, and how
//! directories are read.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::process::Command;

use rustix::fs::{Dir, Mode, OFlags, open};
use rustix::io::Errno;

use crate::support::hostile::{Behaviour, Hostile, Reply, path};
use crate::support::mount::{Mount, Options};
use crate::support::{pack, skip};
use crate::{errno, main_tf, module};

fn mounted(server: &Hostile, arguments: &[&str]) -> Option<Mount> {
    let host = server.host();
    Mount::start(&[&host], Options::new().args(["--plain-http", &host]).args(arguments))
}

#[test]
fn a_repository_may_have_the_longest_name() {
    let server = Hostile::start();
    let longest = vec!["a".repeat(50); 5].join("/") + "b";
    assert_eq!(longest.len(), 255);
    for repo in [longest.as_str(), &longest[..254]] {
        server.publish(repo, "1.0.0", &module(repo));
    }
    let Some(mount) = mounted(&server, &[]) else { return };
    for _ in 0..2 {
        for repo in [longest.as_str(), &longest[..254]] {
            for separator in [":", "/"] {
                assert_eq!(
                    main_tf(&mount, &format!("{}/{repo}{separator}1.0.0", server.host())),
                    repo
                );
            }
        }
    }
}

#[test]
fn what_programs_probe_for_is_absent_without_a_request() {
    let server = Hostile::start();
    let host = server.host();
    server.publish("acme/net", "1.0.0", &module("net"));
    let Some(mount) = mounted(&server, &[]) else { return };
    main_tf(&mount, &format!("{host}/acme/net/1.0.0"));
    let before = server.requests().len();
    let digest = module("net").digest().to_string();
    let never = [
        ".git",
        ".hidden",
        "node modules",
        "Main.tf@",
        "-x",
        "net@",
        "net:",
        "net:.x",
        "net:-x",
        "net@sha256:00",
    ]
    .map(str::to_owned);
    let spelled = [
        format!("net:{}", "a".repeat(129)),
        format!("net:1.0.0@{digest}"),
        format!("net@{}", digest.replace("sha256:", "SHA256:")),
        format!("net@sha256:{}", digest["sha256:".len()..].to_uppercase()),
        "net%3A1.0.0".to_owned(),
        "Net:1.0.0".to_owned(),
    ];
    for dir in [host.clone(), format!("{host}/acme"), format!("{host}/acme/net")] {
        for name in never.iter().chain(&spelled) {
            let found = fs::symlink_metadata(mount.join(&dir).join(name));
            assert_eq!(errno(found), Some(Errno::NOENT), "{dir}/{name}");
        }
    }
    for name in
        ["package.json", "node_modules", "ghcr.io", "127.0.0.1:1", "localhost", "mirror", "plugins"]
    {
        assert_eq!(errno(fs::symlink_metadata(mount.join(name))), Some(Errno::NOENT), "{name}");
    }
    assert_eq!(server.requests().len(), before);
    assert_eq!(main_tf(&mount, &format!("{host}/acme/net@{digest}")), "net");
    let unsupported = fs::metadata(mount.join(format!("{host}/acme/net@md5:00")));
    assert_eq!(errno(unsupported), Some(Errno::OPNOTSUPP));
}

/// The number and name of every entry, in the order in which they come.
fn entries(dir: &mut Dir) -> Vec<(u64, String)> {
    let entries = dir.map(|entry| entry.expect("an entry"));
    entries.map(|e| (e.ino(), e.file_name().to_string_lossy().into_owned())).collect()
}

#[test]
fn a_directory_is_read_in_order_from_any_place_and_knows_its_parent() {
    let server = Hostile::start();
    let files: Vec<String> = (0..3_000).map(|n| format!("file-{n:05}")).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|name| (name.as_str(), &b""[..])).collect();
    server.publish("acme/wide", "1.0.0", &pack::module(&files));
    let Some(mount) = mounted(&server, &[]) else { return };
    let release = mount.join(format!("{}/acme/wide/1.0.0", server.host()));
    let number = |path: &std::path::Path| fs::metadata(path).expect("a directory").ino();
    let descriptor =
        open(&release, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    let mut dir = Dir::read_from(&descriptor).expect("a directory");
    let all = entries(&mut dir);
    assert_eq!(all[0], (number(&release), ".".to_owned()));
    assert_eq!(all[1], (number(release.parent().expect("a repository")), "..".to_owned()));
    let names: Vec<&str> = all[2..].iter().map(|(_, name)| name.as_str()).collect();
    assert!(names.is_sorted() && names.len() == files.len());
    let numbers: BTreeSet<u64> = all[2..].iter().map(|(ino, _)| *ino).collect();
    assert_eq!(numbers.len(), files.len(), "each has a number of its own");
    for (listed, entry) in fs::read_dir(&release)
        .expect("a directory")
        .map(|e| e.expect("an entry"))
        .enumerate()
        .step_by(500)
    {
        assert_eq!(entry.ino(), entry.metadata().expect("an entry").ino(), "{listed}");
    }
    for path in [mount.join(server.host()), mount.join(format!("{}/acme", server.host()))] {
        let mut dir =
            Dir::read_from(open(&path, OFlags::RDONLY, Mode::empty()).expect("a directory"))
                .expect("one");
        assert_eq!(
            entries(&mut dir)[1].0,
            number(path.parent().expect("above it")),
            "{}",
            path.display()
        );
    }
    dir.rewind();
    assert_eq!(entries(&mut dir).len(), all.len());
}

#[test]
fn a_release_can_be_mounted_elsewhere_and_under_an_overlay() {
    let server = Hostile::start();
    server.publish("acme/net", "1.0.0", &module("below"));
    let Some(mount) = mounted(&server, &[]) else { return };
    let release = mount.join(format!("{}/acme/net/1.0.0", server.host()));
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["bound", "upper", "work", "merged"] {
        fs::create_dir(dir.path().join(name)).expect("a directory");
    }
    let script = "mount --bind \"$1\" bound || exit 77
        test \"$(cat bound/main.tf)\" = below && test \"$(ls bound)\" = \"$(ls \"$1\")\" || exit 1
        mount -t overlay overlay -o lowerdir=bound,upperdir=upper,workdir=work merged || exit 77
        printf above >> merged/main.tf && mv merged/modules merged/moved && cat merged/moved/inner/main.tf || exit 2
        test \"$(cat merged/main.tf)\" = belowabove && test \"$(cat bound/main.tf)\" = below || exit 3";
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "slave", "bash", "-c", script, "bash"])
        .arg(&release)
        .current_dir(dir.path())
        .output()
        .expect("unshare runs");
    match output.status.code() {
        Some(0) => assert_eq!(output.stdout, b"# inner\n"),
        Some(77) => skip(&format!(
            "nothing can be mounted here: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        _ if output.stderr.starts_with(b"unshare:") => skip("there are no mount namespaces here"),
        _ => panic!("{output:?}\n{}", mount.log()),
    }
}

// A passage is no claim, and what is denied is no absence.
#[test]
fn a_passage_is_empty_unlisted_and_ends_at_what_a_registry_refuses() {
    let server = Hostile::start();
    let host = server.host();
    server.publish("acme/secret/deep", "1.0.0", &module("deep"));
    for (at, status) in [("/v2/_catalog", 401), ("/v2/acme/secret/tags/list", 401)] {
        server.rule(path(at), Behaviour::Answer(Reply::error(status, "DENIED")));
    }
    let Some(mount) = mounted(&server, &[]) else { return };
    let at = |name: &str| mount.join(&host).join(name);
    assert_eq!(fs::read_dir(at("acme/nothing")).expect("a passage").count(), 0);
    assert_eq!(errno(fs::metadata(at("acme/nothing/1.0.0"))), Some(Errno::NOENT));
    assert_eq!(errno(fs::metadata(at("acme/no.passage"))), Some(Errno::NOENT));
    assert_eq!(errno(fs::read_dir(at("acme/secret"))), Some(Errno::ACCESS));
    assert_eq!(errno(fs::metadata(at("acme/secret/1.0.0"))), Some(Errno::ACCESS));
    assert_eq!(main_tf(&mount, &format!("{host}/acme/secret/deep/1.0.0")), "deep");
    let listed: Vec<_> = fs::read_dir(at("acme"))
        .expect("a directory")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    assert_eq!(listed, ["secret"], "used, as what lies below it was; passages are not listed");
}
