//! Findings about hosts that are made of temporary files, and the reading of what is to be looked
//! at.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::host::Surroundings;
use super::*;
use crate::cli::tofurc::Tofurc;
use crate::fuse::session::mountinfo;
use crate::registry::transport::Authorities;

/// A host where everything is as it should be, below `dir`.
fn sound(dir: &Path) -> Surroundings {
    for name in ["cache", "state", "bin", "boot"] {
        fs::create_dir_all(dir.join(name)).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::write(dir.join("fuse"), b"").unwrap();
    let table = format!("22 1 8:1 / {} rw - ext4 /dev/sda1 rw\n", dir.display());
    Surroundings {
        device: dir.join("fuse"),
        fuse_conf: dir.join("fuse.conf"),
        search_path: dir.join("bin").into(),
        kernel: "6.9.0-1-amd64".to_owned(),
        boot: dir.join("boot"),
        uid: rustix::process::geteuid().as_raw(),
        can_mount: true,
        mounts: mountinfo::parse(table.as_bytes()),
        own_mounts: Vec::new(),
        cache_dir: dir.join("cache"),
        cache_size: 0,
        state_dir: dir.join("state"),
        now: SystemTime::now(),
        made: Some(SystemTime::now()),
        authorities: Authorities { usable: 140, errors: Vec::new() },
        variables: Vec::new(),
        configuration: Ok(Tofurc::default()),
    }
}

fn temporary() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

/// The finding about `subject`: its mark, and what it says with its remedy.
fn found(surroundings: &Surroundings, subject: &str) -> (Mark, String) {
    let findings = surroundings.findings();
    let finding = findings
        .iter()
        .rfind(|finding| finding.subject == subject)
        .unwrap_or_else(|| panic!("{findings:?}"));
    (finding.mark, format!("{}; {}", finding.found, finding.remedy.as_deref().unwrap_or_default()))
}

#[track_caller]
fn says(surroundings: &Surroundings, subject: &str, mark: Mark, words: &str) {
    let (got, text) = found(surroundings, subject);
    assert!(
        got == mark && text.contains(words),
        "{subject}: {got:?} {text:?}; wanted {mark:?} {words:?}"
    );
}

#[test]
fn a_sound_host_has_nothing_to_complain_of() {
    let (_keep, dir) = temporary();
    let findings = sound(&dir).findings();
    assert!(findings.iter().all(|finding| finding.mark == Mark::Ok), "{findings:?}");
}

#[test]
fn a_missing_device_and_a_weak_fusermount3_are_problems_with_remedies() {
    let (_keep, dir) = temporary();
    let mut host = Surroundings { device: dir.join("nothing"), can_mount: false, ..sound(&dir) };
    says(&host, "FUSE", Mark::Problem, "modprobe fuse");
    says(&host, "mounting", Mark::Problem, "install the package fuse3");
    fs::write(dir.join("bin/fusermount3"), b"").unwrap();
    says(&host, "mounting", Mark::Problem, "not set-uid root");
    says(&host, "allow_other", Mark::Note, "user_allow_other");
    fs::write(&host.fuse_conf, "# user_allow_other\n").unwrap();
    says(&host, "allow_other", Mark::Note, "user_allow_other");
    fs::write(&host.fuse_conf, "mount_max = 10\nuser_allow_other\n").unwrap();
    says(&host, "allow_other", Mark::Ok, "has user_allow_other");
    host.can_mount = true;
    says(&host, "mounting", Mark::Ok, "mount(2)");
}

#[test]
fn passthrough_needs_a_kernel_its_option_and_the_privilege() {
    let (_keep, dir) = temporary();
    let mut host = sound(&dir);
    says(&host, "passthrough", Mark::Ok, "6.9.0-1-amd64");
    host.can_mount = false;
    says(&host, "passthrough", Mark::Note, "CAP_SYS_ADMIN");
    host.can_mount = true;
    fs::write(
        dir.join("boot/config-6.9.0-1-amd64"),
        "CONFIG_FUSE_FS=y\n# CONFIG_FUSE_PASSTHROUGH is not set\n",
    )
    .unwrap();
    says(&host, "passthrough", Mark::Note, "built without passthrough");
    host.kernel = "6.8.12".to_owned();
    says(&host, "passthrough", Mark::Note, "6.9 or newer");
    host.kernel = "5.15.0".to_owned();
    says(&host, "passthrough", Mark::Note, "5.15.0");
    host.kernel = "unheard of".to_owned();
    says(&host, "passthrough", Mark::Note, "unknown");
}

#[test]
fn directories_have_to_be_ones_that_nobody_else_writes_to() {
    let (_keep, dir) = temporary();
    let mut host = sound(&dir);
    fs::set_permissions(dir.join("cache"), fs::Permissions::from_mode(0o777)).unwrap();
    says(&host, "cache", Mark::Problem, "chmod go-w");
    host.uid += 1;
    says(&host, "state", Mark::Problem, "belongs to the user");
    host.uid -= 1;
    host.state_dir = dir.join("state/a/b");
    says(&host, "state", Mark::Ok, "will be made");
    host.state_dir = dir.join("fuse/a");
    says(&host, "state", Mark::Problem, "not a directory");
    assert!(!dir.join("state/a").exists() && !dir.join("cache/v1").exists(), "nothing is made");
}

#[test]
fn the_caches_disk_is_judged_by_its_type_and_room() {
    let (_keep, dir) = temporary();
    let mut host = sound(&dir);
    for (kind, mark, words) in [
        ("ext4", Mark::Ok, "ext4"),
        ("overlay", Mark::Note, "no passthrough on it"),
        ("tmpfs", Mark::Note, "lost at a reboot"),
        ("nfs4", Mark::Note, "local disk"),
        ("fuse.tofufs", Mark::Problem, "inside a mount"),
    ] {
        let table = format!("22 1 8:1 / {} rw - {kind} /dev/sda1 rw\n", dir.display());
        host.mounts = mountinfo::parse(table.as_bytes());
        says(&host, "cache's disk", mark, words);
    }
    says(&host, "space", Mark::Ok, "free");
    host.cache_size = u64::MAX;
    says(&host, "space", Mark::Note, "--cache-size");
}

#[test]
fn a_link_to_the_cache_is_judged_by_where_it_leads() {
    let (_keep, dir) = temporary();
    let mut host = sound(&dir);
    fs::create_dir(dir.join("elsewhere")).unwrap();
    symlink(dir.join("elsewhere"), dir.join("link")).unwrap();
    let mut table = host.mounts.clone();
    table.extend(mountinfo::parse(
        format!("23 22 0:9 / {}/elsewhere rw - tmpfs x rw\n", dir.display()).as_bytes(),
    ));
    host.mounts = table;
    host.cache_dir = dir.join("link/tofufs");
    says(&host, "cache's disk", Mark::Note, "tmpfs");
}

#[test]
fn a_clock_before_the_programs_making_is_a_problem() {
    let (_keep, dir) = temporary();
    let mut host = sound(&dir);
    host.made = Some(host.now + Duration::from_secs(7 * 86_400));
    says(&host, "clock", Mark::Problem, "future");
    host.made = None;
    host.now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    says(&host, "clock", Mark::Problem, "never set");
}

#[test]
fn authorities_and_proxies_are_named_and_proxies_passwords_are_not() {
    let (_keep, dir) = temporary();
    let mut host = sound(&dir);
    host.variables = vec![
        ("SSL_CERT_FILE", "/ca.pem".into()),
        ("HTTPS_PROXY", "http://user:canary@proxy.example:3128/".into()),
        ("ALL_PROXY", "user:canary@proxy.example".into()),
        ("HTTP_PROXY", "user:canary".into()),
        ("NO_PROXY", "localhost,.example".into()),
    ];
    says(&host, "authorities", Mark::Ok, "140 from SSL_CERT_FILE=/ca.pem");
    says(&host, "HTTPS_PROXY", Mark::Ok, "http://proxy.example:3128 (with a user name)");
    says(&host, "ALL_PROXY", Mark::Ok, "http://proxy.example (with a user name)");
    says(&host, "NO_PROXY", Mark::Ok, "localhost,.example");
    let findings = format!("{:?}", host.findings());
    assert!(!findings.contains("canary"), "{findings}");
    host.authorities = Authorities { usable: 0, errors: vec!["no such file".to_owned()] };
    says(&host, "authorities", Mark::Problem, "no such file");
}

#[test]
fn the_configuration_is_named_with_its_warnings() {
    let (_keep, dir) = temporary();
    let mut host = sound(&dir);
    let tofurc = Tofurc { files: vec!["/home/u/.tofurc".into()], ..Tofurc::default() };
    host.configuration = Ok(tofurc.clone());
    says(&host, "configuration", Mark::Ok, "/home/u/.tofurc");
    host.configuration = Ok(Tofurc { warnings: vec!["chmod 600 it".to_owned()], ..tofurc });
    says(&host, "configuration", Mark::Note, "chmod 600 it");
    host.configuration = Err("line 3: no".to_owned());
    says(&host, "configuration", Mark::Problem, "line 3: no");
}

#[test]
fn what_is_looked_at_is_a_registry_a_repository_or_a_release() {
    let digest = format!("sha256:{}", "a".repeat(64));
    for text in [
        "ghcr.io",
        "localhost:5000",
        "ghcr.io/acme/net",
        "localhost:5000/acme/net",
        "ghcr.io/acme/net:1.2.0",
        &format!("localhost:5000/acme/net@{digest}"),
    ] {
        assert_eq!(RegistryPart::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(
        RegistryPart::parse("oci://ghcr.io/acme/net?tag=1.2.0").unwrap().to_string(),
        "ghcr.io/acme/net:1.2.0"
    );
    assert_eq!(
        RegistryPart::parse("oci://ghcr.io/acme/net").unwrap().to_string(),
        "ghcr.io/acme/net"
    );
    for text in [
        "",
        "ghcr",
        "oci:/srv/store",
        "https://ghcr.io",
        "ghcr.io/UPPER",
        "ghcr.io/acme/net:",
        "ghcr.io/a@sha256:x",
    ] {
        let error = RegistryPart::parse(text).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{text}: {error}");
    }
}

/// OpenTofu's rule that one directory is not both
#[test]
fn a_directory_that_is_plugin_cache_and_mirror_is_a_problem() {
    let (_keep, dir) = temporary();
    let tofurc = |cache: &str, mirror: &str| {
        let file = dir.join("rc");
        let text = format!(
            "plugin_cache_dir = {cache:?}\nprovider_installation {{\n  filesystem_mirror {{\n    \
             path = {mirror:?}\n  }}\n}}\n"
        );
        fs::write(&file, text).unwrap();
        Tofurc::load_file(&file, &crate::cli::tofurc::ClientEnvironment::new(&dir))
            .map_err(|e| e.to_string())
    };
    let (cache, link) = (dir.join("cache"), dir.join("link"));
    symlink(&cache, &link).unwrap();
    let (cache, link) = (cache.to_str().unwrap(), link.to_str().unwrap());
    let mut host = Surroundings { configuration: tofurc(cache, link), ..sound(&dir) };
    says(&host, "plugin cache", Mark::Problem, "is the plugin cache and a mirror too");
    host.configuration = tofurc("/nowhere", "/nowhere");
    says(&host, "plugin cache", Mark::Problem, "rc:3");
    host.configuration = tofurc("/elsewhere", "/nowhere");
    assert!(host.findings().iter().all(|finding| finding.mark == Mark::Ok));
    host.variables = vec![("TF_PLUGIN_CACHE_DIR", "/nowhere".into())];
    says(&host, "plugin cache", Mark::Problem, "/nowhere is the plugin cache");
    host.own_mounts =
        mountinfo::parse(b"40 22 0:50 / /mnt rw - fuse.tofufs oci:/srv rw,user_id=4711\n");
    says(&host, "mount", Mark::Ok, "/mnt, which the user 4711 mounted");
    host.variables = vec![("TF_PLUGIN_CACHE_DIR", "/mnt/plugins".into())];
    says(&host, "plugin cache", Mark::Problem, "in which nothing can be kept");
}

#[test]
fn an_oci_mirror_that_maps_nothing_is_a_problem() {
    let (_keep, dir) = temporary();
    let file = dir.join("rc");
    let text = "provider_installation {\n  oci_mirror {\n    \
         repository_template = \"r.io/${type}\"\n  }\n}\n";
    fs::write(&file, text).unwrap();
    let tofurc = Tofurc::load_file(&file, &crate::cli::tofurc::ClientEnvironment::new(&dir))
        .map_err(|e| e.to_string());
    let host = Surroundings { configuration: tofurc, ..sound(&dir) };
    says(
        &host,
        "mapping",
        Mark::Problem,
        "rc:2: the repository template \"r.io/${type}\": it must refer to ${hostname}",
    );
}
